//! Putting a device program on a cgroup, without a moment in which none is there.

use anyhow::{Result, bail};

use super::Cgroup;
use super::devices::Filter;
use crate::sys::bpf::{self, LockedMemory};
use crate::sys::{AsFd, Errno, Fault, OwnedFd, Reason, leak};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    Yes,
    /// This process may not use bpf(2), and it has no more rights over devices than the container will.
    NotPermitted,
}

/// Attaches the program of `filter`. For users and in a user namespace (`confined`) bpf(2) is usually forbidden; there
/// the kernel itself refuses to make nodes of real devices, so the container goes without, as runc and crun do.
/// For everybody else a program that cannot be attached is an error.
pub fn attach(cgroup: &Cgroup, filter: &Filter, confined: impl FnOnce() -> bool) -> Result<Attached> {
    let result = if cgroup.is_new() { add(cgroup, filter) } else { replace(cgroup, filter) };
    match result {
        Ok(()) => Ok(Attached::Yes),
        Err(fault) if matches!(fault.errno, Errno::PERM | Errno::ACCESS | Errno::NOSYS) && confined() => {
            Ok(Attached::NotPermitted)
        }
        Err(fault) => {
            let hint = match fault.errno {
                Errno::NOSYS | Errno::INVAL => " (the kernel needs CONFIG_CGROUP_BPF)",
                _ => "",
            };
            bail!("attach the device program to {:?}: bpf: {}{hint}", cgroup.full(), Reason(fault.errno))
        }
    }
}

fn load(filter: &Filter) -> Result<OwnedFd, Fault> {
    let program = filter.program();
    match bpf::load_device_program(&program) {
        Err(fault) if matches!(fault.errno, Errno::PERM | Errno::NOMEM) => {
            let _limit = LockedMemory::raise();
            bpf::load_device_program(&program)
        }
        result => result,
    }
}

fn add(cgroup: &Cgroup, filter: &Filter) -> Result<(), Fault> {
    bpf::attach_device_program(cgroup, leak(load(filter)?), None)
}

/// A single program is replaced in one step. Of several, or on an old kernel, the new one is added before
/// the old ones go: a program beside another can only deny more.
fn replace(cgroup: &Cgroup, filter: &Filter) -> Result<(), Fault> {
    let mut ids = [0; 64];
    let count = bpf::device_programs(cgroup, &mut ids)?;
    let mut present = Vec::new();
    for id in &ids[..count] {
        match bpf::program_by_id(*id) {
            Ok(program) => present.push(program),
            // Somebody else's, hidden by a security module, or gone in the meantime.
            Err(fault) if matches!(fault.errno, Errno::PERM | Errno::ACCESS | Errno::NOENT) => {}
            Err(fault) => return Err(fault),
        }
    }
    let program = load(filter)?;
    if let ([only], 1) = (&present[..], count) {
        match bpf::attach_device_program(cgroup, &program, Some(only.as_fd())) {
            Err(fault) if fault.errno == Errno::INVAL => {}
            result => return result,
        }
    }
    bpf::attach_device_program(cgroup, &program, None)?;
    for old in &present {
        bpf::detach_device_program(cgroup, old)?;
    }
    Ok(())
}
