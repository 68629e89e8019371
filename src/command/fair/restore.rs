//! `fair restore`: what a `fair run` that was killed could not do any more.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Places;
use crate::cli::Global;
use crate::container::life;
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

/// One that was killed may take so long to end.
const ENDS: Duration = Duration::from_secs(10);
/// So long after it was killed it says that it is ending, at the latest.
const SHOWS: Duration = Duration::from_millis(100);

/// One `fair run` per root; whoever holds the file's lock is it. One that was killed a moment ago holds its locks, this
/// one and those on cgroups, until it has ended, and that is waited for.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = file.with_context(|| format!("open {path:?}"))?;
    let began = Instant::now();
    loop {
        let locked = is_locked(&file, path)?;
        let holder = std::fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
        let ending = match holder.trim().parse() {
            Ok(pid) => life(pid)?.is_some_and(|life| life.ending),
            Err(_) => false,
        };
        if locked && !ending {
            break;
        }
        let patience = if ending { ENDS } else { SHOWS };
        if began.elapsed() > patience {
            bail!("deja fair run is at work already (process {})", holder.trim());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    file.set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .with_context(|| format!("write {path:?}"))?;
    Ok(file)
}

/// Locks the file unless somebody else has.
fn is_locked(file: &File, path: &Path) -> Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(fault) if fault.errno == Errno::AGAIN => Ok(false),
        Err(fault) => bail!("lock {path:?}: {}", Reason(fault.errno)),
    }
}
