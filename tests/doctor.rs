//! `doctor`: what a machine lacks is found, named, and comes with what to do about it.

mod support;
use support::{Deja, Finished, binary, requires};

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("deja-test-").tempdir().expect("a directory")
}

/// The line of one check.
#[track_caller]
fn line(finished: &Finished, check: &str) -> String {
    let text = finished.stdout();
    let lines = text.lines().filter(|line| line.get(9..).is_some_and(|rest| rest.starts_with(check)));
    let found: Vec<&str> = lines.collect();
    assert_eq!(found.len(), 1, "{check}: {finished}");
    found[0].to_owned()
}

#[track_caller]
fn assert_line(finished: &Finished, check: &str, verdict: &str, words: &str) {
    let line = line(finished, check);
    assert!(line.starts_with(verdict) && line.contains(words), "not {verdict} {words:?}: {line}");
}

/// deja behind commands of a shell, in a mount namespace of its own.
fn after(script: &str) -> Deja {
    let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
    let enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
    Deja::bare().wrapped_in(enter).arg("doctor").env("HOME", "/root")
}

#[test]
fn every_check_is_a_line_and_programs_read_the_same() {
    requires!(bed);
    let text = Deja::bare().arg("doctor").ok();
    let report = Deja::bare().args(["doctor", "--json"]).ok().json();
    assert_eq!(report["usable"], true);
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(text.stdout().lines().count(), findings.len(), "{text}");
    for finding in findings {
        let word = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        assert!(["ok", "warning"].contains(&word("verdict").as_str()), "{finding}");
        let line = line(&text, &format!("{:<18}", word("check")));
        assert!(line.starts_with(&word("verdict")), "{line}");
        // What is free may have changed in between.
        if !["state", "sessions"].contains(&word("check").as_str()) {
            assert!(line.contains(&word("what")) && line.ends_with(&word("next")), "{line}");
        }
        assert!(word("verdict") == "ok" || finding["next"] != Value::Null, "{finding}");
    }
    for check in ["kernel", "system calls", "cgroup v2", "user namespaces", "state"] {
        assert_line(&text, check, "ok", "");
    }
}

#[test]
fn without_a_cgroup_tree_no_container_runs() {
    requires!(bed);
    let hidden = "mount -t tmpfs tmpfs /sys/fs/cgroup";
    let finished = after(hidden).output().assert_code(1);
    assert_line(&finished, "cgroup v2", "missing", "-> boot with systemd.unified_cgroup_hierarchy=1");
    let finished = after("mount -o remount,bind,ro /sys/fs/cgroup").output().assert_code(1);
    assert_line(&finished, "cgroup v2", "missing", "cannot make cgroups in /sys/fs/cgroup");
}

#[test]
fn capabilities_that_root_lacks_are_named() {
    requires!(bed, tool "setpriv");
    let without = |name: &str| {
        Deja::bare().wrapped_in(["setpriv", "--bounding-set", &format!("-{name}")]).arg("doctor").output()
    };
    let finished = without("mknod").assert_code(0);
    assert_line(&finished, "capabilities", "warning", "CAP_MKNOD (devices)");
    let finished = without("sys_admin").assert_code(1);
    assert_line(&finished, "capabilities", "missing", "root lacks CAP_SYS_ADMIN (mounts and namespaces)");
}

#[test]
fn criu_is_judged_by_what_it_says() {
    requires!(bed);
    let hidden = "for file in /usr/local/sbin/criu /usr/sbin/criu; do [ ! -e $file ] || mount --bind /dev/null $file; done";
    assert_line(&after(hidden).ok(), "criu", "warning", "not installed: no checkpoint and no restore -> ");
    let directory = temporary();
    let program = directory.path().join("criu");
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    for (script, verdict, words) in [
        ("[ $1 = check ] || echo 'Version: 4.1.1'", "ok", "/criu 4.1.1"),
        ("[ $1 = check ] || echo 'Version: 3.17'", "warning", "/criu 3.17 is too old"),
        (
            "[ $1 != check ] || { echo 'Error: no uffd' >&2; exit 1; }; echo 'Version: 4.1'",
            "warning",
            "no uffd",
        ),
        ("exit 1", "warning", "is too old"),
    ] {
        // Written anew: a file that is open for writing somewhere cannot be executed.
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("write a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        let finished = Deja::bare().env("PATH", &path).arg("doctor").ok();
        assert_line(&finished, "criu", verdict, words);
    }
}

/// A copy of /etc in which files can be written, and in front of deja the commands that put it in place.
struct Etc {
    directory: TempDir,
}

impl Etc {
    fn new() -> Self {
        let directory = temporary();
        for engine in ["containers/containers.conf.d", "docker", "containerd/conf.d", "crio/crio.conf.d"] {
            fs::create_dir_all(directory.path().join("etc").join(engine)).expect("make a directory");
        }
        Self { directory }
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.directory.path().join("etc").join(path), text).expect("write a file");
    }

    /// What `scripts/install` puts in place, naming this program.
    fn install(&self, program: &Path) {
        let template = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install.d").join(name);
            let text = fs::read_to_string(path).expect("a template");
            text.replace("/usr/local/bin/deja", program.to_str().expect("a path"))
        };
        self.write("containers/containers.conf.d/50-deja.conf", &template("podman.conf"));
        self.write("docker/daemon.json", &template("docker.json"));
        self.write("containerd/conf.d/deja.toml", &template("containerd.toml"));
        self.write("containerd/config.toml", "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
        let handler = format!("[crio.runtime.runtimes.deja]\nruntime_path = {program:?}\n");
        self.write("crio/crio.conf.d/50-deja.conf", &handler);
    }

    fn doctor(&self) -> Finished {
        let etc = self.directory.path().join("etc");
        let script = format!("cp -a /etc/passwd /etc/group {0:?}; mount --bind {0:?} /etc", etc);
        after(&script).ok()
    }
}

