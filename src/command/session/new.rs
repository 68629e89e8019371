//! `session new`: a file tree or an image becomes the base of a session. Equal layers are kept once.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{enter, image};
use crate::cli;
use crate::session::Id;
use crate::session::delta::{self, Delta, Item};
use crate::session::journal::{self, Act, Session, Step};
use crate::session::layer::{self, Copier, Finish, Origin};
use crate::session::state::{Context as ShellContext, State};
use crate::session::store::{Shelf, Store};
use crate::session::tree::Entry;
use crate::sys::fs::{self, Mode};
use crate::sys::{AsFd, Errno, OwnedFd, borrow, process, terminal};
use crate::time::Moment;

#[derive(Serialize)]
struct Made {
    session: String,
    state: Id,
}

pub fn run(arguments: &cli::SessionNew) -> Result<()> {
    journal::check_name(&arguments.session)?;
    let store = Store::create(super::store_path(&arguments.at)?)?;
    let held = store.share()?;
    let state = match (&arguments.rootfs, &arguments.image) {
        (Some(rootfs), None) => {
            import(&store, rootfs, &arguments.env).with_context(|| format!("import {rootfs:?}"))
        }
        (None, Some(path)) => {
            let wanted = image::Wanted {
                path,
                reference: arguments.reference.as_deref(),
                environment: &arguments.env,
            };
            image::import(&store, &wanted).with_context(|| format!("import {path:?}"))
        }
        _ => {
            bail!("session new needs either --rootfs, a directory, or --image: what the session begins with")
        }
    }
    .map_err(enter::explained)?;
    let step = Step {
        act: Act::New,
        state,
        at: Moment::now().seconds(),
        key: None,
        shown: String::new(),
        code: 0,
        micros: 0,
    };
    Session::create(&store, &arguments.session, &step)?;
    drop(held);
    match arguments.at.json {
        true => super::print_json(&Made { session: arguments.session.clone(), state }),
        false => super::super::print(&format!("{}\n", state.short())),
    }
}

/// Mounted over in every container of a session: they are part of the base, so that no command seems to make them.
const MOUNT_POINTS: [(&std::ffi::CStr, u32); 3] = [(c"proc", 0o755), (c"dev", 0o755), (c"sys", 0o755)];

pub fn make_mount_points(tree: &OwnedFd) -> Result<()> {
    for (name, mode) in MOUNT_POINTS {
        match fs::mkdirat(tree, name, Mode::from_raw_mode(mode)) {
            Err(fault) if fault.errno == Errno::EXIST => (),
            result => result.with_context(|| format!("create {name:?}"))?,
        }
    }
    Ok(())
}

pub fn import(store: &Store, rootfs: &Path, environment: &[String]) -> Result<Id> {
    let source = layer::open_directory(rootfs)?;
    let context = ShellContext::default();
    let context = ShellContext::new(context.cwd.clone(), context.with(environment), context.umask);
    let (mut root, mut delta) = layer::scan(&source, Origin::Command)?;
    if process::effective_uid() != 0 {
        enter::owners(store)?.adopt(&mut root, &mut delta)?;
    }
    if let Some(known) = known(store, root.clone(), delta.clone(), &context)? {
        return Ok(known);
    }
    enter::enter(store)?;
    let draft = store.draft()?;
    let tree = draft.path.join("tree");
    std::fs::create_dir(&tree).with_context(|| format!("create {tree:?}"))?;
    let copy = layer::open_directory(&tree)?;
    let progress = terminal::modes(borrow(2)).is_ok().then_some(tell as fn(u64));
    let mut copier = Copier::new(progress);
    // What was seen before: inside a user namespace, owners and attributes of the tree look otherwise.
    copier.tree(source.as_fd(), copy.as_fd(), Some((&root, &delta)))?;
    if progress.is_some() && copier.count >= STRIDE {
        eprintln!("\rdeja: {} files are copied; hashing and storing them", copier.count);
    }
    make_mount_points(&copy)?;
    let finish = Finish { time: None, sync: false, origin: Origin::Command };
    let sealed = store.seal(&draft.path, &Entry::empty_root(), finish)?;
    let layers = sealed.layer.into_iter().collect();
    let base = sealed.root.clone();
    store.keep(&State { root: sealed.root, base, context, layers, clock: copier.newest + 1 })
}

/// After so many files the copying of a large tree says how far it is, to who looks on.
const STRIDE: u64 = 10_000;

fn tell(count: u64) {
    if count % STRIDE == 0 {
        eprint!("\rdeja: copying: {count} files ");
    }
}

/// The state a session of this tree begins with, if another has begun so: then nothing has to be copied.
fn known(store: &Store, root: Entry, mut delta: Delta, context: &ShellContext) -> Result<Option<Id>> {
    for (name, mode) in MOUNT_POINTS {
        let entry = Entry { mode, kind: delta::OPEN, ..Entry::empty_root() };
        let below = Delta::new();
        delta.entry(name.to_bytes().to_vec()).or_insert(Item::There { entry, opaque: false, below });
    }
    let root = delta::merge(store, &Entry::empty_root(), root, &mut delta)?.root;
    let base = root.clone();
    let id = State { root, base, context: context.clone(), layers: Vec::new(), clock: 0 }.id();
    Ok(store.has(Shelf::States, &id.to_string()).then_some(id))
}
