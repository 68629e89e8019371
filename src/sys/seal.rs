//! The file this program runs from: whether somebody who reaches it through /proc/PID/exe could write to it, and
//! running from a view of it that nobody can write to.

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::mount::OpenTreeFlags;

use super::clone::StringArray;
use super::fs::{Access, AtFlags, CWD, Mode, OFlags, openat};
use super::{AsRawFd, BorrowedFd, Call, Errno, Fault, OwnedFd, Result, last_errno};

pub fn own_executable() -> Result<OwnedFd> {
    openat(CWD, c"/proc/self/exe", OFlags::RDONLY, Mode::empty())
}

/// Whether this program was executed through a read-only mount, asked in one call.
pub fn is_on_read_only_mount() -> Result<bool> {
    let mount = rustix::fs::statvfs(c"/proc/self/exe").map_err(|errno| Call::Statfs.fault(errno))?;
    Ok(mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Whether the kernel refuses every write to this file through this descriptor's mount: the mount is read-only,
/// the file is immutable, its content is protected by fs-verity, or it is a memfd that is sealed.
pub fn is_write_protected(file: BorrowedFd<'_>) -> Result<bool> {
    let mount = rustix::fs::fstatvfs(file).map_err(|errno| Call::Statfs.fault(errno))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .map_err(|errno| Call::Statx.fault(errno))?;
    if stat.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::VERITY) {
        return Ok(true);
    }
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) => Ok(seals.contains(ALL)),
        // No memfd.
        Err(Errno::INVAL | Errno::BADF) => Ok(false),
        Err(errno) => Err(Call::Stat.fault(errno)),
    }
}

const ALL: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Whether the file's own permissions let this process write to it.
pub fn is_writable(file: BorrowedFd<'_>) -> bool {
    rustix::fs::accessat(CWD, super::fs::FdPath::new(file).as_c_str(), Access::WRITE_OK, AtFlags::EACCESS)
        .is_ok()
}

/// The file through a read-only mount of its own that is attached nowhere. Needs the right to mount.
pub fn read_only_view(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let view = rustix::mount::open_tree(file, c"", flags).map_err(|errno| Call::OpenTree.fault(errno))?;
    let lookup = super::mount::Lookup { recursive: false, nofollow: false };
    let read_only = super::mount::Change::attributes(super::mount::attribute::RDONLY, 0);
    super::mount::mount_setattr(&view, c"", lookup, read_only)?;
    Ok(view)
}

/// A copy in memory that nobody can change, not even its owner.
pub fn sealed_copy(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(c"deja", flags).map_err(|errno| Call::MemfdCreate.fault(errno))?;
    loop {
        match rustix::fs::sendfile(&copy, file, None, 1 << 30) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(Call::CopyFileRange.fault(errno)),
        }
    }
    rustix::fs::fcntl_add_seals(&copy, ALL).map_err(|errno| Call::MemfdCreate.fault(errno))?;
    Ok(copy)
}

/// Replaces this program by an open file; returns only on failure.
pub fn execute(file: BorrowedFd<'_>, arguments: &StringArray, environment: &StringArray) -> Fault {
    // SAFETY: both arrays end with a null pointer and point into strings they own; the path is empty.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Call::Execve.fault(last_errno())
}
