//! `fair simulate`: a scenario on a simulated machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cli::{self, Format, WeightMeaning};
use crate::fair::plot::draw;
use crate::fair::record::{self, rounded};
use crate::fair::simulate::scenario::{Kernel, Scenario};
use crate::fair::simulate::{self, Outcome};
use crate::plot;

pub fn run(arguments: &cli::FairSimulate) -> Result<()> {
    let path = &arguments.scenario;
    let text = fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
    let mut scenario = Scenario::parse(&text).with_context(|| format!("{path:?}"))?;
    if !arguments.policy.is_empty() {
        scenario.policies = arguments.policy.iter().copied().map(super::policy_name).collect();
    }
    if !arguments.kernel.is_empty() {
        scenario.kernels = arguments.kernel.iter().copied().map(kernel).collect();
    }
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    let mut outcomes = Vec::new();
    for kernel in &scenario.kernels {
        for policy in &scenario.policies {
            outcomes.push(simulate::run(&scenario, *policy, *kernel));
        }
    }
    if let Some(directory) = &arguments.output {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        save(directory, &stem, &scenario, &outcomes)?;
    }
    match arguments.format {
        Format::Json => {
            let runs: Vec<Value> = outcomes.iter().map(as_json).collect();
            super::super::print(&format!("{:#}\n", json!({"name": scenario.name, "runs": runs})))
        }
        Format::Table => super::super::print(&as_text(&scenario, &outcomes)),
    }
}

fn kernel(meaning: WeightMeaning) -> Kernel {
    match meaning {
        WeightMeaning::Group => Kernel::Group,
        WeightMeaning::Cpu => Kernel::Cpu,
    }
}

fn save(directory: &Path, stem: &str, scenario: &Scenario, outcomes: &[Outcome]) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {directory:?}"))?;
    for outcome in outcomes {
        let (kernel, policy) = (outcome.kernel.meaning().name(), outcome.policy.name());
        let name = directory.join(format!("{stem}-{kernel}-{policy}"));
        let lines: String = outcome.points.iter().map(|point| record::line(point) + "\n").collect();
        let recording = name.with_extension("jsonl");
        fs::write(&recording, lines).with_context(|| format!("write {recording:?}"))?;
        let title = format!("{}: {policy}, weight per {kernel}", scenario.name);
        if let Some(shapes) = draw(&title, &outcome.points) {
            for extension in ["svg", "png"] {
                let file = name.with_extension(extension);
                let picture = plot::file(&shapes, &file);
                fs::write(&file, picture).with_context(|| format!("write {file:?}"))?;
            }
        }
    }
    Ok(())
}

fn as_json(outcome: &Outcome) -> Value {
    let containers: Vec<Value> = outcome
        .containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name,
                "entitled": rounded(container.entitled),
                "received": rounded(container.received),
                "error": rounded(container.error()),
                "lag": rounded(container.lag),
            })
        })
        .collect();
    json!({
        "kernel": outcome.kernel.meaning().name(),
        "policy": outcome.policy.name(),
        "worst": rounded(outcome.worst),
        "jain": rounded(outcome.jain),
        "median1s": rounded(outcome.middle),
        "p95of1s": rounded(outcome.high),
        "used": rounded(outcome.used),
        "usable": rounded(outcome.usable),
        "writes": outcome.writes,
        "writesAtRest": outcome.writes_at_rest,
        "containers": containers,
    })
}

/// More containers than this are not listed one by one.
const LISTED: usize = 12;

fn as_text(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let mut text = format!("{}\n", scenario.name);
    if !scenario.about.is_empty() {
        text.push_str(&format!("{}\n", scenario.about));
    }
    let header = ["KERNEL", "POLICY", "CONTAINER", "ENTITLED", "RECEIVED", "ERROR", "MOST BEHIND"];
    let mut rows = vec![header.map(str::to_owned)];
    if scenario.containers.len() <= LISTED {
        for outcome in outcomes {
            let (kernel, policy) = (outcome.kernel.meaning().name(), outcome.policy.name());
            rows.extend(outcome.containers.iter().map(|container| {
                [
                    kernel.to_owned(),
                    policy.to_owned(),
                    container.name.clone(),
                    format!("{:.2} s", container.entitled),
                    format!("{:.2} s", container.received),
                    format!("{:+.1} %", container.error() * 100.0),
                    format!("{:.2} s", container.lag),
                ]
            }));
        }
        text.push_str(&format!("\n{}", super::table(3, &rows)));
    }
    let header =
        ["KERNEL", "POLICY", "WORST", "JAIN", "1 S: HALF", "1 S: 19 OF 20", "CPU USED", "WRITES", "AT REST"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| {
        [
            outcome.kernel.meaning().name().to_owned(),
            outcome.policy.name().to_owned(),
            format!("{:.2} %", outcome.worst * 100.0),
            format!("{:.4}", outcome.jain),
            format!("{:.1} %", outcome.middle * 100.0),
            format!("{:.1} %", outcome.high * 100.0),
            format!("{:.1} %", outcome.used / outcome.usable.max(1e-9) * 100.0),
            outcome.writes.to_string(),
            outcome.writes_at_rest.to_string(),
        ]
    }));
    text.push_str(&format!("\n{}", super::table(2, &rows)));
    text
}
