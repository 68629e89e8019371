//! SELinux: who runs in a container has the label that was asked for, so has what is made for it, and what a label
//! forbids is refused. Under Debian's own policy, enforced.

mod support;
use support::counter::{COUNT, checkpoint, count, goes_on, path, restore};
use support::selinux::{CURRENT, confined, file, label_of, label_of_process, process, relabel};
use support::{Bundle, ConsoleSocket, Container, Deja, Leaks, Sessions, World, eventually, requires};

use std::fs;
use std::path::PathBuf;

use serde_json::json;

/// A path of the container as the test sees it.
fn inside(container: &Container, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", container.pid()))
}

/// The label of the tests, and of what they run without one.
const UNCONFINED: &str = "unconfined_u:unconfined_r:unconfined_t:s0";

fn counting(bundle: Bundle) -> Bundle {
    bundle.script(COUNT).mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
}

#[test]
fn a_label_holds_for_the_first_process_and_its_children_and_refuses() {
    requires!(bed, selinux);
    for privileges in [true, false] {
        let bundle = confined("c1,c2")
            .with_file("/etc/own", 0o644, "own\n")
            .with_file("/etc/other", 0o644, "other\n")
            .with_file("/etc/host", 0o644, "host\n")
            .set("/process/noNewPrivileges", json!(privileges))
            .script(&format!("{CURRENT}; ({CURRENT}); cd /etc; cat own; cat other; cat host; echo >>other"));
        relabel(bundle.rootfs().join("etc/own"), &file("c1,c2"));
        relabel(bundle.rootfs().join("etc/other"), &file("c1,c3"));
        relabel(bundle.rootfs().join("etc/host"), "system_u:object_r:shadow_t:s0");
        let run = bundle.run().assert_code(1);
        assert_eq!(run.stdout(), format!("{0}\n{0}\nown\n", process("c1,c2")), "{run}");
        run.assert_says("can't open 'other': Permission denied")
            .assert_says("can't open 'host': Permission denied")
            .assert_says("can't create other: Permission denied");
    }
}

#[test]
fn exec_has_the_label_of_the_container_or_the_one_it_asks_for() {
    requires!(bed, selinux);
    let bundle = confined("c1,c2").sleeps();
    let container = bundle.start();
    let says = |flags: &[&str]| container.exec_with(flags, &["/bin/sh", "-c", CURRENT]).ok().stdout();
    assert_eq!(says(&[]).trim_end(), process("c1,c2"));
    assert_eq!(says(&["--process-label", &process("c1")]).trim_end(), process("c1"));
    let asked = json!({"cwd": "/", "args": ["/bin/sh", "-c", CURRENT], "selinuxLabel": process("c2")});
    fs::write(bundle.file("process.json"), asked.to_string()).expect("write process.json");
    let path = bundle.file("process.json");
    let run = container.exec_with(&["--process", path.to_str().expect("a path")], &[]).ok();
    assert_eq!(run.stdout().trim_end(), process("c2"));

    let unknown = "system_u:system_r:no_such_t:s0";
    let refused = container.exec_with(&["--process-label", unknown], &["true"]).fails();
    refused.assert_says(unknown).assert_says("the loaded SELinux policy has no such label");
    // One that the policy has, and that is none of a container's.
    let refused =
        container.exec_with(&["--process-label", "system_u:system_r:getty_t:s0"], &["true"]).fails();
    refused
        .assert_says("exec true with the SELinux label")
        .assert_says("getty_t:s0\": operation not permitted");
    assert_eq!(label_of_process(container.pid()), process("c1,c2"));
    assert_eq!(container.status(), "running");
}

#[test]
fn a_label_that_the_policy_does_not_have_is_named_and_nothing_is_left() {
    requires!(bed, selinux);
    let unknown = "system_u:system_r:no_such_t:s0";
    let cases = [
        ("/process/selinuxLabel", unknown, &[][..], "the loaded SELinux policy has no such label"),
        (
            "/process/selinuxLabel",
            unknown,
            &["--no-new-keyring"],
            "the loaded SELinux policy has no such label",
        ),
        ("/linux/mountLabel", "system_u:object_r:no_such_t:s0", &[], "linux.mountLabel"),
        ("/process/selinuxLabel", "nonsense", &[], "the loaded SELinux policy has no such label"),
    ];
    for (pointer, label, flags, words) in cases {
        let bundle = confined("c1,c2").set(pointer, json!(label));
        let leaks = Leaks::snapshot(&bundle);
        let create = bundle.verb("create").args(flags).arg(bundle.id()).fails();
        create.assert_says(label).assert_says(words);
        bundle.deja().args(["state", bundle.id()]).fails().assert_says("does not exist");
        leaks.assert_none();
    }
}

