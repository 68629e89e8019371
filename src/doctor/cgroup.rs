//! cgroup v2: where it is, which limits can be set, and who makes cgroups.

use super::{Finding, list};

#[derive(Debug, Default)]
pub struct Tree {
    /// Where cgroup2 is mounted.
    pub mount: Option<String>,
    /// Controllers that cgroup v1 holds.
    pub v1: Vec<String>,
    /// Controllers in reach: the machine's, or without privileges those handed to the own cgroup.
    pub controllers: Vec<String>,
    /// The directory in which cgroups would be made, and whether it can be written to.
    pub place: String,
    pub writable: bool,
    /// The files of some cgroup that is not the root; empty when there is none to look at.
    pub files: Vec<String>,
    /// What `cpu` says in /proc/pressure can be read.
    pub pressure: bool,
    /// The manager that --systemd-cgroup would ask, or why it does not answer.
    pub systemd: Option<Result<(), String>>,
}

/// What containers are limited by; others are for special hardware.
const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A file, the controller that makes it (none: every cgroup has it), and what is lost without it.
const FILES: [(&str, Option<&str>, &str); 6] = [
    ("cgroup.freeze", None, "pause"),
    ("cgroup.kill", None, "ending all processes at once"),
    ("cpu.weight", Some("cpu"), "CPU shares and deja fair"),
    ("cpu.idle", Some("cpu"), "--cpu-idle"),
    ("memory.peak", Some("memory"), "the memory peak in events"),
    ("cpu.pressure", None, "waiting times in deja top"),
];

pub fn judge(tree: &Tree, privileged: bool) -> Vec<Finding> {
    let Some(mount) = &tree.mount else {
        let next = "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; \
             --cgroup-manager disabled runs containers without limits";
        return vec![Finding::missing("cgroup v2", "no cgroup v2 hierarchy is mounted", next)];
    };
    let mut findings = vec![place(tree, mount, privileged), controllers(tree, privileged)];
    if !tree.files.is_empty() {
        findings.push(files(tree));
    }
    findings.push(match tree.pressure {
        true => Finding::ok("pressure", "/proc/pressure says who waits for what"),
        false => Finding::warning(
            "pressure",
            "the kernel does not tell how long processes wait (PSI)",
            "boot with psi=1",
        ),
    });
    findings.push(match &tree.systemd {
        Some(Ok(())) => Finding::ok("systemd", "answers: --systemd-cgroup works"),
        Some(Err(why)) => Finding::warning(
            "systemd",
            format!("--systemd-cgroup does not work: {why}"),
            "until then, engines need the cgroupfs driver (podman: cgroup_manager, containerd: SystemdCgroup)",
        ),
        None => Finding::ok("systemd", "not asked"),
    });
    findings
}

fn place(tree: &Tree, mount: &str, privileged: bool) -> Finding {
    let shared = if tree.v1.is_empty() { "" } else { ", beside v1" };
    if tree.writable {
        return Finding::ok("cgroup v2", format!("mounted on {mount}{shared}"));
    }
    let what = format!("cannot make cgroups in {}{shared}", tree.place);
    if privileged {
        let next =
            "mount it writable; inside a container, give that a cgroup namespace and a writable cgroup tree";
        return Finding::missing("cgroup v2", what, next);
    }
    let next = "without limits containers run nevertheless; with them through --systemd-cgroup and a session of systemd's \
         (loginctl enable-linger)";
    Finding::warning("cgroup v2", what, next)
}

fn controllers(tree: &Tree, privileged: bool) -> Finding {
    let lacking: Vec<&str> =
        WANTED.into_iter().filter(|name| !tree.controllers.iter().any(|there| there == name)).collect();
    if lacking.is_empty() {
        return Finding::ok("controllers", list(&tree.controllers));
    }
    let what = format!("no limits by {}", list(&lacking));
    if lacking.iter().any(|name| tree.v1.iter().any(|held| held == name)) {
        let next = "cgroup v1 holds them: boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all";
        return Finding::warning("controllers", what, next);
    }
    let next = match privileged {
        true => {
            "they are not handed down to here, or the kernel was built or booted without them (cgroup_enable=memory)"
        }
        false => {
            "they are not delegated to this user: Delegate=cpu cpuset io memory pids for user@.service (systemctl edit)"
        }
    };
    Finding::warning("controllers", what, next)
}

