//! Controllers at work: samples cgroups, lets the controller of each set of siblings decide, and writes what it
//! decides. Weights mean something only among siblings, so each set has one controller and at most one tuner
//! on the machine, which holds a lock on the parent.
//!
//! What a cgroup had before is in the journal before it is changed for the first time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::base::{Journal, Tidings};
use super::controller::Controller;
use super::meaning::Meaning;
use super::meter::{Reading, Sample};
use super::model::{Groups, Key};
use super::policy::{Acting, Policy, Setting};
use super::sample::Crowd;
use super::terms::Asked;
use super::tuned::Tuned;
use crate::cgroup::{Cgroup, Mount};
use crate::sys::fs::{self, FlockOperation};
use crate::sys::{Errno, Reason};

/// Samples between two checks that a cgroup still has what was written to it, and ticks between two that the
/// kernel is the same.
const CHECK: u64 = 40;

/// Periods after which a sample is late.
const LATE: f64 = 1.6;

/// What somebody may want to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    Arrived {
        container: String,
        cgroup: String,
        weight: Option<u16>,
    },
    Left {
        container: String,
    },
    Changed {
        container: String,
    },
    Wrote {
        container: String,
        weight: u16,
        idle: bool,
        limit: Option<f64>,
    },
    /// Somebody else wrote to a cgroup; that is what will be restored at the end.
    Overridden {
        container: String,
        weight: u16,
        idle: bool,
        max: String,
    },
    /// Memory that nobody missed was taken back.
    Squeezed {
        container: String,
        bytes: u64,
    },
    Failed {
        container: String,
        why: String,
    },
    Acting {
        cgroup: String,
        what: &'static str,
        meaning: &'static str,
    },
    Restored {
        cgroup: String,
    },
}

pub struct Options {
    pub policy: Box<dyn Fn() -> Box<dyn Policy>>,
    /// Only watches, and writes nothing.
    pub watch_only: bool,
    /// Multiplies weights by the CPUs a leaf is active on, as kernels do that take weights so.
    pub emulate_per_cpu: bool,
    pub journal: Option<PathBuf>,
    pub cpus: f64,
    /// Between two samples.
    pub period: Duration,
}

/// A cgroup that is to be tuned from now on.
pub struct Arrival<'a> {
    pub name: &'a str,
    pub mount: &'a Mount,
    pub path: &'a str,
    pub asked: Asked,
    /// The weight it has to have at the end, where that is known better than by looking.
    pub weight: Option<u16>,
    /// The unit of a manager that has to hear of every change; empty: there is none.
    pub unit: &'a str,
}

pub struct Tuner {
    options: Options,
    mount: String,
    groups: Groups,
    pub siblings: BTreeMap<String, Siblings>,
    homes: BTreeMap<Key, String>,
    next: Key,
    turn: u64,
    at_us: u64,
    /// Samples of anybody that were taken.
    pub samples: u64,
    journal_is_stale: bool,
    /// Of those that are gone.
    tidings: Vec<Tidings>,
    pub kernel: Kernel,
}

/// The children of one cgroup.
pub struct Siblings {
    parent: Cgroup,
    pub controller: Controller,
    pub tuned: BTreeMap<Key, Tuned>,
    told: (Acting, Meaning),
    crowd: Crowd,
    /// Of the last sample; when, how many there were, and for how many periods nobody need look.
    at_us: u64,
    turn: u64,
    pace: u64,
}

/// What the kernel says about itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Kernel {
    /// Another scheduler was loaded, and it may not know weights at all.
    pub extended: bool,
    pub meaning: Option<Meaning>,
}

impl Kernel {
    pub fn read() -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            extended: file("/sys/kernel/sched_ext/state").trim() == "enabled",
            meaning: meaning_of(&file("/sys/kernel/debug/sched/cgroup_mode")),
        }
    }
}

/// The word in parentheses is the one in force.
fn meaning_of(modes: &str) -> Option<Meaning> {
    match modes.split(['(', '[']).nth(1)?.split([')', ']']).next()? {
        "smp" => Some(Meaning::PerGroup),
        "concur" => Some(Meaning::PerCpu),
        _ => None,
    }
}

impl Tuner {
    pub fn new(options: Options) -> Self {
        Self {
            options,
            mount: String::new(),
            groups: Groups::new(),
            siblings: BTreeMap::new(),
            homes: BTreeMap::new(),
            next: 1,
            turn: 0,
            at_us: 0,
            samples: 0,
            journal_is_stale: false,
            tidings: Vec::new(),
            kernel: Kernel::read(),
        }
    }

