//! Who and what the process is: limits, credentials, labels, directory, program.
//!
//! `plan` decides everything from the config and a few facts, and gives steps in four groups; `perform` does
//! one of them with system calls only. The groups and who is in charge when:
//!
//! ```text
//! outside   by the parent on the child, before the child goes on; only with a user namespace, where the
//!           child is not privileged enough. A child that joins one does them itself before it does.
//! early     by the child, as soon as it is in its namespaces, before the rootfs is made
//! user      by the child in its root, with `/` as current directory, after the hooks that set up the
//!           network; afterwards it is the user, and may wait for `start`
//! last      by the child just before seccomp(2), which comes after all of these in every case
//! then      Image::execute
//! ```
//!
//! After seccomp(2) no capability is given up: execve takes all that are not inheritable, ambient or (for
//! root) in the bounding set, and a filter need not allow capset.

mod capability;
mod image;
mod limit;
mod perform;
mod schedule;
mod step;
mod user;

use std::ffi::CString;

use anyhow::{Result, bail, ensure};

pub use capability::names as capability_names;
pub use image::Image;
pub use perform::{Context, perform};
pub use schedule::{memory_policy_flags, memory_policy_modes};
pub use step::Step;
pub use user::{parse_id, parse_user};

use super::sysctl::{self, Private};
use crate::spec::{self, Map, MemoryPolicy, Personality, Process, Str};
use crate::sys::credential;
use crate::sys::procfs::Reach;
use step::{Directory, User};

/// What the config, the command line and the kind of launch ask for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub process: &'a Process<'a>,
    /// The first process of a container, not one of `exec`.
    pub init: bool,
    /// Empty: not set.
    pub hostname: &'a str,
    pub domainname: &'a str,
    pub sysctl: &'a Map<'a, Str<'a>>,
    pub private: Private,
    /// A network namespace was made and its `lo` is down.
    pub new_network: bool,
    pub personality: Option<&'a Personality<'a>>,
    pub memory_policy: Option<&'a MemoryPolicy<'a>>,
    /// The container whose session keyring is joined; None for `--no-new-keyring`.
    pub keyring: Option<&'a str>,
    /// The annotation `run.oci.keep_original_groups`.
    pub keep_groups: bool,
    /// A seccomp filter will be loaded.
    pub seccomp: bool,
    /// Look for the executable before waiting for `start`; otherwise exec itself finds out.
    pub find_executable: bool,
    pub listen_fds: u32,
    pub preserve_fds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// None but the one deja runs in.
    Same,
    New {
        /// Container id 0 is mapped, as user and as group.
        root: bool,
        /// setgroups(2) is not denied.
        groups: bool,
    },
    Joined,
}

/// What is true on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub user_namespace: UserNamespace,
    /// Every user and group id of this process is 0.
    pub root: bool,
    /// What this process could hand on: its permitted capabilities.
    pub permitted: u64,
    pub apparmor: bool,
    pub selinux: bool,
}

impl Facts {
    pub fn read(process: &Process<'_>, user_namespace: UserNamespace) -> Result<Self> {
        let enabled = |label: &Option<Str<'_>>, test: fn() -> bool| label.is_some() && test();
        Ok(Self {
            user_namespace,
            root: credential::started_as_root(),
            permitted: credential::capget()?.permitted,
            apparmor: enabled(&process.apparmor_profile, apparmor_enabled),
            selinux: enabled(&process.selinux_label, selinux_enabled),
        })
    }
}

fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// What a label is refused with where it would mean nothing.
pub const NO_SELINUX: &str = "selinux label is specified in config, but selinux is disabled or not supported";

pub fn selinux_enabled() -> bool {
    std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
}

pub struct Plan {
    pub outside: Vec<Step>,
    pub early: Vec<Step>,
    pub user: Vec<Step>,
    pub last: Vec<Step>,
    pub image: Image,
    /// The first descriptor that the program does not get.
    pub first_closed: u32,
    /// One line each, to be logged when the launch goes on.
    pub warnings: Vec<String>,
}

const UMASK: u32 = 0o022;

