//! The child: performs the plan, one step after the other, and says which one failed.
//!
//! Runs between clone and exec. System calls only: no heap (the allocator aborts), no locks, no formatting.
//! Descriptors are not closed one by one; they all close on exec.

use super::plan::Plan;
use super::step::Step;
use super::wire::{self, Barrier, Message};
use super::{identity, rootfs, terminal};
use crate::hook;
use crate::spec::ConsoleSize;
use crate::sys::clone::{self, CloneRequest, exit_now, namespace};
use crate::sys::process::SignalSet;
use crate::sys::seccomp::{self, Instruction};
use crate::sys::{
    AsFd, AsRawFd, Call, Errno, Fault, OwnedFd, RawFd, Result, borrow, fs, leak, process, socket,
};

/// Descriptors the child is born with.
pub struct Inherited {
    pub report: OwnedFd,
    /// Where `start` will knock, for `create`.
    pub listener: Option<OwnedFd>,
    /// The lock of the container's maker, which must not outlive it.
    pub lock: Option<RawFd>,
    /// Where the pty's master goes.
    pub console: Option<OwnedFd>,
}

struct Child<'p> {
    plan: &'p Plan,
    inherited: Inherited,
    rootfs: rootfs::Context<'p>,
    identity: identity::Context,
    /// The state for hooks, as the other side sent it.
    state: &'p mut [u8],
    state_length: usize,
}

/// Steps of the middle process are reported from this number on.
pub const RELAY: usize = 0x8000;

/// Performs `plan` and does not come back.
pub fn run(plan: &Plan, inherited: Inherited, state: &mut [u8]) -> ! {
    let mut child = Child {
        plan,
        inherited,
        rootfs: rootfs::Context::new(&plan.sources),
        identity: identity::Context::own(),
        state,
        state_length: 0,
    };
    // Whoever called deja may have blocked signals; the container starts with none blocked.
    let mut result = process::set_signal_mask(&SignalSet::empty());
    for (number, step) in plan.steps.iter().enumerate() {
        result = result.and_then(|()| child.perform(step));
        if let Err(fault) = result {
            let words = plan.words.get(number).map_or("", String::as_str);
            explain(&child.inherited.report, number, fault, words);
        }
    }
    exit_now(0)
}

/// The process in the middle: enters what must be entered first, makes the child as its sibling, and is done.
pub fn relay(plan: &Plan, inherited: Inherited, state: &mut [u8]) -> ! {
    let mut context = identity::Context::own();
    for (number, step) in plan.relay.iter().enumerate() {
        let result = match step {
            Step::Join { fd, kind, .. } => clone::setns(borrow(*fd), *kind),
            Step::JoinProcess { pidfd, kinds } => clone::setns(borrow(*pidfd), *kinds),
            Step::NotDumpable => process::set_not_dumpable(),
            Step::Identity(step) => identity::perform(step, &plan.image, &mut context),
            _ => Err(Call::Clone.fault(Errno::INVAL)),
        };
        if let Err(fault) = result {
            explain(&inherited.report, RELAY + number, fault, "");
        }
    }
    let report = inherited.report.as_raw_fd();
    let request = CloneRequest { namespaces: plan.namespaces, cgroup: None, sibling: true };
    // The child is silent until the parent knows of it, or its words would come before ours.
    // What the child inherits stays open here, too: the parent is still to be told.
    let mut inherited = Some(inherited);
    let child = || match inherited.take() {
        Some(inherited) if await_continue(&inherited.report).is_ok() => run(plan, inherited, state),
        _ => 1,
    };
    match clone::clone3(request, child) {
        Ok(cloned) => {
            let message = Message::Relayed(cloned.pid.as_raw_nonzero().get());
            exit_now(i32::from(socket::send(borrow(report), &message.encode()).is_err()))
        }
        Err(fault) => explain(&borrow(report), RELAY + plan.relay.len(), fault, ""),
    }
}

/// Sends the fault, and behind it the step in words (`start` has no plan to look it up in), and ends.
fn explain(report: &impl AsFd, number: usize, fault: Fault, words: &str) -> ! {
    let mut bytes = [0; wire::LONGEST];
    let head = Message::Fault { step: number as u16, fault }.encode();
    bytes[..wire::LENGTH].copy_from_slice(&head);
    let length = words.len().min(bytes.len() - wire::LENGTH);
    bytes[wire::LENGTH..wire::LENGTH + length].copy_from_slice(&words.as_bytes()[..length]);
    // `write` is the call a seccomp filter is least likely to forbid. Where it fails, nobody is left to be told.
    let told = fs::write(report, &bytes[..wire::LENGTH + length]);
    exit_now(if told.is_ok() { 1 } else { 2 })
}

/// End of file means that nobody is there to go on for.
fn await_continue(report: &OwnedFd) -> Result<()> {
    let mut answer = [0; wire::LONGEST_CONTINUE];
    match socket::receive(report, &mut answer)? {
        0 => exit_now(1),
        length => default_signals(wire::signals(&answer[..length])),
    }
}

