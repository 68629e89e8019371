//! Many containers of one root, looked at one after the other: what is the same for all of them is asked once.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::Record;
use crate::sys::fs;
use crate::sys::process::{self, Pid};
use crate::sys::{self, AsFd, BorrowedFd, OwnedFd, Reason};

pub struct Crowd {
    /// The root, from which short paths lead to each.
    root: OwnedFd,
    /// The numbers in the records can be believed.
    numbered: bool,
}

impl Crowd {
    /// The containers of the root whose directory this is.
    pub(super) fn of(root: OwnedFd, path: &Path) -> Result<Self> {
        let numbered =
            are_numbered(&root).map_err(|fault| anyhow!("look at {path:?}: {}", Reason(fault.errno)))?;
        Ok(Self { root, numbered })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// True: init is there, executes its program, and is the process it was. Otherwise /proc has to be asked, which takes
    /// the kernel ten times as long.
    pub(super) fn sees(&self, record: &Record) -> Result<bool> {
        let Some(pid) = Pid::from_raw(record.pid).filter(|_| self.numbered && record.pid_inode != 0) else {
            return Ok(false);
        };
        // What has not executed its program yet is in the making, and only /proc tells.
        if record.straight {
            return Ok(false);
        }
        let looked = process::pidfd_find(pid).and_then(|found| match found {
            Some(pidfd) => Ok(fs::fstat(&pidfd)?.st_ino == record.pid_inode && !process::has_ended(&pidfd)?),
            None => Ok(false),
        });
        looked.with_context(|| format!("look at process {}", record.pid))
    }
}

/// The kernel numbers processes as inodes of pidfs (6.9) and gives no number twice, but begins anew with the machine: a
/// number means something where no record outlives that.
fn are_numbered(root: &OwnedFd) -> sys::Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const PIDFS: i64 = 0x5049_4446;
    Ok(fs::file_system(root)? == TMPFS && fs::file_system(process::pidfd_open(process::own_pid())?)? == PIDFS)
}
