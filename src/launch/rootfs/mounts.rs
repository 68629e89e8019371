//! One entry of `mounts` as a step. Pure.

use std::ffi::CString;

use anyhow::Result;

use super::filesystem::FileSystem;
use super::options::{IdMapOption, Options, Setting};
use super::plan::{Planner, is_deaf};
use super::source::{IdMap, Source};
use super::target::{Base, Target};
use super::{Make, Mount, Step, path};
use crate::error::Failure;
use crate::spec;
use crate::sys::clone::namespace;
use crate::sys::mount::{Propagation, attribute};

/// What may lie over files of /proc, because lxcfs and its like do that; everything else there is refused.
const OVER_PROC: [&str; 10] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/loadavg",
    "proc/meminfo",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/sys/crypto/fips_enabled",
    "proc/sys/kernel/ns_last_pid",
    "proc/uptime",
];

/// File systems that exist for the kernel only: one of them being read-only is a matter of the mount.
const VIRTUAL: [&str; 7] = ["cgroup2", "devpts", "mqueue", "proc", "ramfs", "sysfs", "tmpfs"];

#[derive(Clone, Copy)]
enum Substance<'m> {
    FileSystem(&'m str),
    Bind {
        recursive: bool,
    },
    /// Nothing is mounted; what is there changes.
    Remount,
}

impl<'m> Substance<'m> {
    fn of(mount: &'m spec::Mount<'_>, options: &Options) -> Result<Self> {
        let empty = matches!(mount.kind.as_str(), "" | "none");
        match options.bind {
            Some(recursive) => Ok(Substance::Bind { recursive }),
            None if mount.kind == "bind" => Ok(Substance::Bind { recursive: false }),
            None if options.remount || empty && !options.propagation.is_empty() => Ok(Substance::Remount),
            None if empty => {
                Err(Failure::input("a mount needs a type, or one of the options bind and rbind").into())
            }
            None if mount.kind == "cgroup" => Ok(Substance::FileSystem("cgroup2")),
            None => Ok(Substance::FileSystem(&mount.kind)),
        }
    }
}

/// Whether the mount shows a part of the host, and if so, with the mounts below it. None: it does not.
pub fn binds(mount: &spec::Mount<'_>, linux: &spec::Linux<'_>) -> Result<Option<bool>> {
    let options = Options::parse(&mount.options, &linux.uid_mappings, &linux.gid_mappings)?;
    match Substance::of(mount, &options)? {
        Substance::Bind { recursive } => Ok(Some(recursive)),
        Substance::FileSystem(_) | Substance::Remount => Ok(None),
    }
}

