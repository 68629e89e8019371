//! What a verb may cost: system calls, and memory at its peak. The numbers are those of the static release build
//! with a little room, so that neither creeps up; who needs more raises them here and says why.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use support::{Bundle, Deja, requires};

/// For the bundle of these tests, which mounts, masks and drops all that an engine would: 41 calls of a `run` drop
/// one capability each, fourteen are those of the program itself.
struct Budget {
    calls: u64,
    /// Resident at the peak, in KiB, of deja itself.
    memory: u64,
}

const RUN: Budget = Budget { calls: 250, memory: 1500 };
const EXEC: Budget = Budget { calls: 140, memory: 1300 };
const STATE: Budget = Budget { calls: 23, memory: 1000 };
const KILL: Budget = Budget { calls: 15, memory: 1000 };
const DELETE: Budget = Budget { calls: 18, memory: 1000 };

/// Calls of `list` for each container: three for its record, four for its process (/proc takes three that last ten times as
/// long), three for a file of its cgroup, one for its start socket.
const LISTED: u64 = 11;

/// What a static glibc adds where Rust has no musl: a dozen calls and a third of a megabyte at each start.
const C_LIBRARY: Budget = match cfg!(target_env = "musl") {
    true => Budget { calls: 0, memory: 0 },
    false => Budget { calls: 25, memory: 400 },
};

/// Every system call under `strace -f -c`, from its total.
#[track_caller]
fn calls(bundle: &Bundle, deja: Deja) -> u64 {
    let report = bundle.file("calls");
    let finished = deja.wrapped_in(["strace", "-f", "-c", "-o", report.to_str().unwrap()]).output();
    assert_eq!(finished.code(), Some(0), "{finished}");
    let text = std::fs::read_to_string(&report).expect("strace's report");
    let total = text.lines().find(|line| line.trim_end().ends_with("total")).expect("a total");
    total.split_whitespace().nth(3).and_then(|calls| calls.parse().ok()).expect("a number of calls")
}

/// The peak of resident memory: strace holds deja at its end, so that /proc can be read.
#[track_caller]
fn memory(deja: Deja) -> u64 {
    let hold = "inject=exit_group:delay_enter=400000";
    let running =
        deja.wrapped_in(["strace", "-qq", "-o", "/dev/null", "-e", "trace=exit_group", "-e", hold]).spawn();
    let mut peak = 0;
    let mut seen = BTreeSet::new();
    while Path::new(&format!("/proc/{}/stat", running.pid())).exists() && !ended(running.pid()) {
        let children = format!("/proc/{0}/task/{0}/children", running.pid());
        for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
            let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            // strace forks before it executes deja, and a child of strace may be strace itself.
            let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if value("Name:") == Some("deja") {
                let size = value("VmHWM:").and_then(|size| size.trim_end_matches(" kB").parse().ok());
                peak = peak.max(size.unwrap_or(0));
                seen.insert(child.to_owned());
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let finished = running.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
    assert!(peak > 0 && !seen.is_empty(), "deja was never seen");
    peak
}

fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z'))
}

/// Both prices of one verb, each for a command of its own.
#[track_caller]
fn assert_within(name: &str, budget: &Budget, bundle: &Bundle, mut verb: impl FnMut() -> Deja) {
    let calls = calls(bundle, verb());
    let memory = memory(verb());
    let most = Budget { calls: budget.calls + C_LIBRARY.calls, memory: budget.memory + C_LIBRARY.memory };
    println!("{name}: {calls} system calls of {}, {memory} KiB of {}", most.calls, most.memory);
    assert!(calls <= most.calls, "{name}: {calls} system calls, {} are allowed", most.calls);
    let hint =
        "code that is new or has moved lies apart from the rest until scripts/layout --add has seen it";
    assert!(memory <= most.memory, "{name}: {memory} KiB, {} are allowed ({hint})", most.memory);
}

#[test]
fn run_costs_what_it_did() {
    requires!(bed, release, tool "strace");
    let bundle = Bundle::new().args(&["/bin/true"]);
    // Another container's, mostly; and the first on a machine hands controllers down to it.
    std::fs::create_dir_all(bundle.cgroup().parent().expect("a parent")).expect("the cgroup of all tests");
    Bundle::new().args(&["/bin/true"]).run().assert_code(0);
    assert_within("run", &RUN, &bundle, || bundle.verb("run").arg(bundle.id()));
}

#[test]
fn exec_and_state_cost_what_they_did() {
    requires!(bed, release, tool "strace");
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    assert_within("exec", &EXEC, &bundle, || container.exec_with(&[], &["/bin/true"]));
    assert_within("state", &STATE, &bundle, || container.verb("state", &[]));
}

#[test]
fn kill_and_delete_cost_what_they_did() {
    requires!(bed, release, tool "strace");
    let bundle = Bundle::new().sleeps().set("/linux/cgroupsPath", serde_json::json!(null));
    let mut next = 0;
    let mut container = || {
        next += 1;
        let id = format!("{}-{next}", bundle.id());
        bundle.verb("run").arg("--detach").arg(&id).ok();
        id
    };
    let bundle = &bundle;
    assert_within("kill", &KILL, bundle, || bundle.deja().arg("kill").arg(container()).arg("CONT"));
    let stopped = |id: &str| {
        bundle.deja().args(["kill", id, "KILL"]).ok();
        let gone = || bundle.deja().args(["state", id]).ok().stdout().contains("\"stopped\"").then_some(());
        support::eventually("the container to stop", gone);
    };
    assert_within("delete", &DELETE, bundle, || {
        let id = container();
        stopped(&id);
        bundle.deja().arg("delete").arg(id)
    });
}

#[test]
fn one_container_more_costs_list_what_it_did() {
    requires!(bed, release, tool "strace");
    let bundle = Bundle::new().sleeps().set("/linux/cgroupsPath", serde_json::json!(null));
    let list = || calls(&bundle, bundle.deja().arg("list"));
    bundle.verb("run").arg("--detach").arg(format!("{}-1", bundle.id())).ok();
    let one = list();
    for number in 2..=5 {
        bundle.verb("run").arg("--detach").arg(format!("{}-{number}", bundle.id())).ok();
    }
    let five = list();
    println!("{one} calls for one, {five} for five");
    assert!(five <= one + 4 * LISTED, "{one} system calls for one container, {five} for five");
}
