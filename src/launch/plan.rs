//! Spec and facts -> everything the child will do, in order. Pure.

use super::namespaces::Namespaces;
use super::seccomp::Program;
use super::step::Step;
use super::wire::Barrier;
use super::{identity, rootfs};
use crate::hook;
use crate::spec::ConsoleSize;
#[cfg(debug_assertions)]
use crate::sys::Errno;
use crate::sys::clone::namespace;
use crate::sys::{Call, Fault, RawFd, Reason};

/// A launch, complete before the clone.
pub struct Plan {
    /// Made by clone3.
    pub namespaces: u64,
    /// Made by the parent while the child works, and joined by the child when it needs it: a network namespace
    /// takes as long to make as all the mounts of a usual container.
    pub network_beside: bool,
    /// Entered by the parent, because only children are born into it.
    pub pid_namespace: Option<RawFd>,
    /// The parent leaves it again: there may be other children to come, such as hooks.
    pub comes_back: bool,
    /// What a process in the middle does before it clones the child; empty where none is needed.
    pub relay: Vec<Step>,
    pub steps: Vec<Step>,
    pub image: identity::Image,
    /// What the bind mounts show, opened by the parent.
    pub sources: Vec<rootfs::Opened>,
    /// What the parent does to the child while it waits, because the child is not privileged enough.
    pub outside: Vec<identity::Step>,
    /// The steps after `WaitForStart` in words, each at its number: `start` does not have the plan.
    pub words: Vec<String>,
    /// Hooks run in the child, which need room for the state.
    pub asks_for_state: bool,
    pub warnings: Vec<String>,
}

/// How a new container's process is put together.
pub struct NewContainer<'n> {
    pub namespaces: &'n Namespaces,
    /// The descriptors of `namespaces.join`, in its order.
    pub joined: Vec<RawFd>,
    pub rootfs: rootfs::Plan,
    pub sources: Vec<rootfs::Opened>,
    pub identity: identity::Plan,
    pub seccomp: Option<Program>,
    /// Some: the process has a terminal, perhaps of this size.
    pub terminal: Option<Option<ConsoleSize>>,
    /// Hooks, or interfaces to move: the parent has something to do once the namespaces exist.
    pub runtime_hooks: bool,
    /// The parent runs hooks at some time, for which it must be where it was.
    pub parent_hooks: bool,
    pub create_container: Vec<hook::Prepared>,
    pub start_container: Vec<hook::Prepared>,
    /// The child asks the parent for something before it has everything.
    pub asks_early: bool,
    /// Wait for another deja that says start, not for this one.
    pub hold: bool,
    /// This process may do what it likes to files of the host.
    pub privileged: bool,
}

