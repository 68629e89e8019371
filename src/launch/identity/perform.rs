//! One step at a time, with system calls only: no heap, no lock, no formatting in the child.

use std::ffi::{CStr, CString};
use std::io::Write;

use super::image::Image;
use super::step::{Directory, Step, User};
use super::user::HomeSearch;
use crate::sys::credential::{self, CapabilitySets};
use crate::sys::fs::{self, CWD, FileType, IN_ROOT, Mode, OFlags};
use crate::sys::procfs::Procfs;
use crate::sys::{self, Call, Errno, Result, keyring, netlink, process, sched, terminal};

/// What steps leave for later ones.
pub struct Context {
    /// Whose limits and priorities are set: 0 for the caller.
    target: i32,
    procfs: Option<Procfs>,
    directory_pending: bool,
    pub(super) found: Option<usize>,
    home: [u8; HOME_MAX],
}

const HOME_MAX: usize = 512;
const HOME_PREFIX: &[u8] = b"HOME=";

impl Context {
    /// For a child that does the steps to itself.
    pub fn own() -> Self {
        Self::of(0)
    }

    /// For a parent that does the `outside` steps to its child.
    pub fn of(pid: i32) -> Self {
        let mut home = [0; HOME_MAX];
        home[..6].copy_from_slice(b"HOME=/");
        Self { target: pid, procfs: None, directory_pending: false, found: None, home }
    }

    pub(super) fn home(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.home).unwrap_or(c"HOME=/")
    }

    fn set_home(&mut self, directory: &[u8]) {
        let end = HOME_PREFIX.len() + directory.len();
        // One that does not fit is as good as none.
        if end < HOME_MAX {
            self.home[HOME_PREFIX.len()..end].copy_from_slice(directory);
            self.home[end] = 0;
        }
    }

    fn procfs(&self) -> Result<&Procfs> {
        self.procfs.as_ref().ok_or(Call::Open.fault(Errno::BADF))
    }
}

pub fn perform(step: &Step, image: &Image, context: &mut Context) -> Result<()> {
    match step {
        Step::OpenProcfs(reach) => context.procfs = Some(Procfs::open(*reach)?),
        Step::BecomeRoot { may_be_unmapped } => return become_root(*may_be_unmapped),
        Step::NewSession => return process::setsid(),
        Step::Processors(None) => reset_affinity(),
        Step::Processors(Some(mask)) => return sched::sched_setaffinity(context.target, mask),
        Step::JoinKeyring { name, permissions, label } => {
            return join_keyring(name, *permissions, label.as_deref(), context);
        }
        Step::Hostname(name) => return process::sethostname(name),
        Step::Domainname(name) => return process::setdomainname(name),
        Step::LoopbackUp => return netlink::bring_loopback_up(),
        Step::ControllingTerminal => return terminal::set_controlling(sys::borrow(0)),
        Step::Sysctl(sysctl) => return context.procfs()?.write(&sysctl.path, sysctl.value.to_bytes()),
        Step::MemoryPolicy { mode, nodes } => return sched::set_mempolicy(*mode, nodes),
        Step::Personality(domain) => return sched::personality(*domain),
        Step::Scheduler(attributes) => return sched::sched_setattr(context.target, attributes),
        Step::IoPriority(priority) => return sched::ioprio_set(context.target, *priority),
        Step::OomScore(_, value) => return set_oom_score(value, context),
        Step::AppArmor { value, .. } => return set_apparmor(value, context),
        Step::SelinuxLabel(label) => return context.procfs()?.write(c"self/attr/exec", label.to_bytes()),
        Step::Home { uid } => find_home(*uid, context),
        Step::WorkingDirectory(directory) => return enter_privileged(directory, context),
        Step::WorkingDirectoryAsUser(path) if context.directory_pending => return enter(path),
        Step::WorkingDirectoryAsUser(_) => {}
        Step::StdioOwner(uid) => return own_stdio(*uid),
        Step::RaiseHardLimit(resource, hard) => return raise_hard_limit(context.target, *resource, *hard),
        Step::Limit(resource, limit) => {
            return sched::prlimit(context.target, *resource, Some(*limit)).map(drop);
        }
        Step::BoundingSet { keep } => return limit_bounding_set(*keep),
        Step::Umask(mask) => credential::umask(*mask),
        Step::User(user) => return become_user(user),
        Step::Capabilities { sets, ambient } => return set_capabilities(*sets, *ambient),
        Step::NoNewPrivileges => return credential::set_no_new_privileges(),
        Step::FindExecutable => context.found = Some(image.search()?),
        Step::CloseOnExec(first) => return fs::close_on_exec_from(*first),
    }
    Ok(())
}

/// No fault, where that one is allowed.
fn unless(errno: Errno, result: Result<()>) -> Result<()> {
    match result {
        Err(fault) if fault.errno == errno => Ok(()),
        result => result,
    }
}

fn become_root(may_be_unmapped: bool) -> Result<()> {
    let result = credential::setresgid(0).and_then(|()| credential::setresuid(0));
    if may_be_unmapped { unless(Errno::INVAL, result) } else { result }
}

fn reset_affinity() {
    static ALL: [u8; 1024] = [0xff; 1024];
    // An outer sandbox may forbid this. Where the process runs is then what the caller was given, which is
    // inconvenient and not unsafe.
    if sched::sched_setaffinity(0, &ALL).is_err() {}
}

fn join_keyring(
    name: &CStr,
    permissions: Option<u32>,
    label: Option<&CStr>,
    context: &Context,
) -> Result<()> {
    if let Some(label) = label {
        context.procfs()?.write(c"self/attr/keycreate", label.to_bytes())?;
    }
    let id = match keyring::join_session_keyring(name) {
        // A kernel without keys has none to protect.
        Err(fault) if fault.errno == Errno::NOSYS => return Ok(()),
        result => result?,
    };
    match permissions {
        Some(permissions) => keyring::set_permissions(id, permissions),
        None => Ok(()),
    }
}

