//! Checkpoints of containers of every form, and in every form: terminals, pipes, namespaces of others, users,
//! filters, many processes; chains of images and memory that comes later.

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};

use serde_json::json;
use support::counter::{checkpoint, count, counting, goes_on, path as image, restore, shell};
use support::{Bundle, ConsoleSocket, Container, Finished, Leaks, eventually, requires};

fn adopt(bundle: &Bundle, finished: Finished) -> Container<'_> {
    Container::adopt(bundle, bundle.id(), finished)
}

/// Saves the container and brings it back, with the same flags.
#[track_caller]
fn round<'b>(bundle: &'b Bundle, container: Container<'b>, name: &str, flags: &[&str]) -> Container<'b> {
    let path = image(bundle, name);
    checkpoint(&container, &path, flags).ok();
    container.release();
    adopt(bundle, restore(bundle, &path, flags).ok())
}

#[test]
fn a_terminal_comes_back_and_works() {
    requires!(bed, criu);
    let bundle = Bundle::new()
        .set("/process/terminal", json!(true))
        .script("while read line; do echo \"heard $line on $(tty)\"; done");
    let socket = ConsoleSocket::listen(&bundle.file("console"));
    let flag = ["--console-socket".to_owned(), image(&bundle, "console")];
    let created = bundle.verb("create").args(&flag).arg(bundle.id()).ok();
    let container = adopt(&bundle, created);
    let mut console = socket.accept();
    container.start();
    console.write("one\n");
    console.read_until("heard one on /dev/");
    let path = image(&bundle, "image");
    checkpoint(&container, &path, &[]).ok();
    container.release();
    restore(&bundle, &path, &[]).fails().assert_says("cannot allocate tty");
    for word in ["two", "three"] {
        let container = adopt(&bundle, restore(&bundle, &path, &[&flag[0], &flag[1]]).ok());
        let mut console = socket.accept();
        assert_eq!(console.name, "/dev/ptmx");
        console.write(&format!("{word}\n"));
        console.read_until(&format!("heard {word} on /dev/"));
        checkpoint(&container, &path, &[]).ok();
        container.release();
    }
}

#[test]
fn pipes_to_the_caller_are_those_of_the_next_caller() {
    requires!(bed, criu);
    let bundle = counting();
    let path = image(&bundle, "image");
    let pipe = || {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::CLOEXEC).expect("fcntl");
        let words = format!("1>&{0} 2>&{0}", writer.as_raw_fd());
        (fs::File::from(reader), writer, words)
    };
    let first_line = |reader: &mut fs::File| {
        let mut bytes = [0; 64];
        let length = reader.read(&mut bytes).expect("read the pipe");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        text.lines().next().and_then(|line| line.parse::<u64>().ok()).expect("a number")
    };
    let (mut reader, writer, words) = pipe();
    bundle.verb("create").arg(bundle.id()).redirections(&words).ok();
    drop(writer);
    bundle.deja().args(["start", bundle.id()]).ok();
    assert_eq!(first_line(&mut reader), 1);
    bundle.deja().args(["checkpoint", "--image-path", &path, bundle.id()]).ok();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("read to the end, now that nobody writes");
    let last = rest.lines().last().map_or(1, |line| line.parse().expect("a number"));

    let (mut reader, writer, words) = pipe();
    let finished = restore(&bundle, &path, &[]).redirections(&words).ok();
    drop(writer);
    let container = adopt(&bundle, finished);
    assert_eq!(first_line(&mut reader), last + 1);
    container.verb("delete", &["--force"]).ok();
    container.release();
}

#[test]
fn a_null_device_for_input_and_output_is_both_again() {
    requires!(bed, criu);
    let bundle = counting();
    let image = image(&bundle, "image");
    // The second redirection is of its own, so that it can only be written to.
    let nowhere = "</dev/null >/dev/null 2>/dev/null";
    bundle.verb("create").arg(bundle.id()).redirections(nowhere).ok();
    bundle.deja().args(["start", bundle.id()]).ok();
    eventually("the container to run", || {
        bundle
            .deja()
            .args(["exec", bundle.id(), "test", "-s", "/tmp/count"])
            .output()
            .status
            .success()
            .then_some(())
    });
    bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).ok();
    let container = adopt(&bundle, restore(&bundle, &image, &[]).redirections(nowhere).ok());
    let flags = shell(&container, "grep -h flags /proc/1/fdinfo/0 /proc/1/fdinfo/1");
    assert!(flags.lines().count() == 2 && flags.lines().all(|line| line.ends_with('2')), "{flags}");
    container.verb("delete", &["--force"]).ok();
    container.release();
}

