//! States of sessions under other programs: podman, docker, skopeo and crun take what deja writes, and the other way round.

mod support;

use support::{World, requires};

const SESSION: &str = "deja session";
const STORE: &str = "--store /run/sessions";

/// A session that begins with what podman made of the small root file system, in both forms in which podman saves.
fn from_podman(world: &World) {
    world.import("podman");
    let script = "mkdir /srv/d; echo one >/srv/d/f; rm -r /mnt; ln /srv/d/f /srv/g";
    world.ok(&format!("podman run --name made busy sh -c '{script}'"));
    world.ok("podman commit -q --change 'ENV COURSE=os' --change 'WORKDIR /srv/d' made made:1");
    for form in ["docker-archive", "oci-archive"] {
        world.ok(&format!("rm -rf /run/i; podman save -q --format {form} -o /run/i made:1"));
        world.ok(&format!("{SESSION} new {STORE} --image /run/i {form}"));
    }
}

fn state(world: &World, name: &str) -> String {
    world.ok(&format!("{SESSION} log {STORE} --json {name} | grep -o '\"state\":\"[0-9a-f]*' | tail -n 1"))
}

#[test]
fn an_image_of_podman_becomes_a_session_whose_state_runs_under_podman_and_goes_through_skopeo() {
    requires!(vm, engine "podman", engine "skopeo");
    let world = World::new();
    from_podman(&world);
    assert_eq!(state(&world, "docker-archive"), state(&world, "oci-archive"), "both are the same image");
    let told = world.ok(&format!(
        "{SESSION} exec {STORE} oci-archive -c 'pwd; echo $COURSE; cat f /srv/g; test -e /mnt || echo gone'"
    ));
    assert_eq!(told, "/srv/d\nos\none\none\ngone");
    let change = "rm -r /srv/d /srv/g; mkdir -p /srv/d/e; echo two >/srv/d/e/f";
    world.ok(&format!("{SESSION} exec {STORE} oci-archive -c '{change}'"));
    world.ok(&format!(
        "{SESSION} export {STORE} --format archive --name localhost/ada:1 oci-archive - | podman load -q"
    ));
    let script = "echo $COURSE; pwd; find /srv | sort; cat /srv/d/e/f; test -e /mnt || echo gone";
    let told = world.ok(&format!("podman run --rm localhost/ada:1 sh -c '{script}'"));
    assert_eq!(told, "os\n/srv/d\n/srv\n/srv/d\n/srv/d/e\n/srv/d/e/f\ntwo\ngone");
    // Through skopeo into a compressed layout, and back: the same state.
    world.ok(&format!("{SESSION} export {STORE} --format layout oci-archive /run/layout"));
    world.ok("skopeo copy -q --dest-compress oci:/run/layout oci:/run/packed:again");
    world.ok(&format!("{SESSION} new {STORE} --image /run/packed --ref again back"));
    assert_eq!(state(&world, "back"), state(&world, "oci-archive"));
}

#[test]
fn a_state_runs_under_docker() {
    requires!(vm, engine "dockerd", cgroup "memory");
    let world = World::new();
    world.daemon("dockerd", "docker version");
    let rootfs = support::rootfs();
    world.ok(&format!("{SESSION} new {STORE} --env COURSE=os --rootfs {} ada", rootfs.display()));
    let change = "cd /srv; mkdir d; echo one >d/f; ln d/f g; rm -r /mnt; chmod 600 g";
    world.ok(&format!("{SESSION} exec {STORE} ada -c '{change}'"));
    world.ok(&format!("{SESSION} export {STORE} --format archive --name ada:1 ada /run/ada.tar"));
    assert!(world.ok("docker load -i /run/ada.tar").contains("ada:1"));
    let script = "echo $COURSE; pwd; cat d/f; stat -c %a-%h g; test -e /mnt || echo gone";
    assert_eq!(world.ok(&format!("docker run --rm ada:1 sh -c '{script}'")), "os\n/srv\none\n600-2\ngone");
}

#[test]
fn a_state_as_a_bundle_runs_under_deja_and_crun() {
    requires!(vm, engine "crun");
    let world = World::new();
    let rootfs = support::rootfs();
    world.ok(&format!("{SESSION} new {STORE} --rootfs {} ada", rootfs.display()));
    world.ok(&format!(
        "{SESSION} exec {STORE} ada -c 'mkdir /srv/d; cd /srv/d; echo one >f; export NAME=x; umask 027'"
    ));
    world.ok(&format!("{SESSION} export {STORE} --format bundle ada /run/bundle"));
    for runtime in ["deja", "crun"] {
        let script = "pwd; cat f; echo $NAME; umask; hostname";
        let told = world.ok(&format!("echo '{script}' | {runtime} run --bundle /run/bundle {runtime}-1"));
        assert_eq!(told, "/srv/d\none\nx\n0027\ndeja", "{runtime}");
    }
}
