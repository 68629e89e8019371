//! `top`, as text and through a real terminal.

mod support;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use support::{Bundle, Container, binary, eventually, requires};

fn busy(bundle: &Bundle) -> Container<'_> {
    bundle.start()
}

fn bundle() -> Bundle {
    Bundle::new()
        .script("while :; do :; done")
        .set("/annotations", json!({"deja.fair.tenant": "ann", "deja.fair.shares": "2"}))
}

#[test]
fn top_once_prints_a_table_or_json() {
    requires!(bed);
    let bundle = bundle();
    let web = busy(&bundle);
    let top = |flags: &[&str]| bundle.deja().args(["top", "--once"]).args(flags).ok();
    let text = top(&["--sort", "received"]).stdout();
    assert!(text.starts_with("deja top   ") && text.contains("nothing tunes: start deja fair run"), "{text}");
    let line = text.lines().find(|line| line.starts_with(web.id())).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains(" ann ") && line.contains(" default "), "{line}");
    let seen: Value = top(&["--json", "--interval", "500ms"]).json();
    let row = &seen["rows"][0];
    assert_eq!((&row["name"], &row["tenant"]), (&json!(web.id()), &json!("ann")));
    assert!(row["received"].as_f64().expect("received") > 0.02, "{seen:#}");
    let seen: Value = top(&["--json", "--view", "tenants"]).json();
    assert_eq!(seen["rows"][0]["name"], "default/ann");
}

/// A program on a terminal of its own, and everything it has shown.
struct Terminal {
    master: OwnedFd,
    child: Child,
    shown: String,
}

impl Terminal {
    #[track_caller]
    fn run(bundle: &Bundle, words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("openpt");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlock the terminal");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a name"))
            .expect("open the terminal");
        let size = Winsize { ws_row: 12, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).expect("set its size");
        let end = || Stdio::from(slave.try_clone().expect("duplicate"));
        let child = Command::new(binary())
            .arg("--root")
            .arg(bundle.state_root())
            .args(words)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .process_group(0)
            .spawn()
            .expect("start top");
        Self { master, child, shown: String::new() }
    }

    fn read(&mut self) -> bool {
        let brief = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&brief)).expect("poll") == 0 {
            return true;
        }
        let mut piece = [0; 8192];
        match rustix::io::read(&self.master, &mut piece) {
            Ok(count) if count > 0 => {
                self.shown.push_str(&String::from_utf8_lossy(&piece[..count]));
                true
            }
            _ => false,
        }
    }

    /// Reads until what was shown since the last call satisfies `is`, and gives that.
    #[track_caller]
    fn wait(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.shown.clear();
        eventually(what, || {
            self.read();
            is(&self.shown).then(|| self.shown.clone())
        })
    }

    #[track_caller]
    fn press(&self, key: &str) {
        rustix::io::write(self.master.as_fd(), key.as_bytes()).expect("type");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn top_is_drawn_on_a_terminal_and_obeys_its_keys() {
    requires!(bed);
    let bundle = bundle();
    let web = busy(&bundle);
    let mut top = Terminal::run(&bundle, &["top", "--interval", "200ms"]);
    let id = web.id().to_owned();
    let first = top.wait("the other screen and the container", |shown| {
        shown.contains("\x1b[?1049h") && shown.contains(&id)
    });
    assert!(first.contains("deja top   ") && first.contains("\x1b[H"), "{first:?}");
    let local = |top: &Terminal| tcgetattr(&top.master).expect("the modes").local_modes;
    let echo = rustix::termios::LocalModes::ECHO;
    assert!(!local(&top).contains(echo), "keys are not shown");
    // 70 columns and no more.
    let rows = first.split("\x1b[K\r\n").filter(|row| !row.contains("\x1b[?1049h"));
    assert!(rows.clone().all(|row| row.trim_start_matches("\x1b[H").chars().count() <= 80), "{first:?}");
    top.press("v");
    top.wait("tenants", |shown| shown.contains("default/ann"));
    top.press("v");
    top.wait("classes", |shown| {
        let last = shown.rsplit("\x1b[H").nth(1).unwrap_or_default();
        last.contains("\r\ndefault ") && !last.contains("default/ann")
    });
    top.press("q");
    let last = top.wait("the first screen again", |shown| shown.contains("\x1b[?1049l"));
    assert!(last.contains("\x1b[?25h"), "{last:?}");
    let code = eventually("top to end", || top.child.try_wait().expect("wait"));
    assert_eq!(code.code(), Some(0));
    assert!(local(&top).contains(echo), "the terminal is as it was");
}