/// A clone takes handlers away, but what the caller of deja ignores stays ignored, by exec too: a container that
/// systemd or a shell in the background has started would not notice a broken pipe.
fn default_signals(ignored: u32) -> Result<()> {
    let mut signals = (1..=31).filter(|number| ignored & 1 << (number - 1) != 0);
    signals.try_for_each(process::default_signal)
}

impl Child<'_> {
    fn perform(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Await(_) => self.await_continue(),
            Step::Reach(Barrier::State) => self.ask_for_state(),
            Step::Reach(barrier) => {
                self.send(Message::Reached(*barrier))?;
                self.await_continue()
            }
            Step::Join { fd, kind, .. } => clone::setns(borrow(*fd), *kind),
            Step::JoinProcess { pidfd, kinds } => clone::setns(borrow(*pidfd), *kinds),
            Step::JoinNetwork => self.join_network(),
            Step::Unshare(kinds) => clone::unshare(*kinds),
            Step::TimeOffsets(text) => write_time_offsets(text.to_bytes()),
            Step::DefaultSignals(ignored) => default_signals(*ignored),
            Step::NotDumpable => process::set_not_dumpable(),
            Step::Identity(step) => identity::perform(step, &self.plan.image, &mut self.identity),
            Step::Rootfs(step) => rootfs::perform(step, &mut self.rootfs),
            Step::OpenTerminal(size) => self.open_terminal(*size),
            Step::Hook(prepared) => hook::perform(prepared, &self.state[..self.state_length]),
            Step::EnterRoot(fd) => fs::fchdir(borrow(*fd)).and_then(|()| fs::chroot(c".")),
            Step::LetGo(first) => self.let_go(*first),
            Step::WaitForStart => self.wait_for_start(),
            Step::Seccomp { flags, program } => self.load_filter(*flags, program),
            Step::Ready => self.send(Message::Ready),
            Step::Exec => Err(self.plan.image.execute(&self.identity)),
            Step::Fail(errno) => Err(Call::Prctl.fault(*errno)),
        }
    }
}

impl Child<'_> {
    fn send(&self, message: Message) -> Result<()> {
        socket::send(&self.inherited.report, &message.encode())
    }

    fn await_continue(&self) -> Result<()> {
        await_continue(&self.inherited.report)
    }

    fn join_network(&self) -> Result<()> {
        let mut word = [0; wire::CONTINUE.len()];
        match socket::receive_with_fd(&self.inherited.report, &mut word)? {
            (_, Some(network)) => clone::setns(leak(network), namespace::NETWORK),
            // The parent could not make one, and says why.
            (_, None) => exit_now(1),
        }
    }

    fn ask_for_state(&mut self) -> Result<()> {
        self.send(Message::Reached(Barrier::State))?;
        self.state_length = socket::receive(&self.inherited.report, self.state)?;
        match self.state_length {
            0 => exit_now(1),
            _ => Ok(()),
        }
    }

    fn open_terminal(&mut self, size: Option<ConsoleSize>) -> Result<()> {
        let Some(console) = &self.inherited.console else {
            return Err(Call::Send.fault(Errno::NOTCONN));
        };
        let slave = leak(terminal::open(self.rootfs.root(), console.as_fd(), size)?);
        for stream in 0..3 {
            fs::dup_inheritable(slave, stream)?;
        }
        self.rootfs.set_console(slave);
        Ok(())
    }

    /// Who waits may wait for long: nobody shall find the host's files in it, or wait for a pipe of the caller's to close.
    fn let_go(&self, first: u32) -> Result<()> {
        let report = self.inherited.report.as_raw_fd();
        let listener = self.inherited.listener.as_ref().map_or(report, AsRawFd::as_raw_fd);
        fs::close_all_from(first, [report, listener])
    }

    /// From the first client that says to go on, the report goes to that client.
    fn wait_for_start(&mut self) -> Result<()> {
        let Some(listener) = &self.inherited.listener else {
            return self.await_continue();
        };
        // A parent that is killed just now cannot give the lock back, and this process lives on.
        self.inherited.lock.map_or(Ok(()), fs::close_copied)?;
        loop {
            let client = socket::accept(listener)?;
            let mut word = [0; wire::CONTINUE.len()];
            if socket::receive(&client, &mut word) == Ok(wire::CONTINUE.len()) && word == *wire::CONTINUE {
                self.inherited.report = client;
                return Ok(());
            }
        }
    }

    fn load_filter(&self, flags: u32, program: &[Instruction]) -> Result<()> {
        let Some(listener) = seccomp::set_mode_filter(flags, program)? else {
            return Ok(());
        };
        // `write` and `read`, not `sendmsg`: the calls a notifying profile must leave alone.
        fs::write(&self.inherited.report, &Message::Listener(listener.as_raw_fd()).encode())?;
        let mut answer = [0; wire::CONTINUE.len()];
        match fs::read(&self.inherited.report, &mut answer)? {
            0 => exit_now(1),
            _ => Ok(()),
        }
    }
}

fn write_time_offsets(text: &[u8]) -> Result<()> {
    let file = fs::openat(fs::CWD, c"/proc/self/timens_offsets", fs::OFlags::WRONLY, fs::Mode::empty())?;
    fs::write(&file, text).map(drop)
}
