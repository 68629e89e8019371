//! A file tree as a tree of hashes: each directory is a node that lists its entries, and its hash stands for all
//! that is below it. Changing k files makes new nodes for their directories and those above, and no others.
//!
//! What counts is what a program in the container can see and rely on: type, permissions, owner, extended
//! attributes, content, the target of a link, the number of a device, and which names are one file. Times do not
//! count, or no two runs of a command would ever agree.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::id::Id;

/// What an entry is, with what only its kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    File { size: u64, content: Id },
    Directory { node: Id },
    Link { target: Vec<u8> },
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The twelve bits of permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of one and the same file share this.
    pub hard_links: Option<Id>,
    pub kind: Kind,
}

/// The entries of a directory.
pub type Node = BTreeMap<Vec<u8>, Entry>;

/// Where nodes are found by their hash.
pub trait Nodes {
    fn node(&self, id: &Id) -> Result<Node>;
}

const NODE: &str = "deja node 1";

pub fn node_id(encoded: &[u8]) -> Id {
    Id::of(NODE, encoded)
}

impl Entry {
    /// An empty directory of root's, as the base of a tree that has none.
    pub fn empty_root() -> Self {
        let kind = Kind::Directory { node: node_id(&encode(&Node::new())) };
        Self { mode: 0o755, uid: 0, gid: 0, xattrs: Vec::new(), hard_links: None, kind }
    }

    pub fn node_id(&self) -> Option<Id> {
        match self.kind {
            Kind::Directory { node } => Some(node),
            _ => None,
        }
    }

    /// The name of the whole tree below and including this.
    pub fn id(&self) -> Id {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        Id::of("deja tree 1", &bytes)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let letter = match &self.kind {
            Kind::File { .. } => b'f',
            Kind::Directory { .. } => b'd',
            Kind::Link { .. } => b'l',
            Kind::Device { block: false, .. } => b'c',
            Kind::Device { block: true, .. } => b'b',
            Kind::Fifo => b'p',
            Kind::Socket => b's',
        };
        out.push(letter);
        for number in [self.mode, self.uid, self.gid, self.xattrs.len() as u32] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for (name, value) in &self.xattrs {
            push_bytes(out, name);
            push_bytes(out, value);
        }
        out.push(u8::from(self.hard_links.is_some()));
        out.extend(self.hard_links.iter().flat_map(|id| id.0));
        match &self.kind {
            Kind::File { size, content } => {
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&content.0);
            }
            Kind::Directory { node } => out.extend_from_slice(&node.0),
            Kind::Link { target } => push_bytes(out, target),
            Kind::Device { major, minor, .. } => {
                out.extend_from_slice(&major.to_le_bytes());
                out.extend_from_slice(&minor.to_le_bytes());
            }
            Kind::Fifo | Kind::Socket => (),
        }
    }

    pub fn decode(from: &mut Reader) -> Result<Self> {
        let letter = from.array::<1>()?[0];
        let [mode, uid, gid, count] = [from.number()?, from.number()?, from.number()?, from.number()?];
        let mut xattrs = Vec::new();
        for _ in 0..count {
            xattrs.push((from.bytes()?.to_vec(), from.bytes()?.to_vec()));
        }
        let hard_links = match from.array::<1>()? {
            [0] => None,
            _ => Some(Id(from.array()?)),
        };
        let kind = match letter {
            b'f' => Kind::File { size: u64::from_le_bytes(from.array()?), content: Id(from.array()?) },
            b'd' => Kind::Directory { node: Id(from.array()?) },
            b'l' => Kind::Link { target: from.bytes()?.to_vec() },
            b'c' | b'b' => {
                Kind::Device { block: letter == b'b', major: from.number()?, minor: from.number()? }
            }
            b'p' => Kind::Fifo,
            b's' => Kind::Socket,
            _ => bail!("an entry of unknown kind {letter}"),
        };
        Ok(Self { mode, uid, gid, xattrs, hard_links, kind })
    }
}

pub fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub fn encode(node: &Node) -> Vec<u8> {
    let mut out = Vec::with_capacity(node.len() * 80);
    for (name, entry) in node {
        push_bytes(&mut out, name);
        entry.encode(&mut out);
    }
    out
}

pub fn decode(bytes: &[u8]) -> Result<Node> {
    let mut reader = Reader { rest: bytes };
    let mut node = Node::new();
    while !reader.rest.is_empty() {
        let name = reader.bytes()?.to_vec();
        node.insert(name, Entry::decode(&mut reader)?);
    }
    Ok(node)
}

/// Takes apart what `encode` has put together.
pub struct Reader<'b> {
    pub rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Result<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).context("it ends too early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N).map(|bytes| bytes.try_into().expect("take gives what it is asked for"))
    }

    pub fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'b [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }
}

/// The entry at `path` below `root`, which names no link on the way; None: there is none.
pub fn find(nodes: &dyn Nodes, root: &Entry, path: &str) -> Result<Option<Entry>> {
    find_bytes(nodes, root, path.as_bytes())
}

