//! systemd makes the cgroups: scopes and slices, properties, updates that last, and the ends of it all.

mod support;
use support::{Bundle, World, eventually, requires};

use serde_json::{Value, json};

/// A world with systemd and a bundle in it, and how to call deja.
struct Place {
    world: World,
    bundle: Bundle,
}

impl Place {
    #[track_caller]
    fn new(cgroups_path: &str) -> Self {
        let bundle = Bundle::new().sleeps().set("/linux/cgroupsPath", json!(cgroups_path));
        Self { world: World::with_systemd(), bundle }
    }

    fn set(self, pointer: &str, value: Value) -> Self {
        Self { bundle: self.bundle.set(pointer, value), ..self }
    }

    /// `run --detach` of a container with this id.
    fn run(&self, id: &str) -> String {
        self.bundle.save();
        let path = self.bundle.path().display();
        format!("deja --systemd-cgroup run --detach --bundle {path} {id} </dev/null >/run/{id}.log 2>&1")
    }

    #[track_caller]
    fn properties(&self, unit: &str, names: &str) -> String {
        self.world.ok(&format!("systemctl show {unit} --property {names} | sort"))
    }

    #[track_caller]
    fn files(&self, scope: &str, names: &str) -> String {
        self.world.ok(&format!("cd /sys/fs/cgroup/{scope} && cat {names}"))
    }
}

#[test]
fn a_container_is_a_scope_with_its_limits_as_properties() {
    requires!(vm, tool "systemctl", cgroup "memory", cgroup "cpu");
    let place = Place::new("machine.slice:deja:web")
        .set("/annotations/org.systemd.property.TimeoutStopSec", json!("7"))
        .set("/annotations/org.systemd.property.Description", json!("'the web'"))
        .set(
            "/linux/resources",
            json!({
                "memory": {"limit": 67_108_864, "reservation": 33_554_432},
                "cpu": {"quota": 25_000, "period": 50_000, "cpus": "0"},
                "pids": {"limit": 20},
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            }),
        );
    place.world.ok(&place.run("web"));
    let names = "MemoryMax,MemoryLow,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,AllowedCPUs,TasksMax,Slice,Delegate,\
        ControlGroup,TimeoutStopUSec,Description,ActiveState";
    let expected = "ActiveState=active\nAllowedCPUs=0\nCPUQuotaPerSecUSec=500ms\nCPUQuotaPeriodUSec=50ms\n\
        ControlGroup=/machine.slice/deja-web.scope\nDelegate=yes\nDescription=the web\nMemoryLow=33554432\n\
        MemoryMax=67108864\nSlice=machine.slice\nTasksMax=20\nTimeoutStopUSec=7s";
    assert_eq!(place.properties("deja-web.scope", names), expected);
    let scope = "machine.slice/deja-web.scope";
    let limits = "memory.max memory.low cpu.max cpuset.cpus pids.max";
    assert_eq!(place.files(scope, limits), "67108864\n33554432\n25000 50000\n0\n20");
    assert_eq!(place.files(scope, "cgroup.procs").lines().count(), 1, "the keeper of the scope has left");

    // An update lasts, and the rules for devices too, when systemd reads everything anew.
    place.world.ok("deja update --memory 100M --cpu-quota 10000 --pids-limit 10 web");
    let (short, few) = ("memory.max cpu.max pids.max", "MemoryMax,CPUQuotaPerSecUSec,TasksMax");
    let updated =
        ("104857600\n10000 50000\n10", "CPUQuotaPerSecUSec=200ms\nMemoryMax=104857600\nTasksMax=10");
    assert_eq!(place.files(scope, short), updated.0);
    place.world.ok("systemctl daemon-reload");
    assert_eq!(
        (place.files(scope, short).as_str(), place.properties("deja-web.scope", few).as_str()),
        updated
    );
    let nodes = "mknod /n c 1 3 && echo >/n && mknod /d b 7 0 && dd if=/d count=0";
    let denied = place.world.command(&format!("deja exec web sh -c '{nodes}'")).fails();
    denied.assert_says("can't open '/d': Operation not permitted");

    let taken =
        place.world.command(&format!("{}; code=$?; cat /run/other.log >&2; exit $code", place.run("other")));
    taken.fails().assert_says("systemd says UnitExists").assert_says("systemctl status deja-web.scope");
    place.world.ok("deja pause web && deja resume web && deja kill web KILL");
    eventually("it to stop", || place.world.ok("deja state web").contains("stopped").then_some(()));
    place.world.ok("deja delete web");
    assert_eq!(place.properties("deja-web.scope", "LoadState"), "LoadState=not-found");
    place.world.ok("! test -e /sys/fs/cgroup/machine.slice/deja-web.scope");
    // The name is free at once.
    place.world.ok(&format!("{} && deja delete --force web", place.run("web")));
}

