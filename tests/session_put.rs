//! `session put` and `session edit`: files that come into a session without any command.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use support::{Sessions, requires};

fn file(sessions: &Sessions, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = sessions.path().join(name);
    std::fs::write(&path, text).expect("write a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("change its mode");
    path
}

#[test]
fn a_file_that_is_put_is_there_and_putting_it_again_from_the_same_state_is_a_hit() {
    requires!(bed, overlay, tool "strace");
    let sessions = Sessions::new(&["ada", "bob"]);
    let source = file(&sessions, "hello.sh", "#!/bin/sh\necho hello\n", 0o775);
    let report = sessions.path().join("calls");
    let trace = ["strace", "-f", "-o", report.to_str().expect("a path")];
    let put = || sessions.verb("put").arg("ada").arg(&source).arg("/srv").wrapped_in(trace).ok();
    put().assert_stdout(&sessions.state("ada")[..12]);
    let calls = std::fs::read_to_string(&report).expect("strace's report");
    assert!(!["mount", "clone", "fork"].iter().any(|call| calls.contains(&format!(" {call}("))), "{calls}");
    sessions.exec("ada", &["/srv/hello.sh"]).ok().assert_stdout("hello");
    sessions.exec("ada", &["stat", "-c", "%a %u %g", "/srv/hello.sh"]).ok().assert_stdout("755 0 0");

    // The same content under another name, from another session, with another spelling of the path.
    let other = file(&sessions, "copy", "#!/bin/sh\necho hello\n", 0o755);
    sessions.shell("bob", "cd /srv").ok();
    sessions.verb("undo").arg("bob").ok();
    sessions.verb("put").arg("bob").arg(&other).arg("srv/../srv/hello.sh").ok();
    let last = sessions.log("bob").pop().expect("a step");
    assert_eq!((&last["act"], &last["shown"]), (&"hit".into(), &"(put /srv/hello.sh)".into()));
    sessions.exec("bob", &["/srv/hello.sh"]).ok().assert_stdout("hello");
    assert_eq!(sessions.acts("bob").last().map(String::as_str), Some("hit"));

    // What a command writes and what is put are one state.
    sessions.begin("eve");
    sessions.shell("eve", "printf '#!/bin/sh\\necho hello\\n' > /srv/hello.sh; chmod 755 /srv/hello.sh").ok();
    sessions.begin("kim");
    sessions.verb("put").arg("kim").arg(&source).arg("/srv").ok();
    assert_eq!(sessions.state("eve"), sessions.state("kim"));
    sessions.verb("undo").arg("kim").ok();
    sessions.verb("cat").args(["kim", "/srv/hello.sh"]).fails().assert_says("there is no");
    // Paths of `cat` and `ls` begin where the session stands, too, and links are followed.
    sessions.shell("kim", "cd /srv && echo x > real && ln -s real link").ok();
    sessions.verb("cat").args(["kim", "link"]).ok().assert_stdout("x");
    sessions.verb("cat").args(["kim", "../srv/./link"]).ok().assert_stdout("x");
    sessions.verb("ls").args(["kim", "."]).ok().assert_stdout_contains("link -> real");
    sessions.verb("verify").ok();
}

#[test]
fn several_files_go_into_a_directory_and_standard_input_into_a_file() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let (one, two) = (file(&sessions, "a.c", "int a;\n", 0o600), file(&sessions, "b.c", "int b;\n", 0o644));
    sessions.shell("ada", "mkdir /srv/src; ln -s /srv/src /srv/here; chown 5:6 /srv/src; cd /srv").ok();
    sessions.verb("put").arg("ada").args([&one, &two]).arg("here").ok();
    sessions.exec("ada", &["cat", "/srv/src/a.c", "/srv/src/b.c"]).ok().assert_stdout("int a;\nint b;");
    sessions
        .exec("ada", &["stat", "-c", "%a %u:%g", "/srv/src", "/srv/src/a.c"])
        .ok()
        .assert_stdout("755 5:6\n600 0:0");
    // In the other order it is the same state, and a hit.
    let there = sessions.state("ada");
    sessions.verb("undo").args(["ada", "3"]).ok();
    sessions.verb("put").arg("ada").args([&two, &one]).args(["/srv/src/"]).ok();
    assert_eq!(sessions.state("ada"), there);
    assert_eq!(sessions.acts("ada").last().map(String::as_str), Some("hit"));

    // What is there stays whose it is.
    sessions.shell("ada", "chown 7 src/a.c; chmod 640 src/a.c").ok();
    let told = sessions.verb("put").args(["--json", "ada", "src/a.c"]).stdin("long a;\n").ok().json();
    assert_eq!((&told["act"], &told["code"]), (&"run".into(), &0.into()));
    let text = "cat src/a.c; stat -c '%a %u' src/a.c; ls src";
    sessions.shell("ada", text).ok().assert_stdout("long a;\n640 7\na.c\nb.c");
    sessions.verb("put").args(["--mode", "4711", "ada", "new"]).stdin("").ok();
    sessions.exec("ada", &["stat", "-c", "%a", "/srv/new"]).ok().assert_stdout("4711");

    let fails = |words: &[&str]| sessions.verb("put").arg("ada").args(words).stdin("x").fails();
    fails(&[]).assert_says("there is no path");
    fails(&["/none/f"]).assert_says("there is no directory for \"/none/f\"");
    fails(&["/none/"]).assert_says("there is no directory");
    fails(&["/srv"]).assert_says("is a directory in the session");
    fails(&["/tmp", "/srv"]).assert_says("is a directory, and only files are put");
    let (one, two) = (one.to_str().expect("a path"), two.to_str().expect("a path"));
    fails(&[one, two, "/srv/new"]).assert_says("several files cannot become one");
    let bad = sessions.verb("put").args(["--mode", "99", "ada", "f"]).stdin("x").fails();
    bad.assert_says("permissions in octal digits");
    sessions.verb("put").args(["nobody", "f"]).stdin("x").fails().assert_says("there is no session");
}

