//! `ps`: the processes of a container, as pids or as ps(1) shows them.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cli::{self, Format};
use crate::container::{Container, Status};

pub fn run(global: &cli::Global, arguments: &cli::Ps) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    let pids = processes(&container)?;
    match arguments.format {
        Format::Json => {
            let numbers: Vec<String> = pids.iter().map(i32::to_string).collect();
            super::print(&format!("[{}]\n", numbers.join(",")))
        }
        Format::Table => super::print(&table(&pids, &arguments.arguments)?),
    }
}

fn processes(container: &Container) -> Result<BTreeSet<i32>> {
    let Some(place) = &container.record.cgroup else {
        return match super::status(container)? {
            Status::Stopped => Ok(BTreeSet::new()),
            _ => bail!("cannot list the processes of container {:?}: it has no cgroup", container.id()),
        };
    };
    match super::cgroup(place)? {
        Some(cgroup) => Ok(cgroup.processes()?.into_iter().collect()),
        None => Ok(BTreeSet::new()),
    }
}

fn table(pids: &BTreeSet<i32>, arguments: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let arguments = if arguments.is_empty() { &default } else { arguments };
    let output = Command::new("ps").args(arguments).output().context("run ps")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("ps: {}: {}{}", output.status, text, String::from_utf8_lossy(&output.stderr));
    }
    select(&text, pids)
}

/// The header and the lines whose PID column names one of `pids`.
fn select(text: &str, pids: &BTreeSet<i32>) -> Result<String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|title| title == "PID")
        .context("couldn't find PID field in ps output")?;
    let mut selected = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            selected.push_str(line);
            selected.push('\n');
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_pid_column() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init\nroot   42     1 42 43\njo     43    42 sh\n\n";
        let chosen = select(text, &[42].into()).unwrap();
        assert_eq!(chosen, "UID   PID  PPID CMD\nroot   42     1 42 43\n");
        assert!(select("A B\n", &[1].into()).is_err());
        assert!(select("", &[1].into()).is_err());
    }
}
