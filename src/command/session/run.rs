//! A miss: the command runs in a container over the state's layers, and what it changed is sealed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::capture::{self, Manner, Seen};
use super::enter;
use super::inside::{self, Report};
use super::room::{self, Overlay, Rights, Wanted};
use crate::cli::{self, Global};
use crate::command::birth::{self, Request, Room};
use crate::command::blueprint::Blueprint;
use crate::command::delete;
use crate::command::foreground::Foreground;
use crate::command::is_confined;
use crate::container::{self, Container};
use crate::session::Id;
use crate::session::key::{Command, Program};
use crate::session::layer::{Finish, Origin};
use crate::session::marks;
use crate::session::owners::Owners;
use crate::session::state::{Context as ShellContext, State};
use crate::session::store::{Draft, Held, Sealed, Store, remove_path};
use crate::session::tree::{self, Entry, Kind};
use crate::spec;
use crate::sys::fs::{self, CWD, Mode, OFlags};
use crate::sys::process;
use crate::sys::{OwnedFd, file};
use crate::trial;

/// What is left free on a disk that is called full.
const LEAST_ROOM: u64 = 1 << 20;

/// What came of a command.
pub struct Outcome {
    pub state: State,
    pub code: i32,
    pub seen: Seen,
    /// Bytes of the layer it made.
    pub bytes: u64,
    /// Keeps `gc` from what is sealed and not yet published.
    pub held: Held,
    /// Why nobody else may be given this result.
    pub alone: Option<String>,
}

/// Runs `command` from `state`, with `input` as its standard input.
pub fn run(
    global: &Global,
    store: &Store,
    state: &State,
    command: &Command,
    input: OwnedFd,
    mut manner: Manner<'_>,
) -> Result<Outcome> {
    enter::enter(store)?;
    let draft = store.draft()?;
    let overlay = Overlay::mount(store, state, &draft.path)?;
    let name = draft.path.file_name().unwrap_or_default().to_string_lossy();
    let id = container_id(&name);
    manner.container.clone_from(&id);
    manner.terminal = command.terminal;
    let place = tree::find(store, &state.root, room::RESOLVER)?;
    let resolver = if command.network { resolver(store, state, place.as_ref())? } else { None };
    let confined = is_confined();
    let owners = confined.then(|| Owners::read(store)).transpose()?.flatten();
    let rights = match confined {
        true => Rights::in_user_namespace(owners.as_ref(), command.network),
        false => Rights::ALL,
    };
    let config = room::config(&Wanted {
        // Who may make none runs it in the own.
        cgroup: (!confined).then(|| format!("/deja-session/{id}")),
        root: &overlay.merged,
        cwd: "/",
        program: Some(&program(store)?),
        words: words(state, command),
        environment: environment(state, command),
        umask: state.context.umask,
        uid: command.uid,
        gid: command.gid,
        network: command.network,
        resolver: resolver.clone(),
        bounds: &manner.bounds,
        tenant: Some(&manner.session),
        rights,
    })?;
    let containers = enter::containers(global, store)?;
    let (seen, spent) = contain(global, &containers, &draft.path, &id, &config, input, manner)?;
    overlay.unmount()?;
    if resolver.is_some() && place.is_none() {
        // What was made for the mount is not the command's doing.
        let path = draft.path.join("tree").join(room::RESOLVER.trim_start_matches('/'));
        std::fs::remove_file(&path).with_context(|| format!("remove {path:?}"))?;
    }
    let full = is_full(&draft.path)?;
    trial::point("seal what the command changed")?;
    finish(store, state, draft, seen, spent, full)
}

/// The machine's file of name servers, if the state has a place for it: `place` is what it has there.
fn resolver(store: &Store, state: &State, place: Option<&Entry>) -> Result<Option<PathBuf>> {
    let is_file = place.is_none_or(|entry| matches!(entry.kind, Kind::File { .. }));
    let has_directory = tree::find(store, &state.root, "/etc")?.is_some_and(|etc| etc.node_id().is_some());
    // A machine without one has nothing to tell.
    Ok(std::fs::canonicalize(room::RESOLVER).ok().filter(|_| is_file && has_directory))
}

/// Programs at a terminal want to know which kind of one it is.
const TERM: &str = "TERM=xterm";

fn environment(state: &State, command: &Command) -> Vec<String> {
    let mut all = state.context.with(&command.environment);
    if command.terminal.is_some() && !all.iter().any(|variable| variable.starts_with("TERM=")) {
        all.push(TERM.to_owned());
    }
    all
}

