//! The session keyring of a process.

use std::ffi::CStr;

use super::{Call, Result, last_errno};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyringId(i32);

/// Joins the session keyring of that name, which is made if it is not there.
pub fn join_session_keyring(name: &CStr) -> Result<KeyringId> {
    // SAFETY: `name` ends with a NUL byte.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    if id < 0 { Err(Call::Keyctl.fault(last_errno())) } else { Ok(KeyringId(id as i32)) }
}

pub fn set_permissions(keyring: KeyringId, permissions: u32) -> Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, keyring.0, permissions) };
    if result < 0 { Err(Call::Keyctl.fault(last_errno())) } else { Ok(()) }
}
