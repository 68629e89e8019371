//! `fair`: the simulated machine, driven through the binary.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Deja, requires};

fn scenarios() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fair");
    let entries = std::fs::read_dir(directory).expect("the scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    assert!(paths.len() > 10, "{paths:?}");
    paths
}

fn simulate(scenario: &Path, flags: &[&str]) -> Value {
    let words = ["fair", "simulate", "--format", "json"];
    Deja::bare().args(words).args(flags).arg(scenario).ok().json()
}

#[test]
fn a_scenario_says_the_same_again() {
    let small = ["one-to-two.json", "sleeper.json", "hard-limit.json"];
    for scenario in scenarios().into_iter().filter(|path| small.iter().any(|name| path.ends_with(name))) {
        let flags = ["--policy", "wfq", "--kernel", "group", "--seed", "7"];
        let first = simulate(&scenario, &flags);
        assert!(!first["runs"].as_array().expect("runs").is_empty(), "{scenario:?}");
        assert_eq!(first, simulate(&scenario, &flags), "{scenario:?}");
    }
}

/// After a change that is meant: DEJA_GOLDEN=write cargo test --test fair golden.
#[test]
fn every_policy_does_what_the_golden_traces_say() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fair/golden");
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().display().to_string();
    simulate(&golden.join("scenario.json"), &["--output", &output]);
    let mut compared = 0;
    for entry in std::fs::read_dir(directory.path()).expect("the traces") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let name = path.file_name().expect("a name").to_string_lossy().replace("scenario-", "");
        let trace = std::fs::read_to_string(&path).expect("a trace");
        if std::env::var_os("DEJA_GOLDEN").is_some_and(|word| word == "write") {
            std::fs::write(golden.join(&name), &trace).expect("write the trace");
        }
        let expected = std::fs::read_to_string(golden.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let differ = trace.lines().zip(expected.lines()).position(|(now, then)| now != then);
        assert_eq!(differ, None, "{name}, line counted from 0");
        assert_eq!(trace.lines().count(), expected.lines().count(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 12, "six policies on two kernels");
}

#[test]
fn one_to_two_is_one_and_two_of_three_on_either_kernel() {
    let scenario =
        scenarios().into_iter().find(|path| path.ends_with("one-to-two.json")).expect("one-to-two");
    let outcome = simulate(&scenario, &["--policy", "wfq"]);
    let runs = outcome["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2, "one for each reading of cpu.weight");
    for run in runs {
        assert!(run["worst"].as_f64().expect("worst") <= 0.02, "{run}");
        assert!(run["jain"].as_f64().expect("jain") >= 0.999, "{run}");
    }
}

/// Both kernels, under `wfq`: nobody's share is off by more than `worst`, nor by a hundredth more than without it, and
/// nothing is written when nothing changes.
#[track_caller]
fn assert_fair(scenario: &str, worst: f64) {
    let path =
        scenarios().into_iter().find(|path| path.ends_with(format!("{scenario}.json"))).expect(scenario);
    let under = |policy: &str| simulate(&path, &["--policy", policy, "--kernel", "group", "--kernel", "cpu"]);
    let (tuned, plain) = (under("wfq"), under("static"));
    let runs = tuned["runs"].as_array().expect("runs").iter().zip(plain["runs"].as_array().expect("runs"));
    for (run, plain) in runs {
        let number = |name: &str| run[name].as_f64().expect(name);
        assert!(
            number("worst") <= plain["worst"].as_f64().expect("worst") + 0.01,
            "{scenario}: {run} {plain}"
        );
        let figures = format!("{scenario}, weight per {}: {}", run["kernel"], number("worst"));
        assert!(number("worst") <= worst, "{figures}");
        assert!(number("jain") >= 0.999, "{figures}, Jain {}", number("jain"));
        assert_eq!(number("writesAtRest"), 0.0, "{figures}");
    }
}

#[test]
fn who_always_wants_to_run_gets_its_share_on_either_kernel() {
    // Arithmetic without optimisation takes too long.
    requires!(release);
    let scenarios = [
        "one-to-two",
        "threads-1-2",
        "threads-1-16",
        "threads-1-2-4",
        "threads-4-8",
        "shares-1-2-3",
        "shares-1-10",
        "tenants-5-1",
        "five-on-two",
        "stolen",
        "idle-share",
        "best-effort",
        "dynamics",
    ];
    scenarios.iter().for_each(|scenario| assert_fair(scenario, 0.02));
}

#[test]
fn three_levels_of_a_hundred_containers_get_their_shares() {
    requires!(release);
    assert_fair("three-levels", 0.03);
    assert_fair("three-levels-on-two", 0.03);
}

#[test]
fn a_recording_becomes_a_picture() {
    let directory = tempfile::tempdir().expect("a directory");
    let scenario =
        scenarios().into_iter().find(|path| path.ends_with("one-to-two.json")).expect("one-to-two");
    let output = directory.path().display().to_string();
    Deja::bare().args(["fair", "simulate", "--policy", "wfq", "--output", &output]).arg(&scenario).ok();
    let drawn: Vec<_> = std::fs::read_dir(directory.path()).expect("plots").collect();
    assert!(!drawn.is_empty(), "nothing was drawn");
}
