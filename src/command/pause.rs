//! `pause`: every process of the container stops where it is.

use std::time::Duration;

use anyhow::Result;

use crate::cli;
use crate::container::{Action, require};

/// How long the kernel may take to stop every process.
const WITHIN: Duration = Duration::from_secs(10);

pub fn run(global: &cli::Global, arguments: &cli::Pause) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    let _lock = container.lock()?;
    require(Action::Pause, container.id(), super::status(&container)?)?;
    super::cgroup_to("pause", &container)?.freeze(WITHIN)
}
