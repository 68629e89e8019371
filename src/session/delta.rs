//! What one command changed: the entries of an overlayfs upper directory, and what they make of a tree. Pure.

use std::collections::BTreeMap;

use anyhow::Result;

use super::id::Id;
use super::tree::{self, Entry, Kind, Node, Nodes};

/// One name of an upper directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// What lies below under this name is gone.
    Whiteout,
    There {
        /// A directory has no node yet; what is below it is in `below`.
        entry: Entry,
        /// Nothing of the directory of this name in the layers below is seen.
        opaque: bool,
        below: Delta,
    },
}

pub type Delta = BTreeMap<Vec<u8>, Item>;

/// The hash that stands for a directory's content where the content is elsewhere.
pub const OPEN: Kind = Kind::Directory { node: Id([0; 32]) };

/// A tree after a delta, with the nodes that are new in it.
pub struct Merged {
    pub root: Entry,
    pub nodes: BTreeMap<Id, Vec<u8>>,
}

/// Applies `delta`, whose directory itself became `root`, to the tree `base`, and takes out of it what changes nothing:
/// files written as they were, directories only looked into, whiteouts of nothing.
pub fn merge(nodes: &dyn Nodes, base: &Entry, root: Entry, delta: &mut Delta) -> Result<Merged> {
    let mut merge = Merge { nodes, made: BTreeMap::new() };
    let node = merge.directory(base.node_id(), delta)?;
    let root = Entry { kind: Kind::Directory { node }, ..root };
    Ok(Merged { root, nodes: merge.made })
}

struct Merge<'n> {
    nodes: &'n dyn Nodes,
    made: BTreeMap<Id, Vec<u8>>,
}

impl Merge<'_> {
    fn directory(&mut self, base: Option<Id>, delta: &mut Delta) -> Result<Id> {
        if let (Some(base), true) = (base, delta.is_empty()) {
            return Ok(base);
        }
        let mut node = base.map_or_else(|| Ok(Node::new()), |id| self.nodes.node(&id))?;
        let mut idle = Vec::new();
        for (name, item) in delta.iter_mut() {
            let was = node.get(name);
            let now = match item {
                Item::Whiteout => None,
                Item::There { entry, opaque, below } => Some(self.entry(was, entry, opaque, below)?),
            };
            if now.as_ref() == was && !self.still_matters(item) {
                idle.push(name.clone());
            }
            match now {
                Some(entry) => node.insert(name.clone(), entry),
                None => node.remove(name),
            };
        }
        idle.iter().for_each(|name| drop(delta.remove(name)));
        let bytes = tree::encode(&node);
        let id = tree::node_id(&bytes);
        if Some(id) != base {
            self.made.insert(id, bytes);
        }
        Ok(id)
    }

    /// What an item makes of the entry that was there.
    fn entry(
        &mut self,
        was: Option<&Entry>,
        entry: &Entry,
        opaque: &mut bool,
        below: &mut Delta,
    ) -> Result<Entry> {
        if !matches!(entry.kind, Kind::Directory { .. }) {
            return Ok(entry.clone());
        }
        let was = was.and_then(Entry::node_id);
        // Where there is nothing to hide, the mark says nothing.
        *opaque &= was.is_some();
        let node = self.directory(if *opaque { None } else { was }, below)?;
        Ok(Entry { kind: Kind::Directory { node }, ..entry.clone() })
    }

    /// A directory that ends up as it was may still have been emptied of everything that made it so.
    fn still_matters(&self, item: &Item) -> bool {
        match item {
            Item::There { opaque: false, below, .. } => !below.is_empty(),
            _ => false,
        }
    }
}

/// The delta as bytes, the same for equal deltas; its hash is a layer's name.
pub fn manifest(root: &Entry, delta: &Delta) -> Vec<u8> {
    let mut out = Vec::new();
    Entry { kind: OPEN, ..root.clone() }.encode(&mut out);
    list(delta, &mut out);
    out
}

fn list(delta: &Delta, out: &mut Vec<u8>) {
    out.extend_from_slice(&(delta.len() as u32).to_le_bytes());
    for (name, item) in delta {
        tree::push_bytes(out, name);
        match item {
            Item::Whiteout => out.push(b'-'),
            Item::There { entry, opaque, below } => {
                out.push(if *opaque { b'=' } else { b'+' });
                entry.encode(out);
                if entry.kind == OPEN {
                    list(below, out);
                }
            }
        }
    }
}

