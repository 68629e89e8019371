//! Making, opening, walking and removing cgroups.
//!
//! A cgroup that was made here is removed again when its `Cgroup` is dropped, with the parents made for it,
//! unless `keep` was called: a create that fails at any point leaves nothing behind.

use std::ffi::CString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::watch::EventsFile;
use super::{Mount, c_name, mount, read_file, read_file_once, value_of, write_file};
use crate::sys::fs::{self, AtFlags, Mode, OFlags};
use crate::sys::{self, AsFd, BorrowedFd, Errno, Fault, OwnedFd, Reason};

/// An open cgroup. The descriptor serves CLONE_INTO_CGROUP and every file in it.
pub struct Cgroup {
    directory: OwnedFd,
    mount: String,
    path: String,
    /// The directories made for it, outermost first.
    made: Vec<String>,
    new: bool,
}

/// What is asked of `Cgroup::create`.
pub struct Request<'a> {
    pub path: &'a str,
    /// config.json names the place; then it has to be there.
    pub named: bool,
    /// The controllers that the limits to be set need.
    pub controllers: &'a [&'a str],
    /// Without rights over the tree the container may go without a cgroup, if nothing was asked of it.
    /// Asked only when the tree may not be written.
    pub rootless: &'a dyn Fn() -> bool,
    /// Told which directories will be made, outermost first, before parents are made that might else be
    /// forgotten.
    pub announce: &'a dyn Fn(Vec<String>) -> Result<()>,
}

/// A cgroup with these and those it needs has been passed what it should; the rest need not be looked for.
const USUAL: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

impl Cgroup {
    /// Makes the cgroup and passes every controller there is down to it, as statistics and later updates
    /// need them. None: rootless, nothing asked for, and the tree is not ours to write.
    pub fn create(mount: &Mount, request: &Request) -> Result<Option<Self>> {
        let mut made = Made { mount: mount.path().to_owned(), paths: Vec::new() };
        let mut result = mkdir(mount, request.path, &mut made).and_then(|()| open(mount, request.path));
        if is_missing(&result) {
            (request.announce)(absent(mount, request.path))?;
            result = make(mount, request.path, &mut made);
        }
        let opened = match result {
            Ok(opened) => opened,
            Err(fault) => {
                let text = format!("create cgroup {:?}: {}", mount.full(request.path), Reason(fault.errno));
                let forbidden = matches!(fault.errno, Errno::ACCESS | Errno::PERM | Errno::ROFS);
                if !forbidden || request.named || !(request.rootless)() {
                    bail!(text);
                }
                if request.controllers.is_empty() {
                    return Ok(None);
                }
                bail!(
                    "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {text}"
                );
            }
        };
        let new = made.paths.last().is_some_and(|path| path == request.path);
        let cgroup = Self {
            directory: opened,
            mount: mount.path().to_owned(),
            path: request.path.to_owned(),
            made: std::mem::take(&mut made.paths),
            new,
        };
        if !new {
            cgroup.refuse_occupied()?;
        }
        cgroup.pass_controllers_down(mount, request.controllers)?;
        Ok(Some(cgroup))
    }

    /// Opens a cgroup that is there; None if it is not.
    pub fn open(mount: &Mount, path: &str) -> Result<Option<Self>> {
        match open(mount, path) {
            Ok(directory) => Ok(Some(Self {
                directory,
                mount: mount.path().to_owned(),
                path: path.to_owned(),
                made: Vec::new(),
                new: false,
            })),
            Err(fault) if fault.errno == Errno::NOENT => Ok(None),
            Err(fault) => bail!("open cgroup {:?}: {}", mount.full(path), Reason(fault.errno)),
        }
    }

    /// A plain directory in the place of a cgroup, whose files say what a test wants them to.
    #[cfg(test)]
    pub fn stand_in(directory: &std::path::Path) -> Self {
        let path = directory.to_string_lossy().into_owned();
        let file = std::fs::File::open(directory).expect("open the directory");
        Self { directory: file.into(), mount: String::new(), path, made: Vec::new(), new: false }
    }

