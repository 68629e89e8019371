//! `--help` and `--version`, in the order NAME, USAGE, DESCRIPTION, FLAGS, EXAMPLE that callers of runc know.

use super::shared::Global;
use super::table::{Flag, HELP, Page};
use super::verbs::PAGES;

const WIDTH: usize = 100;

/// Verbs of two words, by their first, and what they are about.
const FAMILIES: [(&str, &str); 2] =
    [("fair", "SHARING CPUS AND MEMORY"), ("session", "SESSIONS: COMMANDS THAT RUN ONCE")];

/// What `deja --help` prints.
pub fn overview(program: &str) -> String {
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\nUSAGE:\n   {program} [global flags] <verb> [flags] [arguments]\n\nVERBS:\n"
    );
    let width = shown().map(|page| page.name.len()).max().unwrap_or(0);
    for page in shown().filter(|page| family(page).is_none()) {
        line(&mut text, page.name, page.summary, width);
    }
    for (first, about) in FAMILIES {
        text.push_str(&format!("\n{about}:\n"));
        for page in members(first) {
            line(&mut text, page.name, page.summary, width);
        }
    }
    text.push_str("\nGLOBAL FLAGS:\n");
    list(&mut text, Global::OWN.iter().filter(|flag| !flag.hidden).chain([&HELP]));
    text.push_str(&format!("\nMore: {program} help <verb>\n"));
    text
}

/// What `deja VERB --help` prints; None: there is no such verb.
pub fn verb_help(program: &str, verb: &str) -> Option<String> {
    let Some(page) = PAGES.iter().find(|page| page.name == verb) else {
        return family_help(program, verb);
    };
    let flags = if page.shown_flags().next().is_some() { " [flags]" } else { "" };
    let mut text = format!("NAME:\n   {program} {verb} - {}\n\nUSAGE:\n", page.summary);
    for form in page.arguments.split("  |  ") {
        let space = if form.is_empty() { "" } else { " " };
        text.push_str(&format!("   {program} {verb}{flags}{space}{form}\n"));
    }
    text.push_str("\nDESCRIPTION:\n");
    for line in about(page) {
        text.push_str(&format!("   {line}\n"));
    }
    text.push_str("\nFLAGS:\n");
    list(&mut text, page.shown_flags().chain([&HELP]));
    text.push_str(&format!("\nEXAMPLE:\n   {program} {}\n", page.example));
    Some(text)
}

/// The verbs that begin with the same word.
fn family_help(program: &str, first: &str) -> Option<String> {
    let width = members(first).map(|page| page.name.len()).max()?;
    let mut text = format!("USAGE:\n   {program} {first} <verb> [flags] [arguments]\n\nVERBS:\n");
    for page in members(first) {
        line(&mut text, page.name, page.summary, width);
    }
    text.push_str(&format!("\nMore: {program} help {first} <verb>\n"));
    Some(text)
}

fn shown() -> impl Iterator<Item = &'static Page> {
    PAGES.iter().copied().filter(|page| !page.hidden)
}

/// The first word of a verb of two.
fn family(page: &Page) -> Option<&'static str> {
    page.name.split_once(' ').map(|(first, _)| first)
}

fn members(first: &str) -> impl Iterator<Item = &'static Page> {
    shown().filter(move |page| family(page) == Some(first))
}

/// What `deja --version` prints. The first word is the name deja was called by, because callers look for the
/// name of the runtime they believe to run.
pub fn version(program: &str, commit: &str, spec: &str) -> String {
    let number = env!("CARGO_PKG_VERSION");
    format!("{program} version {number}\ncommit: {commit}\nspec: {spec}\n")
}

pub(super) fn about(page: &Page) -> impl Iterator<Item = &'static str> {
    page.about.lines().map(str::trim)
}

/// `--bundle DIR, -b DIR`.
pub(super) fn spelling(flag: &Flag) -> String {
    let value = if flag.takes_value() { format!(" {}", flag.value) } else { String::new() };
    match flag.short {
        Some(short) => format!("--{}{value}, -{short}{value}", flag.long),
        None => format!("--{}{value}", flag.long),
    }
}

fn list(text: &mut String, flags: impl Iterator<Item = &'static Flag>) {
    let rows: Vec<(String, &str)> = flags.map(|flag| (spelling(flag), flag.help)).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).min(36);
    for (name, help) in rows {
        line(text, &name, help, width);
    }
}

/// A name and its explanation, wrapped behind the name's column.
fn line(text: &mut String, name: &str, help: &str, width: usize) {
    text.push_str(&format!("   {name:width$}  "));
    let indent = width + 5;
    let mut column = indent.max(name.len() + 5);
    let mut first = true;
    for word in help.split(' ') {
        if !first && column + 1 + word.len() > WIDTH {
            text.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if !first {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
        first = false;
    }
    text.push('\n');
}
