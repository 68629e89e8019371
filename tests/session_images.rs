//! States as images and images as states; sessions that move from one store to another.

mod support;

use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use support::{Sessions, requires, rootfs};

/// A root file system with everything a layer can hold.
fn odd_tree(path: &Path) {
    let at = |name: &str| path.join(name);
    let busybox = rootfs().join("bin/busybox");
    for directory in ["bin", "tmp", "d/e/f", "dev", "proc", "sys", "emptied/deep"] {
        std::fs::create_dir_all(at(directory)).expect("a directory");
    }
    std::fs::copy(busybox, at("bin/busybox")).expect("busybox");
    for name in ["sh", "rm", "mkdir", "ln", "mv", "ls", "cat", "chmod", "mkfifo"] {
        symlink("busybox", at("bin").join(name)).expect("a link");
    }
    std::fs::write(at("d/file"), "content").expect("a file");
    std::fs::write(at("emptied/deep/file"), "x").expect("a file");
    std::fs::hard_link(at("d/file"), at("d/e/same")).expect("a hard link");
    std::fs::hard_link(at("d/file"), at("third")).expect("a hard link");
    symlink("../nowhere/at all", at("d/broken")).expect("a link");
    std::fs::set_permissions(at("d/e"), PermissionsExt::from_mode(0o1751)).expect("a mode");
    std::os::unix::fs::chown(at("d/e/f"), Some(3_000_000), Some(8)).expect("an owner");
    std::fs::write(at("d/a name\nof two lines \u{e4}"), "").expect("a file");
    std::fs::write(at(&format!("d/{}", "long".repeat(60))), "").expect("a file");
    let sparse = std::fs::File::create(at("d/sparse")).expect("a file");
    sparse.write_all_at(b"end", 3 << 20).expect("a hole in front");
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("d/null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        device,
    )
    .expect("a device");
    for (name, value) in
        [("user.note", "kept"), ("trusted.note", "kept"), ("security.capability", CAPABILITY)]
    {
        let path = at("d/file");
        rustix::fs::setxattr(&path, name, value.as_bytes(), rustix::fs::XattrFlags::empty())
            .expect("an attribute");
    }
}

/// `cap_net_raw+ep`, as the kernel keeps it.
const CAPABILITY: &str = "\u{1}\0\0\u{2}\0\u{20}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

const CHANGES: [&str; 4] = [
    "rm -r /emptied/deep; mkdir /emptied/deep /emptied/new; rm /d/broken; cd /d",
    "rm -r /d/e; mkdir -p /d/e/f/g; ln /d/sparse /d/sparser; ln -s /d /tmp/d; mkfifo /tmp/p",
    "echo more >> /third; chmod 4711 /bin/busybox; mv /d/file /d/moved; export NAME=value; umask 027",
    "rm -r /tmp/d /emptied; echo x > /emptied",
];

/// A session that has changed all of that.
fn odd_history(sessions: &Sessions) {
    let tree = sessions.path().join("odd");
    odd_tree(&tree);
    sessions.verb("new").arg("--rootfs").arg(&tree).arg("ada").ok();
    for text in CHANGES {
        sessions.shell("ada", text).ok();
    }
}

fn export(sessions: &Sessions, form: &str, path: &Path) {
    sessions.verb("export").args(["--format", form, "ada"]).arg(path).ok();
}

/// A new store with a session that begins with an image.
fn begun(image: &Path) -> Sessions {
    let sessions = Sessions::empty();
    sessions.verb("new").arg("--image").arg(image).arg("bob").ok();
    sessions
}

#[test]
fn a_state_goes_through_an_image_and_is_the_same_state() {
    requires!(bed, overlay);
    let sessions = Sessions::empty();
    odd_history(&sessions);
    for form in ["layout", "archive"] {
        let image = sessions.path().join(form);
        export(&sessions, form, &image);
        let other = begun(&image);
        assert_eq!(other.state("bob"), sessions.state("ada"), "{form}");
        other.shell("bob", "pwd; echo $NAME; umask; cat /emptied").ok().assert_stdout("/d\nvalue\n0027\nx");
        other.verb("verify").ok();
        // The second session of an image is made of what is there.
        std::fs::rename(&image, sessions.path().join("moved")).expect("move the image");
        std::fs::rename(sessions.path().join("moved"), &image).expect("move it back");
        other.verb("new").arg("--image").arg(&image).arg("eve").ok();
        let begin = &other.log("bob")[0]["state"];
        assert_eq!(&other.log("eve")[0]["state"], begin);
    }
    let archive = sessions.path().join("piped");
    let piped =
        sessions.verb("export").args(["--format", "archive", "--name", "course/ada:1", "ada", "-"]).ok();
    std::fs::write(&archive, piped.stdout_bytes()).expect("the archive");
    assert_eq!(begun(&archive).state("bob"), sessions.state("ada"));
    let named = |name: &str| {
        let other = Sessions::empty();
        other.verb("new").args(["--ref", name, "bob", "--image"]).arg(&archive).output()
    };
    named("course/ada:1").assert_code(0);
    named("course/ada:2").assert_code(1).assert_says("no image \"course/ada:2\", but course/ada:1");
    sessions
        .verb("export")
        .args(["-f", "archive", "--name", "A", "ada", "-"])
        .fails()
        .assert_says("small letters");
    export_fails(&sessions, "layout", &sessions.path().join("layout"), "is there already");
}

