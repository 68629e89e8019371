//! What a container sees of the file system: every kind of mount, every option, devices, masks, the root.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use support::{Bundle, Deja, Leaks, requires};

/// The script's output is the container's mountinfo, and then whatever else it says.
const MOUNTS: &str = "cat /proc/self/mountinfo; echo ---; ";

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// A container that has ended well, and what it said.
struct Seen {
    mounts: String,
    rest: String,
}

impl Seen {
    #[track_caller]
    fn of(bundle: Bundle, script: &str) -> Self {
        let leaks = support::Leaks::snapshot(&bundle);
        let bundle = bundle.script(&format!("{MOUNTS}{script}; true"));
        let finished = bundle.run().assert_code(0);
        leaks.assert_none();
        let stdout = finished.stdout();
        let (mounts, rest) = stdout.split_once("---\n").expect("the end of mountinfo");
        Self { mounts: mounts.to_owned(), rest: rest.trim_end().to_owned() }
    }

    /// The last mount on `destination`: its options, its propagation, the type and the options of its file system.
    #[track_caller]
    fn mount(&self, destination: &str) -> (Vec<&str>, String, &str, Vec<&str>) {
        let line = self.mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(destination));
        let line = line.unwrap_or_else(|| panic!("{destination} is not mounted:\n{}", self.mounts));
        let (left, right) = line.split_once(" - ").expect("a separator");
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        (left[5].split(',').collect(), left[6..].join(" "), right[0], right[2].split(',').collect())
    }

    #[track_caller]
    fn options(&self, destination: &str) -> Vec<&str> {
        self.mount(destination).0
    }
}

/// The container was refused, and the one line about it says why.
#[track_caller]
fn refused(bundle: &Bundle, words: &str) {
    let leaks = support::Leaks::snapshot(bundle);
    let finished = bundle.run().assert_code(1);
    let said = finished.stderr().replace("\\\"", "\"");
    assert!(said.contains(words), "stderr lacks {words:?}: {finished}");
    leaks.assert_none();
}

/// A directory of the host outside the root: `file`, `link` to it, and `below` for another mount.
#[track_caller]
fn volume(bundle: &Bundle) -> std::path::PathBuf {
    let volume = bundle.file("volume");
    fs::create_dir_all(volume.join("below")).expect("make the volume");
    fs::write(volume.join("file"), "content").expect("write to the volume");
    symlink("file", volume.join("link")).expect("link in the volume");
    volume
}

/// A mount on the host that goes away with the test.
struct HostMount(std::path::PathBuf);

impl HostMount {
    #[track_caller]
    fn tmpfs(path: &Path, flags: rustix::mount::MountFlags) -> Self {
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"mode=755").expect("mount a tmpfs on the host");
        Self(path.to_owned())
    }

    #[track_caller]
    fn shared(self) -> Self {
        let flags = rustix::mount::MountPropagationFlags::SHARED;
        rustix::mount::mount_change(&self.0, flags).expect("share the mount");
        self
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        // What is still mounted then shows in the bed, which goes away itself.
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[test]
fn the_default_mounts_are_what_they_are_called() {
    requires!(bed);
    let seen = Seen::of(Bundle::new(), "cat /proc/mounts | cut -d' ' -f1-3");
    for line in [
        "proc /proc proc",
        "tmpfs /dev tmpfs",
        "devpts /dev/pts devpts",
        "shm /dev/shm tmpfs",
        "mqueue /dev/mqueue mqueue",
        "sysfs /sys sysfs",
        "cgroup /sys/fs/cgroup cgroup2",
    ] {
        assert!(seen.rest.lines().any(|seen| seen == line), "no {line:?} in {}", seen.rest);
    }
    assert_eq!(seen.options("/dev/shm"), ["rw", "nosuid", "nodev", "noexec", "relatime"]);
    assert_eq!(seen.options("/dev"), ["rw", "nosuid"]);
    assert_eq!(seen.options("/sys"), ["ro", "nosuid", "nodev", "noexec", "relatime"]);
    assert!(seen.mount("/dev/shm").3.contains(&"size=65536k"));
    let (_, propagation, _, _) = seen.mount("/");
    assert_eq!(propagation, "", "the root is private");
}

#[test]
fn dev_has_the_default_nodes_and_links() {
    requires!(bed);
    let script = "cd /dev; stat -c '%n %a %t:%T' null zero full random urandom tty; \
        for l in fd stdin stdout stderr core ptmx; do echo $l $(readlink $l); done; stat -c %a pts shm mqueue";
    let seen = Seen::of(Bundle::new(), script);
    let expected = "null 666 1:3\nzero 666 1:5\nfull 666 1:7\nrandom 666 1:8\nurandom 666 1:9\ntty 666 5:0\n\
        fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\ncore /proc/kcore\n\
        ptmx pts/ptmx\n755\n1777\n1777";
    assert_eq!(seen.rest, expected);
}

#[test]
fn configured_devices_have_their_mode_and_owner() {
    requires!(bed);
    let devices = json!([
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/dev/disk", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o620},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/srv/zero", "type": "u", "major": 1, "minor": 5}
    ]);
    let bundle = Bundle::new().set("/linux/devices", devices);
    let script = "stat -c '%n %F %a %t:%T %u:%g' /dev/net/tun /dev/disk /dev/null /dev/pipe /srv/zero";
    let expected = "/dev/net/tun character special file 600 a:c8 3:4\n/dev/disk block special file 666 7:0 0:0\n\
        /dev/null character special file 620 1:3 0:0\n/dev/pipe fifo 666 0:0 0:0\n\
        /srv/zero character special file 666 1:5 0:0";
    assert_eq!(Seen::of(bundle, script).rest, expected);
}

