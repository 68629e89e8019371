//! Faults on request, in debug builds only: tests make every place of every verb fail or die in turn.
//!
//! `$DEJA_TRIAL` says what happens where. Points are counted from 1 in the order this process passes them.
//! ```text
//! step:N   the child fails in front of step N of its plan
//! fail:N   the N-th point fails
//! full:N   every point from the N-th on fails, as on a full disk
//! kill:N   this process is killed at the N-th point
//! ```
//! A release build holds nothing of this.

#[cfg(not(debug_assertions))]
use anyhow::Result;

#[cfg(debug_assertions)]
pub use requested::{point, step};

/// Stands between two actions that change something; `next` is the one that comes now.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_next: &str) -> Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
mod requested {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use anyhow::{Context, Result, bail};

    use crate::sys::{Call, Errno, process};

    enum Request {
        Nothing,
        Step(usize),
        Fail(u64),
        Full(u64),
        Kill(u64),
    }

    fn request() -> &'static Request {
        static REQUEST: OnceLock<Request> = OnceLock::new();
        REQUEST.get_or_init(|| parse(&std::env::var("DEJA_TRIAL").unwrap_or_default()))
    }

    fn parse(text: &str) -> Request {
        let (kind, number) = text.split_once(':').unwrap_or_default();
        match (kind, number.parse()) {
            ("step", Ok(number)) => Request::Step(number as usize),
            ("fail", Ok(number)) => Request::Fail(number),
            ("full", Ok(number)) => Request::Full(number),
            ("kill", Ok(number)) => Request::Kill(number),
            _ => Request::Nothing,
        }
    }

    /// The step of the child in front of which a failure is wanted, counted from 1.
    pub fn step() -> Option<usize> {
        match request() {
            Request::Step(number) => Some(*number),
            _ => None,
        }
    }

    /// Stands between two actions that change something; `next` is the one that comes now.
    pub fn point(next: &str) -> Result<()> {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let passed = PASSED.fetch_add(1, Relaxed) + 1;
        match request() {
            Request::Fail(number) if *number == passed => bail!("point {passed}: {next}: fails on request"),
            Request::Full(number) if *number <= passed => {
                Err(Call::Write.fault(Errno::NOSPC)).with_context(|| format!("point {passed}: {next}"))
            }
            Request::Kill(number) if *number == passed => {
                process::pidfd_send_signal(process::pidfd_open(process::own_pid())?, 9)?;
                bail!("point {passed}: {next}: outlived its own end")
            }
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn requests_are_read_and_anything_else_asks_for_nothing() {
            assert!(matches!(parse("step:3"), Request::Step(3)));
            assert!(matches!(parse("fail:1"), Request::Fail(1)));
            assert!(matches!(parse("full:2"), Request::Full(2)));
            assert!(matches!(parse("kill:12"), Request::Kill(12)));
            for text in ["", "step", "step:", "step:x", "stop:1", "kill:-1"] {
                assert!(matches!(parse(text), Request::Nothing), "{text}");
            }
        }
    }
}
