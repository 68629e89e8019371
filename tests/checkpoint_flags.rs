//! What of a checkpoint has to be allowed, or is left out, by a flag: without it a failure that names it, with it a
//! container that has what it had.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use serde_json::json;
use support::counter::{COUNT, checkpoint, count, counting, goes_on, path, restore, shell};
use support::{Bundle, Console, Container, Deja, Profile, eventually, patience, requires};

/// After it has done something else.
fn counting_after(before: &str) -> Bundle {
    counting().script(&format!("{before}; {COUNT}"))
}

fn started(bundle: &Bundle) -> (Container<'_>, u64) {
    let container = bundle.create();
    container.start();
    let before = count(&container);
    (container, before)
}

#[track_caller]
fn restored<'b>(bundle: &'b Bundle, container: Container<'b>, image: &str, flags: &[&str]) -> Container<'b> {
    container.release();
    Container::adopt(bundle, bundle.id(), restore(bundle, image, flags).ok())
}

#[test]
fn a_deleted_file_with_another_name_comes_back() {
    requires!(bed, criu);
    let bundle = counting_after("echo kept > /one; ln /one /two; exec 5<>/one; rm /one");
    let (container, before) = started(&bundle);
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &[]).fails().assert_says("use --link-remap");
    goes_on(&container, before);
    checkpoint(&container, &image, &["--link-remap"]).ok();
    let container = restored(&bundle, container, &image, &[]);
    goes_on(&container, before);
    assert_eq!(shell(&container, "cat /proc/1/fd/5 /two; test -e /one || echo gone"), "kept\nkept\ngone\n");
}

#[test]
fn connections_can_be_closed_on_the_way() {
    requires!(vm, criu);
    let connect =
        "nc -l -p 7000 -e cat & sleep 1; (sleep 100000 | nc 127.0.0.1 7000; echo > /tmp/closed) & sleep 1";
    let bundle = counting_after(connect);
    let (container, before) = started(&bundle);
    let established = "netstat -tn | grep -c ESTABLISHED || true";
    assert_eq!(shell(&container, established), "2\n");
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &["--tcp-established", "--network-lock", "nftables"]).ok();
    let container = restored(&bundle, container, &image, &["--tcp-close"]);
    goes_on(&container, before);
    assert_eq!(shell(&container, established), "0\n");
}

#[test]
fn a_file_lock_is_held_again() {
    requires!(bed, criu, tool "python3");
    // It has to hold the lock itself: that of a process that has ended is nobody's for CRIU.
    let bundle = counting().with_python(
        "import fcntl, time\nlock = open('/tmp/lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n\
         for i in range(1 << 30):\n    open('/tmp/count', 'w').write(str(i))\n    time.sleep(0.1)\n",
    );
    let (container, before) = started(&bundle);
    let held = "flock -n /tmp/lock true || echo held";
    assert_eq!(shell(&container, held), "held\n");
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &[]).fails().assert_says("use --file-locks");
    goes_on(&container, before);
    checkpoint(&container, &image, &["--file-locks"]).ok();
    let container = restored(&bundle, container, &image, &["--file-locks"]);
    goes_on(&container, before);
    assert_eq!(shell(&container, held), "held\n");
}

/// Bytes on disk of what memory was written to.
fn pages(image: &str) -> u64 {
    let files = fs::read_dir(image).expect("an image").map(|entry| entry.expect("an entry"));
    let pages = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("pages-"));
    pages.map(|entry| entry.metadata().expect("metadata").blocks() * 512).sum()
}

#[test]
fn pages_that_were_saved_again_leave_the_image_before() {
    requires!(vm, criu);
    let bundle = counting();
    let (container, before) = started(&bundle);
    let [early, late] = ["early", "late"].map(|name| path(&bundle, name));
    checkpoint(&container, &early, &["--pre-dump"]).ok();
    goes_on(&container, before);
    let all = pages(&early);
    checkpoint(&container, &late, &["--parent-path", "../early", "--auto-dedup"]).ok();
    assert!(pages(&early) < all, "{} of {all} bytes are left", pages(&early));
    let container = restored(&bundle, container, &late, &[]);
    goes_on(&container, before);
}

/// The other end is found by its path, so it has to be a socket for datagrams in a network that both are in.
#[test]
fn a_socket_of_somebody_outside_is_found_again() {
    requires!(vm, criu, tool "python3");
    let bundle = counting();
    let out = bundle.file("out");
    fs::create_dir(&out).unwrap();
    let outside = UnixDatagram::bind(out.join("socket")).expect("bind");
    outside.set_read_timeout(Some(patience())).expect("a deadline");
    let hear = || {
        let mut bytes = [0; 32];
        let length = outside.recv(&mut bytes).expect("hear the container");
        String::from_utf8_lossy(&bytes[..length]).parse::<u64>().expect("a number")
    };
    // CRIU looks for it under the name that it has for its owner.
    let script = format!(
        "import socket, time\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\ns.connect({:?})\n\
         i = 0\nwhile True:\n    i += 1\n    s.send(str(i).encode())\n    time.sleep(0.1)\n",
        out.join("socket").display().to_string()
    );
    let bundle = bundle
        .with_python(&script)
        .mount(json!({"destination": out, "type": "bind", "source": out, "options": ["bind"]}))
        .namespace("network", Some(&format!("/proc/{}/ns/net", std::process::id())));
    let container = bundle.create();
    container.start();
    let image = path(&bundle, "image");
    assert!(hear() > 0);
    checkpoint(&container, &image, &[]).fails().assert_says("use --ext-unix-sk");
    checkpoint(&container, &image, &["--ext-unix-sk"]).ok();
    let last = {
        outside.set_nonblocking(true).expect("no waiting");
        let mut bytes = [0; 32];
        let mut last = 0;
        while let Ok(length) = outside.recv(&mut bytes) {
            last = String::from_utf8_lossy(&bytes[..length]).parse().expect("a number");
        }
        outside.set_nonblocking(false).expect("waiting");
        last
    };
    let container = restored(&bundle, container, &image, &["--ext-unix-sk"]);
    assert_eq!(hear(), last + 1, "nothing is lost or said twice");
    assert_eq!(container.status(), "running");
}

