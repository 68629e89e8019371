//! One cgroup that is tuned: what it had, what it has, and every write to it.

use anyhow::Result;

use super::base::{Base, Entry, Knobs, Tidings};
use super::model::{Key, Member, Terms};
use super::policy::Setting;
use super::sample::Probe;
use super::squeeze::{self, Memory};
use super::terms::Asked;
use super::tuner::{Arrival, Event};
use crate::cgroup::limits::Write;
use crate::cgroup::{Cgroup, apply};

/// One cgroup with all that is known of it.
pub struct Tuned {
    pub name: String,
    pub probe: Probe,
    pub asked: Asked,
    /// Tells its cgroup from a later one of the same name.
    number: u64,
    /// None: without the cpu controller it can only be watched.
    pub base: Option<Base>,
    knobs: Option<Knobs>,
    /// What the cgroup has.
    pub written: Setting,
    pub fault: Option<String>,
    /// Whom else to tell of changes; empty: nobody.
    unit: String,
    untold: bool,
    /// The memory terms in force.
    limited: Memory,
    /// When memory was last squeezed, and how long somebody had waited for it by then.
    squeezed: (u64, u64),
    pub received: f64,
    pub entitled: f64,
    pub writes: u64,
}

impl Tuned {
    pub fn new(arrival: Arrival, cgroup: Cgroup, at_us: u64) -> Result<Self> {
        let Arrival { name, asked, weight, unit, .. } = arrival;
        let found = Base::read(&cgroup)?;
        let (number, knobs) = (cgroup.number()?, Knobs::open(&cgroup)?);
        Ok(Self {
            name: name.to_owned(),
            probe: Probe::open(cgroup)?,
            asked,
            number,
            written: found.as_ref().map_or(Setting::of_weight(100), Base::setting),
            knobs,
            base: found.map(|base| Base { weight: weight.unwrap_or(base.weight), ..base }),
            fault: None,
            unit: unit.to_owned(),
            untold: false,
            limited: Memory::default(),
            squeezed: (at_us, 0),
            received: 0.0,
            entitled: 0.0,
            writes: 0,
        })
    }

    /// What the journal says of it; None: there is nothing to restore.
    pub fn entry(&self) -> Option<(String, Entry)> {
        let base = self.base.clone()?;
        Some((
            self.probe.cgroup.path().to_owned(),
            Entry { number: self.number, base, unit: self.unit.clone() },
        ))
    }

    /// What its unit's manager has not heard yet.
    pub fn tidings(&mut self) -> Option<Tidings> {
        let base = self.base.as_ref()?;
        if !std::mem::take(&mut self.untold) || self.unit.is_empty() {
            return None;
        }
        let asked = self.limited.files();
        let memory = base.memory.iter().map(|(file, text)| {
            Write::new(file.clone(), asked.get(file.as_str()).map_or(text.as_str(), String::as_str))
        });
        let writes = base.all(&self.written).into_iter().chain(memory).collect();
        Some(Tidings { unit: self.unit.clone(), writes })
    }

    /// What was asked, and no more than the limit that is in force anyway.
    pub fn terms(&self) -> Terms {
        let base = self.base.as_ref();
        let limit = self.asked.terms.limit.min(base.map_or(f64::INFINITY, Base::limit));
        let best_effort = self.asked.terms.best_effort || base.is_some_and(|base| base.idle);
        let reservation = if best_effort { 0.0 } else { self.asked.terms.reservation.min(limit) };
        Terms { limit, best_effort, reservation, ..self.asked.terms }
    }

    pub fn member(&self, key: Key) -> Member {
        Member {
            key,
            name: self.name.clone(),
            class: self.asked.class.clone(),
            tenant: self.asked.tenant.clone(),
            terms: self.terms(),
        }
    }

