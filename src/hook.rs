//! OCI hooks: programs run at fixed points of a container's life, with its state on standard input.
//!
//! `prepare` decides everything; `run` executes one with system calls only, so the same code serves the
//! parent and the child, in whatever namespaces they are. A hook gets nothing of deja's but standard input,
//! output and error, and no more time than its timeout.

use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::spec::{self, Hooks, Str};
use crate::sys::clone::{CloneRequest, Cloned, StringArray, clone3, execve};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, Exit, SignalSet};
use crate::sys::{self, AsFd, BorrowedFd, Call, Errno, Fault, OwnedFd, fs};

/// When a hook is run, by whom and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// By the parent, in the runtime's namespaces.
    Prestart,
    /// By the parent, in the runtime's namespaces.
    CreateRuntime,
    /// By the child, in the container's namespaces, before its root is entered.
    CreateContainer,
    /// By the child, in the container, before the program.
    StartContainer,
    /// By the parent; a failure ends the container.
    Poststart,
    /// By whoever deletes; failures are warnings.
    Poststop,
}

impl Moment {
    pub fn name(self) -> &'static str {
        match self {
            Moment::Prestart => "prestart",
            Moment::CreateRuntime => "createRuntime",
            Moment::CreateContainer => "createContainer",
            Moment::StartContainer => "startContainer",
            Moment::Poststart => "poststart",
            Moment::Poststop => "poststop",
        }
    }

    fn list<'h, 'a>(self, hooks: &'h Hooks<'a>) -> &'h [spec::Hook<'a>] {
        match self {
            Moment::Prestart => &hooks.prestart,
            Moment::CreateRuntime => &hooks.create_runtime,
            Moment::CreateContainer => &hooks.create_container,
            Moment::StartContainer => &hooks.start_container,
            Moment::Poststart => &hooks.poststart,
            Moment::Poststop => &hooks.poststop,
        }
    }
}

/// A hook, complete before any clone.
#[derive(Debug)]
pub struct Prepared {
    moment: Moment,
    index: usize,
    path: CString,
    arguments: StringArray,
    environment: StringArray,
    timeout: Option<Duration>,
}

/// The hooks of one moment, of a config that `spec::validate` has accepted.
/// `program` is the environment of the container's program, which a hook beside it has unless it asks for its own; the
/// others have deja's.
pub fn prepare(hooks: &Hooks<'_>, moment: Moment, program: &[Str<'_>]) -> Vec<Prepared> {
    let one = |(index, hook)| prepare_one(moment, index, hook, program);
    moment.list(hooks).iter().enumerate().map(one).collect()
}

fn prepare_one(moment: Moment, index: usize, hook: &spec::Hook<'_>, program: &[Str<'_>]) -> Prepared {
    let timeout = hook.timeout.map(|seconds| Duration::from_secs(seconds.unsigned_abs()));
    let strings = |list: &[Str<'_>]| list.iter().map(Str::to_c).collect::<Vec<_>>();
    let mut arguments = strings(&hook.args);
    if arguments.is_empty() {
        arguments.push(hook.path.to_c());
    }
    let environment = match (hook.env.is_empty(), moment) {
        (false, _) => StringArray::new(strings(&hook.env)),
        (true, Moment::StartContainer) => StringArray::new(strings(program)),
        (true, _) => StringArray::environment(),
    };
    Prepared {
        moment,
        index,
        path: hook.path.to_c(),
        arguments: StringArray::new(arguments),
        environment,
        timeout,
    }
}

/// How every sentence about a failed hook begins.
pub const FAILED: &str = "error running";

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FAILED} {} hook #{} {:?}", self.moment.name(), self.index, self.path)?;
        match self.timeout {
            Some(timeout) => write!(f, " (timeout {} s)", timeout.as_secs()),
            None => Ok(()),
        }
    }
}

impl Prepared {
    /// What a fault of `run` means.
    pub fn explain(&self, fault: Fault) -> String {
        explain(&self.to_string(), fault)
    }
}

/// As `Prepared::explain`, where only its words are left.
pub fn explain(words: &str, fault: Fault) -> String {
    let number = fault.errno.raw_os_error();
    match fault.call {
        EXITED => format!("{words}: exit status {number}"),
        KILLED => format!("{words}: killed by signal {number}"),
        LATE => format!("{words}: hook ran past specified timeout"),
        _ => format!("{words}: {fault}"),
    }
}

