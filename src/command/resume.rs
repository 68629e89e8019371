//! `resume`: the processes of a paused container go on.

use anyhow::Result;

use crate::cli;
use crate::container::{Action, require};

pub fn run(global: &cli::Global, arguments: &cli::Resume) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    let _lock = container.lock()?;
    require(Action::Resume, container.id(), super::status(&container)?)?;
    super::cgroup_to("resume", &container)?.thaw()
}
