//! The kernel: its age, and the calls, actions and file systems that age does not tell.

use super::{Finding, list};
use crate::sys::probe::Answer;

#[derive(Debug, Default)]
pub struct Kernel {
    pub release: String,
    pub calls: Vec<(&'static str, Answer)>,
    /// Seccomp's, by their name in config.json.
    pub actions: Vec<(&'static str, bool)>,
    pub overlay: bool,
}

type Version = (u32, u32);

const OLDEST: Version = (5, 12);

/// What newer kernels have that deja makes use of.
const LATER: [(Version, &str); 3] = [
    ((5, 14), "cgroup.kill, which ends all processes of a container at once"),
    ((5, 19), "seccomp listeners that wait for killable calls only"),
    ((6, 3), "time namespaces that exec enters"),
];

/// File systems whose mounts can have ids of their own, and since when.
const IDMAPPED: [(Version, &str); 10] = [
    ((5, 12), "ext4"),
    ((5, 12), "vfat"),
    ((5, 12), "xfs"),
    ((5, 15), "btrfs"),
    ((5, 18), "f2fs"),
    ((5, 19), "overlay"),
    ((5, 19), "erofs"),
    ((6, 3), "tmpfs"),
    ((6, 7), "ceph"),
    ((6, 12), "fuse"),
];

pub fn judge(kernel: &Kernel) -> Vec<Finding> {
    let version = version(&kernel.release);
    vec![release(kernel, version), calls(kernel), seccomp(kernel), overlayfs(kernel), idmapped(version)]
}

fn version(release: &str) -> Version {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn release(kernel: &Kernel, version: Version) -> Finding {
    let name = format!("Linux {}", kernel.release);
    if version < OLDEST {
        let next = format!("upgrade to Linux {}.{} or newer", OLDEST.0, OLDEST.1);
        return Finding::missing("kernel", format!("{name} is too old"), next);
    }
    let lacking: Vec<_> = LATER.iter().filter(|(since, _)| version < *since).collect();
    match lacking.last() {
        None => Finding::ok("kernel", name),
        Some((newest, _)) => {
            let words: Vec<&str> = lacking.iter().map(|(_, what)| *what).collect();
            let next = format!("Linux {}.{} has all of it", newest.0, newest.1);
            Finding::warning("kernel", format!("{name} has no {}", words.join("; no ")), next)
        }
    }
}

fn calls(kernel: &Kernel) -> Finding {
    let those = |wanted: Answer| -> Vec<&str> {
        kernel.calls.iter().filter(|(_, answer)| *answer == wanted).map(|(name, _)| *name).collect()
    };
    let (absent, denied) = (those(Answer::Absent), those(Answer::Denied));
    if !absent.is_empty() {
        let what = format!("the kernel does not know {}", list(&absent));
        let next = "upgrade it; inside a container or sandbox, let its seccomp profile allow these calls";
        return Finding::missing("system calls", what, next);
    }
    if !denied.is_empty() {
        let what = format!("a sandbox around this process denies {}", list(&denied));
        return Finding::missing("system calls", what, "let its seccomp profile allow these calls");
    }
    let what = "mounts by descriptor, clone3 into a cgroup, pidfds and openat2 are there";
    Finding::ok("system calls", what)
}

fn seccomp(kernel: &Kernel) -> Finding {
    let lacking: Vec<&str> =
        kernel.actions.iter().filter(|(_, known)| !known).map(|(name, _)| *name).collect();
    if !kernel.actions.is_empty() && lacking.len() == kernel.actions.len() {
        let what =
            "the kernel has no seccomp filters: containers with linux.seccomp, which are most, are refused";
        return Finding::warning("seccomp", what, "use a kernel with CONFIG_SECCOMP_FILTER");
    }
    if !lacking.is_empty() {
        return Finding::warning("seccomp", format!("the kernel has no {}", list(&lacking)), "upgrade it");
    }
    Finding::ok("seccomp", "every action, and notifications to an agent")
}

fn overlayfs(kernel: &Kernel) -> Finding {
    if kernel.overlay {
        return Finding::ok("overlayfs", "there, with userxattr for those without privileges");
    }
    let what = "the kernel does not offer it: no sessions, and no overlay storage for engines";
    Finding::warning("overlayfs", what, "modprobe overlay, or use a kernel with CONFIG_OVERLAY_FS")
}

fn idmapped(version: Version) -> Finding {
    let able: Vec<&str> =
        IDMAPPED.iter().filter(|(since, _)| version >= *since).map(|(_, name)| *name).collect();
    match able.is_empty() {
        false => Finding::ok("idmapped mounts", format!("of {}", list(&able))),
        true => Finding::warning("idmapped mounts", "none", "upgrade the kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel {
            release: release.to_owned(),
            calls: vec![("clone3", Answer::Known), ("mount_setattr", Answer::Known)],
            actions: vec![("SCMP_ACT_KILL", true), ("SCMP_ACT_NOTIFY", true)],
            overlay: true,
        }
    }

    fn finding(kernel: &Kernel, check: &str) -> (Verdict, String) {
        let all = judge(kernel);
        let one = all.into_iter().find(|finding| finding.check == check).unwrap();
        (one.verdict, format!("{}: {}", one.what, one.next))
    }

    #[test]
    fn age_decides() {
        for (release, verdict, words) in [
            ("6.12.48+deb13-amd64", Verdict::Ok, "Linux 6.12.48+deb13-amd64"),
            ("5.10.0-35-amd64", Verdict::Missing, "upgrade to Linux 5.12"),
            ("5.13", Verdict::Warning, "no cgroup.kill"),
            ("6.1.0-40", Verdict::Warning, "no time namespaces that exec enters: Linux 6.3 has"),
            ("", Verdict::Missing, "too old"),
        ] {
            let (found, text) = finding(&kernel(release), "kernel");
            assert_eq!(found, verdict, "{release}");
            assert!(text.contains(words), "{text}");
        }
        assert!(finding(&kernel("5.15.1"), "idmapped mounts").1.starts_with("of ext4, vfat, xfs, btrfs:"));
        assert_eq!(finding(&kernel("4.19"), "idmapped mounts").0, Verdict::Warning);
    }

    #[test]
    fn calls_that_lack_are_named() {
        let mut facts = kernel("6.12");
        assert_eq!(finding(&facts, "system calls").0, Verdict::Ok);
        facts.calls[1].1 = Answer::Absent;
        let (verdict, text) = finding(&facts, "system calls");
        assert_eq!(verdict, Verdict::Missing);
        assert!(text.starts_with("the kernel does not know mount_setattr: "), "{text}");
        facts.calls[1].1 = Answer::Denied;
        assert!(finding(&facts, "system calls").1.contains("denies mount_setattr: let its seccomp profile"));
    }

    #[test]
    fn what_the_kernel_was_built_without_is_said() {
        let mut facts = kernel("6.12");
        facts.actions[1].1 = false;
        assert_eq!(finding(&facts, "seccomp").1, "the kernel has no SCMP_ACT_NOTIFY: upgrade it");
        facts.actions[0].1 = false;
        assert!(finding(&facts, "seccomp").1.contains("no seccomp filters"));
        facts.overlay = false;
        assert_eq!(finding(&facts, "overlayfs").0, Verdict::Warning);
    }
}
