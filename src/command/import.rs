//! The way of somebody's archive to a directory that can be restored from.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::scratch::Scratch;
use crate::checkpoint::{self, IMAGE, Part};
use crate::log;
use crate::oci::{self, Blob, Hashing, Small};
use crate::sys::file;
use crate::tar::{self, Attributes, Kind, Reader, Unpacker};

/// Everything in `archive` that a restore needs.
pub fn unpack(archive: &Path) -> Result<Scratch> {
    let of = || format!("import {archive:?}");
    let file = File::open(archive).with_context(of)?;
    ensure!(file.metadata().with_context(of)?.is_file(), "import {archive:?}: it is no file");
    let scratch = Scratch::make()?;
    unpack_into(&scratch, &file).with_context(of)?;
    Ok(scratch)
}

fn unpack_into(scratch: &Scratch, mut archive: &File) -> Result<()> {
    // A small archive can hold very much: what does not fit is refused when it is announced, not when the disk is full.
    let (bytes, _) = file::room(scratch.directory())?;
    let limits = checkpoint::limits(bytes);
    let mut open = || -> Result<_> {
        archive.rewind()?;
        Ok(Reader::new(tar::decompress(archive)?, limits))
    };
    if !open()?.next_entry()?.is_some_and(|first| oci::is_of_layout(&first.name)) {
        return put(scratch, &mut open()?);
    }
    let layer = only_layer(open()?)?;
    let mut image = open()?;
    while let Some(entry) = image.next_entry()? {
        if entry.name == layer.path.as_bytes() && entry.kind == Kind::File {
            let mut content = Hashing::new(tar::decompress(&mut image)?);
            put(scratch, &mut Reader::new(&mut content, limits))?;
            return content.check(&layer.content).context("the image's layer is damaged");
        }
    }
    bail!("the image's layer is missing: {:?}", layer.path)
}

/// What of a checkpoint that is an image holds the archive.
fn only_layer(image: Reader<impl Read>) -> Result<Blob> {
    let mut layers = oci::find(&Small::of(image)?, None)?.layers;
    ensure!(layers.len() == 1, "it is an image of {} layers, and that of a checkpoint has one", layers.len());
    layers.pop().context("it has no layers")
}

fn put(scratch: &Scratch, reader: &mut Reader<impl Read>) -> Result<()> {
    let mut unpacker = Unpacker::new(scratch.directory(), Attributes::None);
    let mut images = 0;
    while let Some(entry) = reader.next_entry()? {
        match checkpoint::part(&entry)? {
            Part::Needed => unpacker.put(&entry, reader)?,
            Part::Passed => continue,
            Part::Lost => log::warning(&format!("import: {:?} is not brought back", entry.display_name())),
        }
        images += u32::from(entry.name.starts_with(IMAGE.as_bytes()));
    }
    unpacker.finish()?;
    ensure!(images > 0, "there is no checkpoint in it");
    Ok(())
}
