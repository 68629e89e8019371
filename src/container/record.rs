//! The record: what deja remembers about a container between two runs. Versioned, small, and read tolerantly:
//! fields that are not known are passed over, fields that are missing are empty.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The version this deja writes, and the newest it reads.
pub const VERSION: u32 = 1;

#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    pub id: String,
    pub oci_version: String,
    /// The container's init, in the pid namespace of deja; 0 while there is none yet.
    pub pid: i32,
    /// Of init, in clock ticks, so that another process with its pid is not taken for it.
    pub start_time: u64,
    /// Of init in pidfs, where the kernel has it; 0 where nobody asked.
    pub pid_inode: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt: Option<RdtPlace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_root: Option<HostPlace>,
    pub bundle: String,
    pub rootfs: String,
    /// RFC 3339.
    pub created: String,
    /// The uid of who created it.
    pub owner: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The kinds of namespaces the container does not share with the host, as the bits of setns.
    pub namespaces: u64,
    /// Init is the first process of a pid namespace of its own: when it ends, the kernel ends all others.
    pub own_pids: bool,
    /// Names the compiled seccomp program in the store of programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// Init goes on to its program without waiting for `start`: what it is in is complete when it has executed it.
    pub straight: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fair: Option<Sharing>,
    /// Whether config.json must be read for poststart and poststop hooks.
    pub has_hooks: bool,
    pub rootless: bool,
    /// What the standard streams were when the container was made, as a checkpoint calls them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Option<String>>,
}

/// What was said about sharing the CPU since the container was made; it goes over annotations and config.json.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Sharing {
    pub said: BTreeMap<String, String>,
    /// The cpu.weight `update` has written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

/// Where the container's cgroup is.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct CgroupPlace {
    /// Where the hierarchy is mounted.
    pub mount: String,
    /// Relative to the mount.
    pub path: String,
    pub manager: String,
    /// The directories deja made for it, outermost first, relative to the mount; empty: it was there before.
    pub made: Vec<String>,
    /// The scope, where systemd makes the cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

/// The container's class of service in resctrl.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct RdtPlace {
    pub group: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
    /// The directories that go with the container, in this order.
    pub made: Vec<PathBuf>,
}

/// Where the host carries the mounts of a container without a mount namespace.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct HostPlace {
    pub path: String,
    /// The number of the mount that was there before.
    pub below: u64,
}

/// Who is told about the system calls that a seccomp profile notifies of.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    pub path: String,
    pub metadata: String,
}

impl Record {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is strings and numbers")
    }

    /// What a damaged record still says about the things that have to be ended and removed. They are written
    /// before anything that somebody else has a say in, so that the first place they are found is theirs.
    pub fn salvage(bytes: &[u8]) -> Self {
        Self {
            pid: field(bytes, "pid").unwrap_or_default(),
            start_time: field(bytes, "startTime").unwrap_or_default(),
            cgroup: field(bytes, "cgroup"),
            rdt: field(bytes, "rdt"),
            host_root: field(bytes, "hostRoot"),
            ..Self::default()
        }
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        match serde_json::from_slice::<Record>(bytes) {
            Ok(record) if (1..=VERSION).contains(&record.version) => Ok(record),
            whole => {
                let head: Option<Head> = serde_json::from_slice(bytes).ok();
                if let Some(newer) = head.map(|head| head.version).filter(|version| *version > VERSION) {
                    bail!("it was written by a newer deja (version {newer}, this one reads up to {VERSION})");
                }
                whole.context("it is damaged")?;
                bail!("it is damaged: no version")
            }
        }
    }
}

fn field<'b, T: Deserialize<'b>>(bytes: &'b [u8], name: &str) -> Option<T> {
    let key = format!("\"{name}\":");
    let place = bytes.windows(key.len()).position(|window| window == key.as_bytes())?;
    serde_json::Deserializer::from_slice(&bytes[place + key.len()..]).into_iter().next()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record {
            version: VERSION,
            id: "web".into(),
            oci_version: "1.3.0".into(),
            pid: 42,
            start_time: 4711,
            pid_inode: 815,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-20T23:43:51.5Z".into(),
            owner: 1000,
            cgroup: Some(CgroupPlace {
                mount: "/c".into(),
                path: "web".into(),
                manager: "cgroupfs".into(),
                made: vec!["web".into()],
                unit: "deja-web.scope".into(),
            }),
            rdt: Some(RdtPlace {
                group: "/r/web".into(),
                monitor: Some("/r/web/mon_groups/web".into()),
                made: vec!["/r/web/mon_groups/web".into(), "/r/web".into()],
            }),
            host_root: Some(HostPlace { path: "/b/rootfs".into(), below: 30 }),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            namespaces: 0x2000_0000,
            own_pids: true,
            seccomp: Some("abc".into()),
            listener: Some(Listener { path: "/s".into(), metadata: "m".into() }),
            straight: true,
            fair: Some(Sharing { said: [("shares".to_owned(), "2".to_owned())].into(), weight: Some(174) }),
            has_hooks: true,
            rootless: true,
            streams: vec![None, Some("pipe:[7]".into())],
        }
    }

    #[test]
    fn a_record_comes_back() {
        for record in [full(), Record { version: VERSION, ..Record::default() }] {
            assert_eq!(Record::from_bytes(&record.to_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn unknown_fields_are_passed_over_and_missing_ones_are_empty() {
        let record = Record::from_bytes(br#"{"version": 1, "id": "x", "later": {"a": [1]}}"#).unwrap();
        assert_eq!((record.id.as_str(), record.pid), ("x", 0));
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_words() {
        let newer = br#"{"version": 9, "pid": {"now": "an object"}}"#;
        assert_eq!(
            Record::from_bytes(newer).unwrap_err().to_string(),
            "it was written by a newer deja (version 9, this one reads up to 1)"
        );
        assert_eq!(Record::from_bytes(b"{}").unwrap_err().to_string(), "it is damaged: no version");
        let whole = full().to_bytes();
        for length in 0..whole.len() {
            let error = Record::from_bytes(&whole[..length]).unwrap_err().to_string();
            assert!(error.starts_with("it is damaged"), "{length}: {error}");
        }
    }

    #[test]
    fn a_damaged_record_still_says_what_must_go() {
        let mut record = full();
        record.annotations.insert("\"rdt\":{\"made\":[\"/\"]}".into(), "\"rdt\":{".into());
        record.annotations.insert("\"cgroup\":{\"path\":\"other\"}".into(), "\"pid\":1,".into());
        let whole = record.to_bytes();
        let end = whole.windows(8).position(|window| window == b"\"bundle\"").unwrap();
        for length in end..whole.len() {
            let found = Record::salvage(&whole[..length]);
            assert_eq!((found.pid, found.start_time, &found.cgroup), (42, 4711, &record.cgroup));
            assert_eq!(found.rdt, record.rdt);
        }
        for length in 0..end {
            let found = Record::salvage(&whole[..length]).cgroup;
            assert!(found.is_none() || found == record.cgroup);
        }
        assert_eq!(Record::salvage(b"\xff\0garbage"), Record::default());
    }
}
