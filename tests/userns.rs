//! User namespaces: mappings by root, by a user, by newuidmap and newgidmap; joined ones; interfaces that move in.

mod support;
use support::{Bundle, Deja, adopt_orphans, requires};

use std::os::unix::fs::chown;
use std::path::Path;

use serde_json::{Value, json};

const USER: u32 = 1000;

fn maps(ranges: &[[u32; 3]]) -> Value {
    let entry =
        |[container, host, size]: &[u32; 3]| json!({"containerID": container, "hostID": host, "size": size});
    ranges.iter().map(entry).collect()
}

#[track_caller]
fn says(bundle: &Bundle) -> String {
    bundle.run().assert_code(0).stdout().trim_end().to_string()
}

/// A bundle an ordinary user can run: no cgroup, everything theirs, one id.
fn rootless() -> Bundle {
    let bundle = Bundle::new()
        .user_namespace(USER, 1)
        .remove("/linux/cgroupsPath")
        .remove("/linux/resources")
        .without_mount("/sys/fs/cgroup")
        .without_namespace("cgroup")
        .edit(|config| {
            // The group of terminals is not mapped.
            for mount in config["mounts"].as_array_mut().unwrap() {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
        });
    chown(bundle.path(), Some(USER), Some(USER)).unwrap();
    bundle
}

fn as_user(bundle: &Bundle, verb: &str) -> Deja {
    bundle.verb(verb).user(USER, USER).env("XDG_RUNTIME_DIR", bundle.path())
}

#[test]
fn ids_are_mapped() {
    requires!(bed);
    let bundle = Bundle::new().user_namespace(100_000, 65536);
    let script = "id -u; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; cat /proc/self/setgroups; stat -c %u /bin";
    assert_eq!(says(&bundle.script(script)), "0\n 0 100000 65536\n 0 100000 65536\nallow\n0");
}

#[test]
fn without_maps_root_is_who_runs_deja() {
    requires!(bed, userns);
    let unmapped = |bundle: Bundle| bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u";
    // The group of terminals is not mapped.
    let bundle = unmapped(Bundle::new().user_namespace(0, 1)).without_mount("/dev/pts").script(script);
    assert_eq!(says(&bundle), " 0 0 1\n 0 0 1\n0");
    let bundle = unmapped(rootless()).script(script);
    let finished = as_user(&bundle, "run").arg(bundle.id()).ok();
    assert_eq!(finished.stdout().trim(), "0 1000 1\n 0 1000 1\n0");
}

#[test]
fn several_ranges() {
    requires!(bed);
    let ranges = maps(&[[0, 100_000, 10], [10, 200_000, 20], [1000, 300_000, 1]]);
    let bundle = Bundle::new()
        .user_namespace(100_000, 10)
        .set("/linux/uidMappings", ranges)
        .script("tr -s ' ' < /proc/self/uid_map");
    assert_eq!(says(&bundle), " 0 100000 10\n 10 200000 20\n 1000 300000 1");
}

#[test]
fn the_program_is_the_user_it_should_be() {
    requires!(bed);
    adopt_orphans();
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    let bundle = Bundle::new().user_namespace(100_000, 65536).set("/process/user", user).sleeps();
    let container = bundle.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(line("Uid:"), [100_007; 4]);
    assert_eq!(line("Gid:"), [100_008; 4]);
    assert_eq!(line("Groups:"), [100_009]);
    let exec =
        container.exec_with(&["--user", "0:0"], &["sh", "-c", "id -u; tr -s ' ' < /proc/self/uid_map"]);
    assert_eq!(exec.ok().stdout(), "0\n 0 100000 65536\n");
}

#[test]
fn an_id_that_is_not_mapped_is_explained() {
    requires!(bed);
    let bundle = Bundle::new().user_namespace(100_000, 10).set("/process/user/uid", json!(10));
    bundle.run().assert_says("the id is not mapped in the container's user namespace");
}

#[test]
fn limits_and_priorities_of_the_host_are_set_from_outside() {
    requires!(bed);
    let bundle = Bundle::new()
        .user_namespace(100_000, 65536)
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]))
        .set("/process/oomScoreAdj", json!(77))
        .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 3}))
        .script("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; read -r line < /proc/self/stat; echo ${line##*)} | cut -d' ' -f17,39");
    assert_eq!(says(&bundle), "512\n1024\n77\n3 3");
}

