//! Layers on disk: reading an upper directory, making it final, copying trees, and finding a file in a chain.
//!
//! Directories are walked by descriptor and no link is followed: what is in them was made by somebody's command.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::content::Content;
use super::delta::{Delta, Item, OPEN};
use super::id::{Hasher, Id};
use super::marks::{self, OVERLAY};
use super::tree::{Entry, Kind};
use crate::removal;
use crate::sys::fs::{self, AtFlags, CWD, FdPath, FileType, Mode, OFlags, Stat};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, file};

pub const OPAQUE: &CStr = c"trusted.overlay.opaque";
/// On a file of a flattened layer: the names it had in common, which may no longer all be there.
pub const LINKS: &CStr = c"trusted.deja.links";
/// In a user namespace nothing can be noted on links and special files.
const UNMARKED: &str = "note which names it has in common";

/// Whether layers could not be made one because of files that nothing can be noted on.
pub fn is_unmarked(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.to_string() == UNMARKED)
}

/// Attributes that belong to the machine, not to the tree.
const FOREIGN: [&[u8]; 4] = [b"security.selinux", b"security.ima", b"security.evm", b"trusted.deja.links"];

/// Whether an extended attribute goes with a file into an archive and back.
pub fn travels(name: &[u8]) -> bool {
    !name.starts_with(OVERLAY) && (name == LINKS.to_bytes() || !FOREIGN.contains(&name))
}

/// Directories as deep below each other are kept. Walking one takes a descriptor for each of them, or two, and what lies
/// deeper is out of reach of most programs anyway.
const DEEPEST: usize = 200;

/// Of files longer than this somebody would sooner or later have to write all zeros.
const LARGEST: u64 = 1 << 40;
/// Shorter files are read without a look for holes.
const SMALL: u64 = 1 << 20;

fn deeper(depth: usize) -> Result<usize> {
    ensure!(
        depth < DEEPEST,
        "directories lie more than {DEEPEST} deep below each other, which no session keeps"
    );
    Ok(depth + 1)
}

/// The names of files with several of them, by the file.
type Links = BTreeMap<(u64, u64), Vec<Vec<u8>>>;

pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let c_path = c_path(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    fs::openat(CWD, &c_path, flags, Mode::empty()).with_context(|| format!("open {path:?}"))
}

pub fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{path:?}"))
}

fn below(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    fs::openat(dir, name, flags, Mode::empty()).with_context(|| format!("open {name:?}"))
}

pub fn names(dir: impl AsFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    fs::entries(dir, |name, _| names.push(name.to_owned())).context("read a directory")?;
    Ok(names)
}

/// A path for the calls that know no descriptor.
fn path_at(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = FdPath::new(dir).as_c_str().to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("neither part holds a NUL byte")
}

pub fn stat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).with_context(|| format!("look at {name:?}"))
}

fn stat_if(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        result => result.map(Some).with_context(|| format!("look at {name:?}")),
    }
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
pub fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as u32)
}

