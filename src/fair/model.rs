//! The tree that shares the CPUs: host, classes, tenants, leaves. Pure.
//!
//! A leaf that names no class is in the class `default`; one that names no tenant is a tenant of its own.
//! Siblings compare shares only with each other: a tenant with five leaves weighs as much as one with one.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// Names a leaf for as long as it lives; never used again for another.
pub type Key = u64;

pub const DEFAULT_CLASS: &str = "default";

/// What a leaf, tenant or class asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    pub shares: f64,
    /// CPUs it has whenever it wants them, whatever its shares.
    pub reservation: f64,
    /// CPUs it never has more than.
    pub limit: f64,
    /// Runs on what everybody else leaves over.
    pub best_effort: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { shares: 1.0, reservation: 0.0, limit: f64::INFINITY, best_effort: false }
    }
}

impl Terms {
    pub fn of_shares(shares: f64) -> Self {
        Self { shares, ..Self::default() }
    }

    /// The shares an OCI `cpu.shares` stands for, which is 2 to 262144, 1024 being the usual.
    pub fn from_cpu_shares(shares: u64) -> f64 {
        shares.clamp(2, 262_144) as f64 / 1024.0
    }

    pub fn check(&self) -> Result<()> {
        if !(self.shares.is_finite() && self.shares > 0.0) {
            bail!("shares {} is not a positive number", self.shares);
        }
        if !(self.reservation.is_finite() && self.reservation >= 0.0) {
            bail!("reservation {} is not a number of CPUs", self.reservation);
        }
        if self.limit.is_nan() || self.limit <= 0.0 {
            bail!("limit {} is not a positive number of CPUs", self.limit);
        }
        if self.reservation > self.limit {
            bail!("the reservation of {} CPUs exceeds the limit of {}", self.reservation, self.limit);
        }
        if self.best_effort && self.reservation > 0.0 {
            bail!("best effort and a reservation exclude each other");
        }
        Ok(())
    }
}

/// A leaf as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub key: Key,
    pub name: String,
    pub class: Option<String>,
    pub tenant: Option<String>,
    pub terms: Terms,
}

/// The terms of classes (by name) and tenants (by `class/tenant`) that do not have the usual ones.
pub type Groups = BTreeMap<String, Terms>;

