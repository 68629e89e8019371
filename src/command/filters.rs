//! Compiled seccomp filters, kept beside the containers: the same profile is compiled once.
//!
//! An entry holds the profile's text and the program. The text is compared byte for byte, so its name may be a
//! cheap hash, and an entry that is damaged or another's is only a miss.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::container::{Listener, Store};
use crate::launch::seccomp::{Arch, Program, compile};
use crate::log;
use crate::spec::seccomp::Seccomp;

const DIRECTORY: &str = ".filters";
const ENTRIES_MAX: usize = 64;

pub struct Filter {
    pub program: Program,
    pub listener: Option<Listener>,
}

/// The filter for the profile `text`, from the store or compiled and stored.
pub fn load(store: &Store, text: &str) -> Result<Filter> {
    let directory = store.root().join(DIRECTORY);
    let entry = directory.join(format!("{:016x}", hash(text.as_bytes())));
    let native = const { Arch::native() };
    if let Some(program) = stored(&entry, text, native) {
        return filter(program, text);
    }
    let profile: Seccomp = serde_json::from_str(text).context("linux.seccomp")?;
    let program = compile(&profile, native)?;
    program.warnings.iter().for_each(|warning| log::warning(warning));
    if let Err(error) = store_entry(&directory, &entry, text, &program) {
        log::warning(&format!("keep the compiled seccomp filter: {error:#}"));
    }
    filter(program, text)
}

/// Only a profile that notifies is looked at again: for whom to tell.
fn filter(program: Program, text: &str) -> Result<Filter> {
    let listener = match program.listener {
        false => None,
        true => {
            let profile: Seccomp = serde_json::from_str(text).context("linux.seccomp")?;
            let (path, metadata) = (profile.listener_path.to_string(), profile.listener_metadata.to_string());
            Some(Listener { path, metadata })
        }
    };
    Ok(Filter { program, listener })
}

fn stored(entry: &Path, text: &str, native: Arch) -> Option<Program> {
    let bytes = std::fs::read(entry).ok()?;
    let program = bytes.strip_prefix(&(text.len() as u64).to_le_bytes())?.strip_prefix(text.as_bytes())?;
    Program::from_bytes(program, native)
}

fn store_entry(directory: &Path, entry: &Path, text: &str, program: &Program) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("create {directory:?}"))?;
    make_room(directory)?;
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend(program.to_bytes());
    // Whoever writes at the same time has a name of its own and the same content.
    let draft = entry.with_extension(std::process::id().to_string());
    std::fs::write(&draft, bytes).with_context(|| format!("write {draft:?}"))?;
    std::fs::rename(&draft, entry).with_context(|| format!("rename {draft:?}"))
}

/// Profiles are few; where somebody makes a new one for every container, none is worth keeping.
fn make_room(directory: &Path) -> Result<()> {
    let entries: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    if entries.len() >= ENTRIES_MAX {
        for entry in entries {
            // Another deja may be doing the same.
            std::fs::remove_file(&entry).ok();
        }
    }
    Ok(())
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
