//! Where something is mounted: a path below the root or below a mount of ours, opened without ever leaving it.
//!
//! The child runs this. Where a target does not exist it is made, with the links of the rootfs on the way taken as
//! they are seen inside; a link that changes meanwhile makes the last look-up fail, never escape.

use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::MaybeUninit;

use crate::sys::fs::{self, Mode, OFlags, ResolveFlags};
use crate::sys::{BorrowedFd, Call, Errno, OwnedFd, Result};

/// A descriptor that a target is looked up from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    Root,
    /// These were mounted by us a moment ago; nobody else has a way to change what is in them.
    Dev,
    Proc,
    Sys,
}

/// A place in the container.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub base: Base,
    /// Relative to the base; empty for the base itself.
    pub path: CString,
    /// Nothing on the path can be a link that leads elsewhere, so the kernel may look it up in the call itself.
    pub direct: bool,
    /// A link on the way is an error: for file systems that must lie exactly where they are asked to.
    pub rigid: bool,
    /// A link at the end is not followed but mounted on.
    pub nofollow: bool,
    /// Most likely not there yet; only saves a call.
    pub absent: bool,
    /// As the config has it.
    pub text: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// No link is followed on the way, and the path does not leave its base.
const STRAIGHT: ResolveFlags = fs::IN_ROOT.union(ResolveFlags::NO_SYMLINKS);

pub const DIRECTORY_MODE: u32 = 0o755;
pub const FILE_MODE: u32 = 0o644;

impl Target {
    /// Opens a place that exists.
    pub fn open(&self, base: BorrowedFd<'_>) -> Result<OwnedFd> {
        let mut flags = OFlags::PATH;
        flags.set(OFlags::NOFOLLOW, self.nofollow || self.rigid);
        // Without this, a link at the end would be opened itself.
        flags.set(OFlags::DIRECTORY, self.rigid);
        let resolve = if self.rigid { STRAIGHT } else { fs::IN_ROOT };
        let path = if self.path.is_empty() { c"." } else { self.path.as_c_str() };
        fs::openat2(base, path, flags, Mode::empty(), resolve)
    }

    /// Opens, and makes if needed, the directory this place lies in; with the place's name there.
    pub fn split(&self, base: BorrowedFd<'_>) -> Result<(OwnedFd, &CStr)> {
        let bytes = self.path.to_bytes();
        let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let mut parent = Buffer::new();
        parent.push(&bytes[..start])?;
        let name = CStr::from_bytes_until_nul(&self.path.as_bytes_with_nul()[start..]).unwrap_or_default();
        Ok((make(base, parent.path(), Kind::Directory, true)?, name))
    }

    /// Opens a place and makes it, as a directory or an empty file, if it is not there.
    pub fn open_or_make(&self, base: BorrowedFd<'_>, directory: bool) -> Result<OwnedFd> {
        match self.open(base) {
            Err(fault) if fault.errno == Errno::NOENT => {
                let kind = if directory { Kind::Directory } else { Kind::File };
                make(base, &self.path, kind, !self.rigid)
            }
            result => result,
        }
    }
}

/// What `make` leaves at the end of a path.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Directory,
    File,
}

/// Makes all directories of `path` below `base`, and at its end a directory or an empty file, and opens that.
pub fn make(base: BorrowedFd<'_>, path: &CStr, kind: Kind, follow: bool) -> Result<OwnedFd> {
    let mut rest = Buffer::new();
    rest.push(path.to_bytes())?;
    let mut done = Buffer::new();
    let mut links = 0;
    while let Some(component) = rest.shift() {
        match component.as_bytes() {
            b"." => continue,
            b".." => {
                done.pop();
                continue;
            }
            _ => {}
        }
        let directory = open_straight(base, done.path(), OFlags::DIRECTORY)?;
        let mut link = [MaybeUninit::uninit(); LIMIT];
        match fs::readlinkat(&directory, component.path(), &mut link) {
            Ok(target) => {
                links += 1;
                if links > MAXIMAL_LINKS || !follow {
                    return Err(Call::Readlink.fault(Errno::LOOP));
                }
                if target.first() == Some(&b'/') {
                    done = Buffer::new();
                }
                rest.put_before(target)?;
                continue;
            }
            // Not a link.
            Err(fault) if fault.errno == Errno::INVAL => {}
            Err(fault) if fault.errno == Errno::NOENT => {
                make_one(&directory, component.path(), kind == Kind::Directory || !rest.is_empty())?;
            }
            Err(fault) => return Err(fault),
        }
        done.push_component(component.as_bytes())?;
    }
    open_straight(base, done.path(), OFlags::empty())
}

