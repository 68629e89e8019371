//! Finding the unified hierarchy: two system calls on a v2 machine.

use std::ffi::{CStr, CString};

use anyhow::{Context, Result, bail};

use super::path;
use crate::sys::fs::{self, CWD, Mode, OFlags};
use crate::sys::mount::unescape;
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, Reason, leak};

/// The magic number of a cgroup2 file system.
const CGROUP2: i64 = 0x6367_7270;

/// Where cgroup2 is mounted.
pub struct Mount {
    directory: OwnedFd,
    path: String,
}

impl Mount {
    pub fn find() -> Result<Self> {
        for usual in [c"/sys/fs/cgroup", c"/sys/fs/cgroup/unified"] {
            if let Some(mount) = Self::at(usual)? {
                return Ok(mount);
            }
        }
        let table = read(c"/proc/self/mountinfo")?;
        if let Some(place) = listed(&table).and_then(|path| CString::new(path).ok()) {
            if let Some(mount) = Self::at(&place)? {
                return Ok(mount);
            }
        }
        bail!(
            "no cgroup v2 hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup \
             (or on /sys/fs/cgroup/unified beside v1), or use --cgroup-manager disabled"
        )
    }

    /// The hierarchy at `path`, if there is one.
    pub fn at(path: &CStr) -> Result<Option<Self>> {
        let directory = match fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(directory) => directory,
            Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {
                return Ok(None);
            }
            Err(fault) => bail!("open {path:?}: {}", Reason(fault.errno)),
        };
        let magic = fs::file_system(&directory).with_context(|| format!("{path:?}"))?;
        Ok((magic == CGROUP2)
            .then(|| Self { directory, path: path.to_string_lossy().trim_end_matches('/').to_owned() }))
    }

    /// Where the container's cgroup goes, relative to this mount.
    pub fn place(&self, asked: &str, id: &str) -> Result<String> {
        let own = if path::needs_own(asked) { of_process("self")? } else { String::new() };
        path::resolve(asked, id, &own)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of a cgroup as a person would type it.
    pub fn full(&self, path: &str) -> String {
        if path.is_empty() { self.path.clone() } else { format!("{}/{path}", self.path) }
    }
}

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The v2 cgroup of a process, with its leading slash.
pub fn of_process(pid: &str) -> Result<String> {
    let name = CString::new(format!("/proc/{pid}/cgroup")).context("pid")?;
    let file = fs::openat(CWD, &name, OFlags::RDONLY, Mode::empty());
    // In one piece, and once in the life of a short process.
    let content = file.and_then(|file| super::read(leak(file), true));
    let content = content.map_err(|fault| anyhow::anyhow!("read {name:?}: {}", Reason(fault.errno)))?;
    let place = content.lines().find_map(|line| line.strip_prefix("0::"));
    // A cgroup that was removed under a process that is still ending.
    let place = place.with_context(|| format!("{name:?} has no entry for cgroup v2"))?;
    Ok(place.strip_suffix(" (deleted)").unwrap_or(place).to_owned())
}

fn read(path: &CStr) -> Result<String> {
    fs::openat(CWD, path, OFlags::RDONLY, Mode::empty())
        .and_then(|file| super::read(&file, false))
        .map_err(|fault| anyhow::anyhow!("read {path:?}: {}", Reason(fault.errno)))
}

/// The mount point of the first whole cgroup2 hierarchy in a mountinfo table.
fn listed(table: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && file_system.starts_with("cgroup2 ")).then(|| unescape(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_in_a_table() {
        let table = "30 25 0:27 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755\n\
             31 30 0:28 /pod /part rw - cgroup2 cgroup2 rw\n\
             32 30 0:28 / /sys/fs/my\\040group rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(listed(table).as_deref(), Some("/sys/fs/my group"));
        assert_eq!(listed("30 25 0:27 / /sys rw - sysfs sysfs rw\n"), None);
        assert_eq!(listed(""), None);
    }
}