#[test]
fn a_limit_that_deja_could_raise_is_raised() {
    requires!(bed, tool "sh");
    let bundle = Bundle::new()
        .user_namespace(100_000, 65536)
        .set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1 << 22, "hard": 1 << 22}]));
    let run = bundle.run();
    if run.code() != Some(0) {
        run.assert_says("raising a hard limit needs CAP_SYS_RESOURCE");
    }
}

#[test]
fn sysctls_of_the_container_s_namespaces() {
    requires!(bed);
    let bundle = Bundle::new()
        .user_namespace(100_000, 65536)
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "user.max_uts_namespaces": "3"}))
        .script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/user/max_uts_namespaces");
    assert_eq!(says(&bundle), "1\n3");
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    requires!(bed);
    adopt_orphans();
    let first = Bundle::new().user_namespace(100_000, 65536).sleeps();
    let container = first.start();
    let path = format!("/proc/{}/ns/user", container.pid());
    let second = Bundle::new()
        .user_namespace(100_000, 65536)
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .namespace("user", Some(&path))
        .set("/process/oomScoreAdj", json!(55))
        .script("readlink /proc/self/ns/user; id -u; cat /proc/self/oom_score_adj");
    let link = std::fs::read_link(&path).unwrap().display().to_string();
    assert_eq!(says(&second), format!("{link}\n0\n55"));
}

#[test]
fn a_user_maps_itself() {
    requires!(bed, userns);
    let bundle = rootless().script("id -u; id -g; tr -s ' ' < /proc/self/uid_map; cat /proc/self/setgroups");
    let run = as_user(&bundle, "run").arg(bundle.id()).ok();
    assert_eq!(run.stdout(), "0\n0\n 0 1000 1\ndeny\n");
}

#[test]
fn a_user_cannot_have_more_groups() {
    requires!(bed, userns);
    let bundle = rootless().set("/process/user/additionalGids", json!([0]));
    let run = as_user(&bundle, "run").arg(bundle.id()).fails();
    run.assert_says("cannot set any additional groups in a rootless container");
}

#[test]
fn a_user_cannot_lower_its_oom_score() {
    requires!(bed, userns);
    let bundle = rootless().set("/process/oomScoreAdj", json!(-10));
    let run = as_user(&bundle, "run").arg(bundle.id()).fails();
    run.assert_says("lowering oom_score_adj needs CAP_SYS_RESOURCE");
}

#[test]
fn a_user_enters_what_it_made() {
    requires!(bed, userns);
    adopt_orphans();
    let bundle = rootless().sleeps();
    as_user(&bundle, "run").arg("--detach").arg(bundle.id()).ok();
    let exec = bundle.deja().user(USER, USER).arg("exec").arg(bundle.id());
    let exec = exec.args(["sh", "-c", "id -u; readlink /proc/1/ns/user; readlink /proc/self/ns/user"]).ok();
    let text = exec.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1], lines[2]);
    bundle.deja().user(USER, USER).arg("delete").arg("--force").arg(bundle.id()).ok();
}

/// A cgroup that was given to the user, as a session manager does; gone with the test.
struct Delegated(std::path::PathBuf);

impl Delegated {
    fn new(bundle: &Bundle) -> Self {
        let path = std::path::Path::new("/sys/fs/cgroup").join(format!("given-{}", bundle.id()));
        std::fs::create_dir_all(path.join("own")).unwrap();
        for name in
            ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads", "own", "own/cgroup.procs"]
        {
            chown(path.join(name), Some(USER), Some(USER)).unwrap();
        }
        Self(path)
    }

