//! `session explain`: whether a command would be replayed, and if not, what is nearest and what differs first.

use anyhow::Result;
use serde::Serialize;

use super::replay::shown_time;
use super::{enter, exec};
use crate::cli;
use crate::session::Id;
use crate::session::journal;
use crate::session::key::{self, Command, Fact};
use crate::session::policy::{self, Policy};
use crate::session::state::State;
use crate::session::store::{Found, Shelf, Store};
use crate::session::transition::{Head, Transition};
use crate::session::tree;
use crate::sys::process;

#[derive(Serialize)]
struct Answer {
    hit: bool,
    key: Id,
    sentence: String,
}

pub fn run(arguments: &cli::SessionExplain) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let user = arguments.user.unwrap_or(cli::UserSpec { uid: 0, gid: None });
    let command = Command {
        program: exec::program(&arguments.command)?,
        environment: arguments.env.clone(),
        cwd: arguments.cwd.clone(),
        uid: user.uid,
        gid: user.gid.unwrap_or(0),
        stdin: None,
        network: arguments.network,
        terminal: exec::terminal(arguments.tty, arguments.size),
    };
    let steps = journal::look(&store, &arguments.session)?;
    let Some(last) = steps.last() else { return Ok(()) };
    let mut facts = command.facts();
    let mut key = key::key(&last.state, &facts);
    let mut known = exec::known(&store, &key)?;
    if known.is_none() && process::effective_uid() != 0 && enter::owners(&store)?.is_alone() {
        facts = exec::alone(&facts);
        key = key::key(&last.state, &facts);
        known = exec::known(&store, &key)?;
    }
    let habit = policy::habit(&store, &facts)?;
    let sentence = match known {
        _ if !Policy::read(&store)?.replays(habit.class) => {
            format!("miss: {}, so that everybody's run is their own", habit.class.words())
        }
        Some(known) => format!(
            "hit: it ran on {} in {} and leads to state {} ({})",
            known.head.at,
            shown_time(known.head.micros),
            known.head.to.short(),
            habit.class.words()
        ),
        None => format!("miss: {}", reason(&store, &last.state, &facts)?),
    };
    if arguments.at.json {
        let hit = sentence.starts_with("hit");
        return super::print_json(&Answer { hit, key, sentence });
    }
    crate::command::print(&format!("{sentence}\n"))
}

fn heads(store: &Store) -> Result<Vec<Head>> {
    let mut heads = Vec::new();
    for name in store.list_all(Shelf::Transitions)? {
        if let Found::Whole(bytes) = store.get(Shelf::Transitions, &name)? {
            heads.extend(Transition::from_bytes(&bytes).map(|transition| transition.head));
        }
    }
    Ok(heads)
}

/// The most recent runs of the same command that are compared by their files.
const COMPARED: usize = 50;

fn reason(store: &Store, state: &Id, facts: &[Fact]) -> Result<String> {
    let mut heads = heads(store)?;
    heads.sort_by(|one, other| other.at.cmp(&one.at));
    // Another state and the same command is what people mostly wonder about.
    let here = store.state(state)?;
    let mut nearest: Option<(usize, String)> = None;
    for head in heads.iter().filter(|head| head.facts == facts && head.from != *state).take(COMPARED) {
        // One whose state is no longer there says nothing.
        let Ok(there) = store.state(&head.from) else { continue };
        let (count, first) = compare(store, &here, &there)?;
        if nearest.as_ref().is_none_or(|(least, _)| count < *least) {
            nearest = Some((count, format!("it ran from state {}, but {first}", head.from.short())));
        }
    }
    let similar = |head: &&Head| head.from == *state && name(&head.facts) == name(facts);
    let differences = heads.iter().filter(similar).map(|head| key::differences(facts, &head.facts));
    // Of those that differ in as little the most recent.
    let closest = differences.filter(|facts| !facts.is_empty()).min_by_key(Vec::len);
    Ok(match (nearest, closest.and_then(|facts| facts.into_iter().next())) {
        (Some((_, sentence)), _) => sentence,
        (None, Some((fact, ours, theirs))) => {
            format!("from this state it ran with another {fact}: {theirs}, and not {ours}")
        }
        (None, None) if heads.iter().any(|head| head.facts == facts) => {
            "it ran before, but its result is damaged or no longer in the store".to_owned()
        }
        (None, None) => "nothing like it ran before".to_owned(),
    })
}

/// The program's name, or that it is a text.
fn name(facts: &[Fact]) -> Option<&str> {
    let fact = facts.iter().find(|fact| fact.0 == "argument" || fact.0 == "shell text")?;
    Some(if fact.0 == "argument" { &fact.1 } else { "" })
}

/// How many things differ between two states, and the first of them in words.
fn compare(store: &Store, here: &State, there: &State) -> Result<(usize, String)> {
    let (ours, theirs) = (&here.context, &there.context);
    let mut words = Vec::new();
    if ours.cwd != theirs.cwd {
        words.push(format!("the working directory was {:?}, and is {:?}", theirs.cwd, ours.cwd));
    }
    if ours.umask != theirs.umask {
        words.push(format!("the umask was {:03o}, and is {:03o}", theirs.umask, ours.umask));
    }
    let new = ours.environment.iter().filter(|variable| !theirs.environment.contains(variable));
    words.extend(new.map(|variable| format!("the variable {variable:?} is new or has changed")));
    let gone = theirs.environment.iter().filter(|variable| !ours.environment.contains(variable));
    words.extend(gone.map(|variable| format!("the variable {variable:?} is no longer so")));
    for (path, change) in tree::diff(store, &there.root, &here.root)? {
        let path = String::from_utf8_lossy(&path).into_owned();
        words.push(match change {
            tree::Change::Added => format!("{path:?} was not there"),
            tree::Change::Removed => format!("{path:?} is no longer there"),
            tree::Change::Changed => format!("{path:?} was different"),
        });
    }
    let count = words.len();
    let first = words.into_iter().next().unwrap_or_else(|| "it is the same".to_owned());
    let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    Ok((count, format!("{first}{more}")))
}
