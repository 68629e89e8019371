//! What most share controllers do instead: move hard limits. Pure, and there to compare with.
//!
//! Each leaf is limited to its max-min share of what was used lately plus some room to grow; a leaf that hits
//! its limit is taken to want a fifth more. Whatever the limits leave over, nobody gets.

use super::fill::entitle;
use super::policy::{Policy, Setting, View, base};

#[derive(Debug, Default)]
pub struct Quota {
    limits: Vec<f64>,
}

const ROOM: f64 = 1.1;
const GROWTH: f64 = 1.2;
const LEAST: f64 = 0.02;

impl Policy for Quota {
    fn decide(&mut self, view: &View) -> Vec<Setting> {
        let count = view.tree.leaves.len();
        if view.changed || self.limits.len() != count {
            self.limits = vec![view.cpus / count.max(1) as f64; count];
        }
        if view.elapsed > 0.0 {
            let wanted: Vec<f64> = (0..count)
                .map(|member| {
                    let at_limit = view.measures[member].used >= self.limits[member] * 0.95;
                    view.measures[member].used * if at_limit { GROWTH } else { ROOM }
                })
                .collect();
            let entitled = entitle(view.tree, &wanted, view.cpus).entitled;
            self.limits = view.tree.leaves.iter().map(|leaf| entitled[*leaf].max(LEAST)).collect();
        }
        base(view)
            .into_iter()
            .zip(&self.limits)
            .map(|(setting, limit)| Setting { limit: setting.limit.min(*limit), ..setting })
            .collect()
    }
}
