//! A machine made of arithmetic: CPUs with run queues, groups with weights, threads that run and sleep. Pure
//! and deterministic: one millisecond per tick, and no randomness that is not drawn from the seed.
//!
//! It follows Linux where shares depend on it: a group's weight is split over CPUs by load averages with a
//! half-life of 32 ms; each CPU serves the group with the least virtual time for slices of about 3 ms; queues are
//! balanced every 16 ms when 17 % apart, and at once by a CPU that has nothing to do; quotas are per 100 ms.

use super::super::meaning::Meaning;
use super::super::meter::{Reading, Thread as Counters};
use super::super::model::Key;
use super::super::policy::Setting;
use super::super::random::Random;
use super::scenario::Bursts;

pub const TICK_US: u64 = 1000;
const SLICE: u64 = 3;
const QUOTA_PERIOD_US: u64 = 100_000;
/// The load average's half-life in ticks.
const HALF_LIFE: f64 = 32.0;
/// How long the host takes a CPU away when it does so half of the time.
const STEAL_US: f64 = 60_000.0;
/// What an idle group weighs, against the usual 100.
const IDLE_WEIGHT: f64 = 0.3;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Doing {
    Ready,
    Asleep { until_us: u64 },
}

#[derive(Debug)]
pub(super) struct Thread {
    pub group: usize,
    pub cpu: usize,
    pub doing: Doing,
    bursts: Option<Bursts>,
    left_us: f64,
    /// How often it has gone to sleep.
    slept: u64,
    ran_ns: u64,
    /// As Linux does it: a wait is booked when it ends.
    waited_ns: u64,
    waiting_ns: u64,
}

/// A group's part on one CPU.
#[derive(Debug, Clone, Default)]
pub(super) struct Entity {
    virtual_time: f64,
    load: f64,
    pub runnable: u32,
    pub weight: f64,
}

#[derive(Debug)]
pub(super) struct Group {
    pub key: Key,
    pub present: bool,
    pub away: bool,
    pub setting: Setting,
    pub allowed: Vec<bool>,
    pub entities: Vec<Entity>,
    pub used_us: u64,
    pressure_us: u64,
    quota_us: f64,
    pub throttled: bool,
    throttles: u64,
}

#[derive(Debug, Default)]
pub(super) struct Cpu {
    /// Runnable threads, next to run first among those of one group.
    pub queue: Vec<usize>,
    pub current: Option<usize>,
    slice: u32,
    least: f64,
    pub failed: u32,
    /// The host has taken it away for a while.
    pub stolen: bool,
    stolen_until_us: u64,
}

#[derive(Debug)]
pub struct Machine {
    pub now_us: u64,
    meaning: Meaning,
    pub(super) cpus: Vec<Cpu>,
    pub(super) groups: Vec<Group>,
    pub(super) threads: Vec<Thread>,
    pub(super) random: Random,
    decay: f64,
    /// The part of the time in which the host takes a CPU away.
    steal: f64,
}

impl Machine {
    pub fn new(cpus: u32, meaning: Meaning, steal: f64, seed: u64) -> Self {
        Self {
            now_us: 0,
            meaning,
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            groups: Vec::new(),
            threads: Vec::new(),
            random: Random::new(seed),
            decay: 0.5f64.powf(1.0 / HALF_LIFE),
            steal,
        }
    }

    /// A group with threads that sleep until it is started; the groups are numbered in this order.
    pub fn add(&mut self, key: Key, allowed: Option<&[u32]>, threads: &[Option<Bursts>]) {
        let cpus = self.cpus.len();
        let allowed: Vec<bool> =
            (0..cpus).map(|cpu| allowed.is_none_or(|list| list.contains(&(cpu as u32)))).collect();
        let first = allowed.iter().position(|allowed| *allowed).unwrap_or(0);
        self.groups.push(Group {
            key,
            present: false,
            away: false,
            setting: Setting::of_weight(100),
            allowed,
            entities: vec![Entity::default(); cpus],
            used_us: 0,
            pressure_us: 0,
            quota_us: 0.0,
            throttled: false,
            throttles: 0,
        });
        let group = self.groups.len() - 1;
        for bursts in threads {
            self.threads.push(Thread {
                group,
                cpu: first,
                doing: Doing::Asleep { until_us: 0 },
                bursts: *bursts,
                left_us: 0.0,
                slept: 0,
                ran_ns: 0,
                waited_ns: 0,
                waiting_ns: 0,
            });
        }
    }

    pub fn start(&mut self, group: usize) {
        self.groups[group].present = true;
        self.groups[group].quota_us = self.quota(group);
    }

    pub fn stop(&mut self, group: usize) {
        self.groups[group].present = false;
        self.put_to_sleep(group);
    }

    pub fn set_away(&mut self, group: usize, away: bool) {
        self.groups[group].away = away;
        if away {
            self.put_to_sleep(group);
        }
    }

