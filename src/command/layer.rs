//! A writable layer of a container's own over a root file system that stays as it is. It is mounted nowhere on the
//! host: the mount belongs to the container and goes with it, and the files go with its record.

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::scratch::Scratch;
use crate::checkpoint::{self, CHANGES, DELETED, LONGEST_LIST};
use crate::sys::fs::{self, AtFlags, CWD, Mode, OFlags};
use crate::sys::{AsFd, BorrowedFd, Errno, OwnedFd, file, mount};
use crate::tar::{self, Attributes, Reader, Unpacker};

/// The directory of a record that holds the layer.
const DIRECTORY: &str = "layer";

/// A detached mount.
pub struct Layer(OwnedFd);

impl Layer {
    /// Shows `rootfs` with room for changes below `home`.
    pub fn make(home: &Path, rootfs: &str) -> Result<Self> {
        let directory = home.join(DIRECTORY);
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        for path in [&directory, &upper, &work] {
            std::fs::create_dir(path).with_context(|| format!("create {path:?}"))?;
        }
        let lower = c_path(Path::new(rootfs))?;
        // The root of an overlay is what its topmost directory is.
        let root =
            fs::statat(CWD, &lower, AtFlags::empty()).with_context(|| format!("look at {rootfs:?}"))?;
        let c_upper = c_path(&upper)?;
        fs::chownat(CWD, &c_upper, root.st_uid, Some(root.st_gid), AtFlags::empty())?;
        fs::chmodat(CWD, &c_upper, Mode::from_raw_mode(root.st_mode & 0o7777))?;
        let made =
            Self::mount(&[(c"lowerdir", &lower), (c"upperdir", &c_upper), (c"workdir", &c_path(&work)?)]);
        made.with_context(|| format!("mount a layer of its own over {rootfs:?}")).map(Self)
    }

    fn mount(settings: &[(&CStr, &CString)]) -> Result<OwnedFd> {
        for (_, path) in settings {
            let bytes = path.to_bytes();
            let separator = bytes.iter().find(|byte| b":,\\".contains(byte));
            ensure!(separator.is_none(), "overlayfs takes a character in {path:?} for a separator");
        }
        let context = match mount::fsopen(c"overlay") {
            Err(fault) if fault.errno == Errno::NODEV => bail!("the kernel has no overlayfs"),
            result => result?,
        };
        for (key, path) in settings {
            mount::fsconfig_string(&context, key, path)?;
        }
        match mount::fsconfig_create(&context) {
            Err(fault) if fault.errno == Errno::INVAL => {
                bail!(
                    "{fault}: the file system of --root may be none that overlayfs can write to (an overlay is none)"
                )
            }
            result => result?,
        }
        Ok(mount::fsmount(&context, 0)?)
    }

    pub fn mounted(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes the changes that came with an imported checkpoint.
    pub fn change(&self, scratch: &Scratch) -> Result<()> {
        let root = fs::openat(&self.0, c".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        if let Some(changes) = open(scratch, CHANGES)? {
            let (bytes, entries) = file::room(&root)?;
            let limits = tar::Limits {
                entries: entries.min(checkpoint::limits(bytes).entries),
                ..checkpoint::limits(bytes)
            };
            apply(changes, limits, root.as_fd()).with_context(|| format!("bring back {CHANGES}"))?;
        }
        if let Some(list) = open(scratch, DELETED)? {
            let mut bytes = Vec::new();
            list.take(LONGEST_LIST).read_to_end(&mut bytes)?;
            for name in checkpoint::deleted(&bytes)? {
                tar::remove(root.as_fd(), name.as_bytes())
                    .with_context(|| format!("delete {name:?} again"))?;
            }
        }
        Ok(())
    }
}

fn apply(changes: std::fs::File, limits: tar::Limits, root: BorrowedFd<'_>) -> Result<()> {
    let mut reader = Reader::new(tar::decompress(changes)?, limits);
    let mut unpacker = Unpacker::new(root, Attributes::All);
    while let Some(entry) = reader.next_entry()? {
        unpacker.put(&entry, &mut reader)?;
    }
    unpacker.finish()
}

fn open(scratch: &Scratch, name: &str) -> Result<Option<std::fs::File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
    match fs::openat(scratch.directory(), &CString::new(name)?, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(fault) if fault.errno == Errno::NOENT => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(PathBuf::from(path).as_os_str().as_bytes()).with_context(|| format!("{path:?}"))
}
