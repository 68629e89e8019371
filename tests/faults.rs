//! Every place of every verb fails, or kills deja, in turn: the error names the place, nothing is left behind,
//! and what a killed deja leaves is found by `delete --force`. `src/trial.rs` makes the faults.

mod support;

use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;

use serde_json::json;
use support::{Bundle, Deja, Finished, Leaks, requires};

/// More places than any verb has: an enumeration that comes this far does not end.
const ENDLESS: usize = 150;

/// How many steps a plan of these tests has at least, and points a verb.
const STEPS: usize = 20;

fn plain() -> Bundle {
    Bundle::new().sleeps()
}

/// Everything that makes a plan longer: hooks of every kind, devices, masked paths, a profile, a nested cgroup.
fn rich() -> Bundle {
    let hook = json!([{"path": "/bin/true"}]);
    let mut bundle = plain();
    for moment in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    {
        bundle = bundle.set(&format!("/hooks/{moment}"), hook.clone());
    }
    let cgroup = format!("/deja-test/{0}/in/{0}", bundle.id());
    bundle
        .set("/linux/cgroupsPath", json!(cgroup))
        .set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}))
        .set("/linux/devices", json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]))
        .set("/linux/sysctl", json!({"kernel.msgmax": "4096"}))
        .set("/process/umask", json!(63))
        .set("/root/readonly", json!(true))
}

/// In a user namespace the parent has a share in the child's steps.
fn mapped() -> Bundle {
    plain().user_namespace(100_000, 65_536)
}

/// Has its mounts on the host.
fn without_mount_namespace() -> Bundle {
    plain().without_namespace("mount")
}

/// Of a long plan every place is tried where that is fast, and every fourth where it is not.
fn stride() -> usize {
    if support::is_slow() { 4 } else { 1 }
}

/// Requests `kind` at every place until none is left; `check` gets what became of each, and the number of places
/// is given back.
fn each(kind: &str, verb: impl FnMut(usize) -> Deja, check: impl FnMut(usize, Finished)) -> usize {
    some(1, kind, verb, check)
}

/// As `each`, at the first place and every `stride` places further; what is given back may be too large by less than that.
fn some(
    stride: usize,
    kind: &str,
    mut verb: impl FnMut(usize) -> Deja,
    mut check: impl FnMut(usize, Finished),
) -> usize {
    for number in (1..ENDLESS).step_by(stride) {
        let finished = verb(number).trial(&format!("{kind}:{number}")).output();
        let happened = match kind {
            "kill" => finished.status.signal() == Some(9),
            "full" => finished.stderr().contains("point "),
            _ => finished.stderr().contains("on request"),
        };
        if !happened {
            assert!(finished.status.success(), "{kind}:{number}: {finished}");
            check(number, finished);
            return number - 1;
        }
        if kind != "kill" {
            assert!(finished.code().is_some_and(|code| code != 0), "{kind}:{number}: {finished}");
            assert!(names_its_place(kind, number, &finished), "{kind}:{number}: {finished}");
        }
        check(number, finished);
    }
    panic!("{kind}: {ENDLESS} places, and no end");
}

fn names_its_place(kind: &str, number: usize, finished: &Finished) -> bool {
    let text = finished.stderr();
    match kind {
        // Steps of a process in the middle are counted on their own.
        "step" => text.contains("step ") && text.contains(" of ") && text.contains(": fail on request: "),
        _ => text.contains(&format!("point {number}: ")),
    }
}

fn force(bundle: &Bundle) {
    bundle.deja().args(["delete", "--force"]).arg(bundle.id()).ok();
}

/// `create`, and where that goes well because the step comes later, `start`.
fn steps_of_create_and_start(bundle: Bundle, flags: &[&str]) {
    let leaks = Leaks::snapshot(&bundle);
    let (mut created, mut number, mut stride) = (0, 1, stride());
    loop {
        assert!(number < ENDLESS);
        let create =
            bundle.verb("create").args(flags).arg(bundle.id()).trial(&format!("step:{number}")).output();
        if !create.status.success() {
            assert_eq!(created, 0, "a later step fails earlier: {create}");
            assert!(create.stderr().contains(&format!("step {number} of ")), "{create}");
            assert!(names_its_place("step", number, &create), "{create}");
            leaks.assert_none();
            number += stride;
            continue;
        }
        if stride > 1 {
            // From the last step of create on, every one counts.
            force(&bundle);
            number -= stride - 1;
            stride = 1;
            continue;
        }
        created += 1;
        let start = bundle.deja().arg("start").arg(bundle.id()).output();
        if start.status.success() {
            break;
        }
        if created == 1 {
            // Between telling that it is created and waiting for start the child has nothing to do that could fail.
            let words = ["init ended before its program was started", "a container that has stopped"];
            assert!(words.iter().any(|words| start.stderr().contains(words)), "{start}");
        } else {
            assert!(start.stderr().contains(&format!("step {number} of ")), "{start}");
        }
        bundle.deja().arg("delete").arg(bundle.id()).ok();
        leaks.assert_none();
        number += 1;
    }
    assert!(number > STEPS && created > 2, "{number} steps, {created} of them after create");
    force(&bundle);
    leaks.assert_none();
}

