//! `checkpoint`: a container's processes to disk.
//!
//! The image is complete, and says so, before CRIU ends the first process: at any point the container runs, or is
//! an image, or both.

mod check;
mod export;
mod frozen;
mod image;
pub mod label;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::export::Export;
use self::frozen::Frozen;
use super::outside;
use crate::checkpoint::{
    self, Answer, Asked, CgroupMode, DUMP_LOG, Dump, Image, Kind, Manifest, Notice, PageServer, Setting, Work,
};
use crate::cli::{self, CgroupsMode, Global, Level};
use crate::container::{self, Action, Container, require};
use crate::error::Failure;
use crate::launch::namespaces::{Namespaces, bit};
use crate::spec::{self, NamespaceKind, Spec};
use crate::sys::clone::namespace;
use crate::sys::{AsRawFd, OwnedFd, fs, process};
use crate::trial;

pub fn run(global: &Global, arguments: &cli::Checkpoint) -> Result<i32> {
    if arguments.check {
        return check::run(global, arguments);
    }
    save(global, arguments).map(|()| 0)
}

fn save(global: &Global, arguments: &cli::Checkpoint) -> Result<()> {
    let mut asked = asked(global, arguments)?;
    export::check(arguments)?;
    let image_path = image_path(arguments.image_path.as_deref())?;
    check_parent(&image_path, arguments.parent_path.as_deref())?;
    let container = super::store(global)?.load(&arguments.id)?;
    let _lock = container.lock()?;
    let status = super::status(&container)?;
    require(Action::Checkpoint, container.id(), status)?;
    if container.record.host_root.is_some() {
        bail!(
            "container {:?} has no mount namespace: its mounts are the host's, and would not come back",
            container.id()
        );
    }
    let program = checkpoint::find_program(std::env::var_os("PATH").as_deref())?;
    let config = container.config()?;
    let spec = spec::load(&config)?;
    asked.config_file = config_file(&spec);
    label::require_known(container.id(), spec.process.as_ref())?;
    let facts = Facts::read(&container, &spec)?;
    trial::point("begin the archive")?;
    let mut export = export::begin(arguments, &facts.mounted, &spec)?;
    let own_image = export.as_ref().and_then(|export| export.image.clone());
    let image_path = own_image.as_ref().unwrap_or(&image_path);

    trial::point("begin the image")?;
    let kind = if asked.pre_dump { Kind::PreDump } else { Kind::Dump };
    let (image, mut manifest) = Image::begin(image_path, container.id(), kind)?;
    manifest.outside = facts.names_outside();
    manifest.streams.clone_from(&container.record.streams);
    let work_path = arguments.work_path.as_deref().unwrap_or(image_path);
    let work = work_directory(work_path)?;
    let options = checkpoint::dump(&asked, &facts.dump(&container, &image, &work));
    trial::point("stop the processes")?;
    let frozen = Frozen::take(&container, status)?;
    let setting =
        Setting { program, inherited: frozen.lifeline().into_iter().collect(), ..Setting::default() };
    let mut end = End {
        image: &image,
        manifest: Some(manifest),
        status_fd: arguments.status_fd,
        export: export.as_mut(),
        container: &container,
        leave_running: arguments.leave_running,
    };
    let what = if asked.pre_dump { Work::PreDump } else { Work::Dump };
    // Should CRIU be killed, what it has started comes to us.
    process::set_child_subreaper()?;
    trial::point("let criu work")?;
    let answer = checkpoint::run(what, &options, &setting, &mut |notice| end.notice(notice));
    let of = || format!("checkpoint {:?}", container.id());
    match answer.with_context(of)? {
        Answer::Done { .. } => end.complete()?,
        Answer::Failed { errno, message } => {
            // The image of an archive that does not come about goes, too.
            let stays = arguments.work_path.is_some() || own_image.is_none();
            let log = work_path.join(DUMP_LOG);
            return Err(checkpoint::explain(&of(), &log, stays, errno, message.as_deref()));
        }
    }
    drop(frozen);
    if let Some(export) = export {
        export.finish(&container, arguments.leave_running.then_some(image_path), work_path)?;
    }
    match asked.leave_running || asked.pre_dump {
        true => Ok(()),
        false => delete(container),
    }
}

