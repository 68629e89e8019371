//! Attacks on the way a container's file system is made, one test for each kind that has worked on a runtime.
//!
//! A race is run as a loop: an attacker swaps a file of the root for a link as fast as it can while containers are
//! made. Each of them may fail, with an error; one that starts must see what it was promised, and the host must
//! be as it was.

mod support;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::{Bundle, Finished, requires};

const ROUNDS: usize = 30;

/// On a slow machine there are fewer rounds.
const LONGEST: Duration = Duration::from_secs(15);

/// Exchanges two names over and over until `race` is done.
fn race(one: &Path, other: &Path, mut race: impl FnMut()) {
    /// Ends the race when the one who runs it has had enough, or has failed.
    struct End<'d>(&'d AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchange two names");
                // On a busy machine it is the waking up that interrupts the other side in the middle.
                std::thread::sleep(Duration::from_micros(1));
            }
        });
        let _end = End(&done);
        let begin = Instant::now();
        (0..ROUNDS).take_while(|_| begin.elapsed() < LONGEST).for_each(|_| race());
    });
}

/// What must not be touched: a directory and a file of the host, next to the root.
struct Prey {
    directory: PathBuf,
    file: PathBuf,
}

impl Prey {
    fn of(bundle: &Bundle) -> Self {
        let prey = Self { directory: bundle.file("prey"), file: bundle.file("prey-file") };
        fs::create_dir(&prey.directory).expect("mkdir");
        fs::write(&prey.file, "untouched").expect("write");
        prey
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let found: Vec<_> = fs::read_dir(&self.directory).expect("list").collect();
        assert!(found.is_empty(), "made outside of the root: {found:?}");
        assert_eq!(fs::read_to_string(&self.file).expect("read"), "untouched");
    }
}

/// A container that started saw `expected`; one that did not start has said why.
#[track_caller]
fn promised_or_refused(finished: &Finished, expected: &str) -> bool {
    match finished.code() {
        Some(0) => assert_eq!(finished.stdout().trim_end(), expected, "{finished}"),
        _ => assert!(finished.stderr().contains("step "), "no reason is given: {finished}"),
    }
    finished.code() == Some(0)
}

/// A bundle whose /dev is a directory of its root.
fn with_dev_of_its_own() -> Bundle {
    ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]
        .iter()
        .fold(Bundle::new(), |bundle, mount| bundle.without_mount(mount))
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and /sys where the rootfs has a link.
#[test]
fn proc_and_sys_are_mounted_on_real_directories() {
    requires!(bed);
    for place in ["proc", "sys"] {
        for target in ["/tmp", "tmp", "/../../prey", "/proc/self", "/nonexistent"] {
            let bundle = Bundle::new();
            let prey = Prey::of(&bundle);
            fs::remove_dir(bundle.rootfs().join(place)).expect("rmdir");
            symlink(target, bundle.rootfs().join(place)).expect("link");
            let finished = bundle.run().assert_code(1);
            assert!(finished.stderr().contains("must be mounted on ordinary directory"), "{finished}");
            prey.assert_untouched();
        }
    }
}

#[test]
fn proc_swapped_for_a_link_in_a_race() {
    requires!(bed);
    for place in ["proc", "sys"] {
        let magic = if place == "proc" { "proc" } else { "sysfs" };
        let bundle = Bundle::new().script(&format!("stat -f -c %T /{place}"));
        let prey = Prey::of(&bundle);
        let link = bundle.rootfs().join("link");
        symlink("../prey", &link).expect("link");
        let mut started = 0;
        race(&bundle.rootfs().join(place), &link, || {
            // The attacker may also hide what was mounted in time; then there is nothing to see.
            let finished = bundle.run();
            match finished.stdout().trim_end() {
                "" => assert!(finished.code() != Some(0), "{finished}"),
                seen => started += usize::from(seen == magic),
            }
        });
        prey.assert_untouched();
        eprintln!("{place}: {started} of {ROUNDS} started");
    }
}

