//! What CRIU could not save, told before anything is stopped. Pure: `survey` reads, this decides.

use serde::Serialize;

/// What the caller would allow.
#[derive(Debug, Default, Clone, Copy)]
pub struct Allowed {
    pub tcp_established: bool,
    pub file_locks: bool,
    pub shell_job: bool,
}

/// A process of the container.
#[derive(Debug, Default, Clone)]
pub struct Process {
    pub pid: i32,
    pub command: String,
    pub traced: bool,
    /// Kinds of namespaces that are not those of init.
    pub namespaces: Vec<String>,
    pub files: Vec<OpenFile>,
}

#[derive(Debug, Default, Clone)]
pub struct OpenFile {
    pub number: i32,
    /// As its link in /proc says.
    pub link: String,
    pub size: u64,
    /// Major and minor of a device.
    pub device: Option<(u32, u32)>,
    /// It lies on a mount of the container, or on none at all.
    pub inside: bool,
}

#[derive(Debug, Default)]
pub struct Survey {
    pub processes: Vec<Process>,
    pub root_is_overlay: bool,
    pub connections: usize,
    /// Pids of who holds file locks.
    pub locks: Vec<i32>,
    pub idmapped: Vec<String>,
    /// The SELinux label that CRIU does not know how to save.
    pub unsaved_label: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Obstacle {
    /// One word for programs.
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    pub reason: String,
    /// What would help, where something does.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub advice: &'static str,
}

/// CRIU keeps deleted files up to this size unless its configuration says otherwise.
const GHOST_LIMIT: u64 = 1 << 20;

/// Kinds of files without a name that CRIU does not know, with its words for them.
const UNKNOWN: [(&str, &str, &str); 7] = [
    ("anon_inode:[io_uring]", "io-uring", "uses io_uring"),
    ("anon_inode:[fanotify]", "fanotify", "watches files by fanotify"),
    ("anon_inode:[perf_event]", "perf", "measures by perf events"),
    ("anon_inode:bpf-prog", "bpf", "holds a BPF program"),
    ("anon_inode:[userfaultfd]", "userfaultfd", "handles page faults by userfaultfd"),
    ("anon_inode:kvm", "kvm", "runs a virtual machine"),
    ("anon_inode:seccomp notify", "seccomp-notify", "answers system calls of others by seccomp notification"),
];

/// Devices that are no more than their number: major, and the minors or all.
const PLAIN: [(u32, Option<&[u32]>); 4] =
    [(1, Some(&[3, 5, 7, 8, 9, 11])), (5, Some(&[0, 1, 2])), (4, None), (10, Some(&[200, 229]))];
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

pub fn obstacles(survey: &Survey, allowed: Allowed) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for process in &survey.processes {
        look_at(process, survey, allowed, &mut found);
    }
    let whole =
        |kind, reason: String, advice| Obstacle { kind, pid: None, command: String::new(), reason, advice };
    for point in &survey.idmapped {
        found.push(whole("idmapped-mount", format!("the mount {point:?} is id-mapped"), ""));
    }
    if let Some(label) = &survey.unsaved_label {
        let reason =
            format!("the SELinux label {label:?} is beyond this criu, which was built without SELinux");
        found.push(whole("selinux-label", reason, "a criu that was built with it saves labels"));
    }
    if survey.connections > 0 && !allowed.tcp_established {
        let reason = format!("{} TCP connection(s) are open", survey.connections);
        found.push(whole("tcp", reason, "--tcp-established saves them"));
    }
    found
}

fn look_at(process: &Process, survey: &Survey, allowed: Allowed, found: &mut Vec<Obstacle>) {
    let mut add = |kind, reason: String, advice| {
        let command = process.command.clone();
        found.push(Obstacle { kind, pid: Some(process.pid), command, reason, advice });
    };
    if process.traced {
        add("traced", "is traced by a debugger".to_owned(), "detach it");
    }
    for kind in process.namespaces.iter().filter(|kind| matches!(kind.as_str(), "pid" | "user" | "time")) {
        add("nested-namespace", format!("has a {kind} namespace of its own inside the container"), "");
    }
    if survey.locks.contains(&process.pid) && !allowed.file_locks {
        add("file-lock", "holds a file lock".to_owned(), "--file-locks saves it");
    }
    for file in &process.files {
        let number = file.number;
        if let Some((_, kind, what)) = UNKNOWN.iter().find(|(link, ..)| file.link.starts_with(link)) {
            add(kind, format!("{what} (descriptor {number})"), "");
        } else if file.link.starts_with("anon_inode:inotify") && survey.root_is_overlay {
            let advice = "it works where what is watched is not on an overlay";
            add("inotify", format!("watches files by inotify on an overlay (descriptor {number})"), advice);
        } else if file.link.ends_with(" (deleted)") && file.inside && file.size > GHOST_LIMIT {
            let advice = "ghost-limit in CRIU's configuration raises what it saves";
            add("ghost", format!("has a deleted file of {} bytes open ({})", file.size, file.link), advice);
        } else if let Some(device) = file.device {
            device_of(file, device, allowed, &mut add);
        }
    }
}

