//! The containers of a root as they come, go and change, and the tuner that is told about it.
//!
//! One inotify descriptor tells everything: names in the root (containers and groups), records that are
//! replaced, and cgroup.events (frozen, thawed, empty).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{GROUPS, Places, Told};
use crate::cgroup::Mount;
use crate::container::{CgroupPlace, Container, Store};
use crate::error::{Failure, Kind};
use crate::fair::model::Key;
use crate::fair::terms::Asked;
use crate::fair::tuner::{Arrival, Event, Tuner};
use crate::sys::inotify::{self, Watched};
use crate::sys::{AsFd, BorrowedFd, OwnedFd};

pub struct Host {
    store: Store,
    pub tuner: Tuner,
    inotify: OwnedFd,
    root: i32,
    watches: BTreeMap<i32, String>,
    known: BTreeMap<String, Known>,
}

/// A container's directory that is watched.
#[derive(Default)]
struct Known {
    directory: Option<i32>,
    events: Option<i32>,
    key: Option<Key>,
    /// Why it is not tuned; said once.
    refused: Option<String>,
}

/// What a living container's record says.
struct Facts {
    place: CgroupPlace,
    asked: Asked,
    weight: Option<u16>,
}

impl Host {
    pub fn new(store: Store, tuner: Tuner) -> Result<Self> {
        store.make_root()?;
        let inotify = inotify::inotify()?;
        let root = watch(&inotify, store.root(), Watched::Names)?;
        Ok(Self { store, tuner, inotify, root, watches: BTreeMap::new(), known: BTreeMap::new() })
    }

    /// Looks at everything there is.
    pub fn scan(&mut self) -> Result<Vec<Event>> {
        let ids = self.store.list()?.unwrap_or_default();
        let ids: BTreeSet<String> = ids.into_iter().chain(self.known.keys().cloned()).collect();
        let mut events = Vec::new();
        events.extend(self.groups());
        ids.iter().for_each(|id| self.consider(id, &mut events));
        events.extend(self.tuner.react()?);
        Ok(events)
    }

    /// Looks at what has changed.
    pub fn notice(&mut self) -> Result<Vec<Event>> {
        let mut changed = BTreeSet::new();
        let (mut groups, mut lost) = (false, false);
        for notice in inotify::notices(&self.inotify)? {
            let name = notice.name.as_deref().map(|name| name.to_string_lossy().into_owned());
            if notice.watch < 0 {
                lost = true;
            } else if notice.watch == self.root {
                match name {
                    Some(name) if name == GROUPS => groups = true,
                    // Ours, and compiled filters.
                    Some(name) if name.starts_with('.') && !self.known.contains_key(&name) => {}
                    name => changed.extend(name),
                }
            } else if let Some(id) = self.watches.get(&notice.watch) {
                // Of a directory only the record counts; a cgroup's own file has no name here.
                if name.is_none_or(|name| name == "record.json") {
                    changed.insert(id.clone());
                }
                if notice.ended {
                    self.watches.remove(&notice.watch);
                }
            }
        }
        if lost {
            return self.scan();
        }
        let mut events = Vec::new();
        if groups {
            events.extend(self.groups());
        }
        changed.iter().for_each(|id| self.consider(id, &mut events));
        if groups || !changed.is_empty() {
            events.extend(self.tuner.react()?);
        }
        Ok(events)
    }

    pub fn tick(&mut self, at_us: u64, watching: bool) -> Result<Vec<Event>> {
        let (gone, mut events) = self.tuner.tick(at_us, watching);
        for key in &gone {
            events.extend(self.tuner.leave(*key));
            self.known
                .values_mut()
                .filter(|known| known.key == Some(*key))
                .for_each(|known| known.key = None);
        }
        if !gone.is_empty() {
            events.extend(self.tuner.react()?);
        }
        Ok(events)
    }

    fn groups(&mut self) -> Option<Event> {
        match Told::load(&Places::of(&self.store).groups).and_then(|told| told.terms()) {
            Ok(groups) => {
                self.tuner.set_groups(groups);
                None
            }
            Err(error) => Some(Event::Failed { container: String::new(), why: format!("{error:#}") }),
        }
    }

