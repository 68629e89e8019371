//! Making a container, up to the point where its program may run: what `create` and `run` share.
//!
//! Everything that is made on the way (directory, cgroup, child) undoes itself when it is dropped, so an error
//! at any point leaves nothing behind; and the record is on disk before the first process exists, so a deja that
//! is killed leaves nothing that `delete --force` could not find.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::agent;
use super::blueprint::Blueprint;
use super::host_root::{self, HostRoot};
use super::notify::{self, Manager, Messenger};
use super::place::{self, Place};
use super::terminal::{self, Console};
use crate::cgroup::{self, Cgroup};
use crate::cli::{self, Global};
use crate::container::{self, Container, HostPlace, Life, RdtPlace, Record, Reservation, Status, Store};
use crate::hook;
use crate::launch::namespaces::Namespaces;
use crate::launch::{self, Handover, Launch, Milestone, Plan, Question, Reply, netdev};
use crate::rdt;
use crate::sys::{AsFd, OwnedFd, fs, socket};
use crate::trial;

/// What the caller of `create` or `run` asked for beside the config.
pub struct Request<'a> {
    pub global: &'a Global,
    pub id: &'a str,
    pub options: &'a cli::Launch,
    /// Stop before the program until `start`; otherwise go on as soon as everything is in place.
    pub hold: bool,
    /// Nobody stays to hold the terminal.
    pub detached: bool,
    /// The service manager that is told when the program is ready.
    pub manager: Option<&'a Manager>,
}

/// What must outlive the launch: its plan, and the state the child hands to its hooks.
#[derive(Default)]
pub struct Room {
    plan: Option<Plan>,
    state: Vec<u8>,
}

/// A container whose init is on its way.
pub struct Birth<'b> {
    pub reservation: Reservation,
    pub cgroup: Option<Cgroup>,
    pub record: Record,
    pub launch: Launch<'b>,
    /// The terminal's master end, where it comes to us.
    pub master: Option<OwnedFd>,
    /// Where the program says that it is ready, unless somebody else starts it.
    pub messenger: Option<Messenger>,
    class: Option<rdt::Made>,
    host_root: Option<HostRoot>,
}

/// Makes the container. With `hold` its init then waits for `start`; otherwise it is about to run the program.
pub fn bring_up<'b>(
    request: &Request,
    store: &Store,
    blueprint: &mut Blueprint,
    config: &[u8],
    room: &'b mut Room,
) -> Result<Birth<'b>> {
    let socket = request.options.console_socket.as_deref();
    let console = Console::choose(blueprint.process.terminal, socket, request.detached)?;
    trial::point("reserve the id")?;
    let reservation = store.reserve(request.id)?;
    let messenger = request.listen(&reservation)?;
    trial::point("choose the cgroup")?;
    let place = Place::choose(&place::Request {
        spec: blueprint.spec,
        id: request.id,
        manager: request.global.cgroup_manager(),
        copy: None,
    })?;
    let mut record = blueprint.record(request.id);
    record.straight = !request.hold;
    record.cgroup = place.intended();
    let class = class_of_service(blueprint, request.id)?;
    record.rdt = class.as_ref().map(remembered);
    record.host_root = blueprint.host_root().map(host_root::place).transpose()?;
    reservation.write(&record)?;
    trial::point("save config.json")?;
    reservation.save_config(config)?;
    trial::point("make the cgroup")?;
    let announce = |cgroup| {
        let announced = Record { cgroup: Some(cgroup), ..record.clone() };
        reservation.write(&announced)
    };
    let made = place.make(&|| super::is_rootless(request.global), &announce)?;
    let (cgroup, keeper) = made.map_or((None, None), |made| (Some(made.cgroup), made.keeper));
    record.cgroup = cgroup.as_ref().and_then(|cgroup| place.made(cgroup));
    place.announce(cgroup.as_ref());
    trial::point("make start.sock")?;

    let listener = request.hold.then(|| socket::listen_messages(&reservation.start_socket()));
    let listener = listener.transpose().context("make start.sock")?;
    trial::point("open the console")?;
    let (console, master) = console.open()?;
    trial::point("plan")?;
    let joined = open_namespaces(&blueprint.namespaces)?;
    let plan = room.plan.insert(blueprint.plan(request, cgroup.as_ref(), &joined)?);
    #[cfg(debug_assertions)]
    trial::step().into_iter().for_each(|number| plan.fail_at(number));
    super::announce(plan);
    if plan.asks_for_state {
        room.state = vec![0; state(&record, Status::Creating)?.len() + LONGEST_PID];
    }
    let host_root = record.host_root.as_ref().map(attach_root).transpose()?;
    let (cgroup_fd, lock) = (cgroup.as_ref().map(AsFd::as_fd), Some(reservation.directory()));
    let handover = Handover { cgroup: cgroup_fd, listener, lock, console, state: &mut room.state };
    trial::point("clone")?;
    let launch = launch::begin(plan, handover)?;
    drop(keeper);
    record.pid = launch.pid.as_raw_nonzero().get();

    let mut birth =
        Birth { reservation, cgroup, record, launch, master: None, messenger, class: None, host_root };
    if let Err(error) = birth.raise(request, blueprint, &place, class.as_ref()) {
        return Err(birth.diagnose(error));
    }
    trial::point("receive the terminal")?;
    birth.master = master.map(terminal::receive).transpose()?;
    Ok(birth)
}

