//! `session`: commands that run once, states that are equal when they look equal.

mod support;

use support::{Sessions, requires};

#[test]
fn a_command_runs_once_and_is_replayed_with_all_it_said() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let text = "echo one; echo two >&2; echo made > /tmp/file; exit 3";
    for name in ["ada", "bob", "bob"] {
        let finished = sessions.shell(name, text).output().assert_code(3).assert_stdout("one");
        assert_eq!(finished.stderr(), "two\n", "{finished}");
    }
    assert_eq!(sessions.acts("ada"), ["new", "run"]);
    // The second time the file is there already, which is another state; writing it again changes nothing.
    assert_eq!(sessions.acts("bob"), ["new", "hit", "run"]);
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
    sessions.exec("ada", &["cat", "/tmp/file"]).ok().assert_stdout("made");
}

#[test]
fn equal_runs_in_stores_that_know_nothing_of_each_other_give_equal_states() {
    requires!(bed, overlay);
    let script = "mkdir -p /srv/d/e; echo text > /srv/d/e/f; ln /srv/d/e/f /srv/d/g; ln -s ../d /srv/l; \
        chmod 4751 /srv/d/g; chown 7:8 /srv/d; mkfifo /srv/p; rm /etc/profile; rm -r /mnt; mkdir /mnt";
    let states: Vec<String> = (0..2)
        .map(|_| {
            let sessions = Sessions::new(&["one"]);
            sessions.shell("one", script).ok();
            sessions.shell("one", "date > /dev/null; mv /srv/d /srv/moved").ok();
            assert_eq!(sessions.acts("one"), ["new", "run", "run"]);
            sessions.state("one")
        })
        .collect();
    assert_eq!(states[0], states[1]);
}

#[test]
fn different_ways_to_the_same_files_lead_to_the_same_state() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.shell("ada", "echo a > /tmp/a").ok();
    sessions.shell("ada", "echo b > /tmp/b").ok();
    sessions.shell("bob", "echo b > /tmp/b; echo wrong > /tmp/a").ok();
    sessions.shell("bob", "mkdir /tmp/c; touch /tmp/c/d").ok();
    sessions.shell("bob", "rm -r /tmp/c; echo a > /tmp/a").ok();
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
    sessions.shell("ada", "ls /tmp").ok().assert_stdout("a\nb");
    sessions.shell("bob", "ls /tmp").ok().assert_stdout("a\nb");
    assert_eq!(sessions.acts("bob").last().map(String::as_str), Some("hit"));
}

#[test]
fn the_same_change_may_be_made_again_and_again() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    for round in 0..3 {
        sessions.shell("ada", "echo x > /tmp/f").ok();
        sessions.shell("ada", "rm /tmp/f").ok();
        sessions.shell("ada", &format!("echo {round} > /tmp/round; ls /tmp")).ok().assert_stdout("round");
    }
    assert_eq!(sessions.acts("ada")[1..], ["run"; 9]);
}

#[test]
fn a_command_that_changes_nothing_keeps_the_state_and_takes_no_layer() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let before = sessions.state("ada");
    let layers = || std::fs::read_dir(sessions.store().join("layers")).expect("layers").count();
    for text in ["true", "touch /etc/passwd", "cp /etc/passwd /tmp/x; cat /tmp/x > /etc/passwd; rm /tmp/x"] {
        sessions.shell("ada", text).ok();
        assert_eq!(sessions.state("ada"), before, "{text}");
    }
    assert_eq!(layers(), 1);
    sessions.shell("ada", "chmod 600 /etc/passwd").ok();
    assert_ne!(sessions.state("ada"), before);
    assert_eq!(layers(), 2);
}

#[test]
fn a_shell_s_directory_variables_and_umask_carry_on() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "mkdir -p /srv/x; cd /srv/x; export NAME='two words'; plain=1; umask 027").ok();
    let told = sessions.shell("ada", "pwd; echo $NAME$plain; umask; touch f; stat -c %a f").ok();
    told.assert_stdout("/srv/x\ntwo words\n0027\n640");
    sessions.exec("ada", &["pwd"]).ok().assert_stdout("/srv/x");
    let environment = sessions.exec("ada", &["env"]).ok().stdout();
    assert!(environment.lines().any(|line| line == "NAME=two words"), "{environment}");
    // An exit inside the text is the command's exit code, and what was done before it stays.
    sessions.shell("ada", "cd /tmp; exit 5").output().assert_code(5);
    sessions.exec("ada", &["pwd"]).ok().assert_stdout("/tmp");
    let here =
        sessions.verb("exec").args(["--cwd", "/etc", "--env", "NAME=other", "ada", "-c", "pwd; echo $NAME"]);
    here.ok().assert_stdout("/etc\nother");
}

#[test]
fn what_depends_on_the_moment_is_not_kept_for_others_and_failures_are() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "kill -KILL $$").output().assert_code(137).assert_says("killed by signal 9");
    let slow = sessions.verb("exec").args(["--timeout", "100ms", "ada", "sleep", "1000"]);
    slow.output().assert_code(124).assert_says("it took too long");
    sessions
        .shell("ada", "sleep 1000 & echo on")
        .ok()
        .assert_stdout("on")
        .assert_says("left a process behind");
    sessions.exec("ada", &["false"]).output().assert_code(1);
    sessions.exec("ada", &["no-such-program"]).output().assert_code(127).assert_says("no such file");
    sessions.exec("ada", &["/etc/passwd"]).output().assert_code(126).assert_says("permission denied");
    let failures = [(&["false"][..], 1), (&["no-such-program"], 127), (&["/etc/passwd"], 126)];
    for (words, code) in failures {
        sessions.exec("ada", words).output().assert_code(code);
    }
    let acts = sessions.acts("ada");
    assert_eq!(acts, ["new", "once", "once", "once", "run", "run", "run", "hit", "hit", "hit"]);
    assert!(sessions.log("ada").iter().all(|step| step["state"] == sessions.state("ada")));
}

