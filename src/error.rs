//! The one typed failure: a kind where somebody branches on it, and the sentence a person reads.
//!
//! Everything above `sys` returns `anyhow::Result`. A `Failure` travels inside it when a caller of deja
//! tells cases apart by text or exit code; its words are a contract with containerd, podman, docker and
//! CRI-O and must not change.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The container does not exist.
    NotFound,
    /// The container is there but in a status the verb does not allow.
    Status,
    /// config.json or another input is not valid, or asks for what is not implemented.
    Input,
}

#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    message: String,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    pub fn no_container(id: &str) -> Self {
        Self::new(Kind::NotFound, format!("container {id:?} does not exist"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The kind inside an error, if it carries one.
pub fn kind(error: &anyhow::Error) -> Option<Kind> {
    error.downcast_ref::<Failure>().map(|failure| failure.kind)
}

/// The error and its causes as one sentence: `start "web": read "/x": Permission denied`.
pub fn sentence(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