    fn put_to_sleep(&mut self, group: usize) {
        for thread in
            (0..self.threads.len()).filter(|thread| self.threads[*thread].group == group).collect::<Vec<_>>()
        {
            if self.threads[thread].doing == Doing::Ready {
                self.dequeue(thread);
                self.threads[thread].slept += 1;
            }
            self.threads[thread].doing = Doing::Asleep { until_us: 0 };
        }
    }

    pub fn set(&mut self, group: usize, setting: Setting) {
        self.groups[group].setting = setting;
        self.groups[group].quota_us = self.groups[group].quota_us.min(self.quota(group));
        self.groups[group].throttled &= setting.limit.is_finite();
    }

    fn quota(&self, group: usize) -> f64 {
        self.groups[group].setting.limit * QUOTA_PERIOD_US as f64
    }

    /// How many CPUs each group could use at this moment.
    pub fn demands(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|group| {
            let runnable: u32 = group.entities.iter().map(|entity| entity.runnable).sum();
            runnable.min(group.allowed.iter().filter(|allowed| **allowed).count() as u32)
        })
    }

    pub fn used_us(&self, group: usize) -> u64 {
        self.groups[group].used_us
    }

    pub fn reading(&self, group: usize) -> Reading {
        let threads = self.threads.iter().enumerate().filter(|(_, thread)| thread.group == group);
        let counters = threads.map(|(id, thread)| Counters {
            id: id as u64,
            ran_ns: thread.ran_ns,
            waited_ns: thread.waited_ns,
            slept: (thread.doing == Doing::Ready).then_some(thread.slept),
        });
        let group = &self.groups[group];
        Reading {
            key: group.key,
            used_us: group.used_us,
            threads: Some(counters.collect()),
            pressure_us: Some(group.pressure_us),
            throttled: group.throttles,
            frozen: false,
            cpus: group.allowed.iter().filter(|allowed| **allowed).count() as f64,
        }
    }

    /// CPUs that the host has not taken away.
    pub fn capacity(&self) -> f64 {
        self.cpus.iter().filter(|cpu| !cpu.stolen).count() as f64
    }

    /// Spans of some tens of milliseconds, after which the host lets the CPU be for so long that the part is right.
    fn be_stolen(&mut self) {
        for cpu in 0..self.cpus.len() {
            if self.now_us < self.cpus[cpu].stolen_until_us {
                continue;
            }
            let stolen = !self.cpus[cpu].stolen;
            let part = if stolen { self.steal } else { 1.0 - self.steal };
            let span = self.vary(2.0 * STEAL_US * part);
            self.cpus[cpu].stolen = stolen;
            self.cpus[cpu].stolen_until_us = self.now_us + span as u64;
        }
    }

    pub fn tick(&mut self) {
        self.wake();
        if self.now_us % QUOTA_PERIOD_US == 0 {
            for group in 0..self.groups.len() {
                self.groups[group].quota_us = self.quota(group);
                self.groups[group].throttled = false;
            }
        }
        self.follow_loads();
        self.split_weights();
        self.balance();
        for cpu in 0..self.cpus.len() {
            self.choose(cpu);
        }
        self.run();
        self.now_us += TICK_US;
        if self.steal > 0.0 {
            self.be_stolen();
        }
    }

    fn wake(&mut self) {
        for thread in 0..self.threads.len() {
            let Doing::Asleep { until_us } = self.threads[thread].doing else { continue };
            let group = &self.groups[self.threads[thread].group];
            if until_us > self.now_us || !group.present || group.away {
                continue;
            }
            let length = self.threads[thread].bursts.map(|bursts| bursts.run_ms * 1000.0);
            let length = match self.threads[thread].bursts {
                Some(bursts) if bursts.random => self.vary(bursts.run_ms * 1000.0),
                _ => length.unwrap_or(f64::INFINITY),
            };
            self.threads[thread].left_us = length;
            self.threads[thread].doing = Doing::Ready;
            let cpu = self.quietest(thread);
            self.enqueue(thread, cpu);
        }
    }

    /// Between half and one and a half times as much.
    fn vary(&mut self, length: f64) -> f64 {
        length * (0.5 + self.random.unit())
    }

    /// Where it was, if that is idle; else where the fewest run.
    fn quietest(&self, thread: usize) -> usize {
        let group = &self.groups[self.threads[thread].group];
        let last = self.threads[thread].cpu;
        let allowed = (0..self.cpus.len()).filter(|cpu| group.allowed[*cpu]);
        allowed.min_by_key(|cpu| (self.cpus[*cpu].queue.len(), *cpu != last, *cpu)).unwrap_or(last)
    }

    pub(super) fn enqueue(&mut self, thread: usize, cpu: usize) {
        let group = self.threads[thread].group;
        self.threads[thread].cpu = cpu;
        let least = self.cpus[cpu].least;
        self.cpus[cpu].queue.push(thread);
        let entity = &mut self.groups[group].entities[cpu];
        entity.runnable += 1;
        if entity.runnable == 1 {
            entity.virtual_time = entity.virtual_time.max(least);
            // Who wakes up is looked at without waiting for the end of the slice.
            self.cpus[cpu].slice = 0;
        }
    }

    pub(super) fn dequeue(&mut self, thread: usize) {
        let (cpu, group) = (self.threads[thread].cpu, self.threads[thread].group);
        self.cpus[cpu].queue.retain(|other| *other != thread);
        if self.cpus[cpu].current == Some(thread) {
            self.cpus[cpu].current = None;
        }
        self.groups[group].entities[cpu].runnable -= 1;
    }

    fn follow_loads(&mut self) {
        for group in &mut self.groups {
            for entity in &mut group.entities {
                let count = if group.throttled { 0.0 } else { f64::from(entity.runnable) };
                entity.load = entity.load * self.decay + count * (1.0 - self.decay);
            }
        }
    }

    /// Splits each group's weight over its CPUs by load averages.
    pub(super) fn split_weights(&mut self) {
        for group in 0..self.groups.len() {
            self.split_weight(group);
        }
    }

    pub(super) fn split_weight(&mut self, group: usize) {
        let group = &mut self.groups[group];
        let runnable: u32 = group.entities.iter().map(|entity| entity.runnable).sum();
        if runnable == 0 {
            return;
        }
        let total: f64 = group.entities.iter().map(|entity| entity.load).sum();
        let allowed = group.allowed.iter().filter(|allowed| **allowed).count() as u32;
        let times = if self.meaning == Meaning::PerCpu { f64::from(runnable.min(allowed)) } else { 1.0 };
        let weight = if group.setting.idle { IDLE_WEIGHT } else { f64::from(group.setting.weight) } * times;
        for entity in group.entities.iter_mut().filter(|entity| entity.runnable > 0) {
            let load = f64::from(entity.runnable).max(entity.load);
            entity.weight = (weight * load / (total - entity.load + load)).max(0.02);
        }
    }

    fn may_run(&self, thread: usize) -> bool {
        !self.groups[self.threads[thread].group].throttled
    }

    /// The thread a CPU runs next: of the group with the least virtual time, idle groups after all others.
    fn choose(&mut self, cpu: usize) {
        if self.cpus[cpu].slice > 0 && self.cpus[cpu].current.is_some_and(|thread| self.may_run(thread)) {
            return;
        }
        if let Some(current) = self.cpus[cpu].current.take() {
            // To the end, so that its siblings have their turn.
            self.cpus[cpu].queue.retain(|other| *other != current);
            self.cpus[cpu].queue.push(current);
        }
        let order = |thread: &usize| {
            let group = &self.groups[self.threads[*thread].group];
            (group.setting.idle, group.entities[cpu].virtual_time)
        };
        let runnable = self.cpus[cpu].queue.iter().copied().filter(|thread| self.may_run(*thread));
        let next = runnable.min_by(|a, b| {
            let (a, b) = (order(a), order(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        self.cpus[cpu].current = next;
        // Interrupts and the like cut slices short or long.
        self.cpus[cpu].slice = (SLICE - 1 + self.random.draw() % 3) as u32;
        let idle = next.is_some_and(|thread| order(&thread).0);
        let runnable = self.cpus[cpu].queue.iter().filter(|thread| self.may_run(**thread));
        let times = runnable.map(order).filter(|order| order.0 == idle).map(|order| order.1);
        let least = times.fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            self.cpus[cpu].least = self.cpus[cpu].least.max(least);
        }
    }

    fn run(&mut self) {
        let mut waited = vec![false; self.groups.len()];
        for cpu in 0..self.cpus.len() {
            let current = self.cpus[cpu].current;
            let current = current.filter(|_| !self.cpus[cpu].stolen);
            for thread in self.cpus[cpu].queue.clone() {
                let group = self.threads[thread].group;
                if Some(thread) != current && !self.groups[group].throttled {
                    self.threads[thread].waiting_ns += TICK_US * 1000;
                    waited[group] = true;
                }
            }
            if let Some(thread) = current {
                self.advance(cpu, thread);
            }
        }
        for (group, waited) in waited.into_iter().enumerate() {
            self.groups[group].pressure_us += if waited { TICK_US } else { 0 };
        }
    }

    fn advance(&mut self, cpu: usize, thread: usize) {
        let group = &mut self.groups[self.threads[thread].group];
        group.used_us += TICK_US;
        group.entities[cpu].virtual_time += TICK_US as f64 / group.entities[cpu].weight;
        group.quota_us -= TICK_US as f64;
        if group.quota_us <= 0.0 && !group.throttled {
            group.throttled = true;
            group.throttles += 1;
        }
        self.cpus[cpu].slice -= 1;
        self.threads[thread].ran_ns += TICK_US * 1000;
        self.threads[thread].waited_ns += std::mem::take(&mut self.threads[thread].waiting_ns);
        self.threads[thread].left_us -= TICK_US as f64;
        if self.threads[thread].left_us <= 0.0 {
            let bursts = self.threads[thread].bursts.expect("only bursts end");
            let pause = bursts.sleep_ms * 1000.0;
            let pause = if bursts.random { self.vary(pause) } else { pause };
            self.dequeue(thread);
            self.threads[thread].slept += 1;
            self.threads[thread].doing = Doing::Asleep { until_us: self.now_us + TICK_US + pause as u64 };
        }
    }
}
