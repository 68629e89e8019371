//! A directory on disk for the time of one run. What a deja that was killed has left is removed by the next one.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::removal;
use crate::sys::fs::{self, AtFlags, FlockOperation};
use crate::sys::process::{self, effective_uid};
use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use crate::time::Moment;

/// Not /tmp, which is often memory: an image may be as large as that.
const PLACE: &str = "/var/tmp";
const PREFIX: &str = "deja-scratch-";

/// Gone when it is dropped. It is locked for as long, so that others see that somebody is in it.
pub struct Scratch {
    path: PathBuf,
    directory: OwnedFd,
}

impl Scratch {
    pub fn make() -> Result<Self> {
        sweep(Path::new(PLACE));
        let moment: String = Moment::now().nanoseconds().chars().filter(char::is_ascii_digit).collect();
        let path = Path::new(PLACE).join(format!("{PREFIX}{}-{moment}", process::own_pid().as_raw_nonzero()));
        let make = || {
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            let directory = OwnedFd::from(std::fs::File::open(&path)?);
            fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
            anyhow::Ok(directory)
        };
        let directory = make().with_context(|| format!("make a directory for the time being, {path:?}"))?;
        Ok(Self { path, directory })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next one sweeps up.
        removal::remove_path(&self.path).ok();
    }
}

/// What cannot be removed now can be later.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) && is_left(&entry.path()) {
            removal::remove_path(&entry.path()).ok();
        }
    }
}

/// Ours, a directory, not as new as one that is just being made, and nobody is in it.
fn is_left(path: &Path) -> bool {
    const MAKING: i64 = 60;
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let Ok(stat) = fs::statat(fs::CWD, &c_path, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let now = std::fs::metadata("/proc/self").map_or(0, |data| data.mtime());
    let ours = stat.st_uid == effective_uid() && stat.st_mtime < now - MAKING;
    let flags = fs::OFlags::RDONLY | fs::OFlags::DIRECTORY | fs::OFlags::NOFOLLOW;
    let directory = fs::openat(fs::CWD, &c_path, flags, fs::Mode::empty());
    let alone = FlockOperation::NonBlockingLockExclusive;
    ours && directory.is_ok_and(|directory| fs::flock(&directory, alone).is_ok())
}
