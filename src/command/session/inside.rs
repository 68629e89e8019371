//! `session inside`: what runs as process 1 of a session's container, and what a shell there calls at its end.
//!
//! Process 1 is deja itself, because the kernel treats a process 1 unlike others: signals without a handler do nothing
//! to it, orphans are its to reap, and its end is the end of all. Standard input is a socket to the deja outside: over
//! it come the streams of the command, and back goes how it ended.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::command::foreground::CHILD_ENDED;
use crate::session::key::{self, Program};
use crate::session::state::Context as ShellContext;
use crate::sys::event::{self, Interest};
use crate::sys::fs::{self, CWD, Mode, OFlags};
use crate::sys::process::{self, Exit, Pid, SignalSet};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, Reason, borrow, clone, socket, terminal};

/// Where deja is in the container, and where a shell's context passes from one process to another: neither is in the
/// session's tree.
pub const PROGRAM: &str = "/dev/init";
const CONTEXT: &str = "/dev/shm/.context";

/// Runs the text that follows, and then tells how it leaves things, whatever the exit code.
const SHELL: &str = "trap 'deja=$?; /dev/init session inside context; exit $deja' EXIT; eval \"$1\"";

/// How long what the command leaves behind may take to end by itself.
const GRACE: Duration = Duration::from_millis(200);

/// What a command gets beside its streams; it comes with each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it leaves behind may go on.
    pub kept: bool,
    /// Rows and columns of a terminal, which takes the place of the streams.
    pub terminal: Option<(u32, u32)>,
}

/// How the command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub code: i32,
    /// It was killed by a signal, whose number is in the code.
    pub killed: bool,
    /// Processes that were still there.
    pub left: usize,
    /// For shell text: what carries on.
    pub context: Option<ShellContext>,
}

/// The words behind `session inside`, for process 1.
pub fn words(text: bool, cwd: &str, command: &[String]) -> Vec<String> {
    let kind = if text { "text" } else { "words" };
    let own = [PROGRAM, "session", "inside", kind, cwd].map(str::to_owned);
    own.into_iter().chain(command.iter().cloned()).collect()
}

pub fn run(arguments: &cli::SessionInside) -> Result<()> {
    match (arguments.what.as_str(), arguments.words.as_slice()) {
        ("context", []) => leave_context(),
        ("text", [cwd, text]) => serve(cwd, &shell(text)),
        ("terminal", [program, command @ ..]) => take_terminal(program, command),
        ("words", [cwd, command @ ..]) if !command.is_empty() => serve(cwd, command),
        ("join", [joining, kind, command @ ..]) => join(joining, kind, command),
        _ => bail!("session inside is called by deja itself"),
    }
}

fn shell(text: &str) -> [String; 5] {
    ["/bin/sh", "-c", SHELL, "sh", text].map(str::to_owned)
}

/// How a command begins that joins others in their container.
#[derive(Serialize, Deserialize)]
struct Joining {
    /// Unless a command there has left another.
    context: ShellContext,
    /// Variables of this command only.
    environment: Vec<String>,
    cwd: Option<String>,
}

/// The words of a command that joins a container whose process 1 serves another.
pub fn joining(context: &ShellContext, command: &key::Command) -> Result<Vec<String>> {
    let joining = Joining {
        context: context.clone(),
        environment: command.environment.clone(),
        cwd: command.cwd.clone(),
    };
    let joining = serde_json::to_string(&joining).context("write how a command begins")?;
    let (kind, own) = match &command.program {
        Program::Words(words) => ("words", words.as_slice()),
        Program::Text(text) => ("text", std::slice::from_ref(text)),
    };
    let words = [PROGRAM, "session", "inside", "join", &joining, kind].map(str::to_owned);
    Ok(words.into_iter().chain(own.iter().cloned()).collect())
}

