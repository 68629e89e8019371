//! Reading what a cgroup has used and what it waits for, with as few system calls as possible.
//!
//! Everything that is read again stays open. A cgroup that does nothing is not read at all while its parent has used no more
//! than those that are; its pressure is looked at now and then only. Threads are what costs most, so they are looked at once a second, and only where one
//! of them can have been running or waiting all the time. A cgroup that vanishes while it is read is no error, and a file that is not there or
//! switched off (PSI, schedstat, the cpu controller) is a fact that is not known.

use std::collections::BTreeMap;
use std::ffi::CString;

use anyhow::{Context, Result};

use super::meter::{Reading, Thread, is_always, may_have_hogs};
use super::model::Key;
use crate::cgroup::gauge::{number_of, some_total};
use crate::cgroup::{Cgroup, Gauge};
use crate::sys::fs::{self, CWD, Mode, OFlags};
use crate::sys::{AsFd, OwnedFd};

/// Microseconds between two looks at a leaf's threads, and at the pressure of one that does nothing.
const LOOK_US: u64 = 900_000;

/// When somebody who had slept has used so much, the sample is no measure for anybody.
const MUCH_US: u64 = 50_000;

/// So many readings that say the same make a leaf one that sleeps.
const ASLEEP: u32 = 4;

/// What sleepers may use together before somebody looks who it was, and microseconds until somebody looks anyway.
const UNSEEN_US: i64 = 5_000;
const NAP_US: u64 = 8_000_000;

/// With more threads than this, pressure has to do.
const MANY_THREADS: usize = 2000;

/// Counters are booked when a wait ends. Where a turn takes a second they say nothing of it, and whether a thread
/// slept meanwhile does; it costs more to ask, so no more threads than this are asked, for so many looks.
const FEW_THREADS: usize = 64;
const DOUBTS: u32 = 10;

/// One cgroup that is sampled.
pub struct Probe {
    pub cgroup: Cgroup,
    stat: Gauge,
    pressure: Option<Gauge>,
    memory: Option<Gauge>,
    memory_pressure: Option<Gauge>,
    events: Gauge,
    threads: BTreeMap<u64, Watched>,
    /// So many looks more ask threads whether they slept.
    doubts: u32,
    pause_us: u64,
    last: Last,
    frozen: bool,
    /// It had slept, and the last reading is about more than one sample.
    pub woke: bool,
    pub populated: bool,
    cpus: f64,
    pub memory_bytes: u64,
    pub memory_waited_us: u64,
}

/// A thread's files, and what its counters had come to at the last look.
struct Watched {
    schedstat: OwnedFd,
    status: Option<OwnedFd>,
    counted_ns: u64,
}

/// What was read last, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    at_us: u64,
    used_us: u64,
    pressure_us: Option<u64>,
    pressure_at_us: u64,
    looked_at_us: Option<u64>,
    /// There was none for a long time before, so there is nothing to compare it with.
    first_look: bool,
    /// Readings in a row that said the same.
    quiet: u32,
    throttled: u64,
}

impl Probe {
    pub fn open(cgroup: Cgroup) -> Result<Self> {
        let needed = |name: &std::ffi::CStr| {
            Gauge::open(&cgroup, name)?
                .with_context(|| format!("cgroup {:?} has no {}", cgroup.full(), name.to_string_lossy()))
        };
        let mut probe = Self {
            stat: needed(c"cpu.stat")?,
            events: needed(c"cgroup.events")?,
            pressure: Gauge::open(&cgroup, c"cpu.pressure")?,
            memory: Gauge::open(&cgroup, c"memory.current")?,
            memory_pressure: Gauge::open(&cgroup, c"memory.pressure")?,
            cgroup,
            threads: BTreeMap::new(),
            doubts: 0,
            pause_us: LOOK_US,
            last: Last::default(),
            frozen: false,
            woke: false,
            populated: true,
            cpus: 1.0,
            memory_bytes: 0,
            memory_waited_us: 0,
        };
        probe.refresh();
        Ok(probe)
    }

    /// Whether the kernel tells how long somebody waited.
    pub fn has_pressure(&self) -> bool {
        self.pressure.as_ref().is_some_and(|pressure| pressure.read(some_total).is_some())
    }

    /// Whether the cgroup still is.
    pub fn is_there(&self) -> bool {
        self.stat.read(|_| Some(())).is_some()
    }

