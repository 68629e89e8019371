//! `checkpoint --check`: what could not be saved, before anything is stopped.

use anyhow::{Context, Result};
use serde::Serialize;

use super::label;
use crate::checkpoint::{self, Allowed, Obstacle};
use crate::cli::{self, Format, Global};
use crate::container::{Action, Container, require};
use crate::spec;

#[derive(Serialize)]
struct Report<'a> {
    id: &'a str,
    possible: bool,
    obstacles: &'a [Obstacle],
}

/// Gives the exit code: 1 when something stands in the way.
pub fn run(global: &Global, arguments: &cli::Checkpoint) -> Result<i32> {
    let container = super::super::store(global)?.load(&arguments.id)?;
    require(Action::Checkpoint, container.id(), super::super::status(&container)?)?;
    let allowed = Allowed {
        tcp_established: arguments.tcp_established,
        file_locks: arguments.file_locks,
        shell_job: arguments.shell_job,
    };
    let obstacles = find(&container, allowed)?;
    let text = match arguments.format {
        Format::Table => table(&obstacles),
        Format::Json => {
            let report = Report { id: container.id(), possible: obstacles.is_empty(), obstacles: &obstacles };
            format!("{}\n", serde_json::to_string_pretty(&report)?)
        }
    };
    super::super::print(&text)?;
    Ok(i32::from(!obstacles.is_empty()))
}

fn find(container: &Container, allowed: Allowed) -> Result<Vec<Obstacle>> {
    let init = container.living_pid()?.context("container not running")?;
    let cgroup = container.record.cgroup.as_ref().map(super::super::cgroup).transpose()?.flatten();
    let pids = cgroup.map_or(Ok(vec![init]), |cgroup| cgroup.processes())?;
    let mounted = checkpoint::parse(&super::mount_table(init)?)?;
    let mut survey = checkpoint::survey(init, &pids, &mounted)?;
    let config = container.config()?;
    survey.unsaved_label = label::unsaved(spec::load(&config)?.process.as_ref())?;
    Ok(checkpoint::obstacles(&survey, allowed))
}

fn table(obstacles: &[Obstacle]) -> String {
    if obstacles.is_empty() {
        return "nothing stands in the way\n".to_owned();
    }
    let line = |one: &Obstacle| {
        let who = one.pid.map(|pid| format!("process {pid} ({}) ", one.command)).unwrap_or_default();
        let advice = if one.advice.is_empty() { String::new() } else { format!("; {}", one.advice) };
        format!("{who}{}{advice}\n", one.reason)
    };
    obstacles.iter().map(line).collect()
}