fn files(tree: &Tree) -> Finding {
    let has = |name: &str| tree.files.iter().any(|file| file == name);
    // A controller that is not handed to this one cgroup has no files in it, whatever the kernel can do.
    let made =
        |controller: &str| tree.files.iter().any(|file| file.starts_with(&format!("{controller}.max")));
    let lacking: Vec<String> = FILES
        .iter()
        .filter(|(name, controller, _)| !has(name) && controller.is_none_or(made))
        .filter(|(name, ..)| *name != "cpu.pressure" || tree.pressure)
        .map(|(name, _, lost)| format!("{name} ({lost})"))
        .collect();
    match lacking.is_empty() {
        true => Finding::ok("cgroup files", "all that deja writes and reads"),
        false => {
            Finding::warning("cgroup files", format!("no {}", lacking.join(", no ")), "upgrade the kernel")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{self, Missing, Ok as Fine, Warning};
    use super::*;

    fn tree() -> Tree {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        Tree {
            mount: Some("/sys/fs/cgroup".to_owned()),
            controllers: words("cpuset cpu io memory hugetlb pids"),
            place: "/sys/fs/cgroup".to_owned(),
            writable: true,
            files: words(
                "cgroup.kill cgroup.freeze cpu.pressure cpu.max cpu.weight cpu.idle memory.max memory.peak",
            ),
            pressure: true,
            systemd: Some(Ok(())),
            ..Tree::default()
        }
    }

    fn verdicts(tree: &Tree, privileged: bool) -> Vec<Verdict> {
        judge(tree, privileged).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_whole_tree_is_fine() {
        assert_eq!(verdicts(&tree(), true), [Fine; 5]);
        assert_eq!(verdicts(&Tree { files: Vec::new(), ..tree() }, true), [Fine; 4]);
    }

    #[test]
    fn no_tree_is_no_container() {
        let found = judge(&Tree::default(), true);
        assert_eq!((found.len(), found[0].verdict), (1, Missing));
        assert_eq!(verdicts(&Tree { writable: false, ..tree() }, true)[0], Missing);
        assert_eq!(verdicts(&Tree { writable: false, ..tree() }, false)[0], Warning);
    }

    #[test]
    fn controllers_that_are_elsewhere_are_named_with_the_reason() {
        let mut facts = tree();
        facts.controllers.retain(|name| name != "memory" && name != "cpu");
        let next = |facts: &Tree, privileged| {
            let finding = judge(facts, privileged).swap_remove(1);
            assert_eq!(finding.what, "no limits by cpu, memory");
            finding.next
        };
        assert!(next(&facts, true).contains("not handed down"));
        assert!(next(&facts, false).contains("Delegate="));
        facts.v1 = vec!["memory".to_owned()];
        assert!(next(&facts, true).starts_with("cgroup v1 holds them"));
        assert_eq!(judge(&facts, true)[0].what, "mounted on /sys/fs/cgroup, beside v1");
    }

    #[test]
    fn files_count_only_where_their_controller_is() {
        let without = |name: &str| {
            let mut facts = tree();
            facts.files.retain(|file| !file.starts_with(name));
            judge(&facts, true).swap_remove(2)
        };
        assert_eq!(without("cgroup.kill").what, "no cgroup.kill (ending all processes at once)");
        assert_eq!(without("cpu.idle").verdict, Warning);
        assert_eq!(without("memory.").verdict, Fine);
    }

    #[test]
    fn what_is_off_or_silent_is_a_warning() {
        let facts = Tree { pressure: false, systemd: Some(Err("no systemd".to_owned())), ..tree() };
        assert_eq!(verdicts(&facts, true), [Fine, Fine, Fine, Warning, Warning]);
    }
}