impl Plan {
    pub fn new_container(parts: NewContainer<'_>) -> Plan {
        let NewContainer { namespaces, joined, rootfs, identity, .. } = parts;
        let new_user = namespaces.is_new(namespace::USER);
        let mut steps = Vec::with_capacity(96);
        // In a new user namespace a process that cannot be traced could not write to its own files in /proc.
        let early_guard = parts.privileged && !new_user;
        if early_guard {
            steps.push(Step::NotDumpable);
        }
        if new_user {
            steps.push(Step::Await("its user and group ids"));
        }
        let mut relay = Vec::new();
        let before = if namespaces.relay { &mut relay } else { &mut steps };
        let outside = outside(identity.outside, new_user, before);
        before.extend(joins(namespaces, &joined));
        if namespaces.unshare != 0 {
            steps.push(Step::Unshare(namespaces.unshare));
        }
        steps.extend(namespaces.time_offsets.clone().map(Step::TimeOffsets));
        let alone = !(new_user || namespaces.relay || parts.parent_hooks);
        let network_beside = alone && namespaces.create & namespace::NETWORK != 0;
        let labels_queues = new_user && rootfs.labels_queues();
        push_preparation(&mut steps, identity.early, rootfs.prepare, network_beside);
        let ipc = if labels_queues { ipc_as_root(&mut steps, namespaces.create) } else { 0 };
        let network = if network_beside { namespace::NETWORK } else { 0 };
        if parts.runtime_hooks {
            let before = steps.iter().position(|step| matches!(step, Step::Rootfs(_)));
            steps.insert(before.unwrap_or(steps.len()), Step::Reach(Barrier::RuntimeHooks));
        }
        if let Some(size) = parts.terminal {
            steps.push(Step::OpenTerminal(size));
            steps.extend(rootfs.console.into_iter().map(Step::Rootfs));
        }
        push_hooks(&mut steps, parts.create_container);
        steps.extend(rootfs.finish.into_iter().map(Step::Rootfs));
        steps.extend(identity.user.into_iter().map(Step::Identity));
        if !early_guard {
            steps.push(Step::NotDumpable);
        }
        if parts.hold {
            steps.push(Step::LetGo(identity.first_closed));
        }
        let may_wait = parts.seccomp.as_ref().is_some_and(Program::may_wait);
        let mut filter = filter(identity.last, parts.seccomp);
        // Who has an agent expects it to hear of the container when it is created.
        if parts.hold && parts.start_container.is_empty() && may_wait {
            steps.append(&mut filter);
        }
        push_created(&mut steps, parts.hold, parts.asks_early);
        let held = parts.hold.then_some(steps.len());
        push_hooks(&mut steps, parts.start_container);
        let asks_for_state = steps.iter().any(|step| matches!(step, Step::Reach(Barrier::State)));
        steps.append(&mut filter);
        steps.extend([Step::Ready, Step::Exec]);
        Plan {
            namespaces: namespaces.create & !(ipc | network),
            network_beside,
            pid_namespace: pid_namespace(&namespaces.join, &joined, namespaces.relay),
            comes_back: true,
            relay,
            words: held.map_or_else(Vec::new, |first| words(&steps, first, &identity.image)),
            steps,
            image: identity.image,
            sources: parts.sources,
            outside,
            asks_for_state,
            warnings: identity.warnings,
        }
    }
}

/// The file system of message queues belongs to who makes its ipc namespace, and only its owner may label it: in a new user
/// namespace that has to be its root, which the child is not when it is cloned. Gives what is not to be cloned.
fn ipc_as_root(steps: &mut Vec<Step>, create: u64) -> u64 {
    let is_root = |step: &Step| matches!(step, Step::Identity(identity::Step::BecomeRoot { .. }));
    match steps.iter().position(is_root) {
        Some(place) if create & namespace::IPC != 0 => {
            steps.insert(place + 1, Step::Unshare(namespace::IPC));
            namespace::IPC
        }
        _ => 0,
    }
}

/// With a new user namespace the parent's steps; otherwise the child's own, which it has made `before` it joins one.
/// What they set is kept by a child that the middle process makes, too.
fn outside(steps: Vec<identity::Step>, new_user: bool, before: &mut Vec<Step>) -> Vec<identity::Step> {
    if new_user {
        return steps;
    }
    before.extend(steps.into_iter().map(Step::Identity));
    Vec::new()
}

/// A process that joins a running container.
pub struct AnotherProcess {
    /// The kinds in which the container differs from this process.
    pub kinds: u64,
    pub pidfd: RawFd,
    /// The container's root, where it has no mount namespace.
    pub root: Option<RawFd>,
    pub identity: identity::Plan,
    pub seccomp: Option<Program>,
    pub terminal: Option<Option<ConsoleSize>>,
    /// The signals this process ignores, and the new one shall not.
    pub ignored: u32,
    pub privileged: bool,
}

impl Plan {
    pub fn another_process(parts: AnotherProcess) -> Plan {
        let identity = parts.identity;
        let Entry { mut steps, relay, pid_namespace } =
            Entry::new(parts.kinds, parts.pidfd, parts.privileged, identity.outside);
        if parts.ignored != 0 {
            steps.push(Step::DefaultSignals(parts.ignored));
        }
        steps.extend(parts.root.map(Step::EnterRoot));
        steps.extend(identity.early.into_iter().map(Step::Identity));
        if let Some(size) = parts.terminal {
            steps.push(Step::OpenTerminal(size));
        }
        steps.extend(identity.user.into_iter().map(Step::Identity));
        if !parts.privileged {
            steps.push(Step::NotDumpable);
        }
        steps.append(&mut filter(identity.last, parts.seccomp));
        steps.extend([Step::Ready, Step::Exec]);
        Plan {
            namespaces: 0,
            network_beside: false,
            pid_namespace,
            comes_back: false,
            relay,
            words: Vec::new(),
            steps,
            image: identity.image,
            sources: Vec::new(),
            outside: Vec::new(),
            asks_for_state: false,
            warnings: identity.warnings,
        }
    }
}

