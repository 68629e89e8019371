//! What the flags of `create` and `run` hand in and out, and what is refused by name.

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::{Bundle, ConsoleSocket, requires};

#[test]
fn a_pid_file_and_a_pidfd_are_left() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let (pid_file, path) = (bundle.file("pid"), bundle.file("pidfd.sock"));
    let socket = ConsoleSocket::listen(&path);
    let flags = ["--pid-file", pid_file.to_str().unwrap(), "--pidfd-socket", path.to_str().unwrap()];
    let container = bundle.create_with(bundle.id(), &flags);
    assert_eq!(fs::read_to_string(&pid_file).expect("a pid file"), container.pid().to_string());
    let pidfd = socket.accept().master;
    let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd));
    let info = fs::read_to_string(info).expect("what the descriptor is");
    assert!(info.lines().any(|line| line == format!("Pid:\t{}", container.pid())), "{info}");
}

#[test]
fn a_config_elsewhere_is_read_instead() {
    requires!(bed);
    let bundle = Bundle::new().script("echo usual");
    bundle.save();
    let mut config = bundle.config().clone();
    config["process"]["args"] = json!(["/bin/echo", "other"]);
    let file = bundle.file("other.json");
    fs::write(&file, config.to_string()).expect("write the other config");
    bundle.run_with(&["--config", file.to_str().unwrap()]).assert_code(0).assert_stdout("other");
    bundle.run_with(&["-f", "/no/such"]).assert_code(1).assert_says("open \"/no/such\"");
}

#[test]
fn the_bundle_is_the_current_directory_unless_named() {
    requires!(bed);
    let bundle = Bundle::new().script("echo here");
    bundle.save();
    let run = bundle.deja().arg("run").arg(bundle.id()).directory(bundle.path()).ok();
    run.assert_stdout("here");
    bundle.deja().args(["run", "--bundle", "/no/such", "x"]).fails().assert_says("/no/such/config.json");
}

#[test]
fn run_keeps_what_it_is_told_to_keep() {
    requires!(bed);
    let bundle = Bundle::new().args(&["/bin/true"]);
    bundle.run_with(&["--keep"]).assert_code(0);
    let state = bundle.deja().arg("state").arg(bundle.id()).ok().json();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    bundle.deja().arg("delete").arg(bundle.id()).ok();
    bundle.run_with(&["--no-subreaper"]).assert_code(0);
    let container = bundle.create_with(bundle.id(), &["--no-subreaper"]);
    container.start();
}

#[test]
fn a_terminal_has_the_size_and_needs_somebody_who_holds_it() {
    requires!(bed);
    let bundle = Bundle::new()
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 33, "width": 101}))
        .script("stty size; sleep 1000");
    let path = bundle.file("console.sock");
    let socket = ConsoleSocket::listen(&path);
    let flags = ["--console-socket", path.to_str().unwrap()];
    let container = bundle.create_with(bundle.id(), &flags);
    container.start();
    let mut console = socket.accept();
    console.read_until("33 101");
    assert_eq!(console.size(), (33, 101));
    let nobody = bundle.verb("create").arg("other").fails();
    nobody.assert_says("cannot allocate tty if runc will detach without setting console socket");
}

#[test]
fn managers_of_the_cgroup() {
    requires!(bed);
    let bundle = Bundle::new().remove("/linux/resources").sleeps();
    let disabled = bundle.deja().args(["--cgroup-manager", "disabled", "run", "--detach", "--bundle"]);
    bundle.save();
    disabled.arg(bundle.path()).arg(bundle.id()).ok();
    assert!(!bundle.cgroup().exists());
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
    let unit = Bundle::new().remove("/linux/cgroupsPath").sleeps();
    unit.save();
    for flags in [&["--systemd-cgroup"][..], &["--cgroup-manager", "systemd"]] {
        let run = unit.deja().args(flags).args(["create", "--bundle"]).arg(unit.path()).arg("x").fails();
        // In no bed is systemd process 1; tests/systemd.rs has one.
        run.assert_says(
            "systemd does not run here (no \"/run/systemd/private\"): use --cgroup-manager cgroupfs",
        );
    }
    let cgroupfs = bundle.deja().args(["--cgroup-manager=cgroupfs", "run", "--detach", "--bundle"]);
    cgroupfs.arg(bundle.path()).arg(bundle.id()).ok();
    assert!(bundle.cgroup().exists());
}

#[test]
fn the_cgroup_is_where_the_path_says() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let path = bundle.cgroup().join("in/here");
    let bundle = bundle.edit(|config| {
        let inside = path.strip_prefix("/sys/fs/cgroup").expect("below the tree");
        config["linux"]["cgroupsPath"] = json!(Path::new("/").join(inside));
    });
    let container = bundle.start();
    let members = fs::read_to_string(path.join("cgroup.procs")).expect("the cgroup");
    assert_eq!(members.trim_end(), container.pid().to_string());
    drop(container);
    assert!(!bundle.cgroup().exists());
}

#[test]
fn limits_of_the_config_arrive() {
    requires!(bed, cgroup "memory", cgroup "pids", cgroup "cpu", cgroup "cpuset", cgroup "io");
    let bundle = Bundle::new().sleeps().set(
        "/linux/resources",
        json!({
            "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 64 << 20, "checkBeforeUpdate": false},
            "cpu": {"shares": 2048, "quota": 50_000, "period": 100_000, "burst": 1000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 17},
            "unified": {"memory.high": "60000000"}
        }),
    );
    let container = bundle.start();
    let value = |file: &str| {
        let text = fs::read_to_string(bundle.cgroup().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        text.trim_end().to_owned()
    };
    assert_eq!(value("memory.max"), (64 << 20).to_string());
    assert_eq!(value("memory.low"), (32 << 20).to_string());
    assert_eq!(value("cpu.max"), "50000 100000");
    assert_eq!(value("cpu.max.burst"), "1000");
    assert_ne!(value("cpu.weight"), "100");
    assert_eq!(value("cpuset.cpus"), "0");
    assert_eq!(value("pids.max"), "17");
    assert!(value("memory.high").starts_with("59"));
    drop(container);
}

#[test]
fn device_rules_bind_the_container() {
    requires!(bed, cap "SYS_ADMIN");
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    ]);
    let bundle = Bundle::new()
        .set("/linux/resources/devices", rules)
        .set("/linux/devices", json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]))
        .script("echo x > /dev/null && echo null; dd if=/dev/kmsg of=/dev/null bs=1 count=0 2>/dev/null || echo no");
    bundle.run().assert_stdout("null\nno");
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    requires!(bed);
    let rdt = Bundle::new().set("/linux/intelRdt", json!({"closID": ".."}));
    rdt.run().assert_says("linux.intelRdt.closID: \"..\" is no name of a class of service");
    for (resources, says) in [
        (json!({"cpu": {"realtimeRuntime": 1}}), "cpu.realtimeRuntime does not exist in cgroup v2"),
        (json!({"memory": {"swappiness": 1}}), "memory.swappiness does not exist in cgroup v2"),
        (json!({"network": {"classID": 1}}), "network.classID does not exist in cgroup v2"),
        (json!({"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight does not exist in cgroup v2"),
    ] {
        Bundle::new().set("/linux/resources", resources).run().assert_says(says);
    }
}