#[test]
fn pre_dumps_make_a_chain_that_a_dump_completes() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    container.start();
    let [one, two, three] = ["one", "two", "three"].map(|name| image(&bundle, name));
    for path in [&one, &two, &three] {
        fs::create_dir(path).unwrap();
    }
    let before = count(&container);
    checkpoint(&container, &one, &["--pre-dump"]).ok();
    goes_on(&container, before);
    checkpoint(&container, &two, &["--pre-dump", "--parent-path", "../one"]).ok();
    assert_eq!(container.status(), "running");
    let before = count(&container);
    checkpoint(&container, &three, &["--parent-path", "../two"]).ok();
    container.release();
    restore(&bundle, &two, &[]).fails().assert_says("is a pre-dump, which holds memory only");
    let container = adopt(&bundle, restore(&bundle, &three, &[]).ok());
    goes_on(&container, before);
    container.verb("delete", &["--force"]).ok();
    container.release();
    fs::remove_dir_all(&one).unwrap();
    restore(&bundle, &three, &[]).fails().assert_says("builds on");
    leaks.assert_none();
}

/// Holds a namespace open.
struct Holder(Child);

impl Holder {
    fn of(kind: &str) -> Self {
        let child = Command::new("unshare").args([kind, "sleep", "1000"]).spawn().expect("unshare");
        Holder(child)
    }

    fn path(&self, name: &str) -> String {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let path = format!("/proc/{}/ns/{name}", self.0.id());
        eventually("a namespace", || (fs::read_link(&path).ok()? != own).then_some(()));
        path
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_network_of_somebody_else_is_joined_again() {
    requires!(bed, criu);
    let (first, second) = (Holder::of("--net"), Holder::of("--net"));
    let bundle = counting().namespace("network", Some(&first.path("net")));
    let link = |path: &str| fs::read_link(path).unwrap();
    let own = |container: &Container| link(&format!("/proc/{}/ns/net", container.pid()));
    let container = bundle.create();
    container.start();
    let container = round(&bundle, container, "one", &[]);
    assert_eq!(own(&container), link(&first.path("net")));
    let path = image(&bundle, "two");
    checkpoint(&container, &path, &[]).ok();
    container.release();
    let bundle = bundle.namespace("network", Some(&second.path("net")));
    let container = adopt(&bundle, restore(&bundle, &path, &[]).ok());
    assert_eq!(own(&container), link(&second.path("net")));
}

#[test]
fn users_filters_and_clocks_of_its_own_come_back() {
    requires!(bed, criu, userns);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}]});
    let bundle = counting()
        .set("/linux/seccomp", filter)
        .namespace("time", None)
        .set("/linux/timeOffsets", json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}));
    let container = bundle.create();
    container.start();
    let up = |container: &Container| {
        let text = container.exec(&["cat", "/proc/uptime"]).stdout();
        text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).expect("seconds")
    };
    let filtered = |container: &Container| {
        let status = container.exec(&["cat", "/proc/1/status"]).stdout();
        status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'))
    };
    let (before, time) = (count(&container), up(&container));
    assert!(time >= 1_000_000 && filtered(&container));
    let container = round(&bundle, container, "image", &[]);
    goes_on(&container, before);
    assert!(up(&container) >= time && up(&container) < time + 1000);
    assert!(filtered(&container));
}

#[test]
fn a_container_in_a_user_namespace_comes_back() {
    requires!(bed, criu, userns);
    let bundle = counting().user_namespace(200_000, 65_536);
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let container = round(&bundle, container, "image", &[]);
    goes_on(&container, before);
    let map = fs::read_to_string(format!("/proc/{}/uid_map", container.pid())).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
}