/// Connected by the kernel, and never accepted by the program: it is in the container, and the other end is not.
#[test]
fn connections_that_nobody_has_accepted_can_be_left_out() {
    requires!(vm, criu, tool "python3", tool "nsenter");
    let bundle = counting().with_python(
        "import socket, time\nlistener = socket.socket()\nlistener.bind(('127.0.0.1', 7000))\nlistener.listen(5)\n\
         for i in range(1 << 30):\n    open('/tmp/count', 'w').write(str(i))\n    time.sleep(0.1)\n",
    );
    let (container, before) = started(&bundle);
    let connect = "import socket, time; s = socket.create_connection(('127.0.0.1', 7000)); \
        print('connected', flush=True); time.sleep(100000)";
    let pid = container.pid().to_string();
    let caller = Deja::other("nsenter").args(["--net", "--target", &pid, "python3", "-c", connect]).spawn();
    eventually("a connection", || (caller.stdout() == "connected\n").then_some(()));
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &[]).fails().assert_says("use --tcp-skip-in-flight");
    goes_on(&container, before);
    checkpoint(&container, &image, &["--tcp-skip-in-flight"]).ok();
    let container = restored(&bundle, container, &image, &[]);
    goes_on(&container, before);
    // 0A is one that listens.
    let sockets = shell(&container, "cat /proc/net/tcp");
    assert_eq!(
        sockets.lines().skip(1).filter(|line| line.contains(":1B58 00000000:0000 0A ")).count(),
        1,
        "{sockets}"
    );
    assert_eq!(sockets.lines().count(), 2, "{sockets}");
    caller.signal(rustix::process::Signal::KILL);
    caller.finish();
}

#[test]
fn the_terminal_of_the_caller_is_that_of_the_next_caller() {
    requires!(bed, criu);
    let bundle = counting();
    let (mut console, terminal) = Console::open();
    bundle.verb("run").args(["--detach", bundle.id()]).spawn_on(&terminal).finish().assert_code(0);
    drop(terminal);
    console.read_until("1\r\n2\r\n");
    let image = path(&bundle, "image");
    let save = |flags: &[&str]| {
        bundle.deja().args(["checkpoint", "--image-path", &image]).args(flags).arg(bundle.id())
    };
    save(&[]).fails().assert_says("its terminal belongs to somebody outside: use --shell-job");
    save(&["--shell-job"]).ok();
    let seen = console.read_to_end();
    let last: u64 = seen.lines().last().map_or(0, |line| line.trim().parse().expect("a number"));

    let (mut console, terminal) = Console::open();
    let finished = restore(&bundle, &image, &["--shell-job"]).spawn_on(&terminal).finish().assert_code(0);
    drop(terminal);
    let container = Container::adopt(&bundle, bundle.id(), finished);
    console.read_until(&format!("{}\r\n", last + 1));
    goes_on(&container, last);
}

#[test]
fn criu_can_have_the_cgroups() {
    requires!(bed, criu);
    let bundle = counting();
    let (mut container, before) = started(&bundle);
    let place = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).expect("the cgroup");
    for mode in ["soft", "full"] {
        let image = path(&bundle, mode);
        let flags = ["--manage-cgroups-mode", mode];
        checkpoint(&container, &image, &flags).ok();
        container = restored(&bundle, container, &image, &flags);
        goes_on(&container, before);
        assert!(place().lines().any(|line| line == container.pid().to_string()), "{mode}: {}", place());
        assert!(shell(&container, "cat /proc/1/cgroup").contains("0::/\n"), "{mode}");
    }
    // It wants to make what deja has made.
    let image = path(&bundle, "strict");
    checkpoint(&container, &image, &["--manage-cgroups-mode", "strict"]).ok();
    container.release();
    restore(&bundle, &image, &["--manage-cgroups-mode", "strict"]).fails().assert_says("existing cgroups");
    let container = Container::adopt(&bundle, bundle.id(), restore(&bundle, &image, &[]).ok());
    goes_on(&container, before);
}

#[test]
fn a_restored_container_can_have_another_profile() {
    requires!(vm, criu, apparmor, tool "apparmor_parser");
    let (first, second) = (Profile::forbids("/etc/passwd"), Profile::forbids("/etc/group"));
    let bundle = counting().set("/process/apparmorProfile", json!(first.name()));
    let (container, before) = started(&bundle);
    let image = path(&bundle, "image");
    let current = |container: &Container| shell(container, "cat /proc/1/attr/current");
    checkpoint(&container, &image, &[]).ok();
    let container = restored(&bundle, container, &image, &[]);
    assert_eq!(current(&container).trim(), first.enforced());
    container.verb("delete", &["--force"]).ok();
    let other = format!("apparmor:{}", second.name());
    let container = restored(&bundle, container, &image, &["--lsm-profile", &other]);
    assert_eq!(current(&container).trim(), second.enforced());
    goes_on(&container, before);
    container.verb("delete", &["--force"]).ok();
    container.release();
    let foreign = restore(&bundle, &image, &["--lsm-profile", "selinux:x"]).fails();
    foreign.assert_says("selinux not supported by kernel");
}
