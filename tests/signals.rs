//! Signals that deja's caller ignores or blocks: the container starts as if it did neither.

mod support;
use support::{Bundle, Container, Deja, adopt_orphans, requires};

/// What systemd, nohup, a shell in the background and a careless parent leave to their children.
fn from_careless(deja: Deja) -> Deja {
    deja.wrapped_in([
        "/bin/sh",
        "-c",
        "trap '' HUP INT QUIT PIPE USR1 TERM CHLD XFSZ TSTP; exec \"$0\" \"$@\"",
    ])
}

const LOOK: [&str; 4] = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"];

/// No signal is blocked and none that has a name is ignored; what a caller does with real-time signals stays.
#[track_caller]
fn assert_default(status: &str) {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let digits = line.unwrap_or_else(|| panic!("no {name} in {status:?}")).trim();
        u64::from_str_radix(digits, 16).expect("a mask in hexadecimal")
    };
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & 0x7fff_ffff), (0, 0), "{status}");
}

#[test]
fn run_gives_the_container_default_signals() {
    requires!(bed);
    let bundle = Bundle::new().args(&LOOK);
    // That deja notices the end although its caller ignores CHLD is part of it.
    assert_default(&from_careless(bundle.verb("run").arg(bundle.id())).ok().stdout());
}

#[test]
fn create_and_start_too() {
    requires!(bed);
    adopt_orphans();
    let bundle = Bundle::new().script("grep -E '^Sig(Ign|Blk)' /proc/self/status; echo done; sleep 1000");
    let created = from_careless(bundle.verb("create").arg(bundle.id())).ok();
    let container = Container::adopt(&bundle, bundle.id(), created);
    from_careless(container.verb("start", &[])).ok();
    container.wait_stdout("done");
    assert_default(&container.stdout());
    assert_default(&from_careless(container.exec_with(&[], &LOOK)).ok().stdout());
    from_careless(container.verb("delete", &["--force"])).ok();
    container.release();
}

/// A user namespace has the child ask once more on its way.
#[test]
fn also_in_a_user_namespace() {
    requires!(bed, userns);
    let bundle = Bundle::new().args(&LOOK).user_namespace(100_000, 65_536);
    assert_default(&from_careless(bundle.verb("run").arg(bundle.id())).ok().stdout());
}