    /// Opens a cgroup that somebody else has just made for us: it is ours to fill and to remove.
    pub fn adopt(mount: &Mount, path: &str) -> Result<Self> {
        let cgroup = Self::open(mount, path)?;
        let mut cgroup = cgroup.with_context(|| format!("cgroup {:?} is not there", mount.full(path)))?;
        (cgroup.made, cgroup.new) = (vec![path.to_owned()], true);
        Ok(cgroup)
    }

    /// Opens the cgroup a process is in: where an exec goes when the container's cgroup itself takes no
    /// processes, because init moved into a child and passed controllers down.
    pub fn of_process(mount: &Mount, pid: i32) -> Result<Self> {
        let path = mount::of_process(&pid.to_string())?;
        let path = path.trim_start_matches('/');
        Self::open(mount, path)?.with_context(|| format!("cgroup {:?} is gone", mount.full(path)))
    }

    /// What a control file says, where there is one.
    pub fn value(&self, file: &str) -> Option<String> {
        read_file(self.as_fd(), &c_name(file)).ok().map(|content| content.trim_end().to_owned())
    }

    /// Whether `create` made it: then nothing is attached to it and nothing runs in it.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Relative to the mount.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As a person would type it.
    pub fn full(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    /// The directories that were made for this cgroup, outermost first.
    pub fn made(&self) -> &[String] {
        &self.made
    }

    /// From here on the cgroup stays.
    pub fn keep(&mut self) {
        self.made.clear();
    }

    /// Every process in it and below, zombies included; threads in a threaded cgroup.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        processes(self.as_fd(), &mut pids).map_err(|fault| self.failed("list processes of", fault))?;
        Ok(pids)
    }

    pub(super) fn failed(&self, what: &str, fault: Fault) -> anyhow::Error {
        anyhow::anyhow!("{what} {:?}: {}", self.full(), Reason(fault.errno))
    }

    /// The names of its controllers.
    pub(super) fn controllers(&self) -> sys::Result<String> {
        read_file_once(self.as_fd(), c"cgroup.controllers")
    }

    fn refuse_occupied(&self) -> Result<()> {
        let events = read_file(self.as_fd(), c"cgroup.events").map_err(|fault| self.failed("read", fault))?;
        if value_of(&events, "populated") == Some(1) {
            let count = self.processes()?.len();
            bail!("container's cgroup is not empty: {count} process(es) found");
        }
        if value_of(&events, "frozen") == Some(1) {
            bail!("container's cgroup unexpectedly frozen");
        }
        Ok(())
    }

    fn pass_controllers_down(&self, mount: &Mount, needed: &[&str]) -> Result<()> {
        let here = self.controllers().map_err(|fault| self.failed("read cgroup.controllers of", fault))?;
        if missing(USUAL.iter().chain(needed).copied(), &here).is_empty() {
            return Ok(());
        }
        let available = read_file_once(mount.as_fd(), c"cgroup.controllers");
        let available = available.with_context(|| format!("{:?}: cgroup.controllers", mount.path()))?;
        if missing(available.split_whitespace(), &here).is_empty() {
            return Ok(());
        }
        for parent in parents(&self.path) {
            // A parent that takes no more controllers is no error here: the container may not need them.
            // One it needs is missed, with its name, when its limit is written.
            let _no_error = pass_down(mount, parent);
        }
        self.accept_kind(needed)
    }

