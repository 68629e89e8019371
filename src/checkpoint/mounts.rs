//! What of a container comes from outside: mounts that CRIU cannot make again by itself. Pure.
//!
//! Such a mount gets a name in the image, and whoever restores says what the name stands for. What the kernel shows
//! decides, not the config alone: a recursive bind has mounts below it that the config does not mention.

use anyhow::{Context, Result};

use crate::sys::mount::unescape;

/// A bind mount of the config, with its destination as it is found inside the root.
#[derive(Debug, Clone, PartialEq)]
pub struct Bind {
    pub destination: String,
    /// On the host.
    pub source: String,
    pub recursive: bool,
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq)]
pub struct Mounted {
    pub id: u32,
    pub device: String,
    pub root: String,
    pub point: String,
    pub kind: String,
    /// What the file system was made with.
    pub options: String,
    pub idmapped: bool,
}

/// A mount that comes from outside, by its place and its name in the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Outside {
    pub point: String,
    pub name: String,
}

/// The name under which every masked file is kept, as runc does. crun gives each its own place for a name.
pub const MASKED: &str = "/dev/null";

/// What the config says about the container's mounts.
#[derive(Debug, Default)]
pub struct Intended {
    pub binds: Vec<Bind>,
    /// Destinations of file systems that were made for the container.
    pub made: Vec<String>,
    pub masked: Vec<String>,
    /// Its cgroup file system is its own view, not a part of the host's.
    pub own_cgroups: bool,
}

/// File systems that CRIU makes again, with what was in them.
const KNOWN: [&str; 10] =
    ["cgroup", "cgroup2", "debugfs", "devpts", "mqueue", "overlay", "proc", "sysfs", "tmpfs", "tracefs"];

pub fn parse(mountinfo: &str) -> Result<Vec<Mounted>> {
    let one = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let [id, _, device, root, point, options, ..] = fields[..] else { return None };
        Some(Mounted {
            id: id.parse().ok()?,
            device: device.to_owned(),
            root: unescape(root),
            point: unescape(point),
            kind: right.split(' ').next()?.to_owned(),
            options: unescape(right.split(' ').nth(2).unwrap_or_default()),
            idmapped: options.split(',').any(|option| option == "idmapped"),
        })
    };
    let read = |line: &str| one(line).with_context(|| format!("mountinfo: not in the known form: {line:?}"));
    mountinfo.lines().map(read).collect()
}

/// The mounts that CRIU has to be told about.
pub fn outside(mounted: &[Mounted], intended: &Intended) -> Vec<Outside> {
    let foreign = mounted.iter().filter(|mount| mount.point != "/" && is_foreign(mount, mounted, intended));
    let named = |mount: &Mounted| {
        let masked = intended.masked.contains(&mount.point) && mount.root.ends_with("/null");
        let name = if masked { MASKED } else { &mount.point };
        Outside { point: mount.point.clone(), name: name.to_owned() }
    };
    let mut all: Vec<Outside> = foreign.map(named).collect();
    // Mounts on top of each other have one name.
    all.dedup_by(|a, b| a.point == b.point);
    all
}

fn is_foreign(mount: &Mounted, all: &[Mounted], intended: &Intended) -> bool {
    if mount.kind == "cgroup2" {
        return !intended.own_cgroups;
    }
    if !KNOWN.contains(&mount.kind.as_str()) {
        return true;
    }
    // A masked directory below a bind mount is not a part of what is bound, which would show what it hides.
    let hides = mount.kind == "tmpfs" && intended.masked.contains(&mount.point);
    if hides || intended.made.contains(&mount.point) {
        return false;
    }
    if intended.binds.iter().any(|bind| bind.covers(&mount.point)) {
        return true;
    }
    // A part of a file system whose whole is not here.
    let is_whole = |other: &Mounted| other.device == mount.device && other.root == "/";
    mount.root != "/" && !all.iter().any(is_whole)
}

impl Bind {
    fn covers(&self, point: &str) -> bool {
        self.rest(point).is_some_and(|rest| self.recursive || rest.is_empty())
    }

