//! The flags of `exec`, each by what it does to the program.

mod support;

use std::fs;

use serde_json::json;
use support::{Bundle, ConsoleSocket, requires};

#[test]
fn environment_directory_user_and_groups() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let run = |flags: &[&str], script: &str| {
        container.exec_with(flags, &["sh", "-c", script]).output().assert_code(0).stdout()
    };
    assert_eq!(run(&["--env", "A=1", "-e", "B=2"], "echo $A$B $TERM"), "12 dumb\n");
    assert_eq!(run(&["--cwd", "/etc"], "pwd"), "/etc\n");
    assert_eq!(run(&["--user", "7:8", "--additional-gids", "9", "-g", "10"], "id -G"), "8 9 10\n");
    let relative = container.exec_with(&["--cwd", "etc"], &["true"]).fails();
    relative.assert_says("Cwd must be an absolute path");
}

#[test]
fn a_process_file_is_the_whole_process() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let file = bundle.file("process.json");
    let process = json!({"args": ["/bin/sh", "-c", "echo $X; pwd; id -u"], "env": ["X=y", "PATH=/bin"], "cwd": "/tmp",
        "user": {"uid": 5, "gid": 6}});
    fs::write(&file, process.to_string()).expect("write the process");
    let run = container.verb("exec", &["--process", file.to_str().unwrap()]).output();
    run.assert_code(0).assert_stdout("y\n/tmp\n5");
    let nothing = container.verb("exec", &["--process", "/no/such"]).fails();
    nothing.assert_says("\"/no/such\"");
}

#[test]
fn privileges_are_added_and_given_up() {
    requires!(bed);
    let bundle = Bundle::new().sleeps().set("/process/noNewPrivileges", json!(false));
    let container = bundle.start();
    let line = |flags: &[&str], name: &str| {
        let run = container.exec_with(flags, &["grep", &format!("^{name}:"), "/proc/self/status"]).output();
        run.assert_code(0).stdout().split_whitespace().last().expect("a value").to_owned()
    };
    assert_eq!(line(&[], "NoNewPrivs"), "0");
    assert_eq!(line(&["--no-new-privs"], "NoNewPrivs"), "1");
    let effective = |flags: &[&str]| u64::from_str_radix(&line(flags, "CapEff"), 16).expect("hexadecimal");
    let net_admin = 1 << 12;
    assert_eq!(effective(&[]) & net_admin, 0);
    assert_eq!(effective(&["--cap", "CAP_NET_ADMIN"]), effective(&[]) | net_admin);
}

#[test]
fn labels_are_applied_or_refused() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    if support::first_missing(&[("apparmor", "")]).is_some() {
        let run = container.exec_with(&["--apparmor", "some-profile"], &["true"]).fails();
        run.assert_says("apparmor");
    } else {
        let profile = ["cat", "/proc/self/attr/current"];
        let run = container.exec_with(&["--apparmor", "unconfined"], &profile).output();
        run.assert_code(0).assert_stdout("unconfined");
    }
    if support::first_missing(&[("selinux", "")]).is_some() {
        let run = container.exec_with(&["--process-label", "u:r:t:s0"], &["true"]).fails();
        run.assert_says("selinux");
    }
}

#[test]
fn detached_it_leaves_a_pid_file_and_a_pidfd() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let socket = ConsoleSocket::listen(&bundle.file("pidfd.sock"));
    let (pid_file, path) = (bundle.file("pid"), bundle.file("pidfd.sock"));
    let flags =
        ["--detach", "--pid-file", pid_file.to_str().unwrap(), "--pidfd-socket", path.to_str().unwrap()];
    container.exec_with(&flags, &["sleep", "1000"]).ok();
    let pid = fs::read_to_string(&pid_file).expect("a pid file");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process"), "sleep\n");
    let pidfd = socket.accept().master;
    let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&pidfd));
    let info = fs::read_to_string(info).expect("what the descriptor is");
    assert!(info.lines().any(|line| line == format!("Pid:\t{pid}")), "{info}");
}

