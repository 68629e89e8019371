//! Commands of a session at a terminal of their own.

mod support;

use support::{Console, Sessions, requires};

#[test]
fn a_command_at_a_terminal_is_kept_like_any_other_and_its_size_is_part_of_what_is_asked() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    let tty = |name: &str, flags: &[&str], text: &str| {
        sessions.verb("exec").arg("--tty").args(flags).args([name, "-c", text])
    };
    let text =
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM; echo error >&2; exit 3";
    let seen = tty("ada", &["--size", "10x40"], text).output().assert_code(3);
    assert_eq!(seen.stdout(), "/dev/pts/0\r\n10 40\r\nxterm\r\nerror\r\n");
    assert_eq!(seen.stderr(), "");
    let again = tty("bob", &["--size=10x40"], text).output().assert_code(3);
    assert_eq!((again.stdout(), &sessions.acts("bob")[1][..]), (seen.stdout(), "hit"));
    tty("bob", &["--size", "10x41"], "stty size").ok().assert_stdout("10 41");
    tty("bob", &[], "stty size").ok().assert_stdout("24 80");
    // Nobody types: a reader finds the end.
    tty("bob", &[], "cat; echo done").ok().assert_stdout("done");
    assert_eq!(sessions.acts("bob")[2..], ["run", "run", "run"]);
    let miss = sessions.verb("explain").args(["--tty", "--size", "9x9", "bob", "-c", "stty size"]).ok();
    assert!(miss.stdout().contains("another terminal"), "{}", miss.stdout());
    sessions.verb("exec").args(["-t", "bob", "--", "/none"]).output().assert_code(127);
    // The shell's context carries on from there, too.
    tty("bob", &[], "cd /srv; export X=1").ok();
    sessions.shell("bob", "echo $PWD $X $TERM").ok().assert_stdout("/srv 1");

    let fails = |flags: &[&str]| sessions.verb("exec").args(flags).args(["ada", "true"]).fails();
    fails(&["--tty", "--stdin"]).assert_says("cannot be had together");
    fails(&["--tty", "--keep-background"]).assert_says("cannot be had together");
    fails(&["--tty", "--size", "0x3"]).assert_says("rows and columns");
}

#[test]
fn what_was_typed_at_is_not_kept_and_the_terminal_is_as_before() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let (mut console, terminal) = Console::open();
    let modes = || {
        let modes = rustix::termios::tcgetattr(&terminal).expect("the modes");
        (modes.input_modes, modes.output_modes, modes.local_modes)
    };
    let before = modes();
    let text = "echo ready; read line; echo got $line; echo $line > /tmp/line";
    let running = sessions.verb("exec").args(["--tty", "ada", "-c", text]).spawn_on(&terminal);
    console.read_until("ready");
    console.write("typed\r");
    console.read_until("got typed");
    running.finish().assert_code(0);
    assert_eq!(modes(), before);
    assert_eq!(sessions.acts("ada"), ["new", "once"]);
    sessions.verb("cat").args(["ada", "/tmp/line"]).ok().assert_stdout("typed");

    // Keys that interrupt are the command's; a shell asks for a terminal with :tty.
    let running = sessions.verb("shell").arg("ada").spawn_on(&terminal);
    console.read_until("ada:/\x1b[m# ");
    console.write(":tty trap 'echo stopped; exit 4' INT; echo waiting; while :; do sleep 0.1; done\r");
    console.read_until("waiting\r\n");
    console.write("\x03");
    console.read_until("stopped");
    console.read_until("\x1b[31m4 \x1b[m");
    console.write("exit 0\r");
    running.finish().assert_code(0);
    assert_eq!(modes(), before);
}

#[test]
fn commands_can_be_signalled() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let text = "sleep 100 & kill $!; wait $!; echo $?; grep SigBlk /proc/self/status";
    sessions.shell("ada", text).ok().assert_stdout("143\nSigBlk:\t0000000000000000");
}