#[test]
fn a_program_that_the_policy_keeps_from_its_label_is_an_error_that_tells_so() {
    requires!(bed, selinux);
    let bundle = confined("c1,c2").args(&["/bin/busybox", "true"]);
    relabel(bundle.rootfs().join("bin/busybox"), "system_u:object_r:shadow_t:s0");
    let run = bundle.run().assert_code(1);
    run.assert_says("exec /bin/busybox with the SELinux label").assert_says("c1,c2\": permission denied");
}

#[test]
fn every_new_file_system_has_the_mount_label() {
    requires!(bed, selinux);
    for user_namespace in [false, true] {
        let mut bundle = confined("c1,c2")
            .mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
            .script("echo >/dev/shm/new; : >/dev/mqueue/new; echo >/tmp/new; echo ready; exec sleep 1000");
        if user_namespace {
            bundle = bundle.user_namespace(100_000, 65_536);
        }
        let container = bundle.start();
        container.wait_stdout("ready");
        assert_eq!(container.stderr(), "");
        let places = [
            "/dev",
            "/dev/null",
            "/dev/tty",
            "/dev/urandom",
            "/dev/ptmx",
            "/dev/fd",
            "/dev/pts",
            "/dev/pts/ptmx",
            "/dev/shm",
            "/dev/shm/new",
            "/dev/mqueue",
            "/tmp",
            "/tmp/new",
            "/sys/firmware",
        ];
        for place in places {
            // In a user namespace no node can be made: the host's are bound, and keep their labels.
            let is_node = ["/dev/null", "/dev/tty", "/dev/urandom"].contains(&place);
            let expected = if is_node && user_namespace { label_of(place) } else { file("c1,c2") };
            assert_eq!(label_of(inside(&container, place)), expected, "{place}, {user_namespace}");
        }
        assert_eq!(label_of_process(container.pid()), process("c1,c2"));
        container.exec(&["sh", "-c", ": </dev/urandom >/dev/null"]).assert_code(0);
    }
}

#[test]
fn a_mount_that_is_added_has_the_mount_label() {
    requires!(bed, selinux);
    let bundle = confined("c1,c2").sleeps();
    let container = bundle.start();
    let mounts = json!([{"destination": "/data", "type": "tmpfs", "source": "tmpfs"}]);
    fs::write(bundle.file("mounts.json"), mounts.to_string()).expect("write the list of mounts");
    bundle.deja().args(["mounts", "add", container.id()]).arg(bundle.file("mounts.json")).ok();
    assert_eq!(label_of(inside(&container, "/data")), file("c1,c2"));
    container.exec(&["sh", "-c", "echo word >/data/file; cat /data/file"]).assert_stdout("word");
}

#[test]
fn a_terminal_is_of_the_container() {
    requires!(bed, selinux);
    let bundle = confined("c1,c2").script("tty; stty size; cat").set("/process/terminal", true.into());
    let bundle = bundle.set("/process/consoleSize", json!({"height": 30, "width": 90}));
    let path = bundle.file("tty");
    let socket = ConsoleSocket::listen(&path);
    let container = bundle.create_with(bundle.id(), &["--console-socket", path.to_str().expect("UTF-8")]);
    let mut console = socket.accept();
    container.start();
    console.read_until("30 90\r\n");
    console.write("hello\n");
    console.read_until("hello\r\nhello");
    for place in ["/dev/console", "/dev/pts/0"] {
        assert_eq!(label_of(inside(&container, place)), file("c1,c2"), "{place}");
    }
    container.kill("KILL");
    console.read_to_end();
}

