//! The program's entry, instead of the one Rust's runtime brings.
//!
//! That one costs some twenty system calls (the stack's bounds from /proc/self/maps, an alternate stack, handlers)
//! and ignores SIGPIPE, which every container would inherit.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags};

use super::fs::{CWD, Mode, OFlags};
use super::{Call, Errno, Result};

/// Makes `$main`, which gets the arguments and gives the exit code, the program.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        /// # Safety
        /// Called by the C library alone, with what the kernel gave it.
        #[allow(unsafe_code, reason = "the name is what the C library's startup code calls")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: std::ffi::c_int,
            arguments: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: the C library's startup code passes what the kernel gave it.
            let arguments = unsafe { $crate::sys::entry::arguments(count, arguments) };
            std::process::exit($main(arguments))
        }
    };
}

/// # Safety
/// `arguments` points to `count` C strings that stay where they are, as the kernel passes them.
pub unsafe fn arguments(count: c_int, arguments: *const *const c_char) -> Vec<OsString> {
    let string = |place: usize| {
        // SAFETY: the place is below the count, so it lies in the array.
        let place = unsafe { arguments.add(place) };
        // SAFETY: as above; the kernel has filled the array.
        let pointer = unsafe { *place };
        // SAFETY: the caller promises a C string.
        OsStr::from_bytes(unsafe { CStr::from_ptr(pointer) }.to_bytes()).to_owned()
    };
    (0..usize::try_from(count).unwrap_or(0)).map(string).collect()
}

/// Whatever the environment asks for, no backtrace is taken: the release has neither names nor tables for unwinding
/// (scripts/tables.ld), and GCC's library aborts where it finds none. Debug builds have both.
pub fn take_no_backtraces() {
    for name in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
        if !cfg!(debug_assertions) && std::env::var_os(name).is_some() {
            // SAFETY: this is called before anything else, when there is one thread.
            unsafe { std::env::remove_var(name) };
        }
    }
}

/// Opens /dev/null for each of the standard streams that the caller has closed, so that no file of ours gets its
/// number and is taken for it.
pub fn open_standard_streams() -> Result<()> {
    let streams = [0, 1, 2].map(super::borrow);
    let mut entries = streams.each_ref().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::empty()));
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut entries, Some(&now)) {
        Ok(0) | Err(Errno::INTR) => return Ok(()),
        result => result.map_err(|errno| Call::Poll.fault(errno))?,
    };
    for entry in &entries {
        if entry.revents().contains(PollFlags::NVAL) {
            // The lowest free number is the one that is missing. Without close-on-exec: it is a stream now.
            let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty());
            super::leak(null.map_err(|errno| Call::Open.fault(errno))?);
        }
    }
    Ok(())
}
