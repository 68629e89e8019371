//! Moving, looking at and explaining sessions; nothing of it runs anything.

mod support;

use support::{Sessions, requires};

#[test]
fn undo_goes_back_step_by_step_and_again_is_a_hit() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let begin = sessions.state("ada");
    for number in ["1", "2", "3"] {
        sessions.shell("ada", &format!("echo {number} >> /tmp/f")).ok();
    }
    let end = sessions.state("ada");
    sessions.verb("undo").arg("ada").ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok().assert_stdout("1\n2");
    // The look at the file was a step, too.
    sessions.verb("undo").args(["ada", "2"]).ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok().assert_stdout("1");
    sessions.verb("undo").args(["ada", "2"]).ok();
    assert_eq!(sessions.state("ada"), begin);
    sessions.verb("undo").arg("ada").fails().assert_says("at its beginning");
    for number in ["1", "2", "3"] {
        sessions.shell("ada", &format!("echo {number} >> /tmp/f")).ok();
    }
    assert_eq!(sessions.state("ada"), end);
    assert_eq!(sessions.acts("ada").iter().rev().take(3).collect::<Vec<_>>(), ["hit", "hit", "hit"]);
}

#[test]
fn a_branch_and_its_origin_go_their_own_ways() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "echo common > /tmp/f").ok();
    sessions.verb("branch").args(["ada", "bob"]).ok();
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
    sessions.shell("ada", "echo ada >> /tmp/f").ok();
    sessions.shell("bob", "echo bob >> /tmp/f").ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok().assert_stdout("common\nada");
    sessions.exec("bob", &["cat", "/tmp/f"]).ok().assert_stdout("common\nbob");

    let there = sessions.state("bob");
    sessions.verb("goto").args(["ada", &there[..10]]).ok();
    sessions.exec("ada", &["cat", "/tmp/f"]).ok().assert_stdout("common\nbob");
    sessions.verb("goto").args(["ada", "0000"]).fails().assert_says("there is no state \"0000\"");
    sessions.verb("goto").args(["ada", "nobody"]).fails().assert_says("neither a session nor the id");
    sessions.verb("branch").args(["ada", "bob"]).fails().assert_says("already");

    sessions.verb("rename").args(["bob", "eve"]).ok();
    assert_eq!(sessions.state("eve"), there);
    sessions.verb("rename").args(["eve", "ada"]).fails().assert_says("already");
    sessions.verb("log").arg("bob").fails().assert_says("there is no session \"bob\"");
    sessions.verb("close").arg("eve").ok();
    let names = sessions.verb("list").arg("--json").ok().json();
    assert_eq!(names.as_array().expect("a list").len(), 1, "{names}");
    // What a closed session has run is still known.
    sessions.begin("new");
    sessions.shell("new", "echo common > /tmp/f").ok();
    sessions.shell("new", "echo bob >> /tmp/f").ok();
    assert_eq!(sessions.acts("new"), ["new", "hit", "hit"]);
}

