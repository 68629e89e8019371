//! What may go when room is wanted: never what a session stands on or can go back to; of the rest first what saves
//! the least time for its bytes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::check;
use super::id::Id;
use super::journal;
use super::state::State;
use super::store::{Found, Shelf, Store, remove_path, size_below};
use super::transition::{Head, Transition};
use crate::time::Moment;

/// A transition as a candidate for staying.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub key: Id,
    pub to: Id,
    /// What a hit saves.
    pub micros: u64,
    /// Of the file.
    pub bytes: u64,
}

/// What a decision needs to know of a state: the layers of its chain, and the bytes of its own file.
#[derive(Clone, Debug, Default)]
pub struct Weight {
    pub layers: Vec<Id>,
    pub bytes: u64,
}

/// What stays.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub states: BTreeSet<Id>,
    pub layers: BTreeSet<Id>,
    pub transitions: BTreeSet<Id>,
    /// Bytes of all three.
    pub bytes: u64,
}

/// Decides what stays within `limit`: `live` states with their chains in any case, then transitions with the state they
/// lead to, those that save the most time for the bytes that they alone need first. Pure.
pub fn decide(
    live: &BTreeSet<Id>,
    candidates: &[Candidate],
    states: &BTreeMap<Id, Weight>,
    layers: &BTreeMap<Id, u64>,
    limit: Option<u64>,
) -> Kept {
    let mut kept = Kept::default();
    for state in live {
        let cost = cost(&kept, state, states, layers);
        keep(&mut kept, state, states, cost);
    }
    let mut order: Vec<&Candidate> = candidates.iter().filter(|one| states.contains_key(&one.to)).collect();
    let worth = |one: &Candidate| {
        let own = states.get(&one.to).map_or(0, |weight| {
            weight
                .layers
                .last()
                .filter(|layer| !kept.layers.contains(layer))
                .and_then(|id| layers.get(id))
                .copied()
                .unwrap_or(0)
        });
        // Time for each block of the disk.
        (one.micros as f64 + 1.0) / ((one.bytes + own) as f64 + 4096.0)
    };
    let worths: BTreeMap<Id, f64> = order.iter().map(|one| (one.key, worth(one))).collect();
    order.sort_by(|a, b| worths[&b.key].total_cmp(&worths[&a.key]).then(a.key.cmp(&b.key)));
    for one in order {
        let cost = cost(&kept, &one.to, states, layers) + one.bytes;
        if limit.is_none_or(|limit| kept.bytes + cost <= limit) {
            keep(&mut kept, &one.to, states, cost);
            kept.transitions.insert(one.key);
        }
    }
    kept
}

/// The bytes that keeping a state adds.
fn cost(kept: &Kept, state: &Id, states: &BTreeMap<Id, Weight>, layers: &BTreeMap<Id, u64>) -> u64 {
    let Some(weight) = states.get(state).filter(|_| !kept.states.contains(state)) else { return 0 };
    let new: BTreeSet<&Id> = weight.layers.iter().filter(|layer| !kept.layers.contains(layer)).collect();
    weight.bytes + new.into_iter().filter_map(|layer| layers.get(layer)).sum::<u64>()
}

fn keep(kept: &mut Kept, state: &Id, states: &BTreeMap<Id, Weight>, cost: u64) {
    kept.states.insert(*state);
    kept.layers.extend(states.get(state).into_iter().flat_map(|weight| &weight.layers));
    kept.bytes += cost;
}

/// What a collection did.
#[derive(Debug)]
pub struct Collected {
    pub before: u64,
    pub after: u64,
    pub removed: usize,
    /// What sessions need is more than the limit.
    pub over: bool,
}

/// Removes what does not stay. The caller owns the store.
pub fn collect(store: &Store, limit: Option<u64>) -> Result<Collected> {
    let before = store.size()?;
    let states = states(store)?;
    let mut weights = weights(store, &states)?;
    let mut layers = BTreeMap::new();
    for name in store.list(Shelf::Layers)? {
        let size = size_below(&store.path(Shelf::Layers, &name))?;
        layers.extend(Id::parse(&name).map(|id| (id, size)));
    }
    let live = live(store)?;
    // Directories of trees, journals and the copy of deja count, too; of trees as much as there is now.
    let rest = before.saturating_sub(layers.values().sum::<u64>());
    let files: u64 = weights.values().map(|weight| weight.bytes).sum();
    let candidates = candidates(store)?;
    // A state that another store lends takes no room here.
    for one in &candidates {
        if !weights.contains_key(&one.to) && store.is_lent(Shelf::States, &one.to.to_string()) {
            weights.insert(one.to, Weight::default());
        }
    }
    let kept_files: u64 = candidates.iter().map(|one| one.bytes).sum();
    let fixed = rest.saturating_sub(files + kept_files);
    let limit_left = limit.map(|limit| limit.saturating_sub(fixed));
    let kept = decide(&live, &candidates, &weights, &layers, limit_left);
    // First what names, then what is named: a crash in between leaves nothing that names what is gone.
    let mut removed = remove(store, Shelf::Transitions, &kept.transitions)?;
    removed += remove(store, Shelf::States, &kept.states)?;
    removed += remove(store, Shelf::Layers, &kept.layers)?;
    let stay: Vec<State> =
        states.into_iter().filter(|(id, _)| kept.states.contains(id)).map(|(_, state)| state).collect();
    removed += remove(store, Shelf::Nodes, &check::reachable(store, &stay))?;
    let after = store.size()?;
    Ok(Collected { before, after, removed, over: limit.is_some_and(|limit| after > limit) })
}

