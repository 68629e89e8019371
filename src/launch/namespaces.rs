//! Which namespaces a process gets, who enters them and when. Pure, but for the question what this process may.
//!
//! One clone3 makes all that are new, except the cgroup namespace: its root is the cgroup of whoever makes it, so
//! the child does that once it is born in its own. Those given by path are joined by the child, but a pid
//! namespace by the parent, because only children enter it. Three cases need a process in the middle (`relay`),
//! which joins and then clones the child as its sibling:
//! - a user namespace by path with a new pid namespace: the new one must belong to the joined one;
//! - a new user namespace with others by path: they must be joined with the privileges of the old one;
//! - a pid namespace that this user may only enter from inside its user namespace, or not come back from.

use std::ffi::CString;

use anyhow::{Context, Result};

use crate::error::Failure;
use crate::spec::{Linux, Map, NamespaceKind, TimeOffset};
use crate::sys::clone::{self, namespace};
use crate::sys::{Errno, OwnedFd, fs};

#[derive(Debug, Default, PartialEq)]
pub struct Namespaces {
    /// Made by clone3.
    pub create: u64,
    /// Made by the child itself, as soon as it runs.
    pub unshare: u64,
    /// Joined by path, the user namespace first, the mount namespace last.
    pub join: Vec<Join>,
    /// The joins belong to a middle process.
    pub relay: bool,
    /// What is written to `timens_offsets`, if a new time namespace has any.
    pub time_offsets: Option<CString>,
}

#[derive(Debug, PartialEq)]
pub struct Join {
    pub kind: u64,
    pub path: CString,
}

/// Every kind: its bit, its name under /proc/PID/ns, and its name in config.json.
pub const KINDS: [(NamespaceKind, u64, &str, &str); 8] = [
    (NamespaceKind::User, namespace::USER, "user", "user"),
    (NamespaceKind::Pid, namespace::PID, "pid", "pid"),
    (NamespaceKind::Ipc, namespace::IPC, "ipc", "ipc"),
    (NamespaceKind::Uts, namespace::UTS, "uts", "uts"),
    (NamespaceKind::Network, namespace::NETWORK, "net", "network"),
    (NamespaceKind::Cgroup, namespace::CGROUP, "cgroup", "cgroup"),
    (NamespaceKind::Time, namespace::TIME, "time", "time"),
    (NamespaceKind::Mount, namespace::MOUNT, "mnt", "mount"),
];

pub fn bit(kind: NamespaceKind) -> u64 {
    KINDS.iter().find(|entry| entry.0 == kind).map_or(0, |entry| entry.1)
}

/// The name of a namespace bit in config.json.
pub fn name(bit: u64) -> &'static str {
    KINDS.iter().find(|entry| entry.1 == bit).map_or("unknown", |entry| entry.3)
}

impl Namespaces {
    /// `roams`: the parent may enter a pid namespace for the child and come back.
    pub fn plan(linux: &Linux, roams: bool) -> Result<Namespaces> {
        let mut plan = Namespaces::default();
        let mut seen = 0;
        for wanted in &linux.namespaces {
            let bit = bit(wanted.kind);
            if seen & bit != 0 {
                let message = format!("linux.namespaces: {} is given more than once", name(bit));
                return Err(Failure::input(message).into());
            }
            seen |= bit;
            match wanted.path.as_deref() {
                None | Some("") => plan.create |= bit,
                Some(path) if path.starts_with('/') => {
                    let path = CString::new(path)?;
                    plan.join.push(Join { kind: bit, path });
                }
                Some(path) => {
                    let message = format!("linux.namespaces: {} path {path:?} is not absolute", name(bit));
                    return Err(Failure::input(message).into());
                }
            }
        }
        plan.time_offsets = time_offsets(&linux.time_offsets, plan.create & namespace::TIME != 0)?;
        plan.arrange(roams);
        Ok(plan)
    }

    fn arrange(&mut self, roams: bool) {
        let order = |kind: u64| KINDS.iter().position(|entry| entry.1 == kind);
        self.join.sort_by_key(|join| order(join.kind));
        let joins = |kind| self.join.iter().any(|join: &Join| join.kind == kind);
        let creates = |kind| self.create & kind != 0;
        let others = self.join.iter().any(|join| join.kind != namespace::PID);
        self.relay = joins(namespace::USER) && creates(namespace::PID)
            || creates(namespace::USER) && others
            || joins(namespace::PID) && (joins(namespace::USER) || !roams);
        let late = if joins(namespace::USER) && !self.relay {
            // They must belong to the joined user namespace, so they are made after joining it.
            self.create
        } else {
            self.create & (namespace::CGROUP | namespace::TIME)
        };
        self.unshare = late;
        self.create &= !late;
    }

    /// The kinds in which the process will differ from its parent.
    pub fn all(&self) -> u64 {
        self.join.iter().fold(self.create | self.unshare, |bits, join| bits | join.kind)
    }

