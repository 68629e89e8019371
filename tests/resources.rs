//! `update` and `events`, on a container that is nothing but a record, a cgroup and a process in it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use deja::cgroup::{Cgroup, Mount, Request};
use deja::container::{CgroupPlace, Record, VERSION, life};
use serde_json::Value;
use support::{Bundle, Leaks, requires};
use tempfile::TempDir;

struct Planted {
    root: TempDir,
    cgroup: Cgroup,
    init: Child,
}

impl Planted {
    fn new(name: &str) -> Self {
        let mount = Mount::find().expect("a cgroup2 mount");
        let path = format!("deja-test/{name}-{}", std::process::id());
        let request = Request {
            path: &path,
            named: true,
            controllers: &[],
            rootless: &|| false,
            announce: &|_| Ok(()),
        };
        let cgroup = Cgroup::create(&mount, &request).expect("create").expect("a cgroup");
        let script = format!("echo $$ > {}/cgroup.procs && exec sleep 1000", cgroup.full());
        let init = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().expect("spawn sh");
        support::eventually("init joins", || cgroup.is_populated().unwrap().then_some(()));
        let root = tempfile::tempdir().expect("a temporary directory");
        let planted = Self { root, cgroup, init };
        planted.write_record();
        planted
    }

    fn write_record(&self) {
        let pid = self.init.id() as i32;
        let record = Record {
            version: VERSION,
            id: "web".into(),
            pid,
            start_time: life(pid).expect("read stat").expect("a process").start_time,
            cgroup: Some(CgroupPlace {
                unit: String::new(),
                mount: "/sys/fs/cgroup".into(),
                path: self.cgroup.path().into(),
                manager: "cgroupfs".into(),
                made: Vec::new(),
            }),
            ..Record::default()
        };
        let directory = self.root.path().join("web");
        fs::create_dir(&directory).expect("create the container's directory");
        fs::write(directory.join("record.json"), record.to_bytes()).expect("write the record");
    }

    fn deja(&self, words: &str) -> support::Deja {
        support::deja(self.root.path()).args(words.split_whitespace())
    }