impl Request<'_> {
    fn listen(&self, reservation: &Reservation) -> Result<Option<Messenger>> {
        let Some(manager) = self.manager else { return Ok(None) };
        notify::make_directory(reservation)?;
        match self.hold {
            true => Ok(None),
            false => Messenger::listen(manager, reservation.directory()),
        }
    }
}

/// A state that is written for an unknown pid grows by no more than this when it is known.
const LONGEST_PID: usize = 32;

impl Birth<'_> {
    /// The parent's share, while the child does its own.
    fn raise(
        &mut self,
        request: &Request,
        blueprint: &Blueprint,
        place: &Place,
        class: Option<&rdt::Plan>,
    ) -> Result<()> {
        if let Some(maps) = &blueprint.maps {
            trial::point("write the id maps")?;
            maps.write(self.record.pid)?;
            trial::point("act on the child from outside")?;
            self.launch.perform_outside()?;
            trial::point("let the child go on in its user namespace")?;
            self.launch.proceed()?;
        }
        if let Some(cgroup) = &self.cgroup {
            trial::point("set limits")?;
            place.limit(cgroup)?;
            if let Some(owner) = blueprint.cgroup_owner() {
                trial::point("hand the cgroup over")?;
                cgroup::hand_over(cgroup, owner)?;
            }
        }
        trial::point("read the start time")?;
        if let Some(class) = class {
            trial::point("join the class of service")?;
            self.class = Some(class.apply(self.record.pid)?);
        }
        let life = life(self.record.pid)?;
        self.record.start_time = life.start_time;
        self.record.pid_inode = fs::fstat(&self.launch.pidfd).context("look at init")?.st_ino;
        self.launch.unignore(life.ignored);
        if request.hold || blueprint.asks_early() {
            let mut record = std::mem::take(&mut self.record);
            let result = self.launch.until(Milestone::Created, &mut |question| match question {
                Question::RuntimeHooks => self.runtime_hooks(blueprint, &record).map(|()| Reply::Continue),
                Question::Created => self.complete(request, &mut record).map(|()| Reply::Continue),
                Question::State => state(&record, Status::Creating).map(Reply::State),
                Question::Listener(fd) => self.introduce(&record, fd).map(|()| Reply::Continue),
            });
            self.record = record;
            return result;
        }
        // The child finds the answer waiting when it asks.
        let mut record = std::mem::take(&mut self.record);
        self.complete(request, &mut record)?;
        self.record = record;
        trial::point("let the child go on")?;
        self.launch.proceed()
    }

    fn runtime_hooks(&self, blueprint: &Blueprint, record: &Record) -> Result<()> {
        trial::point("move interfaces")?;
        netdev::move_all(&blueprint.devices, record.pid)?;
        trial::point("run hooks")?;
        let files = hook::Files::open(&blueprint.spec.annotations)?;
        let state = state(record, Status::Creating)?;
        hook::run_all(&blueprint.runtime_hooks(), &state, Path::new(&record.bundle), &files)
    }

    fn introduce(&self, record: &Record, listener: i32) -> Result<()> {
        trial::point("introduce the seccomp agent")?;
        agent::introduce(record, &self.launch.pidfd, record.pid, listener, Status::Creating)
    }

    /// Everything is in place: says so on disk, and to whoever waits for the pid.
    fn complete(&self, request: &Request, record: &mut Record) -> Result<()> {
        record.created = crate::time::Moment::now().nanoseconds();
        trial::point("write the record")?;
        self.reservation.write(record)?;
        trial::point("send the pidfd")?;
        if let Some(path) = &request.options.pidfd_socket {
            send_pidfd(path, &self.launch)?;
        }
        trial::point("write the pid file")?;
        match &request.options.pid_file {
            Some(path) => super::write_pid_file(path, record.pid),
            None => Ok(()),
        }
    }

    /// A child that is gone without a word was mostly killed for want of memory.
    pub fn diagnose(&self, error: anyhow::Error) -> anyhow::Error {
        match self.cgroup.as_ref().and_then(Cgroup::oom_kills) {
            Some(1..) => anyhow!("container init was OOM-killed (memory limit too low?): {error:#}"),
            _ => error,
        }
    }

    /// What was made stays. What is open does, too: this process goes on to its end, or waits for the container's.
    pub fn settle(mut self) -> Result<Container> {
        trial::point("keep what was made")?;
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.keep();
        }
        self.class.take().into_iter().for_each(rdt::Made::keep);
        self.host_root.iter_mut().for_each(HostRoot::keep);
        self.launch.release();
        std::mem::forget((self.cgroup, self.launch));
        self.reservation.commit(self.record)
    }
}