fn make_one(parent: &OwnedFd, name: &CStr, directory: bool) -> Result<()> {
    let result = match directory {
        true => fs::mkdirat(parent, name, Mode::from_bits_retain(DIRECTORY_MODE)),
        false => {
            let mode = Mode::from_bits_retain(FILE_MODE);
            fs::mknodat(parent, name, fs::FileType::RegularFile, mode, 0, 0)
        }
    };
    match result {
        // Somebody else made it; whether it is what it should be shows when it is opened.
        Err(fault) if fault.errno == Errno::EXIST => Ok(()),
        result => result,
    }
}

fn open_straight(base: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { c"." } else { path };
    fs::openat2(base, path, OFlags::PATH | OFlags::NOFOLLOW | flags, Mode::empty(), STRAIGHT)
}

/// As many as the kernel follows.
const MAXIMAL_LINKS: usize = 40;
/// The longest path the kernel takes, with its NUL.
const LIMIT: usize = 4096;

/// A path on the stack, always with a NUL behind it.
struct Buffer {
    bytes: [u8; LIMIT],
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; LIMIT], length: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn is_empty(&self) -> bool {
        self.as_bytes().iter().all(|byte| *byte == b'/')
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    fn push(&mut self, more: &[u8]) -> Result<()> {
        let end = self.length + more.len();
        if end >= LIMIT {
            return Err(Call::Openat2.fault(Errno::NAMETOOLONG));
        }
        self.bytes[self.length..end].copy_from_slice(more);
        self.length = end;
        Ok(())
    }

    fn push_component(&mut self, name: &[u8]) -> Result<()> {
        if self.length > 0 {
            self.push(b"/")?;
        }
        self.push(name)
    }

    /// Removes the last component.
    fn pop(&mut self) {
        let start = self.as_bytes().iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.bytes[start..self.length].fill(0);
        self.length = start;
    }

    /// Removes the first component and gives it.
    fn shift(&mut self) -> Option<Buffer> {
        let start = self.as_bytes().iter().position(|byte| *byte != b'/')?;
        let length = self.bytes[start..self.length].iter().position(|byte| *byte == b'/');
        let end = length.map_or(self.length, |length| start + length);
        let mut first = Buffer::new();
        first.bytes[..end - start].copy_from_slice(&self.bytes[start..end]);
        first.length = end - start;
        self.bytes.copy_within(end..self.length, 0);
        self.bytes[self.length - end..self.length].fill(0);
        self.length -= end;
        Some(first)
    }

    fn put_before(&mut self, front: &[u8]) -> Result<()> {
        let mut whole = Buffer::new();
        whole.push(front)?;
        whole.push(b"/")?;
        whole.push(self.as_bytes())?;
        *self = whole;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_buffer_gives_components_from_both_ends() {
        let mut buffer = Buffer::new();
        buffer.push(b"/a//b/c/").unwrap();
        assert_eq!(buffer.shift().unwrap().as_bytes(), b"a");
        buffer.put_before(b"x/y").unwrap();
        assert_eq!(buffer.shift().unwrap().as_bytes(), b"x");
        assert_eq!(buffer.shift().unwrap().as_bytes(), b"y");
        assert_eq!(buffer.shift().unwrap().as_bytes(), b"b");
        assert_eq!(buffer.shift().unwrap().path(), c"c");
        assert!(buffer.shift().is_none());
        let mut done = Buffer::new();
        done.push_component(b"a").unwrap();
        done.push_component(b"b").unwrap();
        done.pop();
        assert_eq!(done.path(), c"a");
        done.pop();
        done.pop();
        assert_eq!(done.path(), c"");
    }

    fn made(root: &std::path::Path, path: &CStr, kind: Kind) -> Result<()> {
        let base = std::fs::File::open(root).unwrap();
        make(base.as_fd(), path, kind, true).map(drop)
    }

    #[test]
    fn links_of_the_root_stay_in_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/../../escape", root.join("up")).unwrap();
        symlink("../run/resolve/conf", root.join("etc/resolv.conf")).unwrap();
        symlink(outer.path().join("host"), root.join("absolute")).unwrap();
        made(&root, c"up/here", Kind::Directory).unwrap();
        made(&root, c"etc/resolv.conf", Kind::File).unwrap();
        made(&root, c"absolute", Kind::Directory).unwrap();
        assert!(root.join("escape/here").is_dir());
        assert!(root.join("run/resolve/conf").is_file());
        assert!(!outer.path().join("escape").exists());
        assert!(!outer.path().join("host").exists());
    }

    #[test]
    fn loops_and_files_on_the_way_are_errors() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let errno = |path, kind| made(root.path(), path, kind).unwrap_err().errno;
        assert_eq!(errno(c"a/x", Kind::Directory), Errno::LOOP);
        assert_eq!(errno(c"file/x", Kind::Directory), Errno::NOTDIR);
    }
}
