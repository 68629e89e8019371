//! What callers parse: state, list, ps, kill and delete of containers that exist as records only. Every record
//! here is written by the test, with a process of the test's own as init, so that no container is needed.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use support::{Deja, deja, eventually};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("create a temporary directory"))
    }

    fn deja(&self) -> Deja {
        deja(self.0.path())
    }

    fn directory(&self, id: &str) -> PathBuf {
        self.0.path().join(id)
    }

    /// A container whose record says this, on top of what every record says.
    fn container(&self, id: &str, fields: Value) {
        let mut record = json!({
            "version": 1,
            "id": id,
            "ociVersion": "1.2.0",
            "bundle": format!("/bundles/{id}"),
            "rootfs": format!("/bundles/{id}/rootfs"),
            "created": "2026-11-20T23:43:51.123456789Z",
            "owner": 0,
            "ownPids": true,
        });
        for (name, value) in fields.as_object().expect("an object") {
            record[name] = value.clone();
        }
        fs::create_dir(self.directory(id)).expect("create the container's directory");
        fs::write(self.directory(id).join("record.json"), record.to_string()).expect("write the record");
    }

    fn running(&self, id: &str) -> Init {
        let init = Init::new();
        self.container(id, json!({"pid": init.pid(), "startTime": init.start_time()}));
        init
    }

    fn created(&self, id: &str) -> Init {
        let init = self.running(id);
        fs::write(self.directory(id).join("start.sock"), "").expect("make start.sock");
        init
    }

    fn state(&self, id: &str) -> Value {
        self.deja().args(["state", id]).ok().json()
    }
}

/// A process that stands for a container's init.
struct Init(Child);

impl Init {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().expect("start sleep"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn start_time(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("read stat");
        stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
    }

    /// The signal that ended it.
    fn ended_by(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        eventually("init to end", || self.0.try_wait().expect("wait for init")).signal()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("look at init").is_none()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // Both fail only when it is gone, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn state_has_the_fields_callers_decode() {
    let root = Root::new();
    let init = Init::new();
    let fields =
        json!({"pid": init.pid(), "startTime": init.start_time(), "annotations": {"b": "2", "a": "1"}});
    root.container("web", fields);
    assert_eq!(
        root.state("web"),
        json!({
            "ociVersion": "1.2.0",
            "id": "web",
            "pid": init.pid(),
            "status": "running",
            "bundle": "/bundles/web",
            "rootfs": "/bundles/web/rootfs",
            "created": "2026-11-20T23:43:51.123456789Z",
            "annotations": {"a": "1", "b": "2"},
            "owner": "root",
        })
    );
}

#[test]
fn status_is_what_is_true_now() {
    let root = Root::new();
    let mut init = root.created("web");
    assert_eq!(root.state("web")["status"], "created");
    fs::remove_file(root.directory("web").join("start.sock")).unwrap();
    assert_eq!(root.state("web")["status"], "running");
    // A zombie has ended, also before anybody has waited for it.
    rustix::process::kill_process(rustix::process::Pid::from_child(&init.0), rustix::process::Signal::KILL)
        .unwrap();
    eventually("the container to be stopped", || (root.state("web")["status"] == "stopped").then_some(()));
    assert_eq!(init.ended_by(), Some(9));
    let state = root.state("web");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));

    // Another process with the same pid is not the container's.
    let other = Init::new();
    root.container("reused", json!({"pid": other.pid(), "startTime": other.start_time() + 1}));
    assert_eq!(root.state("reused")["status"], "stopped");
}

#[test]
fn a_missing_container_is_told_in_everybody_s_words() {
    let root = Root::new();
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        root.deja().args([verb, "nobody"]).fails().assert_says("does not exist");
    }
    root.deja().args(["delete", "--force", "nobody"]).ok();
}

