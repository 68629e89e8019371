//! The parent's side of a launch: clone, talk, and explain what the child could not do.
//!
//! A `Launch` that is dropped before `release` kills its child: nothing half made is left behind.

use anyhow::{Context, Result, anyhow};

use super::child::{self, Inherited};
use super::conversation::{Conversation, Milestone, Question, Reply, Trouble};
use super::identity;
use super::namespaces::own_pids;
use super::plan::Plan;
use crate::sys::clone::{self, CloneRequest, namespace};
use crate::sys::process::{self, Pid};
use crate::sys::{AsRawFd, BorrowedFd, Errno, OwnedFd, fs, leak, socket};

/// What `begin` hands over to the child besides the plan.
pub struct Handover<'f> {
    pub cgroup: Option<BorrowedFd<'f>>,
    pub listener: Option<OwnedFd>,
    /// What keeps others from a container in the making; a child that waits for start lets go of it.
    pub lock: Option<BorrowedFd<'f>>,
    pub console: Option<OwnedFd>,
    /// Room for the state when hooks run in the child; empty otherwise.
    pub state: &'f mut [u8],
}

/// A child on its way.
pub struct Launch<'p> {
    plan: &'p Plan,
    conversation: Conversation,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    released: bool,
}

/// Clones the child and, where the plan has one, the process in the middle.
pub fn begin<'p>(plan: &'p Plan, handover: Handover<'_>) -> Result<Launch<'p>> {
    let (ours, theirs) = socket::socketpair()?;
    let inherited = Inherited {
        report: theirs,
        listener: handover.listener,
        lock: handover.lock.map(|lock| lock.as_raw_fd()),
        console: handover.console,
    };
    let own_pids = enter_pid_namespace(plan)?;
    let relayed = !plan.relay.is_empty();
    let namespaces = if relayed { 0 } else { plan.namespaces };
    let request = CloneRequest { namespaces, cgroup: handover.cgroup, sibling: false };
    let copy = ours.as_raw_fd();
    let cloned = clone::clone3(request, || {
        // Held open here, it would keep this process from seeing that its parent is gone.
        if fs::close_copied(copy).is_err() {
            clone::exit_now(1);
        }
        match relayed {
            false => child::run(plan, inherited, handover.state),
            true => child::relay(plan, inherited, handover.state),
        }
    });
    let cloned = cloned.map_err(|fault| match advice(fault.errno, namespaces) {
        Some(advice) => anyhow::Error::new(fault).context(advice),
        None => fault.into(),
    })?;
    let mut launch = Launch {
        plan,
        conversation: Conversation::new(ours),
        pid: cloned.pid,
        pidfd: cloned.pidfd,
        released: false,
    };
    if let Some(namespace) = own_pids {
        clone::setns(&namespace, namespace::PID).context("go back to the own pid namespace")?;
    }
    if relayed {
        launch.follow_relay()?;
    }
    if plan.network_beside {
        launch.make_network()?;
    }
    Ok(launch)
}

/// Children of this process are born in the pid namespace the plan joins; gives back the one to return to.
fn enter_pid_namespace(plan: &Plan) -> Result<Option<OwnedFd>> {
    let Some(target) = plan.pid_namespace else { return Ok(None) };
    let own = plan.comes_back.then(own_pids).transpose()?;
    clone::setns(crate::sys::borrow(target), namespace::PID).context("join the pid namespace")?;
    Ok(own)
}

/// What to do about a clone the kernel refused.
fn advice(errno: Errno, namespaces: u64) -> Option<&'static str> {
    let user = namespaces & namespace::USER != 0;
    Some(match errno {
        Errno::INVAL if user => "the kernel may lack user namespaces",
        Errno::NOSPC => "a limit in \"/proc/sys/user\" is reached",
        Errno::PERM if user => "user namespaces are restricted on this machine",
        Errno::AGAIN => "the pids limit of the cgroup or of the user is reached",
        Errno::BUSY => "the cgroup passes controllers on to cgroups below it and can hold no process",
        Errno::OPNOTSUPP => "the cgroup is of an invalid domain type",
        _ => return None,
    })
}

