//! What a cgroup has used, in the shape `events --stats` prints.
//!
//! Field names, order and what is left out when it is zero are runc's (its types/events.go), because
//! monitors read them. Times are nanoseconds, sizes bytes. A file that does not exist counts as zero: the
//! controller is not there, or the kernel is older.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Serialize, Serializer};

use super::{Cgroup, c_name, pairs, read_file, value_of};
use crate::sys::{AsFd, Errno, fs};

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Usage {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Nothing to tell without resctrl.
    pub intel_rdt: Nothing,
    /// Interfaces in the container are not the runtime's.
    pub network_interfaces: Option<()>,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Nothing {}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Cpu {
    #[serde(skip_serializing_if = "is_default")]
    pub usage: CpuUsage,
    #[serde(skip_serializing_if = "is_default")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Serialize, Default, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// Knobs of cgroup v1, zero in v2, but part of the shape.
#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Cpuset {
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: MemoryEntry,
    #[serde(skip_serializing_if = "is_default")]
    pub swap: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Serialize, Default, Debug, PartialEq, Clone)]
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    /// Zero: none.
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

#[derive(Serialize, Default, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    pub op: &'static str,
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    pub failcnt: u64,
}

/// Stalls for want of a resource.
#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Pressure {
    #[serde(skip_serializing_if = "is_default")]
    pub some: Stall,
    #[serde(skip_serializing_if = "is_default")]
    pub full: Stall,
}

#[derive(Serialize, Default, Debug, PartialEq)]
pub struct Stall {
    #[serde(serialize_with = "as_go_does")]
    pub avg10: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg60: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg300: f64,
    pub total: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whole numbers without a fraction: `0`, not `0.0`.
fn as_go_does<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && *value >= 0.0 {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

impl Usage {
    pub fn read(cgroup: &Cgroup) -> Result<Self> {
        let file = |name: &str| content(cgroup, name);
        let pressure = |name: &str| content(cgroup, name).map(|text| text.as_deref().and_then(stalls));
        let mut cpu = file("cpu.stat")?.map(|text| self::cpu(&text)).unwrap_or_default();
        cpu.psi = pressure("cpu.pressure")?;
        let mut memory = memory(cgroup)?;
        memory.psi = pressure("memory.pressure")?;
        let mut blkio = file("io.stat")?.map(|text| self::blkio(&text)).unwrap_or_default();
        blkio.psi = pressure("io.pressure")?;
        Ok(Self { cpu, memory, pids: pids(cgroup)?, blkio, hugetlb: hugetlb(cgroup)?, ..Self::default() })
    }
}

/// None: the file is not there, or its contents are switched off.
fn content(cgroup: &Cgroup, name: &str) -> Result<Option<String>> {
    match read_file(cgroup.as_fd(), &c_name(name)) {
        Ok(text) => Ok(Some(text)),
        Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
        Err(fault) => Err(cgroup.failed(&format!("read {name} of"), fault)),
    }
}

/// A file of one number; "max" is the largest there is.
fn number(cgroup: &Cgroup, name: &str) -> Result<Option<u64>> {
    let text = content(cgroup, name)?;
    Ok(text.map(|text| match text.trim_end() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    }))
}

fn cpu(stat: &str) -> Cpu {
    let microseconds = |key| value_of(stat, key).unwrap_or(0) * 1000;
    let count = |key| value_of(stat, key).unwrap_or(0);
    Cpu {
        usage: CpuUsage {
            total: microseconds("usage_usec"),
            kernel: microseconds("system_usec"),
            user: microseconds("user_usec"),
        },
        throttling: Throttling {
            periods: count("nr_periods"),
            throttled_periods: count("nr_throttled"),
            throttled_time: microseconds("throttled_usec"),
        },
        psi: None,
    }
}

fn memory(cgroup: &Cgroup) -> Result<Memory> {
    let Some(stat) = content(cgroup, "memory.stat")? else { return Ok(Memory::default()) };
    let entry = |name: &str| -> Result<MemoryEntry> {
        let value = |file: &str| number(cgroup, &format!("{name}.{file}")).map(Option::unwrap_or_default);
        Ok(MemoryEntry { limit: value("max")?, usage: value("current")?, max: value("peak")?, failcnt: 0 })
    };
    let usage = entry("memory")?;
    let swap = with_memory(&entry("memory.swap")?, &usage);
    let raw: BTreeMap<String, u64> = pairs(&stat).map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(Memory { cache: raw.get("file").copied().unwrap_or(0), usage, swap, raw, psi: None })
}

/// Monitors expect what v1 told them: memory and swap together, and no peak of the sum.
fn with_memory(swap: &MemoryEntry, memory: &MemoryEntry) -> MemoryEntry {
    MemoryEntry {
        limit: swap.limit.saturating_add(memory.limit),
        usage: swap.usage.saturating_add(memory.usage),
        ..MemoryEntry::default()
    }
}

fn pids(cgroup: &Cgroup) -> Result<Pids> {
    let Some(current) = number(cgroup, "pids.current")? else {
        return Ok(Pids { current: cgroup.processes()?.len() as u64, limit: 0 });
    };
    let limit = number(cgroup, "pids.max")?.filter(|limit| *limit != u64::MAX).unwrap_or(0);
    Ok(Pids { current, limit })
}

fn blkio(stat: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op, value: value.parse().unwrap_or(0) });
        }
    }
    blkio
}

