//! podman runs on deja, configured as `scripts/install` does it, and cannot tell.

mod support;
use support::{World, eventually, requires};

use std::os::unix::net::UnixDatagram;

fn podman() -> World {
    let world = World::new();
    world.import("podman");
    world
}

/// No container, no record, no cgroup of a container, no mount of one.
#[track_caller]
fn assert_nothing_left(world: &World) {
    assert_eq!(world.ok("podman ps --all --quiet"), "");
    eventually("every record to go", || world.records().is_empty().then_some(()));
    // What is mounted elsewhere was there when this world was made.
    let mounts = world.ok("grep -c ' /var/lib/containers/.*/merged ' /proc/self/mountinfo || true");
    assert_eq!(mounts, "0", "{}", world.ok("cat /proc/self/mountinfo"));
}

#[test]
fn it_is_the_default_runtime_with_all_that_podman_asks_of_one() {
    requires!(vm, engine "podman");
    let world = podman();
    let run = world.ok("podman run --name one --log-level info busy echo hello 2>/dev/null");
    assert_eq!(run, "hello");
    assert_eq!(world.ok("podman inspect one --format '{{.OCIRuntime}}'"), "deja");
    // The drop-in adds to what podman knows; it takes nothing away.
    assert_eq!(world.ok("podman run --rm --runtime crun busy echo crun"), "crun");
    let own = world.ok("podman run --rm --cgroups=disabled busy cat /proc/self/cgroup");
    assert_eq!(own, "0::/", "a container without a cgroup of its own");
    world.ok("podman rm one");
    assert_nothing_left(&world);
}

#[test]
fn every_flag_of_run_means_what_it_says() {
    requires!(vm, engine "podman", cgroup "memory", cgroup "io");
    let world = podman();
    world.ok("mkdir /run/shared && echo from-host >/run/shared/file");
    let flags = "--memory 64m --cpus 0.5 --pids-limit 33 --cpuset-cpus 0 --cgroup-conf memory.high=50331648 \
        --device-read-bps /dev/loop0:1mb --ulimit nofile=100:200 --read-only --hostname named --env NAME=value \
        --user 1000:100 --group-add 42 --umask 027 --oom-score-adj 500 --sysctl net.ipv4.ip_forward=1 \
        --tmpfs /scratch:size=1m,mode=1777 --shm-size 2m --cap-drop all --cap-add net_admin,mknod \
        --security-opt no-new-privileges --security-opt mask=/etc/group --device /dev/loop0:/dev/looped:r \
        --volume /run/shared:/shared:ro --volume kept:/kept --workdir /tmp --annotation note=taken";
    let script = r#"
        cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/io.max
        cat /sys/fs/cgroup/cpuset.cpus /sys/fs/cgroup/memory.high
        ulimit -n; ulimit -Hn; touch /x 2>&1; hostname; echo $NAME; id -u; id -g; id -G; umask
        cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward
        mount | sed -n "s/.* on \(.scratch\|.dev.shm\) .*size=\([0-9]*k\).*/\1 \2/p" | sort
        grep -E "CapBnd|NoNewPrivs|Seccomp:" /proc/self/status
        cat /etc/group; ls -l /dev/looped | cut -c 1; cat /shared/file; touch /shared/y 2>&1; pwd"#;
    let printed = world.ok(&format!("podman run --rm {flags} busy sh -c '{script}'"));
    let expected = "67108864\n50000 100000\n33\n7:0 rbps=1048576 wbps=max riops=max wiops=max\n0\n50331648\n\
        100\n200\ntouch: /x: Read-only file system\nnamed\nvalue\n1000\n100\n100 42\n0027\n500\n1\n\
        /dev/shm 2048k\n/scratch 1024k\nCapBnd:\t0000000008001000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        b\nfrom-host\ntouch: /shared/y: Read-only file system\n/tmp";
    assert_eq!(printed, expected);
    // The rules for devices go beyond the nodes there are.
    let rules = "podman run --rm --cap-add mknod --device-cgroup-rule 'c 10:200 rwm'";
    let nodes =
        "mknod /t c 10 200; dd if=/t count=0 2>/dev/null && echo may; mknod /u c 10 201; dd if=/u count=0";
    let ruled = world.fails(&format!("{rules} busy sh -c '{nodes}'"), 1);
    ruled.assert_stdout("may").assert_says("can't open '/u': Operation not permitted");
    assert_nothing_left(&world);
}

