//! `session watch`: what a command of a session writes, seen by somebody else while it runs.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::capture::write_all;
use super::replay;
use crate::cli;
use crate::error::Failure;
use crate::session::journal;
use crate::session::live::{self, Output, Sight, Told};
use crate::session::store::{Found, Shelf, Store};
use crate::session::transition::{Piece, Stream, Transition};

/// Between two looks. A file tells nobody that it has grown without being asked.
const PAUSE: Duration = Duration::from_millis(20);

pub fn run(arguments: &cli::SessionWatch) -> Result<i32> {
    let store = super::store(&arguments.at)?;
    let (session, json) = (&arguments.session, arguments.at.json);
    // Fails now when there is no such session.
    journal::look(&store, session)?;
    let mut said = None;
    while let Some(own) = live::find(&store, session)? {
        let Some(runner) = runner(&store, &own)? else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if said != Some(runner.id()) {
            said = Some(runner.id());
            introduce(session, &runner.notice);
        }
        if let Some(code) = runner.output().map_or(Ok(None), |output| follow(output, &runner, json))? {
            return end(json, code);
        }
        if runner.notice.session == *session {
            bail!("whoever ran {:?} in session {session:?} is gone, and so is its result", own.notice.shown);
        }
        eprintln!("deja: whoever ran it is gone: another takes over");
    }
    again(&store, session, json)
}

/// Whoever writes what `own` is to be: itself, or the one it waits for.
fn runner(store: &Store, own: &Sight) -> Result<Option<Sight>> {
    let all = live::all(store)?;
    let begun = |sight: &&Sight| sight.output().is_some();
    let place = all.iter().filter(begun).position(|sight| sight.notice.session == own.notice.session);
    let place =
        place.or_else(|| all.iter().filter(begun).position(|sight| sight.notice.key == own.notice.key));
    Ok(place.and_then(|place| all.into_iter().filter(|sight| sight.output().is_some()).nth(place)))
}

fn introduce(session: &str, notice: &live::Notice) {
    let shown = notice.shown.lines().next().unwrap_or_default();
    match (&notice.container, notice.session == session) {
        (Some(_), true) => eprintln!("deja: {shown} has ended and left processes that go on:"),
        (None, true) => eprintln!("deja: {shown} runs since {}:", notice.at),
        (_, false) => eprintln!("deja: {shown} runs in session {} since {}:", notice.session, notice.at),
    }
}

/// The exit code; None: the runner is gone without one.
fn follow(mut output: Output, runner: &Sight, json: bool) -> Result<Option<i32>> {
    loop {
        // Asked first, so that what was written before the end is not missed.
        let is_alive = runner.is_alive();
        loop {
            match output.read()? {
                Told::Piece(piece) => show(&piece, json)?,
                Told::End(code) => return Ok(Some(code)),
                Told::Nothing => break,
            }
        }
        if !is_alive {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// One line of `--json`.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'l> {
    Stdout { micros: u64, text: &'l str },
    Stderr { micros: u64, text: &'l str },
    End { code: i32 },
}

fn show(piece: &Piece, json: bool) -> Result<()> {
    let number = if piece.stream == Stream::Out { 1 } else { 2 };
    if !json {
        return write_all(number, &piece.bytes);
    }
    let micros = u64::try_from(piece.after.as_micros()).unwrap_or(u64::MAX);
    let text = &String::from_utf8_lossy(&piece.bytes);
    super::print_json(&match piece.stream {
        Stream::Out => Line::Stdout { micros, text },
        Stream::Err => Line::Stderr { micros, text },
    })
}

fn end(json: bool, code: i32) -> Result<i32> {
    if json {
        super::print_json(&Line::End { code })?;
    }
    Ok(code)
}

/// Nothing runs: the last command once more, as it was.
fn again(store: &Store, session: &str, json: bool) -> Result<i32> {
    let steps = journal::look(store, session)?;
    let Some(last) = steps.iter().rfind(|step| step.act.is_command()) else {
        let text = format!("nothing runs in session {session:?}, and nothing ever did");
        return Err(Failure::new(crate::error::Kind::NotFound, text).into());
    };
    let shown = last.shown.lines().next().unwrap_or_default();
    let found = last.key.map_or(Ok(Found::Nothing), |key| store.get(Shelf::Transitions, &key.to_string()))?;
    let known = match found {
        Found::Whole(bytes) => Transition::from_bytes(&bytes).ok(),
        _ => None,
    };
    match known {
        Some(known) => {
            eprintln!("deja: nothing runs in session {session:?}: this is {shown} of {} again:", last.at);
            match json {
                true => known.output.iter().try_for_each(|piece| show(piece, json))?,
                false => replay::replay(&known.output, false)?,
            }
        }
        None => eprintln!(
            "deja: nothing runs in session {session:?}: {shown} ended at {}, and what it wrote is not kept",
            last.at
        ),
    }
    end(json, last.code)
}
