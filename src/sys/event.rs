//! Waiting for several things at once.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::process::SignalSet;
use super::{AsFd, BorrowedFd, Call, Errno, FromRawFd, OwnedFd, Result, last_errno};

/// A descriptor from which the signals of `set` are read; they must be blocked.
pub fn signalfd(set: &SignalSet) -> Result<OwnedFd> {
    // SAFETY: the set is readable for the call; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_raw(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(Call::Signalfd.fault(last_errno()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal waiting in a signalfd, if any.
pub fn next_signal(signals: impl AsFd) -> Result<Option<i32>> {
    let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut bytes) {
        // The number is the first word of the structure.
        Ok(length) if length == bytes.len() => {
            Ok(Some(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])))
        }
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(Call::Read.fault(errno)),
    }
}

/// What to wait for on a descriptor. Its end is always waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Nothing,
    Read,
    Write,
    /// File systems that tell about changes do it with this: cgroup.events, mountinfo, PSI.
    Change,
}

/// Waits until one of the descriptors is ready or `limit` has passed; says for each whether it is.
pub fn poll<const N: usize>(
    waiting: [(BorrowedFd<'_>, Interest); N],
    limit: Option<Duration>,
) -> Result<[bool; N]> {
    let mut entries = waiting.each_ref().map(|(fd, interest)| {
        let flags = match interest {
            Interest::Nothing => PollFlags::empty(),
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::Change => PollFlags::PRI,
        };
        PollFd::from_borrowed_fd(*fd, flags)
    });
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(&mut entries, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(entries.each_ref().map(|entry| !entry.revents().is_empty())),
        Err(errno) => Err(Call::Poll.fault(errno)),
    }
}
