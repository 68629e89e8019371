//! When and where the process runs: scheduler, I/O priority, processors, memory nodes, personality.
//! Names and lists of the config become the numbers of the system calls; nothing here touches the machine.

use anyhow::{Context, Result, bail, ensure};

use crate::spec::{IoPriority, MemoryPolicy, Personality, Scheduler, Str};
use crate::sys::sched::SchedulerAttributes;

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// Without the prefix; the spec writes `SCHED_FLAG_`, some tools write `SCHED_`.
const FLAGS: [(&str, u64); 7] = [
    ("RESET_ON_FORK", 0x01),
    ("RECLAIM", 0x02),
    ("DL_OVERRUN", 0x04),
    ("KEEP_POLICY", 0x08),
    ("KEEP_PARAMS", 0x10),
    ("UTIL_CLAMP_MIN", 0x20),
    ("UTIL_CLAMP_MAX", 0x40),
];

pub fn scheduler(asked: &Scheduler<'_>) -> Result<SchedulerAttributes> {
    let policy = &asked.policy;
    ensure!(!policy.is_empty(), "scheduler policy is required");
    let number = POLICIES.iter().find(|(name, _)| policy == name).map(|(_, number)| *number);
    let number = number.with_context(|| format!("invalid scheduler policy: {policy}"))?;
    let nice = asked.nice.unwrap_or(0);
    ensure!((-20..=19).contains(&nice), "invalid scheduler.nice: {nice}");
    let priority = asked.priority.unwrap_or(0);
    if matches!(number, 1 | 2) {
        ensure!((0..=99).contains(&priority), "invalid scheduler.priority: {priority}");
    } else {
        ensure!(priority == 0, "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy");
    }
    let deadline = [asked.runtime, asked.deadline, asked.period].map(Option::unwrap_or_default);
    if number != 6 {
        ensure!(
            deadline == [0; 3],
            "scheduler runtime/deadline/period can only be specified for SCHED_DEADLINE policy"
        );
    }
    let mut flags = 0;
    for flag in &asked.flags {
        let bare = flag.strip_prefix("SCHED_FLAG_").or_else(|| flag.strip_prefix("SCHED_"));
        let bit = FLAGS.iter().find(|(name, _)| bare == Some(name)).map(|(_, bit)| bit);
        flags |= bit.with_context(|| format!("invalid scheduler flag: {flag}"))?;
    }
    let [runtime, deadline, period] = deadline;
    let mut attributes = SchedulerAttributes { policy: number, flags, nice, ..Default::default() };
    (attributes.priority, attributes.runtime) = (priority as u32, runtime);
    (attributes.deadline, attributes.period) = (deadline, period);
    Ok(attributes)
}

pub fn io_priority(asked: &IoPriority<'_>) -> Result<u32> {
    let class = match asked.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => bail!("invalid ioPriority.class: {other}"),
    };
    let priority = asked.priority;
    ensure!((0..=7).contains(&priority), "invalid ioPriority.priority: {priority}");
    Ok(class << 13 | priority as u32)
}

/// The highest number a list of processors or nodes may name: 1024 bytes of mask.
const LIST_MAX: usize = 8191;

/// `0-3,7` as bits in whole 64-bit words.
fn list(text: &str) -> Result<Vec<u64>> {
    let number = |text: &str| -> Result<usize> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.filter(|n| *n <= LIST_MAX).with_context(|| format!("invalid number {text:?}"))
    };
    let mut words = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        ensure!(first <= last, "invalid range {part:?}");
        if words.len() <= last / 64 {
            words.resize(last / 64 + 1, 0u64);
        }
        (first..=last).for_each(|bit| words[bit / 64] |= 1 << (bit % 64));
    }
    Ok(words)
}

/// A mask for sched_setaffinity.
pub fn processors(text: &str) -> Result<Vec<u8>> {
    let words = list(text).with_context(|| format!("execCPUAffinity {text:?}"))?;
    Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

const MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MODE_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// The words of `linux.memoryPolicy.mode`.
pub fn memory_policy_modes() -> impl Iterator<Item = &'static str> {
    MODES.iter().map(|(name, _)| *name)
}

/// The words of `linux.memoryPolicy.flags`.
pub fn memory_policy_flags() -> impl Iterator<Item = &'static str> {
    MODE_FLAGS.iter().map(|(name, _)| *name)
}

