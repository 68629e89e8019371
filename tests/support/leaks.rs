//! What a container must not leave behind: processes, cgroups, mounts, state directories, descriptors.
//!
//! Leftovers are found by the bundle's unique name, so other tests may run at the same time. A mount counts
//! when it is new and does not carry the name of another test's bundle.

use super::Bundle;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Leaks {
    name: String,
    state_root: PathBuf,
    mounts: BTreeSet<String>,
    descriptors: BTreeSet<PathBuf>,
}

impl Leaks {
    /// Remembers what is there before the test does anything with the bundle.
    pub fn snapshot(bundle: &Bundle) -> Self {
        let name = bundle.id().to_string();
        let (mounts, descriptors) = (mounts(&name), descriptors(bundle.path()));
        Self { name, state_root: bundle.state_root(), mounts, descriptors }
    }

    /// Fails with the list of what is left, after a moment of grace for processes that are just ending.
    #[track_caller]
    pub fn assert_none(&self) {
        let mut left = Vec::new();
        for _ in 0..100 {
            left = self.found();
            if left.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("left behind by {:?}:\n  {}", self.name, left.join("\n  "));
    }

    fn found(&self) -> Vec<String> {
        let mut left: Vec<String> = processes(&self.name).map(|found| format!("process {found}")).collect();
        left.extend(cgroups(&self.name).iter().map(|path| format!("cgroup {}", path.display())));
        left.extend(mounts(&self.name).difference(&self.mounts).map(|line| format!("mount {line}")));
        let records = fs::read_dir(&self.state_root).into_iter().flatten().flatten();
        // Compiled filters are kept for all containers, and no id begins with a dot.
        let records = records.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        left.extend(records.map(|entry| format!("state {}", entry.path().display())));
        let base = self.state_root.parent().expect("the bundle's directory");
        left.extend(
            descriptors(base)
                .difference(&self.descriptors)
                .map(|path| format!("descriptor {}", path.display())),
        );
        left
    }
}

/// Processes, this one aside, whose cgroup, arguments, root or working directory name the bundle.
fn processes(name: &str) -> impl Iterator<Item = String> {
    let this = std::process::id().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    ids.filter(move |id| id.bytes().all(|byte| byte.is_ascii_digit()) && *id != this).filter_map(move |id| {
        let directory = Path::new("/proc").join(&id);
        // A process that ends meanwhile reads as empty, and then it is no leak.
        let read = |file: &str| {
            String::from_utf8_lossy(&fs::read(directory.join(file)).unwrap_or_default()).into_owned()
        };
        let link = |file: &str| fs::read_link(directory.join(file)).unwrap_or_default().display().to_string();
        let facts = [read("cgroup"), read("cmdline"), link("root"), link("cwd")];
        let ours = facts.iter().any(|fact| fact.contains(name));
        ours.then(|| format!("{id} ({})", read("cmdline").replace('\0', " ").trim()))
    })
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(path) = open.pop() {
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        open.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        if path.display().to_string().contains(name) {
            found.push(path);
        }
    }
    found
}

/// The mounts that are this bundle's or nobody's, without the ids that change.
fn mounts(name: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    let ours = |line: &&str| line.contains(name) || !line.contains("deja-test-");
    table.lines().filter(ours).map(|line| line.splitn(4, ' ').last().unwrap_or(line).to_string()).collect()
}

/// Files below `base` that this process holds open.
fn descriptors(base: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|path| path.starts_with(base))
        .collect()
}
