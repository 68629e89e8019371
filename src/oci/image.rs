//! What an engine has saved: an image layout, or what `docker save` writes. Nothing of it is believed that its digests
//! do not prove.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use super::{Config, Descriptor, Hashing, INDEX, Index, Manifest, REFERENCE, Saved, architecture};
use crate::tar::{Kind, Reader};

/// Where the small files of an image are found by their path.
pub trait Files {
    /// None: there is none of this name.
    fn small(&self, path: &str) -> Result<Option<Vec<u8>>>;
}

/// Whether an archive with such an entry is a layout, whose entries come in any order.
pub fn is_of_layout(name: &[u8]) -> bool {
    matches!(name, b"oci-layout" | b"index.json" | b"manifest.json" | b"blobs") || name.starts_with(b"blobs/")
}

/// No index, manifest or config is larger.
pub const LARGEST: u64 = 4 << 20;

/// The small files of an archive, which say what is in it.
pub struct Small(BTreeMap<String, Vec<u8>>);

impl Small {
    pub fn of(mut reader: Reader<impl Read>) -> Result<Self> {
        let mut found = BTreeMap::new();
        while let Some(entry) = reader.next_entry()? {
            let Ok(name) = String::from_utf8(entry.name) else { continue };
            let top = !name.contains('/') && (name.ends_with(".json") || name == "oci-layout");
            if entry.kind == Kind::File && entry.size <= LARGEST && (top || name.starts_with("blobs/sha256/"))
            {
                let mut bytes = Vec::new();
                (&mut reader).take(entry.size).read_to_end(&mut bytes)?;
                // A layer that happens to be small is read when its turn comes.
                if top || bytes.first() == Some(&b'{') {
                    found.insert(name, bytes);
                }
            }
        }
        Ok(Self(found))
    }
}

impl Files for Small {
    fn small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }
}

/// An image that was found; its layers are still to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Of its config, which names all layers by digest: the same for the same image.
    pub digest: String,
    pub config: Config,
    pub layers: Vec<Blob>,
}

/// A layer in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Blob {
    pub path: String,
    /// Of the file, where it is known.
    pub digest: Option<String>,
    /// Of the archive in it.
    pub content: String,
}

/// The image that `reference` names, or the only one for this machine.
pub fn find(files: &dyn Files, reference: Option<&str>) -> Result<Image> {
    if let Some(index) = files.small("index.json")? {
        let index: Index = serde_json::from_slice(&index).context("read index.json")?;
        return in_index(files, index, reference);
    }
    let Some(saved) = files.small("manifest.json")? else {
        bail!("it is no image: it has neither index.json nor manifest.json");
    };
    let saved: Vec<Saved> = serde_json::from_slice(&saved).context("read manifest.json")?;
    let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    let fits = |saved: &&Saved| reference.is_none_or(|name| tags(saved).iter().any(|tag| tag == name));
    let found: Vec<&Saved> = saved.iter().filter(fits).collect();
    let one = only(&found, reference, || saved.iter().flat_map(tags).collect())?;
    let bytes = files.small(&one.config)?.with_context(|| format!("{:?} is missing", one.config))?;
    let layers = one.layers.iter().map(|path| (path.clone(), None)).collect();
    image(&bytes, layers)
}

fn only<'f, T>(found: &[&'f T], reference: Option<&str>, names: impl Fn() -> Vec<String>) -> Result<&'f T> {
    match (found, reference) {
        ([one], _) => Ok(one),
        ([], Some(name)) => bail!("it holds no image {name:?}, but {}", names().join(", ")),
        ([], None) => bail!("it holds no image for {}", architecture()),
        (_, _) => bail!("it holds several images, of which --ref names one: {}", names().join(", ")),
    }
}

/// An index may lead to another, for the platforms of one image.
const DEEPEST: usize = 4;

fn in_index(files: &dyn Files, mut index: Index, reference: Option<&str>) -> Result<Image> {
    let name = |one: &Descriptor| one.annotations.get(REFERENCE).cloned();
    let mut wanted = reference;
    for _ in 0..DEEPEST {
        let named = |one: &&Descriptor| wanted.is_none_or(|wanted| name(one).as_deref() == Some(wanted));
        let ours = |one: &&Descriptor| {
            let platform = one.platform.as_ref();
            platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
        };
        let found: Vec<&Descriptor> = index.manifests.iter().filter(named).filter(ours).collect();
        let one = only(&found, wanted, || index.manifests.iter().filter_map(name).collect())?.clone();
        let bytes = blob(files, &one.digest)?;
        let is_index = one.media_type == INDEX || one.media_type.contains("manifest.list");
        if !is_index {
            let manifest: Manifest = serde_json::from_slice(&bytes).context("read the image's manifest")?;
            let config = blob(files, &manifest.config.digest)?;
            let layers = manifest.layers.iter();
            let layers = layers.map(|layer| Ok((path(&layer.digest)?, Some(layer.digest.clone()))));
            return image(&config, layers.collect::<Result<_>>()?);
        }
        index = serde_json::from_slice(&bytes).context("read an image index")?;
        wanted = None;
    }
    bail!("its indexes lead to indexes without end")
}

