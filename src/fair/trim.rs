//! The slow correction: a multiplier per leaf that closes the lag arithmetic cannot. Pure.
//!
//! Nothing moves while everybody's lag is within `DEAD`. Beyond it an *episode* begins: what a leaf received
//! for its weight, averaged over seconds, says how far the kernel misses (the *bias*, which stays when the
//! episode ends), and on top of it the lag is paid back over `REPAY` seconds (which ends with it). An episode
//! that makes the lag grow, or does not shrink it in time, is given up: the multipliers return to 1, and it is
//! tried again only after a pause that doubles.

use std::collections::BTreeMap;

use super::controller::LAG_LEAK;
use super::model::Key;

/// Seconds of entitlement that lag may be before anything is done, and CPU-seconds whatever the entitlement:
/// the kernel serves in slices, and a small share is late by whole ones.
const DEAD: f64 = 0.5;
const GRAIN: f64 = 0.012;
/// Lag within so many standard deviations of what chance makes is chance.
const CHANCE: f64 = 4.0;
const NOISE_WINDOW: f64 = 30.0;
/// Chance is judged in blocks of so many seconds: neighbouring intervals are not independent.
const BLOCK: f64 = 2.0;
/// Nothing is judged before it is known how much chance makes.
const BLOCKS: f64 = 4.0;
/// An episode ends when the lag is within this part of what begins one.
const DONE: f64 = 0.3;
const REPAY: f64 = 4.0;
/// The most that paying back may change a weight by, as a logarithm.
const REPAY_MOST: f64 = 0.25;
const MOST: f64 = 16.0;
/// How often weights move within an episode.
const PACE: f64 = 1.0;
/// What was received is averaged over about this many seconds.
const WINDOW: f64 = 3.0;
/// An episode has to have shrunk the lag after so long, and not doubled it at any time after `TRIAL`.
const PATIENCE: f64 = 20.0;
const TRIAL: f64 = 5.0;
const PAUSE: f64 = 30.0;
const PAUSE_MOST: f64 = 960.0;

/// What is known of one leaf in an interval.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    pub key: Key,
    pub entitled: f64,
    pub used: f64,
    pub lag: f64,
    /// Saturated and not held by anything else.
    pub fit: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Logarithms: what was learnt, and what is in force.
    bias: f64,
    log: f64,
    /// Averages.
    used: f64,
    entitled: f64,
    logs: f64,
    noise: Noise,
}

/// How far what is received strays from its own mean, whatever that is.
#[derive(Debug, Clone, Copy, Default)]
struct Noise {
    count: f64,
    mean: f64,
    variance: f64,
    /// The block being filled: its length and what was missed in it.
    length: f64,
    missed: f64,
}

impl Noise {
    fn add(&mut self, elapsed: f64, missed: f64) {
        self.length += elapsed;
        self.missed += missed * elapsed;
        if self.length < BLOCK {
            return;
        }
        let rate = self.missed / self.length;
        (self.length, self.missed) = (0.0, 0.0);
        self.count += 1.0;
        let part = (BLOCK / NOISE_WINDOW).max(1.0 / self.count);
        let off = rate - self.mean;
        self.mean += part * off;
        self.variance = (1.0 - part) * (self.variance + part * off * off);
    }

    /// The lag chance alone makes, as a standard deviation: a sum of such steps that leaks. Few blocks
    /// underestimate it.
    fn lag(&self) -> f64 {
        let few = 1.0 + 4.0 / self.count.max(1.0);
        (self.variance * BLOCK * LAG_LEAK / 2.0).sqrt() * few
    }
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    since: f64,
    worst: f64,
}

#[derive(Debug, Default)]
pub struct Trim {
    leaves: BTreeMap<Key, State>,
    episode: Option<Episode>,
    next_in: f64,
    silent_for: f64,
    pause: f64,
}

impl Trim {
    pub fn of(&self, key: Key) -> f64 {
        self.leaves.get(&key).map_or(1.0, |state| state.log.exp())
    }

    pub fn acting(&self) -> bool {
        self.episode.is_some()
    }

    /// Acting did not help; nothing is tried for a while.
    pub fn silent(&self) -> bool {
        self.silent_for > 0.0
    }

