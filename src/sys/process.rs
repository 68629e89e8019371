//! Processes: pidfds, signals, waiting, and the attributes that are set on oneself.

use std::ffi::CStr;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process;
pub use rustix::process::{Pid, PidfdFlags, Signal, WaitIdOptions, WaitIdStatus};

use super::event::{self, Interest};
use super::{AsFd, AsRawFd, Call, Errno, FromRawFd, OwnedFd, Result, last_errno};

/// What this process has used of the CPUs.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Call::PidfdOpen.fault(errno))
}

/// None: no process has this number. The kernel says so in three ways: ESRCH for a free number, EINVAL (ENOENT
/// since 6.9) for one that a thread has, or a process that is reaped just now.
pub fn pidfd_find(pid: Pid) -> Result<Option<OwnedFd>> {
    match pidfd_open(pid) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(fault) if matches!(fault.errno, Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Signal 0 only asks whether the process is there. Numbers, not names: real-time signals have none.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in its own.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, null, 0) };
    if result < 0 { Err(Call::PidfdSendSignal.fault(last_errno())) } else { Ok(()) }
}

/// A copy of descriptor `number` of another process.
pub fn pidfd_getfd(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: only descriptor tables are touched.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(Call::PidfdGetfd.fault(last_errno()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Goes on as two processes, of which the new one gets None and the other a descriptor of the new one. The new one has one
/// thread, as deja has throughout.
pub fn fork() -> Result<Option<OwnedFd>> {
    // SAFETY: deja has no other thread, so that nobody holds a lock that the copy would wait for; the caller upholds
    // this by making none.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid.max(0)) {
        Some(child) => pidfd_open(child).map(Some),
        None if pid == 0 => Ok(None),
        None => Err(Call::Clone.fault(last_errno())),
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The code a shell would give: 128 + signal for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    fn of(status: &WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Code(0),
        }
    }
}

/// Waits until the child behind `pidfd` has ended and reaps it.
pub fn wait(pidfd: impl AsFd) -> Result<Exit> {
    let id = process::WaitId::PidFd(pidfd.as_fd());
    loop {
        match process::waitid(id.clone(), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(Exit::of(&status)),
            Ok(None) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(Call::Wait.fault(errno)),
        }
    }
}

/// As `wait`, but only looks: None while the child runs.
pub fn try_wait(pidfd: impl AsFd) -> Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match process::waitid(process::WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(status) => Ok(status.as_ref().map(Exit::of)),
        Err(errno) => Err(Call::Wait.fault(errno)),
    }
}

/// Whether the process behind `pidfd`, which may be anybody's, has ended; it need not be reaped.
pub fn has_ended(pidfd: impl AsFd) -> Result<bool> {
    event::poll([(pidfd.as_fd(), Interest::Read)], Some(Duration::ZERO)).map(|[ended]| ended)
}

/// Reaps one ended child, whichever it is; None when there is none.
pub fn reap() -> Option<(Pid, Exit)> {
    let (pid, status) = process::wait(process::WaitOptions::NOHANG).ok()??;
    let exit = match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    };
    Some((pid, exit))
}

/// Signals every process this one may signal, but not itself; false: there is none. Signal 0 only asks. In a pid
/// namespace these are the others in it.
pub fn signal_others(signal: i32) -> Result<bool> {
    // SAFETY: kill touches no memory.
    if unsafe { libc::kill(-1, signal) } == 0 {
        return Ok(true);
    }
    match last_errno() {
        Errno::SRCH => Ok(false),
        errno => Err(Call::Kill.fault(errno)),
    }
}

/// Sets the mask of permissions that new files do not get, and gives the old one.
pub fn set_umask(mask: u32) -> u32 {
    process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

fn prctl(option: i32, value: u64) -> Result<()> {
    // SAFETY: the options used here take one number and touch no memory.
    let result = unsafe { libc::prctl(option, value, 0, 0, 0) };
    if result < 0 { Err(Call::Prctl.fault(last_errno())) } else { Ok(()) }
}

/// Keeps others, even of the same user, from reading or tracing this process.
pub fn set_not_dumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Orphans below this process become its children.
pub fn set_child_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// This process gets `signal` when its parent ends.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64)
}

pub fn setsid() -> Result<()> {
    process::setsid().map(drop).map_err(|errno| Call::SetSession.fault(errno))
}

/// As the kernel told this program at its start; deja never changes its own, and its children do not ask.
pub fn effective_uid() -> u32 {
    // SAFETY: getauxval reads what the kernel put there at exec, and gives 0 for what is not there.
    let value = unsafe { libc::getauxval(libc::AT_EUID) };
    value as u32
}

pub fn own_pid() -> Pid {
    process::getpid()
}

/// A set of signals, as rt_sigprocmask takes it.
#[derive(Clone, Copy)]
pub struct SignalSet(SigSet);

impl SignalSet {
    pub fn of(numbers: &[i32]) -> Self {
        let known = numbers.iter().filter_map(|number| nix::sys::signal::Signal::try_from(*number).ok());
        Self(known.collect())
    }

    pub fn all() -> Self {
        Self(SigSet::all())
    }

    pub fn empty() -> Self {
        Self(SigSet::empty())
    }

    pub(super) fn as_raw(&self) -> &libc::sigset_t {
        self.0.as_ref()
    }
}

/// Replaces the set of blocked signals.
pub fn set_signal_mask(set: &SignalSet) -> Result<()> {
    set.0.thread_set_mask().map_err(|errno| Call::SignalMask.fault(Errno::from_raw_os_error(errno as i32)))
}

/// Lets a program begin with no signal blocked, whatever is blocked here.
pub fn begin_unblocked(command: &mut std::process::Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(std::io::Error::from);
    // SAFETY: between fork and exec this makes one system call, and touches no lock and no heap.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, unblock) };
}

/// Gives a signal its default action back.
pub fn default_signal(number: i32) -> Result<()> {
    // SAFETY: an all-zero sigaction is a valid value: SIG_DFL with an empty mask.
    let action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is readable, names no handler, and the old action is not asked for.
    let result = unsafe { libc::sigaction(number, &action, std::ptr::null_mut()) };
    if result < 0 { Err(Call::SignalAction.fault(last_errno())) } else { Ok(()) }
}

/// Waits for a blocked signal of `set` and takes it.
pub fn wait_signal(set: &SignalSet) -> Result<i32> {
    loop {
        // SAFETY: `set` is readable and no information is asked for.
        let signal = unsafe { libc::sigwaitinfo(set.as_raw(), std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        match last_errno() {
            Errno::INTR => continue,
            errno => return Err(Call::SignalWait.fault(errno)),
        }
    }
}

pub fn sethostname(name: &CStr) -> Result<()> {
    rustix::system::sethostname(name.to_bytes()).map_err(|errno| Call::SetHostname.fault(errno))
}

pub fn setdomainname(name: &CStr) -> Result<()> {
    rustix::system::setdomainname(name.to_bytes()).map_err(|errno| Call::SetDomainname.fault(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_thread_is_no_process() {
        let own = own_pid();
        assert!(pidfd_find(own).unwrap().is_some());
        let of_thread = std::thread::spawn(move || {
            let thread = rustix::thread::gettid();
            assert_ne!(thread, own);
            pidfd_find(thread)
        });
        assert!(of_thread.join().unwrap().unwrap().is_none());
        assert!(pidfd_find(Pid::from_raw(0x7fff_fff0).unwrap()).unwrap().is_none());
    }
}
