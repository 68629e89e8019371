//! The error of a system call: which call, and the kernel's number. Eight bytes, no heap, so that a child
//! can send it to its parent as it is.

use std::fmt;

pub use rustix::io::Errno;

use super::Reason;

pub type Result<T> = std::result::Result<T, Fault>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub call: Call,
    pub errno: Errno,
}

macro_rules! calls {
    ($($variant:ident = $name:literal,)*) => {
        /// A system call by name. Its number travels between child and parent of one run and is never stored.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum Call { $($variant,)* }

        impl Call {
            const ALL: &[Call] = &[$(Call::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Call::$variant => $name,)* }
            }
        }
    };
}

// Kept in alphabetical order.
calls! {
    Accept = "accept",
    Access = "access",
    Bind = "bind",
    Bpf = "bpf",
    CapabilityGet = "capget",
    CapabilitySet = "capset",
    ChangeDirectory = "chdir",
    ChangeRoot = "chroot",
    Chmod = "chmod",
    Chown = "chown",
    Clone = "clone3",
    CloseRange = "close_range",
    Connect = "connect",
    CopyFileRange = "copy_file_range",
    Dup = "dup3",
    Epoll = "epoll",
    Execve = "execve",
    Fcntl = "fcntl",
    Flock = "flock",
    FsConfig = "fsconfig",
    FsMount = "fsmount",
    FsOpen = "fsopen",
    Ftruncate = "ftruncate",
    GetCwd = "getcwd",
    GetDents = "getdents64",
    Ioctl = "ioctl",
    Inotify = "inotify",
    IoPrioritySet = "ioprio_set",
    Keyctl = "keyctl",
    Kill = "kill",
    Link = "linkat",
    Listen = "listen",
    MemfdCreate = "memfd_create",
    Mkdir = "mkdirat",
    Mknod = "mknodat",
    Mount = "mount",
    MountSetattr = "mount_setattr",
    MoveMount = "move_mount",
    Netlink = "netlink",
    Open = "openat",
    Openat2 = "openat2",
    OpenTree = "open_tree",
    Personality = "personality",
    PidfdGetfd = "pidfd_getfd",
    PidfdOpen = "pidfd_open",
    PidfdSendSignal = "pidfd_send_signal",
    Pipe = "pipe2",
    PivotRoot = "pivot_root",
    Poll = "poll",
    Prctl = "prctl",
    Prlimit = "prlimit",
    Read = "read",
    Readlink = "readlinkat",
    Receive = "recvmsg",
    Rename = "renameat2",
    SchedSetaffinity = "sched_setaffinity",
    SchedSetattr = "sched_setattr",
    Seccomp = "seccomp",
    Seek = "lseek",
    Send = "sendmsg",
    SetDomainname = "setdomainname",
    SetGid = "setresgid",
    SetGroups = "setgroups",
    SetHostname = "sethostname",
    SetMempolicy = "set_mempolicy",
    SetNamespace = "setns",
    SetSession = "setsid",
    SetUid = "setresuid",
    SignalAction = "rt_sigaction",
    SignalMask = "rt_sigprocmask",
    SignalWait = "rt_sigtimedwait",
    Signalfd = "signalfd4",
    Socket = "socket",
    Stat = "fstat",
    Statfs = "fstatfs",
    Statx = "statx",
    Symlink = "symlinkat",
    Sync = "fsync",
    Umount = "umount2",
    Unlink = "unlinkat",
    Unshare = "unshare",
    Utimens = "utimensat",
    Wait = "waitid",
    Write = "write",
    Xattr = "setxattr",
}

impl Call {
    pub const fn fault(self, errno: Errno) -> Fault {
        Fault { call: self, errno }
    }

    pub fn from_number(number: u16) -> Option<Call> {
        Self::ALL.get(number as usize).copied()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call.name(), Reason(self.errno))
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_its_number() {
        for (number, call) in Call::ALL.iter().enumerate() {
            assert_eq!(Call::from_number(number as u16), Some(*call));
        }
        assert_eq!(Call::from_number(Call::ALL.len() as u16), None);
    }

    #[test]
    fn a_fault_reads_as_callers_expect() {
        let fault = Call::Openat2.fault(Errno::NOENT);
        assert_eq!(fault.to_string(), "openat2: no such file or directory");
        assert_eq!(Call::Kill.fault(Errno::SRCH).to_string(), "kill: no such process");
    }
}