    /// Brings what is known of a container in line with what is on disk.
    fn consider(&mut self, id: &str, events: &mut Vec<Event>) {
        let mut known = self.known.remove(id).unwrap_or_default();
        if known.directory.is_none() {
            // One that is gone again was not there to be watched.
            known.directory = watch(&self.inotify, &self.store.root().join(id), Watched::Names).ok();
            known.directory.map(|watch| self.watches.insert(watch, id.to_owned()));
        }
        match self.facts(id) {
            Ok(Some(facts)) => match self.tell(id, &mut known, &facts) {
                Ok(told) => events.extend(told),
                // It has ended while it was looked at.
                Err(_) if !matches!(self.facts(id), Ok(Some(_))) => {}
                Err(error) => known.refuse(id, &error, events),
            },
            Ok(None) => events.extend(known.key.take().and_then(|key| self.tuner.leave(key))),
            Err(error) => known.refuse(id, &error, events),
        }
        if self.store.root().join(id).exists() {
            self.known.insert(id.to_owned(), known);
            return;
        }
        events.extend(known.key.take().and_then(|key| self.tuner.leave(key)));
        for watch in [known.directory, known.events].into_iter().flatten() {
            self.watches.remove(&watch);
            // The kernel has ended the watch of what is gone.
            inotify::remove_watch(&self.inotify, watch).ok();
        }
    }

    /// None: nothing lives there (yet, or any more).
    fn facts(&self, id: &str) -> Result<Option<Facts>> {
        let container = match self.store.load(id) {
            Err(error) if missing(&error) => return Ok(None),
            container => container?,
        };
        if container.living_pid()?.is_none() {
            return Ok(None);
        }
        let Container { record, .. } = &container;
        let Some(place) = record.cgroup.clone().filter(|place| !place.path.is_empty()) else {
            bail!("it has no cgroup");
        };
        if !place.made.contains(&place.path) && place.unit.is_empty() {
            bail!("its cgroup was there before it, so it is not deja's to tune");
        }
        let weight = record.fair.as_ref().and_then(|sharing| sharing.weight);
        Ok(Some(Facts { place, asked: super::asked(&container)?, weight }))
    }

    fn tell(&mut self, id: &str, known: &mut Known, facts: &Facts) -> Result<Option<Event>> {
        if let Some(key) = known.key {
            return self.tuner.change(key, &facts.asked, facts.weight);
        }
        let mount = CString::new(facts.place.mount.as_str()).context("the record's cgroup mount")?;
        let mount = Mount::at(&mount)?.with_context(|| format!("no cgroup2 at {mount:?}"))?;
        let path = facts.place.path.as_str();
        let (key, event) = self.tuner.arrive(Arrival {
            name: id,
            mount: &mount,
            path,
            asked: facts.asked.clone(),
            weight: facts.weight,
            unit: &facts.place.unit,
        })?;
        known.key = Some(key);
        let file = mount.full(path) + "/cgroup.events";
        known.events = watch(&self.inotify, Path::new(&file), Watched::Content).ok();
        known.events.map(|watch| self.watches.insert(watch, id.to_owned()));
        Ok(Some(event))
    }
}

impl AsFd for Host {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Known {
    fn refuse(&mut self, id: &str, error: &anyhow::Error, events: &mut Vec<Event>) {
        let why = format!("{error:#}");
        if self.refused.as_ref() != Some(&why) {
            events.push(Event::Failed { container: id.to_owned(), why: why.clone() });
            self.refused = Some(why);
        }
    }
}

fn missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some_and(|failure| failure.kind == Kind::NotFound)
}

fn watch(inotify: &OwnedFd, path: &Path, watched: Watched) -> Result<i32> {
    let c_path = CString::new(<OsStr as OsStrExt>::as_bytes(path.as_os_str()))?;
    inotify::add_watch(inotify, &c_path, watched).with_context(|| format!("watch {path:?}"))
}
