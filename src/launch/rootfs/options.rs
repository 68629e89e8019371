//! The words a mount may carry in `options`, each with its one meaning. Pure.
//!
//! A word that is not in the table belongs to the file system and goes to it as it is; a bind mount has no file
//! system to give it to and refuses it.

use std::ffi::CString;

use anyhow::Result;

use crate::error::Failure;
use crate::spec::{IdMapping, Str};
use crate::sys::mount::{Propagation, attribute};

#[derive(Clone, Copy)]
enum Meaning {
    /// The word asks for nothing: `defaults`, and the opposites of what is never on.
    Nothing,
    Set(u64),
    Clear(u64),
    /// Access time modes exclude each other: asking for one forgets the one before.
    Access(u64),
    /// Forgets this access time mode, if it was asked for.
    NoAccess(u64),
    SetBelow(u64),
    ClearBelow(u64),
    AccessBelow(u64),
    Spread(Propagation, bool),
    /// A flag of the whole file system; bind mounts do not touch it.
    FileSystem,
    /// As `FileSystem`, for those that not every file system knows.
    Perhaps,
    Bind(bool),
    Remount,
    CopyUp,
    CopyLink,
    SourceNoFollow,
    DestinationNoFollow,
    IdMap(bool),
}

use Meaning::*;

const TABLE: &[(&str, Meaning)] = &[
    ("acl", Perhaps),
    ("async", FileSystem),
    ("atime", Access(attribute::RELATIME)),
    ("bind", Bind(false)),
    ("copy-symlink", CopyLink),
    ("defaults", Nothing),
    ("dest-nofollow", DestinationNoFollow),
    ("dev", Clear(attribute::NODEV)),
    ("diratime", Clear(attribute::NODIRATIME)),
    ("dirsync", FileSystem),
    ("exec", Clear(attribute::NOEXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Perhaps),
    ("lazytime", FileSystem),
    ("loud", Nothing),
    ("mand", FileSystem),
    ("noacl", Perhaps),
    ("noatime", Access(attribute::NOATIME)),
    ("nodev", Set(attribute::NODEV)),
    ("nodiratime", Set(attribute::NODIRATIME)),
    ("noexec", Set(attribute::NOEXEC)),
    ("noiversion", Perhaps),
    ("nolazytime", FileSystem),
    ("nomand", FileSystem),
    ("norelatime", NoAccess(attribute::RELATIME)),
    ("nostrictatime", NoAccess(attribute::STRICTATIME)),
    ("nosuid", Set(attribute::NOSUID)),
    ("nosymfollow", Set(attribute::NOSYMFOLLOW)),
    ("private", Spread(Propagation::Private, false)),
    ("rasync", Nothing),
    ("ratime", AccessBelow(attribute::RELATIME)),
    ("rbind", Bind(true)),
    ("rdev", ClearBelow(attribute::NODEV)),
    ("rdiratime", ClearBelow(attribute::NODIRATIME)),
    ("rdirsync", Perhaps),
    ("relatime", Access(attribute::RELATIME)),
    ("remount", Remount),
    ("rexec", ClearBelow(attribute::NOEXEC)),
    ("ridmap", IdMap(true)),
    ("rmand", Perhaps),
    ("rnoatime", AccessBelow(attribute::NOATIME)),
    ("rnodev", SetBelow(attribute::NODEV)),
    ("rnodiratime", SetBelow(attribute::NODIRATIME)),
    ("rnoexec", SetBelow(attribute::NOEXEC)),
    ("rnomand", Nothing),
    ("rnorelatime", AccessBelow(attribute::RELATIME)),
    ("rnostrictatime", AccessBelow(attribute::RELATIME)),
    ("rnosuid", SetBelow(attribute::NOSUID)),
    ("rnosymfollow", SetBelow(attribute::NOSYMFOLLOW)),
    ("ro", Set(attribute::RDONLY)),
    ("rprivate", Spread(Propagation::Private, true)),
    ("rrelatime", AccessBelow(attribute::RELATIME)),
    ("rro", SetBelow(attribute::RDONLY)),
    ("rrw", ClearBelow(attribute::RDONLY)),
    ("rshared", Spread(Propagation::Shared, true)),
    ("rslave", Spread(Propagation::Slave, true)),
    ("rstrictatime", AccessBelow(attribute::STRICTATIME)),
    ("rsuid", ClearBelow(attribute::NOSUID)),
    ("rsymfollow", ClearBelow(attribute::NOSYMFOLLOW)),
    ("rsync", Perhaps),
    ("runbindable", Spread(Propagation::Unbindable, true)),
    ("rw", Clear(attribute::RDONLY)),
    ("shared", Spread(Propagation::Shared, false)),
    ("silent", Nothing),
    ("slave", Spread(Propagation::Slave, false)),
    ("src-nofollow", SourceNoFollow),
    ("strictatime", Access(attribute::STRICTATIME)),
    ("suid", Clear(attribute::NOSUID)),
    ("symfollow", Clear(attribute::NOSYMFOLLOW)),
    ("sync", FileSystem),
    ("tmpcopyup", CopyUp),
    ("unbindable", Spread(Propagation::Unbindable, false)),
];

/// Every word in the table, sorted: what `features` tells its callers.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.0)
}

