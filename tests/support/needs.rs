//! The capabilities of the machine a test can ask for, and the record of what was skipped for want of them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names of the capabilities in the order of their bits in `/proc/self/status`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The first need this machine does not meet, in words.
pub fn first_missing(needs: &[(&str, &str)]) -> Option<String> {
    needs.iter().find(|(name, argument)| !met(name, argument)).map(|(name, argument)| match *name {
        "bed" => "a test bed (scripts/native or scripts/vm)".to_string(),
        "vm" => "the virtual machine (scripts/vm)".to_string(),
        name if argument.is_empty() => name.to_string(),
        name => format!("{name} {argument}"),
    })
}

pub fn met(name: &str, argument: &str) -> bool {
    match name {
        // Only a debug build fails on request.
        "debug" => cfg!(debug_assertions),
        // What `DEJA_BIN` names is the build that is shipped.
        "release" => {
            std::env::var_os("DEJA_BIN").is_some_and(|path| !path.to_string_lossy().contains("/debug/"))
        }
        "root" => rustix::process::geteuid().is_root(),
        "bed" => inside().is_some(),
        "vm" => inside().as_deref() == Some("vm"),
        "cgroup" => controller(argument),
        "userns" => succeeds("unshare", &["--user", "--map-root-user", "true"]),
        "namespace" => Path::new("/proc/self/ns").join(argument).exists(),
        "apparmor" => {
            reads("/sys/module/apparmor/parameters/enabled", "Y") && exists("/sys/kernel/security/apparmor")
        }
        "selinux" => exists("/sys/fs/selinux/enforce"),
        "systemd" => exists("/run/systemd/system"),
        "resctrl" => exists("/sys/fs/resctrl/schemata"),
        // The temporary directory is where tests keep their layers.
        "overlay" => succeeds("sh", &["-c", OVERLAY]),
        "criu" => succeeds("criu", &["check"]),
        "kernel" => kernel() >= version(argument),
        "cap" => capability(argument),
        "tool" | "engine" => succeeds("sh", &["-c", &format!("command -v {argument}")]),
        "path" => exists(argument),
        unknown => panic!("requires!({unknown}) is not a need tests/support/needs.rs knows"),
    }
}

const OVERLAY: &str = "d=$(mktemp -d) && cd $d && mkdir l u w m && \
    unshare -m mount -t overlay -o lowerdir=l,upperdir=u,workdir=w overlay m; e=$?; cd / && rm -r $d && exit $e";

/// Which bed this process runs in; the bed says so itself.
fn inside() -> Option<String> {
    std::env::var("DEJA_INSIDE").ok().filter(|bed| bed == "native" || bed == "vm")
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

fn reads(path: &str, expected: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == expected)
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let quiet = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// A controller counts when the bed's root cgroup hands it to its children.
fn controller(name: &str) -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control")
        .is_ok_and(|list| list.split_whitespace().any(|controller| controller == name))
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn capability(name: &str) -> bool {
    let bit = CAPABILITIES.iter().position(|known| *known == name);
    let bit = bit.unwrap_or_else(|| panic!("requires!(cap {name:?}): no capability has this name"));
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let mask =
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff in /proc/self/status");
    u64::from_str_radix(mask.trim(), 16).expect("CapEff is hexadecimal") & (1 << bit) != 0
}

/// Says that `test` did not run, on standard error and in the file that `scripts/test` counts.
pub fn record_skip(test: &str, missing: &str) {
    let line = format!("skip: {test}: needs {missing}\n");
    eprint!("{line}");
    let Ok(path) = std::env::var("DEJA_SKIPS") else { return };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("write {path:?}: {error}"));
}