#[test]
fn a_device_that_is_there_must_be_the_same() {
    requires!(bed);
    let device = |minor: u32| {
        let bundle = Bundle::new().without_mount("/dev").without_mount("/dev/pts").without_mount("/dev/shm");
        let bundle = bundle.without_mount("/dev/mqueue");
        let path = bundle.rootfs().join("dev/null");
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_bits_retain(0o666));
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, rustix::fs::makedev(1, minor))
            .expect("mknod");
        bundle
    };
    device(3).run().assert_code(0);
    refused(&device(5), "make the device \"/dev/null\": mknodat: file exists");
}

#[test]
fn a_user_namespace_gets_the_devices_of_the_host() {
    requires!(bed, userns);
    let bundle = Bundle::new().user_namespace(100_000, 65_536);
    let seen = Seen::of(bundle, "stat -c '%n %F %t:%T' /dev/null /dev/tty; echo x > /dev/null; id -u");
    let expected = "/dev/null character special file 1:3\n/dev/tty character special file 5:0\n0";
    assert_eq!(seen.rest, expected);
    assert_eq!(seen.mount("/dev/null").2, "devtmpfs");
}

#[test]
fn a_dev_of_the_host_stays_as_it_is() {
    requires!(bed);
    let bundle =
        ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"].iter().fold(Bundle::new(), |b, d| b.without_mount(d));
    let host = fs::read_link("/dev/fd").expect("a link of the host");
    let bundle = bundle.mount(bind(Path::new("/dev"), "/dev", &["rbind", "rprivate"]));
    let seen = Seen::of(bundle, "readlink /dev/fd; cat /proc/timer_list | wc -c");
    assert_eq!(seen.rest, format!("{}\n0", host.display()));
}

#[test]
fn binds_of_directories_files_and_links() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let bundle = bundle
        .mount(bind(&volume, "/made/on/the/way", &["bind"]))
        .mount(bind(&volume.join("file"), "/etc/file", &["bind", "ro"]))
        .mount(bind(&volume.join("link"), "/etc/link", &["bind"]))
        .mount(json!({"destination": "relative/target", "type": "none", "source": "volume", "options": ["rbind"]}))
        .mount(bind(Path::new("/dev/full"), "/srv/full", &["bind"]));
    let script = "cat /made/on/the/way/file /etc/file /etc/link /relative/target/file; echo; stat -c %F /etc/link; \
        echo x > /etc/file; stat -c %t:%T /srv/full; echo y > /made/on/the/way/new";
    let seen = Seen::of(bundle, &format!("({script}) 2>&1"));
    let lines: Vec<&str> = seen.rest.lines().collect();
    assert_eq!(lines[..2], ["contentcontentcontentcontent", "regular file"]);
    assert!(lines[2].contains("Read-only file system") && lines[3] == "1:7", "{lines:?}");
}

#[test]
fn targets_are_made_with_plain_permissions() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let bundle =
        bundle.mount(bind(&volume, "/a/b", &["bind"])).mount(bind(&volume.join("file"), "/a/f", &["bind"]));
    bundle.run().assert_code(0);
    let mode =
        |path: &str| fs::metadata(bundle.rootfs().join(path)).expect("made").permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/f")), (0o755, 0o755, 0o644));
}

