//! containerd's CRI plugin, as Kubernetes uses it, runs pods on deja by the runtime handler that the installer sets up.

mod support;
use support::{Cri, Message, World, eventually, requires};

/// containerd with the installer's file, and the small image, which is also the one of a pod's sandbox.
fn containerd() -> World {
    let world = World::new();
    let file = "/etc/containerd/conf.d/deja.toml";
    let sandbox = "\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"localhost/busy:latest\"\n";
    let text = std::fs::read_to_string(world.path(file)).expect("the installer's file");
    world.write(file, &format!("{text}{sandbox}"));
    world.daemon("containerd", "ctr version");
    world.archive();
    world.ok("ctr --namespace k8s.io image import /run/busy.tar");
    world
}

/// The configuration of a pod on the host's network, which needs no plug-in to make one. `options` are more of those
/// for its namespaces.
fn pod(name: &str, options: &Message) -> Message {
    let metadata = Message::new().text(1, name).text(2, name).text(3, "default");
    let security = Message::new().message(1, options.clone());
    Message::new().message(1, metadata).text(3, "/run/pods").message(8, Message::new().message(2, security))
}

/// The configuration of a container whose shell runs `script`.
fn container(script: &str, linux: Message) -> Message {
    let image = Message::new().text(1, "localhost/busy:latest");
    let shell = Message::new().message(1, Message::new().text(1, "web")).message(2, image);
    shell.text(3, "sh").text(3, "-c").text(3, script).text(11, "web.log").message(15, linux)
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    let left =
        || world.ok("ls -A /run/containerd/runc/k8s.io; ctr --namespace k8s.io containers list --quiet");
    eventually("everything to go", || left().is_empty().then_some(()));
}

#[test]
fn a_pod_lives_through_every_call() {
    requires!(vm, engine "containerd", tool "curl", cgroup "memory");
    let world = containerd();
    let cri = Cri::new(&world);
    let host_network = Message::new().number(1, 2);
    let config = pod("one", &host_network);
    let refused = cri.call("RunPodSandbox", &Message::new().message(1, config.clone()).text(2, "nobody"));
    assert!(refused.unwrap_err().contains("nobody"));
    let sandbox = cri.id("RunPodSandbox", &Message::new().message(1, config.clone()).text(2, "deja"));
    world.ok(&format!("deja --root /run/containerd/runc/k8s.io state {sandbox}"));

    let limits = Message::new().number(1, 100_000).number(2, 50_000).number(4, 67_108_864);
    let script = "trap 'exit 3' TERM; echo hello; while :; do sleep 0.1; done";
    let web = container(script, Message::new().message(1, limits));
    let web = Message::new().text(1, &sandbox).message(2, web).message(3, config);
    let web = cri.id("CreateContainer", &web);
    let of_web = Message::new().text(1, &web);
    cri.ok("StartContainer", &of_web);
    let log = || world.ok("cat /run/pods/web.log 2>/dev/null || true");
    eventually("its output", || log().contains("stdout F hello").then_some(()));

    let run = |script: &str| {
        let words = of_web.clone().text(2, "sh").text(2, "-c").text(2, script);
        String::from_utf8_lossy(&cri.ok("ExecSync", &words)).into_owned()
    };
    let limits = "cd /sys/fs/cgroup; cat memory.max cpu.max";
    assert!(run(limits).contains("67108864\n50000 100000\n"), "{:?}", run(limits));
    // The last field is the exit code.
    assert!(run("echo out; exit 5").ends_with("out\n\u{18}\u{5}"), "{:?}", run("echo out; exit 5"));
    let more = Message::new().number(1, 100_000).number(2, 30_000).number(4, 104_857_600);
    cri.ok("UpdateContainerResources", &of_web.clone().message(2, more));
    assert!(run(limits).contains("104857600\n30000 100000\n"), "{:?}", run(limits));
    cri.ok("ContainerStats", &of_web);
    cri.ok("StopContainer", &of_web.clone().number(2, 60));
    let status = cri.ok("ContainerStatus", &of_web);
    // Field 7, the exit code.
    assert!(status.windows(2).any(|pair| pair == [0x38, 3]), "{status:?}");
    cri.ok("RemoveContainer", &of_web);
    cri.ok("StopPodSandbox", &Message::new().text(1, &sandbox));
    cri.ok("RemovePodSandbox", &Message::new().text(1, &sandbox));
    assert_nothing_left(&world);
}

#[test]
fn a_pod_has_a_user_namespace_of_its_own() {
    requires!(vm, engine "containerd", tool "curl", path "/etc/cni/net.d/87-podman-bridge.conflist");
    let world = containerd();
    let cri = Cri::new(&world);
    let ids = Message::new().number(1, 100_000).number(2, 0).number(3, 65_536);
    let user = Message::new().message(2, ids.clone()).message(3, ids);
    let options = Message::new().number(1, 0).message(5, user);
    // Its network is the bridge that podman's package describes for every plug-in to use.
    let config = pod("two", &options);
    let sandbox = cri.id("RunPodSandbox", &Message::new().message(1, config.clone()).text(2, "deja"));
    let security = Message::new().message(3, options);
    let script = "cat /proc/self/uid_map; stat -c owned-by-%u /bin; sleep 1000";
    let web = container(script, Message::new().message(2, security));
    let web = cri.id("CreateContainer", &Message::new().text(1, &sandbox).message(2, web).message(3, config));
    cri.ok("StartContainer", &Message::new().text(1, &web));
    let log = || world.ok("cat /run/pods/web.log 2>/dev/null || true");
    eventually("its output", || log().contains("owned-by-0").then_some(()));
    let words = log();
    let maps: Vec<_> = words.lines().next().unwrap_or_default().split_whitespace().skip(3).collect();
    assert_eq!(maps, ["0", "100000", "65536"]);
    cri.ok("StopPodSandbox", &Message::new().text(1, &sandbox));
    cri.ok("RemovePodSandbox", &Message::new().text(1, &sandbox));
    assert_nothing_left(&world);
}
