//! What on disk counts as an image: a directory of CRIU's files and deja's manifest, which is written last.
//!
//! The manifest says from the start that the image is not complete, and only at the end that it is: a dump that was
//! killed leaves nothing that could be restored. It holds the sizes of all files and the sums of all but memory, so
//! that an image that was cut short or changed is refused before anything is made of it. Sums find accidents, not
//! malice: an image is trusted as much as whoever may write to it. Images of runc and crun have no manifest and are
//! taken as they are.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::sys::OwnedFd;

pub const MANIFEST: &str = "deja.json";
const DRAFT: &str = ".deja.json.new";
/// What runc keeps beside CRIU's files: what the standard streams were.
const DESCRIPTORS: &str = "descriptors.json";
/// The one file of CRIU's that every complete image has.
const INVENTORY: &str = "inventory.img";
const PARENT: &str = "parent";

const VERSION: u32 = 1;
/// A manifest names some hundred files; anything beyond this is none.
const LARGEST: u64 = 16 << 20;
/// A chain of pre-dumps is not longer; the kernel itself follows no more than 40 links.
const LONGEST_CHAIN: usize = 32;

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Everything.
    #[default]
    Dump,
    /// Memory only, for a later dump to build on.
    PreDump,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Manifest {
    pub version: u32,
    pub complete: bool,
    pub kind: Kind,
    /// The container's.
    pub id: String,
    /// The deja that wrote it.
    pub deja: String,
    /// Mounts that come from outside, by name.
    pub outside: Vec<String>,
    /// Names of the standard streams that were not the container's.
    pub streams: Vec<Option<String>>,
    pub files: BTreeMap<String, Content>,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(default)]
pub struct Content {
    size: u64,
    /// Absent for memory, which is too large to be read twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
}

/// An image's directory.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub directory: OwnedFd,
    /// None: it is of another runtime, or being made.
    manifest: Option<Manifest>,
}

impl Image {
    /// A place for a new image. What was an image there is none any more.
    pub fn begin(path: &Path, id: &str, kind: Kind) -> Result<(Self, Manifest)> {
        let image = Self { path: path.to_owned(), directory: make_directory(path)?, manifest: None };
        let manifest = Manifest {
            version: VERSION,
            kind,
            id: id.to_owned(),
            deja: env!("CARGO_PKG_VERSION").to_owned(),
            ..Manifest::default()
        };
        image.write(&manifest)?;
        Ok((image, manifest))
    }

    /// Everything is there: from here on this is an image.
    pub fn complete(&self, mut manifest: Manifest) -> Result<()> {
        if manifest.kind == Kind::Dump {
            self.write_descriptors(&manifest.streams)?;
        }
        manifest.files = self.files()?;
        manifest.complete = true;
        self.write(&manifest)
    }

    /// An image that can be restored.
    pub fn open(path: &Path) -> Result<Self> {
        let image = Self::checked(path)?;
        if image.manifest.as_ref().is_some_and(|manifest| manifest.kind == Kind::PreDump) {
            bail!("{path:?} is a pre-dump, which holds memory only: restore from the dump that builds on it");
        }
        let mut parent = path.join(PARENT);
        for _ in 0..LONGEST_CHAIN {
            if std::fs::symlink_metadata(&parent).is_err() {
                return Ok(image);
            }
            Self::checked(&parent).with_context(|| format!("the image that {path:?} builds on"))?;
            parent = parent.join(PARENT);
        }
        bail!("{path:?} builds on more than {LONGEST_CHAIN} images, or on itself");
    }

    fn checked(path: &Path) -> Result<Self> {
        let directory = File::open(path).with_context(|| format!("open image {path:?}"))?;
        let mut image = Self { path: path.to_owned(), directory: directory.into(), manifest: None };
        image.manifest = image.read_manifest()?;
        match &image.manifest {
            Some(manifest) => image.verify(manifest).with_context(|| format!("image {path:?}"))?,
            None if path.join(INVENTORY).exists() => (),
            None => bail!("{path:?} holds no image: it has neither {MANIFEST} nor {INVENTORY}"),
        }
        Ok(image)
    }

