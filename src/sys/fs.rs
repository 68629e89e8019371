//! Files, directories and descriptors.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fs;
pub use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat};

use super::{AsFd, BorrowedFd, Call, OwnedFd, RawFd, Result};

/// What a path below somebody else's root is opened with: `..` and links stay inside, magic links do not work.
pub const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

pub fn openat(dir: impl AsFd, path: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    fs::openat(dir, path, flags | OFlags::CLOEXEC, mode).map_err(|errno| Call::Open.fault(errno))
}

const AGAIN_MAX: u32 = 1024;

pub fn openat2(
    dir: impl AsFd,
    path: &CStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            // The kernel saw a rename or mount elsewhere race with `..`; asking again is what it wants, but
            // whoever renames without end must not keep us for ever.
            Err(rustix::io::Errno::AGAIN) if tries < AGAIN_MAX => tries += 1,
            result => return result.map_err(|errno| Call::Openat2.fault(errno)),
        }
    }
}

pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut *buffer)).map_err(|errno| Call::Read.fault(errno))
}

/// Reads from the start of a file; for a control file this also marks its present content as seen by `poll`.
pub fn read_start(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut *buffer, 0))
        .map_err(|errno| Call::Read.fault(errno))
}

/// Reads into the room a vector has left, and makes it that much longer.
pub fn read_spare(fd: impl AsFd, bytes: &mut Vec<u8>) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::read(&fd, rustix::buffer::spare_capacity(bytes)))
        .map_err(|errno| Call::Read.fault(errno))
}

pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, bytes)).map_err(|errno| Call::Write.fault(errno))
}

pub fn pread(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut *buffer, offset))
        .map_err(|errno| Call::Read.fault(errno))
}

pub fn pwrite(fd: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize> {
    rustix::io::retry_on_intr(|| rustix::io::pwrite(&fd, bytes, offset))
        .map_err(|errno| Call::Write.fault(errno))
}

/// The reading and the writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| Call::Pipe.fault(errno))
}

/// A file that exists only as this descriptor.
pub fn memfd_create(name: &CStr) -> Result<OwnedFd> {
    fs::memfd_create(name, fs::MemfdFlags::CLOEXEC).map_err(|errno| Call::MemfdCreate.fault(errno))
}

pub fn fstat(fd: impl AsFd) -> Result<fs::Stat> {
    fs::fstat(fd).map_err(|errno| Call::Stat.fault(errno))
}

pub fn statat(dir: impl AsFd, path: &CStr, flags: AtFlags) -> Result<fs::Stat> {
    fs::statat(dir, path, flags).map_err(|errno| Call::Stat.fault(errno))
}

/// What tells an open file from all others.
pub struct Identity {
    pub kind: FileType,
    pub inode: u64,
    /// Major and minor, if it is a device.
    pub device: (u32, u32),
    /// The number of the mount it was opened on.
    pub mount: u64,
}

pub fn identity(fd: impl AsFd) -> Result<Identity> {
    let wanted = fs::StatxFlags::BASIC_STATS | fs::StatxFlags::MNT_ID;
    let stat = fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted).map_err(|errno| Call::Statx.fault(errno))?;
    Ok(Identity {
        kind: FileType::from_raw_mode(stat.stx_mode.into()),
        inode: stat.stx_ino,
        device: (stat.stx_rdev_major, stat.stx_rdev_minor),
        mount: stat.stx_mnt_id,
    })
}

/// The magic number of the file system `fd` lives on.
pub fn file_system(fd: impl AsFd) -> Result<i64> {
    fs::fstatfs(fd).map(|stat| magic(&stat)).map_err(|errno| Call::Statfs.fault(errno))
}

/// The magic number of the file system at `path`.
pub fn file_system_at(path: &CStr) -> Result<i64> {
    fs::statfs(path).map(|stat| magic(&stat)).map_err(|errno| Call::Statfs.fault(errno))
}

#[allow(clippy::unnecessary_cast, reason = "the type of the field differs between architectures")]
fn magic(stat: &fs::StatFs) -> i64 {
    stat.f_type as i64
}

pub fn mkdirat(dir: impl AsFd, path: &CStr, mode: Mode) -> Result<()> {
    fs::mkdirat(dir, path, mode).map_err(|errno| Call::Mkdir.fault(errno))
}