    /// Reads what rarely changes.
    pub fn refresh(&mut self) {
        let flag = |name| self.events.read(|text| number_of(text, name));
        self.frozen = flag("frozen") == Some(1);
        self.populated = flag("populated") == Some(1);
        let list = self.cgroup.content(c"cpuset.cpus.effective").ok().flatten();
        let count = list.as_deref().map_or(0, count_listed);
        self.cpus = if count > 0 { count as f64 } else { online() };
        self.memory_bytes = self.memory.as_ref().and_then(|file| file.read(number)).unwrap_or(0);
        let waited = self.memory_pressure.as_ref().and_then(|file| file.read(some_total));
        self.memory_waited_us = waited.unwrap_or(0);
    }

    /// Whether it has done nothing for some time, and need not be read at every sample.
    pub fn sleeps(&self) -> bool {
        self.last.quiet >= ASLEEP
    }

    /// The counters as they stood when somebody looked last.
    pub fn remembered(&self, key: Key) -> Reading {
        self.reading(key, None)
    }

    /// The counters as they stand; None: the cgroup is gone. When one that slept turns out to have run since it was read
    /// last, `woke` says so.
    pub fn read(&mut self, key: Key, at_us: u64) -> Option<Reading> {
        let before = self.last;
        let (used_us, throttled) = self.stat.read(|text| {
            Some((number_of(text, "usage_usec")?, number_of(text, "nr_throttled").unwrap_or(0)))
        })?;
        let still = used_us == before.used_us;
        self.woke = before.quiet >= ASLEEP && used_us.saturating_sub(before.used_us) > MUCH_US;
        let mut now = Last { at_us, used_us, throttled, ..before };
        let unknown = before.pressure_us.is_none() || at_us >= before.pressure_at_us + LOOK_US;
        if !still || before.quiet < ASLEEP || unknown {
            now.pressure_us = self.pressure.as_ref().and_then(|pressure| pressure.read(some_total));
            now.pressure_at_us = at_us;
        }
        let elapsed_us = at_us.saturating_sub(before.at_us);
        let waited_us = now.pressure_us.map(|now| now.saturating_sub(before.pressure_us.unwrap_or(0)));
        // One of a crowd may wait for a second until it runs: it uses nothing meanwhile and is all but asleep.
        now.quiet = if still && waited_us.is_none_or(|waited| waited == 0) { before.quiet + 1 } else { 0 };
        let asleep = still && waited_us == Some(0);
        let mut threads = None;
        if !asleep && may_have_hogs(elapsed_us, used_us.saturating_sub(before.used_us), waited_us) {
            let since = before.looked_at_us.map(|at| at_us.saturating_sub(at));
            if before.first_look || since.is_none_or(|since| since >= self.pause_us) {
                now.first_look = since.is_none_or(|since| since >= 2 * self.pause_us);
                threads = self.look(since);
                now.looked_at_us = Some(at_us);
            }
        }
        self.last = now;
        Some(self.reading(key, threads))
    }

    fn reading(&self, key: Key, threads: Option<Vec<Thread>>) -> Reading {
        let Last { used_us, pressure_us, throttled, .. } = self.last;
        Reading { key, used_us, threads, pressure_us, throttled, frozen: self.frozen, cpus: self.cpus }
    }

    /// What every thread ran and waited. None where there are too many, where the kernel does not tell, or
    /// where threads are in cgroups below, which would be missed. `since`: microseconds since the last look.
    fn look(&mut self, since: Option<u64>) -> Option<Vec<Thread>> {
        let below = self.cgroup.content(c"cgroup.stat").ok().flatten();
        if below.is_some_and(|text| number_of(&text, "nr_descendants").unwrap_or(0) > 0) {
            return None;
        }
        let ids = self.cgroup.threads()?;
        if ids.len() > MANY_THREADS {
            self.threads.clear();
            return None;
        }
        let mut before = std::mem::take(&mut self.threads);
        let mut found = Vec::with_capacity(ids.len());
        let mut explained = false;
        for id in ids {
            let watched = before.remove(&id).or_else(|| Watched::open(id));
            let Some(mut watched) = watched else { continue };
            // One that has ended since is not there any more.
            let Some((ran_ns, waited_ns)) = schedstat(&watched.schedstat) else { continue };
            let counted_ns = ran_ns + waited_ns;
            let advanced_ns =
                counted_ns.saturating_sub(std::mem::replace(&mut watched.counted_ns, counted_ns));
            explained |= since.is_none_or(|since| is_always(since, advanced_ns));
            found.push(Thread { id, ran_ns, waited_ns, slept: None });
            self.threads.insert(id, watched);
        }
        let known = found.iter().any(|thread| thread.ran_ns > 0) || found.is_empty();
        let doubted = self.doubts > 0;
        self.doubts = if explained { self.doubts.saturating_sub(1) } else { DOUBTS };
        // What takes seconds to change need not be asked every second, and a longer time has more whole turns in it.
        self.pause_us = if doubted && self.doubts > 0 { 4 * LOOK_US } else { LOOK_US };
        if self.doubts > 0 && found.len() <= FEW_THREADS {
            for thread in &mut found {
                thread.slept = self.threads.get_mut(&thread.id).and_then(|watched| watched.slept(thread.id));
            }
        }
        known.then_some(found)
    }
}