    pub fn arrive(&mut self, arrival: Arrival) -> Result<(Key, Event)> {
        let Arrival { name, mount, path, .. } = arrival;
        let cgroup = Cgroup::open(mount, path)?.with_context(|| format!("cgroup {path:?} is gone"))?;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        if !self.siblings.contains_key(&parent) {
            let siblings = self.siblings_at(mount, &parent)?;
            self.siblings.insert(parent.clone(), siblings);
        }
        let tuned = Tuned::new(arrival, cgroup, self.at_us)?;
        let key = self.next;
        let event = Event::Arrived {
            container: name.to_owned(),
            cgroup: path.to_owned(),
            weight: tuned.base.as_ref().map(|base| base.weight),
        };
        self.next += 1;
        self.mount = mount.path().to_owned();
        self.homes.insert(key, parent.clone());
        let siblings = self.siblings.get_mut(&parent).expect("it was inserted above");
        siblings.controller.join(tuned.member(key));
        siblings.controller.found(key, Some(tuned.written));
        siblings.tuned.insert(key, tuned);
        siblings.crowd.forget();
        self.journal_is_stale = true;
        Ok((key, event))
    }

    fn siblings_at(&self, mount: &Mount, path: &str) -> Result<Siblings> {
        let parent = Cgroup::open(mount, path)?.with_context(|| format!("cgroup {path:?} is gone"))?;
        if !self.options.watch_only {
            match fs::flock(&parent, FlockOperation::NonBlockingLockExclusive) {
                Err(fault) if fault.errno == Errno::AGAIN => {
                    bail!("another deja shares the CPUs below {:?}", parent.full())
                }
                Err(fault) => bail!("lock {:?}: {}", parent.full(), Reason(fault.errno)),
                Ok(()) => {}
            }
        }
        let mut controller = Controller::new((self.options.policy)(), self.options.cpus);
        controller.set_groups(self.groups.clone());
        controller.tell(self.kernel.meaning);
        let told = (Acting::Content, Meaning::PerGroup);
        let (crowd, tuned) = (Crowd::open(&parent)?, BTreeMap::new());
        Ok(Siblings { parent, controller, tuned, told, crowd, at_us: self.at_us, turn: 0, pace: 1 })
    }

    /// The cgroup is nobody's to tune any more. What it had is restored if it is still there.
    pub fn leave(&mut self, key: Key) -> Option<Event> {
        let home = self.homes.remove(&key)?;
        let siblings = self.siblings.get_mut(&home)?;
        siblings.controller.leave(key);
        siblings.crowd.forget();
        let mut tuned = siblings.tuned.remove(&key)?;
        tuned.probe.refresh();
        if tuned.probe.populated && !self.options.watch_only {
            // One that ends just now needs nothing back.
            tuned.restore().ok();
            self.tidings.extend(tuned.tidings());
        }
        if siblings.tuned.is_empty() {
            self.siblings.remove(&home);
        }
        self.journal_is_stale = true;
        Some(Event::Left { container: tuned.name })
    }

    /// Other terms, or something about the cgroup itself, may hold from now on.
    pub fn change(&mut self, key: Key, asked: &Asked, weight: Option<u16>) -> Result<Option<Event>> {
        let Some(siblings) = self.homes.get(&key).and_then(|home| self.siblings.get_mut(home)) else {
            return Ok(None);
        };
        let Some(tuned) = siblings.tuned.get_mut(&key) else { return Ok(None) };
        let before = (tuned.asked.clone(), tuned.base.clone());
        tuned.probe.refresh();
        let overridden = tuned.check();
        if let (Some(base), Some(weight)) = (&mut tuned.base, weight) {
            base.weight = weight;
        }
        tuned.asked = asked.clone();
        if (tuned.asked.clone(), tuned.base.clone()) == before {
            return Ok(None);
        }
        if tuned.asked == before.0 {
            siblings.controller.update(key, tuned.terms());
        } else {
            siblings.controller.leave(key);
            siblings.controller.join(tuned.member(key));
        }
        siblings.controller.found(key, Some(tuned.written));
        self.journal_is_stale = true;
        Ok(Some(overridden.unwrap_or_else(|| Event::Changed { container: tuned.name.clone() })))
    }

    pub fn set_groups(&mut self, groups: Groups) {
        for siblings in self.siblings.values_mut() {
            siblings.controller.set_groups(groups.clone());
        }
        self.groups = groups;
    }

