//! What a cgroup had before it was tuned, writing other settings to it, and the journal from which what it had
//! is restored after a crash.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::policy::Setting;
use super::squeeze::{self, Memory};
use crate::cgroup::limits::Write;
use crate::cgroup::{Cgroup, Gauge, Mount, apply};

/// The period of limits that are written here, and the kernel's own default.
const PERIOD_US: f64 = 100_000.0;
const LEAST_QUOTA_US: f64 = 1000.0;

/// The cpu controller's files that are ever written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    pub weight: u16,
    pub idle: bool,
    /// The text of cpu.max.
    pub max: String,
    /// What is in the files that memory terms are written to, if there are any.
    #[serde(default)]
    pub memory: BTreeMap<String, String>,
}

impl Base {
    /// None: the cgroup has no cpu controller, so there is nothing to tune.
    pub fn read(cgroup: &Cgroup) -> Result<Option<Self>> {
        let Some(knobs) = Knobs::open(cgroup)? else { return Ok(None) };
        let Some(base) = knobs.read() else { return Ok(None) };
        let mut memory = BTreeMap::new();
        for file in squeeze::FILES {
            let name = std::ffi::CString::new(file).expect("the names of files hold no NUL byte");
            if let Some(text) = cgroup.content(&name)? {
                memory.insert(file.to_owned(), text.trim().to_owned());
            }
        }
        Ok(Some(Self { memory, ..base }))
    }

    /// The writes that bring the memory files from what they are in `now` to what they were, and over that to
    /// what `terms` say.
    pub fn memory_writes(&self, now: &Base, terms: &Memory) -> Vec<Write> {
        let asked = terms.files();
        let wanted = self
            .memory
            .iter()
            .map(|(file, text)| (file, asked.get(file.as_str()).map_or(text.as_str(), String::as_str)));
        let differs = |(file, text): &(&String, &str)| {
            now.memory.get(*file).is_some_and(|now| now != text && number(now) != number(text))
        };
        wanted.filter(differs).map(|(file, text)| Write::new(file.clone(), text)).collect()
    }

    /// cpu.max as CPUs.
    pub fn limit(&self) -> f64 {
        let mut words = self.max.split_whitespace().map(|word| word.parse::<f64>().ok());
        match (words.next().flatten(), words.next().flatten()) {
            (Some(quota), Some(period)) if period > 0.0 => quota / period,
            _ => f64::INFINITY,
        }
    }

    pub fn setting(&self) -> Setting {
        Setting { weight: self.weight, idle: self.idle, limit: self.limit() }
    }

    /// The writes that lead from one setting to another. The limit that was there is brought back as it was
    /// written. An idle cgroup takes no weight, so being idle ends before and begins after.
    pub fn writes(&self, from: &Setting, to: &Setting) -> Vec<Write> {
        let mut writes = Vec::new();
        if from.idle && !to.idle {
            writes.push(Write::new("cpu.idle", "0"));
        }
        if !to.idle && (from.idle || from.weight != to.weight) {
            writes.push(Write::new("cpu.weight", to.weight.to_string()));
        }
        if to.idle && !from.idle {
            writes.push(Write::new("cpu.idle", "1"));
        }
        if from.limit != to.limit {
            let text = match to.limit {
                limit if limit == self.limit() => self.max.clone(),
                limit if limit.is_finite() => {
                    format!("{:.0} {PERIOD_US:.0}", (limit * PERIOD_US).max(LEAST_QUOTA_US))
                }
                _ => "max".to_owned(),
            };
            writes.push(Write::new("cpu.max", text));
        }
        writes
    }

    /// The writes that say all of a setting, whatever was there.
    pub fn all(&self, to: &Setting) -> Vec<Write> {
        let level = match to.idle {
            true => Write::new("cpu.idle", "1"),
            false => Write::new("cpu.weight", to.weight.to_string()),
        };
        let unlike = Setting { limit: f64::NAN, ..*to };
        [vec![level], self.writes(&unlike, to)].concat()
    }

    pub fn change(&self, cgroup: &Cgroup, from: &Setting, to: &Setting) -> Result<()> {
        apply(cgroup, &self.writes(from, to))
    }
}

/// The cpu controller's files, kept open to be looked at now and then.
pub struct Knobs {
    weight: Gauge,
    idle: Option<Gauge>,
    max: Option<Gauge>,
}

