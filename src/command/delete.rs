//! `delete`: ends what still runs, where that is allowed, and removes everything that was made.
//!
//! The order is the one in which nothing is lost when deja itself is killed: processes, cgroup, hooks, and last
//! the directory, without which nobody could try again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::birth;
use super::host_root;
use super::kill::open_init;
use crate::cgroup;
use crate::cli;
use crate::container::{Action, CgroupPlace, Container, Status, Store, require};
use crate::error::{self, Kind};
use crate::hook::{self, Moment};
use crate::log;
use crate::rdt;
use crate::spec;
use crate::sys::event::{self, Interest};
use crate::sys::process;
use crate::sys::{AsFd, Errno, OwnedFd};
use crate::trial;

const KILL: i32 = 9;

/// How long killed processes may take to end.
const WITHIN: Duration = Duration::from_secs(10);

/// How long somebody else may keep the container: a creator notices soon that what it made was killed.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn run(global: &cli::Global, arguments: &cli::Delete) -> Result<()> {
    let store = super::store(global)?;
    let ids = super::selected(&store, &arguments.id, arguments.regex)?;
    super::each(&ids, |id| match store.load(id) {
        Ok(container) if arguments.force => force(container),
        Ok(container) => delete(&store, container),
        Err(failure) if arguments.force => salvage(&store, id, failure),
        Err(failure) => Err(failure),
    })
}

fn delete(store: &Store, container: Container) -> Result<()> {
    let Some(_lock) = container.lock_within(PATIENCE)? else {
        require(Action::Delete, container.id(), super::status(&container)?)?;
        bail!("container {:?} is busy: another deja works on it", container.id());
    };
    // Whoever was still making it has finished, or has died: nobody does that without the lock.
    let container = if container.record.pid == 0 { store.load(container.id())? } else { container };
    let status = if container.record.pid == 0 { Status::Stopped } else { super::status(&container)? };
    require(Action::Delete, container.id(), status)?;
    if status == Status::Created || !container.record.own_pids {
        kill(&container)?;
    }
    remove(container)
}

pub fn force(container: Container) -> Result<()> {
    kill(&container)?;
    // Who held it worked with the processes that have just been killed, and gives up soon; or hangs, and then
    // must not keep us.
    let _lock = container.lock_within(PATIENCE).ok().flatten();
    // A create that was under way may have got further meanwhile.
    kill_cgroup(&container)?;
    remove(container)
}

/// Init first, by descriptor; then whoever else is in the cgroup.
pub fn kill(container: &Container) -> Result<()> {
    trial::point("kill init")?;
    let init = open_init(container)?;
    match init.as_ref().map(|init| process::pidfd_send_signal(init, KILL)) {
        Some(Err(fault)) if fault.errno != Errno::SRCH => {
            return Err(anyhow!("kill init of container {:?}: {fault}", container.id()));
        }
        _ => {
            trial::point("kill the cgroup")?;
            kill_cgroup(container)?;
        }
    }
    match init {
        Some(init) => wait(&init).with_context(|| format!("kill container {:?}", container.id())),
        None => Ok(()),
    }
}

/// Its parent may be somebody else, so that the descriptor can only be watched.
fn wait(init: &OwnedFd) -> Result<()> {
    let [ended] = event::poll([(init.as_fd(), Interest::Read)], Some(WITHIN)).context("wait for init")?;
    if !ended {
        bail!("container init still running");
    }
    Ok(())
}

pub fn kill_cgroup(container: &Container) -> Result<()> {
    match container.record.cgroup.as_ref().map(super::cgroup).transpose()?.flatten() {
        Some(cgroup) => cgroup.kill_all(),
        None => Ok(()),
    }
}

/// The container's init has ended and been reaped by us.
pub fn ended(container: Container) -> Result<()> {
    match container.lock() {
        // This process has nothing more to do; the lock goes with it.
        Ok(lock) => std::mem::forget(lock),
        // A checkpoint has ended it, and deleted it meanwhile.
        Err(failure) if error::kind(&failure) == Some(Kind::NotFound) => return Ok(()),
        Err(failure) => return Err(failure),
    }
    if !container.record.own_pids {
        kill_cgroup(&container)?;
    }
    remove(container)
}

/// Nothing runs any more: what is left are a cgroup, hooks that wait for this moment, and the directory.
pub fn remove(container: Container) -> Result<()> {
    trial::point("remove the cgroup")?;
    if let Some(place) = &container.record.cgroup {
        remove_cgroup(place)?;
        stop_unit(place);
    }
    if let Some(place) = &container.record.host_root {
        trial::point("take the mounts off the host")?;
        host_root::detach(place)?;
    }
    if let Some(place) = &container.record.rdt {
        rdt::remove(&place.made)?;
    }
    trial::point("run poststop hooks")?;
    if container.record.has_hooks {
        if let Err(failure) = poststop(&container) {
            // The container is gone all the same; nothing could be done about it.
            log::warning(&format!("poststop: {}", error::sentence(&failure)));
        }
    }
    trial::point("remove the record")?;
    container.remove()
}

fn poststop(container: &Container) -> Result<()> {
    let config = container.config()?;
    let spec = spec::load(&config)?;
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let state = birth::state(&container.record, Status::Stopped)?;
    let files = hook::Files::open(&spec.annotations)?;
    let bundle = Path::new(&container.record.bundle);
    // One that fails does not keep the others from running.
    let run = |hook| hook::run_all(std::slice::from_ref(hook), &state, bundle, &files);
    let results = hook::prepare(hooks, Moment::Poststop, &[]).iter().map(run).collect::<Vec<_>>();
    results.into_iter().collect()
}

fn remove_cgroup(place: &CgroupPlace) -> Result<()> {
    if place.made.is_empty() {
        return Ok(());
    }
    if !cgroup::remove_empty(&place.mount, &place.path) {
        let Some(mount) = super::mount(place)? else { return Ok(()) };
        cgroup::remove(&mount, &place.path, WITHIN).context("unable to remove container's cgroup")?;
    }
    cgroup::remove_parents(&place.mount, &place.path, &place.made);
    Ok(())
}

/// The scope goes with its last process; this waits until its name is free, and ends what a create that was killed
/// has left in a scope whose place nobody had learnt.
fn stop_unit(place: &CgroupPlace) {
    if place.unit.is_empty() {
        return;
    }
    if let Err(failure) = super::systemd().and_then(|manager| manager.stop(&place.unit)) {
        // What ran in it is gone, and systemd will find that out by itself.
        log::warning(&error::sentence(&failure));
    }
}

/// The record cannot be read as a whole, or there is none: what it still says is ended and removed.
fn salvage(store: &Store, id: &str, failure: anyhow::Error) -> Result<()> {
    let Some(remains) = store.remains(id)? else {
        // Nothing there is what was wanted.
        let nothing = error::kind(&failure) == Some(Kind::NotFound);
        return if nothing { Ok(()) } else { Err(failure) };
    };
    log::warning(&format!("{}; deleting what there is", error::sentence(&failure)));
    force(remains)
}
