//! Who a process is: user, groups, capabilities, and the promise never to gain more.

use rustix::process::{Gid, Uid};
use rustix::thread;

use super::{Call, Result, last_errno};

/// Capability sets as bits, bit N for capability number N.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3: two halves of 32 bits each.
const VERSION: u32 = 0x2008_0522;

/// The sets of this process.
pub fn capget() -> Result<CapabilitySets> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: version 3 writes two halves, and the array has room for two.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if result < 0 {
        return Err(Call::CapabilityGet.fault(last_errno()));
    }
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(CapabilitySets {
        effective: join(halves[0].effective, halves[1].effective),
        permitted: join(halves[0].permitted, halves[1].permitted),
        inheritable: join(halves[0].inheritable, halves[1].inheritable),
    })
}

/// Replaces the three sets; ambient capabilities that are no longer both permitted and inheritable go too.
pub fn capset(sets: CapabilitySets) -> Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 reads two halves, and the array holds two.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if result < 0 { Err(Call::CapabilitySet.fault(last_errno())) } else { Ok(()) }
}

fn prctl(option: i32, first: u64, second: u64) -> Result<()> {
    // SAFETY: the options used here take numbers and touch no memory.
    let result = unsafe { libc::prctl(option, first, second, 0, 0) };
    if result < 0 { Err(Call::Prctl.fault(last_errno())) } else { Ok(()) }
}

/// Takes a capability out of the bounding set for good; EINVAL for a number the kernel does not know.
pub fn drop_from_bounding_set(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0)
}

pub fn clear_ambient_set() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)
}

pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability))
}

/// Permitted capabilities survive the next change of user; exec switches this off again.
pub fn keep_capabilities() -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)
}

pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// The supplementary groups of this one thread, replaced.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` numbers of 32 bits. The raw call, because libc's asks all threads.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result < 0 { Err(Call::SetGroups.fault(last_errno())) } else { Ok(()) }
}

/// Real, effective, saved and file system group id.
pub fn setresgid(gid: u32) -> Result<()> {
    let gid = Gid::from_raw(gid);
    thread::set_thread_res_gid(gid, gid, gid).map_err(|errno| Call::SetGid.fault(errno))
}

/// Real, effective, saved and file system user id.
pub fn setresuid(uid: u32) -> Result<()> {
    let uid = Uid::from_raw(uid);
    thread::set_thread_res_uid(uid, uid, uid).map_err(|errno| Call::SetUid.fault(errno))
}

pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// The file mode bits that files made from now on do not get.
pub fn umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Whether every id, real, effective and saved, of user and group was 0 when this program started. It never changes
/// its own; a child of it may have.
pub fn started_as_root() -> bool {
    [libc::AT_UID, libc::AT_EUID, libc::AT_GID, libc::AT_EGID].into_iter().all(|kind| {
        // SAFETY: getauxval reads what the kernel put there at exec.
        let value = unsafe { libc::getauxval(kind) };
        value == 0
    })
}
