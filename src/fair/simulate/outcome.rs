//! What came out of a run: how far everybody was from what it was entitled to, and what that took.

use super::super::record::Point;
use super::Reference;
use super::machine::{Machine, TICK_US};
use super::scenario::{Kernel, PolicyName, Scenario};

const WINDOW_US: u64 = 1_000_000;
/// So long after the last arrival, exit, update, absence or return there is nothing left to write.
const REST_US: u64 = 15_000_000;
/// Below this part of a CPU an error in percent means nothing.
const NEGLIGIBLE: f64 = 0.01;

#[derive(Debug, Clone, PartialEq)]
pub struct Result {
    pub name: String,
    /// CPU-seconds.
    pub entitled: f64,
    pub received: f64,
    /// The most it was ever behind, in CPU-seconds.
    pub lag: f64,
}

impl Result {
    /// How much it received beyond what it was entitled to, as a part of that.
    pub fn error(&self) -> f64 {
        if self.entitled > 0.0 { self.received / self.entitled - 1.0 } else { 0.0 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub policy: PolicyName,
    pub kernel: Kernel,
    pub containers: Vec<Result>,
    /// The largest error of a container, as a part of what it was entitled to.
    pub worst: f64,
    pub jain: f64,
    /// Errors within windows of one second: the middle one, and the one 19 of 20 do not exceed.
    pub middle: f64,
    pub high: f64,
    /// CPU-seconds used, and how many could have been.
    pub used: f64,
    pub usable: f64,
    pub writes: u64,
    /// Writes when nothing had changed for `REST`.
    pub writes_at_rest: u64,
    pub seconds: f64,
    pub points: Vec<Point>,
    /// Per window of one second: the second it begins at, and the largest error in it.
    pub windows: Vec<(f64, f64)>,
}

#[derive(Debug, Default, Clone)]
struct Sums {
    entitled: f64,
    received: f64,
    most_behind: f64,
}

pub(super) struct Tally {
    from_us: u64,
    /// When somebody came, went or changed last.
    changed_us: u64,
    total: Vec<Sums>,
    window: Vec<Sums>,
    interval: Vec<Sums>,
    ever: Vec<Sums>,
    used_before: Vec<u64>,
    errors: Vec<f64>,
    windows: Vec<(f64, f64)>,
    usable: f64,
    writes: u64,
    writes_at_rest: u64,
    pub points: Vec<Point>,
}

impl Tally {
    pub fn new(scenario: &Scenario) -> Self {
        let none = vec![Sums::default(); scenario.containers.len()];
        Self {
            from_us: (scenario.from * 1e6) as u64,
            changed_us: 0,
            total: none.clone(),
            window: none.clone(),
            interval: none.clone(),
            ever: none,
            used_before: vec![0; scenario.containers.len()],
            errors: Vec::new(),
            windows: Vec::new(),
            usable: 0.0,
            writes: 0,
            writes_at_rest: 0,
            points: Vec::new(),
        }
    }

    /// Books what the coming tick entitles everybody to.
    pub fn refer(&mut self, reference: &mut Reference, machine: &Machine) {
        let seconds = TICK_US as f64 / 1e6;
        let counts = machine.now_us >= self.from_us;
        for (group, entitled) in reference.entitled(machine).iter().enumerate() {
            let amount = entitled * seconds;
            self.window[group].entitled += amount;
            self.interval[group].entitled += amount;
            self.ever[group].entitled += amount;
            if counts {
                self.total[group].entitled += amount;
                self.usable += amount;
            }
        }
    }

    /// Books what the tick that has passed gave.
    pub fn count(&mut self, machine: &Machine) {
        let counts = machine.now_us > self.from_us;
        for group in 0..self.total.len() {
            let used = machine.used_us(group);
            let amount = (used - self.used_before[group]) as f64 / 1e6;
            self.used_before[group] = used;
            self.window[group].received += amount;
            self.interval[group].received += amount;
            self.ever[group].received += amount;
            if counts {
                let total = &mut self.total[group];
                total.received += amount;
                total.most_behind = total.most_behind.max(total.entitled - total.received);
            }
        }
        if machine.now_us % WINDOW_US == 0 {
            self.close_window(machine.now_us);
        }
    }

    fn close_window(&mut self, now_us: u64) {
        let seconds = WINDOW_US as f64 / 1e6;
        let mut worst: f64 = 0.0;
        for sums in &mut self.window {
            let sums = std::mem::take(sums);
            if sums.entitled > NEGLIGIBLE * seconds && now_us > self.from_us {
                let error = (sums.received / sums.entitled - 1.0).abs();
                self.errors.push(error);
                worst = worst.max(error);
            }
        }
        self.windows.push(((now_us - WINDOW_US) as f64 / 1e6, worst));
    }

    pub fn changed(&mut self, now_us: u64) {
        self.changed_us = now_us;
    }

    pub fn wrote(&mut self, now_us: u64) {
        self.writes += 1;
        if now_us >= self.changed_us + REST_US {
            self.writes_at_rest += 1;
        }
    }

    /// Entitled, received and lag of everybody; the first two since the last time this was asked.
    pub fn interval(&mut self) -> Vec<(f64, f64, f64)> {
        let lags = self.ever.iter().map(|sums| sums.entitled - sums.received);
        let rows =
            self.interval.iter().zip(lags).map(|(sums, lag)| (sums.entitled, sums.received, lag)).collect();
        self.interval.fill(Sums::default());
        rows
    }

    pub fn finish(mut self, scenario: &Scenario, policy: PolicyName, kernel: Kernel) -> Outcome {
        let containers: Vec<Result> = scenario
            .containers
            .iter()
            .zip(&self.total)
            .map(|(container, sums)| Result {
                name: container.name.clone(),
                entitled: sums.entitled,
                received: sums.received,
                lag: sums.most_behind,
            })
            .collect();
        let seconds = scenario.seconds - scenario.from;
        let judged = || containers.iter().filter(|result| result.entitled > NEGLIGIBLE * seconds * 0.1);
        self.errors.sort_by(f64::total_cmp);
        Outcome {
            policy,
            kernel,
            worst: judged().map(|result| result.error().abs()).fold(0.0, f64::max),
            jain: jain(&judged().map(|result| result.received / result.entitled).collect::<Vec<_>>()),
            middle: quantile(&self.errors, 0.5),
            high: quantile(&self.errors, 0.95),
            used: containers.iter().map(|result| result.received).sum(),
            usable: self.usable,
            writes: self.writes,
            writes_at_rest: self.writes_at_rest,
            seconds,
            points: self.points,
            windows: self.windows,
            containers,
        }
    }
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        count => sorted[((count - 1) as f64 * part).round() as usize],
    }
}

/// Jain's index: 1 when everybody has the same part of what it is entitled to, 1/n when one has everything.
pub fn jain(parts: &[f64]) -> f64 {
    let sum: f64 = parts.iter().sum();
    let squares: f64 = parts.iter().map(|part| part * part).sum();
    if squares > 0.0 { sum * sum / (parts.len() as f64 * squares) } else { 1.0 }
}
