//! Looking at states without starting anything: `diff`, `ls`, `cat` and `export`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use super::capture::write_all;
use super::moves::resolve;
use super::room::{self, Rights, Wanted};
use super::{enter, image};
use crate::cli::{self, StateForm};
use crate::command::fair::table;
use crate::session::layer::Origin;
use crate::session::owners::{Owners, Range};
use crate::session::policy::Bounds;
use crate::session::state::State;
use crate::session::store::Store;
use crate::session::tree::{self, Change, Entry, Kind, Node, Nodes};
use crate::session::{Content, Id, delta, layer};
use crate::sys::fs;

#[derive(Serialize)]
struct Changed {
    path: String,
    change: &'static str,
}

pub fn diff(arguments: &cli::SessionDiff) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let [old, new] =
        [&arguments.old, &arguments.new].map(|text| resolve(&store, text).and_then(|id| store.state(&id)));
    let (old, new) = (old?, new?);
    let changes = tree::diff(&store, &old.root, &new.root)?;
    let mut rows: Vec<Changed> = changes
        .into_iter()
        .map(|(path, change)| Changed {
            path: String::from_utf8_lossy(&path).into_owned(),
            change: word(change),
        })
        .collect();
    rows.extend(context_changes(&old, &new));
    if arguments.at.json {
        return super::print_json(&rows);
    }
    let text: String = rows.iter().map(|row| format!("{:8} {}\n", row.change, row.path)).collect();
    crate::command::print(&text)
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

fn context_changes(old: &State, new: &State) -> Vec<Changed> {
    let mut rows = Vec::new();
    let mut row = |path: String| rows.push(Changed { path, change: "shell" });
    let (old, new) = (&old.context, &new.context);
    if old.cwd != new.cwd {
        row(format!("working directory {} -> {}", old.cwd, new.cwd));
    }
    if old.umask != new.umask {
        row(format!("umask {:03o} -> {:03o}", old.umask, new.umask));
    }
    old.environment
        .iter()
        .filter(|known| !new.environment.contains(known))
        .for_each(|gone| row(format!("-{gone}")));
    new.environment
        .iter()
        .filter(|known| !old.environment.contains(known))
        .for_each(|come| row(format!("+{come}")));
    rows
}

/// The state that is meant, and the entry at a path in it.
/// What is at `path`, which begins where the state's shell stands, and the path without links.
fn entry_at(store: &Store, state: &str, path: &str) -> Result<(State, String, Entry)> {
    let state = store.state(&resolve(store, state)?)?;
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", state.context.cwd) };
    let located = tree::locate(store, &state.root, whole.as_bytes())?;
    let located = located.filter(|located| located.missing.is_none());
    let nothing = || format!("there is no {path:?} in state {}", state.id().short());
    let mut located = located.with_context(nothing)?;
    let place =
        String::from_utf8(located.path()).with_context(|| format!("{path:?} leads to an odd name"))?;
    let (_, entry) = located.way.pop().with_context(nothing)?;
    Ok((state, place, entry))
}

#[derive(Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

pub fn ls(arguments: &cli::SessionLs) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let path = arguments.path.as_deref().unwrap_or("/");
    let (_, _, entry) = entry_at(&store, &arguments.state, path)?;
    let rows: Vec<Listed> = match entry.node_id() {
        Some(id) => store.node(&id)?.iter().map(|(name, entry)| listed(name, entry)).collect(),
        None => vec![listed(path.rsplit('/').next().unwrap_or(path).as_bytes(), &entry)],
    };
    if arguments.at.json {
        return super::print_json(&rows);
    }
    let cells: Vec<[String; 5]> = rows
        .into_iter()
        .map(|row| {
            let target = row.target.map(|target| format!(" -> {target}")).unwrap_or_default();
            let name = format!("{}{target}", row.name);
            [
                format!("{} {}", row.kind, row.mode),
                row.uid.to_string(),
                row.gid.to_string(),
                row.size.to_string(),
                name,
            ]
        })
        .collect();
    crate::command::print(&aligned(&cells))
}

/// As `table`, with the last column to the left.
fn aligned(cells: &[[String; 5]]) -> String {
    let numbers: Vec<[String; 4]> =
        cells.iter().map(|[a, b, c, d, _]| [a.clone(), b.clone(), c.clone(), d.clone()]).collect();
    let lines = table(1, &numbers);
    lines.lines().zip(cells).map(|(line, cells)| format!("{line}  {}\n", cells[4])).collect()
}

fn listed(name: &[u8], entry: &Entry) -> Listed {
    let (kind, size, target) = match &entry.kind {
        Kind::File { size, .. } => ("file", *size, None),
        Kind::Directory { .. } => ("directory", 0, None),
        Kind::Link { target } => ("link", 0, Some(String::from_utf8_lossy(target).into_owned())),
        Kind::Device { .. } => ("device", 0, None),
        Kind::Fifo => ("fifo", 0, None),
        Kind::Socket => ("socket", 0, None),
    };
    let name = String::from_utf8_lossy(name).into_owned();
    Listed { name, kind, mode: format!("{:04o}", entry.mode), uid: entry.uid, gid: entry.gid, size, target }
}

