//! Sessions of somebody who is not root: a store of their own in which everything works, states that are those of root's,
//! and what there is without ids of others, or without user namespaces.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use support::changes::{Random, changes};
use support::{Deja, Finished, Sessions, World, eventually, requires, rootfs};

/// Becomes somebody with lists of ids of their own; what stands in the first word goes before it.
const BECOME: &str = r#"
for list in passwd group subuid subgid; do mount --bind "$1/$list" "/etc/$list" || exit 99; done
shift
eval "$0"
exec setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all "$@"
"#;

/// What a user has whom the machine gives no ids of others.
const ALONE: &str = "";
const RANGE: &str = "person:300000:65536\n";

/// A user with a store.
struct Person {
    sessions: Sessions,
    /// What root does just before.
    before: String,
}

impl Person {
    #[track_caller]
    fn new(range: &str) -> Self {
        let sessions = Sessions::empty();
        let at = sessions.path();
        let write = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("a list");
        for (name, line) in
            [("passwd", "person:x:1000:1000::/home/person:/bin/sh\n"), ("group", "person:x:1000:\n")]
        {
            let list = std::fs::read_to_string(format!("/etc/{name}")).expect("a list of names");
            let others = list.lines().filter(|line| !line.contains(":1000:"));
            write(name, &others.map(|line| format!("{line}\n")).chain([line.to_owned()]).collect::<String>());
        }
        write("subuid", range);
        write("subgid", range);
        std::fs::set_permissions(at, PermissionsExt::from_mode(0o755)).expect("open a directory");
        chown(at, Some(1000), Some(1000)).expect("give a directory away");
        Self { sessions, before: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sessions.path().join(name)
    }

    /// As the user, `under` another program.
    fn under(&self, under: &[&str], deja: Deja) -> Deja {
        let words = ["unshare", "--mount", "sh", "-c", BECOME, &self.before];
        let own = self.sessions.path().to_str().expect("a path");
        deja.wrapped_in(words.into_iter().chain([own]).chain(under.iter().copied()))
    }

    fn verb(&self, verb: &str) -> Deja {
        self.under(&[], self.sessions.verb(verb))
    }

    fn shell(&self, name: &str, text: &str) -> Deja {
        self.under(&[], self.sessions.shell(name, text))
    }

    #[track_caller]
    fn begin(&self, image: &Path, names: &[&str]) {
        for name in names {
            self.verb("new").arg("--image").arg(image).arg(name).ok();
        }
    }

    /// Of the own store root can read what is no layer.
    #[track_caller]
    fn acts(&self, name: &str) -> Vec<String> {
        self.sessions.acts(name)
    }

    #[track_caller]
    fn last_act(&self, name: &str) -> String {
        self.acts(name).pop().expect("a step")
    }

    #[track_caller]
    fn state(&self, name: &str) -> String {
        self.sessions.state(name)
    }
}

/// The small root file system with what an image can hold beside plain files, as an archive anybody can read.
#[track_caller]
fn image(at: &Path) -> PathBuf {
    let (tree, tar) = (at.join("tree"), at.join("image.tar"));
    let copy = |from: &Path, to: &Path| Deja::other("cp").arg("-a").arg(from).arg(to).ok();
    copy(&rootfs(), &tree);
    let odd = tree.join("z");
    std::fs::create_dir_all(odd.join("d/e")).expect("a directory");
    for name in ["x", "h1", "gone", "able", "d/a", "d/e/b"] {
        std::fs::write(odd.join(name), name).expect("a file");
    }
    std::fs::hard_link(odd.join("h1"), odd.join("h2")).expect("a link");
    let set = |name: &str, attribute: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(odd.join(name), attribute, value, flags).expect("an attribute");
    };
    set("x", "user.note", b"kept");
    set("x", "user.overlay.note", b"a program's own");
    set("d", "user.directory", b"1");
    // cap_net_raw, permitted and effective, as `setcap` writes it.
    set("able", "security.capability", &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    chown(odd.join("x"), Some(7), Some(42)).expect("an owner");
    let attributes = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"];
    Deja::other("tar").args(attributes).arg(&tree).arg("-cf").arg(&tar).arg(".").ok();
    std::fs::set_permissions(&tar, PermissionsExt::from_mode(0o644)).expect("open the archive");
    tar
}

/// A user, a store of root's, and the image both begin with.
#[track_caller]
fn beside_root(range: &str) -> (Person, Sessions, PathBuf) {
    let (person, root) = (Person::new(range), Sessions::empty());
    let tar = image(root.path());
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).expect("open a directory");
    (person, root, tar)
}