    /// Writes what follows from arrivals, departures and changes, without waiting for the next sample.
    pub fn react(&mut self) -> Result<Vec<Event>> {
        self.save_journal()?;
        let mut events = Vec::new();
        for siblings in self.siblings.values_mut() {
            siblings.look_around();
            if !self.options.watch_only && !self.kernel.extended {
                let writes = siblings.controller.reconsider();
                siblings.write(&writes, self.options.emulate_per_cpu, &mut events);
            }
            if !self.options.watch_only {
                siblings.tuned.values_mut().for_each(|tuned| events.extend(tuned.limit_memory()));
            }
        }
        Ok(events)
    }

    fn save_journal(&mut self) -> Result<()> {
        let Some(path) = &self.options.journal else { return Ok(()) };
        if !std::mem::take(&mut self.journal_is_stale) {
            return Ok(());
        }
        let tuned = self.siblings.values().flat_map(|siblings| siblings.tuned.values());
        Journal::new(&self.mount, tuned.filter_map(Tuned::entry).collect()).save(path)
    }

    /// Samples whoever is due, by a clock that does not go back; gives the keys of those that are gone. When
    /// somebody is `watching`, calm is no reason to leave a sample out.
    pub fn tick(&mut self, at_us: u64, watching: bool) -> (Vec<Key>, Vec<Event>) {
        let (mut gone, mut events) = (Vec::new(), Vec::new());
        (self.at_us, self.turn) = (at_us, self.turn + 1);
        if self.turn % CHECK == 0 {
            events.extend(self.watch_kernel());
        }
        for siblings in self.siblings.values_mut() {
            if siblings.due(at_us, watching, &self.options) {
                siblings.sample(at_us, &self.options, self.kernel.extended, &mut gone, &mut events);
                self.samples += 1;
            }
        }
        (gone, events)
    }

    /// Reads what rarely changes, for somebody who wants to see it.
    pub fn refresh(&mut self) {
        let tuned = self.siblings.values_mut().flat_map(|siblings| siblings.tuned.values_mut());
        tuned.for_each(|tuned| tuned.probe.refresh());
    }

    /// Whether weights (still) mean what they are taken for.
    fn watch_kernel(&mut self) -> Vec<Event> {
        let now = Kernel::read();
        let before = std::mem::replace(&mut self.kernel, now);
        let mut events = Vec::new();
        if now == before {
            return events;
        }
        for siblings in self.siblings.values_mut() {
            siblings.controller.tell(now.meaning);
            if now.extended && !self.options.watch_only {
                siblings.restore(&mut events);
            }
        }
        events
    }

    /// What managers of units have to hear since this was asked last.
    pub fn tidings(&mut self) -> Vec<Tidings> {
        let tuned = self.siblings.values_mut().flat_map(|siblings| siblings.tuned.values_mut());
        std::mem::take(&mut self.tidings).into_iter().chain(tuned.filter_map(Tuned::tidings)).collect()
    }

    /// Everything as it was, and nothing left to restore.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.options.watch_only {
            self.siblings.values_mut().for_each(|siblings| siblings.restore(&mut events));
        }
        self.tidings = self.tidings();
        self.siblings.clear();
        self.homes.clear();
        events
    }
}

impl Siblings {
    /// Whether it is time for a sample. In calm times that is rarely so, unless many begin to wait at once.
    fn due(&mut self, at_us: u64, watching: bool, options: &Options) -> bool {
        let crowded = self.crowd.begins_to_wait(at_us);
        let always = watching || options.emulate_per_cpu;
        let pace = if always { 1 } else { self.pace.min(self.controller.pace()) };
        let periods = at_us.saturating_sub(self.at_us) as f64 / 1e6 / options.period.as_secs_f64();
        options.watch_only || crowded || periods + 0.5 > pace as f64
    }

    fn sample(
        &mut self,
        at_us: u64,
        options: &Options,
        extended: bool,
        gone: &mut Vec<Key>,
        events: &mut Vec<Event>,
    ) {
        let acts = !options.watch_only;
        let elapsed = at_us.saturating_sub(self.at_us) as f64 / 1e6;
        // A sample that comes late says that this machine itself was short of time, stood still or was asleep;
        // what the kernel did meanwhile is nobody's debt.
        if elapsed > options.period.as_secs_f64() * (self.pace as f64 - 1.0 + LATE) {
            self.controller.disregard();
        }
        (self.at_us, self.turn) = (at_us, self.turn + 1);
        let readings = self.read(at_us, gone);
        let writes = self.controller.step(Sample { at_us, readings });
        self.pace = self.controller.pace();
        self.count(elapsed);
        if acts && !extended {
            self.write(&writes, options.emulate_per_cpu, events);
        }
        self.check(acts, events);
        if acts {
            self.tuned.values_mut().for_each(|tuned| events.extend(tuned.squeeze(at_us)));
        }
        events.extend(self.news());
    }

