//! Attacks on deja itself: on its file, on its process while it stands in a container, and on what it writes to
//! in /proc.

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::json;
use support::{Bundle, Container, requires};

/// A descriptor that stands for deja's file in the hands of whoever saw deja run.
fn executable_of(pid: i32) -> File {
    let path = format!("/proc/{pid}/exe");
    let flags = OFlags::PATH.bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(&path).expect("the process runs")
}

/// Fails as a write would: nobody executes the file any more, so nothing but its protection stands in the way.
fn assert_not_writable(executable: &File) {
    let path = PathBuf::from(format!("/proc/self/fd/{}", executable.as_raw_fd()));
    assert!(File::open(&path).is_ok(), "the file can be read");
    // Other tests execute the same file, which hides the protection for as long as they do.
    let (error, code) = support::eventually("a moment in which nobody runs deja", || {
        let error =
            OpenOptions::new().write(true).open(&path).expect_err("deja's file was opened for writing");
        let code = error.raw_os_error().expect("an error of the kernel");
        (code != libc::ETXTBSY).then_some((error, code))
    });
    // A read-only mount, or a sealed file in memory.
    assert!([libc::EROFS, libc::EPERM].contains(&code), "{error}");
}

#[test]
fn the_file_of_a_waiting_init_cannot_be_overwritten() {
    requires!(bed);
    let bundle = Bundle::new();
    let container = bundle.create();
    let executable = executable_of(container.pid());
    container.verb("delete", &["--force"]).ok();
    assert_not_writable(&executable);
}

#[test]
fn a_process_that_becomes_deja_in_the_container_does_no_harm() {
    requires!(bed);
    let before = fs::read(support::binary()).expect("read deja");
    let bundle = Bundle::new().with_file("evil", 0o755, "#!/proc/self/exe\n").args(&["/evil"]);
    let finished = bundle.run();
    assert_ne!(finished.code(), Some(0), "{}", finished.stdout());
    let running = Bundle::new().sleeps().with_file("evil", 0o755, "#!/proc/self/exe\n");
    let container = running.start();
    assert_ne!(container.exec(&["/evil"]).code(), Some(0));
    assert_eq!(container.exec(&["echo", "alive"]).stdout().trim(), "alive");
    assert!(fs::read(support::binary()).expect("read deja") == before, "deja's file has changed");
}

/// As above, from a neighbour with every right that shares the pid namespace and waits for processes of deja.
#[test]
fn an_exec_is_not_caught_by_those_it_joins() {
    requires!(bed);
    // A descriptor outlives the process, and with it the kernel's refusal to write to what is executed.
    let watch = r#"while [ ! -e /stop ]; do
        for exe in /proc/[0-9]*/exe; do
            {
                [ /proc/self/fd/5 -ef /bin/busybox ] || for try in 1 2 3 4 5; do
                    if (: >>/proc/self/fd/5) 2>/dev/null; then echo "opened $(readlink /proc/self/fd/5)"; fi
                    sleep 0.02
                done
            } 5<"$exe"
        done 2>/dev/null
    done"#;
    let all = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]);
    let bundle = Bundle::new()
        .script(watch)
        .set("/root/readonly", json!(false))
        .set("/process/capabilities/bounding", all.clone())
        .set("/process/capabilities/effective", all.clone())
        .set("/process/capabilities/permitted", all);
    let before = fs::read(support::binary()).expect("read deja");
    let container = bundle.start();
    for _ in 0..30 {
        assert_eq!(container.exec(&["echo", "alive"]).stdout().trim(), "alive");
    }
    container.exec(&["touch", "/stop"]);
    container.wait_status("stopped");
    assert_eq!(container.stdout(), "");
    assert!(fs::read(support::binary()).expect("read deja") == before, "deja's file has changed");
}

#[test]
fn a_waiting_init_cannot_be_looked_into_by_another_container() {
    requires!(bed);
    let victim = Bundle::new();
    let waiting = victim.create();
    let pid = waiting.pid();
    // Root, and in the host's pid namespace, but without CAP_SYS_PTRACE.
    let look =
        "readlink /proc/PID/exe; readlink /proc/PID/fd/0; cat /proc/PID/environ; cat /proc/PID/maps; true";
    let script = look.replace("PID", &pid.to_string());
    let attacker = Bundle::new().without_namespace("pid").script(&script).run().assert_code(0);
    assert_eq!(attacker.stdout(), "", "{}", attacker.stderr());
    assert!(attacker.stderr().to_lowercase().contains("permission denied"), "{}", attacker.stderr());
}

