//! Making processes: clone3, namespaces, exec and exit.

use std::cell::Cell;
use std::ffi::{CStr, CString, OsString, c_char};
use std::os::unix::ffi::OsStringExt;

pub use rustix::process::Pid;

use super::{AsFd, AsRawFd, BorrowedFd, Call, FromRawFd, OwnedFd, Result, heap, last_errno};

/// Namespace kinds as bits of clone3, unshare and setns.
pub mod namespace {
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    pub const TIME: u64 = 0x80;
}

/// How a child is made. It always starts with default signal handlers and a pidfd for the parent.
#[derive(Clone, Copy, Default)]
pub struct CloneRequest<'f> {
    /// Bits of `namespace`.
    pub namespaces: u64,
    /// The cgroup the child is born in.
    pub cgroup: Option<BorrowedFd<'f>>,
    /// The child becomes a sibling: its parent is this process's parent.
    pub sibling: bool,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub struct Cloned {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Runs `child` in a new process, which must not allocate or lock; what it returns is its exit code.
pub fn clone3(request: CloneRequest<'_>, child: impl FnOnce() -> i32) -> Result<Cloned> {
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArgs {
        flags: request.namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    if request.sibling {
        arguments.flags |= libc::CLONE_PARENT as u64;
        arguments.exit_signal = 0;
    }
    // SAFETY: without CLONE_VM the child gets a copy of this address space and goes on here on the same stack;
    // the arguments live until the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    if pid == 0 {
        heap::forbid();
        exit_now(child());
    }
    // A failure is a negative number, which is no pid to begin with.
    match Pid::from_raw(pid.max(0) as i32) {
        // SAFETY: the kernel has just opened this descriptor for us and nobody else knows it.
        Some(child) => Ok(Cloned { pid: child, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        _ => Err(Call::Clone.fault(last_errno())),
    }
}

pub fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: namespaces change what later calls see; no memory is touched.
    let result = unsafe { libc::unshare(namespaces as i32) };
    if result < 0 { Err(Call::Unshare.fault(last_errno())) } else { Ok(()) }
}

/// Joins the namespace `fd` stands for, or, where it is a pidfd, those of its process named in `namespaces`.
pub fn setns(fd: impl AsFd, namespaces: u64) -> Result<()> {
    // SAFETY: as for unshare; the descriptor is borrowed for the call.
    let result = unsafe { libc::setns(fd.as_fd().as_raw_fd(), namespaces as i32) };
    if result < 0 { Err(Call::SetNamespace.fault(last_errno())) } else { Ok(()) }
}

/// A null-terminated array of C strings, as execve wants it, with room for one more.
#[derive(Debug)]
pub struct StringArray {
    pointers: Vec<Cell<*const c_char>>,
    strings: Vec<CString>,
}

impl Default for StringArray {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl StringArray {
    pub fn new(strings: Vec<CString>) -> Self {
        let end = [std::ptr::null(), std::ptr::null()];
        let pointers = strings.iter().map(|s| s.as_ptr()).chain(end).map(Cell::new).collect();
        Self { pointers, strings }
    }

    /// The variables of this process.
    pub fn environment() -> Self {
        let whole = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b"="[..]);
        // What the kernel has handed over as C strings holds no NUL.
        Self::new(std::env::vars_os().map(whole).filter_map(|text| CString::new(text).ok()).collect())
    }

    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr().cast()
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces this program; returns only on failure. `last` is one more variable, found out after the clone.
pub fn execve(
    path: &CStr,
    arguments: &StringArray,
    environment: &StringArray,
    last: Option<&CStr>,
) -> super::Fault {
    let slot = &environment.pointers[environment.strings.len()];
    slot.set(last.map_or(std::ptr::null(), CStr::as_ptr));
    let (argv, envp) = (arguments.pointers.as_ptr().cast(), environment.pointers.as_ptr().cast());
    // SAFETY: a Cell is laid out as what it holds; both arrays end with a null pointer and point into strings
    // they own, or into `last`, which lives until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv, envp) };
    let errno = last_errno();
    slot.set(std::ptr::null());
    Call::Execve.fault(errno)
}

/// Ends this process at once: no destructors, no handlers, nothing flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}