impl Planner<'_> {
    pub fn mount(&mut self, mount: &spec::Mount<'_>) -> Result<()> {
        let options = Options::parse(&mount.options, &self.linux.uid_mappings, &self.linux.gid_mappings)?;
        let substance = Substance::of(mount, &options)?;
        refuse(mount, &options, substance)?;
        let options = match substance {
            Substance::FileSystem(_) => options.of_one_mount(),
            _ => options,
        };
        let destination = path::clean(&mount.destination);
        let over_proc = check_proc(&destination, substance)?;
        let mut target = self.target(&mount.destination)?;
        target.nofollow = options.destination_nofollow;
        target.rigid = matches!(substance, Substance::FileSystem("proc" | "sysfs"));
        let make = match substance {
            Substance::Remount => Make::Remount { top: options.top, below: options.below },
            Substance::Bind { recursive } => self.bind(mount, &options, recursive)?,
            Substance::FileSystem("cgroup2") => self.cgroup(&options)?,
            Substance::FileSystem(kind) => Make::FileSystem(self.file_system(kind, mount, &options)?),
        };
        let bind = matches!(substance, Substance::Bind { .. });
        let fresh = match (&make, substance) {
            (Make::FileSystem(made), Substance::FileSystem(kind)) if !made.copy_up && made.text.is_none() => {
                Some(kind)
            }
            _ => None,
        };
        target.direct &= matches!(make, Make::FileSystem(_)) && !options.destination_nofollow;
        let base = match make {
            Make::Remount { .. } => None,
            _ => self.cover(&destination, fresh, bind),
        };
        if is_late(&options, substance, &destination) {
            self.plan.finish.push(Step::ReadOnlyMount(late_target(base, &target)?));
        }
        let from_proc = destination == "proc" && bind;
        let link = options.copy_link.then(|| CString::new(path::on_host(&mount.source, self.facts.bundle)));
        // What is bound gets its propagation where it is opened.
        let propagation = if bind { Vec::new() } else { options.propagation };
        let step = Mount {
            kind: mount.kind.to_string(),
            origin: mount.source.to_string(),
            make,
            target,
            propagation,
            base,
            over_proc,
            from_proc,
            link: link.transpose()?,
        };
        self.plan.prepare.push(Step::Mount(Box::new(step)));
        Ok(())
    }

    fn bind(&mut self, mount: &spec::Mount<'_>, options: &Options, recursive: bool) -> Result<Make> {
        if mount.source.is_empty() {
            return Err(Failure::input("a bind mount needs a source").into());
        }
        let source = Source {
            recursive,
            nofollow: options.source_nofollow || options.copy_link,
            top: options.top,
            below: options.below,
            propagation: options.propagation.clone(),
            idmap: self.idmap(mount, options)?,
            ..Source::new(&path::on_host(&mount.source, self.facts.bundle))?
        };
        Ok(self.opened(source))
    }

    /// The parent opens what it can: it sees sources that a user namespace does not.
    fn opened(&mut self, mut source: Source) -> Make {
        if !self.facts.privileged {
            return Make::Clone(source);
        }
        // The parent's mounts have not been through the child's first step.
        let (kind, recursive) = self.initial;
        let enough = source.propagation.first().is_some_and(|first| is_deaf(*first));
        if kind != Propagation::Shared && !enough {
            source.propagation.insert(0, (kind, recursive || source.recursive));
        }
        source.keep = self.is_own(namespace::USER);
        self.plan.sources.push(source);
        Make::Opened(self.plan.sources.len() - 1)
    }

    fn idmap(&mut self, mount: &spec::Mount<'_>, options: &Options) -> Result<Option<(usize, bool)>> {
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        let IdMapOption { recursive, uids, gids } = match &options.idmap {
            Some(option) => option.clone(),
            None if mapped => IdMapOption::default(),
            None => return Ok(None),
        };
        if !self.facts.privileged {
            return Err(Failure::input("id-mapped mounts are only possible as root of the machine").into());
        }
        let explicit = !uids.is_empty() || !gids.is_empty();
        let maps = match (explicit, mapped, self.facts.user_namespace) {
            (true, ..) => IdMap::Maps { uids, gids },
            (_, true, _) => {
                IdMap::Maps { uids: mount.uid_mappings.0.clone(), gids: mount.gid_mappings.0.clone() }
            }
            (_, _, Some(path)) => IdMap::Path(CString::new(path)?),
            (_, _, None) => IdMap::Maps {
                uids: self.linux.uid_mappings.0.clone(),
                gids: self.linux.gid_mappings.0.clone(),
            },
        };
        if matches!(&maps, IdMap::Maps { uids, gids } if uids.is_empty() || gids.is_empty()) {
            let message =
                "an id-mapped mount needs both uidMappings and gidMappings, its own or the container's";
            return Err(Failure::input(message).into());
        }
        let known = self.plan.idmaps.iter().position(|other| *other == maps);
        let place = known.unwrap_or_else(|| {
            self.plan.idmaps.push(maps);
            self.plan.idmaps.len() - 1
        });
        Ok(Some((place, recursive)))
    }

    /// The container's own cgroup and what is below it, never more.
    fn cgroup(&mut self, options: &Options) -> Result<Make> {
        let own = match self.facts.cgroup {
            Some(path) => Some(Source { top: options.top, below: options.below, ..Source::new(path)? }),
            None => None,
        };
        match own {
            own if self.is_own(namespace::CGROUP) => Ok(Make::FileSystem(FileSystem {
                source: Some(c"cgroup".to_owned()),
                settings: options.settings.clone(),
                attributes: options.top.bits(),
                substitute: own,
                ..FileSystem::new(c"cgroup2")
            })),
            Some(source) => Ok(self.opened(source)),
            None => Ok(Make::FileSystem(self.empty_directory()?)),
        }
    }

    fn file_system(&self, kind: &str, mount: &spec::Mount<'_>, options: &Options) -> Result<FileSystem> {
        let mut settings = options.settings.clone();
        // Every devpts is a new instance since Linux 4.7.
        settings.retain(|setting| kind != "devpts" || setting.key.as_c_str() != c"newinstance");
        if options.top.set & attribute::RDONLY != 0 && !VIRTUAL.contains(&kind) {
            settings.push(Setting::new("ro", None)?);
        }
        let mut label = None;
        match (kind, self.context()?) {
            ("proc" | "sysfs", _) | (_, None) => {}
            ("mqueue", Some(context)) => label = context.value,
            (_, Some(context)) => settings.push(context),
        }
        let late = is_late(options, Substance::FileSystem(kind), &path::clean(&mount.destination));
        let attributes = if late { options.top.bits() & !attribute::RDONLY } else { options.top.bits() };
        let source = if mount.source.is_empty() { kind } else { &mount.source };
        FileSystem {
            source: Some(CString::new(source)?),
            attributes,
            substitute: self.substitute(kind, options)?,
            label,
            inherit_mode: kind == "tmpfs" && !settings.iter().any(|s| s.key.as_c_str() == c"mode"),
            copy_up: options.copy_up,
            settings,
            ..FileSystem::new(&CString::new(kind)?)
        }
        .with_text()
    }

    /// In a user namespace the kernel gives file systems of namespaces only to those who own the namespace.
    fn substitute(&self, kind: &str, options: &Options) -> Result<Option<Source>> {
        if !self.is_own(namespace::USER) {
            return Ok(None);
        }
        let path = match kind {
            "sysfs" => "/sys",
            "proc" if !self.is_own(namespace::PID) => "/proc",
            "mqueue" if !self.is_own(namespace::IPC) => "/dev/mqueue",
            _ => return Ok(None),
        };
        Ok(Some(Source {
            recursive: true,
            top: options.top,
            read_only: kind == "sysfs",
            ..Source::new(path)?
        }))
    }
}

