//! An image layout in a directory, which is also what `docker load` reads: the same blobs under two tables of contents.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{
    CONFIG, Config, Descriptor, Hashing, INDEX, Index, LAYER, Layers, MANIFEST, Manifest, Platform,
    REFERENCE, Saved, Settings, architecture,
};
use crate::sys::{AsFd, OwnedFd};
use crate::tar::{self, Packed};

/// A layout in the making.
pub struct Layout<'l> {
    root: &'l Path,
    layers: Vec<Descriptor>,
    /// Of the archives in the layers.
    contents: Vec<String>,
}

/// What an image has besides layers.
#[derive(Default)]
pub struct Contents<'c> {
    pub reference: &'c str,
    pub settings: Settings,
    pub annotations: BTreeMap<String, String>,
}

impl<'l> Layout<'l> {
    /// In a directory that is there and empty.
    pub fn begin(root: &'l Path) -> Result<Self> {
        fs::create_dir_all(root.join("blobs/sha256")).with_context(|| format!("create {root:?}"))?;
        Ok(Self { root, layers: Vec::new(), contents: Vec::new() })
    }

    /// A layer that is not compressed: an engine compresses what it pushes.
    pub fn layer(&mut self, write: impl FnOnce(Hashed) -> Result<Hashed>) -> Result<()> {
        let draft = self.root.join("blobs/draft");
        let file = File::create(&draft).with_context(|| format!("create {draft:?}"))?;
        let mut written = write(Hashing::new(BufWriter::with_capacity(256 << 10, file)))?;
        written.flush().with_context(|| format!("write {draft:?}"))?;
        let layer = self.keep(&draft, LAYER, written.digest(), written.length)?;
        self.contents.push(layer.digest.clone());
        self.layers.push(layer);
        Ok(())
    }

    /// A layer that is a file already, on the same file system, and is moved; `form` is how its content is compressed.
    pub fn adopt(&mut self, archive: &Path, form: tar::Compression) -> Result<()> {
        let (digest, length, content) = sums(archive).with_context(|| format!("read {archive:?}"))?;
        let media_type = match form {
            tar::Compression::None => LAYER.to_owned(),
            tar::Compression::Gzip => format!("{LAYER}+gzip"),
            tar::Compression::Zstd => format!("{LAYER}+zstd"),
        };
        let layer = self.keep(archive, &media_type, digest, length)?;
        self.contents.push(content);
        self.layers.push(layer);
        Ok(())
    }

    pub fn finish(self, contents: Contents) -> Result<()> {
        let Contents { reference, settings, annotations } = contents;
        let config = Config {
            architecture: architecture().to_owned(),
            os: "linux".to_owned(),
            config: settings,
            rootfs: Layers { kind: "layers".to_owned(), diff_ids: self.contents.clone() },
        };
        let config = self.json(CONFIG, &config)?;
        let saved = Saved {
            config: path(&config.digest),
            repo_tags: Some(vec![reference.to_owned()]),
            layers: self.layers.iter().map(|layer| path(&layer.digest)).collect(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config,
            layers: self.layers.clone(),
            annotations: annotations.clone(),
        };
        let mut manifest = self.json(MANIFEST, &manifest)?;
        manifest.platform =
            Some(Platform { architecture: architecture().to_owned(), os: "linux".to_owned() });
        // Some look for what an image is about in its manifest, others in the index.
        manifest.annotations = annotations;
        manifest.annotations.insert(REFERENCE.to_owned(), reference.to_owned());
        let index = Index { schema_version: 2, media_type: INDEX.to_owned(), manifests: vec![manifest] };
        let put = |name: &str, bytes: Vec<u8>| {
            let path = self.root.join(name);
            fs::write(&path, bytes).with_context(|| format!("write {path:?}"))
        };
        put("index.json", serde_json::to_vec(&index)?)?;
        put("manifest.json", serde_json::to_vec(&[saved])?)?;
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())
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

/// What a layer is written to.
pub type Hashed = Hashing<BufWriter<File>>;

/// The digest and the length of a file, and the digest of the archive in it.
fn sums(archive: &Path) -> Result<(String, u64, String)> {
    let mut file = Hashing::new(File::open(archive)?);
    let mut content = Hashing::new(tar::decompress(&mut file)?);
    io::copy(&mut content, &mut io::sink())?;
    let digest = content.digest();
    drop(content);
    io::copy(&mut file, &mut io::sink())?;
    Ok((file.digest(), file.length, digest))
}

/// Writes a layout that is complete as an archive.
pub fn pack(root: &Path, to: impl Write) -> Result<()> {
    let root = OwnedFd::from(File::open(root).with_context(|| format!("open {root:?}"))?);
    let mut writer = tar::Writer::new(BufWriter::with_capacity(256 << 10, to));
    tar::pack(root.as_fd(), "", &mut writer, &mut |_, _| Ok(Packed::Yes(Vec::new())))?;
    Ok(writer.finish()?.flush()?)
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::{Files, Small, find};
    use super::*;

    #[test]
    fn what_was_written_is_found_again() {
        for form in [tar::Compression::None, tar::Compression::Gzip, tar::Compression::Zstd] {
            let place = tempfile::tempdir().unwrap();
            let (root, archive) = (place.path().join("image"), place.path().join("archive"));
            let mut to = tar::Compressor::new(File::create(&archive).unwrap(), form);
            to.write_all(b"a layer").unwrap();
            to.finish().unwrap();
            fs::create_dir(&root).unwrap();
            let mut layout = Layout::begin(&root).unwrap();
            layout.adopt(&archive, form).unwrap();
            layout
                .layer(|mut to| {
                    to.write_all(b"another")?;
                    Ok(to)
                })
                .unwrap();
            let annotations = BTreeMap::from([("about".to_owned(), "it".to_owned())]);
            let contents = Contents { reference: "web:1", annotations, ..Contents::default() };
            layout.finish(contents).unwrap();

            let mut all = Vec::new();
            pack(&root, &mut all).unwrap();
            let small = Small::of(tar::Reader::new(&*all, tar::Limits::default())).unwrap();
            let image = find(&small, Some("web:1")).unwrap();
            assert_eq!(image.layers.len(), 2);
            for (blob, text) in image.layers.iter().zip(["a layer", "another"]) {
                let bytes = fs::read(root.join(&blob.path)).unwrap();
                Hashing::new(&*bytes).check(blob.digest.as_ref().unwrap()).unwrap();
                let mut content = String::new();
                tar::decompress(&*bytes).unwrap().read_to_string(&mut content).unwrap();
                assert_eq!(content, text);
                Hashing::new(content.as_bytes()).check(&blob.content).unwrap();
            }
            assert!(small.small("oci-layout").unwrap().is_some());
            assert!(find(&small, Some("web:2")).is_err());
        }
    }
}
