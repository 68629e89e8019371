//! `help`, `--help` and `--version`.

use anyhow::Result;

use crate::cli;
use crate::error::Failure;
use crate::spec;

pub fn run(program: &str, arguments: &cli::Help) -> Result<()> {
    let topic = arguments.topic.join(" ");
    let text = match topic.as_str() {
        "" => cli::overview(program),
        topic => cli::verb_help(program, topic)
            .ok_or_else(|| Failure::usage(format!("No help topic for '{topic}'")))?,
    };
    super::print(&text)
}

pub fn version(program: &str) -> Result<()> {
    // The build sets it where it knows it.
    let commit = option_env!("DEJA_COMMIT").unwrap_or("unknown");
    super::print(&cli::version(program, commit, spec::VERSION))
}
