//! `process` of config.json and what goes with it: who the program is, what it may do, where it starts.

mod support;
use support::{Bundle, adopt_orphans, requires};

use serde_json::json;

/// What the script writes when it is the container's program.
#[track_caller]
fn says(bundle: Bundle, script: &str) -> String {
    bundle.script(script).run().assert_code(0).stdout().trim_end().to_string()
}

/// A line of /proc/self/status of the container's program.
#[track_caller]
fn status_line(bundle: Bundle, name: &str) -> String {
    let text = says(bundle, &format!("grep ^{name}: /proc/self/status"));
    text.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or(text)
}

#[test]
fn rlimits_are_set() {
    requires!(bed);
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_CPU", "soft": 60, "hard": 120}
    ]);
    let bundle = Bundle::new().set("/process/rlimits", limits);
    let text = says(bundle, "ulimit -Sn; ulimit -Hn; ulimit -Hc; ulimit -St");
    assert_eq!(text, "100\n200\n0\n60");
}

#[test]
fn rlimits_that_make_no_sense_are_named() {
    requires!(bed);
    for (limits, words) in [
        (json!([{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]), "invalid rlimit type: RLIMIT_FUN"),
        (json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "RLIMIT_CPU: the soft limit 2 is above"),
        (
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]),
            "RLIMIT_CPU is limited twice",
        ),
        (json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}]), "set RLIMIT_NOFILE to soft 1"),
    ] {
        let run = Bundle::new().set("/process/rlimits", limits).run();
        assert_ne!(run.code(), Some(0));
        run.assert_says(words);
    }
}

#[test]
fn oom_score_adj_is_set_and_explained() {
    requires!(bed);
    let bundle = |score: i32| Bundle::new().set("/process/oomScoreAdj", json!(score));
    assert_eq!(says(bundle(321), "cat /proc/self/oom_score_adj"), "321");
    bundle(1001).run().assert_says("oomScoreAdj 1001 is not between -1000 and 1000");
}

#[test]
fn capabilities_are_what_was_asked_for() {
    requires!(bed);
    let bundle = |user: u32| {
        Bundle::new().set("/process/user/uid", json!(user)).set(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
                "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN", "CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            }),
        )
    };
    let sets = "grep ^Cap /proc/self/status | awk '{print $2}' | tr '\\n' ' '";
    // Inheritable, permitted, effective, bounding, ambient. A root program gets its bounding set from exec.
    let words = |user| says(bundle(user), sets);
    assert_eq!(
        words(1000).split_whitespace().collect::<Vec<_>>(),
        ["0000000000000020", "0000000000000020", "0000000000000020", "0000000000002021", "0000000000000020"]
    );
    // A program of root gets its bounding set, but with no_new_privs no more than it was permitted before.
    let root: Vec<String> = words(0).split_whitespace().map(str::to_string).collect();
    assert_eq!(root[..4], ["0000000000000020", "0000000000000021", "0000000000000021", "0000000000002021"]);
}

#[test]
fn without_capabilities_there_are_none() {
    requires!(bed);
    let bundle = || Bundle::new().remove("/process/capabilities");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_line(bundle(), set), "0000000000000000", "{set}");
    }
}

#[test]
fn unknown_capabilities_are_warned_about() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/capabilities/bounding/-", json!("CAP_TO_FLY"));
    let warning = "ignoring unknown or unavailable capabilities: [CAP_TO_FLY]";
    bundle.run().assert_code(0).assert_says(warning);
    // A log is mostly read by a program, which takes what is in it for a failure.
    let log = bundle.file("log");
    let logged = |flags: &[&str]| {
        let run = bundle.deja().arg("--log").arg(&log).args(flags).args(["run", "--bundle"]);
        assert_eq!(run.arg(bundle.path()).arg(bundle.id()).ok().stderr(), "");
        std::fs::read_to_string(&log).unwrap_or_default()
    };
    assert_eq!(logged(&[]), "");
    assert!(logged(&["--log-level", "warning"]).contains(warning));
}

