//! buildah builds and runs with deja.

mod support;
use support::{World, requires};

#[test]
fn it_builds_runs_and_sits_at_a_terminal() {
    requires!(vm, engine "buildah", engine "podman");
    let world = World::new();
    world.import("podman");
    let file = "FROM localhost/busy\nRUN echo built >/made && id -u >>/made\nRUN --network=none test -e /made\n\
        USER 1000\nRUN test \"$(id -u)\" = 1000\nCMD cat /made\n";
    world.write("/run/build/Dockerfile", file);
    let build = "buildah bud --pull=never --isolation oci";
    world.ok(&format!("{build} --runtime /usr/local/bin/deja --tag built /run/build"));
    assert_eq!(world.ok("podman run --rm built"), "built\n0");
    world.write("/run/broken/Dockerfile", "FROM localhost/busy\nRUN exit 6\n");
    let broken = world.command(&format!("{build} --tag broken /run/broken")).fails();
    broken.assert_says("exit status 6");

    world.ok("buildah from --pull=never --name work localhost/busy");
    let run = "buildah run --isolation oci --runtime /usr/local/bin/deja";
    assert_eq!(world.ok(&format!("{run} --hostname named work hostname")), "named");
    world.fails(&format!("{run} work sh -c 'exit 3'"), 3);
    world.command(&format!("{run} work missing")).fails().assert_says("executable file not found in $PATH");
    let (mut console, running) = world.on_terminal(&format!("{run} --tty work sh"));
    console.read_until("# ");
    console.write("test -t 0 && echo a-$((40 + 2))-terminal\nexit 5\n");
    console.read_until("a-42-terminal");
    running.finish().assert_code(5);
    world.ok("buildah rm --all");
    assert_eq!(world.records(), Vec::<std::path::PathBuf>::new());
}
