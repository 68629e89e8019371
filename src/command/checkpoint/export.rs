//! `checkpoint --export`: an archive of the image and of what belongs to it.
//!
//! It is written while the processes stand still and before CRIU ends them, so that whatever goes wrong, the container
//! goes on. With --leave-running they stand still for the changes of the root file system only.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::image;
use crate::checkpoint::{
    CHANGES, CONFIG_DUMP, ConfigDump, DELETED, IMAGE, Mounted, NEVER, REMARKS, SPEC_DUMP,
};
use crate::cli;
use crate::container::Container;
use crate::error::{self, Failure};
use crate::log;
use crate::oci;
use crate::spec::Spec;
use crate::sys::fs::{self, CWD, FileType, Mode, OFlags};
use crate::sys::{AsFd, Errno, OwnedFd, file};
use crate::tar::{self, Compression, Compressor, Entry, Found, Packed, Writer};
use crate::time::Moment;
use crate::trial;

/// An archive in the making, beside the file it is to become.
pub struct Export {
    path: PathBuf,
    draft: PathBuf,
    /// Where the image is made, unless the caller wants to have it, too.
    pub image: Option<PathBuf>,
    form: Compression,
    writer: Option<Writer<Compressor<File>>>,
    overlay: Option<Overlay>,
    changes: Option<Changes>,
    root: RootImage,
    /// What the archive is called as an OCI image, if it is to be one.
    name: Option<String>,
}

/// What image the root file system is of, as far as anybody has said.
#[derive(Default)]
pub struct RootImage {
    pub name: String,
    pub id: String,
}

/// Where a root file system keeps what is its own.
struct Overlay {
    upper: PathBuf,
    lower: Vec<PathBuf>,
}

/// What of the layers below is not seen any more.
#[derive(Default)]
struct Gone {
    deleted: BTreeSet<String>,
    /// Directories that hide all there is below them, and those in them.
    opaque: BTreeSet<String>,
}

/// What the root file system has changed.
struct Changes {
    archive: File,
    deleted: BTreeSet<String>,
}

/// What an archive cannot hold.
pub fn check(arguments: &cli::Checkpoint) -> Result<()> {
    if arguments.export.is_none() {
        return match arguments.image_name {
            Some(_) => Err(Failure::usage("--image-name names what --export writes, and needs it").into()),
            None => Ok(()),
        };
    }
    for (given, flag) in [
        (arguments.pre_dump, "--pre-dump"),
        (arguments.parent_path.is_some(), "--parent-path"),
        (arguments.page_server.is_some(), "--page-server"),
        (arguments.lazy_pages, "--lazy-pages"),
    ] {
        if given {
            return Err(Failure::usage(format!(
                "--export does not go with {flag}: an archive holds a whole image"
            ))
            .into());
        }
    }
    Ok(())
}

pub fn begin(arguments: &cli::Checkpoint, mounted: &[Mounted], spec: &Spec<'_>) -> Result<Option<Export>> {
    let Some(path) = &arguments.export else { return Ok(None) };
    let form = match arguments.compress {
        cli::Compression::None => Compression::None,
        cli::Compression::Gzip => Compression::Gzip,
        cli::Compression::Zstd => Compression::Zstd,
    };
    let name = arguments.image_name.as_deref().map(oci::reference).transpose()?;
    let id = arguments.rootfs_image_id.clone().unwrap_or_default();
    let root = RootImage { name: rootfs_image(arguments.rootfs_image.as_ref(), spec), id };
    let mut export = Export::begin(path, form, arguments.image_path.is_none(), mounted)?;
    (export.root, export.name) = (root, name);
    Ok(Some(export))
}

/// What the caller says, or who has made the container.
fn rootfs_image(said: Option<&String>, spec: &Spec<'_>) -> String {
    const NAMES: [&str; 3] = [
        "io.kubernetes.cri-o.ImageName",
        "io.kubernetes.cri.image-name",
        "org.criu.checkpoint.rootfsImageName",
    ];
    let annotated = || NAMES.iter().find_map(|name| spec.annotations.get(name)).map(ToString::to_string);
    said.cloned().or_else(annotated).unwrap_or_default()
}

