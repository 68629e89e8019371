//! The container's view of the file system: what is mounted where, its devices, what it must not see, and the
//! step into it.
//!
//! `plan` is pure and gives steps; the parent opens the `sources` the plan lists; the child performs the steps
//! with system calls only. Nothing here ever resolves a path of the container as a string: a target is opened
//! below the root's descriptor (or below a file system that was mounted a moment ago and that nobody else can
//! have touched), looked at, and mounted on by descriptor.
//!
//! ```text
//! prepare   propagation, the root, the mounts, /dev           the old root is still there
//!           (terminal, hooks that want to see both roots)
//! finish    /dev/console, masked and read-only paths, read-only root, pivot
//! ```

mod change;
mod copyup;
mod device;
mod enter;
mod filesystem;
mod mounts;
mod options;
mod path;
mod perform;
mod plan;
mod source;
mod target;

use std::ffi::CString;
use std::fmt;

pub use change::{Change, plan_change};
pub use mounts::binds;
pub use options::option_names;
pub use path::{clean, on_host};
pub use perform::{Context, perform};
pub use plan::{Facts, Plan, asks_for_mounts, plan};
pub use source::{Opened, open_sources};
pub use target::{Kind, make};

use crate::sys::mount::Propagation;
use crate::sys::{Errno, Fault};
use device::Device;
use filesystem::FileSystem;
use options::Attributes;
use source::Source;
use target::{Base, Target};

/// One action of the child. What is mounted is a mount's own data, so that an error can tell it.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// How the mounts of the host, as this mount namespace has copied them, spread from here on.
    Propagate {
        kind: Propagation,
        recursive: bool,
    },
    /// The mount that holds the root must not spread what is mounted on it: the first of these that is a mount.
    Isolate {
        paths: Vec<CString>,
        kind: Propagation,
    },
    /// The root of a container that runs.
    OpenRoot,
    /// Takes away what lies on top there.
    Unmount(Target),
    /// Opens the root that the parent has attached, for a container that has its mounts on the host.
    HostRoot(CString),
    /// Attaches a copy of the root to itself.
    Root(CString),
    Mount(Box<Mount>),
    /// Opens the rootfs's own /dev, for want of a mount there.
    OpenDev,
    Device(Device),
    Link {
        name: CString,
        target: CString,
        replace: bool,
    },
    /// /dev/console is the terminal, where there is one.
    Console,
    /// Makes the empty directory that covers masked ones.
    Cover(FileSystem),
    Mask(Target),
    ReadOnlyPath(Target),
    /// A mount that had to be writable until everything in it was made.
    ReadOnlyMount(Target),
    /// Makes the program's working directory while the root can be written to.
    WorkingDirectory(Target),
    /// The last changes to the root's mount before it is entered.
    SealRoot {
        readonly: bool,
        private: bool,
    },
    /// How mounts below the new root spread.
    RootPropagation {
        kind: Propagation,
        recursive: bool,
    },
    /// Takes a full proc or sysfs of the host away, which a root that was not pivoted could still reach.
    Conceal(CString),
    /// The old root is unmounted; `detach` first where its mounts would tell the host.
    Pivot {
        detach: bool,
    },
    /// Moves the root over `/` and changes to it.
    Move,
    /// Changes the root without any mount.
    ChangeRoot(CString),
}

/// One entry of `mounts`.
#[derive(Debug, PartialEq)]
pub struct Mount {
    kind: String,
    origin: String,
    make: Make,
    target: Target,
    propagation: Vec<(Propagation, bool)>,
    /// The new mount is where later steps look for what lies below it.
    base: Option<Base>,
    /// The target may lie on a procfs.
    over_proc: bool,
    /// What is bound must be a procfs.
    from_proc: bool,
    /// Where this path of the host is a link, the container gets the same link instead of a mount.
    link: Option<CString>,
}

