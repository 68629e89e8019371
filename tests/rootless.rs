//! podman of somebody who is not root runs on deja: without cgroups to make, and with a session of systemd's.

mod support;
use support::{Person, World, eventually, requires};

#[track_caller]
fn assert_nothing_left(person: &Person<'_>) {
    assert_eq!(person.ok("podman ps --all --quiet"), "");
    eventually("every record to go", || {
        person.ok("ls /run/user/1000/deja 2>/dev/null").is_empty().then_some(())
    });
}

#[test]
fn without_a_session_containers_run_and_have_podmans_exit_codes() {
    requires!(vm, engine "podman", tool "newuidmap");
    let world = World::new();
    let person = Person::new(&world);
    person.import();
    let info = person.ok("podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.Security.Rootless}}'");
    assert_eq!(info, "deja true");
    let script = "id -u; cat /proc/self/uid_map; echo kept >/file; stat -c %u /file";
    let printed = person.ok(&format!("podman run --rm busy sh -c '{script}'"));
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!(words.join(" "), "0 0 1000 1 1 100000 65536 0");
    let cgroup = "podman run --rm --cgroups=disabled --user 7 busy sh -c 'grep ^0: /proc/self/cgroup; id -u'";
    assert_eq!(person.ok(cgroup), "0::/\n7");
    person.fails("podman run --rm busy sh -c 'exit 7'", 7);
    person.fails("podman run --rm busy missing", 127).assert_says("executable file not found in $PATH");
    person.fails("podman run --rm busy /etc", 126);
    let same =
        "podman run --rm --userns keep-id --volume /home/person:/home busy sh -c 'id -u; touch /home/x'";
    assert_eq!(person.ok(same), "1000");
    assert_eq!(world.ok("stat -c %u /home/person/x"), "1000");

    person
        .ok("podman run --detach --name web busy sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done'");
    assert_eq!(person.ok("podman exec --env X=y web sh -c 'echo $X'"), "y");
    person.fails("podman exec web sh -c 'exit 9'", 9);
    let beside = person.ok("podman run --rm --pid container:web busy ps -o args");
    assert!(beside.contains("sleep 0.1") || beside.contains("trap"), "{beside}");
    person.ok("podman stop --time 60 web");
    assert_eq!(person.ok("podman wait web"), "3");
    person.ok("podman rm web");
    assert_nothing_left(&person);
}

#[test]
fn in_a_session_a_container_is_a_scope_of_the_users_manager() {
    requires!(vm, engine "podman", tool "newuidmap", tool "systemctl", cgroup "memory");
    let world = World::with_systemd();
    let person = Person::logged_in(&world);
    person.import();
    let info = person.ok("podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.CgroupManager}}'");
    assert_eq!(info, "deja systemd");
    let limits = "--memory 64m --pids-limit 33";
    let run = "podman run --detach --name web";
    let id =
        person.ok(&format!("{run} {limits} busy sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done'"));
    let scope = format!("libpod-{id}.scope");
    let show = |names: &str| person.ok(&format!("systemctl --user show {scope} --property {names} | sort"));
    assert_eq!(show("MemoryMax,TasksMax,Slice"), "MemoryMax=67108864\nSlice=user.slice\nTasksMax=33");
    let inside = "podman exec web sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max'";
    assert_eq!(person.ok(inside), "67108864\n33");
    person.ok("podman update --memory 80m --pids-limit 20 web");
    person.ok("systemctl --user daemon-reload");
    assert_eq!(person.ok(inside), "83886080\n20");
    assert_eq!(show("MemoryMax,TasksMax"), "MemoryMax=83886080\nTasksMax=20");
    person.ok("podman pause web");
    assert_eq!(person.ok("podman inspect web --format '{{.State.Status}}'"), "paused");
    person.ok("podman unpause web");
    person.fails("podman exec web sh -c 'exit 9'", 9);
    person.ok("podman stop --time 60 web");
    assert_eq!(person.ok("podman wait web"), "3");
    person.ok("podman rm web");
    person.fails("podman run --rm --memory 16m busy tail /dev/zero", 137);
    let left = || person.ok("systemctl --user list-units --all --no-legend --plain 'libpod-*'");
    eventually("every scope to go", || left().is_empty().then_some(()));
    assert_nothing_left(&person);
}

#[test]
fn ports_of_a_container_are_published_and_its_network_is_shared() {
    requires!(vm, engine "podman", tool "newuidmap", tool "pasta", tool "curl");
    let world = World::new();
    let person = Person::new(&world);
    person.import();
    let serve = "mkdir /www; echo page >/www/index.html; httpd -f -p 80 -h /www";
    let web = "podman run --detach --name web --network pasta --publish 8080:80";
    person.ok(&format!("{web} busy sh -c '{serve}'"));
    let page = || person.command("curl --silent http://127.0.0.1:8080/").output();
    eventually("the page", || (page().stdout() == "page\n").then_some(()));
    let beside = "podman run --rm --network container:web busy wget -qO- http://127.0.0.1/";
    assert_eq!(person.ok(beside), "page");
    person.ok("podman rm --force --time 0 web");
    assert_nothing_left(&person);
}

#[test]
fn without_a_session_systemd_is_asked_for_in_vain_and_says_how_to_have_it() {
    requires!(vm, tool "newuidmap");
    let world = World::new();
    let person = Person::new(&world);
    let bundle = support::Bundle::new().user_namespace(100_000, 1000).set("/linux/cgroupsPath", "".into());
    bundle.save();
    let open = |path: &std::path::Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode).expect("chmod");
    };
    open(bundle.path());
    let create = format!("deja --systemd-cgroup create --bundle {} x", bundle.path().display());
    person
        .command(&create)
        .fails()
        .assert_says("systemd does not run here")
        .assert_says("--cgroup-manager cgroupfs");
    person
        .command(&format!("unset XDG_RUNTIME_DIR; deja --root /tmp/deja-{} {}", bundle.id(), &create[5..]))
        .fails()
        .assert_says("XDG_RUNTIME_DIR is not set");
}
