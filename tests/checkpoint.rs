//! Containers to disk and back: what they were doing goes on, where they belong, and nothing is lost on the way.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::counter::{checkpoint, count, counting, path as image};
use support::{Bundle, Container, Deja, Leaks, eventually, requires};

/// For the id and other flags that are still to come.
fn restore(bundle: &Bundle, image: &str, flags: &[&str]) -> Deja {
    bundle.verb("restore").args(["--image-path", image]).args(flags)
}

#[track_caller]
fn restored<'b>(bundle: &'b Bundle, image: &str, id: &str) -> Container<'b> {
    let finished = restore(bundle, image, &["--detach"]).arg(id).ok();
    Container::adopt(bundle, id, finished)
}

/// The container is gone, and was not deleted by anybody else.
#[track_caller]
fn ended(container: Container) {
    container.verb("state", &[]).fails().assert_says("does not exist");
    container.release();
}

#[test]
fn a_counter_goes_on_where_it_was() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let (one, two) = (image(&bundle, "one"), image(&bundle, "two"));
    let first = bundle.create();
    first.start();
    checkpoint(&first, &one, &["--leave-running"]).ok();
    assert_eq!(first.status(), "running");
    let before = count(&first);
    eventually("the count to go on", || (count(&first) > before).then_some(()));

    let before = count(&first);
    checkpoint(&first, &two, &[]).ok();
    ended(first);
    let pid_file = bundle.file("pid");
    let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
    let finished = restore(&bundle, &two, &flags).arg(bundle.id()).ok();
    let second = Container::adopt(&bundle, bundle.id(), finished);
    assert_eq!(second.status(), "running");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), second.pid().to_string());
    let after = count(&second);
    assert!(after >= before, "{before} before, {after} after");
    eventually("the count to go on", || (count(&second) > after).then_some(()));
    second.wait_stdout(&format!("{}\n", after + 1));
    assert!(!second.stdout().starts_with("1\n"), "it did not begin again");

    second.verb("pause", &[]).ok();
    second.verb("resume", &[]).ok();
    second.kill("KILL");
    second.wait_status("stopped");
    second.delete();
    second.release();
    leaks.assert_none();
}

/// The options of the host's own cgroup mount.
fn cgroup_mount() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(" /sys/fs/cgroup ")).expect("a cgroup mount");
    line.split_once(" / ").unwrap().1.to_owned()
}

#[test]
fn a_restored_container_is_in_its_cgroup_again_and_again() {
    requires!(bed, criu, cgroup "pids");
    let before = cgroup_mount();
    let mut bundle = counting().set("/linux/resources/pids", json!({"limit": 20}));
    let leaks = Leaks::snapshot(&bundle);
    let first = bundle.create();
    first.start();
    let mut path = image(&bundle, "image0");
    checkpoint(&first, &path, &[]).ok();
    ended(first);
    for round in 1..3 {
        let id = format!("{}-{round}", bundle.id());
        let cgroup = format!("/deja-test/{id}/inner");
        bundle = bundle.set("/linux/cgroupsPath", json!(cgroup));
        let container = restored(&bundle, &path, &id);
        let place = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
        assert_eq!(place.trim(), format!("0::{cgroup}"));
        let limit = fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/pids.max")).unwrap();
        assert_eq!(limit.trim(), "20");
        for process in ["1", "self"] {
            let seen = container.exec(&["cat", &format!("/proc/{process}/cgroup")]).stdout();
            assert_eq!(seen.trim(), "0::/", "round {round}");
        }
        container.exec(&["test", "-e", "/sys/fs/cgroup/cgroup.procs"]).assert_code(0);
        path = image(&bundle, &format!("image{round}"));
        checkpoint(&container, &path, &[]).ok();
        ended(container);
    }
    assert_eq!(cgroup_mount(), before);
    leaks.assert_none();
}