#[test]
fn namespaces_are_what_is_asked_for() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("mkdir /run/owned && touch /run/owned/file");
    let mapped =
        "podman run --rm --uidmap 0:100000:1000 --gidmap 0:200000:1000 --volume /run/owned:/owned:idmap";
    let script = "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /owned/file; touch /owned/new";
    let maps = world.ok(&format!("{mapped} busy sh -c '{script}'"));
    let maps: Vec<_> = maps.split_whitespace().collect();
    assert_eq!(maps.join(" "), "0 100000 1000 0 200000 1000 0:0");
    assert_eq!(world.ok("stat -c %u:%g /run/owned/new"), "0:0");
    let host = "--pid host --ipc host --uts host --network host --cgroupns host";
    let same = "for kind in pid ipc uts net cgroup; do readlink /proc/self/ns/$kind; done";
    assert_eq!(world.ok(&format!("podman run --rm {host} busy sh -c '{same}'")), world.ok(same));
    let links = world.ok("podman run --rm busy ip -oneline link");
    assert!(links.contains(" lo: ") && links.lines().count() == 1, "{links}");
    let all = "grep CapEff /proc/self/status; ls /dev/loop0; grep -c ' /proc/.*ro,' /proc/self/mounts";
    let privileged = world.fails(&format!("podman run --rm --privileged busy sh -c \"{all}\""), 1);
    let printed = privileged.stdout();
    assert!(printed.contains("CapEff:\t000001ffffffffff\n/dev/loop0\n0"), "{printed}");
    // A container for systemd: its mounts come with an empty option, and its cgroup is writable.
    let init = "test -w /sys/fs/cgroup && mkdir /sys/fs/cgroup/below && grep -c \" /run tmpfs\" /proc/mounts";
    assert_eq!(world.ok(&format!("podman run --rm --systemd=always busy sh -c '{init}'")), "1");
    assert_nothing_left(&world);
}

#[test]
fn user_namespaces_are_given_out_shared_and_left_out() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("echo containers:200000:100000 | tee /etc/subuid /etc/subgid");
    let map = |flags: &str| {
        let map = world.ok(&format!("podman run --rm {flags} busy cat /proc/self/uid_map"));
        map.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    world.ok("podman run --detach --name web --userns auto:size=4096 --volume kept:/kept busy sleep 1000");
    assert_eq!(map("--userns auto:size=4096"), "0 204096 4096");
    assert_eq!(map("--userns container:web"), "0 200000 4096");
    assert_eq!(map("--userns host"), "0 0 4294967295");
    // What root of the container makes is its own, also in an exec.
    world.ok("podman exec web sh -c 'touch /kept/file && kill -0 1'");
    let volume = world.ok("podman volume inspect kept --format '{{.Mountpoint}}'");
    assert_eq!(world.ok(&format!("stat -c %u:%g {volume}/file")), "200000:200000");
    world.ok("podman rm --force --time 0 web");
    assert_nothing_left(&world);
}

