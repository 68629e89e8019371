//! Whoever is not root keeps files of other owners, and mounts overlays, in a user namespace: deja enters one before it
//! touches layers of its store, and is root there. A hit touches none.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};

use crate::cli::Global;
use crate::command::list::owner_name;
use crate::command::{in_user_namespace, is_confined};
use crate::container;
use crate::doctor::users;
use crate::launch::idmap;
use crate::session::marks;
use crate::session::owners::{Owners, Range};
use crate::session::store::Store;
use crate::spec::{IdMapping, Linux, List};
use crate::sys::clone::{self, CloneRequest, namespace};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, Pid};
use crate::sys::{AsFd, Call, Errno, Fault, credential};

const KILL: i32 = 9;

/// Makes this process one that may work on the layers of the store. It stays so to its end.
pub fn enter(store: &Store) -> Result<()> {
    if marks::are_in_user_namespace() {
        return Ok(());
    }
    let version = store.root().join("version");
    let owner = std::fs::metadata(&version).with_context(|| format!("look at {version:?}"))?.uid();
    if owner != process::effective_uid() {
        bail!(
            "the session store {:?} belongs to {}, and nobody else can read its layers: \"session backup\" takes sessions out of it",
            store.root(),
            owner_name(owner)
        );
    }
    if process::effective_uid() == 0 {
        if in_user_namespace() {
            marks::in_user_namespace();
        }
        return Ok(());
    }
    let owners = owners(store)?;
    if Owners::read(store)?.as_ref() != Some(&owners) {
        owners.write(store)?;
    }
    become_root(&owners)?;
    marks::in_user_namespace();
    Ok(())
}

/// Whose files the store of this user can hold, where that is not everybody's.
pub fn owners(store: &Store) -> Result<Owners> {
    let (uid, gid) = (process::effective_uid(), credential::effective_gid());
    let name = owner_name(uid);
    let given = |file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        users::ranges(&text, &name, uid)
    };
    // Without these two nobody may use what the lists give.
    let tools = ["newuidmap", "newgidmap"].iter().all(|tool| is_in_path(tool));
    let [users, groups] =
        ["/etc/subuid", "/etc/subgid"].map(|file| if tools { given(file) } else { Vec::new() });
    Ok(Owners::choose(Owners::read(store)?, Owners::new((uid, &users), (gid, &groups))))
}

/// Says why a file of a tree could not be made, where that is because of who we are.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    let fault = error.chain().find_map(|cause| cause.downcast_ref::<Fault>());
    let fault = fault.filter(|_| marks::are_in_user_namespace()).map(|fault| (fault.call, fault.errno));
    match fault {
        Some((Call::Chown, Errno::INVAL)) => error.context(
            "files in it belong to others than this store has ids for, and a range in /etc/subuid and /etc/subgid gives more",
        ),
        Some((Call::Mknod, Errno::PERM)) => error.context("only root can make the devices in it"),
        Some((Call::Xattr, Errno::PERM)) => error.context("only root can keep the attributes in it"),
        _ => error,
    }
}

fn is_in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

fn list(ranges: &[Range]) -> List<IdMapping> {
    let entry =
        |range: &Range| IdMapping { container_id: range.inside, host_id: range.outside, size: range.count };
    List(ranges.iter().map(entry).collect())
}

/// A child makes the namespace and waits, while the ids are mapped from outside; then this process joins it.
fn become_root(owners: &Owners) -> Result<()> {
    let linux =
        Linux { uid_mappings: list(&owners.users), gid_mappings: list(&owners.groups), ..Linux::default() };
    let maps = idmap::plan(&linux, idmap::Facts::read()?);
    let own = process::pidfd_open(process::own_pid())?;
    let waits = || {
        // It is killed; or this process is, and then it ends, too.
        while let Ok([false]) = event::poll([(own.as_fd(), Interest::Read)], None) {}
        0
    };
    let request = CloneRequest { namespaces: namespace::USER, ..CloneRequest::default() };
    let holder = clone::clone3(request, waits).map_err(|fault| {
        anyhow!("make a user namespace for the session store: {fault}: \"deja doctor\" says how to allow it")
    })?;
    let mapped = maps.write(holder.pid.as_raw_nonzero().get());
    let joined = mapped.and_then(|()| {
        clone::setns(&holder.pidfd, namespace::USER).context("join the user namespace of the session store")
    });
    process::pidfd_send_signal(&holder.pidfd, KILL)?;
    process::wait(&holder.pidfd)?;
    joined
}

/// Joins the user namespace that a container of the store runs in.
pub fn join(store: &Store, pid: i32) -> Result<()> {
    if process::effective_uid() == 0 {
        return enter(store);
    }
    let init = Pid::from_raw(pid).map(process::pidfd_find).transpose()?.flatten();
    let init = init.context("the container has ended")?;
    clone::setns(&init, namespace::USER).context("join the user namespace of the session's processes")?;
    marks::in_user_namespace();
    Ok(())
}

/// Where the containers of sessions are: the same place before and after `enter`.
pub fn containers(global: &Global, store: &Store) -> Result<container::Store> {
    if global.root.is_some() || !is_confined() {
        return crate::command::store(global);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path: &OsString| !path.is_empty());
    // Without one, nobody but the sessions of this store knows of them.
    let (root, sticky) = match runtime {
        Some(path) => (PathBuf::from(path).join("deja"), true),
        None => (store.root().join("containers"), false),
    };
    Ok(container::Store::open(container::absolute(&root, std::env::current_dir)?, sticky))
}
