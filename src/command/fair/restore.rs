//! `fair restore`: what a `fair run` that was killed could not do any more.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Places;
use crate::cli::Global;
use crate::fair::base::Journal;
use crate::sys::fs::{FlockOperation, flock};
use crate::sys::{Errno, Reason};
use crate::{error, log};

pub fn run(global: &Global) -> Result<()> {
    let store = super::super::store(global)?;
    if !store.root().exists() {
        return Ok(());
    }
    let places = Places::of(&store);
    let _lock = lock(&places.lock)?;
    for path in journal(&places.journal)? {
        super::super::print(&format!("restored {path}\n"))?;
    }
    Ok(())
}

/// Brings back what the journal says and removes it; gives the cgroups that had something else.
pub fn journal(path: &Path) -> Result<Vec<String>> {
    let journal = match Journal::load(path) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(journal)) => journal,
        Err(failure) => {
            // It is replaced whole, so no crash has damaged it; without it there is nothing to go by.
            log::warning(&format!("cannot restore weights: {}", error::sentence(&failure)));
            return Ok(Vec::new());
        }
    };
    let restored = journal.restore()?;
    if let Err(failure) = super::tell_units(&restored.tidings) {
        log::warning(&format!("restore: {}", error::sentence(&failure)));
    }
    restored
        .failed
        .iter()
        .for_each(|failure| log::warning(&format!("restore: {}", error::sentence(failure))));
    Journal::remove(path)?;
    Ok(restored.paths)
}

/// One `fair run` per root; whoever holds the file's lock is it.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.with_context(|| format!("open {path:?}"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(fault) if fault.errno == Errno::AGAIN => {
            let mut other = String::new();
            file.read_to_string(&mut other).with_context(|| format!("read {path:?}"))?;
            bail!("deja fair run is at work already (process {})", other.trim());
        }
        Err(fault) => bail!("lock {path:?}: {}", Reason(fault.errno)),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .with_context(|| format!("write {path:?}"))?;
    Ok(file)
}