pub fn plan(asked: &Asked<'_>, facts: &Facts) -> Result<Plan> {
    let process = asked.process;
    let mut warnings = Vec::new();
    let image = Image::new(process, &listen_variables(asked))?;
    let priorities = priorities(process)?;
    let limits = limit::limits(&process.rlimits)?;
    let same = facts.user_namespace == UserNamespace::Same;

    let mut outside = Vec::new();
    let mut user = Vec::new();
    if process.terminal {
        user.push(Step::ControllingTerminal);
    }
    user.extend(sysctl::plan(asked.sysctl, asked.private, asked.domainname)?.into_iter().map(Step::Sysctl));
    user.extend(environment_of_memory(asked)?);
    if same {
        user.extend(priorities);
    } else {
        outside.extend(priorities);
        outside.extend(limits.iter().map(|(resource, limit)| Step::RaiseHardLimit(*resource, limit.hard)));
    }
    user.extend(labels(process, facts)?);
    if image.home_unset() {
        user.push(Step::Home { uid: process.user.uid });
    }
    let directory = working_directory(process, asked.init)?;
    let again = directory.as_ref().map(|directory| Step::WorkingDirectoryAsUser(directory.path.clone()));
    user.extend(directory.map(Step::WorkingDirectory));
    if process.user.uid != 0 {
        user.push(Step::StdioOwner(process.user.uid));
    }
    user.extend(limits.into_iter().map(|(resource, limit)| Step::Limit(resource, limit)));
    let last = credentials(asked, facts, &mut user, &mut warnings)?;
    user.extend(again);
    if let Some(list) = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.last.as_ref()) {
        user.push(Step::Processors(Some(schedule::processors(list)?)));
    }
    if process.no_new_privileges {
        user.push(Step::NoNewPrivileges);
    }
    if asked.find_executable {
        user.push(Step::FindExecutable);
    }
    let first_closed = 3 + asked.listen_fds + asked.preserve_fds;
    user.push(Step::CloseOnExec(first_closed));

    let procfs = reach(&user);
    if let Some(reach) = reach(&outside) {
        outside.insert(0, Step::OpenProcfs(reach));
    }
    let early = early(asked, facts, procfs)?;
    Ok(Plan { outside, early, user, last, image, first_closed, warnings })
}

/// Which part of procfs the steps write to.
fn reach(steps: &[Step]) -> Option<Reach> {
    if steps.iter().any(|step| matches!(step, Step::Sysctl(_))) {
        return Some(Reach::Sysctls);
    }
    let process =
        |step: &Step| matches!(step, Step::OomScore(..) | Step::AppArmor { .. } | Step::SelinuxLabel(_));
    steps.iter().any(process).then_some(Reach::Processes)
}

fn early(asked: &Asked<'_>, facts: &Facts, procfs: Option<Reach>) -> Result<Vec<Step>> {
    let process = asked.process;
    let mut steps = Vec::new();
    match facts.user_namespace {
        UserNamespace::Same | UserNamespace::New { root: false, .. } => {}
        UserNamespace::New { .. } => steps.push(Step::BecomeRoot { may_be_unmapped: false }),
        UserNamespace::Joined => steps.push(Step::BecomeRoot { may_be_unmapped: true }),
    }
    let label = process.selinux_label();
    let label_keyring = asked.keyring.is_some() && label.is_some();
    if let Some(reach) = procfs.or(label_keyring.then_some(Reach::Processes)) {
        steps.push(Step::OpenProcfs(reach));
    }
    steps.push(Step::NewSession);
    let initial = process.exec_cpu_affinity.as_ref().and_then(|affinity| affinity.initial.as_ref());
    steps.push(Step::Processors(initial.map(|list| schedule::processors(list)).transpose()?));
    if let Some(id) = asked.keyring {
        let name = CString::new(format!("_ses.{id}"))?;
        let permissions = asked.init.then(|| keyring_permissions(facts.user_namespace));
        steps.push(Step::JoinKeyring { name, permissions, label: label.map(Str::to_c) });
    }
    for (name, field) in [(asked.hostname, "hostname"), (asked.domainname, "domainname")] {
        if name.is_empty() {
            continue;
        }
        ensure!(name.len() <= 64, "{field} {name:?} is longer than 64 bytes");
        let value = CString::new(name)?;
        steps.push(if field == "hostname" { Step::Hostname(value) } else { Step::Domainname(value) });
    }
    if asked.new_network {
        steps.push(Step::LoopbackUp);
    }
    Ok(steps)
}

/// What the kernel gives a new session keyring, and the search without which `exec` could not join it: for
/// the user, or, in a user namespace where many users stand for one, for others.
fn keyring_permissions(user_namespace: UserNamespace) -> u32 {
    const NEW: u32 = 0x3f13_0000;
    const USER_SEARCH: u32 = 0x0008_0000;
    const OTHER_SEARCH: u32 = 0x0000_0008;
    match user_namespace {
        UserNamespace::Same => NEW | USER_SEARCH,
        UserNamespace::New { .. } | UserNamespace::Joined => NEW | OTHER_SEARCH,
    }
}

fn listen_variables(asked: &Asked<'_>) -> Vec<String> {
    match asked.listen_fds {
        0 => Vec::new(),
        number => vec![format!("LISTEN_FDS={number}"), "LISTEN_PID=1".to_owned()],
    }
}

