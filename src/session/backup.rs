//! A store, or the part of it that some sessions need, as one archive: the same files under the same names. Put into
//! another store it is a store itself first, and is checked as one.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::check;
use super::id::Id;
use super::journal;
use super::key;
use super::layer;
use super::marks;
use super::state::State;
use super::store::{Found, Shelf, Store};
use super::transition::Transition;
use crate::sys::fs::{self as calls, AtFlags, FdPath, FileType, Mode, OFlags, ResolveFlags};
use crate::sys::{AsFd, OwnedFd, file};
use crate::tar::{Attributes, Entry, Kind, Limits, Packed, Reader, Unpacker, Writer, pack};

/// What comes into a backup, by shelf.
#[derive(Debug, Default)]
pub struct Selection {
    pub sessions: Vec<String>,
    pub states: BTreeSet<Id>,
    pub transitions: BTreeSet<Id>,
    layers: BTreeSet<Id>,
    nodes: BTreeSet<Id>,
}

/// Everything that `sessions` stand on or can go back to, with the commands between these states; all of the store, if
/// none is named.
pub fn select(store: &Store, sessions: &[String]) -> Result<Selection> {
    let all = sessions.is_empty();
    let sessions = if all { store.list(Shelf::Sessions)? } else { sessions.to_vec() };
    let mut selection = Selection { sessions, ..Selection::default() };
    let ids = |shelf| -> Result<Vec<Id>> {
        Ok(store.list(shelf)?.iter().filter_map(|name| Id::parse(name)).collect())
    };
    if all {
        selection.states = ids(Shelf::States)?.into_iter().collect();
    } else {
        for name in &selection.sessions {
            selection.states.extend(journal::look(store, name)?.iter().map(|step| step.state));
        }
    }
    for key in ids(Shelf::Transitions)? {
        let Found::Whole(bytes) = store.get(Shelf::Transitions, &key.to_string())? else { continue };
        let Ok(Transition { head, .. }) = Transition::from_bytes(&bytes) else { continue };
        if selection.states.contains(&head.to) && (all || selection.states.contains(&head.from)) {
            selection.transitions.insert(key);
        }
    }
    let states = selection.states.iter().map(|id| store.state(id)).collect::<Result<Vec<State>>>();
    let states = states.context("the store is damaged: run \"session verify\"")?;
    selection.layers = states.iter().flat_map(|state| state.layers.iter().copied()).collect();
    // The empty directory is in every tree and in no store.
    selection.nodes = check::reachable(store, &states);
    selection.nodes.retain(|id| store.has(Shelf::Nodes, &id.to_string()));
    Ok(selection)
}

/// A socket has no form in an archive; this attribute tells it from the pipe that stands for it.
const SOCKET: &[u8] = b"trusted.deja.socket";

pub fn write<W: Write>(store: &Store, selection: &Selection, to: W) -> Result<W> {
    let mut writer = Writer::new(to);
    put_file(&mut writer, "version", &store.root().join("version"))?;
    for shelf in Shelf::ALL {
        writer.entry(&Entry::directory(shelf.name()))?;
    }
    let names = |ids: &BTreeSet<Id>| ids.iter().map(Id::to_string).collect::<Vec<_>>();
    for id in &names(&selection.layers) {
        put_layer(&mut writer, store, id).with_context(|| format!("layer {id}"))?;
    }
    let files = [
        (Shelf::Nodes, names(&selection.nodes)),
        (Shelf::States, names(&selection.states)),
        (Shelf::Transitions, names(&selection.transitions)),
        (Shelf::Habits, store.list(Shelf::Habits)?),
        (Shelf::Disowned, store.list(Shelf::Disowned)?),
        (Shelf::Sessions, selection.sessions.clone()),
    ];
    for (shelf, names) in files {
        for name in names {
            put_file(&mut writer, &format!("{}/{name}", shelf.name()), &store.place(shelf, &name))?;
        }
    }
    writer.finish()
}

fn put_file<W: Write>(writer: &mut Writer<W>, name: &str, path: &Path) -> Result<()> {
    // As much as there is now: a journal may grow meanwhile.
    let bytes = fs::read(path).with_context(|| format!("read {path:?}"))?;
    writer.file(&Entry::file(name, bytes.len() as u64), &mut bytes.as_slice())
}

fn put_layer<W: Write>(writer: &mut Writer<W>, store: &Store, id: &str) -> Result<()> {
    let path = store.place(Shelf::Layers, id);
    let name = format!("layers/{id}");
    writer.entry(&Entry::directory(&name))?;
    for file in ["manifest", "flattened"] {
        let path = path.join(file);
        if path.exists() {
            put_file(writer, &format!("{name}/{file}"), &path)?;
        }
    }
    let tree = layer::open_directory(&path.join("tree"))?;
    let prefix = format!("{name}/tree/");
    let stat = calls::fstat(&tree)?;
    let root =
        crate::tar::Found { directory: tree.as_fd(), name: c".", stat: &stat, kind: FileType::Directory };
    writer.entry(&entry(&root, format!("{name}/tree").into_bytes(), Kind::Directory)?)?;
    let mut sockets = Vec::new();
    pack(tree.as_fd(), &prefix, writer, &mut |name, found| {
        if found.kind != FileType::Socket {
            return Ok(Packed::Yes(marks::all_from_disk(found.xattrs()?)));
        }
        let mut socket = entry(found, [prefix.as_bytes(), name].concat(), Kind::Fifo)?;
        socket.xattrs.push((SOCKET.to_vec(), b"y".to_vec()));
        sockets.push(socket);
        Ok(Packed::No)
    })?;
    sockets.iter().try_for_each(|socket| writer.entry(socket))
}