#[test]
fn mount_attributes_are_exactly_those_asked_for() {
    requires!(bed);
    let bundle = Bundle::new();
    let source = bundle.file("host");
    fs::create_dir(&source).expect("mkdir");
    use rustix::mount::MountFlags;
    let _host = HostMount::tmpfs(&source, MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NOATIME);
    let bundle = bundle
        .mount(bind(&source, "/m/plain", &["bind"]))
        .mount(bind(&source, "/m/ro", &["bind", "ro"]))
        .mount(bind(
            &source,
            "/m/all",
            &["bind", "nosuid", "nodev", "noexec", "nodiratime", "strictatime", "nosymfollow"],
        ))
        .mount(bind(&source, "/m/cleared", &["bind", "ro", "nosuid", "rw", "suid", "relatime", "symfollow"]))
        .mount(tmpfs(
            "/m/tmpfs",
            &["noexec", "nodiratime", "noatime", "sync", "dirsync", "lazytime", "silent", "acl"],
        ));
    let seen = Seen::of(bundle, "true");
    assert_eq!(seen.options("/m/plain"), ["rw", "nosuid", "noexec", "noatime"]);
    assert_eq!(seen.options("/m/ro"), ["ro", "noatime"]);
    assert_eq!(seen.options("/m/all"), ["rw", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow"]);
    assert_eq!(seen.options("/m/cleared"), ["rw", "relatime"]);
    assert_eq!(seen.options("/m/tmpfs"), ["rw", "noexec", "noatime", "nodiratime"]);
    let (_, _, _, settings) = seen.mount("/m/tmpfs");
    assert!(["sync", "dirsync", "lazytime"].iter().all(|word| settings.contains(word)), "{settings:?}");
}

#[test]
fn recursive_attributes_reach_the_mounts_below() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let _host = HostMount::tmpfs(&volume.join("below"), rustix::mount::MountFlags::empty());
    let bundle = bundle
        .mount(bind(&volume, "/m/top", &["rbind", "ro"]))
        .mount(bind(&volume, "/m/alone", &["bind", "rro"]))
        .mount(bind(
            &volume,
            "/m/all",
            &["rbind", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnosymfollow"],
        ))
        .mount(bind(&volume, "/m/mixed", &["rbind", "ro", "rnosuid", "rrw"]))
        .mount(tmpfs("/m/new", &["rro", "rnosuid", "rnoatime"]));
    let seen = Seen::of(bundle, "ls /m/alone/below");
    assert_eq!(seen.options("/m/new"), ["ro", "nosuid", "noatime"]);
    assert_eq!((seen.options("/m/top")[0], seen.options("/m/top/below")[0]), ("ro", "rw"));
    assert_eq!(seen.options("/m/alone")[0], "ro");
    assert_eq!(seen.rest, "");
    let all = ["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"];
    assert_eq!((seen.options("/m/all"), seen.options("/m/all/below")), (all.to_vec(), all.to_vec()));
    assert_eq!(seen.options("/m/mixed/below")[..2], ["rw", "nosuid"]);
}

#[test]
fn tmpfs_takes_the_settings_of_its_kind() {
    requires!(bed);
    let bundle = Bundle::new();
    fs::set_permissions(bundle.rootfs().join("srv"), fs::Permissions::from_mode(0o1710)).expect("chmod");
    let bundle = bundle
        .mount(tmpfs("/m", &["size=64k", "nr_inodes=10", "mode=0711", "uid=7", "gid=8", "ro", "mode=0710"]))
        .mount(tmpfs("/srv", &[]))
        .mount(tmpfs("/m/below", &[]));
    let seen = Seen::of(bundle, "stat -c '%a %u:%g' /m; stat -c %a /srv /m/below; touch /m/x 2>&1");
    let lines: Vec<&str> = seen.rest.lines().collect();
    // What hides a directory has its permissions; what has none to take is open to all.
    assert_eq!(lines[..3], ["710 7:8", "1710", "1777"]);
    assert!(lines[3].contains("Read-only file system"));
    let (_, _, _, settings) = seen.mount("/m");
    assert!(settings.contains(&"size=64k") && settings.contains(&"nr_inodes=10"), "{settings:?}");
}

#[test]
fn tmpcopyup_brings_the_hidden_directory_along() {
    requires!(bed);
    let bundle =
        Bundle::new().with_file("/data/deep/er/file", 0o4755, "copied").with_file("/data/plain", 0o600, "p");
    let data = bundle.rootfs().join("data");
    symlink("plain", data.join("link")).expect("link");
    std::os::unix::fs::chown(data.join("plain"), Some(5), Some(6)).expect("chown");
    fs::set_permissions(data.join("deep"), fs::Permissions::from_mode(0o2751)).expect("chmod");
    let bundle = bundle.mount(tmpfs("/data", &["tmpcopyup"]));
    let script = "cd /data; cat deep/er/file plain link; echo; stat -c '%a %u:%g' deep deep/er/file plain; \
        readlink link; echo changed > plain";
    let expected = "copiedpp\n2751 0:0\n4755 0:0\n600 5:6\nplain";
    let rootfs = bundle.rootfs();
    let seen = Seen::of(bundle, &format!("{script}; sleep 0"));
    assert_eq!(seen.rest, expected);
    assert!(!rootfs.exists());
}

#[test]
fn links_are_followed_copied_or_mounted_as_asked() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    symlink("/nowhere", volume.join("dangling")).expect("link");
    symlink("else", bundle.rootfs().join("etc/link")).expect("link");
    let bundle = bundle
        .mount(bind(&volume.join("link"), "/etc/copied/deep/link", &["bind", "copy-symlink"]))
        .mount(bind(&volume.join("dangling"), "/etc/copied/dangling", &["bind", "copy-symlink"]))
        .mount(bind(&volume.join("file"), "/etc/copied/file", &["bind", "copy-symlink"]))
        .mount(bind(&volume.join("link"), "/etc/link", &["bind", "src-nofollow", "dest-nofollow"]));
    let script = "cd /etc/copied; readlink deep/link dangling ../link; readlink deep/link; readlink dangling; \
        readlink ../link; cat file";
    let rest = Seen::of(bundle, script).rest;
    assert!(rest.ends_with("file\n/nowhere\nfile\ncontent"), "{rest}");
}

#[test]
fn a_link_in_the_root_leads_to_its_place_inside() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    symlink("../run/resolve/stub", bundle.rootfs().join("etc/stub.conf")).expect("link");
    symlink("/srv/absolute", bundle.rootfs().join("absolute")).expect("link");
    let bundle = bundle.mount(bind(&volume.join("file"), "/etc/stub.conf", &["bind"])).mount(bind(
        &volume,
        "/absolute/volume",
        &["bind"],
    ));
    let seen = Seen::of(bundle, "cat /run/resolve/stub /srv/absolute/volume/file /etc/stub.conf");
    assert_eq!(seen.rest, "contentcontentcontent");
}

