//! What the commands of a store may use: what runs into a bound is told, and is nobody else's result.

mod support;

use support::{Sessions, requires};

fn bounded(flags: &[&str]) -> Sessions {
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.verb("policy").args(flags).ok();
    sessions
}

#[test]
fn a_policy_with_bounds_is_kept_shown_and_taken_back() {
    requires!(bed);
    let sessions = bounded(&["--memory", "64M", "--pids", "20", "--cpus", "0.5", "--time", "1m30s"]);
    let bounds =
        |flags: &[&str]| sessions.verb("policy").arg("--json").args(flags).ok().json()["bounds"].clone();
    let all = serde_json::json!({"memory": 64 << 20, "pids": 20, "cpus": 500, "time": 90_000});
    assert_eq!(bounds(&[]), all);
    let text = sessions.verb("policy").ok();
    for row in ["memory   67108864 ", "pids     20 ", "cpus     0.5 ", "time     90 s "] {
        assert!(text.stdout().contains(row), "{text}");
    }
    // One by one, and what is not named stays.
    assert_eq!(bounds(&["--memory", "none", "--cpus=none"]), serde_json::json!({"pids": 20, "time": 90_000}));
    assert_eq!(bounds(&["--pids", "none", "--time", "none"]), serde_json::json!({}));
    for (flag, value, words) in [
        ("--memory", "much", "not a size"),
        ("--memory", "-1", "none is the word for no limit"),
        ("--pids", "-4", "not a number"),
        ("--cpus", "0", "not between 0.01"),
        ("--cpus", "inf", "not between 0.01"),
        ("--time", "0s", "greater than 0"),
    ] {
        sessions.verb("policy").arg(flag).arg(value).fails().assert_says(words);
    }
}

#[test]
fn a_command_that_takes_too_long_is_ended_for_whoever_asked() {
    requires!(bed, overlay);
    let sessions = bounded(&["--time", "700ms"]);
    let long = "echo begun; sleep 60";
    sessions.shell("ada", long).output().assert_code(124).assert_stdout("begun");
    sessions.verb("exec").args(["--timeout", "1h", "bob", "-c", long]).output().assert_code(124);
    assert_eq!([sessions.acts("ada"), sessions.acts("bob")], [["new", "once"], ["new", "once"]]);
    // Who asks for less gets less.
    let asked = sessions.verb("exec").args(["--timeout", "100ms", "bob", "-c", "sleep 0.4; echo late"]);
    asked.output().assert_code(124).assert_stdout("");
}

#[test]
fn memory_and_processes_are_bounded_and_what_was_refused_is_not_kept() {
    requires!(bed, overlay, cgroup "memory", cgroup "pids", cgroup "cpu");
    let sessions = bounded(&["--memory", "24M", "--pids", "12", "--cpus", "1"]);
    let read = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max";
    sessions.shell("ada", read).ok().assert_stdout("25165824\n12\n100000 100000");

    let greedy = "head -c 100000000 /dev/zero | tail -n 1 > /dev/null; echo $?";
    sessions.shell("ada", greedy).output().assert_says("it ran out of memory");
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 0.2 & done; wait; echo over";
    sessions.shell("ada", forks).output().assert_says("it ran into the limit of processes");
    assert_eq!(sessions.acts("ada"), ["new", "run", "once", "once"]);

    // What had enough is everybody's, whatever the bounds are by then.
    sessions.verb("policy").args(["--memory", "none", "--pids", "none", "--cpus", "none"]).ok();
    sessions.shell("bob", read).ok().assert_stdout("25165824\n12\n100000 100000");
    assert_eq!(sessions.acts("bob"), ["new", "hit"]);
}
