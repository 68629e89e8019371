//! systemd as the one who makes cgroups: a transient scope for each container, asked for over D-Bus on the
//! manager's own socket, so that neither a bus daemon nor a library is needed.
//!
//! Deciding is pure: `unit` (cgroupsPath -> scope and slice), `property` (limits and annotations -> properties),
//! `text` (an annotation's value), `wire` (messages <-> bytes). `bus` talks, and `manager` says what is asked for.
//!
//! systemd applies what it is told again whenever it reads its units anew, so every limit it has a property for
//! is told to it; what it has none for is only in the cgroup's files, which it leaves alone. The rules for
//! devices are not told: a program of ours beside systemd's stays where it is.

mod bus;
mod manager;
pub mod property;
mod text;
pub mod unit;
pub mod wire;

pub use manager::{Keeper, Manager};
pub use property::Property;
pub use unit::Unit;