#[test]
fn ids_are_mapped_for_one_mount_or_for_all_below() {
    requires!(bed, userns);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let _host = HostMount::tmpfs(&volume.join("below"), rustix::mount::MountFlags::empty());
    fs::write(volume.join("below/file"), "").expect("write");
    let maps = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let mapped = |destination: &str, options: &[&str]| {
        let mut entry = bind(&volume, destination, options);
        entry["uidMappings"] = maps.clone();
        entry["gidMappings"] = maps.clone();
        entry
    };
    let bundle = bundle
        .mount(mapped("/m/implied", &["rbind"]))
        .mount(mapped("/m/all", &["rbind", "ridmap"]))
        .mount(bind(&volume, "/m/option", &["rbind", "idmap=uids=0-6000-10;gids=0-7000-10"]));
    let script =
        "stat -c %u:%g /m/implied/file /m/implied/below/file /m/all/file /m/all/below/file /m/option/file";
    assert_eq!(Seen::of(bundle, script).rest, "5000:5000\n0:0\n5000:5000\n5000:5000\n6000:7000");
}

#[test]
fn a_user_namespace_sees_mapped_mounts_with_its_own_ids() {
    requires!(bed, userns);
    let bundle = Bundle::new().user_namespace(100_000, 65_536);
    let volume = volume(&bundle);
    // Nobody but root of the host may pass here: the parent opens the source.
    let hidden = bundle.file("hidden");
    fs::create_dir(&hidden).expect("mkdir");
    fs::rename(&volume, hidden.join("volume")).expect("rename");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).expect("chmod");
    let bundle = bundle.mount(bind(&hidden.join("volume"), "/m/mapped", &["bind", "idmap"])).mount(bind(
        &hidden.join("volume"),
        "/m/plain",
        &["bind"],
    ));
    let seen = Seen::of(
        bundle,
        "stat -c %u:%g /m/mapped/file /m/plain/file; echo x > /m/mapped/new; cat /m/mapped/new",
    );
    assert_eq!(seen.rest, "0:0\n65534:65534\nx");
}

#[test]
fn a_cgroup_mount_has_no_options_that_the_kernel_does_not_know() {
    requires!(bed);
    let bundle = Bundle::new().edit(|config| {
        for mount in config["mounts"].as_array_mut().expect("mounts") {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"].as_array_mut().expect("options").push(json!("no_such_option"));
            }
        }
    });
    refused(&bundle, "on \"/sys/fs/cgroup\": fsconfig: invalid argument");
}

#[test]
fn devices_of_a_user_namespace_are_the_host_s_and_no_programs() {
    requires!(bed, userns);
    let bundle = Bundle::new().user_namespace(100_000, 65_536);
    let seen = Seen::of(bundle, "echo x >/dev/null && head -c 1 /dev/zero | wc -c");
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        let options = seen.options(&format!("/dev/{device}")).join(",");
        assert!(
            options.contains("nosuid") && options.contains("noexec") && options.contains("rw"),
            "{options}"
        );
    }
    assert_eq!(seen.rest, "1");
}

