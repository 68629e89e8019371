//! podman and containerd take checkpoints through deja: every way of theirs to ask for one.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::{binary, eventually, requires, rootfs};

/// Counts in a directory of the host: to look at it takes no engine.
const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /out/new; mv /out/new /out/count; sleep 0.2; done";
const IMAGE: &str = "localhost/counter:test";

fn shell(script: &str) -> Output {
    Command::new("bash").args(["-c", script]).stdin(Stdio::null()).output().expect("run bash")
}

#[track_caller]
fn succeeds(script: &str) -> String {
    let output = shell(script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// podman with a runtime, usually deja, and a storage and state of its own.
struct Podman {
    directory: tempfile::TempDir,
    deja: PathBuf,
    runtime: &'static str,
}

impl Podman {
    fn new() -> Self {
        Self::with("deja")
    }

    fn with(runtime: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // podman asks for a runtime of the same name when it imports a checkpoint.
        let deja = directory.path().join("deja");
        std::fs::copy(binary(), &deja).expect("copy deja");
        // In /dev/shm its locks have one name for all of a machine, and other tests run beside this one.
        let settings = format!(
            "[engine]\nlock_type = \"file\"\n[engine.runtimes]\ndeja = [{:?}]\n",
            deja.to_string_lossy()
        );
        std::fs::write(directory.path().join("containers.conf"), settings).expect("write containers.conf");
        let podman = Self { directory, deja, runtime };
        let import = format!("tar -C {} -c . | {} import -q - {IMAGE}", rootfs().display(), podman.words());
        succeeds(&import);
        podman
    }

    fn words(&self) -> String {
        let place = self.directory.path().display();
        format!(
            "env CONTAINERS_CONF_OVERRIDE={place}/containers.conf podman --root {place}/root --runroot {place}/run \
             --tmpdir {place}/tmp --runtime {} --cgroup-manager cgroupfs --events-backend none",
            self.runtime
        )
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        succeeds(&format!("{} {words}", self.words()))
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    #[track_caller]
    fn run(&self, name: &str) {
        let out = self.out();
        self.ok(&format!("run -d --network none -v {out}:/out --name {name} {IMAGE} sh -c '{COUNT}'"));
    }

    /// What the counter sees as /out.
    fn out(&self) -> String {
        let out = self.directory.path().join("out");
        std::fs::create_dir_all(&out).expect("make a directory");
        out.display().to_string()
    }

    fn count(&self) -> u64 {
        let path = self.directory.path().join("out/count");
        eventually("a count", || std::fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    /// The count at least, after it was seen to go on.
    #[track_caller]
    fn goes_on(&self, least: u64) -> u64 {
        let before = self.count();
        assert!(before >= least, "{least} before, {before} after");
        eventually("the count to go on", || Some(self.count()).filter(|now| *now > before))
    }

    /// The id of what its containers are made of.
    fn image(&self) -> String {
        self.ok(&format!("image inspect --format '{{{{.Id}}}}' {IMAGE}"))
    }

    fn status(&self, name: &str) -> String {
        self.ok(&format!("inspect --format '{{{{.State.Status}}}}' {name}"))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What cannot be removed is of a test that has failed already.
        drop(shell(&format!("{} rm -fa -t 0", self.words())));
        drop(shell(&format!("umount -l {0}/root/overlay {0}/root", self.directory.path().display())));
    }
}

#[test]
fn podman_checkpoints_and_restores_in_place() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    podman.run("one");
    let before = podman.goes_on(1);
    podman.ok("container checkpoint one");
    assert_eq!(podman.status("one"), "exited");
    podman.ok("container restore one");
    let before = podman.goes_on(before);
    podman.ok("container checkpoint --leave-running one");
    assert_eq!(podman.status("one"), "running");
    podman.goes_on(before);
}

#[test]
fn podman_exports_a_checkpoint_and_imports_it_twice() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    podman.run("one");
    let before = podman.goes_on(1);
    let archive = podman.file("one.tar.zst");
    podman.ok(&format!("container checkpoint --export {archive} one"));
    podman.ok("rm -f one");
    podman.ok(&format!("container restore --import {archive}"));
    podman.goes_on(before);
    podman.ok(&format!("container restore --import {archive} --name two"));
    assert_eq!(podman.status("one"), "running");
    assert_eq!(podman.status("two"), "running");
}

#[test]
fn podman_builds_a_checkpoint_on_an_earlier_one() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    podman.run("one");
    let before = podman.goes_on(1);
    let (early, late) = (podman.file("early.tar"), podman.file("late.tar"));
    podman.ok(&format!("container checkpoint --pre-checkpoint --export {early} one"));
    podman.goes_on(before);
    podman.ok(&format!("container checkpoint --with-previous --export {late} one"));
    podman.ok("rm -f one");
    podman.ok(&format!("container restore --import-previous {early} --import {late}"));
    podman.goes_on(before);
}

#[test]
fn podman_keeps_a_checkpoint_as_an_image_and_restores_from_it() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    podman.run("one");
    let before = podman.goes_on(1);
    podman.ok("container checkpoint --create-image localhost/saved one");
    let runtime = "io.podman.annotations.checkpoint.runtime.name";
    let noted = podman
        .ok(&format!("image inspect --format '{{{{index .Annotations \"{runtime}\"}}}}' localhost/saved"));
    assert_eq!(noted, "deja");
    podman.ok("rm -f one");
    podman.ok("container restore localhost/saved");
    podman.goes_on(before);
}

/// A container of a pod has the pod's network, names and IPC, before and after.
#[test]
fn podman_restores_a_container_in_its_pod_and_in_another() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    for pod in ["first", "second"] {
        let infra = format!("--infra-image {IMAGE} --infra-command '/bin/sleep 100000' --share ipc,net,uts");
        podman.ok(&format!("pod create --network none --name {pod} --infra-name {pod}-infra {infra}"));
    }
    let out = podman.out();
    podman.ok(&format!("run -d --pod first -v {out}:/out --name one {IMAGE} sh -c '{COUNT}'"));
    let shared = |container: &str, infra: &str| {
        let pid = |name: &str| podman.ok(&format!("inspect --format '{{{{.State.Pid}}}}' {name}"));
        for namespace in ["net", "ipc", "uts"] {
            let [one, other] = [container, infra].map(|name| {
                std::fs::read_link(format!("/proc/{}/ns/{namespace}", pid(name))).expect("a namespace")
            });
            assert_eq!(one, other, "{namespace} of {container} and {infra}");
        }
    };
    shared("one", "first-infra");
    let before = podman.goes_on(1);
    podman.ok("container checkpoint one");
    podman.ok("container restore one");
    shared("one", "first-infra");
    let before = podman.goes_on(before);
    let archive = podman.file("one.tar");
    podman.ok(&format!("container checkpoint --compress none --export {archive} one"));
    podman.ok("rm one");
    podman.ok(&format!("container restore --import {archive} --pod second --name two"));
    shared("two", "second-infra");
    podman.goes_on(before);
    podman.ok("pod rm -f -t 0 first second");
}

