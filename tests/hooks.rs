//! Hooks: all six moments, in the namespaces and with the outcome the specification asks for.

mod support;
use support::{Bundle, Leaks, adopt_orphans, requires};

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A shell script of the host as a hook; its standard input is kept in a file of the bundle.
fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"]})
}

fn with_hook(bundle: Bundle, moment: &str, hook: Value) -> Bundle {
    bundle.set(&format!("/hooks/{moment}/-"), hook)
}

/// A bundle whose hooks at all moments append a line to the file `log`: those of the container its own.
fn logging(bundle: Bundle) -> Bundle {
    let log = bundle.file("log").display().to_string();
    let mut bundle = bundle;
    for moment in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle = with_hook(bundle, moment, shell(&format!("echo {moment} >> {log}; cat > {log}.{moment}")));
    }
    let inside = "echo startContainer > /hook.log; cat > /hook.state";
    with_hook(
        bundle,
        "startContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", inside], "env": ["PATH=/bin"]}),
    )
}

fn lines(path: PathBuf) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_string).collect()
}

fn state_of(bundle: &Bundle, moment: &str) -> Value {
    let path = match moment {
        "startContainer" => bundle.rootfs().join("hook.state"),
        moment => bundle.file(&format!("log.{moment}")),
    };
    serde_json::from_slice(&fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))).unwrap()
}

#[test]
fn every_moment_comes_in_its_order() {
    requires!(bed);
    adopt_orphans();
    let bundle = logging(Bundle::new().sleeps());
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    let before = ["prestart", "createRuntime", "createContainer"];
    assert_eq!(lines(bundle.file("log")), before);
    assert!(!bundle.rootfs().join("hook.log").exists());
    container.start();
    assert_eq!(lines(bundle.file("log")), [&before[..], &["poststart"]].concat());
    assert_eq!(lines(bundle.rootfs().join("hook.log")), ["startContainer"]);
    container.kill("KILL");
    container.wait_status("stopped");
    container.delete();
    assert_eq!(lines(bundle.file("log")).last().unwrap(), "poststop");
    drop(container);
    leaks.assert_none();
}

#[test]
fn every_hook_reads_the_state() {
    requires!(bed);
    adopt_orphans();
    let bundle = logging(Bundle::new().sleeps().set("/annotations", json!({"key": "value"})));
    let container = bundle.start();
    let pid = container.pid();
    container.kill("KILL");
    container.wait_status("stopped");
    container.delete();
    for (moment, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state = state_of(&bundle, moment);
        assert_eq!(state["id"], bundle.id(), "{moment}: {state}");
        assert_eq!(state["status"], status, "{moment}: {state}");
        assert_eq!(state["bundle"], bundle.path().display().to_string(), "{moment}: {state}");
        assert_eq!(state["annotations"]["key"], "value", "{moment}: {state}");
        assert!(state["ociVersion"].is_string(), "{moment}: {state}");
        if moment != "poststop" {
            assert_eq!(state["pid"], pid, "{moment}: {state}");
        }
    }
}

#[test]
fn run_calls_them_all() {
    requires!(bed);
    let bundle = logging(Bundle::new());
    bundle.run().assert_code(0);
    let log = lines(bundle.file("log"));
    let mut sorted = log.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["createContainer", "createRuntime", "poststart", "poststop", "prestart"], "{log:?}");
    assert_eq!(lines(bundle.rootfs().join("hook.log")), ["startContainer"]);
}

/// The mount and network namespace a hook finds itself in.
#[test]
fn hooks_run_in_their_namespaces() {
    requires!(bed);
    adopt_orphans();
    let mut bundle = Bundle::new().sleeps();
    let log = bundle.file("ns").display().to_string();
    for moment in ["prestart", "createRuntime", "createContainer", "poststart"] {
        let script = format!("readlink /proc/self/ns/mnt /proc/self/ns/net > {log}.{moment}");
        bundle = with_hook(bundle, moment, shell(&script));
    }
    let container = bundle.start();
    let link = |pid: &str, kind: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
    };
    let init = container.pid().to_string();
    let host = [link("self", "mnt"), link("self", "net")];
    let inner = [link(&init, "mnt"), link(&init, "net")];
    for (moment, expected) in
        [("prestart", &host), ("createRuntime", &host), ("createContainer", &inner), ("poststart", &host)]
    {
        assert_eq!(lines(bundle.file(&format!("ns.{moment}"))), expected, "{moment}");
    }
}

#[test]
fn create_container_hooks_see_host_and_rootfs() {
    requires!(bed);
    let bundle = Bundle::new().script("cat /shared/file");
    fs::create_dir(bundle.rootfs().join("shared")).unwrap();
    let source = bundle.file("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from the hook").unwrap();
    let script = format!("mount --bind {} {}/shared", source.display(), bundle.rootfs().display());
    let bundle = with_hook(bundle, "createContainer", shell(&script));
    bundle.run().assert_code(0).assert_stdout("from the hook");
    assert!(!bundle.rootfs().join("shared/file").exists());
}