pub fn state(record: &Record, status: Status) -> Result<Vec<u8>> {
    serde_json::to_vec(&record.state(status)).context("write the state")
}

fn attach_root(place: &HostPlace) -> Result<HostRoot> {
    trial::point("mount the root on the host")?;
    HostRoot::attach(place)
}

fn remembered(class: &rdt::Plan) -> RdtPlace {
    RdtPlace { group: class.group.clone(), monitor: class.monitor.clone(), made: class.removed() }
}

fn class_of_service(blueprint: &Blueprint, id: &str) -> Result<Option<rdt::Plan>> {
    let Some(asked) = &blueprint.linux.intel_rdt else { return Ok(None) };
    rdt::Plan::new(&rdt::find()?, asked, id).map(Some)
}

fn life(pid: i32) -> Result<Life> {
    container::life(pid)?.with_context(|| format!("process {pid} has ended"))
}

fn open_namespaces(namespaces: &Namespaces) -> Result<Vec<OwnedFd>> {
    let open = |path: &CString| fs::openat(fs::CWD, path, fs::OFlags::RDONLY, fs::Mode::empty());
    let joins = namespaces.join.iter();
    joins.map(|join| open(&join.path).with_context(|| format!("open namespace {:?}", join.path))).collect()
}

pub fn send_pidfd(path: &Path, launch: &Launch) -> Result<()> {
    let address = CString::new(path.as_os_str().as_bytes())?;
    let socket = socket::connect_stream(&address).with_context(|| format!("pidfd socket {path:?}"))?;
    socket::send_with_fd(&socket, b"pidfd", launch.pidfd.as_fd())
        .with_context(|| format!("send the pidfd to {path:?}"))
}
