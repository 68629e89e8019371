//! The store of sessions when the power goes, the disk is full, or hundreds want the same: nothing that was said to be
//! done is lost, nothing that is there is half, and no command runs twice.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{Disk, Sessions, requires};

/// Nothing is damaged or incomplete, and no session stands at a state that is gone.
#[track_caller]
fn assert_whole(sessions: &Sessions, when: &str) {
    let verified = sessions.verb("verify").arg("--json").output();
    assert_eq!(verified.code(), Some(0), "{when}: {verified}");
    let verified = verified.json();
    assert_eq!(verified["removed"], serde_json::json!([]), "{when}");
    assert_eq!(verified["stranded"], serde_json::json!([]), "{when}");
}

/// Does `act` on a disk, kills it at the points of `points` and takes the power away in that moment, with everything that was
/// not yet put on the disk. `look` sees what is found then, and whether the act had said that it was done.
fn without_power(
    points: impl Iterator<Item = usize>,
    prepare: impl Fn(&Sessions),
    act: impl Fn(&Sessions) -> support::Deja,
    look: impl Fn(&Sessions, bool, &str),
) {
    let place = tempfile::tempdir().expect("a directory");
    let disk = Disk::new(place.path());
    prepare(&Sessions::at(disk.shown().join("store")));
    assert!(std::process::Command::new("sync").status().expect("sync").success());
    let mut done = false;
    for point in points {
        let (before, after) = (place.path().join("before"), place.path().join("after"));
        let used = disk.without_power(&before);
        let sessions = Sessions::at(used.shown().join("store"));
        let killed = act(&sessions).trial(&format!("kill:{point}")).output();
        done = killed.code() == Some(0);
        let found = used.without_power(&after);
        // With the power on, what the killed one has left goes when somebody makes room.
        sessions.verb("gc").output();
        look(&Sessions::at(found.shown().join("store")), done, &format!("point {point}, {killed}"));
        if done {
            break;
        }
    }
    assert!(done, "there are more points than were tried");
}

/// Some of the points, fewer where everything is slow.
fn points(stride: usize) -> impl Iterator<Item = usize> {
    (1..1000).step_by(if support::is_slow() { 10 * stride } else { stride })
}

const TEXT: &str = "mkdir -p /srv/a/b; head -c 100000 /dev/zero | tr '\\0' x > /srv/a/b/f; rm /etc/profile; cd /srv; echo said";

#[test]
fn a_power_cut_at_any_point_of_a_command_loses_nothing_that_was_done() {
    requires!(bed, overlay, debug);
    let look = |sessions: &Sessions, done: bool, when: &str| {
        assert_whole(sessions, when);
        let acts = sessions.acts("ada");
        assert!(acts == ["new", "run"] || !done && acts == ["new"], "{when}: {acts:?}");
        // Whatever was published is all there, and what was not can run again.
        sessions.verb("new").arg("--rootfs").arg(support::rootfs()).arg("bob").ok();
        sessions.shell("bob", TEXT).ok().assert_stdout("said");
        assert!(!done || sessions.acts("bob") == ["new", "hit"], "{when}");
        sessions.verb("cat").args(["bob", "/srv/a/b/f"]).ok().assert_stdout(&"x".repeat(100_000));
    };
    without_power(
        points(5),
        |sessions| drop(sessions.begin("ada")),
        |sessions| sessions.shell("ada", TEXT),
        look,
    );
}

#[test]
fn a_power_cut_while_a_session_begins_leaves_a_store_or_none() {
    requires!(bed, overlay, debug);
    begins_without_power(&support::rootfs());
}

