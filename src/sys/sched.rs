//! How much a process may use and when it runs: limits, scheduler, processors, memory nodes, personality.
//!
//! A process id of 0 is the caller.

use super::{Call, Result, last_errno};

/// What sched_setattr takes, in the kernel's layout of version 1.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Filled in by the call.
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

pub fn sched_setattr(pid: i32, attributes: &SchedulerAttributes) -> Result<()> {
    let sized = SchedulerAttributes { size: size_of::<SchedulerAttributes>() as u32, ..*attributes };
    // SAFETY: the kernel reads as many bytes as the structure says it has.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const sized, 0) };
    if result < 0 { Err(Call::SchedSetattr.fault(last_errno())) } else { Ok(()) }
}

/// The processors a process may run on, bit N of the bytes for processor N, in whole machine words.
pub fn sched_setaffinity(pid: i32, mask: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads at most `len` bytes.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, mask.len(), mask.as_ptr()) };
    if result < 0 { Err(Call::SchedSetaffinity.fault(last_errno())) } else { Ok(()) }
}

/// `priority` is the class in the upper and the level in the lower bits.
pub fn ioprio_set(pid: i32, priority: u32) -> Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, priority) };
    if result < 0 { Err(Call::IoPrioritySet.fault(last_errno())) } else { Ok(()) }
}

/// `mode` with its flags, and the memory nodes as bits.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        // The kernel looks at one bit less than it is told of.
        nodes => (nodes.as_ptr(), nodes.len() * 64 + 1),
    };
    // SAFETY: the kernel reads `bits - 1` bits from the mask, which are as many as the slice has.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    if result < 0 { Err(Call::SetMempolicy.fault(last_errno())) } else { Ok(()) }
}

pub fn personality(domain: u64) -> Result<()> {
    // SAFETY: only how the kernel answers later calls changes.
    let result = unsafe { libc::syscall(libc::SYS_personality, domain) };
    if result < 0 { Err(Call::Personality.fault(last_errno())) } else { Ok(()) }
}

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Sets the limit of `resource`, when one is given, and tells what it was.
pub fn prlimit(pid: i32, resource: u32, new: Option<Limit>) -> Result<Limit> {
    let mut old = Limit::default();
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: prlimit64 reads two u64 where it is not given null and writes two u64.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut old) };
    if result < 0 { Err(Call::Prlimit.fault(last_errno())) } else { Ok(old) }
}
