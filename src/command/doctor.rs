//! `doctor`: what this machine lacks for containers, and what to do about it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{list, session};
use crate::cli;
use crate::doctor::{self, Finding, Request, Verdict};
use crate::error::sentence;
use crate::sys::process::effective_uid;

#[derive(Serialize)]
struct Report {
    /// Containers run.
    usable: bool,
    findings: Vec<Finding>,
}

pub fn run(global: &cli::Global, arguments: &cli::Doctor) -> Result<i32> {
    let manager = super::systemd().and_then(|manager| manager.reach());
    let request = Request {
        state: super::store(global)?.root().to_owned(),
        // Without a home there are no sessions.
        sessions: session::store_path(&arguments.at).unwrap_or_default(),
        user: list::owner_name(effective_uid()),
        home: std::env::var_os("HOME").map(PathBuf::from),
        path: std::env::var_os("PATH"),
        systemd: Some(manager.map_err(|error| sentence(&error))),
    };
    let findings = doctor::judge(&doctor::read(&request));
    let usable = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
    if arguments.at.json {
        let report = Report { usable, findings };
        let text = serde_json::to_string_pretty(&report).context("write the findings as JSON")?;
        super::print(&format!("{text}\n"))?;
    } else {
        super::print(&findings.iter().map(line).collect::<String>())?;
    }
    Ok(i32::from(!usable))
}

fn line(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Missing => "missing",
    };
    let next = if finding.next.is_empty() { String::new() } else { format!(" -> {}", finding.next) };
    format!("{verdict:<9}{:<18}{}{next}\n", finding.check, finding.what)
}
