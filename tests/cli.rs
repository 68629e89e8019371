//! The command line: help, version, completions, manual, misuse, and where errors are written.

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{Bundle, Container, Deja, binary, requires};

const VERBS: &[&str] = &[
    "create",
    "start",
    "run",
    "exec",
    "state",
    "list",
    "ps",
    "kill",
    "delete",
    "pause",
    "resume",
    "update",
    "events",
    "spec",
    "features",
    "checkpoint",
    "restore",
    "mounts",
    "help",
    "completion",
    "man",
];

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("create a temporary directory")
}

#[test]
fn every_verb_explains_itself() {
    for verb in VERBS {
        let long = Deja::bare().args([*verb, "--help"]).ok().stdout();
        assert!(long.starts_with(&format!("NAME:\n   deja {verb} - ")), "{long}");
        assert!(long.contains("EXAMPLE:\n   deja "), "{long}");
        assert_eq!(Deja::bare().args([*verb, "-h"]).ok().stdout(), long);
        assert_eq!(Deja::bare().args(["help", verb]).ok().stdout(), long);
    }
    let overview = Deja::bare().ok().stdout();
    for verb in VERBS {
        assert!(overview.contains(&format!("\n   {verb}")), "{verb}: {overview}");
    }
    assert_eq!(Deja::bare().arg("--help").ok().stdout(), overview);
}

#[test]
fn the_version_carries_the_name_it_was_called_by() {
    let own = Deja::bare().arg("--version").ok().stdout();
    let lines: Vec<&str> = own.lines().collect();
    assert!(lines[0].starts_with("deja version 0."), "{own}");
    assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{own}");
    for flag in ["-v", "-V"] {
        assert_eq!(Deja::bare().arg(flag).ok().stdout(), own);
    }
    let directory = directory();
    for name in ["runc", "crun"] {
        let link = directory.path().join(name);
        std::os::unix::fs::symlink(binary(), &link).unwrap();
        let output = Command::new(&link).arg("--version").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(&format!("{name} version 0.")), "{said}");
    }
}

#[test]
fn misuse_fails_with_one_line() {
    for (arguments, sentence) in [
        (&["nonsense"] as &[&str], "No help topic for 'nonsense'"),
        (&["help", "nonsense"], "No help topic for 'nonsense'"),
        (&["--nonsense"], "flag provided but not defined: --nonsense"),
        (&["state", "--nonsense", "x"], "flag provided but not defined: --nonsense"),
        (&["state"], "\\\"state\\\" requires exactly 1 argument(s)"),
        (&["restore", "--lsm-mount-context"], "flag needs an argument: --lsm-mount-context"),
        (&["kill", "x", "NOSUCH"], "unknown signal \\\"NOSUCH\\\""),
        (&["state", "../x"], "invalid container ID format: \\\"../x\\\""),
        (&["state", ""], "container id cannot be empty"),
        (&["delete", "--force", "a/b"], "invalid container ID format"),
        (&["--root", "/", "list"], "option --root argument should not be set to /"),
        (&["--root", "", "list"], "option --root argument should not be set to /"),
        (&["--root", "/../..", "list"], "option --root argument should not be set to /"),
        (&["completion", "tcsh"], "no completions for \\\"tcsh\\\""),
        (&["checkpoint", "--page-server", "x", "x"], "--page-server \\\"x\\\": the form is ADDRESS:PORT"),
        (
            &["checkpoint", "--parent-path", "/x", "x"],
            "--parent-path \\\"/x\\\": it is relative to --image-path",
        ),
        (
            &["checkpoint", "--parent-path", "nowhere", "x"],
            "--parent-path \\\"nowhere\\\": no such directory",
        ),
        (&["checkpoint", "--empty-ns", "pid", "x"], "only network can be left out"),
        (&["checkpoint", "--manage-cgroups-mode", "x", "x"], "it must be one of: ignore, soft, full, strict"),
        (&["kill", "--regex", "("], "invalid regular expression"),
    ] {
        let finished = Deja::bare().args(arguments).directory("/tmp").fails().assert_code(1);
        let said = finished.stderr();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
        assert!(said.starts_with("time=\"") && said.contains(" level=error msg="), "{said}");
        assert_eq!(finished.stdout(), "", "{arguments:?}");
    }
}

