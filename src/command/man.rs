//! `man`: the manual pages, written to a directory.

use anyhow::{Context, Result};

use crate::cli;

pub fn run(arguments: &cli::Man) -> Result<()> {
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("create {directory:?}"))?;
    for (name, text) in cli::pages() {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {path:?}"))?;
    }
    Ok(())
}
