//! The store on disk: plain files, each with a checksum, named by content or by key.
//!
//! ```text
//! version                what wrote this, for the one that reads it
//! owners                 whose files it can hold, where it is not root's
//! layers/ID/tree         a layer as overlayfs mounts it;  layers/ID/manifest  what must be in it
//! nodes/ID               a directory of a tree of hashes
//! states/ID              a state: tree, context, and a chain of layers that shows it
//! transitions/KEY        what a command made of a state, with its output
//! sessions/NAME          the journal of a session
//! habits/COMMAND         what comparisons of its runs have shown of a command
//! images/ID              the state a session of an image begins with
//! disowned/ID            a state that turned out wrong
//! policy/policy          how the store deals with commands that vary
//! drafts/                what is being made; whoever makes it holds a lock on it
//! locks/                 one file per key that is being run, and `collect` against `gc`
//! ```
//! Everything is written to a draft, put on the disk, and given its name in one step, in an order in which nothing
//! names what is not there yet. What is damaged counts as absent.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::{self as files, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::delta;
use super::id::Id;
use super::layer::{self, Finish, Origin};
use super::state::State;
use super::tree::{self, Entry};
use crate::error::{Failure, Kind};
use crate::removal;
use crate::sys::fs::FlockOperation;
use crate::sys::{AsFd, Errno, file, fs};
use crate::trial;

const VERSION: &str = "deja session store 2\n";

/// Where the files of one kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    Layers,
    Nodes,
    States,
    Transitions,
    Sessions,
    Habits,
    Images,
    Disowned,
    Policy,
    Drafts,
    Locks,
}

impl Shelf {
    pub const ALL: [Shelf; 11] = [
        Shelf::Layers,
        Shelf::Nodes,
        Shelf::States,
        Shelf::Transitions,
        Shelf::Sessions,
        Shelf::Habits,
        Shelf::Images,
        Shelf::Disowned,
        Shelf::Policy,
        Shelf::Drafts,
        Shelf::Locks,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Shelf::Layers => "layers",
            Shelf::Nodes => "nodes",
            Shelf::States => "states",
            Shelf::Transitions => "transitions",
            Shelf::Sessions => "sessions",
            Shelf::Habits => "habits",
            Shelf::Images => "images",
            Shelf::Disowned => "disowned",
            Shelf::Policy => "policy",
            Shelf::Drafts => "drafts",
            Shelf::Locks => "locks",
        }
    }
}

/// A longer chain is flattened before something runs in it.
pub const LONGEST_CHAIN: usize = 32;

/// A file is written in less time than this.
const LONGEST_PUT: Duration = Duration::from_secs(600);

/// What a look at a file of the store gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Whole(Vec<u8>),
    Damaged,
    Nothing,
}

pub struct Store {
    root: PathBuf,
    /// Stores whose results are taken for own ones; looked up when first something is not here.
    pub(super) lenders: OnceCell<Vec<Store>>,
}

/// A lock, held until it is dropped or this process ends.
pub struct Held(#[allow(dead_code, reason = "it is held, not used")] File);

/// A directory in which something is being made. Dropped, it is removed.
pub struct Draft {
    pub path: PathBuf,
    _lock: File,
}

/// What somebody was making who has ended.
pub struct Abandoned {
    pub name: String,
    pub path: PathBuf,
    _lock: File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What cannot be removed now is found by the next sweep, when nobody holds the lock any more.
        remove_path(&self.path).ok();
    }
}

impl Store {
    /// The store at `root`, which is made if it is not there.
    pub fn create(root: PathBuf) -> Result<Self> {
        let make = |path: &Path| {
            files::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .with_context(|| format!("create {path:?}"))
        };
        make(&root)?;
        Shelf::ALL.iter().try_for_each(|shelf| make(&root.join(shelf.name())))?;
        let version = root.join("version");
        if !version.exists() {
            // Half a line would be another version's.
            put_plain(&root, &version, VERSION)?;
        }
        Self::open(root)
    }

    pub fn open(root: PathBuf) -> Result<Self> {
        let version = root.join("version");
        match files::read(&version) {
            Ok(bytes) if bytes == VERSION.as_bytes() => Ok(Self { root, lenders: OnceCell::new() }),
            Ok(_) => {
                bail!("{root:?} is a session store of another version of deja: use that, or another --store")
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text =
                    format!("there is no session store at {root:?}: make a session with \"session new\"");
                Err(Failure::new(Kind::NotFound, text).into())
            }
            Err(error) => Err(error).with_context(|| format!("read {version:?}")),
        }
    }

    /// Gives a text a name in the store's own directory.
    pub(super) fn put_plain(&self, name: &str, text: &str) -> Result<()> {
        put_plain(&self.root, &self.root.join(name), text)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.root.join(shelf.name())
    }

