use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;

use super::*;
use crate::sys::AsFd;

type Whole = Vec<(Entry, Vec<u8>)>;

fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.file(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8], limits: Limits) -> anyhow::Result<Whole> {
    let mut reader = Reader::new(bytes, limits);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.by_ref().take(entry.size).read_to_end(&mut content)?;
        found.push((entry, content));
    }
    Ok(found)
}

fn refusal(bytes: &[u8]) -> String {
    format!("{:#}", read(bytes, Limits::default()).unwrap_err())
}

fn kinds() -> impl Strategy<Value = Kind> {
    let text = || proptest::collection::vec(1u8.., 1..300);
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        text().prop_map(|target| Kind::Symlink { target }),
        names().prop_map(|target| Kind::Link { target }),
        (any::<bool>(), 0u32..1 << 21, 0u32..1 << 21).prop_map(|(block, major, minor)| Kind::Device {
            block,
            major,
            minor
        }),
        Just(Kind::Fifo),
    ]
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let part = proptest::collection::vec(prop_oneof![b'a'..=b'z', 0x80u8..], 1..80);
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join(&b'/'))
}

prop_compose! {
    fn entries()(
        name in names(),
        kind in kinds(),
        mode in 0u32..0o10000,
        uid in any::<u32>(),
        gid in 0u32..100_000,
        mtime in prop_oneof![0i64..1 << 31, any::<i32>().prop_map(i64::from), 1i64 << 33..1i64 << 40],
        xattrs in proptest::collection::vec((names(), proptest::collection::vec(any::<u8>(), 0..200)), 0..3),
        content in proptest::collection::vec(any::<u8>(), 0..1500),
    ) -> (Entry, Vec<u8>) {
        let content = if kind == Kind::File { content } else { Vec::new() };
        (Entry { name, kind, mode, uid, gid, size: content.len() as u64, mtime, xattrs }, content)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(entries(), 0..8)) {
        let bytes = written(&entries);
        prop_assert_eq!(bytes.len() % 512, 0);
        prop_assert_eq!(read(&bytes, Limits::default()).unwrap(), entries);
    }

    #[test]
    fn what_is_compressed_is_what_it_was(content in proptest::collection::vec(any::<u8>(), 0..3000), times in 1usize..900) {
        let content = content.repeat(times);
        for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut compressor = Compressor::new(Vec::new(), how);
            compressor.write_all(&content).unwrap();
            let bytes = compressor.finish().unwrap();
            let mut back = Vec::new();
            // What is not compressed may look as if it were.
            if how != Compression::None {
                decompress(bytes.as_slice()).unwrap().read_to_end(&mut back).unwrap();
                prop_assert!(back == content, "{:?}", how);
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(
        entries in proptest::collection::vec(entries(), 1..5),
        how in prop_oneof![Just(Compression::None), Just(Compression::Gzip), Just(Compression::Zstd)],
        cut in any::<prop::sample::Index>(),
        change in any::<prop::sample::Index>(),
        bit in 0u32..8,
    ) {
        let mut compressor = Compressor::new(Vec::new(), how);
        compressor.write_all(&written(&entries)).unwrap();
        let mut bytes = compressor.finish().unwrap();
        let whole = |bytes: &[u8]| -> anyhow::Result<Whole> {
            let mut plain = Vec::new();
            decompress(bytes)?.take(1 << 20).read_to_end(&mut plain)?;
            read(&plain, Limits::default())
        };
        prop_assert_eq!(&whole(&bytes).unwrap(), &entries);
        let shorter = &bytes[..cut.index(bytes.len())];
        if let Ok(found) = whole(shorter) {
            // Only the zeros at the end may be missing.
            prop_assert_eq!(&found, &entries);
        }
        let place = change.index(bytes.len());
        bytes[place] ^= 1 << bit;
        drop(whole(&bytes));
    }

    #[test]
    fn any_block_is_read_without_a_panic(mut block in proptest::collection::vec(any::<u8>(), 512)) {
        // With the right sum, so that the rest counts.
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        drop(read(&block, Limits::default()));
    }
}

fn named(name: &str, kind: Kind) -> (Entry, Vec<u8>) {
    (Entry { kind, ..Entry::file(name, 0) }, Vec::new())
}

#[test]
fn names_lead_down_only() {
    for (name, reason) in [
        ("/etc/passwd", "entry \"/etc/passwd\": its name is absolute"),
        ("../x", "its name leads outside"),
        ("a/../../x", "its name leads outside"),
        ("", "an entry without a name"),
        ("./", "an entry without a name"),
    ] {
        let name: &str = name;
        let mut bytes = written(&[named("x", Kind::Fifo)]);
        bytes[..100].fill(0);
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(refusal(&bytes).contains(reason), "{name}: {}", refusal(&bytes));
    }
    let link = named("x", Kind::Link { target: b"../outside".to_vec() });
    assert!(refusal(&written(&[link])).contains("its name leads outside"));
    let long = format!("{}/../../x", "d".repeat(200));
    assert!(
        refusal(&written(&[named(&long, Kind::Fifo)])).contains("its name leads outside"),
        "in a pax record"
    );
}

#[test]
fn limits_hold() {
    let bytes = written(&[named("a", Kind::Fifo), (Entry::file("b", 3), b"abc".to_vec())]);
    for (limits, reason) in [
        (Limits { entries: 1, ..Limits::default() }, "it has too many entries"),
        (Limits { bytes: 2, ..Limits::default() }, "it holds too many bytes"),
    ] {
        assert_eq!(read(&bytes, limits).unwrap_err().to_string(), reason);
    }
    let long = written(&[named(&"x".repeat(300), Kind::Fifo)]);
    let limits = Limits { beside: 300, ..Limits::default() };
    assert!(read(&long, limits).unwrap_err().to_string().contains("are too long"));
    assert_eq!(refusal(&bytes[..600]), "it is cut short");
    assert_eq!(refusal(b"no archive at all"), "it is cut short");
    assert!(
        refusal(&[b'x'; 1024]).contains("no tar archive") || refusal(&[b'x'; 1024]).contains("no number")
    );
}

/// Archives of other programs: GNU tar's own form, with its long names.
#[test]
fn what_tar_makes_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let path = directory.path().join(&long);
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "content").unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let out = std::process::Command::new("tar")
            .arg(format!("--format={format}"))
            .args(["-cf", "-", "-C"])
            .arg(directory.path())
            .arg(".")
            .output();
        let Ok(out) = out else { return };
        let found = read(&out.stdout, Limits::default()).unwrap();
        let (entry, content) = found.last().unwrap();
        assert_eq!(
            (entry.display_name().as_ref(), content.as_slice()),
            (long.as_str(), b"content".as_slice())
        );
        assert_eq!((found[0].0.name.as_slice(), &found[0].0.kind), (b"".as_slice(), &Kind::Directory));
    }
}