/// A child that changes the mounts of a running container, and runs no program.
pub struct MountChange {
    pub kinds: u64,
    pub pidfd: RawFd,
    pub rootfs: rootfs::Plan,
    pub sources: Vec<rootfs::Opened>,
    pub privileged: bool,
}

impl Plan {
    pub fn mount_change(parts: MountChange) -> Plan {
        let Entry { mut steps, relay, pid_namespace } =
            Entry::new(parts.kinds, parts.pidfd, parts.privileged, Vec::new());
        if parts.kinds & namespace::USER != 0 {
            // What is mounted belongs to the container's root.
            steps.push(Step::Identity(identity::Step::BecomeRoot { may_be_unmapped: true }));
        }
        steps.extend(parts.rootfs.prepare.into_iter().chain(parts.rootfs.finish).map(Step::Rootfs));
        steps.push(Step::Ready);
        Plan {
            namespaces: 0,
            network_beside: false,
            pid_namespace,
            comes_back: false,
            relay,
            words: Vec::new(),
            steps,
            image: identity::Image::default(),
            sources: parts.sources,
            outside: Vec::new(),
            asks_for_state: false,
            warnings: Vec::new(),
        }
    }
}

/// How a child gets into a container that runs.
struct Entry {
    steps: Vec<Step>,
    relay: Vec<Step>,
    pid_namespace: Option<RawFd>,
}

impl Entry {
    /// `first` is done before.
    fn new(kinds: u64, pidfd: RawFd, privileged: bool, first: Vec<identity::Step>) -> Self {
        let first = first.into_iter().map(Step::Identity);
        if !privileged && kinds & namespace::PID != 0 {
            let relay = first.chain([Step::JoinProcess { pidfd, kinds }]).collect();
            return Self { steps: Vec::with_capacity(32), relay, pid_namespace: None };
        }
        let mut steps = Vec::with_capacity(32);
        steps.extend(first);
        // Whoever shares the container's processes must not get hold of one that is not yet one of them.
        if privileged {
            steps.push(Step::NotDumpable);
        }
        let others = kinds & !namespace::PID;
        if others != 0 {
            steps.push(Step::JoinProcess { pidfd, kinds: others });
        }
        let pid_namespace = (kinds & namespace::PID != 0).then_some(pidfd);
        Self { steps, relay: Vec::new(), pid_namespace }
    }
}

fn joins(namespaces: &Namespaces, fds: &[RawFd]) -> Vec<Step> {
    let all = namespaces.join.iter().zip(fds);
    // The middle process enters a pid namespace for its child; otherwise the parent does.
    let mine = all.filter(|(join, _)| namespaces.relay || join.kind != namespace::PID);
    mine.map(|(join, fd)| Step::Join { fd: *fd, kind: join.kind, path: join.path.clone() }).collect()
}

fn pid_namespace(joins: &[super::namespaces::Join], fds: &[RawFd], relayed: bool) -> Option<RawFd> {
    let mut all = joins.iter().zip(fds);
    all.find(|(join, _)| !relayed && join.kind == namespace::PID).map(|(_, fd)| *fd)
}

/// What a process needs before its root, and the root. With the network namespace made beside, the child joins it
/// as late as it can: before what shows it, or at the end.
fn push_preparation(
    steps: &mut Vec<Step>,
    early: Vec<identity::Step>,
    rootfs: Vec<rootfs::Step>,
    network_beside: bool,
) {
    let is_late = |step: &identity::Step| network_beside && matches!(step, identity::Step::LoopbackUp);
    let (late, early): (Vec<_>, Vec<_>) = early.into_iter().partition(is_late);
    steps.extend(early.into_iter().map(Step::Identity));
    let mut network = Vec::new();
    if network_beside {
        network.push(Step::JoinNetwork);
        network.extend(late.into_iter().map(Step::Identity));
    }
    for step in rootfs {
        if step.shows_network() {
            steps.append(&mut network);
        }
        steps.push(Step::Rootfs(step));
    }
    steps.append(&mut network);
}

