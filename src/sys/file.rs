//! What a faithful copy of a file needs beside its bytes: extended attributes, times, holes, and the way to the disk.

use std::ffi::CStr;

use rustix::fs;

use super::{AsFd, Call, Errno, Result};

/// The names of a file's extended attributes, each ended by a NUL byte; a link at the end is not followed. None
/// where the file system has none.
pub fn list_xattrs(path: &CStr) -> Result<Vec<u8>> {
    sized(|buffer| fs::llistxattr(path, buffer)).map(Option::unwrap_or_default)
}

/// The value of an extended attribute; None: there is none of this name.
pub fn get_xattr(path: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    sized(|buffer| fs::lgetxattr(path, name, buffer))
}

/// Asks with more room until it is enough. Room of nothing would ask for the length, but rustix gives no more back than
/// there is room for.
fn sized(mut ask: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; 256];
    loop {
        match ask(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
            Err(Errno::RANGE) => bytes.resize(bytes.len() * 4, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(Call::Xattr.fault(errno)),
        }
    }
}

/// As `fs::setxattr`, but of a link itself.
pub fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> Result<()> {
    fs::lsetxattr(path, name, value, fs::XattrFlags::empty()).map_err(|errno| Call::Xattr.fault(errno))
}

pub fn remove_xattr(path: &CStr, name: &CStr) -> Result<()> {
    fs::lremovexattr(path, name).map_err(|errno| Call::Xattr.fault(errno))
}

/// Sets both times of what `path` names, a link itself included, to whole seconds since 1970.
pub fn set_times(dir: impl AsFd, path: &CStr, seconds: i64) -> Result<()> {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    fs::utimensat(dir, path, &times, fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| Call::Utimens.fault(errno))
}

/// Gives the file `path` names, a link itself included, another name.
pub fn link(path: &CStr, dir: impl AsFd, name: &CStr) -> Result<()> {
    fs::linkat(fs::CWD, path, dir, name, fs::AtFlags::empty()).map_err(|errno| Call::Link.fault(errno))
}

/// As `link`, for a file below an open directory; a link itself is not followed.
pub fn link_at(from: impl AsFd, old: &CStr, to: impl AsFd, new: &CStr) -> Result<()> {
    fs::linkat(from, old, to, new, fs::AtFlags::empty()).map_err(|errno| Call::Link.fault(errno))
}

/// The next stretch of data at or after `offset`, as its begin and its end; None: only a hole is left.
pub fn next_data(fd: impl AsFd, offset: u64) -> Result<Option<(u64, u64)>> {
    let begin = match fs::seek(&fd, fs::SeekFrom::Data(offset)) {
        Ok(begin) => begin,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(Call::Seek.fault(errno)),
    };
    let end = fs::seek(&fd, fs::SeekFrom::Hole(begin)).map_err(|errno| Call::Seek.fault(errno))?;
    Ok(Some((begin, end)))
}

/// Back to the beginning of a file.
pub fn rewind(fd: impl AsFd) -> Result<()> {
    fs::seek(fd, fs::SeekFrom::Start(0)).map(drop).map_err(|errno| Call::Seek.fault(errno))
}

/// Puts a file, or the names in a directory, on the disk.
pub fn sync(fd: impl AsFd) -> Result<()> {
    fs::fsync(fd).map_err(|errno| Call::Sync.fault(errno))
}

/// Puts everything of the file system `fd` lies on on the disk.
pub fn sync_file_system(fd: impl AsFd) -> Result<()> {
    fs::syncfs(fd).map_err(|errno| Call::Sync.fault(errno))
}

/// The bytes that may still be written to the file system `fd` lies on, and how many inodes made.
pub fn room(fd: impl AsFd) -> Result<(u64, u64)> {
    let stat = fs::fstatvfs(fd).map_err(|errno| Call::Statfs.fault(errno))?;
    // Some file systems do not count inodes.
    let inodes = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_whatever_their_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(directory.path().as_os_str().as_encoded_bytes()).unwrap();
        let Ok(()) = set_xattr(&path, c"user.long", &[7; 2000]) else { return };
        set_xattr(&path, c"user.empty", b"").unwrap();
        assert_eq!(get_xattr(&path, c"user.long").unwrap(), Some(vec![7; 2000]));
        assert_eq!(get_xattr(&path, c"user.empty").unwrap(), Some(Vec::new()));
        assert_eq!(get_xattr(&path, c"user.none").unwrap(), None);
        let names = list_xattrs(&path).unwrap();
        assert!(names.split(|byte| *byte == 0).any(|name| name == b"user.long"));
        remove_xattr(&path, c"user.long").unwrap();
        assert_eq!(get_xattr(&path, c"user.long").unwrap(), None);
    }
}