/// What a shell has only because of its terminal does not carry on.
fn without_terminal(before: &ShellContext, after: ShellContext) -> ShellContext {
    let own = |variable: &String| variable != TERM || before.environment.contains(variable);
    ShellContext { environment: after.environment.into_iter().filter(own).collect(), ..after }
}

fn words(state: &State, command: &Command) -> Vec<String> {
    let cwd = command.cwd.as_deref().unwrap_or(&state.context.cwd);
    match &command.program {
        Program::Words(words) => inside::words(false, cwd, words),
        Program::Text(text) => inside::words(true, cwd, std::slice::from_ref(text)),
    }
}

/// Seals the changes, and decides whether others may have the result.
fn finish(
    store: &Store,
    before: &State,
    draft: Draft,
    seen: Seen,
    spent: Option<&'static str>,
    full: bool,
) -> Result<Outcome> {
    let report = seen.report.clone();
    let slow = seen.disturbed == Some(capture::TOO_SLOW);
    if full {
        bail!(
            "the disk of the session store is full: the command's result is dropped, the session stays where it was"
        );
    }
    let Some(report) = report.or_else(|| seen.disturbed.map(|_| killed(slow))) else {
        bail!(
            "the container's process 1 ended without a report{}",
            spent.map(|what| format!(": {what}")).unwrap_or_default()
        );
    };
    let held = store.share()?;
    let (mut state, bytes) = advance(store, &draft, before)?;
    let context = report.context.clone().map(|context| without_terminal(&before.context, context));
    state.context = context.unwrap_or(state.context);
    let alone = match () {
        () if slow => Some(capture::TOO_SLOW.to_owned()),
        () if spent.is_some() => spent.map(str::to_owned),
        () if seen.disturbed.is_some() => seen.disturbed.map(str::to_owned),
        () if report.killed => Some(format!("it was killed by signal {}", report.code - 128)),
        () if report.left > 0 => Some(format!("it left {} behind, ended now", processes(report.left))),
        () if seen.too_much => Some("it wrote too much".to_owned()),
        () => None,
    };
    Ok(Outcome { state, code: if slow { 124 } else { report.code }, seen, bytes, held, alone })
}

/// Seals the tree of a draft: the state it makes of the one before, and the bytes of the new layer.
pub fn advance(store: &Store, draft: &Draft, before: &State) -> Result<(State, u64)> {
    let finish = Finish { time: Some(before.clock), sync: true, origin: Origin::Command };
    let Sealed { root, layer, bytes, .. } = store.seal(&draft.path, &before.root, finish)?;
    let mut state = before.clone();
    if let Some(layer) = layer {
        state.root = root;
        state.stack(layer);
        state.clock += 1;
    }
    Ok((state, bytes))
}

fn killed(slow: bool) -> Report {
    Report { code: if slow { 124 } else { 137 }, killed: true, left: 0, context: None }
}

const BOUNDS_WITHOUT_ROOT: &str = "the store bounds memory, processes or CPUs, for which a command needs a cgroup of its \
     own (\"session policy --memory none --pids none --cpus none\" takes that back)";

/// Brings the container up, follows it to its end and removes it; says also what it has not had enough of.
fn contain(
    global: &Global,
    containers: &container::Store,
    bundle: &Path,
    id: &str,
    config: &[u8],
    input: OwnedFd,
    manner: Manner<'_>,
) -> Result<(Seen, Option<&'static str>)> {
    let spec = spec::load(config).context("the config.json of a session's container")?;
    spec::validate(&spec).context("the config.json of a session's container")?;
    let mut blueprint = Blueprint::draw(&spec, bundle, containers)?;
    let options = cli::Launch::default();
    let request = Request { global, id, options: &options, hold: false, detached: false, manager: None };
    let foreground = Foreground::begin()?;
    let (ends, streams, theirs) = capture::ends(input)?;
    streams.send(&ends.control, &manner)?;
    // The container's standard input is the other end of the socket; ours is nobody's from here on.
    fs::dup_inheritable(crate::sys::AsFd::as_fd(&theirs), 0)?;
    let mut room = Room::default();
    let killed = killed_for_memory();
    let birth = birth::bring_up(&request, containers, &mut blueprint, config, &mut room);
    fs::dup_inheritable(crate::sys::AsFd::as_fd(&nothing()?), 0)?;
    drop(theirs);
    let birth = birth.map_err(|error| match is_confined() && manner.bounds.need_a_cgroup() {
        true => error.context(BOUNDS_WITHOUT_ROOT),
        false => error,
    })?;
    birth.launch.until_silent().map_err(|error| birth.diagnose(error))?;
    let pidfd = crate::sys::borrow(crate::sys::AsRawFd::as_raw_fd(&birth.launch.pidfd));
    let container = birth.settle()?;
    trial::point("follow the command")?;
    let seen = capture::follow(ends, pidfd, manner);
    if seen.is_err() {
        delete::kill(&container)?;
    }
    process::wait(pidfd)?;
    let spent = match container.record.cgroup {
        Some(_) => spent(&container),
        None if killed_for_memory() != killed => Some("the machine ran out of memory meanwhile"),
        None => None,
    };
    trial::point("delete the command's container")?;
    delete::ended(container)?;
    drop(foreground);
    Ok((seen?, spent))
}

