//! The way of somebody's archive to a directory that can be restored from.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::scratch::Scratch;
use crate::checkpoint::{self, IMAGE, Part};
use crate::log;
use crate::sys::file;
use crate::tar::{self, Attributes, Reader, Unpacker};

/// Everything in `archive` that a restore needs.
pub fn unpack(archive: &Path) -> Result<Scratch> {
    let of = || format!("import {archive:?}");
    let file = std::fs::File::open(archive).with_context(of)?;
    ensure!(file.metadata().with_context(of)?.is_file(), "import {archive:?}: it is no file");
    let scratch = Scratch::make()?;
    unpack_into(&scratch, file).with_context(of)?;
    Ok(scratch)
}

fn unpack_into(scratch: &Scratch, archive: std::fs::File) -> Result<()> {
    // A small archive can hold very much: what does not fit is refused when it is announced, not when the disk is full.
    let (bytes, _) = file::room(scratch.directory())?;
    let mut reader = Reader::new(tar::decompress(archive)?, checkpoint::limits(bytes));
    let mut unpacker = Unpacker::new(scratch.directory(), Attributes::None);
    let mut images = 0;
    while let Some(entry) = reader.next_entry()? {
        match checkpoint::part(&entry)? {
            Part::Needed => unpacker.put(&entry, &mut reader)?,
            Part::Passed => continue,
            Part::Lost => log::warning(&format!("import: {:?} is not brought back", entry.display_name())),
        }
        images += u32::from(entry.name.starts_with(IMAGE.as_bytes()));
    }
    unpacker.finish()?;
    ensure!(images > 0, "there is no checkpoint in it");
    Ok(())
}
