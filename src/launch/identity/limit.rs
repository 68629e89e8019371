//! `process.rlimits`: names to numbers, and the rules the kernel would answer with a bare EINVAL.

use anyhow::{Result, bail};

use crate::spec::Rlimit;
use crate::sys::sched::Limit;

/// By number, as in the kernel's generic headers.
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

pub fn name(resource: u32) -> &'static str {
    NAMES[resource as usize]
}

/// (resource, limit) pairs, each resource once.
pub fn limits(asked: &[Rlimit<'_>]) -> Result<Vec<(u32, Limit)>> {
    let mut limits: Vec<(u32, Limit)> = Vec::with_capacity(asked.len());
    for Rlimit { kind, soft, hard } in asked {
        let Some(resource) = NAMES.iter().position(|name| kind == name) else {
            bail!("invalid rlimit type: {kind}");
        };
        if soft > hard {
            bail!("{kind}: the soft limit {soft} is above the hard limit {hard}");
        }
        if limits.iter().any(|(other, _)| *other == resource as u32) {
            bail!("{kind} is limited twice");
        }
        limits.push((resource as u32, Limit { soft: *soft, hard: *hard }));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<(u32, Limit)>> {
        let asked: Vec<Rlimit> = serde_json::from_str(json)?;
        limits(&asked)
    }

    #[test]
    fn all_sixteen_have_their_number() {
        for (number, name) in NAMES.iter().enumerate() {
            let found = parse(&format!(r#"[{{"type": "{name}", "soft": 1, "hard": 2}}]"#)).unwrap();
            assert_eq!(found, [(number as u32, Limit { soft: 1, hard: 2 })]);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let message = |json| parse(json).unwrap_err().to_string();
        assert_eq!(message(r#"[{"type": "NOFILE", "soft": 1, "hard": 2}]"#), "invalid rlimit type: NOFILE");
        assert!(
            message(r#"[{"type": "RLIMIT_CPU", "soft": 3, "hard": 2}]"#).contains("above the hard limit 2")
        );
        let twice =
            r#"[{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 2}]"#;
        assert_eq!(message(twice), "RLIMIT_CPU is limited twice");
    }
}
