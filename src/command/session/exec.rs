//! `session exec`: a command that was run from this state before is replayed; any other is run.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

use super::background::{self, Keeper, Side};
use super::capture::{Manner, Seen};
use super::inside::Report;
use super::run::{self};
use super::{enter, replay};
use crate::cli::{self, Global};
use crate::command::{foreground, seal};
use crate::error::Failure;
use crate::session::journal::{Act, Session, Step};
use crate::session::key::{self, Command, Fact, Program};
use crate::session::layer;
use crate::session::live::{Announced, Notice};
use crate::session::policy::{self, Class, Habit, Policy};
use crate::session::state::State;
use crate::session::store::{Found, Held, LONGEST_CHAIN, Lock, Shelf, Store};
use crate::session::transition::{Head, Stream, Transition};
use crate::session::{Content, Id};
use crate::sys::process;
use crate::sys::{AsFd, OwnedFd, borrow, file, fs, terminal};
use crate::time::Moment;
use crate::trial;

/// Of a terminal whose size nobody says.
const USUAL_SIZE: (u32, u32) = (24, 80);

/// Everything that is known of what is asked before it is done.
struct Asked<'a> {
    global: &'a Global,
    store: &'a Store,
    arguments: &'a cli::SessionExec,
    command: Command,
    facts: Vec<Fact>,
    key: Id,
    policy: Policy,
    /// What earlier runs of the command have shown.
    habit: Habit,
}

/// Whoever runs the command, and where others may look at it.
struct Runner {
    announced: Announced,
    /// It stays when processes of the command do.
    keeper: Option<Keeper>,
}

pub fn run(global: &Global, arguments: &cli::SessionExec, argv: &[OsString]) -> Result<i32> {
    refuse(arguments)?;
    let store = super::store(&arguments.at)?;
    let (input, digest) = input(arguments.stdin)?;
    let mut session = Session::open(&store, &arguments.session)?;
    while let Some(live) = background::keeper(&store, &session.last)? {
        if background::is_joinable(global, &store, &live)? {
            process::default_signal(foreground::CHILD_ENDED)?;
            let command = command(arguments, digest)?;
            return background::join(
                global,
                &store,
                &mut session,
                &live,
                arguments,
                &command,
                super::before(argv),
            );
        }
        // Its last process is gone, and what they have led to is being sealed.
        drop(session);
        background::wait_for_end(&live);
        session = Session::open(&store, &arguments.session)?;
    }
    let asked = match Asked::find(global, &store, arguments, digest, &session)? {
        (asked, Some(known)) => return asked.hit(&mut session, &known),
        (asked, None) => asked,
    };
    let (key, shared, checked) = (asked.key, asked.is_shared(), asked.is_checked(&session));
    // Only whoever runs something has to be protected from it. This executes deja anew, once.
    seal::ensure(argv)?;
    process::default_signal(foreground::CHILD_ENDED)?;
    let input = input.map_or_else(run::nothing, Ok)?;
    let keeper = match arguments.keep_background.then(background::split).transpose()? {
        Some(Side::Caller(code)) => return Ok(code),
        Some(Side::Keeper(keeper)) => Some(keeper),
        None => None,
    };
    let runner = Runner { announced: asked.announce(&session)?, keeper };
    if !shared {
        // Each has a run of its own, so that nobody waits for another.
        return asked.miss(session, None, &runner, &input);
    }
    let lock = store.lock(&key.to_string())?;
    match known(&store, &key)? {
        Some(known) if checked => asked.again(&mut session, &runner, &input, &known),
        Some(known) => asked.hit(&mut session, &known),
        None => asked.miss(session, Some(lock), &runner, &input),
    }
}

/// Replays what is asked, if that is all it takes; None: nothing was done.
pub fn replayed(global: &Global, store: &Store, arguments: &cli::SessionExec) -> Result<Option<i32>> {
    if arguments.stdin {
        return Ok(None);
    }
    let mut session = Session::open(store, &arguments.session)?;
    if background::keeper(store, &session.last)?.is_some() {
        return Ok(None);
    }
    let (asked, known) = Asked::find(global, store, arguments, None, &session)?;
    known.map(|known| asked.hit(&mut session, &known)).transpose()
}

/// What a command sees where nobody but root has an id: programs that want to be somebody else fail.
pub fn alone(facts: &[Fact]) -> Vec<Fact> {
    facts.iter().cloned().chain([("owners".to_owned(), "root alone".to_owned())]).collect()
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
        network: arguments.network,
        terminal: terminal(arguments.tty, arguments.size),
    })
}

