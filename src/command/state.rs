//! `state`: what there is to say about one container, as JSON.

use anyhow::{Context, Result};

use crate::cli;

pub fn run(global: &cli::Global, arguments: &cli::State) -> Result<()> {
    let container = super::store(global)?.load(&arguments.id)?;
    let status = super::status(&container)?;
    let owner = super::list::owner_name(container.record.owner);
    let mut text = serde_json::to_string_pretty(&container.record.listing(status, &owner))
        .context("write the state as JSON")?;
    text.push('\n');
    super::print(&text)
}
