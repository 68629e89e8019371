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
use crate::sys::{self, AsFd, OwnedFd, fs};

/// How long the kernel may take to stop every process.
const WITHIN: Duration = Duration::from_secs(10);
const KILL: i32 = 9;

/// Until this is dropped. CRIU would look only every tenth of a second whether all of them stand still.
pub struct Frozen(Option<(Cgroup, Cloned)>);

impl Frozen {
    /// One that was paused stays so.
    pub fn take(container: &Container, status: Status) -> Result<Self> {
        let place = container.record.cgroup.as_ref().filter(|_| status == Status::Running);
        let Some(cgroup) = place.map(super::super::cgroup).transpose()?.flatten() else {
            return Ok(Self(None));
        };
        let guard = guard(&cgroup)?;
        let frozen = Self(Some((cgroup, guard)));
        if let Some((cgroup, _)) = &frozen.0 {
            cgroup.freeze(WITHIN)?;
        }
        Ok(frozen)
    }
}

/// A process that does nothing but wait for the end of this one: whatever that is, the container goes on.
fn guard(cgroup: &Cgroup) -> Result<Cloned> {
    let own = process::pidfd_open(process::own_pid())?;
    let flags = fs::OFlags::WRONLY;
    let freezer = fs::openat(cgroup.as_fd(), c"cgroup.freeze", flags, fs::Mode::empty())?;
    // What ends this process from a terminal must not end that one before it has done its part.
    let watch = || match process::set_signal_mask(&SignalSet::all()).and_then(|()| watch(&own, &freezer)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    Ok(clone::clone3(CloneRequest::default(), watch)?)
}

/// In the child.
fn watch(whom: &OwnedFd, freezer: &OwnedFd) -> sys::Result<()> {
    while event::poll([(whom.as_fd(), Interest::Read)], None)? != [true] {}
    fs::write(freezer, b"0").map(drop)
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let Some((cgroup, guard)) = &self.0 else { return };
        // It may have been ended along with what a CRIU that was killed has left.
        let _ended =
            process::pidfd_send_signal(&guard.pidfd, KILL).and_then(|()| process::wait(&guard.pidfd));
        if let Err(failure) = cgroup.thaw() {
            log::warning(&error::sentence(&failure));
        }
    }
}
