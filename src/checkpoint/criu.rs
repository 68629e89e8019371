//! Starting CRIU for one piece of work and talking to it until that is done.
//!
//! `criu swrk` reads a request from a socket, asks back on the way (a notice, each of which waits for its answer),
//! and says at last how it went. The process is born where the restored ones are to be: in the container's cgroup,
//! below whose cgroup namespace they then find themselves, and with the root as a mount in a mount namespace that
//! goes with it, so that a restore that is killed leaves no mount behind.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::options::{Kind, Options, Response, acknowledgement, request};
use crate::sys::clone::{self, CloneRequest, Cloned, StringArray, namespace};
use crate::sys::event::{self, Interest};
use crate::sys::mount::{self, Change, Lookup, Propagation, attribute};
use crate::sys::process::{self, Exit, SignalSet};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, Call, Errno, Fault, OwnedFd, RawFd, fs, socket};

/// What CRIU is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    PreDump,
    Dump,
    Restore,
}

impl Work {
    fn kind(self) -> Kind {
        match self {
            Work::PreDump => Kind::PreDump,
            Work::Dump => Kind::Dump,
            Work::Restore => Kind::Restore,
        }
    }
}

/// Where CRIU runs.
#[derive(Default)]
pub struct Setting<'a> {
    pub program: CString,
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The cgroup above is the root of a cgroup namespace.
    pub cgroup_namespace: bool,
    /// Where CRIU works, if it is to mount something there: a descriptor would lead to a mount outside of its namespace.
    pub work: Option<CString>,
    /// Becomes a mount of its own in a mount namespace of its own.
    pub root: Option<Root<'a>>,
    /// Descriptors that the options name by number.
    pub inherited: Vec<RawFd>,
}

/// The root of a container to be.
pub struct Root<'a> {
    pub path: CString,
    /// CRIU brings the attributes of all mounts back but those of this one.
    pub readonly: bool,
    /// A detached mount that comes over it, with the container's own changes.
    pub layer: Option<BorrowedFd<'a>>,
}

/// CRIU stands still at this point of its work until it is told to go on.
pub struct Notice {
    pub script: String,
    pub pid: Option<i32>,
    pub fd: Option<OwnedFd>,
}

/// The end of CRIU's work.
pub enum Answer {
    Done {
        /// The init of a restored container.
        pid: Option<i32>,
    },
    /// What it said about the failure, which is often nothing.
    Failed { errno: i32, message: Option<String> },
}

/// Does the work; `notice` answers what CRIU asks on the way, and its error ends the work.
pub fn run(
    work: Work,
    options: &Options,
    setting: &Setting<'_>,
    notice: &mut dyn FnMut(Notice) -> Result<()>,
) -> Result<Answer> {
    let (ours, theirs) = socket::socketpair()?;
    let child = spawn(setting, theirs)?;
    let answer = converse(&ours, &child.pidfd, &request(work.kind(), options), notice);
    drop(ours);
    let exit = process::wait(&child.pidfd).context("wait for criu")?;
    match answer? {
        Some(answer) => Ok(answer),
        None => {
            kill_orphans().context("end what criu has left")?;
            match exit {
                Exit::Signal(signal) => bail!("criu was killed by signal {signal}"),
                Exit::Code(code) => bail!("criu ended without an answer (exit code {code})"),
            }
        }
    }
}

/// What CRIU had started for itself waits for it for ever; where this process is the one that orphans come to, it can
/// end them.
fn kill_orphans() -> Result<()> {
    const KILL: i32 = 9;
    let own = process::own_pid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    for pid in
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(process::Pid::from_raw)
    {
        if let Some(child) = process::pidfd_find(pid)? {
            process::pidfd_send_signal(&child, KILL)?;
            process::wait(&child)?;
        }
    }
    Ok(())
}

