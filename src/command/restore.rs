//! `restore`: a container from what `checkpoint` has saved.
//!
//! The record is on disk before the first process exists, as for `create`; limits are set, and everybody is told,
//! when all processes are there and none of them runs yet.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::birth::state;
use super::blueprint::Blueprint;
use super::bundle::Bundle;
use super::checkpoint::{
    cgroup_mode, config_file, empty_namespaces, image_path, label, network_lock, work_directory,
};
use super::foreground::Foreground;
use super::layer::Layer;
use super::place::{self, Place};
use super::scratch::Scratch;
use super::terminal::Console;
use super::{copies, delete, import, notify, outside};
use crate::cgroup::Cgroup;
use crate::checkpoint::{
    self, Answer, Asked, Image, Intended, Notice, Options, RESTORE_LOG, Root, Setting, Work,
};
use crate::cli::{self, Global, Level};
use crate::container::{self, Record, Reservation, Status};
use crate::error::Failure;
use crate::hook;
use crate::launch::netdev;
use crate::log;
use crate::spec::Linux;
use crate::sys::clone::namespace;
use crate::sys::process::{self, Pid};
use crate::sys::{AsFd, AsRawFd, OwnedFd, fs, socket};
use crate::systemd::Keeper;
use crate::trial;

/// `words` are those deja was called with.
pub fn run(global: &Global, arguments: &cli::Restore, words: &[OsString]) -> Result<i32> {
    match arguments.copies {
        Some(number) if arguments.copy.is_none() => copies::run(arguments, number, words).map(|()| 0),
        _ => restore(global, arguments),
    }
}

fn restore(global: &Global, arguments: &cli::Restore) -> Result<i32> {
    let mut asked = asked(global, arguments)?;
    let store = super::store(global)?;
    let bundle = Bundle::read(arguments.bundle.as_deref(), None)?;
    let spec = bundle.spec()?;
    asked.config_file = config_file(&spec);
    let blueprint = Blueprint::draw(&spec, &bundle.path, &store)?;
    check(blueprint.linux)?;
    label::possible(blueprint.process)?;
    let source = Source::choose(arguments)?;
    let image = Image::open(&source.image_path)?;
    let program = checkpoint::find_program(std::env::var_os("PATH").as_deref())?;
    let socket = arguments.console_socket.as_deref();
    let console = Console::choose(blueprint.process.terminal, socket, arguments.detach)?;
    if !arguments.detach && !arguments.no_subreaper {
        process::set_child_subreaper()?;
    }
    let foreground = (!arguments.detach).then(Foreground::begin).transpose()?;

    let id = copies::id(arguments);
    let reservation = store.reserve(&id)?;
    let mut home = Home::make(global, &id, &blueprint, reservation, &bundle.config, arguments.copy)?;
    let layer = home.layer(&source)?;
    let joined = Joined::open(&blueprint)?;
    let work = work_directory(source.work_path(arguments))?;
    let work_by_name = asked.criu_has_cgroups().then(|| fs::path_of(work.as_fd())).transpose()?;
    let work_by_name = work_by_name.map(CString::new).transpose()?;
    let searchable = Searchable::make(blueprint.linux, &image)?;
    let options = home.options(&asked, &blueprint, &image, &joined, &work)?;
    let root = Root {
        path: CString::new(home.record.rootfs.as_str())?,
        readonly: spec.root.as_ref().is_some_and(|root| root.readonly),
        layer: layer.as_ref().map(Layer::mounted),
    };
    let setting = Setting {
        program,
        cgroup: home.cgroup.as_ref().map(AsFd::as_fd),
        cgroup_namespace: blueprint.namespaces.is_new(namespace::CGROUP) && !asked.criu_has_cgroups(),
        work: work_by_name,
        root: Some(root),
        inherited: joined.0.iter().map(|(_, _, fd)| fd.as_raw_fd()).collect(),
    };
    let mut arrival = Arrival {
        reservation: &home.reservation,
        record: &mut home.record,
        cgroup: home.cgroup.as_ref(),
        place: &home.place,
        blueprint: &blueprint,
        asked: &asked,
        console: &console,
        pid_file: arguments.pid_file.as_deref(),
        master: None,
    };
    trial::point("let criu work")?;
    let answer = checkpoint::run(Work::Restore, &options, &setting, &mut |notice| arrival.notice(notice));
    drop(searchable);
    let master = arrival.master.take();
    let what = format!("restore {id:?}");
    if let Answer::Failed { errno, message } = answer.with_context(|| what.clone())? {
        return Err(source.explain(arguments, &what, errno, message.as_deref()));
    }
    drop(source);
    let container = home.settle()?;
    foreground.map_or(Ok(0), |foreground| wait(container, foreground, master))
}

