//! The key of a transition: everything that can change what a command does, and nothing else. Pure.
//!
//! docs/cache-key.md lists both with reasons. The facts themselves are kept beside the result, so that a miss can say
//! which of them differs.

use super::id::{Hasher, Id};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    Words(Vec<String>),
    /// For `/bin/sh`, whose working directory, exported variables and umask carry on.
    Text(String),
}

impl Program {
    /// As a person would type it.
    pub fn shown(&self) -> String {
        match self {
            Program::Text(text) => text.clone(),
            Program::Words(words) => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A command as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: Program,
    /// Variables for this command only.
    pub environment: Vec<String>,
    /// Instead of the session's.
    pub cwd: Option<String>,
    pub uid: u32,
    pub gid: u32,
    /// The digest of standard input; None: it is empty.
    pub stdin: Option<Id>,
    /// It has the machine's own network.
    pub network: bool,
    /// Rows and columns of its terminal; None: it has none.
    pub terminal: Option<(u32, u32)>,
}

/// Raised when containers of sessions change in a way that programs can see.
const EPOCH: &str = "2";

/// A name and a value; names may repeat.
pub type Fact = (String, String);

impl Command {
    /// Everything that counts beside the state.
    pub fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut push = |name: &str, value: String| facts.push((name.to_owned(), value));
        push("epoch", EPOCH.to_owned());
        push("architecture", std::env::consts::ARCH.to_owned());
        match &self.program {
            Program::Words(words) => words.iter().for_each(|word| push("argument", word.clone())),
            Program::Text(text) => push("shell text", text.clone()),
        }
        let mut environment = self.environment.clone();
        environment.sort();
        environment.into_iter().for_each(|variable| push("variable", variable));
        push("working directory", self.cwd.clone().unwrap_or_default());
        push("user", format!("{}:{}", self.uid, self.gid));
        push("standard input", self.stdin.map_or_else(|| "empty".to_owned(), |id| id.to_string()));
        let size = |(rows, columns)| format!("{rows} rows, {columns} columns");
        push("terminal", self.terminal.map_or_else(|| "none".to_owned(), size));
        push("network", if self.network { "the machine's" } else { "none" }.to_owned());
        facts
    }
}

pub fn key(state: &Id, facts: &[Fact]) -> Id {
    let mut hasher = Hasher::new("deja transition 1");
    hasher.field(&state.0);
    for (name, value) in facts {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.finish()
}

/// The facts in which two commands differ, with what each says, in the order in which they count.
pub fn differences(ours: &[Fact], theirs: &[Fact]) -> Vec<(String, String, String)> {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in ours.iter().chain(theirs) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut found = Vec::new();
    for name in names {
        let values = |facts: &[Fact]| -> Vec<String> {
            facts.iter().filter(|fact| fact.0 == *name).map(|fact| fact.1.clone()).collect()
        };
        let (ours, theirs) = (values(ours), values(theirs));
        let said = |list: &[String], place: usize| {
            list.get(place).map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"))
        };
        let places = (0..ours.len().max(theirs.len())).filter(|place| ours.get(*place) != theirs.get(*place));
        found.extend(places.map(|place| (name.clone(), said(&ours, place), said(&theirs, place))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Command {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Command {
            program: Program::Words(words),
            environment: Vec::new(),
            cwd: None,
            uid: 0,
            gid: 0,
            stdin: None,
            network: false,
            terminal: None,
        }
    }

    #[test]
    fn everything_that_counts_changes_the_key_and_order_of_variables_does_not() {
        let state = Id::of("state", b"1");
        let base = command(&["ls", "-l"]);
        let variables = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let all = [
            base.clone(),
            command(&["ls", "-", "l"]),
            command(&["ls -l"]),
            Command { program: Program::Text("ls -l".to_owned()), ..base.clone() },
            Command { cwd: Some("/tmp".to_owned()), ..base.clone() },
            Command { uid: 1, ..base.clone() },
            Command { gid: 1, ..base.clone() },
            Command { network: true, ..base.clone() },
            Command { terminal: Some((24, 80)), ..base.clone() },
            Command { terminal: Some((80, 24)), ..base.clone() },
            Command { stdin: Some(Id::of("x", b"")), ..base.clone() },
            Command { environment: variables(&["A=1"]), ..base.clone() },
            Command { environment: variables(&["A=1", "B=2"]), ..base.clone() },
        ];
        let mut keys: Vec<Id> = all.iter().map(|command| key(&state, &command.facts())).collect();
        keys.push(key(&Id::of("state", b"2"), &base.facts()));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        let one = Command { environment: variables(&["B=2", "A=1"]), ..base.clone() };
        assert_eq!(key(&state, &one.facts()), key(&state, &all[12].facts()));
    }

    #[test]
    fn the_first_difference_is_named() {
        let (one, other) = (command(&["cc", "a.c"]), command(&["cc", "b.c", "-O2"]));
        let told = differences(&one.facts(), &other.facts());
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], ("argument".to_owned(), "\"a.c\"".to_owned(), "\"b.c\"".to_owned()));
        assert_eq!(told[1].1, "nothing");
        assert_eq!(differences(&one.facts(), &one.facts()), []);
    }

    #[test]
    fn words_are_shown_as_they_could_be_typed() {
        assert_eq!(command(&["echo", "a b", "it's", ""]).program.shown(), r"echo 'a b' 'it'\''s' ''");
    }
}
