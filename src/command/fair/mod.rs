//! The verbs about sharing the CPU.

mod host;
pub mod plot;
pub mod restore;
pub mod run;
mod serve;
pub mod set;
pub mod simulate;
pub mod status;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cli::SharePolicy;
use crate::container::{Container, Store};
use crate::fair::base::Tidings;
use crate::fair::model::{Groups, Terms, check_group};
use crate::fair::simulate::scenario::PolicyName;
use crate::fair::terms::{self, Asked, Said};
use crate::spec;
use crate::systemd::property;

/// Files of `fair` beside the containers of a root. They are no directories, so they are no containers.
struct Places {
    lock: PathBuf,
    journal: PathBuf,
    socket: PathBuf,
    groups: PathBuf,
}

const GROUPS: &str = ".fair.groups";

impl Places {
    fn of(store: &Store) -> Self {
        let place = |name: &str| store.root().join(name);
        Self {
            lock: place(".fair.lock"),
            journal: place(".fair.journal"),
            socket: place(".fair.socket"),
            groups: place(GROUPS),
        }
    }
}

/// Annotations that say nothing understandable about shares make no container.
pub fn check<'a>(annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let said = terms::of_annotations(annotations)?;
    match said.is_empty() {
        true => Ok(()),
        false => terms::read(&said, Terms::default()).map(drop).context("annotations deja.fair"),
    }
}

/// What a container asks for: config.json's cpu.shares, its annotations, and what was said since.
fn asked(container: &Container) -> Result<Asked> {
    let annotations = container.record.annotations.iter();
    let mut said = terms::of_annotations(annotations.map(|(name, value)| (name.as_str(), value.as_str())))?;
    said.extend(container.record.fair.iter().flat_map(|sharing| sharing.said.clone()));
    terms::read(&said, Terms::of_shares(shares(container)?))
}

/// What config.json says; a container without one says nothing.
fn shares(container: &Container) -> Result<f64> {
    let Ok(bytes) = container.config() else { return Ok(1.0) };
    let spec = spec::load(&bytes)?;
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let shares = resources.and_then(|resources| resources.cpu.as_ref()).and_then(|cpu| cpu.shares);
    Ok(shares.filter(|shares| *shares > 0).map_or(1.0, Terms::from_cpu_shares))
}

/// What was said of classes and tenants.
#[derive(Serialize, Deserialize, Default)]
struct Told {
    version: u32,
    groups: std::collections::BTreeMap<String, Said>,
}

const VERSION: u32 = 1;

impl Told {
    fn load(path: &Path) -> Result<Self> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { version: VERSION, ..Self::default() });
            }
            bytes => bytes.with_context(|| format!("read {path:?}"))?,
        };
        let told: Self = serde_json::from_slice(&bytes).with_context(|| format!("read {path:?}"))?;
        if told.version != VERSION {
            bail!("read {path:?}: it was written by another deja (version {})", told.version);
        }
        Ok(told)
    }

    fn save(&self, path: &Path) -> Result<()> {
        let draft = path.with_extension("groups.new");
        fs::write(&draft, serde_json::to_vec(self)?).with_context(|| format!("write {draft:?}"))?;
        fs::rename(&draft, path).with_context(|| format!("replace {path:?}"))
    }

    fn terms(&self) -> Result<Groups> {
        let mut groups = Groups::new();
        for (name, said) in &self.groups {
            let asked = terms::read(said, Terms::default()).with_context(|| format!("@{name}"))?;
            check_group(name, &asked.terms)?;
            groups.insert(name.clone(), asked.terms);
        }
        Ok(groups)
    }
}

/// Units' managers hear what their cgroups have now, or they would write what they knew before again some day.
fn tell_units(tidings: &[Tidings]) -> Result<()> {
    if tidings.is_empty() {
        return Ok(());
    }
    let manager = super::systemd()?;
    for Tidings { unit, writes } in tidings {
        manager.change(unit, &property::merge(property::limits(writes)?, Vec::new()))?;
    }
    Ok(())
}

fn policy_name(policy: SharePolicy) -> PolicyName {
    match policy {
        SharePolicy::Static => PolicyName::Static,
        SharePolicy::Wfq => PolicyName::Wfq,
        SharePolicy::Strict => PolicyName::Strict,
        SharePolicy::StrictWithoutMinimum => PolicyName::StrictWithoutMinimum,
        SharePolicy::Lottery => PolicyName::Lottery,
        SharePolicy::Quota => PolicyName::Quota,
    }
}

pub use status::Source;

/// Columns as wide as they need to be; all but those named as text are numbers and stand to the right.
pub fn table<const N: usize>(texts: usize, rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            match column < texts {
                true => line.push_str(&format!("{gap}{cell:width$}")),
                false => line.push_str(&format!("{gap}{cell:>width$}")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