#[test]
fn what_the_host_forbids_a_user_namespace_keeps_forbidden() {
    requires!(bed, userns);
    use rustix::mount::MountFlags;
    let bundle = Bundle::new().user_namespace(100_000, 65_536);
    let source = bundle.file("host");
    fs::create_dir(&source).expect("mkdir");
    let _host = HostMount::tmpfs(&source, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY);
    let open = bundle.mount(bind(&source, "/m", &["bind", "noexec"]));
    let seen = Seen::of(open, "true");
    assert_eq!(seen.options("/m"), ["ro", "nosuid", "nodev", "noexec", "relatime"]);
    let bundle = Bundle::new().user_namespace(100_000, 65_536).mount(bind(&source, "/m", &["bind", "rw"]));
    refused(&bundle, "operation not permitted");
}

#[test]
fn propagation_options_are_those_of_the_mount() {
    requires!(bed);
    let bundle = Bundle::new();
    let source = bundle.file("host");
    fs::create_dir(&source).expect("mkdir");
    let _host = HostMount::tmpfs(&source, rustix::mount::MountFlags::empty()).shared();
    let bundle = bundle
        .mount(bind(&source, "/m/default", &["bind"]))
        .mount(bind(&source, "/m/private", &["bind", "rprivate"]))
        .mount(bind(&source, "/m/slave", &["rbind", "slave"]))
        .mount(bind(&source, "/m/shared", &["rbind", "rshared"]))
        .mount(bind(&source, "/m/unbindable", &["bind", "unbindable"]))
        .mount(tmpfs("/m/tmpfs", &["shared"]));
    let seen = Seen::of(bundle, "true");
    let propagation = |name: &str| seen.mount(&format!("/m/{name}")).1;
    assert!(propagation("default").starts_with("master:"));
    assert_eq!(propagation("private"), "");
    assert!(propagation("slave").starts_with("master:"));
    assert!(propagation("shared").starts_with("shared:") && propagation("shared").contains("master:"));
    assert_eq!(propagation("unbindable"), "unbindable");
    assert!(propagation("tmpfs").starts_with("shared:"));
}

#[test]
fn rootfs_propagation_of_every_kind() {
    requires!(bed);
    for (word, root) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
        ("slave", ""),
        ("rslave", ""),
    ] {
        let bundle = Bundle::new().set("/linux/rootfsPropagation", word.into());
        let seen = Seen::of(bundle, "true");
        let propagation = seen.mount("/").1;
        // Where the machine's root is shared, a slave has it as its master.
        let slave = word.ends_with("slave") && propagation.starts_with("master:");
        assert!(
            slave || propagation.starts_with(root) && (root.is_empty() == propagation.is_empty()),
            "{word}: {propagation}"
        );
    }
    let bundle = Bundle::new().set("/linux/rootfsPropagation", "sometimes".into());
    refused(&bundle, "linux.rootfsPropagation: unknown value \"sometimes\"");
}

