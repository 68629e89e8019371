//! What a cgroup announces: populated and frozen (cgroup.events), kills for lack of memory (memory.events).
//!
//! The kernel wakes whoever polls these files; a read marks what was seen.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Cgroup, read_file, value_of};
use crate::sys::event::{Interest, poll};
use crate::sys::fs::{self, Mode, OFlags};
use crate::sys::{self, AsFd, BorrowedFd, Errno, OwnedFd};

/// An open cgroup.events.
pub(super) struct EventsFile(OwnedFd);

impl EventsFile {
    pub fn open(cgroup: BorrowedFd<'_>) -> sys::Result<Self> {
        open(cgroup, c"cgroup.events").map(Self)
    }

    /// Whether no process is left within the time. A cgroup that was removed is empty.
    pub fn wait_empty(&self, within: Duration) -> sys::Result<bool> {
        match self.wait("populated", 0, within) {
            Err(fault) if fault.errno == Errno::NODEV => Ok(true),
            result => result,
        }
    }

    /// Waits until `key` has `value`; false when the time is up before.
    pub fn wait(&self, key: &str, value: u64, within: Duration) -> sys::Result<bool> {
        let deadline = Instant::now() + within;
        loop {
            if self.value(key)? == Some(value) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            poll([(self.0.as_fd(), Interest::Change)], Some(left))?;
        }
    }

    fn value(&self, key: &str) -> sys::Result<Option<u64>> {
        current(&self.0, key)
    }
}

fn open(cgroup: BorrowedFd<'_>, name: &CStr) -> sys::Result<OwnedFd> {
    fs::openat(cgroup, name, OFlags::RDONLY, Mode::empty())
}

fn current(file: &OwnedFd, key: &str) -> sys::Result<Option<u64>> {
    let mut buffer = [0; 512];
    let length = fs::read_start(file, &mut buffer)?;
    Ok(value_of(&String::from_utf8_lossy(&buffer[..length]), key))
}

impl Cgroup {
    /// How many of its processes were killed for lack of memory; None without a memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        value_of(&read_file(self.as_fd(), c"memory.events").ok()?, "oom_kill")
    }

    /// How often a process was not made because of the limit; None without a pids controller.
    pub fn refused_forks(&self) -> Option<u64> {
        value_of(&read_file(self.as_fd(), c"pids.events").ok()?, "max")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process was killed for lack of memory.
    OutOfMemory,
    /// The last process is gone.
    Empty,
    /// The time is up.
    Nothing,
}

/// Watches a cgroup for `events`.
pub struct Watch {
    events: OwnedFd,
    /// None without a memory controller: then nothing is killed here for lack of memory.
    memory: Option<OwnedFd>,
    kills: u64,
}

impl Watch {
    pub fn new(cgroup: &Cgroup) -> Result<Self> {
        let fd = cgroup.as_fd();
        let events = open(fd, c"cgroup.events").map_err(|fault| cgroup.failed("watch", fault))?;
        let memory = match open(fd, c"memory.events") {
            Err(fault) if fault.errno == Errno::NOENT => None,
            file => Some(file.map_err(|fault| cgroup.failed("watch", fault))?),
        };
        let mut watch = Self { events, memory, kills: 0 };
        watch.kills = watch.kills_now()?;
        Ok(watch)
    }

    fn kills_now(&self) -> sys::Result<u64> {
        match &self.memory {
            Some(file) => match current(file, "oom_kill") {
                Err(fault) if fault.errno == Errno::NODEV => Ok(self.kills),
                kills => Ok(kills?.unwrap_or(0)),
            },
            None => Ok(0),
        }
    }

    /// Waits for the next change, at most until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Result<Change> {
        loop {
            let kills = self.kills_now()?;
            if kills > self.kills {
                self.kills = kills;
                return Ok(Change::OutOfMemory);
            }
            match current(&self.events, "populated") {
                Err(fault) if fault.errno == Errno::NODEV => return Ok(Change::Empty),
                populated => {
                    if populated? == Some(0) {
                        return Ok(Change::Empty);
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Change::Nothing);
            }
            let memory = self.memory.as_ref().unwrap_or(&self.events);
            poll([(self.events.as_fd(), Interest::Change), (memory.as_fd(), Interest::Change)], Some(left))?;
        }
    }
}
