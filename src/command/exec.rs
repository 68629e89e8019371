//! `exec`: runs another program in a container.

use std::ffi::CString;

use anyhow::{Context, Result, bail};

use super::filters;
use super::foreground::Foreground;
use super::start;
use super::terminal::{self, Console};
use super::{agent, birth, bundle};
use crate::cgroup::{Cgroup, path};
use crate::cli::{self, Global};
use crate::container::{self, Action, Container, Store, require};
use crate::error::Failure;
use crate::launch::{self, AnotherProcess, Handover, Milestone, Plan, Question, Reply, identity, sysctl};
use crate::rdt;
use crate::spec::{self, Capabilities, List, Map, Process, Spec, Str};
use crate::sys::clone::namespace;
use crate::sys::{AsFd, AsRawFd, Errno, Fault, OwnedFd, fs, process};
use crate::trial;

pub fn run(global: &Global, arguments: &cli::Exec) -> Result<i32> {
    let store = super::store(global)?;
    let container = store.load(&arguments.id)?;
    let status = super::status(&container)?;
    require(Action::Exec { ignore_paused: arguments.ignore_paused }, container.id(), status)?;
    let init = super::kill::open_init(&container)?.context("cannot exec in a stopped container")?;

    let config = container.config()?;
    let spec = spec::load(&config)?;
    let given = arguments.process.as_deref().map(bundle::read).transpose()?;
    let process = match &given {
        Some(bytes) => spec::load_process(bytes).with_context(|| format!("{:?}", arguments.process))?,
        None => from_flags(arguments, &spec)?,
    };
    spec::validate_process(&process)?;
    let socket = arguments.console_socket.as_deref();
    let console = Console::choose(process.terminal, socket, arguments.detach)?;

    let target = Target { container: &container, init: &init, spec: &spec, store: &store };
    #[cfg_attr(not(debug_assertions), allow(unused_mut))]
    let (mut plan, _root) = target.plan(arguments, &process)?;
    #[cfg(debug_assertions)]
    trial::step().into_iter().for_each(|number| plan.fail_at(number));
    super::announce(&plan);
    let foreground = (!arguments.detach).then(Foreground::begin).transpose()?;
    trial::point("open the console")?;
    let (console, master) = console.open()?;
    trial::point("clone")?;
    let cgroup = target.cgroup(&arguments.cgroup)?;
    if let Some(place) = &container.record.rdt {
        // The program is born where its parent is.
        rdt::join(&place.group, place.monitor.as_deref(), process::own_pid().as_raw_nonzero().get())?;
    }
    let mut launch = target.begin(&plan, cgroup, console, arguments.cgroup.is_empty())?;

    let pid = launch.pid.as_raw_nonzero().get();
    let pidfd = launch.pidfd.try_clone().context("keep the pidfd")?;
    trial::point("wait for the program")?;
    let record = &container.record;
    launch.until(Milestone::Running, &mut |question| match question {
        Question::Listener(fd) => {
            agent::introduce(record, &pidfd, pid, fd, status)?;
            Ok(Reply::Continue)
        }
        question => start::answer(question, record),
    })?;
    trial::point("receive the terminal")?;
    let master = master.map(terminal::receive).transpose()?;
    trial::point("send the pidfd")?;
    if let Some(path) = &arguments.pidfd_socket {
        birth::send_pidfd(path, &launch)?;
    }
    trial::point("write the pid file")?;
    if let Some(path) = &arguments.pid_file {
        super::write_pid_file(path, pid)?;
    }
    let pid = launch.pid;
    launch.release();
    let exit = match (foreground, master) {
        (None, _) => return Ok(0),
        (Some(mut foreground), Some(master)) => foreground.wait_with_terminal(pid, pidfd.as_fd(), master)?,
        (Some(mut foreground), None) => foreground.wait(pid, pidfd.as_fd())?,
    };
    Ok(exit.code())
}

/// The container's own process with what the command line changes.
fn from_flags<'s>(arguments: &cli::Exec, spec: &Spec<'s>) -> Result<Process<'s>> {
    let mut process = spec.process.clone().context("config.json: process is missing")?;
    if arguments.command.is_empty() {
        return Err(Failure::usage("process args cannot be empty").into());
    }
    let texts = |list: &[String], what: &str| -> Result<Vec<Str<'s>>> {
        let text = |text: &String| Str::new(text.clone()).with_context(|| format!("{what} holds a NUL byte"));
        list.iter().map(text).collect()
    };
    let text = |text: &String, what: &str| {
        Str::new(text.clone()).with_context(|| format!("{what} holds a NUL byte"))
    };
    process.args = List(texts(&arguments.command, "an argument")?);
    process.terminal = arguments.tty;
    process.console_size = None;
    process.env.0.extend(texts(&arguments.env, "a variable")?);
    if let Some(cwd) = &arguments.cwd {
        process.cwd = text(cwd, "--cwd")?;
    }
    if let Some(label) = &arguments.process_label {
        process.selinux_label = Some(text(label, "--process-label")?);
    }
    if let Some(profile) = &arguments.apparmor {
        process.apparmor_profile = Some(text(profile, "--apparmor")?);
    }
    process.no_new_privileges |= arguments.no_new_privs;
    if let Some(user) = &arguments.user {
        process.user.uid = user.uid;
        process.user.gid = user.gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.0.extend(&arguments.additional_gids);
    // Not inheritable, which would hand them on to programs that ask for none; where config.json makes it so, ambient.
    let capabilities = process.capabilities.get_or_insert_with(Capabilities::default);
    for name in texts(&arguments.cap, "a capability")? {
        for set in [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted] {
            set.0.push(name.clone());
        }
        if capabilities.inheritable.iter().any(|inherited| **inherited == *name) {
            capabilities.ambient.0.push(name);
        }
    }
    Ok(process)
}