#[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between architectures")]
fn entry(found: &crate::tar::Found<'_>, name: Vec<u8>, kind: Kind) -> Result<Entry> {
    let stat = found.stat;
    Ok(Entry {
        name,
        kind,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        mtime: stat.st_mtime as i64,
        xattrs: marks::all_from_disk(found.xattrs()?),
    })
}

/// Puts what is in a backup into the store; what is there already stays as it is. One session may get another name.
pub fn restore(store: &Store, from: impl Read, name: Option<&str>) -> Result<Vec<String>> {
    let draft = store.draft()?;
    let root = draft.path.join("store");
    fs::create_dir(&root).with_context(|| format!("create {root:?}"))?;
    unpack(from, &layer::open_directory(&root)?)?;
    let incoming = Store::open(root).context("it is no backup of a session store")?;
    let findings = check::verify(&incoming)?;
    if let Some(first) = findings.removed.first() {
        bail!("it is damaged: {first} is not what it should be");
    }
    if let Some(first) = findings.stranded.first() {
        bail!("it is damaged: the state of session {first:?} is missing");
    }
    check_keys(&incoming)?;
    let sessions = renamed(store, incoming.list(Shelf::Sessions)?, name)?;
    file::sync_file_system(layer::open_directory(incoming.root())?)?;
    // First what is named, then what names it.
    let shelves =
        [Shelf::Layers, Shelf::Nodes, Shelf::States, Shelf::Habits, Shelf::Disowned, Shelf::Transitions];
    for shelf in shelves {
        store.adopt(&incoming, shelf)?;
    }
    for (old, new) in &sessions {
        let (from, to) = (incoming.path(Shelf::Sessions, old), store.path(Shelf::Sessions, new));
        fs::hard_link(&from, &to).with_context(|| format!("write {to:?}"))?;
    }
    store.sync(Shelf::Sessions)?;
    Ok(sessions.into_iter().map(|(_, new)| new).collect())
}

/// The name each session has in the backup, and the one it gets.
fn renamed(store: &Store, sessions: Vec<String>, name: Option<&str>) -> Result<Vec<(String, String)>> {
    let sessions: Vec<(String, String)> = match (name, sessions.as_slice()) {
        (None, _) => sessions.into_iter().map(|name| (name.clone(), name)).collect(),
        (Some(name), [old]) => vec![(old.clone(), name.to_owned())],
        (Some(_), all) => bail!("it holds {} sessions: --as names one", all.len()),
    };
    for (old, new) in &sessions {
        journal::check_name(new)?;
        if store.has(Shelf::Sessions, new) {
            bail!("there is a session {new:?} already: --as gives {old:?} of the backup another name");
        }
    }
    Ok(sessions)
}

/// A transition stands under the key of its own facts, or somebody has moved it.
fn check_keys(incoming: &Store) -> Result<()> {
    for name in incoming.list(Shelf::Transitions)? {
        let Found::Whole(bytes) = incoming.get(Shelf::Transitions, &name)? else { continue };
        let Transition { head, .. } = Transition::from_bytes(&bytes)?;
        ensure!(
            Some(key::key(&head.from, &head.facts)) == Id::parse(&name),
            "it is damaged: a command's result stands under another command's key"
        );
    }
    Ok(())
}

fn unpack(from: impl Read, root: &OwnedFd) -> Result<()> {
    let mut reader = Reader::new(from, Limits { entries: 1 << 26, ..Limits::default() });
    let mut unpacker = Unpacker::new(root.as_fd(), Attributes::All);
    let mut sockets = Vec::new();
    while let Some(mut entry) = reader.next_entry()? {
        let count = entry.xattrs.len();
        entry.xattrs.retain(|(name, _)| name != SOCKET);
        let is_socket = entry.xattrs.len() < count;
        entry.xattrs = marks::all_on_disk(entry.xattrs);
        unpacker.put(&entry, &mut reader)?;
        if is_socket {
            sockets.push(entry);
        }
    }
    sockets.iter().try_for_each(|socket| make_socket(root, socket).context("make a socket"))?;
    unpacker.finish()
}

/// A socket in the place of the pipe that was unpacked for it.
fn make_socket(root: &OwnedFd, entry: &Entry) -> Result<()> {
    let place = entry.name.iter().rposition(|byte| *byte == b'/').context("it is in no directory")?;
    let (directory, name) = (CString::new(&entry.name[..place])?, CString::new(&entry.name[place + 1..])?);
    let down = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
    let directory =
        calls::openat2(root, &directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), down)?;
    calls::unlinkat(&directory, &name, AtFlags::empty())?;
    calls::mknodat(&directory, &name, FileType::Socket, Mode::from_raw_mode(0o600), 0, 0)?;
    calls::chownat(&directory, &name, entry.uid, Some(entry.gid), AtFlags::SYMLINK_NOFOLLOW)?;
    calls::chmodat(&directory, &name, Mode::from_raw_mode(entry.mode))?;
    let mut path = FdPath::new(directory.as_fd()).as_c_str().to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(name.to_bytes());
    for (key, value) in &entry.xattrs {
        file::set_xattr(&CString::new(path.as_slice())?, &CString::new(key.as_slice())?, value)?;
    }
    Ok(file::set_times(&directory, &name, entry.mtime)?)
}
