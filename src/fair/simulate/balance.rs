//! How the simulated machine moves threads between CPUs.

use super::machine::{Machine, TICK_US};

const EVERY: u64 = 16;
/// A CPU is busier when its load is this much of another's.
const IMBALANCE: f64 = 1.17;

impl Machine {
    pub(super) fn balance(&mut self) {
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].queue.is_empty() {
                self.pull_one(cpu);
            }
        }
        let tick = self.now_us / TICK_US;
        for cpu in 0..self.cpus.len() {
            // Not all at the same time.
            if (tick + cpu as u64 * 5) % EVERY == 0 {
                self.even_out(cpu);
            }
        }
    }

    /// A CPU with nothing to do takes a waiting thread from the one with the most.
    fn pull_one(&mut self, cpu: usize) {
        let busiest = (0..self.cpus.len())
            .filter(|other| self.cpus[*other].queue.len() > 1)
            .filter(|other| self.waiting(*other, cpu).next().is_some())
            .max_by_key(|other| self.cpus[*other].queue.len());
        let taken = busiest.and_then(|busiest| self.waiting(busiest, cpu).next());
        if let Some(thread) = taken {
            self.carry(thread, cpu);
        }
    }

    fn carry(&mut self, thread: usize, cpu: usize) {
        self.dequeue(thread);
        self.enqueue(thread, cpu);
        self.split_weight(self.threads[thread].group);
    }

    /// Threads that wait on one CPU and may run on another, those that have waited longest first.
    fn waiting(&self, from: usize, to: usize) -> impl Iterator<Item = usize> {
        let current = self.cpus[from].current;
        self.cpus[from].queue.iter().copied().filter(move |thread| {
            let group = &self.groups[self.threads[*thread].group];
            Some(*thread) != current && group.allowed[to] && !group.throttled
        })
    }

    fn load(&self, cpu: usize) -> f64 {
        self.cpus[cpu].queue.iter().map(|thread| self.load_of(*thread)).sum()
    }

    fn load_of(&self, thread: usize) -> f64 {
        let group = &self.groups[self.threads[thread].group];
        let entity = &group.entities[self.threads[thread].cpu];
        if group.throttled { 0.0 } else { entity.weight / f64::from(entity.runnable.max(1)) }
    }

    /// Takes threads from the busiest CPU until half of the difference is moved. What is too heavy to be moved
    /// is moved all the same after some failures, so that three threads on two CPUs take turns.
    fn even_out(&mut self, cpu: usize) {
        let own = self.load(cpu);
        let loads = (0..self.cpus.len()).filter(|other| *other != cpu).map(|other| (other, self.load(other)));
        let Some((busiest, most)) = loads.max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        if most <= own * IMBALANCE || self.cpus[busiest].queue.len() < 2 {
            self.cpus[cpu].failed = 0;
            return;
        }
        let mut left = (most - own) / 2.0;
        let mut moved = false;
        let mut candidates: Vec<usize> = self.waiting(busiest, cpu).collect();
        // Where the list begins depends on what ran last, which is as good as chance.
        let first = self.random.draw() as usize % candidates.len().max(1);
        candidates.rotate_left(first);
        for thread in candidates {
            let load = self.load_of(thread);
            if load / f64::from(1u32 << self.cpus[cpu].failed.min(10)) > left {
                continue;
            }
            self.carry(thread, cpu);
            moved = true;
            left -= load;
            if left <= 0.0 {
                break;
            }
        }
        self.cpus[cpu].failed = if moved { 0 } else { self.cpus[cpu].failed + 1 };
    }
}