// How a hook that was started ended, in the eight bytes of a fault: the errno is the code or the signal.
const EXITED: Call = Call::Wait;
const KILLED: Call = Call::PidfdSendSignal;
const LATE: Call = Call::Poll;

/// Where a hook writes.
#[derive(Clone, Copy)]
pub enum Output<'f> {
    /// Where deja writes.
    Inherited,
    /// Files, or pipes that somebody reads.
    To { stdout: BorrowedFd<'f>, stderr: BorrowedFd<'f> },
}

/// Runs one hook to its end. No heap: the child uses it.
pub fn run(
    hook: &Prepared,
    state: &[u8],
    directory: Option<BorrowedFd<'_>>,
    output: Output<'_>,
) -> sys::Result<()> {
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    let input = fs::memfd_create(c"state")?;
    fs::pwrite(&input, state, 0)?;
    let (failures, failed) = fs::pipe()?;
    let child = clone3(CloneRequest::default(), || {
        let fault = become_hook(hook, input.as_fd(), directory, output);
        report(&failed, fault)
    })?;
    drop(failed);
    match wait(&child, deadline)? {
        Exit::Signal(signal) if late(deadline) && signal == KILL => Err(LATE.fault(Errno::TIMEDOUT)),
        Exit::Signal(signal) => Err(KILLED.fault(Errno::from_raw_os_error(signal))),
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(reported(&failures).unwrap_or(EXITED.fault(Errno::from_raw_os_error(code)))),
    }
}

const KILL: i32 = 9;

/// In the hook's process; returns only on failure.
fn become_hook(
    hook: &Prepared,
    input: BorrowedFd<'_>,
    directory: Option<BorrowedFd<'_>>,
    output: Output<'_>,
) -> Fault {
    let prepare = || -> sys::Result<()> {
        process::set_signal_mask(&SignalSet::empty())?;
        fs::dup_inheritable(input, 0)?;
        if let Output::To { stdout, stderr } = output {
            fs::dup_inheritable(stdout, 1)?;
            fs::dup_inheritable(stderr, 2)?;
        }
        if let Some(directory) = directory {
            fs::fchdir(directory)?;
        }
        fs::close_on_exec_from(3)
    };
    match prepare() {
        Ok(()) => execve(&hook.path, &hook.arguments, &hook.environment, None),
        Err(fault) => fault,
    }
}

/// Tells the fault to whoever waits. The exit code is what is left when nobody can be told.
fn report(failed: &OwnedFd, fault: Fault) -> i32 {
    let mut bytes = [0; 4];
    bytes[..2].copy_from_slice(&(fault.call as u16).to_ne_bytes());
    bytes[2..].copy_from_slice(&(fault.errno.raw_os_error() as u16).to_ne_bytes());
    match fs::write(failed, &bytes) {
        Ok(_) => 127,
        Err(_) => 126,
    }
}

/// Never waits: the hook has ended, and its end of the pipe closed at exec.
fn reported(failures: &OwnedFd) -> Option<Fault> {
    let mut bytes = [0; 4];
    let length = fs::read(failures, &mut bytes).ok()?;
    let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let call = Call::from_number(number(0)).filter(|_| length == bytes.len())?;
    Some(call.fault(Errno::from_raw_os_error(number(2).into())))
}

fn late(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Waits for the hook, and kills it at its deadline.
fn wait(child: &Cloned, deadline: Option<Instant>) -> sys::Result<Exit> {
    while let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        if event::poll([(child.pidfd.as_fd(), Interest::Read)], Some(left))? == [true] {
            break;
        }
        if left.is_zero() {
            process::pidfd_send_signal(&child.pidfd, KILL)?;
            break;
        }
    }
    process::wait(&child.pidfd)
}

/// By the child: the hook writes where the container writes.
pub fn perform(hook: &Prepared, state: &[u8]) -> sys::Result<()> {
    run(hook, state, None, Output::Inherited)
}

