//! The test beds and the small root file system are what they claim to be.

mod support;

use support::requires;

#[test]
fn a_bundle_runs_and_leaves_nothing() {
    requires!(bed);
    let bundle = support::Bundle::new().script("echo hello; exit 7");
    let leaks = support::Leaks::snapshot(&bundle);
    bundle.run().assert_code(7).assert_stdout("hello");
    leaks.assert_none();
}

#[test]
fn a_created_container_has_a_life() {
    requires!(bed);
    let bundle = support::Bundle::new().script("echo up; exec sleep 1000");
    let leaks = support::Leaks::snapshot(&bundle);
    let container = bundle.create();
    assert_eq!(container.status(), "created");
    container.start();
    container.wait_stdout("up");
    container.exec(&["echo", "inside"]).assert_code(0).assert_stdout("inside");
    container.kill("KILL");
    container.wait_status("stopped");
    container.delete();
    leaks.assert_none();
}

#[test]
fn an_adopted_container_tells_its_exit_code() {
    requires!(bed);
    support::adopt_orphans();
    let bundle = support::Bundle::new().script("exit 3");
    let container = bundle.create();
    container.start();
    assert_eq!(container.exit_code(), 3);
}

#[test]
fn a_terminal_arrives_on_the_console_socket() {
    requires!(bed);
    let bundle = support::Bundle::new().script("stty size; cat").set("/process/terminal", true.into());
    let bundle = bundle.set("/process/consoleSize", serde_json::json!({"height": 30, "width": 90}));
    let socket = support::ConsoleSocket::listen(&bundle.file("tty"));
    let path = bundle.file("tty");
    let container = bundle.create_with(bundle.id(), &["--console-socket", path.to_str().expect("UTF-8")]);
    let mut console = socket.accept();
    container.start();
    // With the end of the line: the echo of what is written now could come between.
    console.read_until("30 90\r\n");
    console.write("hello\n");
    console.read_until("hello\r\nhello");
    container.kill("KILL");
    console.read_to_end();
}

#[test]
fn what_is_left_behind_is_found() {
    requires!(bed);
    let bundle = support::Bundle::new().sleeps();
    let leaks = support::Leaks::snapshot(&bundle);
    let container = bundle.start();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| leaks.assert_none()));
    let report = found.expect_err("a running container is a leak");
    let report = report.downcast_ref::<String>().expect("a message");
    for kind in ["process", "cgroup", "state"] {
        assert!(report.contains(kind), "no {kind} in {report}");
    }
    drop(container);
    leaks.assert_none();
}

#[test]
fn the_root_file_system_is_its_manifest() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rootfs");
    requires!(bed);
    let checked = std::process::Command::new(script)
        .arg("--check")
        .arg(support::rootfs())
        .output()
        .expect("scripts/rootfs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Test binaries are programs that list their tests and run one; this one's second test fails once.
const STEADY_AND_NOT: &str = r#"#!/bin/bash
if [ "$1" = --list ]; then printf 'good: test\nonce: test\nbad: test\n'; exit; fi
case $2 in good) ;; once) mkdir "$MARK" && exit 1 || exit 0 ;; bad) [ "$BAD" != 1 ] ;; esac
"#;

#[test]
fn a_second_run_is_told_and_does_not_hide_what_is_broken() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().expect("a directory");
    let program = place.path().join("tests");
    std::fs::write(&program, STEADY_AND_NOT).expect("write a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("make it one");
    let results = |name: &str, bad: &str| {
        let log = place.path().join(format!("log.{name}.{bad}"));
        let output = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/run-tests"))
            .arg("--log")
            .arg(&log)
            .arg(format!("{name}={}", program.display()))
            .env("MARK", place.path().join(format!("mark.{name}.{bad}")))
            .env("BAD", bad)
            .env("DEJA_INSIDE", "native")
            .output()
            .expect("run the tests");
        let mut lines: Vec<String> = std::fs::read_to_string(log.join("results"))
            .expect("read the results")
            .lines()
            .filter_map(|line| line.rsplit_once(' ').map(|(verdict, _)| verdict.to_owned()))
            .collect();
        lines.sort();
        (output.status.success(), lines.join(", "))
    };
    let (passes, verdicts) = results("some", "0");
    assert_eq!((passes, verdicts.as_str()), (true, "ok some::bad, ok some::good, unsteady some::once"));
    let (passes, verdicts) = results("some", "1");
    assert_eq!((passes, verdicts.as_str()), (false, "FAILED some::bad, ok some::good, unsteady some::once"));
    let (passes, verdicts) = results("attack_some", "0");
    let attack = "FAILED attack_some::once, ok attack_some::bad, ok attack_some::good";
    assert_eq!((passes, verdicts.as_str()), (false, attack));
}