/// Stands for the container until its end, and gives its exit code.
fn wait(container: container::Container, mut foreground: Foreground, master: Option<OwnedFd>) -> Result<i32> {
    let pid = Pid::from_raw(container.record.pid).context("criu restored no process")?;
    let pidfd = process::pidfd_open(pid)?;
    let exit = match master {
        Some(master) => foreground.wait_with_terminal(pid, pidfd.as_fd(), master)?,
        None => foreground.wait(pid, pidfd.as_fd())?,
    };
    trial::point("delete")?;
    delete::ended(container)?;
    Ok(exit.code())
}

fn check(linux: &Linux<'_>) -> Result<()> {
    if linux.intel_rdt.is_some() {
        return Err(Failure::input("linux.intelRdt is not implemented for restored containers").into());
    }
    Ok(())
}

fn asked(global: &Global, arguments: &cli::Restore) -> Result<Asked> {
    Ok(Asked {
        tcp_established: arguments.tcp_established,
        // Only one of many can go on with a connection.
        tcp_close: arguments.tcp_close || arguments.copy.is_some(),
        ext_unix_sk: arguments.ext_unix_sk,
        shell_job: arguments.shell_job,
        file_locks: arguments.file_locks,
        auto_dedup: arguments.auto_dedup,
        lazy_pages: arguments.lazy_pages,
        cgroup_mode: cgroup_mode(arguments.manage_cgroups_mode),
        network_lock: arguments.network_lock.map(network_lock),
        lsm_profile: arguments.lsm_profile.clone(),
        lsm_mount_context: arguments.lsm_mount_context.clone(),
        empty_ns: empty_namespaces(&arguments.empty_ns)?,
        verbose: global.level() == Level::Debug,
        ..Asked::default()
    })
}

/// Where the image is, and a place for this run alone where nothing may be written beside it.
struct Source {
    image_path: PathBuf,
    scratch: Option<Scratch>,
}

impl Source {
    fn choose(arguments: &cli::Restore) -> Result<Self> {
        let Some(archive) = &arguments.import else {
            let image_path = image_path(arguments.image_path.as_deref())?;
            // All copies read one image, and leave it as it is.
            let scratch = arguments.copy.map(|_| Scratch::make()).transpose()?;
            return Ok(Self { image_path, scratch });
        };
        if arguments.image_path.is_some() {
            return Err(Failure::usage("--import and --image-path both name what to restore from").into());
        }
        let scratch = import::unpack(archive)?;
        Ok(Self { image_path: scratch.path().join(checkpoint::IMAGE), scratch: Some(scratch) })
    }

    fn work_path<'s>(&'s self, arguments: &'s cli::Restore) -> &'s Path {
        let own = self.scratch.as_ref().map(Scratch::path);
        arguments.work_path.as_deref().or(own).unwrap_or(&self.image_path)
    }

    fn explain(
        &self,
        arguments: &cli::Restore,
        what: &str,
        errno: i32,
        message: Option<&str>,
    ) -> anyhow::Error {
        let stays = arguments.work_path.is_some() || self.scratch.is_none();
        checkpoint::explain(what, &self.work_path(arguments).join(RESTORE_LOG), stays, errno, message)
    }
}

/// The processes of a user namespace read their image while they are nobody's, and so everybody may search the
/// image's directory until the last of them has done so.
struct Searchable<'i>(Option<(&'i Image, fs::Mode)>);

impl<'i> Searchable<'i> {
    fn make(linux: &Linux<'_>, image: &'i Image) -> Result<Self> {
        let directory = &image.directory;
        let mode = fs::Mode::from_raw_mode(fs::fstat(directory)?.st_mode & 0o7777);
        if linux.uid_mappings.is_empty() {
            return Ok(Self(None));
        }
        fs::flock(directory, fs::FlockOperation::LockShared).context("lock the image")?;
        fs::fchmod(directory, mode | fs::Mode::XOTH | fs::Mode::XGRP)
            .with_context(|| format!("let the container's users search {:?}", image.path))?;
        Ok(Self(Some((image, mode))))
    }
}

