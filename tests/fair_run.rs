//! `fair run` on real containers: who comes, goes and changes, what is written, and that it is all given back.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bundle, Container, Disk, Running, eventually, requires};

/// Containers with a parent cgroup of their own, so that several of these can be shared out at a time.
struct Class {
    bundle: Bundle,
}

impl Class {
    fn new() -> Self {
        Self { bundle: Bundle::new() }
    }

    fn parent(&self) -> String {
        format!("/deja-test/{}", self.bundle.id())
    }

    fn file(&self, id: &str, name: &str) -> PathBuf {
        PathBuf::from(format!("/sys/fs/cgroup{}/{id}/{name}", self.parent()))
    }

    #[track_caller]
    fn read(&self, id: &str, name: &str) -> String {
        let path = self.file(id, name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}")).trim().into()
    }

    #[track_caller]
    fn wait_file(&self, id: &str, name: &str, value: &str) {
        eventually(&format!("{name} of {id} to be {value:?}"), || {
            (self.read(id, name) == value).then_some(())
        });
    }

    fn config(&self, id: &str, said: &[(&str, &str)], script: &str) -> PathBuf {
        let mut config = self.bundle.config().clone();
        let annotations = said.iter().map(|(word, value)| (format!("deja.fair.{word}"), json!(value)));
        config["annotations"] = Value::Object(annotations.collect());
        config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.parent()));
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        let path = self.bundle.file(&format!("{id}.json"));
        fs::write(&path, config.to_string()).expect("write the config");
        path
    }

    /// A running container whose annotations say this.
    #[track_caller]
    fn start(&self, id: &str, said: &[(&str, &str)], script: &str) -> Container<'_> {
        let config = self.config(id, said, script);
        let run = self.bundle.deja().args(["run", "--detach", "--bundle"]).arg(self.bundle.path());
        let created = run.arg("--config").arg(config).arg(id).ok();
        Container::adopt(&self.bundle, id, created)
    }

    fn fair(&self, words: &[&str]) -> support::Deja {
        self.bundle.deja().arg("fair").args(words)
    }

    #[track_caller]
    fn daemon(&self, flags: &[&str]) -> Running {
        let daemon = self.fair(&["run", "--json"]).args(flags).spawn();
        wait_event(&daemon, "begun", "");
        daemon
    }

    #[track_caller]
    fn status(&self) -> Value {
        self.fair(&["status", "--format", "json"]).ok().json()
    }

    /// What the status says of a container, once it says what is waited for.
    #[track_caller]
    fn wait_entry(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{id} {what}"), || entry(&self.status(), id).filter(|entry| is(entry)))
    }
}

const SLEEP: &str = "exec sleep 1000";
const SPIN: &str = "while :; do :; done";

fn entry(status: &Value, id: &str) -> Option<Value> {
    let groups = status["siblings"].as_array().expect("siblings").iter();
    let mut entries = groups.flat_map(|group| group["containers"].as_array().expect("containers"));
    entries.find(|entry| entry["id"] == id).cloned()
}

