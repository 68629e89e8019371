//! One action of the child: what it is, and how it reads in an error.

use std::ffi::CString;
use std::fmt;

use super::wire::Barrier;
use super::{identity, namespaces, rootfs};
use crate::hook;
use crate::spec::ConsoleSize;
use crate::sys::seccomp::Instruction;
use crate::sys::{Errno, Fault, RawFd};

/// Everything a step needs is owned here before the clone, so performing it allocates nothing.
#[derive(Debug)]
pub enum Step {
    /// Nothing goes on before the parent has done its part, such as writing the id maps.
    Await(&'static str),
    Reach(Barrier),
    Join {
        fd: RawFd,
        kind: u64,
        path: CString,
    },
    /// Joins the network namespace that the parent has made meanwhile and sends.
    JoinNetwork,
    JoinProcess {
        pidfd: RawFd,
        kinds: u64,
    },
    Unshare(u64),
    /// Written before the first process is in the namespace; exec enters it.
    TimeOffsets(CString),
    /// No longer ignores these, signal N as bit N - 1.
    DefaultSignals(u32),
    NotDumpable,
    Identity(identity::Step),
    Rootfs(rootfs::Step),
    /// Makes the pty and sends its master to whoever asked for it.
    OpenTerminal(Option<ConsoleSize>),
    /// The hooks find the state in the answer to `Reach(State)`.
    Hook(hook::Prepared),
    /// The container's own root, for a process that joins a container without a mount namespace.
    EnterRoot(RawFd),
    /// From this number on nothing stays open but the ways to `start`.
    LetGo(u32),
    /// Accepts clients on start.sock until one says to go on.
    WaitForStart,
    Seccomp {
        flags: u32,
        program: Vec<Instruction>,
    },
    /// Tells the other side that only exec is left.
    Ready,
    Exec,
    /// Fails; tests put it at every place in turn.
    Fail(Errno),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Await(what) => write!(f, "wait for {what}"),
            Step::Reach(Barrier::RuntimeHooks) => f.write_str("wait for the runtime's hooks"),
            Step::Reach(Barrier::Created) => f.write_str("report that the container is created"),
            Step::Reach(Barrier::State) => f.write_str("ask for the state"),
            Step::Join { kind, path, .. } => {
                write!(f, "join the {} namespace {path:?}", namespaces::name(*kind))
            }
            Step::JoinNetwork => f.write_str("join the new network namespace"),
            Step::JoinProcess { .. } => f.write_str("join the container's namespaces"),
            Step::Unshare(kinds) => {
                f.write_str("make new namespaces:")?;
                let names = namespaces::KINDS.iter().filter(|entry| kinds & entry.1 != 0);
                names.map(|entry| entry.3).try_for_each(|name| write!(f, " {name}"))
            }
            Step::TimeOffsets(text) => write!(f, "write time offsets {text:?}"),
            Step::DefaultSignals(_) => f.write_str("stop ignoring signals"),
            Step::NotDumpable => f.write_str("forbid tracing"),
            Step::Identity(step) => step.fmt(f),
            Step::Rootfs(step) => step.fmt(f),
            Step::OpenTerminal(_) => f.write_str("open a terminal in \"/dev/pts\""),
            Step::Hook(hook) => hook.fmt(f),
            Step::EnterRoot(_) => f.write_str("enter the container's root"),
            Step::LetGo(_) => f.write_str("close what the host has left open"),
            Step::WaitForStart => f.write_str("wait for start"),
            Step::Seccomp { .. } => f.write_str("load the seccomp filter"),
            Step::Ready => f.write_str("report ready"),
            Step::Exec => f.write_str("exec"),
            Step::Fail(_) => f.write_str("fail on request"),
        }
    }
}

impl Step {
    /// What to do about a fault of this step, where the kernel's word is not enough.
    pub fn advice(&self, fault: Fault) -> Option<&'static str> {
        match self {
            Step::Identity(step) => step.advice(fault),
            Step::Join { .. } if fault.errno == Errno::INVAL => Some("the path is no namespace of that type"),
            Step::OpenTerminal(_) if fault.errno == Errno::NOENT => {
                Some("a container with a terminal needs a devpts mount on /dev/pts")
            }
            Step::Rootfs(step) => step.advice(fault),
            Step::TimeOffsets(_) if fault.errno == Errno::RANGE => {
                Some("the offset would turn the clock back behind zero, or too far ahead")
            }
            _ => None,
        }
    }
}
