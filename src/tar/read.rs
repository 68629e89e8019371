//! Reading an archive: one entry after the other, each checked before it is given.

use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};

use super::header::{BLOCK, Block, Header, read_records};
use super::{Entry, Kind};

/// The key of a pax record that holds an extended attribute.
pub const XATTR: &[u8] = b"SCHILY.xattr.";

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub entries: u64,
    /// Of all content together.
    pub bytes: u64,
    /// Of what stands beside the content of one entry: long names, attributes.
    pub beside: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1 << 20, bytes: 1 << 40, beside: 1 << 20 }
    }
}

/// Gives the entries of an archive; it reads as the content of the one given last.
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Of the present entry's content.
    left: u64,
    padding: u64,
}

/// What other blocks have said about the entry that comes.
#[derive(Default)]
struct Beside {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<i64>,
    gid: Option<i64>,
    size: Option<i64>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, left: 0, padding: 0 }
    }

    /// What is left of the content before is passed over. None: the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut beside = Beside::default();
        loop {
            let Some(header) = Header::read(&self.block()?)? else { return Ok(None) };
            self.limits.entries = self.limits.entries.checked_sub(1).context("it has too many entries")?;
            match header.kind {
                b'x' => beside.records(&self.beside(&header)?)?,
                // What is said of all entries is a remark.
                b'g' => drop(self.beside(&header)?),
                b'L' => beside.name = Some(without_end(self.beside(&header)?)),
                b'K' => beside.target = Some(without_end(self.beside(&header)?)),
                _ => return self.entry(header, beside).map(Some),
            }
        }
    }

    fn entry(&mut self, header: Header, beside: Beside) -> Result<Entry> {
        let name = beside.name.unwrap_or(header.name);
        let shown = String::from_utf8_lossy(&name).into_owned();
        let of = || format!("entry {shown:?}");
        let target = beside.target.unwrap_or(header.target);
        let size = beside.size.unwrap_or(header.size);
        let kind = match header.kind {
            // Before POSIX a directory was a file whose name ends so.
            b'0' | b'\0' | b'7' if !name.ends_with(b"/") => Kind::File,
            b'0' | b'\0' | b'7' | b'5' => Kind::Directory,
            b'1' => Kind::Link { target: relative(&target).with_context(of)? },
            b'2' => {
                ensure!(!target.is_empty() && !target.contains(&0), "entry {shown:?}: it leads nowhere");
                Kind::Symlink { target }
            }
            b'3' | b'4' => Kind::Device {
                block: header.kind == b'4',
                major: u32::try_from(header.major).with_context(of)?,
                minor: u32::try_from(header.minor).with_context(of)?,
            },
            b'6' => Kind::Fifo,
            b'S' => bail!("entry {shown:?}: sparse files are not implemented"),
            other => bail!("entry {shown:?}: it is of the unknown kind {:?}", char::from(other)),
        };
        let name = relative(&name).with_context(of)?;
        ensure!(!name.is_empty() || kind == Kind::Directory, "an entry without a name");
        let size = u64::try_from(size).with_context(of)?;
        let content = if kind == Kind::File { size } else { 0 };
        // Links of some writers tell the size of what they lead to, and have no content.
        ensure!(kind != Kind::Directory || size == 0, "entry {shown:?}: a directory with content");
        self.limits.bytes = self.limits.bytes.checked_sub(content).context("it holds too many bytes")?;
        self.expect(content);
        let id = |value: i64| u32::try_from(value).with_context(of);
        Ok(Entry {
            name,
            kind,
            mode: (header.mode & 0o7777) as u32,
            uid: id(beside.uid.unwrap_or(header.uid))?,
            gid: id(beside.gid.unwrap_or(header.gid))?,
            size: content,
            mtime: beside.mtime.unwrap_or(header.mtime),
            xattrs: beside.xattrs,
        })
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        let passed = io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())?;
        ensure!(passed == rest, "it is cut short");
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK];
        match self.inner.read_exact(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => bail!("it is cut short"),
            result => result.map(|()| block).map_err(Into::into),
        }
    }

    fn beside(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = u64::try_from(header.size)?;
        ensure!(size <= self.limits.beside, "a name or the attributes of an entry are too long");
        self.expect(size);
        let mut bytes = Vec::new();
        let length = self.inner.by_ref().take(size).read_to_end(&mut bytes)?;
        ensure!(length as u64 == size, "it is cut short");
        self.left = 0;
        self.skip()?;
        Ok(bytes)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(self.left.try_into().unwrap_or(usize::MAX));
        let length = self.inner.read(&mut buffer[..wanted])?;
        if length == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut short"));
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Beside {
    fn records(&mut self, text: &[u8]) -> Result<()> {
        for (key, value) in read_records(text)? {
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"uid" => self.uid = Some(whole(value)?),
                b"gid" => self.gid = Some(whole(value)?),
                b"size" => self.size = Some(whole(value)?),
                b"mtime" => self.mtime = Some(seconds(value)?),
                _ if key.starts_with(b"GNU.sparse.") => bail!("sparse files are not implemented"),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

fn whole(value: &[u8]) -> Result<i64> {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).context("a pax record is no number")
}

/// The part before the point; what is before 1970 counts backwards.
fn seconds(value: &[u8]) -> Result<i64> {
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let before = whole(parts.next().unwrap_or_default())?;
    let fraction = parts.next().is_some_and(|digits| digits.iter().any(|digit| *digit != b'0'));
    let backwards = value.starts_with(b"-") && fraction;
    Ok(before.saturating_sub(i64::from(backwards)))
}

fn without_end(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    text
}

/// A name that leads down from where the archive is unpacked, and nowhere else.
fn relative(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(!name.starts_with(b"/"), "its name is absolute");
    ensure!(!name.contains(&0), "its name holds a NUL byte");
    let parts = name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<&[u8]> = parts.collect();
    ensure!(!parts.contains(&b"..".as_slice()), "its name leads outside (\"..\")");
    Ok(parts.join(&b'/'))
}