#[test]
fn list_prints_tables_json_and_ids() {
    let root = Root::new();
    let list = |flags: &[&str]| root.deja().arg("list").args(flags).ok().stdout();
    assert_eq!(list(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    assert_eq!(list(&["--format", "json"]), "null\n");
    assert_eq!(list(&["-q"]), "");

    let init = root.running("b");
    root.container("a", json!({"pid": 1, "startTime": 1, "owner": 4_000_000_000u32}));
    assert_eq!(list(&["-q"]), "a\nb\n");
    let text = list(&["-f", "json"]);
    assert!(
        text.starts_with("[{\"ociVersion\":\"1.2.0\",\"id\":\"a\",\"pid\":0,\"status\":\"stopped\""),
        "{text}"
    );
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!((&entries[1]["pid"], &entries[1]["owner"]), (&json!(init.pid()), &json!("root")));
    assert_eq!(entries[0]["owner"], "#4000000000");
    let table = list(&["--format=table"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(rows[1][..4], ["a", "0", "stopped", "/bundles/a"]);
    assert_eq!(rows[2][2], "running");
}

#[test]
fn a_broken_container_does_not_hide_the_others() {
    let root = Root::new();
    let _init = root.running("good");
    root.container("bad", json!({}));
    fs::write(root.directory("bad").join("record.json"), "{\"version\": 1, \"id\": ").unwrap();
    fs::create_dir(root.directory("empty")).unwrap();
    let listed = root.deja().args(["list", "-f", "json"]).ok();
    let entries: Vec<Value> = serde_json::from_str(&listed.stdout()).unwrap();
    assert_eq!(entries.len(), 1);
    listed.assert_says("load container bad: ");
    assert_eq!(root.deja().args(["--log-level", "error", "list"]).ok().stderr(), "");
}

#[test]
fn a_root_that_was_asked_for_has_to_be_there() {
    deja("/nonexistent/root".as_ref()).arg("list").fails().assert_says("no such file or directory");
}

#[test]
fn kill_sends_names_and_numbers() {
    let root = Root::new();
    for (signal, number) in
        [(&[] as &[&str], 15), (&["KILL"], 9), (&["SIGUSR1"], 10), (&["sigint"], 2), (&["9"], 9)]
    {
        let mut init = root.running("web");
        root.deja().args(["kill", "web"]).args(signal).ok();
        assert_eq!(init.ended_by(), Some(number), "{signal:?}");
        root.deja().args(["delete", "web"]).ok();
    }
    let mut init = root.running("web");
    root.deja().args(["kill", "web", "0"]).ok();
    assert!(init.lives());
}

#[test]
fn kill_on_what_has_ended_says_so_in_everybody_s_words() {
    let root = Root::new();
    let other = Init::new();
    root.container("web", json!({"pid": other.pid(), "startTime": other.start_time() + 1}));
    let mut other = other;
    for signal in ["0", "TERM", "KILL"] {
        root.deja()
            .args(["kill", "web", signal])
            .fails()
            .assert_code(1)
            .assert_says("container not running")
            .assert_says("no such process");
    }
    assert!(other.lives(), "a process that only has the pid of the container's init was signalled");
}

#[test]
fn delete_refuses_the_living_and_takes_the_rest() {
    let root = Root::new();
    let mut init = root.running("web");
    root.deja()
        .args(["delete", "web"])
        .fails()
        .assert_says("cannot delete container web that is not stopped: running");
    assert!(init.lives());
    root.deja().args(["delete", "--force", "web"]).ok();
    assert_eq!(init.ended_by(), Some(9));
    assert!(!root.directory("web").exists());

    // A created container is ended without being asked twice.
    let mut init = root.created("web");
    root.deja().args(["delete", "web"]).ok();
    assert_eq!(init.ended_by(), Some(9));
    assert!(!root.directory("web").exists());
}

#[test]
fn whatever_a_killed_create_leaves_can_be_deleted() {
    let root = Root::new();
    // Killed between making the directory and writing the record.
    fs::create_dir(root.directory("bare")).unwrap();
    fs::write(root.directory("bare").join("record.json.new"), "{").unwrap();
    // Killed before the clone.
    root.container("early", json!({}));
    // A disk that was full, or worse.
    let mut init = root.running("damaged");
    let whole = fs::read(root.directory("damaged").join("record.json")).unwrap();
    fs::write(root.directory("damaged").join("record.json"), &whole[..whole.len() - 3]).unwrap();

    root.deja().args(["delete", "bare"]).fails().assert_says("does not exist");
    root.deja().args(["state", "damaged"]).fails().assert_says("it is damaged");
    assert_eq!(root.state("early")["status"], "stopped");

    root.deja().args(["delete", "early"]).ok();
    root.deja().args(["delete", "--force", "bare"]).ok();
    root.deja().args(["delete", "--force", "damaged"]).ok();
    assert_eq!(init.ended_by(), Some(9));
    assert_eq!(fs::read_dir(root.0.path()).unwrap().count(), 0);
}

#[test]
fn a_record_of_a_newer_deja_is_refused_in_words() {
    let root = Root::new();
    root.container("web", json!({"version": 1000, "pid": "in another form"}));
    root.deja().args(["state", "web"]).fails().assert_says("it was written by a newer deja (version 1000");
}

#[test]
fn a_container_that_is_being_made_is_creating() {
    let root = Root::new();
    root.container("web", json!({}));
    let directory = fs::File::open(root.directory("web")).unwrap();
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(root.state("web")["status"], "creating");
    root.deja().args(["kill", "web"]).fails().assert_says("container not running");
    // Whoever made it hangs; force does not wait for that for ever.
    root.deja().args(["delete", "--force", "web"]).ok();
    assert!(!root.directory("web").exists());
}

#[test]
fn expressions_choose_containers() {
    let root = Root::new();
    let mut inits: Vec<Init> = ["web-1", "web-2", "db"].iter().map(|id| root.running(id)).collect();
    root.deja().args(["kill", "--regex", "^web-[0-9]$", "KILL"]).ok();
    assert_eq!(inits[0].ended_by(), Some(9));
    assert_eq!(inits[1].ended_by(), Some(9));
    assert!(inits[2].lives());
    root.deja().args(["delete", "-r", "web"]).ok();
    assert_eq!(root.deja().args(["list", "-q"]).ok().stdout(), "db\n");
    root.deja().args(["delete", "--force", "--regex", "nothing-like-it"]).ok();
}

#[test]
fn without_a_cgroup_nothing_is_frozen_or_listed() {
    let root = Root::new();
    let _init = root.running("web");
    for verb in ["pause", "ps"] {
        root.deja().args([verb, "web"]).fails().assert_says("it has no cgroup");
    }
    root.deja().args(["resume", "web"]).fails().assert_says("container not paused");
}

#[test]
fn many_containers_cost_what_one_costs() {
    let root = Root::new();
    let init = Init::new();
    for number in 0..300 {
        root.container(&format!("c{number}"), json!({"pid": init.pid(), "startTime": init.start_time()}));
    }
    assert_eq!(root.state("c7")["status"], "running");
    assert_eq!(root.deja().args(["list", "-q"]).ok().stdout().lines().count(), 300);
}
