//! `session exec --keep-background`: a command's processes go on after it, looked after by a deja of their own; and the
//! commands that join them meanwhile.
//!
//! A session is live from the step `live` of its journal on, which names whoever looks after it; that one, the keeper,
//! holds a lock as long as it is there. When the last process is gone it seals what they have led to, unless the session
//! has been moved meanwhile. A keeper that is killed takes the processes along, and the session stands where it stood.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::replay;
use super::{enter, exec, inside, moves, run};
use crate::cli::{self, Global};
use crate::command::foreground::CHILD_ENDED;
use crate::error::Kind;
use crate::session::Id;
use crate::session::journal::{Act, Session, Step};
use crate::session::key;
use crate::session::live::{self, Sight};
use crate::session::store::Store;
use crate::session::transition::{Head, Piece, Stream, Transition};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::{AsFd, Errno, OwnedFd, fs};
use crate::time::Moment;
use crate::trial;

const INTERRUPT: i32 = 2;
const QUIT: i32 = 3;
const TERMINATE: i32 = 15;
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether a keeper is still there.
const LOOK: Duration = Duration::from_millis(10);

/// Who this process is after `split`.
pub enum Side {
    /// The one that was called, with the exit code of the command.
    Caller(i32),
    /// The one that does the work and may stay.
    Keeper(Keeper),
}

/// Whoever runs a command whose processes may go on: the caller waits for what is told here.
pub struct Keeper {
    caller: OwnedFd,
}

/// Goes on as two processes: one does the work and stays as long as something runs, and one stands here for the caller.
pub fn split() -> Result<Side> {
    let (told, caller) = fs::pipe()?;
    process::set_signal_mask(&SignalSet::all())?;
    match process::fork()? {
        None => {
            drop(told);
            // Keys of the caller's terminal come through the caller.
            process::setsid()?;
            Ok(Side::Keeper(Keeper { caller }))
        }
        Some(keeper) => {
            drop(caller);
            stand_in(&keeper, &told).map(Side::Caller)
        }
    }
}

/// Passes signals on until the keeper tells the command's exit code, or ends with it.
fn stand_in(keeper: &OwnedFd, told: &OwnedFd) -> Result<i32> {
    let signals = event::signalfd(&SignalSet::all())?;
    loop {
        let waiting = [(told.as_fd(), Interest::Read), (signals.as_fd(), Interest::Read)];
        let [ready, signalled] = event::poll(waiting, None)?;
        if ready {
            let mut code = [0; 4];
            return match fs::read(told, &mut code).context("wait for the command")? {
                4 => Ok(i32::from_le_bytes(code)),
                _ => Ok(process::wait(keeper)?.code()),
            };
        }
        while let Some(signal) = event::next_signal(&signals)?.filter(|_| signalled) {
            if signal != CHILD_ENDED {
                tell(keeper, signal)?;
            }
        }
    }
}

fn tell(process: &OwnedFd, signal: i32) -> Result<()> {
    match process::pidfd_send_signal(process, signal) {
        Err(fault) if fault.errno == Errno::SRCH => Ok(()),
        result => result.with_context(|| format!("pass signal {signal} on")),
    }
}

impl Keeper {
    /// Lets the caller go: from here on this process belongs to nobody.
    pub fn release(&self, code: i32) -> Result<()> {
        let nothing = run::nothing()?;
        (0..3).try_for_each(|number| fs::dup_inheritable(nothing.as_fd(), number))?;
        fs::chdir(c"/")?;
        // A caller that is gone needs no answer.
        fs::write(&self.caller, &code.to_le_bytes()).ok();
        Ok(())
    }
}

/// The step that makes a session live.
pub fn live_step(state: Id, live: Id, shown: String, code: i32, took: Duration) -> Step {
    Step {
        act: Act::Live,
        state,
        at: Moment::now().seconds(),
        key: Some(live),
        shown,
        code,
        micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    }
}

/// The end of a live session: it stands at what its processes have led to, unless it has been moved meanwhile.
pub fn settle_down(store: &Store, name: &str, live: Id, ran: &Transition) -> Result<()> {
    let mut session = match Session::open(store, name) {
        Err(error) if is_missing(&error) => return Ok(()),
        result => result?,
    };
    if session.last.act != Act::Live || session.last.key != Some(live) {
        return Ok(());
    }
    trial::point("settle a live session")?;
    session.step(exec::step(Act::Settled, &ran.head, None), true)
}

fn is_missing(error: &anyhow::Error) -> bool {
    crate::error::kind(error) == Some(Kind::NotFound)
}

/// Whoever keeps the session live, if it is.
pub fn keeper(store: &Store, last: &Step) -> Result<Option<Sight>> {
    if last.act != Act::Live {
        return Ok(None);
    }
    Ok(live::all(store)?.into_iter().find(|sight| Some(sight.id()) == last.key))
}

/// Whether a command can still join the processes of a live session.
pub fn is_joinable(global: &Global, store: &Store, sight: &Sight) -> Result<bool> {
    let Some(id) = &sight.notice.container else { return Ok(false) };
    let container = enter::containers(global, store)?.remains(id)?;
    Ok(container.map(|container| container.living_pid()).transpose()?.flatten().is_some())
}