impl Knobs {
    /// None: the cgroup has no cpu controller.
    pub fn open(cgroup: &Cgroup) -> Result<Option<Self>> {
        let Some(weight) = Gauge::open(cgroup, c"cpu.weight")? else { return Ok(None) };
        let (idle, max) = (Gauge::open(cgroup, c"cpu.idle")?, Gauge::open(cgroup, c"cpu.max")?);
        Ok(Some(Self { weight, idle, max }))
    }

    /// What they say, without anything about memory; None: the cgroup is gone.
    pub fn read(&self) -> Option<Base> {
        // An idle cgroup shows weight 0 and has the usual one when it is idle no longer.
        let weight = |text: &str| Some(text.trim().parse().ok().filter(|weight| *weight > 0).unwrap_or(100));
        Some(Base {
            weight: self.weight.read(weight)?,
            idle: self
                .idle
                .as_ref()
                .is_some_and(|file| file.read(|text| Some(text.trim() == "1")) == Some(true)),
            max: self
                .max
                .as_ref()
                .and_then(|file| file.read(|text| Some(text.trim().to_owned())))
                .unwrap_or_default(),
            memory: BTreeMap::new(),
        })
    }
}

/// As the kernel keeps it: whole pages.
fn number(text: &str) -> Option<u64> {
    const PAGE: u64 = 4096;
    text.parse::<u64>().ok().map(|bytes| bytes / PAGE)
}

/// What has to be brought back: by the path of the cgroup below its mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    pub mount: String,
    pub cgroups: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Of the directory: another cgroup of the same name has another.
    pub number: u64,
    pub base: Base,
    /// The unit of whoever else has to hear of every change; empty: there is nobody.
    #[serde(default)]
    pub unit: String,
}

/// What a unit's manager has to hear, or it would write something else again some day.
#[derive(Debug, Clone, PartialEq)]
pub struct Tidings {
    pub unit: String,
    pub writes: Vec<Write>,
}

const VERSION: u32 = 1;

impl Journal {
    pub fn new(mount: &str, cgroups: BTreeMap<String, Entry>) -> Self {
        Self { version: VERSION, mount: mount.to_owned(), cgroups }
    }

    /// None: there is none, so whoever tuned before has tidied up.
    pub fn load(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.with_context(|| format!("read {path:?}"))?,
        };
        let journal: Self = serde_json::from_slice(&bytes).with_context(|| format!("read {path:?}"))?;
        if journal.version != VERSION {
            bail!("read {path:?}: it was written by another deja (version {})", journal.version);
        }
        Ok(Some(journal))
    }

    /// Replaces the file in one step. The cgroups it is about are gone after a crash of the machine, so it
    /// need not be on the disk.
    pub fn save(&self, path: &Path) -> Result<()> {
        let draft = path.with_extension("new");
        let bytes = serde_json::to_vec(self).expect("names and numbers are always JSON");
        fs::write(&draft, bytes).with_context(|| format!("write {draft:?}"))?;
        fs::rename(&draft, path).with_context(|| format!("replace {path:?}"))
    }

    pub fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {path:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Brings back what the cgroups had that are still the same.
    pub fn restore(&self) -> Result<Restored> {
        let place = std::ffi::CString::new(self.mount.as_str()).context("the journal's mount")?;
        let mut restored = Restored::default();
        let Some(mount) = Mount::at(&place)? else { return Ok(restored) };
        for (path, entry) in &self.cgroups {
            match entry.restore(&mount, path) {
                Ok(true) => {
                    restored.paths.push(path.clone());
                    restored.tidings.extend(entry.tidings());
                }
                Ok(false) => {}
                Err(error) => restored.failed.push(error),
            }
        }
        Ok(restored)
    }
}

/// Which cgroups had something else, whom to tell, and what went wrong.
#[derive(Debug, Default)]
pub struct Restored {
    pub paths: Vec<String>,
    pub tidings: Vec<Tidings>,
    pub failed: Vec<anyhow::Error>,
}

impl Entry {
    fn tidings(&self) -> Option<Tidings> {
        let memory = self.base.memory.iter().map(|(file, text)| Write::new(file.clone(), text.as_str()));
        let writes = self.base.all(&self.base.setting()).into_iter().chain(memory).collect();
        (!self.unit.is_empty()).then(|| Tidings { unit: self.unit.clone(), writes })
    }