impl Drop for Searchable<'_> {
    fn drop(&mut self) {
        let Some((image, mode)) = self.0 else { return };
        let alone = fs::flock(&image.directory, fs::FlockOperation::NonBlockingLockExclusive);
        if let Ok(Err(fault)) = alone.map(|()| fs::fchmod(&image.directory, mode)) {
            log::warning(&format!("hide {:?} again: {fault}", image.path));
        }
    }
}

/// Without a manifest nobody knows which names an image asks for; one too many does no harm.
fn everything(intended: &Intended) -> Vec<String> {
    let binds = intended.binds.iter().map(|bind| bind.destination.clone());
    binds.chain(intended.masked.iter().cloned()).chain(["/dev/null".to_owned()]).collect()
}

/// What the container lives in, made before it. Dropped, it is gone again.
struct Home {
    reservation: Reservation,
    record: Record,
    place: Place,
    cgroup: Option<Cgroup>,
    /// systemd's cgroups need somebody in them until the container is.
    _keeper: Option<Keeper>,
}

impl Home {
    fn make(
        global: &Global,
        id: &str,
        blueprint: &Blueprint<'_>,
        reservation: Reservation,
        config: &[u8],
        copy: Option<u32>,
    ) -> Result<Self> {
        let request = place::Request { spec: blueprint.spec, id, manager: global.cgroup_manager(), copy };
        let place = Place::choose(&request)?;
        let mut record = blueprint.record(id);
        record.cgroup = place.intended();
        trial::point("write the record")?;
        reservation.write(&record)?;
        reservation.save_config(config)?;
        trial::point("make the cgroup")?;
        let announce = |cgroup| {
            let announced = Record { cgroup: Some(cgroup), ..record.clone() };
            reservation.write(&announced)
        };
        let made = place.make(&|| super::is_rootless(global), &announce)?;
        let (cgroup, keeper) = made.map_or((None, None), |made| (Some(made.cgroup), made.keeper));
        record.cgroup = cgroup.as_ref().and_then(|cgroup| place.made(cgroup));
        reservation.write(&record)?;
        Ok(Self { reservation, record, place, cgroup, _keeper: keeper })
    }

    fn options(
        &self,
        asked: &Asked,
        blueprint: &Blueprint<'_>,
        image: &Image,
        joined: &Joined,
        work: &OwnedFd,
    ) -> Result<Options> {
        let intended = self.intended(blueprint)?;
        let outside = image.outside().map_or_else(|| everything(&intended), <[String]>::to_vec);
        let cgroup = self.cgroup.as_ref().map(Cgroup::full);
        let streams = image.streams()?;
        outside::unite_streams(&streams)?;
        let request = checkpoint::Restore {
            images_dir_fd: image.directory.as_raw_fd(),
            work_dir_fd: (!asked.criu_has_cgroups()).then(|| work.as_raw_fd()),
            root: &self.record.rootfs,
            outside: &outside,
            intended: &intended,
            cgroup: cgroup.as_deref(),
            streams: &streams,
            terminal: blueprint.process.terminal,
            joined: &joined.as_request(),
        };
        checkpoint::restore(asked, &request)
    }

    /// Neither the changes that an archive brings nor those of a copy touch the bundle.
    fn layer(&self, source: &Source) -> Result<Option<Layer>> {
        let Some(scratch) = &source.scratch else { return Ok(None) };
        trial::point("make a layer of its own")?;
        let layer = Layer::make(self.reservation.path(), &self.record.rootfs)?;
        layer.change(scratch)?;
        Ok(Some(layer))
    }

    fn intended(&self, blueprint: &Blueprint<'_>) -> Result<Intended> {
        let Record { bundle, rootfs, .. } = &self.record;
        let mut intended = outside::intended_below(blueprint.spec, blueprint.linux, bundle, rootfs)?;
        // A container that told a service manager that it is ready has this mount, which config.json does not.
        let source = notify::directory_of(&self.reservation)?;
        let destination = notify::MOUNTED_AT.to_owned();
        intended.binds.insert(0, checkpoint::Bind { destination, source, recursive: false });
        Ok(intended)
    }

    /// The container stays.
    fn settle(mut self) -> Result<container::Container> {
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.keep();
        }
        self.reservation.commit(self.record)
    }
}

