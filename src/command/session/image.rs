//! Images: what `session new --image` reads and `session export` writes for engines.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::backup::{draft_beside, write_whole};
use super::{enter, new};
use crate::cli::StateForm;
use crate::oci::{self, Blob, Files, Hashing, Image, Small};
use crate::session::Id;
use crate::session::image as states;
use crate::session::layer::{self, Finish};
use crate::session::state::{Context as ShellContext, State};
use crate::session::store::{Found, Shelf, Store};
use crate::session::tree::{self, Entry as TreeEntry};
use crate::sys::fs::{self as calls, Mode, OFlags, ResolveFlags};
use crate::sys::{AsFd, Errno, OwnedFd, file};
use crate::tar::{self, Attributes, Limits, Reader, Unpacker};

pub struct Wanted<'w> {
    pub path: &'w Path,
    pub reference: Option<&'w str>,
    pub environment: &'w [String],
}

/// The state that a session of an image begins with.
pub fn import(store: &Store, wanted: &Wanted) -> Result<Id> {
    let metadata = fs::metadata(wanted.path).context("open the image")?;
    if metadata.is_dir() {
        let place = Place { root: layer::open_directory(wanted.path)? };
        if !is_image(&place)? {
            return new::import(store, wanted.path, wanted.environment);
        }
        let image = oci::find(&place, wanted.reference)?;
        return known(store, &image, wanted)?.map_or_else(|| layers(store, &image, &place, wanted), Ok);
    }
    let small = Small::of(Reader::new(open(wanted.path)?, Limits::default()))?;
    if !is_image(&small)? {
        enter::enter(store)?;
        return plain(store, wanted);
    }
    let image = oci::find(&small, wanted.reference)?;
    if let Some(state) = known(store, &image, wanted)? {
        return Ok(state);
    }
    enter::enter(store)?;
    let draft = store.draft()?;
    let root = layer::open_directory(&draft.path)?;
    let mut reader = Reader::new(open(wanted.path)?, Limits::default());
    let mut unpacker = Unpacker::new(root.as_fd(), Attributes::None);
    while let Some(entry) = reader.next_entry()? {
        unpacker.put(&entry, &mut reader)?;
    }
    unpacker.finish()?;
    layers(store, &image, &Place { root }, wanted)
}

fn is_image(files: &dyn Files) -> Result<bool> {
    Ok(files.small("oci-layout")?.is_some() || files.small("manifest.json")?.is_some())
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).with_context(|| format!("open {path:?}"))?;
    Ok(tar::decompress(file)?)
}

/// A layout, or what was unpacked of an archive.
struct Place {
    root: OwnedFd,
}

impl Place {
    /// None: there is none of this name.
    fn open(&self, path: &str) -> Result<Option<File>> {
        // An archive of docker's may hold a link to a layer it holds already.
        let down = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match calls::openat2(&self.root, &CString::new(path)?, flags, Mode::empty(), down) {
            Err(fault) if fault.errno == Errno::NOENT => Ok(None),
            result => Ok(Some(File::from(result.with_context(|| format!("open {path:?}"))?))),
        }
    }
}

impl Files for Place {
    fn small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(oci::LARGEST + 1).read_to_end(&mut bytes).with_context(|| format!("read {path:?}"))?;
        ensure!(bytes.len() as u64 <= oci::LARGEST, "{path:?} is too large");
        Ok(Some(bytes))
    }
}

/// What an image and the variables that were asked for are kept under.
fn image_key(image: &Image, environment: &[String]) -> String {
    let mut words = vec![image.digest.as_str()];
    words.extend(environment.iter().map(String::as_str));
    Id::of("deja image 1", words.join("\0").as_bytes()).to_string()
}

/// The state that was made of the image before.
fn known(store: &Store, image: &Image, wanted: &Wanted) -> Result<Option<Id>> {
    let Found::Whole(bytes) = store.get(Shelf::Images, &image_key(image, wanted.environment))? else {
        return Ok(None);
    };
    let state = std::str::from_utf8(&bytes).ok().and_then(Id::parse);
    Ok(state.filter(|id| store.has(Shelf::States, &id.to_string())))
}

/// A state without files.
fn nothing(context: ShellContext) -> State {
    let root = TreeEntry::empty_root();
    State { base: root.clone(), root, context, layers: Vec::new(), clock: 0 }
}

