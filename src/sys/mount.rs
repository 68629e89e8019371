//! Mounts by descriptor: the new mount API of Linux 5.2 to 5.12, pivot_root and umount2.
//!
//! A mount is made detached (`fsopen` and `fsmount`, or `open_tree`), gets its attributes, and is attached with
//! `move_mount`, so that no path is looked up twice.

use std::ffi::CStr;

pub use rustix::mount::UnmountFlags;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use super::{AsFd, AsRawFd, Call, OwnedFd, Result, last_errno};

/// Mount attributes, as `fsmount` and `mount_setattr` take them.
pub mod attribute {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The field of access time modes; RELATIME is its zero.
    pub const ATIME: u64 = 0x70;
    pub const RELATIME: u64 = 0x0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x10_0000;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// How mounts below a mount spread to its copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Propagation {
    Unbindable = 1 << 17,
    Private = 1 << 18,
    Slave = 1 << 19,
    Shared = 1 << 20,
}

/// What `mount_setattr` changes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Change {
    pub const fn attributes(set: u64, clear: u64) -> Self {
        Self { set, clear, propagation: 0, user_namespace: 0 }
    }

    pub const fn propagation(kind: Propagation) -> Self {
        Self { set: 0, clear: 0, propagation: kind as u64, user_namespace: 0 }
    }

    /// Ids are shown as the maps of the user namespace `namespace` say.
    pub fn idmap(namespace: impl AsFd) -> Self {
        let user_namespace = namespace.as_fd().as_raw_fd() as u64;
        Self { set: attribute::IDMAP, clear: 0, propagation: 0, user_namespace }
    }

    pub const fn with_propagation(self, kind: Propagation) -> Self {
        Self { propagation: kind as u64, ..self }
    }
}

/// Which mount a path names, and how far below it a call reaches.
#[derive(Clone, Copy, Default)]
pub struct Lookup {
    /// The mount and all below it.
    pub recursive: bool,
    /// A symbolic link at the end of the path is not followed.
    pub nofollow: bool,
}

pub fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| Call::FsOpen.fault(errno))
}

pub fn fsconfig_flag(context: impl AsFd, key: &CStr) -> Result<()> {
    mount::fsconfig_set_flag(context.as_fd(), key).map_err(|errno| Call::FsConfig.fault(errno))
}

pub fn fsconfig_string(context: impl AsFd, key: &CStr, value: &CStr) -> Result<()> {
    mount::fsconfig_set_string(context.as_fd(), key, value).map_err(|errno| Call::FsConfig.fault(errno))
}

pub fn fsconfig_create(context: impl AsFd) -> Result<()> {
    mount::fsconfig_create(context.as_fd()).map_err(|errno| Call::FsConfig.fault(errno))
}

/// A detached mount of the file system that `context` has made, with bits of `attribute`.
pub fn fsmount(context: impl AsFd, attributes: u64) -> Result<OwnedFd> {
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| Call::FsMount.fault(errno))
}

/// A detached copy of the mount at `path`; an empty path means `dir` itself.
pub fn open_tree(dir: impl AsFd, path: &CStr, lookup: Lookup) -> Result<OwnedFd> {
    let flags = mount::OpenTreeFlags::OPEN_TREE_CLONE.bits()
        | mount::OpenTreeFlags::OPEN_TREE_CLOEXEC.bits()
        | at_flags(path, lookup);
    mount::open_tree(dir, path, mount::OpenTreeFlags::from_bits_retain(flags))
        .map_err(|errno| Call::OpenTree.fault(errno))
}

/// Attaches `mount`, detached or not, at `path`, whose last component is never followed; an empty path means `dir`.
pub fn move_mount(mount: impl AsFd, dir: impl AsFd, path: &CStr) -> Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    mount::move_mount(mount, c"", dir, path, flags).map_err(|errno| Call::MoveMount.fault(errno))
}