    pub fn is_new(&self, kind: u64) -> bool {
        (self.create | self.unshare) & kind != 0
    }
}

/// Whether this process may enter the pid namespace that is asked for and come back, for its other children. Root of a
/// user namespace may not: the pid namespace it lives in belongs to somebody above, as under an engine without root.
pub fn may_roam(linux: &Linux) -> Result<bool> {
    let joins = |wanted: &crate::spec::Namespace<'_>| {
        wanted.kind == NamespaceKind::Pid && wanted.path.as_ref().is_some_and(|path| !path.is_empty())
    };
    if !linux.namespaces.iter().any(joins) {
        return Ok(true);
    }
    let own = own_pids()?;
    match clone::setns(&own, namespace::PID) {
        Err(fault) if fault.errno == Errno::PERM => Ok(false),
        result => result.map(|()| true).context("enter the own pid namespace"),
    }
}

/// The pid namespace this process is in.
pub fn own_pids() -> Result<OwnedFd> {
    fs::openat(fs::CWD, c"/proc/self/ns/pid", fs::OFlags::RDONLY, fs::Mode::empty())
        .context("open \"/proc/self/ns/pid\"")
}

fn time_offsets(offsets: &Map<TimeOffset>, new: bool) -> Result<Option<CString>> {
    if offsets.is_empty() {
        return Ok(None);
    }
    if !new {
        return Err(Failure::input("linux.timeOffsets needs a new time namespace in linux.namespaces").into());
    }
    let mut text = String::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let message = format!("linux.timeOffsets: unknown clock {:?}", clock.as_str());
            return Err(Failure::input(message).into());
        }
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(Some(CString::new(text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &str, roams: bool) -> Result<Namespaces> {
        let text = format!(r#"{{"namespaces": {namespaces}}}"#);
        Namespaces::plan(&serde_json::from_str(&text).unwrap(), roams)
    }

    #[test]
    fn one_clone_makes_all_but_the_cgroup_namespace() {
        let plan = plan(
            r#"[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}]"#,
            true,
        )
        .unwrap();
        let clone = namespace::PID | namespace::NETWORK | namespace::IPC | namespace::UTS | namespace::MOUNT;
        assert_eq!(plan, Namespaces { create: clone, unshare: namespace::CGROUP, ..Namespaces::default() });
    }

    #[test]
    fn joins_come_in_the_kernel_s_order() {
        let plan = plan(r#"[{"type":"mount","path":"/m"},{"type":"network","path":"/n"}]"#, true).unwrap();
        let kinds: Vec<u64> = plan.join.iter().map(|join| join.kind).collect();
        assert_eq!(kinds, [namespace::NETWORK, namespace::MOUNT]);
        assert!(!plan.relay);
    }

    #[test]
    fn a_middle_process_only_where_the_kernel_wants_one() {
        for (namespaces, roams, relay) in [
            (r#"[{"type":"user"},{"type":"pid"}]"#, false, false),
            (r#"[{"type":"user","path":"/u"},{"type":"pid"}]"#, true, true),
            (r#"[{"type":"user","path":"/u"},{"type":"uts"}]"#, true, false),
            (r#"[{"type":"user"},{"type":"network","path":"/n"}]"#, true, true),
            (r#"[{"type":"pid","path":"/p"}]"#, true, false),
            (r#"[{"type":"pid","path":"/p"}]"#, false, true),
            (r#"[{"type":"user","path":"/u"},{"type":"pid","path":"/p"}]"#, true, true),
        ] {
            assert_eq!(plan(namespaces, roams).unwrap().relay, relay, "{namespaces} {roams}");
        }
    }

    #[test]
    fn with_a_joined_user_namespace_new_ones_are_made_inside() {
        let plan = plan(r#"[{"type":"user","path":"/u"},{"type":"uts"},{"type":"mount"}]"#, true).unwrap();
        assert_eq!(plan.create, 0);
        assert_eq!(plan.unshare, namespace::UTS | namespace::MOUNT);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (namespaces, words) in [
            (r#"[{"type":"pid"},{"type":"pid"}]"#, "pid is given more than once"),
            (r#"[{"type":"network","path":"net"}]"#, "path \"net\" is not absolute"),
        ] {
            let error = plan(namespaces, true).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let linux: Linux = serde_json::from_str(r#"{"timeOffsets":{"boottime":{"secs":1}}}"#).unwrap();
        assert!(
            Namespaces::plan(&linux, true).unwrap_err().to_string().contains("needs a new time namespace")
        );
    }

    #[test]
    fn time_offsets_are_written_as_the_kernel_reads_them() {
        let text = r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"secs":7,"nanosecs":5}}}"#;
        let plan = Namespaces::plan(&serde_json::from_str(text).unwrap(), true).unwrap();
        assert_eq!(plan.time_offsets.unwrap().to_bytes(), b"boottime 7 5\n");
        assert_eq!(plan.unshare, namespace::TIME);
    }
}
