//! A scenario through a deterministic machine, under a policy, against exact GPS. Pure.
//!
//! The controller is the one that runs on real machines and sees nothing it would not see there: counters, at
//! its period. The reference divides every millisecond among those who are runnable in it.

mod balance;
mod machine;
mod outcome;
pub mod scenario;

use super::controller::Controller;
use super::fill::entitle;
use super::lottery::Lottery;
use super::meter::Sample;
use super::model::{Key, Member, Tree};
use super::policy::{Policy, Static};
use super::queue::Wake;
use super::quota::Quota;
use super::record::{Point, Row, rounded};
use super::strict::Strict;
use super::wfq::Wfq;
use machine::{Machine, TICK_US};
use outcome::Tally;
pub use outcome::{Outcome, Result, jain};
use scenario::{Bursts, Container, Kernel, PolicyName, Scenario, Threads};

/// How far apart the recorded points are.
const POINT_US: u64 = 500_000;

/// `credit` is what waking up may bring back, `seed` what lots are drawn from.
pub fn policy(name: PolicyName, credit: f64, seed: u64) -> Box<dyn Policy> {
    let wake = Wake::AtMinimum { credit };
    match name {
        PolicyName::Static => Box::new(Static),
        PolicyName::Wfq => Box::new(Wfq::new(credit)),
        PolicyName::Strict => Box::new(Strict::new(wake)),
        PolicyName::StrictWithoutMinimum => Box::new(Strict::new(Wake::WhereItWas)),
        PolicyName::Lottery => Box::new(Lottery::new(seed)),
        PolicyName::Quota => Box::new(Quota::default()),
    }
}

fn period_ms(name: PolicyName, scenario: &Scenario) -> u64 {
    match name {
        PolicyName::Static | PolicyName::Wfq | PolicyName::Quota => scenario.period_ms,
        PolicyName::Strict | PolicyName::StrictWithoutMinimum | PolicyName::Lottery => scenario.round_ms,
    }
}

pub fn run(scenario: &Scenario, name: PolicyName, kernel: Kernel) -> Outcome {
    let mut run = Run::new(scenario, name, kernel);
    let end = (scenario.seconds * 1e6) as u64;
    while run.machine.now_us < end {
        run.events();
        run.control();
        run.tally.refer(&mut run.reference, &run.machine);
        run.machine.tick();
        run.tally.count(&run.machine);
        run.record();
    }
    run.tally.finish(scenario, name, kernel)
}

