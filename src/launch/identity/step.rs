//! One thing that is done to become the process, complete before the clone.

use std::ffi::CString;
use std::fmt;

use super::limit;
use crate::launch::sysctl::Sysctl;
use crate::sys::credential::CapabilitySets;
use crate::sys::procfs::Reach;
use crate::sys::sched::{Limit, SchedulerAttributes};
use crate::sys::{Call, Errno, Fault};

#[derive(Debug, PartialEq)]
pub enum Step {
    OpenProcfs(Reach),
    /// Root of the user namespace, so that what is made from here on belongs to the container's root.
    BecomeRoot {
        /// The mappings of a joined namespace are not known; it may have no root.
        may_be_unmapped: bool,
    },
    NewSession,
    /// No list: every processor the cgroup allows.
    Processors(Option<Vec<u8>>),
    JoinKeyring {
        name: CString,
        permissions: Option<u32>,
        label: Option<CString>,
    },
    Hostname(CString),
    Domainname(CString),
    LoopbackUp,
    ControllingTerminal,
    Sysctl(Sysctl),
    MemoryPolicy {
        mode: u32,
        nodes: Vec<u64>,
    },
    Personality(u64),
    Scheduler(SchedulerAttributes),
    IoPriority(u32),
    OomScore(i32, CString),
    AppArmor {
        profile: String,
        value: CString,
    },
    SelinuxLabel(CString),
    /// HOME from the container's /etc/passwd.
    Home {
        uid: u32,
    },
    WorkingDirectory(Directory),
    /// As the user, where the privileged attempt was not allowed in (a file server that trusts no root).
    WorkingDirectoryAsUser(CString),
    StdioOwner(u32),
    /// Only where the limit is below: lowering is the child's.
    RaiseHardLimit(u32, u64),
    Limit(u32, Limit),
    BoundingSet {
        keep: u64,
    },
    Umask(u32),
    User(User),
    Capabilities {
        sets: CapabilitySets,
        ambient: u64,
    },
    NoNewPrivileges,
    FindExecutable,
    /// Closes every descriptor from this one on when the program starts.
    CloseOnExec(u32),
}

#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// None: the groups stay.
    pub groups: Option<Vec<u32>>,
    /// An unprivileged user namespace does not let groups go; then none must be asked for.
    pub groups_may_be_denied: bool,
    /// The ids are what they should be; only the groups may have to change.
    pub already: bool,
}

/// A directory and how to make it, from the root down.
#[derive(Debug, PartialEq, Eq)]
pub struct Directory {
    pub path: CString,
    /// Each directory on the way: its name and its path. Empty: it must exist.
    pub missing: Vec<(CString, CString)>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::OpenProcfs(_) => f.write_str("open a private procfs"),
            Step::BecomeRoot { .. } => f.write_str("become root in the user namespace"),
            Step::NewSession => f.write_str("start a session"),
            Step::Processors(None) => f.write_str("reset the CPU affinity"),
            Step::Processors(Some(mask)) => {
                f.write_str("set the CPU affinity: 0x")?;
                let mut digits = mask.iter().rev().skip_while(|byte| **byte == 0);
                digits.next().map_or(Ok(()), |first| write!(f, "{first:x}"))?;
                digits.try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Step::JoinKeyring { name, label: Some(label), .. } => {
                write!(f, "join session keyring {name:?} with the SELinux label {label:?}")
            }
            Step::JoinKeyring { name, .. } => write!(f, "join session keyring {name:?}"),
            Step::Hostname(name) => write!(f, "set hostname {name:?}"),
            Step::Domainname(name) => write!(f, "set domainname {name:?}"),
            Step::LoopbackUp => f.write_str("bring up network interface \"lo\""),
            Step::ControllingTerminal => f.write_str("set the controlling terminal"),
            Step::Sysctl(sysctl) => write!(f, "set sysctl {:?} to {:?}", sysctl.key, sysctl.value),
            Step::MemoryPolicy { .. } => f.write_str("set the memory policy"),
            Step::Personality(domain) => write!(f, "set personality {domain:#x}"),
            Step::Scheduler(attributes) => write!(f, "set scheduler policy {}", attributes.policy),
            Step::IoPriority(_) => f.write_str("set the I/O priority"),
            Step::OomScore(score, _) => write!(f, "set oom_score_adj to {score}"),
            Step::AppArmor { profile, .. } => {
                write!(f, "apparmor failed to apply profile {profile:?}: write `/proc/self/attr/exec`")
            }
            Step::SelinuxLabel(label) => {
                write!(f, "set SELinux label {label:?}: write `/proc/self/attr/exec`")
            }
            Step::Home { uid } => write!(f, "look up the home directory of user {uid}"),
            Step::WorkingDirectory(Directory { path, .. }) | Step::WorkingDirectoryAsUser(path) => {
                write!(f, "chdir to cwd ({path:?}) set in config.json failed")
            }
            Step::StdioOwner(uid) => write!(f, "give standard input and output to user {uid}"),
            Step::RaiseHardLimit(resource, hard) => write!(f, "raise {} to {hard}", limit::name(*resource)),
            Step::Limit(resource, Limit { soft, hard }) => {
                write!(f, "set {} to soft {soft}, hard {hard}", limit::name(*resource))
            }
            Step::BoundingSet { .. } => f.write_str("drop capabilities from the bounding set"),
            Step::Umask(mask) => write!(f, "set umask {mask:04o}"),
            Step::User(User { uid, gid, .. }) => write!(f, "become user {uid}:{gid}"),
            Step::Capabilities { .. } => f.write_str("set capabilities"),
            Step::NoNewPrivileges => f.write_str("set no_new_privs"),
            Step::FindExecutable => f.write_str("find the executable"),
            Step::CloseOnExec(first) => write!(f, "close descriptors from {first} on at exec"),
        }
    }
}

