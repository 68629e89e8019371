//! From counters to what each leaf uses and wants. Pure.
//!
//! *Saturated* is what everything hangs on: a container that sleeps half of the time is not owed what it did
//! not ask for. A thread that was always running or waiting is a hog; a leaf with a hog that waits is
//! saturated. That a leaf waits proves nothing (a burst waits too), and that it uses little proves nothing
//! either (a single thread cannot use two CPUs). Where the kernel tells nothing about threads, its pressure
//! counter stands in: somebody waiting nearly always.

use std::collections::BTreeMap;

use super::model::Key;

/// A thread's counters since it began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thread {
    pub id: u64,
    pub ran_ns: u64,
    pub waited_ns: u64,
    /// How often it had gone to sleep, told only of one that wants to run now, and only where counters leave a doubt.
    pub slept: Option<u64>,
}

/// A leaf's counters as they stand.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    pub key: Key,
    pub used_us: u64,
    /// Absent when nobody looked, or could.
    pub threads: Option<Vec<Thread>>,
    /// Time in which somebody of it waited for a CPU.
    pub pressure_us: Option<u64>,
    pub throttled: u64,
    pub frozen: bool,
    /// How many CPUs it is allowed to run on.
    pub cpus: f64,
}

/// All leaves at one moment of a clock that does not go back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    pub at_us: u64,
    pub readings: Vec<Reading>,
}

/// Why a leaf is not judged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Frozen,
    /// Its own limit is what slows it down.
    Throttled,
    /// There is no earlier reading to compare with.
    New,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// CPUs used.
    pub used: f64,
    /// CPUs it could use.
    pub demand: f64,
    /// Threads that ran or waited, on average.
    pub runnable: f64,
    pub saturated: bool,
    /// Part of the time in which somebody waited.
    pub pressure: f64,
    /// CPUs it is allowed to run on.
    pub cpus: f64,
    pub held: Option<Held>,
}

impl Measure {
    pub const UNKNOWN: Measure = Measure {
        used: 0.0,
        demand: 0.0,
        runnable: 0.0,
        saturated: false,
        pressure: 0.0,
        cpus: 1.0,
        held: Some(Held::New),
    };

    pub fn active(&self) -> bool {
        self.runnable > 0.02 || self.used > 0.01
    }
}

/// A thread that runs or waits this part of the time always wants to run.
const ALWAYS: f64 = 0.92;
/// The kernel books a wait when it ends, so that a second may show too little of it and the next one too much:
/// what a thread did is also averaged over about so many seconds.
const WINDOW: f64 = 3.0;
/// A leaf that waits less than this part of the time has what it wants.
const WAITS: f64 = 0.05;
/// Somebody waits so often that there is always somebody.
const CROWDED: f64 = 0.85;
/// A thread that runs or waits all the time makes its leaf run or be waited in for all of it, too; below this
/// there is none, and nobody need look. The difference is for pressure, which is averaged over CPUs: of a thread that
/// has moved from one to another in an interval it shows half.
const BUSY: f64 = 0.3;

/// Whether a leaf that used and waited so much in some microseconds may have a thread that always wants to run.
pub fn may_have_hogs(elapsed_us: u64, used_us: u64, waited_us: Option<u64>) -> bool {
    waited_us.is_none_or(|waited| (used_us + waited) as f64 >= BUSY * elapsed_us as f64)
}

/// Whether counters that advanced by so much in some microseconds are those of a thread that always wants to run.
pub fn is_always(elapsed_us: u64, advanced_ns: u64) -> bool {
    advanced_ns as f64 >= ALWAYS * 1000.0 * elapsed_us as f64
}

#[derive(Debug, Default)]
pub struct Meter {
    at_us: u64,
    last: BTreeMap<Key, Reading>,
    /// The last look at threads and what it told; not every sample has one.
    looks: BTreeMap<Key, Look>,
}

#[derive(Debug, Clone)]
struct Look {
    at_us: u64,
    reading: Reading,
    /// What part of the time each thread ran or waited, on average; as many as there are threads.
    busy: Vec<f64>,
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    hogs: f64,
    runnable: f64,
    waited: f64,
}

impl Meter {
    /// Seconds since the sample before and what happened in them, in the order of the readings.
    pub fn measure(&mut self, sample: Sample) -> (f64, Vec<(Key, Measure)>) {
        let Sample { at_us, readings } = sample;
        let elapsed = at_us.saturating_sub(self.at_us) as f64 / 1e6;
        self.at_us = at_us;
        let one = |reading: Reading| (reading.key, self.one(at_us, elapsed, reading));
        let measures: Vec<(Key, Measure)> = readings.into_iter().map(one).collect();
        if self.last.len() > measures.len() {
            self.last.retain(|key, _| measures.iter().any(|(there, _)| there == key));
            self.looks.retain(|key, _| self.last.contains_key(key));
        }
        (elapsed, measures)
    }