#[test]
fn containers_of_other_categories_are_out_of_reach() {
    requires!(bed, selinux);
    let shared = support::selinux::bundle();
    let secret = shared.file("secret");
    fs::write(&secret, "told\n").expect("write");
    relabel(&secret, &file("c1,c2"));
    let with = |categories: &str| {
        let bind = json!({"destination": "/secret", "source": secret, "options": ["bind"]});
        confined(categories).sleeps().without_namespace("pid").mount(bind)
    };
    let (one, same, other) = (with("c1,c2"), with("c1,c2"), with("c3,c4"));
    let (one, same, other) = (one.start(), same.start(), other.start());
    let pid = one.pid();
    let attempts = [
        ("cat /secret".to_owned(), "can't open '/secret': Permission denied".to_owned()),
        (format!("cat /proc/{pid}/environ"), format!("can't open '/proc/{pid}/environ': Permission denied")),
        (format!("kill -KILL {pid}"), format!("can't kill pid {pid}: Permission denied")),
    ];
    for (attempt, words) in &attempts {
        other.exec(&["sh", "-c", attempt]).assert_code(1).assert_says(words);
    }
    assert_eq!(one.status(), "running");
    // Only the categories kept them apart.
    same.exec(&["cat", "/secret"]).assert_stdout("told");
    same.exec(&["kill", "-KILL", &pid.to_string()]).assert_code(0);
    one.wait_status("stopped");
}

/// Debian builds CRIU without SELinux.
#[test]
fn a_label_that_criu_does_not_know_is_neither_lost_nor_the_end_of_its_container() {
    requires!(bed, selinux, criu);
    let bundle = counting(confined("c1,c2"));
    let container = bundle.start();
    let image = path(&bundle, "image");
    let refused = checkpoint(&container, &image, &[]).fails();
    refused.assert_says(&process("c1,c2")).assert_says("this criu, which was built without SELinux");
    let check = container.verb("checkpoint", &["--check"]).output().assert_code(1);
    check.assert_stdout_contains(&process("c1,c2"));
    goes_on(&container, count(&container));
    drop(container);

    // Without a label it works, and what was saved like that does not come back in the place of one that has one.
    let bundle = counting(support::selinux::bundle());
    let container = bundle.start();
    let before = count(&container);
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &[]).ok();
    container.release();
    let bundle = bundle.set("/process/selinuxLabel", json!(process("c1,c2")));
    let leaks = Leaks::snapshot(&bundle);
    let refused = restore(&bundle, &image, &[]).fails();
    refused.assert_says("with the SELinux label \"unconfined_u:").assert_says(&process("c1,c2"));
    leaks.assert_none();
    let bundle = bundle.remove("/process/selinuxLabel");
    let container = Container::adopt(&bundle, bundle.id(), restore(&bundle, &image, &[]).ok());
    goes_on(&container, before);
}

#[test]
fn states_of_sessions_do_not_depend_on_labels() {
    requires!(bed, selinux, overlay);
    let states = ["tmp_t", "container_file_t"].map(|kind| {
        let sessions = Sessions::empty();
        // What is made below has the type of its directory.
        fs::create_dir_all(sessions.store()).expect("make the store");
        relabel(sessions.store(), &format!("system_u:object_r:{kind}:s0"));
        sessions.begin("ada");
        sessions.shell("ada", "mkdir /srv/d; echo text > /srv/d/f; mv /etc/profile /srv").ok();
        sessions.shell("ada", "cat /srv/d/f").ok().assert_stdout("text");
        sessions.state("ada")
    });
    assert_eq!(states[0], states[1]);
}

#[test]
fn doctor_says_whether_the_policy_is_enforced() {
    requires!(bed, selinux);
    let report = Deja::bare().arg("doctor").output();
    report.assert_stdout_contains("SELinux, enforcing");
}

/// The categories of a label that an engine has chosen: two, out of a thousand.
#[track_caller]
fn categories(label: &str) -> &str {
    let chosen = label.strip_prefix(&process("")).unwrap_or_else(|| panic!("not a container's: {label}"));
    assert!(chosen.matches('c').count() == 2, "{label}");
    chosen
}

