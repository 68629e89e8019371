//! What a command made of a state, in one file: the facts of its key, where it led, and what it wrote.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::id::Id;
use super::key::Fact;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out = 1,
    Err = 2,
}

/// Something written at once, and how long after the begin it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub stream: Stream,
    pub after: Duration,
    pub bytes: Vec<u8>,
}

impl Piece {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.stream as u8);
        let micros = u64::try_from(self.after.as_micros()).unwrap_or(u64::MAX);
        out.extend_from_slice(&micros.to_le_bytes());
        out.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub from: Id,
    pub to: Id,
    pub facts: Vec<Fact>,
    pub shown: String,
    pub code: i32,
    /// How long the run took.
    pub micros: u64,
    /// Bytes of layers it made.
    pub bytes: u64,
    /// When it ran.
    pub at: String,
    /// When it is no longer given to others, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

impl Head {
    pub fn is_fresh(&self, now: u64) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub head: Head,
    pub output: Vec<Piece>,
}

impl Transition {
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&self.head).context("write a transition")?;
        bytes.push(b'\n');
        for piece in &self.output {
            piece.encode(&mut bytes);
        }
        Ok(bytes)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("it has no head")?;
        let head = serde_json::from_slice(&bytes[..end])?;
        let mut rest = &bytes[end + 1..];
        let mut output = Vec::new();
        while let [stream, after @ ..] = rest {
            let (micros, after) = after.split_first_chunk::<8>().context("it ends too early")?;
            let (length, after) = after.split_first_chunk::<4>().context("it ends too early")?;
            let length = u32::from_le_bytes(*length) as usize;
            let (written, after) = after.split_at_checked(length).context("it ends too early")?;
            let stream = match stream {
                1 => Stream::Out,
                2 => Stream::Err,
                other => bail!("output on an unknown stream {other}"),
            };
            let after_begin = Duration::from_micros(u64::from_le_bytes(*micros));
            output.push(Piece { stream, after: after_begin, bytes: written.to_vec() });
            rest = after;
        }
        Ok(Self { head, output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            from: Id::of("state", b"1"),
            to: Id::of("state", b"2"),
            facts: vec![("argument".to_owned(), "two\nlines".to_owned())],
            shown: "two\nlines".to_owned(),
            code: 3,
            micros: 42,
            bytes: 0,
            at: "2026-11-20T23:43:51Z".to_owned(),
            expires: None,
        }
    }

    proptest! {
        #[test]
        fn a_transition_is_read_as_it_was_written(
            pieces in proptest::collection::vec((any::<bool>(), 0u64..1 << 40, proptest::collection::vec(any::<u8>(), 0..20)), 0..5)
        ) {
            let output = pieces.into_iter().map(|(out, micros, bytes)| Piece {
                stream: if out { Stream::Out } else { Stream::Err },
                after: Duration::from_micros(micros),
                bytes,
            });
            let transition = Transition { head: head(), output: output.collect() };
            let bytes = transition.to_bytes().unwrap();
            prop_assert_eq!(Transition::from_bytes(&bytes).unwrap(), transition);
        }

        #[test]
        fn a_part_of_one_is_refused_or_shorter(cut in 0usize..100) {
            let piece = Piece { stream: Stream::Err, after: Duration::ZERO, bytes: b"hello".to_vec() };
            let bytes = Transition { head: head(), output: vec![piece] }.to_bytes().unwrap();
            let cut = bytes.len().saturating_sub(cut + 1);
            if let Ok(read) = Transition::from_bytes(&bytes[..cut]) {
                prop_assert!(read.output.is_empty());
            }
        }
    }
}
