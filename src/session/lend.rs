//! Stores that lend: what is known there is taken for an own result, and nothing is ever written there. Who may publish
//! is who may write to a store, and who may read it is who may reach its directories.
//!
//! The trees of layers are for their owner alone: whoever else could reach them would find the set-user-ID programs of
//! every state, owned by root, in a directory of the machine.

use std::fs::{self as files, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::id::Id;
use super::layer;
use super::policy::Policy;
use super::state::State;
use super::store::{Found, Shelf, Store};

/// What others may read in a store that is open to them.
const LENT: [Shelf; 6] =
    [Shelf::Nodes, Shelf::States, Shelf::Transitions, Shelf::Habits, Shelf::Images, Shelf::Disowned];

/// Who made a store, where that can be seen.
fn owner(store: &Store) -> Option<u32> {
    files::metadata(store.root().join("version")).ok().map(|metadata| metadata.uid())
}

/// What is looked for in other stores. Layers are found there by whoever may.
fn may_be_lent(shelf: Shelf) -> bool {
    LENT.contains(&shelf) || shelf == Shelf::Layers
}

impl Store {
    /// The stores this one trusts. What these trust themselves is not looked at; one that is gone or cannot be read
    /// lends nothing.
    fn lenders(&self) -> &[Store] {
        self.lenders.get_or_init(|| {
            let trusted = Policy::read(self).map(|policy| policy.trust).unwrap_or_default();
            trusted.into_iter().filter_map(|path| Store::open(path).ok()).collect()
        })
    }

    /// Those that lend what is on a shelf. Layers mean something only to whom they belong: anybody else would find the
    /// files of other owners in them.
    fn lenders_of(&self, shelf: Shelf) -> impl Iterator<Item = &Store> {
        let ours = owner(self);
        self.lenders().iter().filter(move |lender| shelf != Shelf::Layers || owner(lender) == ours)
    }

    /// The directories of a state's layers, from the bottom up.
    pub fn chain(&self, state: &State) -> Result<Vec<PathBuf>> {
        let directory = |id: &Id| {
            let path = self.layer(id);
            layer::open_directory(&path).map(|_| path).with_context(|| self.missing_layer(id))
        };
        state.layers.iter().map(directory).collect()
    }

    /// Why layers of a state are nowhere.
    pub fn missing_layer(&self, id: &Id) -> String {
        let theirs = |lender: &&Store| owner(lender) != owner(self);
        match self.lenders().iter().find(theirs) {
            Some(lender) if !self.path(Shelf::Layers, &id.to_string()).exists() => format!(
                "the files are only in {:?}, which somebody else owns: what was run there is replayed, and \"session backup\" takes the rest out of it",
                lender.root()
            ),
            _ => "a layer of the state is missing: run \"session verify\"".to_owned(),
        }
    }

    pub(super) fn is_lent(&self, shelf: Shelf, name: &str) -> bool {
        may_be_lent(shelf) && self.lenders_of(shelf).any(|lender| lender.path(shelf, name).exists())
    }

    pub(super) fn lent(&self, shelf: Shelf, name: &str) -> Option<Vec<u8>> {
        let whole = |lender: &Store| match lender.get_own(shelf, name) {
            Ok(Found::Whole(bytes)) => Some(bytes),
            // What cannot be read there is as good as absent.
            _ => None,
        };
        LENT.contains(&shelf).then(|| self.lenders().iter().find_map(whole)).flatten()
    }

    /// Where something is: here, or with whoever lends it.
    pub fn place(&self, shelf: Shelf, name: &str) -> PathBuf {
        let own = self.path(shelf, name);
        if !may_be_lent(shelf) || own.exists() {
            return own;
        }
        // What may not be looked at is there, for all that is known.
        let is_absent = |path: &PathBuf| matches!(files::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
        let mut theirs = self.lenders_of(shelf).map(|lender| lender.path(shelf, name));
        theirs.find(|path| !is_absent(path)).unwrap_or(own)
    }

    /// The names on a shelf here and with whoever lends, sorted.
    pub fn list_all(&self, shelf: Shelf) -> Result<Vec<String>> {
        let mut names = self.list(shelf)?;
        for lender in self.lenders() {
            names.extend(lender.list(shelf)?);
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Lets others read what was run here and where it led, or nobody any more.
    pub fn open_to_others(&self, open: bool) -> Result<()> {
        let set = |path: &Path, mode: u32| {
            let result = files::set_permissions(path, Permissions::from_mode(mode));
            result.with_context(|| format!("change the mode of {path:?}"))
        };
        if open {
            for shelf in LENT {
                for name in self.list(shelf)? {
                    set(&self.path(shelf, &name), 0o644)?;
                }
                let path = self.shelf(shelf);
                if path.exists() {
                    set(&path, 0o755)?;
                }
            }
            set(&self.root().join("version"), 0o644)?;
        }
        // The door comes last: it decides.
        set(self.root(), if open { 0o755 } else { 0o700 })
    }

    pub fn is_open_to_others(&self) -> Result<bool> {
        let root = self.root();
        let mode = files::metadata(root).with_context(|| format!("look at {root:?}"))?.permissions().mode();
        Ok(mode & 0o005 == 0o005)
    }
}