fn events(daemon: &Running) -> Vec<Value> {
    let text = daemon.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[track_caller]
fn wait_event(daemon: &Running, kind: &str, container: &str) -> Value {
    eventually(&format!("the event {kind} {container}"), || {
        let of = |event: &Value| container.is_empty() || event["container"] == container;
        events(daemon).into_iter().find(|event| event["event"] == kind && of(event))
    })
}

#[track_caller]
fn end(daemon: Running) -> support::Finished {
    daemon.signal(Signal::TERM);
    daemon.finish().assert_code(0)
}

#[test]
fn containers_are_seen_when_they_come_change_and_go() {
    requires!(bed);
    let class = Class::new();
    let early = class.start("early", &[], SLEEP);
    let daemon = class.daemon(&[]);
    wait_event(&daemon, "arrived", "early");
    let said = [("shares", "2"), ("tenant", "ann"), ("class", "students")];
    let web = class.start("web", &said, SLEEP);
    wait_event(&daemon, "arrived", "web");
    let seen = class.wait_entry("web", "in the status", |_| true);
    assert_eq!(
        (&seen["shares"], &seen["tenant"], &seen["class"]),
        (&json!(2.0), &json!("ann"), &json!("students"))
    );
    class.fair(&["set", "--shares", "3", "--tenant", "none", "web"]).ok();
    wait_event(&daemon, "changed", "web");
    let seen = class.wait_entry("web", "with other terms", |entry| entry["shares"] == 3.0);
    assert_eq!((&seen["tenant"], &seen["class"]), (&Value::Null, &json!("students")));
    web.verb("pause", &[]).ok();
    class.wait_entry("web", "frozen", |entry| entry["held"] == "frozen");
    web.verb("resume", &[]).ok();
    class.wait_entry("web", "thawed", |entry| entry["held"] == Value::Null);
    web.kill("KILL");
    wait_event(&daemon, "left", "web");
    web.verb("delete", &["--force"]).ok();
    drop(early);
    wait_event(&daemon, "left", "early");
    end(daemon);
    assert!(!class.bundle.state_root().join(".fair.socket").exists());
    assert!(!class.bundle.state_root().join(".fair.journal").exists());
}

#[test]
fn there_is_one_at_a_time() {
    requires!(bed);
    let class = Class::new();
    let daemon = class.daemon(&[]);
    let second = class.fair(&["run"]).fails();
    second.assert_says(&format!("deja fair run is at work already (process {})", daemon.pid()));
    class.fair(&["restore"]).fails().assert_says("at work already");
    // One that is killed is at work until it has ended, and is not taken for one that goes on.
    daemon.signal(Signal::KILL);
    class.fair(&["restore"]).ok();
    drop(daemon);
    // The socket of one that was killed is in nobody's way.
    end(class.daemon(&[]));
}

#[test]
fn terms_that_mean_nothing_make_no_container_and_change_none() {
    requires!(bed);
    let class = Class::new();
    for (word, value, says) in [
        ("share", "1", "annotation \"deja.fair.share\": deja.fair.* knows shares, "),
        ("shares", "many", "annotations deja.fair: shares \"many\": not a number"),
        ("limit", "0", "limit 0 is not a positive number of CPUs"),
    ] {
        let config = class.config("web", &[(word, value)], SLEEP);
        let create = class.bundle.deja().args(["create", "--bundle"]).arg(class.bundle.path());
        create.arg("--config").arg(config).arg("web").fails().assert_says(says);
    }
    let _web = class.start("web", &[], SLEEP);
    for (words, says) in [
        (["--shares", "-1", "web"], "shares -1 is not a positive number"),
        (["--best-effort", "perhaps", "web"], "neither true nor false"),
        (["--limit", "1", "@students"], "a limit needs a cgroup"),
        (["--tenant", "ann", "@students"], "--tenant is a container's"),
        (["--shares", "1", "@a/b/c"], "neither @CLASS nor @CLASS/TENANT"),
        (["--shares", "1", "other"], "does not exist"),
    ] {
        class.fair(&["set"]).args(words).fails().assert_says(says);
    }
    class.fair(&["set", "web"]).fails().assert_says("nothing to change");
    // Nobody acts on it, and that is said.
    for id in ["web", "@students"] {
        let said = class.fair(&["set", "--shares", "2", id]).ok().stdout();
        assert_eq!(said, "kept for the next deja fair run: none is at work, so it has no effect yet\n");
    }
}

#[test]
fn without_a_daemon_status_watches_by_itself() {
    requires!(bed);
    let class = Class::new();
    let _busy = class.start("busy", &[("shares", "2")], SPIN);
    let status = class.status();
    assert_eq!(status["policy"], "");
    let seen = entry(&status, "busy").expect("busy is there");
    assert!(seen["received"].as_f64().expect("received") > 0.05, "{status:#}");
    let text = class.fair(&["status"]).ok().stdout();
    assert!(text.contains("busy") && text.contains("nothing tunes: start deja fair run"), "{text}");
}

#[test]
fn prometheus_is_answered_and_a_recording_becomes_a_picture() {
    requires!(bed);
    let class = Class::new();
    let record = class.bundle.file("shares.jsonl");
    let daemon = class.daemon(&["--record", &record.display().to_string(), "--period", "100ms"]);
    let _busy = class.start("busy", &[("tenant", "ann")], SPIN);
    let socket = class.bundle.state_root().join(".fair.socket");
    let metrics = eventually("metrics of the container", || {
        let answer = get(&socket, "/metrics");
        answer.contains("container=\"busy\",class=\"\",tenant=\"ann\"").then_some(answer)
    });
    assert!(metrics.starts_with("HTTP/1.0 200 OK\r\n"), "{metrics}");
    assert!(metrics.contains("# TYPE deja_fair_received_cpu_seconds_total counter"), "{metrics}");
    assert!(get(&socket, "/else").starts_with("HTTP/1.0 404 "));
    // Who connects and says nothing keeps nobody waiting for long.
    let _mute = UnixStream::connect(&socket).expect("connect");
    class.wait_entry("busy", "in the status", |_| true);
    eventually("two points", || {
        let text = fs::read_to_string(&record).unwrap_or_default();
        (text.lines().filter(|line| line.contains("busy")).count() > 1).then_some(())
    });
    end(daemon);
    let picture = class.bundle.deja().args(["fair", "plot"]).arg(&record).ok().stdout();
    assert!(picture.starts_with("<svg") && picture.contains("busy"), "{picture}");
    let png = class.bundle.file("shares.png");
    class.bundle.deja().args(["fair", "plot", "--output"]).arg(&png).arg(&record).ok().assert_stdout("");
    assert!(fs::read(&png).expect("the picture").starts_with(b"\x89PNG\r\n"));
}

fn get(socket: &std::path::Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn weights_follow_shares_at_once_and_are_given_back() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    let _one = class.start("one", &[], SPIN);
    class.wait_file("one", "cpu.weight", "100");
    fs::write(class.file("one", "cpu.weight"), "77").expect("write a weight");
    let daemon = class.daemon(&[]);
    let two = class.start("two", &[("shares", "2")], SPIN);
    wait_event(&daemon, "wrote", "two");
    class.wait_entry("two", "with twice the weight", |entry| {
        let one: f64 = class.read("one", "cpu.weight").parse().expect("a weight");
        let ratio = entry["weight"].as_f64().expect("a weight") / one;
        (1.7..2.4).contains(&ratio)
    });
    // Through update, which leaves what it means to be restored.
    two.verb("update", &["--cpu-share", "512"]).ok();
    class.wait_entry("two", "with half the weight", |entry| {
        let one: f64 = class.read("one", "cpu.weight").parse().expect("a weight");
        entry["shares"] == 0.5 && (0.4..0.65).contains(&(entry["weight"].as_f64().expect("a weight") / one))
    });
    end(daemon);
    assert_eq!(class.read("one", "cpu.weight"), "77");
    assert_eq!(class.read("two", "cpu.weight"), "59", "runc's weight for 512 shares");
}

#[test]
fn best_effort_and_limits_come_and_go() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    let daemon = class.daemon(&[]);
    let said = [("best-effort", "true"), ("limit", "0.5")];
    let _web = class.start("web", &said, SLEEP);
    class.wait_file("web", "cpu.idle", "1");
    class.wait_file("web", "cpu.max", "50000 100000");
    class.fair(&["set", "--best-effort", "false", "--limit", "0.25", "web"]).ok();
    class.wait_file("web", "cpu.idle", "0");
    class.wait_file("web", "cpu.max", "25000 100000");
    class.fair(&["set", "--limit", "none", "--shares", "4", "web"]).ok();
    class.wait_file("web", "cpu.max", "max 100000");
    end(daemon);
    assert_eq!(class.read("web", "cpu.weight"), "100");
    assert_eq!(class.read("web", "cpu.idle"), "0");
}