/// Where hooks write when an annotation says so (`run.oci.hooks.stdout`, `run.oci.hooks.stderr`).
#[derive(Default)]
pub struct Files {
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Files {
    pub fn open(annotations: &spec::Map<'_, Str<'_>>) -> Result<Self> {
        let open = |name: &str| -> Result<Option<OwnedFd>> {
            let Some(path) = annotations.get(name) else { return Ok(None) };
            let flags = fs::OFlags::WRONLY | fs::OFlags::CREATE | fs::OFlags::APPEND;
            let mode = fs::Mode::from_raw_mode(0o700);
            let file = fs::openat(fs::CWD, &path.to_c(), flags, mode);
            Ok(Some(file.map_err(|fault| anyhow::anyhow!("{name} {path:?}: {fault}"))?))
        };
        Ok(Self { stdout: open("run.oci.hooks.stdout")?, stderr: open("run.oci.hooks.stderr")? })
    }
}

/// By the parent: runs the hooks in order, in the bundle's directory, until one fails. What it wrote is in the error.
pub fn run_all(hooks: &[Prepared], state: &[u8], bundle: &Path, files: &Files) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let path = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(bundle.as_os_str()))?;
    let flags = fs::OFlags::PATH | fs::OFlags::DIRECTORY;
    let directory = fs::openat(fs::CWD, &path, flags, fs::Mode::empty())
        .map_err(|fault| anyhow::anyhow!("open bundle {bundle:?}: {fault}"))?;
    hooks.iter().try_for_each(|hook| run_captured(hook, state, directory.as_fd(), files))
}

fn run_captured(hook: &Prepared, state: &[u8], bundle: BorrowedFd<'_>, files: &Files) -> Result<()> {
    // Files, not pipes: a hook's orphan may hold its end open for ever, and nobody has to read along.
    let (stdout, stderr) = (fs::memfd_create(c"stdout")?, fs::memfd_create(c"stderr")?);
    let output = Output::To {
        stdout: files.stdout.as_ref().unwrap_or(&stdout).as_fd(),
        stderr: files.stderr.as_ref().unwrap_or(&stderr).as_fd(),
    };
    match run(hook, state, Some(bundle), output) {
        Ok(()) => Ok(()),
        Err(fault) if matches!(fault.call, EXITED | KILLED) => bail!(
            "{}, stdout: {}, stderr: {}",
            hook.explain(fault),
            start(&stdout)?.trim_end(),
            start(&stderr)?.trim_end()
        ),
        Err(fault) => bail!("{}", hook.explain(fault)),
    }
}

/// As much of a captured output as a message can bear.
fn start(file: &OwnedFd) -> Result<String> {
    let mut bytes = [0; 4096];
    let length = fs::pread(file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(json: &str) -> Prepared {
        let hooks = format!(r#"{{"poststart": [{json}]}}"#);
        prepare(&serde_json::from_str(&hooks).unwrap(), Moment::Poststart, &[]).remove(0)
    }

    fn shell(script: &str, more: &str) -> String {
        format!(r#"{{"path": "/bin/sh", "args": ["sh", "-c", {script:?}]{more}}}"#)
    }

    fn outcome(json: &str) -> Result<()> {
        run_all(&[prepared(json)], br#"{"id":"web"}"#, Path::new("/"), &Files::default())
    }

    #[test]
    fn a_hook_gets_the_state_its_environment_and_the_bundle() {
        let script = r#"[ "$(cat)" = '{"id":"web"}' ] && [ "$(pwd)" = / ] && [ "$A" = b ] && [ -z "$HOME" ]"#;
        outcome(&shell(script, r#", "env": ["A=b", "PATH=/usr/bin:/bin"]"#)).unwrap();
    }

    #[test]
    fn a_failure_says_what_the_hook_wrote() {
        let error = outcome(&shell("echo out; echo err >&2; exit 3", "")).unwrap_err().to_string();
        assert_eq!(
            error,
            "error running poststart hook #0 \"/bin/sh\": exit status 3, stdout: out, stderr: err"
        );
        let error = outcome(&shell("kill -TERM $$", "")).unwrap_err().to_string();
        assert!(error.contains("killed by signal 15"), "{error}");
    }

    #[test]
    fn a_hook_that_cannot_be_executed_is_named() {
        let error = outcome(r#"{"path": "/no/such"}"#).unwrap_err().to_string();
        assert_eq!(error, "error running poststart hook #0 \"/no/such\": execve: no such file or directory");
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let begin = Instant::now();
        let error = outcome(&shell("sleep 100 & sleep 100", r#", "timeout": 1"#)).unwrap_err().to_string();
        assert_eq!(
            error,
            "error running poststart hook #0 \"/bin/sh\" (timeout 1 s): hook ran past specified timeout"
        );
        assert!(begin.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn an_orphan_does_not_hold_anybody_up() {
        let begin = Instant::now();
        outcome(&shell("sleep 60 &", "")).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