pub fn wait_for_end(sight: &Sight) {
    while sight.is_alive() {
        std::thread::sleep(LOOK);
    }
}

/// Refuses what cannot be done to a session while it is live.
pub fn refuse(store: &Store, session: &Session) -> Result<()> {
    match keeper(store, &session.last)? {
        Some(_) => bail!(
            "session {:?} is live: processes of {:?} still run: \"session settle\" ends them",
            session.name,
            session.last.shown
        ),
        None => Ok(()),
    }
}

/// Ends the processes of a live session that has been moved away from them.
pub fn dismiss(sight: Option<&Sight>) -> Result<()> {
    sight.map_or(Ok(()), |sight| end(sight, Duration::ZERO))
}

/// SIGTERM ends what listens to it, and again, after a while, everything.
fn end(sight: &Sight, grace: Duration) -> Result<()> {
    let pid = process::Pid::from_raw(sight.notice.pid).context("a notice without a process")?;
    let keeper = process::pidfd_find(pid)?;
    // Only now is it sure that the number still means the keeper.
    let Some(keeper) = keeper.filter(|_| sight.is_alive()) else { return Ok(()) };
    tell(&keeper, TERMINATE)?;
    let begin = Instant::now();
    let mut urged = false;
    while sight.is_alive() {
        if !urged && begin.elapsed() >= grace {
            tell(&keeper, TERMINATE)?;
            urged = true;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

pub fn settle(arguments: &cli::SessionSettle) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let name = &arguments.session;
    let mut session = Session::open(&store, name)?;
    let Some(sight) = keeper(&store, &session.last)? else {
        bail!("session {name:?} is not live: nothing runs in its background");
    };
    if arguments.discard {
        session.step(moves::plain_step(Act::Undo, session.state()), true)?;
    }
    drop(session);
    end(&sight, arguments.grace.map_or(GRACE, |grace| grace.0))?;
    let state = moves::standing(&store, name)?;
    moves::stands(arguments.at.json, name, state)
}

/// Runs a command beside the processes of a live session. Nothing of it is kept for others, and what it leads to is part of
/// what they lead to.
pub fn join(
    global: &Global,
    store: &Store,
    session: &mut Session,
    sight: &Sight,
    arguments: &cli::SessionExec,
    command: &key::Command,
    before: &[OsString],
) -> Result<i32> {
    let refused = [
        ("--timeout", arguments.timeout.is_some()),
        ("--verify", arguments.verify),
        ("--network", arguments.network),
        ("--keep-background", arguments.keep_background),
    ];
    if let Some((flag, _)) = refused.iter().find(|(_, given)| *given) {
        bail!(
            "{flag} means nothing in session {:?} while it is live: \"session settle\" ends that",
            session.name
        );
    }
    let container = sight.notice.container.as_ref().context("the session is about to become live")?;
    let context = store.state(&session.state())?.context;
    let containers = enter::containers(global, store)?;
    let init = containers.remains(container)?.map(|container| container.living_pid()).transpose()?.flatten();
    enter::join(store, init.context("the container has ended")?)?;
    let mut child = Command::new("/proc/self/exe");
    // The last word counts: there the container is, whoever looks for it.
    child
        .args(before)
        .arg("--root")
        .arg(containers.root())
        .arg("exec")
        .arg("--user")
        .arg(format!("{}:{}", command.uid, command.gid));
    if arguments.tty {
        child.arg("--tty");
    }
    child.arg(container).args(inside::joining(&context, command)?);
    if !arguments.stdin && !arguments.tty {
        child.stdin(Stdio::null());
    }
    let begin = Instant::now();
    let (code, output) = match arguments.at.json {
        true => captured(&mut child)?,
        false => (passed(&mut child)?, Vec::new()),
    };
    let (shown, live) = (command.program.shown(), sight.id());
    session.step(live_step(session.state(), live, shown.clone(), code, begin.elapsed()), true)?;
    if arguments.at.json {
        let at = session.last.at.clone();
        let (from, to, micros) = (session.state(), session.state(), session.last.micros);
        let head = Head { from, to, facts: Vec::new(), shown, code, micros, bytes: 0, at, expires: None };
        replay::tell(Act::Live, &Transition { head, output })?;
    }
    Ok(code)
}

/// Runs deja with our own streams; keys that interrupt are for it.
fn passed(child: &mut Command) -> Result<i32> {
    process::set_signal_mask(&SignalSet::of(&[INTERRUPT, QUIT, TERMINATE]))?;
    process::begin_unblocked(child);
    Ok(exit_code(child.status().context("start deja")?))
}

fn captured(child: &mut Command) -> Result<(i32, Vec<Piece>)> {
    let done = child.output().context("start deja")?;
    let piece = |stream, bytes| Piece { stream, after: Duration::ZERO, bytes };
    Ok((exit_code(done.status), vec![piece(Stream::Out, done.stdout), piece(Stream::Err, done.stderr)]))
}

pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
    status.code().unwrap_or_else(|| 128 + signal())
}
