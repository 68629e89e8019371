//! Who may what: a store that lends what was run to others, who never write to it.

mod support;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use support::{Deja, Sessions, requires};

const TEXT: &str = "echo hello > /srv/f; echo said; exit 3";

/// A store where something was run, and the state it was run from.
fn teacher() -> (Sessions, String) {
    let teacher = Sessions::new(&["course"]);
    let base = teacher.state("course");
    teacher.shell("course", TEXT).output().assert_code(3);
    (teacher, base)
}

fn count(store: &Path) -> usize {
    let entries = |shelf: &str| std::fs::read_dir(store.join(shelf)).expect("a shelf").count();
    ["transitions", "states", "nodes", "layers", "sessions"].into_iter().map(entries).sum()
}

#[test]
fn what_a_trusted_store_knows_is_replayed_and_nothing_is_written_to_it() {
    requires!(bed, overlay);
    let (teacher, base) = teacher();
    let before = count(&teacher.store());
    let own = Sessions::empty();
    own.verb("policy").arg("--trust").arg(teacher.store()).ok();
    own.verb("branch").args([&base[..12], "ada"]).ok();
    own.shell("ada", TEXT).output().assert_code(3).assert_stdout("said");
    assert_eq!(own.acts("ada"), ["new", "hit"]);
    own.verb("explain").args(["ada", "-c", "other"]).ok().assert_stdout_contains("miss");
    // What nobody ran runs over layers of the other store, and is known in the own one.
    for act in ["run", "hit"] {
        own.shell("ada", "cat /srv/f; echo more > /srv/g").ok().assert_stdout("hello");
        assert_eq!(own.acts("ada").last().map(String::as_str), Some(act));
        own.verb("gc").ok();
        own.verb("verify").ok();
        own.verb("undo").arg("ada").ok();
    }
    own.shell("ada", "cat /srv/f; echo more > /srv/g").ok();
    own.exec("ada", &["cat", "/srv/g"]).ok().assert_stdout("more");
    assert_eq!(count(&teacher.store()), before);
    // A backup holds what was lent, too.
    let backup = own.path().join("backup");
    own.verb("backup").arg(&backup).arg("ada").ok();
    let third = Sessions::empty();
    third.verb("restore").arg(&backup).ok();
    third.exec("ada", &["cat", "/srv/f"]).ok().assert_stdout("hello");
    // What is disowned here is taken from nobody.
    let wrong = teacher.state("course");
    own.verb("undo").args(["ada", "2"]).ok();
    own.verb("disown").arg(&wrong[..12]).ok();
    own.shell("ada", TEXT).output().assert_code(3);
    assert_eq!(own.acts("ada").last().map(String::as_str), Some("once"));
    own.verb("policy").arg("--distrust").arg(teacher.store()).ok();
    own.exec("ada", &["true"]).fails();
    own.verb("verify").fails().assert_says("session \"ada\" stands at a state that is gone");
    own.verb("policy").arg("--distrust").arg(teacher.store()).fails().assert_says("is not trusted");
    own.verb("policy").arg("--trust").arg(own.path().join("none")).fails().assert_says("find the store");
}

#[test]
fn who_is_not_root_replays_what_others_ran_and_reads_no_layer() {
    requires!(bed, overlay, userns);
    let (teacher, base) = teacher();
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("open");
    open(teacher.path());
    let own = Sessions::empty();
    open(own.path());
    chown(own.path(), Some(1000), Some(1000)).expect("give the directory away");
    let person = |deja: Deja| deja.user(1000, 1000);
    let trust = || person(own.verb("policy")).args(["--json", "--trust"]).arg(teacher.store());
    trust().fails().assert_says("ermission denied");
    teacher.verb("policy").args(["--readable", "yes"]).ok().assert_stdout_contains("readable yes");
    trust().ok();
    person(own.verb("branch")).args([&base[..12], "ada"]).ok();
    person(own.shell("ada", TEXT)).output().assert_code(3).assert_stdout("said");
    assert_eq!(own.acts("ada"), ["new", "hit"]);
    person(own.verb("ls")).args(["ada", "/srv"]).ok().assert_stdout_contains("f");
    // The files a command would run on are the owner's alone.
    person(own.shell("ada", "echo new")).fails().assert_says("which somebody else owns");
    assert_eq!(own.acts("ada"), ["new", "hit"]);
    // What only the owner may do: read files, begin sessions, publish.
    person(own.verb("cat")).args(["ada", "/srv/f"]).fails().assert_says("which somebody else owns");
    person(teacher.shell("course", "true")).fails().assert_says("ermission denied");
    person(teacher.verb("branch")).args(["course", "mine"]).fails().assert_says("ermission denied");
    person(teacher.verb("gc")).fails().assert_says("ermission denied");
    // What is run later can be read, too.
    teacher.verb("undo").arg("course").ok();
    teacher.shell("course", "echo later").ok();
    person(own.verb("undo")).arg("ada").ok();
    person(own.shell("ada", "echo later")).ok().assert_stdout("later");
    teacher.verb("policy").args(["--readable", "no"]).ok();
    person(own.shell("ada", TEXT)).fails();
}
