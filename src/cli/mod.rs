//! argv -> Invocation. Touches nothing: no file, no environment, no clock.
//!
//! `verbs` holds one table per verb. From it come the parser, `--help`, the manual pages and the shells'
//! completions, so that none can promise what another does not keep. Flags are written as runc's and crun's
//! callers write them: `--flag value`, `--flag=value`, `-f value`, and `-flag` with a single dash.

mod completion;
mod help;
mod man;
mod shared;
mod table;
mod value;
mod verbs;

use std::ffi::{OsStr, OsString};

use anyhow::Result;

use crate::error::Failure;

pub use completion::{SHELLS, completion};
pub use help::{overview, verb_help, version};
pub use man::pages;
pub use shared::{Global, Launch, Limits, SessionPlace};
pub use table::{Flag, Page};
pub use value::{
    Bound, Bytes, CgroupManager, CgroupsMode, Choice, Compression, Cpus, Format, Grouping, Interval, Level,
    LogFormat, NetworkLock, Permissions, SIGNALS, SharePolicy, Signal, SortKey, StateForm, Switch, UserSpec,
    Variation, WeightMeaning, WindowSize,
};
pub use verbs::{
    Checkpoint, Completion, Create, Delete, Doctor, Events, Exec, FairPlot, FairRestore, FairRun, FairSet,
    FairSimulate, FairStatus, Features, Help, Kill, List, Man, Mounts, PAGES, Pause, Ps, Restore, Resume,
    Run, SessionBackup, SessionBranch, SessionCat, SessionClose, SessionDiff, SessionDisown, SessionEdit,
    SessionExec, SessionExplain, SessionExport, SessionGc, SessionGoto, SessionInside, SessionList,
    SessionLog, SessionLs, SessionNew, SessionPolicy, SessionPut, SessionRename, SessionRestore,
    SessionSettle, SessionShell, SessionStats, SessionTree, SessionUndo, SessionVerify, SessionWatch, Spec,
    Start, State, Top, Update, Verb,
};

use table::{FlagSet, Given};

/// What the command line asked for.
#[derive(Debug)]
pub struct Invocation {
    /// The last part of argv[0]; deja answers to the name it is called by.
    pub program: String,
    pub global: Global,
    pub verb: Verb,
}

/// A command line that asks for nothing possible. What was understood before is kept, because it says where
/// errors are to be logged.
#[derive(Debug)]
pub struct Misuse {
    pub global: Global,
    pub error: anyhow::Error,
}

/// Understands `argv`, the program's name included.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Invocation, Box<Misuse>> {
    let mut argv = argv.into_iter();
    let program = argv.next().map(|name| base_name(&name)).unwrap_or_default();
    let mut global = Global::default();
    let mut parser = lexopt::Parser::from_args(argv);
    match parse_global(&mut parser, &mut global) {
        Ok(verb) => Ok(Invocation { program, global, verb }),
        Err(error) => Err(Box::new(Misuse { global, error })),
    }
}

fn base_name(path: &OsStr) -> String {
    let text = path.to_string_lossy();
    let name = text.rsplit('/').next().unwrap_or_default();
    if name.is_empty() { "deja".to_owned() } else { name.to_owned() }
}

fn parse_global(parser: &mut lexopt::Parser, global: &mut Global) -> Result<Verb> {
    loop {
        match next(parser, Global::FLAGS)? {
            None => return Ok(Verb::Help(Help::default())),
            Some(Token::Flag("help", _)) => return Ok(Verb::Help(Help::default())),
            Some(Token::Flag("version" | "Version", _)) => return Ok(Verb::Version),
            Some(Token::Flag(name, given)) => set(global, name, given)?,
            Some(Token::Text(name)) => {
                let Some(name) = whole_name(parser, &name.to_string_lossy())? else {
                    return Ok(Verb::Help(Help { topic: vec![name.to_string_lossy().into_owned()] }));
                };
                let Some(mut verb) = Verb::named(&name) else {
                    return Err(Failure::usage(format!("No help topic for '{name}'")).into());
                };
                return match parse_verb(parser, &mut verb)? {
                    Asked::Run => Ok(verb),
                    Asked::Help => Ok(Verb::Help(Help { topic: vec![verb.page().name.to_owned()] })),
                };
            }
        }
    }
}

