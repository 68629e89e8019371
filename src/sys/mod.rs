//! System calls, one thin safe function each, named after the call, and nothing else: no policy, no paths
//! built, no heap use (the child of a clone runs on these alone).
//!
//! This is the only module that may contain `unsafe` or name rustix, libc or nix. A function takes borrowed
//! descriptors and C strings and gives back owned descriptors; its error says which call failed.

pub mod bpf;
pub mod clone;
pub mod credential;
pub mod entry;
pub mod event;
mod fault;
pub mod file;
pub mod fs;
pub mod heap;
pub mod inotify;
pub mod keyring;
pub mod mount;
pub mod netlink;
pub mod probe;
pub mod process;
pub mod procfs;
mod reason;
pub mod sched;
pub mod seal;
pub mod seccomp;
pub mod socket;
pub mod terminal;

pub use fault::{Call, Errno, Fault, Result};
pub use reason::Reason;
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A descriptor known by its number, as the child of a clone knows those it was born with.
///
/// It must stay open for as long as the process uses the result; a number that is not open is an EBADF of the
/// call it is used in, never undefined behaviour of memory.
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd >= 0, "a descriptor's number is not negative");
    // SAFETY: the number is not -1; that it stays open is the caller's promise, see above.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Gives a descriptor up to the process: it closes on exec and not before.
pub fn leak(fd: OwnedFd) -> BorrowedFd<'static> {
    borrow(fd.into_raw_fd())
}

/// A descriptor of a child that will exec soon: closing it would be a system call for nothing, unless there are
/// so many that numbers could run out.
pub struct Lingering(std::mem::ManuallyDrop<OwnedFd>);

/// Well below the usual limit of 1024.
const MANY: RawFd = 256;

impl Lingering {
    pub fn new(fd: OwnedFd) -> Self {
        Self(std::mem::ManuallyDrop::new(fd))
    }
}

impl AsFd for Lingering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.0.as_raw_fd() >= MANY {
            // SAFETY: nobody uses the field after its only drop.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.0) }
        }
    }
}

/// The errno the last failing libc call of this thread left.
fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