/// What happens to the propagation of a mount, as `rootfsPropagation` or an option says.
pub fn propagation(word: &str) -> Option<(Propagation, bool)> {
    match meaning(word) {
        Some(Spread(kind, recursive)) => Some((kind, recursive)),
        _ => None,
    }
}

fn meaning(word: &str) -> Option<Meaning> {
    TABLE.binary_search_by_key(&word, |entry| entry.0).ok().map(|place| TABLE[place].1)
}

/// One setting of a file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    pub key: CString,
    pub value: Option<CString>,
    /// A file system that does not know it goes without.
    pub optional: bool,
}

impl Setting {
    pub fn new(key: &str, value: Option<&str>) -> Result<Self> {
        let value = value.map(CString::new).transpose()?;
        Ok(Self { key: CString::new(key)?, value, optional: false })
    }
}

/// Attributes to set and to clear, as they were asked for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// An access time mode was asked for.
    pub access: Option<u64>,
}

impl Attributes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Everything to set, for a mount that has no attributes yet.
    pub fn bits(&self) -> u64 {
        self.set | self.access.unwrap_or(attribute::RELATIME)
    }

    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }
}

/// The ids of a mount are to be mapped: with the maps in the option, in the mount, or of the container.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct IdMapOption {
    pub recursive: bool,
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// The options of one mount, understood.
#[derive(Default, PartialEq, Debug)]
pub struct Options {
    /// A bind mount, and whether it takes along what is mounted below its source.
    pub bind: Option<bool>,
    pub remount: bool,
    pub top: Attributes,
    pub below: Attributes,
    pub propagation: Vec<(Propagation, bool)>,
    pub settings: Vec<Setting>,
    /// The first word the table does not know.
    pub unknown: Option<String>,
    pub copy_up: bool,
    pub copy_link: bool,
    pub source_nofollow: bool,
    pub destination_nofollow: bool,
    pub idmap: Option<IdMapOption>,
}

