//! The store of sessions under what happens to stores: many at once, sudden death, damage, long histories, want of room.

mod support;

use std::path::PathBuf;

use support::{Sessions, requires};

/// What is on a shelf of the store.
fn shelf(sessions: &Sessions, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(sessions.store().join(name)).expect("a shelf");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[track_caller]
fn assert_sound(sessions: &Sessions) {
    let verified = sessions.verb("verify").arg("--json").ok().json();
    assert_eq!(verified["removed"], serde_json::json!([]));
    assert_eq!(verified["stranded"], serde_json::json!([]));
    assert_eq!(shelf(sessions, "drafts"), [] as [PathBuf; 0]);
}

#[test]
fn what_many_ask_for_at_once_runs_once() {
    requires!(bed, overlay);
    let names: Vec<String> = (0..12).map(|number| format!("student-{number}")).collect();
    let sessions = Sessions::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    // What two runs would make differs.
    let text = "sleep 0.5; cat /proc/sys/kernel/random/uuid > /tmp/f; cat /tmp/f";
    let running: Vec<_> = names.iter().map(|name| sessions.shell(name, text).spawn()).collect();
    let outputs: Vec<String> = running.into_iter().map(|running| running.finish().stdout()).collect();
    assert!(outputs.iter().all(|output| *output == outputs[0] && output.len() > 30), "{outputs:?}");
    let acts: Vec<String> = names.iter().map(|name| sessions.acts(name)[1].clone()).collect();
    assert_eq!(acts.iter().filter(|act| *act == "run").count(), 1, "{acts:?}");
    assert_eq!(acts.iter().filter(|act| *act == "hit").count(), 11, "{acts:?}");
    assert_eq!(shelf(&sessions, "layers").len(), 2);
    assert_sound(&sessions);
}

#[test]
fn commands_of_one_session_wait_for_each_other() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let running: Vec<_> = (0..6).map(|_| sessions.shell("ada", "echo x >> /tmp/f").spawn()).collect();
    running.into_iter().for_each(|running| drop(running.finish().assert_code(0)));
    sessions.shell("ada", "wc -l < /tmp/f").ok().assert_stdout("6");
}

#[test]
fn when_a_runner_dies_another_takes_over() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let text = "echo begun; sleep 2; echo x > /tmp/f; echo done";
    let first = sessions.shell("ada", text).spawn();
    support::eventually("the command to begin", || first.stdout().contains("begun").then_some(()));
    let second = sessions.shell("bob", text).spawn();
    first.signal(rustix::process::Signal::KILL);
    second.finish().assert_code(0).assert_stdout("begun\ndone");
    assert_eq!(sessions.acts("ada"), ["new"]);
    assert_eq!(sessions.acts("bob"), ["new", "run"]);
    // What the dead left goes when somebody runs something next.
    sessions.shell("ada", "echo other").ok();
    let left = std::fs::read_dir(sessions.path().join("run")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "containers are left");
    assert_sound(&sessions);
}

/// A student digs as deep as a loop does. It must not keep others, or deja itself, from clearing up.
#[test]
fn a_tree_too_deep_to_keep_is_refused_and_nothing_is_left_of_it() {
    requires!(bed, overlay, tool "prlimit");
    let sessions = Sessions::new(&["ada", "bob"]);
    let dig = "cd /srv; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 3; i=$((i+1)); done; echo dug";
    let few = ["prlimit", "--nofile=1024:1024"];
    sessions.shell("ada", dig).wrapped_in(few).output().assert_code(255).assert_says("more than 200 deep");
    assert_eq!(sessions.acts("ada"), ["new"]);
    assert_eq!(shelf(&sessions, "drafts"), [] as [PathBuf; 0]);
    sessions.shell("bob", "mkdir -p /srv/a/b/c/d && echo up > /srv/a/b/c/d/file").wrapped_in(few).ok();
    sessions.verb("gc").wrapped_in(few).ok();
    assert_sound(&sessions);
}

