//! `session shell`: a prompt that feels like a shell's.

mod support;

use support::{Console, Sessions, requires};

#[test]
fn lines_are_typed_edited_completed_and_replayed() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "mkdir -p /srv/course; echo found > /srv/course/a-long-name; cd /srv").ok();
    let (mut console, terminal) = Console::open();
    let running = sessions.verb("shell").arg("ada").spawn_on(&terminal);
    drop(terminal);
    console.read_until("ada:/srv\x1b[m# ");
    // Both names are the only ones that begin so.
    console.write("cat cou\ta-l\t\r");
    console.read_until("found");
    console.read_until("\x1b[33m+\x1b[m ");
    // Back in the history, a typing error taken back, and the exit code.
    console.write("\x1b[A\x15falx\x7fse\r");
    console.read_until("\x1b[31m1 \x1b[m");
    console.write("cd course\r");
    console.read_until("ada:/srv/course\x1b[m# ");
    console.write(":undo\r");
    support::eventually("the undo", || (sessions.acts("ada").last()? == "undo").then_some(()));
    console.write("cd course\r");
    console.read_until("\x1b[32m=\x1b[m ");
    // A quote that is open goes on in the next line; what was given up does not run.
    console.write("echo 'two\rlines'\r");
    console.read_until("two\r\nlines");
    console.write("touch /never\x03");
    console.write("base\t\t");
    console.read_until("basename");
    console.write("\x15exit 7\r");
    running.finish().assert_code(7);
    let texts: Vec<String> =
        sessions.log("ada")[2..].iter().map(|step| step["shown"].as_str().unwrap_or("").into()).collect();
    assert_eq!(
        texts,
        ["cat course/a-long-name ", "false", "cd course", "", "cd course", "echo 'two\nlines'"]
    );
    assert_eq!(sessions.acts("ada")[2..], ["run", "run", "run", "undo", "hit", "run"]);
}

#[test]
fn the_terminal_is_left_as_it_was() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let (mut console, terminal) = Console::open();
    let modes = || {
        let modes = rustix::termios::tcgetattr(&terminal).expect("the modes");
        (modes.input_modes, modes.output_modes, modes.local_modes)
    };
    let before = modes();
    let running = sessions.verb("shell").arg("ada").spawn_on(&terminal);
    console.read_until("# ");
    assert_ne!(modes(), before);
    console.write("\x04");
    running.finish().assert_code(0);
    assert_eq!(modes(), before);
}

#[test]
fn lines_from_a_pipe_are_commands() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let input = "cd /srv\necho 'a\nb' > f\ncat f\n\n:explain cat f\nfalse\n";
    let told = sessions.verb("shell").arg("ada").stdin(input).output().assert_code(1).stdout();
    assert!(told.starts_with("a\nb\nhit: it ran on"), "{told}");
    assert_eq!(sessions.acts("ada"), ["new", "run", "run", "run", "run"]);
    sessions.verb("shell").arg("bob").fails().assert_says("there is no session \"bob\"");
}

#[test]
fn a_shell_speaks_to_people() {
    let sessions = Sessions::empty();
    sessions.verb("shell").args(["--json", "ada"]).fails().assert_says("has no --json");
}