/// Files, and bytes in them.
pub fn size(delta: &Delta) -> (u64, u64) {
    let mut total = (0, 0);
    for item in delta.values() {
        let Item::There { entry, below, .. } = item else { continue };
        let (files, bytes) = match entry.kind {
            Kind::File { size, .. } => (1, size),
            _ => size(below),
        };
        total = (total.0 + files, total.1 + bytes);
    }
    total
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::Context;
    use proptest::prelude::*;

    use super::*;

    /// A tree as plain as can be: the oracle.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Plain {
        File(u8),
        Directory(u32, BTreeMap<Vec<u8>, Plain>),
    }

    #[derive(Default)]
    struct Shelf(RefCell<BTreeMap<Id, Vec<u8>>>);

    impl Nodes for Shelf {
        fn node(&self, id: &Id) -> Result<Node> {
            tree::decode(self.0.borrow().get(id).context("no such node")?)
        }
    }

    fn file(content: u8) -> Entry {
        let kind = Kind::File { size: 1, content: Id([content; 32]) };
        Entry { mode: 0o644, kind, ..Entry::empty_root() }
    }

    fn directory(mode: u32) -> Entry {
        Entry { mode, kind: OPEN, ..Entry::empty_root() }
    }

    impl Shelf {
        fn put(&self, plain: &Plain) -> Entry {
            match plain {
                Plain::File(content) => file(*content),
                Plain::Directory(mode, below) => {
                    let node: Node =
                        below.iter().map(|(name, plain)| (name.clone(), self.put(plain))).collect();
                    let bytes = tree::encode(&node);
                    let id = tree::node_id(&bytes);
                    self.0.borrow_mut().insert(id, bytes);
                    Entry { kind: Kind::Directory { node: id }, ..directory(*mode) }
                }
            }
        }
    }

    fn names(plain: &Plain) -> BTreeMap<Vec<u8>, Plain> {
        match plain {
            Plain::Directory(_, below) => below.clone(),
            Plain::File(_) => BTreeMap::new(),
        }
    }

    /// What overlayfs shows of `delta` over `base`.
    fn apply(base: Option<&Plain>, item: &Item) -> Option<Plain> {
        let Item::There { entry, opaque, below } = item else { return None };
        let content = match &entry.kind {
            Kind::File { content, .. } => return Some(Plain::File(content.0[0])),
            _ => base.filter(|_| !opaque).map(names).unwrap_or_default(),
        };
        Some(Plain::Directory(entry.mode, apply_all(content, below)))
    }

    fn apply_all(mut content: BTreeMap<Vec<u8>, Plain>, delta: &Delta) -> BTreeMap<Vec<u8>, Plain> {
        for (name, item) in delta {
            match apply(content.get(name), item) {
                Some(plain) => content.insert(name.clone(), plain),
                None => content.remove(name),
            };
        }
        content
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(b"a".to_vec()), Just(b"b".to_vec()), Just(b"c".to_vec())]
    }

    fn plain() -> impl Strategy<Value = Plain> {
        let leaf = (0u8..3).prop_map(Plain::File);
        leaf.prop_recursive(3, 20, 3, |inner| {
            let mode = prop_oneof![Just(0o755), Just(0o700)];
            (mode, proptest::collection::btree_map(name(), inner, 0..3))
                .prop_map(|(mode, below)| Plain::Directory(mode, below))
        })
    }

    fn item() -> impl Strategy<Value = Item> {
        let leaf = prop_oneof![
            Just(Item::Whiteout),
            (0u8..3).prop_map(|content| Item::There {
                entry: file(content),
                opaque: false,
                below: Delta::new()
            }),
        ];
        leaf.prop_recursive(3, 20, 3, |inner| {
            let mode = prop_oneof![Just(0o755), Just(0o700)];
            (mode, any::<bool>(), proptest::collection::btree_map(name(), inner, 0..3))
                .prop_map(|(mode, opaque, below)| Item::There { entry: directory(mode), opaque, below })
        })
    }

    proptest! {
        #[test]
        fn a_merged_tree_is_what_overlayfs_shows(
            base in proptest::collection::btree_map(name(), plain(), 0..3),
            delta in proptest::collection::btree_map(name(), item(), 0..3),
        ) {
            let shelf = Shelf::default();
            let before = shelf.put(&Plain::Directory(0o755, base.clone()));
            let expected = Plain::Directory(0o755, apply_all(base.clone(), &delta));
            let mut pruned = delta.clone();
            let merged = merge(&shelf, &before, directory(0o755), &mut pruned).unwrap();
            prop_assert_eq!(&merged.root, &shelf.put(&expected));

            // What is left of the delta does the same, and nothing is left of one that changes nothing.
            prop_assert_eq!(apply_all(base.clone(), &pruned), names(&expected));
            if names(&expected) == base {
                prop_assert!(pruned.is_empty(), "{:?}", pruned);
            }
            let again = merge(&shelf, &before, directory(0o755), &mut pruned.clone()).unwrap();
            prop_assert_eq!(again.root, merged.root);
        }

        #[test]
        fn equal_manifests_are_equal_deltas(
            one in proptest::collection::btree_map(name(), item(), 0..3),
            other in proptest::collection::btree_map(name(), item(), 0..3),
        ) {
            let root = directory(0o755);
            prop_assert_eq!(manifest(&root, &one) == manifest(&root, &other), one == other);
        }
    }
}
