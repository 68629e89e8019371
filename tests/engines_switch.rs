//! A host goes from another runtime to deja and back while containers run, and none is lost: each is managed by the
//! runtime that made it, for as long as the engine's configuration names it.

mod support;
use support::{World, eventually, requires};

/// Starts a container that ends with 3 when it is asked to.
#[track_caller]
fn start(world: &World, engine: &str, name: &str) {
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    world.ok(&format!(
        "{engine} run --detach --pids-limit -1 --network none --name {name} busy sh -c \"{script}\""
    ));
    let ready = || world.ok(&format!("{engine} logs {name}")) == "ready";
    eventually("it to be ready", || ready().then_some(()));
}

/// The container runs and its runtime can be asked for something.
#[track_caller]
fn assert_alive(world: &World, engine: &str, name: &str) {
    assert_eq!(world.ok(&format!("{engine} exec {name} echo in-{name}")), format!("in-{name}"));
    assert_eq!(world.ok(&format!("{engine} inspect {name} --format '{{{{.State.Status}}}}'")), "running");
}

#[track_caller]
fn assert_ends(world: &World, engine: &str, name: &str) {
    world.ok(&format!("{engine} stop --time 60 {name}"));
    assert_eq!(world.ok(&format!("{engine} wait {name}")), "3");
    world.ok(&format!("{engine} start {name} && {engine} kill {name} && {engine} rm {name}"));
}

#[test]
fn podman_switches_with_containers_running() {
    requires!(vm, engine "podman", engine "crun");
    let world = World::new();
    world.import("podman");
    let default = |name: &str| {
        let file = "/etc/containers/containers.conf.d/90-default.conf";
        world.write(file, &format!("[engine]\nruntime = \"{name}\"\n"));
    };
    let runtimes = |names: &str| world.ok(&format!("podman inspect {names} --format '{{{{.OCIRuntime}}}}'"));
    default("crun");
    for name in ["stays", "ends"] {
        start(&world, "podman", name);
    }
    default("deja");
    start(&world, "podman", "later");
    assert_eq!(runtimes("stays ends later"), "crun\ncrun\ndeja");
    assert_alive(&world, "podman", "stays");
    assert_alive(&world, "podman", "later");
    assert_ends(&world, "podman", "ends");
    default("crun");
    assert_eq!(runtimes("stays later"), "crun\ndeja");
    assert_alive(&world, "podman", "stays");
    assert_alive(&world, "podman", "later");
    assert_ends(&world, "podman", "stays");
    assert_ends(&world, "podman", "later");
    assert_eq!(world.ok("podman ps --all --quiet"), "");
    eventually("every record to go", || world.records().is_empty().then_some(()));
}

#[test]
fn docker_switches_with_containers_running() {
    requires!(vm, engine "dockerd", tool "jq");
    let world = World::new();
    let set = |name: &str| {
        world.ok(&format!(
            "jq '.\"default-runtime\" = \"{name}\"' /etc/docker/daemon.json >/run/daemon.json \
             && cp /run/daemon.json /etc/docker/daemon.json"
        ));
    };
    let default = |name: &str| {
        set(name);
        // What `systemctl reload docker` does.
        world.ok("kill -HUP $(cat /run/docker.pid)");
        let now = || world.ok("docker info --format '{{.DefaultRuntime}}'");
        eventually("the other default", || (now() == name).then_some(()));
    };
    let runtimes =
        |names: &str| world.ok(&format!("docker inspect {names} --format '{{{{.HostConfig.Runtime}}}}'"));
    set("runc");
    world.daemon("dockerd", "docker version");
    world.import("docker");
    start(&world, "docker", "stays");
    default("deja");
    start(&world, "docker", "later");
    assert_eq!(runtimes("stays later"), "runc\ndeja");
    assert_alive(&world, "docker", "stays");
    assert_alive(&world, "docker", "later");
    default("runc");
    assert_eq!(runtimes("stays later"), "runc\ndeja");
    assert_alive(&world, "docker", "later");
    assert_ends(&world, "docker", "later");
    assert_ends(&world, "docker", "stays");
    assert_eq!(world.ok("docker ps --all --quiet"), "");
    eventually("every record to go", || world.records().is_empty().then_some(()));
}