fn device_of(
    file: &OpenFile,
    (major, minor): (u32, u32),
    allowed: Allowed,
    add: &mut dyn FnMut(&'static str, String, &'static str),
) {
    let plain =
        |entry: &(u32, Option<&[u32]>)| entry.0 == major && entry.1.is_none_or(|all| all.contains(&minor));
    if PSEUDO_TERMINALS.contains(&major) {
        if !file.inside && !allowed.shell_job {
            let reason = format!("has a terminal from outside ({})", file.link);
            add("terminal", reason, "--shell-job leaves it to whoever restores");
        }
    } else if !PLAIN.iter().any(plain) {
        add("device", format!("has the device {major}:{minor} open ({})", file.link), "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(link: &str) -> OpenFile {
        OpenFile { number: 5, link: link.into(), inside: true, ..OpenFile::default() }
    }

    fn of(files: Vec<OpenFile>) -> Survey {
        let process = Process { pid: 7, command: "web".into(), files, ..Process::default() };
        Survey { processes: vec![process], root_is_overlay: true, ..Survey::default() }
    }

    fn kinds(survey: &Survey, allowed: Allowed) -> Vec<&'static str> {
        obstacles(survey, allowed).iter().map(|one| one.kind).collect()
    }

    #[test]
    fn a_label_that_criu_does_not_know_stands_in_the_way() {
        let survey = Survey { unsaved_label: Some("u:r:t:s0".to_owned()), ..Survey::default() };
        let found = obstacles(&survey, Allowed::default());
        assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), ["selinux-label"]);
        assert!(found[0].reason.contains("\"u:r:t:s0\""), "{found:?}");
    }

    #[test]
    fn every_obstacle_has_its_word() {
        let device = |link: &str, device, inside| OpenFile { device: Some(device), inside, ..file(link) };
        for (file, kind) in [
            (file("anon_inode:[io_uring]"), Some("io-uring")),
            (file("anon_inode:inotify"), Some("inotify")),
            (file("anon_inode:[eventpoll]"), None),
            (file("socket:[1]"), None),
            (OpenFile { size: 2 << 20, ..file("/tmp/x (deleted)") }, Some("ghost")),
            (OpenFile { size: 2 << 20, inside: false, ..file("/tmp/x (deleted)") }, None),
            (OpenFile { size: 1 << 20, ..file("/tmp/x (deleted)") }, None),
            (device("/dev/null", (1, 3), true), None),
            (device("/dev/pts/0", (136, 0), true), None),
            (device("/dev/pts/9", (136, 9), false), Some("terminal")),
            (device("/dev/nvidia0", (195, 0), true), Some("device")),
        ] {
            let link = file.link.clone();
            let expected: Vec<&str> = kind.into_iter().collect();
            assert_eq!(kinds(&of(vec![file]), Allowed::default()), expected, "{link}");
        }
        let plain = Survey { root_is_overlay: false, ..of(vec![file("anon_inode:inotify")]) };
        assert!(kinds(&plain, Allowed::default()).is_empty());
    }

    #[test]
    fn what_is_allowed_is_no_obstacle() {
        let mut survey = of(vec![OpenFile { device: Some((136, 1)), inside: false, ..file("/dev/pts/1") }]);
        survey.connections = 2;
        survey.locks = vec![7, 8];
        survey.idmapped = vec!["/data".into()];
        survey.processes[0].namespaces = vec!["user".into(), "mnt".into(), "net".into()];
        survey.processes[0].traced = true;
        let all = ["traced", "nested-namespace", "file-lock", "terminal", "idmapped-mount", "tcp"];
        assert_eq!(kinds(&survey, Allowed::default()), all);
        let allowed = Allowed { tcp_established: true, file_locks: true, shell_job: true };
        assert_eq!(kinds(&survey, allowed), ["traced", "nested-namespace", "idmapped-mount"]);
    }
}
