//! containerd runs containers on deja through its runc shim.

mod support;
use support::{World, eventually, requires};

const RUN: &str = "ctr run --runc-binary /usr/local/bin/deja";

fn containerd() -> World {
    let world = World::new();
    world.daemon("containerd", "ctr version");
    world.archive();
    world.ok("ctr image import /run/busy.tar");
    world
}

#[track_caller]
fn assert_nothing_left(world: &World) {
    assert_eq!(world.ok("ctr containers list --quiet"), "");
    eventually("every record to go", || world.records().is_empty().then_some(()));
}

#[test]
fn it_runs_execs_pauses_measures_and_kills() {
    requires!(vm, engine "containerd", cgroup "memory");
    let world = containerd();
    let image = "localhost/busy:latest";
    assert_eq!(world.ok(&format!("{RUN} --rm {image} one echo hello")), "hello");
    world.fails(&format!("{RUN} --rm {image} one sh -c 'exit 7'"), 7);
    let missing = world.fails(&format!("{RUN} --rm {image} one missing"), 1);
    missing.assert_says(r#"OCI runtime create failed: exec: "missing": executable file not found in $PATH"#);

    let limits = "--memory-limit 67108864 --cpus 0.5 --cgroup /deja-test/two";
    world.ok(&format!("{RUN} --detach {limits} {image} two sleep 1000"));
    world.fails("ctr task exec --exec-id a two sh -c 'exit 5'", 5);
    assert_eq!(
        world.ok("ctr task exec --exec-id b --user 1000 --cwd /tmp two sh -c 'id -u; pwd'"),
        "1000\n/tmp"
    );
    let limit = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/deja-test/two/{file}"));
    assert_eq!(limit("memory.max").expect("a limit"), "67108864\n");
    assert_eq!(limit("cpu.max").expect("a limit"), "50000 100000\n");
    let status = || world.ok("ctr task list").lines().find(|line| line.starts_with("two")).map(str::to_owned);
    world.ok("ctr task pause two");
    assert!(status().expect("a task").ends_with("PAUSED"));
    world.ok("ctr task resume two");
    assert!(status().expect("a task").ends_with("RUNNING"));
    let metrics = world.ok("ctr task metrics two");
    assert!(metrics.contains("memory.usage_limit    67108864"), "{metrics}");
    assert_eq!(world.ok("ctr task ps two").lines().count(), 2);
    world.ok("ctr task kill --signal KILL two");
    eventually("it to stop", || status().filter(|line| line.ends_with("STOPPED")));
    let deleted = world.command("ctr task delete two").output().stderr();
    assert!(deleted.contains("exit code 137"), "{deleted}");
    world.ok("ctr containers delete two");
    assert_nothing_left(&world);
}

#[test]
fn terminals_and_the_events_of_a_container_without_memory() {
    requires!(vm, engine "containerd", cgroup "memory");
    let world = containerd();
    let image = "localhost/busy:latest";
    let (mut console, run) = world.on_terminal(&format!("{RUN} --rm --tty {image} three sh"));
    console.read_until("# ");
    let (mut second, exec) = world.on_terminal("ctr task exec --tty --exec-id a three sh");
    second.read_until("# ");
    second.write("test -t 0 && echo a-$((40 + 2))-terminal\nexit 5\n");
    second.read_until("a-42-terminal");
    exec.finish().assert_code(5);
    console.write("exit 9\n");
    run.finish().assert_code(9);

    world.ok("ctr events >/run/events 2>&1 </dev/null & sleep 0.2");
    let hungry = format!("{RUN} --rm --memory-limit 16777216 {image} four tail /dev/zero");
    world.fails(&hungry, 137);
    let events = || std::fs::read_to_string(world.path("/run/events")).unwrap_or_default();
    eventually("the event of its end", || events().contains("/tasks/delete").then_some(()));
    assert!(events().contains("/tasks/oom"), "{}", events());
    assert_nothing_left(&world);
}

#[test]
fn people_attach_to_a_task() {
    requires!(vm, engine "containerd");
    let world = containerd();
    let start = format!("{RUN} --detach --tty localhost/busy:latest five sh");
    let (_console, run) = world.on_terminal(&start);
    run.finish().assert_code(0);
    let (mut console, attached) = world.on_terminal("ctr task attach five");
    console.write("\necho attached-$((40 + 2))\n");
    console.read_until("attached-42");
    console.write("exit 8\n");
    attached.finish().assert_code(8);
    world.ok("ctr containers delete five");
    assert_nothing_left(&world);
}