/// A bundle for deja alone of the config.json that podman has made. What podman keeps for a container goes with it, so
/// the bundle has copies.
fn bundle_of(spec: &Path, directory: &Path) {
    let own = directory.join("own");
    std::fs::create_dir_all(&own).expect("make a directory");
    let text = std::fs::read_to_string(spec).expect("read what podman has made");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("a config.json");
    // What podman has made an image of has a root that nobody writes to.
    let root = directory.join("rootfs").display().to_string();
    succeeds(&format!("cp -a {} {root} && chmod 555 {root}", rootfs().display()));
    spec["root"]["path"] = "rootfs".into();
    spec["linux"]["cgroupsPath"] = format!("/deja-test/archive-{}", std::process::id()).into();
    for mount in spec["mounts"].as_array_mut().expect("mounts") {
        let source = mount["source"].as_str().unwrap_or_default().to_owned();
        if source.contains("/userdata/") {
            let name = own.join(Path::new(&source).file_name().expect("a name"));
            succeeds(&format!("cp -a {source} {}", name.display()));
            mount["source"] = name.display().to_string().into();
        }
    }
    std::fs::write(directory.join("config.json"), spec.to_string()).expect("write config.json");
}

fn goes_on_under_deja_alone(podman: &Podman) {
    podman.run("one");
    podman.ok("exec one sh -c 'echo new >/written && rm /etc/passwd'");
    let id = podman.ok("inspect --format '{{.Id}}' one");
    let before = podman.goes_on(1);
    let (archive, bundle) = (podman.file("one.tar"), podman.directory.path().join("bundle"));
    podman.ok(&format!("container checkpoint --compress none --export {archive} one"));
    std::fs::create_dir(&bundle).expect("make the bundle");
    succeeds(&format!("tar -C {} -xf {archive} spec.dump", bundle.display()));
    bundle_of(&bundle.join("spec.dump"), &bundle);
    podman.ok("rm one");

    let deja = format!("{} --root {}", podman.deja.display(), podman.file("state"));
    let restore = format!("restore --import {archive} --bundle {} --detach {id}", bundle.display());
    succeeds(&format!(
        "{deja} {restore} </dev/null >/dev/null 2>{}/said || {{ cat {0}/said >&2; false; }}",
        bundle.display()
    ));
    podman.goes_on(before);
    assert_eq!(
        succeeds(&format!("{deja} exec {id} sh -c 'cat /written; test -e /etc/passwd || echo gone'")),
        "new\ngone"
    );
    succeeds(&format!("{deja} delete --force {id}"));
}

