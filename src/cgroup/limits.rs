//! `linux.resources` -> the control files to write and what to write to them. Pure.
//!
//! OCI resources speak cgroup v1; the conversions are the ones runc uses, so that a container gets the same
//! limits from either. A value that is absent, or that means "unset" in v1, writes nothing. What cgroup v2
//! cannot do is refused by name, except where the value asks for what v2 does anyway.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Result, bail};

use super::io;
use crate::spec::{Cpu, HugepageLimit, Memory, Network, Pids, Resources, Str};

/// One value for one control file.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub file: Cow<'static, str>,
    pub value: String,
    pub otherwise: Otherwise,
}

/// What happens when the kernel does not take a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Otherwise {
    Fail,
    /// Without the file there is nothing to limit.
    SkipIfMissing,
    /// Invalid only until a later write went through; tried again at the end.
    AgainLater,
    /// Without the file, this one.
    IfMissing(Box<Write>),
}

impl Write {
    pub fn new(file: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self { file: file.into(), value: value.into(), otherwise: Otherwise::Fail }
    }

    pub fn or(self, otherwise: Otherwise) -> Self {
        Self { otherwise, ..self }
    }

    /// The controller the file belongs to; None for the core's own files.
    pub fn controller(&self) -> Option<&str> {
        let controller = self.file.split('.').next().unwrap_or_default();
        (controller != "cgroup").then_some(controller)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.file, self.value)
    }
}

/// What an existing cgroup has now, as far as the request depends on it. All absent for a new one.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Facts {
    /// memory.max; -1: no limit.
    pub memory_limit: Option<i64>,
    /// memory.current
    pub memory_usage: Option<u64>,
    /// The first word of cpu.max.
    pub cpu_quota: Option<String>,
}

/// The writes that carry out `resources`, in the order to do them.
pub fn writes(resources: &Resources, facts: &Facts) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, facts, &mut writes)?;
    }
    if let Some(memory) = &resources.memory {
        self::memory(memory, facts, &mut writes)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|Pids { limit }| *limit) {
        writes.push(Write::new("pids.max", pids_max(limit)));
    }
    if let Some(block) = &resources.block_io {
        io::writes(block, &mut writes)?;
    }
    for limit in &resources.hugepage_limits {
        hugetlb(limit, &mut writes)?;
    }
    for (device, limits) in &resources.rdma {
        if device.is_empty() || device.contains(char::is_whitespace) {
            bail!("rdma: {device:?} is not the name of a device");
        }
        let mut value = device.to_string();
        for (name, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(limit) = limit {
                value += &format!(" {name}={limit}");
            }
        }
        if value.len() > device.len() {
            writes.push(Write::new("rdma.max", value));
        }
    }
    if let Some(network) = &resources.network {
        self::network(network)?;
    }
    for (file, value) in &resources.unified {
        unified(file, value, &mut writes)?;
    }
    Ok(writes)
}

/// The controllers `writes` needs, each once.
pub fn controllers(writes: &[Write]) -> Vec<&str> {
    let mut names: Vec<&str> = writes.iter().filter_map(Write::controller).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn refuse(what: &str, instead: &str) -> Result<()> {
    bail!("{what} does not exist in cgroup v2{instead}")
}

/// cpu.weight for cpu.shares: a quadratic curve through (2, 1), (1024, 100) and (262144, 10000) in
/// logarithms. None: unset.
pub fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let logarithm = (shares as f64).log2();
            let exponent = (logarithm * logarithm + 125.0 * logarithm) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

fn cpu(cpu: &Cpu, facts: &Facts, writes: &mut Vec<Write>) -> Result<()> {
    if cpu.realtime_runtime.is_some_and(|runtime| runtime != 0) {
        refuse("cpu.realtimeRuntime", "")?;
    }
    if cpu.realtime_period.is_some_and(|period| period != 0) {
        refuse("cpu.realtimePeriod", "")?;
    }
    let weight = cpu.shares.and_then(cpu_weight);
    if cpu.idle == Some(1) && weight.is_some() {
        bail!("cpu.shares and cpu.idle exclude each other: an idle cgroup has no weight");
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle.to_string()));
    }
    if let Some(weight) = weight {
        writes.push(Write::new("cpu.weight", weight.to_string()));
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    let limited = quota != 0 || period != 0;
    if let Some(burst) = cpu.burst {
        let write = Write::new("cpu.max.burst", burst.to_string());
        // A burst may exceed neither the quota before nor the quota after: whichever order is right, the
        // burst is tried first and, where that was wrong, last.
        writes.push(if limited { write.or(Otherwise::AgainLater) } else { write });
    }
    if limited {
        writes.push(Write::new("cpu.max", cpu_max(quota, period, facts)));
    }
    if let Some(cpus) = cpu.cpus.as_ref().filter(|cpus| !cpus.is_empty()) {
        writes.push(Write::new("cpuset.cpus", cpus.as_str()));
    }
    if let Some(mems) = cpu.mems.as_ref().filter(|mems| !mems.is_empty()) {
        writes.push(Write::new("cpuset.mems", mems.as_str()));
    }
    Ok(())
}

/// A quota alone leaves the period as it is, which the kernel does by itself.
fn cpu_max(quota: i64, period: u64, facts: &Facts) -> String {
    let quota: Cow<str> = match quota {
        0 => facts.cpu_quota.as_deref().unwrap_or("max").into(),
        1.. => quota.to_string().into(),
        _ => "max".into(),
    };
    if period == 0 { quota.into_owned() } else { format!("{quota} {period}") }
}

