//! Making files of entries, below a directory and nowhere else.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::{Entry, Kind};
use crate::removal;
use crate::sys::fs::{self, AtFlags, FdPath, FileType, Mode, OFlags, ResolveFlags};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, file};

/// Down from here, over directories only: no link on the way, and no other mount.
const DOWN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What of an entry is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// Owner, permissions, time, extended attributes: a file system.
    All,
    /// None: the files become those of whoever unpacks, and can be read by whoever may search their directory.
    None,
}

/// Unpacks into a directory. What stands in the way of an entry is replaced; a directory stays one where one comes.
pub struct Unpacker<'d> {
    root: BorrowedFd<'d>,
    attributes: Attributes,
    /// Directories get theirs last: what comes into them changes their times, and they may allow no writing.
    directories: BTreeMap<Vec<u8>, Entry>,
}

impl<'d> Unpacker<'d> {
    pub fn new(root: BorrowedFd<'d>, attributes: Attributes) -> Self {
        Self { root, attributes, directories: BTreeMap::new() }
    }

    pub fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.make(entry, content).with_context(|| format!("unpack {:?}", entry.display_name()))
    }

    /// All entries have come.
    pub fn finish(self) -> Result<()> {
        if self.attributes == Attributes::None {
            return Ok(());
        }
        // What is below comes after what is above it in the order of names.
        for (name, entry) in self.directories.iter().rev() {
            let of = || format!("unpack {:?}", entry.display_name());
            // It may have been replaced since.
            let Some(directory) = open_down(self.root, name).with_context(of)? else { continue };
            attributes(directory.as_fd(), c".", entry).with_context(of)?;
        }
        Ok(())
    }

    fn make(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        if entry.name.is_empty() {
            self.directories.insert(Vec::new(), entry.clone());
            return Ok(());
        }
        let (parent, name) = self.parent(&entry.name)?;
        let (parent, name) = (parent.as_fd(), name.as_c_str());
        if entry.kind == Kind::Directory {
            if !is_directory(parent, name)? {
                self.make_way(parent, name)?;
                fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
            }
            self.directories.insert(entry.name.clone(), entry.clone());
            return Ok(());
        }
        if let Kind::Link { target } = &entry.kind {
            return self.link(target, parent, name);
        }
        self.make_way(parent, name)?;
        let private = Mode::from_raw_mode(0o600);
        match &entry.kind {
            Kind::File => {
                // Until it has its owner it is nobody else's to read.
                let mode = if self.attributes == Attributes::All { 0o600 } else { 0o644 };
                write_file(parent, name, mode, entry, content)?;
            }
            Kind::Symlink { target } => fs::symlinkat(&CString::new(target.as_slice())?, parent, name)?,
            Kind::Fifo => fs::mknodat(parent, name, FileType::Fifo, private, 0, 0)?,
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                fs::mknodat(parent, name, kind, private, *major, *minor)?;
            }
            Kind::Directory | Kind::Link { .. } => (),
        }
        if self.attributes == Attributes::All {
            attributes(parent, name, entry)?;
        }
        Ok(())
    }

    /// A name more for what was unpacked before.
    fn link(&self, target: &[u8], parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let (above, last) = split(target);
        let above = open_down(self.root, above)?.context("it is a link to what is not there")?;
        let last = CString::new(last)?;
        ensure!(!is_directory(above.as_fd(), &last)?, "it is a hard link to a directory");
        self.make_way(parent, name)?;
        match file::link_at(&above, &last, parent, name) {
            Err(fault) if fault.errno == Errno::NOENT => bail!("it is a link to what is not there"),
            result => Ok(result?),
        }
    }

    /// Takes away what stands where a new file comes. Only in a file system that changes may that be a full directory.
    fn make_way(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        if self.attributes == Attributes::All {
            return Ok(removal::remove(parent, name)?);
        }
        let flags = match kind_of(parent, name)? {
            None => return Ok(()),
            Some(FileType::Directory) => AtFlags::REMOVEDIR,
            Some(_) => AtFlags::empty(),
        };
        fs::unlinkat(parent, name, flags).context("something else stands in its way")
    }

    /// The directory of a name, made if it is not there, and what is left of the name.
    fn parent(&self, name: &[u8]) -> Result<(OwnedFd, CString)> {
        let (above, last) = split(name);
        let last = CString::new(last)?;
        if let Some(parent) = open_down(self.root, above)? {
            return Ok((parent, last));
        }
        let mut made = Vec::new();
        for part in above.split(|byte| *byte == b'/') {
            let directory = open_down(self.root, &made)?.context("a directory has gone meanwhile")?;
            let mode = if self.attributes == Attributes::All { 0o755 } else { 0o700 };
            match fs::mkdirat(&directory, &CString::new(part)?, Mode::from_raw_mode(mode)) {
                Err(fault) if fault.errno == Errno::EXIST => (),
                result => result?,
            }
            if !made.is_empty() {
                made.push(b'/');
            }
            made.extend_from_slice(part);
        }
        let parent = open_down(self.root, above)?.context("a directory has gone meanwhile")?;
        Ok((parent, last))
    }
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(place) => (&name[..place], &name[place + 1..]),
        None => (b"", name),
    }
}

/// None: there is none of this name.
fn open_down(root: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>> {
    let path = if name.is_empty() { CString::from(c".") } else { CString::new(name)? };
    match fs::openat2(root, &path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), DOWN) {
        Ok(directory) => Ok(Some(directory)),
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        Err(fault) if fault.errno == Errno::LOOP => bail!("a directory above it is a link"),
        Err(fault) if fault.errno == Errno::NOTDIR => bail!("a directory above it is a file"),
        Err(fault) if fault.errno == Errno::XDEV => bail!("a directory above it is another mount"),
        Err(fault) => Err(fault.into()),
    }
}

fn kind_of(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
    kind_of(parent, name).map(|kind| kind == Some(FileType::Directory))
}

/// Removes what is below `name`, and itself; nothing of that name is no error.
pub fn remove(root: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let (above, last) = split(name);
    let Some(parent) = open_down(root, above)? else { return Ok(()) };
    Ok(removal::remove(parent, &CString::new(last)?)?)
}

fn write_file(
    parent: BorrowedFd<'_>,
    name: &CStr,
    mode: u32,
    entry: &Entry,
    content: &mut dyn Read,
) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mut file = std::fs::File::from(fs::openat(parent, name, flags, Mode::from_raw_mode(mode))?);
    let written = std::io::copy(&mut content.take(entry.size), &mut file)?;
    ensure!(written == entry.size, "it is cut short");
    Ok(())
}

/// Owners first, since a change of them takes permissions and capabilities away.
fn attributes(parent: BorrowedFd<'_>, name: &CStr, entry: &Entry) -> Result<()> {
    fs::chownat(parent, name, entry.uid, Some(entry.gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode))?;
    }
    let mut path = FdPath::new(parent).as_c_str().to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path)?;
    for (key, value) in &entry.xattrs {
        let key = CString::new(key.as_slice()).context("the name of an extended attribute")?;
        file::set_xattr(&path, &key, value).with_context(|| format!("extended attribute {key:?}"))?;
    }
    Ok(file::set_times(parent, name, entry.mtime)?)
}