/// The page sizes are those the cgroup has files for.
fn hugetlb(cgroup: &Cgroup) -> Result<BTreeMap<String, Hugetlb>> {
    let mut sizes = Vec::new();
    fs::entries(cgroup, |name, _| {
        let name = name.to_string_lossy();
        let size = name.strip_prefix("hugetlb.").and_then(|name| name.strip_suffix(".current"));
        if let Some(size) = size.filter(|size| !size.contains('.')) {
            sizes.push(size.to_owned());
        }
    })
    .map_err(|fault| cgroup.failed("list", fault))?;
    let mut table = BTreeMap::new();
    for size in sizes {
        let reserved = number(cgroup, &format!("hugetlb.{size}.rsvd.current"))?;
        let usage = match reserved {
            Some(usage) => usage,
            None => number(cgroup, &format!("hugetlb.{size}.current"))?.unwrap_or(0),
        };
        let events = content(cgroup, &format!("hugetlb.{size}.events"))?.unwrap_or_default();
        table.insert(size, Hugetlb { usage, failcnt: value_of(&events, "max").unwrap_or(0) });
    }
    Ok(table)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`.
fn stalls(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (name, fields) = line.split_once(' ')?;
        let stall = match name {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => stall.avg10 = value.parse().ok()?,
                "avg60" => stall.avg60 = value.parse().ok()?,
                "avg300" => stall.avg300 = value.parse().ok()?,
                "total" => stall.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_nothing() {
        let json = serde_json::to_string(&Usage::default()).unwrap();
        assert_eq!(
            json,
            r#"{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#
        );
    }

    #[test]
    fn files_become_the_shape() {
        let mut cpu = cpu(
            "usage_usec 15\nuser_usec 10\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 0\n",
        );
        cpu.psi = stalls(
            "some avg10=1.50 avg60=0.00 avg300=20.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        );
        assert_eq!(
            serde_json::to_string(&cpu).unwrap(),
            r#"{"usage":{"total":15000,"kernel":5000,"user":10000},"throttling":{"periods":3,"throttledPeriods":2,"throttledTime":7000},"psi":{"some":{"avg10":1.5,"avg60":0,"avg300":20,"total":12}}}"#
        );
        let blkio = blkio("8:0 rbytes=10 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\nbroken\n254:16 \n");
        assert_eq!(
            serde_json::to_string(&blkio).unwrap(),
            r#"{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":10},{"major":8,"op":"Write"}],"ioServicedRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write"}]}"#
        );
        let entry = |limit, usage| MemoryEntry { limit, usage, max: 9, failcnt: 0 };
        assert_eq!(with_memory(&entry(5, 1), &entry(10, 2)).limit, 15);
        assert_eq!(with_memory(&entry(u64::MAX, 1), &entry(10, 2)).limit, u64::MAX);
        assert_eq!(
            serde_json::to_string(&with_memory(&entry(5, 1), &entry(10, 2))).unwrap(),
            r#"{"limit":15,"usage":3,"failcnt":0}"#
        );
        assert_eq!(stalls("nonsense"), None);
    }
}
