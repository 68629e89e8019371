//! Intel RDT: the class of service of a container, a directory of the resctrl file system.
//!
//! A group says how much of the caches and of the memory's bandwidth its tasks may use, in lines called schemata.
//! Without a closID a container has a group of its own, which goes with it; a group with a name may be somebody
//! else's: it is joined, must already be what config.json asks for, and stays.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::spec::IntelRdt;
use crate::sys::fs::file_system_at;
use crate::sys::mount::unescape;

const USUAL: &str = "/sys/fs/resctrl";
const RESCTRL: i64 = 0x0765_5821;

/// Where resctrl is mounted.
pub fn find() -> Result<PathBuf> {
    if file_system_at(c"/sys/fs/resctrl") == Ok(RESCTRL) {
        return Ok(PathBuf::from(USUAL));
    }
    let table = fs::read_to_string("/proc/self/mountinfo").context("read \"/proc/self/mountinfo\"")?;
    listed(&table).context(
        "linux.intelRdt: no resctrl file system is mounted; where the processor and the kernel have Intel RDT, \
         mount -t resctrl resctrl /sys/fs/resctrl",
    )
}

fn listed(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        file_system.starts_with("resctrl ").then(|| PathBuf::from(unescape(point)))
    })
}

/// What a container asks for, and where that is.
#[derive(Debug, PartialEq)]
pub struct Plan {
    root: PathBuf,
    pub group: PathBuf,
    /// Where its use is counted apart from that of others in the group.
    pub monitor: Option<PathBuf>,
    schemata: Vec<String>,
    /// The group's name was given: others may use it.
    named: bool,
    /// It is not there yet.
    absent: bool,
}

impl Plan {
    pub fn new(root: &Path, asked: &IntelRdt<'_>, id: &str) -> Result<Self> {
        let named = !asked.clos_id.is_empty();
        let group = match asked.clos_id.as_str() {
            "" => root.join(id),
            "/" => root.to_owned(),
            name => root.join(name),
        };
        let schemata = schemata(asked);
        let absent = !group.is_dir();
        if named && absent && schemata.is_empty() {
            bail!(
                "linux.intelRdt.closID: {group:?} does not exist, and there is no schema to make it with \
                 (schemata, l3CacheSchema, memBwSchema)"
            );
        }
        let counted = asked.enable_monitoring || asked.enable_cmt || asked.enable_mbm;
        let monitor = counted.then(|| group.join("mon_groups").join(id));
        Ok(Self { root: root.to_owned(), group, monitor, schemata, named, absent })
    }

    /// What goes with the container, in this order.
    pub fn removed(&self) -> Vec<PathBuf> {
        let own = (!self.named && self.absent).then(|| self.group.clone());
        self.monitor.iter().cloned().chain(own).collect()
    }

    /// Makes the group or checks it, and moves process `pid` there.
    pub fn apply(&self, pid: i32) -> Result<Made> {
        let made = Made { paths: self.removed() };
        if self.absent {
            make(&self.group).map_err(|error| self.explain("make", &self.group, &error))?;
        }
        if self.absent || !self.named {
            self.write(&self.schemata)?;
        } else {
            self.compare()?;
        }
        if let Some(monitor) = &self.monitor {
            make(monitor).map_err(|error| self.explain("make", monitor, &error))?;
        }
        join(&self.group, self.monitor.as_deref(), pid)?;
        Ok(made)
    }

    fn write(&self, schemata: &[String]) -> Result<()> {
        if schemata.is_empty() {
            return Ok(());
        }
        let file = self.group.join("schemata");
        write(&file, &lines(schemata)).map_err(|error| self.explain("write", &file, &error))
    }

    /// A group that others may use is not changed: it has to be as it was asked for.
    fn compare(&self) -> Result<()> {
        let file = self.group.join("schemata");
        let present = fs::read_to_string(&file).with_context(|| format!("read {file:?}"))?;
        match self.schemata.iter().flat_map(|text| text.lines()).find(|line| !holds(&present, line)) {
            Some(line) => bail!("linux.intelRdt: {file:?} is there already, and is not {line:?}"),
            None => Ok(()),
        }
    }

    fn explain(&self, what: &str, path: &Path, error: &io::Error) -> anyhow::Error {
        explain(&self.root, what, path, error)
    }
}

/// The kernel keeps more than a number about what was last refused.
fn explain(root: &Path, what: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    let reason = match error.kind() {
        io::ErrorKind::StorageFull => "all classes of service are in use".to_owned(),
        _ => error.to_string(),
    };
    match status.trim() {
        "" | "ok" => anyhow!("linux.intelRdt: {what} {path:?}: {reason}"),
        status => anyhow!("linux.intelRdt: {what} {path:?}: {reason} ({status})"),
    }
}

