//! Seccomp in a container: what a profile forbids fails as it says, and an agent is asked where it wants to be.

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{Bundle, Deja, Running, eventually, requires};

fn profile(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": rules})
}

fn bundle(rules: Value, script: &str) -> Bundle {
    Bundle::new().set("/linux/seccomp", profile(rules)).script(script)
}

#[test]
fn calls_fail_as_the_profile_says() {
    requires!(bed);
    let rules = json!([
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}
    ]);
    let script = "mkdir /tmp/x 2>&1; chmod 700 /tmp 2>&1; hostname other; echo $?";
    let text = bundle(rules, script).run().assert_code(0).stdout();
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains("Operation not permitted"), "{text}");
    assert!(text.trim_end().ends_with("159"), "{text}");
}

#[test]
fn arguments_decide() {
    requires!(bed);
    // The soft limit of open files is 7; `ulimit` sets it by prlimit64 or setrlimit, the resource is the argument.
    let by = |name: &str, index: u32| {
        json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": index, "value": 7, "op": "SCMP_CMP_EQ"}]})
    };
    let masked = json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": 8, "valueTwo": 8, "op": "SCMP_CMP_MASKED_EQ"}]});
    let rules = json!([by("setrlimit", 0), masked]);
    let mut rules = rules.as_array().expect("a list").clone();
    let mut prlimit = by("prlimit64", 1);
    prlimit["args"]
        .as_array_mut()
        .expect("arguments")
        .push(json!({"index": 2, "value": 0, "op": "SCMP_CMP_NE"}));
    rules.push(prlimit);
    let script = "ulimit -n 100 2>/dev/null || echo files; ulimit -c 0 && echo core";
    bundle(json!(rules), script).run().assert_code(0).assert_stdout("files\ncore");
}

#[test]
fn exec_has_the_filter_too() {
    requires!(bed);
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let bundle = bundle(rules, "sleep 1000");
    let container = bundle.start();
    container.exec(&["mkdir", "/tmp/x"]).assert_code(1).assert_says("Operation not permitted");
}

#[test]
fn the_default_answer_and_its_errno() {
    requires!(bed);
    let names =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seccomp-default.json"));
    let mut profile: Value = serde_json::from_str(&names.expect("the profile")).expect("JSON");
    profile["defaultErrnoRet"] = json!(38);
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    let bundle = Bundle::new().set("/linux/seccomp", profile);
    bundle.run().assert_code(0);
}

/// The agent of tests/data, which answers every call with "Invalid cross-device link".
struct Agent(Running);

impl Agent {
    fn at(path: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/agent.py");
        let agent = Self(Deja::other("python3").arg(script).arg(path).spawn());
        eventually("the agent", || agent.0.stdout().starts_with("ready\n").then_some(()));
        agent
    }

    /// What it has heard of, in order, once it is `count`.
    fn heard(&self, count: usize) -> Vec<Value> {
        eventually("the agent to hear", || {
            let text = self.0.stdout();
            let heard: Vec<_> = text.strip_suffix('\n')?.lines().skip(1).map(str::to_owned).collect();
            (heard.len() == count)
                .then(|| heard.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect())
        })
    }
}

/// A container whose mkdir an agent decides about, at `agent.sock` of the bundle.
fn with_agent(others: Value, script: &str) -> (Bundle, PathBuf) {
    let mut rules = others;
    let asked = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"});
    rules.as_array_mut().expect("a list of rules").push(asked);
    let bundle = bundle(rules, script);
    let path = bundle.file("agent.sock");
    let bundle = bundle
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("for the agent"));
    (bundle, path)
}

const REFUSED: &str = "mkdir: can't create directory '/tmp/x': Invalid cross-device link\n";

#[test]
fn an_agent_hears_of_a_container_that_is_created_and_decides() {
    requires!(bed, tool "python3");
    for privileges_can_grow in [false, true] {
        let (bundle, path) = with_agent(json!([]), "mkdir /tmp/x 2>&1; sleep 1000");
        let bundle = bundle.set("/process/noNewPrivileges", json!(!privileges_can_grow));
        let agent = Agent::at(&path);
        let container = bundle.create();
        let heard = agent.heard(1);
        assert_eq!(heard[0]["metadata"], "for the agent");
        assert_eq!(heard[0]["fds"], json!(["seccompFd"]));
        assert_eq!(heard[0]["pid"], container.pid());
        assert_eq!(heard[0]["state"]["id"], bundle.id());
        assert_eq!(heard[0]["state"]["status"], "creating");
        assert_eq!(container.status(), "created");
        container.start();
        container.wait_stdout(REFUSED);
        container.exec(&["mkdir", "/tmp/x"]).assert_code(1).assert_says(REFUSED.trim_end());
        let heard = agent.heard(2);
        assert_eq!(heard[1]["state"]["status"], "running");
    }
}

/// What lies between create and the program is then not done under the filter.
#[test]
fn where_a_created_container_cannot_be_under_its_filter_the_agent_hears_at_start() {
    requires!(bed, tool "python3");
    let narrow = json!([{"names": ["accept4"], "action": "SCMP_ACT_ERRNO"}]);
    let (narrow, narrow_path) = with_agent(narrow, "mkdir /tmp/x 2>&1; sleep 1000");
    let (hooked, hooked_path) = with_agent(json!([]), "ls -d /tmp/*; mkdir /tmp/x 2>&1; sleep 1000");
    let hook = json!([{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/by-hook"]}]);
    let hooked = hooked.set("/hooks", json!({ "startContainer": hook }));
    let by_hook = format!("/tmp/by-hook\n{REFUSED}");
    for (bundle, path, says) in [(narrow, narrow_path, REFUSED), (hooked, hooked_path, &by_hook)] {
        let agent = Agent::at(&path);
        let container = bundle.create();
        agent.heard(0);
        container.start();
        container.wait_stdout(says);
        let heard = agent.heard(1);
        assert_eq!(heard[0]["state"]["status"], "created");
    }
}

#[test]
fn an_agent_that_is_not_there_is_named_and_nothing_is_left() {
    requires!(bed);
    let (bundle, path) = with_agent(json!([]), "true");
    for verb in ["create", "run"] {
        let failed = bundle.verb(verb).arg(bundle.id()).fails();
        failed.assert_says(&format!("seccomp agent {path:?}"));
        assert!(!bundle.cgroup().exists());
        bundle.deja().args(["state", bundle.id()]).fails().assert_says("does not exist");
    }
}