pub fn find_bytes(nodes: &dyn Nodes, root: &Entry, path: &[u8]) -> Result<Option<Entry>> {
    let mut entry = root.clone();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        let Some(id) = entry.node_id() else { return Ok(None) };
        match nodes.node(&id)?.remove(name) {
            Some(below) => entry = below,
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

/// As many links may be followed on one way.
const MOST_LINKS: usize = 40;

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub struct Located {
    /// From the root, which has no name, to the entry, without any link.
    pub way: Vec<(Vec<u8>, Entry)>,
    /// The last part of the path, where the directory is there and this name is not in it.
    pub missing: Option<Vec<u8>>,
}

impl Located {
    /// The path without links.
    pub fn path(&self) -> Vec<u8> {
        let names = self.way.iter().skip(1).map(|(name, _)| name).chain(&self.missing);
        names.flat_map(|name| [b"/", name.as_slice()].concat()).collect()
    }
}

/// Where `path` leads when links on the way and at the end are followed, inside the tree; None: nowhere.
pub fn locate(nodes: &dyn Nodes, root: &Entry, path: &[u8]) -> Result<Option<Located>> {
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        parts.rev().map(<[u8]>::to_vec).collect()
    };
    let mut way = vec![(Vec::new(), root.clone())];
    let mut waiting = parts(path);
    let mut links = 0;
    while let Some(part) = waiting.pop() {
        if part == b".." {
            way.truncate((way.len() - 1).max(1));
            continue;
        }
        let here = way.last().and_then(|(_, entry)| entry.node_id());
        let Some(id) = here else { return Ok(None) };
        let Some(entry) = nodes.node(&id)?.remove(&part) else {
            return Ok(waiting.is_empty().then_some(Located { way, missing: Some(part) }));
        };
        let Kind::Link { target } = &entry.kind else {
            way.push((part, entry));
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Ok(None);
        }
        if target.starts_with(b"/") {
            way.truncate(1);
        }
        waiting.extend(parts(target));
    }
    Ok(Some(Located { way, missing: None }))
}

/// The entry at `path`, of which links on the way and at the end are followed, inside the tree; None: there is none.
pub fn follow(nodes: &dyn Nodes, root: &Entry, path: &[u8]) -> Result<Option<Entry>> {
    let located = locate(nodes, root, path)?.filter(|located| located.missing.is_none());
    Ok(located.and_then(|mut located| located.way.pop()).map(|(_, entry)| entry))
}

/// How a path differs between two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    Changed,
}

/// What differs between two trees, by path. Nodes that are equal are not looked into.
pub fn diff(nodes: &dyn Nodes, old: &Entry, new: &Entry) -> Result<Vec<(Vec<u8>, Change)>> {
    let mut found = Vec::new();
    compare(nodes, b"", old, new, &mut found)?;
    Ok(found)
}

fn compare(
    nodes: &dyn Nodes,
    path: &[u8],
    old: &Entry,
    new: &Entry,
    found: &mut Vec<(Vec<u8>, Change)>,
) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let (Some(a), Some(b)) = (old.node_id(), new.node_id()) else {
        found.push((path.to_vec(), Change::Changed));
        return Ok(());
    };
    let same_but_for_content = Entry { kind: new.kind.clone(), ..old.clone() };
    if same_but_for_content != *new {
        found.push((if path.is_empty() { b"/".to_vec() } else { path.to_vec() }, Change::Changed));
    }
    if a == b {
        return Ok(());
    }
    let (a, b) = (nodes.node(&a)?, nodes.node(&b)?);
    let names: std::collections::BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    for name in names {
        let path = [path, b"/", name].concat();
        match (a.get(name), b.get(name)) {
            (Some(old), Some(new)) => compare(nodes, &path, old, new, found)?,
            (None, Some(entry)) => whole(nodes, &path, entry, Change::Added, found)?,
            (Some(entry), None) => whole(nodes, &path, entry, Change::Removed, found)?,
            (None, None) => (),
        }
    }
    Ok(())
}

