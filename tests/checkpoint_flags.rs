//! What of a checkpoint has to be allowed, or is left out, by a flag: without it a failure that names it, with it a
//! container that has what it had.

mod support;

use serde_json::json;
use support::{Bundle, Container, Deja, eventually, requires};

/// Counts in /tmp, which is memory.
const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /tmp/new && mv /tmp/new /tmp/count; sleep 0.1; done";

fn counting(before: &str) -> Bundle {
    let tmp = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"});
    Bundle::new().script(&format!("{before}; {COUNT}")).mount(tmp)
}

fn path(bundle: &Bundle, name: &str) -> String {
    bundle.file(name).to_str().expect("a path").to_owned()
}

fn started(bundle: &Bundle) -> (Container<'_>, u64) {
    let container = bundle.create();
    container.start();
    let before = count(&container);
    (container, before)
}

fn checkpoint(container: &Container, image: &str, flags: &[&str]) -> Deja {
    container.verb("checkpoint", &[&["--image-path", image], flags].concat())
}

#[track_caller]
fn restored<'b>(bundle: &'b Bundle, container: Container<'b>, image: &str, flags: &[&str]) -> Container<'b> {
    container.release();
    let restore = bundle.verb("restore").args(["--detach", "--image-path", image]).args(flags);
    Container::adopt(bundle, bundle.id(), restore.arg(bundle.id()).ok())
}

fn count(container: &Container) -> u64 {
    eventually("a count", || container.exec(&["cat", "/tmp/count"]).stdout().trim().parse().ok())
}

#[track_caller]
fn goes_on(container: &Container, before: u64) {
    let after = count(container);
    assert!(after >= before, "{before} before, {after} after");
    eventually("the count to go on", || (count(container) > after).then_some(()));
}

fn shell(container: &Container, script: &str) -> String {
    let finished = container.exec(&["sh", "-c", script]);
    assert!(finished.status.success(), "{script}: {finished}");
    finished.stdout()
}

#[test]
fn a_deleted_file_with_another_name_comes_back() {
    requires!(bed, criu);
    let bundle = counting("echo kept > /one; ln /one /two; exec 5<>/one; rm /one");
    let (container, before) = started(&bundle);
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &[]).fails().assert_says("use --link-remap");
    goes_on(&container, before);
    checkpoint(&container, &image, &["--link-remap"]).ok();
    let container = restored(&bundle, container, &image, &[]);
    goes_on(&container, before);
    assert_eq!(shell(&container, "cat /proc/1/fd/5 /two; test -e /one || echo gone"), "kept\nkept\ngone\n");
}

#[test]
fn connections_can_be_closed_on_the_way() {
    requires!(vm, criu);
    let connect =
        "nc -l -p 7000 -e cat & sleep 1; (sleep 100000 | nc 127.0.0.1 7000; echo > /tmp/closed) & sleep 1";
    let bundle = counting(connect);
    let (container, before) = started(&bundle);
    let established = "netstat -tn | grep -c ESTABLISHED || true";
    assert_eq!(shell(&container, established), "2\n");
    let image = path(&bundle, "image");
    checkpoint(&container, &image, &["--tcp-established", "--network-lock", "nftables"]).ok();
    let container = restored(&bundle, container, &image, &["--tcp-close"]);
    goes_on(&container, before);
    assert_eq!(shell(&container, established), "0\n");
}
