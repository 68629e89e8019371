//! `fair set`: other terms for a container, a class or a tenant. A `fair run` that runs sees the file change;
//! without one they are only kept, and that is said.

use anyhow::{Result, bail};

use super::{Places, Told, serve};
use crate::cli::{self, Global};
use crate::container::{Action, require};
use crate::fair::model::{Terms, check_group};
use crate::fair::terms::{self, Said};

pub fn run(global: &Global, arguments: &cli::FairSet) -> Result<()> {
    let said = said(arguments);
    if said.is_empty() {
        bail!("fair set: nothing to change: give at least one of --{}", terms::WORDS.join(", --"));
    }
    match arguments.id.strip_prefix('@') {
        Some(name) => group(global, name, &said)?,
        None => container(global, &arguments.id, said)?,
    }
    if serve::is_there(&Places::of(&super::super::store(global)?).socket) {
        return Ok(());
    }
    super::super::print("kept for the next deja fair run: none is at work, so it has no effect yet\n")
}

fn said(arguments: &cli::FairSet) -> Said {
    let words = [
        ("shares", &arguments.shares),
        ("reservation", &arguments.reservation),
        ("limit", &arguments.limit),
        ("class", &arguments.class),
        ("tenant", &arguments.tenant),
        ("best-effort", &arguments.best_effort),
        ("memory-reservation", &arguments.memory_reservation),
        ("memory-limit", &arguments.memory_limit),
        ("squeeze", &arguments.squeeze),
    ];
    words.into_iter().filter_map(|(word, value)| Some((word.to_owned(), value.clone()?))).collect()
}

fn container(global: &Global, id: &str, said: Said) -> Result<()> {
    let store = super::super::store(global)?;
    let lock = store.load(id)?.lock()?;
    // Only now nobody else changes the record.
    let mut container = store.load(id)?;
    require(Action::Update, container.id(), super::super::status(&container)?)?;
    container.record.fair.get_or_insert_default().said.extend(said);
    super::asked(&container)?;
    container.rewrite(&lock)
}

/// Classes and tenants need not have a container yet.
fn group(global: &Global, name: &str, said: &Said) -> Result<()> {
    let store = super::super::store(global)?;
    store.make_root()?;
    if name.is_empty() || name.split('/').any(str::is_empty) || name.split('/').count() > 2 {
        bail!("\"@{name}\" is neither @CLASS nor @CLASS/TENANT");
    }
    let own = ["class", "tenant", "memory-reservation", "memory-limit", "squeeze"];
    if let Some(word) = own.into_iter().find(|word| said.contains_key(*word)) {
        bail!("--{word} is a container's: \"@{name}\" is a group itself");
    }
    let path = Places::of(&store).groups;
    let mut told = Told::load(&path)?;
    let group = told.groups.entry(name.to_owned()).or_default();
    group.extend(said.clone());
    check_group(name, &terms::read(group, Terms::default())?.terms)?;
    told.save(&path)
}