#[test]
fn a_json_log_gets_one_line_on_failure_and_none_on_success() {
    let directory = directory();
    let log = directory.path().join("log.json");
    let deja = || Deja::bare().arg("--log").arg(&log).args(["--log-format", "json"]);
    deja().arg("features").ok();
    assert_eq!(fs::read(&log).unwrap_or_default(), b"");
    let failed = deja().args(["state", "nobody"]).fails();
    assert_eq!(failed.stderr(), "container \"nobody\" does not exist\n", "stderr is for people");
    let line = fs::read_to_string(&log).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["level"], "error");
    assert_eq!(entry["msg"], "container \"nobody\" does not exist");
    let time = entry["time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
    // It is appended to, and a wrong command line is logged there too.
    deja().args(["state"]).fails();
    assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 2);
}

#[test]
fn a_text_log_and_its_prefix() {
    let directory = directory();
    let log = directory.path().join("log");
    Deja::bare().arg("--log").arg(format!("file:{}", log.display())).args(["state", "nobody"]).fails();
    let line = fs::read_to_string(&log).unwrap();
    assert!(
        line.starts_with("time=\"") && line.contains("level=error msg=\"container \\\"nobody\\\""),
        "{line}"
    );
}

#[test]
fn json_without_a_file_is_written_to_stderr() {
    let failed = Deja::bare().args(["--log-format", "json", "state", "nobody"]).fails();
    let entry: serde_json::Value = serde_json::from_str(&failed.stderr()).unwrap();
    assert_eq!(entry["level"], "error");
}

#[test]
fn a_log_that_cannot_be_written_does_not_hide_the_error() {
    let failed = Deja::bare().args(["--log", "/nonexistent/dir/log", "state", "nobody"]).fails();
    failed.assert_says("container \"nobody\" does not exist").assert_says("could not be logged");
}