#[test]
fn exec_adds_a_capability_to_the_ambient_set_where_it_is_inheritable() {
    requires!(bed);
    let bundle = Bundle::new()
        .sleeps()
        .set("/process/capabilities/bounding", json!(["CAP_CHOWN", "CAP_SYSLOG"]))
        .set("/process/capabilities/inheritable", json!(["CAP_CHOWN", "CAP_SYSLOG"]))
        .set("/process/capabilities/permitted", json!(["CAP_CHOWN"]))
        .set("/process/capabilities/ambient", json!(["CAP_CHOWN"]));
    let container = bundle.start();
    let ambient = |flags: &[&str]| {
        let status = container.exec_with(flags, &["grep", "^CapAmb", "/proc/self/status"]).ok().stdout();
        status.split_whitespace().nth(1).and_then(|set| u64::from_str_radix(set, 16).ok()).expect("a set")
    };
    const CHOWN: u64 = 1;
    const SYSLOG: u64 = 1 << 34;
    assert_eq!(ambient(&[]), CHOWN);
    assert_eq!(ambient(&["--cap", "CAP_SYSLOG"]), CHOWN | SYSLOG);
    assert_eq!(ambient(&["--cap", "CAP_SYS_TIME"]), CHOWN);
}

#[test]
fn exec_inherits_nothing_that_is_inheritable() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let run = container.exec_with(&["--cap", "CAP_SYS_TIME"], &["grep", "^Cap", "/proc/self/status"]).ok();
    let text = run.stdout();
    let set = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_string();
    assert!(set("CapInh").ends_with("0000000000000000"), "{text}");
    assert!(set("CapAmb").ends_with("0000000000000000"), "{text}");
    let effective = u64::from_str_radix(set("CapEff").split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_ne!(effective & 1 << 25, 0, "CAP_SYS_TIME: {text}");
}

#[test]
fn user_group_and_groups() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/user", json!({"uid": 7, "gid": 8, "additionalGids": [9, 10]}));
    assert_eq!(says(bundle, "id -u; id -g; id -G"), "7\n8\n8 9 10");
    assert_eq!(status_line(Bundle::new(), "Groups"), "");
}

#[test]
fn groups_of_the_caller_are_kept_on_request_only() {
    requires!(bed, tool "setpriv");
    let run = |bundle: Bundle| {
        let bundle = bundle.script("grep ^Groups: /proc/self/status");
        let verb = bundle.verb("run").arg(bundle.id()).wrapped_in(["setpriv", "--groups", "4242"]);
        verb.ok().stdout().contains("4242")
    };
    assert!(!run(Bundle::new()));
    assert!(run(Bundle::new().set("/annotations", json!({"run.oci.keep_original_groups": "1"}))));
}

#[test]
fn ids_out_of_range_are_refused() {
    requires!(bed);
    let run = Bundle::new().set("/process/user/uid", json!(u32::MAX)).run();
    run.assert_says("process.user.uid: 4294967295 is not an id");
}

#[test]
fn umask_is_set() {
    requires!(bed);
    assert_eq!(says(Bundle::new(), "umask"), "0022");
    assert_eq!(says(Bundle::new().set("/process/user/umask", json!(0o077)), "umask"), "0077");
}