/// Some verbs have two words, of which the first alone is none; None: help is asked for in between.
fn whole_name(parser: &mut lexopt::Parser, first: &str) -> Result<Option<String>> {
    let seconds = table::seconds(PAGES, first);
    if seconds.is_empty() {
        return Ok(Some(first.to_owned()));
    }
    match parser.next().map_err(misused)? {
        Some(lexopt::Arg::Long("help") | lexopt::Arg::Short('h')) => Ok(None),
        Some(lexopt::Arg::Value(word)) if is_second(first, &word) => {
            Ok(Some(format!("{first} {}", word.to_string_lossy())))
        }
        _ => Err(Failure::usage(format!("{first:?} needs one of: {}", seconds.join(", "))).into()),
    }
}

fn is_second(first: &str, word: &OsStr) -> bool {
    PAGES.iter().any(|page| page.name.split_once(' ').is_some_and(|name| name.0 == first && word == name.1))
}

enum Asked {
    Run,
    Help,
}

fn parse_verb(parser: &mut lexopt::Parser, verb: &mut Verb) -> Result<Asked> {
    let page = verb.page();
    let mut places: Vec<OsString> = Vec::new();
    loop {
        match next(parser, page.flags)? {
            None => break,
            Some(Token::Flag("help", _)) => return Ok(Asked::Help),
            Some(Token::Flag(name, given)) => set(verb, name, given)?,
            Some(Token::Text(text)) => {
                places.push(text);
                if page.stops_at_id {
                    places.extend(parser.raw_args().map_err(misused)?);
                    break;
                }
            }
        }
    }
    check_count(page, places.len())?;
    verb.place(places)?;
    Ok(Asked::Run)
}

fn check_count(page: &Page, count: usize) -> Result<()> {
    let (least, most) = (page.least, page.most);
    let rule = match () {
        () if (least..=most).contains(&count) => return Ok(()),
        () if least == most => format!("exactly {least}"),
        () if count < least => format!("a minimum of {least}"),
        () => format!("a maximum of {most}"),
    };
    let name = page.name;
    Err(Failure::usage(format!("{name:?} requires {rule} argument(s), got {count}: see \"{name} --help\""))
        .into())
}

enum Token {
    /// A flag by its long name.
    Flag(&'static str, Given),
    Text(OsString),
}

/// The next flag with its value, or the next word.
fn next(parser: &mut lexopt::Parser, flags: &[&'static [Flag]]) -> Result<Option<Token>> {
    use lexopt::Arg;
    if let Some(text) = single_dash(parser, flags) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (text.as_str(), None),
        };
        let flag = table::find(flags, name).expect("single_dash has just found it");
        return take(parser, flag, value).map(Some);
    }
    let (flag, long) = match parser.next().map_err(misused)? {
        None => return Ok(None),
        Some(Arg::Value(text)) => return Ok(Some(Token::Text(text))),
        Some(Arg::Short(letter)) => {
            let flag = table::find_short(flags, letter)
                .ok_or_else(|| Failure::usage(format!("flag provided but not defined: -{letter}")))?;
            (flag, false)
        }
        Some(Arg::Long(name)) => {
            let flag = table::find(flags, name)
                .ok_or_else(|| Failure::usage(format!("flag provided but not defined: --{name}")))?;
            (flag, true)
        }
    };
    // Behind a short switch, what is attached is the next switch.
    let attached = if long || flag.takes_value() { parser.optional_value() } else { None };
    take(parser, flag, attached).map(Some)
}

fn take(parser: &mut lexopt::Parser, flag: &'static Flag, attached: Given) -> Result<Token> {
    if attached.is_some() || !flag.takes_value() {
        return Ok(Token::Flag(flag.long, attached));
    }
    let value =
        parser.value().map_err(|_| Failure::usage(format!("flag needs an argument: --{}", flag.long)))?;
    Ok(Token::Flag(flag.long, Some(value)))
}

/// Takes the next argument if it is a long flag behind a single dash, as Go programs write them.
fn single_dash(parser: &mut lexopt::Parser, flags: &[&'static [Flag]]) -> Option<String> {
    let mut raw = parser.try_raw_args()?;
    let text = raw.peek()?.to_str()?.strip_prefix('-')?;
    let name = text.split('=').next()?;
    if name.len() < 2 || name.starts_with('-') || table::find(flags, name).is_none() {
        return None;
    }
    let text = text.to_owned();
    raw.next();
    Some(text)
}

fn set(target: &mut dyn FlagSet, name: &'static str, given: Given) -> Result<()> {
    let shown = given.as_deref().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
    target.set(name, given).map_err(|reason| {
        Failure::usage(format!("invalid value {shown:?} for flag --{name}: {reason}")).into()
    })
}

fn misused(error: lexopt::Error) -> anyhow::Error {
    Failure::usage(error.to_string()).into()
}

#[cfg(test)]
mod tests;
