//! What a container has from outside: bind mounts, standard streams, namespaces given by path. For the two verbs
//! that take a container apart and put it together again.

use std::ffi::CString;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::checkpoint::{Bind, Intended};
use crate::launch::namespaces::Namespaces;
use crate::launch::rootfs;
use crate::spec::{Linux, Mount, Spec};
use crate::sys::clone::namespace;
use crate::sys::{AsFd, BorrowedFd, OwnedFd, borrow, fs};

/// What the config says about the mounts; `place` finds where a destination lies inside the root.
fn intended(
    spec: &Spec<'_>,
    linux: &Linux<'_>,
    bundle: &str,
    place: &mut dyn FnMut(&Mount<'_>, Option<&str>) -> Result<String>,
) -> Result<Intended> {
    let namespaces = Namespaces::plan(linux, true)?;
    // A restored cgroup namespace is not of the container's user namespace, whose root may not mount it.
    let own_cgroups = namespaces.is_new(namespace::CGROUP) && namespaces.all() & namespace::USER == 0;
    let mut intended = Intended { own_cgroups, ..Intended::default() };
    for mount in &spec.mounts {
        let recursive = rootfs::binds(mount, linux)?;
        let source = recursive.map(|_| followed(rootfs::on_host(&mount.source, bundle)));
        let destination = place(mount, source.as_deref())
            .with_context(|| format!("mounts: {:?}", mount.destination.as_str()))?;
        match (recursive, source) {
            (Some(recursive), Some(source)) => intended.binds.push(Bind { destination, source, recursive }),
            _ => intended.made.push(destination),
        }
    }
    Ok(intended)
}

/// A bind mount shows what a link leads to; CRIU takes the link itself for the source, and for a file. One that leads
/// nowhere is left for CRIU to complain about.
fn followed(source: String) -> String {
    let real = std::fs::canonicalize(&source).ok().and_then(|path| path.into_os_string().into_string().ok());
    real.unwrap_or(source)
}

fn written(path: &str) -> String {
    format!("/{}", rootfs::clean(path))
}

/// As the mounts lie in the running container `pid`.
pub fn intended_inside(spec: &Spec<'_>, linux: &Linux<'_>, bundle: &str, pid: i32) -> Result<Intended> {
    let root = open(&format!("/proc/{pid}/root"), fs::OFlags::PATH | fs::OFlags::DIRECTORY)?;
    let place = |path: &str| {
        let c_path = CString::new(path)?;
        match fs::openat2(&root, &c_path, fs::OFlags::PATH, fs::Mode::empty(), fs::IN_ROOT) {
            Ok(found) => text(fs::path_of(found.as_fd())?),
            // Unmounted and removed by the container itself, or never there.
            Err(_) => Ok(written(path)),
        }
    };
    let mut intended = intended(spec, linux, bundle, &mut |mount, _| place(&mount.destination))?;
    intended.masked = linux.masked_paths.iter().map(|path| place(path)).collect::<Result<_>>()?;
    Ok(intended)
}

/// As the mounts will lie in `root`, where the places that CRIU mounts on are made if they are missing.
pub fn intended_below(spec: &Spec<'_>, linux: &Linux<'_>, bundle: &str, root: &str) -> Result<Intended> {
    let directory = open(root, fs::OFlags::PATH | fs::OFlags::DIRECTORY)?;
    let mut earlier: Vec<Below> = Vec::new();
    let mut intended = intended(spec, linux, bundle, &mut |mount, source| {
        let clean = written(&mount.destination);
        let place = match earlier.iter().rev().find(|below| below.holds(&clean)) {
            // CRIU brings back what was in it.
            Some(Below { source: None, .. }) => clean,
            Some(Below { destination, source: Some(above) }) => {
                let base = open(above, fs::OFlags::PATH)?;
                let inner = make(base.as_fd(), &clean[destination.len()..], source, above)?;
                format!("{destination}{inner}")
            }
            None => make(directory.as_fd(), &clean, source, root)?,
        };
        earlier.push(Below { destination: place.clone(), source: source.map(str::to_owned) });
        Ok(place)
    })?;
    // Only crun's images name them, and as they are written.
    intended.masked = linux.masked_paths.iter().map(|path| written(path)).collect();
    Ok(intended)
}

/// A mount that others may lie on. A part of the host has a source, a file system made for the container has none.
struct Below {
    destination: String,
    source: Option<String>,
}

impl Below {
    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(self.destination.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// Makes `path` below `base`, which lies at `above` on the host, a file where `source` is one; gives it without links.
fn make(base: BorrowedFd<'_>, path: &str, source: Option<&str>, above: &str) -> Result<String> {
    let file = source.is_some_and(|source| !Path::new(source).is_dir());
    let kind = if file { rootfs::Kind::File } else { rootfs::Kind::Directory };
    let relative = CString::new(path.trim_start_matches('/'))?;
    let made = rootfs::make(base, &relative, kind, true)
        .map_err(|fault| anyhow!("make the mount point {path:?} in {above:?}: {fault}"))?;
    let whole = text(fs::path_of(made.as_fd())?)?;
    let above = text(fs::path_of(base)?)?;
    let inner = whole.strip_prefix(above.as_str()).unwrap_or(path);
    Ok(if inner.starts_with('/') { inner.to_owned() } else { format!("/{inner}") })
}

fn open(path: &str, flags: fs::OFlags) -> Result<OwnedFd> {
    let c_path = CString::new(path)?;
    fs::openat(fs::CWD, &c_path, flags, fs::Mode::empty()).map_err(|fault| anyhow!("open {path:?}: {fault}"))
}

fn text(path: Vec<u8>) -> Result<String> {
    String::from_utf8(path).map_err(|error| anyhow!("a path is not valid UTF-8: {error}"))
}

/// What CRIU will call the standard streams of this process, which become those of a container: pipes and files that
/// are not the container's. None: of another kind, or closed.
pub fn streams() -> Vec<Option<String>> {
    (0..3).map(|number| stream(fs::identity(borrow(number)).ok()?)).collect()
}

/// CRIU knows files by name: where input and output were one file, one descriptor becomes both. It is that of the
/// output, because what is written counts; of a null device it is one that can be read as well.
pub fn unite_streams(names: &[Option<String>]) -> Result<()> {
    let [Some(input), rest @ ..] = names else { return Ok(()) };
    let Some(place) = rest.iter().position(|name| name.as_ref() == Some(input)) else { return Ok(()) };
    let output = borrow(place as i32 + 1);
    let identity = fs::identity(output).context("look at the standard output")?;
    if identity.kind == fs::FileType::CharacterDevice && identity.device == NULL {
        let both = open("/dev/null", fs::OFlags::RDWR)?;
        return fs::dup_inheritable(both.as_fd(), 0).context("the standard input");
    }
    fs::dup_inheritable(output, 0).context("the standard input")
}

fn stream(identity: fs::Identity) -> Option<String> {
    let fs::Identity { kind, inode, device, mount } = identity;
    match kind {
        fs::FileType::Fifo => Some(format!("pipe:[{inode}]")),
        fs::FileType::RegularFile => Some(format!("file[{mount:x}:{inode:x}]")),
        fs::FileType::CharacterDevice if device == NULL => Some(format!("file[{mount:x}:{inode:x}]")),
        _ => None,
    }
}

const NULL: (u32, u32) = (1, 3);

/// The name under /proc/PID/ns of a kind of namespace.
pub fn namespace_name(kind: u64) -> &'static str {
    crate::launch::namespaces::KINDS.iter().find(|entry| entry.1 == kind).map_or("", |entry| entry.2)
}

/// The inode of a namespace of a process, which is its identity.
pub fn namespace_inode(pid: &str, kind: u64) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{}", namespace_name(kind));
    let stat = fs::statat(fs::CWD, &CString::new(path.as_str())?, fs::AtFlags::empty());
    Ok(stat.with_context(|| format!("look at {path:?}"))?.st_ino)
}
