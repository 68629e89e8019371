//! What systemd is told of a container: its limits, and what annotations ask for. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::text;
use super::wire::Value;
use crate::cgroup::limits::{Otherwise, Write};

#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    pub value: Value,
}

impl Property {
    pub fn new(name: impl Into<String>, value: Value) -> Self {
        Self { name: name.into(), value }
    }
}

/// Annotations with this prefix are properties of the unit.
pub const ANNOTATION: &str = "org.systemd.property.";

/// The properties for limits, from the writes that carry them out. What systemd has no property for is left out.
pub fn limits(writes: &[Write]) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for write in writes {
        limit(write, &mut found)
            .with_context(|| format!("{} = {:?} as a property of systemd's", write.file, write.value))?;
    }
    Ok(found)
}

fn limit(write: &Write, found: &mut Vec<Property>) -> Result<()> {
    let value = write.value.as_str();
    let mut add = |name: &str, value| found.push(Property::new(name, value));
    match write.file.as_ref() {
        "memory.max" => add("MemoryMax", amount(value)?),
        "memory.high" => add("MemoryHigh", amount(value)?),
        "memory.low" => add("MemoryLow", amount(value)?),
        "memory.min" => add("MemoryMin", amount(value)?),
        "memory.swap.max" => add("MemorySwapMax", amount(value)?),
        "memory.zswap.max" => add("MemoryZSwapMax", amount(value)?),
        "pids.max" => add("TasksMax", amount(value)?),
        "cpu.weight" => add("CPUWeight", amount(value)?),
        "cpu.idle" if value == "1" => add("CPUWeight", Value::Uint64(0)),
        "cpu.max" => {
            let (share, period) = quota(value)?;
            add("CPUQuotaPerSecUSec", Value::Uint64(share));
            add("CPUQuotaPeriodUSec", Value::Uint64(period));
        }
        "cpuset.cpus" => add("AllowedCPUs", bits(value)?),
        "cpuset.mems" => add("AllowedMemoryNodes", bits(value)?),
        "io.weight" => match value.trim_start_matches("default ").split_once(' ') {
            Some((device, weight)) => add("IODeviceWeight", for_device(device, weight)?),
            None => add("IOWeight", amount(value.trim_start_matches("default "))?),
        },
        "io.max" => throttle(value, &mut add)?,
        _ => {}
    }
    match &write.otherwise {
        Otherwise::IfMissing(instead) => limit(instead, found),
        _ => Ok(()),
    }
}

/// systemd writes no limit as the largest number.
fn amount(text: &str) -> Result<Value> {
    match text {
        "max" => Ok(Value::Uint64(u64::MAX)),
        text => text.parse().map(Value::Uint64).context("no number"),
    }
}

/// The period of cpu.max where nobody has said another.
const PERIOD: u64 = 100_000;

/// From `quota period` to microseconds in a second, and the period.
fn quota(value: &str) -> Result<(u64, u64)> {
    let mut words = value.split(' ');
    let quota = words.next().unwrap_or_default();
    let period = words.next().map_or(Ok(PERIOD), str::parse).context("no period")?;
    if quota == "max" {
        return Ok((u64::MAX, period));
    }
    let quota: u128 = quota.parse().context("no quota")?;
    let share = (quota * 1_000_000).div_ceil(u128::from(period.max(1)));
    Ok((u64::try_from(share).unwrap_or(u64::MAX), period))
}

/// More processors and nodes than any kernel has.
const HIGHEST: usize = 1 << 14;

/// A list such as `0-3,7` as a mask, the lowest bit first.
fn bits(list: &str) -> Result<Value> {
    let mut mask = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse()?, last.parse()?);
        if first > last || last > HIGHEST {
            bail!("{part:?} is no range");
        }
        for bit in first..=last {
            mask.resize(mask.len().max(bit / 8 + 1), 0u8);
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(Value::Array("y".to_owned(), mask.into_iter().map(Value::Byte).collect()))
}

fn for_device(device: &str, amount: &str) -> Result<Value> {
    let path = Value::text(format!("/dev/block/{device}"));
    let pair = Value::Struct(vec![path, self::amount(amount)?]);
    Ok(Value::Array("(st)".to_owned(), vec![pair]))
}

fn throttle(line: &str, add: &mut impl FnMut(&str, Value)) -> Result<()> {
    let mut words = line.split(' ');
    let device = words.next().unwrap_or_default();
    for word in words {
        let name = match word.split_once('=') {
            Some(("rbps", _)) => "IOReadBandwidthMax",
            Some(("wbps", _)) => "IOWriteBandwidthMax",
            Some(("riops", _)) => "IOReadIOPSMax",
            Some(("wiops", _)) => "IOWriteIOPSMax",
            _ => bail!("{word:?} is no limit"),
        };
        add(name, for_device(device, word.split_once('=').map_or("", |(_, amount)| amount))?);
    }
    Ok(())
}

/// The properties that annotations ask for. `NameSec` in seconds stands for `NameUSec`.
pub fn annotated(annotations: &BTreeMap<&str, &str>) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let property = one_annotated(name, text).with_context(|| format!("annotation {key:?}: {text:?}"))?;
        found.push(property);
    }
    Ok(found)
}

fn one_annotated(name: &str, text: &str) -> Result<Property> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        bail!("{name:?} is no name of a property");
    }
    let value = text::parse(text)?;
    match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        Some(stem) => Ok(Property::new(format!("{stem}USec"), microseconds(&value)?)),
        None => Ok(Property::new(name, value)),
    }
}

