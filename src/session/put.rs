//! Files that come into a state from outside, without any container: what an overlay would have written for them.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::content::Content;
use super::id::Id;
use super::key::Fact;
use super::layer::{self, c_path};
use super::marks;
use super::store::Store;
use super::tree::{self, Entry, Kind, Located};
use crate::sys::Errno;
use crate::sys::fs::{self, AtFlags, CWD, Mode, OFlags};

/// Raised when the same files come to be put otherwise.
const EPOCH: &str = "put 1";

/// An attribute that the kernel takes from a file that is written to.
const CAPABILITIES: &[u8] = b"security.capability";

/// One file and where it goes.
pub struct Put {
    pub located: Located,
    /// What it is to be; the size and content are found out when it is read.
    pub entry: Entry,
}

/// Where `path`, which begins in the directory `cwd` unless it is absolute, leads in a tree. `name` is what a file is
/// called that goes into a directory.
pub fn place(store: &Store, root: &Entry, cwd: &str, path: &str, name: Option<&str>) -> Result<Located> {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{cwd}/{path}") };
    let nowhere = || format!("there is no directory for {path:?} in the session");
    let located = tree::locate(store, root, whole.as_bytes())?.with_context(nowhere)?;
    let (last, is_new) = (located.way.last().map(|(_, entry)| &entry.kind), located.missing.is_some());
    match (last, name) {
        _ if is_new && path.ends_with('/') => bail!("there is no directory {path:?} in the session"),
        (Some(Kind::Directory { .. }), Some(name)) if !is_new => {
            place(store, root, "/", &format!("{whole}/{name}"), None)
        }
        (Some(Kind::Directory { .. }), None) if !is_new => bail!("{path:?} is a directory in the session"),
        (Some(Kind::File { .. }), _) | (_, _) if is_new => Ok(located),
        (Some(Kind::File { .. }), _) => Ok(located),
        _ => bail!("{path:?} is no file in the session"),
    }
}

impl Put {
    /// A file that is there keeps whom it belongs to and, unless `mode` is given, its permissions; a new one is root's
    /// and gets those of `like`, as far as the session's umask allows.
    pub fn new(located: Located, mode: Option<u32>, like: u32, umask: u32) -> Self {
        let there = located.way.last().map(|(_, entry)| entry).filter(|_| located.missing.is_none());
        let mut entry = match there {
            Some(entry) => Entry { hard_links: None, ..entry.clone() },
            None => Entry { mode: like & 0o777 & !umask, ..Entry::empty_root() },
        };
        entry.xattrs.retain(|(name, _)| name != CAPABILITIES);
        entry.mode = mode.unwrap_or(entry.mode);
        Self { located, entry }
    }

    /// Writes the file, read from `source`, into the upper directory `tree`, with the directories above it as they are in
    /// the state.
    pub fn write(&mut self, source: &mut impl Read, tree: &Path) -> Result<()> {
        let mut path = tree.to_owned();
        let is_new = self.located.missing.is_some();
        let above = self.located.way.len() - usize::from(!is_new);
        for (place, (name, entry)) in self.located.way[..above].iter().enumerate() {
            if place > 0 {
                path.push(OsStr::from_bytes(name));
                match fs::mkdirat(CWD, &c_path(&path)?, Mode::from_raw_mode(0o700)) {
                    Err(fault) if fault.errno == Errno::EXIST => continue,
                    result => result.with_context(|| format!("create {path:?}"))?,
                }
            }
            dress(&path, entry)?;
        }
        let name = self.located.missing.as_ref().or(self.located.way.last().map(|(name, _)| name));
        path.push(OsStr::from_bytes(name.context("a file that is put needs a name")?));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let copy = fs::openat(CWD, &c_path(&path)?, flags, Mode::from_raw_mode(0o600))
            .with_context(|| format!("create {path:?}: is it put twice?"))?;
        let (size, content) = copy_hashed(source, &copy)?;
        self.entry.kind = Kind::File { size, content };
        dress(&path, &self.entry)
    }