/// What is asked for but cannot be had.
fn refuse(mount: &spec::Mount<'_>, options: &Options, substance: Substance<'_>) -> Result<()> {
    let mapped = options.idmap.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let message = match (substance, &options.unknown) {
        (Substance::Bind { .. }, Some(word)) => format!("bind mounts have no option {word:?}"),
        (Substance::Remount, Some(word)) => format!("a remount cannot change {word:?}"),
        (Substance::FileSystem(_) | Substance::Remount, _) if mapped => {
            "only bind mounts can be id-mapped".to_owned()
        }
        (Substance::FileSystem(kind), _) if options.copy_up && kind != "tmpfs" => {
            format!("mount option tmpcopyup is for tmpfs, not for {kind}")
        }
        (Substance::Bind { .. } | Substance::Remount, _) if options.copy_up => {
            "mount option tmpcopyup is for tmpfs".to_owned()
        }
        (Substance::FileSystem(_) | Substance::Remount, _)
            if options.copy_link || options.source_nofollow =>
        {
            "mount options copy-symlink and src-nofollow are for bind mounts".to_owned()
        }
        _ => return Ok(()),
    };
    Err(Failure::input(message).into())
}

/// Whether the destination may lie on procfs. A process that trusts its /proc would be deceived by others.
fn check_proc(destination: &str, substance: Substance<'_>) -> Result<bool> {
    if OVER_PROC.contains(&destination) {
        return Ok(true);
    }
    let message = match (destination, substance) {
        (_, Substance::Remount) => return Ok(true),
        ("proc", Substance::FileSystem("proc") | Substance::Bind { .. }) => return Ok(true),
        ("proc", _) => "only a file system of type proc can be mounted on /proc",
        _ if path::below(destination, "proc").is_some() => "this file of /proc cannot be mounted on",
        _ => return Ok(false),
    };
    Err(Failure::input(message).into())
}

/// Read-only, but only after everything in it has been made.
fn is_late(options: &Options, substance: Substance<'_>, destination: &str) -> bool {
    let read_only = options.top.set & attribute::RDONLY != 0;
    read_only && matches!(substance, Substance::FileSystem(kind) if kind == "tmpfs" || destination == "dev")
}

fn late_target(base: Option<Base>, target: &Target) -> Result<Target> {
    Ok(match base {
        Some(base) => Target { base, path: CString::default(), ..target.clone() },
        None => Target { direct: false, ..target.clone() },
    })
}