#[test]
fn an_edit_is_a_step_of_the_session_like_any_other() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let edit = |name: &str, editor: &str, path: &str| {
        sessions.verb("edit").args([name, path]).env("EDITOR", editor).env("TMPDIR", sessions.path())
    };
    sessions.shell("ada", "echo one > /srv/f").ok();
    sessions.shell("bob", "echo one > /srv/f").ok();
    edit("ada", "sed -i s/one/two/", "/srv/f").ok();
    sessions.verb("cat").args(["ada", "/srv/f"]).ok().assert_stdout("two");
    let told = edit("bob", "echo two >", "srv/f").arg("--json").ok().json();
    assert_eq!((&told["act"], &told["code"]), (&"hit".into(), &0.into()));
    assert_eq!(sessions.state("ada"), sessions.state("bob"));
    assert_eq!(sessions.acts("bob"), ["new", "hit", "hit"]);
    // A new one.
    edit("ada", "echo new >", "/srv/new").ok();
    sessions.exec("ada", &["cat", "/srv/new"]).ok().assert_stdout("new");
    let there = sessions.state("ada");
    let idle = edit("ada", "true", "/srv/new").ok();
    assert!(idle.stderr().contains("nothing was changed"), "{}", idle.stderr());
    assert_eq!(sessions.state("ada"), there);
    edit("ada", "false", "/srv/new").fails().assert_says("the editor \"false\" failed");
    edit("ada", "true", "/srv").fails().assert_says("is a directory in the session");
    let copies = || {
        let entries = std::fs::read_dir(sessions.path()).expect("the directory").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("deja-edit-")).count()
    };
    assert_eq!(copies(), 1, "only what an editor left that failed");

    // Somebody else is faster.
    let script = file(&sessions, "slow-editor", "", 0o755);
    let (deja, store) = (support::binary(), sessions.store());
    let text = format!("echo theirs | {deja:?} session put --store {store:?} ada /srv/f");
    std::fs::write(&script, format!("#!/bin/sh\necho mine > \"$1\"\n{text}\n")).expect("a script");
    let late = edit("ada", script.to_str().expect("a path"), "/srv/f").fails();
    late.assert_says("has changed in the session meanwhile");
    sessions.verb("cat").args(["ada", "/srv/f"]).ok().assert_stdout("theirs");
    assert_eq!(copies(), 2);
}
