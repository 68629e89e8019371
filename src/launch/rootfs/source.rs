//! What bind mounts show: detached copies of the host's mounts, with their attributes already set.
//!
//! The parent opens them where it may clone mounts; otherwise the child does, so opening uses no heap. Maps of
//! ids need a user namespace to stand for them, which only the parent can make.

use std::ffi::CString;

use anyhow::{Context, Result};

use super::options::Attributes;
use super::plan::Plan;
use crate::spec::IdMapping;
use crate::sys::clone::{self, CloneRequest, namespace};
use crate::sys::mount::{self, Change, Lookup, Propagation, attribute};
use crate::sys::process::{self, SignalSet};
use crate::sys::{self, AsFd, BorrowedFd, Call, Errno, OwnedFd, fs};

/// A bind mount's source on the host.
#[derive(Debug, PartialEq)]
pub struct Source {
    pub path: CString,
    pub recursive: bool,
    pub nofollow: bool,
    pub top: Attributes,
    pub below: Attributes,
    /// In this order: first what keeps the host from hearing of the container's mounts, then what was asked for.
    pub propagation: Vec<(Propagation, bool)>,
    /// A place in the plan's list of id maps, and whether it counts for all mounts of the tree.
    pub idmap: Option<(usize, bool)>,
    /// All of it, whatever was asked for: the host's own settings lie in it.
    pub read_only: bool,
    /// Opened with more rights than the container has: what the host's mount forbids stays forbidden.
    pub keep: bool,
}

/// The user namespace whose maps an id-mapped mount shows.
#[derive(Debug, PartialEq)]
pub enum IdMap {
    Maps {
        uids: Vec<IdMapping>,
        gids: Vec<IdMapping>,
    },
    /// That of the container, which exists already.
    Path(CString),
}

/// A source the parent has opened.
#[derive(Debug)]
pub struct Opened {
    pub fd: OwnedFd,
    pub directory: bool,
}

const TOP: Lookup = Lookup { recursive: false, nofollow: false };
const TREE: Lookup = Lookup { recursive: true, nofollow: false };

/// What can be locked by a mount namespace with more rights.
const LOCKABLE: u64 = attribute::RDONLY
    | attribute::NOSUID
    | attribute::NODEV
    | attribute::NOEXEC
    | attribute::NOSYMFOLLOW
    | attribute::NODIRATIME;

impl Source {
    pub fn new(path: &str) -> Result<Self> {
        Ok(Self {
            path: CString::new(path)?,
            recursive: false,
            nofollow: false,
            top: Attributes::default(),
            below: Attributes::default(),
            propagation: Vec::new(),
            idmap: None,
            read_only: false,
            keep: false,
        })
    }

    /// A detached copy with its attributes. `idmap` is the user namespace for the maps of the plan.
    pub fn open(&self, idmap: Option<BorrowedFd<'_>>) -> sys::Result<OwnedFd> {
        let lookup = Lookup { recursive: self.recursive, nofollow: self.nofollow };
        let tree = mount::open_tree(fs::CWD, &self.path, lookup)?;
        if let (Some(namespace), Some((_, recursive))) = (idmap, self.idmap) {
            let lookup = Lookup { recursive, nofollow: false };
            mount::mount_setattr(&tree, c"", lookup, Change::idmap(namespace))?;
        }
        for &(kind, recursive) in &self.propagation {
            let lookup = Lookup { recursive, nofollow: false };
            mount::mount_setattr(&tree, c"", lookup, Change::propagation(kind))?;
        }
        if self.read_only {
            let bits = self.top.set | attribute::RDONLY;
            mount::mount_setattr(&tree, c"", TREE, Change::attributes(bits, 0))?;
        } else if self.keep {
            add_to_top(&tree, self.top)?;
        } else {
            set_top(&tree, self.top)?;
        }
        if !self.below.is_empty() {
            mount::mount_setattr(&tree, c"", TREE, exactly(self.below))?;
        }
        Ok(tree)
    }
}