    pub fn path(&self, shelf: Shelf, name: &str) -> PathBuf {
        let mut path = self.shelf(shelf);
        path.push(name);
        path
    }

    /// The directory overlayfs mounts.
    pub fn layer(&self, id: &Id) -> PathBuf {
        self.place(Shelf::Layers, &id.to_string()).join("tree")
    }

    pub fn has(&self, shelf: Shelf, name: &str) -> bool {
        self.path(shelf, name).exists() || self.is_lent(shelf, name)
    }

    /// Gives `bytes` a name, whole or not at all.
    pub fn put(&self, shelf: Shelf, name: &str, bytes: &[u8]) -> Result<()> {
        let draft = self.path(Shelf::Drafts, &format!("{}-{name}", unique()));
        let path = self.path(shelf, name);
        let publish = || match files::rename(&draft, &path) {
            // A store that an older deja has made lacks the newer shelves.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                files::DirBuilder::new().mode(0o700).create(self.shelf(shelf))?;
                files::rename(&draft, &path)
            }
            result => result,
        };
        let written = write_checked(&draft, shelf, bytes).and_then(|()| {
            trial::point("give a file of the store its name")?;
            publish().with_context(|| format!("write {path:?}"))
        });
        if written.is_err() {
            // The error is the one worth telling; the sweep gets what is left.
            files::remove_file(&draft).ok();
        }
        written
    }

    /// What is here or lent under a name.
    pub fn get(&self, shelf: Shelf, name: &str) -> Result<Found> {
        match self.get_own(shelf, name)? {
            Found::Whole(bytes) => Ok(Found::Whole(bytes)),
            other => Ok(self.lent(shelf, name).map_or(other, Found::Whole)),
        }
    }

    pub(super) fn get_own(&self, shelf: Shelf, name: &str) -> Result<Found> {
        let path = self.path(shelf, name);
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // A disk that cannot give back what it was given has lost it.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                return Ok(Found::Damaged);
            }
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        Ok(unchecked(shelf, bytes).map_or(Found::Damaged, Found::Whole))
    }

    /// Takes a name away, for good.
    pub fn forget(&self, shelf: Shelf, name: &str) -> Result<()> {
        remove_path(&self.path(shelf, name))?;
        self.sync(shelf)
    }

    /// The names on a shelf, sorted.
    pub fn list(&self, shelf: Shelf) -> Result<Vec<String>> {
        let path = self.shelf(shelf);
        let entries = match files::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("read {path:?}"))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name: OsString = entry.with_context(|| format!("read {path:?}"))?.file_name();
            names.extend(name.into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    pub fn state(&self, id: &Id) -> Result<State> {
        match self.get(Shelf::States, &id.to_string())? {
            Found::Whole(bytes) => State::from_bytes(&bytes),
            Found::Damaged => bail!("state {} is damaged", id.short()),
            Found::Nothing => bail!("state {} is not in the store", id.short()),
        }
        .with_context(|| format!("read state {}", id.short()))
    }

    /// Puts the names of a shelf on the disk.
    pub fn sync(&self, shelf: Shelf) -> Result<()> {
        let path = self.shelf(shelf);
        sync_directory(&path)
    }

    /// A directory to make something in, that nobody sweeps away meanwhile.
    pub fn draft(&self) -> Result<Draft> {
        loop {
            let path = self.path(Shelf::Drafts, &unique());
            files::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("create {path:?}"))?;
            // A sweep may take it before it is locked; then it is gone, and another is made.
            let Ok(lock) = File::open(&path) else { continue };
            fs::flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("lock {path:?}"))?;
            if path.exists() {
                return Ok(Draft { path, _lock: lock });
            }
        }
    }

    /// Drafts nobody works on any more, which nobody else can take meanwhile. To whoever owns the store, no file is still
    /// being written.
    pub fn abandoned(&self, owned: bool) -> Result<Vec<Abandoned>> {
        let mut abandoned = Vec::new();
        for name in self.list(Shelf::Drafts)? {
            let path = self.path(Shelf::Drafts, &name);
            let Ok(draft) = File::open(&path) else { continue };
            let Ok(metadata) = draft.metadata() else { continue };
            let dead = match metadata.is_dir() {
                true => fs::flock(&draft, FlockOperation::NonBlockingLockExclusive).is_ok(),
                false => {
                    owned
                        || metadata
                            .modified()
                            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LONGEST_PUT))
                }
            };
            if dead {
                abandoned.push(Abandoned { name, path, _lock: draft });
            }
        }
        Ok(abandoned)
    }

    /// Waits until nobody else holds the lock of this name. The file goes when the last holder is done.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.path(Shelf::Locks, name);
        loop {
            let file = open_lock(&path)?;
            fs::flock(&file, FlockOperation::LockExclusive).with_context(|| format!("lock {path:?}"))?;
            // Whoever held it before may have removed the file, and others lock another one by now.
            let linked = file.metadata().with_context(|| format!("lock {path:?}"))?;
            if std::os::unix::fs::MetadataExt::nlink(&linked) > 0 {
                return Ok(Lock { path, _file: file });
            }
        }
    }

    /// Holds `gc` off while something is read or published.
    pub fn share(&self) -> Result<Held> {
        self.collect_lock(FlockOperation::LockShared)
    }

    /// Waits until nobody shares the store.
    pub fn own(&self) -> Result<Held> {
        self.collect_lock(FlockOperation::LockExclusive)
    }

    fn collect_lock(&self, operation: FlockOperation) -> Result<Held> {
        let path = self.path(Shelf::Locks, "collect");
        let file = open_lock(&path)?;
        fs::flock(&file, operation).with_context(|| format!("lock {path:?}"))?;
        Ok(Held(file))
    }
}