/// CVE-2021-30465, CVE-2024-45310: a part of a mount's target is exchanged for a link to the host.
#[test]
fn a_target_swapped_for_a_link_in_a_race() {
    requires!(bed);
    let bundle = Bundle::new();
    let prey = Prey::of(&bundle);
    let volume = bundle.file("volume");
    fs::create_dir(&volume).expect("mkdir");
    fs::create_dir_all(bundle.rootfs().join("a")).expect("mkdir");
    let link = bundle.rootfs().join("link");
    symlink("../prey", &link).expect("link");
    // The more there is to make below it, the more often the exchange falls into the middle.
    let bundle = (0..100).fold(bundle, |bundle, number| {
        let destination = format!("/a/b{number}/c");
        bundle.mount(
            json!({"destination": destination, "type": "bind", "source": volume, "options": ["rbind"]}),
        )
    });
    let bundle = bundle
        .mount(
            json!({"destination": "/a/file", "type": "bind", "source": prey.file, "options": ["bind", "ro"]}),
        )
        .mount(json!({"destination": "/a/tmpfs", "type": "tmpfs", "source": "tmpfs"}))
        .set("/linux/maskedPaths/-", json!("/a/masked"))
        .set("/linux/readonlyPaths/-", json!("/a/readonly"));
    race(&bundle.rootfs().join("a"), &link, || {
        promised_or_refused(&bundle.run(), "");
        prey.assert_untouched();
        // The next round has to make them again; what is removed through the link was not made by us.
        (0..100).for_each(|number| drop(fs::remove_dir_all(bundle.rootfs().join(format!("a/b{number}")))));
    });
    prey.assert_untouched();
}

#[test]
fn links_out_of_the_root_end_in_the_root() {
    requires!(bed);
    for (link, target) in [("etc", "/../.."), ("etc", "../../prey"), ("etc", "/../../../../../../prey/x")] {
        let bundle = Bundle::new();
        let prey = Prey::of(&bundle);
        fs::remove_dir_all(bundle.rootfs().join(link)).expect("remove");
        symlink(target, bundle.rootfs().join(link)).expect("link");
        let bundle = bundle
            .mount(json!({"destination": "/etc/conf/x", "type": "bind", "source": prey.file, "options": ["bind", "ro"]}))
            .script("cat /etc/conf/x");
        bundle.run().assert_code(0).assert_stdout("untouched");
        prey.assert_untouched();
    }
}

#[test]
fn loops_of_links_are_an_error() {
    requires!(bed);
    let bundle = Bundle::new();
    let root = bundle.rootfs();
    symlink("two", root.join("one")).expect("link");
    symlink("one", root.join("two")).expect("link");
    (0..60).for_each(|n| symlink(format!("deep{}/.", n + 1), root.join(format!("deep{n}"))).expect("link"));
    for place in ["/one/x", "/one", "/deep0/x"] {
        let entry = json!({"destination": place, "type": "tmpfs", "source": "tmpfs"});
        let options = bundle.config()["mounts"].clone();
        let again = Bundle::new().set("/mounts", options).mount(entry).set("/root/path", json!(root));
        let finished = again.run().assert_code(1);
        assert!(finished.stderr().contains("too many levels of symbolic links"), "{finished}");
    }
}

/// CVE-2026-41579, CVE-2026-47766: devices are made below what the rootfs calls /dev.
#[test]
fn a_dev_that_is_a_link_gets_no_devices() {
    requires!(bed);
    for target in ["/", "../../prey", "/../prey", "etc"] {
        let bundle = with_dev_of_its_own();
        let prey = Prey::of(&bundle);
        fs::remove_dir_all(bundle.rootfs().join("dev")).expect("remove");
        symlink(target, bundle.rootfs().join("dev")).expect("link");
        let finished = bundle.run().assert_code(1);
        assert!(finished.stderr().contains("a directory and no link"), "{finished}");
        prey.assert_untouched();
        assert!(!bundle.rootfs().join("null").exists() && !bundle.rootfs().join("etc/null").exists());
    }
    let bundle = Bundle::new();
    let prey = Prey::of(&bundle);
    symlink("../../prey", bundle.rootfs().join("opt-dev")).expect("link");
    let bundle =
        bundle.set("/linux/devices", json!([{"path": "/opt-dev/x", "type": "c", "major": 1, "minor": 3}]));
    bundle.run().assert_code(1).assert_says("make the device");
    prey.assert_untouched();
}

