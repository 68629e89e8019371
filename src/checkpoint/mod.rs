//! Whole processes to disk and back, through CRIU.
//!
//! `mounts` and `request` are pure: what the container's mounts, namespaces and standard streams mean for CRIU, and
//! the options that follow. `options` and `wire` put them into the bytes that `criu swrk` reads; `criu` starts it
//! and talks to it; `cause` finds in its log why something failed; `image` says what on disk counts as an image.
//! `archive` is the layout in which engines hand images around.
//! `check` tells beforehand what could not be saved, from what `survey` has read.
//!
//! Nothing here knows records or cgroups. CRIU is a program of its own and runs beside the container: what it is
//! told decides everything, so all of it is data that tests can look at.

mod archive;
mod cause;
mod check;
mod criu;
mod image;
mod mounts;
mod options;
mod request;
mod survey;
mod wire;

pub use archive::{
    About, CHANGES, CONFIG_DUMP, ConfigDump, DELETED, IMAGE, LONGEST_LIST, NEVER, Part, REMARKS, SPEC_DUMP,
    annotations, deleted, limits, part,
};
pub use cause::explain;
pub use check::{Allowed, Obstacle, obstacles};
pub use criu::{Answer, Notice, Root, Setting, Work, find_program, knows_selinux, run};
pub use image::{Image, Kind, MANIFEST, Manifest};
pub use mounts::{Bind, Intended, Mounted, Outside, outside, parse};
pub use options::{CgroupMode, NetworkLock, Options, PageServer};
pub use request::{Asked, DUMP_LOG, Dump, RESTORE_LOG, Restore, dump, restore};
pub use survey::survey;
