//! The verbs, one file each: the story of a verb from top to bottom, and the only place where features meet.
//!
//! What two verbs share stands here: the store a command line means, the cgroup a record means, and printing.

mod agent;
mod birth;
mod blueprint;
mod bundle;
mod checkpoint;
mod completion;
mod copies;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod fair;
mod features;
mod filters;
mod foreground;
mod help;
mod host_root;
mod import;
mod kill;
mod layer;
mod list;
mod man;
mod mounts;
mod notify;
mod outside;
mod pause;
mod place;
mod ps;
mod restore;
mod resume;
mod run;
mod scratch;
mod seal;
mod session;
mod spec;
mod start;
mod state;
mod terminal;
mod top;
mod update;

use std::ffi::{CString, OsString};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cgroup::{Cgroup, Freezers, Mount};
use crate::cli::{Global, Invocation, Switch, Verb};
use crate::container::{self, CgroupPlace, Container, Crowd, Status, Store};
use crate::error::Failure;
use crate::launch::Plan;
use crate::log;
use crate::regex::Regex;
use crate::sys::process::{self, effective_uid};
use crate::systemd::Manager;

/// Does what the command line, which was `arguments`, says; gives the exit code.
pub fn run(invocation: &Invocation, arguments: &[OsString]) -> Result<i32> {
    let Invocation { program, global, verb } = invocation;
    if let Verb::Create(_) | Verb::Run(_) | Verb::Exec(_) | Verb::Mounts(_) = verb {
        seal::ensure(arguments)?;
    }
    if let Verb::Create(_)
    | Verb::Run(_)
    | Verb::Exec(_)
    | Verb::Start(_)
    | Verb::Delete(_)
    | Verb::Checkpoint(_)
    | Verb::Restore(_)
    | Verb::Mounts(_) = verb
    {
        // Of a caller that ignores it nobody's end would be told, and no child could be waited for.
        process::default_signal(foreground::CHILD_ENDED)?;
    }
    match verb {
        Verb::Run(arguments) => return run::run(global, arguments),
        Verb::Exec(arguments) => return exec::run(global, arguments),
        Verb::Restore(given) => return restore::run(global, given, arguments),
        Verb::Checkpoint(arguments) => return checkpoint::run(global, arguments),
        Verb::Doctor(arguments) => return doctor::run(global, arguments),
        Verb::Create(arguments) => create::run(global, arguments),
        Verb::Start(arguments) => start::run(global, arguments),
        Verb::State(arguments) => state::run(global, arguments),
        Verb::List(arguments) => list::run(global, arguments),
        Verb::Ps(arguments) => ps::run(global, arguments),
        Verb::Kill(arguments) => kill::run(global, arguments),
        Verb::Delete(arguments) => delete::run(global, arguments),
        Verb::Pause(arguments) => pause::run(global, arguments),
        Verb::Resume(arguments) => resume::run(global, arguments),
        Verb::Update(arguments) => update::run(global, arguments),
        Verb::Events(arguments) => events::run(global, arguments),
        Verb::Top(arguments) => top::run(global, arguments),
        Verb::FairRun(arguments) => fair::run::run(global, arguments),
        Verb::FairRestore(_) => fair::restore::run(global),
        Verb::FairSet(arguments) => fair::set::run(global, arguments),
        Verb::FairStatus(arguments) => fair::status::run(global, arguments),
        Verb::FairSimulate(arguments) => fair::simulate::run(arguments),
        Verb::FairPlot(arguments) => fair::plot::run(arguments),
        Verb::Spec(arguments) => spec::run(arguments),
        Verb::Features(_) => features::run(),
        Verb::Mounts(arguments) => mounts::run(global, arguments),
        Verb::Help(arguments) => help::run(program, arguments),
        Verb::Version => help::version(program),
        Verb::Completion(arguments) => completion::run(arguments),
        Verb::Man(arguments) => man::run(arguments),
        _ => {
            let code = session::run(global, verb, arguments)?;
            return code.with_context(|| format!("{} is not implemented", verb.page().name));
        }
    }
    .map(|()| 0)
}

/// What exit code a verb fails with.
pub fn failure_code(verb: &Verb) -> i32 {
    match verb {
        Verb::Exec(_) | Verb::SessionExec(_) => 255,
        _ => 1,
    }
}

/// The containers the command line is about.
fn store(global: &Global) -> Result<Store> {
    let current = std::env::current_dir;
    let Some(root) = &global.root else {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
        let user = std::env::var_os("USER");
        let (root, sticky) = container::default_root(
            effective_uid(),
            runtime_dir.as_deref(),
            user.as_deref(),
            in_user_namespace,
        );
        return Ok(Store::open(container::absolute(&root, current)?, sticky));
    };
    let root = container::absolute(root, current)?;
    if root.parent().is_none() || global.root.as_ref().is_some_and(|given| given.as_os_str().is_empty()) {
        return Err(Failure::usage("option --root argument should not be set to /").into());
    }
    Ok(Store::open(root, false))
}

