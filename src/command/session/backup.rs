//! `session backup` and `session restore`: sessions that go from one store to another, or are kept elsewhere.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::enter;
use super::replay::counted;
use crate::cli;
use crate::session::backup;
use crate::session::store::Store;
use crate::sys::file;
use crate::tar::{Compression, Compressor, decompress};

#[derive(Serialize)]
struct Backed {
    sessions: Vec<String>,
    states: usize,
    transitions: usize,
}

pub fn backup(arguments: &cli::SessionBackup) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    enter::enter(&store)?;
    let selection = backup::select(&store, &arguments.sessions)?;
    write_whole(&arguments.file, |to| {
        let compressor = backup::write(&store, &selection, Compressor::new(to, Compression::Zstd))?;
        Ok(compressor.finish().map(drop)?)
    })
    .with_context(|| format!("back up to {:?}", arguments.file))?;
    let backup::Selection { sessions, states, transitions, .. } = selection;
    let (states, transitions) = (states.len(), transitions.len());
    match arguments.at.json {
        _ if arguments.file.as_os_str() == "-" => Ok(()),
        true => super::print_json(&Backed { sessions, states, transitions }),
        false => crate::command::print(&format!(
            "{}, {} and {}\n",
            counted(sessions.len(), "session"),
            counted(states, "state"),
            counted(transitions, "transition")
        )),
    }
}

/// Writes a file whole or not at all; `-` is the standard output.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.as_os_str() == "-" {
        let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    let draft = draft_beside(path);
    let written = (|| {
        let mut out = BufWriter::with_capacity(256 << 10, File::create(&draft)?);
        write(&mut out)?;
        file::sync(out.into_inner().map_err(|error| error.into_error())?)?;
        Ok(fs::rename(&draft, path)?)
    })();
    if written.is_err() {
        // The error is the one worth telling.
        fs::remove_file(&draft).ok();
    }
    written
}

/// A name for what is not whole yet, in the same directory.
pub fn draft_beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".part-{}", std::process::id()));
    name.into()
}

#[derive(Serialize)]
struct Restored {
    sessions: Vec<String>,
}

pub fn restore(arguments: &cli::SessionRestore) -> Result<()> {
    let store = Store::create(super::store_path(&arguments.at)?)?;
    enter::enter(&store)?;
    let _held = store.share()?;
    let path = &arguments.file;
    let open = || -> Result<Box<dyn Read>> {
        Ok(match path.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => Box::new(BufReader::new(File::open(path)?)),
        })
    };
    let restored =
        open().and_then(|file| backup::restore(&store, decompress(file)?, arguments.name.as_deref()));
    let sessions = restored.with_context(|| format!("restore {path:?}")).map_err(enter::explained)?;
    match arguments.at.json {
        true => super::print_json(&Restored { sessions }),
        false => crate::command::print(&sessions.iter().map(|name| format!("{name}\n")).collect::<String>()),
    }
}
