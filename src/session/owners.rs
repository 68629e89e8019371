//! Whose files a store of somebody who is not root can hold: the ids of the user namespace in which its layers are made.
//! Root inside is whoever owns the store; the others are those that /etc/subuid and /etc/subgid give. The store remembers
//! them, because its files mean nothing without.

use anyhow::{Context, Result, bail, ensure};

use super::delta::{Delta, Item};
use super::store::Store;
use super::tree::Entry;

/// So many ids from `inside` on are those from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    pub users: Vec<Range>,
    pub groups: Vec<Range>,
}

/// The file in the store, and its first line.
const NAME: &str = "owners";
const HEADER: &str = "deja session owners 1\n";

impl Range {
    fn covers(&self, other: &Range) -> bool {
        let reach = |first: u32, count: u32| u64::from(first) + u64::from(count);
        other.inside >= self.inside
            && reach(other.inside, other.count) <= reach(self.inside, self.count)
            && other.inside - self.inside == other.outside.wrapping_sub(self.outside)
    }

    fn place(first: u32, count: u32, id: u32) -> Option<u32> {
        id.checked_sub(first).filter(|place| *place < count)
    }
}

/// The own id as root, and then what was given, a first id and how many.
fn ranges(own: u32, given: &[(u32, u32)]) -> Vec<Range> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut next: u32 = 1;
    for (outside, count) in given.iter().filter(|(_, count)| *count > 0) {
        // The last number is nobody's id.
        let count = (*count).min(u32::MAX - next);
        ranges.push(Range { inside: next, outside: *outside, count });
        next += count;
    }
    ranges
}

impl Owners {
    pub fn new((uid, users): (u32, &[(u32, u32)]), (gid, groups): (u32, &[(u32, u32)])) -> Self {
        // One without the other could hold next to nothing that others make.
        match users.is_empty() || groups.is_empty() {
            true => Self { users: ranges(uid, &[]), groups: ranges(gid, &[]) },
            false => Self { users: ranges(uid, users), groups: ranges(gid, groups) },
        }
    }

    /// There is root, and nobody else.
    pub fn is_alone(&self) -> bool {
        self.users.len() == 1
    }

    pub fn has_group(&self, id: u32) -> bool {
        self.groups.iter().any(|range| Range::place(range.inside, range.count, id).is_some())
    }

    fn covers(&self, other: &Self) -> bool {
        let all = |wide: &[Range], narrow: &[Range]| {
            narrow.iter().all(|one| wide.iter().any(|range| range.covers(one)))
        };
        all(&self.users, &other.users) && all(&self.groups, &other.groups)
    }

    /// Those the store is used with: what it was made with stays true, and more may come.
    pub fn choose(recorded: Option<Self>, available: Self) -> Self {
        match recorded {
            Some(recorded) if !available.covers(&recorded) => recorded,
            _ => available,
        }
    }

