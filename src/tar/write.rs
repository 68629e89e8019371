//! Writing an archive, in the form that all readers know: ustar, with pax records where something does not fit.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};

use super::header::{BLOCK, Header, write_records};
use super::read::XATTR;
use super::{Entry, Kind};

/// Takes entries, and writes as the content of the one taken last.
pub struct Writer<W> {
    inner: W,
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// The content of the entry before must have been written.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_entry()?;
        let header = header(entry);
        let misfits = header.misfits();
        let xattrs: Vec<_> =
            entry.xattrs.iter().map(|(name, value)| ([XATTR, name].concat(), value)).collect();
        let records = misfits.iter().map(|(key, value)| (key.as_bytes(), value.as_slice()));
        let records = records.chain(xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())));
        let beside = write_records(records);
        if !beside.is_empty() {
            let name = b"PaxHeaders/entry".to_vec();
            let size = beside.len() as i64;
            let header = Header { name, kind: b'x', mode: 0o600, size, ..Header::default() };
            self.inner.write_all(&header.write())?;
            self.inner.write_all(&beside)?;
            self.pad(beside.len() as u64)?;
        }
        self.inner.write_all(&header.write())?;
        self.left = if entry.kind == Kind::File { entry.size } else { 0 };
        self.padding = padding(self.left);
        Ok(())
    }

    /// An entry with its content, of which there must be as much as it says.
    pub fn file(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        self.entry(entry)?;
        let size = self.left;
        let copied = io::copy(&mut content.take(size), self)?;
        ensure!(copied == size, "{:?} has become shorter meanwhile", entry.display_name());
        Ok(())
    }

    pub fn finish(mut self) -> Result<W> {
        self.end_entry()?;
        self.inner.write_all(&[0; 2 * BLOCK]).context("write the end of the archive")?;
        Ok(self.inner)
    }

    fn end_entry(&mut self) -> Result<()> {
        ensure!(self.left == 0, "the content of an entry is {} bytes too short", self.left);
        self.inner.write_all(&[0; BLOCK][..self.padding])?;
        self.padding = 0;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.inner.write_all(&[0; BLOCK][..padding(size)])
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.left.try_into().unwrap_or(usize::MAX));
        let length = self.inner.write(&bytes[..length])?;
        self.left -= length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn header(entry: &Entry) -> Header {
    let mut name = entry.name.clone();
    let (mut target, mut numbers) = (Vec::new(), (0, 0));
    let kind = match &entry.kind {
        Kind::File => b'0',
        Kind::Directory => {
            if name.is_empty() {
                name.push(b'.');
            }
            name.push(b'/');
            b'5'
        }
        Kind::Symlink { target: to } => {
            target.clone_from(to);
            b'2'
        }
        Kind::Link { target: to } => {
            target.clone_from(to);
            b'1'
        }
        Kind::Device { block, major, minor } => {
            numbers = (i64::from(*major), i64::from(*minor));
            if *block { b'4' } else { b'3' }
        }
        Kind::Fifo => b'6',
    };
    Header {
        name,
        kind,
        mode: i64::from(entry.mode),
        uid: i64::from(entry.uid),
        gid: i64::from(entry.gid),
        size: if entry.kind == Kind::File { entry.size as i64 } else { 0 },
        mtime: entry.mtime,
        target,
        major: numbers.0,
        minor: numbers.1,
    }
}
