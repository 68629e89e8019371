//! `linux.sysctl`: which kernel parameters a container may set, and where they are in procfs.
//!
//! Only parameters of a namespace that the container does not share are allowed; everything else would change
//! the host. Nothing is written here: the child writes through its private procfs.

use std::ffi::CString;

use anyhow::{Result, bail, ensure};

use crate::spec::{Map, Str};

/// Which namespaces are not the host's.
#[derive(Clone, Copy, Default, Debug)]
pub struct Private {
    pub ipc: bool,
    pub network: bool,
    pub uts: bool,
    pub user: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub key: String,
    /// Below the root of a procfs.
    pub path: CString,
    pub value: CString,
}

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// `domainname` is that of the config, or empty.
pub fn plan(asked: &Map<'_, Str<'_>>, private: Private, domainname: &str) -> Result<Vec<Sysctl>> {
    let agrees = |sysctl: &Sysctl| {
        let other = sysctl.path.as_c_str() == c"sys/kernel/domainname"
            && sysctl.value.to_bytes() != domainname.as_bytes();
        ensure!(
            !other || domainname.is_empty(),
            "sysctl {:?} is not allowed as it conflicts with the OCI \"domainname\" field",
            sysctl.key
        );
        Ok(())
    };
    let sysctls = asked.iter().map(|(key, value)| sysctl(key, value, private));
    sysctls.map(|sysctl| sysctl.and_then(|sysctl| agrees(&sysctl).map(|()| sysctl))).collect()
}

fn sysctl(key: &Str<'_>, value: &Str<'_>, private: Private) -> Result<Sysctl> {
    let dotted = dotted(key);
    allow(&dotted, private)?;
    let parts: String = dotted.chars().map(exchanged).collect();
    let sound = parts.split('/').all(|part| !matches!(part, "" | "." | ".."));
    ensure!(sound, "invalid sysctl {key:?}");
    let path = Str::new(format!("sys/{parts}")).expect("a key of the config holds no NUL byte");
    Ok(Sysctl { key: key.to_string(), path: path.to_c(), value: value.to_c() })
}

fn exchanged(character: char) -> char {
    match character {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

/// The separator is whichever of `.` and `/` comes first, as for sysctl(8); the other one is part of a name,
/// such as the interface in `net.ipv4.conf.eth0/100.forwarding`.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key.chars().map(exchanged).collect(),
        _ => key.to_owned(),
    }
}

fn allow(key: &str, private: Private) -> Result<()> {
    if IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        ensure!(private.ipc, "sysctl {key:?} is not allowed in the host's ipc namespace");
    } else if key.starts_with("net.") {
        ensure!(private.network, "sysctl {key:?} is not allowed in the host's network namespace");
    } else if key == "kernel.hostname" && private.uts {
        bail!("sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field");
    } else if !(key == "kernel.domainname" && private.uts || key.starts_with("user.") && private.user) {
        bail!("sysctl {key:?} is not in a separate kernel namespace");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Private = Private { ipc: true, network: true, uts: true, user: true };

    fn path(key: &str, private: Private) -> Result<String> {
        let json = format!("{{{key:?}: \"1\"}}");
        let map: Map<Str> = serde_json::from_str(&json).unwrap();
        let mut found = plan(&map, private, "")?;
        Ok(found.remove(0).path.into_string().unwrap())
    }

    #[test]
    fn keys_become_paths() {
        for (key, expected) in [
            ("kernel.shmmax", "sys/kernel/shmmax"),
            ("kernel/sem", "sys/kernel/sem"),
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/100.forwarding", "sys/net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", "sys/net/ipv4/conf/eth0.100/forwarding"),
            ("fs.mqueue.msg_max", "sys/fs/mqueue/msg_max"),
            ("user.max_pid_namespaces", "sys/user/max_pid_namespaces"),
            ("kernel.domainname", "sys/kernel/domainname"),
        ] {
            assert_eq!(path(key, ALL).unwrap(), expected);
            assert!(path(key, Private::default()).is_err(), "{key}");
        }
    }

    #[test]
    fn two_domain_names_conflict() {
        for key in ["kernel.domainname", "kernel/domainname"] {
            let json = format!("{{{key:?}: \"one\"}}");
            let map: Map<Str> = serde_json::from_str(&json).unwrap();
            assert!(plan(&map, ALL, "").is_ok() && plan(&map, ALL, "one").is_ok());
            let error = plan(&map, ALL, "two").unwrap_err().to_string();
            assert!(error.ends_with("conflicts with the OCI \"domainname\" field"), "{error}");
        }
    }

    #[test]
    fn the_host_is_out_of_reach() {
        for key in ["kernel.core_pattern", "vm.swappiness", "fs.file-max", "network", "kernel.hostname", ""] {
            assert!(path(key, ALL).is_err(), "{key}");
        }
        for key in
            ["net.", "net..x", "net.//.//.kernel.core_pattern", "net/../kernel/core_pattern", "net/./x"]
        {
            assert!(path(key, ALL).unwrap_err().to_string().contains("invalid sysctl"), "{key}");
        }
    }
}
