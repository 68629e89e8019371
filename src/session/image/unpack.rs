//! A layer of an image as a layer of a state.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::Read;

use anyhow::{Context, Result};

use super::{OPAQUE, WHITEOUT};
use crate::session::layer::{self, Origin};
use crate::session::marks as names;
use crate::session::tree::{self, Entry as TreeEntry, Nodes};
use crate::sys::fs::{self, AtFlags, FdPath, Mode, OFlags, ResolveFlags};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd};
use crate::tar::{Attributes, Entry, Kind, Limits, Reader, Unpacker};

/// What came out of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Whether its files remember links of an earlier form.
    pub origin: Origin,
    /// The time of what changed last.
    pub newest: i64,
}

#[derive(Default)]
struct Marks {
    whiteouts: Vec<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Directories that have an entry of their own.
    told: BTreeSet<Vec<u8>>,
    /// Directories that something is in.
    needed: BTreeSet<Vec<u8>>,
}

/// Makes in the empty directory `tree` what `archive` changes of the tree `base`.
pub fn unpack(archive: impl Read, tree: &OwnedFd, nodes: &dyn Nodes, base: &TreeEntry) -> Result<Unpacked> {
    let mut unpacker = Unpacker::new(tree.as_fd(), Attributes::All);
    let mut reader = Reader::new(archive, Limits::default());
    let mut marks = Marks { needed: [Vec::new()].into(), ..Marks::default() };
    let mut unpacked = Unpacked { origin: Origin::Command, newest: 0 };
    while let Some(mut entry) = reader.next_entry()? {
        let (directory, name) = split(&entry.name);
        marks.need(directory);
        if name == OPAQUE {
            marks.opaque.insert(directory.to_vec());
            continue;
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            // Names that begin so twice are remarks of file systems that are no more.
            if !gone.is_empty() && !gone.starts_with(WHITEOUT) {
                marks.whiteouts.push(joined(directory, gone));
            }
            continue;
        }
        entry.xattrs.retain(|(name, _)| layer::travels(name));
        if entry.xattrs.iter().any(|(name, _)| name == layer::LINKS.to_bytes()) {
            unpacked.origin = Origin::Flattened;
        }
        if entry.kind == Kind::Directory {
            marks.told.insert(entry.name.clone());
        }
        unpacked.newest = unpacked.newest.max(entry.mtime);
        entry.xattrs = names::all_on_disk(entry.xattrs);
        unpacker.put(&entry, &mut reader)?;
    }
    marks.apply(&mut unpacker, tree, nodes, base, unpacked.newest)?;
    unpacker.finish()?;
    for directory in &marks.opaque {
        let directory = open(tree.as_fd(), directory)?;
        let mut path = FdPath::new(directory.as_fd()).as_c_str().to_bytes().to_vec();
        path.extend_from_slice(b"/.");
        names::set(&CString::new(path)?, layer::OPAQUE, b"y").context("mark an opaque directory")?;
    }
    Ok(unpacked)
}

impl Marks {
    /// The directory, and those above it.
    fn need(&mut self, directory: &[u8]) {
        let mut directory = directory;
        while !directory.is_empty() && self.needed.insert(directory.to_vec()) {
            directory = split(directory).0;
        }
    }

    fn apply(
        &mut self,
        unpacker: &mut Unpacker<'_>,
        tree: &OwnedFd,
        nodes: &dyn Nodes,
        base: &TreeEntry,
        time: i64,
    ) -> Result<()> {
        let nothing = &mut std::io::empty();
        for gone in std::mem::take(&mut self.whiteouts) {
            match mode(tree.as_fd(), &gone)? {
                // It is gone from below, and there anew.
                Some(fs::FileType::Directory) => drop(self.opaque.insert(gone)),
                Some(_) => (),
                None => {
                    let kind = Kind::Device { block: false, major: 0, minor: 0 };
                    unpacker.put(&Entry { name: gone, kind, ..Entry::file("", 0) }, nothing)?;
                }
            }
        }
        for directory in &self.opaque.clone() {
            self.need(directory);
        }
        // A directory that is only on the way to something stays as it was.
        for directory in self.needed.difference(&self.told) {
            let was = tree::find_bytes(nodes, base, directory)?.filter(|entry| entry.node_id().is_some());
            let was = was.unwrap_or_else(TreeEntry::empty_root);
            let TreeEntry { mode, uid, gid, xattrs, .. } = was;
            let xattrs = names::all_on_disk(xattrs);
            let entry = Entry { mode, uid, gid, xattrs, mtime: time, ..Entry::directory("") };
            unpacker.put(&Entry { name: directory.clone(), ..entry }, nothing)?;
        }
        Ok(())
    }
}

const DOWN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn open(tree: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let path = if path.is_empty() { CString::from(c".") } else { CString::new(path)? };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    fs::openat2(tree, &path, flags, Mode::empty(), DOWN).with_context(|| format!("open {path:?}"))
}

/// What is there under a name; None: nothing.
fn mode(tree: BorrowedFd<'_>, path: &[u8]) -> Result<Option<fs::FileType>> {
    let (directory, name) = split(path);
    let c_directory = if directory.is_empty() { CString::from(c".") } else { CString::new(directory)? };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = match fs::openat2(tree, &c_directory, flags, Mode::empty(), DOWN) {
        Err(fault) if fault.errno == Errno::NOENT => return Ok(None),
        result => result.with_context(|| format!("open {c_directory:?}"))?,
    };
    match fs::statat(&directory, &CString::new(name)?, AtFlags::SYMLINK_NOFOLLOW) {
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        result => Ok(Some(layer::kind_of(&result?))),
    }
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(place) => (&name[..place], &name[place + 1..]),
        None => (b"", name),
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
