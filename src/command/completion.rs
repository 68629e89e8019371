//! `completion`: the script a shell loads.

use anyhow::Result;

use crate::cli;
use crate::error::Failure;

pub fn run(arguments: &cli::Completion) -> Result<()> {
    let shell = &arguments.shell;
    let unknown = || Failure::usage(format!("no completions for {shell:?}: {}", cli::SHELLS.join(", ")));
    super::print(&cli::completion(shell).ok_or_else(unknown)?)
}
