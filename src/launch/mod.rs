//! From a spec to a running process.
//!
//! `plan` puts together what the parts (`namespaces`, `rootfs`, `identity`, `seccomp`) have decided; `parent`
//! clones and explains, `child` performs, and `wire` is what they say to each other.

mod child;
mod conversation;
pub mod identity;
pub mod idmap;
pub mod namespaces;
pub mod netdev;
mod parent;
mod plan;
pub mod rootfs;
pub mod seccomp;
mod step;
pub mod sysctl;
mod terminal;
mod wire;

pub use conversation::{Conversation, Milestone, Question, Reply, Trouble};
pub use parent::{Handover, Launch, begin};
pub use plan::{AnotherProcess, MountChange, NewContainer, Plan, explain_words};