#[test]
fn memory_is_reserved_limited_and_given_back() {
    requires!(bed, cgroup "cpu", cgroup "memory");
    let class = Class::new();
    let daemon = class.daemon(&[]);
    let _web = class.start("web", &[("memory-limit", "64M")], SLEEP);
    class.wait_file("web", "memory.max", "67108864");
    class.wait_file("web", "memory.high", "60395520");
    let words = ["set", "--memory-reservation", "8M", "--memory-limit", "none", "--squeeze", "true", "web"];
    class.fair(&words).ok();
    class.wait_file("web", "memory.min", "8388608");
    class.wait_file("web", "memory.max", "max");
    end(daemon);
    let values = ["memory.min", "memory.high", "memory.max"].map(|file| class.read("web", file));
    assert_eq!(values, ["0", "max", "max"]);
}

/// What was read once and nobody reads again goes back to the machine; nobody runs out of memory for that.
#[test]
fn memory_that_nobody_misses_is_taken_back() {
    requires!(vm, cgroup "cpu", cgroup "memory");
    let bundle = Bundle::new();
    let disk = Disk::new(bundle.path());
    let place = json!({"destination": "/disk", "type": "bind", "source": disk.shown(), "options": ["bind"]});
    let class = Class { bundle: bundle.mount(place) };
    let fill = "dd if=/dev/zero of=/disk/file bs=1M count=48 && sync && touch /disk/ready; exec sleep 100000";
    let said = [("squeeze", "true"), ("memory-reservation", "24M")];
    let web = class.start("web", &said, fill);
    eventually("the file to be written", || {
        web.exec(&["test", "-e", "/disk/ready"]).status.success().then_some(())
    });
    let size = || class.read("web", "memory.current").parse::<u64>().expect("a number");
    let before = size();
    assert!(before > 48 << 20, "{before} bytes with the file");

    let daemon = class.daemon(&[]);
    let taken = eventually("memory to be taken back twice", || {
        let bytes =
            |event: &Value| (event["event"] == "squeezed").then(|| event["bytes"].as_u64().expect("bytes"));
        let all: Vec<u64> = events(&daemon).iter().filter_map(bytes).collect();
        (all.len() >= 2).then(|| all.iter().sum::<u64>())
    });
    assert!(size() <= before - taken / 2, "{taken} bytes were taken, and {} of {before} are left", size());
    assert!(size() >= 24 << 20, "what is reserved stays");
    assert!(class.read("web", "memory.events").contains("oom_kill 0"));
    end(daemon);
    drop(web);
}