    /// A cgroup below one that has processes of its own is in no state to run anything. It can become
    /// threaded, which does for containers that ask for no limit such a cgroup cannot have.
    fn accept_kind(&self, needed: &[&str]) -> Result<()> {
        const WITH_THREADS: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];
        let kind = read_file(self.as_fd(), c"cgroup.type").map_err(|fault| self.failed("read", fault))?;
        let kind = kind.trim_end();
        if !kind.contains("invalid") && !kind.contains("threaded") {
            return Ok(());
        }
        if let Some(name) = needed.iter().find(|name| !WITH_THREADS.contains(name)) {
            bail!("cgroup {:?} is \"{kind}\" and cannot have {name} limits", self.full());
        }
        if kind == "domain invalid" {
            write_file(self.as_fd(), c"cgroup.type", "threaded")
                .map_err(|fault| self.failed("make threaded", fault))?;
        }
        Ok(())
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut made = Made { mount: std::mem::take(&mut self.mount), paths: std::mem::take(&mut self.made) };
        if !made.paths.is_empty() && self.new && !made.remove() {
            // Something of a create that failed still runs in there.
            let _best_effort = write_file(self.directory.as_fd(), c"cgroup.kill", "1");
            if let Ok(events) = EventsFile::open(self.directory.as_fd()) {
                let _best_effort = events.wait_empty(Duration::from_secs(2));
            }
        }
    }
}

/// Directories to remove again, outermost first. Dropping it removes them, as far as they are empty.
struct Made {
    mount: String,
    paths: Vec<String>,
}

impl Made {
    fn remove(&mut self) -> bool {
        while let Some(path) = self.paths.last() {
            let full = c_name(&format!("{}/{path}", self.mount));
            match fs::unlinkat(fs::CWD, &full, AtFlags::REMOVEDIR) {
                Err(fault) if fault.errno == Errno::BUSY => return false,
                _ => drop(self.paths.pop()),
            }
        }
        true
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.remove();
    }
}

fn open(mount: &Mount, path: &str) -> sys::Result<OwnedFd> {
    let name = if path.is_empty() { CString::from(c".") } else { c_name(path) };
    fs::openat(mount, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

fn is_missing(result: &sys::Result<OwnedFd>) -> bool {
    matches!(result, Err(fault) if fault.errno == Errno::NOENT)
}

/// What has to be made for the cgroup to be there, outermost first.
fn absent(mount: &Mount, path: &str) -> Vec<String> {
    let lacks = |path: &&str| is_missing(&open(mount, path));
    parents(path).skip(1).chain([path]).filter(lacks).map(str::to_owned).collect()
}

/// Makes the cgroup and its parents. Somebody else who gives up may remove a parent between two of our calls.
fn make(mount: &Mount, path: &str, made: &mut Made) -> sys::Result<OwnedFd> {
    let mut once = || {
        let mut all = parents(path).skip(1).chain([path]);
        all.try_for_each(|path| mkdir(mount, path, made)).and_then(|()| open(mount, path))
    };
    let mut result = once();
    for _ in 0..9 {
        if !is_missing(&result) {
            break;
        }
        result = once();
    }
    result
}

fn mkdir(mount: &Mount, path: &str, made: &mut Made) -> sys::Result<()> {
    match fs::mkdirat(mount, &c_name(path), Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            made.paths.push(path.to_owned());
            Ok(())
        }
        Err(fault) if fault.errno == Errno::EXIST => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The cgroups above `path`, from the root (which is empty) down.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(path.match_indices('/').map(|(slash, _)| &path[..slash]))
}

/// The controllers of `wanted` that are not in `present`.
fn missing<'w>(wanted: impl Iterator<Item = &'w str>, present: &str) -> Vec<&'w str> {
    let present: Vec<&str> = present.split_whitespace().collect();
    wanted.filter(|name| !present.contains(name)).collect()
}

/// Lets the children of `parent` have every controller that it has.
fn pass_down(mount: &Mount, parent: &str) -> sys::Result<()> {
    let directory = open(mount, parent)?;
    let available = read_file(directory.as_fd(), c"cgroup.controllers")?;
    let enabled = read_file(directory.as_fd(), c"cgroup.subtree_control")?;
    let wanted = missing(available.split_whitespace(), &enabled);
    let wanted: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
    if wanted.is_empty()
        || write_file(directory.as_fd(), c"cgroup.subtree_control", &wanted.join(" ")).is_ok()
    {
        return Ok(());
    }
    // All or nothing was nothing: as many as it takes.
    for name in &wanted {
        let _no_error = write_file(directory.as_fd(), c"cgroup.subtree_control", name);
    }
    Ok(())
}

