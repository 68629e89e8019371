//! One cgroup that is tuned: what it had, what it has, and every write to it.

use anyhow::Result;

use super::base::{Base, Entry};
use super::model::{Key, Member, Terms};
use super::policy::Setting;
use super::sample::Probe;
use super::squeeze::{self, Memory};
use super::terms::Asked;
use super::tuner::Event;
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
    /// What the cgroup has.
    pub written: Setting,
    pub fault: Option<String>,
    /// The memory terms in force.
    limited: Memory,
    /// When memory was last squeezed, and how long somebody had waited for it by then.
    squeezed: (u64, u64),
    pub received: f64,
    pub entitled: f64,
    pub writes: u64,
}

impl Tuned {
    /// `weight` is the one it has to have in the end, where that is known better than by looking.
    pub fn new(name: &str, cgroup: Cgroup, asked: Asked, weight: Option<u16>, at_us: u64) -> Result<Self> {
        let found = Base::read(&cgroup)?;
        let number = cgroup.number()?;
        Ok(Self {
            name: name.to_owned(),
            probe: Probe::open(cgroup)?,
            asked,
            number,
            written: found.as_ref().map_or(Setting::of_weight(100), Base::setting),
            base: found.map(|base| Base { weight: weight.unwrap_or(base.weight), ..base }),
            fault: None,
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
        Some((self.probe.cgroup.path().to_owned(), Entry { number: self.number, base }))
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
                (self.written, self.fault) = (to, None);
                self.writes += 1;
                let limit = to.limit.is_finite().then_some(to.limit);
                Some(Event::Wrote { container: self.name.clone(), weight, idle: to.idle, limit })
            }
            // Of one that has just ended there will be news soon.
            Err(_) if self.probe.read(0, false).is_none() => None,
            Err(error) => self.failed(&error),
        }
    }

    /// Writes the memory terms, where they are not what the cgroup has.
    pub fn limit_memory(&mut self) -> Option<Event> {
        if std::mem::replace(&mut self.limited, self.asked.memory) == self.asked.memory {
            return None;
        }
        let base = self.base.as_ref()?;
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
    pub fn check(&mut self) -> Result<Option<Event>> {
        let (Some(base), Some(now)) = (&mut self.base, Base::read(&self.probe.cgroup)?) else {
            return Ok(None);
        };
        let (found, ours) = (now.setting(), self.written);
        let weight = !found.idle && !ours.idle && found.weight != ours.weight;
        let limit =
            (found.limit - ours.limit).abs() > 0.005 || found.limit.is_finite() != ours.limit.is_finite();
        if !weight && !limit && found.idle == ours.idle {
            return Ok(None);
        }
        *base = Base {
            weight: if weight { now.weight } else { base.weight },
            idle: if found.idle != ours.idle { now.idle } else { base.idle },
            max: if limit { now.max.clone() } else { base.max.clone() },
            memory: base.memory.clone(),
        };
        self.written = found;
        Ok(Some(Event::Overridden {
            container: self.name.clone(),
            weight: now.weight,
            idle: now.idle,
            max: now.max,
        }))
    }

    /// Whether there was anything to restore.
    pub fn restore(&mut self) -> Result<bool> {
        let Some(base) = &self.base else { return Ok(false) };
        if std::mem::take(&mut self.limited) != Memory::default() {
            if let Some(now) = Base::read(&self.probe.cgroup)? {
                apply(&self.probe.cgroup, &base.memory_writes(&now, &Memory::default()))?;
            }
        }
        let to = base.setting();
        if to == self.written {
            return Ok(false);
        }
        base.change(&self.probe.cgroup, &self.written, &to)?;
        self.written = to;
        Ok(true)
    }
}
