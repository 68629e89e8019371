//! What a policy is: facts of an interval in, a setting for every leaf out. Pure.

use super::fill::Entitlement;
use super::meaning::Meaning;
use super::meter::Measure;
use super::model::{Key, Tree};
use super::queue::{Queue, Wake};
use super::weight::{USUAL, weights};

/// What is written to one cgroup.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    pub weight: u16,
    /// Runs only when nobody else wants to; its weight then means nothing.
    pub idle: bool,
    /// CPUs as a hard limit; infinite for none.
    pub limit: f64,
}

impl Setting {
    pub fn of_weight(weight: u16) -> Self {
        Self { weight, idle: false, limit: f64::INFINITY }
    }
}

/// Everything known about the interval that has just ended.
#[derive(Debug)]
pub struct View<'a> {
    /// Its length in seconds; 0 at the start and when only terms changed.
    pub elapsed: f64,
    pub tree: &'a Tree,
    /// Per member, like everything but `entitlement`, which is per node.
    pub keys: &'a [Key],
    pub measures: &'a [Measure],
    pub entitlement: &'a Entitlement,
    pub lag: &'a [f64],
    pub queue: &'a Queue,
    pub cpus: f64,
    pub meaning: Meaning,
    /// Members or terms are not what they were.
    pub changed: bool,
    /// Others have weights beside ours, so ours cannot be scaled.
    pub others: bool,
}

pub trait Policy {
    /// One setting per member.
    fn decide(&mut self, view: &View) -> Vec<Setting>;

    fn standing(&self) -> Standing {
        Standing::default()
    }

    /// How the queue treats those who wake up.
    fn wake(&self) -> Wake {
        Wake::AtMinimum { credit: 0.0 }
    }

    /// How far a weight may be from what is decided before it is written, as a ratio.
    fn tolerance(&self) -> f64 {
        0.0
    }
}

/// What a policy has to say about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    pub acting: Acting,
    /// What each member's weight is multiplied with beyond what arithmetic says.
    pub trims: Vec<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Acting {
    /// Received is what was entitled: there is nothing to do.
    #[default]
    Content,
    Trimming,
    /// The kernel does not follow weights; they stay at their base.
    Unresponsive,
}

impl Acting {
    pub fn name(self) -> &'static str {
        match self {
            Acting::Content => "kernel is fair, not acting",
            Acting::Trimming => "trimming",
            Acting::Unresponsive => "kernel does not respond, not acting",
        }
    }
}

/// The limit a member's own terms set.
pub fn own(view: &View, member: usize, weight: u16) -> Setting {
    let terms = view.tree.terms(member);
    Setting { weight, idle: terms.best_effort, limit: terms.limit }
}

/// Weights by shares among siblings that all are containers, as if there were no tenants: what is written
/// when nobody tunes.
pub fn base(view: &View) -> Vec<Setting> {
    let shares: Vec<f64> = (0..view.tree.leaves.len()).map(|member| view.tree.terms(member).shares).collect();
    let written = weights(&shares, USUAL, view.others);
    written.iter().enumerate().map(|(member, weight)| own(view, member, *weight)).collect()
}

/// Writes the base weights and leaves the rest to the kernel.
#[derive(Debug, Default)]
pub struct Static;

impl Policy for Static {
    fn decide(&mut self, view: &View) -> Vec<Setting> {
        base(view)
    }
}
