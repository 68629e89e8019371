//! seccomp(2): loading a filter and asking what the kernel's filters can do. The numbers of its interface
//! are here because only `sys` knows the kernel's headers; what they are used for is decided in `launch`.

use super::{Call, Errno, FromRawFd, OwnedFd, Result, last_errno};

/// One instruction of classic BPF, laid out as the kernel reads it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub value: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// The longest program the kernel takes (BPF_MAXINSNS).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// What a filter returns: an action in the upper half, its data in the lower.
pub mod action {
    pub const KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    pub const KILL_THREAD: u32 = libc::SECCOMP_RET_KILL_THREAD;
    pub const TRAP: u32 = libc::SECCOMP_RET_TRAP;
    pub const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
    pub const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
    pub const TRACE: u32 = libc::SECCOMP_RET_TRACE;
    pub const LOG: u32 = libc::SECCOMP_RET_LOG;
    pub const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    /// The part of a result that says which action it is.
    pub const MASK: u32 = libc::SECCOMP_RET_ACTION_FULL;
}

/// Flags of `set_mode_filter`.
pub mod flag {
    pub const LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
    pub const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    pub const WAIT_KILLABLE_RECV: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
}

/// The errnos that appear in filters.
pub mod errno {
    pub const EPERM: u32 = libc::EPERM as u32;
    pub const ENOSYS: u32 = libc::ENOSYS as u32;
    /// The kernel turns greater values into this one.
    pub const MAX: u32 = 4095;
}

/// Puts `program` in front of every later system call of this thread and its children. Gives the listener
/// when `flag::NEW_LISTENER` is among `flags`. Needs no_new_privs or CAP_SYS_ADMIN.
pub fn set_mode_filter(flags: u32, program: &[Instruction]) -> Result<Option<OwnedFd>> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(Call::Seccomp.fault(Errno::INVAL));
    };
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel copies `len` instructions, which `program` borrows and which are laid out as
    // sock_filter (asserted above), and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 {
        return Err(Call::Seccomp.fault(last_errno()));
    }
    if flags & flag::NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER the result is a descriptor the kernel has just made for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// Whether this kernel knows the action of `result`.
pub fn get_action_avail(result: u32) -> Result<bool> {
    // SAFETY: the kernel reads one u32.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const result) };
    match answer {
        0 => Ok(true),
        _ => match last_errno() {
            Errno::OPNOTSUPP => Ok(false),
            errno => Err(Call::Seccomp.fault(errno)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_we_compile_to_is_known_to_the_kernel() {
        use action::*;
        for result in [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, NOTIFY, TRACE, LOG, ALLOW] {
            assert_eq!(get_action_avail(result), Ok(true), "{result:#x}");
        }
        assert_eq!(get_action_avail(0x1234_0000), Ok(false));
    }

    #[test]
    fn a_program_of_no_or_too_many_instructions_is_refused() {
        let allow = Instruction { code: 6, if_true: 0, if_false: 0, value: action::ALLOW };
        for length in [0, INSTRUCTIONS_MAX + 1, 1 << 16, (1 << 16) + 1] {
            let fault = set_mode_filter(0, &vec![allow; length]).unwrap_err();
            assert_eq!(fault, Call::Seccomp.fault(Errno::INVAL), "{length}");
        }
    }
}
