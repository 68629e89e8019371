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
use crate::session::state::Context as ShellContext;
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, Exit, Pid, SignalSet};
use crate::sys::{Errno, OwnedFd, Reason, borrow, fs, socket};

/// Where deja is in the container, and where a shell's context passes from one process to another: neither is in the
/// session's tree.
pub const PROGRAM: &str = "/dev/init";
const CONTEXT: &str = "/dev/shm/.context";

/// Runs the text that follows, and then tells how it leaves things, whatever the exit code.
const SHELL: &str = "trap 'deja=$?; /dev/init session inside context; exit $deja' EXIT; eval \"$1\"";

/// How long what the command leaves behind may take to end by itself.
const GRACE: Duration = Duration::from_millis(200);

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
        ("text", [cwd, text]) => {
            let shell = ["/bin/sh", "-c", SHELL, "sh", text].map(str::to_owned);
            serve(cwd, &shell)
        }
        ("words", [cwd, command @ ..]) if !command.is_empty() => serve(cwd, command),
        _ => bail!("session inside is called by deja itself"),
    }
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
    let stream = || -> Result<OwnedFd> {
        let mut name = [0; 8];
        let (_, fd) = socket::receive_with_fd(control, &mut name).context("receive the command's streams")?;
        fd.context("the deja outside is gone")
    };
    let (input, out, err) = (stream()?, stream()?, stream()?);
    let complain = err.try_clone().context("duplicate a descriptor")?;
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]);
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
            let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
            Report { code, killed: false, left: 0, context: None }
        }
    };
    report.left = left_behind()?;
    report.context = std::fs::read(CONTEXT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let bytes = serde_json::to_vec(&report).context("write the report")?;
    bytes.chunks(32 << 10).try_for_each(|part| socket::send(control, part)).context("send the report")
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