#[test]
fn the_working_directory_is_made_and_entered() {
    requires!(bed);
    let cwd = |path: &str| Bundle::new().set("/process/cwd", json!(path));
    assert_eq!(says(cwd("/tmp"), "pwd"), "/tmp");
    assert_eq!(says(cwd("/not/there/yet"), "pwd; stat -c %a ."), "/not/there/yet\n755");
    assert_eq!(says(cwd("/../../tmp/../etc"), "pwd"), "/etc");
    // Also where nothing can be made once the root is read-only; not where something else is in the way.
    let read_only = |path: &str| cwd(path).set("/root/readonly", json!(true));
    assert_eq!(
        says(read_only("/not/there/yet"), "pwd; touch /not/there/yet/x 2>/dev/null || echo no"),
        "/not/there/yet\nno"
    );
    assert_eq!(says(read_only("/tmp/deeper"), "pwd"), "/tmp/deeper");
    read_only("/etc/passwd/x")
        .run()
        .assert_says("chdir to cwd (\"/etc/passwd/x\") set in config.json failed");
    cwd("relative").run().assert_says("must be an absolute path");
    cwd("/etc/passwd").run().assert_says("chdir to cwd (\"/etc/passwd\") set in config.json failed");
}

#[test]
fn the_working_directory_of_a_link_stays_inside() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/cwd", json!("/link"));
    std::os::unix::fs::symlink("../../../../etc", bundle.rootfs().join("link")).unwrap();
    assert_eq!(says(bundle, "pwd -P; cat hostname"), format!("/etc\n{}", hostname_file()));
}

fn hostname_file() -> String {
    std::fs::read_to_string(support::rootfs().join("etc/hostname")).unwrap().trim_end().to_string()
}

#[test]
fn the_working_directory_cannot_be_a_descriptor_of_deja() {
    requires!(bed);
    for number in 3..12 {
        let path = format!("/proc/self/fd/{number}");
        let run = Bundle::new().set("/process/cwd", json!(path)).run();
        assert_ne!(run.code(), Some(0), "{path}: {run}");
    }
}