    fn one(&mut self, at_us: u64, elapsed: f64, mut reading: Reading) -> Measure {
        let known = if reading.threads.is_some() {
            let look = self.look(at_us, &mut reading);
            let known = look.known;
            self.looks.insert(reading.key, look);
            known
        } else {
            self.looks.get(&reading.key).and_then(|look| look.known)
        };
        let measure = match self.last.get(&reading.key) {
            Some(before) if elapsed > 0.0 && before.used_us <= reading.used_us => {
                compare(before, &reading, elapsed, known)
            }
            _ => Measure { cpus: reading.cpus, ..Measure::UNKNOWN },
        };
        self.last.insert(reading.key, reading);
        measure
    }

    /// What this look at threads tells over the one before. The threads go with it.
    fn look(&self, at_us: u64, reading: &mut Reading) -> Look {
        let before = self.looks.get(&reading.key);
        let before = before.filter(|look| look.at_us < at_us && look.reading.used_us <= reading.used_us);
        let compared = before.map(|before| threads(before, reading, (at_us - before.at_us) as f64 / 1e6));
        let (known, busy) = compared.map_or((None, Vec::new()), |(known, busy)| (Some(known), busy));
        let looked = Reading { threads: reading.threads.take(), ..reading.clone() };
        Look { at_us, reading: looked, busy, known }
    }
}

/// What the threads that were there both times did; of one that is new, all it ever did.
fn threads(last: &Look, now: &Reading, elapsed: f64) -> (Known, Vec<f64>) {
    let averages = last.busy.iter().copied().map(Some).chain(std::iter::repeat(None));
    let old = last.reading.threads.iter().flatten().zip(averages);
    let old: BTreeMap<u64, (&Thread, Option<f64>)> =
        old.map(|(thread, busy)| (thread.id, (thread, busy))).collect();
    let part = 1.0 - (-elapsed / WINDOW).exp();
    let mut known = Known { hogs: 0.0, runnable: 0.0, waited: 0.0 };
    let mut averages = Vec::new();
    let mut explained = 0.0;
    for thread in now.threads.iter().flatten() {
        let before = old.get(&thread.id);
        let start = before.map_or((0, 0), |(before, _)| (before.ran_ns, before.waited_ns));
        let ran = thread.ran_ns.saturating_sub(start.0) as f64 / 1e9;
        let waited = thread.waited_ns.saturating_sub(start.1) as f64 / 1e9;
        let lately = (ran + waited) / elapsed;
        let average = before.and_then(|(_, average)| *average);
        let average = average.map_or(lately, |average| average + part * (lately - average));
        let busy = lately.max(average);
        let awake = thread.slept.is_some() && before.is_some_and(|(before, _)| before.slept == thread.slept);
        let busy = if awake || busy >= ALWAYS { 1.0 } else { busy };
        averages.push(average);
        explained += ran;
        known.runnable += busy;
        known.waited += waited / elapsed;
        known.hogs += busy.floor();
    }
    let before = &last.reading;
    // Short-lived processes have come and gone in between; together they may always want to run.
    let used = (now.used_us - before.used_us) as f64 / 1e6;
    let short_lived = (used - explained).max(0.0) / elapsed;
    if short_lived > WAITS {
        let waits = pressure(before, now, elapsed).unwrap_or(0.0);
        let always = short_lived + waits >= ALWAYS && known.hogs == 0.0;
        known.hogs += if always { short_lived.ceil() } else { 0.0 };
        known.waited = known.waited.max(waits);
        known.runnable += short_lived;
    }
    (known, averages)
}

fn pressure(before: &Reading, now: &Reading, elapsed: f64) -> Option<f64> {
    let waited = now.pressure_us?.saturating_sub(before.pressure_us?) as f64 / 1e6;
    Some((waited / elapsed).min(1.0))
}

fn compare(before: &Reading, now: &Reading, elapsed: f64, known: Option<Known>) -> Measure {
    let used = (now.used_us - before.used_us) as f64 / 1e6 / elapsed;
    let pressure = pressure(before, now, elapsed);
    let throttled = now.throttled > before.throttled;
    let held = if now.frozen {
        Some(Held::Frozen)
    } else if throttled {
        Some(Held::Throttled)
    } else {
        None
    };
    // What threads did when somebody looked last says nothing of a time in which none can have done it.
    let known = known.filter(|_| pressure.is_none_or(|waited| used + waited >= BUSY));
    let waits = pressure.unwrap_or_else(|| known.map_or(0.0, |known| known.waited.min(1.0)));
    let crowded = pressure.is_some_and(|pressure| pressure >= CROWDED);
    let hogs = known.map_or(0.0, |known| known.hogs);
    let saturated = held != Some(Held::Frozen) && (crowded || hogs >= 1.0 && waits > WAITS);
    // Threads whose waits have not ended have told nothing yet, where there are so many that a turn takes a second.
    let least = if crowded { used + waits } else { used };
    let runnable = known.map_or(used + waits, |known| known.runnable.max(least));
    let demand = if now.frozen {
        0.0
    } else if saturated && !throttled {
        // Everybody who waits would run, unless a single crowd is all we know about.
        let wants = if known.is_some() { runnable } else { (used + pressure.unwrap_or(0.0)).max(now.cpus) };
        wants.max(used).min(now.cpus)
    } else {
        used
    };
    Measure { used, demand, runnable, saturated, pressure: waits, cpus: now.cpus, held }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
