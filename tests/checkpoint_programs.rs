//! Programs that check themselves all the time, with everything a program has, go through two checkpoints.
//!
//! One is this test's own file, run in the container: what it is there is told by a variable. The other is in Python.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use support::counter::{checkpoint, counting, path, restore};
use support::{Bundle, Container, Leaks, eventually, requires};

const ROLE: &str = "DEJA_TEST_PROGRAM";
const LISTENING: &str = "127.0.0.1:7000";

/// Answers every number with the next one, for ever.
fn answer(mut stream: impl Read + Write + Send + 'static) {
    std::thread::spawn(move || {
        let mut bytes = [0; 8];
        while stream.read_exact(&mut bytes).is_ok() {
            let next = u64::from_le_bytes(bytes) + 1;
            stream.write_all(&next.to_le_bytes()).expect("answer");
        }
    });
}

#[track_caller]
fn ask(stream: &mut (impl Read + Write), number: u64) {
    let mut bytes = number.to_le_bytes();
    stream.write_all(&bytes).expect("ask");
    stream.read_exact(&mut bytes).expect("hear the answer");
    assert_eq!(u64::from_le_bytes(bytes), number + 1, "what a stream carries");
}

struct Program {
    listener: TcpListener,
    client: TcpStream,
    pair: UnixStream,
    datagrams: (UnixDatagram, UnixDatagram),
    ticks: Arc<AtomicU64>,
    memory: Vec<u64>,
    file: File,
    deleted: File,
    clock: Instant,
    parent: std::process::Child,
}

impl Program {
    fn start() -> Self {
        let listener = TcpListener::bind(LISTENING).expect("listen");
        let client = TcpStream::connect(LISTENING).expect("connect");
        answer(listener.accept().expect("accept").0);
        let (pair, other) = UnixStream::pair().expect("a pair");
        answer(other);
        let ticks = Arc::new(AtomicU64::new(0));
        let ticking = Arc::clone(&ticks);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(5));
                ticking.fetch_add(1, SeqCst);
            }
        });
        let open = |path: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).open(path).expect("open")
        };
        let deleted = open("/tmp/deleted");
        fs::remove_file("/tmp/deleted").expect("remove");
        Self {
            listener,
            client,
            pair,
            datagrams: UnixDatagram::pair().expect("a pair"),
            ticks,
            memory: (0..1 << 16).map(|place: u64| place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect(),
            file: open("/tmp/file"),
            deleted,
            clock: Instant::now(),
            parent: std::process::Command::new("/bin/sleep").arg("100000").spawn().expect("a child"),
        }
    }

    fn check(&mut self, round: u64) {
        ask(&mut self.client, round);
        ask(&mut self.pair, round);
        // One more connection to the listener, every time.
        let connecting = TcpStream::connect(LISTENING).expect("connect again");
        drop((self.listener.accept().expect("accept again"), connecting));
        // The last round's datagram has waited for this one.
        let mut bytes = [0; 8];
        if round > 0 {
            let length = self.datagrams.1.recv(&mut bytes).expect("receive");
            assert_eq!((length, u64::from_le_bytes(bytes)), (8, round - 1), "a datagram that waited");
        }
        self.datagrams.0.send(&round.to_le_bytes()).expect("send");
        let now = self.ticks.load(SeqCst);
        while self.ticks.load(SeqCst) == now {
            std::thread::sleep(Duration::from_millis(1));
        }
        for (place, value) in self.memory.iter().enumerate() {
            assert_eq!(
                *value,
                (place as u64 + round).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                "memory at {place}"
            );
        }
        self.memory.iter_mut().for_each(|value| *value = value.wrapping_add(0x9e37_79b9_7f4a_7c15));
        for file in [&mut self.file, &mut self.deleted] {
            assert_eq!(file.stream_position().expect("a position"), 8 * round, "the place in a file");
            file.write_all(&round.to_le_bytes()).expect("write");
            file.seek(SeekFrom::Start(4 * round / 8 * 8)).expect("seek");
            file.read_exact(&mut bytes).expect("read");
            assert_eq!(u64::from_le_bytes(bytes), 4 * round / 8, "what is in a file");
            file.seek(SeekFrom::End(0)).expect("seek");
        }
        let before = self.clock;
        self.clock = Instant::now();
        assert!(self.clock >= before, "time goes on");
        assert!(self.parent.try_wait().expect("look for the child").is_none(), "the child lives");
    }
}

/// In the container: tells its rounds, or what is wrong.
fn be_the_program() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // The test shows what is in this file, and without it waits in vain.
        fs::write("/tmp/failed", info.to_string()).ok();
        std::process::exit(1);
    }));
    let mut program = Program::start();
    for round in 0.. {
        program.check(round);
        fs::write("/tmp/new", round.to_string())
            .and_then(|()| fs::rename("/tmp/new", "/tmp/round"))
            .expect("tell");
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("there is always another round")
}

fn rounds(container: &Container) -> u64 {
    eventually("rounds of the program", || {
        let failed = container.exec(&["cat", "/tmp/failed"]);
        assert!(!failed.status.success(), "the program found: {}", failed.stdout());
        container.exec(&["cat", "/tmp/round"]).stdout().trim().parse().ok()
    })
}

/// Saves and restores what tells its rounds, twice, with flags for each time.
fn two_rounds(bundle: &Bundle, flags: [&[&str]; 2]) {
    let leaks = Leaks::snapshot(bundle);
    let mut container = bundle.create();
    container.start();
    let mut last = rounds(&container);
    for (round, flags) in flags.into_iter().enumerate() {
        eventually("more rounds", || (rounds(&container) > last + 3).then_some(()));
        last = rounds(&container);
        let image = path(bundle, &format!("image{round}"));
        let begun = SystemTime::now();
        checkpoint(&container, &image, flags).ok();
        println!("round {round}: saved in {:?}", begun.elapsed().unwrap_or_default());
        container.release();
        let finished = restore(bundle, &image, flags).ok();
        println!("round {round}: saved and restored in {:?}", begun.elapsed().unwrap_or_default());
        container = Container::adopt(bundle, bundle.id(), finished);
        assert!(rounds(&container) >= last);
    }
    eventually("more rounds", || (rounds(&container) > last + 3).then_some(()));
    container.verb("delete", &["--force"]).ok();
    container.release();
    leaks.assert_none();
}

#[test]
fn a_program_that_checks_itself_finds_nothing_in_two_rounds() {
    if std::env::var_os(ROLE).is_some() {
        be_the_program();
    }
    // Sockets need a CRIU that knows the kernel.
    requires!(vm, criu);
    let name = "a_program_that_checks_itself_finds_nothing_in_two_rounds";
    let bundle = counting()
        .args(&["/program", "--exact", name, "--nocapture", "--test-threads=1"])
        .set("/process/env/-", json!(format!("{ROLE}=1")));
    fs::copy(std::env::current_exe().expect("this program"), bundle.rootfs().join("program")).expect("copy");
    // Both ways to hold the network while connections are saved.
    let flags = ["--tcp-established", "--network-lock"];
    two_rounds(&bundle, [&[flags[0], flags[1], "iptables"], &[flags[0], flags[1], "nftables"]]);
}

/// Memory that two processes share, named and not, signals that wait, timers, and what the kernel counts for a program.
#[test]
fn shared_memory_and_signals_come_back_in_two_rounds() {
    requires!(bed, criu, tool "python3");
    let bundle = counting().with_python(include_str!("data/checkpoint/shared.py"));
    two_rounds(&bundle, [&[], &[]]);
}