/// Classes and tenants have no cgroup of their own, so only what weights can give them is theirs to ask for.
pub fn check_group(name: &str, terms: &Terms) -> Result<()> {
    terms.check()?;
    if terms.limit.is_finite() {
        bail!("{name:?} is a group: a limit needs a cgroup, so it can only be set on a container");
    }
    if terms.best_effort {
        bail!("{name:?} is a group: only a container can be best effort");
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub struct Node {
    pub parent: usize,
    pub children: Vec<usize>,
    /// Its path: `class`, `class/tenant`, `class/tenant/leaf`; the host's is empty.
    pub name: String,
    pub terms: Terms,
    /// Which member it stands for.
    pub member: Option<usize>,
}

/// The nodes; a parent stands before its children and the host is the first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// The node of each member.
    pub leaves: Vec<usize>,
}

pub const HOST: usize = 0;

impl Tree {
    pub fn build(members: &[Member], groups: &Groups) -> Self {
        let host = Node {
            parent: HOST,
            children: Vec::new(),
            name: String::new(),
            terms: Terms::default(),
            member: None,
        };
        let mut tree = Self { nodes: vec![host], leaves: Vec::new() };
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (index, member) in members.iter().enumerate() {
            let class = member.class.as_deref().unwrap_or(DEFAULT_CLASS).to_owned();
            let mut parent = tree.group(&mut known, HOST, &class, groups);
            let mut path = class;
            if let Some(tenant) = &member.tenant {
                path = format!("{path}/{tenant}");
                parent = tree.group(&mut known, parent, &path, groups);
            }
            let leaf = tree.add(parent, format!("{path}/{}", member.name), member.terms);
            tree.nodes[leaf].member = Some(index);
            tree.leaves.push(leaf);
        }
        tree
    }

    fn group(
        &mut self,
        known: &mut BTreeMap<String, usize>,
        parent: usize,
        path: &str,
        groups: &Groups,
    ) -> usize {
        if let Some(node) = known.get(path) {
            return *node;
        }
        let node = self.add(parent, path.to_owned(), groups.get(path).copied().unwrap_or_default());
        known.insert(path.to_owned(), node);
        node
    }

    fn add(&mut self, parent: usize, name: String, terms: Terms) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { parent, children: Vec::new(), name, terms, member: None });
        self.nodes[parent].children.push(node);
        node
    }

    pub fn terms(&self, member: usize) -> &Terms {
        &self.nodes[self.leaves[member]].terms
    }

    /// What members have, summed up for every node.
    pub fn sum(&self, of_members: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.nodes.len()];
        for (member, value) in of_members.iter().enumerate() {
            sums[self.leaves[member]] = *value;
        }
        for node in (1..self.nodes.len()).rev() {
            sums[self.nodes[node].parent] += sums[node];
        }
        sums
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn member(key: Key, path: &str, shares: f64) -> Member {
        let parts: Vec<&str> = path.split('/').collect();
        let (class, tenant, name) = match parts[..] {
            [name] => (None, None, name),
            [tenant, name] => (None, Some(tenant), name),
            [class, tenant, name] => (Some(class), Some(tenant), name),
            _ => panic!("{path}"),
        };
        Member {
            key,
            name: name.to_owned(),
            class: class.map(str::to_owned),
            tenant: tenant.map(str::to_owned),
            terms: Terms::of_shares(shares),
        }
    }

    pub fn tree(members: &[(&str, f64)]) -> Tree {
        let members: Vec<Member> = members
            .iter()
            .enumerate()
            .map(|(key, (path, shares))| member(key as Key, path, *shares))
            .collect();
        Tree::build(&members, &Groups::new())
    }

    #[test]
    fn a_tree_is_made_of_paths() {
        let tree = tree(&[("a", 1.0), ("ann/x", 1.0), ("ann/y", 2.0), ("staff/bob/z", 1.0)]);
        let names: Vec<&str> = tree.nodes.iter().map(|node| node.name.as_str()).collect();
        let expected = [
            "",
            "default",
            "default/a",
            "default/ann",
            "default/ann/x",
            "default/ann/y",
            "staff",
            "staff/bob",
            "staff/bob/z",
        ];
        assert_eq!(names, expected);
        assert_eq!(tree.leaves, [2, 4, 5, 8]);
        assert_eq!(tree.sum(&[1.0, 2.0, 3.0, 4.0]), [10.0, 6.0, 1.0, 5.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn terms_that_cannot_be_kept_are_refused() {
        let usual = Terms::default();
        let table = [
            (Terms { shares: 0.0, ..usual }, "shares 0 is not a positive number"),
            (Terms { shares: f64::NAN, ..usual }, "shares NaN is not a positive number"),
            (Terms { reservation: -1.0, ..usual }, "reservation -1 is not a number of CPUs"),
            (Terms { limit: 0.0, ..usual }, "limit 0 is not a positive number of CPUs"),
            (
                Terms { reservation: 2.0, limit: 1.0, ..usual },
                "the reservation of 2 CPUs exceeds the limit of 1",
            ),
            (
                Terms { reservation: 1.0, best_effort: true, ..usual },
                "best effort and a reservation exclude each other",
            ),
        ];
        for (terms, expected) in table {
            assert_eq!(terms.check().unwrap_err().to_string(), expected);
        }
        usual.check().unwrap();
        let limited = check_group("students", &Terms { limit: 1.0, ..usual }).unwrap_err().to_string();
        assert!(limited.contains("needs a cgroup"), "{limited}");
    }
}
