//! Checkpoints as archives, which may be anybody's; and many containers of one checkpoint.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deja::oci::{Contents, Files, Layout, Small, pack};
use deja::tar::{Compression, Compressor, Entry, Kind, Limits, Reader, Writer, decompress};
use serde_json::Value;
use support::counter::{count, counting, goes_on, path, shell};
use support::{Bundle, Container, Deja, Leaks, requires};

fn import(bundle: &Bundle, archive: &str) -> Deja {
    bundle.verb("restore").args(["--detach", "--import", archive]).arg(bundle.id())
}

fn adopt<'b>(bundle: &'b Bundle, id: &str, deja: Deja) -> Container<'b> {
    Container::adopt(bundle, id, deja.ok())
}

fn names(archive: &str) -> BTreeSet<String> {
    let file = fs::File::open(archive).expect("open the archive");
    let mut reader = Reader::new(decompress(file).expect("read"), Limits::default());
    let mut found = BTreeSet::new();
    while let Some(entry) = reader.next_entry().expect("an entry") {
        found.insert(entry.display_name().into_owned());
    }
    found
}

/// Every file with its content, but for logs.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("list") {
        let path = entry.expect("an entry").path();
        match path.symlink_metadata().expect("look") {
            data if data.is_dir() => all.extend(content(&path)),
            data if data.is_file() => all.push((path.clone(), fs::read(path).expect("read"))),
            _ => all.push((path, Vec::new())),
        }
    }
    all.sort();
    all
}

#[test]
fn an_archive_brings_back_processes_and_changes_of_the_root() {
    requires!(bed, criu);
    let bundle = counting();
    fs::create_dir(bundle.rootfs().join("full")).unwrap();
    fs::write(bundle.rootfs().join("full/old"), "old").unwrap();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let (first, second) = (path(&bundle, "first.tar.gz"), path(&bundle, "second.tar.zst"));
    container
        .verb(
            "checkpoint",
            &["--export", &first, "--compress", "gzip", "--leave-running", "--rootfs-image", "x"],
        )
        .ok();
    goes_on(&container, before);
    container.verb("delete", &["--force"]).ok();
    container.release();
    let image = ["checkpoint/inventory.img", "checkpoint/deja.json", "config.dump", "spec.dump", "dump.log"];
    assert!(image.iter().all(|name| names(&first).contains(*name)), "{:?}", names(&first));
    let root = content(&bundle.rootfs());

    let container = adopt(&bundle, bundle.id(), import(&bundle, &first));
    goes_on(&container, before);
    shell(
        &container,
        "echo new > /made; ln /made /again; rm -r /full; mkdir /full; echo x > /full/new; rm /etc/passwd",
    );
    let before = count(&container);
    container.verb("checkpoint", &["--export", &second]).ok();
    container.release();
    assert!(names(&second).contains("rootfs-diff.tar") && names(&second).contains("deleted.files"));
    bundle.deja().args(["state", bundle.id()]).fails();
    let left: Vec<_> = fs::read_dir(bundle.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");

    let container = adopt(&bundle, bundle.id(), import(&bundle, &second));
    goes_on(&container, before);
    let seen = "cat /made; ls /full; stat -c %h /again; test -e /etc/passwd || echo gone";
    assert_eq!(shell(&container, seen), "new\nnew\n2\ngone\n");
    container.verb("delete", &["--force"]).ok();
    container.release();
    assert!(content(&bundle.rootfs()) == root, "the bundle is as it was");
    leaks.assert_none();
}

/// What an image says in its table of contents.
fn index(image: &str) -> Value {
    let file = fs::File::open(image).expect("open the image");
    let small = Small::of(Reader::new(decompress(file).expect("read"), Limits::default())).expect("an image");
    let index = small.small("index.json").expect("read").expect("an index");
    serde_json::from_slice(&index).expect("an index")
}

#[test]
fn an_archive_may_be_an_image_and_one_that_was_changed_is_refused() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let image = path(&bundle, "image.tar");
    let flags = ["--export", &image, "--image-name", "saved/web", "--rootfs-image", "busybox"];
    container.verb("checkpoint", &["--image-name", "web"]).fails().assert_says("--export");
    container.verb("checkpoint", &[&flags[..3], &["Web!"]].concat()).fails().assert_says("small letters");
    container.verb("checkpoint", &flags).ok();
    container.release();
    let about = index(&image)["manifests"][0]["annotations"].clone();
    for (key, value) in [
        ("org.opencontainers.image.ref.name", "saved/web:latest"),
        ("org.criu.checkpoint.container.name", bundle.id()),
        ("org.criu.checkpoint.rootfsImageName", "busybox"),
        ("io.podman.annotations.checkpoint.runtime.name", "deja"),
    ] {
        assert_eq!(about[key], value, "{key} in {about}");
    }
    let container = adopt(&bundle, bundle.id(), import(&bundle, &image));
    goes_on(&container, before);
    container.verb("delete", &["--force"]).ok();
    container.release();

    // Somewhere in the layer, which is most of it.
    let mut bytes = fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&image, bytes).unwrap();
    import(&bundle, &image).fails().assert_says("import");
    bundle.deja().args(["state", bundle.id()]).fails();
    leaks.assert_none();
}

