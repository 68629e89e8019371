//! Weighted fair queuing's own book-keeping, for every group of siblings in the tree. Pure.
//!
//! Each has a counter of normalised service: `s_i += received / w_i`. `s_min` is the smallest among the
//! active. Whoever wakes up continues at `max(s_min, s_i)` and who is new starts at `s_min`, so that sleeping
//! earns nothing: without this rule a sleeper comes back with a small `s_i` and starves the others until it
//! has caught up.

use super::model::{HOST, Tree};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Account {
    /// CPU-seconds received per share.
    pub service: f64,
    pub active: bool,
}

/// What waking up is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wake {
    /// At least `s_min`, less so many seconds of the service it has missed.
    AtMinimum { credit: f64 },
    /// Where it was when it fell asleep: the mistake the rule is there for. For demonstration.
    WhereItWas,
}

/// The accounts of the nodes of one tree.
#[derive(Debug, Clone)]
pub struct Queue {
    wake: Wake,
    accounts: Vec<Account>,
    names: Vec<String>,
    /// `s_min` among the children of each node; it never goes back.
    least: Vec<f64>,
}

impl Queue {
    pub fn new(wake: Wake) -> Self {
        Self { wake, accounts: Vec::new(), names: Vec::new(), least: Vec::new() }
    }

    /// Goes on with another tree: who is still there keeps its account, who is new starts at `s_min`.
    pub fn adopt(&mut self, tree: &Tree) {
        let same = self.names.len() == tree.nodes.len()
            && self.names.iter().zip(&tree.nodes).all(|(name, node)| *name == node.name);
        if same {
            return;
        }
        let old: std::collections::BTreeMap<&str, usize> =
            self.names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        let place = |node: &super::model::Node| old.get(node.name.as_str()).copied();
        let least: Vec<f64> =
            tree.nodes.iter().map(|node| place(node).map_or(0.0, |index| self.least[index])).collect();
        let accounts = tree.nodes.iter().map(|node| match place(node) {
            Some(index) => self.accounts[index],
            None => Account { service: least[node.parent], active: false },
        });
        self.accounts = accounts.collect();
        self.least = least;
        self.names = tree.nodes.iter().map(|node| node.name.clone()).collect();
    }

    /// Books what every member has received and who of them is active now.
    pub fn book(&mut self, tree: &Tree, received: &[f64], active: &[bool]) {
        self.adopt(tree);
        let received = tree.sum(received);
        let busy = tree.sum(&active.iter().map(|active| f64::from(u8::from(*active))).collect::<Vec<_>>());
        for (node, account) in self.accounts.iter_mut().enumerate().skip(1) {
            account.service += received[node] / tree.nodes[node].terms.shares;
        }
        self.raise(tree);
        for (node, count) in busy.iter().enumerate().skip(1) {
            let active = *count > 0.0;
            if active && !self.accounts[node].active {
                self.wake(tree, node);
            }
            self.accounts[node].active = active;
        }
        self.raise(tree);
    }

    fn wake(&mut self, tree: &Tree, node: usize) {
        let least = self.least[tree.nodes[node].parent];
        let account = &mut self.accounts[node];
        if let Wake::AtMinimum { credit } = self.wake {
            account.service = account.service.max(least - credit / tree.nodes[node].terms.shares);
        }
    }

    fn raise(&mut self, tree: &Tree) {
        for (index, node) in tree.nodes.iter().enumerate() {
            let active = node.children.iter().map(|child| self.accounts[*child]).filter(|one| one.active);
            let least = active.map(|account| account.service).fold(f64::INFINITY, f64::min);
            if least.is_finite() {
                self.least[index] = self.least[index].max(least);
            }
        }
    }

    pub fn account(&self, node: usize) -> Account {
        self.accounts.get(node).copied().unwrap_or_default()
    }

    /// `s_min` among the children of a node.
    pub fn least(&self, node: usize) -> f64 {
        self.least.get(node).copied().unwrap_or(0.0)
    }