#[test]
fn states_are_looked_at_without_starting_anything() {
    requires!(bed, overlay, tool "strace");
    let sessions = Sessions::new(&["ada"]);
    let begin = sessions.state("ada");
    let text = "mkdir -p /srv/a; echo content > /srv/a/f; ln -s f /srv/a/l; rm /etc/profile; chmod 700 /home; \
        cd /srv; export X=1";
    sessions.shell("ada", text).ok();
    let diff = sessions.verb("diff").args([&begin[..12], "ada"]).ok().stdout();
    let expected = [
        "removed  /etc/profile",
        "changed  /home",
        "added    /srv/a",
        "added    /srv/a/f",
        "added    /srv/a/l",
        "shell    working directory / -> /srv",
        "shell    +OLDPWD=/",
        "shell    +X=1",
    ];
    assert_eq!(diff.lines().collect::<Vec<_>>(), expected);
    let none = sessions.verb("diff").args(["ada", "ada", "--json"]).ok();
    none.assert_stdout("[]");

    let list = sessions.verb("ls").args(["--json", "ada", "/srv/a"]).ok().json();
    assert_eq!(list[0]["name"], "f");
    assert_eq!((&list[0]["size"], &list[0]["mode"]), (&8.into(), &"0644".into()));
    assert_eq!(list[1]["target"], "f");
    sessions.verb("ls").args(["ada", "/none"]).fails().assert_says("there is no \"/none\"");
    let report = sessions.path().join("calls");
    let trace = ["strace", "-f", "-o", report.to_str().expect("a path")];
    sessions.verb("cat").args(["ada", "/srv/a/f"]).wrapped_in(trace).ok().assert_stdout("content");
    let calls = std::fs::read_to_string(&report).expect("strace's report");
    assert!(!["mount", "clone", "fork"].iter().any(|call| calls.contains(&format!(" {call}"))), "{calls}");
    sessions.verb("cat").args(["ada", "/etc/passwd"]).ok();
    sessions.verb("cat").args(["ada", "/etc/profile"]).fails().assert_says("there is no");
    sessions.verb("cat").args([&begin[..8], "/etc/profile"]).ok();
    sessions.verb("cat").args(["ada", "/srv"]).fails().assert_says("is no file");
}

#[test]
fn a_miss_is_explained_by_the_first_thing_that_differs() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let explain = |words: &[&str]| sessions.verb("explain").args(words).ok().stdout();
    assert!(explain(&["bob", "ls"]).starts_with("miss: nothing like it ran before"));
    sessions.exec("ada", &["ls", "/tmp"]).ok();
    assert!(explain(&["bob", "--", "ls", "/tmp"]).starts_with("hit: it ran on 2"));
    let other = explain(&["bob", "ls", "/srv"]);
    assert_eq!(other, "miss: from this state it ran with another argument: \"/tmp\", and not \"/srv\"\n");
    sessions.shell("bob", "echo x > /srv/new").ok();
    let elsewhere = explain(&["bob", "ls", "/tmp"]);
    assert!(elsewhere.ends_with("but \"/srv/new\" was not there\n"), "{elsewhere}");
    sessions.shell("ada", "export LEVEL=2").ok();
    let variable = explain(&["ada", "ls", "/tmp"]);
    assert!(variable.contains("the variable \"LEVEL=2\" is new"), "{variable}");
    let json = sessions.verb("explain").args(["--json", "ada", "ls", "/tmp"]).ok().json();
    assert_eq!(json["hit"], false);
    assert_eq!(sessions.acts("bob"), ["new", "run"]);
}

#[test]
fn the_store_is_counted_and_drawn() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob", "eve"]);
    for name in ["ada", "bob", "eve"] {
        sessions.shell(name, "sleep 0.1; echo x > /tmp/x").ok();
    }
    sessions.exec("eve", &["false"]).output().assert_code(1);
    let stats = sessions.verb("stats").arg("--json").ok().json();
    let counts = ["sessions", "commands", "hits", "runs", "once", "states", "layers", "transitions"];
    assert_eq!(counts.map(|name| stats[name].as_u64().expect(name)), [3, 4, 2, 2, 0, 2, 2, 2], "{stats}");
    let took = sessions.log("ada")[1]["micros"].as_u64().expect("a time");
    assert_eq!(stats["saved_micros"], 2 * took);
    assert!(sessions.verb("stats").ok().stdout().starts_with("3 sessions asked for 4 commands: 2 hits"));
    let tree = sessions.verb("tree").ok().stdout();
    let lines: Vec<&str> = tree.lines().collect();
    assert_eq!(lines.len(), 3, "{tree}");
    assert!(lines[1].contains("echo x > /tmp/x") && lines[1].contains("2 hits"), "{tree}");
    assert!(lines[1].ends_with("<- ada bob eve"), "{tree}");
    assert!(lines[2].contains("false") && lines[2].contains("code 1"), "{tree}");
    assert_eq!(sessions.verb("tree").arg("--json").ok().json().as_array().map(Vec::len), Some(2));
    for number in 0..3 {
        sessions.verb("branch").args(["ada", &format!("more-{number}")]).ok();
    }
    let tree = sessions.verb("tree").ok().stdout();
    assert!(tree.contains("<- ada bob eve more-0 and 2 more\n"), "{tree}");
}

