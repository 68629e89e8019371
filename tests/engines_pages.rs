//! The pages of docs/engines: the commands that they show are run as they are written, and print what the page says.

mod support;
use support::{Bundle, World, requires};

/// The indented lines below a page's heading `Commands`: each a command, and behind `#` what it has to print.
fn commands(page: &str) -> Vec<(String, Option<String>)> {
    let path = format!("{}/docs/engines/{page}.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let section = text.split("\n## ").find(|section| section.starts_with("Commands\n"));
    let section = section.unwrap_or_else(|| panic!("{path} has no commands"));
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    let parts = lines.map(|line| match line.rsplit_once("  # ") {
        Some((command, printed)) => (command.trim_end().to_owned(), Some(printed.to_owned())),
        None => (line.to_owned(), None),
    });
    parts.collect()
}

/// Runs all of a page's commands in this directory of the world; at least so many show what they print.
#[track_caller]
fn run(world: &World, page: &str, directory: &str, telling: usize) {
    let commands = commands(page);
    assert!(commands.iter().filter(|(_, printed)| printed.is_some()).count() >= telling, "{commands:?}");
    for (command, expected) in commands {
        let printed = world.ok(&format!("cd {directory}; {command}"));
        if let Some(expected) = expected {
            assert!(printed.contains(&expected), "{command}: {expected:?} is not in {printed:?}");
        }
    }
    assert_eq!(world.records(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn podman_s_page() {
    requires!(vm, engine "podman", engine "crun", cgroup "memory");
    let world = World::new();
    world.import("podman");
    run(&world, "podman", "/", 8);
}

#[test]
fn buildah_s_page() {
    requires!(vm, engine "podman", engine "buildah");
    let world = World::new();
    world.import("podman");
    run(&world, "buildah", "/", 2);
}

#[test]
fn docker_s_page() {
    requires!(vm, engine "dockerd", engine "runc", cgroup "memory");
    let world = World::new();
    world.daemon("dockerd", "docker version");
    world.import("docker");
    run(&world, "docker", "/", 8);
}

#[test]
fn containerd_s_page() {
    requires!(vm, engine "containerd", cgroup "memory");
    let world = World::new();
    world.daemon("containerd", "ctr version");
    world.archive();
    world.ok("ctr image import /run/busy.tar");
    run(&world, "containerd", "/", 5);
}

#[test]
fn systemd_s_page() {
    requires!(vm, tool "systemctl", cgroup "memory");
    let world = World::with_systemd();
    let bundle = Bundle::new().sleeps().remove("/linux/cgroupsPath");
    bundle.save();
    run(&world, "systemd", &bundle.path().display().to_string(), 4);
}
