//! The status of a container, and which verbs it allows. The refusals are worded as runc words them, because
//! containerd, podman and CRI-O search for them.

use std::fmt;

use anyhow::Result;

use crate::error::{Failure, Kind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What somebody wants to do to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Exec { ignore_paused: bool },
    Kill,
    Delete,
    Pause,
    Resume,
    Update,
    Events,
    Mounts,
    Checkpoint,
}

/// Refuses what a container of this status cannot do.
pub fn require(action: Action, id: &str, status: Status) -> Result<()> {
    match refusal(action, id, status) {
        None => Ok(()),
        Some(reason) => Err(Failure::new(Kind::Status, reason).into()),
    }
}

fn refusal(action: Action, id: &str, status: Status) -> Option<String> {
    use Status::*;
    let not_running = || Some("container not running".to_owned());
    match (action, status) {
        (Action::Start, Created) => None,
        (Action::Start, Stopped) => Some("cannot start a container that has stopped".to_owned()),
        (Action::Start, Running) => Some("cannot start an already running container".to_owned()),
        (Action::Start, _) => Some(format!("cannot start a container in the {status} state")),

        (Action::Exec { .. }, Created | Running) => None,
        (Action::Exec { ignore_paused: true }, Paused) => None,
        (Action::Exec { .. }, Paused) => {
            Some("cannot exec in a paused container (use --ignore-paused to override)".to_owned())
        }
        (Action::Exec { .. }, Stopped) => Some("cannot exec in a stopped container".to_owned()),
        (Action::Exec { .. }, Creating) => Some(format!("cannot exec in a container in the {status} state")),

        (Action::Kill, Created | Running | Paused) => None,
        // Some callers look for the first half, some for the second.
        (Action::Kill, _) => Some("container not running: no such process".to_owned()),

        // A created container is killed first, as runc does.
        (Action::Delete, Created | Stopped) => None,
        (Action::Delete, _) => Some(format!("cannot delete container {id} that is not stopped: {status}")),

        (Action::Pause, Created | Running) => None,
        (Action::Pause, _) => not_running(),

        (Action::Resume, Paused) => None,
        (Action::Resume, _) => Some("container not paused".to_owned()),

        (Action::Update, Created | Running | Paused) => None,
        (Action::Update, _) => not_running(),

        (Action::Mounts, Created | Running | Paused) => None,
        (Action::Mounts, _) => not_running(),

        (Action::Checkpoint, Running | Paused) => None,
        (Action::Checkpoint, _) => Some(format!("cannot checkpoint a container in the {status} state")),

        (Action::Events, Created | Running | Paused) => None,
        (Action::Events, _) => Some(format!("container with id {id} is not running")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::*;

    const ALL: [Status; 5] = [Creating, Created, Running, Paused, Stopped];

    #[test]
    fn every_verb_knows_its_statuses() {
        let exec = |ignore_paused| Action::Exec { ignore_paused };
        for (action, allowed) in [
            (Action::Start, &[Created] as &[Status]),
            (exec(false), &[Created, Running]),
            (exec(true), &[Created, Running, Paused]),
            (Action::Kill, &[Created, Running, Paused]),
            (Action::Delete, &[Created, Stopped]),
            (Action::Pause, &[Created, Running]),
            (Action::Resume, &[Paused]),
            (Action::Update, &[Created, Running, Paused]),
            (Action::Events, &[Created, Running, Paused]),
            (Action::Mounts, &[Created, Running, Paused]),
            (Action::Checkpoint, &[Running, Paused]),
        ] {
            for status in ALL {
                assert_eq!(
                    require(action, "c", status).is_ok(),
                    allowed.contains(&status),
                    "{action:?} {status}"
                );
            }
        }
    }

    #[test]
    fn refusals_hold_the_words_callers_search_for() {
        for (action, status, text) in [
            (Action::Kill, Stopped, "container not running"),
            (Action::Kill, Stopped, "no such process"),
            (Action::Start, Stopped, "cannot start a container that has stopped"),
            (Action::Start, Running, "cannot start an already running container"),
            (Action::Start, Paused, "cannot start a container in the paused state"),
            (Action::Delete, Running, "cannot delete container c that is not stopped: running"),
            (Action::Exec { ignore_paused: false }, Stopped, "cannot exec in a stopped container"),
            (Action::Resume, Running, "container not paused"),
            (Action::Pause, Paused, "container not running"),
            (Action::Events, Stopped, "container with id c is not running"),
        ] {
            let said = require(action, "c", status).unwrap_err().to_string();
            assert!(said.contains(text), "{said}");
        }
    }
}
