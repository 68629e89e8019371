//! What the integration tests share: the binary under test, bundles to run, guards that clean up, and the
//! capabilities a test may state with `requires!`.
//!
//! A test never relies on another one: it has its own temporary directory, state directory, container id
//! and cgroup, all carrying one unique name, so tests run side by side and leftovers are found by name.

// Every test binary compiles this module and uses its own part of it.
#![allow(dead_code, unused_imports, unused_macros)]

mod apparmor;
mod bundle;
pub mod changes;
mod command;
mod console;
mod container;
pub mod counter;
mod cri;
mod disk;
mod leaks;
mod needs;
mod person;
pub mod selinux;
mod sessions;
mod world;

pub use apparmor::Profile;
pub use bundle::{Bundle, ROOTFS_VARIABLE, rootfs};
pub use command::{Deja, Finished, Running, binary, deja};
pub use console::{Console, ConsoleSocket};
pub use container::{Container, adopt_orphans};
pub use cri::{Cri, Message};
pub use disk::Disk;
pub use leaks::Leaks;
pub use needs::{first_missing, met, record_skip};
pub use person::Person;
pub use sessions::Sessions;
pub use world::World;

use std::time::{Duration, Instant};

/// How long anything a test waits for may take; software emulation is about twenty times slower.
pub fn patience() -> Duration {
    let seconds = std::env::var("DEJA_TEST_PATIENCE").ok().and_then(|value| value.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

/// Whether everything takes about twenty times as long as usual, so that a test of many rounds takes fewer.
pub fn is_slow() -> bool {
    patience() > Duration::from_secs(60)
}

/// Polls until `probe` answers, and fails the test with `what` when it never does.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {:?} for: {what}", patience());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Skips the test, visibly and counted, unless the machine has everything it names:
/// `requires!(bed)`, `requires!(vm, cgroup "memory", tool "strace")`. See `needs.rs` for the list.
macro_rules! requires {
    ($($need:ident $($argument:literal)?),+ $(,)?) => {{
        fn here() {}
        let needs = [$((stringify!($need), concat!("" $(, $argument)?))),+];
        if let Some(missing) = support::first_missing(&needs) {
            support::record_skip(std::any::type_name_of_val(&here).trim_end_matches("::here"), &missing);
            return;
        }
    }};
}
pub(crate) use requires;
