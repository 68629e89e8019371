//! A state that turned out wrong, and everything that came of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::id::Id;
use super::journal::{self, Act};
use super::store::{Found, Shelf, Store};
use super::transition::Transition;

/// What led from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub from: Id,
    pub to: Id,
    /// None: only a session's journal knows of it.
    pub key: Option<Id>,
}

/// What is wrong with a state, and what goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Derived {
    pub states: BTreeSet<Id>,
    pub keys: BTreeSet<Id>,
}

/// The states that can only be reached through `wrong`, with itself, and the transitions that touch one of them. States
/// that something else leads to from one of `bases`, or that nothing leads to, are as right as they were. Pure.
pub fn derived(wrong: Id, edges: &[Edge], bases: &BTreeSet<Id>) -> Derived {
    let mut onward: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
    for edge in edges {
        onward.entry(edge.from).or_default().push(edge.to);
    }
    let led_to: BTreeSet<Id> = edges.iter().filter(|edge| edge.from != edge.to).map(|edge| edge.to).collect();
    let orphans = edges.iter().map(|edge| edge.from).filter(|state| !led_to.contains(state));
    let begins: Vec<Id> = bases.iter().copied().chain(orphans).filter(|state| *state != wrong).collect();
    let right = reach(&onward, begins, Some(wrong));
    let states: BTreeSet<Id> = reach(&onward, vec![wrong], None).difference(&right).copied().collect();
    let touches = |edge: &&Edge| states.contains(&edge.from) || states.contains(&edge.to);
    let keys = edges.iter().filter(touches).filter_map(|edge| edge.key).collect();
    Derived { states, keys }
}

/// Everything that can be reached without going through `around`.
fn reach(onward: &BTreeMap<Id, Vec<Id>>, mut waiting: Vec<Id>, around: Option<Id>) -> BTreeSet<Id> {
    let mut found = BTreeSet::new();
    while let Some(state) = waiting.pop() {
        if Some(state) != around && found.insert(state) {
            waiting.extend(onward.get(&state).into_iter().flatten());
        }
    }
    found
}

/// Every way from state to state that the store knows, with the states that sessions can begin with.
pub fn survey(store: &Store) -> Result<(Vec<Edge>, BTreeSet<Id>)> {
    let mut edges = Vec::new();
    for name in store.list(Shelf::Transitions)? {
        let (Some(key), Found::Whole(bytes)) = (Id::parse(&name), store.get(Shelf::Transitions, &name)?)
        else {
            continue;
        };
        // A damaged one leads nowhere.
        let Ok(Transition { head, .. }) = Transition::from_bytes(&bytes) else { continue };
        edges.push(Edge { from: head.from, to: head.to, key: Some(key) });
    }
    for name in store.list(Shelf::Sessions)? {
        let steps = journal::look(store, &name)?;
        let moves = steps.windows(2).filter(|pair| matches!(pair[1].act, Act::Once | Act::Settled));
        edges.extend(moves.map(|pair| Edge { from: pair[0].state, to: pair[1].state, key: None }));
    }
    let states = store.list(Shelf::States)?;
    let ids = states.iter().filter_map(|name| Id::parse(name));
    let is_base = |id: &Id| store.state(id).is_ok_and(|state| state.root == state.base);
    Ok((edges, ids.filter(is_base).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Id {
        Id([number; 32])
    }

    #[test]
    fn what_came_of_a_wrong_state_goes_and_what_others_lead_to_stays() {
        let ways = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 4), (4, 3), (2, 5), (5, 5), (9, 6), (2, 6), (2, 7)];
        let edges: Vec<Edge> = ways
            .iter()
            .zip(100..)
            .map(|((from, to), key)| Edge { from: id(*from), to: id(*to), key: Some(id(key)) })
            .chain([Edge { from: id(7), to: id(8), key: None }])
            .collect();
        let gone = derived(id(2), &edges, &BTreeSet::from([id(0)]));
        // 3 is also reached by 4, 6 from a state that nothing known leads to; 0 is where all begins.
        assert_eq!(gone.states, [2, 5, 7, 8].map(id).into());
        assert_eq!(gone.keys, [101, 102, 106, 107, 109, 110].map(id).into());
        let all = derived(id(0), &edges, &BTreeSet::from([id(0)]));
        assert_eq!(all.states, [0, 1, 2, 3, 4, 5, 7, 8].map(id).into());
    }

    #[test]
    fn a_state_nobody_knows_a_way_to_is_alone() {
        assert_eq!(derived(id(1), &[], &BTreeSet::new()).states, BTreeSet::from([id(1)]));
    }
}
