//! Every process of a container stands still, at one moment, for as long as it is looked at.

use std::time::Duration;

use anyhow::Result;

use crate::cgroup::Cgroup;
use crate::container::{Container, Status};
use crate::error;
use crate::log;
use crate::sys::clone::{self, CloneRequest, Cloned};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::{self, AsFd, AsRawFd, OwnedFd, RawFd, fs};

/// How long the kernel may take to stop every process.
const WITHIN: Duration = Duration::from_secs(10);
const KILL: i32 = 9;

/// Until this is dropped. CRIU would look only every tenth of a second whether all of them stand still.
pub struct Frozen(Option<Held>);

struct Held {
    cgroup: Cgroup,
    guard: Cloned,
    /// Open as long as this process or CRIU lives.
    lifeline: OwnedFd,
}

impl Frozen {
    /// One that was paused stays so.
    pub fn take(container: &Container, status: Status) -> Result<Self> {
        let place = container.record.cgroup.as_ref().filter(|_| status == Status::Running);
        let Some(cgroup) = place.map(super::super::cgroup).transpose()?.flatten() else {
            return Ok(Self(None));
        };
        let (guard, lifeline) = guard(&cgroup)?;
        let frozen = Self(Some(Held { cgroup, guard, lifeline }));
        if let Some(held) = &frozen.0 {
            held.cgroup.freeze(WITHIN)?;
        }
        Ok(frozen)
    }

    /// What CRIU has to inherit, so that its end is seen.
    pub fn lifeline(&self) -> Option<RawFd> {
        self.0.as_ref().map(|held| held.lifeline.as_raw_fd())
    }
}

/// A process that does nothing but wait for the end of this one, and then for that of CRIU: whatever that is, the
/// container goes on. CRIU lives on for a moment, and at its end stops again what it had found stopped.
fn guard(cgroup: &Cgroup) -> Result<(Cloned, OwnedFd)> {
    let own = process::pidfd_open(process::own_pid())?;
    let flags = fs::OFlags::WRONLY;
    let freezer = fs::openat(cgroup.as_fd(), c"cgroup.freeze", flags, fs::Mode::empty())?;
    let (ended, lifeline) = fs::pipe()?;
    // The child's copy of its end would keep it open.
    let others = lifeline.as_raw_fd();
    // What ends this process from a terminal must not end that one before it has done its part.
    let watch = || {
        let ready = fs::close_copied(others).and_then(|()| process::set_signal_mask(&SignalSet::all()));
        match ready.and_then(|()| watch([&own, &ended], &freezer)) {
            Ok(()) => 0,
            Err(_) => 1,
        }
    };
    Ok((clone::clone3(CloneRequest::default(), watch)?, lifeline))
}

/// In the child.
fn watch(ends: [&OwnedFd; 2], freezer: &OwnedFd) -> sys::Result<()> {
    for end in ends {
        while event::poll([(end.as_fd(), Interest::Read)], None)? != [true] {}
        fs::write(freezer, b"0")?;
    }
    Ok(())
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some(Held { cgroup, guard, .. }) = &self.0 else { return };
        // It may have been ended along with what a CRIU that was killed has left.
        let _ended =
            process::pidfd_send_signal(&guard.pidfd, KILL).and_then(|()| process::wait(&guard.pidfd));
        if let Err(failure) = cgroup.thaw() {
            log::warning(&error::sentence(&failure));
        }
    }
}