fn image(config: &[u8], layers: Vec<(String, Option<String>)>) -> Result<Image> {
    let digest = sum(config)?;
    let config: Config = serde_json::from_slice(config).context("read the image's config")?;
    let contents = &config.rootfs.diff_ids;
    ensure!(
        contents.len() == layers.len(),
        "its config names {} layers, its manifest {}",
        contents.len(),
        layers.len()
    );
    ensure!(!layers.is_empty(), "it has no layers");
    ensure!(
        config.architecture.is_empty() || config.architecture == architecture(),
        "it is for {}, and this machine is {}",
        config.architecture,
        architecture()
    );
    let blobs = layers.into_iter().zip(contents);
    let blobs = blobs.map(|((path, digest), content)| Blob { path, digest, content: content.clone() });
    Ok(Image { digest, layers: blobs.collect(), config })
}

fn sum(bytes: &[u8]) -> Result<String> {
    let mut hashing = Hashing::new(bytes);
    std::io::copy(&mut hashing, &mut std::io::sink())?;
    Ok(hashing.digest())
}

/// Where a layout keeps a blob; a digest is no path before it was looked at.
fn path(digest: &str) -> Result<String> {
    let digits = digest.strip_prefix("sha256:").filter(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    let digits = digits.with_context(|| format!("{digest:?} is no sha256 digest"))?;
    Ok(format!("blobs/sha256/{digits}"))
}

fn blob(files: &dyn Files, digest: &str) -> Result<Vec<u8>> {
    let path = path(digest)?;
    let bytes = files.small(&path)?.with_context(|| format!("{path:?} is missing"))?;
    let found = sum(&bytes)?;
    ensure!(found == digest, "{path:?} is damaged: its content is {found}");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[derive(Default)]
    struct Memory(BTreeMap<String, Vec<u8>>);

    impl Files for Memory {
        fn small(&self, path: &str) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(path).cloned())
        }
    }

    impl Memory {
        fn blob(&mut self, value: &Value) -> String {
            let bytes = value.to_string().into_bytes();
            let digest = sum(&bytes).unwrap();
            self.0.insert(path(&digest).unwrap(), bytes);
            digest
        }

        /// An image of one layer, by its manifest's digest.
        fn image(&mut self, architecture: &str) -> String {
            let layer = format!("sha256:{}", "1".repeat(64));
            let config = json!({"architecture": architecture, "os": "linux", "config": {"Env": null},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:content"]}});
            let config = self.blob(&config);
            self.blob(
                &json!({"schemaVersion": 2, "config": {"digest": config}, "layers": [{"digest": layer}]}),
            )
        }

        fn index(&mut self, manifests: Value) {
            let index = json!({"schemaVersion": 2, "manifests": manifests});
            self.0.insert("index.json".to_owned(), index.to_string().into_bytes());
        }
    }

    #[test]
    fn the_image_that_was_named_or_fits_is_found() {
        let mut files = Memory::default();
        let (ours, other) = (files.image(architecture()), files.image("sparc"));
        let platform = |name: &str| json!({"os": "linux", "architecture": name});
        let nested = files.blob(&json!({"schemaVersion": 2, "manifests": [
            {"digest": other, "platform": platform("sparc")},
            {"digest": ours, "platform": platform(architecture())},
            {"digest": other, "platform": platform("unknown")}]}));
        files.index(json!([{"digest": nested, "mediaType": INDEX}]));
        let found = find(&files, None).unwrap();
        assert_eq!(found.layers[0].content, "sha256:content");
        assert_eq!(found.layers[0].path, format!("blobs/sha256/{}", "1".repeat(64)));

        let named = |digest: &str, name: &str| json!({"digest": digest, "annotations": {REFERENCE: name}});
        files.index(json!([named(&ours, "a:1"), named(&other, "b:2")]));
        assert_eq!(find(&files, Some("a:1")).unwrap(), found);
        let told = |reference| find(&files, reference).unwrap_err().to_string();
        assert!(told(None).ends_with("a:1, b:2"), "{}", told(None));
        assert!(told(Some("c")).contains("no image \"c\""));
        assert!(told(Some("b:2")).contains("it is for sparc"));
    }

    #[test]
    fn what_docker_saves_is_an_image_too() {
        let mut files = Memory::default();
        let config = json!({"rootfs": {"type": "layers", "diff_ids": ["x", "y"]}});
        files.0.insert("c.json".to_owned(), config.to_string().into_bytes());
        let saved =
            json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
        files.0.insert("manifest.json".to_owned(), saved.to_string().into_bytes());
        let found = find(&files, Some("a:1")).unwrap();
        assert_eq!(
            found.layers[1],
            Blob { path: "2/layer.tar".to_owned(), digest: None, content: "y".to_owned() }
        );
    }

    #[test]
    fn what_is_not_what_its_name_says_is_refused() {
        let mut files = Memory::default();
        let digest = files.image(architecture());
        files.index(json!([{"digest": digest}]));
        let path = path(&digest).unwrap();
        files.0.get_mut(&path).unwrap().push(b' ');
        assert!(find(&files, None).unwrap_err().to_string().contains("is damaged"));
        files.index(json!([{"digest": "sha256:../../../etc/passwd"}]));
        assert!(find(&files, None).unwrap_err().to_string().contains("is no sha256 digest"));
        assert!(find(&Memory::default(), None).unwrap_err().to_string().contains("is no image"));
    }
}
