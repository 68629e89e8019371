//! A procfs that nobody else can have prepared, for every write that must not be caught by a fake one.
//!
//! The handle is a mount of its own, attached nowhere, so nothing can be mounted over its files. Where making
//! one is refused (no privilege, a security module, an old kernel) `/proc` is taken after checking that it is
//! the root of a procfs, and crossing into any other mount below it fails. Open it before the container's
//! root is entered. No heap: the child uses it.

use std::ffi::CStr;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::fs::{self, CWD, Mode, OFlags, ResolveFlags};
use super::{AsFd, BorrowedFd, Call, Errno, Fault, OwnedFd, Result};

/// What is looked at through the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only processes: harmless in whatever hands the handle falls.
    Processes,
    /// `/proc/sys` as well.
    Sysctls,
}

#[derive(Debug)]
pub struct Procfs {
    root: OwnedFd,
}

const SUPER_MAGIC: i64 = 0x9fa0;
const ROOT_INODE: u64 = 1;

impl Procfs {
    pub fn open(reach: Reach) -> Result<Self> {
        let root = detached(reach).or_else(|fault| verified().map_err(|_| fault))?;
        Ok(Self { root })
    }

    /// Writes `value` to a file such as `self/attr/exec` or `sys/kernel/shmmax` in one call.
    pub fn write(&self, path: &CStr, value: &[u8]) -> Result<()> {
        let written = match self.try_write(self.root.as_fd(), path, value) {
            // Security modules that go by path deny what hangs nowhere; the same file below /proc may be allowed.
            Err(fault) if fault.errno == Errno::ACCESS => {
                let root = verified().map_err(|_| fault)?;
                self.try_write(root.as_fd(), path, value).map_err(|_| fault)?
            }
            result => result?,
        };
        if written == value.len() { Ok(()) } else { Err(Call::Write.fault(Errno::IO)) }
    }

    fn try_write(&self, root: BorrowedFd<'_>, path: &CStr, value: &[u8]) -> Result<usize> {
        let file = open_below(root, path, OFlags::WRONLY)?;
        fs::write(&file, value)
    }

    /// Reads the start of a file, as much as fits.
    pub fn read<'b>(&self, path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
        let file = open_below(self.root.as_fd(), path, OFlags::RDONLY)?;
        let length = fs::read(&file, buffer)?;
        Ok(&buffer[..length])
    }
}

fn open_below(root: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    // `self` is the one link that is followed: only the kernel makes it.
    if !path.to_bytes().starts_with(b"self/") {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    fs::openat2(root, path, flags | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

fn detached(reach: Reach) -> Result<OwnedFd> {
    let call = |call: Call| move |errno: Errno| call.fault(errno);
    let context = rustix::mount::fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(call(Call::FsOpen))?;
    if reach == Reach::Processes {
        rustix::mount::fsconfig_set_string(&context, c"subset", c"pid").map_err(call(Call::FsConfig))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(call(Call::FsConfig))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(call(Call::FsMount))
}

fn verified() -> Result<OwnedFd> {
    let root = fs::openat(CWD, c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    if fs::file_system(&root)? != SUPER_MAGIC {
        return Err(Fault { call: Call::Statfs, errno: Errno::XDEV });
    }
    match fs::fstat(&root)?.st_ino {
        ROOT_INODE => Ok(root),
        _ => Err(Fault { call: Call::Stat, errno: Errno::XDEV }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_name(procfs: &Procfs) -> Vec<u8> {
        let mut buffer = [0; 64];
        procfs.read(c"self/comm", &mut buffer).unwrap().to_vec()
    }

    #[test]
    fn both_kinds_of_handle_reach_this_process() {
        let handle = Procfs { root: verified().unwrap() };
        assert!(!own_name(&handle).is_empty());
        handle.write(c"self/comm", b"renamed").unwrap();
        assert_eq!(own_name(&handle), b"renamed\n");
        assert!(!own_name(&Procfs::open(Reach::Processes).unwrap()).is_empty());
    }

    #[test]
    fn no_way_leads_out() {
        let handle = Procfs::open(Reach::Sysctls).unwrap();
        let errno = |path| handle.write(path, b"x").unwrap_err().errno;
        assert_eq!(errno(c"../etc/passwd"), Errno::XDEV);
        assert_eq!(errno(c"self/root/etc/passwd"), Errno::LOOP);
        assert_eq!(errno(c"mounts"), Errno::LOOP);
        assert_eq!(errno(c"sys/no/such"), Errno::NOENT);
    }

    #[test]
    fn processes_alone_show_no_sysctls() {
        if super::super::process::effective_uid() == 0 {
            let handle = Procfs { root: detached(Reach::Processes).unwrap() };
            assert!(handle.read(c"sys/kernel/ostype", &mut [0; 8]).is_err());
        }
    }
}
