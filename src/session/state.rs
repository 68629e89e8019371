//! A state: a file tree, the shell's context, and a chain of layers that shows the tree.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::id::{Hasher, Id};
use super::tree::{Entry, Reader};

/// What carries from command to command beside files, as in a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub cwd: String,
    /// `NAME=VALUE`, sorted by name.
    pub environment: Vec<String>,
    pub umask: u32,
}

impl Default for Context {
    fn default() -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self {
            cwd: "/".to_owned(),
            environment: vec!["HOME=/root".to_owned(), path.to_owned()],
            umask: 0o022,
        }
    }
}

/// What a shell sets by itself, and differently each time.
const VOLATILE: [&str; 4] = ["_", "SHLVL", "PWD", "PPID"];

impl Context {
    /// The context a process leaves, put in order.
    pub fn new(cwd: String, mut environment: Vec<String>, umask: u32) -> Self {
        environment.retain(|variable| {
            let name = variable.split('=').next().unwrap_or_default();
            !name.is_empty() && variable.contains('=') && !VOLATILE.contains(&name)
        });
        environment.sort();
        environment.dedup_by(|later, first| later.split('=').next() == first.split('=').next());
        Self { cwd, environment, umask }
    }

    /// The environment with some variables set anew.
    pub fn with(&self, variables: &[String]) -> Vec<String> {
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        let mut all = self.environment.clone();
        for variable in variables {
            all.retain(|known| name(known) != name(variable));
            all.push(variable.clone());
        }
        all.sort();
        all
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub root: Entry,
    pub context: Context,
    /// From the bottom up.
    pub layers: Vec<Id>,
    /// The tree that the lowest layer alone shows.
    pub base: Entry,
    /// Files written by the next command get this time, in seconds since 1970: it only counts the steps since the
    /// base, so that two runs agree, and what is made later is newer.
    pub clock: i64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    root: String,
    base: String,
    context: Context,
    layers: Vec<Id>,
    clock: i64,
}

impl State {
    /// Puts a layer on top. One that was in the chain before goes from where it was: whatever it shows or hides it shows
    /// and hides from the top as well, and overlayfs takes no layer twice.
    pub fn stack(&mut self, layer: Id) {
        self.layers.retain(|known| *known != layer);
        self.layers.push(layer);
    }

    pub fn id(&self) -> Id {
        let mut hasher = Hasher::new("deja state 1");
        hasher.field(&self.root.id().0);
        hasher.field(self.context.cwd.as_bytes());
        hasher.field(&self.context.umask.to_le_bytes());
        self.context.environment.iter().for_each(|variable| hasher.field(variable.as_bytes()));
        hasher.finish()
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let stored = Stored {
            root: digits(&self.root),
            base: digits(&self.base),
            context: self.context.clone(),
            layers: self.layers.clone(),
            clock: self.clock,
        };
        serde_json::to_vec(&stored).context("write a state")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Stored { root, base, context, layers, clock } = serde_json::from_slice(bytes)?;
        Ok(Self { root: entry(&root)?, base: entry(&base)?, context, layers, clock })
    }
}

fn digits(entry: &Entry) -> String {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn entry(digits: &str) -> Result<Entry> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Option<Vec<u8>> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect();
    let bytes = bytes.context("an entry is not in hexadecimal digits")?;
    Entry::decode(&mut Reader { rest: &bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let xattrs = vec![(b"user.x".to_vec(), vec![0, 255])];
        let root = Entry { xattrs, ..Entry::empty_root() };
        let layers = vec![Id::of("layer", b"1"), Id::of("layer", b"2")];
        let state = State {
            root,
            context: Context::default(),
            layers,
            base: Entry::empty_root(),
            clock: 1_700_000_000,
        };
        assert_eq!(State::from_bytes(&state.to_bytes().unwrap()).unwrap(), state);
    }

    #[test]
    fn the_id_is_of_what_is_seen_and_not_of_how_it_is_kept() {
        let root = Entry::empty_root();
        let context = Context::default();
        let state = State { base: root.clone(), root, context, layers: Vec::new(), clock: 0 };
        let kept_otherwise = State { layers: vec![Id::default()], clock: 7, ..state.clone() };
        assert_eq!(state.id(), kept_otherwise.id());
        let elsewhere = Context { cwd: "/tmp".to_owned(), ..Context::default() };
        assert_ne!(state.id(), State { context: elsewhere, ..state.clone() }.id());
        let masked = Context { umask: 0o077, ..Context::default() };
        assert_ne!(state.id(), State { context: masked, ..state.clone() }.id());
    }

    #[test]
    fn what_a_shell_leaves_is_put_in_order() {
        let left = ["_=/bin/env", "B=2", "SHLVL=3", "A=1", "PWD=/x", "broken", "B=other"].map(String::from);
        let context = Context::new("/".to_owned(), left.to_vec(), 0o022);
        assert_eq!(context.environment, ["A=1", "B=2"]);
        assert_eq!(context.with(&["A=9".to_owned(), "C=".to_owned()]), ["A=9", "B=2", "C="]);
    }
}