/// What the kernel has refused it.
fn spent(container: &Container) -> Option<&'static str> {
    let place = container.record.cgroup.as_ref()?;
    let cgroup = crate::command::cgroup(place).ok().flatten()?;
    let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
    match () {
        () if some(cgroup.oom_kills()) => Some("it ran out of memory"),
        () if some(cgroup.refused_forks()) => Some("it ran into the limit of processes"),
        () => None,
    }
}

/// How often the kernel of this machine has killed for want of memory. Without a cgroup nobody tells who it was.
fn killed_for_memory() -> Option<String> {
    let counts = std::fs::read_to_string("/proc/vmstat").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("oom_kill ")).map(str::to_owned)
}

pub fn nothing() -> Result<OwnedFd> {
    fs::openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty()).context("open \"/dev/null\"")
}

fn is_full(path: &Path) -> Result<bool> {
    let (bytes, inodes) = file::room(crate::session::layer::open_directory(path)?)?;
    Ok(bytes < LEAST_ROOM || inodes < 16)
}

fn container_id(draft: &str) -> String {
    format!("session-{draft}")
}

/// What a deja that was killed has left: its container first, then its draft. Afterwards this process may work on layers.
pub fn sweep(global: &Global, store: &Store, owned: bool) -> Result<()> {
    if marks::are_in_user_namespace() {
        // It was done on the way in.
        return Ok(());
    }
    let containers = enter::containers(global, store)?;
    let abandoned = store.abandoned(owned)?;
    // Only from outside, all user namespaces of somebody's own obey.
    for draft in &abandoned {
        let remains = containers.remains(&container_id(&draft.name))?;
        remains.map_or(Ok(()), delete::force)?;
    }
    enter::enter(store)?;
    abandoned.iter().try_for_each(|draft| remove_path(&draft.path))
}

const COPY: &str = "init-";

/// Another deja that still uses its copy would have to make it anew; one that has just made it must not miss it.
const COPY_STAYS: Duration = Duration::from_secs(600);

/// Copies of other builds of deja, which nobody needs who is not using them this moment.
fn remove_old_copies(store: &Store, own: &str) -> Result<()> {
    let root = store.root();
    for entry in std::fs::read_dir(root).with_context(|| format!("read {root:?}"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let is_old = made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > COPY_STAYS);
        if name.starts_with(COPY) && name != own && is_old {
            remove_path(&entry.path())?;
        }
    }
    Ok(())
}

/// A copy of deja in the store, for process 1: what is mounted into containers must be a file with a name.
fn program(store: &Store) -> Result<PathBuf> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let own = "/proc/self/exe";
    let metadata = std::fs::metadata(own).with_context(|| format!("look at {own:?}"))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let stamp = match metadata.nlink() {
        // A copy in memory is as old as this process.
        0 => {
            Id::of("deja program", &std::fs::read(own).with_context(|| format!("read {own:?}"))?).to_string()
        }
        _ => format!("{}-{}", metadata.len(), changed.unwrap_or_default().as_nanos()),
    };
    let name = format!("{COPY}{}", Id::of("deja init", stamp.as_bytes()).short());
    let path = store.root().join(&name);
    if !path.exists() {
        remove_old_copies(store, &name)?;
        let draft = store.draft()?;
        let copy = draft.path.join("init");
        std::fs::copy(own, &copy).with_context(|| format!("copy {own:?} to {copy:?}"))?;
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o555))
            .with_context(|| format!("change the mode of {copy:?}"))?;
        let written = std::fs::File::open(&copy).with_context(|| format!("open {copy:?}"))?;
        file::sync(&written).with_context(|| format!("put {copy:?} on the disk"))?;
        // Others may be mounting the one that is there: it must not be replaced.
        match std::fs::hard_link(&copy, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => (),
            result => result.with_context(|| format!("write {path:?}"))?,
        }
    }
    Ok(path)
}

pub fn processes(count: usize) -> String {
    if count == 1 { "a process".to_owned() } else { format!("{count} processes") }
}