fn whole(
    nodes: &dyn Nodes,
    path: &[u8],
    entry: &Entry,
    change: Change,
    found: &mut Vec<(Vec<u8>, Change)>,
) -> Result<()> {
    found.push((path.to_vec(), change));
    let Some(id) = entry.node_id() else { return Ok(()) };
    for (name, entry) in &nodes.node(&id)? {
        whole(nodes, &[path, b"/", name].concat(), entry, change, found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Content;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Shelf(BTreeMap<Id, Node>);

    impl Nodes for Shelf {
        fn node(&self, id: &Id) -> Result<Node> {
            self.0.get(id).cloned().context("no such node")
        }
    }

    impl Shelf {
        fn directory(&mut self, node: Node) -> Entry {
            let id = node_id(&encode(&node));
            self.0.insert(id, node);
            Entry { kind: Kind::Directory { node: id }, ..Entry::empty_root() }
        }
    }

    fn file(text: &str) -> Entry {
        let kind = Kind::File { size: text.len() as u64, content: Content::id_of(text.as_bytes()) };
        Entry { kind, ..Entry::empty_root() }
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let id = any::<[u8; 32]>().prop_map(Id);
        let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
        let kind = prop_oneof![
            (any::<u64>(), id).prop_map(|(size, content)| Kind::File { size, content }),
            any::<[u8; 32]>().prop_map(|node| Kind::Directory { node: Id(node) }),
            bytes().prop_map(|target| Kind::Link { target }),
            (any::<bool>(), any::<u32>(), any::<u32>()).prop_map(|(block, major, minor)| Kind::Device {
                block,
                major,
                minor
            }),
            Just(Kind::Fifo),
            Just(Kind::Socket),
        ];
        let links = proptest::option::of(any::<[u8; 32]>().prop_map(Id));
        let xattrs = proptest::collection::vec((bytes(), bytes()), 0..3);
        (any::<u32>(), any::<u32>(), any::<u32>(), xattrs, links, kind).prop_map(
            |(mode, uid, gid, xattrs, hard_links, kind)| Entry { mode, uid, gid, xattrs, hard_links, kind },
        )
    }

    proptest! {
        #[test]
        fn a_node_is_read_as_it_was_written(
            node in proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..9), any_entry(), 0..6)
        ) {
            let bytes = encode(&node);
            prop_assert_eq!(decode(&bytes).unwrap(), node);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_another_node(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(node) = decode(&bytes) {
                let again = decode(&encode(&node)).unwrap();
                prop_assert_eq!(again, node);
            }
        }
    }

    #[test]
    fn links_are_followed_inside_the_tree() {
        let mut shelf = Shelf::default();
        let link = |target: &str| {
            let kind = Kind::Link { target: target.as_bytes().to_vec() };
            Entry { kind, ..Entry::empty_root() }
        };
        let bin = shelf.directory(Node::from([
            (b"sh".to_vec(), file("sh")),
            (b"up".to_vec(), link("../bin/./sh")),
            (b"out".to_vec(), link("../../../usr/bin/sh")),
            (b"loop".to_vec(), link("loop")),
        ]));
        let usr = shelf.directory(Node::from([(b"bin".to_vec(), bin)]));
        let root = shelf.directory(Node::from([(b"usr".to_vec(), usr), (b"bin".to_vec(), link("/usr/bin"))]));
        for path in ["/usr/bin/sh", "bin/sh", "/bin/up", "/bin/out", "/bin/../bin/sh", "../usr//bin/up"] {
            assert_eq!(follow(&shelf, &root, path.as_bytes()).unwrap(), Some(file("sh")), "{path}");
        }
        for path in ["/bin/loop", "/none", "/bin/sh/x"] {
            assert_eq!(follow(&shelf, &root, path.as_bytes()).unwrap(), None, "{path}");
        }
        assert_eq!(follow(&shelf, &root, b"/").unwrap(), Some(root.clone()));
        for (path, led) in [
            ("/bin/new", Some("/usr/bin/new")),
            ("/bin/../bin/up", Some("/usr/bin/sh")),
            ("new", Some("/new")),
            ("/", Some("")),
            ("/none/new", None),
            ("/bin/sh/new", None),
        ] {
            let located = locate(&shelf, &root, path.as_bytes()).unwrap();
            assert_eq!(
                located.map(|located| located.path()),
                led.map(|path| path.as_bytes().to_vec()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_difference_is_told_by_path() {
        let mut shelf = Shelf::default();
        let same = shelf.directory(Node::from([(b"deep".to_vec(), file("same"))]));
        let old_home = shelf.directory(Node::from([
            (b"a".to_vec(), file("1")),
            (b"b".to_vec(), file("2")),
            (b"same".to_vec(), same.clone()),
        ]));
        let inner = shelf.directory(Node::from([(b"x".to_vec(), file("x"))]));
        let new_home = shelf.directory(Node::from([
            (b"a".to_vec(), file("changed")),
            (b"new".to_vec(), inner),
            (b"same".to_vec(), same.clone()),
        ]));
        let old = shelf.directory(Node::from([(b"home".to_vec(), old_home)]));
        let new = shelf.directory(Node::from([(b"home".to_vec(), new_home)]));
        // What is equal on both sides is not even looked up.
        shelf.0.remove(&same.node_id().unwrap());
        let told: Vec<(String, Change)> = diff(&shelf, &old, &new)
            .unwrap()
            .into_iter()
            .map(|(path, change)| (String::from_utf8(path).unwrap(), change))
            .collect();
        let expected = [
            ("/home/a", Change::Changed),
            ("/home/b", Change::Removed),
            ("/home/new", Change::Added),
            ("/home/new/x", Change::Added),
        ];
        assert_eq!(told, expected.map(|(path, change)| (path.to_owned(), change)));
        assert!(diff(&shelf, &old, &old).unwrap().is_empty());
        assert_eq!(find(&shelf, &new, "/home/new/x").unwrap(), Some(file("x")));
        assert_eq!(find(&shelf, &new, "home/none").unwrap(), None);
        assert_eq!(find(&shelf, &new, "/home/a/b").unwrap(), None);
    }
}
