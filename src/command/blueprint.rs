//! The config of a new container and everything that follows from it before anything is made.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use super::birth::Request;
use super::{fair, filters, outside};
use crate::cgroup::Cgroup;
use crate::container::{Listener, Record, Store, VERSION};
use crate::hook::{self, Moment};
use crate::launch::namespaces::{self, Namespaces};
use crate::launch::seccomp::Program;
use crate::launch::{NewContainer, Plan, identity, idmap, netdev, rootfs, sysctl};
use crate::spec::{Linux, Mount, Process, Spec};
use crate::sys::clone::namespace;
use crate::sys::{AsRawFd, OwnedFd, Reason, fs, leak, process};

pub struct Blueprint<'s> {
    pub spec: &'s Spec<'s>,
    pub process: &'s Process<'s>,
    pub linux: &'s Linux<'s>,
    pub namespaces: Namespaces,
    /// The ids of a new user namespace.
    pub maps: Option<idmap::Maps>,
    /// Interfaces that move in.
    pub devices: Vec<netdev::Move>,
    bundle: &'s str,
    root: String,
    /// deja runs as root, here or in a user namespace of its own.
    privileged: bool,
    seccomp: Option<Program>,
    listener: Option<Listener>,
}

impl<'s> Blueprint<'s> {
    pub fn draw(spec: &'s Spec<'s>, bundle: &'s Path, store: &Store) -> Result<Self> {
        let linux = spec.linux.as_ref().context("config.json: linux is missing")?;
        let process = spec.process.as_ref().context("config.json: process is missing")?;
        fair::check(spec.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        let privileged = process::effective_uid() == 0;
        let filter = linux.seccomp.map(|profile| filters::load(store, profile.get())).transpose()?;
        let (seccomp, listener) = match filter {
            Some(filter) => (Some(filter.program), filter.listener),
            None => (None, None),
        };
        let namespaces = Namespaces::plan(linux, namespaces::may_roam(linux)?)?;
        let new_user = namespaces.is_new(namespace::USER);
        let maps = new_user.then(idmap::Facts::read).transpose()?.map(|facts| idmap::plan(linux, facts));
        Ok(Self {
            spec,
            process,
            linux,
            namespaces,
            maps,
            devices: netdev::plan(&linux.net_devices),
            bundle: bundle.to_str().context("the bundle's path is not valid UTF-8")?,
            root: root_path(spec, bundle)?,
            privileged,
            seccomp,
            listener,
        })
    }

    /// What is known before the first process exists.
    pub fn record(&self, id: &str) -> Record {
        let annotations = self.spec.annotations.iter();
        Record {
            version: VERSION,
            id: id.to_owned(),
            oci_version: self.spec.oci_version.to_string(),
            bundle: self.bundle.to_owned(),
            rootfs: self.root.clone(),
            owner: process::effective_uid(),
            annotations: annotations.map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            namespaces: self.namespaces.all(),
            own_pids: self.namespaces.is_new(namespace::PID),
            listener: self.listener.clone(),
            has_hooks: self
                .spec
                .hooks
                .as_ref()
                .is_some_and(|hooks| !(hooks.poststart.is_empty() && hooks.poststop.is_empty())),
            rootless: !self.privileged,
            streams: if self.process.terminal { Vec::new() } else { outside::streams() },
            ..Record::default()
        }
    }

    /// The root that is to be attached on the host, for a container that mounts and has no namespace for that.
    pub fn host_root(&self) -> Option<&str> {
        let on_host = !self.namespaces.all() & namespace::MOUNT != 0;
        (on_host && rootfs::asks_for_mounts(self.spec).is_some()).then_some(&self.root)
    }

    fn hooks(&self, moment: Moment) -> Vec<hook::Prepared> {
        self.spec
            .hooks
            .as_ref()
            .map_or_else(Vec::new, |hooks| hook::prepare(hooks, moment, &self.process.env))
    }

    /// The hooks the parent runs once the namespaces exist.
    pub fn runtime_hooks(&self) -> Vec<hook::Prepared> {
        let mut all = self.hooks(Moment::Prestart);
        all.extend(self.hooks(Moment::CreateRuntime));
        all
    }

    fn has_runtime_work(&self) -> bool {
        let hooks = self.spec.hooks.as_ref();
        let some = hooks.is_some_and(|hooks| !(hooks.prestart.is_empty() && hooks.create_runtime.is_empty()));
        some || !self.devices.is_empty()
    }

    fn has_parent_hooks(&self) -> bool {
        let hooks = self.spec.hooks.as_ref();
        self.has_runtime_work()
            || hooks.is_some_and(|hooks| !(hooks.poststart.is_empty() && hooks.poststop.is_empty()))
    }

    /// Whether the child needs answers before it has everything.
    pub fn asks_early(&self) -> bool {
        let hooks = self.spec.hooks.as_ref();
        self.has_runtime_work() || hooks.is_some_and(|hooks| !hooks.create_container.is_empty())
    }

    /// Whether the child needs answers between `start` and its program.
    pub fn asks_late(&self) -> bool {
        let hooks = self.spec.hooks.as_ref();
        self.listener.is_some() || hooks.is_some_and(|hooks| !hooks.start_container.is_empty())
    }

    /// Who shall own the container's cgroup, as a host's user: the one its program runs as, when it has a cgroup
    /// namespace of its own and may write to its tree. None: it stays deja's; without privileges it cannot be given away.
    pub fn cgroup_owner(&self) -> Option<u32> {
        let writable = |mount: &Mount| {
            let mut options = mount.options.iter().map(|option| &**option);
            let last = options.rfind(|option| ["ro", "rw"].contains(option));
            &*mount.destination == "/sys/fs/cgroup"
                && ["cgroup", "cgroup2"].contains(&&*mount.kind)
                && last != Some("ro")
        };
        let possible = self.privileged && self.namespaces.is_new(namespace::CGROUP);
        if !possible || !self.spec.mounts.iter().any(writable) {
            return None;
        }
        let inside = self.process.user.uid;
        let owner = match self.namespaces.is_new(namespace::USER) {
            true => self.linux.uid_mappings.iter().find_map(|mapping| mapping.host(inside))?,
            // What a user namespace that was there maps is not in config.json.
            false if self.namespaces.all() & namespace::USER != 0 => return None,
            false => inside,
        };
        (owner != process::effective_uid()).then_some(owner)
    }

    pub fn plan(&mut self, request: &Request, cgroup: Option<&Cgroup>, joined: &[OwnedFd]) -> Result<Plan> {
        let rootfs = self.rootfs(request, cgroup)?;
        let sources = rootfs::open_sources(&rootfs)?;
        let identity = self.identity(request)?;
        let seccomp = self.seccomp.take();
        Ok(Plan::new_container(NewContainer {
            identity,
            rootfs,
            sources,
            runtime_hooks: self.has_runtime_work(),
            parent_hooks: self.has_parent_hooks(),
            create_container: self.hooks(Moment::CreateContainer),
            start_container: self.hooks(Moment::StartContainer),
            namespaces: &self.namespaces,
            joined: joined.iter().map(AsRawFd::as_raw_fd).collect(),
            seccomp,
            terminal: self.process.terminal.then_some(self.process.console_size),
            asks_early: self.asks_early(),
            hold: request.hold,
            privileged: self.privileged,
        }))
    }
}

impl Blueprint<'_> {
    fn rootfs(&self, request: &Request, cgroup: Option<&Cgroup>) -> Result<rootfs::Plan> {
        let mountinfo = match request.options.no_pivot {
            true => {
                std::fs::read_to_string("/proc/self/mountinfo").context("read \"/proc/self/mountinfo\"")?
            }
            false => String::new(),
        };
        let user_namespace = self.namespaces.join.iter().find(|join| join.kind == namespace::USER);
        let user_namespace = user_namespace.map(|join| join.path.to_str()).transpose()?;
        let cgroup = cgroup.map(Cgroup::full);
        let facts = rootfs::Facts {
            bundle: self.bundle,
            root: &self.root,
            namespaces: self.namespaces.all(),
            user_namespace,
            privileged: self.privileged,
            cgroup: cgroup.as_deref(),
            selinux: !self.linux.mount_label.is_empty() && identity::selinux_enabled(),
            no_pivot: request.options.no_pivot,
            mountinfo: &mountinfo,
        };
        rootfs::plan(self.spec, &facts)
    }