    /// Of those who sleep what was read last, unless somebody of them must have run since.
    fn read(&mut self, at_us: u64, gone: &mut Vec<Key>) -> Vec<Reading> {
        let known = |readings: &[Reading]| readings.iter().map(|reading| reading.used_us).sum();
        let all_us = self.crowd.used_us();
        let (asleep, awake): (Vec<_>, Vec<_>) =
            self.tuned.iter_mut().partition(|(_, tuned)| tuned.probe.sleeps());
        let mut read = |(key, tuned): (&Key, &mut Tuned)| {
            let reading = tuned.probe.read(*key, at_us);
            gone.extend(reading.is_none().then_some(*key));
            if tuned.probe.woke {
                self.controller.disregard();
            }
            reading
        };
        let mut readings: Vec<Reading> = awake.into_iter().filter_map(&mut read).collect();
        let count = readings.len();
        readings.extend(asleep.iter().map(|(key, tuned)| tuned.probe.remembered(**key)));
        if self.crowd.has_to_look(at_us, all_us, known(&readings)) {
            readings.truncate(count);
            readings.extend(asleep.into_iter().filter_map(&mut read));
            self.crowd.looked(at_us, all_us, known(&readings));
        }
        readings
    }

    /// Whether others have weights beside ours. Below the root there always are some.
    fn look_around(&mut self) {
        let ours: Vec<&str> =
            self.tuned.values().filter_map(|tuned| tuned.probe.cgroup.path().rsplit('/').next()).collect();
        let children = self.parent.children().unwrap_or_default();
        self.controller.others = self.parent.path().is_empty()
            || children
                .iter()
                .any(|name| !ours.contains(&name.as_str()) && self.parent.child_is_populated(name));
    }

    fn count(&mut self, elapsed: f64) {
        for leaf in self.controller.leaves() {
            if let Some(tuned) = self.tuned.get_mut(&leaf.key) {
                tuned.received += leaf.measure.used * elapsed;
                tuned.entitled += leaf.entitled * elapsed;
            }
        }
    }

    fn write(&mut self, writes: &[(Key, Setting)], emulate: bool, events: &mut Vec<Event>) {
        for (key, setting) in writes {
            if let Some(tuned) = self.tuned.get_mut(key) {
                events.extend(tuned.put(*setting, 1.0));
            }
        }
        if !emulate {
            return;
        }
        for leaf in self.controller.leaves() {
            if let Some(tuned) = self.tuned.get_mut(&leaf.key) {
                events.extend(tuned.put(leaf.setting, Meaning::PerCpu.factor(&leaf.measure)));
            }
        }
    }

    /// A few at a time: what changes rarely, and what somebody else may have written.
    fn check(&mut self, acts: bool, events: &mut Vec<Event>) {
        for (key, tuned) in &mut self.tuned {
            if acts && (self.turn + key) % CHECK != 0 {
                continue;
            }
            tuned.probe.refresh();
            if let Some(event) = tuned.check() {
                if acts {
                    events.push(event);
                }
                self.controller.update(*key, tuned.terms());
                self.controller.found(*key, Some(tuned.written));
            }
            if tuned.fault.is_some() {
                self.controller.found(*key, None);
            }
            if !acts {
                self.controller.found(*key, Some(tuned.written));
            }
        }
    }

    /// What the controller has found out and not told yet.
    fn news(&mut self) -> Option<Event> {
        let now = (self.controller.acting(), self.controller.meaning());
        if std::mem::replace(&mut self.told, now) == now {
            return None;
        }
        Some(Event::Acting { cgroup: self.parent.full(), what: now.0.name(), meaning: now.1.name() })
    }

    fn restore(&mut self, events: &mut Vec<Event>) {
        for tuned in self.tuned.values_mut() {
            let cgroup = tuned.probe.cgroup.full();
            match tuned.restore() {
                Ok(true) => events.push(Event::Restored { cgroup }),
                Ok(false) => {}
                Err(error) => events.extend(tuned.failed(&error)),
            }
        }
    }

    pub fn path(&self) -> String {
        self.parent.full()
    }

    /// Seconds on the clock of samples.
    pub fn sampled_at(&self) -> f64 {
        self.at_us as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_own_word_is_understood() {
        let table = [
            ("up smp (concur) max tasks\n", Some(Meaning::PerCpu)),
            ("up (smp) concur max tasks\n", Some(Meaning::PerGroup)),
            ("(up) smp concur\n", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(meaning_of(text), expected, "{text:?}");
        }
    }
}