fn join(joining: &str, kind: &str, command: &[String]) -> Result<()> {
    let Joining { context, environment, cwd } = serde_json::from_str(joining).context("read how to begin")?;
    let context = left_context().unwrap_or(context);
    let words = match (kind, command) {
        ("text", [text]) => shell(text).to_vec(),
        (_, words) => words.to_vec(),
    };
    let cwd = cwd.unwrap_or_else(|| context.cwd.clone());
    process::set_umask(context.umask);
    let mut child = Command::new(words.first().context("there is no command")?);
    child.args(&words[1..]).env_clear();
    let variables = context.with(&environment);
    child.envs(variables.iter().filter_map(|variable| variable.split_once('=')));
    let (what, error) = match std::env::set_current_dir(&cwd) {
        Err(error) => (cwd.as_str(), error),
        Ok(()) => (words[0].as_str(), std::os::unix::process::CommandExt::exec(&mut child)),
    };
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    eprintln!("{what}: {}", Reason(errno));
    clone::exit_now(missing_code(&error))
}

/// 127 for what is not there, 126 for what cannot be executed.
fn missing_code(error: &std::io::Error) -> i32 {
    if error.kind() == ErrorKind::NotFound { 127 } else { 126 }
}

/// What the last shell here has left.
fn left_context() -> Option<ShellContext> {
    std::fs::read(CONTEXT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

fn leave_context() -> Result<()> {
    let umask = process::set_umask(0o077);
    let cwd = std::env::current_dir().context("find the current directory")?;
    // What is not UTF-8 cannot be in a config.json either.
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some(format!("{}={}", name.to_str()?, value.to_str()?))
    };
    let environment = std::env::vars_os().filter_map(variable).collect();
    let Some(cwd) = cwd.to_str() else { bail!("the current directory's path is not valid UTF-8") };
    let context = ShellContext::new(cwd.to_owned(), environment, umask);
    let bytes = serde_json::to_vec(&context).context("write the shell's context")?;
    std::fs::write(CONTEXT, bytes).context("write the shell's context")
}

/// Runs the command as a child, reaps whatever ends, and reports.
fn serve(cwd: &str, command: &[String]) -> Result<()> {
    process::set_parent_death_signal(9)?;
    process::set_signal_mask(&SignalSet::all())?;
    let control = borrow(0);
    // A deja outside that ended before it was to take this process along has left nobody who would.
    if event::poll([(control, Interest::Nothing)], Some(Duration::ZERO))? == [true] {
        bail!("the deja outside is gone");
    }
    let stream = || -> Result<(OwnedFd, Offer)> {
        let mut bytes = [0; 128];
        let (length, fd) =
            socket::receive_with_fd(control, &mut bytes).context("receive the command's streams")?;
        let offer = serde_json::from_slice(&bytes[..length]).context("read what the command gets")?;
        Ok((fd.context("the deja outside is gone")?, offer))
    };
    let ((mut input, _), (mut out, _), (mut err, offer)) = (stream()?, stream()?, stream()?);
    if let Some(size) = offer.terminal {
        (input, out, err) = open_terminal(control, size)?;
    }
    let complain = err.try_clone().context("duplicate a descriptor")?;
    let begin: &[String] = if offer.terminal.is_some() { &terminal_words() } else { &[] };
    let whole: Vec<&String> = begin.iter().chain(command).collect();
    let mut child = Command::new(whole[0]);
    child.args(&whole[1..]);
    process::begin_unblocked(&mut child);
    child.stdin(Stdio::from(input)).stdout(Stdio::from(out)).stderr(Stdio::from(err));
    let spawned = std::env::set_current_dir(cwd).map_err(|error| (cwd, error));
    let spawned = spawned.and_then(|()| child.spawn().map_err(|error| (command[0].as_str(), error)));
    // It holds the other copies of the streams.
    drop(child);
    let mut report = match spawned {
        Ok(child) => {
            drop(complain);
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has no pid")?;
            end_of(pid)?
        }
        Err((what, error)) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            fs::write(&complain, format!("{what}: {}\n", Reason(errno)).as_bytes())?;
            Report { code: missing_code(&error), killed: false, left: 0, context: None }
        }
    };
    report.left = left_behind()?;
    report.context = left_context();
    send(control, &report)?;
    if offer.kept && report.left > 0 {
        linger(control)?;
        // Shells that joined meanwhile leave another context.
        report.context = left_context();
        send(control, &report)?;
    }
    Ok(())
}