    fn identity(&self, request: &Request) -> Result<identity::Plan> {
        let namespaces = self.namespaces.all();
        let has = |kind| namespaces & kind != 0;
        let keep_groups = self.spec.annotations.get("run.oci.keep_original_groups");
        let asked = identity::Asked {
            process: self.process,
            init: true,
            hostname: &self.spec.hostname,
            domainname: &self.spec.domainname,
            sysctl: &self.linux.sysctl,
            private: sysctl::Private {
                ipc: has(namespace::IPC),
                network: has(namespace::NETWORK),
                uts: has(namespace::UTS),
                user: has(namespace::USER),
            },
            new_network: self.namespaces.is_new(namespace::NETWORK),
            personality: self.linux.personality.as_ref(),
            memory_policy: self.linux.memory_policy.as_ref(),
            keyring: (!request.options.no_new_keyring).then_some(request.id),
            keep_groups: keep_groups.is_some_and(|value| value != "0" && value != "false"),
            seccomp: self.seccomp.is_some(),
            find_executable: request.hold,
            listen_fds: super::listen_fds()?,
            preserve_fds: request.options.preserve_fds,
        };
        identity::plan(&asked, &identity::Facts::read(self.process, self.user_namespace())?)
    }

    fn user_namespace(&self) -> identity::UserNamespace {
        if let Some(maps) = &self.maps {
            return maps.user_namespace();
        }
        match self.namespaces.all() & namespace::USER {
            0 => identity::UserNamespace::Same,
            _ => identity::UserNamespace::Joined,
        }
    }
}

/// The root as the kernel names it: absolute, with no link in it.
fn root_path(spec: &Spec, bundle: &Path) -> Result<String> {
    let asked = spec.root.as_ref().map(|root| root.path.as_str()).filter(|path| !path.is_empty());
    let path = bundle.join(asked.context("config.json: root.path is missing")?);
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let flags = fs::OFlags::PATH | fs::OFlags::DIRECTORY;
    let root = fs::openat(fs::CWD, &c_path, flags, fs::Mode::empty())
        .map_err(|fault| anyhow!("invalid rootfs {path:?}: {}", Reason(fault.errno)))?;
    let name = fs::path_of(leak(root)).with_context(|| format!("invalid rootfs {path:?}"))?;
    String::from_utf8(name).map_err(|_| anyhow!("invalid rootfs {path:?}: its path is not valid UTF-8"))
}
