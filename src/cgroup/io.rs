//! `linux.resources.blockIO` -> io.weight and io.max. Pure.
//!
//! Weights go to the BFQ scheduler's file where the kernel has it and to io.weight, converted, where it has
//! not. All limits of one device go in one line of io.max.

use anyhow::{Result, bail};

use super::limits::{Otherwise, Write};
use crate::spec::{BlockIo, ThrottleDevice};

pub(super) fn writes(block: &BlockIo, writes: &mut Vec<Write>) -> Result<()> {
    let leaves = block.weight_device.iter().map(|device| device.leaf_weight);
    if leaves.chain([block.leaf_weight]).flatten().any(|weight| weight != 0) {
        bail!("blockIO.leafWeight does not exist in cgroup v2");
    }
    if let Some(weight) = checked(block.weight)? {
        writes.push(self::weight("", weight));
    }
    for device in &block.weight_device {
        if let Some(weight) = checked(device.weight)? {
            writes.push(self::weight(&format!("{} ", number(device.major, device.minor)?), weight));
        }
    }
    throttle(block, writes)
}

/// A warning where weights are written that nothing on this machine goes by.
pub fn unheeded(writes: &[Write], mount: &str) -> Option<&'static str> {
    if !writes.iter().any(|write| matches!(write.file.as_ref(), "io.weight" | "io.bfq.weight")) {
        return None;
    }
    let queues = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let schedulers = queues.map(|disk| disk.path().join("queue/scheduler"));
    let schedulers: Vec<String> = schedulers.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let costs = std::fs::read_to_string(format!("{mount}/io.cost.qos")).unwrap_or_default();
    (!heeded(&schedulers, &costs)).then_some(
        "blockIO weights have no effect: no disk has the scheduler bfq, and io.cost.qos is enabled for none; \
         choose one of them, or use limits",
    )
}

/// The word in brackets is the scheduler in force.
fn heeded(schedulers: &[String], costs: &str) -> bool {
    schedulers.iter().any(|words| words.contains("[bfq]")) || costs.contains("enable=1")
}

/// Zero and absent are both "unset".
fn checked(weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => bail!("blockIO weight {weight} is not between 10 and 1000"),
    }
}

fn weight(device: &str, weight: u16) -> Write {
    let converted = Write::new("io.weight", format!("{device}{}", io_weight(weight)));
    Write::new("io.bfq.weight", format!("{device}{weight}")).or(Otherwise::IfMissing(Box::new(converted)))
}

/// Linear from [10, 1000] to [1, 10000].
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn number(major: i64, minor: i64) -> Result<String> {
    if major < 0 || minor < 0 {
        bail!("blockIO: {major}:{minor} is not a device");
    }
    Ok(format!("{major}:{minor}"))
}

fn throttle(block: &BlockIo, writes: &mut Vec<Write>) -> Result<()> {
    let limits: [(&str, &[ThrottleDevice]); 4] = [
        ("rbps", &block.throttle_read_bps_device),
        ("wbps", &block.throttle_write_bps_device),
        ("riops", &block.throttle_read_iops_device),
        ("wiops", &block.throttle_write_iops_device),
    ];
    let mut lines: Vec<(String, String)> = Vec::new();
    for (key, devices) in limits {
        for device in devices {
            let name = number(device.major, device.minor)?;
            let limit = match device.rate {
                0 => format!(" {key}=max"),
                rate => format!(" {key}={rate}"),
            };
            match lines.iter_mut().find(|(device, _)| *device == name) {
                Some((_, line)) => *line += &limit,
                None => lines.push((name, limit)),
            }
        }
    }
    writes.extend(lines.into_iter().map(|(device, limits)| Write::new("io.max", device + &limits)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> String {
        let block: BlockIo = serde_json::from_str(json).unwrap();
        let mut list = Vec::new();
        match writes(&block, &mut list) {
            Ok(()) => list.iter().map(Write::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => format!("refused: {error}"),
        }
    }

    #[test]
    fn what_is_asked_is_what_is_written() {
        let table = [
            ("{}", ""),
            (r#"{"weight": 0, "leafWeight": 0, "weightDevice": null}"#, ""),
            (r#"{"weight": 750}"#, r#"io.bfq.weight = "750""#),
            (r#"{"weight": 9}"#, "refused: blockIO weight 9 is not between 10 and 1000"),
            (r#"{"weight": 1001}"#, "refused: blockIO weight 1001 is not between 10 and 1000"),
            (r#"{"leafWeight": 10}"#, "refused: blockIO.leafWeight does not exist in cgroup v2"),
            (
                r#"{"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}"#,
                "refused: blockIO.leafWeight does not exist in cgroup v2",
            ),
            (
                r#"{"weightDevice": [{"major": 8, "minor": 0, "weight": 444}, {"major": 8, "minor": 1}]}"#,
                r#"io.bfq.weight = "8:0 444""#,
            ),
            (
                r#"{"weightDevice": [{"major": -1, "minor": 0, "weight": 444}]}"#,
                "refused: blockIO: -1:0 is not a device",
            ),
            (
                r#"{"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 0}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 18446744073709551615}]}"#,
                r#"io.max = "8:0 rbps=1000 riops=7 wiops=18446744073709551615"; io.max = "8:16 wbps=max""#,
            ),
        ];
        for (json, expected) in table {
            assert_eq!(lines(json), expected, "{json}");
        }
    }

    #[test]
    fn weights_count_where_a_scheduler_knows_them() {
        let table: &[(&[&str], &str, bool)] = &[
            (&["none [mq-deadline]", "mq-deadline kyber [bfq] none"], "", true),
            (&["[none] mq-deadline bfq"], "", false),
            (&[], "8:0 enable=1 ctrl=auto rpct=0.00", true),
            (&[], "8:0 enable=0 ctrl=auto", false),
        ];
        for (schedulers, costs, expected) in table {
            let schedulers: Vec<String> = schedulers.iter().map(|words| (*words).to_owned()).collect();
            assert_eq!(heeded(&schedulers, costs), *expected, "{schedulers:?} {costs:?}");
        }
        assert_eq!(unheeded(&[Write::new("io.max", "8:0 rbps=1")], "/"), None);
    }

    #[test]
    fn without_bfq_the_weight_is_converted() {
        for (asked, expected) in [(10, 1), (100, 910), (500, 4950), (750, 7475), (1000, 10000)] {
            let Otherwise::IfMissing(instead) = weight("8:0 ", asked).otherwise else { panic!() };
            assert_eq!(*instead, Write::new("io.weight", format!("8:0 {expected}")));
        }
    }
}