pub fn mknodat(
    dir: impl AsFd,
    path: &CStr,
    kind: FileType,
    mode: Mode,
    major: u32,
    minor: u32,
) -> Result<()> {
    fs::mknodat(dir, path, kind, mode, fs::makedev(major, minor)).map_err(|errno| Call::Mknod.fault(errno))
}

pub fn device(major: u32, minor: u32) -> u64 {
    fs::makedev(major, minor)
}

/// Major and minor.
pub fn device_parts(device: u64) -> (u32, u32) {
    (fs::major(device), fs::minor(device))
}

pub fn symlinkat(target: &CStr, dir: impl AsFd, path: &CStr) -> Result<()> {
    fs::symlinkat(target, dir, path).map_err(|errno| Call::Symlink.fault(errno))
}

pub fn unlinkat(dir: impl AsFd, path: &CStr, flags: AtFlags) -> Result<()> {
    fs::unlinkat(dir, path, flags).map_err(|errno| Call::Unlink.fault(errno))
}

pub fn renameat(from: impl AsFd, old: &CStr, to: impl AsFd, new: &CStr) -> Result<()> {
    fs::renameat(from, old, to, new).map_err(|errno| Call::Rename.fault(errno))
}

/// A rename that replaces nothing.
pub fn rename_new(from: impl AsFd, old: &CStr, to: impl AsFd, new: &CStr) -> Result<()> {
    fs::renameat_with(from, old, to, new, fs::RenameFlags::NOREPLACE)
        .map_err(|errno| Call::Rename.fault(errno))
}

/// The target of a symbolic link, in the part of `buffer` that it fills.
pub fn readlinkat<'b>(dir: impl AsFd, path: &CStr, buffer: &'b mut [MaybeUninit<u8>]) -> Result<&'b [u8]> {
    fs::readlinkat_raw(dir, path, buffer)
        .map(|(target, _)| &*target)
        .map_err(|errno| Call::Readlink.fault(errno))
}

/// Calls `each` with the name of every entry of a directory except `.` and `..`, and whether it is a
/// directory itself.
pub fn entries(directory: impl AsFd, mut each: impl FnMut(&CStr, bool)) -> Result<()> {
    // An earlier listing has left the descriptor at its end.
    fs::seek(&directory, fs::SeekFrom::Start(0)).map_err(|errno| Call::GetDents.fault(errno))?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut listing = fs::RawDir::new(directory.as_fd(), &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry.map_err(|errno| Call::GetDents.fault(errno))?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name, entry.file_type() == FileType::Directory);
        }
    }
    Ok(())
}

/// Sets an extended attribute of the file `path` names, links followed.
pub fn setxattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    fs::setxattr(path, name, value, fs::XattrFlags::empty()).map_err(|errno| Call::Xattr.fault(errno))
}

pub fn fchmod(fd: impl AsFd, mode: Mode) -> Result<()> {
    fs::fchmod(fd, mode).map_err(|errno| Call::Chmod.fault(errno))
}

pub fn chmodat(dir: impl AsFd, path: &CStr, mode: Mode) -> Result<()> {
    fs::chmodat(dir, path, mode, AtFlags::empty()).map_err(|errno| Call::Chmod.fault(errno))
}

/// Without `gid` the group stays.
pub fn chownat(dir: impl AsFd, path: &CStr, uid: u32, gid: Option<u32>, flags: AtFlags) -> Result<()> {
    let (uid, gid) = (fs::Uid::from_raw(uid), gid.map(fs::Gid::from_raw));
    fs::chownat(dir, path, Some(uid), gid, flags).map_err(|errno| Call::Chown.fault(errno))
}

pub fn accessat(dir: impl AsFd, path: &CStr, access: fs::Access) -> Result<()> {
    fs::accessat(dir, path, access, AtFlags::empty()).map_err(|errno| Call::Access.fault(errno))
}
pub use rustix::fs::Access;

/// As `accessat` from the current directory, asked for the effective user and with what capabilities allow.
pub fn access_effective(path: &CStr, access: fs::Access) -> Result<()> {
    fs::accessat(CWD, path, access, AtFlags::EACCESS).map_err(|errno| Call::Access.fault(errno))
}

