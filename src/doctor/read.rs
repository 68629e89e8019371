//! Looks at the machine. Nothing is changed; what cannot be read counts as not there.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Facts;
use super::cgroup::Tree;
use super::engines::{self, Engine, Engines, KINDS, Twin};
use super::kernel::Kernel;
use super::security::Security;
use super::storage::Place;
use super::tools::{Criu, Tools};
use super::users::{self, Mapper, Users};
use crate::cgroup::{Mount, of_process};
use crate::sys::fs::{Access, CWD, Mode, OFlags, access_effective, file_system, openat};
use crate::sys::seccomp::{action, get_action_avail};
use crate::sys::{credential, file, mount, probe, process, sched};
use crate::{checkpoint, rdt};

/// What only the caller knows.
#[derive(Debug, Default)]
pub struct Request {
    /// Where containers' records are, and sessions.
    pub state: PathBuf,
    pub sessions: PathBuf,
    pub user: String,
    pub home: Option<PathBuf>,
    /// $PATH.
    pub path: Option<OsString>,
    /// Whether the manager that would be asked for scopes answers.
    pub systemd: Option<Result<(), String>>,
}

pub fn read(request: &Request) -> Facts {
    let privileged = process::effective_uid() == 0;
    let state = place("state", &request.state, true);
    Facts {
        privileged,
        kernel: kernel(),
        cgroup: tree(request, privileged),
        users: users(request),
        security: security(request),
        tools: tools(request, privileged),
        places: state.into_iter().chain(place("sessions", &request.sessions, false)).collect(),
        engines: engines(request),
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    text(path).trim().parse().ok()
}

fn may(path: &Path, access: Access) -> bool {
    CString::new(path.as_os_str().as_bytes()).is_ok_and(|path| access_effective(&path, access).is_ok())
}

/// A program as a shell would find it, or where programs for administrators are.
fn find(name: &str, request: &Request) -> Option<PathBuf> {
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let listed = request.path.iter().flat_map(std::env::split_paths);
    let candidates = listed.chain(usual).filter(|directory| directory.is_absolute());
    candidates.map(|directory| directory.join(name)).find(|file| file.is_file() && may(file, Access::EXEC_OK))
}

fn kernel() -> Kernel {
    let actions = [
        ("SCMP_ACT_KILL_PROCESS", action::KILL_PROCESS),
        ("SCMP_ACT_KILL_THREAD", action::KILL_THREAD),
        ("SCMP_ACT_TRAP", action::TRAP),
        ("SCMP_ACT_ERRNO", action::ERRNO),
        ("SCMP_ACT_NOTIFY", action::NOTIFY),
        ("SCMP_ACT_TRACE", action::TRACE),
        ("SCMP_ACT_LOG", action::LOG),
    ];
    Kernel {
        release: probe::kernel_release(),
        calls: probe::NEEDED.map(|call| (call.name(), probe::ask(call))).to_vec(),
        actions: actions.map(|(name, value)| (name, get_action_avail(value) == Ok(true))).to_vec(),
        // Opening it loads its module, where that is allowed.
        overlay: mount::fsopen(c"overlay").is_ok()
            || text("/proc/filesystems").lines().any(|line| line.trim() == "nodev\toverlay"),
    }
}

fn tree(request: &Request, privileged: bool) -> Tree {
    let pressure = fs::read("/proc/pressure/cpu").is_ok();
    let v1 = text("/proc/cgroups").lines().filter_map(held_by_v1).collect();
    let nowhere = Tree { v1, pressure, systemd: request.systemd.clone(), ..Tree::default() };
    let Ok(found) = Mount::find() else { return nowhere };
    let own = of_process("self").unwrap_or_default();
    let own = found.full(own.trim_matches('/'));
    let place = if privileged { found.path().to_owned() } else { own.clone() };
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    Tree {
        controllers: words(text(format!("{place}/cgroup.controllers"))),
        writable: may(Path::new(&place), Access::WRITE_OK),
        files: children(Path::new(found.path()))
            .chain([PathBuf::from(own)])
            .map(|one| names(&one))
            .max_by_key(Vec::len)
            .unwrap_or_default(),
        mount: Some(found.path().to_owned()),
        place,
        ..nowhere
    }
}

/// A line of /proc/cgroups: name, number of its v1 hierarchy or 0, and more.
fn held_by_v1(line: &str) -> Option<String> {
    let mut fields = line.split_whitespace();
    let (name, hierarchy) = (fields.next()?, fields.next()?);
    let held = !name.starts_with('#') && hierarchy != "0";
    held.then(|| if name == "blkio" { "io".to_owned() } else { name.to_owned() })
}

fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// What lies in a cgroup that is not the root, which has other files than all the others.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.iter().any(|name| name == "cgroup.type") { names } else { Vec::new() }
}

fn users(request: &Request) -> Users {
    let uid = process::effective_uid();
    let granted = |file: &str| users::granted(&text(file), &request.user, uid);
    Users {
        name: request.user.clone(),
        refused: probe::user_namespace().err().map(|fault| fault.to_string()),
        most: number("/proc/sys/user/max_user_namespaces"),
        unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        subordinate: ["/etc/subuid", "/etc/subgid"].map(granted),
        mappers: ["newuidmap", "newgidmap"].map(|name| (name, mapper(find(name, request)))),
    }
}