/// Changes the mount at `path`; an empty path means the mount behind `dir`.
pub fn mount_setattr(dir: impl AsFd, path: &CStr, lookup: Lookup, change: Change) -> Result<()> {
    let flags = at_flags(path, lookup);
    let dir = dir.as_fd().as_raw_fd();
    // SAFETY: `path` ends with NUL and `change` has the layout and size of the kernel's `struct mount_attr`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            &raw const change,
            size_of::<Change>(),
        )
    };
    if result < 0 { Err(Call::MountSetattr.fault(last_errno())) } else { Ok(()) }
}

/// The attributes of the mount `fd` lies on.
pub fn attributes(fd: impl AsFd) -> Result<u64> {
    use rustix::fs::StatVfsMountFlags as Flags;
    let stat = rustix::fs::fstatvfs(fd).map_err(|errno| Call::Statfs.fault(errno))?;
    let pairs = [
        (Flags::RDONLY.bits(), attribute::RDONLY),
        (Flags::NOSUID.bits(), attribute::NOSUID),
        (Flags::NODEV.bits(), attribute::NODEV),
        (Flags::NOEXEC.bits(), attribute::NOEXEC),
        (Flags::NOATIME.bits(), attribute::NOATIME),
        (Flags::NODIRATIME.bits(), attribute::NODIRATIME),
        (ST_NOSYMFOLLOW, attribute::NOSYMFOLLOW),
    ];
    let flags = stat.f_flag.bits();
    let bits = pairs.iter().filter(|pair| flags & pair.0 != 0).fold(0, |bits, pair| bits | pair.1);
    // Neither of the two means strict access times, which have no flag of their own.
    let strict = flags & (Flags::NOATIME.bits() | Flags::RELATIME.bits()) == 0;
    Ok(if strict { bits | attribute::STRICTATIME } else { bits })
}

const ST_NOSYMFOLLOW: u64 = 0x2000;

pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    rustix::process::pivot_root(new, old).map_err(|errno| Call::PivotRoot.fault(errno))
}

/// The call from before the new mount API, for its one advantage: it takes settings of any length. `attributes` are
/// bits of `attribute`.
pub fn mount(source: &CStr, path: &CStr, kind: &CStr, attributes: u64, data: &CStr) -> Result<()> {
    use mount::MountFlags;
    let pairs = [
        (attribute::RDONLY, MountFlags::RDONLY),
        (attribute::NOSUID, MountFlags::NOSUID),
        (attribute::NODEV, MountFlags::NODEV),
        (attribute::NOEXEC, MountFlags::NOEXEC),
        (attribute::NOATIME, MountFlags::NOATIME),
        (attribute::STRICTATIME, MountFlags::STRICTATIME),
        (attribute::NODIRATIME, MountFlags::NODIRATIME),
        (attribute::NOSYMFOLLOW, MountFlags::from_bits_retain(libc::MS_NOSYMFOLLOW as u32)),
    ];
    let set = pairs.iter().filter(|pair| attributes & pair.0 != 0);
    let flags = set.fold(MountFlags::empty(), |flags, pair| flags | pair.1);
    mount::mount(source, path, kind, flags, data).map_err(|errno| Call::Mount.fault(errno))
}

pub fn umount(path: &CStr, flags: UnmountFlags) -> Result<()> {
    mount::unmount(path, flags).map_err(|errno| Call::Umount.fault(errno))
}

fn at_flags(path: &CStr, lookup: Lookup) -> u32 {
    let empty = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let recursive = if lookup.recursive { libc::AT_RECURSIVE } else { 0 };
    let nofollow = if lookup.nofollow { libc::AT_SYMLINK_NOFOLLOW } else { 0 };
    (empty | recursive | nofollow) as u32
}

/// A path as mountinfo writes it: blanks and backslashes are three octal digits. For the parent: it allocates.
pub fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mountinfo_are_read() {
        let table = [
            ("/a\\040b\\011c", "/a b\tc"),
            ("a\\134b\\01", "a\\b\\01"),
            ("\\0401", " 1"),
            ("\\134040", "\\040"),
        ];
        for (field, path) in table {
            assert_eq!(unescape(field), path);
        }
    }
}
