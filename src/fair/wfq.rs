//! The tuner: exact weights first, a slow trim second, and nothing where nothing is wrong. Pure.
//!
//! The weight of a leaf is what it stands for in the tree (so a tenant with five containers weighs as much as
//! one with one), divided by how many times the kernel counts it, times the trim. The first two are known at
//! once when something changes; the trim takes seconds and is bounded.

use std::collections::BTreeMap;

use super::fill::entitle;
use super::meaning::Meaning;
use super::meter::Held;
use super::model::Key;
use super::policy::{Acting, Policy, Setting, Standing, View, base, own};
use super::queue::Wake;
use super::trim::{Judged, Trim};
use super::weight::{USUAL, weights};

#[derive(Debug)]
pub struct Wfq {
    credit: f64,
    trim: Trim,
    smooth: BTreeMap<Key, Smooth>,
    trims: Vec<f64>,
    meaning: Meaning,
}

/// What a leaf demands and how many threads it has, without the flicker of single intervals.
#[derive(Debug, Clone, Copy)]
struct Smooth {
    demand: f64,
    factor: f64,
    saturated: bool,
    /// Seconds since it was seen to want more than it got, while it went on running.
    content: f64,
}

const WINDOW: f64 = 1.0;
/// What takes CPUs away from the whole machine for a moment makes a hog look as if it had paused: one sample, or
/// less than so many seconds, prove nothing.
const HOLD: f64 = 0.7;

impl Wfq {
    /// `credit`: seconds of missed service that waking up may bring back.
    pub fn new(credit: f64) -> Self {
        Self {
            credit,
            trim: Trim::default(),
            smooth: BTreeMap::new(),
            trims: Vec::new(),
            meaning: Meaning::PerGroup,
        }
    }

    fn follow(&mut self, view: &View) {
        if view.changed {
            self.smooth.clear();
            self.trim.settle();
        }
        if std::mem::replace(&mut self.meaning, view.meaning) != view.meaning {
            // What was learnt made up for what arithmetic does from now on.
            self.trim = Trim::default();
        }
        let part = 1.0 - (-view.elapsed / WINDOW).exp();
        for (member, measure) in view.measures.iter().enumerate() {
            let factor = view.meaning.factor(measure);
            // Who is new may want everything: better it waits a little than its whole tenant counts twice.
            let demand = if measure.held == Some(Held::New) { measure.cpus } else { measure.demand };
            let now = Smooth { demand, factor, saturated: measure.saturated, content: 0.0 };
            let smooth = self.smooth.entry(view.keys[member]).or_insert(now);
            let doubtful = smooth.saturated && !now.saturated && measure.active() && smooth.content < HOLD;
            if doubtful {
                smooth.content += view.elapsed.max(f64::EPSILON);
            } else if smooth.saturated != now.saturated {
                *smooth = now;
            } else {
                smooth.content = 0.0;
                smooth.demand += part * (now.demand - smooth.demand);
                smooth.factor += part * (now.factor - smooth.factor);
            }
        }
    }

    fn judge(&mut self, view: &View) {
        let leaves: Vec<Judged> = view
            .measures
            .iter()
            .enumerate()
            .map(|(member, measure)| Judged {
                key: view.keys[member],
                entitled: view.entitlement.entitled[view.tree.leaves[member]],
                used: measure.used,
                lag: view.lag[member],
                fit: measure.saturated && measure.held.is_none() && !view.tree.terms(member).best_effort,
            })
            .collect();
        if view.elapsed > 0.0 {
            self.trim.step(view.elapsed, &leaves);
        }
    }
}

impl Policy for Wfq {
    fn decide(&mut self, view: &View) -> Vec<Setting> {
        self.follow(view);
        self.judge(view);
        let count = view.tree.leaves.len();
        if self.trim.silent() {
            self.trims = vec![1.0; count];
            return base(view);
        }
        let smooth: Vec<Smooth> = view.keys.iter().map(|key| self.smooth[key]).collect();
        let demands: Vec<f64> = smooth.iter().map(|smooth| smooth.demand).collect();
        let standing = entitle(view.tree, &demands, view.cpus).standing;
        self.trims = view.keys.iter().map(|key| self.trim.of(*key)).collect();
        let wanted: Vec<f64> = (0..count)
            .map(|member| standing[view.tree.leaves[member]] / smooth[member].factor * self.trims[member])
            .collect();
        let shares: f64 = (0..count).map(|member| view.tree.terms(member).shares).sum();
        let usual = USUAL * shares / wanted.iter().sum::<f64>().max(1e-9);
        let written = weights(&wanted, usual, view.others);
        written.iter().enumerate().map(|(member, weight)| own(view, member, *weight)).collect()
    }

    fn standing(&self) -> Standing {
        let acting = if self.trim.silent() {
            Acting::Unresponsive
        } else if self.trim.acting() {
            Acting::Trimming
        } else {
            Acting::Content
        };
        Standing { acting, trims: self.trims.clone() }
    }

    fn wake(&self) -> Wake {
        Wake::AtMinimum { credit: self.credit }
    }

    fn tolerance(&self) -> f64 {
        0.03
    }
}