#[test]
fn a_user_who_may_not_enter_is_told() {
    requires!(bed);
    // Root enters for the user, as the privileges of the container allow.
    let bundle = Bundle::new().set("/process/cwd", json!("/closed")).set("/process/user/uid", json!(7));
    std::fs::create_dir(bundle.rootfs().join("closed")).unwrap();
    std::fs::set_permissions(
        bundle.rootfs().join("closed"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    assert_eq!(says(bundle, "readlink /proc/self/cwd"), "/closed");
}

#[test]
fn the_environment_is_what_was_asked_for() {
    requires!(bed);
    let env = json!(["PATH=/bin:/usr/bin", "A=1", "B=two words", "A=3"]);
    let bundle = Bundle::new().set("/process/env", env).args(&["/bin/env"]);
    let text = bundle.run().assert_code(0).stdout();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=3", "B=two words", "HOME=/root", "PATH=/bin:/usr/bin"]);
    let run = Bundle::new().set("/process/env", json!(["NOVALUE"])).run();
    run.assert_says("\"NOVALUE\" is not of the form NAME=value");
}

#[test]
fn home_comes_from_the_container() {
    requires!(bed);
    let passwd = "root:x:0:0::/the/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n";
    let bundle =
        |uid: u32| Bundle::new().with_file("/etc/passwd", 0o644, passwd).set("/process/user/uid", json!(uid));
    assert_eq!(says(bundle(0), "echo $HOME"), "/the/root");
    assert_eq!(says(bundle(33), "echo $HOME"), "/var/www");
    assert_eq!(says(bundle(99), "echo $HOME"), "/");
    assert_eq!(says(bundle(33).set("/process/env/-", json!("HOME=/own")), "echo $HOME"), "/own");
}

#[test]
fn home_is_not_looked_for_outside() {
    requires!(bed);
    for target in ["../../../../../../etc/passwd", "/proc/self/root/etc/passwd", "/proc/1/fd/0", "/dev/zero"]
    {
        let bundle = Bundle::new();
        std::fs::remove_file(bundle.rootfs().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink(target, bundle.rootfs().join("etc/passwd")).unwrap();
        assert_eq!(says(bundle, "echo $HOME"), "/", "{target}");
    }
    let fifo = Bundle::new();
    let path = fifo.rootfs().join("etc/passwd");
    std::fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    assert_eq!(says(fifo, "echo $HOME"), "/");
}

/// What engines read to tell 126 from 127.
#[test]
fn what_cannot_be_executed_is_told_in_the_words_engines_know() {
    requires!(bed);
    let bundle = || {
        Bundle::new()
            .with_file("/bin/plain", 0o644, "x")
            .with_file("/bin/lost", 0o755, "#!/no/interpreter\n")
            .with_file("/bin/junk", 0o755, "junk")
    };
    for (program, words) in [
        ("missing", r#"exec: "missing": executable file not found in $PATH"#),
        ("plain", r#"exec: "plain": executable file not found in $PATH"#),
        ("/no/such", r#"exec: "/no/such": stat /no/such: no such file or directory"#),
        ("/etc", r#"exec: "/etc": is a directory"#),
        ("/bin/plain", r#"exec: "/bin/plain": permission denied"#),
        ("/etc/passwd/x", r#"exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory"#),
        ("/bin/lost", "exec /bin/lost: no such file or directory"),
        ("/bin/junk", "exec /bin/junk: exec format error"),
    ] {
        let bundle = bundle().args(&[program]);
        bundle.run().assert_says(words);
        let created = bundle.verb("create").arg(bundle.id()).output();
        if program == "/bin/lost" || program == "/bin/junk" {
            // Only exec itself can know.
            let started = bundle.deja().arg("start").arg(bundle.id()).fails();
            started.assert_says(words);
        } else {
            created.assert_says(words);
        }
    }
}

#[test]
fn exec_tells_it_in_the_same_words() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let run = container.exec(&["missing"]);
    run.assert_says(r#"exec: "missing": executable file not found in $PATH"#);
    container.exec(&["/etc"]).assert_says(r#"exec: "/etc": is a directory"#);
}

#[test]
fn the_executable_is_looked_for_as_the_user() {
    requires!(bed);
    let bundle = Bundle::new()
        .with_file("/secret/tool", 0o755, "#!/bin/sh\necho no\n")
        .set("/process/user/uid", json!(7))
        .remove("/process/capabilities")
        .args(&["/secret/tool"]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(bundle.rootfs().join("secret"), mode).unwrap();
    bundle.verb("create").arg(bundle.id()).fails().assert_says("permission denied");
}

#[test]
fn no_new_privileges() {
    requires!(bed);
    assert_eq!(status_line(Bundle::new(), "NoNewPrivs"), "1");
    assert_eq!(status_line(Bundle::new().set("/process/noNewPrivileges", json!(false)), "NoNewPrivs"), "0");
}

#[test]
fn labels_without_a_module_are_refused() {
    requires!(bed);
    if support::first_missing(&[("apparmor", "")]).is_some() {
        let bundle = Bundle::new().set("/process/apparmorProfile", json!("some-profile"));
        bundle.run().assert_says("apparmor: config provided but apparmor not supported");
        Bundle::new().set("/process/apparmorProfile", json!("unconfined")).run().assert_code(0);
    }
    if support::first_missing(&[("selinux", "")]).is_some() {
        let bundle = Bundle::new().set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
        bundle
            .run()
            .assert_says("selinux label is specified in config, but selinux is disabled or not supported");
    }
}

/// Field 40 of /proc/PID/stat is the real-time priority, field 41 the policy, field 19 the nice value.
fn scheduling(scheduler: serde_json::Value) -> String {
    let bundle = Bundle::new().set("/process/scheduler", scheduler);
    says(bundle, "read -r line < /proc/self/stat; echo ${line##*)} | cut -d' ' -f17,38,39")
}

/// What a process has that was given none.
fn own_niceness() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("read /proc/self/stat");
    let behind_the_name = stat.rsplit(')').next().expect("fields");
    behind_the_name.split_whitespace().nth(16).expect("a nice value").to_owned()
}

#[test]
fn schedulers() {
    requires!(bed);
    let nice = own_niceness();
    assert_eq!(scheduling(json!({"policy": "SCHED_BATCH", "nice": 5})), "5 0 3");
    assert_eq!(scheduling(json!({"policy": "SCHED_IDLE"})), format!("{nice} 0 5"));
    assert_eq!(scheduling(json!({"policy": "SCHED_OTHER", "nice": 19})), "19 0 0");
    let run = Bundle::new().set("/process/scheduler", json!({"policy": "SCHED_WRONG"})).run();
    run.assert_says("invalid scheduler policy: SCHED_WRONG");
}

#[test]
fn real_time_schedulers() {
    requires!(bed, cap "SYS_NICE");
    let nice = own_niceness();
    assert_eq!(scheduling(json!({"policy": "SCHED_FIFO", "priority": 7})), format!("{nice} 7 1"));
    assert_eq!(scheduling(json!({"policy": "SCHED_RR", "priority": 9})), format!("{nice} 9 2"));
    // The kernel gives a child of a deadline process nothing without this flag, so the shell forks nothing here.
    let scheduler = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000u64, "period": 50_000_000u64,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"]
    });
    let bundle = Bundle::new().set("/process/scheduler", scheduler);
    let text = says(bundle, "read -r line < /proc/self/stat; echo ${line##*)}");
    assert_eq!(text.split_whitespace().nth(38), Some("6"), "{text}");
}

#[test]
fn io_priorities() {
    requires!(bed);
    let bundle = |class: &str, priority: i32| {
        Bundle::new().set("/process/ioPriority", json!({"class": class, "priority": priority}))
    };
    assert_eq!(says(bundle("IOPRIO_CLASS_BE", 6), "ionice"), "best-effort: prio 6");
    assert_eq!(says(bundle("IOPRIO_CLASS_IDLE", 0), "ionice"), "idle");
    bundle("IOPRIO_CLASS_BE", 8).run().assert_says("invalid ioPriority.priority: 8");
    bundle("IOPRIO_CLASS_X", 0).run().assert_says("invalid ioPriority.class: IOPRIO_CLASS_X");
}

#[test]
fn the_affinity_of_the_caller_is_not_the_container_s() {
    requires!(bed, tool "taskset");
    let bundle = Bundle::new().script("grep ^Cpus_allowed_list /proc/self/status");
    let all = bundle.run().stdout();
    let run = bundle.verb("run").arg(bundle.id()).wrapped_in(["taskset", "-c", "0"]).ok();
    assert_eq!(run.stdout(), all);
}

#[test]
fn exec_has_an_affinity_of_its_own() {
    requires!(bed);
    let bundle =
        Bundle::new().sleeps().set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    let container = bundle.start();
    let run = container.exec(&["grep", "^Cpus_allowed_list", "/proc/self/status"]);
    assert!(run.stdout().trim_end().ends_with("\t0"), "{run}");
    let bad = Bundle::new().set("/process/execCPUAffinity", json!({"final": "3-1"})).sleeps();
    let refused = bad.verb("run").arg("--detach").arg(bad.id()).output();
    if refused.code() == Some(0) {
        bad.deja().arg("exec").arg(bad.id()).arg("true").fails().assert_says("invalid range \"3-1\"");
    } else {
        refused.assert_says("invalid range \"3-1\"");
    }
}

#[test]
fn personalities() {
    requires!(bed);
    let bundle = |domain: &str| Bundle::new().set("/linux/personality", json!({"domain": domain}));
    assert_eq!(says(bundle("LINUX"), "cat /proc/self/personality"), "00000000");
    assert_eq!(says(bundle("LINUX32"), "cat /proc/self/personality"), "00000008");
    bundle("BSD").run().assert_says("invalid linux.personality.domain: \"BSD\"");
    let flags = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    Bundle::new().set("/linux/personality", flags).run().assert_says("ADDR_NO_RANDOMIZE is not supported");
}

#[test]
fn memory_policies() {
    requires!(bed, path "/proc/self/numa_maps");
    let bundle = |policy| Bundle::new().set("/linux/memoryPolicy", policy);
    let first = "head -n1 /proc/self/numa_maps | cut -d' ' -f2";
    assert_eq!(says(bundle(json!({"mode": "MPOL_BIND", "nodes": "0"})), first), "bind:0");
    let policy = json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    assert_eq!(says(bundle(policy), first), "interleave=static:0");
    bundle(json!({"mode": "MPOL_X"})).run().assert_says("invalid memoryPolicy.mode: \"MPOL_X\"");
    bundle(json!({"mode": "MPOL_BIND", "nodes": "1000"})).run().assert_says("a node is not there");
}

#[test]
fn the_session_keyring_is_the_container_s() {
    requires!(bed, path "/proc/keys");
    // /proc/keys is masked by default.
    let joins = |flags: &[&str]| {
        let bundle = Bundle::new().remove("/linux/maskedPaths").script("cat /proc/keys");
        let keys = bundle.run_with(flags).assert_code(0).stdout();
        keys.contains(&format!("_ses.{}", bundle.id()))
    };
    assert!(joins(&[]));
    assert!(!joins(&["--no-new-keyring"]));
}

#[test]
fn exec_joins_the_session_keyring() {
    requires!(bed, path "/proc/keys");
    let bundle = Bundle::new().remove("/linux/maskedPaths").sleeps();
    let container = bundle.start();
    let run = container.exec(&["cat", "/proc/keys"]).assert_code(0);
    let name = format!("_ses.{}", bundle.id());
    assert_eq!(run.stdout().lines().filter(|line| line.contains(&name)).count(), 1, "{run}");
}

#[test]
fn host_and_domain_name() {
    requires!(bed);
    let bundle = Bundle::new().set("/hostname", json!("web")).set("/domainname", json!("example"));
    let two = bundle.set("/linux/sysctl", json!({"kernel.domainname": "other"}));
    two.run().assert_says("conflicts with the OCI \"domainname\" field");
    let one = two.set("/linux/sysctl", json!({"kernel.domainname": "example"}));
    assert_eq!(says(one, "hostname; cat /proc/sys/kernel/domainname"), "web\nexample");
    let run = Bundle::new().without_namespace("uts").run();
    run.assert_says("unable to set hostname without a private UTS namespace");
    Bundle::new().set("/hostname", json!("x".repeat(65))).run().assert_says("is longer than 64 bytes");
}

#[test]
fn sysctls_of_private_namespaces() {
    requires!(bed);
    let bundle = |key: &str, value: &str| Bundle::new().set("/linux/sysctl", json!({key: value}));
    assert_eq!(says(bundle("net.ipv4.ip_forward", "1"), "cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(
        says(bundle("net/ipv4/conf/lo/forwarding", "1"), "cat /proc/sys/net/ipv4/conf/lo/forwarding"),
        "1"
    );
    assert_eq!(says(bundle("kernel.shmmax", "4321"), "cat /proc/sys/kernel/shmmax"), "4321");
    for (key, words) in [
        ("vm.swappiness", "is not in a separate kernel namespace"),
        ("kernel.core_pattern", "is not in a separate kernel namespace"),
        ("kernel.hostname", "conflicts with the OCI \"hostname\" field"),
        ("net.//.kernel", "invalid sysctl"),
        ("net.no.such", "set sysctl \"net.no.such\" to \"1\""),
    ] {
        bundle(key, "1").run().assert_says(words);
    }
    bundle("net.ipv4.ip_forward", "1")
        .without_namespace("network")
        .run()
        .assert_says("host's network namespace");
    bundle("kernel.sem", "1").without_namespace("ipc").run().assert_says("host's ipc namespace");
}

/// A procfs that is none catches no write: deja has its own.
#[test]
fn a_fake_procfs_catches_nothing() {
    requires!(bed);
    let bundle = Bundle::new()
        .without_mount("/proc")
        .mount(json!({"destination": "/real", "type": "proc", "source": "proc"}))
        .with_file("/proc/sys/net/ipv4/ip_forward", 0o666, "fake")
        .with_file("/proc/self/oom_score_adj", 0o666, "fake")
        .remove("/linux/readonlyPaths")
        .remove("/linux/maskedPaths")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/process/oomScoreAdj", json!(99))
        .script("cat /real/sys/net/ipv4/ip_forward /real/self/oom_score_adj");
    assert_eq!(bundle.run().assert_code(0).stdout(), "1\n99\n");
    for file in ["proc/sys/net/ipv4/ip_forward", "proc/self/oom_score_adj"] {
        assert_eq!(std::fs::read_to_string(bundle.rootfs().join(file)).unwrap(), "fake");
    }
}

#[test]
fn the_loopback_interface_is_up() {
    requires!(bed);
    assert!(says(Bundle::new(), "cat /sys/class/net/lo/flags").starts_with("0x9"));
    assert_eq!(says(Bundle::new(), "ping -c1 -W5 127.0.0.1 >/dev/null && echo yes"), "yes");
}

#[test]
fn descriptors_of_the_caller_stay_outside() {
    requires!(bed, tool "sh");
    let bundle = Bundle::new().script("ls /proc/self/fd | tr '\\n' ' '");
    let run = |flags: &[&str]| {
        let verb = bundle.verb("run").args(flags).arg(bundle.id());
        // ls itself opens the directory as the next free one.
        verb.wrapped_in([
            "sh",
            "-c",
            "exec 3</etc/hostname 4</etc/hostname 9</etc/hostname; exec \"$@\"",
            "sh",
        ])
        .ok()
        .stdout()
    };
    assert_eq!(run(&[]).trim_end(), "0 1 2 3");
    assert_eq!(run(&["--preserve-fds", "1"]).trim_end(), "0 1 2 3 4");
    assert_eq!(run(&["--preserve-fds", "2"]).trim_end(), "0 1 2 3 4 5");
}

#[test]
fn sockets_are_passed_on_by_number() {
    requires!(bed, tool "sh");
    let bundle = Bundle::new().script("echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | tr '\\n' ' '");
    let verb = bundle.verb("run").arg(bundle.id()).env("LISTEN_FDS", "1");
    let run = verb.wrapped_in(["sh", "-c", "exec 3</etc/hostname; exec \"$@\"", "sh"]).ok();
    assert_eq!(run.stdout().trim_end(), "1 1\n0 1 2 3 4");
}

#[test]
fn standard_streams_belong_to_the_user() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/user/uid", json!(7));
    assert_eq!(says(bundle, "stat -L -c %u /dev/stdout; echo again >> /dev/stdout"), "7\nagain");
}

#[test]
fn the_program_leads_a_session() {
    requires!(bed);
    let text = says(Bundle::new(), "read -r line < /proc/self/stat; echo ${line##*)} | cut -d' ' -f3,4");
    assert_eq!(text, "1 1");
}

#[test]
fn users_of_exec_are_numbers() {
    requires!(bed);
    adopt_orphans();
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let id = |user: &str| container.exec_with(&["--user", user], &["sh", "-c", "id -u; id -g"]).output();
    assert_eq!(id("7:8").assert_code(0).stdout(), "7\n8\n");
    assert_eq!(id("7").assert_code(0).stdout(), "7\n0\n");
    for bad in ["", "root", "1x", "+1", " 1", "-1", "1:", "1:2:3", "4294967295", "99999999999"] {
        let run = id(bad);
        assert_ne!(run.code(), Some(0), "{bad:?}: {run}");
        assert_eq!(run.stdout(), "", "{bad:?}");
    }
}