impl Options {
    /// `uids` and `gids` are the container's own maps, which relative id maps refer to.
    pub fn parse(words: &[Str<'_>], uids: &[IdMapping], gids: &[IdMapping]) -> Result<Self> {
        let mut options = Options::default();
        // podman --systemd=always sends an empty one.
        for word in words.iter().filter(|word| !word.is_empty()) {
            match meaning(word) {
                Some(meaning) => options.apply(word, meaning)?,
                None if word.starts_with("idmap=") => {
                    let explicit = explicit_idmap(&word["idmap=".len()..], uids, gids)?;
                    let recursive = options.idmap.is_some_and(|idmap| idmap.recursive);
                    options.idmap = Some(IdMapOption { recursive, ..explicit });
                }
                None => options.data(word)?,
            }
        }
        if options.copy_link && (options.source_nofollow || options.destination_nofollow) {
            let message = "mount option copy-symlink excludes src-nofollow and dest-nofollow";
            return Err(Failure::input(message).into());
        }
        Ok(options)
    }

    /// Those of a new file system, which has nothing below it yet: what is asked for all of it is asked for its mount.
    pub fn of_one_mount(mut self) -> Self {
        let Attributes { set, clear, access } = std::mem::take(&mut self.below);
        self.top.set(set);
        self.top.clear(clear);
        self.top.access = access.or(self.top.access);
        self
    }

    fn apply(&mut self, word: &str, meaning: Meaning) -> Result<()> {
        match meaning {
            Nothing => {}
            Set(bits) => self.top.set(bits),
            Clear(bits) => self.top.clear(bits),
            Access(mode) => self.top.access = Some(mode),
            NoAccess(mode) => self.top.access = self.top.access.filter(|asked| *asked != mode),
            SetBelow(bits) => self.below.set(bits),
            ClearBelow(bits) => self.below.clear(bits),
            AccessBelow(mode) => self.below.access = Some(mode),
            Spread(kind, recursive) => self.propagation.push((kind, recursive)),
            FileSystem => self.settings.push(Setting::new(word, None)?),
            Perhaps => {
                let word = word.strip_prefix('r').unwrap_or(word);
                self.settings.push(Setting { optional: true, ..Setting::new(word, None)? });
            }
            Bind(recursive) => self.bind = Some(recursive || self.bind == Some(true)),
            Remount => self.remount = true,
            CopyUp => self.copy_up = true,
            CopyLink => self.copy_link = true,
            SourceNoFollow => self.source_nofollow = true,
            DestinationNoFollow => self.destination_nofollow = true,
            IdMap(recursive) => self.idmap.get_or_insert_default().recursive |= recursive,
        }
        Ok(())
    }

    fn data(&mut self, word: &str) -> Result<()> {
        self.unknown.get_or_insert_with(|| word.to_owned());
        let setting = match word.split_once('=') {
            Some((key, value)) => Setting::new(key, Some(value))?,
            None => Setting::new(word, None)?,
        };
        // Of two values for one key the last counts, as in mount(8); overlay's lists of layers are no such keys.
        let single = setting.value.is_some() && !setting.key.to_bytes().ends_with(b"+");
        match self.settings.iter_mut().find(|other| single && other.key == setting.key) {
            Some(other) => *other = setting,
            None => self.settings.push(setting),
        }
        Ok(())
    }
}

/// `uids=0-1000-10#10-2000-5;gids=@0-0-10`: file system id, host id, count; with `@` the second is a container id.
fn explicit_idmap(text: &str, uids: &[IdMapping], gids: &[IdMapping]) -> Result<IdMapOption> {
    let mut idmap = IdMapOption::default();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        if let Some(list) = part.strip_prefix("uids=") {
            idmap.uids = explicit_maps(list, uids)?;
        } else if let Some(list) = part.strip_prefix("gids=") {
            idmap.gids = explicit_maps(list, gids)?;
        } else {
            return Err(Failure::input(format!("mount option idmap: unknown part {part:?}")).into());
        }
    }
    Ok(idmap)
}

fn explicit_maps(list: &str, container: &[IdMapping]) -> Result<Vec<IdMapping>> {
    let bad =
        || Failure::input(format!("mount option idmap: {list:?} is not a list like \"0-1000-10#10-2000-5\""));
    let mut maps = Vec::new();
    for triple in list.split('#').filter(|triple| !triple.is_empty()) {
        let (relative, numbers) = match triple.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, triple),
        };
        let mut numbers = numbers.split('-').map(|number| number.parse::<u32>());
        let mut next = || numbers.next().and_then(|number| number.ok()).ok_or_else(bad);
        let mut map = IdMapping { container_id: next()?, host_id: next()?, size: next()? };
        if numbers.next().is_some() {
            return Err(bad().into());
        }
        if relative {
            map.host_id = on_host(map.host_id, container).ok_or_else(|| {
                let message = format!("mount option idmap: id {} of {list:?} is not mapped", map.host_id);
                Failure::input(message)
            })?;
        }
        maps.push(map);
    }
    Ok(maps)
}

