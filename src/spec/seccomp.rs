//! `linux.seccomp` of config.json.

use serde::Deserialize;

use super::text::or_null;
use super::{List, Str};

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Seccomp<'a> {
    #[serde(borrow, deserialize_with = "or_null")]
    pub default_action: Str<'a>,
    pub default_errno_ret: Option<u32>,
    #[serde(borrow)]
    pub architectures: List<Str<'a>>,
    /// Absent is not empty: without the property the safe defaults of the runtime apply.
    #[serde(borrow)]
    pub flags: Option<List<Str<'a>>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub listener_path: Str<'a>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub listener_metadata: Str<'a>,
    #[serde(borrow)]
    pub syscalls: List<SyscallRule<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct SyscallRule<'a> {
    #[serde(borrow)]
    pub names: List<Str<'a>>,
    #[serde(borrow, deserialize_with = "or_null")]
    pub action: Str<'a>,
    pub errno_ret: Option<u32>,
    #[serde(borrow)]
    pub args: List<ArgumentRule<'a>>,
}

#[derive(Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct ArgumentRule<'a> {
    #[serde(deserialize_with = "or_null")]
    pub index: u32,
    #[serde(deserialize_with = "or_null")]
    pub value: u64,
    #[serde(deserialize_with = "or_null")]
    pub value_two: u64,
    #[serde(borrow, deserialize_with = "or_null")]
    pub op: Str<'a>,
}