pub(super) fn children(directory: BorrowedFd<'_>) -> sys::Result<Vec<CString>> {
    let mut names = Vec::new();
    fs::entries(directory, |name, is_directory| {
        if is_directory {
            names.push(name.to_owned());
        }
    })?;
    Ok(names)
}

fn processes(directory: BorrowedFd<'_>, pids: &mut Vec<i32>) -> sys::Result<()> {
    let content = match list(directory, c"cgroup.procs") {
        Err(fault) if fault.errno == Errno::OPNOTSUPP => list(directory, c"cgroup.threads"),
        content => content,
    }?;
    // Zero stands for a process that this pid namespace cannot name.
    pids.extend(content.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for name in children(directory)? {
        let child = fs::openat(directory, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        match child.and_then(|child| processes(child.as_fd(), pids)) {
            // Removed while we walked.
            Err(fault) if !matches!(fault.errno, Errno::NOENT | Errno::NODEV) => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

fn list(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> sys::Result<String> {
    let file = fs::openat(directory, name, OFlags::RDONLY, Mode::empty())?;
    super::read(&file, false)
}

/// Removes the parents among `made` of a cgroup that is gone, as far as nobody else uses them by now.
pub fn remove_parents(mount: &str, path: &str, made: &[String]) {
    let above = |made: &&String| path.strip_prefix(made.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let paths = made.iter().filter(above).cloned().collect();
    drop(Made { mount: mount.to_owned(), paths });
}

/// Removes a cgroup that is empty with one call, and says whether that was all there was to do.
pub fn remove_empty(mount: &str, path: &str) -> bool {
    let full = c_name(&format!("{mount}/{path}"));
    fs::unlinkat(fs::CWD, &full, AtFlags::REMOVEDIR).is_ok()
}

/// Removes a cgroup and everything below it: one call when it is empty. Processes that are about to end are
/// waited for; what is still there at the end is named. A cgroup that is gone is no error.
pub fn remove(mount: &Mount, path: &str, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    let Err(fault) = remove_below(mount.as_fd(), &c_name(path), deadline) else { return Ok(()) };
    let left = Cgroup::open(mount, path)?.map(|cgroup| cgroup.processes()).transpose()?.unwrap_or_default();
    let what = format!("remove cgroup {:?}: {}", mount.full(path), Reason(fault.errno));
    if left.is_empty() {
        bail!(what);
    }
    let names: Vec<String> = left.iter().take(8).map(|pid| format!("{pid}{}", name_of(*pid))).collect();
    let more = if left.len() > names.len() { ", ..." } else { "" };
    bail!("{what}: {} process(es) left in it: {}{more}", left.len(), names.join(", "))
}

/// The command of a process, for the error only.
fn name_of(pid: i32) -> String {
    let path = c_name(&format!("/proc/{pid}/comm"));
    let file = fs::openat(fs::CWD, &path, OFlags::RDONLY, Mode::empty());
    let name = file.and_then(|file| super::read(&file, true)).unwrap_or_default();
    if name.is_empty() { name } else { format!(" ({})", name.trim_end()) }
}

fn remove_below(parent: BorrowedFd<'_>, name: &CString, deadline: Instant) -> sys::Result<()> {
    let rmdir = || match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(fault) if fault.errno == Errno::NOENT => Ok(()),
        result => result,
    };
    match rmdir() {
        Err(fault) if matches!(fault.errno, Errno::BUSY | Errno::NOTEMPTY) => {}
        result => return result,
    }
    let directory = match fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(fault) if fault.errno == Errno::NOENT => return Ok(()),
        directory => directory?,
    };
    for child in children(directory.as_fd())? {
        remove_below(directory.as_fd(), &child, deadline)?;
    }
    let events = EventsFile::open(directory.as_fd())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let empty = events.wait_empty(left)?;
        match rmdir() {
            Err(fault) if fault.errno == Errno::BUSY && !left.is_zero() => {
                // Empty, but the kernel has not quite let go of the last process.
                if empty {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            result => return result,
        }
    }
}
