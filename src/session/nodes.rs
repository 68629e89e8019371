//! The directories of trees in a store: read one by one, and written together.

use std::collections::BTreeMap;
use std::fs as files;

use anyhow::{Context, Result, bail};

use super::id::Id;
use super::layer;
use super::store::{Found, Shelf, Store, write_unsynced};
use super::tree::{self, Entry, Node, Nodes};
use crate::sys::file;
use crate::trial;

impl Nodes for Store {
    fn node(&self, id: &Id) -> Result<Node> {
        if *id == Entry::empty_root().node_id().unwrap_or_default() {
            return Ok(Node::new());
        }
        match self.get(Shelf::Nodes, &id.to_string())? {
            Found::Whole(bytes) if tree::node_id(&bytes) == *id => tree::decode(&bytes),
            Found::Nothing => bail!("directory {} of a tree is not in the store", id.short()),
            _ => bail!("directory {} of a tree is damaged", id.short()),
        }
    }
}

/// So many are put on the disk together; fewer one by one, so that nobody waits for what others write to the same disk.
const MANY: usize = 64;

impl Store {
    /// Gives directories of a tree their names. Those of a whole file system are put on the disk together: one after the
    /// other, that takes longer than all the rest.
    pub(super) fn put_nodes(&self, nodes: &BTreeMap<Id, Vec<u8>>) -> Result<()> {
        let new: Vec<(String, &Vec<u8>)> = nodes.iter().map(|(id, bytes)| (id.to_string(), bytes)).collect();
        let new: Vec<_> = new.into_iter().filter(|(name, _)| !self.has(Shelf::Nodes, name)).collect();
        if new.len() < MANY {
            new.iter().try_for_each(|(name, bytes)| self.put(Shelf::Nodes, name, bytes))?;
            return self.sync(Shelf::Nodes);
        }
        let draft = self.draft()?;
        let path = |name: &str| draft.path.join(name);
        new.iter()
            .try_for_each(|(name, bytes)| write_unsynced(&path(name), Shelf::Nodes, bytes).map(drop))?;
        let directory = layer::open_directory(&draft.path)?;
        file::sync_file_system(&directory).context("put the directories of a tree on the disk")?;
        trial::point("give the directories of a tree their names")?;
        for (name, _) in &new {
            let node = self.path(Shelf::Nodes, name);
            files::rename(path(name), &node).with_context(|| format!("write {node:?}"))?;
        }
        self.sync(Shelf::Nodes)
    }
}
