//! The root of a container that has mounts and no mount namespace to have them in: its own tree attached over itself
//! on the host, private, with every mount of the container below. Taking it away takes all of them away.

use std::ffi::{CStr, CString};

use anyhow::{Context, Result};

use crate::container::HostPlace;
use crate::sys::fs::{self, Mode, OFlags};
use crate::sys::mount::{self, Change, Lookup, Propagation, UnmountFlags};
use crate::sys::{self, OwnedFd};

const TREE: Lookup = Lookup { recursive: true, nofollow: false };

/// An attached root. Dropping it takes it away again.
pub struct HostRoot {
    place: HostPlace,
    kept: bool,
}

/// What has to be written down before the root at `path` is attached.
pub fn place(path: &str) -> Result<HostPlace> {
    let below = fs::identity(open(&CString::new(path)?).with_context(|| format!("open {path:?}"))?);
    Ok(HostPlace { path: path.to_owned(), below: below.with_context(|| format!("look at {path:?}"))?.mount })
}

impl HostRoot {
    pub fn attach(place: &HostPlace) -> Result<Self> {
        let path = CString::new(place.path.as_str())?;
        let root = Self { place: place.clone(), kept: false };
        attach(&path).with_context(|| format!("mount the root {path:?}"))?;
        Ok(root)
    }

    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for HostRoot {
    fn drop(&mut self) {
        if !self.kept {
            // The failure that led here is the one to tell; `delete` is not possible for what was never made.
            detach(&self.place).ok();
        }
    }
}

/// Takes away what was attached there, if it still is: at once for whoever looks for it, later for whoever uses it.
pub fn detach(place: &HostPlace) -> Result<()> {
    let path = CString::new(place.path.as_str())?;
    // A mount of the container on its own "/" lies on top of the root.
    loop {
        let root = match open(&path) {
            // Whoever made the bundle has removed it, and with it what was mounted there.
            Err(fault) if fault.errno == sys::Errno::NOENT => return Ok(()),
            root => root.with_context(|| format!("open {path:?}"))?,
        };
        if fs::identity(&root).with_context(|| format!("look at {path:?}"))?.mount == place.below {
            return Ok(());
        }
        take_away(&root, &path).with_context(|| format!("unmount {path:?}"))?;
    }
}

fn open(path: &CStr) -> sys::Result<OwnedFd> {
    fs::openat(fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

fn attach(path: &CStr) -> sys::Result<()> {
    let root = mount::open_tree(fs::CWD, path, TREE)?;
    mount::move_mount(&root, fs::CWD, path)?;
    // Attaching to a shared mount has made it shared, too.
    isolate(&root)
}

fn take_away(root: &OwnedFd, path: &CStr) -> sys::Result<()> {
    // A copy of a mount that is shared would take along what is mounted below the original.
    isolate(root)?;
    mount::umount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

fn isolate(root: &OwnedFd) -> sys::Result<()> {
    mount::mount_setattr(root, c"", TREE, Change::propagation(Propagation::Private))
}