/// Changes the owner of an open file and leaves its group.
pub fn fchown(fd: impl AsFd, uid: u32) -> Result<()> {
    fs::fchown(fd, Some(fs::Uid::from_raw(uid)), None).map_err(|errno| Call::Chown.fault(errno))
}

pub fn flock(fd: impl AsFd, operation: FlockOperation) -> Result<()> {
    rustix::io::retry_on_intr(|| fs::flock(&fd, operation)).map_err(|errno| Call::Flock.fault(errno))
}

pub fn ftruncate(fd: impl AsFd, length: u64) -> Result<()> {
    fs::ftruncate(fd, length).map_err(|errno| Call::Ftruncate.fault(errno))
}

pub fn chdir(path: &CStr) -> Result<()> {
    rustix::process::chdir(path).map_err(|errno| Call::ChangeDirectory.fault(errno))
}

pub fn fchdir(fd: impl AsFd) -> Result<()> {
    rustix::process::fchdir(fd).map_err(|errno| Call::ChangeDirectory.fault(errno))
}

pub fn chroot(path: &CStr) -> Result<()> {
    rustix::process::chroot(path).map_err(|errno| Call::ChangeRoot.fault(errno))
}

/// The current directory without its terminating NUL, in the part of `buffer` that it fills. The kernel puts
/// `(unreachable)` in front when the directory lies outside the root.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes to a buffer that is ours for the call.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    match usize::try_from(length) {
        Ok(length) => Ok(&buffer[..length.saturating_sub(1)]),
        Err(_) => Err(Call::GetCwd.fault(super::last_errno())),
    }
}

/// Duplicates `fd` onto number `onto`, which stays open across exec.
pub fn dup_inheritable(fd: BorrowedFd<'_>, onto: i32) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: dup3 only touches the descriptor table; what `onto` was is the caller's to give up.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), onto) };
    if result < 0 { Err(Call::Dup.fault(super::last_errno())) } else { Ok(()) }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// The program that this process becomes gets the descriptor, too.
pub fn keep_on_exec(fd: impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(|errno| Call::Fcntl.fault(errno))
}

/// Closes what a clone has copied along with everything else; the owner is in the other process.
pub fn close_copied(fd: RawFd) -> Result<()> {
    close_range(fd as u32, fd as u32, 0)
}

/// Closes every descriptor from `first` on, but for these two.
pub fn close_all_from(mut first: u32, mut kept: [RawFd; 2]) -> Result<()> {
    kept.sort_unstable();
    for kept in kept.map(|fd| fd as u32) {
        if kept > first {
            close_range(first, kept - 1, 0)?;
        }
        first = first.max(kept + 1);
    }
    close_range(first, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: only the descriptor table is touched; closing is the caller's to answer for.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result < 0 { Err(Call::CloseRange.fault(super::last_errno())) } else { Ok(()) }
}

/// The path of an open file as the kernel knows it, with no link in it.
pub fn path_of(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); libc::PATH_MAX as usize];
    readlinkat(CWD, FdPath::new(fd).as_c_str(), &mut buffer).map(<[u8]>::to_vec)
}

/// A C string `/proc/self/fd/N` in a fixed buffer, for the calls that take nothing but a path.
pub struct FdPath {
    buffer: [u8; 32],
}

impl FdPath {
    pub fn new(fd: BorrowedFd<'_>) -> Self {
        use std::os::fd::AsRawFd;
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let mut buffer = [0; 32];
        buffer[..PREFIX.len()].copy_from_slice(PREFIX);
        let mut digits = [0u8; 10];
        let mut number = fd.as_raw_fd() as u32;
        let mut count = 0;
        loop {
            digits[count] = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        for place in 0..count {
            buffer[PREFIX.len() + place] = digits[count - 1 - place];
        }
        Self { buffer }
    }

    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.buffer).expect("the buffer is longer than the longest path")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_has_a_path() {
        // SAFETY: the number is only printed.
        let fd = unsafe { BorrowedFd::borrow_raw(1_234_567) };
        assert_eq!(FdPath::new(fd).as_c_str().to_bytes(), b"/proc/self/fd/1234567");
        // SAFETY: as above.
        let zero = unsafe { BorrowedFd::borrow_raw(0) };
        assert_eq!(FdPath::new(zero).as_c_str().to_bytes(), b"/proc/self/fd/0");
    }
}
