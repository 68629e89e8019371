//! `kill`: a signal to init, or to everything in the container.

use anyhow::{Result, anyhow};

use crate::cli::{self, Signal};
use crate::container::{Action, Container, Status, require};
use crate::sys::process::{self, Pid};
use crate::sys::{Errno, OwnedFd};

pub fn run(global: &cli::Global, arguments: &cli::Kill) -> Result<()> {
    let store = super::store(global)?;
    let ids = super::selected(&store, &arguments.id, arguments.regex)?;
    let signal = arguments.signal.unwrap_or(Signal::TERM);
    super::each(&ids, |id| {
        let container = store.load(id)?;
        match arguments.all {
            true => signal_all(&container, signal),
            // Without a pid namespace of its own nothing ends with init, so that KILL has to reach everyone.
            false if signal == Signal::KILL && !container.record.own_pids => signal_all(&container, signal),
            false => signal_init(&container, signal),
        }
    })
}

/// Everyone in the cgroup, also when init has ended; a container without processes is content with any signal.
fn signal_all(container: &Container, signal: Signal) -> Result<()> {
    let Some(place) = &container.record.cgroup else { return signal_init(container, signal) };
    let Some(cgroup) = super::cgroup(place)? else { return Ok(()) };
    match signal {
        Signal::KILL => cgroup.kill_all(),
        Signal(number) => cgroup.signal_all(number).map(drop),
    }
}

fn signal_init(container: &Container, signal: Signal) -> Result<()> {
    match open_init(container)? {
        Some(pidfd) => send(&pidfd, signal),
        None => require(Action::Kill, container.id(), Status::Stopped),
    }
}

fn send(pidfd: &OwnedFd, signal: Signal) -> Result<()> {
    process::pidfd_send_signal(pidfd, signal.0).map_err(|fault| match fault.errno {
        Errno::SRCH => anyhow!("container not running: no such process"),
        _ => anyhow!("unable to signal init: {fault}"),
    })
}

/// The container's init, held so that no other process can take its place; None: it has ended.
pub fn open_init(container: &Container) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(container.record.pid) else { return Ok(None) };
    let found = process::pidfd_find(pid);
    let found = found.map_err(|fault| anyhow!("open init, process {}: {fault}", container.record.pid))?;
    let Some(pidfd) = found else { return Ok(None) };
    // Looked at after it was opened: what is true now stays true of this descriptor.
    Ok(container.living_pid()?.map(|_| pidfd))
}