/// The directories made for a container; unless they are kept, they go when this does.
pub struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    pub fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.paths {
            // The error that led here is the one worth telling; `delete --force` gets what is left.
            fs::remove_dir(path).ok();
        }
    }
}

/// Moves a process to a group, and to the one in it that is counted apart.
pub fn join(group: &Path, monitor: Option<&Path>, pid: i32) -> Result<()> {
    for directory in [Some(group), monitor].into_iter().flatten() {
        let tasks = directory.join("tasks");
        write(&tasks, &format!("{pid}\n"))
            .with_context(|| format!("linux.intelRdt: write {pid} to {tasks:?}"))?;
    }
    Ok(())
}

/// Removes what was made for a container; what is gone already is no error.
pub fn remove(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove the Intel RDT group {path:?}"));
            }
            _ => (),
        }
    }
    Ok(())
}

/// Other schemata for a group; what they do not name stays as it is.
pub fn update(group: &Path, l3_cache: &str, memory_bandwidth: &str) -> Result<()> {
    let schemata = combined(l3_cache, memory_bandwidth);
    let file = group.join("schemata");
    let root = group.parent().unwrap_or(group);
    write(&file, &lines(&schemata)).map_err(|error| explain(root, "write", &file, &error))
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// One write for all of it, because the kernel takes or refuses what comes in one.
fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

fn lines(schemata: &[String]) -> String {
    schemata.iter().flat_map(|text| text.lines()).map(|line| format!("{line}\n")).collect()
}

/// Later lines win, as `schemata` is to win over the fields before it.
fn schemata(asked: &IntelRdt<'_>) -> Vec<String> {
    let mut all = combined(&asked.l3_cache_schema, &asked.mem_bw_schema);
    all.extend(asked.schemata.iter().map(ToString::to_string));
    all
}

/// Bandwidth has a field of its own, which counts where both speak of it.
fn combined(l3_cache: &str, memory_bandwidth: &str) -> Vec<String> {
    let counts = |line: &&str| memory_bandwidth.is_empty() || !line.trim_start().starts_with("MB:");
    let cache = l3_cache.lines().filter(counts);
    cache.chain(memory_bandwidth.lines()).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Whether the schemata of a group say what one line asks for, in whatever order and with whatever zeros in front.
fn holds(present: &str, line: &str) -> bool {
    let Some((name, wanted)) = entries(line) else { return false };
    let all = present.lines().filter_map(entries);
    let found: Vec<_> = all.filter(|(other, _)| *other == name).flat_map(|(_, values)| values).collect();
    wanted.iter().all(|entry| found.contains(entry))
}

/// `L3:0=0ff;1=c0` as its name and its values by cache.
fn entries(line: &str) -> Option<(&str, Vec<(String, String)>)> {
    let (name, values) = line.split_once(':')?;
    let plain = |text: &str| text.trim().trim_start_matches('0').to_ascii_lowercase();
    let entry = |text: &str| text.split_once('=').map(|(cache, value)| (plain(cache), plain(value)));
    let values = values.split(';').filter(|text| !text.trim().is_empty()).map(entry);
    Some((name.trim(), values.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A directory that looks like resctrl, except that no kernel fills what is made in it.
    fn resctrl() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for group in ["", "gold", "web", "web/mon_groups/web", "gold/mon_groups/web"] {
            let group = root.path().join(group);
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("schemata"), "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n").unwrap();
            fs::write(group.join("tasks"), "").unwrap();
        }
        root
    }

    fn planned(root: &Path, json: &str) -> Result<Plan> {
        Plan::new(root, &serde_json::from_str(json).unwrap(), "web")
    }

    #[test]
    fn a_mount_is_found_in_a_table() {
        let table = "30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
             31 30 0:28 / /mnt/my\\040rdt rw,nosuid shared:9 - resctrl resctrl rw,mba_MBps\n";
        assert_eq!(listed(table), Some(PathBuf::from("/mnt/my rdt")));
        assert_eq!(listed("30 25 0:27 / /resctrl rw - tmpfs resctrl rw\n"), None);
    }

    #[test]
    fn schemata_are_put_together() {
        for (json, expected) in [
            (r#"{}"#, ""),
            (r#"{"l3CacheSchema": "L3:0=f"}"#, "L3:0=f\n"),
            (r#"{"memBwSchema": "MB:0=20"}"#, "MB:0=20\n"),
            (r#"{"l3CacheSchema": "L3:0=f\nMB:0=10\n", "memBwSchema": "MB:0=20"}"#, "L3:0=f\nMB:0=20\n"),
            (r#"{"l3CacheSchema": "L3:0=f\nMB:0=10"}"#, "L3:0=f\nMB:0=10\n"),
            (r#"{"l3CacheSchema": "L3:0=f", "schemata": ["L2:0=3", "L3:0=1"]}"#, "L3:0=f\nL2:0=3\nL3:0=1\n"),
        ] {
            assert_eq!(lines(&schemata(&serde_json::from_str(json).unwrap())), expected, "{json}");
        }
    }

    #[test]
    fn a_group_holds_what_it_says_in_other_words() {
        let present = "    MB:0=100;1= 50\n    L3:0=7ff;1=0c0\nL3CODE:0=1\n";
        for (line, same) in [
            ("L3:0=7ff;1=c0", true),
            ("L3:1=0C0", true),
            ("L3:0=7FF;", true),
            ("MB:1=50", true),
            ("MB:1=5", false),
            ("L3:2=7ff", false),
            ("L3:0=1", false),
            ("L2:0=1", false),
            ("nonsense", false),
            ("L3:0", false),
        ] {
            assert_eq!(holds(present, line), same, "{line}");
        }
    }

    #[test]
    fn where_a_group_is_and_what_goes_with_the_container() {
        let root = resctrl();
        let path = |name: &str| root.path().join(name);
        for (json, id, group, removed) in [
            (r#"{}"#, "new", "new", &["new"] as &[&str]),
            (r#"{}"#, "web", "web", &[]),
            (r#"{"enableMonitoring": true}"#, "new", "new", &["new/mon_groups/new", "new"]),
            (r#"{"enableCMT": true}"#, "new", "new", &["new/mon_groups/new", "new"]),
            (r#"{"closID": "gold"}"#, "new", "gold", &[]),
            (r#"{"closID": "gold", "enableMBM": true}"#, "new", "gold", &["gold/mon_groups/new"]),
            (r#"{"closID": "own", "schemata": ["L3:0=1"]}"#, "new", "own", &[]),
            (r#"{"closID": "/", "enableMonitoring": true}"#, "new", "", &["mon_groups/new"]),
        ] {
            let plan = Plan::new(root.path(), &serde_json::from_str(json).unwrap(), id).unwrap();
            assert_eq!(plan.group.join(""), path(group).join(""), "{json}");
            assert_eq!(plan.removed(), removed.iter().map(|name| path(name)).collect::<Vec<_>>(), "{json}");
        }
        let error = planned(root.path(), r#"{"closID": "none"}"#).unwrap_err().to_string();
        assert!(error.contains("does not exist, and there is no schema to make it with"), "{error}");
    }

    #[test]
    fn a_process_comes_to_its_group() {
        let root = resctrl();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        let own = planned(root.path(), r#"{"l3CacheSchema": "L3:0=00f;1=00f", "enableMonitoring": true}"#);
        own.unwrap().apply(42).unwrap().keep();
        assert!(read("web/schemata").starts_with("L3:0=00f;1=00f\n"));
        assert_eq!((read("web/tasks").as_str(), read("web/mon_groups/web/tasks").as_str()), ("42\n", "42\n"));

        let shared = r#"{"closID": "gold", "schemata": ["L3:0=7ff", "MB:1=100"]}"#;
        planned(root.path(), shared).unwrap().apply(43).unwrap().keep();
        assert_eq!(read("gold/tasks"), "43\n");
        let other = planned(root.path(), r#"{"closID": "gold", "l3CacheSchema": "L3:0=1"}"#).unwrap();
        let error = other.apply(44).map(Made::keep).unwrap_err().to_string();
        assert!(error.ends_with(r#"is there already, and is not "L3:0=1""#), "{error}");
        assert_eq!(read("gold/tasks"), "43\n");
    }

    #[test]
    fn what_fails_leaves_nothing_and_says_why() {
        let root = resctrl();
        fs::create_dir(root.path().join("info")).unwrap();
        fs::write(root.path().join("info/last_cmd_status"), "mask f00 is not contiguous\n").unwrap();
        let plan =
            Plan::new(root.path(), &serde_json::from_str(r#"{"schemata": ["L3:0=f00"]}"#).unwrap(), "new");
        // No kernel fills the new group, so its schemata cannot be written.
        let error = plan.unwrap().apply(42).map(Made::keep).unwrap_err().to_string();
        assert!(error.contains("write") && error.ends_with("(mask f00 is not contiguous)"), "{error}");
        assert!(!root.path().join("new").exists());
        remove(&[root.path().join("new")]).unwrap();
        assert!(remove(&[root.path().join("web")]).is_err(), "not empty");
    }

    #[test]
    fn an_update_is_one_write() {
        let root = resctrl();
        update(&root.path().join("gold"), "L3:0=3", "MB:0=20").unwrap();
        let text = fs::read_to_string(root.path().join("gold/schemata")).unwrap();
        assert!(text.starts_with("L3:0=3\nMB:0=20\n"), "{text}");
    }
}