    fn read_manifest(&self) -> Result<Option<Manifest>> {
        let path = self.path.join(MANIFEST);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("open {path:?}")),
        };
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).with_context(|| format!("read {path:?}"))?;
        let manifest = serde_json::from_slice(&bytes).with_context(|| format!("{path:?} is damaged"))?;
        Ok(Some(manifest))
    }

    fn verify(&self, manifest: &Manifest) -> Result<()> {
        let version = manifest.version;
        ensure!(version <= VERSION, "it is of version {version}, and this deja reads up to {VERSION}");
        ensure!(manifest.complete, "it is not complete: the checkpoint did not come to its end");
        for (name, expected) in &manifest.files {
            ensure!(is_plain(name), "the manifest names a file {name:?}");
            let found = self.content(name, expected.sum.is_some())?;
            ensure!(found.size == expected.size, "{name:?} has {} bytes, not {}", found.size, expected.size);
            ensure!(found == *expected, "{name:?} has been changed");
        }
        Ok(())
    }

    /// The names of the mounts from outside; None: nobody wrote them down.
    pub fn outside(&self) -> Option<&[String]> {
        self.manifest.as_ref().map(|manifest| manifest.outside.as_slice())
    }

    /// The names of the standard streams, from the manifest or, where there is none, as runc wrote them down.
    pub fn streams(&self) -> Result<Vec<Option<String>>> {
        if let Some(manifest) = &self.manifest {
            return Ok(manifest.streams.clone());
        }
        let path = self.path.join(DESCRIPTORS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {path:?}")),
        };
        let links: Vec<String> =
            serde_json::from_slice(&bytes).with_context(|| format!("{path:?} is damaged"))?;
        Ok(links.into_iter().take(3).map(|link| Some(link).filter(|link| link.contains("pipe:"))).collect())
    }

    fn write_descriptors(&self, streams: &[Option<String>]) -> Result<()> {
        let links: Vec<&str> = streams.iter().map(|name| name.as_deref().unwrap_or("/dev/null")).collect();
        let path = self.path.join(DESCRIPTORS);
        std::fs::write(&path, serde_json::to_vec(&links)?).with_context(|| format!("write {path:?}"))
    }

    fn write(&self, manifest: &Manifest) -> Result<()> {
        let draft = self.path.join(DRAFT);
        std::fs::write(&draft, serde_json::to_vec(manifest)?).with_context(|| format!("write {draft:?}"))?;
        let path = self.path.join(MANIFEST);
        std::fs::rename(&draft, &path).with_context(|| format!("write {path:?}"))
    }

    /// What is there now. Logs and statistics are no part of the image.
    fn files(&self) -> Result<BTreeMap<String, Content>> {
        let failed = || format!("read {:?}", self.path);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let belongs = name.ends_with(".img") || name == DESCRIPTORS;
            if belongs && entry.file_type().with_context(failed)?.is_file() {
                files.insert(name.clone(), self.content(&name, !name.starts_with("pages-"))?);
            }
        }
        ensure!(files.contains_key(INVENTORY), "criu wrote no image into {:?}", self.path);
        Ok(files)
    }

    fn content(&self, name: &str, with_sum: bool) -> Result<Content> {
        let failed = || format!("read {name:?}");
        let mut file = File::open(self.path.join(name)).with_context(failed)?;
        let size = file.metadata().with_context(failed)?.len();
        let sum = with_sum.then(|| sum(&mut file)).transpose().with_context(failed)?;
        Ok(Content { size, sum })
    }
}

fn make_directory(path: &Path) -> Result<OwnedFd> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("create image directory {path:?}"))?;
    Ok(File::open(path).with_context(|| format!("open image directory {path:?}"))?.into())
}

/// A name in the directory itself.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains('/')
}

