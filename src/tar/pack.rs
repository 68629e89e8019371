//! Making entries of files: a directory and all that is below it, by descriptor and without following a link.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::mem::MaybeUninit;

use anyhow::{Context, Result};

use super::{Entry, Kind, Writer};
use crate::sys::fs::{self, AtFlags, FdPath, FileType, Mode, OFlags, Stat};
use crate::sys::{AsFd, BorrowedFd, OwnedFd, file};

/// What is to become of a file that was found.
pub enum Packed {
    /// It comes into the archive, with these extended attributes.
    Yes(Vec<(Vec<u8>, Vec<u8>)>),
    /// It does not, and neither does what is below it.
    No,
}

/// Packs what is below `directory` under names that begin with `prefix`; `choose` sees every file first, with its name
/// below `directory`.
pub fn pack<W: Write>(
    directory: BorrowedFd<'_>,
    prefix: &str,
    writer: &mut Writer<W>,
    choose: &mut dyn FnMut(&[u8], &Found<'_>) -> Result<Packed>,
) -> Result<()> {
    let mut packer = Packer { writer, choose, prefix: prefix.as_bytes(), first: BTreeMap::new() };
    packer.directory(directory, b"")
}

/// A file, as its directory has it.
pub struct Found<'d> {
    pub directory: BorrowedFd<'d>,
    pub name: &'d CStr,
    pub stat: &'d Stat,
    pub kind: FileType,
}

impl Found<'_> {
    /// All of them, by name.
    pub fn xattrs(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut path = FdPath::new(self.directory).as_c_str().to_bytes().to_vec();
        path.push(b'/');
        path.extend_from_slice(self.name.to_bytes());
        let path = CString::new(path)?;
        let mut found = Vec::new();
        for key in file::list_xattrs(&path)?.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            if let Some(value) = file::get_xattr(&path, &CString::new(key)?)? {
                found.push((key.to_vec(), value));
            }
        }
        found.sort();
        Ok(found)
    }
}

struct Packer<'p, W> {
    writer: &'p mut Writer<W>,
    choose: &'p mut dyn FnMut(&[u8], &Found<'_>) -> Result<Packed>,
    prefix: &'p [u8],
    /// The name under which a file with several of them came first, by the file.
    first: BTreeMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        let mut names = Vec::new();
        fs::entries(directory, |name, _| names.push(name.to_owned()))?;
        names.sort();
        for name in names {
            let below = if path.is_empty() {
                name.to_bytes().to_vec()
            } else {
                [path, b"/", name.to_bytes()].concat()
            };
            self.one(directory, &name, &below).with_context(|| format!("pack {name:?}"))?;
        }
        Ok(())
    }

    #[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
    fn one(&mut self, directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<()> {
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let found =
            Found { directory, name, stat: &stat, kind: FileType::from_raw_mode(stat.st_mode as u32) };
        let Packed::Yes(xattrs) = (self.choose)(path, &found)? else { return Ok(()) };
        let mut entry = Entry {
            name: [self.prefix, path].concat(),
            kind: Kind::File,
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: 0,
            mtime: stat.st_mtime as i64,
            xattrs,
        };
        if found.kind != FileType::Directory && stat.st_nlink > 1 {
            let identity = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(first) = self.first.get(&identity) {
                entry.kind = Kind::Link { target: first.clone() };
                entry.xattrs.clear();
                return self.writer.entry(&entry);
            }
            self.first.insert(identity, entry.name.clone());
        }
        entry.kind = match found.kind {
            FileType::Directory => {
                entry.kind = Kind::Directory;
                self.writer.entry(&entry)?;
                return self.directory(open(directory, name, OFlags::DIRECTORY)?.as_fd(), path);
            }
            FileType::RegularFile => {
                let content = std::fs::File::from(open(directory, name, OFlags::NONBLOCK)?);
                entry.size = content.metadata()?.len();
                return self.writer.file(&entry, &mut &content);
            }
            FileType::Symlink => {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                Kind::Symlink { target: fs::readlinkat(directory, name, &mut buffer)?.to_vec() }
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice | FileType::BlockDevice => {
                let (major, minor) = fs::device_parts(stat.st_rdev);
                Kind::Device { block: found.kind == FileType::BlockDevice, major, minor }
            }
            // A socket means something only to whoever listens at it, and archives have no form for it.
            FileType::Socket | FileType::Unknown => return Ok(()),
        };
        self.writer.entry(&entry)
    }
}

fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    Ok(fs::openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | flags, Mode::empty())?)
}