#[test]
fn what_goes_wrong_has_podmans_exit_codes_and_our_words() {
    requires!(vm, engine "podman", cgroup "memory");
    let world = podman();
    world.fails("podman run --rm busy sh -c 'exit 7'", 7);
    let missing = world.fails("podman run --rm busy missing", 127);
    missing.assert_says(r#"deja: exec: "missing": executable file not found in $PATH"#);
    world.fails("podman run --rm busy /etc", 126).assert_says(r#"exec: "/etc": is a directory"#);
    world.fails("podman run --rm --memory nonsense busy true", 125);
    let sysctl = "podman run --rm --sysctl net.no.such=1 busy true";
    world.fails(sysctl, 127).assert_says("net.no.such");
    let killed = "podman run --name big --memory 16m busy tail /dev/zero";
    world.fails(killed, 137);
    assert_eq!(
        world.ok("podman inspect big --format '{{.State.OOMKilled}} {{.State.ExitCode}}'"),
        "true 137"
    );
    world.ok("podman rm big");
    world.ok("podman run --detach --name web busy sleep 1000");
    world.fails("podman exec web sh -c 'exit 9'", 9);
    world.fails("podman exec web missing", 127);
    world.fails("podman exec web /etc", 126);
    world.fails("podman exec --workdir /missing web true", 127).assert_says("/missing");
    world.fails("podman kill --signal USR1 missing", 125);
    world.ok("podman rm --force --time 0 web");
    assert_nothing_left(&world);
}

/// Starts a container called web that tells of its signals.
fn start_web(world: &World) {
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr' USR1; echo out; echo err >&2; \
        while :; do sleep 0.1; done";
    world.ok(&format!(
        r#"podman run --detach --name web --memory 100m --health-cmd "test -e /well" busy sh -c "{script}""#
    ));
}

#[test]
fn a_running_container_is_changed_and_looked_at() {
    requires!(vm, engine "podman", cgroup "memory");
    let world = podman();
    start_web(&world);
    eventually("its output", || (world.ok("podman logs web 2>&1") == "out\nerr").then_some(()));
    world.ok("podman pause web");
    assert_eq!(world.ok("podman inspect web --format '{{.State.Status}}'"), "paused");
    world.fails("podman exec web true", 255);
    world.ok("podman unpause web");
    world.ok("podman update --memory 120m --cpus 0.3 --pids-limit 50 web");
    let limits = world.ok("podman exec web sh -c 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max'");
    assert_eq!(limits, "125829120\n30000 100000\n50");
    let exec = "podman exec --user 1000 --workdir /tmp --env X=y web sh -c 'id -u; pwd; echo $X'";
    assert_eq!(world.ok(exec), "1000\n/tmp\ny");
    assert_eq!(world.ok("echo input | podman exec --interactive web cat"), "input");
    world.ok("podman exec --detach web touch /well");
    eventually("a healthy container", || {
        world.command("podman healthcheck run web").output().code().filter(|c| *c == 0)
    });
    world.ok("podman rm --force --time 0 web");
    assert_nothing_left(&world);
}

#[test]
fn a_running_container_is_measured_and_copied() {
    requires!(vm, engine "podman", cgroup "memory");
    let world = podman();
    start_web(&world);
    let stats = world.ok("podman stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' web");
    assert!(stats.contains("/ 104.9MB"), "{stats}");
    let top = world.ok("podman top web pid args");
    assert!(top.contains("sleep 0.1") || top.contains("trap"), "{top}");
    world.ok("echo copied >/run/file && podman cp /run/file web:/tmp/file && podman commit --quiet web snap");
    assert_eq!(world.ok("podman run --rm snap cat /tmp/file"), "copied");
    assert!(world.ok("podman diff web").contains("A /tmp/file"));
    assert_eq!(world.ok("podman export web | tar --extract --to-stdout tmp/file"), "copied");
    world.ok("podman rm --force --time 0 web");
    assert_nothing_left(&world);
}

#[test]
fn signals_restarts_and_ends_reach_the_container() {
    requires!(vm, engine "podman");
    let world = podman();
    start_web(&world);
    eventually("its traps", || (world.ok("podman logs web 2>&1") == "out\nerr").then_some(()));
    world.ok("podman kill --signal USR1 web");
    eventually("the signal", || world.ok("podman logs web 2>/dev/null").contains("usr").then_some(()));
    world.ok("podman restart --time 60 web");
    eventually("it to run again", || world.ok("podman logs web").ends_with("out").then_some(()));
    world.ok("podman stop --time 60 web");
    assert_eq!(world.ok("podman wait web"), "3");
    world.ok("podman start web && podman kill web");
    assert_eq!(world.ok("podman wait web"), "137");
    world.ok("podman rm web");
    assert_nothing_left(&world);
}

#[test]
fn people_sit_at_terminals() {
    requires!(vm, engine "podman");
    let world = podman();
    let (mut console, run) = world.on_terminal("podman run --interactive --tty --name web busy sh");
    console.read_until("# ");
    console.write("test -t 1 && echo the-first-$((40 + 2))\n");
    console.read_until("the-first-42");
    let (mut second, exec) = world.on_terminal("podman exec --interactive --tty web sh");
    second.read_until("# ");
    second.write("test -t 0 && echo a-$((40 + 2))-terminal\nexit 5\n");
    second.read_until("a-42-terminal");
    exec.finish().assert_code(5);
    let (mut third, attached) = world.on_terminal("podman attach web");
    third.write("\necho from-$((40 + 2))-the-third\n");
    third.read_until("from-42-the-third");
    console.read_until("from-42-the-third");
    console.write("exit 9\n");
    run.finish().assert_code(9);
    attached.finish();
    assert_eq!(world.ok("podman inspect web --format '{{.State.ExitCode}}'"), "9");
    world.ok("podman rm web");
    assert_nothing_left(&world);
}

#[test]
fn people_attach_leave_and_come_back() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("podman run --detach --interactive --tty --name web busy sh");
    for round in ["first", "second"] {
        let (mut console, attached) = world.on_terminal("podman attach --detach-keys ctrl-x web");
        console.write(&format!("\necho the-{round}-$((40 + 2))\n"));
        console.read_until(&format!("the-{round}-42"));
        // One key, because podman knows a sequence only when its keys come in reads of their own.
        console.write("\u{18}");
        attached.finish().assert_code(0);
    }
    assert_eq!(world.ok("podman inspect web --format '{{.State.Status}}'"), "running");
    world.ok("podman rm --force --time 0 web");
    assert_nothing_left(&world);
}

/// podman's attach ends with 0, whatever the runtime; `start --attach` has the container's code.
#[test]
fn attach_shows_what_a_container_says() {
    requires!(vm, engine "podman");
    let world = podman();
    let script = "until test -e /go; do echo tick; sleep 0.1; done; echo out; echo err >&2; exit 9";
    world.ok(&format!("podman run --detach --name web busy sh -c '{script}'"));
    let attached = world.command("podman attach web").spawn();
    eventually("its output", || attached.stdout().contains("tick\n").then_some(()));
    world.ok("podman exec web touch /go");
    let attached = attached.finish().assert_says("err");
    assert!(attached.stdout().ends_with("tick\nout\n\n"), "{attached}");
    assert_eq!(world.ok("podman wait web"), "9");
    world.fails("podman start --attach web", 9).assert_stdout("out").assert_says("err");
    world.fails("podman attach web", 125).assert_says("you can only attach to running containers");
    world.ok("podman rm web");
    assert_nothing_left(&world);
}

#[test]
fn a_service_manager_hears_which_container_is_ready() {
    requires!(vm, engine "podman");
    let world = podman();
    let manager = UnixDatagram::bind(world.path("/run/manager.sock")).expect("the manager's socket");
    manager.set_read_timeout(Some(support::patience())).expect("a timeout");
    let ready = || loop {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a message to the manager");
        let words = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if words.contains("READY=1") {
            return words;
        }
    };
    let run = "NOTIFY_SOCKET=/run/manager.sock podman run --detach";
    let script = "echo [$NOTIFY_SOCKET]; exec sleep 1000";
    world.ok(&format!("{run} --name one --sdnotify conmon busy sh -c '{script}'"));
    assert!(ready().starts_with("MAINPID="), "conmon says so as soon as the container runs");
    eventually("its output", || (world.ok("podman logs one") == "[]").then_some(()));

    world.ok(&format!("{run} --name two --sdnotify container busy sh -c '{script}'"));
    eventually("its output", || (world.ok("podman logs two") == "[/run/notify/notify.sock]").then_some(()));
    let pid = world.ok("podman inspect two --format '{{.State.Pid}}'");
    let place = world.path(&format!("/proc/{pid}/root/run/notify/notify.sock"));
    let program = UnixDatagram::unbound().expect("a socket");
    program.send_to(b"READY=1", &place).expect("say it as the program would");
    assert_eq!(ready(), "READY=1");
    world.ok("podman rm --force --time 0 one two");
    assert_nothing_left(&world);
}

#[test]
fn containers_meet_in_networks() {
    requires!(vm, engine "podman", tool "curl");
    let world = podman();
    world.ok("podman network create net");
    let serve = "mkdir /www; echo page >/www/index.html; httpd -f -p 80 -h /www";
    world.ok(&format!("podman run --detach --name web --network net --publish 8080:80 busy sh -c '{serve}'"));
    let page = || world.command("curl --silent http://127.0.0.1:8080/").output();
    eventually("the page", || (page().stdout() == "page\n").then_some(()));
    let address = "podman inspect web --format '{{.NetworkSettings.Networks.net.IPAddress}}'";
    let get = format!("podman run --rm --network net busy wget -qO- http://$({address})/");
    assert_eq!(world.ok(&get), "page");
    world.ok("podman rm --force --time 0 web && podman network rm net");
    assert_nothing_left(&world);
}

#[test]
fn what_is_in_a_volume_stays() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("podman run --rm --volume data:/data busy sh -c 'echo kept >/data/file'");
    assert_eq!(world.ok("podman run --rm --volume data:/data:ro busy cat /data/file"), "kept");
    assert_nothing_left(&world);
}

