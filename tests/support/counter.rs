//! A container that counts, so that a checkpoint of it can be seen to go on where it was.

use serde_json::json;

use super::{Bundle, Container, Deja, eventually};

/// Counts for ever, in a file of its own tmpfs and on its standard output.
pub const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /tmp/new && mv /tmp/new /tmp/count; echo $i; sleep 0.1; done";

pub fn counting() -> Bundle {
    Bundle::new().script(COUNT).mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
}

/// Where a test keeps an image or an archive.
pub fn path(bundle: &Bundle, name: &str) -> String {
    bundle.file(name).to_str().expect("a path").to_owned()
}

pub fn count(container: &Container) -> u64 {
    eventually("a count", || container.exec(&["cat", "/tmp/count"]).stdout().trim().parse().ok())
}

#[track_caller]
pub fn goes_on(container: &Container, before: u64) {
    let after = count(container);
    assert!(after >= before, "{before} before, {after} after");
    eventually("the count to go on", || (count(container) > after).then_some(()));
}

pub fn checkpoint(container: &Container, image: &str, flags: &[&str]) -> Deja {
    container.verb("checkpoint", &[&["--image-path", image], flags].concat())
}

/// Under the bundle's own id, in the background.
pub fn restore(bundle: &Bundle, image: &str, flags: &[&str]) -> Deja {
    bundle.verb("restore").args(["--detach", "--image-path", image]).args(flags).arg(bundle.id())
}

/// What a script says in the container.
#[track_caller]
pub fn shell(container: &Container, script: &str) -> String {
    let finished = container.exec(&["sh", "-c", script]);
    assert!(finished.status.success(), "{script}: {finished}");
    finished.stdout()
}