#[test]
fn a_shared_root_follows_the_host_and_tells_it_nothing_of_the_setup() {
    requires!(bed);
    let bundle = Bundle::new();
    let source = bundle.file("host");
    fs::create_dir(&source).expect("mkdir");
    let _host = HostMount::tmpfs(&source, rustix::mount::MountFlags::empty()).shared();
    fs::create_dir(source.join("below")).expect("mkdir");
    let before = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let bundle = bundle
        .set("/linux/rootfsPropagation", "rshared".into())
        .mount(bind(&source, "/m", &["rbind", "rshared"]))
        .set("/process/capabilities/bounding/-", "CAP_SYS_ADMIN".into())
        .set("/process/capabilities/effective/-", "CAP_SYS_ADMIN".into())
        .set("/process/capabilities/permitted/-", "CAP_SYS_ADMIN".into());
    let container = bundle.script("mount -t tmpfs inside /m/below && echo mounted; exec sleep 1000");
    let container = container.start();
    container.wait_stdout("mounted");
    let during = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let new: Vec<&str> = during.lines().filter(|line| !before.contains(line)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    assert!(new[0].contains("/host/below"), "{new:?}");
    container.kill("KILL");
    container.wait_status("stopped");
    container.delete();
    rustix::mount::unmount(source.join("below"), rustix::mount::UnmountFlags::DETACH).expect("unmount");
}

#[test]
fn a_read_only_root_has_writable_mounts() {
    requires!(bed);
    let bundle = Bundle::new().set("/root/readonly", true.into()).mount(tmpfs("/tmp", &[]));
    let seen = Seen::of(bundle, "touch /tmp/ok /dev/shm/ok && echo ok; touch /no 2>&1");
    assert_eq!(seen.options("/")[0], "ro");
    assert!(seen.rest.starts_with("ok\n") && seen.rest.contains("Read-only"), "{}", seen.rest);
}

#[test]
fn dev_may_be_read_only() {
    requires!(bed);
    let bundle = Bundle::new().set("/mounts/1/options/-", "ro".into());
    let seen = Seen::of(bundle, "ls /dev/null; touch /dev/x 2>&1; echo x > /dev/null; touch /dev/shm/y");
    assert_eq!((seen.options("/dev")[0], seen.options("/dev/shm")[0]), ("ro", "rw"));
    assert!(seen.rest.contains("Read-only"), "{}", seen.rest);
}

#[test]
fn masked_paths_show_nothing() {
    requires!(bed);
    let bundle =
        Bundle::new().with_file("/etc/secret", 0o644, "secret").with_file("/srv/dir/secret", 0o644, "secret");
    symlink("/etc/secret", bundle.rootfs().join("opt-secret")).expect("link");
    let bundle = bundle
        .set("/linux/maskedPaths/-", "/etc/secret".into())
        .set("/linux/maskedPaths/-", "/srv/dir/".into())
        .set("/linux/maskedPaths/-", "/does/not/exist".into())
        .set("/linux/maskedPaths/-", "/srv//dir".into());
    let script = "stat -c %t:%T /etc/secret /proc/timer_list; cat /etc/secret /opt-secret /proc/timer_list; ls /srv/dir \
        /sys/firmware; (touch /srv/dir/x; mkdir /sys/firmware/x) 2>&1";
    let seen = Seen::of(bundle, script);
    assert!(seen.rest.starts_with("1:3\n1:3\n/srv/dir:\n\n/sys/firmware:\n"), "{}", seen.rest);
    assert_eq!(seen.rest.matches("Read-only file system").count(), 2, "{}", seen.rest);
    let number = |path: &str| {
        let line = seen.mounts.lines().find(|line| line.split(' ').nth(4) == Some(path)).expect(path);
        line.split(' ').nth(2).expect("a device number").to_owned()
    };
    assert_eq!(number("/srv/dir"), number("/sys/firmware"), "one file system for all masked directories");
}

#[test]
fn readonly_paths_keep_the_attributes_of_their_mount() {
    requires!(bed);
    let bundle = Bundle::new()
        .with_file("/etc/conf", 0o644, "conf")
        .set("/mounts/0/options", json!(["nosuid", "nodev", "noexec"]))
        .set("/linux/readonlyPaths/-", "/etc/conf".into())
        .set("/linux/readonlyPaths/-", "/does/not/exist".into());
    let seen =
        Seen::of(bundle, "cat /etc/conf; (echo x > /etc/conf; echo x > /proc/sys/kernel/hostname) 2>&1");
    assert_eq!(seen.options("/proc/sys"), ["ro", "nosuid", "nodev", "noexec", "relatime"]);
    assert_eq!(seen.options("/etc/conf")[0], "ro");
    assert_eq!(seen.rest.matches("Read-only file system").count(), 2, "{}", seen.rest);
}

#[test]
fn without_pivot_the_host_s_proc_and_sys_are_gone() {
    requires!(bed);
    let bundle = Bundle::new().script("cat /proc/self/mountinfo; readlink /proc/1/root; ls -d /proc/1/fd");
    let finished = bundle.run_with(&["--no-pivot"]).assert_code(0);
    let stdout = finished.stdout();
    let full = stdout.lines().filter(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(3) == Some(&"/") && (line.contains(" - proc ") || line.contains(" - sysfs "))
    });
    assert_eq!(full.count(), 2, "{stdout}");
}

#[test]
fn the_own_cgroup_is_the_root_of_the_tree() {
    requires!(bed);
    for bundle in [Bundle::new(), Bundle::new().without_namespace("cgroup")] {
        let seen = Seen::of(
            bundle,
            "cat /sys/fs/cgroup/cgroup.procs; ls -d /sys/fs/cgroup/deja-test; mkdir /sys/fs/cgroup/x",
        );
        assert!(seen.rest.lines().any(|line| line == "1"), "{}", seen.rest);
        assert_eq!(seen.mount("/sys/fs/cgroup").2, "cgroup2");
        assert_eq!(seen.options("/sys/fs/cgroup")[0], "ro");
    }
}