    pub fn facts(&self) -> [Fact; 3] {
        let content = match &self.entry.kind {
            Kind::File { content, .. } => content.to_string(),
            _ => String::new(),
        };
        let path = String::from_utf8_lossy(&self.located.path()).into_owned();
        [
            ("file put".to_owned(), path),
            ("content".to_owned(), content),
            ("permissions".to_owned(), format!("{:04o}", self.entry.mode)),
        ]
    }
}

/// The facts of files that are put at once, in whatever order they were named.
pub fn facts(files: &[Put]) -> Vec<Fact> {
    let mut each: Vec<[Fact; 3]> = files.iter().map(Put::facts).collect();
    each.sort();
    let epoch = ("epoch".to_owned(), EPOCH.to_owned());
    std::iter::once(epoch).chain(each.into_iter().flatten()).collect()
}

fn copy_hashed(source: &mut impl Read, copy: &impl crate::sys::AsFd) -> Result<(u64, Id)> {
    let mut content = Content::default();
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        let length = source.read(&mut buffer).context("read what is to be put")?;
        if length == 0 {
            return Ok((size, content.finish()));
        }
        content.bytes(&buffer[..length]);
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = fs::pwrite(copy, rest, size).context("write what is put")?;
            rest = &rest[written..];
            size += written as u64;
        }
    }
}

/// Gives a file its owner, permissions and attributes.
fn dress(path: &Path, entry: &Entry) -> Result<()> {
    let c_path = c_path(path)?;
    let dress = || -> Result<()> {
        fs::chownat(CWD, &c_path, entry.uid, Some(entry.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        fs::chmodat(CWD, &c_path, Mode::from_raw_mode(entry.mode))?;
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| layer::travels(name)) {
            marks::set(&c_path, &CString::new(name.as_slice())?, value)?;
        }
        Ok(())
    };
    dress().with_context(|| format!("give {path:?} its owner and permissions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(entry: Option<Entry>) -> Located {
        let mut way = vec![(Vec::new(), Entry::empty_root())];
        let missing = entry.is_none().then(|| b"f".to_vec());
        way.extend(entry.map(|entry| (b"f".to_vec(), entry)));
        Located { way, missing }
    }

    #[test]
    fn a_file_that_is_there_stays_whose_it_is_and_a_new_one_is_root_s() {
        let kind = Kind::File { size: 0, content: Id::default() };
        let xattrs = [(CAPABILITIES.to_vec(), vec![1]), (b"user.x".to_vec(), vec![2])].to_vec();
        let there = Entry { mode: 0o640, uid: 7, gid: 8, xattrs, hard_links: Some(Id::default()), kind };
        let put = Put::new(located(Some(there)), None, 0o777, 0o022).entry;
        assert_eq!((put.mode, put.uid, put.gid, put.hard_links), (0o640, 7, 8, None));
        assert_eq!(put.xattrs, [(b"user.x".to_vec(), vec![2])]);
        for (mode, like, umask, expected) in [
            (None, 0o100_755, 0o022, 0o755),
            (None, 0o664, 0o022, 0o644),
            (None, 0o4755, 0o077, 0o700),
            (Some(0o4711), 0o600, 0o022, 0o4711),
        ] {
            let put = Put::new(located(None), mode, like, umask).entry;
            assert_eq!((put.mode, put.uid, put.gid), (expected, 0, 0));
        }
    }

    #[test]
    fn the_order_in_which_files_are_named_is_no_fact() {
        let new = |name: &str| {
            let located = Located { missing: Some(name.as_bytes().to_vec()), ..located(None) };
            Put::new(located, None, 0o644, 0o022)
        };
        let (one, other) = ([new("a"), new("b")], [new("b"), new("a")]);
        assert_eq!(facts(&one), facts(&other));
        assert_ne!(facts(&one), facts(&one[..1]));
    }
}