    fn file(&self, name: &str) -> String {
        let path = Path::new(&self.cgroup.full()).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}")).trim_end().into()
    }

    fn end(&mut self) {
        // It may have ended already.
        let _gone = self.init.kill();
        self.init.wait().expect("wait for init");
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        self.end();
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[test]
fn update_changes_what_was_given_and_nothing_else() {
    requires!(bed, cgroup "memory", cgroup "pids", cgroup "cpu", cgroup "cpuset");
    let web = Planted::new("update");
    web.deja("update --memory 64M --memory-swap 96M --pids-limit 50 --cpu-share 512 --cpu-quota 20000 web")
        .ok();
    let check = |expected: [(&str, &str); 5]| {
        for (file, value) in expected {
            assert_eq!(web.file(file), value, "{file}");
        }
    };
    let start = [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("pids.max", "50"),
        ("cpu.weight", "59"),
        ("cpu.max", "20000 100000"),
    ];
    check(start);
    web.deja("update web --cpu-period 50000 --cpuset-cpus 0").ok();
    check(start.map(|(file, value)| (file, if file == "cpu.max" { "20000 50000" } else { value })));
    assert_eq!(web.file("cpuset.cpus"), "0");
    web.deja("update --memory -1 --cpu-quota -1 --pids-limit -1 web").ok();
    assert_eq!(
        ["memory.max", "memory.swap.max", "cpu.max", "pids.max"].map(|file| web.file(file)),
        ["max", "max", "max 50000", "max"]
    );
    web.deja("update --memory-swap 0 web").ok();
    assert_eq!(["memory.max", "memory.swap.max"].map(|file| web.file(file)), ["max", "0"]);
}

#[test]
fn update_reads_resources_from_a_file_or_standard_input() {
    requires!(bed, cgroup "memory");
    let web = Planted::new("stdin");
    let input =
        r#"{"memory": {"limit": 33554432}, "devices": [{"allow": false, "access": "rwm"}], "cpu": {}}"#;
    web.deja("update -r - --memory 1G web").stdin(input).ok();
    assert_eq!(web.file("memory.max"), "33554432", "the other flags count for nothing");
    let file = web.root.path().join("r.json");
    fs::write(&file, r#"{"unified": {"memory.high": "16777216"}}"#).unwrap();
    web.deja("update web --resources").arg(&file).ok();
    assert_eq!((web.file("memory.high"), web.file("memory.max")), ("16777216".into(), "33554432".into()));
    let low = r#"{"memory": {"limit": 1024, "checkBeforeUpdate": true}}"#;
    let refused = web.deja("update --resources=- web").stdin(low).fails();
    assert!(refused.stderr().contains("rejecting memory limit 1024 <= usage "), "{refused}");
}

#[test]
fn update_says_what_it_cannot_do() {
    requires!(bed);
    let mut web = Planted::new("refused");
    let says = |words: &str, input: &str, expected: &str| {
        let finished = web.deja(words).stdin(input).fails();
        assert!(finished.stderr().contains(expected), "{finished}");
    };
    says("update --resources=- web", "{", "read the resources to update: EOF while parsing");
    says("update -r /does/not/exist web", "", "read \\\"/does/not/exist\\\": No such file or directory");
    says("update -r - web", r#"{"unified": {"a/b.c": "1"}}"#, "must be a file name (no slashes)");
    says(
        "update -r - web",
        r#"{"unified": {"nonsense.max": "1"}}"#,
        "controller \\\"nonsense\\\" not available",
    );
    says("update --cpu-rt-period 1 web", "", "cpu.realtimePeriod does not exist in cgroup v2");
    says("update --mem-bw-schema MB:0=20 web", "", "the container was made without linux.intelRdt");
    says("update --memory 1G none", "", "does not exist");
    web.end();
    let finished = web.deja("update --memory 1G web").fails();
    assert!(finished.stderr().contains("container not running"), "{finished}");
}

#[test]
fn events_stats_is_one_line() {
    requires!(bed);
    let mut web = Planted::new("stats");
    let text = web.deja("events --stats web").ok().stdout();
    assert!(text.starts_with(r#"{"type":"stats","id":"web","data":{"cpu":{"#), "{text}");
    let events = lines(&text);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"]["pids"]["current"], 1);
    for part in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"] {
        assert!(events[0]["data"][part].is_object(), "{part}: {text}");
    }
    for (part, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")] {
        let kernel_tells = PathBuf::from(web.cgroup.full()).join(file).exists();
        assert_eq!(events[0]["data"][part]["psi"].is_object(), kernel_tells, "{file}: {text}");
    }
    assert!(events[0]["data"]["network_interfaces"].is_null());
    web.end();
    let finished = web.deja("events --stats web").fails();
    assert!(finished.stderr().contains("container with id web is not running"), "{finished}");
}

#[test]
fn events_go_on_until_the_last_process_has_ended() {
    requires!(bed);
    let mut web = Planted::new("follow");
    let running = web.deja("events --interval 30ms web").spawn();
    support::eventually("three reports", || (running.stdout().lines().count() >= 3).then_some(()));
    web.end();
    let finished = running.finish();
    assert_eq!(finished.code(), Some(0));
    for event in lines(&finished.stdout()) {
        assert_eq!((&event["type"], &event["id"]), (&"stats".into(), &"web".into()));
    }
}

#[test]
fn events_tell_of_a_kill_for_lack_of_memory() {
    requires!(bed, cgroup "memory");
    let web = Planted::new("oom");
    web.deja("update --memory 8M --memory-swap 8M web").ok();
    let running = web.deja("events --interval 1h web").spawn();
    // Until it watches: what was before does not count.
    let watches = || {
        let directory = PathBuf::from(format!("/proc/{}/fd", running.pid()));
        let mut open =
            fs::read_dir(directory).ok()?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.any(|path| path.ends_with("memory.events")).then_some(())
    };
    support::eventually("events watches", watches);
    let eater = format!("echo $$ > {}/cgroup.procs; head -c 99999999 /dev/zero | tail", web.cgroup.full());
    Command::new("sh").args(["-c", &eater]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    support::eventually("the event", || running.stdout().contains("oom").then_some(()));
    assert_eq!(running.stdout().lines().next(), Some(r#"{"type":"oom","id":"web"}"#));
}

#[test]
fn a_class_of_service_needs_resctrl() {
    requires!(bed);
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return;
    }
    let bundle = Bundle::new().set("/linux/intelRdt", serde_json::json!({"l3CacheSchema": "L3:0=f"}));
    let leaks = Leaks::snapshot(&bundle);
    bundle.run().assert_code(1).assert_says("linux.intelRdt: no resctrl file system is mounted");
    leaks.assert_none();
}