#[test]
fn a_terminal_comes_over_the_console_socket() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let path = bundle.file("console.sock");
    let socket = ConsoleSocket::listen(&path);
    let flags = ["--tty", "--detach", "--console-socket", path.to_str().unwrap()];
    container.exec_with(&flags, &["sh", "-c", "tty; test -t 0 && echo yes"]).ok();
    let seen = socket.accept().read_until("yes");
    assert!(seen.contains("/dev/pts/"), "{seen}");
    let without = container.exec_with(&["--tty", "--detach"], &["true"]).fails();
    without.assert_says("cannot allocate tty");
}

#[test]
fn descriptors_are_passed_on() {
    requires!(bed, tool "sh");
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    let run = |flags: &[&str]| {
        let exec = container.exec_with(flags, &["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
        let words = ["sh", "-c", "exec 3</etc/hostname; exec \"$@\"", "sh"];
        exec.wrapped_in(words).output().assert_code(0).stdout()
    };
    assert_eq!(run(&[]), "0 1 2 3 ");
    assert_eq!(run(&["--preserve-fds", "1"]), "0 1 2 3 4 ");
}

#[test]
fn it_goes_into_a_cgroup_below_the_container_s() {
    requires!(bed);
    let bundle = Bundle::new().sleeps().without_namespace("cgroup");
    let container = bundle.start();
    fs::create_dir(bundle.cgroup().join("below")).expect("a cgroup below");
    let own = |flags: &[&str]| {
        let run = container.exec_with(flags, &["cat", "/proc/self/cgroup"]).output();
        let text = run.assert_code(0).stdout();
        text.lines().find_map(|line| line.strip_prefix("0::")).expect("a v2 cgroup").to_owned()
    };
    assert!(own(&[]).ends_with(bundle.id()));
    assert!(own(&["--cgroup", "/below"]).ends_with("/below"));
    let none = container.exec_with(&["--cgroup", "none"], &["true"]).fails();
    none.assert_says("does not exist");
    let out = container.exec_with(&["--cgroup", "../.."], &["true"]).fails();
    out.assert_says("../..");
}

#[test]
fn a_paused_container_takes_no_program_unless_told() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    container.verb("pause", &[]).ok();
    container.exec_with(&[], &["true"]).fails().assert_says("paused");
    // It is born frozen and goes on with the others.
    let running = container.exec_with(&["--ignore-paused"], &["true"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(50));
    container.verb("resume", &[]).ok();
    running.finish().assert_code(0);
}

#[test]
fn exit_codes_are_the_program_s_and_failures_255() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let container = bundle.start();
    container.exec(&["sh", "-c", "exit 7"]).assert_code(7);
    container.exec(&["sh", "-c", "kill -TERM $$"]).assert_code(143);
    container.exec(&["no-such-program"]).assert_code(255);
}

#[test]
fn nobody_enters_what_run_has_not_completed() {
    requires!(bed);
    // A hook that holds the container's init back just before its program.
    let hook = serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done"]}]);
    let bundle =
        Bundle::new().sleeps().set("/hooks/startContainer", hook).set("/root/readonly", false.into());
    let running = bundle.verb("run").arg("--detach").arg(bundle.id()).spawn();
    support::eventually("the container is being made", || {
        let state = bundle.deja().args(["state", bundle.id()]).output();
        let pid = state.stdout().lines().any(|line| line.contains("\"pid\"") && !line.contains(": 0"));
        (pid && state.stdout().contains("\"creating\"")).then_some(())
    });
    let exec = bundle.deja().args(["exec", bundle.id(), "/bin/true"]).fails();
    exec.assert_says("cannot exec in a container in the creating state");
    std::fs::write(bundle.rootfs().join("go"), "").expect("let the hook end");
    assert_eq!(running.finish().code(), Some(0));
    bundle.deja().args(["exec", bundle.id(), "/bin/true"]).ok();
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
}