#[test]
fn every_step_of_create_and_start_can_fail() {
    requires!(bed, debug);
    steps_of_create_and_start(plain(), &[]);
}

#[test]
fn every_step_of_a_long_plan_can_fail() {
    requires!(bed, debug);
    steps_of_create_and_start(rich(), &[]);
}

#[test]
fn every_step_in_a_user_namespace_can_fail() {
    requires!(bed, debug, userns);
    steps_of_create_and_start(mapped(), &[]);
}

#[test]
fn mounts_on_the_host_go_whatever_fails() {
    requires!(bed, debug);
    steps_of_create_and_start(without_mount_namespace(), &[]);
    points(&without_mount_namespace(), "fail", &["create"]);
    points(&without_mount_namespace(), "kill", &["create"]);
    // What is undone is the same; the native bed has shown that.
    if !support::is_slow() {
        points(&without_mount_namespace().args(&["/bin/true"]), "fail", &["run"]);
        points(&without_mount_namespace().args(&["/bin/true"]), "kill", &["run"]);
    }
}

#[test]
fn every_step_with_a_terminal_can_fail() {
    requires!(bed, debug);
    let bundle = plain()
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 5, "width": 7}));
    let socket = bundle.file("console");
    let listener = UnixListener::bind(&socket).expect("listen");
    // It lives as long as the test's process; a terminal that nobody has received yet stays open in its connection.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        listener.incoming().for_each(|connection| held.push(connection));
    });
    let socket = socket.display().to_string();
    steps_of_create_and_start(bundle, &["--console-socket", &socket]);
}

#[test]
fn every_step_of_run_can_fail() {
    requires!(bed, debug);
    let bundle = rich().args(&["/bin/true"]);
    let leaks = Leaks::snapshot(&bundle);
    let places = some(stride(), "step", |_| bundle.verb("run").arg(bundle.id()), |_, _| leaks.assert_none());
    assert!(places > STEPS);
}

/// The point of `create`, `run`, ... at which `kind` happens: nothing is left, or `delete --force` removes it, and
/// the id is free again.
fn points(bundle: &Bundle, kind: &str, verb: &[&str]) {
    let leaks = Leaks::snapshot(bundle);
    let command = |_| bundle.verb(verb[0]).args(&verb[1..]).arg(bundle.id());
    let places = some(stride(), kind, command, |number, finished| {
        // What fails in `run` after the container has ended is the deleting, which can be tried again.
        let done = finished.status.success() && verb[0] == "run" && !verb.contains(&"--detach");
        let deleting = [
            "delete",
            "remove the cgroup",
            "take the mounts off the host",
            "run poststop hooks",
            "remove the record",
        ];
        if kind == "kill" && verb[0] == "create" {
            // Whether it starts depends on how far create came; that somebody dead keeps the lock must not be.
            drop(bundle.deja().arg("start").arg(bundle.id()).output());
        }
        let deleting = deleting.iter().any(|what| finished.stderr().contains(&format!(": {what}: ")));
        if kind == "kill" || deleting || (finished.status.success() && !done) {
            force(bundle);
        }
        leaks.assert_none();
        if kind == "kill" && number % 3 == 0 {
            drop(bundle.create());
            leaks.assert_none();
        }
    });
    assert!(places >= 10, "{places} points");
}

#[test]
fn every_point_of_create_can_fail() {
    requires!(bed, debug);
    points(&rich(), "fail", &["create"]);
    points(&plain(), "full", &["create"]);
}

#[test]
fn create_can_be_killed_at_every_point() {
    requires!(bed, debug);
    points(&rich(), "kill", &["create"]);
}

#[test]
fn create_in_a_user_namespace_can_be_killed_at_every_point() {
    requires!(bed, debug, userns);
    points(&mapped(), "fail", &["create"]);
    points(&mapped(), "kill", &["create"]);
}

#[test]
fn every_point_of_run_can_fail() {
    requires!(bed, debug);
    points(&rich().args(&["/bin/true"]), "fail", &["run"]);
    points(&rich(), "fail", &["run", "--detach"]);
}

#[test]
fn run_can_be_killed_at_every_point() {
    requires!(bed, debug);
    points(&rich().args(&["/bin/true"]), "kill", &["run"]);
    points(&plain(), "kill", &["run", "--detach"]);
}

#[test]
fn start_can_fail_or_be_killed_at_every_point() {
    requires!(bed, debug);
    let bundle = rich();
    let leaks = Leaks::snapshot(&bundle);
    for kind in ["fail", "kill"] {
        let start = |_| {
            bundle.verb("create").arg(bundle.id()).ok();
            bundle.deja().arg("start").arg(bundle.id())
        };
        let places = each(kind, start, |_, _| {
            force(&bundle);
            leaks.assert_none();
        });
        assert!(places >= 5, "{places} points");
    }
}

