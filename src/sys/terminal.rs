//! Terminals: ioctls on ptys, and raw mode.

use rustix::termios;
pub use rustix::termios::Termios;

use super::{AsFd, AsRawFd, Call, FromRawFd, OwnedFd, Result, last_errno};

/// Lets the slave of this pty master be opened.
pub fn unlock(master: impl AsFd) -> Result<()> {
    rustix::pty::unlockpt(master).map_err(|errno| Call::Ioctl.fault(errno))
}

/// Opens the slave of this pty master, whatever lies under its name.
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes flags and returns a descriptor; no memory is touched.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(Call::Ioctl.fault(last_errno()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn set_size(terminal: impl AsFd, rows: u32, columns: u32) -> Result<()> {
    let size = termios::Winsize {
        ws_row: rows.try_into().unwrap_or(u16::MAX),
        ws_col: columns.try_into().unwrap_or(u16::MAX),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    termios::tcsetwinsize(terminal, size).map_err(|errno| Call::Ioctl.fault(errno))
}

/// Rows and columns.
pub fn size(terminal: impl AsFd) -> Result<(u32, u32)> {
    termios::tcgetwinsize(terminal)
        .map(|size| (size.ws_row.into(), size.ws_col.into()))
        .map_err(|errno| Call::Ioctl.fault(errno))
}

/// Makes `terminal` the controlling terminal of this session.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal).map_err(|errno| Call::Ioctl.fault(errno))
}

/// The terminal's modes, or an error where `fd` is no terminal.
pub fn modes(fd: impl AsFd) -> Result<Termios> {
    termios::tcgetattr(fd).map_err(|errno| Call::Ioctl.fault(errno))
}

pub fn set_modes(fd: impl AsFd, modes: &Termios) -> Result<()> {
    termios::tcsetattr(fd, termios::OptionalActions::Now, modes).map_err(|errno| Call::Ioctl.fault(errno))
}

/// `modes` with every key passed on as it is.
pub fn raw(modes: &Termios) -> Termios {
    let mut raw = modes.clone();
    raw.make_raw();
    raw
}
