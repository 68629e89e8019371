//! Images that runc and crun have made go on under deja, and deja's under them.

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::counter::{checkpoint, count, counting, goes_on, path, restore};
use support::{Bundle, Container, Deja, eventually, requires};

/// Both can save a container whose output leads nowhere, and not one that writes to a file of the host's.
const NOWHERE: &str = "</dev/null >/dev/null 2>/dev/null";

/// Another runtime with a container of its own over a bundle; what is left of it goes with it.
struct Peer<'b> {
    program: &'static str,
    bundle: &'b Bundle,
}

impl<'b> Peer<'b> {
    fn new(program: &'static str, bundle: &'b Bundle) -> Self {
        bundle.save();
        Self { program, bundle }
    }

    /// Flags and arguments of the verb are still to come.
    fn verb(&self, verb: &str) -> Deja {
        Deja::other(self.program).arg("--root").arg(self.bundle.file("peer")).arg(verb)
    }

    #[track_caller]
    fn run(&self) {
        let words = ["--detach", "--bundle"];
        self.verb("run").args(words).arg(self.bundle.path()).arg(self.bundle.id()).redirections(NOWHERE).ok();
    }

    #[track_caller]
    fn checkpoint(&self, image: &str) {
        self.verb("checkpoint").args(["--image-path", image]).arg(self.bundle.id()).ok();
    }

    #[track_caller]
    fn restore(&self, image: &str) {
        let flags = ["--detach", "--image-path", image, "--bundle"];
        let verb = self.verb("restore").args(flags).arg(self.bundle.path()).arg(self.bundle.id());
        verb.redirections(NOWHERE).ok();
    }

    fn count(&self) -> u64 {
        let look = || self.verb("exec").arg(self.bundle.id()).args(["cat", "/tmp/count"]).output();
        eventually("a count", || look().stdout().trim().parse().ok())
    }

    #[track_caller]
    fn goes_on(&self, least: u64) -> u64 {
        let before = self.count();
        assert!(before >= least, "{least} before, {before} after");
        eventually("the count to go on", || Some(self.count()).filter(|now| *now > before))
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        // Of a container that ended as it should there is nothing to delete.
        self.verb("delete").arg("--force").arg(self.bundle.id()).output();
    }
}

/// With what a restore has to find outside: a bind mount, and masked files and directories, which are in every bundle.
fn bundle() -> Bundle {
    let bundle = counting();
    let (outside, settings) = (bundle.file("outside"), bundle.file("criu.conf"));
    fs::create_dir(&outside).expect("make a directory");
    fs::write(outside.join("word"), "found").expect("write a file");
    // A CRIU that looks for cgroups itself makes the host's mount of them anew, with options that others rely on gone;
    // what is in this file counts for all three.
    fs::write(&settings, "manage-cgroups=ignore\n").expect("write a file");
    bundle.set("/annotations/org.criu.config", json!(settings)).mount(
        json!({"destination": "/outside", "type": "bind", "source": outside, "options": ["rbind", "ro"]}),
    )
}

/// The image of another runtime goes on under deja. Gives the container and what it has counted to.
fn there<'b>(peer: &Peer<'b>) -> (Container<'b>, u64) {
    let bundle = peer.bundle;
    let image = path(bundle, "theirs");
    peer.run();
    let before = peer.goes_on(1);
    peer.checkpoint(&image);
    assert!(!Path::new(&image).join("deja.json").exists(), "{} writes no manifest", peer.program);

    let restored = restore(bundle, &image, &[]).redirections(NOWHERE).ok();
    let container = Container::adopt(bundle, bundle.id(), restored);
    goes_on(&container, before);
    container.exec(&["cat", "/outside/word"]).assert_stdout("found");
    container.exec(&["cat", "/proc/self/cgroup"]).assert_stdout("0::/");
    let before = count(&container);
    (container, before)
}

#[track_caller]
fn masks_are_back(container: &Container) {
    let masked = "cat /proc/keys /proc/timer_list; ls /proc/acpi /sys/firmware";
    assert_eq!(container.exec(&["sh", "-c", masked]).stdout(), "/proc/acpi:\n\n/sys/firmware:\n");
}

fn back(peer: &Peer, container: Container, before: u64) {
    let image = path(peer.bundle, "ours");
    checkpoint(&container, &image, &[]).ok();
    container.release();
    peer.restore(&image);
    peer.goes_on(before);
}

#[test]
fn runc_and_deja_restore_each_other_s_images() {
    requires!(bed, criu, tool "runc");
    let bundle = bundle();
    let peer = Peer::new("runc", &bundle);
    let (container, before) = there(&peer);
    masks_are_back(&container);
    back(&peer, container, before);
}

#[test]
fn crun_and_deja_restore_each_other_s_images() {
    requires!(bed, criu, tool "crun", path "/usr/lib/x86_64-linux-gnu/libcriu.so.2");
    let whole = bundle();
    let (container, _) = there(&Peer::new("crun", &whole));
    masks_are_back(&container);

    // Masked files have other names in crun's images than in runc's, which are those that deja writes.
    let bare = bundle().remove("/linux/maskedPaths");
    let peer = Peer::new("crun", &bare);
    let (container, before) = there(&peer);
    back(&peer, container, before);
}