    /// deja as the user, started in this cgroup.
    fn run(&self, deja: Deja) -> Deja {
        let script =
            "echo 0 > $0/own/cgroup.procs && exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"";
        deja.wrapped_in(["sh", "-c", script, &self.0.display().to_string()])
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for path in [self.0.join("own"), self.0.clone()] {
            std::fs::remove_dir(path).ok();
        }
    }
}

#[test]
fn a_user_with_a_cgroup_of_its_own_sets_limits() {
    requires!(bed, userns, tool "setpriv");
    adopt_orphans();
    let bundle = rootless();
    let given = Delegated::new(&bundle);
    let place = format!("/given-{}/web", bundle.id());
    let mut bundle = bundle.set("/linux/cgroupsPath", json!(place)).sleeps();
    let has_pids = support::met("cgroup", "pids");
    if has_pids {
        bundle = bundle.set("/linux/resources", json!({"pids": {"limit": 17}}));
    }
    given.run(bundle.verb("run").arg("--detach").arg(bundle.id())).ok();
    let read = |file: &str| std::fs::read_to_string(given.0.join("web").join(file)).unwrap();
    assert_eq!(read("cgroup.procs").lines().count(), 1);
    if has_pids {
        assert_eq!(read("pids.max"), "17\n");
        given.run(bundle.deja().args(["update", "--pids-limit", "18", bundle.id()])).ok();
        assert_eq!(read("pids.max"), "18\n");
    }
    let exec = given.run(bundle.deja().args(["exec", bundle.id(), "cat", "/proc/self/cgroup"])).ok();
    assert!(exec.stdout().ends_with("/web\n"), "{exec}");
    given.run(bundle.deja().args(["pause", bundle.id()])).ok();
    given.run(bundle.deja().args(["delete", "--force", bundle.id()])).ok();
    assert!(!given.0.join("web").exists());
}

#[test]
fn without_rights_over_the_tree_limits_are_refused() {
    requires!(bed, userns);
    let bundle = rootless().set("/linux/resources", json!({"pids": {"limit": 17}}));
    let run = as_user(&bundle, "run").arg(bundle.id()).fails();
    run.assert_says("rootless needs no limits + no cgrouppath when no permission is granted for cgroups");
    let bundle = rootless().set("/linux/cgroupsPath", json!("/deja-test/not-mine"));
    as_user(&bundle, "run").arg(bundle.id()).fails().assert_says("permission denied");
}

/// deja as the user, in a mount namespace where this is what the user was given.
fn with_ranges(bundle: &Bundle, ranges: &str) -> Deja {
    let file = bundle.file("ranges");
    std::fs::write(&file, ranges).unwrap();
    // newuidmap wants to know the user's name, and not every machine has a user 1000.
    let accounts = bundle.file("accounts");
    std::fs::write(&accounts, "root:x:0:0::/root:/bin/sh\nsomebody:x:1000:1000::/:/bin/sh\n").unwrap();
    let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && \
                  mount --bind ${0%ranges}accounts /etc/passwd && exec setpriv --reuid 1000 --regid 1000 --clear-groups \"$@\"";
    let file = file.display().to_string();
    bundle.verb("run").arg(bundle.id()).wrapped_in(["unshare", "--mount", "sh", "-c", script, &file])
}

#[test]
fn more_ids_come_from_newuidmap() {
    requires!(bed, userns, tool "newuidmap", tool "setpriv");
    let ranges = maps(&[[0, USER, 1], [1, 200_000, 1000]]);
    let bundle = rootless()
        .set("/linux/uidMappings", ranges.clone())
        .set("/linux/gidMappings", ranges)
        .set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}))
        .script("id -u; id -G; tr -s ' ' < /proc/self/uid_map");
    with_ranges(&bundle, "1000:200000:1000\n").ok().assert_stdout("5\n6 7\n 0 1000 1\n 1 200000 1000");
}

