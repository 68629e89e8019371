//! `scripts/install` and `scripts/package`: everything in place, nothing of others overwritten, all of it removed.

mod support;
use support::{Deja, Finished, World, binary, requires};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

fn script(name: &str) -> Deja {
    Deja::other(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name))
        .env("HOME", "/root")
        .deadline(Duration::from_secs(55))
}

fn install(tree: &TempDir, more: &[&str]) -> Finished {
    script("install").args(["--destdir"]).arg(tree.path()).args(more).arg("--binary").arg(binary()).ok()
}

/// Every file below a directory, relative to it.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("read a directory").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().strip_prefix(directory).expect("below").to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn everything_is_put_in_place_and_removed_again() {
    requires!(tool "sha256sum");
    let tree = TempDir::new().expect("a directory");
    install(
        &tree,
        &["--prefix", "/opt/deja", "--engine", "podman", "--engine", "docker", "--engine", "containerd"],
    )
    .assert_says("imports = [\"/etc/containerd/conf.d/*.toml\"]");
    let read =
        |path: &str| fs::read_to_string(tree.path().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let installed = Deja::other(tree.path().join("opt/deja/bin/deja")).arg("--version").ok().stdout();
    assert!(installed.starts_with("deja version "), "{installed}");
    for (path, words) in [
        ("opt/deja/share/man/man8/deja.8", ".TH"),
        ("opt/deja/share/bash-completion/completions/deja", "complete"),
        ("opt/deja/share/zsh/site-functions/_deja", "#compdef deja"),
        ("opt/deja/share/fish/vendor_completions.d/deja.fish", "complete"),
        ("etc/containers/containers.conf.d/50-deja.conf", "deja = [\"/opt/deja/bin/deja\"]"),
        ("etc/docker/daemon.json", "\"path\": \"/opt/deja/bin/deja\""),
        ("etc/containerd/conf.d/deja.toml", "BinaryName = \"/opt/deja/bin/deja\""),
    ] {
        assert!(read(path).contains(words), "{path}: {}", read(path));
    }
    // Again, over itself; then one file is no longer ours.
    install(&tree, &["--prefix", "/opt/deja"]);
    fs::write(tree.path().join("etc/docker/daemon.json"), "{}").expect("change a file");
    let remove = ["--uninstall", "--prefix", "/opt/deja", "--destdir"];
    script("install")
        .args(remove)
        .arg(tree.path())
        .ok()
        .assert_says("/etc/docker/daemon.json was changed since: kept");
    assert_eq!(files(tree.path()), [Path::new("etc/docker/daemon.json")]);
    script("install").args(remove).arg(tree.path()).fails().assert_says("nothing was installed");
}

#[test]
fn what_is_somebody_else_s_is_left_alone() {
    requires!(tool "sha256sum");
    let tree = TempDir::new().expect("a directory");
    let daemon = tree.path().join("etc/docker/daemon.json");
    fs::create_dir_all(daemon.parent().expect("a directory")).expect("make it");
    fs::write(&daemon, "{\"debug\": true}").expect("write it");
    install(&tree, &["--engine", "docker"]).assert_says("/etc/docker/daemon.json is there already");
    script("install").args(["--uninstall", "--destdir"]).arg(tree.path()).ok();
    assert_eq!(fs::read_to_string(&daemon).expect("it is there"), "{\"debug\": true}");
    // Beside sections of the CRI plugin's a file of ours would put those out of force.
    let config = tree.path().join("etc/containerd/config.toml");
    fs::create_dir_all(config.parent().expect("a directory")).expect("make it");
    fs::write(&config, "[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n").expect("write it");
    install(&tree, &["--engine", "containerd"]).assert_says("share/deja/containerd.toml to them");
    assert!(!tree.path().join("etc/containerd/conf.d/deja.toml").exists());
    script("install")
        .args(["--engine", "lxc", "--destdir"])
        .arg(tree.path())
        .arg("--binary")
        .arg(binary())
        .fails();
}

#[test]
fn what_containers_need_is_not_removed_under_them() {
    requires!(vm, engine "podman", tool "sha256sum");
    let world = World::new();
    world.ok("rm /etc/containers/containers.conf.d/50-deja.conf /etc/docker/daemon.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
    let install = |flags: &str| world.command(&format!("{} --prefix /run/prefix {flags}", script.display()));
    let files = |places: &str| world.ok(&format!("find {places} ! -type d -exec sha256sum {{}} + | sort"));
    let engines = "/etc/containers /etc/docker /etc/containerd";
    let before = files(engines);
    install("--engine podman --engine docker --binary /usr/local/bin/deja").ok();
    let installed = files(&format!("/run/prefix {engines}"));
    world.import("podman");
    let runtime = "podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}'";
    assert_eq!(world.ok(runtime), "deja /run/prefix/bin/deja");

    world.ok("podman run --detach --name web busy sleep 1000");
    install("--uninstall").fails().assert_says("1 containers are deja's still: remove them first");
    assert_eq!(files(&format!("/run/prefix {engines}")), installed);
    world.ok("podman rm --force --time 0 web");
    // Users' containers need the binary as much as root's.
    world.ok("mkdir -p /run/user/1000/deja/web && touch /run/user/1000/deja/web/record.json");
    install("--uninstall").fails().assert_says("1 containers are deja's still");
    world.ok("rm -r /run/user");
    install("--uninstall").ok().assert_says("removed; 0 files kept");
    assert_eq!(files(engines), before, "what others wrote is as it was");
    assert_eq!(files("/run/prefix"), "");
    assert!(world.ok(runtime).starts_with("crun "), "podman's own default is back");
    install("--uninstall").fails().assert_says("nothing was installed");
}

#[test]
fn a_debian_package_holds_the_same() {
    requires!(tool "dpkg-deb");
    let directory = TempDir::new().expect("a directory");
    let made = script("package").arg("--binary").arg(binary()).arg(directory.path()).ok().stdout();
    let package = made.trim_end();
    let contents = Deja::other("dpkg-deb").args(["--contents", package]).ok().stdout();
    for path in ["./usr/bin/deja", "./usr/share/man/man8/deja.8.gz", "./usr/share/deja/podman.conf"] {
        assert!(contents.lines().any(|line| line.ends_with(path)), "{path}: {contents}");
    }
    assert!(!contents.contains("./etc/"), "{contents}");
    let field = Deja::other("dpkg-deb").args(["--field", package, "Package"]).ok();
    field.assert_stdout("deja");
}
