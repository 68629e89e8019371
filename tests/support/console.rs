//! The engine's side of `--console-socket`: a unix socket that receives the master of a pseudo-terminal.

use super::eventually;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

pub struct ConsoleSocket {
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens at `path`. The kernel allows 107 bytes for it.
    #[track_caller]
    pub fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("listen on {path:?}: {error}"));
        listener.set_nonblocking(true).expect("make the listener non-blocking");
        Self { listener }
    }

    /// The one message of the protocol: a descriptor, and a name as payload.
    #[track_caller]
    pub fn accept(&self) -> Console {
        let stream = eventually("a connection to the console socket", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).expect("make the stream blocking");
        let mut payload = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut payload)], &mut control, RecvFlags::CMSG_CLOEXEC)
                .expect("receive from the console socket");
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        assert_eq!(descriptors.len(), 1, "the console socket got {} descriptors", descriptors.len());
        let name = String::from_utf8_lossy(&payload[..received.bytes]).into_owned();
        Console { master: descriptors.remove(0), name, seen: Vec::new() }
    }
}

pub struct Console {
    pub master: OwnedFd,
    /// What came along as payload.
    pub name: String,
    seen: Vec<u8>,
}

impl Console {
    /// A new terminal, and its other end for a program.
    #[track_caller]
    pub fn open() -> (Self, OwnedFd) {
        let open = || {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let terminal = ioctl_tiocgptpeer(&master, flags)?;
            Ok::<_, rustix::io::Errno>((master, terminal))
        };
        let (master, terminal) = open().expect("open a terminal");
        (Self { master, name: String::new(), seen: Vec::new() }, terminal)
    }

    /// Reads until `text` has been seen or the other side is closed; answers everything seen so far.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> String {
        eventually(&format!("{text:?} on the terminal"), || {
            let open = self.read_some();
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            assert!(open || seen.contains(text), "the terminal closed without {text:?} after {seen:?}");
            seen.contains(text).then_some(seen)
        })
    }

    /// Reads until every process has closed the terminal.
    #[track_caller]
    pub fn read_to_end(&mut self) -> String {
        eventually("the terminal to close", || (!self.read_some()).then_some(()));
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// One read, if there is something to read; false when the terminal is closed (EIO on Linux).
    fn read_some(&mut self) -> bool {
        let brief = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&brief)).expect("poll the terminal")
            == 0
        {
            return true;
        }
        let mut piece = [0; 4096];
        match rustix::io::read(&self.master, &mut piece) {
            Ok(count) if count > 0 => {
                self.seen.extend_from_slice(&piece[..count]);
                true
            }
            _ => false,
        }
    }

    #[track_caller]
    pub fn write(&self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(self.master.as_fd(), rest).expect("write to the terminal")..];
        }
    }

    /// Rows and columns.
    pub fn size(&self) -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(&self.master).expect("read the terminal's size");
        (size.ws_row, size.ws_col)
    }
}