/// An ordinary user, or root in a user namespace: the kernel lets neither it nor its containers make devices.
fn is_confined() -> bool {
    effective_uid() != 0 || in_user_namespace()
}

/// The first user namespace is the only one that maps every id to itself.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// The cgroup a record means; None if it is gone. No path would be the root, which is nobody's to kill.
fn cgroup(place: &CgroupPlace) -> Result<Option<Cgroup>> {
    match mount(place)?.filter(|_| !place.path.is_empty()) {
        Some(mount) => Cgroup::open(&mount, &place.path),
        None => Ok(None),
    }
}

fn mount(place: &CgroupPlace) -> Result<Option<Mount>> {
    Mount::at(&CString::new(place.mount.as_str()).context("the record's cgroup mount")?)
}

/// The systemd that makes cgroups for this user.
fn systemd() -> Result<Manager> {
    let runtime_directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let user = effective_uid() != 0 || in_user_namespace();
    Manager::choose(user, runtime_directory.as_deref().map(Path::new))
}

/// The cgroup of a living container, for verbs that cannot do without.
fn cgroup_to(what: &str, container: &Container) -> Result<Cgroup> {
    let Some(place) = &container.record.cgroup else {
        bail!("cannot {what} container {:?}: it has no cgroup", container.id());
    };
    cgroup(place)?
        .with_context(|| format!("cannot {what} container {:?}: its cgroup is gone", container.id()))
}

fn status(container: &Container) -> Result<Status> {
    Observer::default().status(container, None)
}

/// Who looks at many containers looks up the hierarchy of their cgroups once.
#[derive(Default)]
struct Observer {
    freezers: Option<Freezers>,
}

impl Observer {
    fn status(&mut self, container: &Container, crowd: Option<&Crowd>) -> Result<Status> {
        container.status(crowd, |place| self.is_frozen(place))
    }

    fn is_frozen(&mut self, place: &CgroupPlace) -> Result<bool> {
        if self.freezers.as_ref().is_none_or(|known| known.mount() != place.mount) {
            self.freezers = mount(place)?.map(Freezers::new);
        }
        match &mut self.freezers {
            Some(freezers) if !place.path.is_empty() => freezers.is_frozen(&place.path),
            _ => Ok(false),
        }
    }
}

/// The ids a verb is about: the one given, or with --regex all that match.
fn selected(store: &Store, id: &str, regex: bool) -> Result<Vec<String>> {
    if !regex {
        return Ok(vec![id.to_owned()]);
    }
    let regex = Regex::new(id)
        .map_err(|reason| Failure::usage(format!("invalid regular expression {id:?}: {reason}")))?;
    Ok(store.list()?.unwrap_or_default().into_iter().filter(|id| regex.is_match(id)).collect())
}

/// Does something to every one of `ids`; the first failure is the run's, the others are warned about.
fn each(ids: &[String], mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let mut first = Ok(());
    for id in ids {
        match (act(id), &first) {
            (Ok(()), _) => (),
            (Err(error), Ok(())) => first = Err(error),
            (Err(error), Err(_)) => log::warning(&crate::error::sentence(&error)),
        }
    }
    first
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
}

/// The descriptors a caller passes on in systemd's way: how many, from 3 on.
fn listen_fds() -> Result<u32> {
    match std::env::var("LISTEN_FDS") {
        Ok(number) => number.parse().with_context(|| format!("LISTEN_FDS={number:?}")),
        Err(_) => Ok(0),
    }
}

/// Whether the cgroup tree may be out of reach.
fn is_rootless(global: &Global) -> bool {
    match global.rootless {
        Switch::On => true,
        Switch::Off => false,
        Switch::Auto => is_confined(),
    }
}

/// What is about to be done, before it is: what the caller should know, and every step for who asks.
fn announce(plan: &Plan) {
    plan.warnings.iter().for_each(|warning| log::warning(warning));
    if log::is_debug() {
        plan.narrative().for_each(|line| log::debug(&line));
    }
}

/// The file appears whole or not at all: who waits for it reads it at once.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().with_context(|| format!("pid file {path:?} has no name"))?;
    let draft = path.with_file_name(format!(".{}", name.to_string_lossy()));
    std::fs::write(&draft, pid.to_string()).with_context(|| format!("write {draft:?}"))?;
    std::fs::rename(&draft, path).with_context(|| format!("write {path:?}"))
}