fn unpack(root: &std::path::Path, entries: &[(Entry, Vec<u8>)]) -> anyhow::Result<()> {
    let directory = std::fs::File::open(root).unwrap();
    let mut unpacker = Unpacker::new(directory.as_fd(), Attributes::None);
    for (entry, content) in entries {
        unpacker.put(entry, &mut content.as_slice())?;
    }
    unpacker.finish()
}

fn unpack_refusal(entries: &[(Entry, Vec<u8>)]) -> String {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let text = format!("{:#}", unpack(&root, entries).unwrap_err());
    let left: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["root"], "nothing outside");
    text
}

#[test]
fn no_entry_leads_outside_over_another() {
    let symlink = |name: &str, target: &str| named(name, Kind::Symlink { target: target.into() });
    let link = |name: &str, target: &str| named(name, Kind::Link { target: target.into() });
    let file = |name: &str| (Entry::file(name, 4), b"evil".to_vec());
    for (entries, reason) in [
        (vec![symlink("up", ".."), file("up/x")], "a directory above it is a link"),
        (vec![symlink("etc", "/etc"), file("etc/x")], "a directory above it is a link"),
        (vec![symlink("up", ".."), link("x", "up/x")], "a directory above it is a link"),
        (
            vec![named("d", Kind::Directory), symlink("d/a", "."), file("d/a/x")],
            "a directory above it is a link",
        ),
        (vec![file("a"), file("a/b")], "a directory above it is a file"),
        (vec![link("x", "nowhere")], "it is a link to what is not there"),
        (vec![named("d", Kind::Directory), link("x", "d")], "it is a hard link to a directory"),
        (vec![file("d/x"), file("d")], "something else stands in its way"),
    ] {
        let text = unpack_refusal(&entries);
        assert!(text.contains(reason), "{text}");
    }
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(place.path().join("precious"), "precious").unwrap();
    let through = named("x", Kind::Symlink { target: b"../precious".to_vec() });
    unpack(&root, &[through, (Entry::file("x", 4), b"evil".to_vec())]).unwrap();
    assert_eq!(std::fs::read(place.path().join("precious")).unwrap(), b"precious");
    assert_eq!(std::fs::read(root.join("x")).unwrap(), b"evil");
}

#[test]
fn a_tree_goes_through_an_archive() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(from.path().join("d")).unwrap();
    std::fs::write(from.path().join("d/file"), "content").unwrap();
    std::fs::hard_link(from.path().join("d/file"), from.path().join("other")).unwrap();
    std::os::unix::fs::symlink("../nowhere", from.path().join("d/link")).unwrap();
    std::fs::set_permissions(from.path().join("d"), std::fs::Permissions::from_mode(0o500)).unwrap();
    let source = std::fs::File::open(from.path()).unwrap();
    let mut writer = Writer::new(Vec::new());
    let mut all = |name: &[u8], found: &pack::Found<'_>| {
        Ok(if name == b"left-out" { Packed::No } else { Packed::Yes(found.xattrs()?) })
    };
    pack(source.as_fd(), "in/", &mut writer, &mut all).unwrap();
    let bytes = writer.finish().unwrap();
    let target = std::fs::File::open(to.path()).unwrap();
    let mut unpacker = Unpacker::new(target.as_fd(), Attributes::All);
    let mut reader = Reader::new(bytes.as_slice(), Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        // Ordinary users run tests, too.
        unpacker.put(&Entry { xattrs: Vec::new(), ..entry }, &mut reader).unwrap();
    }
    unpacker.finish().unwrap();
    let root = to.path().join("in");
    assert_eq!(std::fs::read(root.join("other")).unwrap(), b"content");
    let stat = |name: &str| std::fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!(stat("other").ino(), stat("d/file").ino());
    assert_eq!(stat("d").mode() & 0o777, 0o500);
    assert_eq!(std::fs::read_link(root.join("d/link")).unwrap().to_str(), Some("../nowhere"));
    let time = |path: &std::path::Path| std::fs::symlink_metadata(path).unwrap().mtime();
    assert_eq!(time(&root.join("d")), time(&from.path().join("d")));
    for path in [from.path().join("d"), root.join("d")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}