fn states(store: &Store) -> Result<BTreeMap<Id, State>> {
    let ids = store.list(Shelf::States)?;
    // A damaged one is none.
    Ok(ids
        .iter()
        .filter_map(|name| Id::parse(name))
        .filter_map(|id| Some((id, store.state(&id).ok()?)))
        .collect())
}

fn weights(store: &Store, states: &BTreeMap<Id, State>) -> Result<BTreeMap<Id, Weight>> {
    let weight = |(id, state): (&Id, &State)| {
        let bytes = size_below(&store.path(Shelf::States, &id.to_string()))?;
        Ok((*id, Weight { layers: state.layers.clone(), bytes }))
    };
    states.iter().map(weight).collect()
}

/// Everything a session stands on or can go back to.
fn live(store: &Store) -> Result<BTreeSet<Id>> {
    let mut live = BTreeSet::new();
    for name in store.list(Shelf::Sessions)? {
        live.extend(journal::look(store, &name)?.iter().map(|step| step.state));
    }
    Ok(live)
}

/// Results whose time is over are none.
fn candidates(store: &Store) -> Result<Vec<Candidate>> {
    let now = Moment::now().since_1970();
    let mut found = Vec::new();
    for name in store.list(Shelf::Transitions)? {
        let (Some(key), Found::Whole(content)) = (Id::parse(&name), store.get(Shelf::Transitions, &name)?)
        else {
            continue;
        };
        let Ok(Transition { head, .. }) = Transition::from_bytes(&content) else { continue };
        if !head.is_fresh(now) {
            continue;
        }
        let Head { to, micros, .. } = head;
        let bytes = size_below(&store.path(Shelf::Transitions, &name))?;
        found.push(Candidate { key, to, micros, bytes });
    }
    Ok(found)
}

fn remove(store: &Store, shelf: Shelf, kept: &BTreeSet<Id>) -> Result<usize> {
    let mut removed = 0;
    for name in store.list(shelf)? {
        if !Id::parse(&name).is_some_and(|id| kept.contains(&id)) {
            remove_path(&store.path(shelf, &name))?;
            removed += 1;
        }
    }
    store.sync(shelf)?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Id {
        Id([number; 32])
    }

    fn one(key: u8, to: u8, micros: u64) -> Candidate {
        Candidate { key: id(key), to: id(to), micros, bytes: 100 }
    }

    #[test]
    fn what_saves_most_for_its_bytes_stays_and_what_lives_always() {
        let chain =
            |layers: &[u8]| Weight { layers: layers.iter().map(|number| id(*number)).collect(), bytes: 10 };
        // State 1 is live; 2 is cheap and dear, 3 large and slow to make, 4 large and quick.
        let states = BTreeMap::from([
            (id(1), chain(&[1])),
            (id(2), chain(&[1, 2])),
            (id(3), chain(&[1, 3])),
            (id(4), chain(&[1, 4])),
        ]);
        let layers = BTreeMap::from([(id(1), 1_000), (id(2), 1_000), (id(3), 1_000_000), (id(4), 1_000_000)]);
        let live = BTreeSet::from([id(1)]);
        let candidates = [one(12, 2, 1_000_000), one(13, 3, 500_000_000), one(14, 4, 10), one(15, 9, 1)];
        let all = decide(&live, &candidates, &states, &layers, None);
        assert_eq!(all.states.len(), 4);
        // One that leads to a state that is gone is no use.
        assert_eq!(all.transitions, BTreeSet::from([id(12), id(13), id(14)]));
        let some = decide(&live, &candidates, &states, &layers, Some(1_100_000));
        assert_eq!(some.transitions, BTreeSet::from([id(12), id(13)]));
        assert!(some.bytes <= 1_100_000);
        assert_eq!(some.layers, BTreeSet::from([id(1), id(2), id(3)]));
        let none = decide(&live, &candidates, &states, &layers, Some(0));
        assert_eq!((none.states, none.layers), (BTreeSet::from([id(1)]), BTreeSet::from([id(1)])));
        assert!(none.transitions.is_empty());
    }
}
