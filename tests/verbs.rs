//! pause, resume, ps, kill and delete on containers that run.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Bundle, Leaks, requires};

#[test]
fn a_paused_container_stands_still_until_resume() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    container.verb("pause", &[]).ok();
    assert_eq!(container.status(), "paused");
    assert_eq!(fs::read_to_string(bundle.cgroup().join("cgroup.freeze")).unwrap().trim(), "1");
    container.verb("pause", &[]).fails().assert_says("container not running");
    container.verb("delete", &[]).fails().assert_says("that is not stopped: paused");
    container.exec(&["true"]).assert_code(255).assert_says("cannot exec in a paused container");
    container.verb("resume", &[]).ok();
    assert_eq!(container.status(), "running");
    container.verb("resume", &[]).fails().assert_says("container not paused");
    container.verb("delete", &["--force"]).ok();
    container.release();
    leaks.assert_none();
}

#[test]
fn who_is_frozen_from_above_is_paused() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let inner = format!("/deja-test/{}/inner", bundle.id());
    let bundle = bundle.set("/linux/cgroupsPath", json!(inner));
    let container = bundle.start();
    let above = bundle.cgroup().join("cgroup.freeze");
    fs::write(&above, "1").unwrap();
    container.wait_status("paused");
    let listed = bundle.deja().args(["list", "--format", "json"]).ok().json();
    assert_eq!(listed[0]["status"], "paused");
    fs::write(&above, "0").unwrap();
    container.wait_status("running");
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    container.verb("pause", &[]).ok();
    container.kill("KILL");
    container.wait_status("stopped");
    container.delete();
    container.release();

    let container = bundle.start();
    container.verb("pause", &[]).ok();
    container.verb("delete", &["--force"]).ok();
    container.release();
    leaks.assert_none();
}

#[test]
fn ps_knows_every_process() {
    requires!(bed, tool "ps");
    let bundle = Bundle::new().script("sleep 1000 & echo up; exec sleep 1001");
    let container = bundle.start();
    container.wait_stdout("up");
    let pids: Vec<i64> = serde_json::from_value(container.verb("ps", &["-f", "json"]).ok().json()).unwrap();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert!(pids.contains(&i64::from(container.pid())));
    let table = container.verb("ps", &[]).ok().stdout();
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let custom = container.verb("ps", &[]).args(["-e", "-o", "pid,args"]).ok().stdout();
    assert!(custom.contains("sleep 1000") && custom.contains("sleep 1001"), "{custom}");
    container.kill("KILL");
    container.wait_status("stopped");
    assert_eq!(container.verb("ps", &["--format=json"]).ok().json(), Value::Array(vec![]));
}

/// What a shim does after the init of a pod's container has died.
#[test]
fn kill_all_reaches_those_who_outlive_init() {
    requires!(bed);
    let script = "setsid sleep 1000 & echo up; exec sleep 1001";
    let bundle = Bundle::new().without_namespace("pid").script(script);
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    container.wait_stdout("up");
    container.kill("TERM");
    container.wait_status("stopped");
    let pids: Vec<i64> = serde_json::from_value(container.verb("ps", &["-f", "json"]).ok().json()).unwrap();
    assert_eq!(pids.len(), 1, "one lives on: {pids:?}");
    container.verb("kill", &["--all"]).arg("9").ok();
    support::eventually("the last process to end", || {
        let left = container.verb("ps", &["-f", "json"]).ok().json();
        left.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    container.verb("kill", &["-a"]).arg("0").ok();
    container.delete();
    container.release();
    leaks.assert_none();
}

#[test]
fn delete_takes_those_who_outlive_init() {
    requires!(bed);
    for flags in [&[] as &[&str], &["--force"]] {
        let script = "setsid sleep 1000 & echo up; exec sleep 1001";
        let bundle = Bundle::new().without_namespace("pid").script(script);
        let leaks = Leaks::snapshot(&bundle);
        let container = bundle.start();
        container.wait_stdout("up");
        container.kill("TERM");
        container.wait_status("stopped");
        container.verb("delete", flags).ok();
        container.release();
        leaks.assert_none();
    }
}

#[test]
fn a_created_container_is_deleted_with_its_waiting_init() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    assert_eq!(container.status(), "created");
    container.delete();
    container.release();
    leaks.assert_none();
}

#[test]
fn an_id_is_given_once() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let _container = bundle.start();
    bundle.verb("create").arg(bundle.id()).fails().assert_says("container with given ID already exists");
}

#[test]
fn start_is_for_created_containers() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.create();
    container.start();
    container.verb("start", &[]).fails().assert_says("cannot start an already running container");
    container.kill("KILL");
    container.wait_status("stopped");
    container.verb("start", &[]).fails().assert_says("cannot start a container that has stopped");
    container.exec(&["true"]).assert_code(255).assert_says("cannot exec in a stopped container");
}