fn layers(store: &Store, image: &Image, place: &Place, wanted: &Wanted) -> Result<Id> {
    enter::enter(store)?;
    let settings = &image.config.config;
    let label = settings.labels.as_ref().and_then(|labels| labels.get(states::LABEL));
    let origin: Option<states::Origin> = label.and_then(|label| serde_json::from_str(label).ok());
    let mut state = nothing(ShellContext::default());
    for blob in &image.layers {
        let file = place.open(&blob.path)?.with_context(|| format!("{:?} is missing", blob.path))?;
        let add = add_layer(store, &mut state, BufReader::with_capacity(256 << 10, file), Some(blob));
        add.with_context(|| format!("layer {:?}", blob.path))?;
    }
    let variables = settings.env.clone().unwrap_or_default();
    let environment = match origin {
        Some(_) => variables,
        None => ShellContext::default().with(&variables),
    };
    let named = ShellContext { environment, ..ShellContext::default() }.with(wanted.environment);
    let cwd = settings.working_dir.clone().filter(|path| path.starts_with('/'));
    // An engine makes a directory that is not there; a session begins where there is one.
    let is_there = |path: &String| -> Result<bool> {
        Ok(tree::find(store, &state.root, path)?.is_some_and(|entry| entry.node_id().is_some()))
    };
    let cwd = match cwd {
        Some(path) if is_there(&path)? => path,
        _ => "/".to_owned(),
    };
    state.context = ShellContext::new(cwd, named, origin.as_ref().map_or(0o022, |origin| origin.umask));
    state.clock = state.clock.max(origin.map_or(0, |origin| origin.clock));
    let id = store.keep(&state)?;
    store.put(Shelf::Images, &image_key(image, wanted.environment), id.to_string().as_bytes())?;
    Ok(id)
}

/// An archive of files, and nothing said about them.
fn plain(store: &Store, wanted: &Wanted) -> Result<Id> {
    let context = ShellContext::default();
    let environment = context.with(wanted.environment);
    let mut state = nothing(ShellContext::new(context.cwd, environment, context.umask));
    let file = File::open(wanted.path).context("open the archive")?;
    add_layer(store, &mut state, BufReader::new(file), None)?;
    store.keep(&state)
}

/// Puts a layer on top of a state, after looking whether it is the one the image names.
fn add_layer(store: &Store, state: &mut State, file: impl Read, blob: Option<&Blob>) -> Result<()> {
    let draft = store.draft()?;
    let path = draft.path.join("tree");
    fs::create_dir(&path).with_context(|| format!("create {path:?}"))?;
    let tree = layer::open_directory(&path)?;
    let mut file = Hashing::new(file);
    let mut content = Hashing::new(tar::decompress(&mut file)?);
    let unpacked = states::unpack(&mut content, &tree, store, &state.root)?;
    match blob {
        Some(blob) => {
            content.check(&blob.content)?;
            blob.digest.as_ref().map_or(Ok(()), |digest| file.check(digest))?;
        }
        None => drop(content),
    }
    let first = state.layers.is_empty();
    if first {
        new::make_mount_points(&tree)?;
    }
    let finish = Finish { time: None, sync: false, origin: unpacked.origin };
    let sealed = store.seal(&draft.path, &state.root, finish)?;
    state.root = sealed.root;
    sealed.layer.into_iter().for_each(|layer| state.stack(layer));
    if first {
        state.base = state.root.clone();
    }
    state.clock = state.clock.max(unpacked.newest.saturating_add(1));
    Ok(())
}

/// What an image of a state is called: what was asked for, with a tag.
pub fn reference(name: Option<&str>, state: &State) -> Result<String> {
    name.map_or_else(|| Ok(format!("deja:{}", state.id().short())), oci::reference)
}

/// Writes a state as an image, whole or not at all.
pub fn export(store: &Store, state: &State, form: StateForm, path: &Path, reference: &str) -> Result<()> {
    if form == StateForm::Layout {
        if path.exists() {
            bail!("{path:?} is there already");
        }
        let draft = draft_beside(path);
        fs::create_dir(&draft).with_context(|| format!("create {draft:?}"))?;
        let written = states::write(store, state, &draft, reference).and_then(|()| {
            file::sync_file_system(layer::open_directory(&draft)?)?;
            fs::rename(&draft, path).with_context(|| format!("write {path:?}"))
        });
        if written.is_err() {
            // The error is the one worth telling.
            fs::remove_dir_all(&draft).ok();
        }
        return written;
    }
    let draft = store.draft()?;
    let layout = draft.path.join("image");
    fs::create_dir(&layout).with_context(|| format!("create {layout:?}"))?;
    states::write(store, state, &layout, reference)?;
    write_whole(path, |to| oci::pack(&layout, to)).with_context(|| format!("write {path:?}"))
}