#[test]
fn a_writable_cgroup_belongs_to_the_user_of_the_program() {
    requires!(bed, userns);
    let script = "cd /sys/fs/cgroup && mkdir x && echo 0 > x/cgroup.procs && cat x/cgroup.procs && rmdir x; \
        echo 1 > cgroup.max.depth";
    let writable = |config: &mut Value| config["mounts"][6]["options"] = json!(["nosuid", "noexec", "nodev"]);
    let divides = |bundle: Bundle| {
        let finished = bundle.edit(writable).script(script).run();
        let text = finished.to_string();
        assert!(finished.stdout().contains('1') && text.contains("cgroup.max.depth"), "{text}");
    };
    divides(Bundle::new().user_namespace(100_000, 65_536));
    divides(Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000})));

    for (bundle, owner) in [
        (Bundle::new().user_namespace(100_000, 65_536).edit(writable), 100_000),
        (Bundle::new().user_namespace(100_000, 65_536), 0),
        (Bundle::new().user_namespace(100_000, 65_536).without_namespace("cgroup").edit(writable), 0),
        (Bundle::new().edit(writable), 0),
    ] {
        let bundle = bundle.sleeps();
        let _container = bundle.start();
        let owner_of =
            |name: &str| fs::metadata(bundle.cgroup().join(name)).expect("a file of the cgroup").uid();
        assert_eq!([owner_of(""), owner_of("cgroup.procs"), owner_of("cgroup.freeze")], [owner, owner, 0]);
    }
}

#[test]
fn sysfs_of_the_host_s_network_is_read_only_in_a_user_namespace() {
    requires!(bed, userns);
    let bundle = Bundle::new().user_namespace(100_000, 65_536).without_namespace("network");
    let bundle = bundle.edit(|config| config["mounts"][5]["options"] = json!(["nosuid", "noexec", "nodev"]));
    let seen = Seen::of(bundle, "ls -d /sys/class");
    assert_eq!(seen.options("/sys"), ["ro", "nosuid", "nodev", "noexec", "relatime"]);
}

#[test]
fn any_file_system_of_the_kernel() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let other = bundle.file("other");
    fs::create_dir(&other).expect("mkdir");
    let lower = format!("lowerdir={}:{}", volume.display(), other.display());
    let bundle = bundle
        .mount(
            json!({"destination": "/ov", "type": "overlay", "source": "overlay", "options": [lower, "ro"]}),
        )
        .mount(json!({"destination": "/ram", "type": "ramfs", "source": "ram", "options": ["nosuid"]}))
        .mount(json!({"destination": "/ram", "type": "none", "options": ["remount", "noexec", "ro"]}));
    let seen = Seen::of(bundle, "cat /ov/file");
    assert_eq!(seen.rest, "content");
    assert_eq!(seen.options("/ram"), ["ro", "nosuid", "noexec", "relatime"]);
}

#[test]
fn an_overlay_of_many_layers() {
    requires!(bed);
    let bundle = Bundle::new();
    let layers: Vec<String> = (0..40)
        .map(|number| {
            let layer = bundle.file(&format!("layer-{number}"));
            fs::create_dir(&layer).expect("mkdir");
            fs::write(layer.join(format!("file-{number}")), "").expect("write");
            layer.display().to_string()
        })
        .collect();
    let lower = format!("lowerdir={}", layers.join(":"));
    let bundle = bundle
        .mount(json!({"destination": "/ov", "type": "overlay", "source": "overlay", "options": [lower]}));
    assert_eq!(Seen::of(bundle, "ls /ov | wc -l").rest, "40");
}

#[test]
fn a_mount_over_the_root_is_the_root() {
    requires!(bed);
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs();
    let bundle = bundle.edit(|config| {
        let over = bind(&rootfs, "/", &["bind", "nosuid"]);
        config["mounts"].as_array_mut().expect("mounts").insert(0, over);
    });
    assert_eq!(Seen::of(bundle, "true").options("/")[..2], ["rw", "nosuid"]);
}

#[test]
fn what_cannot_be_mounted_says_what_and_where() {
    requires!(bed);
    for (entry, words) in [
        (
            bind(Path::new("/nonexistent"), "/m", &["bind"]),
            "bind \"/nonexistent\": open_tree: no such file or directory",
        ),
        (tmpfs("/m", &["sise=5"]), "mount \"tmpfs\" on \"/m\": fsconfig: invalid argument"),
        (
            json!({"destination": "/m", "type": "nosuchfs", "source": "x"}),
            "mount \"nosuchfs\" on \"/m\": fsopen: no such device",
        ),
        (bind(Path::new("/etc/hostname"), "/etc", &["bind"]), "bind \"/etc/hostname\" on \"/etc\""),
        (
            bind(Path::new("/tmp"), "/m", &["bind", "size=5"]),
            "mounts: \"/m\": bind mounts have no option \"size=5\"",
        ),
        (tmpfs("/proc/bus", &[]), "mounts: \"/proc/bus\": this file of /proc cannot be mounted on"),
        (
            bind(Path::new("/tmp"), "/proc", &["bind"]),
            "bind \"/tmp\" on \"/proc\": fstatfs: operation not permitted",
        ),
    ] {
        refused(&Bundle::new().mount(entry), words);
    }
}