#[test]
fn podman_separates_its_containers() {
    requires!(vm, selinux, engine "podman");
    let world = World::new();
    world.ok("restorecon -R /run /var/lib/containers");
    world.import("podman");
    let says = |line: &str| world.ok(&format!("podman {line} sh -c \"{CURRENT}\""));
    for name in ["web", "other"] {
        world.ok(&format!("podman run --detach --name {name} busy sleep 1000"));
    }
    let (web, other) = (says("exec web"), says("exec other"));
    assert_ne!(categories(&web), categories(&other));
    world.ok("podman exec web sh -c 'echo word >/tmp/file; cat /tmp/file >/dev/shm/file'");
    let pid = world.ok("podman inspect --format '{{.State.Pid}}' web");
    assert_eq!(label_of(world.path(&format!("/proc/{pid}/root/tmp/file"))), file(categories(&web)));
    // Of another one's files, by any way they may have come to it.
    let shared = "--volume $(podman mount web):/web busy cat /web/tmp/file";
    world.command(&format!("podman run --rm {shared}")).fails().assert_says("Permission denied");
    assert_eq!(world.ok(&format!("podman run --rm --security-opt label=disable {shared}")), "word");
    assert_eq!(says("exec --privileged web"), web);
    world.ok("podman rm --force --time 0 web other");

    assert_eq!(says("run --rm --security-opt label=level:s0:c5,c6 busy"), process("c5,c6"));
    assert_eq!(says("run --rm --security-opt label=disable busy"), UNCONFINED);
    assert_eq!(says("run --rm --privileged busy"), UNCONFINED);
    let unknown = "podman run --rm --security-opt label=type:no_such_t busy true";
    world.fails(unknown, 126).assert_says("system_u:system_r:no_such_t:s0:c").assert_says("no such label");
    assert_eq!(world.records(), Vec::<PathBuf>::new());
}

#[test]
fn podman_relabels_volumes_when_it_is_asked_to() {
    requires!(vm, selinux, engine "podman");
    let world = World::new();
    world.ok("restorecon -R /run /var/lib/containers");
    world.import("podman");
    world.ok("mkdir /run/volume && echo word >/run/volume/file");
    let read = |volume: &str| {
        let flags = format!("--rm --security-opt label=level:s0:c5,c6 --volume /run/volume:/volume{volume}");
        world.command(&format!("podman run {flags} busy cat /volume/file")).output()
    };
    let label = || label_of(world.path("/run/volume/file"));
    read("").assert_code(1).assert_says("Permission denied");
    read(":Z").assert_code(0).assert_stdout("word");
    assert_eq!(label(), file("c5,c6"));
    read(":z").assert_code(0).assert_stdout("word");
    assert_eq!(label(), "system_u:object_r:container_file_t:s0");
}

#[test]
fn docker_labels_containers_where_its_daemon_is_told_to() {
    requires!(vm, selinux, engine "dockerd");
    let world = World::new();
    world.ok("restorecon -R /run /var/lib/docker");
    world.daemon("dockerd --selinux-enabled", "docker version");
    world.import("docker");
    let says = |line: &str| world.ok(&format!("docker {line} sh -c \"{CURRENT}\""));
    world.ok("docker run --detach --name web busy sleep 1000");
    let web = says("exec web");
    assert_ne!(categories(&web), categories(&says("run --rm busy")));
    world.ok("docker rm --force web");
    assert_eq!(says("run --rm --security-opt label=disable busy"), UNCONFINED);
    let unknown = "docker run --rm --security-opt label=type:no_such_t busy true";
    world
        .command(unknown)
        .fails()
        .assert_says("system_u:system_r:no_such_t:s0:c")
        .assert_says("no such label");
    world.ok("mkdir /run/volume && echo word >/run/volume/file");
    let read = |volume: &str| {
        let flags = format!("--rm --security-opt label=level:s0:c5,c6 --volume /run/volume:/volume{volume}");
        world.command(&format!("docker run {flags} busy cat /volume/file")).output()
    };
    read("").assert_code(1).assert_says("Permission denied");
    read(":Z").assert_code(0).assert_stdout("word");
    assert_eq!(label_of(world.path("/run/volume/file")), file("c5,c6"));
    eventually("every record to go", || world.records().is_empty().then_some(()));
}
