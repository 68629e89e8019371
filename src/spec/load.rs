//! Bytes -> Spec, with errors that name the place.
//!
//! serde_json says where in the text it stopped; only then, on failure, the text is walked once more to find
//! which value stands there. The walk keeps its place in a list, not on the stack, so that no depth of nesting
//! is too deep.

use serde::Deserialize;

use super::{List, Mount, Process, Resources, Spec};
use crate::error::Failure;

/// No config.json is larger; what is must be a mistake or an attack.
pub const LARGEST: usize = 16 << 20;

/// A whole config.json.
pub fn load(bytes: &[u8]) -> Result<Spec<'_>, Failure> {
    document(bytes, "config.json")
}

/// The file behind `exec --process`.
pub fn load_process(bytes: &[u8]) -> Result<Process<'_>, Failure> {
    document(bytes, "process")
}

/// What `update --resources` reads.
pub fn load_resources(bytes: &[u8]) -> Result<Resources<'_>, Failure> {
    document(bytes, "resources")
}

/// What `mounts add` and `mounts remove` read: a list of mounts, or an object that has one.
pub fn load_mounts(bytes: &[u8]) -> Result<List<Mount<'_>>, Failure> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Listed<'a> {
        #[serde(borrow)]
        mounts: List<Mount<'a>>,
    }
    match bytes.trim_ascii_start() {
        [b'[', ..] if bytes.len() <= LARGEST => {
            serde_json::from_slice(bytes).map_err(|error| explain(bytes, "mounts", &error))
        }
        _ => document(bytes, "mounts").map(|Listed { mounts }| mounts),
    }
}

fn document<'b, T: Deserialize<'b>>(bytes: &'b [u8], name: &str) -> Result<T, Failure> {
    if bytes.len() > LARGEST {
        return Err(Failure::input(format!("{name}: larger than {} MiB", LARGEST >> 20)));
    }
    match bytes.trim_ascii() {
        b"" => return Err(Failure::input(format!("{name}: it is empty"))),
        b"null" => return Err(Failure::input(format!("{name} cannot be null"))),
        // Taken for an object whose properties are known by their places.
        [b'[', ..] => return Err(Failure::input(format!("{name}: it is a list, not an object"))),
        _ => (),
    }
    serde_json::from_slice(bytes).map_err(|error| explain(bytes, name, &error))
}

fn explain(bytes: &[u8], name: &str, error: &serde_json::Error) -> Failure {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let path = path_at(bytes, offset(bytes, line, column));
    let place = if path.is_empty() { String::new() } else { format!(": {path}") };
    Failure::input(format!("{name}{place}: {} (line {line}, column {column})", shorten(reason)))
}

/// A reason may quote a value, and a value may be long.
fn shorten(reason: &str) -> String {
    const LONGEST: usize = 300;
    match reason.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &reason[..end]),
        None => reason.to_owned(),
    }
}

fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let mut start = 0;
    for _ in 1..line {
        match bytes[start..].iter().position(|byte| *byte == b'\n') {
            Some(end) => start += end + 1,
            None => break,
        }
    }
    start + column
}

/// A step from a value to one inside it.
enum Part {
    Key(String),
    Index(usize),
}

/// The path of the value that ends at `offset` or holds it, as `linux.namespaces[2].type`.
fn path_at(bytes: &[u8], offset: usize) -> String {
    let mut parts: Vec<Part> = Vec::new();
    let mut place = 0;
    // In an object a string is a key until its colon.
    let mut wants_key = false;
    while place < bytes.len() {
        let start = place;
        match bytes[place] {
            b'{' => {
                parts.push(Part::Key(String::new()));
                wants_key = true;
                place += 1;
                continue;
            }
            b'[' => {
                parts.push(Part::Index(0));
                place += 1;
                continue;
            }
            b'}' | b']' => {
                parts.pop();
                wants_key = false;
                place += 1;
            }
            b',' => {
                match parts.last_mut() {
                    Some(Part::Index(index)) => *index += 1,
                    Some(Part::Key(key)) => {
                        key.clear();
                        wants_key = true;
                    }
                    None => (),
                }
                place += 1;
                continue;
            }
            b':' => {
                wants_key = false;
                place += 1;
                continue;
            }
            b'"' => {
                place = string_end(bytes, place);
                if let (true, Some(Part::Key(key))) = (wants_key, parts.last_mut()) {
                    *key = text(&bytes[start..place]);
                }
            }
            byte if byte.is_ascii_whitespace() => {
                place += 1;
                continue;
            }
            _ => {
                let rest = &bytes[place..];
                let ends = |byte: &u8| b",:]}[{\"".contains(byte) || byte.is_ascii_whitespace();
                place += rest.iter().position(ends).unwrap_or(rest.len()).max(1);
            }
        }
        if place >= offset {
            break;
        }
    }
    join(&parts)
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut place = start + 1;
    while place < bytes.len() {
        match bytes[place] {
            b'\\' => place += 2,
            b'"' => return place + 1,
            _ => place += 1,
        }
    }
    bytes.len()
}

/// A key without its quotes; what cannot be read is shown as it stands.
fn text(quoted: &[u8]) -> String {
    serde_json::from_slice(quoted)
        .unwrap_or_else(|_| String::from_utf8_lossy(quoted).trim_matches('"').to_owned())
}

fn join(parts: &[Part]) -> String {
    // An attack may be nested ten thousand deep; nobody reads that.
    const DEEPEST: usize = 12;
    let mut path = String::new();
    for part in parts.iter().take(DEEPEST) {
        match part {
            Part::Key(key) if key.is_empty() => (),
            Part::Key(key) => {
                let dot = if path.is_empty() { "" } else { "." };
                let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                match plain {
                    true => path.push_str(&format!("{dot}{key}")),
                    false => path.push_str(&format!("[{:?}]", shorten(key))),
                }
            }
            Part::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if parts.len() > DEEPEST {
        path.push_str("...");
    }
    path
}

#[cfg(test)]
mod tests;