/// None: CRIU has gone away.
fn converse(
    socket: &OwnedFd,
    pidfd: &OwnedFd,
    request: &[u8],
    notice: &mut dyn FnMut(Notice) -> Result<()>,
) -> Result<Option<Answer>> {
    /// A message holds one word and some numbers, and on failure a line of text.
    const LONGEST: usize = 64 << 10;
    let mut buffer = vec![0; LONGEST];
    let mut refused = None;
    match socket::send(socket, request) {
        Err(fault) if !is_closed(fault) => return Err(fault).context("send the request to criu"),
        // Why it is gone may be waiting to be read.
        _ => (),
    }
    loop {
        let (length, fd) = match has_message(socket, pidfd)? {
            false => (0, None),
            true => match receive(socket, &mut buffer) {
                Err(fault) if is_closed(fault) => (0, None),
                result => result.context("receive from criu")?,
            },
        };
        let bytes = &buffer[..length];
        if let Some(fault) = reported(bytes) {
            return Err(fault).context("start criu");
        }
        if bytes.is_empty() {
            return refused.map_or(Ok(None), Err);
        }
        let response = Response::read(bytes)?;
        if !response.is_notice() {
            return match (refused, response.success) {
                (Some(error), _) => Err(error),
                (None, true) => Ok(Some(Answer::Done { pid: response.restored_pid })),
                (None, false) => {
                    Ok(Some(Answer::Failed { errno: response.errno, message: response.message }))
                }
            };
        }
        let answer = notice(Notice { script: response.script, pid: response.pid, fd });
        let go_on = acknowledgement(answer.is_ok());
        refused = refused.or(answer.err());
        match socket::send(socket, &go_on) {
            Err(fault) if !is_closed(fault) => return Err(fault).context("answer criu"),
            _ => (),
        }
    }
}

/// Waits for a message, or for the end of CRIU: what it has started may hold its end of the socket longer than it lives.
fn has_message(socket: &OwnedFd, pidfd: &OwnedFd) -> Result<bool> {
    let message = (socket.as_fd(), Interest::Read);
    let [said, ended] =
        event::poll([message, (pidfd.as_fd(), Interest::Read)], None).context("wait for criu")?;
    if said || !ended {
        return Ok(said);
    }
    // Its last words may have come between the looks at the two.
    let [said] = event::poll([message], Some(Duration::ZERO)).context("wait for criu")?;
    Ok(said)
}

/// That the other side has left without reading everything is told first, and once; what it has said comes after that.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> sys::Result<(usize, Option<OwnedFd>)> {
    match socket::receive_with_fd(socket, buffer) {
        Err(fault) if fault.errno == Errno::CONNRESET => socket::receive_with_fd(socket, buffer),
        result => result,
    }
}

fn is_closed(fault: Fault) -> bool {
    matches!(fault.errno, Errno::PIPE | Errno::CONNRESET)
}

fn spawn(setting: &Setting<'_>, socket: OwnedFd) -> Result<Cloned> {
    let number = socket.as_raw_fd();
    let mut words = vec![c"criu".to_owned(), c"swrk".to_owned(), CString::new(number.to_string())?];
    if let Some(work) = &setting.work {
        words.extend([c"--work-dir".to_owned(), work.clone()]);
    }
    let arguments = StringArray::new(words);
    let environment = StringArray::environment();
    let namespaces = if setting.root.is_some() { namespace::MOUNT } else { 0 };
    let request = CloneRequest { namespaces, cgroup: setting.cgroup, sibling: false };
    let cloned = clone::clone3(request, || {
        let fault = match prepare(setting, number) {
            Ok(()) => clone::execve(&setting.program, &arguments, &environment, None),
            Err(fault) => fault,
        };
        report(&socket, fault)
    });
    cloned.context("start criu")
}

/// In the child.
fn prepare(setting: &Setting<'_>, socket: RawFd) -> sys::Result<()> {
    process::set_signal_mask(&SignalSet::empty())?;
    if setting.cgroup_namespace {
        clone::unshare(namespace::CGROUP)?;
    }
    if let Some(root) = &setting.root {
        mount_root(root)?;
    }
    fs::close_on_exec_from(3)?;
    setting.inherited.iter().chain([&socket]).try_for_each(|fd| fs::keep_on_exec(sys::borrow(*fd)))
}

