//! What is on disk about a container, and what follows from it.
//!
//! A container is a directory `<root>/<id>`; making it reserves the id. In it lie `record.json`, written for
//! the first time before anything else exists, so that a create that was killed can be deleted; `config.json`,
//! the bytes that were loaded; and, while a created container waits for `start`, the socket `start.sock`.
//! The creator holds the directory's lock until the container is complete: a record without a process whose
//! lock is free was left by a creator that died.
//!
//! Nothing here prints, signals or knows cgroups; whether one is frozen is asked of the caller.

mod crowd;
mod id;
mod life;
mod record;
mod state;
mod status;
mod store;

pub use crowd::Crowd;
pub use id::check_id;
pub use life::{Life, life, own_life};
pub use record::{CgroupPlace, HostPlace, Listener, RdtPlace, Record, Sharing, VERSION};
pub use state::{Listing, State};
pub use status::{Action, Status, require};
pub use store::{CONFIG, Container, Lock, Reservation, START_SOCKET, Store, absolute, default_root};