/// What a draft becomes.
pub struct Sealed {
    pub root: Entry,
    /// None: nothing has changed, and there is no layer.
    pub layer: Option<Id>,
    pub files: u64,
    pub bytes: u64,
}

impl Store {
    /// Makes a layer of `tree` in a draft directory: what it changes of `base`, and nothing else.
    pub fn seal(&self, draft: &Path, base: &Entry, finish: Finish) -> Result<Sealed> {
        let tree = draft.join("tree");
        let upper = layer::open_directory(&tree)?;
        let (root, mut delta) = layer::scan(&upper, finish.origin)?;
        let merged = delta::merge(self, base, root, &mut delta)?;
        let (files, bytes) = delta::size(&delta);
        if merged.root == *base {
            return Ok(Sealed { root: merged.root, layer: None, files, bytes });
        }
        let manifest = delta::manifest(&merged.root, &delta);
        let id = Self::layer_id(&manifest);
        self.put_nodes(&merged.nodes)?;
        if !self.has(Shelf::Layers, &id.to_string()) {
            trial::point("finish a layer")?;
            layer::finish(&upper, &delta, finish)?;
            self.publish_layer(draft, &id, &manifest, &upper, finish)?;
        }
        Ok(Sealed { root: merged.root, layer: Some(id), files, bytes })
    }

    pub fn layer_id(manifest: &[u8]) -> Id {
        Id::of("deja layer 1", manifest)
    }

    /// The bytes the store takes on the disk.
    pub fn size(&self) -> Result<u64> {
        size_below(&self.root)
    }

    fn publish_layer(
        &self,
        draft: &Path,
        id: &Id,
        manifest: &[u8],
        upper: &impl AsFd,
        finish: Finish,
    ) -> Result<()> {
        let layer = draft.join("layer");
        files::create_dir(&layer).with_context(|| format!("create {layer:?}"))?;
        write_checked(&layer.join("manifest"), Shelf::Layers, manifest)?;
        files::rename(draft.join("tree"), layer.join("tree")).context("move the tree into its layer")?;
        if finish.origin == Origin::Flattened {
            files::write(layer.join("flattened"), "").context("mark a flattened layer")?;
        }
        match finish.sync {
            true => sync_directory(&layer)?,
            false => file::sync_file_system(upper).context("put the layer on the disk")?,
        }
        trial::point("give a layer its name")?;
        let path = self.path(Shelf::Layers, &id.to_string());
        match files::rename(&layer, &path) {
            // Somebody else has made the same.
            Err(_) if path.is_dir() => Ok(()),
            result => result.with_context(|| format!("publish {path:?}")),
        }?;
        self.sync(Shelf::Layers)
    }

    /// Takes what is on a shelf of another store on the same file system, and is not here yet.
    pub fn adopt(&self, other: &Store, shelf: Shelf) -> Result<()> {
        for name in other.list(shelf)? {
            let path = self.path(shelf, &name);
            if path.exists() {
                continue;
            }
            trial::point("take over a file of another store")?;
            match files::rename(other.path(shelf, &name), &path) {
                // Somebody else has just made the same.
                Err(_) if path.exists() => (),
                result => result.with_context(|| format!("write {path:?}"))?,
            }
        }
        self.sync(shelf)
    }

    /// Keeps a state, unless it is there already: the first chain that shows it stays.
    pub fn keep(&self, state: &State) -> Result<Id> {
        let id = state.id();
        if !matches!(self.get(Shelf::States, &id.to_string())?, Found::Whole(_)) {
            self.put(Shelf::States, &id.to_string(), &state.to_bytes()?)?;
            self.sync(Shelf::States)?;
        }
        Ok(id)
    }

