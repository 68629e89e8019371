//! Bundles: a root file system of busybox and a config.json that a test edits by JSON pointer.
//!
//! `Bundle::new()` is what a careful engine would send: own pid, network, ipc, uts, mount and cgroup
//! namespaces, the default mounts, masked and read-only paths, docker's capabilities.

use super::command::{Deja, Finished};
use super::{Container, deja};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where the small root file system is when it is not at target/rootfs.
pub const ROOTFS_VARIABLE: &str = "DEJA_ROOTFS";

/// The small root file system that `scripts/rootfs` built.
#[track_caller]
pub fn rootfs() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rootfs");
    let path = std::env::var_os(ROOTFS_VARIABLE).map_or_else(default, PathBuf::from);
    assert!(path.join("bin/busybox").exists(), "no root file system at {path:?}: run scripts/rootfs");
    path
}

pub struct Bundle {
    directory: TempDir,
    name: String,
    config: Value,
}

impl Bundle {
    /// A bundle over a copy of the small root file system; its process is `true`.
    #[track_caller]
    pub fn new() -> Self {
        let bundle = Self::empty();
        copy_tree(&rootfs(), &bundle.rootfs());
        bundle
    }

    /// The same bundle with an empty directory for a root file system.
    #[track_caller]
    pub fn empty() -> Self {
        let directory =
            tempfile::Builder::new().prefix("deja-test-").tempdir().expect("create a temporary directory");
        // Containers of other users pass through here.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod the bundle");
        let name = directory.path().file_name().expect("a name").to_string_lossy().replace('.', "_");
        let config = default_config(&name);
        let bundle = Self { directory, name, config };
        fs::create_dir(bundle.rootfs()).expect("create the root file system");
        bundle
    }

    /// The unique name of this bundle: default container id, and last part of its cgroup path.
    pub fn id(&self) -> &str {
        &self.name
    }