    /// Others compete now, or for other parts: averages and failures of before mean nothing.
    pub fn settle(&mut self) {
        self.episode = None;
        self.silent_for = 0.0;
        self.pause = 0.0;
        for state in self.leaves.values_mut() {
            (state.used, state.entitled) = (0.0, 0.0);
            state.log = state.bias;
        }
    }

    pub fn step(&mut self, elapsed: f64, leaves: &[Judged]) {
        self.leaves.retain(|key, _| leaves.iter().any(|leaf| leaf.key == *key));
        self.average(elapsed, leaves);
        if self.silent_for > 0.0 {
            self.silent_for = (self.silent_for - elapsed).max(0.0);
            return;
        }
        let worst =
            leaves.iter().filter(|leaf| leaf.fit).map(|leaf| self.behind(leaf).abs()).fold(0.0, f64::max);
        match &mut self.episode {
            None if worst > 1.0 => self.episode = Some(Episode { since: 0.0, worst }),
            None => return,
            Some(_) if worst < DONE => {
                self.episode = None;
                self.pause = 0.0;
            }
            Some(episode) => {
                episode.since += elapsed;
                let harmful = episode.since > TRIAL && worst > 2.0 * episode.worst;
                let useless = episode.since > PATIENCE && worst > episode.worst * 0.9;
                if harmful || useless {
                    return self.give_up();
                }
                if episode.since > PATIENCE {
                    *episode = Episode { since: 0.0, worst };
                }
            }
        }
        self.next_in -= elapsed;
        if self.next_in <= 0.0 || self.episode.is_none() {
            self.next_in = PACE;
            self.correct(leaves);
        }
    }

    fn give_up(&mut self) {
        self.episode = None;
        self.pause = (self.pause * 2.0).clamp(PAUSE, PAUSE_MOST);
        self.silent_for = self.pause;
        for state in self.leaves.values_mut() {
            *state = State::default();
        }
    }

    fn average(&mut self, elapsed: f64, leaves: &[Judged]) {
        let part = 1.0 - (-elapsed / WINDOW).exp();
        for leaf in leaves {
            let state = self.leaves.entry(leaf.key).or_default();
            if !leaf.fit {
                // Who does not compete is not corrected, and what it was corrected by fades.
                state.bias *= 0.7f64.powf(elapsed / 0.25);
                *state = State { bias: state.bias, log: state.bias, ..State::default() };
                continue;
            }
            state.noise.add(elapsed, leaf.entitled - leaf.used);
            if state.entitled == 0.0 {
                (state.used, state.entitled, state.logs) = (leaf.used, leaf.entitled, state.log);
            } else {
                state.used += part * (leaf.used - state.used);
                state.entitled += part * (leaf.entitled - state.entitled);
                state.logs += part * (state.log - state.logs);
            }
        }
    }

    /// Lag in units of what may be ignored.
    fn behind(&self, leaf: &Judged) -> f64 {
        let Some(noise) = self.leaves.get(&leaf.key).map(|state| &state.noise) else { return 0.0 };
        if noise.count < BLOCKS {
            return 0.0;
        }
        let chance = noise.lag();
        leaf.lag / (DEAD * leaf.entitled + GRAIN).max(CHANCE * chance)
    }

    fn correct(&mut self, leaves: &[Judged]) {
        let acting = self.episode.is_some();
        let bound = MOST.ln();
        let fit: Vec<&Judged> = leaves.iter().filter(|leaf| leaf.fit).collect();
        let late: Vec<&Judged> = fit.iter().copied().filter(|leaf| self.behind(leaf).abs() > DONE).collect();
        for leaf in late {
            let state = self.leaves.entry(leaf.key).or_default();
            let missed = (state.used.max(1e-4) / state.entitled.max(1e-4)).ln();
            state.bias = (state.logs - missed).clamp(-bound, bound);
        }
        // Only ratios count: together they stay where they are.
        let middle =
            fit.iter().map(|leaf| self.leaves[&leaf.key].bias).sum::<f64>() / fit.len().max(1) as f64;
        for leaf in &fit {
            let repay = if acting { leaf.lag / leaf.entitled.max(1e-3) / REPAY } else { 0.0 };
            let state = self.leaves.entry(leaf.key).or_default();
            state.bias -= middle;
            state.log = (state.bias + repay.clamp(-REPAY_MOST, REPAY_MOST)).clamp(-bound, bound);
        }
    }
}