#[test]
fn exec_can_fail_or_be_killed_anywhere() {
    requires!(bed, debug);
    let bundle = plain().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    let pid_file = bundle.file("exec.pid");
    let processes = || std::fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    for (kind, least) in [("step", 8), ("fail", 5), ("kill", 5)] {
        let exec = |_| {
            let flags = ["--detach", "--pid-file", pid_file.to_str().unwrap()];
            container.exec_with(&flags, &["/bin/sleep", "1000"])
        };
        let places = each(kind, exec, |number, finished| match kind {
            // Init, the one that went well before, and those of which nobody heard any more.
            "kill" => assert!(processes() <= number + 3),
            _ if finished.status.success() => std::fs::remove_file(&pid_file).unwrap(),
            _ => {
                assert_eq!(finished.code(), Some(255), "{finished}");
                assert!(!pid_file.exists(), "{kind}:{number}: there is a pid file");
            }
        });
        assert!(places >= least, "{kind}: {places} places");
        if kind == "step" {
            // Init and the one that went well.
            support::eventually("failed programs to be gone", || (processes() == 2).then_some(()));
        }
    }
    assert_eq!(container.status(), "running");
    drop(container);
    leaks.assert_none();
}

#[test]
fn delete_can_fail_or_be_killed_at_every_point() {
    requires!(bed, debug);
    let bundle = rich();
    let leaks = Leaks::snapshot(&bundle);
    for kind in ["fail", "kill"] {
        for (prepare, flags) in [("create", None), ("run", Some("--force"))] {
            let delete = |_| {
                let detach = (prepare == "run").then_some("--detach");
                bundle.verb(prepare).args(detach).arg(bundle.id()).ok();
                bundle.deja().arg("delete").args(flags).arg(bundle.id())
            };
            let places = each(kind, delete, |_, finished| {
                if !finished.status.success() {
                    force(&bundle);
                }
                leaks.assert_none();
            });
            assert!(places >= 4, "{places} points");
        }
    }
}

#[test]
fn update_can_fail_or_be_killed_at_every_point() {
    requires!(bed, debug);
    let bundle = plain();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    // Some value must be changed even where there is no controller: CPU shares go into the record, too.
    let limits = bundle.file("limits.json");
    std::fs::write(&limits, json!({"unified": {"cgroup.max.depth": "7"}}).to_string()).expect("write");
    for kind in ["fail", "full", "kill"] {
        let update = |_| container.verb("update", &["--resources", limits.to_str().unwrap()]);
        let places = each(kind, update, |_, _| {
            assert_eq!(container.status(), "running");
            // Whoever was killed keeps no lock.
            container.verb("pause", &[]).ok();
            container.verb("resume", &[]).ok();
        });
        assert!(places >= 3, "{places} points");
    }
    assert_eq!(std::fs::read_to_string(bundle.cgroup().join("cgroup.max.depth")).unwrap(), "7\n");
    drop(container);
    leaks.assert_none();
}

#[test]
fn mounts_can_fail_or_be_killed_anywhere() {
    requires!(bed, debug);
    let bundle = plain();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    let file = bundle.file("mounts.json");
    let wanted = ["/first", "/second"];
    let mounts = wanted.map(|place| json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
    std::fs::write(&file, json!(mounts).to_string()).expect("write");
    let there = || {
        let table = container.exec(&["cat", "/proc/self/mountinfo"]).assert_code(0).stdout();
        wanted.map(|place| table.lines().filter(|line| line.split(' ').nth(4) == Some(place)).count())
    };
    for (kind, least) in [("step", 4), ("fail", 3), ("kill", 3)] {
        let add = |_| bundle.deja().args(["mounts", "add"]).arg(container.id()).arg(&file);
        let places = each(kind, add, |number, finished| {
            assert_eq!(container.status(), "running");
            // Those in front of the step that failed are there, and no other; a killed deja may leave a child at work.
            let known = there();
            assert!(kind == "kill" || known[0] >= known[1], "{kind}:{number}: {known:?}");
            assert!(!finished.status.success() || known == [1, 1], "{kind}:{number}: {known:?}");
            let done = || {
                for (place, count) in wanted.iter().zip(there()) {
                    let one = json!([{"destination": place, "type": "tmpfs", "source": "tmpfs"}]);
                    std::fs::write(bundle.file("one.json"), one.to_string()).expect("write");
                    let remove = || {
                        let remove = bundle.deja().args(["mounts", "remove"]).arg(container.id());
                        remove.arg(bundle.file("one.json")).ok()
                    };
                    (0..count).for_each(|_| drop(remove()));
                }
                (there() == [0, 0]).then_some(())
            };
            support::eventually("the mounts to be gone", done);
        });
        assert!(places >= least, "{kind}: {places} places");
    }
    drop(container);
    leaks.assert_none();
}
