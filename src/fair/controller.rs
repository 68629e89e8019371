//! One set of siblings under one policy: samples go in, settings to write come out. Pure.
//!
//! It measures, divides by max-min what was used, books lag and virtual time, lets the policy decide, and
//! compares with what is in force, so that nothing is written that is already so. Weights mean something only
//! among siblings: cgroups with different parents belong to different controllers.

use std::collections::BTreeMap;

use super::fill::{Entitlement, entitle};
use super::meaning::{Detector, Meaning};
use super::meter::{Measure, Meter, Sample};
use super::model::{Groups, Key, Member, Terms, Tree};
use super::policy::{Acting, Policy, Setting, View};
use super::queue::Queue;

/// Seconds of entitlement a lag can grow to, and CPU-seconds whatever the entitlement.
const LAG_MOST: f64 = 2.0;
const LAG_LEAST: f64 = 0.05;
/// Seconds after which a lag nobody repaid is forgotten.
pub const LAG_LEAK: f64 = 25.0;

/// How many periods a sample can wait for when nothing had to be done for so many seconds.
const CALM: [(f64, u64); 2] = [(30.0, 8), (10.0, 4)];

pub struct Controller {
    policy: Box<dyn Policy>,
    members: Vec<Member>,
    keys: Vec<Key>,
    groups: Groups,
    tree: Tree,
    cpus: f64,
    /// Others have weights beside ours.
    pub others: bool,
    meter: Meter,
    measures: Vec<Measure>,
    entitlement: Entitlement,
    lag: BTreeMap<Key, f64>,
    queue: Queue,
    detector: Detector,
    told: Option<Meaning>,
    meaning: Meaning,
    in_force: BTreeMap<Key, Setting>,
    changed: bool,
    /// Seconds since something had to be done.
    calm: f64,
    /// Something changed within the interval: it cannot be judged by what holds now.
    mixed: bool,
}

/// What one leaf, tenant or class looks like now.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    pub key: Key,
    pub entitled: f64,
    pub lag: f64,
    pub service: f64,
    pub trim: f64,
    pub setting: Setting,
    pub measure: Measure,
}

impl Controller {
    pub fn new(policy: Box<dyn Policy>, cpus: f64) -> Self {
        let queue = Queue::new(policy.wake());
        Self {
            policy,
            members: Vec::new(),
            keys: Vec::new(),
            groups: Groups::new(),
            tree: Tree::build(&[], &Groups::new()),
            cpus,
            others: false,
            meter: Meter::default(),
            measures: Vec::new(),
            entitlement: Entitlement::default(),
            lag: BTreeMap::new(),
            queue,
            detector: Detector::default(),
            told: None,
            meaning: Meaning::PerGroup,
            in_force: BTreeMap::new(),
            changed: true,
            calm: 0.0,
            mixed: true,
        }
    }

    /// How many periods the next sample can wait for.
    pub fn pace(&self) -> u64 {
        CALM.into_iter().find(|(seconds, _)| self.calm >= *seconds).map_or(1, |(_, pace)| pace)
    }

    /// Every sample counts for a while.
    pub fn rouse(&mut self) {
        self.calm = 0.0;
    }

    pub fn join(&mut self, member: Member) {
        self.members.push(member);
        self.measures.push(Measure::UNKNOWN);
        self.rebuild();
    }

    pub fn leave(&mut self, key: Key) {
        if let Some(index) = self.keys.iter().position(|other| *other == key) {
            self.members.remove(index);
            self.measures.remove(index);
            self.lag.remove(&key);
            self.in_force.remove(&key);
            self.rebuild();
        }
    }

    pub fn update(&mut self, key: Key, terms: Terms) {
        if let Some(index) = self.keys.iter().position(|other| *other == key) {
            self.members[index].terms = terms;
            self.rebuild();
        }
    }

    pub fn set_groups(&mut self, groups: Groups) {
        self.groups = groups;
        self.rebuild();
    }

    /// What the kernel says itself about its weights, if it says anything.
    pub fn tell(&mut self, meaning: Option<Meaning>) {
        self.told = meaning;
    }

    fn rebuild(&mut self) {
        self.keys = self.members.iter().map(|member| member.key).collect();
        self.tree = Tree::build(&self.members, &self.groups);
        self.queue.adopt(&self.tree);
        self.entitlement = entitle(&self.tree, &vec![0.0; self.members.len()], self.cpus);
        self.changed = true;
        self.mixed = true;
        self.rouse();
    }

    /// Settings to write now that members or terms have changed, without waiting for a sample.
    pub fn reconsider(&mut self) -> Vec<(Key, Setting)> {
        self.decide(0.0)
    }

    /// The interval that ends with the next sample says nothing about shares.
    pub fn disregard(&mut self) {
        self.mixed = true;
    }