fn push_created(steps: &mut Vec<Step>, hold: bool, asks_early: bool) {
    // A parent that answers no questions on the way has said so in advance.
    if hold || asks_early {
        steps.push(Step::Reach(Barrier::Created));
    } else {
        steps.push(Step::Await("its cgroup and its record"));
    }
    if hold {
        steps.push(Step::WaitForStart);
    }
}

fn push_hooks(steps: &mut Vec<Step>, hooks: Vec<hook::Prepared>) {
    if !hooks.is_empty() {
        steps.push(Step::Reach(Barrier::State));
        steps.extend(hooks.into_iter().map(Step::Hook));
    }
}

/// What loading the filter takes, and loading it.
fn filter(last: Vec<identity::Step>, seccomp: Option<Program>) -> Vec<Step> {
    let load = seccomp.map(|program| Step::Seccomp { flags: program.flags, program: program.instructions });
    last.into_iter().map(Step::Identity).chain(load).collect()
}

fn words(steps: &[Step], first: usize, image: &identity::Image) -> Vec<String> {
    let words = |(number, step): (usize, &Step)| match step {
        _ if number < first => String::new(),
        Step::Exec => image.words(),
        Step::Hook(hook) => hook.to_string(),
        step => numbered(number, steps.len(), step),
    };
    steps.iter().enumerate().map(words).collect()
}

fn numbered(number: usize, count: usize, step: &Step) -> String {
    format!("step {} of {count}: {step}", number + 1)
}

/// As `Plan::explain`, for `start`, which has the step only in the words that came with the fault.
pub fn explain_words(words: &str, fault: Fault) -> String {
    match fault.call {
        _ if words.starts_with(hook::FAILED) => hook::explain(words, fault),
        Call::Execve => format!("{words}: {}", Reason(fault.errno)),
        _ => format!("{words}: {fault}"),
    }
}

#[cfg(debug_assertions)]
impl Plan {
    /// Puts a step that fails in front of step `number`, counted from 1 and from the middle process on.
    pub fn fail_at(&mut self, number: usize) {
        let Some(place) = number.checked_sub(1) else { return };
        let fail = Step::Fail(Errno::IO);
        if place < self.relay.len() {
            return self.relay.insert(place, fail);
        }
        let place = place - self.relay.len();
        if place < self.steps.len() {
            if let Some(first) = self.words.iter().position(|words| !words.is_empty()) {
                let words = numbered(place, self.steps.len() + 1, &fail);
                let words = if place < first { String::new() } else { words };
                self.words.insert(place, words);
            }
            self.steps.insert(place, fail);
        }
    }
}

impl Plan {
    /// Everything that is going to be done, a line for each step.
    pub fn narrative(&self) -> impl Iterator<Item = String> {
        let own = |steps: &[Step], who: &str| -> Vec<String> {
            let line = |(number, step): (usize, &Step)| match step {
                Step::Exec => format!("{who}{}", self.image.words()),
                step => format!("{who}{}", numbered(number, steps.len(), step)),
            };
            steps.iter().enumerate().map(line).collect()
        };
        own(&self.relay, "middle process, ").into_iter().chain(own(&self.steps, ""))
    }

    /// A fault in a sentence: which step of how many, what it was to do, and what the kernel said.
    pub fn explain(&self, number: usize, fault: Fault) -> anyhow::Error {
        let relay = number.checked_sub(super::child::RELAY);
        let steps = if relay.is_some() { &self.relay } else { &self.steps };
        let number = relay.unwrap_or(number);
        match steps.get(number) {
            Some(Step::Exec | Step::Identity(identity::Step::FindExecutable)) => {
                anyhow::anyhow!(self.image.explain(fault))
            }
            Some(Step::Hook(hook)) => anyhow::anyhow!(hook.explain(fault)),
            Some(step) => {
                let advice = step.advice(fault).map(|advice| format!(" ({advice})")).unwrap_or_default();
                anyhow::anyhow!("{}: {fault}{advice}", numbered(number, steps.len(), step))
            }
            None => anyhow::anyhow!("make the container's process: {fault}"),
        }
    }
}
