//! Tar archives, as engines exchange checkpoints, layers and root file systems in them.
//!
//! `header` has the 512 bytes before every entry, `read` and `write` the stream around them, over `Read` and `Write`
//! and nothing else; `compress` what may lie around the stream. `unpack` makes files of entries and `pack` entries of
//! files.
//!
//! An archive may be anybody's: a name leads nowhere but down, an entry's parents are directories and never links,
//! and how many entries, how many bytes and how large a name there may be is said beforehand.

mod compress;
mod header;
mod pack;
mod read;
mod unpack;
mod write;

#[cfg(test)]
mod tests;

pub use compress::{Compression, Compressor, decompress};
pub use pack::{Found, Packed, pack};
pub use read::{Limits, Reader};
pub use unpack::{Attributes, Unpacker};
pub use write::Writer;

/// What an entry is, with what only its kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link, which may say anything.
    Symlink {
        target: Vec<u8>,
    },
    /// One more name of an earlier entry.
    Link {
        target: Vec<u8>,
    },
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// One entry. Its names are relative, without `.`, `..` and empty parts; that of the root itself is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// The twelve bits of permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of the content, which only files have.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A file of root's that nobody else may read.
    pub fn file(name: &str, size: u64) -> Self {
        Self {
            name: name.into(),
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size,
            mtime: 0,
            xattrs: Vec::new(),
        }
    }

    /// A directory of root's that nobody else may search.
    pub fn directory(name: &str) -> Self {
        Self { kind: Kind::Directory, mode: 0o700, ..Self::file(name, 0) }
    }

    pub fn display_name(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}
