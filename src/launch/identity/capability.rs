//! Capability names to sets.
//!
//! What cannot be granted is left out and named in a warning, as the spec wants; what can be granted is never
//! more than was asked for, and nothing is inheritable unless the config says so.

use crate::spec::{Capabilities, List, Str};
use crate::sys::credential::CapabilitySets;

/// By number: capability N is bit N.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

pub const SYS_ADMIN: u64 = 1 << 21;

/// Every capability in force when a process is the first of its user namespace.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The names this program knows, for `features`.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// What the process ends up with.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Granted {
    pub bounding: u64,
    pub sets: CapabilitySets,
    pub ambient: u64,
}

/// Sets from names. `held` is what the child has to give; the rest cannot be granted.
pub fn grant(asked: Option<&Capabilities<'_>>, held: u64, warnings: &mut Vec<String>) -> Granted {
    let Some(asked) = asked else { return Granted::default() };
    let mut refused = Vec::new();
    let mut set = |names: &List<Str<'_>>| bits(names, &mut refused);
    let bounding = set(&asked.bounding);
    let [permitted, effective, inheritable, ambient] =
        [&asked.permitted, &asked.effective, &asked.inheritable, &asked.ambient].map(set);
    refused.extend(name_list((permitted | effective | inheritable | ambient) & !held));
    warn(warnings, "ignoring unknown or unavailable capabilities", refused);

    let mut alone = 0;
    // Each of these is a rule of capset(2) or prctl(2) that would fail the whole call.
    let mut limit = |what: u64, to: u64| {
        alone |= what & held & !to;
        what & to
    };
    let permitted = permitted & held;
    let effective = limit(effective, permitted);
    let inheritable = limit(inheritable, held & bounding);
    let rule = "ignoring capabilities without those they need (for effective ones permitted, for inheritable ones bounding)";
    warn(warnings, rule, name_list(alone).collect());
    let raised = permitted & inheritable;
    let refused = name_list(ambient & held & !raised);
    warnings.extend(refused.map(|name| {
        format!("can't raise ambient capability {name}: it has to be permitted and inheritable")
    }));
    let ambient = ambient & raised;
    Granted { bounding, sets: CapabilitySets { effective, permitted, inheritable }, ambient }
}

fn warn(warnings: &mut Vec<String>, what: &str, mut names: Vec<String>) {
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        warnings.push(format!("{what}: [{}]", names.join(" ")));
    }
}

fn bits(names: &List<Str<'_>>, unknown: &mut Vec<String>) -> u64 {
    names.iter().fold(0, |set, name| match number(name) {
        Some(number) => set | 1 << number,
        None => {
            unknown.push(name.to_string());
            set
        }
    })
}

fn name_list(set: u64) -> impl Iterator<Item = String> {
    NAMES
        .iter()
        .enumerate()
        .filter(move |(number, _)| set & 1 << number != 0)
        .map(|(_, name)| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(json: &str, held: u64) -> (Granted, Vec<String>) {
        let asked = serde_json::from_str(json).unwrap();
        let mut warnings = Vec::new();
        (grant(Some(&asked), held, &mut warnings), warnings)
    }

    #[test]
    fn nothing_asked_is_nothing_given() {
        assert_eq!(grant(None, ALL, &mut Vec::new()), Granted::default());
    }

    #[test]
    fn names_become_bits() {
        let json = r#"{"bounding": ["CAP_CHOWN", "CAP_BPF"], "permitted": ["cap_chown"], "effective": ["CAP_CHOWN"]}"#;
        let (granted, warnings) = granted(json, ALL);
        assert_eq!(granted.bounding, 1 | 1 << 39);
        assert_eq!(granted.sets, CapabilitySets { effective: 1, permitted: 1, inheritable: 0 });
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_cannot_be_granted_is_named_once() {
        let json = r#"{"bounding": ["CAP_FLY"], "permitted": ["CAP_FLY", "CAP_SYS_RESOURCE", "CAP_KILL"],
                       "effective": ["CAP_KILL", "CAP_SYS_RESOURCE"]}"#;
        let (granted, warnings) = granted(json, ALL & !(1 << 24));
        assert_eq!(granted.sets, CapabilitySets { effective: 1 << 5, permitted: 1 << 5, inheritable: 0 });
        assert_eq!(warnings, ["ignoring unknown or unavailable capabilities: [CAP_FLY CAP_SYS_RESOURCE]"]);
    }

    #[test]
    fn names_that_mean_nothing_are_told_apart_from_sets_that_do_not_fit() {
        let json = r#"{"bounding": ["CAP_FLY"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"]}"#;
        let (granted, warnings) = granted(json, ALL);
        assert_eq!((granted.sets.permitted, granted.sets.inheritable), (1 << 5, 0));
        let [unknown, alone] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(unknown.ends_with(": [CAP_FLY]") && alone.ends_with(": [CAP_KILL]"), "{warnings:?}");
    }

    #[test]
    fn ambient_needs_inheritable_and_inheritable_needs_bounding() {
        let json = r#"{"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                       "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL", "CAP_CHOWN"]}"#;
        let (granted, warnings) = granted(json, ALL);
        assert_eq!((granted.sets.inheritable, granted.ambient), (1 << 5, 1 << 5));
        let [inheritable, ambient] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(inheritable.starts_with("ignoring capabilities without those they need"), "{inheritable}");
        assert!(inheritable.ends_with(": [CAP_CHOWN]"), "{inheritable}");
        assert!(ambient.starts_with("can't raise ambient capability CAP_CHOWN: "), "{ambient}");
    }

    #[test]
    fn an_effective_set_beyond_permitted_is_cut() {
        let (granted, warnings) = granted(r#"{"effective": ["CAP_SYS_ADMIN"]}"#, ALL);
        assert_eq!(granted.sets.effective, 0);
        assert!(warnings.concat().ends_with(": [CAP_SYS_ADMIN]"), "{warnings:?}");
    }
}