/// The terminal a command gets, if it is to have one: as large as the caller's, so that what it draws fits.
pub fn terminal(wanted: bool, size: Option<cli::WindowSize>) -> Option<(u32, u32)> {
    let own = || terminal::size(borrow(1)).ok().filter(|(rows, columns)| *rows > 0 && *columns > 0);
    let size = size.map(|size| (size.0, size.1));
    wanted.then(|| size.or_else(own).unwrap_or(USUAL_SIZE))
}

/// What flags ask for that cannot be had together.
fn refuse(arguments: &cli::SessionExec) -> Result<()> {
    if arguments.tty && arguments.stdin {
        return Err(Failure::usage("--tty and --stdin cannot be had together: a terminal is typed at").into());
    }
    if arguments.tty && arguments.keep_background {
        return Err(Failure::usage(
            "--tty and --keep-background cannot be had together: a terminal ends with its command",
        )
        .into());
    }
    Ok(())
}

/// The terminal that somebody may type at, if the command gets one and there is somebody.
fn keyboard(arguments: &cli::SessionExec) -> Result<Option<OwnedFd>> {
    let typed = arguments.tty && !arguments.at.json && terminal::modes(borrow(0)).is_ok();
    let keyboard = typed.then(|| borrow(0).try_clone_to_owned());
    keyboard.transpose().context("duplicate the standard input")
}

/// The whole of standard input as a file, and its digest. The file takes the place of descriptor 0, so that a deja that
/// is executed anew finds it there again.
fn input(wanted: bool) -> Result<(Option<OwnedFd>, Option<Id>)> {
    if !wanted {
        return Ok((None, None));
    }
    let file = fs::memfd_create(c"input")?;
    let mut content = Content::default();
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let length = fs::read(borrow(0), &mut buffer).context("read standard input")?;
        if length == 0 {
            break;
        }
        content.bytes(&buffer[..length]);
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = fs::pwrite(&file, rest, at).context("keep standard input")?;
            rest = &rest[written..];
            at += written as u64;
        }
    }
    fs::dup_inheritable(file.as_fd(), 0)?;
    Ok((Some(file), Some(content.finish())))
}

/// What is known under a key, if all of it is there and its time is not over; a damaged or incomplete entry is none.
pub fn known(store: &Store, key: &Id) -> Result<Option<Transition>> {
    let Found::Whole(bytes) = store.get(Shelf::Transitions, &key.to_string())? else { return Ok(None) };
    let transition = Transition::from_bytes(&bytes).ok();
    let now = Moment::now().since_1970();
    let transition = transition.filter(|known| known.head.is_fresh(now));
    let stands = |to: &str| store.has(Shelf::States, to) && !store.has(Shelf::Disowned, to);
    Ok(transition.filter(|known| stands(&known.head.to.to_string())))
}

/// A state whose chain of layers is short enough for something to be done in it.
pub fn short_chain(store: &Store, id: &Id) -> Result<State> {
    let state = store.state(id)?;
    if state.layers.len() <= LONGEST_CHAIN {
        return Ok(state);
    }
    let _held = store.share()?;
    match store.flatten(&state) {
        Err(error) if layer::is_unmarked(&error) && state.layers.len() <= MOST_LAYERS => Ok(state),
        result => result,
    }
}

/// So many layers can be named to overlayfs, where they cannot be made one.
const MOST_LAYERS: usize = 200;

