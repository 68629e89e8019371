//! Giving a cgroup to a user, who may then divide it: make cgroups in it and move processes between them, but not
//! change its limits.

use std::ffi::CString;

use anyhow::Result;

use super::Cgroup;
use crate::sys::Errno;
use crate::sys::fs::{self, AtFlags};

/// What the kernel says it lists there; kernels before 4.15 do not.
const LIST: &str = "/sys/kernel/cgroup/delegate";
const USUAL: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

/// Makes `uid` the owner of the cgroup and of those of its files that divide it.
pub fn hand_over(cgroup: &Cgroup, uid: u32) -> Result<()> {
    let failed = |fault| cgroup.failed(&format!("make user {uid} the owner of"), fault);
    fs::fchown(cgroup, uid).map_err(failed)?;
    let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| USUAL.to_owned());
    for name in list.lines().filter(|name| !name.contains('/')) {
        match fs::chownat(cgroup, &CString::new(name)?, uid, None, AtFlags::SYMLINK_NOFOLLOW) {
            // Files of a controller that this cgroup does not have.
            Err(fault) if fault.errno == Errno::NOENT => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}