#[test]
fn an_archive_of_podman_s_goes_on_under_deja_alone() {
    requires!(vm, criu, tool "podman");
    goes_on_under_deja_alone(&Podman::new());
}

#[test]
fn an_archive_that_podman_has_made_with_runc_goes_on_under_deja_alone() {
    requires!(vm, criu, tool "podman", tool "runc");
    goes_on_under_deja_alone(&Podman::with("runc"));
}

#[test]
fn podman_restores_from_an_image_of_a_checkpoint_that_deja_has_made() {
    requires!(vm, criu, tool "podman");
    let podman = Podman::new();
    podman.run("one");
    let id = podman.ok("inspect --format '{{.Id}}' one");
    let bundle = podman.directory.path().join("bundle");
    bundle_of(Path::new(&podman.ok("inspect --format '{{.OCIConfigPath}}' one")), &bundle);
    podman.ok("rm -f -t 0 one");

    let deja = format!("{} --root {}", podman.deja.display(), podman.file("state"));
    succeeds(&format!("{deja} run --detach --bundle {} {id} </dev/null >/dev/null 2>&1", bundle.display()));
    let before = podman.goes_on(1);
    let (archive, name) = (podman.file("image.tar"), "localhost/saved:test");
    let image = format!("--image-name {name} --rootfs-image {IMAGE} --rootfs-image-id {}", podman.image());
    succeeds(&format!("{deja} checkpoint --export {archive} {image} {id}"));
    podman.ok(&format!("load --quiet --input {archive}"));
    podman.ok(&format!("container restore {name}"));
    podman.goes_on(before);
}

/// A containerd of its own.
struct Containerd {
    directory: tempfile::TempDir,
    child: Child,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().display();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let config = format!(
            "version = 2\nroot = \"{place}/root\"\nstate = \"{place}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{place}/sock\"\n"
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("write");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(directory.path().join("config.toml"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Self { directory, child };
        eventually("containerd to answer", || containerd.try_ctr("version").status.success().then_some(()));
        containerd
    }

    /// The shim keeps deja's records below the name of the namespace, whichever containerd it is of.
    fn words(&self) -> String {
        let space = self.directory.path().file_name().expect("a name").to_string_lossy().replace('.', "");
        format!("ctr --address {}/sock --namespace {space}", self.directory.path().display())
    }

    fn try_ctr(&self, words: &str) -> Output {
        shell(&format!("{} {words}", self.words()))
    }

    #[track_caller]
    fn ok(&self, words: &str) -> String {
        succeeds(&format!("{} {words}", self.words()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in ["one", "two"] {
            // They may never have been there.
            drop(self.try_ctr(&format!("t rm -f {id}")));
        }
        self.child.kill().expect("kill containerd");
        self.child.wait().expect("wait for containerd");
    }
}

fn exported(podman: &Podman) -> String {
    let archive = podman.file("image.tar");
    podman.ok(&format!("save -q -o {archive} {IMAGE}"));
    archive
}

/// A containerd in which the counter runs as `one`.
fn counting(archive: &Podman) -> Containerd {
    let containerd = Containerd::start();
    containerd.ok(&format!("images import {}", exported(archive)));
    let deja = archive.deja.display();
    let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", archive.out());
    containerd.ok(&format!("run -d --runc-binary {deja} --mount {mount} {IMAGE} one sh -c '{COUNT}'"));
    containerd
}

#[test]
fn containerd_checkpoints_a_container_and_restores_it_under_another_name() {
    requires!(vm, criu, tool "ctr", tool "podman");
    let archive = Podman::new();
    let containerd = counting(&archive);
    let before = eventually("a count", || Some(archive.count()).filter(|count| *count > 20));
    containerd.ok("c checkpoint --task --rw one saved");
    assert!(containerd.ok("t ls").contains("RUNNING"));
    // The image names the cgroup of the first, so that it has to go.
    containerd.ok("t rm -f one");
    std::fs::remove_file(archive.file("out/count")).expect("remove the count");
    containerd.ok("c restore --live two saved");
    archive.goes_on(before);
}

#[test]
fn containerd_saves_a_task_to_a_directory_and_ends_it() {
    requires!(vm, criu, tool "ctr", tool "podman");
    let archive = Podman::new();
    let containerd = counting(&archive);
    archive.goes_on(1);
    let (image, work) = (archive.file("task"), archive.file("work"));
    succeeds(&format!("mkdir {image} {work}"));
    containerd.ok(&format!("t checkpoint --exit --image-path {image} --work-path {work} one"));
    assert!(Path::new(&image).join("deja.json").exists());
    eventually("the task to stop", || containerd.ok("t ls").contains("STOPPED").then_some(()));
}
