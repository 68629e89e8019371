//! `checkpoint --image-name`: the archive as the only layer of an OCI image, which registries keep and engines load.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::export::RootImage;
use crate::checkpoint::{self, About};
use crate::oci::{self, Contents, Layout};
use crate::sys::{file, probe};
use crate::tar::Compression;

/// Beside the archive, and gone at the end.
struct Place(PathBuf);

impl Place {
    fn make(path: PathBuf) -> Result<Self> {
        // What a run that was killed has left.
        super::export::remove(&path)?;
        std::fs::create_dir(&path).with_context(|| format!("create {path:?}"))?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The next one does.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Replaces the archive by an image of it.
pub fn wrap(archive: &Path, form: Compression, name: &str, container: &str, root: &RootImage) -> Result<()> {
    let place = Place::make(archive.with_extension("layout"))?;
    let mut layout = Layout::begin(&place.0)?;
    layout.adopt(archive, form)?;
    let annotations = annotations(container, root);
    layout.finish(Contents { reference: name, annotations, ..Contents::default() })?;
    let mut to = File::create(archive).with_context(|| format!("write {archive:?}"))?;
    oci::pack(&place.0, &mut to)?;
    Ok(file::sync(&to)?)
}

fn annotations(container: &str, root: &RootImage) -> BTreeMap<String, String> {
    checkpoint::annotations(&About {
        container,
        rootfs_image: &root.name,
        rootfs_image_id: &root.id,
        version: env!("CARGO_PKG_VERSION"),
        architecture: oci::architecture(),
        kernel: &probe::kernel_release(),
    })
}
