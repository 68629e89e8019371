//! A session: a file of lines, each a step, each with its own checksum. The last whole line says where it stands.
//!
//! A step is one write at the end of the file. One that was cut off by a crash is no step: the session stands where it
//! stood, and the next step takes its place.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::id::Id;
use super::store::{Shelf, Store};
use crate::error::{Failure, Kind};
use crate::sys::file;
use crate::sys::fs::{self, FlockOperation};
use crate::trial;

/// What moved a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    New,
    Hit,
    Run,
    /// A run whose result is not kept for others.
    Once,
    /// A run that left processes, which go on: the session stands where it stood until they are gone.
    Live,
    /// They are gone, and this is what they and the command led to.
    Settled,
    Undo,
    Goto,
}

impl Act {
    pub fn is_command(self) -> bool {
        matches!(self, Act::Hit | Act::Run | Act::Once | Act::Live)
    }

    pub fn word(self) -> &'static str {
        match self {
            Act::New => "new",
            Act::Hit => "hit",
            Act::Run => "run",
            Act::Once => "once",
            Act::Live => "live",
            Act::Settled => "settled",
            Act::Undo => "undo",
            Act::Goto => "goto",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub act: Act,
    /// Where the session stands from here on.
    pub state: Id,
    pub at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Id>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shown: String,
    #[serde(default)]
    pub code: i32,
    /// How long the command took when it ran.
    #[serde(default)]
    pub micros: u64,
}

/// Most lines are shorter: the last one is looked for in so many bytes first.
const USUAL_LINE: usize = 1024;
/// No line is longer.
const LONGEST_LINE: usize = 4096;
/// Of a command's text this much is kept in the journal; the transition has all of it.
const LONGEST_SHOWN: usize = 400;

fn line(step: &Step) -> Result<String> {
    let json = serde_json::to_string(step).context("write a step")?;
    Ok(format!("{} {json}\n", checksum(&json)))
}

fn checksum(text: &str) -> String {
    Id::of("deja step 1", text.as_bytes()).to_string()[..16].to_owned()
}

fn parse(line: &str) -> Option<Step> {
    let (sum, json) = line.split_once(' ')?;
    (checksum(json) == sum).then(|| serde_json::from_str(json).ok()).flatten()
}

/// The steps in whole lines, and how long the file is up to the last of them.
fn steps(bytes: &[u8]) -> (Vec<Step>, u64) {
    let mut found = Vec::new();
    let mut whole = 0;
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        let text = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\n'));
        if let Some(step) = text.and_then(parse) {
            found.push(step);
            whole = at as u64;
        }
    }
    (found, whole)
}

/// The last whole step, and how long the file is up to it. The steps in front of it are not read: a session moves on as fast
/// with a long history as with a short one.
fn last_whole(bytes: &[u8]) -> Option<(Step, u64)> {
    let break_in = |part: &[u8]| part.iter().rposition(|byte| *byte == b'\n');
    let mut end = break_in(bytes)?;
    loop {
        let begin = break_in(&bytes[..end]).map_or(0, |at| at + 1);
        let line = std::str::from_utf8(&bytes[begin..end]).ok();
        match line.and_then(parse) {
            Some(step) => return Some((step, end as u64 + 1)),
            None => end = begin.checked_sub(1)?,
        }
    }
}

/// A session that nobody else moves meanwhile.
pub struct Session {
    pub name: String,
    file: File,
    path: PathBuf,
    /// Where the next step goes.
    end: u64,
    pub last: Step,
}

/// Letters, digits and `.`, `_`, `-`; not longer than 64, and no dash or dot in front.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    match first && name.len() <= 64 && name.chars().all(fits) {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{name:?} is no name for a session: up to 64 letters, digits, dots, dashes and underscores, of which the first is a letter, a digit or an underscore"
        ))
        .into()),
    }
}

fn missing(name: &str) -> anyhow::Error {
    Failure::new(Kind::NotFound, format!("there is no session {name:?}")).into()
}

