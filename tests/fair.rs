//! `fair`: the simulated machine, driven through the binary.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::Deja;

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
