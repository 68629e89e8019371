//! `linux` of config.json.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::or_null;
use super::{List, Map, Resources, Str};

#[derive(Deserialize, Default, Debug)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux<'a> {
    pub uid_mappings: List<IdMapping>,
    pub gid_mappings: List<IdMapping>,
    #[serde(borrow)]
    pub sysctl: Map<'a, Str<'a>>,
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub cgroups_path: Str<'a>,
    #[serde(borrow)]
    pub namespaces: List<Namespace<'a>>,
    #[serde(borrow)]
    pub devices: List<Device<'a>>,
    #[serde(borrow)]
    pub net_devices: Map<'a, NetDevice<'a>>,
    /// Kept as text: a profile is parsed only when no compiled program is stored for exactly this text.
    #[serde(borrow)]
    pub seccomp: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub rootfs_propagation: Str<'a>,
    #[serde(borrow)]
    pub masked_paths: List<Str<'a>>,
    #[serde(borrow)]
    pub readonly_paths: List<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub mount_label: Str<'a>,
    #[serde(borrow)]
    pub intel_rdt: Option<IntelRdt<'a>>,
    #[serde(borrow)]
    pub memory_policy: Option<MemoryPolicy<'a>>,
    #[serde(borrow)]
    pub personality: Option<Personality<'a>>,
    #[serde(borrow)]
    pub time_offsets: Map<'a, TimeOffset>,
}

#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct IdMapping {
    #[serde(rename = "containerID", deserialize_with = "or_null")]
    pub container_id: u32,
    #[serde(rename = "hostID", deserialize_with = "or_null")]
    pub host_id: u32,
    #[serde(deserialize_with = "or_null")]
    pub size: u32,
}

impl IdMapping {
    /// What id `inside` the namespace is outside.
    pub fn host(&self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.container_id).filter(|offset| *offset < self.size)?;
        self.host_id.checked_add(offset)
    }
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

impl NamespaceKind {
    pub const ALL: [NamespaceKind; 8] = [
        NamespaceKind::Cgroup,
        NamespaceKind::Ipc,
        NamespaceKind::Mount,
        NamespaceKind::Network,
        NamespaceKind::Pid,
        NamespaceKind::Time,
        NamespaceKind::User,
        NamespaceKind::Uts,
    ];

    /// As the spec writes it.
    pub fn word(self) -> &'static str {
        match self {
            NamespaceKind::Pid => "pid",
            NamespaceKind::Network => "network",
            NamespaceKind::Mount => "mount",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Uts => "uts",
            NamespaceKind::User => "user",
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Time => "time",
        }
    }
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Namespace<'a> {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// Empty or absent: a new one.
    #[serde(borrow, default)]
    pub path: Option<Str<'a>>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Device<'a> {
    #[serde(borrow)]
    pub path: Str<'a>,
    #[serde(borrow, rename = "type")]
    pub kind: Str<'a>,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct NetDevice<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub name: Str<'a>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct IntelRdt<'a> {
    #[serde(borrow, rename = "closID", deserialize_with = "or_null")]
    pub clos_id: Str<'a>,
    #[serde(borrow)]
    pub schemata: List<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub l3_cache_schema: Str<'a>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub mem_bw_schema: Str<'a>,
    #[serde(deserialize_with = "or_null")]
    pub enable_monitoring: bool,
    #[serde(rename = "enableCMT", deserialize_with = "or_null")]
    pub enable_cmt: bool,
    #[serde(rename = "enableMBM", deserialize_with = "or_null")]
    pub enable_mbm: bool,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct MemoryPolicy<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub mode: Str<'a>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub nodes: Str<'a>,
    #[serde(borrow)]
    pub flags: List<Str<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Personality<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub domain: Str<'a>,
    #[serde(borrow)]
    pub flags: List<Str<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq)]
#[serde(default)]
pub struct TimeOffset {
    #[serde(deserialize_with = "or_null")]
    pub secs: i64,
    #[serde(deserialize_with = "or_null")]
    pub nanosecs: u32,
}