/// Commands after which every kind of file has been made, changed, hidden and made anew.
const LIFE: [&str; 12] = [
    "cd /z; echo 1 > a; ln a b; ln -s a c; mkfifo p; mkdir -m 1777 t; umask 027; export SAID=yes",
    "chown 7:8 a; chown -h 9:9 c; chown 1234:65000 t; chmod 4711 b; cp -p b t/set",
    "rm gone h1; rm -rf d; mkdir d; echo new > d/a",
    "rm -rf d; mkdir -p d/e; echo \"$SAID\" > d/e/b; umask",
    "echo more >> x; mv able enabled",
    "mv t u; rm -f p; mkdir p; echo deep > p/f",
    "rm -rf p; id -u; id -g; cat /proc/self/setgroups",
    "echo hidden > u/.wh; truncate -s 500000 u/hole; echo end >> u/hole",
    "touch nothing; rm nothing",
    "rm -rf u; ln h2 h3; echo x > 'two words'",
    "hostname; pwd; ls /dev",
    "exit 7",
];

#[track_caller]
fn both(person: &Person, root: &Sessions, name: &str, text: &str) -> Finished {
    let (theirs, ours) = (person.shell(name, text).output(), root.shell(name, text).output());
    let told = |finished: &Finished| (finished.code(), finished.stdout());
    assert_eq!(told(&theirs), told(&ours), "{text}: {}", theirs.stderr());
    assert_eq!(person.state(name), root.state(name), "{text}");
    theirs
}

#[test]
fn a_user_s_states_are_those_of_root_and_go_to_and_fro_with_hits() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, root, tar) = beside_root(RANGE);
    root.verb("new").arg("--image").arg(&tar).arg("ada").ok();
    person.begin(&tar, &["ada", "bob"]);
    assert_eq!(person.state("ada"), root.state("ada"));
    for text in LIFE {
        both(&person, &root, "ada", text);
    }
    assert_eq!(both(&person, &root, "ada", "exit 7").code(), Some(7));
    for text in LIFE {
        person.shell("bob", text).output();
    }
    assert_eq!(person.state("bob"), person.state("ada"));
    assert!(person.acts("bob").iter().skip(1).all(|act| act == "hit"));
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
    // Each gets the other's backup and goes on with hits.
    for text in ["echo theirs > /z/theirs", "chown 5:5 /z/theirs"] {
        person.shell("ada", text).ok();
    }
    let (there, back) = (person.path("there"), root.path().join("back"));
    person.verb("backup").arg(&there).arg("ada").ok();
    let other = Sessions::empty();
    other.verb("restore").arg(&there).ok();
    other.verb("verify").ok().assert_stdout_contains(", 0 removed");
    other.verb("undo").args(["ada", "2"]).ok();
    for text in ["echo theirs > /z/theirs", "chown 5:5 /z/theirs"] {
        other.shell("ada", text).ok();
    }
    assert_eq!(other.acts("ada").last().map(String::as_str), Some("hit"));
    other.shell("ada", "stat -c %u /z/theirs; cat /z/theirs").ok().assert_stdout("5\ntheirs");
    root.shell("ada", "echo ours > /z/ours").ok();
    root.verb("backup").arg(&back).arg("ada").ok();
    std::fs::set_permissions(&back, PermissionsExt::from_mode(0o644)).expect("open the backup");
    let third = Person::new(RANGE);
    third.verb("restore").arg(&back).ok();
    third.verb("verify").ok().assert_stdout_contains(", 0 removed");
    third.verb("undo").arg("ada").ok();
    third.shell("ada", "echo ours > /z/ours").ok();
    assert_eq!(third.last_act("ada"), "hit");
    both(&third, &root, "ada", "cat /z/ours; stat -c %u:%g /z/a; rm -rf /z/d");
    assert_eq!(third.last_act("ada"), "run");
}