    /// Writes a setting, its weight multiplied by `factor`, unless the cgroup has it.
    pub fn put(&mut self, setting: Setting, factor: f64) -> Option<Event> {
        let base = self.base.as_ref()?;
        let weight = (f64::from(setting.weight) * factor).round().clamp(1.0, 10_000.0) as u16;
        let to = Setting { weight, ..setting };
        if to == self.written {
            return None;
        }
        match base.change(&self.probe.cgroup, &self.written, &to) {
            Ok(()) => {
                (self.written, self.fault, self.untold) = (to, None, true);
                self.writes += 1;
                let limit = to.limit.is_finite().then_some(to.limit);
                Some(Event::Wrote { container: self.name.clone(), weight, idle: to.idle, limit })
            }
            // Of one that has just ended there will be news soon.
            Err(_) if !self.probe.is_there() => None,
            Err(error) => self.failed(&error),
        }
    }

    /// Writes the memory terms, where they are not what the cgroup has.
    pub fn limit_memory(&mut self) -> Option<Event> {
        if std::mem::replace(&mut self.limited, self.asked.memory) == self.asked.memory {
            return None;
        }
        let base = self.base.as_ref()?;
        self.untold = true;
        let written = Base::read(&self.probe.cgroup).and_then(|now| match now {
            Some(now) => apply(&self.probe.cgroup, &base.memory_writes(&now, &self.asked.memory)),
            None => Ok(()),
        });
        written.err().and_then(|error| self.failed(&error))
    }

    /// Takes back a little memory now and then, where that was asked for.
    pub fn squeeze(&mut self, at_us: u64) -> Option<Event> {
        let elapsed = at_us.saturating_sub(self.squeezed.0) as f64 / 1e6;
        if !self.asked.memory.squeeze || elapsed < squeeze::PACE {
            return None;
        }
        self.probe.refresh();
        let waited_us = self.probe.memory_waited_us;
        let (_, before) = std::mem::replace(&mut self.squeezed, (at_us, waited_us));
        let waited = waited_us.saturating_sub(before) as f64 / 1e6 / elapsed;
        let bytes = squeeze::reclaim(&self.asked.memory, self.probe.memory_bytes, waited)?;
        let reclaimed = apply(&self.probe.cgroup, &[Write::new("memory.reclaim", bytes.to_string())]);
        // The kernel says so when there was not that much to take.
        reclaimed.is_ok().then(|| Event::Squeezed { container: self.name.clone(), bytes })
    }

    pub fn failed(&mut self, error: &anyhow::Error) -> Option<Event> {
        let why = format!("{error:#}");
        let known = self.fault.replace(why.clone()).is_some_and(|before| before == why);
        (!known).then(|| Event::Failed { container: self.name.clone(), why })
    }

    /// Whether the cgroup still has what was written. What somebody else wrote is what it has to have in the
    /// end; only what differs was theirs.
    pub fn check(&mut self) -> Option<Event> {
        let (base, now) = (self.base.as_mut()?, self.knobs.as_ref()?.read()?);
        let (found, ours) = (now.setting(), self.written);
        let weight = !found.idle && !ours.idle && found.weight != ours.weight;
        let limit =
            (found.limit - ours.limit).abs() > 0.005 || found.limit.is_finite() != ours.limit.is_finite();
        if !weight && !limit && found.idle == ours.idle {
            return None;
        }
        *base = Base {
            weight: if weight { now.weight } else { base.weight },
            idle: if found.idle != ours.idle { now.idle } else { base.idle },
            max: if limit { now.max.clone() } else { base.max.clone() },
            memory: base.memory.clone(),
        };
        self.written = found;
        Some(Event::Overridden {
            container: self.name.clone(),
            weight: now.weight,
            idle: now.idle,
            max: now.max,
        })
    }

    /// Whether there was anything to restore.
    pub fn restore(&mut self) -> Result<bool> {
        let Some(base) = &self.base else { return Ok(false) };
        if std::mem::take(&mut self.limited) != Memory::default() {
            self.untold = true;
            if let Some(now) = Base::read(&self.probe.cgroup)? {
                apply(&self.probe.cgroup, &base.memory_writes(&now, &Memory::default()))?;
            }
        }
        let to = base.setting();
        if to == self.written {
            return Ok(false);
        }
        base.change(&self.probe.cgroup, &self.written, &to)?;
        (self.written, self.untold) = (to, true);
        Ok(true)
    }
}
