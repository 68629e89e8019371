//! Writing limits, and reading what they build on.

use anyhow::{Result, bail};

use super::limits::{Facts, Otherwise, Write};
use super::{Cgroup, c_name, read_file, write_file};
use crate::spec::Resources;
use crate::sys::{AsFd, Errno, Fault, Reason};

/// Writes `writes` in their order; the first that fails ends it.
pub fn apply(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let mut again = Vec::new();
    for write in writes {
        match (put(cgroup, write), &write.otherwise) {
            (Ok(()), _) => {}
            (Err(fault), Otherwise::SkipIfMissing) if fault.errno == Errno::NOENT => {}
            (Err(fault), Otherwise::AgainLater) if fault.errno == Errno::INVAL => again.push(write),
            (Err(fault), Otherwise::IfMissing(instead)) if fault.errno == Errno::NOENT => {
                put(cgroup, instead).map_err(|fault| explain(cgroup, instead, fault))?;
            }
            (Err(fault), _) => return Err(explain(cgroup, write, fault)),
        }
    }
    for write in again {
        put(cgroup, write).map_err(|fault| explain(cgroup, write, fault))?;
    }
    Ok(())
}

/// As `apply`, for a cgroup in use: when a write fails, those before it are taken back, as far as the kernel
/// lets us, so that an update happens as a whole or not at all.
pub fn replace(cgroup: &Cgroup, writes: &[Write]) -> Result<()> {
    let before: Vec<Write> = writes.iter().filter_map(|write| present(cgroup, write)).collect();
    apply(cgroup, writes).inspect_err(|_| {
        // Twice, because one value may stand in the way of another; and what cannot be taken back is less
        // worth telling than what failed.
        for write in before.iter().rev().chain(before.iter().rev()) {
            let _best_effort = put(cgroup, write);
        }
    })
}

/// The write that would bring back what a file has now. Tables, with a line for each device, are not undone.
fn present(cgroup: &Cgroup, write: &Write) -> Option<Write> {
    let content = read_file(cgroup.as_fd(), &c_name(&write.file)).ok()?;
    let line = content.trim_end();
    let is_table = write.file.starts_with("io.") || write.file.starts_with("rdma.") || line.contains('\n');
    (!is_table).then(|| Write::new(write.file.clone(), format!("{line}\n")))
}

fn put(cgroup: &Cgroup, write: &Write) -> Result<(), Fault> {
    write_file(cgroup.as_fd(), &c_name(&write.file), &write.value)
}

fn explain(cgroup: &Cgroup, write: &Write, fault: Fault) -> anyhow::Error {
    let cause = match (fault.errno, write.controller()) {
        (Errno::NOENT | Errno::ACCESS | Errno::PERM, Some(controller)) => absent(cgroup, controller),
        _ => None,
    };
    let file = format!("{}/{}", cgroup.full(), write.file);
    let hint = cause.unwrap_or_default();
    anyhow::anyhow!("write {:?} to {file:?}: {}{hint}", write.value, Reason(fault.errno))
}

/// Why a controller's file is not there.
fn absent(cgroup: &Cgroup, controller: &str) -> Option<String> {
    let present = cgroup.controllers().ok()?;
    let there = present.split_whitespace().any(|name| name == controller);
    (!there).then(|| {
        let present = if present.trim().is_empty() { "none" } else { present.trim_end() };
        format!(" (controller {controller:?} not available; this cgroup has: {present})")
    })
}

impl Facts {
    /// Reads what an update of an existing cgroup builds on, and nothing else.
    pub fn read(cgroup: &Cgroup, resources: &Resources) -> Result<Self> {
        let mut facts = Self::default();
        if let Some(memory) = &resources.memory {
            if memory.swap.is_some_and(|swap| swap > 0) && memory.limit.unwrap_or(0) == 0 {
                facts.memory_limit = value(cgroup, "memory.max")?.map(|limit| limit.parse().unwrap_or(-1));
            }
            if memory.check_before_update == Some(true) {
                facts.memory_usage = value(cgroup, "memory.current")?.and_then(|usage| usage.parse().ok());
            }
        }
        if let Some(cpu) = &resources.cpu {
            if cpu.period.unwrap_or(0) != 0 && cpu.quota.unwrap_or(0) == 0 {
                facts.cpu_quota = value(cgroup, "cpu.max")?;
            }
        }
        Ok(facts)
    }
}

/// The first word of a file; None where it does not exist.
fn value(cgroup: &Cgroup, name: &str) -> Result<Option<String>> {
    match read_file(cgroup.as_fd(), &c_name(name)) {
        Ok(content) => Ok(content.split_whitespace().next().map(str::to_owned)),
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        Err(fault) => bail!("read \"{}/{name}\": {}", cgroup.full(), Reason(fault.errno)),
    }
}
