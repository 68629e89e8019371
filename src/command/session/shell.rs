//! `session shell`: a prompt at which lines are commands of a session.
//!
//! Each line is a `session exec`: what is known is replayed by the prompt itself, anything else is a deja of its own, so
//! that it is interrupted and kept like any other. At a terminal the line can be edited; the history is the session's, and names are completed from its state, where nothing runs.

use std::ffi::{OsStr, OsString};
use std::io::BufRead;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::background;
use super::capture::write_all;
use super::exec;
use super::line::{self, Event, Keys, Line};
use super::put;
use crate::cli::{self, Global, Verb};
use crate::session::journal::{self, Act, Step};
use crate::session::state::State;
use crate::session::store::Store;
use crate::session::tree::{self, Entry, Node, Nodes};
use crate::sys::process::{self, SignalSet};
use crate::sys::{borrow, fs, terminal};
use crate::{error, log};

/// Keys of the terminal for whoever runs in front, which is not the prompt.
const INTERRUPT: i32 = 2;
const QUIT: i32 = 3;

pub fn run(global: &Global, arguments: &cli::SessionShell, argv: &[OsString]) -> Result<i32> {
    if arguments.at.json {
        bail!("session shell speaks to people and has no --json: session exec has");
    }
    let store = super::store(&arguments.at)?;
    // Fails now when there is no such session.
    let steps = journal::look(&store, &arguments.session)?;
    let before = super::before(argv);
    let mut shell = Shell { global, store, session: &arguments.session, before, colour: false, code: 0 };
    process::set_signal_mask(&SignalSet::of(&[INTERRUPT, QUIT]))?;
    match terminal::modes(borrow(0)).is_ok() && terminal::modes(borrow(1)).is_ok() {
        true => shell.converse(&steps)?,
        false => shell.read()?,
    }
    Ok(shell.code)
}

struct Shell<'a> {
    global: &'a Global,
    store: Store,
    session: &'a str,
    /// The flags in front of the verb.
    before: &'a [OsString],
    colour: bool,
    /// Of the last command.
    code: i32,
}

const HELP: &str = "A line is a command of the session; the directory, exported variables and umask stay.\n\
    :undo [N]      take back the last command, or the last N\n\
    :log           what the session went through\n\
    :tty TEXT      a command at a terminal of its own: an editor, a pager\n\
    :edit FILE     edit a file of the session with your own editor\n\
    :explain TEXT  whether a command would be a hit, or why not\n\
    exit [CODE]    leave; so does control-D\n\
    Before the prompt: = it was replayed, + it ran, ~ it ran and is not kept for others.\n";

/// What a line asks of the prompt itself.
#[derive(Debug, PartialEq, Eq)]
enum Asked<'l> {
    Nothing,
    Exit(Option<i32>),
    Help,
    Verb(&'static str, Vec<&'l str>),
    /// A command that wants a terminal.
    Terminal(&'l str),
    Command,
}

fn asked(line: &str) -> Asked<'_> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [] => Asked::Nothing,
        ["exit"] => Asked::Exit(None),
        ["exit", code] if code.parse::<u8>().is_ok() => Asked::Exit(code.parse().ok()),
        [":help" | ":"] => Asked::Help,
        [":tty", ..] => Asked::Terminal(line.trim_start().trim_start_matches(":tty").trim()),
        [":log"] => Asked::Verb("log", Vec::new()),
        [":edit", path] => Asked::Verb("edit", vec![path]),
        [":undo", steps @ ..] => Asked::Verb("undo", steps.to_vec()),
        [":explain", ..] => {
            Asked::Verb("explain", vec!["-c", line.trim_start().trim_start_matches(":explain").trim()])
        }
        _ => Asked::Command,
    }
}