fn on_host(id: u32, maps: &[IdMapping]) -> Option<u32> {
    let map =
        maps.iter().find(|map| id.checked_sub(map.container_id).is_some_and(|offset| offset < map.size))?;
    map.host_id.checked_add(id - map.container_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options> {
        let words: Vec<Str> = words.iter().map(|word| Str::new(word.to_string()).unwrap()).collect();
        let container = [IdMapping { container_id: 0, host_id: 100_000, size: 10 }];
        Options::parse(&words, &container, &container)
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        let names: Vec<_> = option_names().collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }

    #[test]
    fn the_last_word_counts() {
        let options = parse(&["nosuid", "ro", "suid", "rw", "ro"]).unwrap();
        assert_eq!(options.top.set, attribute::RDONLY);
        assert_eq!(options.top.clear, attribute::NOSUID);
        assert_eq!(parse(&["mode=755", "mode=700"]).unwrap().settings.len(), 1);
    }

    #[test]
    fn an_empty_word_is_no_option() {
        let options = parse(&["nosuid", ""]).unwrap();
        assert!(options.settings.is_empty() && options.unknown.is_none());
    }

    #[test]
    fn access_time_modes_exclude_each_other() {
        assert_eq!(parse(&["noatime", "strictatime"]).unwrap().top.bits(), attribute::STRICTATIME);
        assert_eq!(parse(&["strictatime", "nostrictatime"]).unwrap().top.access, None);
        // Without a mode the kernel's own is relatime.
        assert_eq!(parse(&["rnorelatime"]).unwrap().below.access, Some(attribute::RELATIME));
        assert_eq!(
            parse(&["noatime", "nodiratime"]).unwrap().top.bits(),
            attribute::NOATIME | attribute::NODIRATIME
        );
        assert_eq!(parse(&["rnoatime"]).unwrap().below.access, Some(attribute::NOATIME));
    }

    #[test]
    fn bind_and_rbind_together_are_recursive() {
        assert_eq!(parse(&["rbind", "bind"]).unwrap().bind, Some(true));
        assert_eq!(parse(&["bind"]).unwrap().bind, Some(false));
        assert_eq!(parse(&["ro"]).unwrap().bind, None);
    }

    #[test]
    fn what_is_unknown_goes_to_the_file_system() {
        let options = parse(&["nosuid", "size=64k", "newinstance", "acl"]).unwrap();
        let keys: Vec<_> = options.settings.iter().map(|s| s.key.to_str().unwrap()).collect();
        assert_eq!(keys, ["size", "newinstance", "acl"]);
        assert_eq!(options.unknown.as_deref(), Some("size=64k"));
        assert!(options.settings[2].optional && !options.settings[0].optional);
    }

    #[test]
    fn id_maps_in_an_option() {
        let idmap = parse(&["idmap=uids=0-1000-10#10-2000-5;gids=@5-3-1"]).unwrap().idmap.unwrap();
        let triples = |maps: &[IdMapping]| -> Vec<_> {
            maps.iter().map(|m| (m.container_id, m.host_id, m.size)).collect()
        };
        assert_eq!(triples(&idmap.uids), [(0, 1000, 10), (10, 2000, 5)]);
        assert_eq!(triples(&idmap.gids), [(5, 100_003, 1)]);
        for bad in
            ["idmap=uids=0-1", "idmap=uids=0-1-2-3", "idmap=uids=a-1-2", "idmap=gids=@0-99-1", "idmap=x=1"]
        {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn copying_a_link_excludes_following_rules() {
        assert!(parse(&["bind", "copy-symlink", "src-nofollow"]).is_err());
        assert!(parse(&["bind", "copy-symlink"]).is_ok());
    }
}
