//! The container's cgroup in the v2 tree: where it lies, making and removing it, what it limits, which
//! devices it allows, stopping and killing what runs in it, and what it has used.
//!
//! Deciding is pure: `path` (config -> place), `limits` and `io` (resources -> files and values), `devices`
//! (rules -> instructions). `mount`, `tree`, `apply`, `attach`, `control`, `watch` and `usage` act or read.
//! A path inside the tree is relative to the mount and has no leading slash; symbolic links do not exist there.
//!
//! Nothing here knows containers, and nothing here writes to a cgroup it was not given.

mod apply;
mod attach;
mod control;
pub mod devices;
pub mod gauge;
mod io;
pub mod limits;
mod mount;
mod owner;
pub mod path;
mod tree;
pub mod usage;
mod watch;

pub use apply::{apply, replace};
pub use attach::{Attached, attach};
pub use control::Freezers;
pub use gauge::Gauge;
pub use io::unheeded;
pub use mount::{Mount, of_process};
pub use owner::hand_over;
pub use tree::{Cgroup, Request, remove, remove_empty, remove_parents};
pub use watch::{Change, Watch};

use std::ffi::{CStr, CString};

use gauge::number_of as value_of;

use crate::sys::{self, AsFd, BorrowedFd, fs, leak};

/// Reads a control file that the kernel writes in one piece: all but lists of processes.
fn read_file(directory: BorrowedFd<'_>, name: &CStr) -> sys::Result<String> {
    let file = fs::openat(directory, name, fs::OFlags::RDONLY, fs::Mode::empty())?;
    read(&file, true)
}

/// As `read_file`, once in the life of a short process: the descriptor closes with it.
fn read_file_once(directory: BorrowedFd<'_>, name: &CStr) -> sys::Result<String> {
    let file = leak(fs::openat(directory, name, fs::OFlags::RDONLY, fs::Mode::empty())?);
    read(file, true)
}

/// Reads a file to its end. A file of `one_piece` has ended when it does not fill the buffer, which saves a
/// call; a list may stop short of the buffer between two of its lines.
fn read(file: impl AsFd, one_piece: bool) -> sys::Result<String> {
    let mut content = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let length = fs::read(&file, &mut buffer)?;
        content.extend_from_slice(&buffer[..length]);
        if length == 0 || (one_piece && length < buffer.len()) {
            return Ok(String::from_utf8_lossy(&content).into_owned());
        }
    }
}

fn write_file(directory: BorrowedFd<'_>, name: &CStr, value: &str) -> sys::Result<()> {
    let file = fs::openat(directory, name, fs::OFlags::WRONLY, fs::Mode::empty())?;
    fs::write(&file, value.as_bytes()).map(drop)
}

/// A name that is known to hold no NUL byte, because a `spec::Str` or the kernel gave it.
fn c_name(name: &str) -> CString {
    CString::new(name).expect("names in the tree hold no NUL byte")
}

fn pairs(content: &str) -> impl Iterator<Item = (&str, u64)> {
    content.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}