pub fn cat(arguments: &cli::SessionCat) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let path = &arguments.path;
    let (state, place, entry) = entry_at(&store, &arguments.state, path)?;
    let Kind::File { content, .. } = entry.kind else {
        bail!("{path:?} is no file in state {}", state.id().short());
    };
    enter::enter(&store)?;
    let file = layer::open_in_chain(&store.chain(&state)?, &place)?;
    let mut read = Content::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match fs::read(&file, &mut buffer).with_context(|| format!("read {path:?}"))? {
            0 => break,
            length => {
                read.bytes(&buffer[..length]);
                write_all(1, &buffer[..length])?;
            }
        }
    }
    if read.finish() != content {
        bail!("{path:?} is damaged in the store: run \"session verify\"");
    }
    Ok(())
}

/// A state as files for others, in a form of their choice.
pub fn export(arguments: &cli::SessionExport) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let state = store.state(&resolve(&store, &arguments.state)?)?;
    enter::enter(&store)?;
    let failed = || format!("export state {}", state.id().short());
    match arguments.format {
        StateForm::Tree => export_tree(&store, &state, &arguments.path)?,
        StateForm::Bundle => export_bundle(&store, &state, &arguments.path)?,
        form => {
            let reference = image::reference(arguments.name.as_deref(), &state)?;
            image::export(&store, &state, form, &arguments.path, &reference).with_context(failed)?;
        }
    }
    match arguments.at.json {
        true => super::print_json(&state.context),
        // There the archive goes.
        false if arguments.path.as_os_str() == "-" => Ok(()),
        false => crate::command::print(&format!("{}\n", state.id().short())),
    }
}

/// The whole tree of a state as plain files in a directory that is not there yet.
fn export_tree(store: &Store, state: &State, path: &Path) -> Result<()> {
    std::fs::create_dir(path).with_context(|| format!("create {path:?}"))?;
    let chain = store.chain(state)?;
    let target = layer::open_directory(path)?;
    layer::export(&chain, &target).with_context(|| format!("export state {}", state.id().short()))?;
    // What has just been written is read again: a copy that shows another tree is none.
    let (root, mut delta) = layer::scan(&target, Origin::Command)?;
    let copy = delta::merge(store, &Entry::empty_root(), root, &mut delta)?;
    if !same(&Both { store, made: &copy.nodes }, &state.root, &copy.root)? {
        bail!("export state {}: the copy differs; \"session verify\" checks the store", state.id().short());
    }
    Ok(())
}

/// A root file system and a config.json that runs a shell where the session stands.
fn export_bundle(store: &Store, state: &State, path: &Path) -> Result<()> {
    std::fs::create_dir(path).with_context(|| format!("create {path:?}"))?;
    export_tree(store, state, &path.join("rootfs"))?;
    let config = room::config(&Wanted {
        cgroup: None,
        root: Path::new("rootfs"),
        cwd: &state.context.cwd,
        program: None,
        words: vec!["/bin/sh".to_owned()],
        environment: state.context.with(&[]),
        umask: state.context.umask,
        uid: 0,
        gid: 0,
        network: false,
        resolver: None,
        bounds: &Bounds::default(),
        tenant: None,
        rights: Rights::ALL,
    })?;
    let config = match Owners::read(store)? {
        Some(owners) => with_owners(&config, &owners)?,
        None => config,
    };
    let file = path.join("config.json");
    std::fs::write(&file, config).with_context(|| format!("write {file:?}"))
}

/// What a user exports belongs to the user's own ids, and means what it should in a user namespace with these alone.
fn with_owners(config: &[u8], owners: &Owners) -> Result<Vec<u8>> {
    let mut config: Value = serde_json::from_slice(config)?;
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().context("namespaces")?.push(json!({"type": "user"}));
    for (name, ranges) in [("uidMappings", &owners.users), ("gidMappings", &owners.groups)] {
        let mapping = |range: &Range| json!({"containerID": range.inside, "hostID": range.outside, "size": range.count});
        linux[name] = ranges.iter().map(mapping).collect();
    }
    Ok(serde_json::to_vec(&config)?)
}

/// The nodes of the store, and those of a copy that is in no store.
struct Both<'b> {
    store: &'b Store,
    made: &'b BTreeMap<Id, Vec<u8>>,
}

impl Nodes for Both<'_> {
    fn node(&self, id: &Id) -> Result<Node> {
        self.made.get(id).map_or_else(|| self.store.node(id), |bytes| tree::decode(bytes))
    }
}

/// Whether two trees are the same but for which names are one file: of names that a later command has taken apart, a
/// state remembers that they were together.
fn same(nodes: &dyn Nodes, one: &Entry, other: &Entry) -> Result<bool> {
    if one == other {
        return Ok(true);
    }
    let (Some(a), Some(b)) = (one.node_id(), other.node_id()) else {
        return Ok(Entry { hard_links: None, ..one.clone() } == Entry { hard_links: None, ..other.clone() });
    };
    if (Entry { kind: delta::OPEN, ..one.clone() }) != (Entry { kind: delta::OPEN, ..other.clone() }) {
        return Ok(false);
    }
    let (a, b) = (nodes.node(&a)?, nodes.node(&b)?);
    if !a.keys().eq(b.keys()) {
        return Ok(false);
    }
    for (one, other) in a.values().zip(b.values()) {
        if !same(nodes, one, other)? {
            return Ok(false);
        }
    }
    Ok(true)
}