    /// What follows the destination in `point`.
    fn rest<'p>(&self, point: &'p str) -> Option<&'p str> {
        let rest = point.strip_prefix(self.destination.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// The path of the host that `name` stands for; None: nothing in the config does.
pub fn source(name: &str, intended: &Intended, cgroup: Option<&str>) -> Option<String> {
    if name == MASKED || intended.masked.iter().any(|masked| masked == name) {
        return Some(MASKED.to_owned());
    }
    // The last one is on top.
    let binds = || intended.binds.iter().rev();
    if let Some(bind) = binds().find(|bind| bind.destination == name) {
        return Some(bind.source.clone());
    }
    if let Some(bind) = binds().find(|bind| bind.covers(name)) {
        return Some(format!("{}{}", bind.source, bind.rest(name)?));
    }
    match name {
        "/sys/fs/cgroup" => cgroup.map(str::to_owned),
        // A device that could not be made in a user namespace is the host's.
        _ if name.starts_with("/dev/") => Some(name.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
100 99 0:50 / / rw,relatime - overlay overlay rw
101 100 0:51 / /proc rw - proc proc rw
102 100 0:52 / /dev rw,nosuid - tmpfs tmpfs rw
103 102 0:53 / /dev/pts rw - devpts devpts rw
104 100 0:54 / /sys ro - sysfs sysfs ro
105 104 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup rw
106 101 0:51 /bus /proc/bus ro - proc proc rw
107 101 0:6 /null /proc/kcore rw - devtmpfs udev rw
108 101 0:60 / /proc/acpi ro - tmpfs tmpfs ro
109 100 8:1 /srv/data /data rw master:1 - ext4 /dev/sda1 rw
110 109 0:70 / /data/run\\040time rw - tmpfs tmpfs rw
111 100 0:71 / /tmp rw - tmpfs tmpfs rw
116 109 0:74 / /data/hidden ro - tmpfs tmpfs ro
117 109 0:6 /null /data/secret rw - devtmpfs udev rw
112 100 0:72 /x/secret /run/secret rw - tmpfs tmpfs rw
113 111 0:71 /a /tmp/b rw - tmpfs tmpfs rw
114 102 0:53 /0 /dev/console rw - devpts devpts rw
115 100 0:73 / /dev/shm rw - tmpfs shm rw
";

    fn bind(destination: &str, source: &str, recursive: bool) -> Bind {
        Bind { destination: destination.into(), source: source.into(), recursive }
    }

    fn intended() -> Intended {
        Intended {
            binds: vec![bind("/data", "/srv/data", true), bind("/dev/shm", "/shm", false)],
            made: vec!["/tmp".into(), "/proc".into()],
            masked: ["/proc/kcore", "/proc/acpi", "/data/hidden", "/data/secret"].map(String::from).to_vec(),
            own_cgroups: true,
        }
    }

    #[test]
    fn only_what_is_not_the_container_s_comes_from_outside() {
        let mounted = parse(TABLE).unwrap();
        let found = outside(&mounted, &intended());
        let found: Vec<(&str, &str)> =
            found.iter().map(|one| (one.point.as_str(), one.name.as_str())).collect();
        assert_eq!(
            found,
            [
                ("/proc/kcore", "/dev/null"),
                ("/data", "/data"),
                ("/data/run time", "/data/run time"),
                ("/data/secret", "/dev/null"),
                ("/run/secret", "/run/secret"),
                ("/dev/shm", "/dev/shm"),
            ]
        );
        let shared = Intended { own_cgroups: false, ..intended() };
        assert!(outside(&mounted, &shared).iter().any(|one| one.point == "/sys/fs/cgroup"));
    }

    #[test]
    fn a_name_stands_for_what_the_config_says_now() {
        let intended = intended();
        for (name, expected) in [
            ("/data", Some("/srv/data")),
            ("/data/run time", Some("/srv/data/run time")),
            ("/database", None),
            ("/dev/shm", Some("/shm")),
            ("/dev/shm/x", Some("/dev/shm/x")),
            ("/dev/null", Some("/dev/null")),
            ("/data/secret", Some("/dev/null")),
            ("/sys/fs/cgroup", Some("/cg")),
            ("/run/secret", None),
        ] {
            assert_eq!(source(name, &intended, Some("/cg")).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_table_of_another_form_is_refused() {
        assert!(parse("1 2 3\n").unwrap_err().to_string().contains("not in the known form"));
    }
}
