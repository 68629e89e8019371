//! A state as an image layout, which is also what `docker load` reads: the same blobs under two tables of contents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    CONFIG, Config, Descriptor, Hashing, INDEX, Index, LABEL, LAYER, Layers, MANIFEST, Manifest, Origin,
    Platform, REFERENCE, Saved, Settings, architecture, pack,
};
use crate::session::layer;
use crate::session::state::State;
use crate::session::store::Store;

/// Writes the layout of an image of `state`, called `reference`, into the directory `to`, which is there and empty.
/// Layers are not compressed: an engine compresses what it pushes.
pub fn write(store: &Store, state: &State, to: &Path, reference: &str) -> Result<()> {
    let blobs = Blobs { root: to };
    fs::create_dir_all(to.join("blobs/sha256")).with_context(|| format!("create {to:?}"))?;
    let mut layers = Vec::new();
    for id in &state.layers {
        let tree = layer::open_directory(&store.layer(id))?;
        layers.push(blobs.layer(&tree).with_context(|| format!("layer {}", id.short()))?);
    }
    let contents = layers.iter().map(|layer: &Descriptor| layer.digest.clone()).collect();
    let config = blobs.json(CONFIG, &config(state, contents)?)?;
    let platform = Platform { architecture: architecture().to_owned(), os: "linux".to_owned() };
    let saved = Saved {
        config: path(&config.digest),
        repo_tags: Some(vec![reference.to_owned()]),
        layers: layers.iter().map(|layer| path(&layer.digest)).collect(),
    };
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers };
    let mut manifest = blobs.json(MANIFEST, &manifest)?;
    manifest.platform = Some(platform);
    manifest.annotations.insert(REFERENCE.to_owned(), reference.to_owned());
    let index = Index { schema_version: 2, media_type: INDEX.to_owned(), manifests: vec![manifest] };
    let put = |name: &str, bytes: Vec<u8>| {
        let path = to.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {path:?}"))
    };
    put("index.json", serde_json::to_vec(&index)?)?;
    put("manifest.json", serde_json::to_vec(&[saved])?)?;
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())
}

fn config(state: &State, contents: Vec<String>) -> Result<Config> {
    let context = &state.context;
    let origin = Origin { umask: context.umask, clock: state.clock };
    let origin = serde_json::to_string(&origin).context("write the image's label")?;
    let settings = Settings {
        env: Some(context.environment.clone()),
        cmd: Some(vec!["/bin/sh".to_owned()]),
        working_dir: Some(context.cwd.clone()),
        labels: Some(BTreeMap::from([(LABEL.to_owned(), origin)])),
    };
    Ok(Config {
        architecture: architecture().to_owned(),
        os: "linux".to_owned(),
        config: settings,
        rootfs: Layers { kind: "layers".to_owned(), diff_ids: contents },
    })
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

struct Blobs<'b> {
    root: &'b Path,
}

impl Blobs<'_> {
    fn layer(&self, tree: &crate::sys::OwnedFd) -> Result<Descriptor> {
        let draft = self.root.join("blobs/draft");
        let file = File::create(&draft).with_context(|| format!("create {draft:?}"))?;
        let file = std::io::BufWriter::with_capacity(256 << 10, file);
        let mut written = pack(tree, Hashing::new(file))?;
        written.flush().with_context(|| format!("write {draft:?}"))?;
        self.keep(&draft, LAYER, written.digest(), written.length)
    }

    fn json(&self, media_type: &str, value: &impl Serialize) -> Result<Descriptor> {
        let draft = self.root.join("blobs/draft");
        let file = File::create(&draft).with_context(|| format!("create {draft:?}"))?;
        let mut written = Hashing::new(file);
        written.write_all(&serde_json::to_vec(value)?).with_context(|| format!("write {draft:?}"))?;
        self.keep(&draft, media_type, written.digest(), written.length)
    }

    fn keep(&self, draft: &Path, media_type: &str, digest: String, size: u64) -> Result<Descriptor> {
        let name = self.root.join(path(&digest));
        fs::rename(draft, &name).with_context(|| format!("write {name:?}"))?;
        let media_type = media_type.to_owned();
        Ok(Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() })
    }
}
