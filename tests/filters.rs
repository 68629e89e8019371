//! Seccomp in a container: what a profile forbids fails as it says, and an agent is asked where it wants to be.

mod support;

use std::io::Read;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use support::{Bundle, eventually, requires};

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

#[test]
fn an_agent_gets_the_listener_and_the_state() {
    requires!(bed);
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
    let bundle = bundle(rules, "sleep 1000");
    let path = bundle.file("agent.sock");
    let bundle = bundle
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("for the agent"));
    let agent = UnixListener::bind(&path).expect("listen");
    agent.set_nonblocking(true).expect("non-blocking");
    let container = bundle.start();
    let (mut stream, _) = eventually("the runtime to call", || agent.accept().ok());
    stream.set_nonblocking(false).expect("blocking");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read the state");
    let said: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["metadata"], "for the agent");
    assert_eq!(said["fds"], json!(["seccompFd"]));
    assert_eq!(said["state"]["id"], bundle.id());
    assert_eq!(said["pid"], container.pid());
    let nobody = Bundle::new()
        .set("/linux/seccomp", profile(json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}])))
        .set("/linux/seccomp/listenerPath", json!("/no/agent"));
    nobody.run().assert_says("seccomp agent \"/no/agent\"");
}
