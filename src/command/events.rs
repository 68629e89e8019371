//! `events`: what a container uses, now or every few seconds, and each kill for lack of memory; one JSON
//! object per line. Ends with the container's last process.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cgroup::usage::Usage;
use crate::cgroup::{Cgroup, Change, Watch};
use crate::cli::{self, Interval};
use crate::container::{Action, require};
use crate::{error, log};

const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Usage>,
}

pub fn run(global: &cli::Global, arguments: &cli::Events) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    require(Action::Events, container.id(), super::status(&container)?)?;
    let cgroup = super::cgroup_to("read the events of", &container)?;
    if arguments.stats {
        return tell("stats", container.id(), Some(Usage::read(&cgroup)?));
    }
    follow(container.id(), &cgroup, arguments.interval.map_or(INTERVAL, |Interval(time)| time))
}

fn follow(id: &str, cgroup: &Cgroup, interval: Duration) -> Result<()> {
    let mut watch = Watch::new(cgroup)?;
    let mut next = Instant::now() + interval;
    loop {
        match watch.next(next)? {
            Change::Empty => return Ok(()),
            Change::OutOfMemory => tell("oom", id, None)?,
            Change::Nothing => {
                next += interval;
                match Usage::read(cgroup) {
                    Ok(usage) => tell("stats", id, Some(usage))?,
                    // The next change says why, if the container has ended.
                    Err(failure) => log::warning(&error::sentence(&failure)),
                }
            }
        }
    }
}

fn tell(kind: &'static str, id: &str, data: Option<Usage>) -> Result<()> {
    let mut line = serde_json::to_string(&Event { kind, id, data }).context("write an event as JSON")?;
    line.push('\n');
    super::print(&line)
}
