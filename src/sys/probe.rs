//! What this kernel can do, found out without doing it.

use super::{Call, Errno, Result, last_errno};

/// What the kernel says to a call that nobody could mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Known,
    /// The kernel has no such call, or somebody between pretends so.
    Absent,
    /// Refused before it was looked at, as by a sandbox's filter.
    Denied,
}

/// The calls deja cannot do without that kernels or sandboxes in use may lack.
pub const NEEDED: [Call; 11] = [
    Call::Clone,
    Call::CloseRange,
    Call::FsConfig,
    Call::FsOpen,
    Call::MountSetattr,
    Call::MoveMount,
    Call::OpenTree,
    Call::Openat2,
    Call::PidfdGetfd,
    Call::PidfdOpen,
    Call::PidfdSendSignal,
];

/// Asks about one of `NEEDED`.
pub fn ask(call: Call) -> Answer {
    let number = match call {
        Call::Clone => libc::SYS_clone3,
        Call::CloseRange => libc::SYS_close_range,
        Call::FsConfig => libc::SYS_fsconfig,
        Call::FsOpen => libc::SYS_fsopen,
        Call::MountSetattr => libc::SYS_mount_setattr,
        Call::MoveMount => libc::SYS_move_mount,
        Call::OpenTree => libc::SYS_open_tree,
        Call::Openat2 => libc::SYS_openat2,
        Call::PidfdGetfd => libc::SYS_pidfd_getfd,
        Call::PidfdOpen => libc::SYS_pidfd_open,
        Call::PidfdSendSignal => libc::SYS_pidfd_send_signal,
        _ => return Answer::Known,
    };
    // As a number no descriptor, no pid and no length; as a set of flags more than there are; as an address none.
    let wrong = -1i64;
    // SAFETY: each of the calls refuses one of these before it acts, and writes to no address.
    let result = unsafe { libc::syscall(number, wrong, 0i64, wrong, 0i64, wrong) };
    // Without privileges the mount API refuses everybody, and by that shows that it is there.
    let privileged = matches!(call, Call::FsOpen | Call::FsConfig | Call::MoveMount | Call::OpenTree);
    match last_errno() {
        _ if result >= 0 => Answer::Known,
        Errno::NOSYS => Answer::Absent,
        Errno::PERM if !privileged => Answer::Denied,
        _ => Answer::Known,
    }
}

/// Whether this process could make a user namespace: a child makes one, and ends.
pub fn user_namespace() -> Result<()> {
    let request = super::clone::CloneRequest {
        namespaces: super::clone::namespace::USER,
        ..super::clone::CloneRequest::default()
    };
    let child = super::clone::clone3(request, || 0)?;
    super::process::wait(&child.pidfd).map(drop)
}

/// As in `uname -r`.
pub fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_knows_what_deja_needs() {
        for call in NEEDED {
            assert_eq!(ask(call), Answer::Known, "{}", call.name());
        }
        assert!(kernel_release().starts_with(|c: char| c.is_ascii_digit()));
    }
}