fn export_fails(sessions: &Sessions, form: &str, path: &Path, why: &str) {
    sessions.verb("export").args(["--format", form, "ada"]).arg(path).fails().assert_says(why);
}

#[test]
fn what_images_have_no_form_for_is_refused_by_name() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "echo x > /srv/.wh.x").ok();
    let image = sessions.path().join("image");
    export_fails(&sessions, "layout", &image, "names begin with \".wh.\"");
    export_fails(&sessions, "archive", &image, "names begin with \".wh.\"");
    let left: Vec<PathBuf> = std::fs::read_dir(sessions.path())
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("image")), "{left:?}");
}

#[test]
fn a_flattened_history_goes_through_an_image_too() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "cd /srv; echo 1 > a; ln a b; ln a c; mkdir d; ln a d/e").ok();
    sessions.shell("ada", "cd /srv; echo 2 > b; rm c").ok();
    // A slow machine does not come to the length at which chains are flattened.
    let count = if support::is_slow() { 3 } else { 34 };
    for number in 0..count {
        sessions.exec("ada", &["mkdir", &format!("made-{number}")]).ok();
    }
    let image = sessions.path().join("image");
    export(&sessions, "archive", &image);
    let other = begun(&image);
    assert_eq!(other.state("bob"), sessions.state("ada"));
    other.shell("bob", "cat /srv/a /srv/b /srv/d/e").ok().assert_stdout("1\n2\n1");
    other.verb("verify").ok();
}

#[test]
fn an_image_that_is_not_what_it_says_is_refused_and_leaves_nothing() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "echo precious > /srv/f").ok();
    let image = sessions.path().join("image");
    export(&sessions, "layout", &image);
    let blobs = std::fs::read_dir(image.join("blobs/sha256")).expect("blobs").flatten();
    let largest = blobs.map(|entry| entry.path()).max_by_key(|path| path.metadata().expect("stat").len());
    let largest = largest.expect("a blob");
    let bytes = std::fs::read(&largest).expect("the blob");
    let refused = |why: &str| {
        let other = Sessions::empty();
        other.verb("new").arg("--image").arg(&image).arg("bob").fails().assert_says(why);
        assert_eq!(other.verb("list").arg("--json").ok().stdout(), "[]\n");
    };
    let mut damaged = bytes.clone();
    // Half of it and more is one program.
    let place = damaged.len() / 2;
    damaged[place] ^= 1;
    std::fs::write(&largest, &damaged).expect("damage it");
    refused("its content is sha256:");
    std::fs::write(&largest, &bytes[..bytes.len() / 2]).expect("cut it");
    refused("cut short");
    std::fs::remove_file(&largest).expect("remove it");
    refused("is missing");
    std::fs::write(&largest, &bytes).expect("heal it");
    assert_eq!(begun(&image).state("bob"), sessions.state("ada"));
}

#[test]
fn a_plain_archive_is_an_image_of_one_layer() {
    requires!(bed, overlay, tool "tar", tool "gzip");
    let sessions = Sessions::new(&["ada"]);
    let archive = sessions.path().join("tree.tar.gz");
    let tar =
        std::process::Command::new("tar").arg("-C").arg(rootfs()).arg("-czf").arg(&archive).arg(".").status();
    assert!(tar.expect("tar").success());
    let other = begun(&archive);
    assert_eq!(other.state("bob"), sessions.state("ada"));
    other.exec("bob", &["ls", "/"]).ok();
    std::fs::write(&archive, "no archive").expect("something else");
    sessions.verb("new").arg("--image").arg(&archive).arg("eve").fails().assert_says("cut short");
    let both = sessions.verb("new").arg("eve").arg("--image").arg(&archive).arg("--rootfs").arg(rootfs());
    both.fails().assert_says("either --rootfs");
}