/// What CRIU has ended.
fn delete(container: Container) -> Result<()> {
    trial::point("delete")?;
    super::delete::kill_cgroup(&container)?;
    super::delete::remove(container)
}

fn asked(global: &Global, arguments: &cli::Checkpoint) -> Result<Asked> {
    let parent = arguments.parent_path.as_deref().map(|path| path.to_str().context("--parent-path"));
    Ok(Asked {
        leave_running: arguments.leave_running,
        tcp_established: arguments.tcp_established,
        tcp_skip_in_flight: arguments.tcp_skip_in_flight,
        ext_unix_sk: arguments.ext_unix_sk,
        shell_job: arguments.shell_job,
        file_locks: arguments.file_locks,
        link_remap: arguments.link_remap,
        auto_dedup: arguments.auto_dedup,
        lazy_pages: arguments.lazy_pages,
        pre_dump: arguments.pre_dump,
        parent: parent.transpose()?.map(str::to_owned),
        page_server: arguments.page_server.as_deref().map(page_server).transpose()?,
        cgroup_mode: cgroup_mode(arguments.manage_cgroups_mode),
        network_lock: arguments.network_lock.map(network_lock),
        empty_ns: empty_namespaces(&arguments.empty_ns)?,
        verbose: global.level() == Level::Debug,
        ..Asked::default()
    })
}

pub fn cgroup_mode(asked: Option<CgroupsMode>) -> CgroupMode {
    match asked.unwrap_or_default() {
        CgroupsMode::Ignore => CgroupMode::Ignore,
        CgroupsMode::Soft => CgroupMode::Soft,
        CgroupsMode::Full => CgroupMode::Full,
        CgroupsMode::Strict => CgroupMode::Strict,
    }
}

pub fn network_lock(asked: cli::NetworkLock) -> checkpoint::NetworkLock {
    match asked {
        cli::NetworkLock::Iptables => checkpoint::NetworkLock::Iptables,
        cli::NetworkLock::Nftables => checkpoint::NetworkLock::Nftables,
        cli::NetworkLock::Skip => checkpoint::NetworkLock::Skip,
    }
}

pub fn empty_namespaces(words: &[String]) -> Result<u32> {
    words.iter().try_fold(0, |bits, word| {
        let known = NamespaceKind::ALL.into_iter().find(|kind| kind.word() == word);
        match known.map(bit) {
            Some(namespace::NETWORK) => Ok(bits | namespace::NETWORK as u32),
            _ => {
                Err(Failure::usage(format!("--empty-ns {word:?}: only network can be left out by CRIU"))
                    .into())
            }
        }
    })
}

/// What an administrator or the container's creator wants of CRIU, which counts before everything else. runc's file
/// serves where there is none for deja.
pub fn config_file(spec: &Spec<'_>) -> Option<String> {
    const USUAL: [&str; 2] = ["/etc/criu/deja.conf", "/etc/criu/runc.conf"];
    match spec.annotations.get("org.criu.config") {
        Some(path) => Some(path.to_string()).filter(|path| !path.is_empty()),
        None => USUAL.iter().find(|path| Path::new(path).exists()).map(|path| (*path).to_owned()),
    }
}

fn page_server(text: &str) -> Result<PageServer> {
    let parts = text.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse().ok()?)));
    match parts {
        Some((address, port)) if !address.is_empty() => Ok(PageServer { address: address.to_owned(), port }),
        _ => Err(Failure::usage(format!("--page-server {text:?}: the form is ADDRESS:PORT")).into()),
    }
}

/// The directory of the image, which is ./checkpoint unless the caller says otherwise.
pub fn image_path(given: Option<&Path>) -> Result<PathBuf> {
    container::absolute(given.unwrap_or(Path::new("checkpoint")), std::env::current_dir)
}

