//! What goes on in sessions now, for whoever looks: each command that runs, or waits for another to run it, has a
//! directory among the drafts, which whoever runs it has locked.
//!
//! ```text
//! notice    which command, of which session
//! output    what it has written so far, piece by piece, and at its end the exit code; missing while it waits
//! ```
//! Nothing here is put on the disk: what is not locked any more means nothing.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::id::Id;
use super::store::{Draft, Shelf, Store};
use super::transition::{Piece, Stream};
use crate::sys::fs::{self, FlockOperation};

const NOTICE: &str = "notice";
const OUTPUT: &str = "output";

/// More of what a command writes is not shown to others.
const MOST_SHOWN: u64 = 64 << 20;

/// What is told of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub session: String,
    pub key: Id,
    pub shown: String,
    pub at: String,
    /// Of the deja that runs it.
    pub pid: i32,
    /// The command has ended, and processes of it go on in this container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// A command that others can look at, until this is dropped.
pub struct Announced {
    draft: Draft,
    notice: Notice,
    output: OnceCell<File>,
    written: Cell<u64>,
}

impl Announced {
    pub fn new(store: &Store, notice: Notice) -> Result<Self> {
        let draft = store.draft()?;
        let announced = Self { draft, notice, output: OnceCell::new(), written: Cell::new(0) };
        announced.tell(&announced.notice)?;
        Ok(announced)
    }

    fn tell(&self, notice: &Notice) -> Result<()> {
        let (path, new) = (self.draft.path.join(NOTICE), self.draft.path.join("new-notice"));
        let bytes = serde_json::to_vec(notice).context("write a notice")?;
        let write = || std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path));
        write().with_context(|| format!("write {path:?}"))
    }

    /// Says that the command has ended and left processes in `container`, which this process looks after.
    pub fn goes_on(&self, container: &str) -> Result<()> {
        let pid = crate::sys::process::own_pid().as_raw_nonzero().get();
        self.tell(&Notice { container: Some(container.to_owned()), pid, ..self.notice.clone() })
    }

    /// What names the processes that this command leaves behind, in the journal.
    pub fn id(&self) -> Id {
        live_id(&self.draft.path)
    }

    /// It runs from now on, and no longer waits.
    pub fn begin(&self) -> Result<()> {
        let path = self.draft.path.join(OUTPUT);
        let mut options = std::fs::OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(&path);
        // A second run of the command goes on behind the first.
        self.output.set(file.with_context(|| format!("write {path:?}"))?).ok();
        Ok(())
    }

    pub fn write(&self, piece: &Piece) -> Result<()> {
        let mut bytes = Vec::new();
        piece.encode(&mut bytes);
        let length = bytes.len() as u64;
        self.written.set(self.written.get() + length);
        if self.written.get() <= MOST_SHOWN { self.append(&bytes) } else { Ok(()) }
    }

    pub fn end(&self, code: i32) -> Result<()> {
        let mut bytes = vec![0; 9];
        bytes.extend_from_slice(&4u32.to_le_bytes());
        bytes.extend_from_slice(&code.to_le_bytes());
        self.append(&bytes)
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        let mut file = self.output.get().context("a command writes before it has begun")?;
        file.write_all(bytes).context("write what others may look at")
    }
}

fn live_id(draft: &Path) -> Id {
    Id::of("deja live 1", draft.file_name().unwrap_or_default().as_encoded_bytes())
}

/// A command as somebody else sees it.
#[derive(Debug)]
pub struct Sight {
    pub notice: Notice,
    path: PathBuf,
    directory: File,
}

impl Sight {
    /// Whether whoever runs it is still there.
    pub fn is_alive(&self) -> bool {
        fs::flock(&self.directory, FlockOperation::NonBlockingLockShared).is_err()
    }

    pub fn id(&self) -> Id {
        live_id(&self.path)
    }

    /// What it writes, if it has begun.
    pub fn output(&self) -> Option<Output> {
        let file = File::open(self.path.join(OUTPUT)).ok()?;
        Some(Output { file, at: 0, rest: Vec::new() })
    }
}

/// Every command that runs or waits now.
pub fn all(store: &Store) -> Result<Vec<Sight>> {
    let mut found = Vec::new();
    for name in store.list(Shelf::Drafts)? {
        let path = store.path(Shelf::Drafts, &name);
        // Other drafts have no notice, and this one may be gone by now.
        let Ok(bytes) = std::fs::read(path.join(NOTICE)) else { continue };
        let (Ok(notice), Ok(directory)) = (serde_json::from_slice(&bytes), File::open(&path)) else {
            continue;
        };
        let sight = Sight { notice, path, directory };
        if sight.is_alive() {
            found.push(sight);
        }
    }
    Ok(found)
}

/// What goes on in a session.
pub fn find(store: &Store, session: &str) -> Result<Option<Sight>> {
    Ok(all(store)?.into_iter().find(|sight| sight.notice.session == session))
}

/// The output of a command, read while it is written.
pub struct Output {
    file: File,
    at: u64,
    rest: Vec<u8>,
}

/// Something that was read of a command's output.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    Piece(Piece),
    /// The end, and its exit code.
    End(i32),
    /// Nothing more yet.
    Nothing,
}

impl Output {
    pub fn read(&mut self) -> Result<Told> {
        loop {
            if let Some((told, length)) = told(&self.rest) {
                self.rest.drain(..length);
                return Ok(told);
            }
            let mut buffer = [0; 32 << 10];
            match fs::pread(&self.file, &mut buffer, self.at).context("read what a command writes")? {
                0 => return Ok(Told::Nothing),
                length => {
                    self.at += length as u64;
                    self.rest.extend_from_slice(&buffer[..length]);
                }
            }
        }
    }
}

/// The first whole piece of `bytes`, and how long it is there.
fn told(bytes: &[u8]) -> Option<(Told, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let (micros, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let after = Duration::from_micros(u64::from_le_bytes(*micros));
    let piece = |stream| Told::Piece(Piece { stream, after, bytes: body.to_vec() });
    let told = match (kind, body) {
        (1, _) => piece(Stream::Out),
        (2, _) => piece(Stream::Err),
        (_, [a, b, c, d]) => Told::End(i32::from_le_bytes([*a, *b, *c, *d])),
        _ => Told::End(255),
    };
    Some((told, 13 + body.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_piece_by_piece_while_it_grows() {
        let piece =
            |stream, text: &str| Piece { stream, after: Duration::from_micros(7), bytes: text.into() };
        let pieces = [piece(Stream::Out, "one"), piece(Stream::Err, ""), piece(Stream::Out, "two")];
        let mut bytes = Vec::new();
        pieces.iter().for_each(|piece| piece.encode(&mut bytes));
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0]);
        for cut in 0..=bytes.len() {
            let mut rest = &bytes[..cut];
            let mut found = Vec::new();
            while let Some((told, length)) = told(rest) {
                found.push(told);
                rest = &rest[length..];
            }
            let whole: Vec<Told> = pieces.iter().cloned().map(Told::Piece).chain([Told::End(3)]).collect();
            assert_eq!(found, whole[..found.len()], "cut at {cut}");
            assert_eq!(found.len() == whole.len(), cut == bytes.len(), "cut at {cut}");
        }
    }
}
