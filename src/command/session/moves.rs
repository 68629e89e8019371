//! Moving a session without running anything: back, to another state, under another name, as two, and out.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::background;
use crate::cli;
use crate::session::Id;
use crate::session::journal::{self, Act, Session, Step};
use crate::session::store::{Shelf, Store};
use crate::time::Moment;

#[derive(Serialize)]
struct Stands {
    session: String,
    state: Id,
}

pub fn stands(json: bool, session: &str, state: Id) -> Result<()> {
    match json {
        true => super::print_json(&Stands { session: session.to_owned(), state }),
        false => crate::command::print(&format!("{}\n", state.short())),
    }
}

pub fn plain_step(act: Act, state: Id) -> Step {
    Step { act, state, at: Moment::now().seconds(), key: None, shown: String::new(), code: 0, micros: 0 }
}

pub fn undo(arguments: &cli::SessionUndo) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let mut session = Session::open(&store, &arguments.session)?;
    let held = store.share()?;
    let live = background::keeper(&store, &session.last)?;
    for _ in 0..arguments.steps.unwrap_or(1) {
        let mut way = way(&session.steps()?);
        way.pop();
        let Some(before) = way.pop() else {
            bail!("session {:?} is at its beginning: there is nothing to undo", session.name);
        };
        session.step(plain_step(Act::Undo, before), true)?;
    }
    let state = session.state();
    drop((session, held));
    background::dismiss(live.as_ref())?;
    stands(arguments.at.json, &arguments.session, state)
}

/// The states a session has come through to where it stands, without what was undone. A live session is a state of its
/// own for as long as it is live.
pub fn way(steps: &[Step]) -> Vec<Id> {
    let mut way = Vec::new();
    let mut was_live = false;
    for step in steps {
        if was_live && step.act != Act::Undo {
            way.pop();
        }
        match step.act {
            Act::Undo => drop(way.pop()),
            _ => way.push(step.state),
        }
        was_live = step.act == Act::Live;
    }
    way
}

pub fn goto(arguments: &cli::SessionGoto) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let mut session = Session::open(&store, &arguments.session)?;
    let held = store.share()?;
    let state = resolve(&store, &arguments.state)?;
    let live = background::keeper(&store, &session.last)?;
    session.step(plain_step(Act::Goto, state), true)?;
    drop((session, held));
    background::dismiss(live.as_ref())?;
    stands(arguments.at.json, &arguments.session, state)
}

pub fn branch(arguments: &cli::SessionBranch) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let state = resolve(&store, &arguments.state)?;
    Session::create(&store, &arguments.session, &plain_step(Act::New, state))?;
    stands(arguments.at.json, &arguments.session, state)
}

pub fn rename(arguments: &cli::SessionRename) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let session = Session::open(&store, &arguments.session)?;
    background::refuse(&store, &session)?;
    let state = session.state();
    session.rename(&store, &arguments.name)?;
    stands(arguments.at.json, &arguments.name, state)
}

pub fn close(arguments: &cli::SessionClose) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let session = Session::open(&store, &arguments.session)?;
    let state = session.state();
    let live = background::keeper(&store, &session.last)?;
    session.close(&store)?;
    background::dismiss(live.as_ref())?;
    stands(arguments.at.json, &arguments.session, state)
}

/// The state a session stands at, without keeping anybody from moving it.
pub fn standing(store: &Store, name: &str) -> Result<Id> {
    let steps = journal::look(store, name)?;
    steps.last().map(|step| step.state).with_context(|| format!("session {name:?} has no steps"))
}

/// The fewest digits that are taken for a state's id.
const FEWEST_DIGITS: usize = 4;

/// The state that is meant by a session's name, an id, or the unambiguous beginning of one.
pub fn resolve(store: &Store, text: &str) -> Result<Id> {
    if journal::check_name(text).is_ok() && store.has(Shelf::Sessions, text) {
        if let Some(last) = journal::look(store, text)?.last() {
            return Ok(last.state);
        }
    }
    let is_hex = text.len() >= FEWEST_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        bail!("{text:?} is neither a session nor the id of a state");
    }
    let lower = text.to_ascii_lowercase();
    let names = store.list_all(Shelf::States)?;
    let found: Vec<Id> =
        names.iter().filter(|name| name.starts_with(&lower)).filter_map(|name| Id::parse(name)).collect();
    match found.as_slice() {
        [state] => Ok(*state),
        [] => bail!("there is no state {text:?}, and no session of this name"),
        [one, other, ..] => {
            bail!("{text:?} may be state {} or {}: give more digits", one.short(), other.short())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_undone_is_no_longer_on_the_way() {
        let id = |number: u8| Id::of("state", &[number]);
        let steps = [
            (Act::New, 0),
            (Act::Run, 1),
            (Act::Hit, 2),
            (Act::Undo, 1),
            (Act::Undo, 0),
            (Act::Once, 3),
            (Act::Goto, 2),
        ];
        let steps: Vec<Step> = steps.iter().map(|(act, number)| plain_step(*act, id(*number))).collect();
        assert_eq!(way(&steps), [id(0), id(3), id(2)]);
        let live = [(Act::New, 0), (Act::Live, 0), (Act::Live, 0), (Act::Settled, 4), (Act::Live, 4)];
        let live: Vec<Step> = live.iter().map(|(act, number)| plain_step(*act, id(*number))).collect();
        assert_eq!(way(&live[..3]), [id(0), id(0)]);
        assert_eq!(way(&live[..4]), [id(0), id(4)]);
        assert_eq!(way(&live), [id(0), id(4), id(4)]);
        assert_eq!(way(&steps[..4]), [id(0), id(1)]);
        assert_eq!(way(&steps[..5]), [id(0)]);
    }
}
