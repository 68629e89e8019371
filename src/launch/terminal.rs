//! The container's terminal: made inside its own devpts, handed to whoever asked for it.
//!
//! The slave is opened from the master (TIOCGPTPEER), never by the name `/dev/pts/N`, which a hostile process
//! could replace. The child runs this: system calls only.

use std::ffi::CStr;

use crate::spec::ConsoleSize;
use crate::sys::{AsFd, BorrowedFd, Call, Errno, OwnedFd, Result, fs, socket, terminal};

/// Opens a pty below `root`, gives it a size and sends its master to `console` under the name `/dev/ptmx`; gives
/// the other end.
pub fn open(root: BorrowedFd<'_>, console: BorrowedFd<'_>, size: Option<ConsoleSize>) -> Result<OwnedFd> {
    let flags = fs::OFlags::RDWR | fs::OFlags::NOCTTY | fs::OFlags::NOFOLLOW;
    let master = fs::openat2(root, PTMX, flags, fs::Mode::empty(), fs::IN_ROOT)?;
    if fs::file_system(&master)? != DEVPTS_MAGIC {
        return Err(Call::Openat2.fault(Errno::NOTTY));
    }
    terminal::unlock(&master)?;
    let slave = terminal::peer(&master)?;
    if let Some(size) = size {
        terminal::set_size(&master, size.height, size.width)?;
    }
    socket::send_with_fd(console, b"/dev/ptmx", master.as_fd())?;
    Ok(slave)
}

const PTMX: &CStr = c"dev/pts/ptmx";
const DEVPTS_MAGIC: i64 = 0x1cd1;
