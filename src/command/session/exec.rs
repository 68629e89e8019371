//! `session exec`: a command that was run from this state before is replayed; any other is run.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::capture::write_all;
use super::run::{self, Manner};
use crate::cli::{self, Global};
use crate::command::{foreground, seal};
use crate::error::Failure;
use crate::session::journal::{Act, Session, Step};
use crate::session::key::{self, Command, Fact, Program};
use crate::session::store::{Found, LONGEST_CHAIN, Shelf, Store};
use crate::session::transition::{Head, Piece, Stream, Transition};
use crate::session::tree::CONTENT;
use crate::session::{Hasher, Id};
use crate::sys::process;
use crate::sys::{AsFd, OwnedFd, borrow, fs};
use crate::time::Moment;

pub fn run(global: &Global, arguments: &cli::SessionExec, argv: &[OsString]) -> Result<i32> {
    let store = super::store(&arguments.at)?;
    let (input, digest) = input(arguments.stdin)?;
    let command = command(arguments, digest)?;
    let facts = command.facts();
    let mut session = Session::open(&store, &arguments.session)?;
    let key = key::key(&session.state(), &facts);
    if let Some(known) = known(&store, &key)?.filter(|_| !arguments.verify) {
        return hit(&store, &mut session, key, &known, arguments);
    }
    // Only whoever runs something has to be protected from it. This executes deja anew, once.
    seal::ensure(argv)?;
    process::default_signal(foreground::CHILD_ENDED)?;
    let _runner = store.lock(&key.to_string())?;
    let known = known(&store, &key)?;
    let input = input.map_or_else(run::nothing, Ok)?;
    if let Some(known) = known {
        if arguments.verify {
            again(global, &store, &key, &command, input, &known)?;
        }
        return hit(&store, &mut session, key, &known, arguments);
    }
    let asked = Asked { command: &command, facts, key };
    miss(global, &store, &mut session, asked, input, arguments)
}

/// What the words behind a session's name ask for.
pub fn program(words: &[String]) -> Result<Program> {
    Ok(match words {
        [] => return Err(Failure::usage("there is no command: give its words, or -c and a text").into()),
        [flag, text] if flag == "-c" => Program::Text(text.clone()),
        [flag, ..] if flag == "-c" => {
            return Err(Failure::usage("-c takes the whole command as one text").into());
        }
        [dashes, words @ ..] if dashes == "--" && !words.is_empty() => Program::Words(words.to_vec()),
        words => Program::Words(words.to_vec()),
    })
}

fn command(arguments: &cli::SessionExec, stdin: Option<Id>) -> Result<Command> {
    let program = program(&arguments.command)?;
    if let Some(bad) = arguments.env.iter().find(|variable| !variable.contains('=')) {
        return Err(Failure::usage(format!("--env {bad:?} is not of the form NAME=VALUE")).into());
    }
    let user = arguments.user.unwrap_or(cli::UserSpec { uid: 0, gid: None });
    Ok(Command {
        program,
        environment: arguments.env.clone(),
        cwd: arguments.cwd.clone(),
        uid: user.uid,
        gid: user.gid.unwrap_or(0),
        stdin,
    })
}

/// The whole of standard input as a file, and its digest. The file takes the place of descriptor 0, so that a deja that
/// is executed anew finds it there again.
fn input(wanted: bool) -> Result<(Option<OwnedFd>, Option<Id>)> {
    if !wanted {
        return Ok((None, None));
    }
    let file = fs::memfd_create(c"input")?;
    let mut hasher = Hasher::new(CONTENT);
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let length = fs::read(borrow(0), &mut buffer).context("read standard input")?;
        if length == 0 {
            break;
        }
        hasher.raw(&buffer[..length]);
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = fs::pwrite(&file, rest, at).context("keep standard input")?;
            rest = &rest[written..];
            at += written as u64;
        }
    }
    fs::dup_inheritable(file.as_fd(), 0)?;
    Ok((Some(file), Some(hasher.finish())))
}

/// What is known under a key, if all of it is there; a damaged or incomplete entry is none.
pub fn known(store: &Store, key: &Id) -> Result<Option<Transition>> {
    let Found::Whole(bytes) = store.get(Shelf::Transitions, &key.to_string())? else { return Ok(None) };
    let transition = Transition::from_bytes(&bytes).ok();
    Ok(transition.filter(|known| store.has(Shelf::States, &known.head.to.to_string())))
}

fn hit(
    store: &Store,
    session: &mut Session,
    key: Id,
    known: &Transition,
    arguments: &cli::SessionExec,
) -> Result<i32> {
    let held = store.share()?;
    let head = &known.head;
    if !store.has(Shelf::States, &head.to.to_string()) {
        bail!("state {} has just been collected: try again", head.to.short());
    }
    session.step(step(Act::Hit, head, Some(key)), false)?;
    drop(held);
    match arguments.at.json {
        true => tell(Act::Hit, known)?,
        false => replay(&known.output, arguments.timing)?,
    }
    Ok(head.code)
}

