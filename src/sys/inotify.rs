//! Being told when files change.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::{AsFd, Call, Errno, OwnedFd, Result};

/// What to be told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Names that come into and go from a directory, and files in it that are replaced.
    Names,
    /// A file's content.
    Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// As `add_watch` gave it; -1 when notices were lost.
    pub watch: i32,
    /// Which name of a directory.
    pub name: Option<CString>,
    /// What was watched is gone, and the watch with it.
    pub ended: bool,
}

/// A descriptor that never blocks.
pub fn inotify() -> Result<OwnedFd> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| Call::Inotify.fault(errno))
}

pub fn add_watch(inotify: impl AsFd, path: &CStr, watched: Watched) -> Result<i32> {
    let flags = match watched {
        Watched::Names => {
            WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ONLYDIR
        }
        Watched::Content => WatchFlags::MODIFY,
    };
    inotify::add_watch(inotify, path, flags).map_err(|errno| Call::Inotify.fault(errno))
}

pub fn remove_watch(inotify: impl AsFd, watch: i32) -> Result<()> {
    inotify::remove_watch(inotify, watch).map_err(|errno| Call::Inotify.fault(errno))
}

/// Everything there is to be told now.
pub fn notices(inotify: impl AsFd) -> Result<Vec<Notice>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify.as_fd(), &mut buffer);
    let mut notices = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => notices.push(Notice {
                watch: event.wd(),
                name: event.file_name().map(CStr::to_owned),
                ended: event.events().contains(ReadFlags::IGNORED),
            }),
            Err(Errno::AGAIN) => return Ok(notices),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Call::Inotify.fault(errno)),
        }
    }
}
