//! From the config and a few facts to the list of steps. Pure.

use std::ffi::CString;

use anyhow::{Context, Result};

use super::device::{self, devices};
use super::filesystem::FileSystem;
use super::options::{self, Setting};
use super::source::{IdMap, Source};
use super::target::{Base, Target};
use super::{Step, enter, path};
use crate::error::Failure;
use crate::spec::{self, Spec};
use crate::sys::clone::namespace;
use crate::sys::mount::{Propagation, attribute};

/// What the parent knows before the clone.
pub struct Facts<'f> {
    /// Absolute.
    pub bundle: &'f str,
    /// Absolute, with no link in it.
    pub root: &'f str,
    /// Bits of `namespace` for those the container does not share with the parent.
    pub namespaces: u64,
    /// Where the container's user namespace is, if it is one that exists already.
    pub user_namespace: Option<&'f str>,
    /// The parent may clone mounts and map their ids.
    pub privileged: bool,
    /// The container's own cgroup as a path of the host, there when the child runs.
    pub cgroup: Option<&'f str>,
    pub selinux: bool,
    pub no_pivot: bool,
    /// The parent's /proc/self/mountinfo; only looked at with `no_pivot`.
    pub mountinfo: &'f str,
}

/// Everything the child does to the file system, in three parts with room for others' steps in between.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Mounts and devices.
    pub prepare: Vec<Step>,
    /// Once a terminal is open: /dev/console. Empty without one.
    pub console: Vec<Step>,
    /// What must be hidden, and the step into the root.
    pub finish: Vec<Step>,
    /// What the parent opens, in the order of the places in the steps.
    pub(super) sources: Vec<Source>,
    pub(super) idmaps: Vec<IdMap>,
}

impl Plan {
    /// Whether it gives a label to a root that is made with a namespace and belongs to who made that.
    pub fn labels_queues(&self) -> bool {
        let labels =
            |made: &super::Make| matches!(made, super::Make::FileSystem(made) if made.label.is_some());
        self.prepare.iter().any(|step| matches!(step, Step::Mount(mount) if labels(&mount.make)))
    }
}

/// Plans the container's file system.
pub fn plan(spec: &Spec<'_>, facts: &Facts<'_>) -> Result<Plan> {
    let default = spec::Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&default);
    let own_mounts = facts.namespaces & namespace::MOUNT != 0;
    if !own_mounts {
        match asks_for_mounts(spec) {
            Some(what) => may_mount_on_the_host(what, linux, facts)?,
            None => return Ok(Plan { finish: vec![change_root(facts)?], ..Plan::default() }),
        }
    }
    if !linux.mount_label.is_empty() && !facts.selinux {
        let message = "linux.mountLabel is given, but SELinux is not enabled on this machine";
        return Err(Failure::input(message).into());
    }
    let propagation = root_propagation(linux)?;
    let mut planner = Planner::new(facts, linux);
    match own_mounts {
        true => planner.root(propagation)?,
        false => planner.plan.prepare.push(Step::HostRoot(CString::new(facts.root)?)),
    }
    planner.mounts(&spec.mounts)?;
    planner.dev()?;
    if spec.process.as_ref().is_some_and(|process| process.terminal) {
        planner.plan.console.push(Step::Console);
    }
    planner.masked_paths()?;
    planner.readonly_paths()?;
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    if let Some(process) = spec.process.as_ref().filter(|_| readonly) {
        planner.working_directory(&process.cwd)?;
    }
    if own_mounts {
        enter::plan(&mut planner.plan.finish, facts, readonly, propagation)?;
    } else {
        planner.plan.finish.extend(readonly.then_some(Step::SealRoot { readonly, private: true }));
        planner.plan.finish.push(change_root(facts)?);
    }
    Ok(planner.plan)
}

fn change_root(facts: &Facts<'_>) -> Result<Step> {
    Ok(Step::ChangeRoot(CString::new(facts.root)?))
}