struct Run<'a> {
    scenario: &'a Scenario,
    machine: Machine,
    controller: Controller,
    reference: Reference,
    tally: Tally,
    period_us: u64,
    sampled_us: u64,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, name: PolicyName, kernel: Kernel) -> Self {
        let mut machine = Machine::new(scenario.cpus, kernel.meaning(), scenario.steal, scenario.seed);
        for (key, container) in scenario.containers.iter().enumerate() {
            machine.add(key as Key, container.cpus.as_deref(), &threads(container));
        }
        let cpus = f64::from(scenario.cpus);
        let mut controller = Controller::new(policy(name, scenario.credit, scenario.seed), cpus);
        controller.set_groups(scenario.terms_of_groups());
        Self {
            scenario,
            machine,
            controller,
            reference: Reference::new(scenario),
            tally: Tally::new(scenario),
            period_us: period_ms(name, scenario) * 1000,
            sampled_us: 0,
        }
    }

    /// Starts, stops, updates and absences that are due; weights follow at once.
    fn events(&mut self) {
        let now = self.machine.now_us;
        let due = |at: f64| (at * 1e6 / TICK_US as f64).round() as u64 * TICK_US == now;
        let mut changed = false;
        for (group, container) in self.scenario.containers.iter().enumerate() {
            let key = group as Key;
            if due(container.start) {
                self.machine.start(group);
                self.controller.join(member(key, container));
                changed = true;
            }
            for update in container.updates.iter().filter(|update| due(update.at)) {
                let terms = update.terms.over(self.reference.members[group].terms);
                self.reference.members[group].terms = terms;
                self.controller.update(key, terms);
                changed = true;
            }
            if container.stop.is_some_and(due) {
                self.machine.stop(group);
                self.controller.leave(key);
                changed = true;
            }
            for (from, to) in &container.away {
                if due(*from) || due(*to) {
                    self.machine.set_away(group, due(*from));
                    self.tally.changed(now);
                }
            }
        }
        if changed {
            self.tally.changed(now);
            self.reference.rebuild(self.scenario);
            let writes = self.controller.reconsider();
            self.write(writes);
        }
    }

    fn control(&mut self) {
        let now = self.machine.now_us;
        let due = self.sampled_us + self.period_us * self.controller.pace();
        if now == 0 || now % self.period_us != 0 || now < due {
            return;
        }
        self.sampled_us = now;
        let members = self.controller.members().iter();
        let readings = members.map(|member| self.machine.reading(member.key as usize)).collect();
        let writes = self.controller.step(Sample { at_us: now, readings });
        self.write(writes);
    }

    fn write(&mut self, writes: Vec<(Key, super::policy::Setting)>) {
        for (key, setting) in writes {
            self.machine.set(key as usize, setting);
            self.tally.wrote(self.machine.now_us);
        }
    }

    fn record(&mut self) {
        if self.machine.now_us % POINT_US != 0 {
            return;
        }
        let rows =
            self.tally.interval().into_iter().enumerate().filter_map(|(group, (entitled, received, lag))| {
                let state = &self.machine.groups[group];
                state.present.then(|| Row {
                    name: self.scenario.containers[group].name.clone(),
                    entitled: rounded(entitled * 1e6 / POINT_US as f64),
                    received: rounded(received * 1e6 / POINT_US as f64),
                    lag: rounded(lag),
                    weight: if state.setting.idle { 0 } else { state.setting.weight },
                })
            });
        let leaves = rows.collect();
        self.tally.points.push(Point { at: self.machine.now_us as f64 / 1e6, leaves });
    }
}

fn member(key: Key, container: &Container) -> Member {
    Member {
        key,
        name: container.name.clone(),
        class: container.class.clone(),
        tenant: container.tenant.clone(),
        terms: container.terms(),
    }
}

fn threads(container: &Container) -> Vec<Option<Bursts>> {
    match &container.threads {
        Threads::Hogs(count) => vec![None; *count as usize],
        Threads::Bursts(list) => {
            list.iter().flat_map(|bursts| vec![Some(*bursts); bursts.count as usize]).collect()
        }
    }
}

/// Exact GPS: what everybody is entitled to in this very millisecond.
struct Reference {
    members: Vec<Member>,
    tree: Tree,
    capacity: f64,
    demands: Vec<u32>,
    entitled: Vec<f64>,
}

impl Reference {
    fn new(scenario: &Scenario) -> Self {
        let members = scenario
            .containers
            .iter()
            .enumerate()
            .map(|(key, container)| member(key as Key, container))
            .collect();
        let mut reference =
            Self { members, tree: Tree::default(), capacity: 0.0, demands: Vec::new(), entitled: Vec::new() };
        reference.rebuild(scenario);
        reference
    }

    fn rebuild(&mut self, scenario: &Scenario) {
        self.tree = Tree::build(&self.members, &scenario.terms_of_groups());
        self.demands.clear();
    }

    /// CPUs per container; worked out anew only when somebody has woken up or fallen asleep, or a CPU is gone.
    fn entitled(&mut self, machine: &Machine) -> &[f64] {
        let capacity = machine.capacity();
        let same = self.capacity == capacity && machine.demands().eq(self.demands.iter().copied());
        if self.demands.is_empty() || !same {
            self.demands = machine.demands().collect();
            self.capacity = capacity;
            let demands: Vec<f64> = self.demands.iter().map(|demand| f64::from(*demand)).collect();
            let all = entitle(&self.tree, &demands, capacity).entitled;
            self.entitled = self.tree.leaves.iter().map(|leaf| all[*leaf]).collect();
        }
        &self.entitled
    }
}

#[cfg(test)]
mod tests;