pub fn is_whiteout(stat: &Stat) -> bool {
    kind_of(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whose links are meant: those of the files as they are, or those a flattened layer remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Command,
    Flattened,
}

/// Everything in an upper directory, with the directory itself.
pub fn scan(upper: &OwnedFd, origin: Origin) -> Result<(Entry, Delta)> {
    let mut scan = Scan { links: links(upper)?, origin, buffer: vec![0; 128 << 10] };
    let stat = fs::fstat(upper).context("look at the upper directory")?;
    let path = FdPath::new(upper.as_fd());
    let mut path = path.as_c_str().to_bytes().to_vec();
    path.extend_from_slice(b"/.");
    let path = CString::new(path).expect("the path holds no NUL byte");
    let root = entry(&stat, scan.xattrs(&path)?.kept, None, OPEN);
    Ok((root, scan.directory(upper.as_fd())?))
}

/// The files with several names in a tree; the names are sorted.
fn links(tree: &OwnedFd) -> Result<Links> {
    let mut links = Links::new();
    collect_links(tree.as_fd(), b"", 0, &mut links)?;
    links.retain(|_, names| names.len() > 1);
    links.values_mut().for_each(|names| names.sort());
    Ok(links)
}

fn links_id(names: &[Vec<u8>]) -> Id {
    let mut hasher = Hasher::new("deja links 1");
    names.iter().for_each(|name| hasher.field(name));
    hasher.finish()
}

fn collect_links(dir: BorrowedFd<'_>, path: &[u8], depth: usize, links: &mut Links) -> Result<()> {
    let depth = deeper(depth)?;
    for name in names(dir)? {
        let stat = stat(dir, &name)?;
        let path = [path, b"/", name.to_bytes()].concat();
        match kind_of(&stat) {
            FileType::Directory => collect_links(below(dir, &name)?.as_fd(), &path, depth, links)?,
            // Whiteouts are links to one file, but stand for nothing.
            _ if stat.st_nlink > 1 && !is_whiteout(&stat) => {
                links.entry((stat.st_dev, stat.st_ino)).or_default().push(path);
            }
            _ => (),
        }
    }
    Ok(())
}

fn entry(stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>, hard_links: Option<Id>, kind: Kind) -> Entry {
    Entry { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, xattrs, hard_links, kind }
}

struct Scan {
    links: Links,
    origin: Origin,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Xattrs {
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
}

impl Scan {
    fn directory(&mut self, dir: BorrowedFd<'_>) -> Result<Delta> {
        let mut delta = Delta::new();
        for name in names(dir)? {
            let item = self.item(dir, &name).with_context(|| format!("read {name:?}"))?;
            delta.insert(name.into_bytes(), item);
        }
        Ok(delta)
    }

    fn item(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<Item> {
        let stat = stat(dir, name)?;
        if is_whiteout(&stat) {
            return Ok(Item::Whiteout);
        }
        let path = path_at(dir, name);
        let xattrs = self.xattrs(&path)?;
        let (kind, below) = match kind_of(&stat) {
            FileType::Directory => (OPEN, self.directory(below(dir, name)?.as_fd())?),
            FileType::RegularFile => (self.content(dir, name, &stat)?, Delta::new()),
            FileType::Symlink => (Kind::Link { target: target(dir, name)? }, Delta::new()),
            FileType::Fifo => (Kind::Fifo, Delta::new()),
            FileType::Socket => (Kind::Socket, Delta::new()),
            FileType::CharacterDevice => (device(&stat, false), Delta::new()),
            FileType::BlockDevice => (device(&stat, true), Delta::new()),
            FileType::Unknown => bail!("a file of unknown type"),
        };
        let hard_links = match kind {
            Kind::Directory { .. } => None,
            _ => self.hard_links(&stat, &path)?,
        };
        Ok(Item::There { entry: entry(&stat, xattrs.kept, hard_links, kind), opaque: xattrs.opaque, below })
    }

    fn hard_links(&self, stat: &Stat, path: &CStr) -> Result<Option<Id>> {
        if self.origin == Origin::Flattened {
            let known = marks::get(path, LINKS)?;
            return Ok(known.and_then(|id| id.try_into().ok()).map(Id));
        }
        Ok(self.links.get(&(stat.st_dev, stat.st_ino)).map(|names| links_id(names)))
    }

    fn xattrs(&self, path: &CStr) -> Result<Xattrs> {
        let mut found = Xattrs::default();
        for c_name in marks::list(path).context("list extended attributes")? {
            let name = c_name.to_bytes();
            let Some(value) = marks::get(path, &c_name).context("read an extended attribute")? else {
                continue;
            };
            if name == OPAQUE.to_bytes() {
                found.opaque = value == b"y";
            }
            let (redirect, metacopy) = (b"trusted.overlay.redirect", b"trusted.overlay.metacopy");
            if name == redirect || name == metacopy {
                bail!("the layer has overlayfs features that deja never asks for");
            }
            if !name.starts_with(OVERLAY) && !FOREIGN.contains(&name) {
                found.kept.push((name.to_vec(), value));
            }
        }
        found.kept.sort();
        Ok(found)
    }

    fn content(&mut self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Kind> {
        let size = stat.st_size as u64;
        ensure!(size <= LARGEST, "it is {size} bytes long, and no session keeps files longer than {LARGEST}");
        let file = open_file(dir, name)?;
        let mut content = Content::default();
        // A small file has no holes worth two calls.
        let mut data = if size < SMALL { Some((0, size)) } else { file::next_data(&file, 0)? };
        while let Some((begin, end)) = data {
            let end = end.min(size);
            content.zeros(begin - content.size());
            while content.size() < end {
                let wanted = self.buffer.len().min((end - content.size()) as usize);
                match fs::pread(&file, &mut self.buffer[..wanted], content.size())? {
                    0 => bail!("it became shorter while it was read"),
                    length => content.bytes(&self.buffer[..length]),
                }
            }
            data = if end < size { file::next_data(&file, end)? } else { None };
        }
        content.zeros(size - content.size());
        Ok(Kind::File { size, content: content.finish() })
    }
}

fn open_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    fs::openat(dir, name, flags, Mode::empty()).with_context(|| format!("open {name:?}"))
}

fn device(stat: &Stat, block: bool) -> Kind {
    let (major, minor) = fs::device_parts(stat.st_rdev);
    Kind::Device { block, major, minor }
}

pub fn target(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    Ok(fs::readlinkat(dir, name, &mut buffer).map(<[u8]>::to_vec)?)
}

/// How an upper directory becomes a layer.
#[derive(Clone, Copy)]
pub struct Finish {
    /// The time everything gets; None: each file keeps its own.
    pub time: Option<i64>,
    /// Put every file on the disk; otherwise the caller does so with all of them.
    pub sync: bool,
    pub origin: Origin,
}

/// Makes an upper directory what `delta` says: what is not in it goes, marks of overlayfs that say nothing go, times
/// are set, and everything is put on the disk.
pub fn finish(upper: &OwnedFd, delta: &Delta, how: Finish) -> Result<()> {
    finish_directory(upper.as_fd(), delta, how)?;
    if let Some(time) = how.time {
        file::set_times(upper, c".", time)?;
    }
    Ok(())
}

fn finish_directory(dir: BorrowedFd<'_>, delta: &Delta, how: Finish) -> Result<()> {
    for name in names(dir)? {
        match delta.get(name.to_bytes()) {
            None => remove(dir, &name)?,
            Some(item) => finish_item(dir, &name, item, how).with_context(|| format!("seal {name:?}"))?,
        }
    }
    if how.sync {
        file::sync(dir)?;
    }
    Ok(())
}

fn finish_item(dir: BorrowedFd<'_>, name: &CStr, item: &Item, how: Finish) -> Result<()> {
    let Item::There { entry, opaque, below: inside } = item else { return Ok(()) };
    let path = path_at(dir, name);
    // What a file below remembers has come up with its copy, and is no longer so.
    let stale = |mark: &CStr| mark == LINKS && how.origin == Origin::Command;
    let marked = |mark: &CStr| mark.to_bytes().starts_with(OVERLAY) || stale(mark);
    for mark in marks::list(&path)?.iter().filter(|mark| marked(mark)) {
        if mark.as_c_str() != OPAQUE || !opaque {
            marks::remove(&path, mark)?;
        }
    }
    match entry.kind {
        Kind::Directory { .. } => finish_directory(below(dir, name)?.as_fd(), inside, how)?,
        Kind::File { .. } if how.sync => file::sync(open_file(dir, name)?)?,
        _ => (),
    }
    how.time.map_or(Ok(()), |time| file::set_times(dir, name, time))?;
    Ok(())
}

fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    removal::remove(dir, name).with_context(|| format!("remove {name:?}"))
}

/// Copies files from one directory to another: owner, permissions, attributes, times, links, holes. They are what has
/// been told of them, or else as they are.
#[derive(Default)]
pub struct Copier {
    /// The first copy of a file with several names, by the file.
    copied: BTreeMap<(u64, u64), CString>,
    /// Files with several names remember which these were.
    remembered: BTreeMap<(u64, u64), Id>,
    depth: usize,
    buffer: Vec<u8>,
    pub newest: i64,
    /// How many files, directories and the like have been copied.
    pub count: u64,
    progress: Option<fn(u64)>,
}

impl Copier {
    /// `progress` is told after each file how many there have been.
    pub fn new(progress: Option<fn(u64)>) -> Self {
        Self { progress, ..Self::default() }
    }

    /// Copies what is in `from` into `to`, which is empty, and what `from` itself is.
    pub fn tree(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        told: Option<(&Entry, &Delta)>,
    ) -> Result<()> {
        self.depth = deeper(self.depth)?;
        for name in names(from)? {
            let told = match told.map(|(_, below)| below.get(name.to_bytes())) {
                Some(None) => bail!("{name:?} has come meanwhile"),
                Some(item) => item,
                None => None,
            };
            self.entry(from, to, &name, told).with_context(|| format!("copy {name:?}"))?;
        }
        self.depth -= 1;
        self.attributes(from, c".", to, c".", &fs::fstat(from)?, told.map(|(entry, _)| entry))
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        told: Option<&Item>,
    ) -> Result<()> {
        let stat = stat(from, name)?;
        let told = match told {
            Some(Item::There { entry, below, .. }) => Some((entry, below)),
            _ => None,
        };
        let identity = (stat.st_dev, stat.st_ino);
        let kind = kind_of(&stat);
        if kind != FileType::Directory && stat.st_nlink > 1 && !is_whiteout(&stat) {
            if let Some(first) = self.copied.get(&identity) {
                return Ok(file::link(first, to, name)?);
            }
            let mut path = fs::path_of(to)?;
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
            self.copied.insert(identity, CString::new(path)?);
        }
        match kind {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                return self.tree(below(from, name)?.as_fd(), below(to, name)?.as_fd(), told);
            }
            FileType::RegularFile => self.content(from, to, name, &stat)?,
            FileType::Symlink => fs::symlinkat(&CString::new(target(from, name)?)?, to, name)?,
            FileType::Unknown => bail!("a file of unknown type"),
            special => {
                let (major, minor) = fs::device_parts(stat.st_rdev);
                fs::mknodat(to, name, special, Mode::from_raw_mode(0o600), major, minor)?;
            }
        }
        self.attributes(from, name, to, name, &stat, told.map(|(entry, _)| entry))
    }

    fn content(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        let source = open_file(from, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let copy = fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
        fs::ftruncate(&copy, stat.st_size as u64)?;
        self.buffer.resize(128 << 10, 0);
        let mut offset = 0;
        while let Some((begin, end)) = file::next_data(&source, offset)? {
            let mut at = begin;
            while at < end {
                let wanted = self.buffer.len().min((end - at) as usize);
                let length = fs::pread(&source, &mut self.buffer[..wanted], at)?;
                if length == 0 {
                    return Ok(());
                }
                write_all(&copy, &self.buffer[..length], at)?;
                at += length as u64;
            }
            offset = end;
        }
        Ok(())
    }

    fn attributes(
        &mut self,
        from: BorrowedFd<'_>,
        name: &CStr,
        to: BorrowedFd<'_>,
        new: &CStr,
        stat: &Stat,
        told: Option<&Entry>,
    ) -> Result<()> {
        let (uid, gid) = told.map_or((stat.st_uid, stat.st_gid), |entry| (entry.uid, entry.gid));
        fs::chownat(to, new, uid, Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind_of(stat) != FileType::Symlink {
            fs::chmodat(to, new, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        }
        let (source, copy) = (path_at(from, name), path_at(to, new));
        match told {
            Some(entry) => {
                for (attribute, value) in &entry.xattrs {
                    marks::set(&copy, &CString::new(attribute.as_slice())?, value)?;
                }
            }
            None => {
                for attribute in marks::list(&source)?.iter().filter(|name| name.to_bytes() != FOREIGN[0]) {
                    if let Some(value) = marks::get(&source, attribute)? {
                        marks::set(&copy, attribute, &value)?;
                    }
                }
            }
        }
        if let Some(id) = self.remembered.get(&(stat.st_dev, stat.st_ino)) {
            marks::set(&copy, LINKS, &id.0).context(UNMARKED)?;
        }
        self.newest = self.newest.max(stat.st_mtime);
        self.count += 1;
        self.progress.iter().for_each(|tell| tell(self.count));
        Ok(file::set_times(to, new, stat.st_mtime)?)
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<()> {
    while !bytes.is_empty() {
        let written = fs::pwrite(to, bytes, at)?;
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

/// Makes in the empty directory `to` the one layer that does what all of `layers` do, from the bottom up.
pub fn flatten(layers: &[PathBuf], to: &OwnedFd) -> Result<()> {
    let mut copier = Copier::default();
    for layer in layers {
        let from = open_directory(layer)?;
        copier.remembered = links(&from)?.iter().map(|(file, names)| (*file, links_id(names))).collect();
        squash(&mut copier, from.as_fd(), to.as_fd()).with_context(|| format!("flatten {layer:?}"))?;
    }
    Ok(())
}

/// Makes in the empty directory `to` the plain tree that `layers` show, without anything of overlayfs or of deja.
pub fn export(layers: &[PathBuf], to: &OwnedFd) -> Result<()> {
    flatten(layers, to)?;
    plain(to.as_fd())
}

fn plain(dir: BorrowedFd<'_>) -> Result<()> {
    for name in names(dir)? {
        let stat = stat(dir, &name)?;
        if is_whiteout(&stat) {
            remove(dir, &name)?;
            continue;
        }
        let path = path_at(dir, &name);
        let ours = |mark: &&CString| mark.to_bytes().starts_with(OVERLAY) || mark.as_c_str() == LINKS;
        marks::list(&path)?.iter().filter(ours).try_for_each(|mark| marks::remove(&path, mark))?;
        if kind_of(&stat) == FileType::Directory {
            plain(below(dir, &name)?.as_fd())?;
            // Taking names out of a directory is a change of it.
            file::set_times(dir, &name, stat.st_mtime)?;
        }
    }
    Ok(())
}

/// Puts the layer `from` on top of what is in `to`, as overlayfs would show both, whiteouts kept for what is below.
fn squash(copier: &mut Copier, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    for name in names(from)? {
        let new = stat(from, &name)?;
        let old = stat_if(to, &name)?;
        let is_directory = |stat: &Stat| kind_of(stat) == FileType::Directory;
        let opaque = is_directory(&new) && marks::get(&path_at(from, &name), OPAQUE)?.is_some();
        if is_directory(&new) && !opaque && old.as_ref().is_some_and(is_directory) {
            squash(copier, below(from, &name)?.as_fd(), below(to, &name)?.as_fd())?;
            continue;
        }
        if old.is_some() {
            remove(to, &name)?;
        }
        copier.entry(from, to, &name, None)?;
        // What this directory has replaced hid what is further below, and so must this.
        if is_directory(&new) && old.is_some() {
            marks::set(&path_at(to, &name), OPAQUE, b"y")?;
        }
    }
    copier.attributes(from, c".", to, c".", &fs::fstat(from)?, None)
}

/// The file at `path` as the topmost layer of a chain that has it shows it; layers from the bottom up.
pub fn open_in_chain(layers: &[PathBuf], path: &str) -> Result<OwnedFd> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    'layers: for layer in layers.iter().rev() {
        let mut dir = open_directory(layer)?;
        let mut opaque = false;
        for (place, part) in parts.iter().enumerate() {
            let name = CString::new(*part)?;
            let Some(stat) = stat_if(dir.as_fd(), &name)? else {
                if opaque {
                    bail!("{path:?} is missing in its layer");
                }
                continue 'layers;
            };
            if place + 1 == parts.len() {
                return open_file(dir.as_fd(), &name);
            }
            if kind_of(&stat) != FileType::Directory {
                bail!("{path:?} is missing in its layer");
            }
            opaque |= marks::get(&path_at(dir.as_fd(), &name), OPAQUE)?.is_some();
            dir = below(dir.as_fd(), &name)?;
        }
    }
    Err(anyhow!("{path:?} is in no layer"))
}
