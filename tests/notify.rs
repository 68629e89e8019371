//! $NOTIFY_SOCKET: a container tells the caller's service manager, through deja, that it is ready.

mod support;
use support::{Bundle, Deja, Leaks, Running, eventually, requires};

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A service manager: everything it is told is kept, and a barrier is answered.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn of(bundle: &Bundle) -> Self {
        let path = bundle.file("manager.sock");
        let socket = UnixDatagram::bind(&path).expect("bind the manager's socket");
        socket.set_read_timeout(Some(support::patience())).expect("a timeout");
        Self { path, socket }
    }

    /// The next message, and the descriptor that came along.
    fn told(&self) -> (String, Option<OwnedFd>) {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags);
        let length = message.expect("a message to the manager").bytes;
        let fd = ancillary.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8_lossy(&bytes[..length]).into_owned(), fd)
    }

    fn heard_nothing(&self) {
        self.socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        assert!(self.socket.recv(&mut [0; 64]).is_err());
        self.socket.set_read_timeout(Some(support::patience())).expect("a timeout");
    }

    fn on(&self, deja: Deja) -> Deja {
        deja.env("NOTIFY_SOCKET", &self.path)
    }
}

fn spawn(bundle: &Bundle, manager: &Manager, verb: &str, flags: &[&str]) -> Running {
    manager.on(bundle.verb(verb)).args(flags).arg(bundle.id()).spawn()
}

/// The init of the bundle's container, once there is one.
fn init(bundle: &Bundle) -> i64 {
    eventually("the container to run", || {
        let state = bundle.deja().arg("state").arg(bundle.id()).output();
        let state = state.status.success().then(|| state.json())?;
        (state["status"] == "running").then(|| state["pid"].as_i64().expect("a pid"))
    })
}

/// Says something as a program of the container would.
fn say(init: i64, message: &str) {
    let place = format!("/proc/{init}/root/run/notify/notify.sock");
    let socket = UnixDatagram::unbound().expect("a socket");
    eventually("the container's notify socket", || socket.send_to(message.as_bytes(), &place).ok());
}

#[test]
fn start_waits_until_the_container_is_ready() {
    requires!(bed);
    let bundle = Bundle::new().script("echo $NOTIFY_SOCKET; exec sleep 1000");
    let leaks = Leaks::snapshot(&bundle);
    let manager = Manager::of(&bundle);
    let created = manager.on(bundle.verb("create")).arg(bundle.id()).ok();
    let container = support::Container::adopt(&bundle, bundle.id(), created);
    let starting = manager.on(container.verb("start", &[])).spawn();
    container.wait_stdout("/run/notify/notify.sock");
    let pid = init(&bundle);
    say(pid, "STATUS=nearly there");
    manager.heard_nothing();
    say(pid, "STATUS=up\nREADY=1\nMAINPID=1");
    assert_eq!(manager.told().0, format!("READY=1\nMAINPID={pid}\n"));
    let (barrier, pipe) = manager.told();
    assert_eq!(barrier, "BARRIER=1");
    drop(pipe.expect("the barrier's pipe"));
    assert_eq!(starting.finish().code(), Some(0));
    let mounted = container.exec(&["grep", " /run/notify ", "/proc/self/mountinfo"]).stdout();
    assert!(mounted.contains("ro,nosuid,nodev,noexec"), "{mounted}");
    drop(container);
    leaks.assert_none();
}

#[test]
fn run_detached_waits_too() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let manager = Manager::of(&bundle);
    let running = spawn(&bundle, &manager, "run", &["--detach"]);
    let pid = init(&bundle);
    let socket = bundle.state_root().join(bundle.id()).join("notify/notify.sock");
    assert_eq!(socket.metadata().expect("the socket").permissions().mode() & 0o777, 0o777);
    say(pid, "READY=1");
    assert_eq!(manager.told().0, format!("READY=1\nMAINPID={pid}\n"));
    drop(manager.told().1);
    assert_eq!(running.finish().code(), Some(0));
}

/// Who stays in the foreground stands for the container.
#[test]
fn run_in_the_foreground_passes_on_and_stays() {
    requires!(bed);
    let bundle = Bundle::new().script("trap 'exit 3' USR1; echo up; while :; do sleep 0.05; done");
    let leaks = Leaks::snapshot(&bundle);
    let manager = Manager::of(&bundle);
    let running = spawn(&bundle, &manager, "run", &[]);
    let pid = init(&bundle);
    // A signal before the container is ready changes nothing.
    running.signal(rustix::process::Signal::CONT);
    say(pid, "READY=1");
    assert_eq!(manager.told().0, format!("READY=1\nMAINPID={}\n", running.pid()));
    eventually("the trap to be set", || running.stdout().contains("up").then_some(()));
    running.signal(rustix::process::Signal::USR1);
    assert_eq!(running.finish().code(), Some(3));
    leaks.assert_none();
}

#[test]
fn a_container_that_ends_is_not_waited_for() {
    requires!(bed);
    let bundle = Bundle::new();
    let leaks = Leaks::snapshot(&bundle);
    let manager = Manager::of(&bundle);
    spawn(&bundle, &manager, "run", &["--detach"]).finish().assert_code(0);
    bundle.deja().arg("delete").arg(bundle.id()).ok();
    spawn(&bundle, &manager, "run", &[]).finish().assert_code(0);
    manager.heard_nothing();
    leaks.assert_none();
}

#[test]
fn without_a_manager_nothing_is_added() {
    requires!(bed);
    let bundle = Bundle::new().script("echo [$NOTIFY_SOCKET]; ls /run");
    bundle.verb("run").env("NOTIFY_SOCKET", "").arg(bundle.id()).ok().assert_stdout("[]");
    let nobody = bundle.file("nobody.sock");
    let leaks = Leaks::snapshot(&bundle);
    let refused = bundle.verb("run").env("NOTIFY_SOCKET", &nobody).arg(bundle.id()).fails();
    refused.assert_says("nobody.sock").assert_says("connect: no such file or directory");
    leaks.assert_none();
}