#[test]
fn without_a_path_it_is_a_scope_of_the_system_and_systemd_can_stop_it() {
    requires!(vm, tool "systemctl");
    // The first process of a pid namespace does not hear the signal that asks it to end.
    let place = Place::new("")
        .set("/linux/resources", json!({"pids": {"limit": 1}}))
        .set("/annotations/org.systemd.property.TimeoutStopSec", json!("1"));
    place.world.ok(&place.run("web"));
    let slice = place.properties("deja-web.scope", "Slice,TasksMax");
    assert_eq!(slice, "Slice=system.slice\nTasksMax=2", "one for the program, one for who made room for it");
    assert_eq!(place.files("system.slice/deja-web.scope", "pids.max"), "1");
    // A full cgroup is said to be full.
    let full = place.world.command("deja exec web true").fails();
    full.assert_says("the pids limit of the cgroup or of the user is reached");
    place.world.ok("systemctl stop deja-web.scope");
    eventually("it to stop", || place.world.ok("deja state web").contains("stopped").then_some(()));
    place.world.ok("deja delete web");
    for (path, words) in [("/a/b", "slice:prefix:name"), ("a:b:c", "is no slice")] {
        let wrong = Bundle::new().set("/linux/cgroupsPath", json!(path));
        wrong.save();
        let create = format!("deja --systemd-cgroup create --bundle {} x", wrong.path().display());
        place.world.command(&create).fails().assert_says(words);
    }
    let wrong = Bundle::new().remove("/linux/cgroupsPath");
    let wrong = wrong.set("/annotations/org.systemd.property.NoSuchThing", json!("true"));
    wrong.save();
    let create = format!("deja --systemd-cgroup create --bundle {} x", wrong.path().display());
    place.world.command(&create).fails().assert_says("systemd says").assert_says("NoSuchThing");
    assert_eq!(place.world.ok("deja list --quiet"), "");
    let left = place.world.ok("systemctl list-units --no-legend --plain 'deja-*' | wc -l");
    assert_eq!(left, "0");
}

#[test]
fn a_scope_is_made_again_for_what_is_restored() {
    requires!(vm, criu, tool "systemctl", cgroup "memory");
    let place = Place::new("machine.slice:deja:web")
        .set("/linux/resources", json!({"memory": {"limit": 268_435_456}}));
    place.world.ok(&place.run("web"));
    place.world.ok("deja checkpoint --image-path /run/image web");
    assert_eq!(place.properties("deja-web.scope", "LoadState"), "LoadState=not-found");
    let restore = "deja --systemd-cgroup restore --detach --image-path /run/image";
    let bundle = place.bundle.path().display();
    place.world.ok(&format!("{restore} --bundle {bundle} web </dev/null >/run/web.log 2>&1"));
    let scope = place.properties("deja-web.scope", "ActiveState,ControlGroup,MemoryMax");
    let expected = "ActiveState=active\nControlGroup=/machine.slice/deja-web.scope\nMemoryMax=268435456";
    assert_eq!(scope, expected);
    let processes = place.files("machine.slice/deja-web.scope", "cgroup.procs");
    assert_eq!(processes.lines().count(), 1, "the container, and nobody else: {processes}");
    assert!(place.world.ok("deja state web").contains("running"));
    place.world.ok("deja delete --force web");
    assert_eq!(place.properties("deja-web.scope", "LoadState"), "LoadState=not-found");
}

