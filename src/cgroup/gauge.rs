//! A control file that is kept open and read again and again: one system call each time.

use std::ffi::CStr;

use anyhow::Result;

use super::{Cgroup, pairs, read_file};
use crate::sys::fs::{self, Mode, OFlags};
use crate::sys::{AsFd, Errno, OwnedFd};

pub struct Gauge(OwnedFd);

/// The longest file that is read this way: cpu.stat has about twelve lines.
const LONGEST: usize = 2048;

impl Gauge {
    /// None: there is no such file, because the controller is not there or the kernel is older.
    pub fn open(cgroup: &Cgroup, name: &CStr) -> Result<Option<Self>> {
        match fs::openat(cgroup.as_fd(), name, OFlags::RDONLY, Mode::empty()) {
            Ok(file) => Ok(Some(Self(file))),
            Err(fault) if fault.errno == Errno::NOENT => Ok(None),
            Err(fault) => Err(cgroup.failed(&format!("open {name:?} of"), fault)),
        }
    }

    /// Hands the content to `take`. None: the cgroup is gone, or what the file says is switched off.
    pub fn read<T>(&self, take: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut buffer = [0; LONGEST];
        let length = fs::pread(&self.0, &mut buffer, 0).ok()?;
        take(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

impl Cgroup {
    /// What a control file says; None where there is none, or it is switched off.
    pub fn content(&self, name: &CStr) -> Result<Option<String>> {
        match read_file(self.as_fd(), name) {
            Ok(text) => Ok(Some(text)),
            Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::OPNOTSUPP | Errno::NODEV) => Ok(None),
            Err(fault) => Err(self.failed(&format!("read {name:?} of"), fault)),
        }
    }

    /// Every thread in it, not those below; None if it is gone.
    pub fn threads(&self) -> Option<Vec<u64>> {
        let file = fs::openat(self.as_fd(), c"cgroup.threads", OFlags::RDONLY, Mode::empty()).ok()?;
        let list = super::read(&file, false).ok()?;
        Some(list.lines().filter_map(|line| line.parse().ok()).filter(|id| *id > 0).collect())
    }

    /// The names of the cgroups right below.
    pub fn children(&self) -> Result<Vec<String>> {
        let names = super::tree::children(self.as_fd()).map_err(|fault| self.failed("list", fault))?;
        Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }

    /// Whether something runs in the cgroup of this name right below.
    pub fn child_is_populated(&self, name: &str) -> bool {
        let events = read_file(self.as_fd(), &super::c_name(&format!("{name}/cgroup.events")));
        events.is_ok_and(|events| number_of(&events, "populated") == Some(1))
    }

    /// Tells it from another that was made under the same name later.
    pub fn number(&self) -> Result<u64> {
        let stat = fs::fstat(self).map_err(|fault| self.failed("look at", fault))?;
        Ok(stat.st_ino)
    }
}

/// The number behind `key` in a file of `key value` lines.
pub fn number_of(content: &str, key: &str) -> Option<u64> {
    pairs(content).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// Microseconds in which somebody waited, of a pressure file.
pub fn some_total(pressure: &str) -> Option<u64> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_where_they_have_what_is_looked_for() {
        let pressure = "some avg10=1.00 avg60=0.00 avg300=0.00 total=4711\nfull avg10=0.00 total=12\n";
        assert_eq!(some_total(pressure), Some(4711));
        assert_eq!(some_total("full avg10=0.00 total=12\n"), None);
        assert_eq!(some_total("some avg10=0.00 total=\n"), None);
        assert_eq!(number_of("usage_usec 15\nnr_throttled 2\n", "nr_throttled"), Some(2));
        assert_eq!(number_of("usage_usec 15\n", "nr_throttled"), None);
    }
}