#[test]
fn many_processes_their_pipes_and_deleted_files_come_back() {
    requires!(bed, criu);
    let script = "exec 5<>/tmp/gone; rm /tmp/gone; echo kept >&5; \
        for i in 1 2 3 4 5; do (while :; do echo $i; sleep 0.1; done) & done | \
        while read line; do echo $line >> /tmp/all; done";
    let bundle = counting().script(script);
    let container = bundle.create();
    container.start();
    let lines = |container: &Container| {
        let text = container.exec(&["wc", "-l", "/tmp/all"]).stdout();
        text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    eventually("lines of all five", || (lines(&container) > 10).then_some(()));

    let before = lines(&container);
    let container = round(&bundle, container, "one", &[]);
    let container = round(&bundle, container, "two", &[]);
    assert!(lines(&container) >= before);
    eventually("more lines", || (lines(&container) > before + 10).then_some(()));
    let seen = container.exec(&["sh", "-c", "tail -n 30 /tmp/all | sort -u | tr -d '\\n'"]).stdout();
    assert_eq!(seen, "12345");
    assert_eq!(container.exec(&["cat", "/proc/1/fd/5"]).stdout(), "kept\n");
}

#[test]
fn many_containers_are_made_of_one_image_at_the_same_time() {
    requires!(bed, criu);
    const COPIES: usize = 5;
    let bundle = counting();
    let container = bundle.create();
    container.start();
    let path = image(&bundle, "image");
    let before = count(&container);
    checkpoint(&container, &path, &[]).ok();
    container.release();
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let files = listing();
    let config = |copy: usize| {
        let mut config = bundle.config().clone();
        config["linux"]["cgroupsPath"] = json!(format!("/deja-test/{}-{copy}", bundle.id()));
        let directory = bundle.file(&format!("copy{copy}"));
        fs::create_dir(&directory).unwrap();
        config["root"]["path"] = json!(bundle.rootfs());
        fs::write(directory.join("config.json"), config.to_string()).unwrap();
        directory
    };
    let start = |copy: usize| {
        let (directory, id) = (config(copy), format!("{}-{copy}", bundle.id()));
        let work = directory.join("work");
        let deja = bundle.deja().args(["restore", "--detach", "--image-path", &path, "--work-path"]);
        (id.clone(), deja.arg(work).arg("--bundle").arg(directory).arg(id).spawn())
    };
    let all: Vec<_> = (0..COPIES).map(start).collect();
    let mut containers = Vec::new();
    for (id, running) in all {
        let finished = running.finish();
        assert!(finished.status.success(), "{finished}");
        containers.push(Container::adopt(&bundle, &id, finished));
    }
    containers.iter().for_each(|container| goes_on(container, before));
    let network = |container: &Container| fs::read_link(format!("/proc/{}/ns/net", container.pid())).unwrap();
    let networks: std::collections::BTreeSet<_> = containers.iter().map(network).collect();
    assert_eq!(networks.len(), COPIES);
    assert_eq!(listing(), files, "nothing is written to the image");
}

/// Ends a program that the test started.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn memory_comes_later_from_where_it_was() {
    requires!(vm, criu);
    let bundle = counting();
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let path = image(&bundle, "image");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let server = format!("127.0.0.1:{port}");
    let ready = image(&bundle, "ready");
    let flags = ["--lazy-pages", "--page-server", &server, "--status-fd", "7"];
    let saving = checkpoint(&container, &path, &flags).redirections(&format!("7>{ready}")).spawn();
    eventually("the page server", || fs::read(&ready).is_ok_and(|bytes| bytes == b"\0").then_some(()));
    let fetching = Command::new("criu")
        .args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D", &path])
        .spawn()
        .expect("start criu");
    let fetching = Helper(fetching);
    eventually("the socket of lazy pages", || {
        std::path::Path::new(&path).join("lazy-pages.socket").exists().then_some(())
    });
    let other = format!("{}-other", bundle.id());
    let id = container.release();
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/deja-test/{other}")));
    let finished =
        bundle.verb("restore").args(["--detach", "--lazy-pages", "--image-path", &path]).arg(&other).ok();
    let restored = Container::adopt(&bundle, &other, finished);
    goes_on(&restored, before);
    let saved = saving.finish();
    assert!(saved.status.success(), "{saved}");
    bundle.deja().args(["state", &id]).fails();
    drop(fetching);
}