fn set_oom_score(value: &CString, context: &Context) -> Result<()> {
    let procfs = context.procfs()?;
    if context.target == 0 {
        return procfs.write(c"self/oom_score_adj", value.to_bytes());
    }
    let mut path = [0u8; 32];
    let fault = Call::Open.fault(Errno::INVAL);
    write!(&mut path[..31], "{}/oom_score_adj", context.target).map_err(|_| fault)?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| fault)?;
    procfs.write(path, value.to_bytes())
}

fn set_apparmor(value: &CString, context: &Context) -> Result<()> {
    let procfs = context.procfs()?;
    match procfs.write(c"self/attr/apparmor/exec", value.to_bytes()) {
        // Before 5.8 there is one file for whichever security module there is.
        Err(fault) if fault.call == Call::Openat2 && fault.errno == Errno::NOENT => {
            procfs.write(c"self/attr/exec", value.to_bytes())
        }
        result => result,
    }
}

/// HOME stays `/` where there is no such file, user or directory, and where the file is not a plain one.
fn find_home(uid: u32, context: &mut Context) {
    const CHUNKS_MAX: usize = 1024;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = fs::openat2(CWD, c"/etc/passwd", flags, Mode::empty(), IN_ROOT) else { return };
    let file = sys::leak(file);
    let mut search = HomeSearch::new(uid);
    let mut chunk = [0; 4096];
    for _ in 0..CHUNKS_MAX {
        match fs::read(file, &mut chunk) {
            Ok(0) => break,
            Ok(length) => {
                if let Some(home) = search.feed(&chunk[..length]) {
                    return context.set_home(home);
                }
            }
            Err(_) => return,
        }
    }
    if let Some(home) = search.finish() {
        context.set_home(home);
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

fn enter_privileged(directory: &Directory, context: &mut Context) -> Result<()> {
    let denied = |errno| matches!(errno, Errno::ACCESS | Errno::PERM);
    let result = match enter(&directory.path) {
        Err(fault) if fault.errno == Errno::NOENT && !directory.missing.is_empty() => {
            make(directory).and_then(|()| enter(&directory.path))
        }
        result => result,
    };
    match result {
        Err(fault) if denied(fault.errno) => {
            context.directory_pending = true;
            Ok(())
        }
        result => result,
    }
}

/// The current directory is the root here, and stays it when this fails before the change.
fn enter(path: &CStr) -> Result<()> {
    fs::fchdir(sys::leak(fs::openat2(CWD, path, DIRECTORY, Mode::empty(), IN_ROOT)?))?;
    let mut buffer = [0; 4096];
    match fs::getcwd(&mut buffer)? {
        [b'/', ..] => Ok(()),
        _ => Err(Call::GetCwd.fault(Errno::XDEV)),
    }
}

fn make(directory: &Directory) -> Result<()> {
    let mut parent = fs::openat2(CWD, c"/", DIRECTORY, Mode::empty(), IN_ROOT)?;
    for (name, path) in &directory.missing {
        parent = match fs::openat2(CWD, path, DIRECTORY, Mode::empty(), IN_ROOT) {
            Err(fault) if fault.errno == Errno::NOENT => {
                unless(Errno::EXIST, fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)))?;
                fs::openat2(CWD, path, DIRECTORY, Mode::empty(), IN_ROOT)?
            }
            result => result?,
        };
    }
    Ok(())
}

/// Lets the user open /dev/stdin and the like again. What belongs to somebody out of reach stays as it is.
fn own_stdio(uid: u32) -> Result<()> {
    const NULL_DEVICE: u64 = 1 << 8 | 3;
    for number in 0..3 {
        let fd = sys::borrow(number);
        let Ok(stat) = fs::fstat(fd) else { continue };
        let is_null =
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == NULL_DEVICE;
        if is_null || stat.st_uid == uid {
            continue;
        }
        match fs::fchown(fd, uid) {
            Err(fault) if !matches!(fault.errno, Errno::PERM | Errno::INVAL | Errno::ROFS) => {
                return Err(fault);
            }
            _ => {}
        }
    }
    Ok(())
}

fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let old = sched::prlimit(pid, resource, None)?;
    if hard <= old.hard {
        return Ok(());
    }
    sched::prlimit(pid, resource, Some(sched::Limit { soft: old.soft, hard })).map(drop)
}

/// Drops all but `keep`, up to the last one the kernel knows, which may be newer than this program.
fn limit_bounding_set(keep: u64) -> Result<()> {
    for capability in (0..64).filter(|capability| keep & 1 << capability == 0) {
        match credential::drop_from_bounding_set(capability) {
            Err(fault) if fault.errno == Errno::INVAL => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

fn become_user(user: &User) -> Result<()> {
    if let Some(groups) = &user.groups {
        let result = credential::setgroups(groups);
        if user.groups_may_be_denied { unless(Errno::PERM, result)? } else { result? }
    }
    if user.already {
        return Ok(());
    }
    credential::setresgid(user.gid)?;
    if user.uid != 0 {
        credential::keep_capabilities()?;
    }
    credential::setresuid(user.uid)
}

fn set_capabilities(sets: CapabilitySets, ambient: u64) -> Result<()> {
    credential::capset(sets)?;
    // The kernel has taken every other one out of the ambient set.
    if sets.permitted & sets.inheritable == 0 {
        return Ok(());
    }
    credential::clear_ambient_set()?;
    (0..64).filter(|capability| ambient & 1 << capability != 0).try_for_each(credential::raise_ambient)
}