#[test]
fn runtime_hooks_set_up_the_network() {
    requires!(bed, tool "nsenter", tool "ip");
    let script = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); nsenter -t $pid -n ip link add v0 type veth peer name v1"#;
    for moment in ["prestart", "createRuntime"] {
        // A sysctl of the interface that the hook makes.
        let bundle = with_hook(Bundle::new(), moment, shell(script))
            .set("/linux/sysctl", json!({"net.ipv4.conf.v0.forwarding": "1"}))
            .script("cat /proc/sys/net/ipv4/conf/v0/forwarding");
        bundle.run().assert_code(0).assert_stdout("1");
    }
}

#[test]
fn environment_and_directory_are_the_hook_s_own() {
    requires!(bed);
    let bundle = Bundle::new();
    let log = bundle.file("env").display().to_string();
    let hook = json!({
        "path": "/bin/sh", "args": ["name", "-c", format!("echo $0; pwd; /usr/bin/env > {log}.all; ls /proc/self/fd > {log}.fds; exec > {log}; echo $0; pwd")],
        "env": ["ONE=1"]
    });
    let bundle = with_hook(bundle, "createRuntime", hook);
    bundle.verb("run").arg(bundle.id()).env("SECRET", "x").ok();
    assert_eq!(lines(bundle.file("env")), ["name".to_string(), bundle.path().display().to_string()]);
    let all = lines(bundle.file("env.all"));
    assert!(all.contains(&"ONE=1".to_string()), "{all:?}");
    assert!(!all.iter().any(|line| line.starts_with("SECRET")), "{all:?}");
    // ls opens the directory as number 3.
    assert_eq!(lines(bundle.file("env.fds")), ["0", "1", "2", "3"]);
}

#[test]
fn without_an_environment_a_hook_has_that_of_its_surroundings() {
    requires!(bed);
    let bundle = Bundle::new().set("/process/env", json!(["PATH=/bin:/usr/bin", "INSIDE=yes"]));
    let log = bundle.file("env").display().to_string();
    let outside = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo $CALLER-$INSIDE >> {log}")]});
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo $CALLER-$INSIDE > /hook.env"]});
    let mut bundle = bundle.script("cat /hook.env");
    for moment in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle = with_hook(bundle, moment, outside.clone());
    }
    let bundle = with_hook(bundle, "startContainer", inside);
    bundle.verb("run").arg(bundle.id()).env("CALLER", "deja").ok().assert_stdout("-yes");
    assert_eq!(lines(bundle.file("env")), ["deja-"; 5]);
}

#[test]
fn a_hook_that_fails_undoes_the_container() {
    requires!(bed);
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let bundle = with_hook(Bundle::new(), moment, shell("echo why >&2; exit 3"));
        let leaks = Leaks::snapshot(&bundle);
        let create = bundle.verb("create").arg(bundle.id()).fails();
        create
            .assert_says(&format!("error running {moment} hook #0"))
            .assert_says("exit status 3")
            .assert_says("why");
        leaks.assert_none();
        bundle.deja().arg("state").arg(bundle.id()).fails().assert_says("does not exist");
    }
}

#[test]
fn a_start_container_hook_that_fails_ends_the_container() {
    requires!(bed);
    adopt_orphans();
    let hook = json!({"path": "/bin/false"});
    let bundle = with_hook(Bundle::new().script("echo ran > /ran"), "startContainer", hook);
    let container = bundle.create();
    let start = container.verb("start", &[]).fails();
    start.assert_says("error running startContainer hook #0").assert_says("exit status 1");
    container.wait_status("stopped");
    assert!(!bundle.rootfs().join("ran").exists());
    drop(container);
    bundle.run().assert_says("error running startContainer hook #0");
}

#[test]
fn a_poststart_hook_that_fails_ends_the_container() {
    requires!(bed);
    adopt_orphans();
    let bundle = with_hook(Bundle::new().sleeps(), "poststart", shell("exit 4"));
    let container = bundle.create();
    let start = container.verb("start", &[]).fails();
    start.assert_says("error running poststart hook #0").assert_says("exit status 4");
    container.wait_status("stopped");
}

#[test]
fn a_poststop_hook_that_fails_does_not_keep_the_container() {
    requires!(bed);
    let log = |bundle: &Bundle| bundle.file("log").display().to_string();
    let bundle = with_hook(Bundle::new(), "poststop", shell("exit 5"));
    let second = shell(&format!("echo second > {}", log(&bundle)));
    let bundle = with_hook(bundle, "poststop", second);
    let leaks = Leaks::snapshot(&bundle);
    bundle.run().assert_code(0);
    assert_eq!(lines(bundle.file("log")), ["second"]);
    leaks.assert_none();
}