#[test]
fn what_was_asked_for_is_drawn_over_time() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let [svg, png] = ["class.svg", "class.png"].map(|name| sessions.path().join(name));
    let nothing = sessions.verb("stats").arg("--plot").arg(&svg).output();
    assert!(nothing.stderr().contains("there is nothing to draw"), "{}", nothing.stderr());
    for name in ["ada", "bob"] {
        sessions.exec(name, &["true"]).ok();
    }
    sessions.verb("stats").arg("--plot").arg(&svg).arg("--plot").arg(&png).ok();
    let picture = std::fs::read_to_string(&svg).expect("a picture");
    assert!(picture.contains("2 asked for") && picture.contains("1 run"), "{picture}");
    assert!(std::fs::read(&png).expect("a picture").starts_with(b"\x89PNG"));
}

#[test]
fn an_exported_state_is_a_plain_tree_and_the_same_state_elsewhere() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let make = "mkdir -p /srv/d/e; echo 1 > /srv/d/e/f; rm /etc/profile; mkdir /srv/gone; ln -s /bin /srv/l";
    sessions.shell("ada", make).ok();
    let change = "rm -r /srv/d /srv/gone; mkdir /srv/d; echo 2 > /srv/d/f; chmod 4755 /srv/d/f; \
        echo x > /srv/x; ln /srv/x /srv/y";
    sessions.shell("ada", change).ok();
    let tree = sessions.path().join("tree");
    sessions.verb("export").arg("ada").arg(&tree).ok();
    assert!(
        !tree.join("etc/profile").exists()
            && !tree.join("srv/gone").exists()
            && !tree.join("srv/d/e").exists()
    );
    assert_eq!(std::fs::read_to_string(tree.join("srv/d/f")).expect("a file"), "2\n");
    sessions.verb("export").arg("ada").arg(&tree).fails().assert_says("File exists");

    let other = Sessions::empty();
    other.verb("new").arg("--rootfs").arg(&tree).arg("bob").ok();
    assert_eq!(other.state("bob"), sessions.state("ada"));
    other.exec("bob", &["cat", "/srv/d/f"]).ok().assert_stdout("2");
    // Taken apart by a later command.
    sessions.shell("ada", "echo y > /srv/y").ok();
    let again = sessions.path().join("again");
    sessions.verb("export").arg("ada").arg(&again).ok();
    assert_eq!(std::fs::read_to_string(again.join("srv/x")).expect("a file"), "x\n");
}

#[test]
fn a_state_as_a_bundle_is_run_where_the_session_stands() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions
        .shell("ada", "mkdir /srv/d; cd /srv/d; echo one > f; export NAME='two words'; umask 027; rm -r /mnt")
        .ok();
    let bundle = sessions.path().join("bundle");
    let export = || sessions.verb("export").args(["--format", "bundle", "ada"]).arg(&bundle);
    export().ok();
    export().fails().assert_says("create");
    let script = "pwd; cat f; echo $NAME; umask; test -e /mnt || echo gone; exit 4";
    let run =
        support::deja(&sessions.path().join("run")).args(["run", "--bundle"]).arg(&bundle).arg("bundle");
    let told = run.stdin(format!("{script}\n")).output().assert_code(4);
    told.assert_stdout("/srv/d\none\ntwo words\n0027\ngone");
    // The same files are the same state's tree.
    sessions.verb("new").arg("--rootfs").arg(bundle.join("rootfs")).arg("bob").ok();
    let changes = sessions.verb("diff").args(["--json", "ada", "bob"]).ok().json();
    let files =
        changes.as_array().expect("a list").iter().filter(|change| change["change"] != "shell").count();
    assert_eq!(files, 0, "{changes}");
}