/// A new terminal of this container for all three streams of the command; its other end goes to the deja outside.
fn open_terminal(
    control: BorrowedFd<'_>,
    (rows, columns): (u32, u32),
) -> Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = fs::openat(CWD, c"/dev/ptmx", flags, Mode::empty()).context("open \"/dev/ptmx\"")?;
    terminal::unlock(&master)?;
    terminal::set_size(&master, rows, columns)?;
    let own = terminal::peer(&master)?;
    socket::send_with_fd(control, TERMINAL, master.as_fd()).context("hand the terminal over")?;
    let copy = || own.try_clone().context("duplicate the terminal");
    Ok((copy()?, copy()?, copy()?))
}

/// What the message says that brings the other end of the command's terminal.
pub const TERMINAL: &[u8] = b"terminal";

fn terminal_words() -> Vec<String> {
    [PROGRAM, "session", "inside", "terminal"].map(str::to_owned).to_vec()
}

/// Becomes `program`, at the head of a session that the terminal on its standard input controls.
fn take_terminal(program: &str, words: &[String]) -> Result<()> {
    process::setsid()?;
    terminal::set_controlling(borrow(0))?;
    let error = std::os::unix::process::CommandExt::exec(Command::new(program).args(words));
    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
    eprintln!("{program}: {}", Reason(errno));
    clone::exit_now(missing_code(&error))
}

fn send(control: BorrowedFd<'_>, report: &Report) -> Result<()> {
    let mut bytes = serde_json::to_vec(report).context("write the report")?;
    bytes.push(b'\n');
    bytes.chunks(32 << 10).try_for_each(|part| socket::send(control, part)).context("send the report")
}

/// Whoever has joined from outside is nobody's child here, and its end is told to nobody here.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until nobody else is here, or nobody outside any more.
fn linger(control: BorrowedFd<'_>) -> Result<()> {
    let signals = event::signalfd(&SignalSet::all())?;
    loop {
        while process::reap().is_some() {}
        if !process::signal_others(0)? {
            return Ok(());
        }
        let waiting = [(control, Interest::Nothing), (signals.as_fd(), Interest::Read)];
        let [gone, _] = event::poll(waiting, Some(LOOK))?;
        if gone {
            bail!("the deja outside is gone");
        }
        while let Some(signal) = event::next_signal(&signals)? {
            if signal != CHILD_ENDED {
                process::signal_others(signal)?;
            }
        }
    }
}

/// Waits for the end of the command; what is sent to this process meanwhile is for the command.
fn end_of(command: Pid) -> Result<Report> {
    loop {
        match process::wait_signal(&SignalSet::all())? {
            CHILD_ENDED => {
                while let Some((pid, exit)) = process::reap() {
                    if pid == command {
                        let killed = matches!(exit, Exit::Signal(_));
                        return Ok(Report { code: exit.code(), killed, left: 0, context: None });
                    }
                }
            }
            signal => drop(process::signal_others(signal)?),
        }
    }
}

/// How many processes do not end by themselves soon.
fn left_behind() -> Result<usize> {
    let deadline = Instant::now() + GRACE;
    loop {
        while process::reap().is_some() {}
        if !process::signal_others(0)? {
            return Ok(0);
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit()) && name != "1";
    let entries = std::fs::read_dir("/proc").context("read \"/proc\"")?;
    Ok(entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_process)).count().max(1))
}