    /// The same state with all layers but the lowest as one. A long chain makes every look at a file slower.
    pub fn flatten(&self, state: &State) -> Result<State> {
        let [lowest, above @ ..] = state.layers.as_slice() else { return Ok(state.clone()) };
        let draft = self.draft()?;
        let tree = draft.path.join("tree");
        files::create_dir(&tree).with_context(|| format!("create {tree:?}"))?;
        let layers: Vec<PathBuf> = above.iter().map(|id| self.layer(id)).collect();
        layer::flatten(&layers, &layer::open_directory(&tree)?)?;
        let finish = Finish { time: None, sync: true, origin: Origin::Flattened };
        let sealed = self.seal(&draft.path, &state.base, finish)?;
        if sealed.root != state.root {
            let differing = tree::diff(self, &state.root, &sealed.root)?;
            let paths = differing.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned());
            let paths: Vec<String> = paths.take(3).collect();
            bail!("flatten state {}: its layers show other files: {}", state.id().short(), paths.join(", "));
        }
        let layers = std::iter::once(*lowest).chain(sealed.layer).collect();
        let flat = State { layers, ..state.clone() };
        self.put(Shelf::States, &flat.id().to_string(), &flat.to_bytes()?)?;
        self.sync(Shelf::States)?;
        Ok(flat)
    }

    /// What is in a layer now, as its manifest should say.
    pub fn describe_layer(&self, id: &Id) -> Result<Vec<u8>> {
        let upper = layer::open_directory(&self.layer(id))?;
        let origin = match self.is_flattened(id) {
            true => Origin::Flattened,
            false => Origin::Command,
        };
        let (root, delta) = layer::scan(&upper, origin)?;
        Ok(delta::manifest(&root, &delta))
    }

    /// The mark stands beside the layer's tree.
    pub fn is_flattened(&self, id: &Id) -> bool {
        self.place(Shelf::Layers, &id.to_string()).join("flattened").exists()
    }
}

/// The bytes a file, or a directory with all in it, takes on the disk.
pub fn size_below(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match files::symlink_metadata(path) {
        // Drafts come and go, and what runs in one may have made it deeper than paths reach.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => return Ok(0),
        result => result.with_context(|| format!("look at {path:?}"))?,
    };
    let mut bytes = metadata.blocks() * 512;
    if metadata.is_dir() {
        for entry in files::read_dir(path).with_context(|| format!("read {path:?}"))? {
            bytes += size_below(&entry.with_context(|| format!("read {path:?}"))?.path())?;
        }
    }
    Ok(bytes)
}

/// One file per thing that only one at a time may do.
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held, so that whoever waits for this file sees that it is gone.
        files::remove_file(&self.path).ok();
    }
}

/// Whole or not at all.
fn put_plain(root: &Path, path: &Path, text: &str) -> Result<()> {
    let draft = root.join(Shelf::Drafts.name()).join(unique());
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        trial::point("give a file of the store's directory its name").map_err(std::io::Error::other)?;
        files::rename(&draft, path)
    };
    write().with_context(|| format!("write {path:?}"))?;
    sync_directory(root)
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).with_context(|| format!("open {path:?}"))
}

fn sync_directory(path: &Path) -> Result<()> {
    trial::point("put names on the disk")?;
    let directory = File::open(path).with_context(|| format!("open {path:?}"))?;
    file::sync(&directory).with_context(|| format!("put {path:?} on the disk"))
}

/// A name nobody else uses now; what is made under it must be new all the same.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn remove_path(path: &Path) -> Result<()> {
    removal::remove_path(path).with_context(|| format!("remove {path:?}"))
}

fn header(shelf: Shelf, body: &[u8]) -> String {
    format!("deja {} 1 {}\n", shelf.name(), Id::of(shelf.name(), body))
}

fn write_checked(path: &Path, shelf: Shelf, body: &[u8]) -> Result<()> {
    trial::point("write a file of the store")?;
    let file = write_unsynced(path, shelf, body)?;
    file.sync_data().with_context(|| format!("write {path:?}"))
}

pub(super) fn write_unsynced(path: &Path, shelf: Shelf, body: &[u8]) -> Result<File> {
    let write = || -> std::io::Result<File> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // Who may reach it is a matter of the directories above.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(&[header(shelf, body).as_bytes(), body].concat())?;
        Ok(file)
    };
    write().with_context(|| format!("write {path:?}"))
}

/// The body of a file whose checksum is right.
pub fn unchecked(shelf: Shelf, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    if bytes[..end] != *header(shelf, &bytes[end..]).as_bytes() {
        return None;
    }
    bytes.drain(..end);
    Some(bytes)
}