#[test]
fn every_verb_works_in_a_user_s_own_store() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, root, tar) = beside_root(RANGE);
    person.begin(&tar, &["ada"]);
    person
        .shell("ada", "umask 077; echo secret > /srv/f; chown 7:7 /srv/f; mkdir /srv/d; chmod 0 /srv/d")
        .ok();
    person.verb("cat").args(["ada", "/srv/f"]).ok().assert_stdout("secret");
    person.verb("ls").args(["ada", "/srv"]).ok().assert_stdout_contains("0600");
    let source = person.path("source");
    std::fs::write(&source, "put\n").expect("a file");
    person.verb("put").arg("ada").arg(&source).arg("/srv").ok();
    let edit = |line: &str| person.verb("edit").env("EDITOR", line).args(["ada", "/srv/f"]);
    // The editor is started by whoever the user is outside.
    edit("test $(id -u) = 1000 && echo edited >>").ok();
    person.verb("cat").args(["ada", "/srv/f"]).ok().assert_stdout("secret\nedited");
    person.shell("ada", "stat -c %u:%a /srv/f; cat /srv/source").ok().assert_stdout("7:600\nput");
    person.verb("diff").args(["ada", "ada"]).ok();
    person.verb("branch").args(["ada", "eve"]).ok();
    person.shell("eve", "true").ok();
    person.verb("undo").args(["eve", "1"]).ok();
    // An image is root's, too; a tree is the same state again.
    let archive = person.path("archive");
    person.verb("export").args(["--format", "archive", "ada"]).arg(&archive).ok();
    root.verb("new").arg("--image").arg(&archive).arg("ada").ok();
    assert_eq!(root.state("ada"), person.state("ada"));
    person.verb("export").arg("ada").arg(person.path("plain")).ok();
    assert_eq!(std::fs::metadata(person.path("plain/srv/f")).expect("a file").uid(), 300_006);
    // A bundle runs without the store.
    let bundle = person.path("bundle");
    person.verb("export").args(["--format", "bundle", "ada"]).arg(&bundle).ok();
    let run = support::deja(&person.path("containers")).args(["run", "--bundle"]).arg(&bundle).arg("taken");
    let run = person.under(&[], run.stdin("stat -c %u:%a /srv/f; cat /srv/source; exit 4\n"));
    assert_eq!(run.output().assert_code(4).stdout(), "7:600\nput\n");
    // A live session, and one who joins it.
    person.verb("exec").args(["--keep-background", "ada", "-c", "sleep 1000 & echo begun"]).ok();
    assert_eq!(person.last_act("ada"), "live");
    person.shell("ada", "echo joined > /tmp/j; ps -o args").ok().assert_stdout_contains("sleep 1000");
    person.verb("exec").args(["--user", "7:7", "ada", "--", "id", "-u"]).ok().assert_stdout("7");
    person.verb("settle").arg("ada").ok();
    person.shell("ada", "cat /tmp/j").ok().assert_stdout("joined");
    // Ended from outside, and by somebody else than root inside.
    let slow = ["--timeout", "1s", "--user", "7", "ada", "--", "sleep", "1000"];
    person.verb("exec").args(slow).output().assert_code(124);
    person.verb("exec").args(["--network", "ada", "--", "cat", "/proc/self/uid_map"]).ok();
    person.verb("stats").ok();
    person.verb("close").arg("eve").ok();
    person.verb("gc").ok();
    person.verb("gc").args(["--limit", "1"]).fails();
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
    person.verb("explain").args(["ada", "-c", "cat /tmp/j"]).ok();
    // Commands have no cgroup of their own here, so only their time can be bounded.
    person.verb("policy").args(["--pids", "50"]).ok();
    person.shell("ada", "echo bounded").fails().assert_says("session policy --memory none");
    person.verb("policy").args(["--pids", "none", "--time", "500ms"]).ok();
    person.shell("ada", "sleep 60").output().assert_code(124);
    // Nobody else works on these layers, and root neither.
    Sessions::at(person.sessions.store()).verb("verify").fails().assert_says("belongs to");
}

/// What root's states are is compared with a plain directory in tests/session_model.rs.
#[test]
fn a_random_history_of_a_user_s_leads_where_root_s_does() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, root, tar) = beside_root(RANGE);
    root.verb("new").arg("--image").arg(&tar).arg("ada").ok();
    person.begin(&tar, &["ada"]);
    let mut random = Random(5);
    for _ in 0..if support::is_slow() { 6 } else { 16 } {
        let text = changes(&mut random);
        both(&person, &root, "ada", &format!("cd /; umask 022; {text}"));
    }
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
}