/// Zeros that are nowhere cost nothing, and a file of them alone nobody has to read.
#[test]
fn a_hole_of_half_a_terabyte_takes_no_time_and_one_too_long_is_refused() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let text = "truncate -s 500G /srv/hole; echo end >> /srv/hole; truncate -s 5M /srv/short";
    for (name, act) in [("ada", "run"), ("bob", "hit")] {
        sessions.shell(name, text).ok();
        assert_eq!(sessions.acts(name)[1], act);
    }
    // Written or not, zeros are zeros.
    sessions
        .shell(
            "ada",
            "dd if=/dev/zero of=/srv/short bs=1M count=5; dd if=/srv/hole bs=1M count=1 skip=512000",
        )
        .ok();
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
    sessions.verb("ls").args(["ada", "/srv"]).ok().assert_stdout_contains("536870912004");
    assert_sound(&sessions);
    let much = "truncate -s 2000G /srv/much";
    sessions.shell("ada", much).output().assert_code(255).assert_says("no session keeps files longer than");
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
}

#[test]
fn killed_at_any_point_the_store_is_whole_and_the_command_can_run_again() {
    requires!(bed, overlay, debug);
    let sessions = Sessions::new(&[]);
    let mut survived = false;
    // Each has three commands to run; where that is slow, not every point is tried.
    let stride = if support::is_slow() { 12 } else { 1 };
    for point in (1..300).step_by(stride) {
        let name = format!("at-{point}");
        sessions.begin(&name);
        // Each point gets a command of its own, with a layer of several directories.
        let text = format!("mkdir -p /srv/a/b; echo {point} > /srv/a/b/f; rm -f /etc/profile; cd /srv");
        let killed = sessions.shell(&name, &text).trial(&format!("kill:{point}")).output();
        survived = killed.code() == Some(0);
        sessions.shell(&name, &text).ok();
        sessions.exec(&name, &["cat", "a/b/f"]).ok().assert_stdout(&point.to_string());
        if survived {
            break;
        }
    }
    assert!(survived, "there are more points than were tried");
    assert_sound(&sessions);
}

#[test]
fn a_full_disk_loses_nothing_and_keeps_nothing_half() {
    requires!(bed, overlay, debug);
    let sessions = Sessions::new(&["ada"]);
    let before = sessions.state("ada");
    let mut done = false;
    let stride = if support::is_slow() { 15 } else { 3 };
    for point in (1..300).step_by(stride) {
        let text = "mkdir -p /srv/a/b; echo x > /srv/a/b/f";
        let full = sessions.shell("ada", text).trial(&format!("full:{point}")).output();
        done = full.code() == Some(0);
        if done {
            break;
        }
        assert_eq!(sessions.state("ada"), before, "{full}");
    }
    assert!(done, "there are more points than were tried");
    sessions.exec("ada", &["cat", "/srv/a/b/f"]).ok().assert_stdout("x");
    assert_sound(&sessions);
}

#[test]
fn what_is_damaged_is_run_again() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    for round in 0..3 {
        let text = format!("echo {round} > /tmp/f; echo said {round}");
        sessions.shell("ada", &text).ok();
        let newest = shelf(&sessions, "transitions").into_iter().max_by_key(|path| {
            std::fs::metadata(path).and_then(|metadata| metadata.modified()).expect("a time")
        });
        let path = newest.expect("a transition");
        let mut bytes = std::fs::read(&path).expect("the transition");
        match round {
            0 => bytes.truncate(bytes.len() / 2),
            1 => *bytes.last_mut().expect("a byte") ^= 1,
            _ => bytes.clear(),
        }
        std::fs::write(&path, bytes).expect("damage it");
        sessions.verb("undo").arg("ada").ok();
        let again = sessions.shell("ada", &text).ok().assert_stdout(&format!("said {round}"));
        assert_eq!(sessions.acts("ada").last().map(String::as_str), Some("run"), "{again}");
        sessions.verb("undo").arg("ada").ok();
        sessions.shell("ada", &text).ok();
        assert_eq!(sessions.acts("ada").last().map(String::as_str), Some("hit"));
    }
    assert_sound(&sessions);
}

