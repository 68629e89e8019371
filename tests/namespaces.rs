//! Namespaces of every kind: new ones, those of others by path, and the clocks of a time namespace.

mod support;

use std::fs;

use serde_json::json;
use support::{Bundle, requires};

/// The kind as config.json names it, and its file in /proc/PID/ns.
const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
];

fn inode(pid: &str, file: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace");
    link.to_string_lossy().into_owned()
}

#[test]
fn new_ones_differ_and_others_are_shared() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let pid = container.pid().to_string();
    for (kind, file) in KINDS {
        assert_ne!(inode(&pid, file), inode("self", file), "{kind}");
    }
    for file in ["user", "time"] {
        assert_eq!(inode(&pid, file), inode("self", file), "{file}");
    }
}

#[test]
fn without_an_entry_the_namespace_is_the_caller_s() {
    requires!(bed);
    for (kind, file) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
        let mut bundle = Bundle::new().sleeps().without_namespace(kind);
        match kind {
            "uts" => bundle = bundle.remove("/hostname"),
            "network" => bundle = bundle.without_mount("/sys"),
            "ipc" => bundle = bundle.without_mount("/dev/mqueue"),
            _ => (),
        }
        let container = bundle.start();
        assert_eq!(inode(&container.pid().to_string(), file), inode("self", file), "{kind}");
    }
}

#[test]
fn those_of_another_container_are_joined_by_path() {
    requires!(bed);
    let first = Bundle::new().sleeps();
    let container = first.start();
    let pid = container.pid().to_string();
    let mut second = Bundle::new().sleeps().remove("/hostname").without_mount("/dev/mqueue");
    for (kind, file) in KINDS.into_iter().filter(|(kind, _)| !["mount", "cgroup"].contains(kind)) {
        second = second.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
    }
    let joined = second.start();
    for (kind, file) in KINDS {
        let same = inode(&joined.pid().to_string(), file) == inode(&pid, file);
        assert_eq!(same, !["mount", "cgroup"].contains(&kind), "{kind}");
    }
    assert_eq!(joined.exec(&["hostname"]).stdout().trim_end(), "deja");
    // Its init is an ordinary process there: it has to be killed itself.
    joined.kill("KILL");
    joined.wait_status("stopped");
    joined.delete();
    assert_eq!(container.status(), "running");
}

#[test]
fn a_path_of_another_kind_is_refused() {
    requires!(bed);
    let bundle = Bundle::new().namespace("network", Some("/proc/self/ns/uts"));
    bundle.run().assert_says("the path is no namespace of that type");
    let bundle = Bundle::new().namespace("ipc", Some("/proc/self/ns/none"));
    bundle.run().assert_says("open namespace \"/proc/self/ns/none\"");
}

#[test]
fn a_time_namespace_has_clocks_of_its_own() {
    requires!(bed, namespace "time");
    let bundle = Bundle::new()
        .namespace("time", None)
        .set(
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 5000, "nanosecs": 7}, "boottime": {"secs": 86400}}),
        )
        .script("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime");
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").expect("uptime");
        text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).expect("seconds")
    };
    let before = uptime();
    let run = bundle.run().assert_code(0);
    let text = run.stdout();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "5000", "7", "boottime", "86400", "0"], "{run}");
    let inside: u64 = words[6].parse().expect("seconds");
    assert!((before..=uptime()).contains(&(inside - 86_400)), "{inside} inside, {before} before");
}

#[test]
fn clocks_that_are_none_are_refused() {
    requires!(bed);
    let offsets = |value| Bundle::new().namespace("time", None).set("/linux/timeOffsets", value);
    offsets(json!({"realtime": {"secs": 1}})).run().assert_says("\"realtime\" is not a clock");
    let back = offsets(json!({"boottime": {"secs": -4_000_000_000i64}})).run();
    back.assert_says("the offset would turn the clock back behind zero");
}
