//! `process` of config.json, which is also the whole of what `exec --process` reads.

use serde::Deserialize;

use super::text::or_null;
use super::{List, Str};

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Process<'a> {
    #[serde(deserialize_with = "or_null")]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "or_null")]
    pub user: User,
    #[serde(borrow)]
    pub args: List<Str<'a>>,
    #[serde(borrow)]
    pub env: List<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub cwd: Str<'a>,
    #[serde(borrow)]
    pub capabilities: Option<Capabilities<'a>>,
    #[serde(borrow)]
    pub rlimits: List<Rlimit<'a>>,
    #[serde(deserialize_with = "or_null")]
    pub no_new_privileges: bool,
    #[serde(borrow)]
    pub apparmor_profile: Option<Str<'a>>,
    pub oom_score_adj: Option<i32>,
    #[serde(borrow)]
    pub selinux_label: Option<Str<'a>>,
    #[serde(borrow)]
    pub scheduler: Option<Scheduler<'a>>,
    #[serde(borrow)]
    pub io_priority: Option<IoPriority<'a>>,
    #[serde(borrow, rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity<'a>>,
}

impl<'a> Process<'a> {
    /// An empty label asks for none.
    pub fn selinux_label(&self) -> Option<&Str<'a>> {
        self.selinux_label.as_ref().filter(|label| !label.is_empty())
    }
}

#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq)]
#[serde(default)]
pub struct ConsoleSize {
    #[serde(deserialize_with = "or_null")]
    pub height: u32,
    #[serde(deserialize_with = "or_null")]
    pub width: u32,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    #[serde(deserialize_with = "or_null")]
    pub uid: u32,
    #[serde(deserialize_with = "or_null")]
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: List<u32>,
}

/// The five sets, as names; a name this machine does not know is warned about, not refused.
#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Capabilities<'a> {
    #[serde(borrow)]
    pub bounding: List<Str<'a>>,
    #[serde(borrow)]
    pub effective: List<Str<'a>>,
    #[serde(borrow)]
    pub inheritable: List<Str<'a>>,
    #[serde(borrow)]
    pub permitted: List<Str<'a>>,
    #[serde(borrow)]
    pub ambient: List<Str<'a>>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Rlimit<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Str<'a>,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Scheduler<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub policy: Str<'a>,
    pub nice: Option<i32>,
    pub priority: Option<i32>,
    #[serde(borrow)]
    pub flags: List<Str<'a>>,
    pub runtime: Option<u64>,
    pub deadline: Option<u64>,
    pub period: Option<u64>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct IoPriority<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub class: Str<'a>,
    #[serde(deserialize_with = "or_null")]
    pub priority: i32,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct CpuAffinity<'a> {
    #[serde(borrow)]
    pub initial: Option<Str<'a>>,
    #[serde(borrow, rename = "final")]
    pub last: Option<Str<'a>>,
}
