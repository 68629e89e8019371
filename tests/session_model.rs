//! Random histories of a session against the same commands in a plain directory: after each, every file, mode, owner,
//! link and attribute of the state is what the directory has.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use support::changes::{Random, changes};
use support::{Sessions, requires, rootfs};

/// What a tree can hold that no command of a small root file system makes: attributes, a device, a hole, names of one file.
fn odd_files(at: &Path) {
    let path = |name: &str| at.join(name);
    std::fs::create_dir(at).expect("a directory");
    for name in ["x", "h1", "deep", "gone"] {
        std::fs::write(path(name), name).expect("a file");
    }
    for (name, attribute) in
        [("x", "user.note"), ("x", "trusted.note"), ("h1", "user.shared"), ("deep", "user.odd")]
    {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(path(name), attribute, b"kept\0bytes", flags).expect("an attribute");
    }
    rustix::fs::setxattr(at, "user.directory", b"1", rustix::fs::XattrFlags::empty()).expect("an attribute");
    std::fs::hard_link(path("h1"), path("h2")).expect("a link");
    std::fs::hard_link(path("h1"), path("h3")).expect("a link");
    std::fs::File::create(path("s")).and_then(|file| file.set_len(2_000_000)).expect("a hole");
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from_raw_mode(0o620);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, path("null"), kind, mode, device).expect("a device");
}

/// What is below a directory, by path, in words.
fn content(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
            let path = entry.path();
            let metadata = std::fs::symlink_metadata(&path).expect("stat");
            let kind = metadata.file_type();
            let what = match () {
                () if kind.is_symlink() => {
                    format!("-> {}", std::fs::read_link(&path).expect("a link").display())
                }
                () if kind.is_dir() => "directory".to_owned(),
                () if kind.is_fifo() => "fifo".to_owned(),
                () if kind.is_char_device() => format!("device {}", metadata.rdev()),
                () => format!("{:?}", std::fs::read(&path).expect("a file")),
            };
            if kind.is_dir() {
                waiting.push(path.clone());
            }
            let mode = if kind.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let names = if kind.is_dir() { 1 } else { metadata.nlink() };
            found.insert(
                name,
                format!(
                    "{mode:o} {}:{} {what} {names} {:?}",
                    metadata.uid(),
                    metadata.gid(),
                    attributes(&path)
                ),
            );
        }
    }
    found
}

/// The extended attributes of a file.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut buffer = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, buffer.as_mut_slice()).expect("list attributes");
    let names = String::from_utf8(buffer[..length].to_vec()).expect("names");
    let mut found = Vec::new();
    for name in names.split_terminator('\0').filter(|name| !name.starts_with("security.")) {
        let length = rustix::fs::lgetxattr(path, name, buffer.as_mut_slice()).expect("an attribute");
        found.push((name.to_owned(), buffer[..length].to_vec()));
    }
    found.sort();
    found
}

/// The same, of a directory of a state, as the session's verbs tell.
fn told(sessions: &Sessions, state: &str, path: &str, prefix: &str, found: &mut BTreeMap<String, String>) {
    let list = sessions.verb("ls").args(["--json", state, path]).ok().json();
    for entry in list.as_array().expect("a list") {
        let text = |name: &str| entry[name].as_str().expect(name).to_owned();
        let (name, kind) = (text("name"), text("kind"));
        let below = format!("{path}/{name}");
        let what = match kind.as_str() {
            "link" => format!("-> {}", text("target")),
            "file" => format!("{:?}", sessions.verb("cat").args([state, &below]).ok().stdout_bytes()),
            "device" => format!("device {}", rustix::fs::makedev(1, 3)),
            other => other.to_owned(),
        };
        let mode = if kind == "link" { 0 } else { u32::from_str_radix(&text("mode"), 8).expect("a mode") };
        found.insert(format!("{prefix}{name}"), format!("{mode:o} {}:{} {what}", entry["uid"], entry["gid"]));
        if kind == "directory" {
            told(sessions, state, &below, &format!("{prefix}{name}/"), found);
        }
    }
}

/// A tree as it is, with all that belongs to its files.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("start cp");
    assert!(status.success(), "cp -a {from:?}");
}

fn history(seed: u64, steps: usize, compared: usize) {
    let mut random = Random(seed);
    let sessions = Sessions::empty();
    let (root, plain) = (sessions.path().join("root"), sessions.path().join("plain"));
    copy(&rootfs(), &root);
    std::fs::create_dir(root.join("w")).expect("a directory");
    odd_files(&root.join("w/z"));
    copy(&root.join("w"), &plain);
    let begin = |name: &str| sessions.verb("new").arg("--rootfs").arg(&root).arg(name).ok();
    begin("ada");
    let busybox = rootfs().join("bin/busybox");
    for step in 0..steps {
        let text = changes(&mut random);
        let finished = sessions.shell("ada", &format!("cd /w; umask 022; {text}")).output();
        assert_ne!(finished.code(), Some(255), "seed {seed}, step {step}: {finished}");
        let oracle = Command::new(&busybox)
            .args(["sh", "-c", &format!("umask 022; {text}")])
            .current_dir(&plain)
            .env_clear()
            .env("PATH", rootfs().join("bin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        oracle.expect("run the oracle");
        if step % compared != compared - 1 {
            continue;
        }
        // All of it as files, and the same once more as the verbs tell it without making any.
        let copy = sessions.path().join(format!("copy-{step}"));
        sessions.verb("export").arg("ada").arg(&copy).ok();
        let expected = content(&plain);
        assert_eq!(content(&copy.join("w")), expected, "seed {seed}, step {step}: {text}");
        std::fs::remove_dir_all(&copy).expect("remove the copy");
        let mut state = BTreeMap::new();
        told(&sessions, "ada", "/w", "", &mut state);
        let plain: Vec<&String> = expected.keys().collect();
        assert_eq!(state.keys().collect::<Vec<_>>(), plain, "seed {seed}, step {step}: {text}");
        for (name, words) in &state {
            assert!(expected[name].starts_with(words), "seed {seed}, step {step}, {name}: {words}");
        }
    }
    // A hit leads where the run led.
    let end = sessions.state("ada");
    let steps: Vec<String> = sessions
        .log("ada")
        .iter()
        .skip(1)
        .map(|step| step["shown"].as_str().expect("text").to_owned())
        .collect();
    begin("bob");
    for text in &steps {
        sessions.shell("bob", text).output();
    }
    assert_eq!(sessions.state("bob"), end);
    assert!(sessions.acts("bob").iter().skip(1).all(|act| act == "hit"));
    sessions.verb("verify").ok();
    // Its layers become an image's, and again the same state's.
    let image = sessions.path().join("image");
    sessions.verb("export").args(["--format", "archive", "ada"]).arg(&image).ok();
    let other = Sessions::empty();
    other.verb("new").arg("--image").arg(&image).arg("eve").ok();
    assert_eq!(other.state("eve"), end, "seed {seed}");
}

#[test]
fn a_random_history_is_what_a_plain_directory_makes_of_it() {
    requires!(bed, overlay);
    let seeds: &[u64] = if support::is_slow() { &[1] } else { &[1, 2] };
    for seed in seeds {
        history(*seed, 8, 1);
    }
}

#[test]
fn a_history_that_is_flattened_on_the_way_is_none_the_worse() {
    requires!(bed, overlay);
    // One that is flattened takes too long where everything does; then this is another short one.
    let steps = if support::is_slow() { 8 } else { 42 };
    history(77, steps, steps / 2);
}