#[test]
fn what_a_killed_daemon_leaves_is_restored() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    let _one = class.start("one", &[("shares", "3")], SPIN);
    let _two = class.start("two", &[("best-effort", "true")], SLEEP);
    let kill = || {
        let daemon = class.daemon(&[]);
        class.wait_file("two", "cpu.idle", "1");
        daemon.signal(Signal::KILL);
        drop(daemon);
        assert_eq!(class.read("two", "cpu.idle"), "1");
    };
    kill();
    let text = class.fair(&["restore"]).ok().stdout();
    assert!(text.contains("restored deja-test/"), "{text}");
    for id in ["one", "two"] {
        assert_eq!((class.read(id, "cpu.weight"), class.read(id, "cpu.idle")), ("100".into(), "0".into()));
    }
    class.fair(&["restore"]).ok().assert_stdout("");
    // The next one restores first, so that it knows what was there before both.
    kill();
    let daemon = class.daemon(&[]);
    wait_event(&daemon, "restored", "");
    end(daemon);
    for id in ["one", "two"] {
        assert_eq!((class.read(id, "cpu.weight"), class.read(id, "cpu.idle")), ("100".into(), "0".into()));
    }
}

#[test]
fn every_policy_starts_and_gives_back() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    let _one = class.start("one", &[], SPIN);
    let _two = class.start("two", &[("shares", "2")], SPIN);
    // Where there is a CPU for everybody, a policy that says who runs next has nothing to say.
    let cpus = std::thread::available_parallelism().expect("the number of CPUs").get();
    let more: Vec<String> = (1..cpus).map(|number| format!("more-{number}")).collect();
    let _more: Vec<Container> = more.iter().map(|id| class.start(id, &[], SPIN)).collect();
    for policy in ["static", "wfq", "strict", "lottery", "quota"] {
        let flags = ["--policy", policy, "--seed", "7", "--credit", "1s", "--emulate-per-cpu"];
        let daemon = class.daemon(&flags);
        assert_eq!(wait_event(&daemon, "begun", "")["policy"], policy);
        wait_event(&daemon, "wrote", "");
        end(daemon);
        for id in ["one", "two"] {
            let values = ["cpu.weight", "cpu.idle", "cpu.max"].map(|file| class.read(id, file));
            assert_eq!(values, ["100", "0", "max 100000"], "{id} after {policy}");
        }
    }
}