impl Export {
    /// Everything that can be refused is refused here, while the container runs.
    fn begin(path: &Path, form: Compression, own_image: bool, mounted: &[Mounted]) -> Result<Self> {
        let path = crate::container::absolute(path, std::env::current_dir)?;
        let name = path.file_name().with_context(|| format!("--export {path:?} has no name"))?;
        let beside = |ending: &str| path.with_file_name(format!(".{}.{ending}", name.to_string_lossy()));
        let draft = beside("new");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let file = file.with_context(|| format!("write {draft:?}"))?;
        let image = own_image.then(|| beside("image"));
        let export = Self {
            overlay: mounted.iter().find(|mount| mount.point == "/").and_then(Overlay::of),
            writer: Some(Writer::new(Compressor::new(file, form))),
            form,
            changes: None,
            root: RootImage::default(),
            name: None,
            path,
            draft,
            image,
        };
        // What a run that was killed has left is no part of this image.
        export.image.as_deref().map_or(Ok(()), remove)?;
        Ok(export)
    }

    /// While nothing changes any more.
    pub fn capture(&mut self) -> Result<()> {
        if let Some(overlay) = &self.overlay {
            let mut archive = anonymous(&self.draft)?;
            let deleted = overlay.pack(&mut archive).context("save the changes of the root file system")?;
            archive.rewind()?;
            self.changes = Some(Changes { archive, deleted });
        }
        Ok(())
    }

    /// Everything but what CRIU says at its end.
    pub fn write(&mut self, container: &Container, image: &Path) -> Result<()> {
        let config = container.config()?;
        let writer = self.writer.as_mut().context("the archive is complete")?;
        let what = What { container, config: &config, root: &self.root };
        write(writer, &what, image, self.changes.as_ref()).with_context(|| format!("write {:?}", self.draft))
    }

    /// From here on the archive is there, under its name; that of a container that runs again, whose image is in
    /// `running`, is written only now. If that fails, the image stays: it may be all that is left of the container.
    pub fn finish(mut self, container: &Container, running: Option<&Path>, work: &Path) -> Result<()> {
        if let Some(image) = running {
            self.write(container, image)?;
        }
        let image = self.image.take();
        let failed = || match &image {
            Some(image) => format!("write {:?}, while the image is in {image:?}", self.path),
            None => format!("write {:?}", self.path),
        };
        let writer = self.writer.take().context("the archive is complete")?;
        trial::point("complete the archive").and_then(|()| finish(writer, work)).with_context(failed)?;
        if let Some(name) = &self.name {
            let wrap = || image::wrap(&self.draft, self.form, name, container.id(), &self.root);
            trial::point("make an image of the archive").and_then(|()| wrap()).with_context(failed)?;
        }
        std::fs::rename(&self.draft, &self.path).with_context(failed)?;
        self.image = image;
        Ok(())
    }
}

pub fn remove(image: &Path) -> Result<()> {
    match std::fs::remove_dir_all(image) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {image:?}"))
        }
        _ => Ok(()),
    }
}

impl Drop for Export {
    /// An archive that is complete has its own name by now.
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.draft));
        if let Some(Err(failure)) = self.image.as_deref().map(remove) {
            log::warning(&error::sentence(&failure));
        }
    }
}

/// What an archive says about its container.
struct What<'w> {
    container: &'w Container,
    config: &'w [u8],
    root: &'w RootImage,
}

fn write(
    writer: &mut Writer<Compressor<File>>,
    what: &What<'_>,
    image: &Path,
    changes: Option<&Changes>,
) -> Result<()> {
    let What { container, config, root } = what;
    let config_dump = ConfigDump {
        id: container.id(),
        name: container.id(),
        rootfs_image: &root.name,
        rootfs_image_name: &root.name,
        rootfs_image_id: &root.id,
        runtime: "deja",
        created_time: &container.record.created,
        checkpointed_time: &Moment::now().nanoseconds(),
        restored_time: NEVER,
        restored: false,
    };
    put(writer, CONFIG_DUMP, &serde_json::to_vec(&config_dump)?)?;
    put(writer, SPEC_DUMP, config)?;
    writer.entry(&Entry::directory(IMAGE))?;
    let directory = OwnedFd::from(File::open(image)?);
    let mut only_files = |_: &[u8], found: &Found<'_>| {
        let plain = found.kind == FileType::RegularFile;
        // They come at the end, when CRIU has written them.
        let later = REMARKS.iter().any(|name| found.name.to_bytes() == name.as_bytes());
        Ok(if plain && !later { Packed::Yes(Vec::new()) } else { Packed::No })
    };
    tar::pack(directory.as_fd(), &format!("{IMAGE}/"), writer, &mut only_files)?;
    let Some(Changes { archive, deleted }) = changes else { return Ok(()) };
    writer.file(&Entry::file(CHANGES, archive.metadata()?.len()), &mut &*archive)?;
    if !deleted.is_empty() {
        put(writer, DELETED, &serde_json::to_vec(deleted)?)?;
    }
    Ok(())
}

