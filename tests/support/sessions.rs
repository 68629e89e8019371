//! A store of sessions that is gone with its test.

use super::{Deja, Finished, deja, rootfs};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Sessions {
    directory: TempDir,
    store: PathBuf,
}

impl Sessions {
    /// An empty store.
    #[track_caller]
    pub fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("deja-session-").tempdir();
        let directory = directory.expect("create a temporary directory");
        let store = directory.path().join("store");
        Self { directory, store }
    }

    /// Sessions whose store is elsewhere; its directory need not be there yet.
    #[track_caller]
    pub fn at(store: PathBuf) -> Self {
        Self { store, ..Self::empty() }
    }

    /// A store with sessions that begin with the small root file system.
    #[track_caller]
    pub fn new(names: &[&str]) -> Self {
        let sessions = Self::empty();
        for name in names {
            sessions.begin(name);
        }
        sessions
    }

    #[track_caller]
    pub fn begin(&self, name: &str) -> Finished {
        self.verb("new").arg("--rootfs").arg(rootfs()).arg(name).ok()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn store(&self) -> PathBuf {
        self.store.clone()
    }

    /// A verb on this store; flags and words are still to come.
    pub fn verb(&self, verb: &str) -> Deja {
        deja(&self.path().join("run")).args(["session", verb, "--store"]).arg(self.store())
    }

    /// A command of a session.
    pub fn exec(&self, name: &str, words: &[&str]) -> Deja {
        self.verb("exec").arg(name).arg("--").args(words)
    }

    /// A text for the session's shell.
    pub fn shell(&self, name: &str, text: &str) -> Deja {
        self.verb("exec").args([name, "-c", text])
    }

    #[track_caller]
    pub fn log(&self, name: &str) -> Vec<Value> {
        let log = self.verb("log").args(["--json", name]).ok().json();
        log.as_array().expect("a list of steps").clone()
    }

    /// What the steps of a session were: new, run, hit ...
    #[track_caller]
    pub fn acts(&self, name: &str) -> Vec<String> {
        self.log(name).iter().map(|step| step["act"].as_str().expect("an act").to_owned()).collect()
    }

    /// The state a session stands at.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        let log = self.log(name);
        log.last().expect("a step")["state"].as_str().expect("a state").to_owned()
    }
}