    fn restore(&self, mount: &Mount, path: &str) -> Result<bool> {
        let Some(cgroup) = Cgroup::open(mount, path)? else { return Ok(false) };
        if cgroup.number()? != self.number {
            return Ok(false);
        }
        let Some(now) = Base::read(&cgroup)? else { return Ok(false) };
        if now == self.base {
            return Ok(false);
        }
        apply(&cgroup, &self.base.memory_writes(&now, &Memory::default()))?;
        self.base.change(&cgroup, &now.setting(), &self.base.setting()).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(base: &Base, from: Setting, to: Setting) -> String {
        base.writes(&from, &to).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn only_what_differs_is_written_and_in_an_order_the_kernel_takes() {
        let base = Base { weight: 39, idle: false, max: "50000 200000".into(), memory: BTreeMap::new() };
        assert_eq!(base.limit(), 0.25);
        let quarter = base.setting();
        let idle = Setting { idle: true, ..quarter };
        let heavy = Setting { weight: 400, ..quarter };
        let free = Setting { limit: f64::INFINITY, ..quarter };
        let half = Setting { limit: 0.5, ..quarter };
        let table = [
            (quarter, quarter, ""),
            (quarter, heavy, r#"cpu.weight = "400""#),
            (quarter, idle, r#"cpu.idle = "1""#),
            (idle, heavy, r#"cpu.idle = "0"; cpu.weight = "400""#),
            (idle, quarter, r#"cpu.idle = "0"; cpu.weight = "39""#),
            (idle, Setting { weight: 7, ..idle }, ""),
            (quarter, half, r#"cpu.max = "50000 100000""#),
            (half, quarter, r#"cpu.max = "50000 200000""#),
            (half, free, r#"cpu.max = "max""#),
            (half, Setting { limit: 0.001, ..half }, r#"cpu.max = "1000 100000""#),
        ];
        for (from, to, expected) in table {
            assert_eq!(text(&base, from, to), expected, "{from:?} to {to:?}");
        }
        let all = |to: &Setting| base.all(to).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert_eq!(all(&half), r#"cpu.weight = "39"; cpu.max = "50000 100000""#);
        assert_eq!(all(&idle), r#"cpu.idle = "1"; cpu.max = "50000 200000""#);
        assert_eq!(Base { max: "max 100000".into(), ..base }.limit(), f64::INFINITY);
    }

    #[test]
    fn memory_files_follow_terms_and_come_back() {
        let memory = |texts: [&str; 3]| {
            squeeze::FILES.iter().zip(texts).map(|(file, text)| (file.to_string(), text.to_owned())).collect()
        };
        let base = |texts| Base { weight: 100, idle: false, max: "max".into(), memory: memory(texts) };
        let (before, after) = (base(["0", "max", "max"]), base(["8192", "61997056", "67108864"]));
        let terms = Memory { reservation: Some(8192), limit: Some(67_108_864), squeeze: false };
        let text = |writes: Vec<Write>| writes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert_eq!(
            text(before.memory_writes(&before, &terms)),
            r#"memory.high = "60398795"; memory.max = "67108864"; memory.min = "8192""#
        );
        assert_eq!(text(before.memory_writes(&before, &Memory::default())), "");
        let back = r#"memory.high = "max"; memory.max = "max"; memory.min = "0""#;
        assert_eq!(text(before.memory_writes(&after, &Memory::default())), back);
        // The kernel rounds to pages; that is no difference.
        let rounded = base(["8192", "60395520", "67108864"]);
        assert_eq!(text(before.memory_writes(&rounded, &terms)), "");
    }

    #[test]
    fn a_journal_comes_back_and_what_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        assert_eq!(Journal::load(&path).unwrap(), None);
        let memory = [("memory.max".to_owned(), "max".to_owned())].into();
        let base = Base { weight: 100, idle: true, max: "max 100000".into(), memory };
        let journal = Journal::new(
            "/c",
            [("a/b".to_owned(), Entry { number: 7, base, unit: "b.scope".to_owned() })].into(),
        );
        journal.save(&path).unwrap();
        assert_eq!(Journal::load(&path).unwrap(), Some(journal));
        fs::write(&path, r#"{"version":9,"mount":"/c","cgroups":{}}"#).unwrap();
        assert!(Journal::load(&path).unwrap_err().to_string().contains("another deja (version 9)"));
        fs::write(&path, "{").unwrap();
        assert!(Journal::load(&path).is_err());
        Journal::remove(&path).unwrap();
        Journal::remove(&path).unwrap();
    }
}