#[test]
fn a_dev_swapped_for_a_link_in_a_race() {
    requires!(bed);
    let bundle = with_dev_of_its_own().script("stat -c %t:%T /dev/null");
    let prey = Prey::of(&bundle);
    let link = bundle.rootfs().join("link");
    symlink("../prey", &link).expect("link");
    race(&bundle.rootfs().join("dev"), &link, || {
        bundle.run();
    });
    prey.assert_untouched();
}

/// CVE-2025-31133: masked files are covered with what the rootfs calls /dev/null.
#[test]
fn masks_are_the_real_null_device() {
    requires!(bed);
    let bundle = with_dev_of_its_own();
    let prey = Prey::of(&bundle);
    symlink("/proc/sys/kernel/core_pattern", bundle.rootfs().join("dev/null")).expect("link");
    let finished = bundle.run().assert_code(1);
    assert!(finished.stderr().contains("mknodat: file exists"), "{finished}");
    // With a /dev that is not ours to set up, the mask comes from the host all the same.
    let dev = bundle.rootfs().join("dev");
    let bundle = with_dev_of_its_own()
        .mount(json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}))
        .script("stat -c %t:%T /proc/timer_list; readlink /dev/null");
    bundle.run().assert_code(0).assert_stdout("1:3\n/proc/sys/kernel/core_pattern");
    prey.assert_untouched();
}

#[test]
fn a_null_device_swapped_in_a_race_masks_nothing_else() {
    requires!(bed);
    let bundle = with_dev_of_its_own();
    let prey = Prey::of(&bundle);
    let dev = bundle.rootfs().join("dev");
    let link = bundle.rootfs().join("link");
    symlink("../../prey-file", &link).expect("link");
    fs::write(dev.join("null"), "").expect("write");
    let bundle = bundle
        .mount(json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}))
        .script("stat -c %t:%T /proc/timer_list /proc/keys");
    race(&dev.join("null"), &link, || {
        assert!(promised_or_refused(&bundle.run(), "1:3\n1:3"));
    });
    prey.assert_untouched();
}

#[test]
fn masked_and_read_only_paths_stay_in_the_root() {
    requires!(bed);
    let bundle = Bundle::new().with_file("/prey-file", 0o644, "inside");
    let prey = Prey::of(&bundle);
    symlink("/../../prey-file", bundle.rootfs().join("masked")).expect("link");
    let bundle = bundle
        .set("/linux/maskedPaths/-", json!("/masked"))
        .set("/linux/readonlyPaths/-", json!("/../../masked"))
        .script("cat /prey-file; stat -c %F /prey-file");
    bundle.run().assert_code(0).assert_stdout("character special file");
    prey.assert_untouched();
}

/// A mask that cannot be put in place is an error, whatever the reason, unless there is nothing to mask.
#[test]
fn a_mask_that_fails_is_an_error() {
    requires!(bed);
    let bundle = Bundle::new().with_file("/file", 0o644, "");
    symlink("loop", bundle.rootfs().join("loop")).expect("link");
    for path in ["/file/below", "/loop"] {
        let again =
            Bundle::new().set("/root/path", json!(bundle.rootfs())).set("/linux/maskedPaths/-", json!(path));
        again.run().assert_code(1).assert_says("mask ");
    }
}