#[test]
fn a_long_history_is_flattened_with_the_links_it_has() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, root, tar) = beside_root(RANGE);
    root.verb("new").arg("--image").arg(&tar).arg("ada").ok();
    person.begin(&tar, &["ada"]);
    let steps = if support::is_slow() { 3 } else { 38 };
    for step in 0..steps {
        let text = match step % 4 {
            0 => format!("cd /z; echo {step} > l{step}; ln l{step} m{step}"),
            1 => format!("rm -rf d; mkdir d; echo {step} > d/new"),
            2 => format!("chown {step}:{step} x; echo {step} > n"),
            _ => format!("rm -rf n; mkdir d/k{step}"),
        };
        both(&person, &root, "ada", &text);
    }
    let flattened = |store: PathBuf| {
        let layers = std::fs::read_dir(store.join("layers")).expect("layers");
        layers.flatten().filter(|layer| layer.path().join("flattened").exists()).count()
    };
    assert_eq!(flattened(person.sessions.store()), flattened(root.store()));
    // What nothing can be noted on is no reason to stop.
    person.shell("ada", "ln -s l0 sl; ln sl sm").ok();
    for step in 0..if support::is_slow() { 0 } else { 31 } {
        person.shell("ada", &format!("echo {step} > o")).ok();
    }
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
}

#[test]
fn a_hit_of_a_user_s_makes_no_process_and_no_namespace() {
    requires!(bed, overlay, userns, tool "newuidmap", tool "strace");
    let (person, _root, tar) = beside_root(RANGE);
    person.begin(&tar, &["ada", "bob"]);
    person.shell("ada", "echo hello").ok();
    let trace = person.path("trace");
    let under = ["strace", "-f", "-o", trace.to_str().expect("a path")];
    person.under(&under, person.sessions.shell("bob", "echo hello")).ok().assert_stdout("hello");
    assert_eq!(person.last_act("bob"), "hit");
    let calls = std::fs::read_to_string(&trace).expect("the trace");
    let calls: Vec<&str> = calls.lines().filter(|line| line.contains('(')).collect();
    assert!(calls.len() <= 60, "{} calls", calls.len());
    for call in ["clone", "fork", "unshare", "setns", "mount", "subuid"] {
        assert!(!calls.iter().any(|line| line.contains(call)), "{call}");
    }
}

#[test]
fn a_runner_that_is_killed_leaves_nothing_and_many_run_one_command_once() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, _root, tar) = beside_root(RANGE);
    let names: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    person.begin(&tar, &names.iter().map(String::as_str).collect::<Vec<_>>());
    // One that nobody but its own user namespace's owner may end.
    let words = ["--user", "7:7", "s0", "--", "sleep", "4321"];
    let runner = person.verb("exec").args(words).spawn();
    let sleeping = || {
        let found = Deja::other("pgrep").args(["-f", "^sleep 4321"]).output().stdout();
        found.lines().next().map(str::to_owned)
    };
    eventually("the command", sleeping);
    runner.signal(rustix::process::Signal::KILL);
    runner.finish();
    person.shell("s0", "echo on").ok().assert_stdout("on");
    eventually("the killed command's container to end", || sleeping().is_none().then_some(()));
    assert_eq!(std::fs::read_dir(person.sessions.store().join("drafts")).expect("drafts").count(), 0);
    let text = "sleep 1; date +%N > /srv/when";
    let running: Vec<_> = names[1..].iter().map(|name| person.shell(name, text).spawn()).collect();
    running.into_iter().for_each(|one| drop(one.finish().assert_code(0)));
    let mut acts: Vec<String> = names[1..].iter().map(|name| person.last_act(name)).collect();
    acts.sort();
    assert_eq!(acts, ["hit", "hit", "hit", "hit", "run"]);
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
}

#[test]
fn with_one_id_only_others_are_refused_and_results_stand_apart() {
    requires!(bed, overlay, userns);
    let (person, root, all) = beside_root(ALONE);
    person.verb("new").arg("--image").arg(&all).arg("ada").fails().assert_says("/etc/subuid");
    let tar = root.path().join("plain.tar");
    let tree = root.path().join("tree");
    Deja::other("rm").args(["-r"]).arg(tree.join("z")).ok();
    Deja::other("tar").args(["--owner=0", "--group=0", "-C"]).arg(&tree).arg("-cf").arg(&tar).arg(".").ok();
    person.begin(&tar, &["ada", "bob"]);
    let text = "id -u; echo x > /srv/f; chown 7 /srv/f";
    person.shell("ada", text).output().assert_code(1).assert_stdout("0");
    person.shell("bob", text).output().assert_code(1);
    assert_eq!(person.acts("bob"), ["new", "hit"]);
    person.verb("explain").args(["ada", "-c", "other"]).ok().assert_stdout_contains("miss");
    // To root it is another command; what root ran is whole, and the user's, too.
    let (there, back) = (person.path("there"), root.path().join("back"));
    person.verb("backup").arg(&there).arg("ada").ok();
    root.verb("restore").arg(&there).ok();
    root.verb("undo").arg("ada").ok();
    root.shell("ada", text).ok();
    root.shell("ada", "echo whole").ok();
    assert_eq!(root.acts("ada")[1..], ["run", "undo", "run", "run"]);
    root.verb("undo").args(["ada", "2"]).ok();
    root.shell("ada", "echo whole > /srv/w").ok();
    root.verb("backup").arg(&back).arg("ada").ok();
    std::fs::set_permissions(&back, PermissionsExt::from_mode(0o644)).expect("open the backup");
    let refused = Person::new(ALONE);
    refused.verb("restore").arg(&back).fails().assert_says("/etc/subuid");
    // With a range, the same store holds the rest.
    std::fs::write(person.path("subuid"), RANGE).expect("a list");
    std::fs::write(person.path("subgid"), RANGE).expect("a list");
    person.verb("undo").arg("ada").ok();
    person.shell("ada", text).ok();
    assert_eq!(person.last_act("ada"), "run");
    person.verb("verify").ok().assert_stdout_contains(", 0 removed");
    // And not without again.
    std::fs::write(person.path("subuid"), ALONE).expect("a list");
    person.shell("ada", "echo lost").fails().assert_says("/etc/subuid");
    person.verb("verify").fails().assert_says("/etc/subuid");
}

