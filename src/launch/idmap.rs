//! The id mappings of a new user namespace: who may write them, and what they mean for the child.
//!
//! Three ways, tried in this order: written directly by a privileged deja; written directly for the one id an
//! unprivileged deja runs as, at the price of setgroups; or by newuidmap and newgidmap. `write` is called by
//! the parent between the clone and letting the child go on.

use std::ffi::CString;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::identity::UserNamespace;
use crate::spec::{IdMapping, Linux};
use crate::sys::credential;
use crate::sys::procfs::{Procfs, Reach};
use crate::sys::{Errno, Fault, process};

/// Who deja is in its own user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub uid: u32,
    pub gid: u32,
    /// Has CAP_SETUID and CAP_SETGID.
    pub may_map: bool,
}

impl Facts {
    pub fn read() -> Result<Self> {
        const SETGID_SETUID: u64 = 1 << 6 | 1 << 7;
        let may_map = credential::capget()?.effective & SETGID_SETUID == SETGID_SETUID;
        Ok(Self { uid: process::effective_uid(), gid: credential::effective_gid(), may_map })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    /// One id, the own one; the kernel wants setgroups to be denied first.
    Own,
    Tools,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    users: Vec<IdMapping>,
    groups: Vec<IdMapping>,
    way: Way,
}

/// For a config that `spec::validate` has accepted: ranges in bounds that do not overlap. Where there are none, root is
/// who runs deja.
pub fn plan(linux: &Linux<'_>, facts: Facts) -> Maps {
    let root = |host_id| [IdMapping { container_id: 0, host_id, size: 1 }];
    let (own_user, own_group) = (root(facts.uid), root(facts.gid));
    let (users, groups) = match (&linux.uid_mappings.0[..], &linux.gid_mappings.0[..]) {
        ([], []) => (&own_user[..], &own_group[..]),
        asked => asked,
    };
    let own = |mappings: &[IdMapping], id| matches!(mappings, [one] if one.host_id == id && one.size == 1);
    let way = if facts.may_map {
        Way::Direct
    } else if own(users, facts.uid) && own(groups, facts.gid) {
        Way::Own
    } else {
        Way::Tools
    };
    Maps { users: users.to_vec(), groups: groups.to_vec(), way }
}

fn text(mappings: &[IdMapping]) -> String {
    let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
    mappings.iter().map(line).collect()
}

impl Maps {
    /// What the child will find.
    pub fn user_namespace(&self) -> UserNamespace {
        let root = |mappings: &[IdMapping]| mappings.iter().any(|mapping| mapping.container_id == 0);
        UserNamespace::New { root: root(&self.users) && root(&self.groups), groups: self.way != Way::Own }
    }

    /// Maps the ids of the user namespace that `pid` is the first process of.
    pub fn write(&self, pid: i32) -> Result<()> {
        if self.way == Way::Tools {
            run_tool("newuidmap", "/etc/subuid", pid, &self.users)?;
            return run_tool("newgidmap", "/etc/subgid", pid, &self.groups);
        }
        let procfs = Procfs::open(Reach::Processes).context("open a private procfs")?;
        let put = |file: &str, text: &str| {
            let path = CString::new(format!("{pid}/{file}"))?;
            procfs.write(&path, text.as_bytes()).map_err(|fault| {
                anyhow!("write {text:?} to \"/proc/{pid}/{file}\": {fault}{}", advice(fault))
            })
        };
        if self.way == Way::Own {
            put("setgroups", "deny")?;
        }
        put("uid_map", &text(&self.users))?;
        put("gid_map", &text(&self.groups))
    }
}

fn advice(fault: Fault) -> &'static str {
    match fault.errno {
        Errno::PERM => " (the host ids are not all mapped in the user namespace that deja runs in)",
        Errno::INVAL => " (is the text longer than a page?)",
        _ => "",
    }
}

fn run_tool(tool: &str, file: &str, pid: i32, mappings: &[IdMapping]) -> Result<()> {
    let numbers = mappings.iter().flat_map(|m| [m.container_id, m.host_id, m.size]);
    let mut command = Command::new(tool);
    command.arg(pid.to_string()).args(numbers.map(|number| number.to_string()));
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "mapping more than the own id without privileges needs {tool}, which is not in $PATH \
             (Debian has it in the package uidmap)"
        ),
        Err(error) => bail!("run {tool}: {error}"),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (said, user) = (said.trim_end(), process::effective_uid());
    let hint = match said.contains("not allowed") {
        true => format!(" (give user {user} a range that covers it in {file:?})"),
        false => String::new(),
    };
    bail!("{tool} failed ({}): {said}{hint}", output.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Facts = Facts { uid: 0, gid: 0, may_map: true };
    const USER: Facts = Facts { uid: 1000, gid: 100, may_map: false };

    fn maps(users: &[[u32; 3]], groups: &[[u32; 3]], facts: Facts) -> Maps {
        let list = |maps: &[[u32; 3]]| {
            let entry = |[container_id, host_id, size]: &[u32; 3]| IdMapping {
                container_id: *container_id,
                host_id: *host_id,
                size: *size,
            };
            crate::spec::List(maps.iter().map(entry).collect())
        };
        let linux = Linux { uid_mappings: list(users), gid_mappings: list(groups), ..Linux::default() };
        plan(&linux, facts)
    }

    #[test]
    fn who_writes() {
        let wide = [[0, 100_000, 65536]];
        for (users, groups, facts, way) in [
            (&wide[..], &wide[..], ROOT, Way::Direct),
            (&[[0, 1000, 1]], &[[0, 100, 1]], USER, Way::Own),
            (&[[0, 1000, 1]], &[[0, 1000, 1]], USER, Way::Tools),
            (&[[0, 1000, 1], [1, 100_000, 10]], &[[0, 100, 1]], USER, Way::Tools),
        ] {
            assert_eq!(maps(users, groups, facts).way, way);
        }
    }

    #[test]
    fn without_maps_root_is_who_runs_deja() {
        for (facts, user, group, way) in [(ROOT, 0, 0, Way::Direct), (USER, 1000, 100, Way::Own)] {
            let map = maps(&[], &[], facts);
            assert_eq!(
                (text(&map.users), text(&map.groups)),
                (format!("0 {user} 1\n"), format!("0 {group} 1\n"))
            );
            assert_eq!(map.way, way);
        }
    }

    #[test]
    fn what_the_child_finds() {
        let found = |users: &[[u32; 3]], facts| maps(users, &[[0, 100, 1]], facts).user_namespace();
        assert_eq!(found(&[[0, 1000, 1]], USER), UserNamespace::New { root: true, groups: false });
        assert_eq!(found(&[[5, 1000, 1]], ROOT), UserNamespace::New { root: false, groups: true });
    }

    #[test]
    fn the_text_of_a_map() {
        let map = maps(&[[0, 1000, 1], [1, 100_000, 65535]], &[[0, 1, 1]], ROOT);
        assert_eq!(text(&map.users), "0 1000 1\n1 100000 65535\n");
    }
}
