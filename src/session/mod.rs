//! Sessions: the states of a container, kept and addressed by content, and commands that run once.
//!
//! A *state* is a file tree and the shell's context (working directory, environment, umask); its id is a hash of
//! both. A *transition* is what a command made of a state: another state, its output and exit code. A *session* is a
//! journal of the transitions somebody went through. Nothing here knows how a command runs.

pub mod backup;
pub mod check;
pub mod collect;
mod content;
pub mod delta;
pub mod disown;
pub mod history;
mod id;
pub mod image;
pub mod journal;
pub mod key;
pub mod layer;
mod lend;
pub mod live;
pub mod marks;
mod nodes;
pub mod owners;
pub mod policy;
pub mod put;
pub mod state;
pub mod store;
pub mod transition;
pub mod tree;

pub use content::Content;
pub use id::{Hasher, Id};