#[derive(Debug, PartialEq)]
enum Make {
    FileSystem(FileSystem),
    /// The parent has opened it: a place in the list of opened sources.
    Opened(usize),
    /// The child opens it itself, with the rights of its user namespace.
    Clone(Source),
    /// Nothing new: the mount that is there gets other attributes.
    Remount {
        top: Attributes,
        below: Attributes,
    },
}

impl Step {
    /// What it makes shows the network namespace it is made in.
    pub fn shows_network(&self) -> bool {
        matches!(self, Step::Mount(mount) if mount.kind == "sysfs")
    }
}

impl Step {
    /// What would help, where something is known to.
    pub fn advice(&self, fault: Fault) -> Option<&'static str> {
        let is_link = matches!(fault.errno, Errno::NOTDIR | Errno::LOOP);
        match self {
            Step::Mount(mount) if mount.target.rigid && is_link => {
                Some("it must be mounted on ordinary directory")
            }
            Step::Mount(mount) if fault.errno == Errno::INVAL => match &mount.make {
                Make::FileSystem(made) if made.label().is_some() => {
                    Some("linux.mountLabel must be a label of the loaded SELinux policy")
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Propagate { kind, recursive } => {
                write!(f, "make the mounts of \"/\" {}", words(*kind, *recursive))
            }
            Step::Isolate { paths, kind } => {
                write!(f, "make the mount of {:?} {}", paths.first(), words(*kind, false))
            }
            Step::OpenRoot => f.write_str("open the container's root"),
            Step::Unmount(target) => write!(f, "unmount {target}"),
            Step::HostRoot(path) => write!(f, "open the root {path:?} that is mounted on the host"),
            Step::Root(path) => write!(f, "mount the root {path:?}"),
            Step::Mount(mount) => mount.fmt(f),
            Step::OpenDev => f.write_str("open \"/dev\" of the root, a directory and no link"),
            Step::Device(device) => device.fmt(f),
            Step::Link { name, target, .. } => {
                write!(f, "link \"/dev/{}\" to {target:?}", name.to_string_lossy())
            }
            Step::Console => f.write_str("mount the terminal on \"/dev/console\""),
            Step::Cover(_) => f.write_str("mount an empty tmpfs for masked directories"),
            Step::Mask(target) => write!(f, "mask {target}"),
            Step::ReadOnlyPath(target) | Step::ReadOnlyMount(target) => write!(f, "make {target} read-only"),
            Step::WorkingDirectory(target) => write!(f, "make the working directory {target}"),
            Step::SealRoot { readonly: true, .. } => f.write_str("make the root read-only"),
            Step::SealRoot { .. } => f.write_str("make the root private"),
            Step::RootPropagation { kind, recursive } => {
                write!(f, "make the root {}", words(*kind, *recursive))
            }
            Step::Conceal(path) => write!(f, "take away the host's {path:?}"),
            Step::Pivot { .. } => f.write_str("pivot into the root"),
            Step::Move => f.write_str("move the root to \"/\""),
            Step::ChangeRoot(path) => write!(f, "change the root to {path:?}"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.make {
            Make::FileSystem(made) => {
                write!(f, "mount {:?} on {}", self.kind, self.target)?;
                made.label().map_or(Ok(()), |label| write!(f, " with the SELinux label {label:?}"))
            }
            Make::Opened(_) | Make::Clone(_) => write!(f, "bind {:?} on {}", self.origin, self.target),
            Make::Remount { .. } => write!(f, "remount {}", self.target),
        }
    }
}

fn words(kind: Propagation, recursive: bool) -> &'static str {
    match (kind, recursive) {
        (Propagation::Private, false) => "private",
        (Propagation::Private, true) => "rprivate",
        (Propagation::Slave, false) => "slave",
        (Propagation::Slave, true) => "rslave",
        (Propagation::Shared, false) => "shared",
        (Propagation::Shared, true) => "rshared",
        (Propagation::Unbindable, false) => "unbindable",
        (Propagation::Unbindable, true) => "runbindable",
    }
}
