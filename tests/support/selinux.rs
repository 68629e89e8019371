//! Labels of SELinux under Debian's policy, which the machine enforces (`scripts/vm -a security=selinux`).

use super::Bundle;
use serde_json::json;
use std::path::Path;

const ATTRIBUTE: &str = "security.selinux";

/// Prints the label of the shell that runs it.
pub const CURRENT: &str = "tr -d '\\0' </proc/self/attr/current; echo";

/// The label that engines give a container's processes, with these categories: "c1,c2".
pub fn process(categories: &str) -> String {
    format!("system_u:system_r:container_t:s0:{categories}")
}

/// The label of files that only processes with these categories may use.
pub fn file(categories: &str) -> String {
    format!("system_u:object_r:container_file_t:s0:{categories}")
}

/// A bundle whose files every confined container may use, as it may what the test catches its output in.
#[track_caller]
pub fn bundle() -> Bundle {
    let mode = std::fs::read_to_string("/sys/fs/selinux/enforce").expect("the mode of SELinux");
    assert_eq!(mode, "1", "what a label forbids is only refused where the policy is enforced");
    // For what this thread makes, and not for what the programs make that it starts.
    let label = "system_u:object_r:container_file_t:s0";
    std::fs::write("/proc/thread-self/attr/fscreate", label).expect("label what the test makes");
    Bundle::new()
}

/// The same, with the labels that an engine would ask for.
#[track_caller]
pub fn confined(categories: &str) -> Bundle {
    bundle()
        .set("/process/selinuxLabel", json!(process(categories)))
        .set("/linux/mountLabel", json!(file(categories)))
}

#[track_caller]
pub fn label_of(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let mut label = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut label[..]);
    label.truncate(length.unwrap_or_else(|error| panic!("the label of {path:?}: {error}")));
    text(label)
}

#[track_caller]
pub fn relabel(path: impl AsRef<Path>, label: &str) {
    let path = path.as_ref();
    rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|error| panic!("label {path:?} {label:?}: {error}"));
}

#[track_caller]
pub fn label_of_process(pid: i32) -> String {
    text(std::fs::read(format!("/proc/{pid}/attr/current")).expect("the label of a process"))
}

/// The kernel ends a label with a NUL byte.
fn text(mut label: Vec<u8>) -> String {
    label.truncate(label.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    String::from_utf8(label).expect("a label in UTF-8")
}