/// CVE-2025-52565, CVE-2026-88264: the console is made where the rootfs has a link.
#[test]
fn the_console_follows_no_link() {
    requires!(bed);
    for target in ["../../prey/console", "../../prey-file", "/prey/console"] {
        let bundle = with_dev_of_its_own();
        let prey = Prey::of(&bundle);
        fs::create_dir_all(bundle.rootfs().join("dev/pts")).expect("mkdir");
        symlink(target, bundle.rootfs().join("dev/console")).expect("link");
        let bundle = bundle
            .mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["ptmxmode=0666"]}))
            .set("/process/terminal", true.into())
            .script("stat -L -c '%F %t' /dev/console");
        let said = on_a_terminal(&bundle);
        assert_eq!(said.as_deref().map(str::trim_end), Some("character special file 88"));
        prey.assert_untouched();
    }
}

#[test]
fn the_console_swapped_for_a_link_in_a_race() {
    requires!(bed);
    let bundle = with_dev_of_its_own();
    let prey = Prey::of(&bundle);
    let dev = bundle.rootfs().join("dev");
    fs::create_dir_all(dev.join("pts")).expect("mkdir");
    fs::write(dev.join("console"), "").expect("write");
    symlink("../../prey-file", dev.join("link")).expect("link");
    let bundle = bundle
        .mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["ptmxmode=0666"]}))
        .set("/process/terminal", true.into())
        .script("echo x > /dev/console");
    race(&dev.join("console"), &dev.join("link"), || {
        on_a_terminal(&bundle);
    });
    prey.assert_untouched();
}

/// A terminal comes from the container's devpts, not from anything that lies where one is expected.
#[test]
fn a_false_devpts_gives_no_terminal() {
    requires!(bed);
    let bundle =
        with_dev_of_its_own().with_file("/dev/pts/ptmx", 0o666, "").with_file("/dev/pts/0", 0o666, "");
    let bundle = bundle.set("/process/terminal", true.into());
    assert_eq!(on_a_terminal(&bundle), None);
}

/// Runs the bundle and gives what it said on its terminal; None where it was refused.
fn on_a_terminal(bundle: &Bundle) -> Option<String> {
    let path = bundle.file("tty");
    fs::remove_file(&path).ok();
    let socket = support::ConsoleSocket::listen(&path);
    let flags = ["--detach", "--console-socket", path.to_str().expect("UTF-8")];
    let finished = bundle.run_with(&flags);
    if finished.code() != Some(0) {
        assert!(finished.stderr().contains("step "), "no reason is given: {finished}");
        return None;
    }
    let said = socket.accept().read_to_end();
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
    Some(said)
}

/// CVE-2023-25809: without a cgroup namespace the host's whole tree would be in the container, writable.
#[test]
fn the_host_s_cgroups_are_not_in_the_container() {
    requires!(bed, userns);
    for bundle in [Bundle::new(), Bundle::new().user_namespace(100_000, 65_536)] {
        let bundle = bundle.without_namespace("cgroup").edit(|config| {
            config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]);
        });
        let bundle =
            bundle.script("find /sys/fs/cgroup -mindepth 1 -type d; cat /sys/fs/cgroup/cgroup.procs");
        let finished = bundle.run().assert_code(0);
        let stdout = finished.stdout();
        assert!(stdout.lines().all(|line| line.parse::<u32>().is_ok()), "{finished}");
    }
}

/// Nothing of the old root is left to stand on.
#[test]
fn the_old_root_is_gone() {
    requires!(bed);
    for flags in [&[][..], &["--no-pivot"]] {
        let bundle = Bundle::new().with_file("/here", 0o644, "");
        let prey = Prey::of(&bundle);
        let script = "ls /here; cd /; cd ../../..; ls here; ls /proc/self/cwd/here /proc/1/root/here; \
            ls /../../prey-file /proc/1/root/../../prey-file 2>/dev/null; true";
        let bundle = bundle.script(script);
        let expected = "/here\nhere\n/proc/1/root/here\n/proc/self/cwd/here";
        bundle.run_with(flags).assert_code(0).assert_stdout(expected);
        prey.assert_untouched();
    }
}