#[test]
fn verify_removes_what_is_damaged_and_says_who_stands_on_it() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.shell("ada", "echo precious > /tmp/f").ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok();
    let layer = shelf(&sessions, "layers").into_iter().map(|path| path.join("tree/tmp/f"));
    let file = layer.into_iter().find(|path| path.exists()).expect("the file in its layer");
    std::fs::write(&file, "Precious\n").expect("damage it");
    sessions.verb("cat").args(["ada", "/tmp/f"]).fails().assert_says("is damaged in the store");
    sessions.verb("verify").fails().assert_says("session \"ada\" stands at a state that is gone");
    sessions.verb("undo").args(["ada", "2"]).ok();
    sessions.shell("ada", "echo precious > /tmp/f").ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok().assert_stdout("precious");
    assert_eq!(sessions.acts("ada").iter().rev().take(2).collect::<Vec<_>>(), ["run", "run"]);
    assert_sound(&sessions);
}

#[test]
fn a_long_history_is_flattened_and_shows_the_same() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let make =
        "mkdir -p /srv/d; echo first > /srv/d/a; ln /srv/d/a /srv/d/b; echo x > /srv/gone; rm /etc/profile";
    sessions.shell("ada", make).ok();
    sessions
        .shell("ada", "rm -r /srv/d /srv/gone; mkdir /srv/d; echo second > /srv/d/c; ln -s c /srv/d/l")
        .ok();
    // As many as a chain may have, and a few more; a slow machine takes just enough.
    let count = if support::is_slow() { 31 } else { 34 };
    for number in 0..count {
        sessions.exec("ada", &["mkdir", &format!("/srv/made-{number}")]).ok();
    }
    let state = std::fs::read_to_string(sessions.store().join("states").join(sessions.state("ada"))).unwrap();
    let json = state.split_once('\n').expect("a header").1;
    let state: serde_json::Value = serde_json::from_str(json).expect("a state");
    let depth = state["layers"].as_array().expect("layers").len();
    assert!(depth < 10, "{depth} layers");
    let all = format!("c\nl\n{}", count + 1);
    sessions.shell("ada", "ls /srv/d; ls /srv | wc -l").ok().assert_stdout(&all);
    sessions.verb("cat").args(["ada", "/srv/d/c"]).ok().assert_stdout("second");
    sessions.verb("ls").args(["ada", "/etc/profile"]).fails().assert_says("there is no");
    assert_sound(&sessions);
}

#[test]
fn copies_of_deja_that_are_no_longer_used_go() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let copies = ["init-0123456789ab", "init-ba9876543210"].map(|name| sessions.store().join(name));
    copies.iter().for_each(|path| std::fs::write(path, "deja").expect("a copy"));
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let old = std::fs::File::options().write(true).open(&copies[0]).expect("the old copy");
    old.set_modified(past).expect("an old time");
    sessions.shell("ada", "true").ok();
    // The other may be in use by somebody who has just made it.
    assert_eq!(copies.map(|path| path.exists()), [false, true]);
}

#[test]
fn a_collection_keeps_what_sessions_stand_on_and_drops_what_saves_least() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.shell("ada", "head -c 3000000 /dev/zero | tr '\\0' x > /srv/large; echo ada").ok();
    sessions.shell("bob", "sleep 0.3; echo slow > /srv/small").ok();
    // Nothing may go as long as both stand where they do.
    sessions.verb("gc").ok();
    let all = shelf(&sessions, "layers").len();
    assert_eq!(all, 3);
    sessions.verb("close").arg("ada").ok();
    sessions.verb("close").arg("bob").ok();
    sessions.begin("eve");
    let size = |stats: serde_json::Value| stats["bytes"].as_u64().expect("bytes");
    let before = size(sessions.verb("stats").arg("--json").ok().json());
    let limit = (before - 2_000_000).to_string();
    sessions.verb("gc").args(["--limit", &limit]).ok();
    assert!(size(sessions.verb("stats").arg("--json").ok().json()) <= before - 2_000_000);
    sessions.shell("eve", "sleep 0.3; echo slow > /srv/small").ok();
    assert_eq!(sessions.acts("eve"), ["new", "hit"]);
    sessions.verb("undo").arg("eve").ok();
    sessions.shell("eve", "head -c 3000000 /dev/zero | tr '\\0' x > /srv/large; echo ada").ok();
    assert_eq!(sessions.acts("eve").last().map(String::as_str), Some("run"));
    sessions.verb("gc").args(["--limit", "1k"]).fails().assert_says("session close");
    assert_sound(&sessions);
}