#[test]
fn completions_are_scripts_their_shells_accept() {
    requires!(tool "bash");
    for shell in ["bash", "zsh", "fish"] {
        let script = Deja::bare().args(["completion", shell]).ok().stdout();
        for word in ["create", "bundle", "preserve-fds"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let script = Deja::bare().args(["completion", "bash"]).ok().stdout();
    let probe = "COMP_WORDS=(deja --root /x de); COMP_CWORD=3; _deja; echo \"${COMPREPLY[*]}\"
        COMP_WORDS=(deja delete --f); COMP_CWORD=2; _deja; echo \"${COMPREPLY[*]}\"
        COMP_WORDS=(deja list --format j); COMP_CWORD=3; _deja; echo \"${COMPREPLY[*]}\"";
    let output = Command::new("bash").arg("-c").arg(format!("{script}\n{probe}")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "delete\n--force\njson\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn manual_pages_are_written() {
    let directory = directory();
    Deja::bare().arg("man").arg(directory.path().join("man8")).ok();
    let page = |name: &str| fs::read_to_string(directory.path().join("man8").join(name)).unwrap();
    assert!(page("deja.8").contains(".SH VERBS"));
    for verb in VERBS {
        let page = page(&format!("deja-{verb}.8"));
        assert!(page.starts_with(&format!(".TH DEJA-{} 8\n", verb.to_uppercase())), "{page}");
    }
}

#[test]
fn a_spec_is_written_once() {
    let directory = directory();
    let deja = |flags: &[&str]| Deja::bare().arg("spec").args(flags).directory(directory.path());
    deja(&[]).ok();
    let text = fs::read_to_string(directory.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    deja(&[]).fails().assert_says("File config.json exists. Remove it first");
    assert_eq!(fs::read_to_string(directory.path().join("config.json")).unwrap(), text);

    deja(&["--rootless", "--file", "other.json"]).ok();
    let rootless = fs::read(directory.path().join("other.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&rootless).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["size"], 1);

    let bundle = directory.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    Deja::bare().arg("spec").arg("-b").arg(&bundle).ok();
    assert!(bundle.join("config.json").exists());
    Deja::bare().args(["spec", "-b", "/nonexistent"]).fails().assert_says("\\\"/nonexistent/config.json\\\"");
}

#[test]
fn features_are_whole_and_alone() {
    let finished = Deja::bare().arg("features").ok();
    assert_eq!(finished.stderr(), "", "some callers read both as one");
    let features = finished.json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["ociVersionMax"], "1.3.0");
    let has = |pointer: &str, word: &str| {
        let list = features.pointer(pointer).and_then(|list| list.as_array()).expect(pointer);
        assert!(list.iter().any(|entry| entry == word), "{pointer} lacks {word}: {list:?}");
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        has("/hooks", hook);
    }
    for option in ["rro", "idmap", "ridmap", "tmpcopyup", "nosymfollow", "rbind", "rslave"] {
        has("/mountOptions", option);
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"] {
        has("/linux/namespaces", kind);
    }
    has("/linux/capabilities", "CAP_CHECKPOINT_RESTORE");
    has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY");
    has("/linux/seccomp/operators", "SCMP_CMP_MASKED_EQ");
    has("/linux/seccomp/archs", "SCMP_ARCH_X86_64");
    has("/linux/seccomp/knownFlags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV");
    has("/linux/memoryPolicy/modes", "MPOL_WEIGHTED_INTERLEAVE");
    for (pointer, value) in [
        ("/linux/cgroup/v1", false),
        ("/linux/cgroup/v2", true),
        ("/linux/cgroup/systemd", true),
        ("/linux/mountExtensions/idmap/enabled", true),
        ("/linux/netDevices/enabled", true),
        ("/linux/seccomp/enabled", true),
    ] {
        assert_eq!(features.pointer(pointer), Some(&value.into()), "{pointer}");
    }
    assert!(features["potentiallyUnsafeConfigAnnotations"].is_array());
    Deja::bare().args(["features", "x"]).fails();
}

#[test]
fn the_default_root_follows_the_user() {
    requires!(root);
    let directory = directory();
    let runtime = directory.path().join("run");
    fs::create_dir(&runtime).unwrap();
    std::os::unix::fs::chown(&runtime, Some(65534), Some(65534)).unwrap();
    open_path(directory.path());
    // A user's containers are those of $XDG_RUNTIME_DIR; a root that is not there yet is empty.
    fs::create_dir_all(runtime.join("deja/of-the-user")).unwrap();
    let list = |deja: Deja| deja.env("XDG_RUNTIME_DIR", &runtime).args(["list", "-q"]).ok().stdout();
    assert_eq!(list(Deja::bare().user(65534, 65534)), "of-the-user\n");
    assert!(!list(Deja::bare()).contains("of-the-user"));
    assert_eq!(Deja::bare().user(65534, 65534).args(["list", "-q"]).ok().stdout(), "");
}

fn open_path(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn state_costs_little() {
    requires!(tool "strace");
    let directory = directory();
    let count = directory.path().join("count");
    let strace = ["strace", "-f", "-qq", "-o", count.to_str().unwrap()];
    Deja::bare().wrapped_in(strace).arg("--root").arg(directory.path()).args(["state", "nobody"]).fails();
    let calls = fs::read_to_string(&count).unwrap().lines().count();
    // Dynamic linking of a debug build is some forty calls of it.
    assert!(calls < 90, "{calls} system calls");
    drop(UnixListener::bind(directory.path().join("unused")));
}

#[test]
fn debug_tells_every_step_before_it_is_done() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let created = |flags: &[&str]| {
        bundle.save();
        let create = bundle.deja().args(flags).args(["create", "--bundle"]).arg(bundle.path());
        Container::adopt(&bundle, bundle.id(), create.arg(bundle.id()).ok())
    };
    assert_eq!(created(&[]).stderr(), "");
    let cgroup = format!("cgroup: {}", bundle.cgroup().display());
    assert!(created(&["--debug"]).stderr().contains(&cgroup));
    let container = created(&["--debug", "--cgroup-manager", "disabled"]);
    let said = container.stderr();
    for words in [
        "cgroup: none of its own",
        "mount \\\"proc\\\" on \\\"/proc\\\"",
        "pivot into the root",
        "wait for start",
        "level=debug msg=\"exec /bin/sleep\"",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (first, last) = (said.find("level=debug msg=\"step 1 of "), said.find("report ready"));
    assert!(first.is_some() && first < last, "{said}");
    container.start();
    let process = json!({"cwd": "/", "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"],
        "execCPUAffinity": {"initial": "0", "final": "0-1"}});
    let path = bundle.file("process.json");
    fs::write(&path, process.to_string()).expect("write process.json");
    let exec = bundle.deja().args(["--debug", "exec", "--process"]).arg(&path).arg(bundle.id()).ok();
    exec.assert_says("set the CPU affinity: 0x1\"").assert_says("set the CPU affinity: 0x3\"");
}