/// The namespaces given by path: kind, path, and the namespace itself.
struct Joined(Vec<(u64, String, OwnedFd)>);

impl Joined {
    fn open(blueprint: &Blueprint<'_>) -> Result<Self> {
        let open = |join: &crate::launch::namespaces::Join| {
            let path = &join.path;
            let fd = fs::openat(fs::CWD, path, fs::OFlags::RDONLY, fs::Mode::empty());
            let fd = fd.with_context(|| format!("open namespace {path:?}"))?;
            Ok((join.kind, path.to_str()?.to_owned(), fd))
        };
        blueprint.namespaces.join.iter().map(open).collect::<Result<_>>().map(Self)
    }

    fn as_request(&self) -> Vec<(u64, &str, i32)> {
        self.0.iter().map(|(kind, path, fd)| (*kind, path.as_str(), fd.as_raw_fd())).collect()
    }
}

/// What is done while CRIU works, at the points where it asks.
struct Arrival<'a> {
    reservation: &'a Reservation,
    record: &'a mut Record,
    cgroup: Option<&'a Cgroup>,
    place: &'a Place,
    blueprint: &'a Blueprint<'a>,
    asked: &'a Asked,
    console: &'a Console<'a>,
    pid_file: Option<&'a Path>,
    master: Option<OwnedFd>,
}

impl Arrival<'_> {
    fn notice(&mut self, notice: Notice) -> Result<()> {
        match (notice.script.as_str(), notice.pid, notice.fd) {
            ("setup-namespaces", Some(pid), _) => self.namespaces_are_there(pid),
            ("post-restore", Some(pid), _) => self.processes_are_there(pid),
            ("orphan-pts-master", _, Some(master)) => self.terminal_is_there(master),
            _ => Ok(()),
        }
    }

    fn namespaces_are_there(&mut self, pid: i32) -> Result<()> {
        if self.blueprint.namespaces.is_new(namespace::NETWORK) {
            trial::point("bring up lo")?;
            netdev::bring_loopback_up(pid)?;
        }
        trial::point("move interfaces")?;
        netdev::move_all(&self.blueprint.devices, pid)?;
        trial::point("run hooks")?;
        let record = Record { pid, ..self.record.clone() };
        let files = hook::Files::open(&self.blueprint.spec.annotations)?;
        let state = state(&record, Status::Creating)?;
        hook::run_all(&self.blueprint.runtime_hooks(), &state, Path::new(&record.bundle), &files)
    }

    /// None of them runs yet.
    fn processes_are_there(&mut self, pid: i32) -> Result<()> {
        label::given_back(self.blueprint.process, self.asked, pid)?;
        trial::point("read the start time")?;
        let life = container::life(pid)?.with_context(|| format!("process {pid} has ended"))?;
        self.record.pid = pid;
        self.record.start_time = life.start_time;
        if let Some(pidfd) = Pid::from_raw(pid).map(process::pidfd_open) {
            self.record.pid_inode = pidfd.and_then(fs::fstat).context("look at init")?.st_ino;
        }
        self.record.created = crate::time::Moment::now().nanoseconds();
        // CRIU makes one for everybody, so that clocks go on where they were.
        let own_time = |who: &str| outside::namespace_inode(who, namespace::TIME);
        if own_time("self").ok() != own_time(&pid.to_string()).ok() {
            self.record.namespaces |= namespace::TIME;
        }
        trial::point("write the record")?;
        self.reservation.write(self.record)?;
        trial::point("set limits")?;
        if let Some(cgroup) = self.cgroup {
            self.place.limit(cgroup)?;
        }
        trial::point("write the pid file")?;
        self.pid_file.map_or(Ok(()), |path| super::write_pid_file(path, pid))
    }

    fn terminal_is_there(&mut self, master: OwnedFd) -> Result<()> {
        match self.console {
            Console::Socket(path) => {
                let address = CString::new(path.as_os_str().as_bytes())?;
                let socket = socket::connect_stream(&address);
                let socket = socket.with_context(|| format!("console socket {path:?}"))?;
                socket::send_with_fd(&socket, b"/dev/ptmx", master.as_fd())
                    .with_context(|| format!("send the terminal to {path:?}"))
            }
            Console::Foreground => {
                self.master = Some(master);
                Ok(())
            }
            Console::None => bail!("the image has a terminal, and config.json has none (process.terminal)"),
        }
    }
}
