//! Weighted fair queuing as the textbook has it: whoever has the smallest `s_i` runs. Pure.
//!
//! Each round the winners are chosen until their demand fills the CPUs; everybody else may only run where a
//! winner does not. It needs nothing of the kernel but `cpu.idle`, so it is the same on every kernel; the
//! price is a latency of whole rounds. For teaching and for comparison.

use super::policy::{Policy, Setting, View, own};
use super::queue::Wake;
use super::weight::USUAL;

#[derive(Debug)]
pub struct Strict {
    wake: Wake,
}

impl Strict {
    pub fn new(wake: Wake) -> Self {
        Self { wake }
    }
}

impl Policy for Strict {
    fn decide(&mut self, view: &View) -> Vec<Setting> {
        winners(view, |eligible| view.queue.next(view.tree, eligible))
    }

    fn wake(&self) -> Wake {
        self.wake
    }
}

/// Lets `next` choose among the eligible until the CPUs are full; the others become idle.
pub fn winners(view: &View, mut next: impl FnMut(&[bool]) -> Option<usize>) -> Vec<Setting> {
    let count = view.tree.leaves.len();
    let mut eligible: Vec<bool> = (0..count)
        .map(|member| view.measures[member].active() && !view.tree.terms(member).best_effort)
        .collect();
    let nobody = !eligible.contains(&true);
    let mut won = vec![nobody; count];
    let mut free = view.cpus;
    while free > 0.01 {
        let Some(winner) = next(&eligible) else { break };
        won[winner] = true;
        eligible[winner] = false;
        let measure = &view.measures[winner];
        free -= measure.runnable.min(measure.cpus).max(0.05);
    }
    (0..count)
        .map(|member| {
            let setting = own(view, member, USUAL as u16);
            Setting { idle: setting.idle || !won[member], ..setting }
        })
        .collect()
}