pub fn step(act: Act, head: &Head, key: Option<Id>) -> Step {
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

/// How two results of one command from one state differ, and what that makes of it.
fn difference(one: &Transition, other: &Transition) -> Option<(Class, &'static str)> {
    let differs = |stream| replay::written(&one.output, stream) != replay::written(&other.output, stream);
    match () {
        () if one.head.code != other.head.code => Some((Class::StateVaries, "its exit code")),
        () if one.head.to != other.head.to => Some((Class::StateVaries, "the state it leads to")),
        () if differs(Stream::Out) => Some((Class::OutputVaries, "its standard output")),
        () if differs(Stream::Err) => Some((Class::OutputVaries, "its standard error")),
        () => None,
    }
}

/// A run, sealed: `held` keeps `gc` from it until it is published.
struct Ran {
    transition: Transition,
    alone: Option<String>,
    _held: Held,
}

impl<'a> Asked<'a> {
    fn of(
        global: &'a Global,
        store: &'a Store,
        arguments: &'a cli::SessionExec,
        stdin: Option<Id>,
        session: &Session,
    ) -> Result<Self> {
        let command = command(arguments, stdin)?;
        let facts = command.facts();
        let key = key::key(&session.state(), &facts);
        let (policy, habit) = (Policy::read(store)?, policy::habit(store, &facts)?);
        Ok(Self { global, store, arguments, command, facts, key, policy, habit })
    }

    /// What is asked, and what is known of it and can be replayed. What was run without all owners stands apart.
    fn find(
        global: &'a Global,
        store: &'a Store,
        arguments: &'a cli::SessionExec,
        stdin: Option<Id>,
        session: &Session,
    ) -> Result<(Self, Option<Transition>)> {
        let asked = Self::of(global, store, arguments, stdin, session)?;
        if let Some(known) = asked.replayable(session)? {
            return Ok((asked, Some(known)));
        }
        if process::effective_uid() == 0 || !enter::owners(store)?.is_alone() {
            return Ok((asked, None));
        }
        let asked = asked.without_others(session)?;
        let known = asked.replayable(session)?;
        Ok((asked, known))
    }

    fn without_others(self, session: &Session) -> Result<Self> {
        let facts = alone(&self.facts);
        let (key, habit) = (key::key(&session.state(), &facts), policy::habit(self.store, &facts)?);
        Ok(Self { facts, key, habit, ..self })
    }

    /// Whether a result is everybody's.
    fn is_shared(&self) -> bool {
        self.policy.replays(self.habit.class)
    }

    /// Whether a known result is to be compared with another run.
    fn is_checked(&self, session: &Session) -> bool {
        self.arguments.verify || self.policy.samples(&self.key, &session.name, session.position())
    }

    /// What is known and can be replayed as it is.
    fn replayable(&self, session: &Session) -> Result<Option<Transition>> {
        let found = if self.is_shared() { known(self.store, &self.key)? } else { None };
        Ok(found.filter(|_| !self.is_checked(session)))
    }

    fn hit(&self, session: &mut Session, known: &Transition) -> Result<i32> {
        let held = self.store.share()?;
        let head = &known.head;
        if !self.store.has(Shelf::States, &head.to.to_string()) {
            bail!("state {} has just been collected: try again", head.to.short());
        }
        session.step(step(Act::Hit, head, Some(self.key)), false)?;
        drop(held);
        match self.arguments.at.json {
            true => replay::tell(Act::Hit, known)?,
            false => replay::replay(&known.output, self.arguments.timing)?,
        }
        Ok(head.code)
    }

    /// Lets others look at the command from now on.
    fn announce(&self, session: &Session) -> Result<Announced> {
        let notice = Notice {
            session: session.name.clone(),
            key: self.key,
            shown: self.command.program.shown(),
            at: Moment::now().seconds(),
            pid: process::own_pid().as_raw_nonzero().get(),
            container: None,
        };
        Announced::new(self.store, notice)
    }

    fn head(&self, from: Id, to: Id, code: i32) -> Head {
        let lasts = self.command.network.then_some(self.policy.network);
        Head {
            from,
            to,
            facts: self.facts.clone(),
            shown: self.command.program.shown(),
            code,
            micros: 0,
            bytes: 0,
            at: Moment::now().seconds(),
            expires: lasts.map(|seconds| Moment::now().since_1970().saturating_add(seconds)),
        }
    }

    /// Runs the command from the state `from`.
    fn run(&self, from: Id, input: &OwnedFd, manner: Manner<'_>) -> Result<Ran> {
        run::sweep(self.global, self.store, false)?;
        let state = short_chain(self.store, &from)?;
        file::rewind(input)?;
        let input = input.try_clone().context("duplicate the standard input")?;
        manner.announced.map_or(Ok(()), Announced::begin)?;
        let bounds = self.policy.bounds.clone();
        let limit = bounds.time(self.arguments.timeout.map(|limit| limit.0));
        let manner = Manner { limit, bounds, session: self.arguments.session.clone(), ..manner };
        let outcome = run::run(self.global, self.store, &state, &self.command, input, manner)?;
        let to = self.store.keep(&outcome.state)?;
        let head = Head {
            micros: u64::try_from(outcome.seen.took.as_micros()).unwrap_or(u64::MAX),
            bytes: outcome.bytes,
            ..self.head(from, to, outcome.code)
        };
        let disowned = self.store.has(Shelf::Disowned, &to.to_string());
        let alone = outcome.alone.or(disowned.then(|| "the state it leads to was disowned".to_owned()));
        Ok(Ran { transition: Transition { head, output: outcome.seen.output }, alone, _held: outcome.held })
    }

    fn miss(&self, session: Session, lock: Option<Lock>, runner: &Runner, input: &OwnedFd) -> Result<i32> {
        let (name, from, shared) = (session.name.clone(), session.state(), lock.is_some());
        let mut here = Some((session, lock));
        let mut left = |container: &str, report: &Report, seen: &Seen| {
            // Others may have the session and the key from here on.
            here.take().map_or(Ok(()), |(session, _)| self.go_live(session, runner, container, report, seen))
        };
        let manner = Manner {
            quiet: self.arguments.at.json,
            keyboard: keyboard(self.arguments)?,
            announced: Some(&runner.announced),
            left: runner.keeper.is_some().then_some(&mut left),
            ..Manner::default()
        };
        let ran = self.run(from, input, manner)?;
        let code = match here {
            Some((mut session, _lock)) => self.publish(&mut session, shared, ran, input),
            None => {
                let code = ran.transition.head.code;
                background::settle_down(self.store, &name, runner.announced.id(), &ran.transition)
                    .map(|()| code)
            }
        }?;
        runner.announced.end(code)?;
        Ok(code)
    }

    /// The command has ended, and processes of it go on: the session is live, and whoever called deja may go.
    fn go_live(
        &self,
        mut session: Session,
        runner: &Runner,
        container: &str,
        report: &Report,
        seen: &Seen,
    ) -> Result<()> {
        trial::point("make a session live")?;
        runner.announced.goes_on(container)?;
        let shown = self.command.program.shown();
        let live =
            background::live_step(session.state(), runner.announced.id(), shown, report.code, seen.took);
        session.step(live, true)?;
        eprintln!(
            "deja: it left {} behind, kept running: \"session settle {}\" ends that",
            run::processes(report.left),
            session.name
        );
        if self.arguments.at.json {
            let head = Head {
                micros: session.last.micros,
                ..self.head(session.state(), session.state(), report.code)
            };
            replay::tell(Act::Live, &Transition { head, output: seen.output.clone() })?;
        }
        runner.keeper.as_ref().map_or(Ok(()), |keeper| keeper.release(report.code))
    }

    fn publish(&self, session: &mut Session, shared: bool, mut ran: Ran, input: &OwnedFd) -> Result<i32> {
        let first = self.policy.checks_first_run(&self.habit) && shared && !self.command.network;
        if first && ran.alone.is_none() {
            let second = self.run(session.state(), input, Manner { quiet: true, ..Manner::default() })?;
            ran.alone =
                self.learn(&ran.transition, &second)?.filter(|(_, shared)| !shared).map(|(what, _)| what);
        }
        if let Some(reason) = &ran.alone {
            eprintln!("deja: the result is not kept for others: {reason}");
        }
        let act = if shared && ran.alone.is_none() { Act::Run } else { Act::Once };
        if act == Act::Run {
            let bytes = ran.transition.to_bytes()?;
            self.store.put(Shelf::Transitions, &self.key.to_string(), &bytes)?;
            self.store.sync(Shelf::Transitions)?;
        }
        let key = (act == Act::Run).then_some(self.key);
        session.step(step(act, &ran.transition.head, key), true)?;
        if self.arguments.at.json {
            replay::tell(act, &ran.transition)?;
        }
        Ok(ran.transition.head.code)
    }

    /// Runs a command whose result is known once more. When it comes to another result, the store's policy says whether
    /// the first stays everybody's; otherwise it goes, and the session takes the result of its own run.
    fn again(
        &self,
        session: &mut Session,
        runner: &Runner,
        input: &OwnedFd,
        known: &Transition,
    ) -> Result<i32> {
        let manner = Manner { quiet: true, announced: Some(&runner.announced), ..Manner::default() };
        let ran = self.run(session.state(), input, manner)?;
        runner.announced.end(ran.transition.head.code)?;
        match self.learn(known, &ran)? {
            None => self.hit(session, known),
            Some((what, true)) => {
                eprintln!("deja: {what}: it is replayed as it was first");
                self.hit(session, known)
            }
            Some((what, false)) => {
                self.store.forget(Shelf::Transitions, &self.key.to_string())?;
                eprintln!("deja: {what}: the result is dropped, and everybody's run is their own");
                session.step(step(Act::Once, &ran.transition.head, None), true)?;
                match self.arguments.at.json {
                    true => replay::tell(Act::Once, &ran.transition)?,
                    false => replay::replay(&ran.transition.output, false)?,
                }
                Ok(ran.transition.head.code)
            }
        }
    }

    /// Remembers how two runs compare. None: they are alike; otherwise what differs, and whether the first is for
    /// everybody all the same.
    fn learn(&self, first: &Transition, second: &Ran) -> Result<Option<(String, bool)>> {
        if second.alone.is_some() {
            // It was disturbed, which says nothing about the command.
            return Ok(None);
        }
        let found = difference(first, &second.transition);
        let class = found.map_or(Class::Pure, |(class, _)| class);
        let habit = policy::learn(self.store, &self.facts, &first.head.shown, class)?;
        let shared = self.policy.replays(habit.class);
        Ok(found.map(|(_, what)| (format!("{what} differs from run to run"), shared)))
    }
}
