//! docker runs on deja as its default runtime.

mod support;
use support::{World, eventually, requires};

fn docker() -> World {
    let world = World::new();
    world.daemon("dockerd", "docker version");
    world.import("docker");
    world
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    assert_eq!(world.ok("docker ps --all --quiet"), "");
    eventually("every record to go", || world.records().is_empty().then_some(()));
}

#[test]
fn it_is_the_default_runtime_and_has_dockers_exit_codes() {
    requires!(vm, engine "dockerd", cgroup "memory");
    let world = docker();
    assert_eq!(world.ok("docker info --format '{{.DefaultRuntime}} {{.CgroupVersion}}'"), "deja 2");
    assert!(
        world.ok("docker version").contains("deja:\n  Version:          0.1.0"),
        "{}",
        world.ok("docker version")
    );
    let flags = "--memory 64m --cpus 0.5 --pids-limit 33 --ulimit nofile=100:200 --read-only --hostname named \
        --user 1000:100 --group-add 42 --cap-drop all --cap-add net_admin --security-opt no-new-privileges \
        --tmpfs /scratch:size=1m --device /dev/loop0:/dev/looped:r --workdir /tmp --oom-score-adj 500";
    let script = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; ulimit -n; ulimit -Hn; touch /x 2>&1; \
        hostname; id -u; id -G; grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; \
        ls -l /dev/looped | cut -c 1; cat /proc/self/oom_score_adj";
    let expected = "67108864\n50000 100000\n33\n100\n200\ntouch: /x: Read-only file system\nnamed\n1000\n100 42\n\
        CapBnd:\t0000000000001000\nNoNewPrivs:\t1\nSeccomp:\t2\nb\n500";
    assert_eq!(world.ok(&format!("docker run --rm {flags} busy sh -c \"{script}\"")), expected);
    world.fails("docker run --rm busy sh -c 'exit 7'", 7);
    let missing = world.fails("docker run --rm busy missing", 127);
    missing.assert_says(r#"exec: "missing": executable file not found in $PATH"#);
    world.fails("docker run --rm busy /etc", 126).assert_says("is a directory");
    world.fails("docker run --rm --memory nonsense busy true", 125);
    world.fails("docker run --name big --memory 16m busy tail /dev/zero", 137);
    assert_eq!(world.ok("docker inspect big --format '{{.State.OOMKilled}}'"), "true");
    world.ok("docker rm big");
    assert_nothing_left(&world);
}

#[test]
fn a_container_lives_through_every_command() {
    requires!(vm, engine "dockerd", cgroup "memory");
    let world = docker();
    let script = "trap 'echo term; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.1; done";
    world.ok(&format!(r#"docker run --detach --name web busy sh -c "{script}""#));
    eventually("its output", || (world.ok("docker logs web 2>&1").lines().count() == 2).then_some(()));
    world.ok("docker pause web");
    assert_eq!(world.ok("docker inspect web --format '{{.State.Status}}'"), "paused");
    world.ok("docker unpause web");
    world.ok("docker update --memory 100m --memory-swap 100m --cpus 0.3 --pids-limit 50 web");
    let limits = world.ok("docker exec web sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max'");
    assert_eq!(limits, "104857600\n30000 100000\n50");
    assert_eq!(world.ok("docker exec --user 1000 --workdir /tmp web sh -c 'id -u; pwd'"), "1000\n/tmp");
    assert_eq!(world.ok("echo input | docker exec --interactive web cat"), "input");
    world.fails("docker exec web sh -c 'exit 9'", 9);
    // docker says 126 of every exec that could not be started, whatever the runtime.
    world.fails("docker exec web missing", 126);
    let stats = world.ok("docker stats --no-stream --format '{{.MemUsage}}' web");
    assert!(stats.ends_with("/ 100MiB"), "{stats}");
    assert!(world.ok("docker top web").contains("sleep 0.1"));
    world.ok("echo copied >/run/file && docker cp /run/file web:/tmp/file && docker commit web snap");
    assert_eq!(world.ok("docker run --rm snap cat /tmp/file"), "copied");
    world.ok("docker restart --time 60 web && docker stop --time 60 web");
    assert_eq!(world.ok("docker wait web"), "3");
    world.ok("docker rm web");

    world.ok("docker run --detach --restart on-failure:2 --name again busy sh -c 'exit 4'");
    let state = "docker inspect again --format '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}'";
    eventually("two restarts", || (world.ok(state) == "2 exited 4").then_some(()));
    world.ok("docker rm again");

    let (mut console, run) = world.on_terminal("docker run --rm --interactive --tty --name tty busy sh");
    console.read_until("# ");
    let (mut second, exec) = world.on_terminal("docker exec --interactive --tty tty sh");
    second.read_until("# ");
    second.write("test -t 0 && echo a-$((40 + 2))-terminal\nexit 5\n");
    second.read_until("a-42-terminal");
    exec.finish().assert_code(5);
    console.write("exit 9\n");
    run.finish().assert_code(9);
    assert_nothing_left(&world);
}

#[test]
fn people_attach_leave_and_come_back() {
    requires!(vm, engine "dockerd");
    let world = docker();
    world.ok("docker run --detach --interactive --tty --network none --name web busy sh");
    let attach = |round: &str| {
        let (mut console, attached) = world.on_terminal("docker attach --detach-keys ctrl-x web");
        console.write(&format!("\necho the-{round}-$((40 + 2))\n"));
        console.read_until(&format!("the-{round}-42"));
        (console, attached)
    };
    let (console, attached) = attach("first");
    console.write("\u{18}");
    attached.finish();
    assert_eq!(world.ok("docker inspect web --format '{{.State.Status}}'"), "running");
    let (console, attached) = attach("second");
    console.write("exit 9\n");
    attached.finish().assert_code(9);
    assert_eq!(world.ok("docker wait web"), "9");
    world.ok("docker rm web");
    assert_nothing_left(&world);
}

#[test]
fn it_builds_and_joins_containers_in_networks() {
    requires!(vm, engine "dockerd", tool "curl");
    let world = docker();
    let file = "FROM busy\nRUN echo built >/made && id -u >>/made\nCMD [\"cat\", \"/made\"]\n";
    world.write("/run/build/Dockerfile", file);
    // The daemon's older builder runs containers as the daemon does; the newer one is in another test.
    world.ok("DOCKER_BUILDKIT=0 docker build --tag built /run/build");
    assert_eq!(world.ok("docker run --rm built"), "built\n0");
    world.ok("docker network create net");
    let serve = "mkdir /www; echo page >/www/index.html; httpd -f -p 80 -h /www";
    let web = "docker run --detach --name web --network net --publish 8080:80";
    world.ok(&format!("{web} busy sh -c '{serve}'"));
    let page = || world.command("curl --silent http://127.0.0.1:8080/").output();
    eventually("the page", || (page().stdout() == "page\n").then_some(()));
    let address = "docker inspect web --format '{{.NetworkSettings.Networks.net.IPAddress}}'";
    let get = format!("docker run --rm --network net busy wget -qO- http://$({address})/");
    assert_eq!(world.ok(&get), "page");
    let joined = "docker run --rm --network container:web --pid container:web busy sh -c";
    assert_eq!(
        world.ok(&format!("{joined} 'wget -qO- http://127.0.0.1/; ps -o args | grep -c [h]ttpd'")),
        "page\n1"
    );
    world.ok("docker rm --force web && docker network rm net");
    assert_nothing_left(&world);
}

#[test]
fn buildkit_and_compose_run_what_they_build_on_it() {
    requires!(
        vm,
        engine "dockerd",
        path "/usr/libexec/docker/cli-plugins/docker-buildx",
        path "/usr/libexec/docker/cli-plugins/docker-compose"
    );
    let world = docker();
    // BuildKit in docker runs what the path has as runc, whatever the default runtime is.
    let wrapper = "#!/bin/sh\necho \"$@\" >>/run/runc.log\nexec /usr/local/bin/deja \"$@\"\n";
    world.write("/usr/local/bin/runc", wrapper);
    // It asks a registry for what it does not find; `scratch` and a file of ours are here.
    let tar = format!("tar -C {} -cf /run/build/root.tar .", support::rootfs().display());
    world.ok(&format!("chmod 755 /usr/local/bin/runc && mkdir /run/build && {tar}"));
    let file = "FROM scratch\nADD root.tar /\nRUN echo built >/made && id -u >>/made\n\
        RUN --mount=type=cache,target=/cache touch /cache/x && grep -c ' /cache ' /proc/self/mounts >>/made\n\
        USER 7\nRUN test \"$(id -u)\" = 7\nCMD [\"cat\", \"/made\"]\n";
    world.write("/run/build/Dockerfile", file);
    world.ok("DOCKER_BUILDKIT=1 docker build --network none --tag built /run/build");
    assert_eq!(world.ok("docker run --rm --network none built"), "built\n0\n1");
    world.write("/run/broken/Dockerfile", "FROM scratch\nADD root.tar /\nRUN exit 6\n");
    world.ok("cp /run/build/root.tar /run/broken");
    assert!(world.ok("cat /run/runc.log").contains(" run --bundle /var/lib/docker/buildkit/"));
    let broken = world.command("DOCKER_BUILDKIT=1 docker build --network none /run/broken").fails();
    broken.assert_says("exit code: 6");

    let services = r#"{"services": {
        "web": {"image": "busy", "command": ["sleep", "1000"], "volumes": ["data:/data"], "network_mode": "none",
            "mem_limit": "64m"},
        "client": {"image": "busy", "depends_on": ["web"], "volumes": ["data:/data"], "network_mode": "none",
            "command": ["sh", "-c", "echo from-client >/data/note; sleep 1000"]}},
        "volumes": {"data": {}}}"#;
    world.write("/run/compose/compose.yaml", services);
    let compose = "cd /run/compose && docker compose";
    world.ok(&format!("{compose} up --detach"));
    let note = || world.command(&format!("{compose} exec -T web cat /data/note")).output().stdout();
    eventually("the other's note", || (note() == "from-client\n").then_some(()));
    assert_eq!(world.ok(&format!("{compose} exec -T web cat /sys/fs/cgroup/memory.max")), "67108864");
    world.ok(&format!("{compose} down --volumes --timeout 1"));
    assert_nothing_left(&world);
}
