//! Is everything in the store what it says it is? What is not goes, so that it counts as absent.

use std::collections::BTreeSet;

use anyhow::Result;

use super::id::Id;
use super::state::State;
use super::store::{Found, Shelf, Store, remove_path, unchecked};
use super::transition::Transition;
use super::tree::{Entry, Nodes};
use super::{journal, tree};

/// What `verify` found.
#[derive(Default, Debug)]
pub struct Findings {
    /// How many things were looked at.
    pub checked: usize,
    /// What was damaged or incomplete, and is gone now.
    pub removed: Vec<String>,
    /// Sessions that stand at a state that is gone.
    pub stranded: Vec<String>,
}

/// Reads every byte of the store. The caller owns it.
pub fn verify(store: &Store) -> Result<Findings> {
    let mut check = Check { store, findings: Findings::default() };
    let layers = check.layers()?;
    let nodes = check.nodes()?;
    let states = check.states(&layers, &nodes)?;
    check.transitions(&states)?;
    [Shelf::Habits, Shelf::Images, Shelf::Disowned, Shelf::Policy]
        .into_iter()
        .try_for_each(|shelf| check.files(shelf))?;
    check.sessions(&states)?;
    Ok(check.findings)
}

struct Check<'s> {
    store: &'s Store,
    findings: Findings,
}

impl Check<'_> {
    /// The ids on a shelf for which `is_whole` holds; the others are removed.
    fn shelf(&mut self, shelf: Shelf, mut is_whole: impl FnMut(&Id) -> Result<bool>) -> Result<BTreeSet<Id>> {
        let mut whole = BTreeSet::new();
        for name in self.store.list(shelf)? {
            self.findings.checked += 1;
            let id = Id::parse(&name);
            // What cannot be read is as good as absent.
            match id.filter(|id| is_whole(id).unwrap_or(false)) {
                Some(id) => drop(whole.insert(id)),
                None => {
                    remove_path(&self.store.path(shelf, &name))?;
                    self.findings.removed.push(format!("{}/{name}", shelf.name()));
                }
            }
        }
        Ok(whole)
    }

    /// Files that nothing else depends on.
    fn files(&mut self, shelf: Shelf) -> Result<()> {
        for name in self.store.list(shelf)? {
            self.findings.checked += 1;
            if !matches!(self.store.get_own(shelf, &name)?, Found::Whole(_)) {
                remove_path(&self.store.path(shelf, &name))?;
                self.findings.removed.push(format!("{}/{name}", shelf.name()));
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<BTreeSet<Id>> {
        let store = self.store;
        self.shelf(Shelf::Layers, |id| {
            let path = store.path(Shelf::Layers, &id.to_string()).join("manifest");
            let manifest = std::fs::read(path).ok().and_then(|bytes| unchecked(Shelf::Layers, bytes));
            let Some(manifest) = manifest else { return Ok(false) };
            Ok(Store::layer_id(&manifest) == *id && store.describe_layer(id)? == manifest)
        })
    }

    fn nodes(&mut self) -> Result<BTreeSet<Id>> {
        let store = self.store;
        self.shelf(Shelf::Nodes, |id| store.node(id).map(|_| true))
    }

    fn states(&mut self, layers: &BTreeSet<Id>, nodes: &BTreeSet<Id>) -> Result<BTreeSet<Id>> {
        let store = self.store;
        // Trees share most of their nodes.
        let mut complete = BTreeSet::new();
        self.shelf(Shelf::States, |id| {
            let state = store.state(id)?;
            let has = |layer: &Id| layers.contains(layer) || store.is_lent(Shelf::Layers, &layer.to_string());
            let has_layers = state.layers.iter().all(has);
            Ok(state.id() == *id && has_layers && is_complete(store, &state.root, nodes, &mut complete)?)
        })
    }

    fn transitions(&mut self, states: &BTreeSet<Id>) -> Result<()> {
        let store = self.store;
        self.shelf(Shelf::Transitions, |key| match store.get_own(Shelf::Transitions, &key.to_string())? {
            Found::Whole(bytes) => {
                let to = Transition::from_bytes(&bytes)?.head.to;
                Ok(states.contains(&to) || store.is_lent(Shelf::States, &to.to_string()))
            }
            _ => Ok(false),
        })
        .map(drop)
    }

    fn sessions(&mut self, states: &BTreeSet<Id>) -> Result<()> {
        for name in self.store.list(Shelf::Sessions)? {
            self.findings.checked += 1;
            let steps = journal::look(self.store, &name)?;
            let stands = |id: &Id| states.contains(id) || self.store.is_lent(Shelf::States, &id.to_string());
            if !steps.last().is_some_and(|last| stands(&last.state)) {
                self.findings.stranded.push(name);
            }
        }
        Ok(())
    }
}

/// Whether every directory below `root` is among the nodes that are whole.
fn is_complete(
    store: &Store,
    root: &Entry,
    nodes: &BTreeSet<Id>,
    complete: &mut BTreeSet<Id>,
) -> Result<bool> {
    let mut waiting: Vec<Id> = root.node_id().into_iter().collect();
    let mut seen = Vec::new();
    while let Some(id) = waiting.pop() {
        if complete.contains(&id) {
            continue;
        }
        if !nodes.contains(&id) && id != empty() && !store.is_lent(Shelf::Nodes, &id.to_string()) {
            return Ok(false);
        }
        waiting.extend(store.node(&id)?.values().filter_map(Entry::node_id));
        seen.push(id);
    }
    complete.extend(seen);
    Ok(true)
}

fn empty() -> Id {
    tree::node_id(&[])
}

/// Every directory below the trees of `states`.
pub fn reachable(store: &Store, states: &[State]) -> BTreeSet<Id> {
    let mut found = BTreeSet::new();
    let roots = states.iter().flat_map(|state| [state.root.node_id(), state.base.node_id()]);
    let mut waiting: Vec<Id> = roots.flatten().collect();
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            // A node that is gone leads nowhere, which is for `verify` to tell.
            let below = store.node(&id).unwrap_or_default();
            waiting.extend(below.values().filter_map(Entry::node_id));
        }
    }
    found
}