impl Session {
    /// A new session that stands at `state`.
    pub fn create(store: &Store, name: &str, first: &Step) -> Result<()> {
        check_name(name)?;
        let path = store.path(Shelf::Sessions, name);
        let draft = store.draft()?;
        let new = draft.path.join("journal");
        std::fs::write(&new, line(first)?).with_context(|| format!("write {new:?}"))?;
        file::sync(File::open(&new).context("open the new journal")?)?;
        trial::point("give a session its name")?;
        // A link, unlike a rename, never takes the place of another session.
        match std::fs::hard_link(&new, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = format!("there is a session {name:?} already");
                Err(Failure::new(Kind::Status, text).into())
            }
            result => result.with_context(|| format!("write {path:?}")),
        }?;
        store.sync(Shelf::Sessions)
    }

    /// Waits for whoever moves the session now.
    pub fn open(store: &Store, name: &str) -> Result<Self> {
        check_name(name)?;
        let path = store.path(Shelf::Sessions, name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(0);
        let file = match options.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(name)),
            result => result.with_context(|| format!("open {path:?}"))?,
        };
        fs::flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {path:?}"))?;
        let metadata = file.metadata().with_context(|| format!("look at {path:?}"))?;
        if std::os::unix::fs::MetadataExt::nlink(&metadata) == 0 {
            return Err(missing(name));
        }
        let (last, end) = last_step(&file, metadata.len(), &path)?;
        Ok(Self { name: name.to_owned(), file, path, end, last })
    }

    pub fn state(&self) -> Id {
        self.last.state
    }

    /// Adds a step; what a crash has left of one behind the last is written over.
    pub fn step(&mut self, mut step: Step, durable: bool) -> Result<()> {
        if step.shown.len() > LONGEST_SHOWN {
            let cut = (0..=LONGEST_SHOWN).rev().find(|at| step.shown.is_char_boundary(*at)).unwrap_or(0);
            step.shown.truncate(cut);
            step.shown.push_str(" ...");
        }
        let line = line(&step)?;
        trial::point("write a step of the session")?;
        let mut rest = line.as_bytes();
        let mut at = self.end;
        while !rest.is_empty() {
            let written =
                fs::pwrite(&self.file, rest, at).with_context(|| format!("write {:?}", self.path))?;
            rest = &rest[written..];
            at += written as u64;
        }
        if durable {
            file::sync(&self.file).with_context(|| format!("write {:?}", self.path))?;
        }
        self.end = at;
        self.last = step;
        Ok(())
    }

    /// How far the session has come, as a number that grows with every step.
    pub fn position(&self) -> u64 {
        self.end
    }

    pub fn steps(&self) -> Result<Vec<Step>> {
        read(&self.path)
    }

    /// Gives the session another name, that nobody has yet.
    pub fn rename(self, store: &Store, name: &str) -> Result<()> {
        check_name(name)?;
        let path = store.path(Shelf::Sessions, name);
        match std::fs::hard_link(&self.path, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = format!("there is a session {name:?} already");
                return Err(Failure::new(Kind::Status, text).into());
            }
            result => result.with_context(|| format!("write {path:?}"))?,
        }
        std::fs::remove_file(&self.path).with_context(|| format!("remove {:?}", self.path))?;
        store.sync(Shelf::Sessions)
    }

    /// Ends the session; its states stay until `gc` wants their place.
    pub fn close(self, store: &Store) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("remove {:?}", self.path))?;
        store.sync(Shelf::Sessions)
    }
}

/// The last step, from the end of the file where it mostly is.
fn last_step(file: &File, length: u64, path: &Path) -> Result<(Step, u64)> {
    let mut begin = length.saturating_sub(USUAL_LINE as u64);
    loop {
        let mut bytes = vec![0; (length - begin) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match fs::pread(file, &mut bytes[filled..], begin + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        if let Some((last, whole)) = last_whole(&bytes[..filled]) {
            return Ok((last, begin + whole));
        }
        if begin == 0 {
            return Err(anyhow!("{path:?} holds no step that is whole"));
        }
        begin = begin.saturating_sub(64 * LONGEST_LINE as u64);
    }
}

fn read(path: &Path) -> Result<Vec<Step>> {
    let bytes = std::fs::read(path).with_context(|| format!("read {path:?}"))?;
    Ok(steps(&bytes).0)
}

/// The steps of a session, without keeping anybody from moving it.
pub fn look(store: &Store, name: &str) -> Result<Vec<Step>> {
    check_name(name)?;
    match read(&store.path(Shelf::Sessions, name)) {
        Ok(steps) => Ok(steps),
        Err(_) if !store.has(Shelf::Sessions, name) => Err(missing(name)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: u8) -> Step {
        let state = Id::of("state", &[number]);
        let (key, shown) = (Some(state), format!("command {number}"));
        Step { act: Act::Run, state, at: String::new(), key, shown, code: 0, micros: 1 }
    }

    #[test]
    fn what_is_cut_off_is_no_step_and_is_written_over() {
        let all: String = (1..4).map(|number| line(&step(number)).unwrap()).collect();
        let second = line(&step(1)).unwrap().len() + line(&step(2)).unwrap().len();
        for cut in second..all.len() {
            let (found, whole) = steps(&all.as_bytes()[..cut]);
            assert_eq!(found, [step(1), step(2)], "cut at {cut}");
            assert_eq!(whole, second as u64);
            assert_eq!(last_whole(&all.as_bytes()[..cut]), Some((step(2), second as u64)), "cut at {cut}");
        }
        assert_eq!(steps(all.as_bytes()), ((1..4).map(step).collect(), all.len() as u64));
        assert_eq!(last_whole(all.as_bytes()), Some((step(3), all.len() as u64)));
        assert!(steps(&[0; 100]).0.is_empty());
        for nothing in [&[0; 100][..], b"", b"\n", b"\n\n", b"half a line"] {
            assert_eq!(last_whole(nothing), None);
        }
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "_", "student-17", "A.b_c-9", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