impl Shell<'_> {
    /// Lines from a file or a pipe.
    fn read(&mut self) -> Result<()> {
        let mut text = String::new();
        for line in std::io::stdin().lock().lines() {
            text.push_str(&line.context("read a line")?);
            if line::is_open(&text) {
                text.push('\n');
                continue;
            }
            if !self.line(&std::mem::take(&mut text))? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// False: it was the last.
    fn line(&mut self, text: &str) -> Result<bool> {
        match asked(text) {
            Asked::Nothing => (),
            Asked::Exit(code) => {
                self.code = code.unwrap_or(self.code);
                return Ok(false);
            }
            Asked::Help => super::super::print(HELP)?,
            Asked::Verb(verb, words) => drop(self.call(verb, &[], &words)?),
            Asked::Terminal(text) => self.code = self.call("exec", &["--tty"], &["-c", text])?,
            Asked::Command => self.code = self.command(text)?,
        }
        Ok(true)
    }

    /// What is known is replayed here; anything else is a deja of its own.
    fn command(&self, text: &str) -> Result<i32> {
        let place = [OsStr::new("--store"), self.store.root().as_os_str()];
        let words = ["deja", "session", "exec"].map(OsStr::new).into_iter().chain(place);
        let words = words.chain([self.session, "-c", text].map(OsStr::new)).map(OsStr::to_owned);
        let invocation = cli::parse(words).map_err(|misuse| misuse.error)?;
        let Verb::SessionExec(arguments) = &invocation.verb else {
            bail!("session exec was understood as another verb")
        };
        match exec::replayed(self.global, &self.store, arguments) {
            Ok(Some(code)) => Ok(code),
            Ok(None) => self.call("exec", &[], &["-c", text]),
            Err(failure) => {
                log::error(&error::sentence(&failure));
                Ok(super::super::failure_code(&invocation.verb))
            }
        }
    }

    /// Runs a verb of sessions on this one.
    fn call(&self, verb: &str, flags: &[&str], words: &[&str]) -> Result<i32> {
        let mut command = Command::new("/proc/self/exe");
        command.args(self.before).args(["session", verb, "--store"]).arg(self.store.root());
        command.args(flags).arg(self.session).args(words);
        let status = command.status().context("start deja")?;
        Ok(background::exit_code(status))
    }

    fn converse(&mut self, steps: &[Step]) -> Result<()> {
        self.colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let typed = |step: &&Step| step.act.is_command() && !put::is_put(&step.shown);
        let shown = steps.iter().filter(typed).map(|step| step.shown.clone());
        // What has several lines or was cut short cannot be typed again.
        let mut line = Line::with_history(
            shown.filter(|text| !text.contains('\n') && !text.ends_with(" ...")).collect(),
        );
        let mut mark = String::new();
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { self.prompt(&mark)? } else { Prompt::plain("> ") };
            match self.ask(&prompt, &mut line)? {
                Some(Event::Entered(more)) => text.push_str(&more),
                Some(_) => {
                    text.clear();
                    continue;
                }
                None => return Ok(()),
            }
            if line::is_open(&text) {
                text.push('\n');
                continue;
            }
            let before = journal::look(&self.store, self.session)?.len();
            if !self.line(&std::mem::take(&mut text))? {
                return Ok(());
            }
            let steps = journal::look(&self.store, self.session)?;
            mark =
                steps.get(before..).and_then(<[Step]>::last).map_or_else(String::new, |step| self.mark(step));
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[m") } else { text.to_owned() }
    }

    fn mark(&self, step: &Step) -> String {
        let mark = match step.act {
            Act::Hit => self.paint("32", "="),
            Act::Run => self.paint("33", "+"),
            Act::Once | Act::Live => self.paint("35", "~"),
            _ => return String::new(),
        };
        let code = if step.code == 0 { String::new() } else { self.paint("31", &format!("{} ", step.code)) };
        format!("{mark} {code}")
    }

    fn prompt(&self, mark: &str) -> Result<Prompt> {
        let cwd = self.state()?.context.cwd;
        let place = self.paint("1", &format!("{}:{cwd}", self.session));
        Ok(Prompt::plain(&format!("{mark}{place}# ")))
    }

    fn state(&self) -> Result<State> {
        let steps = journal::look(&self.store, self.session)?;
        let last = steps.last().context("the session has no steps")?;
        self.store.state(&last.state)
    }

    /// One line from the terminal; None: the end.
    fn ask(&self, prompt: &Prompt, line: &mut Line) -> Result<Option<Event>> {
        let modes = terminal::modes(borrow(0))?;
        terminal::set_modes(borrow(0), &terminal::raw(&modes))?;
        let asked = self.edit(prompt, line);
        terminal::set_modes(borrow(0), &modes)?;
        write_all(1, b"\n")?;
        asked
    }

    fn edit(&self, prompt: &Prompt, line: &mut Line) -> Result<Option<Event>> {
        let mut keys = Keys::default();
        draw(prompt, line)?;
        loop {
            let mut byte = [0];
            if fs::read(borrow(0), &mut byte).context("read a key")? == 0 {
                return Ok(None);
            }
            let Some(key) = keys.feed(byte[0]) else { continue };
            match line.press(key) {
                Event::Nothing => continue,
                Event::Changed => (),
                Event::Complete => self.complete(line)?,
                Event::Clear => write_all(1, b"\x1b[H\x1b[2J")?,
                Event::End => return Ok(None),
                done => return Ok(Some(done)),
            }
            draw(prompt, line)?;
        }
    }

    /// Completes the word in front of the cursor as far as it is clear, or shows what it could be.
    fn complete(&self, line: &mut Line) -> Result<()> {
        let head = line.head();
        let (word, is_command) = line::word(&head);
        let state = self.state()?;
        let names = completions(&self.store, &state, word, is_command)?;
        let last = word.rsplit('/').next().unwrap_or(word);
        match names.as_slice() {
            [one] => line.replace(
                last.chars().count(),
                &format!("{one}{}", if one.ends_with('/') { "" } else { " " }),
            ),
            [] => (),
            many => {
                let common = line::common(many);
                if common.len() > last.len() {
                    line.replace(last.chars().count(), &common);
                    return Ok(());
                }
                write_all(1, format!("\r\n{}\r\n", many.join("  ")).as_bytes())?;
            }
        }
        Ok(())
    }
}

struct Prompt {
    text: String,
    /// What is seen of it.
    width: usize,
}

impl Prompt {
    fn plain(text: &str) -> Self {
        let mut width = 0;
        let mut hidden = false;
        for c in text.chars() {
            match c {
                '\x1b' => hidden = true,
                'm' if hidden => hidden = false,
                _ if !hidden => width += 1,
                _ => (),
            }
        }
        Self { text: text.to_owned(), width }
    }
}

fn draw(prompt: &Prompt, line: &Line) -> Result<()> {
    // A terminal without a size is as wide as terminals were.
    let columns = terminal::size(borrow(1)).map_or(80, |(_, columns)| columns.max(1) as usize);
    let columns = if columns == 1 { 80 } else { columns };
    let (text, cursor) = line.window(columns.saturating_sub(prompt.width).max(8));
    let column = prompt.width + cursor;
    let back = if column == 0 { String::new() } else { format!("\x1b[{column}C") };
    write_all(1, format!("\r{}{text}\x1b[K\r{back}", prompt.text).as_bytes())
}

/// More names than anybody reads are not shown.
const MOST_NAMES: usize = 200;

/// The names the last part of `word` may become; directories end with a slash.
fn completions(store: &Store, state: &State, word: &str, is_command: bool) -> Result<Vec<String>> {
    let (directory, last) =
        word.rsplit_once('/').map_or((None, word), |(directory, last)| (Some(directory), last));
    let places: Vec<String> = match directory {
        Some("") => vec!["/".to_owned()],
        Some(directory) => vec![directory.to_owned()],
        None if is_command => {
            let path = state.context.environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
            path.unwrap_or_default().split(':').map(str::to_owned).collect()
        }
        None => vec![".".to_owned()],
    };
    let mut found = Vec::new();
    for place in places {
        let at = format!("{}/{place}", if place.starts_with('/') { "" } else { &state.context.cwd });
        let Some(node) = node_at(store, &state.root, &at)? else { continue };
        for (name, entry) in &node {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name.starts_with(last) && (!name.starts_with('.') || last.starts_with('.')) {
                let is_directory = match entry.node_id() {
                    Some(_) => true,
                    None => node_at(store, &state.root, &format!("{at}/{name}"))?.is_some(),
                };
                found.push(format!("{name}{}", if is_directory { "/" } else { "" }));
            }
        }
    }
    found.sort();
    found.dedup();
    found.truncate(MOST_NAMES);
    Ok(found)
}

fn node_at(store: &Store, root: &Entry, path: &str) -> Result<Option<Node>> {
    let entry = tree::follow(store, root, path.as_bytes())?;
    entry.and_then(|entry| entry.node_id()).map(|id| store.node(&id)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_the_prompt_are_told_from_commands() {
        for (line, expected) in [
            ("", Asked::Nothing),
            ("exit 3", Asked::Exit(Some(3))),
            ("exit", Asked::Exit(None)),
            ("exit now", Asked::Command),
            (":tty vi f", Asked::Terminal("vi f")),
            (":edit a.c", Asked::Verb("edit", vec!["a.c"])),
            (":undo 2", Asked::Verb("undo", vec!["2"])),
            (" :explain  make -j 2 ", Asked::Verb("explain", vec!["-c", "make -j 2"])),
            ("echo :undo", Asked::Command),
        ] {
            assert_eq!(asked(line), expected, "{line}");
        }
    }

    #[test]
    fn colours_take_no_room() {
        assert_eq!(Prompt::plain("\x1b[32m=\x1b[m \x1b[1mada:/\x1b[m# ").width, 9);
    }
}