/// What takes a privilege over the whole machine.
fn priorities(process: &Process<'_>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(asked) = &process.scheduler {
        steps.push(Step::Scheduler(schedule::scheduler(asked)?));
    }
    if let Some(asked) = &process.io_priority {
        steps.push(Step::IoPriority(schedule::io_priority(asked)?));
    }
    if let Some(score) = process.oom_score_adj {
        ensure!((-1000..=1000).contains(&score), "oomScoreAdj {score} is not between -1000 and 1000");
        steps.push(Step::OomScore(score, CString::new(score.to_string())?));
    }
    Ok(steps)
}

fn environment_of_memory(asked: &Asked<'_>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(policy) = asked.memory_policy {
        let (mode, nodes) = schedule::memory_policy(policy)?;
        steps.push(Step::MemoryPolicy { mode, nodes });
    }
    if let Some(asked) = asked.personality {
        steps.push(Step::Personality(schedule::personality(asked)?));
    }
    Ok(steps)
}

fn labels(process: &Process<'_>, facts: &Facts) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let set = |label: &Option<Str<'_>>| label.as_ref().filter(|text| !text.is_empty()).map(Str::to_string);
    if let Some(profile) = set(&process.apparmor_profile) {
        let value = CString::new(format!("exec {profile}"))?;
        match (facts.apparmor, profile.as_str()) {
            (true, _) => steps.push(Step::AppArmor { profile, value }),
            // Without AppArmor every process is what this profile makes it.
            (false, "unconfined") => {}
            (false, _) => bail!("apparmor: config provided but apparmor not supported"),
        }
    }
    if let Some(label) = process.selinux_label() {
        ensure!(facts.selinux, NO_SELINUX);
        steps.push(Step::SelinuxLabel(label.to_c()));
    }
    Ok(steps)
}

/// None for `/`, where the child is anyway.
fn working_directory(process: &Process<'_>, create: bool) -> Result<Option<Directory>> {
    let cwd = &process.cwd;
    if cwd.bytes().all(|byte| byte == b'/') {
        return Ok(None);
    }
    let mut missing = Vec::new();
    let mut path = String::new();
    for name in cwd.split('/').filter(|name| create && !name.is_empty()) {
        path.push('/');
        path.push_str(name);
        missing.push((CString::new(name)?, CString::new(path.as_str())?));
    }
    Ok(Some(Directory { path: cwd.to_c(), missing }))
}

/// Appends what makes the child the user; gives what is left to do just before seccomp(2).
fn credentials(
    asked: &Asked<'_>,
    facts: &Facts,
    steps: &mut Vec<Step>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>> {
    let process = asked.process;
    let spec::User { uid, gid, umask, additional_gids } = &process.user;
    let held = match facts.user_namespace {
        UserNamespace::Same => facts.permitted,
        UserNamespace::New { .. } | UserNamespace::Joined => capability::ALL,
    };
    let granted = capability::grant(process.capabilities.as_ref(), held, warnings);
    steps.push(Step::BoundingSet { keep: granted.bounding });
    steps.push(Step::Umask(umask.unwrap_or(UMASK)));
    steps.push(Step::User(User {
        uid: *uid,
        gid: *gid,
        groups: groups(asked, facts)?,
        groups_may_be_denied: facts.user_namespace == UserNamespace::Joined && additional_gids.is_empty(),
        already: facts.user_namespace == UserNamespace::Same && facts.root && (*uid, *gid) == (0, 0),
    }));
    // seccomp(2) wants either no_new_privs or this capability.
    let mut sets = granted.sets;
    let needs_admin = asked.seccomp && !process.no_new_privileges && held & capability::SYS_ADMIN != 0;
    if needs_admin {
        sets.permitted |= capability::SYS_ADMIN;
    }
    steps.push(Step::Capabilities { sets, ambient: granted.ambient });
    if !needs_admin || sets.effective & capability::SYS_ADMIN != 0 {
        return Ok(Vec::new());
    }
    sets.effective |= capability::SYS_ADMIN;
    Ok(vec![Step::Capabilities { sets, ambient: granted.ambient }])
}

fn groups(asked: &Asked<'_>, facts: &Facts) -> Result<Option<Vec<u32>>> {
    let additional = &asked.process.user.additional_gids;
    if asked.keep_groups {
        ensure!(
            additional.is_empty(),
            "process.user.additionalGids cannot be set together with run.oci.keep_original_groups"
        );
        return Ok(None);
    }
    if let UserNamespace::New { groups: false, .. } = facts.user_namespace {
        ensure!(additional.is_empty(), "cannot set any additional groups in a rootless container");
        return Ok(None);
    }
    Ok(Some(additional.0.clone()))
}