/// With `rslave` only what the host mounts does.
#[test]
fn a_mount_in_a_shared_volume_reaches_the_other_side() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("mkdir /run/both && mount -t tmpfs both /run/both && mount --make-shared /run/both");
    for (options, reaches_the_host) in [("rshared", true), ("rslave", false)] {
        let run = "podman run --detach --name web --privileged --volume";
        world.ok(&format!("{run} /run/both:/both:{options} busy sleep 1000"));
        world.ok("mkdir -p /run/both/ours /run/both/theirs && mount -t tmpfs ours /run/both/ours");
        world.ok("podman exec web mount -t tmpfs theirs /both/theirs");
        world.ok("podman exec web grep -q ' /both/ours ' /proc/self/mounts");
        let theirs = world.command("mountpoint --quiet /run/both/theirs").output();
        assert_eq!(theirs.status.success(), reaches_the_host, "{options}");
        world.ok("podman rm --force --time 0 web && umount /run/both/ours");
        if reaches_the_host {
            world.ok("umount /run/both/theirs");
        }
    }
    assert_nothing_left(&world);
}

#[test]
fn pods_share_namespaces_and_come_from_kubernetes_files() {
    requires!(vm, engine "podman");
    let world = podman();
    let pod = "podman pod create --name pod --infra-image busy --infra-command '/bin/sleep 1000'";
    world.ok(&format!("{pod} --share net,ipc,uts,pid"));
    world.ok("podman run --detach --pod pod busy sleep 500");
    let seen = world.ok("podman run --rm --pod pod busy sh -c 'hostname; ps -o args'");
    assert!(seen.starts_with("pod\n") && seen.contains("sleep 1000") && seen.contains("sleep 500"), "{seen}");
    world.ok("podman pod pause pod && podman pod unpause pod && podman pod rm --force --time 0 pod");

    let yaml = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube"}, "spec": {"containers": [{
        "name": "web", "image": "localhost/busy:latest", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo from-kube; touch /v/x && sleep 1000"],
        "resources": {"limits": {"memory": "64Mi"}},
        "securityContext": {"readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}}"#;
    world.write("/run/kube.yaml", yaml);
    let sleeps = r#"--change 'CMD ["/bin/sleep", "1000"]'"#;
    world.ok(&format!(
        "podman create --name infra busy && podman commit {sleeps} infra infra && podman rm infra"
    ));
    let infra = "[engine]\ninfra_image = \"localhost/infra:latest\"\n";
    world.write("/etc/containers/containers.conf.d/70-infra.conf", infra);
    world.ok("podman kube play /run/kube.yaml");
    eventually("its output", || (world.ok("podman logs kube-web") == "from-kube").then_some(()));
    assert_eq!(world.ok("podman exec kube-web cat /sys/fs/cgroup/memory.max"), "67108864");
    world.ok("podman kube down /run/kube.yaml");
    assert_nothing_left(&world);
}

#[test]
fn many_at_once_leave_nothing() {
    requires!(vm, engine "podman");
    let world = podman();
    let all = "for n in 1 2 3 4; do podman run --rm busy sh -c \"echo $n; exit $n\" & \
        pids=\"$pids $!\"; done; for pid in $pids; do wait $pid || echo $?; done";
    let mut printed: Vec<_> = world.ok(all).lines().map(str::to_owned).collect();
    printed.sort();
    let expected: Vec<_> = (1..=4).flat_map(|n| [n.to_string(), n.to_string()]).collect();
    assert_eq!(printed, expected);
    assert_nothing_left(&world);
}

#[test]
fn restart_policies_start_it_again() {
    requires!(vm, engine "podman");
    let world = podman();
    world.ok("podman run --detach --restart on-failure:2 --name again busy sh -c 'exit 4'");
    let state = "podman inspect again --format '{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}'";
    eventually("two restarts", || (world.ok(state) == "2 exited 4").then_some(()));
    world.ok("podman rm again");
    assert_nothing_left(&world);
}