#[test]
fn the_first_failure_ends_the_list() {
    requires!(bed);
    let bundle = Bundle::new();
    let log = bundle.file("log").display().to_string();
    let mut bundle = with_hook(bundle, "createRuntime", shell(&format!("echo 0 >> {log}")));
    bundle = with_hook(bundle, "createRuntime", shell(&format!("echo 1 >> {log}; exit 1")));
    bundle = with_hook(bundle, "createRuntime", shell(&format!("echo 2 >> {log}")));
    bundle.run().assert_says("error running createRuntime hook #1");
    assert_eq!(lines(bundle.file("log")), ["0", "1"]);
}

#[test]
fn hooks_have_a_deadline() {
    requires!(bed);
    for moment in ["createRuntime", "createContainer", "startContainer"] {
        let mut hook = json!({"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1});
        if moment == "createRuntime" {
            hook["args"] = json!(["sleep", "601"]);
        }
        let bundle = with_hook(Bundle::new(), moment, hook);
        let leaks = Leaks::snapshot(&bundle);
        let begin = Instant::now();
        let run = bundle.run();
        assert_ne!(run.code(), Some(0));
        run.assert_says(&format!("error running {moment} hook #0"))
            .assert_says("hook ran past specified timeout");
        assert!(begin.elapsed() < support::patience(), "{:?}", begin.elapsed());
        leaks.assert_none();
    }
}

#[test]
fn an_orphan_of_a_hook_holds_nobody_up() {
    requires!(bed);
    let bundle = with_hook(Bundle::new(), "createRuntime", shell("sleep 100 & echo $! > pid"));
    let begin = Instant::now();
    bundle.run().assert_code(0);
    assert!(begin.elapsed() < Duration::from_secs(50));
    let pid: i32 = lines(bundle.file("pid"))[0].parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn hooks_that_make_no_sense_are_refused_before_anything_is_made() {
    requires!(bed);
    for (hook, words) in [
        (json!({"path": "relative"}), "is not an absolute path"),
        (json!({"path": "/bin/true", "timeout": 0}), "timeout"),
        (json!({"path": "/no/such/hook"}), "no such file or directory"),
    ] {
        let bundle = with_hook(Bundle::new(), "createRuntime", hook);
        let leaks = Leaks::snapshot(&bundle);
        bundle.verb("create").arg(bundle.id()).fails().assert_says(words);
        leaks.assert_none();
    }
}

#[test]
fn output_goes_where_the_annotations_say() {
    requires!(bed);
    let bundle = with_hook(Bundle::new(), "createRuntime", shell("echo out; echo err >&2"));
    let (out, err) = (bundle.file("hook.out"), bundle.file("hook.err"));
    fs::write(&out, "before\n").unwrap();
    let bundle = bundle.set(
        "/annotations",
        json!({"run.oci.hooks.stdout": out.display().to_string(), "run.oci.hooks.stderr": err.display().to_string()}),
    );
    let run = bundle.run().assert_code(0);
    assert_eq!((run.stdout(), run.stderr()), (String::new(), String::new()));
    assert_eq!(lines(out), ["before", "out"]);
    assert_eq!(lines(err), ["err"]);
}

#[test]
fn a_large_state_arrives_whole() {
    requires!(bed);
    adopt_orphans();
    // More than a pipe holds.
    let value = "x".repeat(200_000);
    let bundle = logging(Bundle::new().sleeps()).set("/annotations", json!({"large": value}));
    let container = bundle.start();
    for moment in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        assert_eq!(
            state_of(&bundle, moment)["annotations"]["large"].as_str().unwrap().len(),
            200_000,
            "{moment}"
        );
    }
    drop(container);
}

#[test]
fn a_hook_that_reads_nothing_is_fine() {
    requires!(bed);
    let bundle = with_hook(Bundle::new(), "createRuntime", json!({"path": "/bin/true"}));
    bundle.set("/annotations", json!({"large": "x".repeat(200_000)})).run().assert_code(0);
}

#[test]
fn start_container_hooks_run_as_the_container() {
    requires!(bed);
    let script =
        "id -u > /tmp/who; grep ^NoNewPrivs /proc/self/status >> /tmp/who; ls /proc/self/fd >> /tmp/who";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]});
    let bundle = with_hook(Bundle::new(), "startContainer", hook).set("/process/user/uid", json!(7));
    fs::set_permissions(bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    bundle.run().assert_code(0);
    assert_eq!(lines(bundle.rootfs().join("tmp/who")), ["7", "NoNewPrivs:\t1", "0", "1", "2", "3"]);
}
