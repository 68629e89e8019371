//! Lottery scheduling: each round, tickets are drawn until the winners fill the CPUs. Pure, and seeded.
//!
//! A container's chance is its part of its tenant times the tenant's part of its class, among those who want
//! to run. Fair in the long run only: after n draws the error is about `sqrt((1 - p) / (p n))`.

use super::model::{HOST, Tree};
use super::policy::{Policy, Setting, View};
use super::random::Random;
use super::strict::winners;

#[derive(Debug)]
pub struct Lottery {
    random: Random,
}

impl Lottery {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }
}

impl Policy for Lottery {
    fn decide(&mut self, view: &View) -> Vec<Setting> {
        winners(view, |eligible| draw(&mut self.random, view.tree, eligible))
    }
}

fn draw(random: &mut Random, tree: &Tree, eligible: &[bool]) -> Option<usize> {
    let counts: Vec<f64> = eligible.iter().map(|eligible| f64::from(u8::from(*eligible))).collect();
    let below = tree.sum(&counts);
    let mut node = HOST;
    while tree.nodes[node].member.is_none() {
        let children = &tree.nodes[node].children;
        let tickets: Vec<f64> = children
            .iter()
            .map(|child| if below[*child] > 0.0 { tree.nodes[*child].terms.shares } else { 0.0 })
            .collect();
        node = children[random.pick(&tickets)?];
    }
    tree.nodes[node].member
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::tree;
    use super::*;

    #[test]
    fn the_error_shrinks_with_the_root_of_the_draws() {
        let tree = tree(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        for (draws, bound) in [(100, 0.6), (10_000, 0.06), (100_000, 0.02)] {
            let mut random = Random::new(42);
            let mut won = [0.0; 3];
            for _ in 0..draws {
                won[draw(&mut random, &tree, &[true; 3]).unwrap()] += 1.0;
            }
            for (member, expected) in [1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0].into_iter().enumerate() {
                let error: f64 = won[member] / f64::from(draws) / expected - 1.0;
                assert!(error.abs() < bound, "{draws} draws: {won:?}");
            }
        }
    }

    #[test]
    fn only_the_eligible_win_and_tenants_share_their_tickets() {
        let tree = tree(&[("ann/1", 1.0), ("ann/2", 1.0), ("bob/1", 1.0)]);
        let mut random = Random::new(1);
        let mut won = [0; 3];
        for _ in 0..3000 {
            won[draw(&mut random, &tree, &[true; 3]).unwrap()] += 1;
        }
        assert!(won[2] > 1400 && won[2] < 1600, "{won:?}");
        assert_eq!(draw(&mut random, &tree, &[false, true, false]), Some(1));
        assert_eq!(draw(&mut random, &tree, &[false; 3]), None);
    }
}
