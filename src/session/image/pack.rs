//! A layer of a state as a layer of an image.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, bail};

use super::{OPAQUE, WHITEOUT};
use crate::session::{layer, marks};
use crate::sys::fs::{self, FileType, Mode, OFlags, Stat};
use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use crate::tar::{Entry, Found, Kind, Writer};

/// Writes everything in the layer's tree as an archive.
pub fn pack<W: Write>(tree: &OwnedFd, to: W) -> Result<W> {
    let mut packer = Packer { writer: Writer::new(to), first: BTreeMap::new() };
    let stat = fs::fstat(tree)?;
    let (xattrs, _) =
        xattrs(&Found { directory: tree.as_fd(), name: c".", stat: &stat, kind: FileType::Directory })?;
    packer.writer.entry(&Entry { xattrs, ..described(&stat, Vec::new(), Kind::Directory) })?;
    packer.directory(tree.as_fd(), b"")?;
    packer.writer.finish()
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Those that belong to the tree, and whether the directory hides what is below it.
fn xattrs(found: &Found<'_>) -> Result<(Xattrs, bool)> {
    let all = marks::all_from_disk(found.xattrs()?);
    let opaque = all.iter().any(|(name, value)| name == layer::OPAQUE.to_bytes() && value == b"y");
    let kept = all.into_iter().filter(|(name, _)| layer::travels(name)).collect();
    Ok((kept, opaque))
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
fn described(stat: &Stat, name: Vec<u8>, kind: Kind) -> Entry {
    Entry {
        name,
        kind,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        mtime: stat.st_mtime as i64,
        xattrs: Vec::new(),
    }
}

struct Packer<W> {
    writer: Writer<W>,
    /// The name under which a file with several of them came first, by the file.
    first: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let mut names = layer::names(dir)?;
        names.sort();
        let mut there = Vec::new();
        // Whiteouts stand before what is there.
        for name in names {
            let stat = layer::stat(dir, &name)?;
            if name.to_bytes().starts_with(WHITEOUT) {
                bail!("{name:?}: images cannot hold files whose names begin with \".wh.\"");
            }
            match layer::is_whiteout(&stat) {
                true => self.marker(path, &[WHITEOUT, name.to_bytes()].concat())?,
                false => there.push((name, stat)),
            }
        }
        there.iter().try_for_each(|(name, stat)| {
            self.one(dir, name, stat, path).with_context(|| format!("pack {name:?}"))
        })
    }

    /// An empty file whose name says something about its directory.
    fn marker(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        self.writer.entry(&Entry { name: joined(directory, name), ..Entry::file("", 0) })
    }

    fn one(&mut self, dir: BorrowedFd<'_>, name: &CString, stat: &Stat, path: &[u8]) -> Result<()> {
        let kind = layer::kind_of(stat);
        let (xattrs, opaque) = xattrs(&Found { directory: dir, name, stat, kind })?;
        let path = joined(path, name.to_bytes());
        let mut entry = Entry { xattrs, ..described(stat, path.clone(), Kind::File) };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.first.get(&(stat.st_dev, stat.st_ino)) {
                return self.writer.entry(&Entry {
                    kind: Kind::Link { target: first.clone() },
                    xattrs: Vec::new(),
                    ..entry
                });
            }
            self.first.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        entry.kind = match kind {
            FileType::Directory => {
                entry.kind = Kind::Directory;
                self.writer.entry(&entry)?;
                if opaque {
                    self.marker(&path, OPAQUE)?;
                }
                let below = fs::openat(dir, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                return self.directory(below.as_fd(), &path);
            }
            FileType::RegularFile => {
                let content = File::from(fs::openat(dir, name, flags, Mode::empty())?);
                entry.size = content.metadata()?.len();
                return self.writer.file(&entry, &mut &content);
            }
            FileType::Symlink => Kind::Symlink { target: layer::target(dir, name)? },
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = fs::device_parts(stat.st_rdev);
                Kind::Device { block: kind == FileType::BlockDevice, major, minor }
            }
            // A socket means something only to whoever listens at it, and archives have no form for it.
            FileType::Socket | FileType::Unknown => return Ok(()),
        };
        self.writer.entry(&entry)
    }
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