/// So many directories are put on the disk together.
#[test]
fn a_power_cut_while_a_large_tree_is_imported_leaves_a_store_or_none() {
    requires!(bed, overlay, debug);
    let place = tempfile::tempdir().expect("a directory");
    let tree = place.path().join("tree");
    for number in 0..100 {
        let directory = tree.join(format!("srv/{number}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join(format!("file-{number}")), "x").expect("a file");
    }
    begins_without_power(&tree);
}

#[track_caller]
fn begins_without_power(tree: &Path) {
    let look = |sessions: &Sessions, done: bool, when: &str| {
        sessions.begin("eve");
        assert_whole(sessions, when);
        let list = sessions.verb("list").arg("--json").ok().json();
        let names: Vec<_> =
            list.as_array().expect("a list").iter().map(|one| one["session"].clone()).collect();
        assert!(names == ["ada", "eve"] || !done && names == ["eve"], "{when}: {names:?}");
    };
    let begin = |sessions: &Sessions| sessions.verb("new").arg("--rootfs").arg(tree).arg("ada");
    without_power(points(9), |_| (), begin, look);
}

/// A session that could go on with hits, and much that nobody needs.
fn used(sessions: &Sessions) {
    sessions.begin("ada");
    sessions.shell("ada", "echo 1 > /srv/one").ok();
    sessions.shell("ada", "head -c 500000 /dev/urandom > /srv/two").ok();
    sessions.verb("undo").args(["ada", "2"]).ok();
    sessions.verb("branch").args(["ada", "eve"]).ok();
    sessions.verb("close").arg("ada").ok();
}

#[test]
fn a_power_cut_while_a_backup_is_restored_leaves_the_store_whole() {
    requires!(bed, overlay, debug);
    let place = tempfile::tempdir().expect("a directory");
    let backup = place.path().join("backup");
    let other = Sessions::new(&["bob"]);
    other.shell("bob", "echo bob > /srv/bob; rm -r /mnt").ok();
    other.verb("backup").arg(&backup).ok();
    let restore = |sessions: &Sessions| sessions.verb("restore").arg(&backup);
    without_power(points(12), used, restore, |sessions, done, when| {
        assert_whole(sessions, when);
        sessions.shell("eve", "cat /srv/one").fails();
        let bob = sessions.verb("cat").args(["bob", "/srv/bob"]).output();
        assert!(!done || bob.stdout() == "bob\n", "{when}: {bob}");
    });
}

#[test]
fn a_power_cut_while_room_is_made_leaves_the_store_whole() {
    requires!(bed, overlay, debug);
    let collect = |sessions: &Sessions| sessions.verb("gc");
    without_power(points(2), used, collect, |sessions, _, when| {
        assert_whole(sessions, when);
        sessions.shell("eve", "echo 1 > /srv/one; ls /srv").ok().assert_stdout("one");
    });
}

#[test]
fn on_a_disk_that_is_really_full_a_command_is_not_kept_and_with_room_it_is() {
    requires!(bed, overlay);
    let place = tempfile::tempdir().expect("a directory");
    let disk = Disk::in_memory(place.path(), 64 << 10);
    let sessions = Sessions::at(disk.shown().join("store"));
    sessions.begin("ada");
    sessions.shell("ada", "true").ok();
    let before = sessions.state("ada");
    let stats = sessions.verb("stats").arg("--json").ok().json();
    let used = stats["bytes"].as_u64().expect("bytes") >> 10;
    let text = "head -c 3000000 /dev/zero | tr '\\0' x > /srv/large && echo written";
    let rooms: &[u64] =
        if support::is_slow() { &[100, 3000] } else { &[0, 40, 100, 500, 1500, 2900, 3000, 3500] };
    for room in rooms {
        disk.resize(used + room);
        let full = sessions.shell("ada", text).output();
        assert_ne!(full.code(), Some(0), "{room} KiB: {full}");
        assert_eq!(sessions.state("ada"), before, "{room} KiB: {full}");
        assert_eq!(sessions.acts("ada").len(), 2, "{room} KiB: {full}");
    }
    disk.resize(64 << 10);
    sessions.shell("ada", text).ok().assert_stdout("written");
    assert_eq!(sessions.acts("ada"), ["new", "run", "run"]);
    assert_whole(&sessions, "with room");
    assert_eq!(drafts(&sessions.store()), 0);
}

fn drafts(store: &Path) -> usize {
    std::fs::read_dir(store.join("drafts")).expect("a shelf").count()
}

#[test]
fn hundreds_that_want_a_few_commands_at_once_run_each_of_them_once() {
    requires!(bed, overlay);
    let (clients, keys) = if support::is_slow() { (16, 2) } else { (240, 4) };
    let sessions = Sessions::new(&["first"]);
    for client in 0..clients {
        sessions.verb("branch").args(["first", &format!("client-{client}")]).ok();
    }
    // What two runs would say differs.
    let text =
        |key: usize| format!("sleep 0.3; echo {key}; cat /proc/sys/kernel/random/uuid | tee /srv/made");
    let running: Vec<_> = (0..clients)
        .map(|client| sessions.shell(&format!("client-{client}"), &text(client % keys)).spawn())
        .collect();
    let said: Vec<String> =
        running.into_iter().map(|client| client.finish().assert_code(0).stdout()).collect();
    let mut runs = BTreeMap::new();
    for client in 0..clients {
        assert_eq!(said[client], said[client % keys], "client {client}");
        let act = sessions.acts(&format!("client-{client}")).pop().expect("an act");
        *runs.entry((client % keys, act)).or_insert(0) += 1;
    }
    for key in 0..keys {
        assert_eq!(runs.get(&(key, "run".to_owned())), Some(&1), "{runs:?}");
        assert_eq!(runs.get(&(key, "hit".to_owned())), Some(&(clients / keys - 1)), "{runs:?}");
    }
    assert_whole(&sessions, "after all");
}

#[test]
fn runners_that_are_killed_one_after_the_other_are_followed_by_others_and_one_result_stays() {
    requires!(bed, overlay);
    let clients = if support::is_slow() { 6 } else { 40 };
    let sessions = Sessions::new(&["first"]);
    for client in 0..clients {
        sessions.verb("branch").args(["first", &format!("client-{client}")]).ok();
    }
    let text = "echo begun; cat /proc/sys/kernel/random/uuid > /srv/made; sleep 1; cat /srv/made";
    let mut running: Vec<_> =
        (0..clients).map(|client| sessions.shell(&format!("client-{client}"), text).spawn()).collect();
    for _ in 0..clients / 3 {
        // Only whoever runs it has said anything before its end.
        let runner = support::eventually("a runner", || {
            running.iter().position(|client| client.stdout().contains("begun"))
        });
        let runner = running.swap_remove(runner);
        runner.signal(rustix::process::Signal::KILL);
        drop(runner);
    }
    let said: Vec<String> =
        running.into_iter().map(|client| client.finish().assert_code(0).stdout()).collect();
    assert!(said.iter().all(|text| *text == said[0]), "{said:?}");
    let acts: Vec<String> =
        (0..clients).flat_map(|client| sessions.acts(&format!("client-{client}"))).collect();
    assert!(acts.iter().filter(|act| *act == "run").count() <= 1, "{acts:?}");
    assert_whole(&sessions, "after all");
}