/// The container that is entered.
struct Target<'t> {
    container: &'t Container,
    init: &'t OwnedFd,
    spec: &'t Spec<'t>,
    store: &'t Store,
}

impl Target<'_> {
    fn plan(&self, arguments: &cli::Exec, process: &Process) -> Result<(Plan, Option<OwnedFd>)> {
        let record = &self.container.record;
        let kinds = record.namespaces;
        let linux = self.spec.linux.as_ref().context("config.json: linux is missing")?;
        let filter = linux.seccomp.map(|profile| filters::load(self.store, profile.get())).transpose()?;
        let keep_groups = record.annotations.get("run.oci.keep_original_groups");
        let asked = identity::Asked {
            process,
            init: false,
            hostname: "",
            domainname: "",
            sysctl: &Map::default(),
            private: sysctl::Private::default(),
            new_network: false,
            personality: linux.personality.as_ref(),
            memory_policy: linux.memory_policy.as_ref(),
            keyring: Some(&record.id),
            keep_groups: keep_groups.is_some_and(|value| value != "0" && value != "false"),
            seccomp: filter.is_some(),
            find_executable: false,
            listen_fds: super::listen_fds()?,
            preserve_fds: arguments.preserve_fds,
        };
        let user_namespace = match kinds & namespace::USER {
            0 => identity::UserNamespace::Same,
            _ => identity::UserNamespace::Joined,
        };
        let root = (kinds & namespace::MOUNT == 0).then(|| self.root()).transpose()?;
        let plan = Plan::another_process(AnotherProcess {
            kinds,
            pidfd: self.init.as_raw_fd(),
            root: root.as_ref().map(AsRawFd::as_raw_fd),
            identity: identity::plan(&asked, &identity::Facts::read(process, user_namespace)?)?,
            seccomp: filter.map(|filter| filter.program),
            terminal: process.terminal.then_some(process.console_size),
            ignored: container::own_life()?.ignored,
            privileged: process::effective_uid() == 0,
        });
        Ok((plan, root))
    }

    /// The root of a container that has no mount namespace to find it by.
    fn root(&self) -> Result<OwnedFd> {
        let path = CString::new(format!("/proc/{}/root", self.container.record.pid))?;
        let flags = fs::OFlags::PATH | fs::OFlags::DIRECTORY;
        fs::openat(fs::CWD, &path, flags, fs::Mode::empty()).with_context(|| format!("open {path:?}"))
    }

    /// The container's cgroup, or the one below it that was asked for; None where it has none of its own.
    fn cgroup(&self, asked: &[String]) -> Result<Option<Cgroup>> {
        let Some(place) = &self.container.record.cgroup else { return Ok(None) };
        let mount = super::mount(place)?.with_context(|| format!("no cgroup2 mount at {:?}", place.mount))?;
        let mut path = place.path.clone();
        for sub in asked {
            // Controllers before a colon are cgroup v1's; v2 has one tree.
            let sub = sub.rsplit(':').next().unwrap_or_default();
            path = path::below(&path, sub)?;
        }
        match Cgroup::open(&mount, &path)? {
            Some(cgroup) => Ok(Some(cgroup)),
            None => bail!("cgroup {:?} does not exist", mount.full(&path)),
        }
    }

    /// Clones into `cgroup`; where that takes no processes because init has divided it, into init's own.
    fn begin<'p>(
        &self,
        plan: &'p Plan,
        cgroup: Option<Cgroup>,
        console: Option<OwnedFd>,
        may_move: bool,
    ) -> Result<launch::Launch<'p>> {
        let spare = console.as_ref().map(OwnedFd::try_clone).transpose().context("keep the console")?;
        let handover = |cgroup: &Option<Cgroup>, console| Handover {
            cgroup: cgroup.as_ref().map(|cgroup| crate::sys::borrow(cgroup.as_fd().as_raw_fd())),
            listener: None,
            lock: None,
            console,
            state: &mut [],
        };
        match launch::begin(plan, handover(&cgroup, console)) {
            Err(error) if may_move && cgroup.is_some() && is_divided(&error) => {
                let place = self.container.record.cgroup.as_ref().context("the record has no cgroup")?;
                let mount = super::mount(place)?.context("the cgroup2 mount is gone")?;
                let own = Some(Cgroup::of_process(&mount, self.container.record.pid)?);
                launch::begin(plan, handover(&own, spare))
            }
            result => result,
        }
    }
}

fn is_divided(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<Fault>().map(|fault| fault.errno);
    matches!(errno, Some(Errno::BUSY | Errno::OPNOTSUPP))
}