/// Mode with flags, and nodes, for set_mempolicy.
pub fn memory_policy(asked: &MemoryPolicy<'_>) -> Result<(u32, Vec<u64>)> {
    let number = |known: &[(&str, u32)], name: &Str<'_>| {
        known.iter().find(|(other, _)| name == other).map(|(_, number)| *number)
    };
    let mode = &asked.mode;
    let mut bits = number(&MODES, mode).with_context(|| format!("invalid memoryPolicy.mode: {mode:?}"))?;
    for flag in &asked.flags {
        bits |= number(&MODE_FLAGS, flag).with_context(|| format!("invalid memoryPolicy flag: {flag}"))?;
    }
    let nodes = match asked.nodes.trim() {
        "" => Vec::new(),
        nodes => list(nodes).with_context(|| format!("memoryPolicy.nodes {nodes:?}"))?,
    };
    match mode.as_str() {
        "MPOL_DEFAULT" | "MPOL_LOCAL" => {
            ensure!(nodes.is_empty(), "memoryPolicy.nodes must be empty for {mode}")
        }
        "MPOL_PREFERRED" => {}
        _ => ensure!(!nodes.is_empty(), "memoryPolicy.nodes must be set for {mode}"),
    }
    Ok((bits, nodes))
}

pub fn personality(asked: &Personality<'_>) -> Result<u64> {
    if let Some(flag) = asked.flags.first() {
        bail!("linux.personality.flags: {flag} is not supported");
    }
    match asked.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => bail!("invalid linux.personality.domain: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler_of(json: &str) -> Result<SchedulerAttributes> {
        scheduler(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn schedulers() {
        let found = scheduler_of(
            r#"{"policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 20, "period": 30,
                "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_DL_OVERRUN"]}"#,
        )
        .unwrap();
        assert_eq!((found.policy, found.flags), (6, 5));
        assert_eq!((found.runtime, found.deadline, found.period), (10, 20, 30));
        let fifo =
            scheduler_of(r#"{"policy": "SCHED_FIFO", "priority": 50, "flags": ["SCHED_RESET_ON_FORK"]}"#);
        assert_eq!(fifo.unwrap().priority, 50);
        for (name, number) in POLICIES {
            assert_eq!(scheduler_of(&format!(r#"{{"policy": "{name}"}}"#)).unwrap().policy, number);
        }
    }

    #[test]
    fn schedulers_that_make_no_sense() {
        for (json, words) in [
            (r#"{"policy": ""}"#, "policy is required"),
            (r#"{"policy": "SCHED_FAST"}"#, "invalid scheduler policy: SCHED_FAST"),
            (r#"{"policy": "SCHED_OTHER", "nice": 20}"#, "invalid scheduler.nice: 20"),
            (r#"{"policy": "SCHED_OTHER", "priority": 1}"#, "SCHED_FIFO or SCHED_RR"),
            (r#"{"policy": "SCHED_FIFO", "priority": -1}"#, "invalid scheduler.priority: -1"),
            (r#"{"policy": "SCHED_BATCH", "period": 1}"#, "SCHED_DEADLINE"),
            (
                r#"{"policy": "SCHED_IDLE", "flags": ["RESET_ON_FORK"]}"#,
                "invalid scheduler flag: RESET_ON_FORK",
            ),
        ] {
            assert!(scheduler_of(json).unwrap_err().to_string().contains(words), "{json}");
        }
    }

    #[test]
    fn io_priorities() {
        let of = |json| io_priority(&serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"class": "IOPRIO_CLASS_BE", "priority": 4}"#).unwrap(), 2 << 13 | 4);
        assert!(of(r#"{"class": "IOPRIO_CLASS_BE", "priority": 8}"#).is_err());
        assert!(of(r#"{"class": "", "priority": 0}"#).is_err());
    }

    #[test]
    fn lists_of_processors() {
        assert_eq!(list("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(list("64").unwrap(), [0, 1]);
        assert_eq!(processors("8").unwrap().len(), 8);
        for bad in ["", "a", "3-1", "1-", "-1", "+1", " 1", "1,,2", "9999", "99999999999999999999"] {
            assert!(list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn memory_policies() {
        let of = |json| memory_policy(&serde_json::from_str(json).unwrap());
        let json = r#"{"mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(of(json).unwrap(), (3 | 1 << 15, vec![3]));
        assert_eq!(of(r#"{"mode": "MPOL_DEFAULT"}"#).unwrap(), (0, vec![]));
        assert!(of(r#"{"mode": "MPOL_LOCAL", "nodes": "0"}"#).is_err());
        assert!(of(r#"{"mode": "MPOL_BIND"}"#).is_err());
        assert!(of(r#"{"mode": "INTERLEAVE", "nodes": "0"}"#).is_err());
        assert!(of(r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["X"]}"#).is_err());
    }

    #[test]
    fn personalities() {
        let of = |json| personality(&serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"domain": "LINUX32"}"#).unwrap(), 8);
        assert_eq!(of(r#"{"domain": "LINUX"}"#).unwrap(), 0);
        assert!(of(r#"{"domain": "BSD"}"#).is_err());
        let flags = of(r#"{"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}"#).unwrap_err().to_string();
        assert!(flags.contains("ADDR_NO_RANDOMIZE is not supported"));
    }
}