/// An image whose layers are these.
fn image_of(layers: &[Vec<u8>]) -> Vec<u8> {
    let place = tempfile::tempdir().expect("a directory");
    let root = place.path().join("image");
    fs::create_dir(&root).expect("make a directory");
    let mut layout = Layout::begin(&root).expect("a layout");
    for layer in layers {
        let file = place.path().join("layer");
        fs::write(&file, layer).expect("write");
        layout.adopt(&file, Compression::None).expect("adopt");
    }
    layout.finish(Contents { reference: "web:1", ..Contents::default() }).expect("finish");
    let mut all = Vec::new();
    pack(&root, &mut all).expect("pack");
    all
}

#[test]
fn an_archive_that_cannot_be_written_lets_the_container_go_on() {
    requires!(bed, criu, debug);
    let bundle = counting();
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let nowhere = path(&bundle, "nowhere/archive");
    container.verb("checkpoint", &["--export", &nowhere]).fails().assert_says("nowhere");
    let archive = path(&bundle, "archive");
    for point in 1.. {
        let failing = container.verb("checkpoint", &["--export", &archive]).trial(&format!("fail:{point}"));
        let finished = failing.output();
        if finished.stderr().contains("complete the archive") {
            // The processes have ended: what there is of them is named.
            finished.assert_says(".archive.image");
            assert!(bundle.file(".archive.image/inventory.img").exists());
            break;
        }
        assert!(!finished.status.success(), "{finished}");
        assert!(!Path::new(&archive).exists(), "half an archive");
        goes_on(&container, before);
    }
}

/// What somebody may send.
fn archive(entries: &[(Entry, &[u8])], how: Compression) -> Vec<u8> {
    let mut writer = Writer::new(Compressor::new(Vec::new(), how));
    for (entry, content) in entries {
        writer.file(&Entry { size: content.len() as u64, ..entry.clone() }, &mut &content[..]).unwrap();
    }
    writer.finish().unwrap().finish().unwrap()
}

fn named(name: &str, kind: Kind) -> Entry {
    Entry { kind, ..Entry::file(name, 0) }
}

#[test]
fn a_hostile_archive_is_refused_in_one_sentence_and_leaves_nothing() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    let root = content(&bundle.rootfs());
    let marker = format!("{}.img", bundle.id());
    let inside = format!("checkpoint/{marker}");
    let image = || (Entry::file(&inside, 0), &b"x"[..]);
    let link = |name: &str, target: &str| (named(name, Kind::Symlink { target: target.into() }), &b""[..]);
    let hard = |name: &str, target: &str| (named(name, Kind::Link { target: target.into() }), &b""[..]);
    let whole =
        archive(&[image(), (Entry::file("checkpoint/inventory.img", 0), &[7; 3000])], Compression::Zstd);
    let cut = |at: usize| whole[..at].to_vec();
    let mut edited = whole.clone();
    edited[40] ^= 0xff;
    for (what, bytes, reason) in [
        ("empty", Vec::new(), "it is cut short"),
        ("noise", vec![0x55; 4096], "no tar archive"),
        ("cut short", cut(whole.len() / 2), "cut short"),
        ("edited", edited, "import"),
        (
            "no checkpoint",
            archive(&[(Entry::file("x", 0), b"x")], Compression::Gzip),
            "there is no checkpoint",
        ),
        (
            "dots",
            archive(&[image(), (Entry::file("checkpoint/../../x", 0), b"x")], Compression::None),
            "leads outside",
        ),
        ("absolute", archive(&[image(), (Entry::file("/etc/x", 0), b"x")], Compression::None), "is absolute"),
        ("link", archive(&[link("checkpoint", "/etc"), image()], Compression::None), "plain files"),
        (
            "parent",
            archive(&[image(), link("checkpoint/parent", "/var/lib")], Compression::None),
            "outside the archive",
        ),
        (
            "hard link",
            archive(&[image(), hard("checkpoint/y", "/etc/passwd")], Compression::None),
            "is absolute",
        ),
        (
            "hard link inside",
            archive(&[image(), hard("checkpoint/y", "config.dump")], Compression::None),
            "plain files",
        ),
        (
            "device",
            archive(
                &[(named(&inside, Kind::Device { block: true, major: 8, minor: 0 }), b"")],
                Compression::None,
            ),
            "plain files",
        ),
        ("no image", archive(&[image()], Compression::Zstd), "holds no image"),
        ("no layout", archive(&[(Entry::file("oci-layout", 0), b"{}")], Compression::None), "it is no image"),
        ("layers", image_of(&[vec![1], vec![2]]), "has one"),
        ("no archive in an image", image_of(&[vec![0x55; 4096]]), "no tar archive"),
        (
            "link in an image",
            image_of(&[archive(&[link("checkpoint", "/etc"), image()], Compression::None)]),
            "plain files",
        ),
    ] {
        let file = path(&bundle, "hostile");
        fs::write(&file, bytes).unwrap();
        let finished = import(&bundle, &file).fails();
        let said = finished.stderr();
        assert!(said.contains(reason) && said.trim().lines().count() == 1, "{what}: {said}");
        bundle.deja().args(["state", bundle.id()]).fails();
    }
    for scratch in fs::read_dir("/var/tmp").into_iter().flatten().flatten() {
        assert!(!scratch.path().join(&inside).exists(), "left: {:?}", scratch.path());
    }
    assert!(content(&bundle.rootfs()) == root, "the bundle is as it was");
    leaks.assert_none();
}