impl Launch<'_> {
    fn follow_relay(&mut self) -> Result<()> {
        let pid = self.conversation.relayed().map_err(|trouble| self.explain(trouble))?;
        process::wait(&self.pidfd).context("wait for the middle process")?;
        // Nobody else can reap our child, so its pid cannot mean another process yet.
        self.pid = Pid::from_raw(pid).ok_or_else(|| anyhow!("the middle process sent no pid"))?;
        self.pidfd = process::pidfd_open(self.pid)?;
        self.proceed()
    }

    /// Makes the child's network namespace, and stays in it: nothing this process does from here on depends on one.
    fn make_network(&self) -> Result<()> {
        clone::unshare(namespace::NETWORK).map_err(|fault| {
            match advice(fault.errno, namespace::NETWORK) {
                Some(advice) => anyhow::Error::new(fault).context(advice),
                None => anyhow::Error::new(fault).context("make a network namespace"),
            }
        })?;
        let flags = fs::OFlags::RDONLY;
        let network = fs::openat(fs::CWD, c"/proc/self/ns/net", flags, fs::Mode::empty());
        let network = leak(network.context("open \"/proc/self/ns/net\"")?);
        match self.conversation.hand_over(network) {
            Err(fault) if matches!(fault.errno, Errno::PIPE | Errno::CONNRESET) => Ok(()),
            result => result.context("hand the network namespace to the child"),
        }
    }

    /// These signals are ignored by whoever called us, and shall not be by the container.
    pub fn unignore(&mut self, signals: u32) {
        self.conversation.set_ignored(signals);
    }

    /// Lets a child that waits for its parent go on. One that has failed already says why when it is asked next.
    pub fn proceed(&self) -> Result<()> {
        match self.conversation.proceed() {
            Err(fault) if matches!(fault.errno, Errno::PIPE | Errno::CONNRESET) => Ok(()),
            result => result.context("let the child go on"),
        }
    }

    /// Does to the child what it may not do to itself from inside its user namespace.
    pub fn perform_outside(&self) -> Result<()> {
        let mut context = identity::Context::of(self.pid.as_raw_nonzero().get());
        for step in &self.plan.outside {
            identity::perform(step, &self.plan.image, &mut context).map_err(|fault| {
                let advice = step.advice(fault).map(|advice| format!(" ({advice})")).unwrap_or_default();
                anyhow!("{step}: {fault}{advice}")
            })?;
        }
        Ok(())
    }

    /// Talks to the child until it has come as far as `milestone`.
    pub fn until(
        &self,
        milestone: Milestone,
        answer: &mut dyn FnMut(Question) -> Result<Reply>,
    ) -> Result<()> {
        self.conversation.until(milestone, answer).map_err(|trouble| self.explain(trouble))
    }

    /// Waits until the program of a child that asks nothing on the way runs.
    pub fn until_silent(&self) -> Result<()> {
        self.conversation.until_silent().map_err(|trouble| self.explain(trouble))
    }

    /// The child may live on without us.
    pub fn release(&mut self) {
        self.released = true;
    }

    /// The trouble in words; for a child that just ended, how it ended.
    fn explain(&self, trouble: Trouble) -> anyhow::Error {
        match trouble {
            Trouble::Fault { step, fault, .. } => self.plan.explain(step, fault),
            Trouble::Closed => anyhow!("init died during setup{}", self.last_words()),
            Trouble::Other(error) => error,
        }
    }

    fn last_words(&self) -> String {
        match process::wait(&self.pidfd) {
            Ok(process::Exit::Signal(signal)) => format!(": killed by signal {signal}"),
            Ok(process::Exit::Code(code)) => format!(": exit code {code}"),
            Err(_) => String::new(),
        }
    }
}

impl Drop for Launch<'_> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        // A child that is already gone cannot be killed, and that is what is wanted.
        if process::pidfd_send_signal(&self.pidfd, 9).is_ok() {
            // Not reaped means reaped before.
            process::wait(&self.pidfd).ok();
        }
    }
}