fn microseconds(value: &Value) -> Result<Value> {
    let seconds = match value {
        Value::Byte(number) => f64::from(*number),
        Value::Int16(number) => f64::from(*number),
        Value::Uint16(number) => f64::from(*number),
        Value::Int32(number) => f64::from(*number),
        Value::Uint32(number) => f64::from(*number),
        Value::Int64(number) => *number as f64,
        Value::Uint64(number) => *number as f64,
        Value::Double(number) => *number,
        _ => bail!("not a number of seconds"),
    };
    if seconds.is_nan() || seconds < 0.0 {
        bail!("not a number of seconds");
    }
    Ok(Value::Uint64((seconds * 1e6) as u64))
}

/// `later` goes before what `earlier` says of the same property; a list of one device each is put together.
pub fn merge(earlier: Vec<Property>, later: Vec<Property>) -> Vec<Property> {
    let mut merged: Vec<Property> = Vec::new();
    for property in earlier {
        let before = merged.iter_mut().find(|other| other.name == property.name);
        match (before.map(|before| &mut before.value), property.value) {
            (Some(Value::Array(kind, list)), Value::Array(_, more)) if kind == "(st)" => list.extend(more),
            (Some(before), value) => *before = value,
            (None, value) => merged.push(Property { name: property.name, value }),
        }
    }
    merged.retain(|property| later.iter().all(|other| other.name != property.name));
    merged.extend(later);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::limits::{Facts, writes};

    fn told(resources: &str) -> String {
        let resources = serde_json::from_str(resources).unwrap();
        let list = limits(&writes(&resources, &Facts::default()).unwrap()).unwrap();
        let merged = merge(list, Vec::new());
        merged.iter().map(|p| format!("{}={:?}", p.name, p.value)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn limits_become_properties() {
        let table = [
            ("{}", ""),
            (
                r#"{"memory": {"limit": 1000, "reservation": -1}}"#,
                "MemoryMax=Uint64(1000); MemoryLow=Uint64(18446744073709551615)",
            ),
            (
                r#"{"memory": {"limit": 1000, "swap": 1500}}"#,
                "MemorySwapMax=Uint64(500); MemoryMax=Uint64(1000)",
            ),
            (
                r#"{"cpu": {"quota": 50000, "period": 100000}}"#,
                "CPUQuotaPerSecUSec=Uint64(500000); CPUQuotaPeriodUSec=Uint64(100000)",
            ),
            (
                r#"{"cpu": {"quota": -1}}"#,
                "CPUQuotaPerSecUSec=Uint64(18446744073709551615); CPUQuotaPeriodUSec=Uint64(100000)",
            ),
            (r#"{"cpu": {"idle": 1}}"#, "CPUWeight=Uint64(0)"),
            (r#"{"cpu": {"cpus": "0,8-9"}}"#, r#"AllowedCPUs=Array("y", [Byte(1), Byte(3)])"#),
            (r#"{"pids": {"limit": 7}}"#, "TasksMax=Uint64(7)"),
            (r#"{"pids": {"limit": -1}}"#, "TasksMax=Uint64(18446744073709551615)"),
            (r#"{"blockIO": {"weight": 500}}"#, "IOWeight=Uint64(4950)"),
            (r#"{"unified": {"memory.high": "5", "hugetlb.2MB.max": "0"}}"#, "MemoryHigh=Uint64(5)"),
        ];
        for (resources, expected) in table {
            assert_eq!(told(resources), expected, "{resources}");
        }
    }

    #[test]
    fn devices_of_one_property_stand_in_one_list() {
        let device = |minor: u32, rate: u32| format!(r#"{{"major": 8, "minor": {minor}, "rate": {rate}}}"#);
        let both = format!("{}, {}", device(0, 5), device(1, 0));
        let told = told(&format!(r#"{{"blockIO": {{"throttleReadBpsDevice": [{both}]}}}}"#));
        let pair =
            |minor: u32, rate: u64| format!(r#"Struct([Str("/dev/block/8:{minor}"), Uint64({rate})])"#);
        assert_eq!(
            told,
            format!(r#"IOReadBandwidthMax=Array("(st)", [{}, {}])"#, pair(0, 5), pair(1, u64::MAX))
        );
    }

    #[test]
    fn annotations_become_properties_and_come_first() {
        let annotations = BTreeMap::from([
            ("org.systemd.property.TimeoutStopSec", "1.5"),
            ("org.systemd.property.RuntimeMaxUSec", "uint64 7"),
            ("org.systemd.property.TasksMax", "uint64 9"),
            ("other", "x"),
        ]);
        let merged =
            merge(vec![Property::new("TasksMax", Value::Uint64(1))], annotated(&annotations).unwrap());
        let expected = [
            Property::new("RuntimeMaxUSec", Value::Uint64(7)),
            Property::new("TasksMax", Value::Uint64(9)),
            Property::new("TimeoutStopUSec", Value::Uint64(1_500_000)),
        ];
        assert_eq!(merged, expected);
        for (name, text) in
            [("X", "1"), ("A B C", "1"), ("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1"), ("Good", "bad")]
        {
            let key = format!("org.systemd.property.{name}");
            let error = annotated(&BTreeMap::from([(key.as_str(), text)])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("annotation {key:?}: {text:?}")), "{error}");
        }
    }
}