/// The first thing in the config that is done by mounting.
pub fn asks_for_mounts(spec: &Spec<'_>) -> Option<&'static str> {
    let linux = spec.linux.as_ref();
    let asked = [
        ("mounts", !spec.mounts.is_empty()),
        ("root.readonly", spec.root.as_ref().is_some_and(|root| root.readonly)),
        ("process.terminal", spec.process.as_ref().is_some_and(|process| process.terminal)),
        ("linux.devices", linux.is_some_and(|linux| !linux.devices.is_empty())),
        ("linux.maskedPaths", linux.is_some_and(|linux| !linux.masked_paths.is_empty())),
        ("linux.readonlyPaths", linux.is_some_and(|linux| !linux.readonly_paths.is_empty())),
        ("linux.rootfsPropagation", linux.is_some_and(|linux| !linux.rootfs_propagation.is_empty())),
    ];
    asked.into_iter().find_map(|(name, is_there)| is_there.then_some(name))
}

/// A container without a mount namespace has its mounts on the host, below a root that is mounted there, too. A user
/// namespace gives no right to that, and how the host's mounts spread is not a container's to say.
fn may_mount_on_the_host(what: &str, linux: &spec::Linux<'_>, facts: &Facts<'_>) -> Result<()> {
    let what = if linux.rootfs_propagation.is_empty() { what } else { "linux.rootfsPropagation" };
    let own_users = facts.namespaces & namespace::USER != 0;
    if own_users || !facts.privileged || what == "linux.rootfsPropagation" {
        return Err(Failure::input(format!("{what} needs a mount namespace in linux.namespaces")).into());
    }
    Ok(())
}

/// None where the config asks for nothing: slaves of the host below a private root.
fn root_propagation(linux: &spec::Linux<'_>) -> Result<Option<(Propagation, bool)>> {
    let word = linux.rootfs_propagation.as_str();
    match options::propagation(word) {
        None if !word.is_empty() => {
            Err(Failure::input(format!("linux.rootfsPropagation: unknown value {word:?}")).into())
        }
        propagation => Ok(propagation),
    }
}

/// How the host's mounts spread into the container while it is set up: never back, unless that was asked for.
pub fn initial_propagation(asked: Option<(Propagation, bool)>) -> (Propagation, bool) {
    match asked {
        None => (Propagation::Slave, true),
        // A copy of an unbindable root cannot be made; it becomes so in the end.
        Some((Propagation::Unbindable, recursive)) => (Propagation::Private, recursive),
        Some(propagation) => propagation,
    }
}

/// No mount of the host can hear of what the container does.
pub fn is_deaf((kind, recursive): (Propagation, bool)) -> bool {
    recursive && kind != Propagation::Shared
}

pub(super) struct Planner<'p> {
    pub facts: &'p Facts<'p>,
    pub linux: &'p spec::Linux<'p>,
    pub plan: Plan,
    pub initial: (Propagation, bool),
    /// File systems of ours that are on top at their place.
    bases: Vec<(&'static str, Base)>,
    /// Cleaned destinations of all mounts so far.
    mounted: Vec<String>,
    /// /dev comes from somewhere else and stays as it is.
    foreign_dev: bool,
}

/// The places whose fresh file systems serve as bases.
const BASES: [(&str, Base, &str); 3] =
    [("dev", Base::Dev, "tmpfs"), ("proc", Base::Proc, "proc"), ("sys", Base::Sys, "sysfs")];

impl<'p> Planner<'p> {
    pub fn new(facts: &'p Facts<'p>, linux: &'p spec::Linux<'p>) -> Self {
        Self {
            facts,
            linux,
            plan: Plan::default(),
            initial: (Propagation::Slave, true),
            bases: Vec::new(),
            mounted: Vec::new(),
            foreign_dev: false,
        }
    }

    pub fn mounts(&mut self, mounts: &[spec::Mount<'_>]) -> Result<()> {
        let mut all = mounts.iter();
        all.try_for_each(|mount| {
            self.mount(mount).with_context(|| format!("mounts: {:?}", mount.destination))
        })
    }

    pub fn is_own(&self, kind: u64) -> bool {
        self.facts.namespaces & kind != 0
    }

    fn root(&mut self, asked: Option<(Propagation, bool)>) -> Result<()> {
        self.initial = initial_propagation(asked);
        let (kind, recursive) = self.initial;
        self.plan.prepare.push(Step::Propagate { kind, recursive });
        if !is_deaf(self.initial) {
            let paths = path::ancestors(self.facts.root).into_iter().map(CString::new);
            let paths = paths.collect::<Result<_, _>>()?;
            let kind = if kind == Propagation::Slave { kind } else { Propagation::Private };
            self.plan.prepare.push(Step::Isolate { paths, kind });
        }
        self.plan.prepare.push(Step::Root(CString::new(self.facts.root)?));
        Ok(())
    }

    /// Where `text` lies, looked up from the nearest file system of ours.
    pub fn target(&self, text: &str) -> Result<Target> {
        let clean = path::clean(text);
        let between = |base: &str, rest: &str| {
            let whole = format!("{base}/{rest}");
            self.mounted.iter().any(|m| path::below(m, base).is_some() && path::below(&whole, m).is_some())
        };
        let near = self.bases.iter().find_map(|(name, base)| {
            let rest = path::below(&clean, name).filter(|rest| !between(name, rest))?;
            Some((*base, rest))
        });
        let (base, path) = near.unwrap_or((Base::Root, &clean));
        // The kernel makes no link in sysfs that leads out of it.
        let direct = base == Base::Sys || !path.contains('/');
        // In a new tmpfs there is what we have mounted and nothing else.
        let absent = base == Base::Dev && !self.mounted.contains(&clean);
        let path = CString::new(path)?;
        Ok(Target { base, path, direct, rigid: false, nofollow: false, absent, text: text.to_owned() })
    }

    /// Notes that `destination` is covered by a new mount, and says whether that serves as a base.
    pub fn cover(&mut self, destination: &str, fresh: Option<&str>, bind: bool) -> Option<Base> {
        let destination = path::clean(destination);
        let hides = |name: &str| {
            destination.is_empty() || name == destination || path::below(name, &destination).is_some()
        };
        self.bases.retain(|(name, _)| !hides(name));
        if hides("dev") {
            self.foreign_dev = destination == "dev" && bind;
        }
        let base = BASES.iter().find(|(name, _, kind)| *name == destination && fresh == Some(*kind));
        self.bases.extend(base.map(|(name, base, _)| (*name, *base)));
        let result = if destination.is_empty() { Some(Base::Root) } else { base.map(|(_, base, _)| *base) };
        self.mounted.push(destination);
        result
    }

    fn dev(&mut self) -> Result<()> {
        if self.foreign_dev {
            return Ok(());
        }
        let fresh = self.bases.iter().any(|(_, base)| *base == Base::Dev);
        if !fresh {
            self.plan.prepare.push(Step::OpenDev);
        }
        let devices = devices(&self.linux.devices, self.is_own(namespace::USER))?;
        self.plan.prepare.extend(devices.into_iter().map(Step::Device));
        for (name, target) in device::LINKS {
            let (name, target) = (CString::new(name)?, CString::new(target)?);
            self.plan.prepare.push(Step::Link { name, target, replace: false });
        }
        let (name, target) = (c"ptmx".to_owned(), c"pts/ptmx".to_owned());
        self.plan.prepare.push(Step::Link { name, target, replace: true });
        Ok(())
    }

    fn masked_paths(&mut self) -> Result<()> {
        let mut seen: Vec<String> = Vec::new();
        for text in &self.linux.masked_paths {
            let clean = path::clean(text);
            if clean.is_empty() {
                return Err(Failure::input("linux.maskedPaths: the root itself cannot be masked").into());
            }
            if seen.contains(&clean) {
                continue;
            }
            if seen.is_empty() {
                self.plan.finish.push(Step::Cover(self.empty_directory()?));
            }
            let mut target = self.target(text)?;
            target.direct &= target.base != Base::Root;
            self.plan.finish.push(Step::Mask(target));
            seen.push(clean);
        }
        Ok(())
    }

    /// What is mounted on masked directories: empty and never anything else.
    pub fn empty_directory(&self) -> Result<FileSystem> {
        let mut settings = vec![Setting::new("ro", None)?];
        settings.extend(self.context()?);
        Ok(FileSystem { settings, attributes: attribute::RDONLY, ..FileSystem::new(c"tmpfs") })
    }

    /// The setting that labels everything in a new file system.
    pub fn context(&self) -> Result<Option<Setting>> {
        match self.linux.mount_label.as_str() {
            "" => Ok(None),
            label => Setting::new("context", Some(label)).map(Some),
        }
    }

    fn working_directory(&mut self, path: &str) -> Result<()> {
        if !path::clean(path).is_empty() {
            let target = self.target(path)?;
            self.plan.finish.push(Step::WorkingDirectory(target));
        }
        Ok(())
    }

    fn readonly_paths(&mut self) -> Result<()> {
        for text in &self.linux.readonly_paths {
            let mut target = self.target(text)?;
            target.direct &= target.base != Base::Root;
            self.plan.finish.push(Step::ReadOnlyPath(target));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Make;
    use super::*;

    const ALL: u64 =
        namespace::MOUNT | namespace::PID | namespace::NETWORK | namespace::IPC | namespace::CGROUP;

    fn facts(namespaces: u64) -> Facts<'static> {
        Facts {
            bundle: "/bundle",
            root: "/bundle/rootfs",
            namespaces,
            user_namespace: None,
            privileged: true,
            cgroup: Some("/sys/fs/cgroup/c1"),
            selinux: false,
            no_pivot: false,
            mountinfo: "",
        }
    }

    fn planned(json: &str, facts: &Facts<'_>) -> Result<Plan> {
        plan(&serde_json::from_str(json).unwrap(), facts)
    }

    fn refusal(json: &str) -> String {
        format!("{:#}", planned(json, &facts(ALL)).unwrap_err())
    }

    fn targets(plan: &Plan) -> Vec<(Base, String, bool)> {
        let entry = |target: &Target| (target.base, target.path.to_str().unwrap().to_owned(), target.direct);
        let steps = plan.prepare.iter().chain(&plan.finish);
        let target = |step: &Step| match step {
            Step::Mount(mount) => Some(entry(&mount.target)),
            Step::Mask(target) | Step::ReadOnlyPath(target) | Step::ReadOnlyMount(target) => {
                Some(entry(target))
            }
            _ => None,
        };
        steps.filter_map(target).collect()
    }

    #[test]
    fn the_mount_label_is_on_every_new_file_system() {
        let json = r#"{"linux": {"mountLabel": "u:object_r:t:s0", "maskedPaths": ["/proc/acpi"]}, "mounts": [
            {"destination": "/tmp", "type": "tmpfs"}, {"destination": "/dev/mqueue", "type": "mqueue"}]}"#;
        assert!(refusal(json).contains("linux.mountLabel is given, but SELinux is not enabled"));
        let plan = planned(json, &Facts { selinux: true, ..facts(ALL) }).unwrap();
        let labelled = |step: &&Step| match step {
            Step::Mount(mount) => match &mount.make {
                Make::FileSystem(made) => {
                    made.label.is_some() || made.settings.iter().any(|s| s.key.as_c_str() == c"context")
                }
                _ => false,
            },
            _ => false,
        };
        assert_eq!(plan.prepare.iter().filter(labelled).count(), 2);
        assert!(plan.prepare.iter().chain(&plan.finish).any(|step| matches!(step, Step::Mask(_))));
    }

    #[test]
    fn the_smallest_container() {
        let plan = planned("{}", &facts(ALL)).unwrap();
        let words: Vec<String> = plan.prepare.iter().chain(&plan.finish).map(Step::to_string).collect();
        assert_eq!(
            words[..4],
            [
                r#"make the mounts of "/" rslave"#,
                r#"mount the root "/bundle/rootfs""#,
                r#"open "/dev" of the root, a directory and no link"#,
                r#"make the device "/dev/null""#,
            ]
        );
        assert_eq!(words[words.len() - 2..], ["make the root private", "pivot into the root"]);
        assert!(plan.console.is_empty());
    }

    #[test]
    fn what_lies_below_our_own_file_systems_is_looked_up_there() {
        let json = r#"{"mounts":[
            {"destination":"/proc","type":"proc"},
            {"destination":"/dev/","type":"tmpfs","options":["mode=755"]},
            {"destination":"/dev/pts","type":"devpts"},
            {"destination":"/sys","type":"sysfs"},
            {"destination":"/sys/fs/cgroup","type":"cgroup"},
            {"destination":"/dev/pts/x/y","type":"tmpfs"},
            {"destination":"/data/../srv","type":"tmpfs"}],
            "linux":{"maskedPaths":["/proc/kcore","/proc//kcore","/etc/shadow"],"readonlyPaths":["/proc/sys","/opt"]}}"#;
        let expected = [
            (Base::Root, "proc", true),
            (Base::Root, "dev", true),
            (Base::Dev, "pts", true),
            (Base::Root, "sys", true),
            (Base::Sys, "fs/cgroup", true),
            (Base::Root, "dev/pts/x/y", false),
            (Base::Root, "srv", true),
            (Base::Proc, "kcore", true),
            (Base::Root, "etc/shadow", false),
            (Base::Proc, "sys", true),
            (Base::Root, "opt", false),
        ]
        .map(|(base, path, direct)| (base, path.to_owned(), direct));
        assert_eq!(targets(&planned(json, &facts(ALL)).unwrap()), expected);
    }

    #[test]
    fn what_is_mounted_over_a_base_ends_its_use() {
        let json = r#"{"mounts":[
            {"destination":"/dev","type":"tmpfs"},
            {"destination":"/dev","type":"bind","source":"/dev","options":["rbind"]},
            {"destination":"/dev/pts","type":"devpts"}]}"#;
        let plan = planned(json, &facts(ALL)).unwrap();
        assert_eq!(targets(&plan)[2], (Base::Root, "dev/pts".to_owned(), false));
        assert!(!plan.prepare.iter().any(|step| matches!(step, Step::Device(_) | Step::OpenDev)));
    }

    #[test]
    fn a_read_only_tmpfs_is_filled_first() {
        let json = r#"{"mounts":[{"destination":"/dev","type":"tmpfs","options":["ro"]},
            {"destination":"/run","type":"tmpfs","options":["ro"]}]}"#;
        let plan = planned(json, &facts(ALL)).unwrap();
        let late: Vec<_> = plan.finish.iter().filter(|step| matches!(step, Step::ReadOnlyMount(_))).collect();
        assert_eq!(late.len(), 2);
        assert_eq!(
            targets(&plan)[2..],
            [(Base::Dev, String::new(), true), (Base::Root, "run".to_owned(), false)]
        );
    }

    #[test]
    fn without_a_cgroup_namespace_only_the_own_cgroup_is_shown() {
        let json = r#"{"mounts":[{"destination":"/sys/fs/cgroup","type":"cgroup","options":["ro"]}]}"#;
        let plan = planned(json, &facts(ALL & !namespace::CGROUP)).unwrap();
        assert_eq!(plan.sources[0].path.as_c_str(), c"/sys/fs/cgroup/c1");
        let none = Facts { cgroup: None, ..facts(ALL & !namespace::CGROUP) };
        let plan = planned(json, &none).unwrap();
        assert!(plan.sources.is_empty());
        assert!(plan.prepare.iter().any(|step| step.to_string() == r#"mount "cgroup" on "/sys/fs/cgroup""#));
    }

    #[test]
    fn propagation_reaches_the_host_only_when_asked() {
        for (word, initial, isolated, last) in [
            ("", (Propagation::Slave, true), false, None),
            ("rslave", (Propagation::Slave, true), false, None),
            ("slave", (Propagation::Slave, false), true, None),
            ("rprivate", (Propagation::Private, true), false, None),
            ("shared", (Propagation::Shared, false), true, Some((Propagation::Shared, false))),
            ("rshared", (Propagation::Shared, true), true, Some((Propagation::Shared, true))),
            ("runbindable", (Propagation::Private, true), false, Some((Propagation::Unbindable, true))),
        ] {
            let json = format!(r#"{{"linux":{{"rootfsPropagation":"{word}"}}}}"#);
            let plan = planned(&json, &facts(ALL)).unwrap();
            assert_eq!(plan.prepare[0], Step::Propagate { kind: initial.0, recursive: initial.1 }, "{word}");
            assert_eq!(matches!(plan.prepare[1], Step::Isolate { .. }), isolated, "{word}");
            let expected = last.map(|(kind, recursive)| Step::RootPropagation { kind, recursive });
            let found = plan.finish.iter().find(|step| matches!(step, Step::RootPropagation { .. }));
            assert_eq!(found, expected.as_ref(), "{word}");
        }
    }

    #[test]
    fn sources_of_the_host_do_not_spread() {
        let json = r#"{"mounts":[
            {"destination":"/a","source":"/x","options":["rbind"]},
            {"destination":"/b","source":"y","options":["bind","rprivate"]},
            {"destination":"/c","source":"/z","options":["rbind","rshared"]}]}"#;
        let plan = planned(json, &facts(ALL)).unwrap();
        let (slave, private) = ((Propagation::Slave, true), (Propagation::Private, true));
        let spread: Vec<_> = plan.sources.iter().map(|source| source.propagation.clone()).collect();
        assert_eq!(spread, [vec![slave], vec![private], vec![slave, (Propagation::Shared, true)]]);
        assert_eq!(plan.sources[1].path.as_c_str(), c"/bundle/y");
    }

    #[test]
    fn id_maps_are_shared_and_complete() {
        let maps = r#""uidMappings":[{"containerID":0,"hostID":1,"size":2}],"gidMappings":[{"containerID":0,"hostID":1,"size":2}]"#;
        let mount = |name| format!(r#"{{"destination":"/{name}","source":"/s","options":["bind"],{maps}}}"#);
        let json = format!(r#"{{"mounts":[{},{}]}}"#, mount("a"), mount("b"));
        let plan = planned(&json, &facts(ALL)).unwrap();
        assert_eq!((plan.idmaps.len(), plan.sources[1].idmap), (1, Some((0, false))));
        let rootless = Facts { privileged: false, ..facts(ALL) };
        assert!(
            planned(&json, &rootless).unwrap_err().root_cause().to_string().contains("only possible as root")
        );
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let mount = |fields: &str| refusal(&format!(r#"{{"mounts":[{{"destination":"/x",{fields}}}]}}"#));
        for (refused, words) in [
            (
                mount(r#""type":"bind","source":"/s","options":["size=5"]"#),
                r#"mounts: "/x": bind mounts have no option "size=5""#,
            ),
            (mount(r#""type":"bind""#), "a bind mount needs a source"),
            (mount(r#""source":"/s""#), "a mount needs a type"),
            (mount(r#""type":"proc","options":["tmpcopyup"]"#), "tmpcopyup is for tmpfs, not for proc"),
            (mount(r#""type":"tmpfs","options":["idmap"]"#), "only bind mounts can be id-mapped"),
            (mount(r#""type":"tmpfs","options":["src-nofollow"]"#), "are for bind mounts"),
            (
                mount(r#""type":"bind","source":"/s","options":["idmap"]"#),
                "needs both uidMappings and gidMappings",
            ),
            (refusal(r#"{"linux":{"rootfsPropagation":"often"}}"#), r#"unknown value "often""#),
            (refusal(r#"{"linux":{"mountLabel":"l"}}"#), "SELinux is not enabled"),
            (refusal(r#"{"linux":{"maskedPaths":["/."]}}"#), "the root itself cannot be masked"),
        ] {
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn proc_is_no_place_for_other_file_systems() {
        let mount = |destination: &str, kind: &str| {
            let json =
                format!(r#"{{"mounts":[{{"destination":"{destination}","type":"{kind}","source":"/s"}}]}}"#);
            planned(&json, &facts(ALL)).is_ok()
        };
        assert!(mount("/proc", "proc") && mount("/proc", "bind") && mount("/proc/cpuinfo", "bind"));
        for destination in ["/proc/version", "/proc/../proc/sys", "//proc/self/attr"] {
            assert!(!mount(destination, "bind") && !mount(destination, "tmpfs"), "{destination}");
        }
        assert!(!mount("/proc", "tmpfs"));
    }

    #[test]
    fn without_a_mount_namespace_mounts_are_below_a_root_on_the_host() {
        let host = facts(namespace::PID);
        let entered = Step::ChangeRoot(c"/bundle/rootfs".to_owned());
        let nothing = planned("{}", &host).unwrap();
        assert_eq!((nothing.prepare.len(), nothing.finish.as_slice()), (0, [entered].as_slice()));
        let json = r#"{"mounts":[{"destination":"/proc","type":"proc"}],"root":{"path":"r","readonly":true},
            "linux":{"maskedPaths":["/proc/kcore"]}}"#;
        let plan = planned(json, &host).unwrap();
        let words: Vec<String> = plan.prepare.iter().chain(&plan.finish).map(Step::to_string).collect();
        assert_eq!(words[0], r#"open the root "/bundle/rootfs" that is mounted on the host"#);
        assert_eq!(
            words[words.len() - 2..],
            ["make the root read-only", r#"change the root to "/bundle/rootfs""#]
        );
        let refused = |json: &str, facts: &Facts<'_>| planned(json, facts).unwrap_err().to_string();
        let users = facts(namespace::PID | namespace::USER);
        assert_eq!(refused(json, &users), "mounts needs a mount namespace in linux.namespaces");
        let propagation = r#"{"linux":{"rootfsPropagation":"shared"}}"#;
        assert!(refused(propagation, &host).contains("linux.rootfsPropagation needs a mount namespace"));
    }
}
