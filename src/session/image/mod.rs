//! States as OCI images, and images as states.
//!
//! A layer of a state and a layer of an image are the same things in two forms: whiteouts, opaque directories, links,
//! attributes and devices go from one to the other and back (`pack`, `unpack`). `write` makes an image of a state.

mod pack;
mod unpack;
mod write;

use serde::{Deserialize, Serialize};

pub use pack::pack;
pub use unpack::{Unpacked, unpack};
pub use write::write;

/// What images have no word for, on those that deja has made.
pub const LABEL: &str = "deja.state";

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The label's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    pub umask: u32,
    pub clock: i64,
}
