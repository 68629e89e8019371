//! `session verify` and `session gc`: keeping a store whole and small.

use anyhow::{Result, bail};
use serde::Serialize;

use super::run;
use crate::cli::{self, Global};
use crate::session::{check, collect};

#[derive(Serialize)]
struct Verified {
    checked: usize,
    removed: Vec<String>,
    stranded: Vec<String>,
}

pub fn verify(global: &Global, arguments: &cli::SessionVerify) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.own()?;
    run::sweep(global, &store, true)?;
    let check::Findings { checked, removed, stranded } = check::verify(&store)?;
    if arguments.at.json {
        super::print_json(&Verified { checked, removed: removed.clone(), stranded: stranded.clone() })?;
    } else {
        let lines: String =
            removed.iter().map(|name| format!("removed {name}: damaged or incomplete\n")).collect();
        let lost: String =
            stranded.iter().map(|name| format!("session {name} stands at a state that is gone\n")).collect();
        crate::command::print(&format!(
            "{lines}{lost}{checked} files and layers checked, {} removed\n",
            removed.len()
        ))?;
    }
    match stranded.as_slice() {
        [] => Ok(()),
        [name, ..] => bail!(
            "session {name:?} stands at a state that is gone: \"session goto\" or \"undo\" leads it elsewhere"
        ),
    }
}

#[derive(Serialize)]
struct Collected {
    before: u64,
    after: u64,
    removed: usize,
}

pub fn gc(global: &Global, arguments: &cli::SessionGc) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.own()?;
    run::sweep(global, &store, true)?;
    let limit = arguments.limit.and_then(|limit| u64::try_from(limit.0).ok());
    let collected = collect::collect(&store, limit)?;
    let collect::Collected { before, after, removed, over } = collected;
    match arguments.at.json {
        true => super::print_json(&Collected { before, after, removed })?,
        false => crate::command::print(&format!(
            "{removed} files and layers removed, {} KiB before, {} KiB after\n",
            before >> 10,
            after >> 10
        ))?,
    }
    if over {
        bail!("the limit is exceeded by what sessions stand on: close some with \"session close\"");
    }
    Ok(())
}