#[test]
fn podman_uses_it() {
    requires!(vm, tool "systemctl", engine "podman", cgroup "memory");
    let world = World::with_systemd();
    world.import("podman");
    world.ok("podman run --detach --name web --memory 64m busy sleep 1000");
    let id = world.ok("podman inspect web --format '{{.Id}}'");
    let (unit, limit) = (format!("libpod-{id}.scope"), "--property Slice,MemoryMax | sort");
    let show = || world.ok(&format!("systemctl show {unit} {limit}"));
    assert_eq!(show(), "MemoryMax=67108864\nSlice=machine.slice");
    let file = format!("cat /sys/fs/cgroup/machine.slice/{unit}/memory.max");
    assert_eq!(world.ok(&file), "67108864");
    world.ok("podman update --memory 100m web");
    assert_eq!(
        (world.ok(&file).as_str(), show().as_str()),
        ("104857600", "MemoryMax=104857600\nSlice=machine.slice")
    );
    world.ok("podman pause web && podman unpause web && podman exec web true");
    world.ok("podman rm --force --time 0 web");
    eventually("the scope to go", || {
        world.ok(&format!("systemctl show {unit} --property LoadState")).contains("not-found").then_some(())
    });
}

#[test]
fn docker_and_containerd_use_it() {
    requires!(vm, tool "systemctl", tool "jq", engine "dockerd", cgroup "memory");
    let world = World::with_systemd();
    let driver =
        r#"jq '."exec-opts" = ["native.cgroupdriver=systemd"]' /etc/docker/daemon.json >/run/daemon.json"#;
    world.ok(&format!("{driver} && cp /run/daemon.json /etc/docker/daemon.json"));
    world.daemon("dockerd", "docker version");
    world.import("docker");
    let driver = world.ok("docker info --format '{{.CgroupDriver}} {{.DefaultRuntime}}'");
    assert_eq!(driver, "systemd deja");
    let id = world.ok("docker run --detach --network none --memory 64m --name web busy sleep 1000");
    let show = |unit: &str| world.ok(&format!("systemctl show {unit} --property Slice,MemoryMax | sort"));
    assert_eq!(show(&format!("docker-{id}.scope")), "MemoryMax=67108864\nSlice=system.slice");
    world.ok("docker update --memory 100m --memory-swap 100m web && systemctl daemon-reload");
    let limit = "docker exec web cat /sys/fs/cgroup/memory.max";
    assert_eq!(world.ok(limit), "104857600");
    world.ok("docker pause web && docker unpause web && docker rm --force web");

    // The containerd that docker started.
    let address = "--address /run/docker/containerd/containerd.sock";
    world.archive();
    world.ok(&format!("ctr {address} image import /run/busy.tar"));
    let flags = "--runc-binary /usr/local/bin/deja --runc-systemd-cgroup --cgroup machine.slice:ctr:two";
    let run = format!("ctr {address} run --detach {flags} --memory-limit 67108864 localhost/busy:latest two");
    world.ok(&run);
    assert_eq!(show("ctr-two.scope"), "MemoryMax=67108864\nSlice=machine.slice");
    world.ok(&format!("ctr {address} task delete --force two && ctr {address} containers delete two"));
    let left = || world.ok("systemctl list-units --all --no-legend --plain 'docker-*' 'ctr-*'");
    eventually("every scope to go", || left().is_empty().then_some(()));
}

#[test]
fn weights_that_are_tuned_are_told_to_systemd_and_last() {
    requires!(vm, tool "systemctl", cgroup "cpu");
    let place = Place::new("machine.slice:deja:web").set("/annotations/deja.fair.best-effort", json!("true"));
    place.world.ok(&place.run("web"));
    let world = &place.world;
    let weight = "CPUWeight,CPUQuotaPerSecUSec";
    let is = |what: &str, expected: &str| {
        eventually(what, || (place.properties("deja-web.scope", weight) == expected).then_some(()));
    };
    let file = |name: &str| place.files("machine.slice/deja-web.scope", name);
    world.ok("deja fair run >/run/fair.log 2>&1 </dev/null & echo $! >/run/fair.pid");
    is("systemd to know that it is idle", "CPUQuotaPerSecUSec=infinity\nCPUWeight=idle");
    world.ok("systemctl daemon-reload");
    assert_eq!(file("cpu.idle"), "1", "systemd has not written what it knew before");
    world.ok("deja fair set --best-effort false --limit 0.5 web");
    is("systemd to know the limit", "CPUQuotaPerSecUSec=500ms\nCPUWeight=100");
    assert_eq!(file("cpu.max"), "50000 100000");
    // Killed, and restored from the journal: systemd hears of that, too.
    world.ok("kill -KILL $(cat /run/fair.pid) && deja fair restore");
    is("systemd to know that there is no limit", "CPUQuotaPerSecUSec=infinity\nCPUWeight=100");
    assert_eq!(file("cpu.idle cpu.max"), "0\nmax 100000");
}
