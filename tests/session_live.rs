//! Commands that leave processes behind which go on, and looking at commands of others while they run.

mod support;

use std::path::Path;
use std::time::Duration;

use support::{Deja, Sessions, eventually, requires};

/// Serves a counter until it is told to end: each file that appears in /tmp/in is moved to /tmp/out.
const SERVER: &str = "mkdir -p /tmp/in /tmp/out; (while :; do for f in /tmp/in/*; do \
    [ -e \"$f\" ] && mv \"$f\" /tmp/out/ && echo served; done; sleep 0.02; done) > /tmp/log 2>&1 & echo started";

fn keep(sessions: &Sessions, name: &str, text: &str) -> Deja {
    sessions.verb("exec").args(["--keep-background", name, "-c", text])
}

fn now(sessions: &Sessions, name: &str) -> Option<String> {
    let list = sessions.verb("list").arg("--json").ok().json();
    let row = list.as_array()?.iter().find(|row| row["session"] == name)?.clone();
    row["now"].as_str().map(str::to_owned)
}

/// Nothing of a session is left: no container, no draft, no cgroup of one.
fn assert_nothing_left(sessions: &Sessions) {
    let names = |path: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    eventually("the drafts to go", || names(&sessions.store().join("drafts")).is_empty().then_some(()));
    let containers = names(&sessions.path().join("run"));
    assert!(!containers.iter().any(|name| name.starts_with("session-")), "{containers:?}");
}

#[test]
fn processes_go_on_when_they_may_and_commands_join_them() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let begin = sessions.state("ada");
    let started = keep(&sessions, "ada", SERVER).ok();
    assert!(started.stderr().contains(" behind, kept running"), "{}", started.stderr());
    started.assert_stdout("started");
    assert_eq!(sessions.acts("ada"), ["new", "live"]);
    assert_eq!(sessions.state("ada"), begin);
    assert!(now(&sessions, "ada").is_some_and(|now| now.starts_with("live: mkdir")));

    // Commands see what it does, and each other's shell context.
    sessions.shell("ada", "touch /tmp/in/job; cd /tmp; export WHO=ada; exit 3").output().assert_code(3);
    let waits = "until [ -e out/job ]; do sleep 0.02; done; echo $WHO $PWD";
    sessions.shell("ada", waits).ok().assert_stdout("ada /tmp");
    let words =
        sessions.verb("exec").args(["--json", "--env", "X=1", "ada", "sh", "-c", "echo $X; echo e >&2"]);
    let told = words.ok().json();
    assert_eq!(
        (&told["act"], &told["stdout"], &told["stderr"]),
        (&"live".into(), &"1\n".into(), &"e\n".into())
    );
    sessions.verb("exec").args(["-i", "ada", "cat"]).stdin("typed").ok().assert_stdout("typed");
    sessions.exec("ada", &["/none"]).output().assert_code(127);
    let refuses = |verb: &str, words: &[&str]| sessions.verb(verb).args(words).stdin("x").fails();
    refuses("put", &["ada", "/tmp/f"]).assert_says("is live");
    refuses("rename", &["ada", "eve"]).assert_says("is live");
    refuses("exec", &["--verify", "ada", "true"]).assert_says("--verify means nothing");

    sessions.verb("settle").args(["--grace", "10s", "ada"]).ok();
    assert_eq!(sessions.acts("ada").last().map(String::as_str), Some("settled"));
    assert_eq!(now(&sessions, "ada"), None);
    sessions
        .shell("ada", "cat /tmp/log; ls /tmp/out; echo $WHO $PWD")
        .ok()
        .assert_stdout("served\njob\nada /tmp");
    // One step back is where it stood before.
    sessions.verb("undo").args(["ada", "2"]).ok();
    assert_eq!(sessions.state("ada"), begin);
    sessions.verb("settle").arg("ada").fails().assert_says("is not live");
    assert_nothing_left(&sessions);
    sessions.verb("verify").ok();
}

#[test]
fn a_session_whose_processes_end_by_themselves_is_settled_and_one_that_moves_on_ends_them() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let begin = sessions.state("ada");
    keep(&sessions, "ada", "(sleep 4; echo late > /tmp/late) & echo now").ok().assert_stdout("now");
    eventually("the end of it", || (sessions.acts("ada").last()? == "settled").then_some(()));
    sessions.verb("cat").args(["ada", "/tmp/late"]).ok().assert_stdout("late");
    // It was kept from others.
    let miss =
        sessions.verb("explain").args(["bob", "-c", "(sleep 4; echo late > /tmp/late) & echo now"]).ok();
    miss.assert_stdout_contains("miss");

    let text = "sleep 1000 & touch /tmp/gone";
    for verb in [&["undo", "bob"][..], &["goto", "bob", &begin], &["settle", "--discard", "--json", "bob"]] {
        keep(&sessions, "bob", text).ok();
        sessions.verb(verb[0]).args(&verb[1..]).ok();
        assert_eq!(sessions.state("bob"), begin, "{verb:?}");
        assert_nothing_left(&sessions);
    }
    // What leaves nothing behind is a command like any other.
    keep(&sessions, "bob", "exit 4").output().assert_code(4);
    assert_eq!(sessions.acts("bob").last().map(String::as_str), Some("run"));
    keep(&sessions, "bob", text).ok();
    sessions.verb("close").arg("bob").ok();
    assert_nothing_left(&sessions);
    sessions.verb("verify").ok();
}

