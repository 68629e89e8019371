//! The binary under test as a command: a clean environment, a private state directory, output caught in
//! files (a container keeps its creator's pipes open, a file never makes the test wait for it), and a deadline.

use super::patience;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The deja to test: `DEJA_BIN`, or the one cargo built beside this test.
pub fn binary() -> PathBuf {
    std::env::var_os("DEJA_BIN").map_or_else(|| env!("CARGO_BIN_EXE_deja").into(), PathBuf::from)
}

/// A deja command without a bundle; `root` becomes `--root`.
pub fn deja(root: &Path) -> Deja {
    Deja::bare().arg("--root").arg(root)
}

/// One invocation of the binary, built step by step and then run once.
#[must_use = "call output(), ok() or fails()"]
pub struct Deja {
    program: PathBuf,
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    redirections: String,
    directory: Option<PathBuf>,
    user: Option<(u32, u32)>,
    stdin: Vec<u8>,
    deadline: Duration,
}

impl Deja {
    /// The binary with no argument at all.
    pub fn bare() -> Self {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self {
            program: binary(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            environment: vec![("PATH".into(), path.into())],
            redirections: String::new(),
            directory: None,
            user: None,
            stdin: Vec::new(),
            deadline: patience(),
        }
    }

    /// Another program, run in the same way.
    pub fn other(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::bare() }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().into());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    /// Fails or dies on request (see `src/trial.rs`), which only the debug build beside this test can.
    pub fn trial(mut self, request: &str) -> Self {
        self.program = env!("CARGO_BIN_EXE_deja").into();
        self.env("DEJA_TRIAL", request)
    }

    /// Bytes for standard input; without them it is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Runs deja as this user and group, without supplementary groups of its own.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Runs deja under another program: `wrapped_in(["strace", "-f", "-c", "-o", path])`.
    pub fn wrapped_in<S: AsRef<OsStr>>(mut self, program: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = program.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Extra descriptors as shell redirections: `"3</etc/passwd 4>&1"`.
    pub fn redirections(mut self, words: &str) -> Self {
        self.redirections = words.into();
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn command(&self) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        if !self.redirections.is_empty() {
            let script = format!("exec \"$0\" \"$@\" {}", self.redirections);
            words.extend(["/bin/sh".into(), "-c".into(), script.into()]);
        }
        words.extend(self.wrapper.iter().cloned());
        words.push(self.program.clone().into());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts deja and leaves it running; `Running::finish` waits for it.
    #[track_caller]
    pub fn spawn(self) -> Running {
        let mut command = self.command();
        let mut stdin = capture();
        stdin
            .write_all(&self.stdin)
            .and_then(|()| stdin.seek(SeekFrom::Start(0)))
            .expect("write standard input");
        let (stdout, stderr) = (capture(), capture());
        command.stdin(stdin).stdout(share(&stdout)).stderr(share(&stderr));
        let child =
            command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        Running { child, stdout, stderr, deadline: self.deadline, line: format!("{command:?}") }
    }

    /// Starts it with a terminal for all its streams.
    #[track_caller]
    pub fn spawn_on(self, terminal: &OwnedFd) -> Running {
        let end = || terminal.try_clone().expect("duplicate a descriptor");
        let mut command = self.command();
        command.stdin(end()).stdout(end()).stderr(end());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        let line = format!("{command:?}");
        Running { child, stdout: capture(), stderr: capture(), deadline: self.deadline, line }
    }

    /// Runs to the end, whatever the end is.
    #[track_caller]
    pub fn output(self) -> Finished {
        self.spawn().finish()
    }

    /// Runs to the end and insists on exit code 0.
    #[track_caller]
    pub fn ok(self) -> Finished {
        let finished = self.output();
        assert!(finished.status.success(), "expected success: {finished}");
        finished
    }

    /// Runs to the end and insists on a failure that is not a signal.
    #[track_caller]
    pub fn fails(self) -> Finished {
        let finished = self.output();
        assert!(finished.status.code().is_some_and(|code| code != 0), "expected a failure: {finished}");
        finished
    }
}

fn capture() -> File {
    tempfile::tempfile().expect("create a temporary file")
}

fn share(file: &File) -> Stdio {
    file.try_clone().expect("duplicate a descriptor").into()
}

/// Everything written to the file so far; the offset is the writer's, so it is read by position.
fn contents(file: &File) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = Vec::new();
    let mut piece = [0; 8192];
    loop {
        match file.read_at(&mut piece, bytes.len() as u64).expect("read captured output") {
            0 => return bytes,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// A deja that has not been waited for; dropping it kills it.
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    deadline: Duration,
    line: String,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stdout)).into_owned()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("signal {}: {error}", self.line));
    }

    #[track_caller]
    pub fn finish(mut self) -> Finished {
        if !exits_within(&self.child, self.deadline) {
            // The kill may come too late, and then there is nothing to do: the panic below says what matters.
            self.child.kill().ok();
            let (stdout, stderr) =
                (self.stdout(), String::from_utf8_lossy(&contents(&self.stderr)).into_owned());
            panic!(
                "{} did not end within {:?}\nstdout: {stdout}\nstderr: {stderr}",
                self.line, self.deadline
            );
        }
        let status = self.child.wait().expect("wait for deja");
        let (stdout, stderr) = (share_file(&self.stdout), share_file(&self.stderr));
        Finished { status, stdout, stderr, line: self.line.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn share_file(file: &File) -> File {
    file.try_clone().expect("duplicate a descriptor")
}

fn exits_within(child: &Child, deadline: Duration) -> bool {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("pidfd_open");
    let limit = Timespec { tv_sec: deadline.as_secs() as i64, tv_nsec: i64::from(deadline.subsec_nanos()) };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).expect("poll a pidfd") == 1
}

/// How a deja ended and what it, and the container it left behind, wrote until now.
pub struct Finished {
    pub status: ExitStatus,
    stdout: File,
    stderr: File,
    line: String,
}

impl Finished {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout_bytes()).into_owned()
    }

    pub fn stdout_bytes(&self) -> Vec<u8> {
        contents(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stderr)).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|error| panic!("{error} in the output of {self}"))
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    #[track_caller]
    pub fn assert_stdout(self, expected: &str) -> Self {
        assert_eq!(self.stdout().trim_end(), expected, "{self}");
        self
    }

    #[track_caller]
    pub fn assert_stdout_contains(self, expected: &str) -> Self {
        assert!(self.stdout().contains(expected), "standard output lacks {expected:?}: {self}");
        self
    }

    /// Standard error says this, whatever else it says, in a log line with its quotes escaped or not.
    #[track_caller]
    pub fn assert_says(self, words: &str) -> Self {
        let text = self.stderr();
        let said = text.contains(words) || text.replace("\\\"", "\"").contains(words);
        assert!(said, "stderr lacks {words:?}: {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        write!(f, "{}: {end}\nstdout: {}\nstderr: {}", self.line, self.stdout(), self.stderr())
    }
}
