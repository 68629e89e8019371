//! What docs/checkpoint.md shows of a migration happens.

mod support;

use std::process::{Command, Stdio};

use support::{binary, requires, rootfs};

#[test]
fn a_container_goes_to_another_host_with_its_memory_and_its_connections() {
    requires!(vm, criu, tool "ip", tool "nsenter");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/migrate-demo");
    let output = Command::new(script)
        .arg("@play")
        .env("DEJA_BIN", binary())
        .env("DEJA_ROOTFS", rootfs())
        .stdin(Stdio::null())
        .output()
        .expect("run the script");
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
    for words in ["round3: ", "stood still for", "the same connection, now to host b", "new connections: "] {
        assert!(said.contains(words), "{words:?} is missing: {said}{failed}");
    }
}