fn check_parent(image: &Path, parent: Option<&Path>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Failure::usage(format!(
            "--parent-path {parent:?}: it is relative to --image-path and must not be absolute"
        ))
        .into());
    }
    // On paper, because the image itself need not be there yet.
    if !container::absolute(&image.join(parent), std::env::current_dir)?.is_dir() {
        return Err(
            Failure::usage(format!("--parent-path {parent:?}: no such directory in {image:?}")).into()
        );
    }
    Ok(())
}

pub fn work_directory(path: &Path) -> Result<OwnedFd> {
    std::fs::create_dir_all(path).with_context(|| format!("create work directory {path:?}"))?;
    Ok(std::fs::File::open(path).with_context(|| format!("open work directory {path:?}"))?.into())
}

fn mount_table(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/mountinfo");
    std::fs::read_to_string(&path).with_context(|| format!("read {path:?}"))
}

/// What is to know about a running container.
struct Facts {
    pid: i32,
    outside: Vec<checkpoint::Outside>,
    mounted: Vec<checkpoint::Mounted>,
    joined: Vec<(u64, u64)>,
}

impl Facts {
    fn read(container: &Container, spec: &Spec<'_>) -> Result<Self> {
        let pid = container.living_pid()?.context("container not running")?;
        let linux = spec.linux.as_ref().context("config.json: linux is missing")?;
        let mounted = checkpoint::parse(&mount_table(pid)?)?;
        if let Some(mount) = mounted.iter().find(|mount| mount.idmapped) {
            bail!(
                "cannot checkpoint {:?}: the mount {:?} is id-mapped, which CRIU cannot restore",
                container.id(),
                mount.point
            );
        }
        let intended = outside::intended_inside(spec, linux, &container.record.bundle, pid)?;
        let kinds = Namespaces::plan(linux, true)?.join.into_iter().map(|join| join.kind);
        let inode = |kind| Ok((kind, outside::namespace_inode(&pid.to_string(), kind)?));
        Ok(Self {
            pid,
            outside: checkpoint::outside(&mounted, &intended),
            mounted,
            joined: kinds.map(inode).collect::<Result<_>>()?,
        })
    }

    /// Each once.
    fn names_outside(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.outside.iter().map(|one| &one.name).collect();
        names.into_iter().cloned().collect()
    }

    fn dump<'a>(&'a self, container: &'a Container, image: &Image, work: &OwnedFd) -> Dump<'a> {
        let place = container.record.cgroup.as_ref();
        Dump {
            images_dir_fd: image.directory.as_raw_fd(),
            work_dir_fd: work.as_raw_fd(),
            pid: self.pid,
            root: &container.record.rootfs,
            freeze_cgroup: place.map(|place| format!("{}/{}", place.mount, place.path)),
            outside: &self.outside,
            streams: &container.record.streams,
            joined: &self.joined,
        }
    }
}

/// What is left to do when CRIU has written everything, and before it ends the processes.
struct End<'i> {
    image: &'i Image,
    manifest: Option<Manifest>,
    status_fd: Option<i32>,
    export: Option<&'i mut Export>,
    container: &'i Container,
    leave_running: bool,
}

impl End<'_> {
    fn notice(&mut self, notice: Notice) -> Result<()> {
        match notice.script.as_str() {
            "post-dump" => {
                trial::point("complete the image")?;
                self.complete()
            }
            "status-ready" => self.tell_ready(),
            _ => Ok(()),
        }
    }

    fn complete(&mut self) -> Result<()> {
        let Some(manifest) = self.manifest.take() else { return Ok(()) };
        self.image.complete(manifest)?;
        let Some(export) = &mut self.export else { return Ok(()) };
        trial::point("write the archive")?;
        export.capture()?;
        if self.leave_running {
            return Ok(());
        }
        export.write(self.container, &self.image.path)
    }

    /// Whoever migrates waits for this before it asks for pages.
    fn tell_ready(&self) -> Result<()> {
        let Some(number) = self.status_fd.filter(|number| *number >= 0) else { return Ok(()) };
        fs::write(crate::sys::borrow(number), b"\0")
            .map(drop)
            .with_context(|| format!("--status-fd {number}"))
    }
}