/// A command's result as one object, for `--json`; bytes that are not UTF-8 are replaced.
#[derive(Serialize)]
struct Told<'t> {
    act: Act,
    state: Id,
    code: i32,
    micros: u64,
    stdout: &'t str,
    stderr: &'t str,
}

fn tell(act: Act, transition: &Transition) -> Result<()> {
    let [out, err] = [Stream::Out, Stream::Err].map(|stream| written(&transition.output, stream));
    super::print_json(&Told {
        act,
        state: transition.head.to,
        code: transition.head.code,
        micros: transition.head.micros,
        stdout: &String::from_utf8_lossy(&out),
        stderr: &String::from_utf8_lossy(&err),
    })
}

/// Everything that was written to one stream.
fn written(output: &[Piece], stream: Stream) -> Vec<u8> {
    let pieces = output.iter().filter(|piece| piece.stream == stream);
    pieces.flat_map(|piece| piece.bytes.iter().copied()).collect()
}

fn step(act: Act, head: &Head, key: Option<Id>) -> Step {
    Step {
        act,
        state: head.to,
        at: Moment::now().seconds(),
        key,
        shown: head.shown.clone(),
        code: head.code,
        micros: head.micros,
    }
}

/// Writes what the command wrote, in its order; with `timing` also in its time.
fn replay(output: &[Piece], timing: bool) -> Result<()> {
    let begin = Instant::now();
    let number = |stream: Stream| if stream == Stream::Out { 1 } else { 2 };
    if timing {
        for piece in output {
            std::thread::sleep(piece.after.saturating_sub(begin.elapsed()));
            write_all(number(piece.stream), &piece.bytes)?;
        }
        return Ok(());
    }
    for run in output.chunk_by(|one, next| one.stream == next.stream) {
        let bytes: Vec<u8> = run.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
        write_all(number(run[0].stream), &bytes)?;
    }
    Ok(())
}

/// Runs a command whose result is known once more, and fails when it comes to another; then the known one goes.
fn again(
    global: &Global,
    store: &Store,
    key: &Id,
    command: &Command,
    input: OwnedFd,
    known: &Transition,
) -> Result<()> {
    let state = store.state(&known.head.from)?;
    let outcome = run::run(global, store, &state, command, input, &Manner { limit: None, quiet: true })?;
    let differs = |stream| written(&outcome.seen.output, stream) != written(&known.output, stream);
    let what = match () {
        () if outcome.code != known.head.code => "its exit code",
        () if outcome.state.id() != known.head.to => "the state it leads to",
        () if differs(Stream::Out) => "its standard output",
        () if differs(Stream::Err) => "its standard error",
        () => return Ok(()),
    };
    store.forget(Shelf::Transitions, &key.to_string())?;
    bail!(
        "{what} differs from run to run: the result of {:?} is dropped, and the session stays",
        known.head.shown
    )
}

struct Asked<'a> {
    command: &'a Command,
    facts: Vec<Fact>,
    key: Id,
}

fn miss(
    global: &Global,
    store: &Store,
    session: &mut Session,
    asked: Asked,
    input: OwnedFd,
    arguments: &cli::SessionExec,
) -> Result<i32> {
    let from = session.state();
    let mut state = store.state(&from)?;
    if state.layers.len() > LONGEST_CHAIN {
        let _held = store.share()?;
        state = store.flatten(&state)?;
    }
    let manner = Manner { limit: arguments.timeout.map(|limit| limit.0), quiet: arguments.at.json };
    let outcome = run::run(global, store, &state, asked.command, input, &manner)?;
    run::warn(&outcome);
    let to = store.keep(&outcome.state)?;
    let micros = u64::try_from(outcome.seen.took.as_micros()).unwrap_or(u64::MAX);
    let head = Head {
        from,
        to,
        facts: asked.facts,
        shown: asked.command.program.shown(),
        code: outcome.code,
        micros,
        bytes: outcome.bytes,
        at: Moment::now().seconds(),
    };
    let act = if outcome.alone.is_none() { Act::Run } else { Act::Once };
    let transition = Transition { head, output: outcome.seen.output };
    if act == Act::Run {
        store.put(Shelf::Transitions, &asked.key.to_string(), &transition.to_bytes()?)?;
        store.sync(Shelf::Transitions)?;
    }
    let key = (act == Act::Run).then_some(asked.key);
    session.step(step(act, &transition.head, key), true)?;
    drop(outcome.held);
    if arguments.at.json {
        tell(act, &transition)?;
    }
    Ok(transition.head.code)
}

/// A duration people can read.
pub fn shown_time(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match time.as_secs() {
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..=99 => format!("{:.2} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        let table =
            [(1_500, "1.5 ms"), (999_900, "999.9 ms"), (2_500_000, "2.50 s"), (125_000_000, "2 min 5 s")];
        for (micros, text) in table {
            assert_eq!(shown_time(micros), text);
        }
    }
}
