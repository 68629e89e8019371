//! What may be done: capabilities, resource limits, security modules.

use super::Finding;

#[derive(Debug, Default)]
pub struct Security {
    /// The effective set.
    pub capabilities: u64,
    /// The hard limit of open files.
    pub files: u64,
    pub apparmor: bool,
    pub apparmor_parser: bool,
    /// Whether its policy is enforced, where SELinux is on.
    pub selinux: Option<bool>,
}

/// Bit, name, and what is lost without it. Without the first of them nothing works.
const CAPABILITIES: [(u32, &str, &str); 14] = [
    (21, "CAP_SYS_ADMIN", "mounts and namespaces"),
    (0, "CAP_CHOWN", "owners of files"),
    (1, "CAP_DAC_OVERRIDE", "files of others"),
    (5, "CAP_KILL", "signals to other users' processes"),
    (6, "CAP_SETGID", "groups"),
    (7, "CAP_SETUID", "users"),
    (8, "CAP_SETPCAP", "dropping capabilities"),
    (12, "CAP_NET_ADMIN", "network devices"),
    (18, "CAP_SYS_CHROOT", "entering a root"),
    (19, "CAP_SYS_PTRACE", "exec into containers of other users"),
    (23, "CAP_SYS_NICE", "realtime schedulers and CPU affinity"),
    (24, "CAP_SYS_RESOURCE", "rlimits above the present ones, a lower oom_score_adj"),
    (27, "CAP_MKNOD", "devices"),
    (39, "CAP_BPF", "rules for devices"),
];

/// What engines give their containers at least.
const FILES: u64 = 65536;

pub fn judge(security: &Security, privileged: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if privileged {
        findings.push(capabilities(security.capabilities));
    }
    findings.push(files(security.files));
    findings.push(modules(security));
    findings
}

fn capabilities(effective: u64) -> Finding {
    const CHECK: &str = "capabilities";
    let lacking: Vec<_> = CAPABILITIES.iter().filter(|(bit, ..)| effective >> bit & 1 == 0).collect();
    let words: Vec<String> = lacking.iter().map(|(_, name, lost)| format!("{name} ({lost})")).collect();
    let what = format!("root lacks {}", words.join(", "));
    let next = "start deja, or the engine, with all capabilities (a container around it: --privileged)";
    match lacking.first() {
        None => Finding::ok(CHECK, "all that deja uses"),
        Some((21, ..)) => Finding::missing(CHECK, what, next),
        Some(_) => Finding::warning(CHECK, what, next),
    }
}

fn files(hard: u64) -> Finding {
    const CHECK: &str = "open files";
    let number = |count| if count == u64::MAX { "without limit".to_owned() } else { format!("{count}") };
    match hard >= FILES {
        true => Finding::ok(CHECK, format!("hard limit: {}", number(hard))),
        false => Finding::warning(
            CHECK,
            format!("the hard limit is {hard}; engines ask for {FILES} and more"),
            format!("ulimit -Hn {FILES} before the engine is started, or LimitNOFILE= in its unit"),
        ),
    }
}

fn modules(security: &Security) -> Finding {
    const CHECK: &str = "security modules";
    match (security.apparmor, security.selinux) {
        (true, _) if !security.apparmor_parser => Finding::warning(
            CHECK,
            "AppArmor is on, but nothing can load profiles: a container that names one is refused",
            "apt install apparmor",
        ),
        (true, _) => Finding::ok(CHECK, "AppArmor"),
        (false, Some(true)) => Finding::ok(CHECK, "SELinux, enforcing"),
        (false, Some(false)) => {
            Finding::ok(CHECK, "SELinux, permissive: containers have their labels, and nothing is refused")
        }
        (false, None) => {
            Finding::ok(CHECK, "neither AppArmor nor SELinux: a container that names a profile is refused")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Missing, Ok as Fine, Warning};
    use super::*;

    fn security() -> Security {
        Security {
            capabilities: u64::MAX,
            files: 1 << 20,
            apparmor: true,
            apparmor_parser: true,
            selinux: None,
        }
    }

    #[test]
    fn capabilities_count_for_root() {
        let without = |bit: u32| Security { capabilities: !(1 << bit), ..security() };
        assert_eq!(judge(&without(21), true)[0].verdict, Missing);
        let found = judge(&without(24), true).swap_remove(0);
        assert_eq!(found.verdict, Warning);
        assert!(found.what.starts_with("root lacks CAP_SYS_RESOURCE (rlimits above"), "{found:?}");
        assert!(
            judge(&Security { capabilities: 0, ..security() }, false).iter().all(|one| one.verdict == Fine)
        );
        assert_eq!(judge(&security(), true).len(), 3);
    }

    #[test]
    fn limits_and_modules() {
        let verdict = |facts: Security, at: usize| judge(&facts, false)[at].verdict;
        assert_eq!(verdict(Security { files: 4096, ..security() }, 0), Warning);
        assert_eq!(verdict(Security { files: u64::MAX, ..security() }, 0), Fine);
        assert_eq!(verdict(Security { apparmor_parser: false, ..security() }, 1), Warning);
        for enforced in [true, false] {
            let selinux = Some(enforced);
            assert_eq!(verdict(Security { apparmor: false, selinux, ..security() }, 1), Fine);
        }
        assert_eq!(verdict(Security { apparmor: false, ..security() }, 1), Fine);
    }
}
