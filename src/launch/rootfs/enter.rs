//! The step from the host's root into the container's.

use std::ffi::{CStr, CString};

use anyhow::Result;

use super::Step;
use super::filesystem::FileSystem;
use super::plan::{Facts, initial_propagation, is_deaf};
use crate::sys::fs::{self, Mode, OFlags};
use crate::sys::mount::{self, Change, Lookup, Propagation, UnmountFlags, unescape};
use crate::sys::{BorrowedFd, Errno, Lingering, Result as SysResult};

const TREE: Lookup = Lookup { recursive: true, nofollow: false };

/// The last steps of the plan. Pure.
pub fn plan(
    steps: &mut Vec<Step>,
    facts: &Facts<'_>,
    readonly: bool,
    asked: Option<(Propagation, bool)>,
) -> Result<()> {
    // Nobody asked for the root to follow the host's mounts.
    let private = asked.is_none();
    if readonly || private {
        steps.push(Step::SealRoot { readonly, private });
    }
    if facts.no_pivot {
        let hidden = exposed(facts.mountinfo, facts.root);
        for path in hidden {
            steps.push(Step::Conceal(CString::new(path)?));
        }
        steps.push(Step::Move);
    } else {
        steps.push(Step::Pivot { detach: !is_deaf(initial_propagation(asked)) });
    }
    if let Some((kind @ (Propagation::Shared | Propagation::Unbindable), recursive)) = asked {
        steps.push(Step::RootPropagation { kind, recursive });
    }
    Ok(())
}

/// Full procs and sysfses of the host outside `root`, the outermost first.
fn exposed(mountinfo: &str, root: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let (Some(top), Some(place)) = (fields.nth(3), fields.next()) else { continue };
        let kind = fields.skip_while(|field| *field != "-").nth(1);
        let place = unescape(place);
        let inside = place.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if top == "/" && matches!(kind, Some("proc" | "sysfs")) && !inside {
            paths.push(place);
        }
    }
    paths
}

/// Takes a mount of the host away, or covers it where this process may not unmount it.
pub fn conceal(path: &CStr) -> SysResult<()> {
    let slave = Change::propagation(Propagation::Slave);
    match mount::mount_setattr(fs::CWD, path, TREE, slave)
        .and_then(|()| mount::umount(path, UnmountFlags::DETACH))
    {
        // It went away together with the one above it.
        Err(fault) if fault.errno == Errno::NOENT => Ok(()),
        Err(fault) if [Errno::INVAL, Errno::PERM].contains(&fault.errno) => {
            let cover = Lingering::new(FileSystem::empty()?);
            mount::move_mount(&cover, fs::CWD, path)
        }
        result => result,
    }
}

/// Pivots without a directory for the old root: it ends up on top of the new one and is taken off.
pub fn pivot(root: BorrowedFd<'_>, detach: bool) -> SysResult<()> {
    let old = match detach {
        true => {
            Some(Lingering::new(fs::openat(fs::CWD, c"/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?))
        }
        false => None,
    };
    fs::fchdir(root)?;
    mount::pivot_root(c".", c".")?;
    if let Some(old) = old {
        // The host must not hear that its mounts are unmounted here.
        mount::mount_setattr(&old, c"", TREE, Change::propagation(Propagation::Slave))?;
    }
    mount::umount(c".", UnmountFlags::DETACH)
}

/// Moves the root over `/`, for hosts whose root cannot be pivoted (an initramfs).
pub fn move_over(root: BorrowedFd<'_>) -> SysResult<()> {
    fs::fchdir(root)?;
    mount::move_mount(root, fs::CWD, c"/")?;
    fs::chroot(c".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_procs_and_sysfses_of_the_host_are_exposed() {
        let mountinfo = "\
22 1 0:20 / /sys rw,relatime shared:2 - sysfs sysfs rw
23 1 0:21 / /proc rw - proc proc rw
24 1 0:21 /sys /srv/sys rw - proc proc rw
25 1 0:5 / /dev rw shared:3 - devtmpfs udev rw
26 1 0:22 / /bundle/rootfs/proc rw - proc proc rw
27 1 0:23 / /bundle/rootfs2/a\\040b rw - proc proc rw
broken";
        assert_eq!(exposed(mountinfo, "/bundle/rootfs"), ["/sys", "/proc", "/bundle/rootfs2/a b"]);
    }
}
