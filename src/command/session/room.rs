//! The place a command of a session runs in: an overlay of the state's layers, in a mount namespace that is gone with
//! this process, and the config.json of its container.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::session::owners::Owners;
use crate::session::policy::Bounds;
use crate::session::state::State;
use crate::session::store::Store;
use crate::session::{layer, marks};
use crate::sys::clone::{self, namespace};
use crate::sys::fs::{self, AtFlags, CWD, FdPath};
use crate::sys::mount::{self, Change, Lookup, Propagation, UnmountFlags};
use crate::sys::{AsFd, Errno};

/// A mounted overlay in a draft.
pub struct Overlay {
    pub merged: PathBuf,
}

impl Overlay {
    /// Shows `state` with room for changes in `draft`/tree. From here on this process has mounts of its own.
    pub fn mount(store: &Store, state: &State, draft: &Path) -> Result<Self> {
        let [upper, work, merged] = ["tree", "work", "merged"].map(|name| draft.join(name));
        for path in [&upper, &work, &merged] {
            std::fs::create_dir(path).with_context(|| format!("create {path:?}"))?;
        }
        // The root of the overlay is what its topmost directory is.
        let root = &state.root;
        let c_upper = layer::c_path(&upper)?;
        fs::chownat(CWD, &c_upper, root.uid, Some(root.gid), AtFlags::empty())?;
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(root.mode))
            .with_context(|| format!("change the mode of {upper:?}"))?;
        for (name, value) in &root.xattrs {
            marks::set(&c_upper, &CString::new(name.as_slice())?, value)?;
        }
        own_mounts()?;
        let opened: Vec<_> = state
            .layers
            .iter()
            .rev()
            .map(|id| layer::open_directory(&store.layer(id)).with_context(|| store.missing_layer(id)))
            .collect::<Result<_>>()?;
        let lower: Vec<String> = opened.iter().map(fd_path).collect();
        // By descriptor: short, so that a long chain fits, and free of what overlayfs takes for separators.
        let (upper, work) = (layer::open_directory(&upper)?, layer::open_directory(&work)?);
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off,volatile,{}",
            lower.join(":"),
            fd_path(&upper),
            fd_path(&work),
            // For marks of users the kernel knows one way only, and takes no other word for it.
            if marks::are_in_user_namespace() { "userxattr" } else { "redirect_dir=off" }
        );
        let target = layer::c_path(&merged)?;
        match mount::mount(c"deja", &target, c"overlay", 0, &CString::new(options)?) {
            Err(fault) if fault.errno == Errno::NODEV => {
                bail!("mount the session's layers: the kernel has no overlayfs")
            }
            Err(fault) if fault.errno == Errno::PERM => {
                bail!(
                    "mount the session's layers: {fault}: who is not root needs Linux 5.11 for that, and a kernel that lets users mount in namespaces of their own"
                )
            }
            Err(fault) if fault.errno == Errno::INVAL => bail!(
                "mount the session's layers: {fault}: the store's file system may be none that overlayfs can write to (ext4, xfs, btrfs and tmpfs are; an overlay is not): choose another --store"
            ),
            result => result.context("mount the session's layers")?,
        }
        Ok(Self { merged })
    }

    /// Nobody may look at the overlay any more when what it wrote is sealed. The launch keeps a descriptor of its
    /// root, which nobody uses again, so it can only be taken out of sight.
    pub fn unmount(self) -> Result<()> {
        let path = layer::c_path(&self.merged)?;
        mount::umount(&path, UnmountFlags::DETACH).with_context(|| format!("unmount {:?}", self.merged))
    }
}

fn fd_path(fd: &impl AsFd) -> String {
    FdPath::new(fd.as_fd()).as_c_str().to_string_lossy().into_owned()
}

fn own_mounts() -> Result<()> {
    clone::unshare(namespace::MOUNT)
        .context("make a mount namespace for the session's layers (\"deja doctor\" says what users may)")?;
    let everything = Lookup { recursive: true, ..Lookup::default() };
    mount::mount_setattr(CWD, c"/", everything, Change::propagation(Propagation::Slave))
        .context("keep mounts from spreading")
}