#[test]
fn a_session_goes_on_in_another_store_with_hits() {
    requires!(bed, overlay);
    let sessions = Sessions::empty();
    let tree = sessions.path().join("odd");
    odd_tree(&tree);
    // Nobody listens at it any more.
    drop(UnixListener::bind(tree.join("tmp/socket")).expect("a socket"));
    sessions.verb("new").arg("--rootfs").arg(&tree).arg("ada").ok();
    CHANGES.iter().for_each(|text| drop(sessions.shell("ada", text).ok()));
    sessions.verb("branch").args(["ada", "eve"]).ok();
    sessions.shell("eve", "echo other > /other").ok();

    let file = sessions.path().join("ada.deja");
    sessions
        .verb("backup")
        .arg(&file)
        .arg("ada")
        .ok()
        .assert_stdout_contains("1 session, 5 states and 4 transitions");
    let other = Sessions::empty();
    let restored = other.verb("restore").args(["--as", "bob", "--json"]).arg(&file).ok().json();
    assert_eq!(restored["sessions"], serde_json::json!(["bob"]));
    assert_eq!(other.log("bob"), sessions.log("ada"));
    other.verb("verify").ok();
    other.verb("undo").args(["bob", "4"]).ok();
    CHANGES.iter().for_each(|text| drop(other.shell("bob", text).ok()));
    assert_eq!(other.acts("bob").iter().rev().take(4).collect::<Vec<_>>(), ["hit"; 4]);
    assert_eq!(other.state("bob"), sessions.state("ada"));
    other.shell("bob", "echo x > /new; cat /third").ok().assert_stdout("contentmore");
    other
        .verb("restore")
        .args(["--as", "bob"])
        .arg(&file)
        .fails()
        .assert_says("there is a session \"bob\" already");
    // What is there already stays; the rest comes.
    other.verb("restore").arg(&file).ok().assert_stdout("ada");

    let told = sessions.verb("backup").arg("--json").arg(&file).ok().json();
    assert_eq!((&told["sessions"], &told["transitions"]), (&serde_json::json!(["ada", "eve"]), &5.into()));
    let whole = sessions.verb("backup").arg("-").ok();
    std::fs::write(&file, whole.stdout_bytes()).expect("the whole store");
    let third = Sessions::empty();
    third.verb("restore").args(["--as", "x"]).arg(&file).fails().assert_says("it holds 2 sessions");
    third.verb("restore").arg(&file).ok().assert_stdout("ada\neve");
    assert_eq!(third.state("eve"), sessions.state("eve"));
    let copy = third.path().join("copy");
    third.verb("export").arg("ada").arg(&copy).ok();
    let sparse = std::fs::metadata(copy.join("d/sparse")).expect("the sparse file");
    assert_eq!(sparse.size(), (3 << 20) + 3);
}

#[test]
fn a_backup_that_is_damaged_is_refused_as_a_whole() {
    requires!(bed, overlay, tool "tar");
    let sessions = Sessions::new(&["ada"]);
    sessions.shell("ada", "echo precious > /srv/f").ok();
    let store = sessions.store();
    let key = std::fs::read_dir(store.join("transitions"))
        .expect("a shelf")
        .flatten()
        .next()
        .expect("a transition");
    let archive = sessions.path().join("made.tar");
    // A store in an archive is a backup, whoever made it.
    let make = || {
        let mut tar = std::process::Command::new("tar");
        tar.args(["--xattrs", "--xattrs-include=*", "-C"]).arg(&store).arg("-cf").arg(&archive);
        tar.args(["version", "layers", "nodes", "states", "transitions", "sessions", "locks", "drafts"]);
        assert!(tar.status().expect("tar").success());
    };
    let refused = |why: &str| {
        make();
        let other = Sessions::empty();
        other.verb("restore").arg(&archive).fails().assert_says(why);
        assert_eq!(other.verb("list").arg("--json").ok().stdout(), "[]\n");
        let kept = std::fs::read_dir(other.store().join("layers")).expect("a shelf").count();
        assert_eq!(kept, 0);
    };
    make();
    Sessions::empty().verb("restore").arg(&archive).ok().assert_stdout("ada");
    let moved = key.path().with_file_name("0".repeat(64));
    std::fs::rename(key.path(), &moved).expect("move it");
    refused("under another command's key");
    std::fs::rename(&moved, key.path()).expect("move it back");
    let layers = std::fs::read_dir(store.join("layers")).expect("a shelf").flatten();
    let file =
        layers.map(|layer| layer.path().join("tree/srv/f")).find(|path| path.exists()).expect("the file");
    std::fs::write(&file, "Precious\n").expect("damage it");
    refused("is not what it should be");
    std::fs::write(&file, "precious\n").expect("heal it");
    std::fs::write(store.join("version"), "deja session store 99\n").expect("another version");
    refused("of another version");
}