#[test]
fn a_cgroup_that_is_not_deja_s_is_left_alone() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    fs::create_dir_all(class.file("theirs", "")).expect("make a cgroup");
    let daemon = class.daemon(&[]);
    let theirs = class.start("theirs", &[("best-effort", "true")], SLEEP);
    let event = wait_event(&daemon, "failed", "theirs");
    assert!(event["why"].as_str().expect("why").contains("not deja's to tune"), "{event}");
    let ours = class.start("ours", &[], SLEEP);
    wait_event(&daemon, "arrived", "ours");
    assert_eq!(class.read("theirs", "cpu.idle"), "0");
    end(daemon);
    drop((theirs, ours));
    fs::remove_dir(class.file("theirs", "")).ok();
}

/// Numbers that look random and are always the same.
struct Dice(u32);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 16) % limit
    }
}

/// DEJA_CHAOS has it go on for more rounds.
#[test]
fn chaos_leaves_no_drift() {
    requires!(bed, cgroup "cpu");
    let class = Class::new();
    let mut dice = Dice(7);
    let mut living: Vec<Container> = Vec::new();
    let mut daemon = class.daemon(&["--period", "50ms"]);
    let rounds = std::env::var("DEJA_CHAOS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(24);
    for round in 0..rounds {
        match dice.below(4) {
            0 | 1 if living.len() < 5 => {
                let shares = (1 + dice.below(4)).to_string();
                let script = if dice.below(2) == 0 { SPIN } else { SLEEP };
                living.push(class.start(&format!("c{round}"), &[("shares", &shares)], script));
            }
            2 if !living.is_empty() => {
                let place = dice.below(living.len() as u32) as usize;
                drop(living.swap_remove(place));
            }
            _ => {
                if let Some(container) = living.last() {
                    let best_effort = (dice.below(2) == 0).to_string();
                    class.fair(&["set", "--best-effort", &best_effort, container.id()]).ok();
                }
            }
        }
        if round % 24 == 12 {
            daemon.signal(Signal::KILL);
            drop(daemon);
            daemon = class.daemon(&["--period", "50ms"]);
        }
    }
    assert!(!living.is_empty());
    for container in &living {
        wait_event(&daemon, "arrived", container.id());
    }
    let told = events(&daemon);
    let failed: Vec<&Value> = told.iter().filter(|event| event["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    end(daemon);
    for container in &living {
        let values = ["cpu.weight", "cpu.idle", "cpu.max"].map(|file| class.read(container.id(), file));
        assert_eq!(values, ["100", "0", "max 100000"], "{}", container.id());
    }
    assert!(!class.bundle.state_root().join(".fair.journal").exists());
}