/// What the container of a command is.
pub struct Wanted<'w> {
    /// Where its cgroup is; None: whoever runs it decides.
    pub cgroup: Option<String>,
    pub root: &'w Path,
    pub cwd: &'w str,
    /// deja's own file, for process 1.
    pub program: Option<&'w Path>,
    pub words: Vec<String>,
    pub environment: Vec<String>,
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    /// The machine's network instead of none.
    pub network: bool,
    /// The machine's file of name servers, where the tree has a place for it.
    pub resolver: Option<PathBuf>,
    pub bounds: &'w Bounds,
    /// Whose containers these are among others: whatever a session runs counts as one.
    pub tenant: Option<&'w str>,
    pub rights: Rights,
}

/// What the kernel allows whoever runs the container.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// There is a group of terminals.
    pub terminals: bool,
    /// A process may change its groups.
    pub groups: bool,
    /// A sysfs can be mounted, which belongs to the network.
    pub sysfs: bool,
}

impl Rights {
    pub const ALL: Self = Self { terminals: true, groups: true, sysfs: true };

    /// In the user namespace of a store with these owners; None: in one that deja was started in.
    pub fn in_user_namespace(owners: Option<&Owners>, network: bool) -> Self {
        Self {
            terminals: owners.is_none_or(|owners| owners.has_group(TERMINALS)),
            groups: owners.is_none_or(|owners| !owners.is_alone()),
            sysfs: !network,
        }
    }
}

/// The group that terminals belong to, everywhere.
const TERMINALS: u32 = 5;

const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The config.json of a command's container: the same for everybody, so that results are.
pub fn config(wanted: &Wanted) -> Result<Vec<u8>> {
    let privileged = if wanted.uid == 0 { json!(CAPABILITIES) } else { json!([]) };
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let kinds = kinds.iter().filter(|kind| !(wanted.network && **kind == "network"));
    let namespaces: Vec<Value> = kinds.map(|kind| json!({"type": kind})).collect();
    let mut value = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": wanted.uid, "gid": wanted.gid, "umask": wanted.umask},
            "args": wanted.words,
            "env": wanted.environment,
            "cwd": wanted.cwd,
            "capabilities": {"bounding": CAPABILITIES, "effective": privileged, "permitted": privileged},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]
        },
        "root": {"path": wanted.root},
        "hostname": "deja",
        "mounts": mounts(wanted),
        "linux": {
            "resources": resources(wanted.bounds),
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware", "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    });
    if !wanted.rights.groups {
        value["annotations"]["run.oci.keep_original_groups"] = json!("1");
    }
    if let Some(cgroup) = &wanted.cgroup {
        value["linux"]["cgroupsPath"] = json!(cgroup);
    }
    if let Some(tenant) = wanted.tenant {
        value["annotations"]["deja.fair.tenant"] = json!(tenant);
    }
    serde_json::to_vec(&value).context("write config.json")
}

fn resources(bounds: &Bounds) -> Value {
    const PERIOD: u32 = 100_000;
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if let Some(bytes) = bounds.memory {
        resources["memory"] = json!({"limit": bytes, "swap": bytes});
    }
    if let Some(pids) = bounds.pids {
        resources["pids"] = json!({"limit": pids});
    }
    if let Some(thousandths) = bounds.cpus {
        resources["cpu"] =
            json!({"quota": u64::from(thousandths) * u64::from(PERIOD / 1000), "period": PERIOD});
    }
    resources
}

fn mounts(wanted: &Wanted) -> Value {
    let mut terminals = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    if let Some(options) = terminals.as_array_mut().filter(|_| wanted.rights.terminals) {
        options.push(json!(format!("gid={TERMINALS}")));
    }
    let sys = match wanted.rights.sysfs {
        true => json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"]}),
        false => json!({"destination": "/sys", "type": "bind", "source": "/sys",
            "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"]}),
    };
    let mut mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": terminals},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
    ]);
    let Some(list) = mounts.as_array_mut() else { return mounts };
    if let Some(source) = wanted.program {
        list.push(json!({"destination": super::inside::PROGRAM, "type": "bind", "source": source,
            "options": ["bind", "ro", "nosuid", "nodev"]}));
    }
    if let Some(source) = &wanted.resolver {
        list.push(json!({"destination": RESOLVER, "type": "bind", "source": source,
            "options": ["bind", "ro", "nosuid", "nodev", "noexec"]}));
    }
    mounts
}

/// Where programs look for name servers.
pub const RESOLVER: &str = "/etc/resolv.conf";