    /// Settings to write after an interval that ended with this sample.
    pub fn step(&mut self, sample: Sample) -> Vec<(Key, Setting)> {
        let (elapsed, measured) = self.meter.measure(sample);
        let measured: BTreeMap<Key, Measure> = measured.into_iter().collect();
        for (measure, key) in self.measures.iter_mut().zip(&self.keys) {
            *measure = measured.get(key).copied().unwrap_or(Measure::UNKNOWN);
        }
        let mixed = std::mem::take(&mut self.mixed);
        self.judge(elapsed, mixed);
        let undecided = self.changed || self.acting() == Acting::Trimming;
        let writes = self.decide(if mixed { 0.0 } else { elapsed });
        self.calm = if undecided || !writes.is_empty() { 0.0 } else { self.calm + elapsed };
        writes
    }

    fn judge(&mut self, elapsed: f64, mixed: bool) {
        let demands: Vec<f64> = self.measures.iter().map(|measure| measure.demand).collect();
        let used: Vec<f64> = self.measures.iter().map(|measure| measure.used).collect();
        let short = self.measures.iter().any(|measure| measure.saturated);
        // What outsiders took is nobody's debt: what there was to share is what was used.
        let capacity = if short { used.iter().sum() } else { self.cpus };
        self.entitlement = entitle(&self.tree, &demands, capacity);
        if !mixed {
            self.book_lag(elapsed);
        }
        let received: Vec<f64> = used.iter().map(|used| used * elapsed).collect();
        let active: Vec<bool> = self.measures.iter().map(Measure::active).collect();
        self.queue.book(&self.tree, &received, &active);
        let settings: Option<Vec<Setting>> =
            self.keys.iter().map(|key| self.in_force.get(key).copied()).collect();
        if let Some(settings) = settings.filter(|_| !mixed) {
            self.detector.watch(elapsed, &self.measures, &settings);
        }
        let meaning = self.told.or(self.detector.believed()).unwrap_or(Meaning::PerGroup);
        self.changed |= meaning != self.meaning;
        self.meaning = meaning;
    }

    fn book_lag(&mut self, elapsed: f64) {
        let credit = match self.policy.wake() {
            super::queue::Wake::AtMinimum { credit } => credit,
            super::queue::Wake::WhereItWas => 0.0,
        };
        for (member, measure) in self.measures.iter().enumerate() {
            let entitled = self.entitlement.entitled[self.tree.leaves[member]];
            let lag = self.lag.entry(self.keys[member]).or_default();
            if measure.saturated && measure.held.is_none() && !self.tree.terms(member).best_effort {
                let most = LAG_MOST * entitled + LAG_LEAST;
                *lag = *lag * (-elapsed / LAG_LEAK).exp() + (entitled - measure.used) * elapsed;
                *lag = lag.clamp(-most, most);
            } else if measure.active() {
                *lag *= 0.5;
            } else {
                *lag = lag.clamp(0.0, credit);
            }
        }
    }

    fn decide(&mut self, elapsed: f64) -> Vec<(Key, Setting)> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let lag: Vec<f64> = self.keys.iter().map(|key| self.lag.get(key).copied().unwrap_or(0.0)).collect();
        let view = View {
            elapsed,
            tree: &self.tree,
            keys: &self.keys,
            measures: &self.measures,
            entitlement: &self.entitlement,
            lag: &lag,
            queue: &self.queue,
            cpus: self.cpus,
            meaning: self.meaning,
            changed: self.changed,
            others: self.others,
        };
        let wanted = self.policy.decide(&view);
        let exact = std::mem::take(&mut self.changed);
        let tolerance = if exact { 0.0 } else { self.policy.tolerance() };
        let writes: Vec<(Key, Setting)> = self
            .keys
            .iter()
            .copied()
            .zip(wanted)
            .filter(|(key, setting)| differs(self.in_force.get(key), setting, tolerance))
            .collect();
        self.in_force.extend(writes.iter().copied());
        writes
    }

    /// What somebody else wrote, or a write that failed: not what was decided.
    pub fn found(&mut self, key: Key, setting: Option<Setting>) {
        match setting {
            Some(setting) => self.in_force.insert(key, setting),
            None => self.in_force.remove(&key),
        };
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    pub fn entitlement(&self) -> &Entitlement {
        &self.entitlement
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    pub fn acting(&self) -> Acting {
        self.policy.standing().acting
    }

    pub fn leaves(&self) -> Vec<Leaf> {
        let trims = self.policy.standing().trims;
        let leaf = |(member, key): (usize, &Key)| Leaf {
            key: *key,
            entitled: self.entitlement.entitled[self.tree.leaves[member]],
            lag: self.lag.get(key).copied().unwrap_or(0.0),
            service: self.queue.account(self.tree.leaves[member]).service,
            trim: trims.get(member).copied().unwrap_or(1.0),
            setting: self.in_force.get(key).copied().unwrap_or(Setting::of_weight(100)),
            measure: self.measures[member],
        };
        self.keys.iter().enumerate().map(leaf).collect()
    }
}

fn differs(old: Option<&Setting>, new: &Setting, tolerance: f64) -> bool {
    let Some(old) = old else { return true };
    let ratio = f64::from(new.weight) / f64::from(old.weight);
    let limits = old.limit != new.limit && ((new.limit / old.limit) - 1.0).abs() > 0.001;
    old.idle != new.idle || limits || ratio.ln().abs() > tolerance
}
