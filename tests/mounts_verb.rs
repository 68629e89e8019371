//! `mounts add` and `mounts remove`: the mounts of a container that runs.

mod support;
use support::{Bundle, Container, Deja, Leaks, requires};

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

fn change(container: &Container, bundle: &Bundle, action: &str, mounts: &Value) -> Deja {
    let file = bundle.file("mounts.json");
    fs::write(&file, mounts.to_string()).expect("write the list of mounts");
    bundle.deja().args(["mounts", action]).arg(container.id()).arg(file)
}

fn mounted(container: &Container, destination: &str) -> Option<String> {
    let table = container.exec(&["cat", "/proc/self/mountinfo"]).assert_code(0).stdout();
    table.lines().find(|line| line.split(' ').nth(4) == Some(destination)).map(str::to_owned)
}

#[test]
fn mounts_come_and_go() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let (directory, file) = (bundle.file("data"), bundle.file("words"));
    fs::create_dir(&directory).expect("mkdir");
    fs::write(directory.join("here"), "data").expect("write");
    fs::write(&file, "words").expect("write");
    let container = bundle.start();
    let mounts = json!([
        {"destination": "/data", "source": directory, "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/etc/new/words", "source": file, "options": ["bind"]},
        {"destination": "/data2", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700"]},
        {"destination": "/data2/inner", "type": "proc", "source": "proc"}
    ]);
    change(&container, &bundle, "add", &mounts).ok().assert_stdout("");
    container.exec(&["cat", "/data/here", "/etc/new/words"]).assert_stdout("datawords");
    assert!(mounted(&container, "/data").unwrap().contains("ro,nosuid"));
    assert!(mounted(&container, "/data2").unwrap().contains("size=64k,mode=700"));
    // The new procfs shows the container's processes.
    container.exec(&["head", "-c5", "/data2/inner/1/comm"]).assert_stdout("sleep");

    change(&container, &bundle, "remove", &json!({ "mounts": mounts })).ok().assert_stdout("");
    for destination in ["/data", "/etc/new/words", "/data2", "/data2/inner"] {
        assert_eq!(mounted(&container, destination), None, "{destination}");
    }
    change(&container, &bundle, "remove", &mounts).fails().assert_says("unmount \"/data2/inner\"");
    drop(container);
    leaks.assert_none();
}

#[test]
fn a_container_in_a_user_namespace_gets_mounts_of_its_own() {
    requires!(bed, userns);
    let bundle = Bundle::new().sleeps().user_namespace(100_000, 65_536);
    let directory = bundle.file("data");
    fs::create_dir(&directory).expect("mkdir");
    fs::write(directory.join("here"), "data").expect("write");
    rustix::fs::chown(&directory, Some(rustix::fs::Uid::from_raw(100_000)), None).expect("chown");
    let container = bundle.start();
    let mounts = json!([
        {"destination": "/data", "source": directory, "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}
    ]);
    change(&container, &bundle, "add", &mounts).ok();
    container.exec(&["sh", "-c", "cat /data/here; stat -c %u /data /scratch"]).assert_stdout("data0\n0");
    change(&container, &bundle, "remove", &mounts).ok();
    assert_eq!(mounted(&container, "/data"), None);
}

/// What a program of the container puts in the way leads nowhere but into the container.
#[test]
fn links_of_the_container_stay_in_it() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let (host, data) = (bundle.file("host"), bundle.file("data"));
    fs::create_dir(&host).expect("mkdir");
    fs::create_dir(&data).expect("mkdir");
    symlink(&host, bundle.rootfs().join("absolute")).expect("symlink");
    symlink("../../../../../../..", bundle.rootfs().join("up")).expect("symlink");
    symlink("/proc/self/fd", bundle.rootfs().join("magic")).expect("symlink");
    let container = bundle.start();
    let bind = |destination: &str| json!([{"destination": destination, "source": data, "options": ["bind"]}]);
    change(&container, &bundle, "add", &bind("/absolute")).ok();
    let inside = host.to_str().expect("a path");
    assert!(mounted(&container, inside).is_some(), "inside the container, at the path the link names");
    change(&container, &bundle, "remove", &bind("/absolute")).ok();
    assert!(mounted(&container, inside).is_none());
    change(&container, &bundle, "add", &bind("/up/made")).ok();
    assert!(mounted(&container, "/made").is_some());
    for magic in ["/magic/3", "/magic/4/x", "/proc/self/fd/3", "/proc/1/root/x"] {
        change(&container, &bundle, "add", &bind(magic)).fails();
    }
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!table.contains(inside), "{table}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    let refused = |action: &str, mounts: Value, words: &str| {
        change(&container, &bundle, action, &mounts).fails().assert_says(words);
    };
    refused("move", json!([]), "not one of add and remove");
    refused("add", json!([{"source": "/x"}]), "mounts[0].destination is empty");
    refused("add", json!([{"destination": "/x"}]), "a mount needs a type");
    refused("add", json!([{"destination": 1}]), "mounts");
    refused(
        "add",
        json!([{"destination": "/x", "source": "/nonexistent", "options": ["bind"]}]),
        "/nonexistent",
    );
    refused("add", json!([{"destination": "/proc/sys", "type": "tmpfs"}]), "cannot be mounted on");
    refused("remove", json!([{"destination": "/"}]), "the root itself cannot be unmounted");
    refused("remove", json!([{"destination": "/etc"}]), "unmount \"/etc\"");
    refused("remove", json!([{"destination": "/none"}]), "unmount \"/none\"");
    container.kill("KILL");
    container.wait_status("stopped");
    refused("add", json!([]), "container not running");
    drop(container);
    let bundle = bundle
        .without_namespace("mount")
        .edit(|config| config["mounts"] = json!([]))
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    let container = bundle.start();
    change(&container, &bundle, "add", &json!([])).fails().assert_says("no mount namespace of its own");
    drop(container);
    leaks.assert_none();
}