#[test]
fn standard_input_the_user_and_variables_are_part_of_what_is_asked() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let cat = |input: &str| sessions.verb("exec").args(["-i", "ada", "cat"]).stdin(input).ok().stdout();
    assert_eq!([cat("one"), cat("two"), cat("one")], ["one", "two", "one"]);
    // Without the flag nothing is read.
    sessions.exec("ada", &["cat"]).stdin("unread").ok().assert_stdout("");
    let id =
        |user: &str| sessions.verb("exec").args(["--user", user, "ada", "-c", "id -u; id -g"]).ok().stdout();
    assert_eq!([id("7:8"), id("0"), id("7:8")], ["7\n8\n", "0\n0\n", "7\n8\n"]);
    let acts = ["new", "run", "run", "hit", "run", "run", "run", "hit"];
    assert_eq!(sessions.acts("ada"), acts);
}

#[test]
fn a_hit_mounts_nothing_and_starts_nothing() {
    requires!(bed, overlay, tool "strace");
    let sessions = Sessions::new(&["ada"]);
    let report = sessions.path().join("calls");
    sessions.exec("ada", &["echo", "hello"]).ok();
    let trace = ["strace", "-f", "-o", report.to_str().expect("a path")];
    sessions.exec("ada", &["echo", "hello"]).wrapped_in(trace).ok().assert_stdout("hello");
    let calls = std::fs::read_to_string(&report).expect("strace's report");
    for call in ["mount", "clone", "fork", "unshare", "mkdir", "fsync", "setns"] {
        assert!(!calls.contains(&format!(" {call}")), "{call}: {calls}");
    }
    let count = calls.lines().count();
    assert!(count <= 60, "{count} system calls: {calls}");
}

#[test]
fn a_replay_keeps_the_order_of_both_streams() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    // Two pipes have an order only for whoever reads in time, which a busy machine does not promise at once.
    let text = "for i in 1 2 3; do echo out $i; sleep 0.5; echo err $i >&2; sleep 0.5; done";
    let expected = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n";
    for flags in [&[][..], &[], &["--timing"]] {
        let both = sessions.verb("exec").args(flags).args(["ada", "-c", text]).redirections("2>&1").ok();
        assert_eq!(both.stdout(), expected);
    }
    assert_eq!(sessions.acts("ada"), ["new", "run", "hit", "hit"]);
}

#[test]
fn a_container_of_a_session_holds_nothing_of_the_machine_s_own() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let text = "hostname; id -u; ls /sys/class/net; echo x > /dev/init; ls -d /proc/[0-9]* | wc -l";
    let told = sessions.shell("ada", text).ok();
    assert_eq!(told.stdout().lines().take(3).collect::<Vec<_>>(), ["deja", "0", "lo"], "{told}");
    told.assert_says("/dev/init");
}

#[test]
fn what_is_asked_wrongly_is_refused_in_one_sentence() {
    let sessions = Sessions::empty();
    sessions.exec("ada", &["true"]).fails().assert_says("make a session with");
    sessions.verb("new").arg("ada").fails().assert_says("needs either --rootfs");
    sessions.verb("new").args(["--rootfs", "/", "a/b"]).fails().assert_says("is no name for a session");
    let empty = sessions.path().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let begin = || sessions.verb("new").arg("--rootfs").arg(&empty).arg("ada");
    requires!(root);
    let made = begin().arg("--json").ok().json();
    assert_eq!((&made["session"], made["state"].as_str().map(str::len)), (&"ada".into(), Some(64)));
    begin().fails().assert_says("there is a session \"ada\" already");
    sessions.exec("bob", &["true"]).fails().assert_says("there is no session \"bob\"");
    sessions.verb("exec").arg("ada").fails().assert_says("there is no command");
    sessions.verb("exec").args(["ada", "-c", "one", "two"]).fails().assert_says("as one text");
    sessions.verb("exec").args(["--env", "X", "ada", "true"]).fails().assert_says("NAME=VALUE");
    let list = sessions.verb("list").arg("--json").ok().json();
    assert_eq!(list[0]["session"], "ada");
}

#[test]
fn a_result_is_told_as_json() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    for act in ["run", "hit"] {
        let words = ["--json", "ada", "-c", "echo out; echo err >&2; exit 4"];
        let told = sessions.verb("exec").args(words).output().assert_code(4).json();
        assert_eq!((&told["act"], &told["code"]), (&act.into(), &4.into()), "{told}");
        assert_eq!((&told["stdout"], &told["stderr"]), (&"out\n".into(), &"err\n".into()), "{told}");
        assert_eq!(told["state"], sessions.state("ada").as_str());
    }
}

#[test]
fn a_session_may_begin_with_variables() {
    requires!(bed, overlay);
    let sessions = Sessions::empty();
    let begin = sessions.verb("new").args(["--env", "COURSE=os", "--env", "HOME=/srv", "ada"]);
    begin.arg("--rootfs").arg(support::rootfs()).ok();
    sessions.shell("ada", "echo $COURSE; cd; pwd").ok().assert_stdout("os\n/srv");
}
