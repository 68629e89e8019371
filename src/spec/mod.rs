//! config.json as data: the whole of OCI runtime-spec 1.3 for Linux, borrowed from the file's bytes.
//!
//! This module reads nothing but bytes and decides nothing; what a value means is decided where a plan is
//! made. Properties the spec does not know are ignored, as it demands; those it knows and deja does not
//! implement are refused by name in `validate`.

mod linux;
mod load;
mod process;
mod resources;
pub mod seccomp;
mod template;
mod text;
mod validate;

use serde::Deserialize;

use text::or_null;

pub use linux::{
    Device, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceKind, NetDevice, Personality,
    TimeOffset,
};
pub use load::{LARGEST, load, load_mounts, load_process, load_resources};
pub use process::{Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};
pub use template::{Template, template};
pub use text::{List, Map, Str};
pub use validate::{validate, validate_process};

/// The version of runtime-spec this model follows.
pub const VERSION: &str = "1.3.0";

#[derive(Deserialize, Default, Debug)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub oci_version: Str<'a>,
    #[serde(borrow)]
    pub process: Option<Process<'a>>,
    #[serde(borrow)]
    pub root: Option<Root<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub hostname: Str<'a>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub domainname: Str<'a>,
    #[serde(borrow)]
    pub mounts: List<Mount<'a>>,
    #[serde(borrow)]
    pub hooks: Option<Hooks<'a>>,
    #[serde(borrow)]
    pub annotations: Map<'a, Str<'a>>,
    #[serde(borrow)]
    pub linux: Option<Linux<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Root<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub path: Str<'a>,
    #[serde(deserialize_with = "or_null")]
    pub readonly: bool,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub destination: Str<'a>,
    #[serde(borrow, rename = "type", deserialize_with = "or_null")]
    pub kind: Str<'a>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub source: Str<'a>,
    #[serde(borrow)]
    pub options: List<Str<'a>>,
    pub uid_mappings: List<IdMapping>,
    pub gid_mappings: List<IdMapping>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks<'a> {
    #[serde(borrow)]
    pub prestart: List<Hook<'a>>,
    #[serde(borrow)]
    pub create_runtime: List<Hook<'a>>,
    #[serde(borrow)]
    pub create_container: List<Hook<'a>>,
    #[serde(borrow)]
    pub start_container: List<Hook<'a>>,
    #[serde(borrow)]
    pub poststart: List<Hook<'a>>,
    #[serde(borrow)]
    pub poststop: List<Hook<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Hook<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub path: Str<'a>,
    #[serde(borrow)]
    pub args: List<Str<'a>>,
    #[serde(borrow)]
    pub env: List<Str<'a>>,
    /// Seconds; absent: no limit.
    pub timeout: Option<i64>,
}