impl Step {
    /// What the kernel's number means here and what can be done, where that is not plain.
    pub fn advice(&self, fault: Fault) -> Option<&'static str> {
        let denied = matches!(fault.errno, Errno::PERM | Errno::ACCESS);
        Some(match self {
            Step::BecomeRoot { .. } if fault.errno == Errno::INVAL => {
                "container id 0 is not mapped in the user namespace"
            }
            Step::User(_) if fault.call == Call::SetGroups && denied => {
                "this user namespace does not allow setgroups: no additional groups can be set"
            }
            Step::User(_) if fault.errno == Errno::INVAL => {
                "the id is not mapped in the container's user namespace"
            }
            Step::Limit(..) | Step::RaiseHardLimit(..) if denied => {
                "raising a hard limit needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE cannot exceed sysctl fs.nr_open"
            }
            Step::OomScore(..) if denied => "lowering oom_score_adj needs CAP_SYS_RESOURCE",
            Step::JoinKeyring { .. } if fault.errno == Errno::DQUOT => {
                "the key quota of this user is used up: raise sysctl kernel.keys.maxkeys \
                 (kernel.keys.root_maxkeys for root) or use --no-new-keyring"
            }
            Step::JoinKeyring { .. } if denied => {
                "a keyring of this name belongs to somebody else, or keyctl is forbidden here: use --no-new-keyring"
            }
            Step::JoinKeyring { label: Some(_), .. } | Step::SelinuxLabel(_)
                if fault.errno == Errno::INVAL =>
            {
                "the loaded SELinux policy has no such label"
            }
            Step::Scheduler(_) | Step::IoPriority(_) if denied => "this needs CAP_SYS_NICE",
            Step::Scheduler(_) if fault.errno == Errno::BUSY => {
                "there is not enough CPU bandwidth for the deadline"
            }
            Step::Sysctl(_) if matches!(fault.errno, Errno::XDEV | Errno::LOOP) => {
                "something is mounted over it: refused"
            }
            Step::AppArmor { .. } if fault.errno == Errno::NOENT => "the profile is not loaded",
            Step::WorkingDirectory(_) | Step::WorkingDirectoryAsUser(_) if fault.call == Call::GetCwd => {
                "current working directory is outside of container mount namespace root \
                 -- possible container breakout detected"
            }
            Step::MemoryPolicy { .. } if fault.errno == Errno::NOSYS => "the kernel has no NUMA support",
            Step::MemoryPolicy { .. } if fault.errno == Errno::INVAL => {
                "a node is not there or not allowed here, or the kernel does not know the mode or flag"
            }
            _ => return None,
        })
    }
}