    /// The member weighted fair queuing serves next: down from the host, always to the child with the
    /// smallest `s_i` below which `eligible` has somebody.
    pub fn next(&self, tree: &Tree, eligible: &[bool]) -> Option<usize> {
        let counts: Vec<f64> = eligible.iter().map(|eligible| f64::from(u8::from(*eligible))).collect();
        let below = tree.sum(&counts);
        let mut node = HOST;
        while tree.nodes[node].member.is_none() {
            let children = tree.nodes[node].children.iter().copied().filter(|child| below[*child] > 0.0);
            node = children.min_by(|a, b| self.accounts[*a].service.total_cmp(&self.accounts[*b].service))?;
        }
        tree.nodes[node].member
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::tree;
    use super::*;

    const PLAIN: Wake = Wake::AtMinimum { credit: 0.0 };

    /// Serves one CPU in quanta; returns how often each member ran.
    fn serve(queue: &mut Queue, tree: &Tree, active: &[bool], quanta: usize, quantum: f64) -> Vec<usize> {
        let mut ran = vec![0; active.len()];
        queue.book(tree, &vec![0.0; active.len()], active);
        for _ in 0..quanta {
            let next = queue.next(tree, active).unwrap();
            ran[next] += 1;
            let mut received = vec![0.0; active.len()];
            received[next] = quantum;
            queue.book(tree, &received, active);
        }
        ran
    }

    #[test]
    fn one_to_two_runs_one_and_two_of_three() {
        let tree = tree(&[("a", 1.0), ("b", 2.0)]);
        let mut queue = Queue::new(PLAIN);
        for _ in 0..20 {
            let ran = serve(&mut queue, &tree, &[true, true], 3, 0.25);
            assert_eq!(ran, [1, 2]);
        }
    }

    #[test]
    fn a_sleeper_has_no_credit() {
        let tree = tree(&[("a", 1.0), ("b", 1.0)]);
        for (wake, expected) in
            [(PLAIN, [50, 50]), (Wake::WhereItWas, [0, 100]), (Wake::AtMinimum { credit: 5.0 }, [45, 55])]
        {
            let mut queue = Queue::new(wake);
            assert_eq!(serve(&mut queue, &tree, &[true, true], 100, 0.5), [50, 50]);
            assert_eq!(serve(&mut queue, &tree, &[true, false], 100, 0.5), [100, 0]);
            let ran = serve(&mut queue, &tree, &[true, true], 100, 0.5);
            let near =
                ran.iter().zip(expected).all(|(ran, expected): (&usize, usize)| ran.abs_diff(expected) <= 1);
            assert!(near, "{wake:?}: {ran:?}");
        }
    }

    #[test]
    fn who_is_new_starts_at_the_minimum() {
        let before = tree(&[("a", 1.0), ("b", 3.0)]);
        let after = tree(&[("a", 1.0), ("b", 3.0), ("c", 2.0)]);
        let mut queue = Queue::new(PLAIN);
        serve(&mut queue, &before, &[true, true], 100, 1.0);
        let least = queue.least(1);
        assert!(least > 20.0);
        queue.adopt(&after);
        assert_eq!(queue.account(after.leaves[2]).service, least);
        assert_eq!(serve(&mut queue, &after, &[true; 3], 60, 1.0), [10, 30, 20]);
    }

    #[test]
    fn the_minimum_is_of_the_active_and_never_goes_back() {
        let tree = tree(&[("a", 1.0), ("b", 1.0)]);
        let mut queue = Queue::new(PLAIN);
        queue.book(&tree, &[1.0, 4.0], &[true, true]);
        assert_eq!(queue.least(1), 1.0);
        queue.book(&tree, &[0.0, 0.0], &[false, true]);
        assert_eq!(queue.least(1), 4.0);
        queue.book(&tree, &[0.0, 0.0], &[true, true]);
        assert_eq!(queue.account(tree.leaves[0]).service, 4.0);
        queue.book(&tree, &[0.0, 0.0], &[false, false]);
        assert_eq!(queue.least(1), 4.0);
    }

    #[test]
    fn tenants_take_turns_and_their_containers_within_them() {
        let tree = tree(&[("ann/1", 1.0), ("ann/2", 1.0), ("ann/3", 1.0), ("bob/1", 1.0)]);
        let mut queue = Queue::new(PLAIN);
        assert_eq!(serve(&mut queue, &tree, &[true; 4], 60, 1.0), [10, 10, 10, 30]);
        assert_eq!(serve(&mut queue, &tree, &[true, false, false, true], 20, 1.0), [10, 0, 0, 10]);
    }
}
