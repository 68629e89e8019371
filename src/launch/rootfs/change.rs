//! Mounts that come to a running container, or leave it.
//!
//! The steps are performed by a child that has joined the container's namespaces; what it sees as `/` is the
//! container's root, and from there on the rules are those of a new container.

use std::ffi::{CStr, CString};

use anyhow::{Result, bail};

use super::plan::{Facts, Plan, Planner};
use super::target::{Base, Target};
use super::{Step, path};
use crate::spec::{Linux, Mount, Spec};
use crate::sys::clone::namespace;
use crate::sys::fs::{self, FileType, Mode, OFlags};
use crate::sys::mount::{self, UnmountFlags};
use crate::sys::{self, BorrowedFd, OwnedFd};

/// What is to become of the mounts of `spec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Add,
    Remove,
}

/// Plans the change of a container that has all but these mounts.
pub fn plan_change(change: Change, spec: &Spec<'_>, facts: &Facts<'_>) -> Result<Plan> {
    if facts.namespaces & namespace::MOUNT == 0 {
        bail!("the container has no mount namespace of its own: its mounts are the host's");
    }
    let default = Linux::default();
    let mut planner = Planner::new(facts, spec.linux.as_ref().unwrap_or(&default));
    planner.plan.prepare.push(Step::OpenRoot);
    match change {
        Change::Add => planner.mounts(&spec.mounts)?,
        // What was mounted last lies on top.
        Change::Remove => {
            for mount in spec.mounts.iter().rev() {
                let target = removed(mount)?;
                planner.plan.prepare.push(Step::Unmount(target));
            }
        }
    }
    Ok(planner.plan)
}

fn removed(mount: &Mount<'_>) -> Result<Target> {
    let clean = path::clean(&mount.destination);
    if clean.is_empty() {
        bail!("mounts: the root itself cannot be unmounted");
    }
    Ok(Target::below_root(CString::new(clean)?, &mount.destination))
}

/// The root of the mount namespace this process has joined.
pub fn open_root() -> sys::Result<OwnedFd> {
    fs::openat(fs::CWD, c"/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Takes away the mount on top of `target`, at once for whoever looks for it, later for whoever uses it. A place
/// that is no mount is an error.
pub fn unmount(target: &Target, base: BorrowedFd<'_>) -> sys::Result<()> {
    let place = target.open(base)?;
    let directory = FileType::from_raw_mode(fs::fstat(&place)?.st_mode) == FileType::Directory;
    // umount2 takes nothing but a path: one of a single component that nobody else can turn into another.
    let (from, name): (OwnedFd, &CStr) = if directory { (place, c".") } else { target.split(base)? };
    fs::fchdir(&from)?;
    mount::umount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

impl Target {
    fn below_root(path: CString, text: &str) -> Self {
        Self {
            base: Base::Root,
            path,
            direct: false,
            rigid: false,
            nofollow: false,
            absent: false,
            text: text.to_owned(),
        }
    }
}