/// Asking for any attribute asks for exactly these: others of the source are cleared, except in a user namespace,
/// where what is locked stays. What is to be cleared and cannot be is an error.
fn set_top(tree: &OwnedFd, attributes: Attributes) -> sys::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let wanted = exactly(attributes);
    let all = Change::attributes(wanted.set, wanted.clear | LOCKABLE & !wanted.set);
    match mount::mount_setattr(tree, c"", TOP, all) {
        Err(fault) if fault.errno == Errno::PERM => mount::mount_setattr(tree, c"", TOP, wanted),
        result => result,
    }
}

/// As `set_top` where the kernel would let us clear what a user namespace may not.
fn add_to_top(tree: &OwnedFd, attributes: Attributes) -> sys::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let present = mount::attributes(tree)?;
    let access = attributes.access.is_some_and(|mode| mode != present & attribute::ATIME);
    if present & attributes.clear & LOCKABLE != 0 || access {
        return Err(Call::MountSetattr.fault(Errno::PERM));
    }
    mount::mount_setattr(tree, c"", TOP, Change::attributes(attributes.set, 0))
}

/// Sets and clears what the attributes say and nothing else.
pub fn exactly(attributes: Attributes) -> Change {
    match attributes.access {
        Some(mode) => Change::attributes(attributes.set | mode, attributes.clear | attribute::ATIME),
        None => Change::attributes(attributes.set, attributes.clear),
    }
}

/// Opens what the plan wants opened by the parent.
pub fn open_sources(plan: &Plan) -> Result<Vec<Opened>> {
    let namespaces = plan.idmaps.iter().map(user_namespace).collect::<Result<Vec<_>>>()?;
    let open = |source: &Source| -> Result<Opened> {
        let idmap = source.idmap.and_then(|(place, _)| namespaces.get(place)).map(AsFd::as_fd);
        let fd = source.open(idmap).with_context(|| format!("bind {:?}", source.path))?;
        let directory = fs::FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) == fs::FileType::Directory;
        Ok(Opened { fd, directory })
    };
    plan.sources.iter().map(open).collect()
}

/// A user namespace with these maps. It lives as long as its descriptor; the process that made it does not.
fn user_namespace(idmap: &IdMap) -> Result<OwnedFd> {
    let (uids, gids) = match idmap {
        IdMap::Maps { uids, gids } => (uids, gids),
        IdMap::Path(path) => {
            let fd = fs::openat(fs::CWD, path, fs::OFlags::RDONLY, fs::Mode::empty());
            return fd.with_context(|| format!("open {path:?}"));
        }
    };
    let request = CloneRequest { namespaces: namespace::USER, ..CloneRequest::default() };
    let holder = clone::clone3(request, || {
        // Killed when the namespace has been opened, or with its parent.
        match process::set_parent_death_signal(9).and_then(|()| process::wait_signal(&SignalSet::empty())) {
            Ok(_) | Err(_) => 1,
        }
    })
    .context("make a user namespace for an id-mapped mount")?;
    let result = write_maps(holder.pid, uids, gids);
    // It cannot be gone: nobody but us waits for it.
    process::pidfd_send_signal(&holder.pidfd, 9)?;
    process::wait(&holder.pidfd)?;
    result.context("map the ids of an id-mapped mount")
}

fn write_maps(pid: process::Pid, uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let directory = CString::new(format!("/proc/{}", pid.as_raw_nonzero()))?;
    let flags = fs::OFlags::PATH | fs::OFlags::DIRECTORY;
    let process = fs::openat(fs::CWD, &directory, flags, fs::Mode::empty())?;
    for (file, maps) in [(c"uid_map", uids), (c"gid_map", gids)] {
        let lines = maps.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size));
        let text: String = lines.collect();
        let fd = fs::openat(&process, file, fs::OFlags::WRONLY, fs::Mode::empty())?;
        fs::write(&fd, text.as_bytes()).with_context(|| format!("write {text:?} to {file:?}"))?;
    }
    Ok(fs::openat(&process, c"ns/user", fs::OFlags::RDONLY, fs::Mode::empty())?)
}