#[test]
fn a_false_proc_gets_no_labels_and_no_sysctls() {
    requires!(bed);
    let bundle = Bundle::new()
        .with_file("false-proc/sys/net/ipv4/ip_forward", 0o666, "untouched")
        .with_file("false-proc/self/attr/exec", 0o666, "untouched")
        .with_file("false-proc/self/oom_score_adj", 0o666, "untouched")
        .without_mount("/proc")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/process/oomScoreAdj", json!(100))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .args(&["true"]);
    let source = bundle.rootfs().join("false-proc");
    let mount = json!({"destination": "/proc", "type": "bind", "source": source, "options": ["rbind"]});
    let bundle = bundle.mount(mount);
    // Whether such a container is refused or runs: the false files are never taken for the kernel's.
    bundle.run();
    for name in ["sys/net/ipv4/ip_forward", "self/attr/exec", "self/oom_score_adj"] {
        assert_eq!(fs::read_to_string(source.join(name)).expect("read"), "untouched", "{name}");
    }
}

#[test]
fn no_descriptor_of_deja_is_open_in_a_container() {
    requires!(bed);
    let script =
        "cd /proc/self/fd && for fd in *; do case $fd in 0|1|2) ;; *) readlink $fd;; esac; done; true";
    let bundle = Bundle::new().script(script);
    let run = bundle.run().assert_code(0);
    // What is left is the shell's own look at its directory.
    let foreign = |text: &str| text.lines().filter(|line| !line.starts_with("/proc/")).count();
    assert_eq!(foreign(&run.stdout()), 0, "{}", run.stdout());
    let running = Bundle::new().sleeps();
    let container = running.start();
    let seen = container.exec(&["sh", "-c", script]);
    assert_eq!(foreign(&seen.stdout()), 0, "{}", seen.stdout());
}

/// A pod's neighbour that may trace could reach the host through them, and a caller waits for a pipe's other end.
#[test]
fn a_created_container_holds_nothing_of_the_host_or_its_caller() {
    requires!(bed);
    for preserved in [0, 1] {
        let bundle = Bundle::new().script("readlink /proc/self/fd/3");
        bundle.save();
        let create = bundle.verb("create").args(["--preserve-fds", &preserved.to_string()]).arg(bundle.id());
        let create = create.redirections("3</etc/hostname 4</etc/passwd 9</etc/group");
        let container = Container::adopt(&bundle, bundle.id(), create.ok());
        let open = fs::read_dir(format!("/proc/{}/fd", container.pid())).expect("its descriptors");
        let number = |path: &Path| path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
        let mut open: Vec<_> = open.map(|entry| entry.expect("an entry").path()).collect();
        open.retain(|path| number(path).expect("a number") > 2);
        let held: Vec<_> = open.iter().map(|path| fs::read_link(path).expect("a descriptor")).collect();
        let (sockets, files): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|path| path.to_string_lossy().starts_with("socket:"));
        assert_eq!((sockets.len(), files.len()), (2, preserved), "{files:?}");
        container.start();
        container.wait_status("stopped");
        assert_eq!(container.stdout(), if preserved == 0 { "" } else { "/etc/hostname\n" });
    }
}

#[test]
fn a_working_directory_through_a_descriptor_is_refused() {
    requires!(bed);
    for fd in 3..16 {
        let bundle = Bundle::new().set("/process/cwd", json!(format!("/proc/self/fd/{fd}"))).args(&["pwd"]);
        let finished = bundle.run();
        assert_ne!(finished.code(), Some(0), "fd {fd}: {}", finished.stdout());
    }
    let running = Bundle::new().sleeps();
    let container = running.start();
    for fd in 3..16 {
        let cwd = format!("--cwd=/proc/self/fd/{fd}");
        let finished = container.exec_with(&[&cwd], &["pwd"]).output();
        assert_ne!(finished.code(), Some(0), "fd {fd}: {}", finished.stdout());
    }
}