#[test]
fn without_a_mount_namespace_mounts_are_the_host_s_until_delete() {
    requires!(bed);
    let bundle = Bundle::new().without_namespace("mount").sleeps().set("/root/readonly", json!(true));
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.start();
    let own = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("its mount namespace");
    assert_eq!(own(&container.pid().to_string()), own("self"));
    let rootfs = bundle.rootfs();
    let read = |path: &str| std::fs::read_to_string(rootfs.join(path));
    assert_eq!(read("proc/1/comm").expect("its proc"), "sleep\n");
    let script = "cat /proc/1/comm; ls /proc/acpi; touch /x /proc/sys/kernel/hostname 2>&1; ls /dev/null";
    let said = container.exec(&["/bin/sh", "-c", script]).assert_code(0).stdout();
    let refusals =
        "touch: /x: Read-only file system\ntouch: /proc/sys/kernel/hostname: Read-only file system";
    assert_eq!(said.trim_end(), format!("sleep\n{refusals}\n/dev/null"));
    let image = bundle.file("image");
    let checkpoint = container.verb("checkpoint", &["--image-path", image.to_str().expect("UTF-8")]);
    checkpoint.fails().assert_says("has no mount namespace");
    drop(container);
    leaks.assert_none();
    read("proc/1/comm").expect_err("nothing is mounted any more");
    // A mount on "/" itself lies on top of the root, and goes with it.
    let covered = Bundle::new().without_namespace("mount");
    let source = covered.rootfs();
    let entry = bind(&source, "/", &["rbind"]);
    let covered = covered.edit(|config| config["mounts"].as_array_mut().expect("a list").insert(0, entry));
    let leaks = Leaks::snapshot(&covered);
    covered.script("ls -d /bin/busybox").run().assert_code(0).assert_stdout("/bin/busybox");
    leaks.assert_none();
    // Nothing to mount, nothing on the host.
    let bare = Bundle::new().without_namespace("mount").set("/mounts", json!([]));
    let bare = bare.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    bare.script("ls -d /bin/busybox").run().assert_code(0).assert_stdout("/bin/busybox");
}

/// A mount below a bound directory of the host is its peer on the host as well, and has to stay.
#[test]
fn taking_mounts_off_the_host_takes_none_of_the_host_s() {
    requires!(bed);
    let bundle = Bundle::new().without_namespace("mount");
    let shared = bundle.file("shared");
    let inner = shared.join("inner");
    std::fs::create_dir_all(&inner).expect("make a directory");
    let script = format!(
        "mount --bind {0} {0} && mount --make-rshared {0} && mount -t tmpfs tmpfs {1} && touch {1}/kept",
        shared.display(),
        inner.display()
    );
    Deja::other("sh").args(["-c", &script]).ok();
    let shown = bundle.mount(bind(&shared, "/shown", &["rbind"])).script("ls /shown/inner");
    shown.run().assert_code(0).assert_stdout("kept");
    assert!(inner.join("kept").exists());
    Deja::other("umount").args(["-l", shared.to_str().expect("UTF-8")]).ok();
}

#[test]
fn mounts_on_the_host_are_not_for_user_namespaces() {
    requires!(bed, userns);
    let mapped = Bundle::new().without_namespace("mount").user_namespace(100_000, 65_536);
    refused(&mapped, "mounts needs a mount namespace");
    let bundle = Bundle::new().without_namespace("mount").set("/linux/rootfsPropagation", json!("shared"));
    refused(&bundle, "linux.rootfsPropagation needs a mount namespace");
}

#[test]
fn the_terminal_is_the_console() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/terminal", true.into());
    let bundle = bundle.script("stat -c '%F %t' /dev/console; stat -c %d:%i /dev/console /dev/pts/0; tty");
    let path = bundle.file("tty");
    let socket = support::ConsoleSocket::listen(&path);
    let container = bundle.create_with(bundle.id(), &["--console-socket", path.to_str().expect("UTF-8")]);
    let mut console = socket.accept();
    container.start();
    let said = console.read_to_end();
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "character special file 88");
    assert_eq!(lines[1], lines[2], "{said}");
}

#[test]
fn hundreds_of_mounts_fit_into_the_usual_limits() {
    requires!(bed);
    let bundle = Bundle::new();
    let volume = volume(&bundle);
    let bundle = (0..400)
        .fold(bundle, |bundle, number| bundle.mount(bind(&volume, &format!("/m/{number}"), &["bind", "ro"])));
    let seen = Seen::of(bundle, "ls /m | wc -l; cat /m/399/file");
    assert_eq!(seen.rest, "400\ncontent");
    assert_eq!(fs::metadata("/").expect("stat").uid(), 0);
}