    /// The directory with config.json, rootfs/ and the state directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// What `--root` names.
    pub fn state_root(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The cgroup of the container with the default id.
    pub fn cgroup(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/deja-test").join(&self.name)
    }

    /// A file or directory of the bundle, for pid files, sockets, logs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Sets the value at a JSON pointer and makes the objects on the way; `-` appends to an array.
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            if part == "-" {
                if !place.is_array() {
                    *place = json!([]);
                }
                let list = place.as_array_mut().expect("an array");
                list.push(Value::Null);
                place = list.last_mut().expect("the new element");
            } else if let Value::Array(list) = place {
                let index: usize = part.parse().unwrap_or_else(|_| panic!("{pointer}: {part:?} is no index"));
                place = list.get_mut(index).unwrap_or_else(|| panic!("{pointer}: no element {index}"));
            } else {
                if !place.is_object() {
                    *place = json!({});
                }
                place = place.as_object_mut().expect("an object").entry(part).or_insert(Value::Null);
            }
        }
        *place = value;
        self
    }

    #[track_caller]
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, last) = pointer.rsplit_once('/').expect("a JSON pointer");
        match self.config.pointer_mut(parent) {
            Some(Value::Object(map)) => drop(map.remove(last)),
            Some(Value::Array(list)) => drop(list.remove(last.parse().expect("an index"))),
            _ => panic!("remove {pointer}: nothing there"),
        }
        self
    }

    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn args(self, words: &[&str]) -> Self {
        self.set("/process/args", json!(words))
    }

    /// The process is `sh -c SCRIPT`.
    pub fn script(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// The process is the machine's Python, which is mounted over the root's own /usr, with this program.
    #[track_caller]
    pub fn with_python(self, program: &str) -> Self {
        let link = self.rootfs().join("lib64");
        if !link.exists() {
            std::os::unix::fs::symlink("usr/lib64", link).expect("link");
        }
        self.with_file("/program.py", 0o644, program).args(&["/usr/bin/python3", "-B", "/program.py"]).mount(
            json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}),
        )
    }

    /// The process sleeps until it is killed.
    pub fn sleeps(self) -> Self {
        self.args(&["/bin/sleep", "1000"])
    }

    /// A new namespace of this kind, or the one at `path`.
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let entry = path.map_or_else(|| json!({"type": kind}), |path| json!({"type": kind, "path": path}));
        self.without_namespace(kind).set("/linux/namespaces/-", entry)
    }

    pub fn without_namespace(self, kind: &str) -> Self {
        self.edit(|config| {
            if let Some(Value::Array(list)) = config.pointer_mut("/linux/namespaces") {
                list.retain(|entry| entry["type"] != kind);
            }
        })
    }

    pub fn without_mount(self, destination: &str) -> Self {
        self.edit(|config| {
            if let Some(Value::Array(list)) = config.pointer_mut("/mounts") {
                list.retain(|entry| entry["destination"] != destination);
            }
        })
    }

    pub fn mount(self, entry: Value) -> Self {
        self.set("/mounts/-", entry)
    }

    /// A user namespace that maps `count` ids from 0 to `host`; the root file system is given to them.
    #[track_caller]
    pub fn user_namespace(self, host: u32, count: u32) -> Self {
        for path in walk(&self.rootfs()) {
            rustix::fs::chownat(
                rustix::fs::CWD,
                &path,
                Some(rustix::fs::Uid::from_raw(host)),
                Some(rustix::fs::Gid::from_raw(host)),
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .unwrap_or_else(|error| panic!("chown {path:?}: {error}"));
        }
        let mapping = json!([{"containerID": 0, "hostID": host, "size": count}]);
        self.namespace("user", None)
            .set("/linux/uidMappings", mapping.clone())
            .set("/linux/gidMappings", mapping)
    }

    /// Writes a file into the root file system.
    #[track_caller]
    pub fn with_file(self, path: &str, mode: u32, contents: impl AsRef<[u8]>) -> Self {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("create the parent");
        fs::write(&path, contents).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        self
    }

    /// Writes config.json; every verb below does it first.
    #[track_caller]
    pub fn save(&self) {
        let path = self.file("config.json");
        // Whole at any moment: another test's deja may be reading it.
        let draft = self.file(&format!("config.json.{:?}", std::thread::current().id()));
        fs::write(&draft, serde_json::to_vec_pretty(&self.config).expect("JSON"))
            .and_then(|()| fs::rename(&draft, &path))
            .unwrap_or_else(|error| panic!("write {path:?}: {error}"));
    }

    /// deja with this bundle's state directory; verb and arguments are still to come.
    pub fn deja(&self) -> Deja {
        deja(&self.state_root())
    }

    /// `run --bundle …` with more flags still possible before `.arg(id)`.
    pub fn verb(&self, verb: &str) -> Deja {
        self.save();
        self.deja().arg(verb).arg("--bundle").arg(self.path())
    }

    /// Runs the bundle's process to its end.
    #[track_caller]
    pub fn run(&self) -> Finished {
        self.run_with(&[])
    }

    #[track_caller]
    pub fn run_with(&self, flags: &[&str]) -> Finished {
        self.verb("run").args(flags).arg(&self.name).output()
    }

    #[track_caller]
    pub fn create(&self) -> Container<'_> {
        self.create_with(&self.name, &[])
    }

    #[track_caller]
    pub fn create_with(&self, id: &str, flags: &[&str]) -> Container<'_> {
        let created = self.verb("create").args(flags).arg(id).ok();
        Container::adopt(self, id, created)
    }

    /// `run --detach`: created and started.
    #[track_caller]
    pub fn start(&self) -> Container<'_> {
        let created = self.verb("run").arg("--detach").arg(&self.name).ok();
        Container::adopt(self, &self.name, created)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Containers that have no guard any more: the record of each is a directory under --root.
        for entry in fs::read_dir(self.state_root()).into_iter().flatten().flatten() {
            let id = entry.file_name();
            let deleted =
                std::panic::AssertUnwindSafe(|| self.deja().args(["delete", "--force"]).arg(&id).output());
            // The test has said what it had to say; a container that cannot be deleted shows in `Leaks`.
            drop(std::panic::catch_unwind(deleted));
        }
    }
}

/// Every path below and including `root`, parents first; symbolic links are not followed.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            found.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

/// A real copy: a test may destroy its root file system without hurting another one's.
#[track_caller]
fn copy_tree(from: &Path, to: &Path) {
    for source in walk(from) {
        let target = to.join(source.strip_prefix(from).expect("a path below"));
        let kind = fs::symlink_metadata(&source).expect("stat").file_type();
        let copied = if kind.is_symlink() {
            fs::read_link(&source).and_then(|link| symlink(link, &target))
        } else if kind.is_dir() {
            let mode = fs::metadata(&source).map(|metadata| metadata.permissions());
            fs::create_dir_all(&target).and(mode).and_then(|mode| fs::set_permissions(&target, mode))
        } else {
            fs::copy(&source, &target).map(drop)
        };
        copied.unwrap_or_else(|error| panic!("copy {source:?} to {target:?}: {error}"));
    }
}

fn default_config(name: &str) -> Value {
    let capabilities = json!([
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
        "CAP_SYS_CHROOT"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "deja",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "cgroupsPath": format!("/deja-test/{name}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"},
                {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
                "/sys/firmware", "/sys/devices/virtual/powercap"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
