//! Where errors and warnings go: the file, journal or syslog that `--log` names, and stderr.
//!
//! A run that fails leaves exactly one line at level error, a run that succeeds none: callers read the last
//! line, or the whole file as one object, so warnings go to a log only where they are asked for. People see
//! them on stderr. The lines are those of runc, as text or JSON. Nothing is opened
//! before there is something to write.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::time::Moment;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
    Debug,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        }
    }

    /// As syslog and the journal count.
    fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warning => 4,
            Level::Debug => 7,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Destination {
    #[default]
    Stderr,
    File(PathBuf),
    Journal(String),
    Syslog(String),
}

impl Destination {
    /// `FILE`, `file:FILE`, `journald:NAME` or `syslog:NAME`.
    pub fn parse(text: &str) -> Self {
        let name = |name: &str| if name.is_empty() { "deja".to_owned() } else { name.to_owned() };
        match text.split_once(':') {
            Some(("file", path)) => Destination::File(path.into()),
            Some(("journald", id)) => Destination::Journal(name(id)),
            Some(("syslog", id)) => Destination::Syslog(name(id)),
            _ if text.is_empty() => Destination::Stderr,
            _ => Destination::File(text.into()),
        }
    }
}

#[derive(Debug)]
pub struct Log {
    pub destination: Destination,
    pub json: bool,
    /// The least severe level that is written.
    pub level: Level,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Says once, before anything is logged, where to.
pub fn begin(log: Log) {
    // A second call has nothing to add: there is one command line.
    LOG.get_or_init(|| log);
}

/// The failure of the whole run: to the log, and to stderr for people.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Something the caller should know although the run goes on.
pub fn warning(message: &str) {
    write(Level::Warning, message);
}

pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Whether debug lines are written, to save the work of making them.
pub fn is_debug() -> bool {
    LOG.get().is_some_and(|log| log.level == Level::Debug)
}

fn write(level: Level, message: &str) {
    let fallback = Log { destination: Destination::Stderr, json: false, level: Level::Warning };
    let log = LOG.get().unwrap_or(&fallback);
    if level > log.level {
        return;
    }
    let sent = match &log.destination {
        Destination::Stderr => io::stderr().write_all(log.line(level, message).as_bytes()),
        Destination::File(path) => append(path, &log.line(level, message)),
        Destination::Journal(id) => datagram("/run/systemd/journal/socket", &journal(id, level, message)),
        Destination::Syslog(id) => datagram("/dev/log", syslog(id, level, message).as_bytes()),
    };
    // What cannot be logged, and what fails the run, is said on stderr; if that fails too nobody can be told.
    if let Err(reason) = sent {
        drop(writeln!(io::stderr(), "{message} (and it could not be logged: {reason})"));
    } else if level == Level::Error && log.destination != Destination::Stderr {
        drop(writeln!(io::stderr(), "{message}"));
    }
}

impl Log {
    fn line(&self, level: Level, message: &str) -> String {
        let time = Moment::now().seconds();
        line(self.json, level, message, &time)
    }
}

fn line(json: bool, level: Level, message: &str, time: &str) -> String {
    let word = level.word();
    match json {
        true => format!("{{\"level\":\"{word}\",\"msg\":{},\"time\":\"{time}\"}}\n", json_quote(message)),
        false => format!("time=\"{time}\" level={word} msg={}\n", text_quote(message)),
    }
}

fn json_quote(text: &str) -> String {
    quote(text, |code| format!("\\u{code:04x}"))
}

fn text_quote(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if !text.is_empty() && text.bytes().all(bare) {
        return text.to_owned();
    }
    quote(text, |code| format!("\\x{code:02x}"))
}

fn quote(text: &str, escape: impl Fn(u32) -> String) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control < ' ' || control == '\x7f' => quoted.push_str(&escape(control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn append(path: &PathBuf, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    file.write_all(line.as_bytes())
}

fn datagram(socket: &str, message: &[u8]) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(message, socket).map(drop)
}

/// The journal's own form; a field with its length before it may hold line breaks.
fn journal(id: &str, level: Level, message: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    for (name, value) in [
        ("PRIORITY", level.priority().to_string().as_str()),
        ("SYSLOG_IDENTIFIER", id),
        ("ID", id),
        ("MESSAGE", message),
    ] {
        entry.extend_from_slice(name.as_bytes());
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
        entry.extend_from_slice(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

fn syslog(id: &str, level: Level, message: &str) -> String {
    const USER_FACILITY: u8 = 1 << 3;
    format!("<{}>{id}[{}]: {message}", USER_FACILITY | level.priority(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_callers_parse() {
        let time = "2026-11-20T23:43:51Z";
        assert_eq!(
            line(true, Level::Error, "open \"/x\": no\n\u{1}", time),
            "{\"level\":\"error\",\"msg\":\"open \\\"/x\\\": no\\n\\u0001\",\"time\":\"2026-11-20T23:43:51Z\"}\n"
        );
        assert_eq!(
            line(false, Level::Error, "container \"x\" does not exist", time),
            "time=\"2026-11-20T23:43:51Z\" level=error msg=\"container \\\"x\\\" does not exist\"\n"
        );
        assert_eq!(
            line(false, Level::Warning, "word", time),
            "time=\"2026-11-20T23:43:51Z\" level=warning msg=word\n"
        );
        for text in ["a\tb", "\u{7f}\u{0}", "ä \\ \"", ""] {
            let parsed: serde_json::Value =
                serde_json::from_str(&line(true, Level::Error, text, time)).unwrap();
            assert_eq!(parsed["msg"], text);
        }
    }

    #[test]
    fn destinations_are_told_apart() {
        for (text, expected) in [
            ("/var/log/x", Destination::File("/var/log/x".into())),
            ("file:/x:y", Destination::File("/x:y".into())),
            ("odd:name", Destination::File("odd:name".into())),
            ("journald:web", Destination::Journal("web".into())),
            ("journald:", Destination::Journal("deja".into())),
            ("syslog:web", Destination::Syslog("web".into())),
            ("", Destination::Stderr),
        ] {
            assert_eq!(Destination::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_journal_gets_length_and_text() {
        let entry = journal("web", Level::Error, "a\nb");
        assert!(entry.starts_with(b"PRIORITY\n\x01\0\0\0\0\0\0\x003\n"));
        assert!(entry.ends_with(b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"));
        assert!(syslog("web", Level::Warning, "x").starts_with("<12>web["));
    }
}