/// What the container sees of its mounts, without the numbers that change.
fn mounts(container: &Container) -> Vec<String> {
    let table = container.exec(&["cat", "/proc/1/mountinfo"]).stdout();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-").expect("a dash");
        [fields[3], fields[4], fields[5], fields[dash + 1]].join(" ")
    };
    let mut lines: Vec<String> = table.lines().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn mounts_come_back() {
    requires!(bed, criu);
    let bundle = counting().with_file("/etc/motd", 0o644, "of the image\n");
    std::os::unix::fs::symlink("/srv/real", bundle.rootfs().join("link")).unwrap();
    let outer = bundle.file("outer");
    fs::create_dir_all(outer.join("inner")).unwrap();
    fs::create_dir_all(outer.join("hidden")).unwrap();
    fs::write(outer.join("hidden/word"), "nobody's\n").unwrap();
    fs::write(outer.join("secret"), "nobody's\n").unwrap();
    fs::create_dir_all(outer.join("veiled")).unwrap();
    fs::write(outer.join("veiled/word"), "nobody's\n").unwrap();
    fs::create_dir_all(bundle.file("other")).unwrap();
    fs::write(outer.join("file"), "outer\n").unwrap();
    fs::write(bundle.file("other/file"), "other\n").unwrap();
    fs::write(bundle.file("single"), "single\n").unwrap();
    for (link, real) in [("to-other", "other"), ("to-single", "single")] {
        std::os::unix::fs::symlink(real, bundle.file(link)).unwrap();
    }
    let source = |name: &str| json!(bundle.file(name));
    let entries = [
        json!({"destination": "/link/data", "type": "bind", "source": source("outer"), "options": ["rbind", "ro"]}),
        json!({"destination": "/link/data/inner", "type": "bind", "source": source("other"), "options": ["bind"]}),
        json!({"destination": "/etc/motd", "type": "bind", "source": source("single"), "options": ["bind", "ro"]}),
        json!({"destination": "/tmp/below", "type": "bind", "source": source("other"), "options": ["bind"]}),
        json!({"destination": "/srv/directory", "type": "bind", "source": source("to-other"), "options": ["bind"]}),
        json!({"destination": "/srv/file", "type": "bind", "source": source("to-single"), "options": ["bind"]}),
    ];
    let bundle = entries.into_iter().fold(bundle, Bundle::mount);
    let bundle = bundle
        .set("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]))
        .set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]))
        .set("/linux/maskedPaths/-", json!("/srv/real/data/hidden"))
        .set("/linux/maskedPaths/-", json!("/link/data/veiled"))
        .set("/linux/maskedPaths/-", json!("/srv/real/data/secret"))
        .set("/root/readonly", json!(true));
    let leaks = Leaks::snapshot(&bundle);
    let first = bundle.create();
    first.start();
    let before = mounts(&first);
    let path = image(&bundle, "image");
    checkpoint(&first, &path, &[]).ok();
    ended(first);
    let second = restored(&bundle, &path, bundle.id());
    assert_eq!(mounts(&second), before);
    let reads = "cat /link/data/file /link/data/inner/file /etc/motd /tmp/below/file; \
                 cat /srv/directory/file /srv/file; head -c 3 /dev/mine | wc -c; \
                 cat /proc/keys; ls /proc/acpi; \
                 ls /link/data/hidden /link/data/veiled | grep word; cat /link/data/secret; touch /link/data/x 2>&1; touch /x 2>&1; touch /tmp/below/y";
    let seen = second.exec(&["sh", "-c", reads]).stdout();
    let expected = "outer\nother\nsingle\nother\nother\nsingle\n3\ntouch: /link/data/x: Read-only file system\n\
                    touch: /x: Read-only file system\n";
    assert_eq!(seen, expected);
    assert!(bundle.file("other/y").exists());
    second.verb("delete", &["--force"]).ok();
    second.release();
    leaks.assert_none();
}