    fn text(&self) -> String {
        let lines = |word: &str, ranges: &[Range]| -> String {
            let line = |range: &Range| {
                let Range { inside, outside, count } = range;
                format!("{word} {inside} {outside} {count}\n")
            };
            ranges.iter().map(line).collect()
        };
        format!("{HEADER}{}{}", lines("user", &self.users), lines("group", &self.groups))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut owners = Self::default();
        let lines = text.strip_prefix(HEADER).context("another version of deja wrote it")?;
        for line in lines.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [word, numbers @ ..] = words.as_slice() else { bail!("an empty line") };
            let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<u32>, _>>();
            let [inside, outside, count] = numbers?[..] else { bail!("{line:?} is no range") };
            let range = Range { inside, outside, count };
            match *word {
                "user" => owners.users.push(range),
                "group" => owners.groups.push(range),
                _ => bail!("{line:?} is no range"),
            }
        }
        ensure!(!owners.users.is_empty() && !owners.groups.is_empty(), "it ends too early");
        Ok(owners)
    }

    /// What the store was used with; None: nothing was made in it yet that belongs to anybody.
    pub fn read(store: &Store) -> Result<Option<Self>> {
        let path = store.root().join(NAME);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            result => {
                let text = result.with_context(|| format!("read {path:?}"))?;
                Self::parse(&text).map(Some).with_context(|| format!("read {path:?}"))
            }
        }
    }

    pub fn write(&self, store: &Store) -> Result<()> {
        store.put_plain(NAME, &self.text())
    }

    /// Gives everything of a tree from outside the owners it has inside. Who is one of the own ids is who that is inside;
    /// whoever else keeps the number, so that a tree of root's is the same whoever imports it.
    pub fn adopt(&self, root: &mut Entry, delta: &mut Delta) -> Result<()> {
        self.adopt_entry(root)?;
        for (name, item) in delta {
            let Item::There { entry, below, .. } = item else { continue };
            self.adopt(entry, below).with_context(|| format!("{:?}", String::from_utf8_lossy(name)))?;
        }
        Ok(())
    }

    fn adopt_entry(&self, entry: &mut Entry) -> Result<()> {
        entry.uid = inside(&self.users, entry.uid).with_context(|| self.nobody("user", entry.uid))?;
        entry.gid = inside(&self.groups, entry.gid).with_context(|| self.nobody("group", entry.gid))?;
        Ok(())
    }

    fn nobody(&self, word: &str, id: u32) -> String {
        let next =
            if self.is_alone() { ": a range in /etc/subuid and /etc/subgid gives it others" } else { "" };
        format!("it belongs to {word} {id}, which this store has no id for{next}")
    }
}

fn inside(ranges: &[Range], id: u32) -> Option<u32> {
    let own = |range: &Range| Some(range.inside + Range::place(range.outside, range.count, id)?);
    let same = || ranges.iter().any(|range| Range::place(range.inside, range.count, id).is_some());
    ranges.iter().find_map(own).or_else(|| same().then_some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide() -> Owners {
        Owners::new((1000, &[(100_000, 65536)]), (100, &[(200_000, 1000), (300_000, 5)]))
    }

    fn alone() -> Owners {
        Owners::new((1000, &[]), (100, &[]))
    }

    #[test]
    fn what_is_written_is_read_again() {
        for owners in [wide(), alone()] {
            assert_eq!(Owners::parse(&owners.text()).unwrap(), owners);
        }
        assert_eq!(
            wide().text(),
            "deja session owners 1\nuser 0 1000 1\nuser 1 100000 65536\ngroup 0 100 1\ngroup 1 200000 1000\n\
             group 1001 300000 5\n"
        );
        for damaged in ["", "deja session owners 2\n", HEADER, "deja session owners 1\nuser 0 1\n"] {
            assert!(Owners::parse(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_range_for_users_only_is_none() {
        assert_eq!(Owners::new((1000, &[(100_000, 65536)]), (100, &[])), alone());
        assert!(alone().is_alone() && !wide().is_alone());
        assert!(wide().has_group(5) && !alone().has_group(5) && alone().has_group(0));
    }

    #[test]
    fn a_store_gets_more_owners_and_loses_none() {
        assert_eq!(Owners::choose(None, alone()), alone());
        assert_eq!(Owners::choose(Some(alone()), wide()), wide());
        assert_eq!(Owners::choose(Some(wide()), alone()), wide());
        let moved = Owners::new((1000, &[(500_000, 65536)]), (100, &[(200_000, 2000)]));
        assert_eq!(Owners::choose(Some(wide()), moved), wide());
        let shorter = Owners::new((1000, &[(100_000, 10)]), (100, &[(200_000, 1000)]));
        assert_eq!(Owners::choose(Some(shorter), wide()), wide());
    }

    #[test]
    fn own_ids_are_who_they_are_inside_and_others_keep_their_number() {
        let users = wide().users;
        for (id, expected) in [
            (1000, Some(0)),
            (100_000, Some(1)),
            (100_041, Some(42)),
            (0, Some(0)),
            (42, Some(42)),
            (65536, Some(65536)),
            (70_000, None),
        ] {
            assert_eq!(inside(&users, id), expected, "{id}");
        }
        let mut root = Entry { uid: 42, ..Entry::empty_root() };
        let error = alone().adopt(&mut root, &mut Delta::new()).unwrap_err();
        assert!(format!("{error:#}").contains("/etc/subuid"), "{error:#}");
    }
}