#[test]
fn a_keeper_that_is_killed_takes_all_along_and_loses_nothing_that_was_kept() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "echo kept > /tmp/kept").ok();
    let before = sessions.state("ada");
    keep(&sessions, "ada", "sleep 1000 & echo lost > /tmp/lost").ok();
    let drafts = std::fs::read_dir(sessions.store().join("drafts")).expect("the drafts").flatten();
    let notices: Vec<String> =
        drafts.filter_map(|draft| std::fs::read_to_string(draft.path().join("notice")).ok()).collect();
    let [notice] = notices.as_slice() else { panic!("{notices:?}") };
    let notice: serde_json::Value = serde_json::from_str(notice).expect("a notice");
    let pid = notice["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL).expect("kill it");
    eventually("the keeper to be gone", || now(&sessions, "ada").is_none().then_some(()));
    assert_eq!(sessions.state("ada"), before);
    sessions.shell("ada", "cat /tmp/kept; ls /tmp").ok().assert_stdout("kept\nkept");
    sessions.verb("gc").ok();
    assert_nothing_left(&sessions);
    sessions.verb("verify").ok();
}

#[test]
fn a_session_is_made_live_and_settled_whole_or_not_at_all() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let begin = sessions.state("ada");
    for point in (1..100).step_by(if support::is_slow() { 5 } else { 1 }) {
        // Each a command of its own: on a busy machine one may end so late that nothing of it is left behind.
        let text = format!(": {point}; (sleep 1; echo x > /tmp/x) & true");
        let killed = keep(&sessions, "ada", &text).trial(&format!("kill:{point}")).output();
        eventually("the keeper's end", || now(&sessions, "ada").is_none().then_some(()));
        let acts = sessions.acts("ada");
        let last = acts.last().map(String::as_str);
        let state = sessions.state("ada");
        if last == Some("run") {
            sessions.verb("goto").args(["ada", &begin]).ok();
            continue;
        }
        assert_eq!(state != begin, last == Some("settled"), "point {point}: {acts:?}");
        if last == Some("settled") {
            assert_eq!(killed.code(), Some(0));
            sessions.verb("cat").args(["ada", "/tmp/x"]).ok().assert_stdout("x");
            sessions.verb("goto").args(["ada", &begin]).ok();
            break;
        }
        assert!(point < 90, "it never came to its end");
    }
    sessions.verb("gc").ok();
    assert_nothing_left(&sessions);
    sessions.verb("verify").ok();
}

#[test]
fn a_command_of_somebody_else_is_seen_as_it_runs() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob", "eve"]);
    // Long enough for all that is done meanwhile.
    let seconds = if support::is_slow() { 90 } else { 12 };
    let text = &format!("echo begin; echo problem >&2; sleep {seconds}; echo end; exit 5");
    let long = Duration::from_secs(240);
    let kept = keep(&sessions, "eve", "sleep 1000 & touch /tmp/ready").ok();
    assert!(kept.stderr().contains("session settle eve"), "{}", kept.stderr());
    let running = sessions.shell("ada", text).deadline(long).spawn();
    eventually("the command", || now(&sessions, "ada").filter(|now| now.starts_with("runs: echo begin")));
    let waiting = sessions.shell("bob", text).deadline(long).spawn();
    eventually("who waits for it", || now(&sessions, "bob"));
    let watching = sessions.verb("watch").arg("ada").deadline(long).spawn();
    let other = sessions.verb("watch").args(["--json", "bob"]).deadline(long).spawn();
    eventually("the first line", || watching.stdout().contains("begin").then_some(()));
    let seen = watching.finish().assert_code(5);
    assert!(seen.stderr().contains("runs since") && seen.stderr().contains("problem"), "{}", seen.stderr());
    seen.assert_stdout("begin\nend");
    let seen = other.finish().assert_code(5);
    assert!(seen.stderr().contains("runs in session ada since"), "{}", seen.stderr());
    let lines: Vec<serde_json::Value> =
        seen.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.last().expect("an end")["end"]["code"], 5);
    assert_eq!(lines[0]["stdout"]["text"], "begin\n");
    running.finish().assert_code(5);
    waiting.finish().assert_code(5);
    assert_eq!(sessions.acts("bob"), ["new", "hit"]);

    // Afterwards it is told again, and that this is so.
    let again = sessions.verb("watch").arg("bob").output().assert_code(5);
    assert!(again.stderr().contains("nothing runs in session \"bob\""), "{}", again.stderr());
    again.assert_stdout("begin\nend");
    sessions.shell("ada", "kill -9 $$").output().assert_code(137);
    let lost = sessions.verb("watch").arg("ada").output().assert_code(137);
    assert!(lost.stderr().contains("is not kept"), "{}", lost.stderr());
    sessions.begin("kim");
    sessions.verb("watch").arg("kim").fails().assert_says("nothing ever did");

    // What goes on in the background is seen, too, until it is ended.
    let watching = sessions.verb("watch").arg("eve").deadline(long).spawn();
    eventually("the introduction", || sessions.verb("list").ok().stdout().contains("live: ").then_some(()));
    sessions.verb("settle").arg("eve").ok();
    watching.finish().assert_code(0);
    assert_nothing_left(&sessions);
}
