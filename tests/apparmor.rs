//! AppArmor: who runs in a container is under the profile that was asked for, and one that is not there is named.

mod support;
use support::{Bundle, Profile, World, eventually, requires};

use serde_json::json;

const CURRENT: &str = "cat /proc/self/attr/current";

#[test]
fn a_profile_holds_for_the_first_process_and_its_children() {
    requires!(bed, apparmor, tool "apparmor_parser");
    let profile = Profile::forbids("/etc/secret");
    let bundle = Bundle::new()
        .with_file("/etc/secret", 0o644, "told\n")
        .set("/process/apparmorProfile", json!(profile.name()))
        .script("cat /proc/self/attr/current; (cat /etc/secret) 2>&1");
    let run = bundle.run().assert_code(1).stdout();
    assert_eq!(run, format!("{}\ncat: can't open '/etc/secret': Permission denied\n", profile.enforced()));
    // Between create and start, too, nobody else's program runs unconfined.
    let bundle = bundle.sleeps();
    let container = bundle.create();
    container.start();
    eventually("its program", || {
        let path = format!("/proc/{}/attr/current", container.pid());
        std::fs::read_to_string(path).is_ok_and(|text| text.trim_end() == profile.enforced()).then_some(())
    });
}

#[test]
fn exec_has_the_profile_of_the_container_or_the_one_it_asks_for() {
    requires!(bed, apparmor, tool "apparmor_parser");
    let (profile, other) = (Profile::forbids("/etc/secret"), Profile::forbids("/etc/other"));
    let bundle = Bundle::new().sleeps().set("/process/apparmorProfile", json!(profile.name()));
    let container = bundle.start();
    let says = |flags: &[&str]| container.exec_with(flags, &["/bin/sh", "-c", CURRENT]).ok().stdout();
    assert_eq!(says(&[]).trim_end(), profile.enforced());
    assert_eq!(says(&["--apparmor", other.name()]).trim_end(), other.enforced());
    assert_eq!(says(&["--apparmor", "unconfined"]).trim_end(), "unconfined");
    let process = json!({"cwd": "/", "args": ["/bin/sh", "-c", CURRENT], "apparmorProfile": other.name()});
    std::fs::write(bundle.file("process.json"), process.to_string()).expect("write process.json");
    let path = bundle.file("process.json");
    let run = container.exec_with(&["--process", path.to_str().expect("a path")], &[]).ok();
    assert_eq!(run.stdout().trim_end(), other.enforced());
    let missing = container.exec_with(&["--apparmor", "no-such-profile"], &["true"]).fails();
    missing.assert_says("\"no-such-profile\"").assert_says("the profile is not loaded");
}

#[test]
fn a_profile_that_is_not_loaded_is_named_and_nothing_is_left() {
    requires!(bed, apparmor);
    let bundle = Bundle::new().set("/process/apparmorProfile", json!("no-such-profile"));
    let create = bundle.verb("create").arg(bundle.id()).fails();
    create
        .assert_says("apparmor failed to apply profile \"no-such-profile\"")
        .assert_says("the profile is not loaded");
    assert!(!bundle.cgroup().exists());
    bundle.deja().args(["state", bundle.id()]).fails().assert_says("does not exist");
}

#[test]
fn podman_has_a_profile_of_its_own_and_takes_others() {
    requires!(vm, apparmor, engine "podman", tool "apparmor_parser");
    let profile = Profile::forbids("/etc/secret");
    let world = World::new();
    world.import("podman");
    let own = world.ok(&format!("podman run --rm busy {CURRENT}"));
    assert!(own.starts_with("containers-default-") && own.ends_with(" (enforce)"), "{own}");
    let option = format!("--security-opt apparmor={}", profile.name());
    world.ok(&format!("podman run --detach --name web {option} busy sleep 1000"));
    assert_eq!(world.ok(&format!("podman exec web {CURRENT}")), profile.enforced());
    assert_eq!(world.ok(&format!("podman exec --privileged web {CURRENT}")), profile.enforced());
    world.ok("podman rm --force --time 0 web");
    assert_eq!(world.ok(&format!("podman run --rm --privileged busy {CURRENT}")), "unconfined");
    let missing = "podman run --rm --security-opt apparmor=no-such-profile busy true";
    world.fails(missing, 126).assert_says("no-such-profile");
    assert_eq!(world.records(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn docker_and_containerd_have_profiles_applied() {
    requires!(vm, apparmor, engine "dockerd", engine "containerd", tool "apparmor_parser");
    let profile = Profile::forbids("/etc/secret");
    let world = World::new();
    world.daemon("dockerd", "docker version");
    world.import("docker");
    assert_eq!(world.ok(&format!("docker run --rm busy {CURRENT}")), "docker-default (enforce)");
    let option = format!("--security-opt apparmor={}", profile.name());
    world.ok(&format!("docker run --detach --name web {option} busy sleep 1000"));
    assert_eq!(world.ok(&format!("docker exec web {CURRENT}")), profile.enforced());
    world.ok("docker rm --force web");
    let missing = "docker run --rm --security-opt apparmor=no-such-profile busy true";
    world.command(missing).fails().assert_says("apparmor failed to apply profile \"no-such-profile\"");

    // The containerd that docker started.
    let address = "--address /run/docker/containerd/containerd.sock";
    world.ok(&format!("docker save --output /run/busy.tar busy && ctr {address} image import /run/busy.tar"));
    let run = format!(
        "ctr {address} run --runc-binary /usr/local/bin/deja --rm --apparmor-profile {}",
        profile.name()
    );
    let image = "docker.io/library/busy:latest";
    assert_eq!(world.ok(&format!("{run} {image} one {CURRENT}")), profile.enforced());
    eventually("every record to go", || world.records().is_empty().then_some(()));
}