#[test]
fn a_range_the_user_was_not_given_is_named() {
    requires!(bed, userns, tool "newuidmap", tool "setpriv");
    let bundle = rootless().set("/linux/uidMappings", maps(&[[0, USER, 1], [1, 300_000, 1000]]));
    let run = with_ranges(&bundle, "1000:200000:1000\n").fails();
    run.assert_says("newuidmap").assert_says("give user 1000 a range that covers it in \"/etc/subuid\"");
}

#[test]
fn without_the_tools_it_is_said_which() {
    requires!(bed, userns);
    let bundle = rootless().set("/linux/uidMappings", maps(&[[0, USER, 1], [1, 300_000, 1000]]));
    let run = as_user(&bundle, "run").arg(bundle.id()).env("PATH", "/nowhere").fails();
    run.assert_says("needs newuidmap, which is not in $PATH");
}

#[test]
fn mappings_that_make_no_sense_are_refused() {
    requires!(bed);
    for (ranges, words) in [
        (maps(&[[0, 100_000, 0]]), "linux.uidMappings[0]"),
        (maps(&[[0, 100_000, 10], [9, 200_000, 1]]), "linux.uidMappings[1] overlaps"),
        (maps(&[[0, u32::MAX, 2]]), "is not a range of ids"),
    ] {
        let bundle = Bundle::new().user_namespace(100_000, 10).set("/linux/uidMappings", ranges);
        bundle.run().assert_says(words);
    }
}

/// A pair of interfaces in the bed's own network namespace, gone with the test.
struct Pair(&'static str);

impl Pair {
    fn new(name: &'static str, peer: &str) -> Self {
        ip(&["link", "add", name, "type", "veth", "peer", "name", peer]);
        Self(name)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It is gone already where it went with its container.
        std::process::Command::new("ip").args(["link", "delete", self.0]).output().ok();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = std::process::Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

#[test]
fn interfaces_move_in_with_what_they_have() {
    requires!(bed, tool "ip", cap "NET_ADMIN");
    let _pair = Pair::new("djt0", "djt1");
    ip(&["addr", "add", "10.9.8.7/24", "dev", "djt0"]);
    ip(&["addr", "add", "fd00:9::5/64", "dev", "djt0", "nodad"]);
    ip(&["link", "set", "djt0", "mtu", "1400", "address", "02:00:00:00:00:77"]);
    ip(&["link", "set", "djt1", "up"]);
    let script = "ip -o link show eth9; ip -o addr show eth9";
    for bundle in [Bundle::new(), Bundle::new().user_namespace(100_000, 65536)] {
        if !exists("djt0") {
            ip(&["link", "add", "djt0", "type", "veth", "peer", "name", "djt1"]);
            ip(&["addr", "add", "10.9.8.7/24", "dev", "djt0"]);
            ip(&["addr", "add", "fd00:9::5/64", "dev", "djt0", "nodad"]);
            ip(&["link", "set", "djt0", "mtu", "1400", "address", "02:00:00:00:00:77"]);
        }
        let text = says(&bundle.set("/linux/netDevices", json!({"djt0": {"name": "eth9"}})).script(script));
        for words in ["mtu 1400", "02:00:00:00:00:77", "10.9.8.7/24", "fd00:9::5/64", ",UP"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!exists("djt0"));
        support::eventually("the pair to be gone", || (!exists("djt1")).then_some(()));
    }
}

#[test]
fn an_interface_that_cannot_move_stays() {
    requires!(bed, tool "ip", cap "NET_ADMIN");
    let _pair = Pair::new("djs0", "djs1");
    for (devices, words) in [
        (
            json!({"djs0": {}, "nodev": {}}),
            "move network device \"nodev\" into the container as \"nodev\": no such device",
        ),
        (json!({"djs0": {"name": "lo"}}), "the container has a device of that name"),
        (json!({"djs0": {"name": "a/b"}}), "invalid network device name"),
    ] {
        Bundle::new().set("/linux/netDevices", devices).run().assert_says(words);
        assert!(exists("djs0"), "{words}");
    }
    let devices = json!({"djs0": {}});
    Bundle::new()
        .set("/linux/netDevices", devices)
        .without_namespace("network")
        .run()
        .assert_says("without a NET namespace");
}