/// What is announced and not there is refused before the disk is full.
#[test]
fn an_archive_larger_than_the_disk_is_refused_at_once() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let mut bytes = Vec::new();
    let entry = Entry { size: 1 << 50, ..Entry::file("checkpoint/pages-1.img", 0) };
    Writer::new(&mut bytes).entry(&entry).unwrap();
    let file = path(&bundle, "bomb");
    fs::write(&file, bytes).unwrap();
    import(&bundle, &file).fails().assert_says("it holds too many bytes");
}

#[test]
fn many_copies_of_one_image_have_changes_of_their_own() {
    requires!(bed, criu);
    const COPIES: usize = 4;
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let container = bundle.create();
    container.start();
    let before = count(&container);
    let image = path(&bundle, "image");
    container.verb("checkpoint", &["--image-path", &image]).ok();
    container.release();
    let (files, root) = (content(Path::new(&image)), content(&bundle.rootfs()));

    let number = COPIES.to_string();
    let flags = ["--detach", "--image-path", &image, "--copies", &number];
    bundle.verb("restore").args(flags).arg(bundle.id()).ok();
    let id = |copy: usize| format!("{}-{copy}", bundle.id());
    let adopt = |copy| Container::adopt(&bundle, &id(copy), bundle.deja().arg("state").arg(id(copy)).ok());
    let containers: Vec<_> = (1..=COPIES).map(adopt).collect();
    for (copy, container) in (1..).zip(&containers) {
        goes_on(container, before);
        assert_eq!(
            shell(container, &format!("echo {copy} > /own; rm /etc/passwd; cat /proc/self/cgroup")),
            "0::/\n"
        );
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
        assert!(cgroup.trim_end().ends_with(&format!("/deja-test/{}-{copy}", bundle.id())), "{cgroup}");
    }
    for (copy, container) in (1..).zip(&containers) {
        assert_eq!(shell(container, "cat /own"), format!("{copy}\n"));
    }
    for kind in ["net", "pid", "mnt", "cgroup"] {
        let of =
            |container: &Container| fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).unwrap();
        assert_eq!(containers.iter().map(of).collect::<BTreeSet<_>>().len(), COPIES, "{kind}");
    }
    for container in containers {
        container.verb("delete", &["--force"]).ok();
        container.release();
    }
    assert!(content(Path::new(&image)) == files, "nothing is written to the image");
    assert!(content(&bundle.rootfs()) == root, "nothing is written to the root they share");
    leaks.assert_none();
}

#[test]
fn what_only_one_can_have_is_not_copied() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let restore = |flags: &[&str]| bundle.verb("restore").args(flags).arg(bundle.id()).fails();
    for (flags, reason) in [
        (&["--detach", "--copies", "0"] as &[&str], "makes nothing"),
        (&["--copies", "2"], "needs --detach"),
        (&["--detach", "--copies", "2", "--import", "x"], "--import"),
        (&["--detach", "--copies", "2", "--pid-file", "x"], "--pid-file"),
        (&["--detach", "--copies", "2", "--tcp-established"], "only one of many"),
        (&["--import", "x", "--image-path", "y"], "both name what to restore from"),
    ] {
        restore(flags).assert_says(reason);
    }
    let bundle = Bundle::new().sleeps().without_namespace("network");
    let shared = bundle.verb("restore").args(["--detach", "--copies", "2"]).arg(bundle.id()).fails();
    shared.assert_says("a new network namespace for each");
}