/// A limit as v2 writes it: zero is unset, -1 is none.
fn limit(name: &str, value: Option<i64>) -> Result<Option<String>> {
    Ok(match value {
        None | Some(0) => None,
        Some(-1) => Some("max".to_owned()),
        Some(bytes @ 1..) => Some(bytes.to_string()),
        Some(bytes) => bail!("invalid memory.{name} {bytes}"),
    })
}

fn memory(memory: &Memory, facts: &Facts, writes: &mut Vec<Write>) -> Result<()> {
    for (name, value) in [("kernel", memory.kernel), ("kernelTCP", memory.kernel_tcp)] {
        // Engines that still know these send 0 or -1 for "no limit of its own".
        if value.is_some_and(|value| value > 0) {
            refuse(&format!("memory.{name}"), ": kernel memory counts towards memory.limit")?;
        }
    }
    if memory.swappiness.is_some() {
        refuse("memory.swappiness", "")?;
    }
    if memory.disable_oom_killer == Some(true) {
        refuse("memory.disableOOMKiller", "")?;
    }
    check_usage(memory, facts)?;
    // Swap goes first: a smaller memory limit may push pages there.
    if let Some(value) = swap_max(memory, facts)? {
        let unneeded = value == "max" || value == "0";
        let write = Write::new("memory.swap.max", value);
        writes.push(if unneeded { write.or(Otherwise::SkipIfMissing) } else { write });
    }
    if let Some(value) = limit("limit", memory.limit)? {
        writes.push(Write::new("memory.max", value));
    }
    if let Some(value) = limit("reservation", memory.reservation)? {
        writes.push(Write::new("memory.low", value));
    }
    Ok(())
}

/// memory.swap counts memory and swap together, memory.swap.max swap alone.
fn swap_max(memory: &Memory, facts: &Facts) -> Result<Option<String>> {
    let asked = memory.limit.unwrap_or(0);
    Ok(match memory.swap.unwrap_or(0) {
        // Without a limit on memory there is none on both.
        0 if asked == -1 => Some("max".to_owned()),
        // Beside a limit zero says nothing, as with engines that send every number; alone it can only mean no swap.
        0 => (memory.swap.is_some() && memory.limit.is_none()).then(|| "0".to_owned()),
        -1 => Some("max".to_owned()),
        swap if swap < 0 => bail!("invalid memory.swap {swap}"),
        swap if asked == -1 => Some(swap.to_string()),
        swap => {
            let limit = if asked != 0 { asked } else { facts.memory_limit.unwrap_or(0) };
            if limit <= 0 {
                bail!("unable to set swap limit without memory limit");
            }
            if swap < limit {
                bail!("memory+swap limit should be >= memory limit");
            }
            Some((swap - limit).to_string())
        }
    })
}

fn check_usage(memory: &Memory, facts: &Facts) -> Result<()> {
    let (Some(true), Some(usage)) = (memory.check_before_update, facts.memory_usage) else {
        return Ok(());
    };
    for (name, value) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
        if let Some(value) = value.filter(|value| *value > 0) {
            if value as u64 <= usage {
                bail!("rejecting {name} limit {value} <= usage {usage}");
            }
        }
    }
    Ok(())
}

/// Zero becomes one, as systemd has it: a cgroup without a single process is not what anybody means.
fn pids_max(limit: i64) -> String {
    match limit {
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    }
}

fn hugetlb(limit: &HugepageLimit, writes: &mut Vec<Write>) -> Result<()> {
    let size = limit.page_size.as_str();
    let number = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    if !number.is_some_and(|n| !n.starts_with('0') && !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    {
        bail!("hugepageLimits: {size:?} is not a page size such as 2MB");
    }
    let value = limit.limit.to_string();
    writes.push(Write::new(format!("hugetlb.{size}.max"), value.clone()));
    // Reservations are limited too where the kernel (5.7) can.
    writes.push(Write::new(format!("hugetlb.{size}.rsvd.max"), value).or(Otherwise::SkipIfMissing));
    Ok(())
}

fn network(network: &Network) -> Result<()> {
    if network.class_id.is_some_and(|id| id != 0) {
        refuse("network.classID", "")?;
    }
    if !network.priorities.is_empty() {
        refuse("network.priorities", "")?;
    }
    Ok(())
}

/// Files of the core that do something instead of limiting something.
const ACTIONS: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze"];

fn unified(file: &Str, value: &Str, writes: &mut Vec<Write>) -> Result<()> {
    if file.contains('/') {
        bail!("unified resource {:?} must be a file name (no slashes)", file.as_str());
    }
    match file.split_once('.') {
        Some((controller, parameter)) if !controller.is_empty() && !parameter.is_empty() => {}
        _ => bail!("unified resource {:?} must be in the form CONTROLLER.PARAMETER", file.as_str()),
    }
    if ACTIONS.contains(&file.as_str()) {
        bail!("unified resource {:?} is not a limit", file.as_str());
    }
    // Files such as io.max take one line per write.
    let lines = value.split('\n').filter(|line| !line.is_empty());
    let before = writes.len();
    writes.extend(lines.map(|line| Write::new(file.to_string(), line)));
    if writes.len() == before {
        writes.push(Write::new(file.to_string(), ""));
    }
    Ok(())
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
