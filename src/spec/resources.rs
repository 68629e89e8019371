//! `linux.resources`: what the cgroup grants, and the whole of what `update --resources` reads.

use serde::Deserialize;

use super::text::or_null;
use super::{List, Map, Str};

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources<'a> {
    #[serde(borrow)]
    pub devices: List<DeviceRule<'a>>,
    pub memory: Option<Memory>,
    #[serde(borrow)]
    pub cpu: Option<Cpu<'a>>,
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    #[serde(borrow)]
    pub hugepage_limits: List<HugepageLimit<'a>>,
    #[serde(borrow)]
    pub network: Option<Network<'a>>,
    #[serde(borrow)]
    pub rdma: Map<'a, Rdma>,
    #[serde(borrow)]
    pub unified: Map<'a, Str<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct DeviceRule<'a> {
    #[serde(deserialize_with = "or_null")]
    pub allow: bool,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Str<'a>>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    #[serde(borrow)]
    pub access: Option<Str<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    pub swap: Option<i64>,
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    pub use_hierarchy: Option<bool>,
    pub check_before_update: Option<bool>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu<'a> {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    #[serde(borrow)]
    pub cpus: Option<Str<'a>>,
    #[serde(borrow)]
    pub mems: Option<Str<'a>>,
    pub idle: Option<i64>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Pids {
    /// Absent is not zero: since 1.3 `pids: {}` asks for nothing.
    pub limit: Option<i64>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
    pub weight_device: List<WeightDevice>,
    pub throttle_read_bps_device: List<ThrottleDevice>,
    pub throttle_write_bps_device: List<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: List<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: List<ThrottleDevice>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit<'a> {
    #[serde(borrow)]
    pub page_size: Str<'a>,
    pub limit: u64,
}

/// net_cls and net_prio exist in cgroup v1 only; named so that asking for them can be refused by name.
#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default)]
pub struct Network<'a> {
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    #[serde(borrow)]
    pub priorities: List<InterfacePriority<'a>>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct InterfacePriority<'a> {
    #[serde(borrow)]
    pub name: Str<'a>,
    pub priority: u32,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Rdma {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}