fn mapper(program: Option<PathBuf>) -> Mapper {
    const SETUID: u32 = 0o4000;
    let Some(program) = program else { return Mapper::Absent };
    let setuid = fs::metadata(&program).is_ok_and(|file| file.mode() & SETUID != 0 && file.uid() == 0);
    let path = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let capable = || matches!(file::get_xattr(&path, c"security.capability"), Ok(Some(_)));
    if setuid || capable() { Mapper::Able } else { Mapper::Powerless }
}

fn security(request: &Request) -> Security {
    const OPEN_FILES: u32 = 7;
    Security {
        capabilities: credential::capget().map_or(0, |sets| sets.effective),
        files: sched::prlimit(0, OPEN_FILES, None).map_or(0, |limit| limit.hard),
        apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        apparmor_parser: find("apparmor_parser", request).is_some(),
        selinux: fs::read("/sys/fs/selinux/enforce").ok().map(|mode| mode == b"1"),
    }
}

fn tools(request: &Request, privileged: bool) -> Tools {
    let program = checkpoint::find_program(request.path.as_deref()).ok();
    let rdt = |line: &str| line.starts_with("flags") && line.split(' ').any(|flag| flag == "rdt_a");
    Tools {
        criu: program.map(|program| criu(&program.to_string_lossy(), privileged)),
        resctrl: rdt::find().ok().map(|place| place.display().to_string()),
        rdt: text("/proc/cpuinfo").lines().any(rdt),
    }
}

fn criu(program: &str, privileged: bool) -> Criu {
    let say = |argument: &str| Command::new(program).arg(argument).output();
    let version = say("--version").map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = version.unwrap_or_default();
    let version =
        version.lines().find_map(|line| line.strip_prefix("Version:")).unwrap_or_default().trim().to_owned();
    let complaint = match privileged.then(|| say("check")) {
        Some(Ok(output)) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(said.lines().next_back().unwrap_or("nothing").to_owned())
        }
        Some(Err(error)) => Some(error.to_string()),
        _ => None,
    };
    Criu { path: program.to_owned(), version, complaint }
}

fn place(check: &'static str, path: &Path, vital: bool) -> Option<Place> {
    let nearest = path.ancestors().find(|above| above.is_dir())?.to_owned();
    let name = CString::new(nearest.as_os_str().as_bytes()).ok()?;
    let directory = openat(CWD, &name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()?;
    Some(Place {
        check,
        path: path.to_owned(),
        writable: may(&nearest, Access::WRITE_OK | Access::EXEC_OK),
        nearest,
        kind: file_system(&directory).unwrap_or_default(),
        free: file::room(&directory).map_or(u64::MAX, |(bytes, _)| bytes),
        vital,
    })
}

fn engines(request: &Request) -> Engines {
    let own = fs::read_link("/proc/self/exe").map(|path| path.display().to_string()).unwrap_or_default();
    let engines: Vec<Engine> = KINDS.iter().map(|kind| engine(kind, request)).collect();
    let texts = engines.iter().flat_map(|engine| &engine.files);
    let called: BTreeMap<_, _> = texts
        .flat_map(|(_, text)| engines::mentions(text))
        .map(|path| {
            let twin = twin(Path::new(&path));
            (path, twin)
        })
        .collect();
    let on_path = find("deja", request).map(|path| (path.display().to_string(), twin(&path)));
    Engines { own, on_path, called, engines }
}

fn engine(kind: &'static engines::Kind, request: &Request) -> Engine {
    let mut files = Vec::new();
    for name in kind.files {
        let path = match (name.strip_prefix("~/"), &request.home) {
            (None, _) => PathBuf::from(name),
            (Some(below), Some(home)) => home.join(below),
            (Some(_), None) => continue,
        };
        let mut paths = vec![path.clone()];
        if name.ends_with('/') {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            paths = entries.map(|entry| entry.path()).collect();
            paths.sort_unstable();
        }
        files.extend(
            paths.iter().filter(|path| path.is_file()).map(|path| (path.display().to_string(), text(path))),
        );
    }
    Engine { kind, installed: find(kind.program, request).is_some(), files }
}

fn twin(path: &Path) -> Twin {
    let (Ok(there), Ok(own)) = (fs::metadata(path), fs::metadata("/proc/self/exe")) else {
        return Twin::Absent;
    };
    if !there.is_file() || !may(path, Access::EXEC_OK) {
        return Twin::NotExecutable;
    }
    let same_file = (there.dev(), there.ino()) == (own.dev(), own.ino());
    let same_content = || {
        let bytes = |path: &Path| fs::read(path).ok();
        there.len() == own.len()
            && bytes(path).is_some_and(|there| bytes(Path::new("/proc/self/exe")) == Some(there))
    };
    if same_file || same_content() { Twin::Same } else { Twin::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_v1_are_those_with_a_hierarchy() {
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nblkio\t4\t1\t1\npids\t0\t9\t1\n";
        assert_eq!(table.lines().filter_map(held_by_v1).collect::<Vec<_>>(), ["cpu", "io"]);
    }

    #[test]
    fn this_program_is_its_own_twin_and_no_other_s() {
        assert_eq!(twin(Path::new("/proc/self/exe")), Twin::Same);
        assert_eq!(twin(Path::new("/bin/sh")), Twin::Other);
        assert_eq!(twin(Path::new("/etc/passwd")), Twin::NotExecutable);
        assert_eq!(twin(Path::new("/no/such/file")), Twin::Absent);
    }
}
