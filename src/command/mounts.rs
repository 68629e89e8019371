//! `mounts add|remove`: other mounts for a living container.

use anyhow::{Context, Result};

use super::{bundle, kill};
use crate::cgroup::Cgroup;
use crate::cli::{self, Global};
use crate::container::{Action, Container, require};
use crate::error::Failure;
use crate::launch::rootfs::{self, Change};
use crate::launch::{self, Handover, Milestone, MountChange, Plan, identity};
use crate::spec::{self, Spec};
use crate::sys::clone::namespace;
use crate::sys::{AsRawFd, OwnedFd, process};
use crate::trial;

pub fn run(global: &Global, arguments: &cli::Mounts) -> Result<()> {
    let change = match arguments.action.as_str() {
        "add" => Change::Add,
        "remove" => Change::Remove,
        other => return Err(Failure::usage(format!("mounts {other:?}: not one of add and remove")).into()),
    };
    let container = super::store(global)?.load(&arguments.id)?;
    let bytes = bundle::read(&arguments.file)?;
    let mounts = spec::load_mounts(&bytes).with_context(|| format!("{:?}", arguments.file))?;
    let config = container.config()?;
    let mut spec = spec::load(&config)?;
    spec.mounts = mounts;
    spec::validate(&spec).with_context(|| format!("{:?}", arguments.file))?;

    let _lock = container.lock()?;
    require(Action::Mounts, container.id(), super::status(&container)?)?;
    let init = kill::open_init(&container)?.context("the container has ended just now")?;
    trial::point("plan")?;
    #[cfg_attr(not(debug_assertions), expect(unused_mut, reason = "only trials change it"))]
    let mut plan = plan(&container, &init, change, &spec)?;
    #[cfg(debug_assertions)]
    trial::step().into_iter().for_each(|number| plan.fail_at(number));
    super::announce(&plan);
    trial::point("clone")?;
    let handover = Handover { cgroup: None, listener: None, console: None, lock: None, state: &mut [] };
    let mut launch = launch::begin(&plan, handover)?;
    trial::point("wait for the child")?;
    launch.until(Milestone::Running, &mut |question| anyhow::bail!("the child asks for {question:?}"))?;
    process::wait(&launch.pidfd).context("wait for the child")?;
    launch.release();
    Ok(())
}

fn plan(container: &Container, init: &OwnedFd, change: Change, spec: &Spec<'_>) -> Result<Plan> {
    let record = &container.record;
    let label = spec.linux.as_ref().is_some_and(|linux| !linux.mount_label.is_empty());
    let user_namespace = format!("/proc/{}/ns/user", record.pid);
    let cgroup = record.cgroup.as_ref().map(super::cgroup).transpose()?.flatten();
    let cgroup = cgroup.as_ref().map(Cgroup::full);
    let privileged = process::effective_uid() == 0;
    let facts = rootfs::Facts {
        bundle: &record.bundle,
        root: &record.rootfs,
        namespaces: record.namespaces,
        user_namespace: (record.namespaces & namespace::USER != 0).then_some(user_namespace.as_str()),
        privileged,
        cgroup: cgroup.as_deref(),
        selinux: label && identity::selinux_enabled(),
        no_pivot: false,
        mountinfo: "",
    };
    let rootfs = rootfs::plan_change(change, spec, &facts)?;
    Ok(Plan::mount_change(MountChange {
        kinds: record.namespaces,
        pidfd: init.as_raw_fd(),
        sources: rootfs::open_sources(&rootfs)?,
        rootfs,
        privileged,
    }))
}