impl Watched {
    fn open(thread: u64) -> Option<Self> {
        Some(Self { schedstat: open_of(thread, "schedstat")?, status: None, counted_ns: 0 })
    }

    /// How often it had gone to sleep; None of one that sleeps.
    fn slept(&mut self, thread: u64) -> Option<u64> {
        if self.status.is_none() {
            self.status = open_of(thread, "status");
        }
        let mut buffer = [0; 4096];
        let length = fs::pread(self.status.as_ref()?, &mut buffer, 0).ok()?;
        times_slept(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}

/// All that compete below one cgroup: how much of the time somebody of them waited, and whether somebody ran whom
/// nobody looked at.
pub struct Crowd {
    pressure: Option<Gauge>,
    at_us: u64,
    waited_us: u64,
    part: f64,
    usage: Option<Gauge>,
    looked: Option<Looked>,
}

/// When somebody looked at everybody, and what was used beyond what they had used: by those who are gone, and by others.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at_us: u64,
    beyond_us: i64,
}

impl Crowd {
    /// Many wait in most of an interval, after one in which hardly anybody did.
    const MUCH: f64 = 0.5;
    const LITTLE: f64 = 0.1;

    pub fn open(parent: &Cgroup) -> Result<Self> {
        let pressure = Gauge::open(parent, c"cpu.pressure")?;
        let usage = Gauge::open(parent, c"cpu.stat")?;
        Ok(Self { pressure, at_us: 0, waited_us: 0, part: 1.0, usage, looked: None })
    }

    /// Since this was asked last.
    pub fn begins_to_wait(&mut self, at_us: u64) -> bool {
        let waited_us = self.pressure.as_ref().and_then(|pressure| pressure.read(some_total));
        let (Some(waited_us), elapsed_us) = (waited_us, at_us.saturating_sub(self.at_us).max(1)) else {
            return false;
        };
        let part = waited_us.saturating_sub(self.waited_us) as f64 / elapsed_us as f64;
        let before = std::mem::replace(&mut self.part, part);
        (self.at_us, self.waited_us) = (at_us, waited_us);
        before < Self::LITTLE && part > Self::MUCH
    }

    /// Everything below the parent, since it was made.
    pub fn used_us(&self) -> Option<u64> {
        self.usage.as_ref()?.read(|text| number_of(text, "usage_usec"))
    }

    /// Whether sleepers have to be read: somebody of them must have run, or nobody has looked for long. `all_us` is what
    /// everything below the parent has used, `known_us` what its children are known to have used.
    pub fn has_to_look(&self, at_us: u64, all_us: Option<u64>, known_us: u64) -> bool {
        let since = |looked: Looked| Some((at_us.checked_sub(looked.at_us)?, looked.beyond_us));
        let Some((since, beyond_us)) = self.looked.and_then(since) else { return true };
        let unseen = all_us.is_none_or(|all_us| all_us as i64 - known_us as i64 - beyond_us > UNSEEN_US);
        since >= if unseen { LOOK_US } else { NAP_US }
    }

    pub fn looked(&mut self, at_us: u64, all_us: Option<u64>, known_us: u64) {
        self.looked = Some(Looked { at_us, beyond_us: all_us.unwrap_or(0) as i64 - known_us as i64 });
    }

    /// Somebody came or went.
    pub fn forget(&mut self) {
        self.looked = None;
    }
}

/// The CPUs of the machine, wherever this process itself may run.
pub fn online() -> f64 {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count_listed(&list).max(1) as f64
}

fn open_of(thread: u64, file: &str) -> Option<OwnedFd> {
    let path = CString::new(format!("/proc/{thread}/{file}")).ok()?;
    fs::openat(CWD, &path, OFlags::RDONLY, Mode::empty()).ok()
}

fn schedstat(file: impl AsFd) -> Option<(u64, u64)> {
    let mut buffer = [0; 96];
    let length = fs::pread(file, &mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What `status` says of a thread that runs or waits for a CPU; None of one that sleeps.
fn times_slept(status: &str) -> Option<u64> {
    let word = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    word("State:")?.starts_with('R').then(|| word("voluntary_ctxt_switches:")?.parse().ok())?
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// How many there are in a list such as `0-3,7`.
pub fn count_listed(list: &str) -> usize {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.saturating_sub(first) + 1)
    };
    list.trim().split(',').filter_map(count).sum()
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