#[test]
fn a_new_root_gets_the_mount_points_it_lacks() {
    requires!(bed, criu);
    let bundle = counting();
    fs::write(bundle.file("single"), "single\n").unwrap();
    let file = json!({"destination": "/made/here/file", "type": "bind", "source": bundle.file("single"), "options": ["bind"]});
    let bundle = bundle.mount(file);
    let first = bundle.create();
    first.start();
    let path = image(&bundle, "image");
    checkpoint(&first, &path, &[]).ok();
    ended(first);
    fs::remove_dir_all(bundle.rootfs().join("made")).unwrap();
    fs::remove_dir_all(bundle.rootfs().join("sys")).unwrap();
    let second = restored(&bundle, &path, "another");
    assert_eq!(second.exec(&["cat", "/made/here/file"]).stdout(), "single\n");
}

#[test]
fn a_restore_in_the_foreground_stands_for_the_container() {
    requires!(bed, criu);
    let bundle = Bundle::new().script("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    let leaks = Leaks::snapshot(&bundle);
    let first = bundle.create();
    first.start();
    first.wait_stdout("ready");
    let path = image(&bundle, "image");
    checkpoint(&first, &path, &[]).ok();
    ended(first);
    let running = restore(&bundle, &path, &[]).arg(bundle.id()).spawn();
    eventually("the container to run", || {
        let state = bundle.deja().args(["state", bundle.id()]).output();
        state.stdout().contains("\"running\"").then_some(())
    });
    running.signal(rustix::process::Signal::TERM);
    running.finish().assert_code(7);
    bundle.deja().args(["state", bundle.id()]).fails().assert_says("does not exist");
    leaks.assert_none();
}

#[test]
fn hooks_run_around_a_restore_as_around_a_start() {
    requires!(bed, criu);
    let bundle = counting();
    let log = bundle.file("hooks");
    let hook = |word: &str| {
        let script = format!("echo {word} $(grep -o '\"status\":\"[a-z]*\"' ) >> {}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    let bundle = bundle.set(
        "/hooks",
        json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime"), "poststop": hook("poststop")}),
    );
    let first = bundle.create();
    first.start();
    let path = image(&bundle, "image");
    checkpoint(&first, &path, &[]).ok();
    ended(first);
    let second = restored(&bundle, &path, bundle.id());
    second.verb("delete", &["--force"]).ok();
    second.release();
    let life = "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\npoststop \"status\":\"stopped\"\n";
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("{life}{life}"));

    let failing = json!([{"path": "/bin/false"}]);
    let bundle = bundle.set("/hooks", json!({"createRuntime": failing}));
    let leaks = Leaks::snapshot(&bundle);
    restore(&bundle, &path, &["--detach"]).arg(bundle.id()).fails().assert_says("createRuntime hook #0");
    leaks.assert_none();
}

/// A server and its client, who talk to each other inside the container.
const CONNECTED: &str = "sleep 1000 | nc -l -p 5000 > /tmp/heard & sleep 1; \
    (i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done) | nc 127.0.0.1 5000 & wait";

#[test]
fn a_failed_checkpoint_says_why_and_the_container_goes_on() {
    requires!(bed, criu);
    let bundle = counting().script(CONNECTED);
    let container = bundle.create();
    container.start();
    let heard = |container: &Container| container.exec(&["tail", "-n", "1", "/tmp/heard"]).stdout();
    let grows = |container: &Container| {
        let before = heard(container);
        eventually("the server to hear more", || (heard(container) != before).then_some(()));
    };
    grows(&container);
    let path = image(&bundle, "image");
    checkpoint(&container, &path, &[]).fails().assert_says("open TCP connection: use --tcp-established");
    assert_eq!(container.status(), "running");
    restore(&bundle, &path, &["--detach"]).arg("other").fails().assert_says("it is not complete");
    grows(&container);

    checkpoint(&container, &path, &["--tcp-established"]).ok();
    ended(container);
    let finished = restore(&bundle, &path, &["--detach", "--tcp-established"]).arg(bundle.id()).ok();
    grows(&Container::adopt(&bundle, bundle.id(), finished));
}

/// An image of a counter, and the bundle it is of.
fn saved() -> (Bundle, String) {
    let bundle = counting();
    let container = bundle.create();
    container.start();
    let path = image(&bundle, "image");
    checkpoint(&container, &path, &[]).ok();
    ended(container);
    (bundle, path)
}

#[test]
fn an_image_that_is_not_whole_is_refused() {
    requires!(bed, criu);
    let (bundle, path) = saved();
    let leaks = Leaks::snapshot(&bundle);
    let refused = |says: &str| {
        restore(&bundle, &path, &["--detach"]).arg(bundle.id()).fails().assert_says(says);
        leaks.assert_none();
    };
    let file = |name: &str| Path::new(&path).join(name);
    let damage = |name: &str, change: &dyn Fn(&mut Vec<u8>), says: &str| {
        let whole = fs::read(file(name)).unwrap();
        let mut damaged = whole.clone();
        change(&mut damaged);
        fs::write(file(name), damaged).unwrap();
        refused(says);
        fs::write(file(name), whole).unwrap();
    };
    damage("pages-1.img", &|bytes| bytes.truncate(4096), "\"pages-1.img\" has 4096 bytes");
    damage("core-1.img", &|bytes| bytes[100] ^= 1, "\"core-1.img\" has been changed");
    damage("pstree.img", &|bytes| bytes.truncate(9), "\"pstree.img\" has 9 bytes");
    damage("deja.json", &|bytes| bytes.truncate(20), "is damaged");
    // Without a manifest, as another runtime's, it is CRIU that finds it.
    let manifest = fs::read(file("deja.json")).unwrap();
    fs::remove_file(file("deja.json")).unwrap();
    damage("pstree.img", &|bytes| bytes.truncate(9), "restore");
    damage("core-1.img", &|bytes| bytes.truncate(20), "the image is damaged");
    fs::write(file("deja.json"), manifest).unwrap();
    let config: Value = bundle.config().clone();
    assert!(config["mounts"].is_array());
    drop(restored(&bundle, &path, bundle.id()));
}

#[test]
fn only_a_running_container_can_be_saved() {
    requires!(bed, criu);
    let bundle = counting();
    let container = bundle.create();
    let path = image(&bundle, "image");
    let refused = |status: &str| {
        let says = format!("cannot checkpoint a container in the {status} state");
        checkpoint(&container, &path, &[]).fails().assert_says(&says);
        assert!(!Path::new(&path).exists());
    };
    refused("created");
    container.start();
    container.verb("pause", &[]).ok();
    checkpoint(&container, &path, &["--leave-running"]).ok();
    assert_eq!(container.status(), "paused");
    fs::remove_dir_all(&path).unwrap();
    container.kill("KILL");
    container.wait_status("stopped");
    refused("stopped");
    restore(&bundle, &image(&bundle, "nowhere"), &[]).arg("x").fails().assert_says("open image");
    let empty: PathBuf = bundle.file("empty");
    fs::create_dir(&empty).unwrap();
    restore(&bundle, empty.to_str().unwrap(), &[]).arg("x").fails().assert_says("holds no image");
}

#[test]
fn what_could_not_be_saved_is_told_beforehand() {
    requires!(bed, criu);
    let bundle = counting();
    let container = bundle.create();
    container.start();
    let check = |flags: &[&str]| container.verb("checkpoint", &[&["--check"], flags].concat());
    check(&[]).ok().assert_stdout("nothing stands in the way");
    let report = check(&["--format", "json"]).ok().json();
    assert_eq!((&report["possible"], &report["obstacles"]), (&json!(true), &json!([])));

    let bundle = counting().script(CONNECTED);
    let container = bundle.create();
    container.start();
    let check = |flags: &[&str]| container.verb("checkpoint", &[&["--check"], flags].concat());
    eventually("a connection", || {
        let finished = check(&[]).output();
        finished.stdout().contains("2 TCP connection(s) are open; --tcp-established saves them").then_some(())
    });
    let report = check(&["--format", "json"]).output().assert_code(1).json();
    assert_eq!((&report["possible"], &report["obstacles"][0]["kind"]), (&json!(false), &json!("tcp")));
    check(&["--tcp-established"]).ok();
    assert_eq!(container.status(), "running");
    assert!(!bundle.rootfs().join("checkpoint").exists());
}