fn mount_root(root: &Root<'_>) -> sys::Result<()> {
    let tree = Lookup { recursive: true, nofollow: false };
    mount::mount_setattr(fs::CWD, c"/", tree, Change::propagation(Propagation::Slave))?;
    match root.layer {
        Some(layer) => attach_root(layer, root),
        None => attach_root(mount::open_tree(fs::CWD, &root.path, tree)?.as_fd(), root),
    }
}

fn attach_root(tree: BorrowedFd<'_>, root: &Root<'_>) -> sys::Result<()> {
    let [top, all] = [false, true].map(|recursive| Lookup { recursive, nofollow: false });
    mount::mount_setattr(tree, c"", all, Change::propagation(Propagation::Private))?;
    if root.readonly {
        mount::mount_setattr(tree, c"", top, Change::attributes(attribute::RDONLY, 0))?;
    }
    mount::move_mount(tree, fs::CWD, &root.path)
}

/// No message of CRIU begins with a zero.
fn report(socket: &OwnedFd, fault: Fault) -> i32 {
    let mut bytes = [0; 5];
    bytes[1..3].copy_from_slice(&(fault.call as u16).to_ne_bytes());
    bytes[3..].copy_from_slice(&(fault.errno.raw_os_error() as u16).to_ne_bytes());
    match socket::send(socket, &bytes) {
        Ok(()) => 127,
        Err(_) => 126,
    }
}

fn reported(bytes: &[u8]) -> Option<Fault> {
    let [0, call @ .., a, b] = bytes else { return None };
    let call = Call::from_number(u16::from_ne_bytes(call.try_into().ok()?))?;
    Some(call.fault(Errno::from_raw_os_error(u16::from_ne_bytes([*a, *b]).into())))
}

/// CRIU as a shell would find it, or where it is kept for administrators.
pub fn find_program(path: Option<&OsStr>) -> Result<CString> {
    const USUAL: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];
    let listed = path.map(std::env::split_paths).into_iter().flatten();
    let usual = USUAL.iter().map(|directory| Path::new(directory).to_owned());
    for directory in listed.chain(usual).filter(|directory| directory.is_absolute()) {
        let file = CString::new(directory.join("criu").as_os_str().as_bytes())?;
        if fs::access_effective(&file, fs::Access::EXEC_OK).is_ok() {
            return Ok(file);
        }
    }
    bail!("criu is not installed: no such program in $PATH or /usr/sbin")
}

/// Whether this CRIU was built with SELinux. It does not say; but one that was looks for SELinux's file system, and so has
/// its name in it.
pub fn knows_selinux(program: &CStr) -> Result<bool> {
    const NAME: &[u8] = b"/sys/fs/selinux";
    let path = Path::new(OsStr::from_bytes(program.to_bytes()));
    let text = std::fs::read(path).with_context(|| format!("read {path:?}"))?;
    Ok(text.windows(NAME.len()).any(|part| part == NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_nowhere_is_an_error_that_says_so() {
        if Path::new("/usr/sbin/criu").exists() || Path::new("/usr/local/sbin/criu").exists() {
            return;
        }
        let error = find_program(Some(OsStr::new("/nowhere:relative"))).unwrap_err().to_string();
        assert!(error.contains("criu is not installed"), "{error}");
    }

    #[test]
    fn what_the_child_could_not_do_is_told() {
        let setting = Setting { program: c"/no/such/criu".to_owned(), ..Setting::default() };
        let error = run(Work::Dump, &Options::default(), &setting, &mut |_| Ok(())).err().unwrap();
        assert_eq!(format!("{error:#}"), "start criu: execve: no such file or directory");
    }

    #[test]
    fn a_program_that_does_not_answer_is_an_error() {
        let setting = Setting { program: c"/bin/false".to_owned(), ..Setting::default() };
        let error = run(Work::Dump, &Options::default(), &setting, &mut |_| Ok(())).err().unwrap();
        assert_eq!(error.to_string(), "criu ended without an answer (exit code 1)");
    }
}