const ENGINES: [&str; 4] = ["podman", "docker", "containerd", "cri-o"];

#[test]
fn engines_that_call_this_deja_are_fine() {
    requires!(bed);
    let etc = Etc::new();
    let copy = etc.directory.path().join("deja");
    fs::copy(binary(), &copy).expect("copy deja");
    etc.install(&copy);
    let finished = etc.doctor();
    for engine in ENGINES {
        assert_line(&finished, engine, "ok", "/deja ");
    }
    assert_line(&finished, "docker", "ok", "unless told otherwise");
    assert_line(&finished, "containerd", "ok", "can call");
}

#[test]
fn engines_that_call_something_else_are_named() {
    requires!(bed);
    let etc = Etc::new();
    etc.install(Path::new("/nowhere/deja"));
    let finished = etc.doctor();
    for engine in ENGINES {
        assert_line(&finished, engine, "warning", "names /nowhere/deja, which is not there -> ");
    }
    let other = etc.directory.path().join("deja");
    fs::copy("/bin/sh", &other).expect("copy a program");
    etc.install(&other);
    etc.write("docker/daemon.json", "{\"runtimes\": {\"deja\": }");
    etc.write("containerd/config.toml", "version = 2\n");
    let finished = etc.doctor();
    assert_line(&finished, "podman", "warning", "/deja, which is not this deja -> install this one");
    assert_line(
        &finished,
        "docker",
        "warning",
        "/etc/docker/daemon.json is not JSON, so dockerd does not start",
    );
    let copy = etc.directory.path().join("deja");
    fs::remove_file(&copy).expect("remove it");
    fs::copy(binary(), &copy).expect("copy deja");
    assert_line(
        &etc.doctor(),
        "containerd",
        "warning",
        "/etc/containerd/conf.d/deja.toml is not read -> imports",
    );
}

#[test]
fn an_ordinary_user_hears_what_users_need() {
    requires!(bed, userns);
    let directory = temporary();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let doctor = || Deja::bare().user(65_534, 65_534).arg("doctor").env("HOME", directory.path());
    // Neither /run nor a directory of its own.
    let finished = doctor().output().assert_code(1);
    assert_line(&finished, "state", "missing", "\"/run/deja\" cannot be written to");
    let finished = doctor().env("XDG_RUNTIME_DIR", directory.path()).ok();
    assert_line(&finished, "state", "ok", "");
    assert_line(&finished, "user namespaces", "ok", "");
    assert_line(&finished, "cgroup v2", "warning", "-> without limits containers run nevertheless");
    assert_line(&finished, "id ranges", "warning", "usermod --add-subuids");
    assert!(!finished.stdout().contains("capabilities"), "{finished}");
}

#[test]
fn a_limit_of_user_namespaces_is_found() {
    requires!(bed, userns);
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\"";
    let enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    // In a user namespace of its own this limit is nobody else's.
    let finished = Deja::bare().wrapped_in(enter).arg("doctor").output();
    assert_line(&finished, "user namespaces", "warning", "-> sysctl -w user.max_user_namespaces=");
}

#[test]
fn where_nothing_can_be_written_is_said_and_nothing_is_made() {
    requires!(bed);
    let directory = temporary();
    let (root, store) = (directory.path().join("root"), directory.path().join("store"));
    let doctor = || Deja::bare().arg("--root").arg(&root).args(["doctor", "--store"]).arg(&store);
    assert_line(&doctor().ok(), "state", "ok", root.to_str().expect("a path"));
    let script = format!("mount -t tmpfs -o ro tmpfs {:?}; exec \"$0\" \"$@\"", directory.path());
    let enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
    let finished = doctor().wrapped_in(enter).output().assert_code(1);
    assert_line(&finished, "state", "missing", "-> choose another directory with --root");
    assert_line(&finished, "sessions", "warning", "-> choose another directory with --store");
    assert!(!root.exists() && !store.exists());
}
