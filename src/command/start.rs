//! `start`: lets a created container run its program.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::agent;
use super::birth::state;
use super::notify::{Manager, Messenger};
use crate::cli::{self, Global};
use crate::container::{Action, Container, Lock, Record, Status, require};
use crate::hook::{self, Moment};
use crate::launch::{Conversation, Milestone, Question, Reply, Trouble, explain_words};
use crate::spec;
use crate::sys::process::{self, Pid};
use crate::sys::{AsFd, Errno, socket};
use crate::trial;

const ENDED: &str = "init ended before its program was started";

pub fn run(global: &Global, arguments: &cli::Start) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    let lock = container.lock()?;
    require(Action::Start, container.id(), super::status(&container)?)?;
    trial::point("reach init")?;
    let manager = Manager::from_environment();
    let listen = |manager: &Manager| Messenger::listen(manager, lock.directory());
    let messenger = manager.as_ref().map(listen).transpose()?.flatten();
    let init = messenger.as_ref().map(|_| super::kill::open_init(&container)).transpose()?.flatten();
    let socket = socket::connect_messages(&lock.start_socket()).map_err(|fault| match fault.errno {
        // Nobody holds the other end any more.
        Errno::CONNREFUSED => anyhow!(ENDED),
        _ => anyhow!("reach the waiting init: {fault}"),
    })?;
    let conversation = Conversation::new(socket);
    trial::point("let init go on")?;
    conversation.proceed().context("reach the waiting init")?;
    // From here on the init is on its way; one that does not arrive has to be gone when this is told.
    follow(&conversation, &lock, &container.record).or_else(|error| {
        super::delete::kill(&container)?;
        Err(error)
    })?;
    poststart(&container)?;
    // Others may stop or delete the container while it gets ready.
    drop(lock);
    match (messenger, init) {
        (Some(messenger), Some(init)) => messenger.wait(init.as_fd(), container.record.pid),
        _ => Ok(()),
    }
}

fn follow(conversation: &Conversation, lock: &Lock, record: &Record) -> Result<()> {
    trial::point("remove start.sock")?;
    lock.remove_start_socket()?;
    trial::point("wait for init")?;
    conversation.until(Milestone::Running, &mut |question| answer(question, record)).map_err(explain)
}

/// What the child asks between `start` and its program.
pub fn answer(question: Question, record: &Record) -> Result<Reply> {
    match question {
        Question::State => Ok(Reply::State(state(record, Status::Created)?)),
        Question::Listener(fd) => {
            let pid = Pid::from_raw(record.pid).context("the record has no pid")?;
            agent::introduce(record, &process::pidfd_open(pid)?, record.pid, fd, Status::Created)?;
            Ok(Reply::Continue)
        }
        question => bail!("init asks for {question:?} out of turn"),
    }
}

fn explain(trouble: Trouble) -> anyhow::Error {
    match trouble {
        Trouble::Fault { fault, words, .. } => anyhow!(explain_words(&words, fault)),
        Trouble::Closed => anyhow!(ENDED),
        Trouble::Other(error) => error,
    }
}

/// A hook that fails here ends the container, as the specification demands since 1.3.
pub fn poststart(container: &Container) -> Result<()> {
    let record = &container.record;
    if !record.has_hooks {
        return Ok(());
    }
    let config = container.config()?;
    let spec = spec::load(&config)?;
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let hooks = hook::prepare(hooks, Moment::Poststart, &[]);
    let files = hook::Files::open(&spec.annotations)?;
    let state = state(record, Status::Running)?;
    let run = || {
        trial::point("run poststart hooks")?;
        hook::run_all(&hooks, &state, Path::new(&record.bundle), &files)
    };
    run().or_else(|error| {
        super::delete::kill(container)?;
        Err(error)
    })
}