fn finish(mut writer: Writer<Compressor<File>>, work: &Path) -> Result<()> {
    for name in REMARKS {
        if let Ok(remark) = std::fs::read(work.join(name)) {
            put(&mut writer, name, &remark)?;
        }
    }
    let file = writer.finish()?.finish()?;
    Ok(file::sync(&file)?)
}

fn put(writer: &mut Writer<impl Write>, name: &str, content: &[u8]) -> Result<()> {
    writer.file(&Entry::file(name, content.len() as u64), &mut &*content)
}

/// A file without a name, on the disk of `beside`.
fn anonymous(beside: &Path) -> Result<File> {
    let directory = CString::new(beside.parent().unwrap_or(Path::new("/")).as_os_str().as_bytes())?;
    let file = fs::openat(CWD, &directory, OFlags::RDWR | OFlags::TMPFILE, Mode::from_raw_mode(0o600));
    Ok(file.with_context(|| format!("make a file in {directory:?}"))?.into())
}

impl Overlay {
    fn of(mount: &Mounted) -> Option<Self> {
        let settings = || mount.options.split(',').filter_map(|one| one.split_once('='));
        let mut upper = settings().filter(|(key, _)| *key == "upperdir" && mount.kind == "overlay");
        let lower = settings().filter(|(key, _)| matches!(*key, "lowerdir" | "lowerdir+"));
        let lower = lower.flat_map(|(_, paths)| paths.split(':')).filter(|path| !path.is_empty());
        Some(Self { upper: upper.next()?.1.into(), lower: lower.map(PathBuf::from).collect() })
    }

    /// Packs what is new, and gives what is gone.
    fn pack(&self, archive: &mut File) -> Result<BTreeSet<String>> {
        let mut gone = Gone::default();
        let upper = OwnedFd::from(File::open(&self.upper).with_context(|| format!("open {:?}", self.upper))?);
        let mut writer = Writer::new(std::io::BufWriter::with_capacity(128 << 10, &*archive));
        tar::pack(upper.as_fd(), "", &mut writer, &mut |path, found| self.choose(path, found, &mut gone))?;
        writer.finish()?.flush()?;
        Ok(gone.deleted)
    }

    fn choose(&self, path: &[u8], found: &Found<'_>, gone: &mut Gone) -> Result<Packed> {
        const OVERLAY: &[u8] = b"trusted.overlay.";
        let path = std::str::from_utf8(path).context("a name is not valid UTF-8")?;
        if found.kind == FileType::CharacterDevice && found.stat.st_rdev == 0 {
            gone.deleted.insert(format!("/{path}"));
            return Ok(Packed::No);
        }
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let mut opaque = found.kind == FileType::Directory && gone.opaque.contains(above);
        let mut kept = Vec::new();
        for (key, value) in found.xattrs()? {
            match key.strip_prefix(OVERLAY) {
                Some(b"opaque") => opaque |= value == b"y",
                Some(b"metacopy" | b"redirect") => {
                    bail!("{path:?}: overlays with metacopy or redirect_dir are not implemented")
                }
                Some(_) => (),
                // A label is of the machine's policy.
                None if key == b"security.selinux" => (),
                None => kept.push((key, value)),
            }
        }
        if opaque {
            self.hidden(path, found, &mut gone.deleted)?;
            gone.opaque.insert(path.to_owned());
        }
        Ok(Packed::Yes(kept))
    }

    /// What is below a directory that hides it.
    fn hidden(&self, path: &str, found: &Found<'_>, deleted: &mut BTreeSet<String>) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let own = fs::openat(found.directory, found.name, flags, Mode::empty())?;
        let mut names = BTreeSet::new();
        fs::entries(&own, |name, _| {
            names.insert(name.to_owned());
        })?;
        for layer in &self.lower {
            let below = CString::new(layer.join(path).as_os_str().as_bytes())?;
            let below = match fs::openat(CWD, &below, flags, Mode::empty()) {
                Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.with_context(|| format!("open {below:?}"))?,
            };
            fs::entries(&below, |name, _| {
                if !names.contains(name) {
                    deleted.insert(format!("/{path}/{}", name.to_string_lossy()));
                }
            })?;
        }
        Ok(())
    }
}
