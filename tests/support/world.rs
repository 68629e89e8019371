//! A world for an engine: mounts, network, processes, configuration and storage of its own, so that engines
//! run beside other tests and all they start ends with the test.

use super::command::{Deja, Finished, Running, binary};
use super::console::Console;
use super::{eventually, rootfs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The directory of the world is its argument. Process 1 stays a shell, because it has to reap orphans.
const BEGIN: &str = r#"
set -e
mount --make-rshared /
mkdir "$1/bin" "$1/containers" "$1/run"
cp "$DEJA" "$1/bin/deja"
cp -a /etc/containers/. "$1/containers"
mkdir -p "$1/containers/containers.conf.d" /etc/containerd /etc/docker
mount --bind "$1/bin" /usr/local/bin
mount --bind "$1/containers" /etc/containers
for place in /run /var/lib/containers /var/lib/docker /var/lib/containerd /etc/containerd /etc/docker; do
    mount -t tmpfs -o mode=755 tmpfs "$place"
done
mkdir -p /run/lock
# podman keeps its locks there, under one name for all of a machine.
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ip link set lo up
if [ "$2" = systemd ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/system
    # Nothing but systemd itself: services of the machine are nobody's concern here.
    printf '[Unit]\nDefaultDependencies=no\n' >/run/systemd/system/world.target
    touch "$1/ready"
    exec env container=deja /lib/systemd/systemd --unit=world.target --log-target=console --show-status=0
fi
touch "$1/ready"
while sleep 1000; do :; done
"#;

/// From here on a shell and what it starts are in this cgroup.
const JOIN: &str = r#"echo $$ >"$0/cgroup.procs"; exec "$@""#;

/// What the installer puts in place for each engine.
const PODMAN: &str = include_str!("../../scripts/install.d/podman.conf");
const CONTAINERD: &str = include_str!("../../scripts/install.d/containerd.toml");
const DOCKER: &str = include_str!("../../scripts/install.d/docker.json");

pub struct World {
    directory: TempDir,
    keeper: Child,
    init: String,
    /// Where commands run, relative to nothing: in a world with systemd they have to be in its part of the tree.
    cgroup: PathBuf,
}

impl World {
    /// A world in which podman, docker and containerd are configured as `scripts/install` does it.
    #[track_caller]
    pub fn new() -> Self {
        let world = Self::begin("shell", Path::new("/sys/fs/cgroup/init.scope"), &[]);
        // There is no systemd in the bed.
        world.configure("cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n");
        world
    }

    /// The same, with systemd as process 1 of a cgroup tree of its own.
    #[track_caller]
    pub fn with_systemd() -> Self {
        let name = tempfile::Builder::new().prefix("deja-test-").tempdir().expect("a unique name");
        let root = Path::new("/sys/fs/cgroup").join(name.path().file_name().expect("a name"));
        let cgroup = root.join("commands");
        std::fs::create_dir_all(&cgroup).expect("make the world's cgroup");
        let mut world = Self::begin("systemd", &root, &["--cgroup"]);
        // A cgroup with processes of its own hands nothing down.
        let keeper = world.keeper.id().to_string();
        std::fs::write(cgroup.join("cgroup.procs"), keeper).expect("move the keeper");
        world.cgroup = cgroup;
        world.configure("cgroup_manager = \"systemd\"\nevents_logger = \"file\"\n");
        let state = || world.command("systemctl is-system-running").output().stdout();
        eventually("systemd to run", || {
            ["running\n", "degraded\n"].contains(&state().as_str()).then_some(())
        });
        world
    }

    #[track_caller]
    fn begin(kind: &str, cgroup: &Path, more: &[&str]) -> Self {
        let directory =
            tempfile::Builder::new().prefix("deja-test-").tempdir().expect("create a temporary directory");
        let flags = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut keeper = Command::new("bash")
            .args(["-c", JOIN])
            .arg(cgroup)
            .arg("unshare")
            .args(flags)
            .args(more)
            .args(["--propagation", "private", "bash", "-c", BEGIN, "world"])
            .arg(directory.path())
            .arg(kind)
            .env("DEJA", binary())
            .stdin(Stdio::null())
            .spawn()
            .expect("start unshare");
        let ready = directory.path().join("ready");
        eventually("the world to be ready", || {
            assert!(keeper.try_wait().expect("wait for unshare").is_none(), "the world ended");
            ready.exists().then_some(())
        });
        let pid = keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let init = children.expect("the keeper's children").trim().to_owned();
        Self { directory, keeper, init, cgroup: cgroup.to_owned() }
    }

    /// The world's part of the cgroup tree as seen from outside.
    pub fn cgroups(&self) -> &Path {
        self.cgroup.parent().expect("the cgroup of commands is not the root")
    }

    fn configure(&self, podman: &str) {
        self.write("/etc/containers/containers.conf.d/50-deja.conf", PODMAN);
        // Networks cost seconds under emulation: only tests of networks have one.
        let bed = format!("[containers]\nnetns = \"none\"\n\n[engine]\n{podman}");
        self.write("/etc/containers/containers.conf.d/60-bed.conf", &bed);
        self.write("/etc/docker/daemon.json", DOCKER);
        self.write("/etc/containerd/conf.d/deja.toml", CONTAINERD);
        let imports = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
        self.write("/etc/containerd/config.toml", imports);
    }

    /// The world's files as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(&self.init).join("root").join(inside.trim_start_matches('/'))
    }

    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        let made = std::fs::create_dir_all(path.parent().expect("a directory"));
        made.and_then(|()| std::fs::write(&path, text)).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// A command in the world behind the flags of this program.
    fn enter(&self, outer: &str, flags: &[&str], line: &str) -> Deja {
        self.enter_in(&self.cgroup, outer, flags, line)
    }

    /// The same in this cgroup, as it is seen from outside.
    pub fn enter_in(&self, cgroup: &Path, outer: &str, flags: &[&str], line: &str) -> Deja {
        let enter = ["--mount", "--net", "--pid", "--cgroup", "--wdns=/", "--target", &self.init];
        let command = Deja::other(outer).args(flags).args(["bash", "-c", JOIN]).arg(cgroup);
        command.arg("nsenter").args(enter).args(["--", "bash", "-c", line]).env("HOME", "/root")
    }

    /// A command in the world, as a shell reads it.
    pub fn command(&self, line: &str) -> Deja {
        self.enter("env", &[], line)
    }

    /// Runs a command that succeeds; gives what it printed, without the last line's end.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.command(line).ok().stdout().trim_end().to_owned()
    }

    /// Runs a command that ends with this code.
    #[track_caller]
    pub fn fails(&self, line: &str, code: i32) -> Finished {
        self.command(line).output().assert_code(code)
    }

    /// Starts a daemon, which ends with the world; `answers` succeeds as soon as it is ready.
    #[track_caller]
    pub fn daemon(&self, line: &str, answers: &str) {
        let name = line.split(' ').next().expect("a program");
        self.ok(&format!("setsid {line} >/run/{name}.log 2>&1 </dev/null &"));
        let mut tries = 0;
        while !self.command(answers).output().status.success() {
            tries += 1;
            let log = || std::fs::read_to_string(self.path(&format!("/run/{name}.log"))).unwrap_or_default();
            assert!(tries < 200, "{name} does not answer:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    }

    /// Runs a command on a terminal of its own.
    #[track_caller]
    pub fn on_terminal(&self, line: &str) -> (Console, Running) {
        let (console, terminal) = Console::open();
        let command = self.enter("setsid", &["--ctty", "--wait"], line).env("TERM", "xterm");
        (console, command.spawn_on(&terminal))
    }

    /// The small root file system as an image called `busy`, whose program is a shell.
    #[track_caller]
    pub fn import(&self, engine: &str) {
        let rootfs = rootfs();
        let change = r#"--change 'CMD ["/bin/sh"]'"#;
        self.ok(&format!("tar -C {} -c . | {engine} import {change} - busy", rootfs.display()));
    }

    /// The same as an archive that containerd imports, at /run/busy.tar; its program only sleeps, so that it also serves
    /// as the one that keeps a pod.
    #[track_caller]
    pub fn archive(&self) {
        let script = r#"
            set -e
            mkdir /run/busy && tar -C "$0" -cf /run/busy/layer.tar .
            sum=$(sha256sum </run/busy/layer.tar | cut -d " " -f 1)
            printf '{"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "1000"]},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' "$sum" >/run/busy/config.json
            printf '[{"Config": "config.json", "RepoTags": ["localhost/busy:latest"], "Layers": ["layer.tar"]}]' \
                >/run/busy/manifest.json
            tar -C /run/busy -cf /run/busy.tar ."#;
        let line = format!("bash -c \"$SCRIPT\" {}", rootfs().display());
        self.command(&line).env("SCRIPT", script).ok();
    }

    /// The containers that deja knows, wherever the engines keep their records.
    pub fn records(&self) -> Vec<PathBuf> {
        let roots = ["/run/deja", "/run/containerd/runc/default", "/run/docker/runtime-runc/moby"];
        let entries = roots.iter().flat_map(|root| std::fs::read_dir(self.path(root))).flatten().flatten();
        let hidden = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes()[0] == b'.');
        entries.map(|entry| entry.path()).filter(|path| !hidden(path)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Both fail only when the world has ended already.
        self.keeper.kill().ok();
        self.keeper.wait().ok();
    }
}
