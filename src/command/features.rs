//! `features`: what this deja can do, in the shape runtime-spec gives it.
//!
//! Callers decide by it what they send, so it says no more than the code does: the lists are the tables the
//! code itself reads. Nothing is printed on stderr, because some callers read both as one.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::launch::{identity, rootfs, seccomp};
use crate::spec::{self, NamespaceKind};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: [&'static str; 8],
    capabilities: &'static [&'static str],
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: &'static [&'static str],
    operators: &'static [&'static str],
    archs: Vec<&'static str>,
    known_flags: &'static [&'static str],
    supported_flags: &'static [&'static str],
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

const HOOKS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Annotations that change what a container may do or where its output goes; an ending dot means a prefix.
const UNSAFE_ANNOTATIONS: &[&str] = &["org.systemd.property.", "run.oci."];

pub fn run() -> Result<()> {
    let text = serde_json::to_string_pretty(&features()).context("write the features as JSON")?;
    super::print(&format!("{text}\n"))
}

fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: spec::VERSION,
        hooks: HOOKS,
        mount_options: rootfs::option_names().collect(),
        linux: Linux {
            namespaces: NamespaceKind::ALL.map(NamespaceKind::word),
            capabilities: identity::capability_names(),
            cgroup: Cgroup { v1: false, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: Seccomp {
                enabled: true,
                actions: &seccomp::ACTIONS,
                operators: &seccomp::OPERATORS,
                archs: seccomp::Arch::ALL.iter().map(|arch| arch.name()).collect(),
                known_flags: &seccomp::FLAGS,
                supported_flags: &seccomp::FLAGS,
            },
            apparmor: Enabled { enabled: true },
            selinux: Enabled { enabled: true },
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicy {
                modes: identity::memory_policy_modes().collect(),
                flags: identity::memory_policy_flags().collect(),
            },
            mount_extensions: MountExtensions { idmap: Enabled { enabled: true } },
            net_devices: Enabled { enabled: true },
        },
        annotations: BTreeMap::from([
            ("io.github.deja.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
            ("run.oci.crun.checkpoint.enabled", "true"),
        ]),
        potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_specification_s_types_read() {
        let text = serde_json::to_string(&features()).unwrap();
        let read: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(read.oci_version_max(), spec::VERSION);
    }

    #[test]
    fn every_hook_of_the_model_is_listed() {
        for hook in HOOKS {
            let text = format!("{{\"{hook}\": [{{\"path\": \"/x\"}}]}}");
            let hooks: spec::Hooks = serde_json::from_str(&text).unwrap();
            assert_ne!(hooks, spec::Hooks::default(), "{hook}");
        }
    }
}