#[test]
fn where_user_namespaces_are_not_allowed_one_sentence_says_so() {
    requires!(bed, overlay, userns);
    let (mut person, _root, tar) = beside_root(RANGE);
    person.begin(&tar, &["ada", "bob"]);
    person.shell("ada", "echo known").ok();
    // The kernel gives none to whoever has another root directory than its mount namespace.
    std::fs::create_dir(person.path("chroot")).expect("a directory");
    let at = person.path("chroot");
    person.before = format!(
        "mount --rbind / {0}; set -- chroot {0} setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"; exec \"$@\"",
        at.display()
    );
    let refused = person.shell("ada", "echo unknown").fails();
    refused.assert_says("make a user namespace for the session store").assert_says("deja doctor");
    person.shell("bob", "echo known").ok().assert_stdout("known");
    assert_eq!(person.last_act("bob"), "hit");
}

#[test]
fn a_user_s_tree_and_root_s_tree_become_states() {
    requires!(bed, overlay, userns, tool "newuidmap");
    let (person, root, tar) = beside_root(RANGE);
    let tree = root.path().join("tree");
    for path in [root.path(), &tree, &tree.join("root")] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("open a directory");
    }
    // Root's files are root's, whoever takes them.
    for at in [root.verb("new"), person.verb("new")] {
        at.arg("--rootfs").arg(&tree).arg("tree").ok();
    }
    assert_eq!(person.state("tree"), root.state("tree"));
    // What comes out of the own store goes in again.
    person.begin(&tar, &["ada"]);
    person.shell("ada", "chown 7:8 /srv; chmod 755 /root").ok();
    let plain = person.path("plain");
    person.verb("export").arg("ada").arg(&plain).ok();
    person.verb("new").arg("--rootfs").arg(&plain).arg("again").ok();
    let listed = |name: &str| person.verb("ls").args([name, "/"]).ok().stdout();
    assert_eq!(listed("again"), listed("ada"));
    // Devices are root's to make.
    Deja::other("mknod").arg(tree.join("null")).args(["c", "1", "3"]).ok();
    person.verb("new").arg("--rootfs").arg(&tree).arg("device").fails().assert_says("\"null\"");
}

#[test]
fn a_user_needs_no_flag_to_have_sessions() {
    requires!(vm, overlay, userns, tool "newuidmap");
    let world = World::new();
    let person = support::Person::new(&world);
    world.ok(&format!("tar -C {} -cf /run/busy.tar . && chmod 644 /run/busy.tar", rootfs().display()));
    person.ok("deja session new --image /run/busy.tar ada");
    assert_eq!(
        person.ok("deja session exec ada -c 'echo x > /srv/x; chown 7 /srv/x; stat -c %u /srv/x'"),
        "7"
    );
    person.ok("test -d .local/share/deja/sessions/layers");
    assert_eq!(person.ok("unset XDG_RUNTIME_DIR; deja session exec ada -- cat /srv/x"), "x");
    assert_eq!(
        person.ok("XDG_DATA_HOME=/home/person/data deja session new --image /run/busy.tar ada | wc -w"),
        "1"
    );
    person.ok("test -d data/deja/sessions/layers");
    assert_eq!(person.ok("mount -t overlay | grep -c deja || true"), "0");
    assert_eq!(
        person.ok(
            "ls -A /run/user/1000/deja .local/share/deja/sessions/containers | grep -c ^session- || true"
        ),
        "0"
    );
}
