//! Random histories of a session against the same commands in a plain directory: after each, every file, mode, owner,
//! link and attribute of the state is what the directory has.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Sessions, requires, rootfs};

/// A generator that gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const PLACES: [&str; 9] = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d", "d/e", "f"];

/// One change, in words busybox's shell and the machine's own understand alike. It may well fail.
fn change(random: &mut Random) -> String {
    let (x, y) = (random.pick(&PLACES), random.pick(&PLACES));
    let number = random.below(1000);
    match random.below(16) {
        0..=2 => format!("echo {number} > {x}"),
        3 => format!("echo {number} >> {x}"),
        4 => format!("rm -rf {x}"),
        5 => format!("mkdir {x}"),
        6 => format!("mkdir -p {x}"),
        7 => format!("rm -rf {x}; mkdir {x}; echo {number} > {x}/a"),
        8 => format!("mv {x} {y}"),
        9 => format!("cp -r {x} {y}"),
        10 => format!("ln -s {y} {x}"),
        11 => format!("chmod {} {x}", random.pick(&["600", "755", "4711", "1777", "000"])),
        12 => format!("chown -h {} {x}", random.pick(&["0:0", "7:8", "1000:1000"])),
        // One that nothing opens: it would wait for ever.
        13 => "rm -f p; mkfifo p".to_owned(),
        // Names of one file that nothing writes to later: overlayfs would take them apart.
        14 => format!("rm -rf k; mkdir k; echo {number} > k/a; ln k/a k/b"),
        _ => format!("touch {x}; truncate -s {number} {x}"),
    }
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
                () => format!("{:?}", std::fs::read(&path).expect("a file")),
            };
            if kind.is_dir() {
                waiting.push(path.clone());
            }
            let mode = if kind.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
            let name = path.strip_prefix(root).expect("below").display().to_string();
            found.insert(name, format!("{mode:o} {}:{} {what}", metadata.uid(), metadata.gid()));
        }
    }
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
            other => other.to_owned(),
        };
        let mode = if kind == "link" { 0 } else { u32::from_str_radix(&text("mode"), 8).expect("a mode") };
        found.insert(format!("{prefix}{name}"), format!("{mode:o} {}:{} {what}", entry["uid"], entry["gid"]));
        if kind == "directory" {
            told(sessions, state, &below, &format!("{prefix}{name}/"), found);
        }
    }
}

fn history(seed: u64, steps: usize, compared: usize) {
    let mut random = Random(seed);
    let sessions = Sessions::new(&["ada"]);
    let plain = sessions.path().join("plain");
    std::fs::create_dir(&plain).expect("a directory");
    sessions.shell("ada", "mkdir /w").ok();
    let busybox = rootfs().join("bin/busybox");
    for step in 0..steps {
        let count = 1 + random.below(3);
        let text: Vec<String> = (0..count).map(|_| change(&mut random)).collect();
        let text = text.join("; ");
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
        let mut state = BTreeMap::new();
        told(&sessions, "ada", "/w", "", &mut state);
        assert_eq!(state, content(&plain), "seed {seed}, step {step}: {text}");
    }
    // A hit leads where the run led.
    let end = sessions.state("ada");
    let steps: Vec<String> = sessions
        .log("ada")
        .iter()
        .skip(1)
        .map(|step| step["shown"].as_str().expect("text").to_owned())
        .collect();
    sessions.begin("bob");
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
