//! Fills a new tmpfs with the directory it is about to hide (mount option tmpcopyup).
//!
//! Everything is opened one name at a time below descriptors and without following links, so a directory that
//! changes meanwhile can make the copy fail or differ, not read or write anything outside.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use crate::sys::fs::{self, AtFlags, FileType, Mode, OFlags};
use crate::sys::{AsFd, BorrowedFd, Call, Errno, Fault, OwnedFd, Result};

/// Directories deeper than this are refused, because every level needs room on the stack.
const DEEPEST: usize = 64;

/// Copies what is in `from` into `to`.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy_directory(open_directory(from, c".")?, to, 0)
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

fn copy_directory(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == DEEPEST {
        return Err(Call::Mkdir.fault(Errno::NAMETOOLONG));
    }
    let mut first: Option<Fault> = None;
    fs::entries(&from, |name, _| {
        if first.is_none() {
            first = copy_entry(from.as_fd(), to, name, depth).err();
        }
    })?;
    first.map_or(Ok(()), Err)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_bits_retain(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, mode)?;
            own(to, name, &stat)?;
            let below = open_directory(to, name)?;
            fs::fchmod(&below, mode)?;
            copy_directory(open_directory(from, name)?, below.as_fd(), depth + 1)
        }
        FileType::RegularFile => copy_file(from, to, name, &stat),
        FileType::Symlink => {
            let mut buffer = [MaybeUninit::uninit(); 4095];
            let text = fs::readlinkat(from, name, &mut buffer)?;
            let mut link = [0; 4096];
            link[..text.len()].copy_from_slice(text);
            fs::symlinkat(CStr::from_bytes_until_nul(&link).unwrap_or_default(), to, name)?;
            own(to, name, &stat)
        }
        kind => {
            let (major, minor) = fs::device_parts(stat.st_rdev);
            fs::mknodat(to, name, kind, mode, major, minor)?;
            own(to, name, &stat)
        }
    }
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &fs::Stat) -> Result<()> {
    match (stat.st_uid, stat.st_gid) {
        (0, 0) => Ok(()),
        (uid, gid) => fs::chownat(to, name, uid, Some(gid), AtFlags::SYMLINK_NOFOLLOW),
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &fs::Stat) -> Result<()> {
    let source = fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(Call::Open.fault(Errno::INVAL));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let copy = fs::openat(to, name, flags, Mode::from_bits_retain(0o600))?;
    let mut buffer = [0; 16384];
    loop {
        let length = fs::read(&source, &mut buffer)?;
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            rest = &rest[fs::write(&copy, rest)?..];
        }
    }
    own(to, name, stat)?;
    // Last, because a change of owner takes the set-user-id bit away.
    fs::fchmod(&copy, Mode::from_bits_retain(stat.st_mode & 0o7777))
}