/// FNV-1a of 64 bits.
fn sum(file: &mut File) -> std::io::Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{hash:016x}")),
            length => {
                for byte in &buffer[..length] {
                    hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: Kind) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (image, mut manifest) = Image::begin(directory.path(), "web", kind).unwrap();
        for (name, content) in [("inventory.img", "one"), ("core-1.img", "two"), ("pages-1.img", "memory")] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        std::fs::write(directory.path().join("dump.log"), "talk").unwrap();
        manifest.outside = vec!["/data".into()];
        manifest.streams = vec![None, Some("pipe:[7]".into()), None];
        image.complete(manifest).unwrap();
        directory
    }

    fn refusal(path: &Path) -> String {
        format!("{:#}", Image::open(path).unwrap_err())
    }

    #[test]
    fn what_was_completed_is_an_image() {
        let directory = made(Kind::Dump);
        let mut image = Image::open(directory.path()).unwrap();
        let manifest = image.manifest.as_ref().unwrap();
        assert_eq!((manifest.id.as_str(), manifest.outside.len()), ("web", 1));
        assert_eq!(
            manifest.files.keys().collect::<Vec<_>>(),
            ["core-1.img", "descriptors.json", "inventory.img", "pages-1.img"]
        );
        assert_eq!(image.streams().unwrap()[1].as_deref(), Some("pipe:[7]"));
        image.manifest = None;
        let streams = image.streams().unwrap();
        assert_eq!(streams, [None, Some("pipe:[7]".to_owned()), None], "as runc reads it");
    }

    #[test]
    fn what_was_not_completed_is_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(refusal(directory.path()).contains("holds no image"));
        assert!(refusal(&directory.path().join("nowhere")).contains("open image"));
        Image::begin(directory.path(), "web", Kind::Dump).unwrap();
        std::fs::write(directory.path().join("inventory.img"), "one").unwrap();
        assert!(refusal(directory.path()).contains("it is not complete"));
        let directory = made(Kind::Dump);
        Image::begin(directory.path(), "web", Kind::Dump).unwrap();
        assert!(refusal(directory.path()).contains("it is not complete"), "begun again over an old one");
    }

    #[test]
    fn what_was_changed_is_refused() {
        for (name, content, reason) in [
            ("core-1.img", Some("twO"), "\"core-1.img\" has been changed"),
            ("core-1.img", Some("tw"), "\"core-1.img\" has 2 bytes, not 3"),
            ("core-1.img", None, "read \"core-1.img\""),
            ("pages-1.img", Some("memo"), "\"pages-1.img\" has 4 bytes, not 6"),
            ("deja.json", Some("{"), "is damaged"),
            ("deja.json", Some(r#"{"version": 9}"#), "it is of version 9"),
            (
                "deja.json",
                Some(r#"{"version": 1, "complete": true, "files": {"../x": {}}}"#),
                "names a file \"../x\"",
            ),
        ] {
            let directory = made(Kind::Dump);
            let path = directory.path().join(name);
            match content {
                Some(content) => std::fs::write(path, content).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            assert!(refusal(directory.path()).contains(reason), "{name}: {}", refusal(directory.path()));
        }
    }

    #[test]
    fn a_chain_is_as_whole_as_its_parts() {
        assert!(refusal(made(Kind::PreDump).path()).contains("is a pre-dump"));
        let (child, parent) = (made(Kind::Dump), made(Kind::PreDump));
        std::os::unix::fs::symlink(parent.path(), child.path().join("parent")).unwrap();
        Image::open(child.path()).unwrap();
        std::fs::write(parent.path().join("pages-1.img"), "less").unwrap();
        assert!(refusal(child.path()).contains("builds on: image"), "{}", refusal(child.path()));
        std::fs::remove_file(child.path().join("parent")).unwrap();
        std::os::unix::fs::symlink(".", child.path().join("parent")).unwrap();
        assert!(refusal(child.path()).contains("or on itself"));
    }

    #[test]
    fn an_image_of_another_runtime_is_taken_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("inventory.img"), "one").unwrap();
        let image = Image::open(directory.path()).unwrap();
        assert!(image.outside().is_none() && image.streams().unwrap().is_empty());
    }
}
