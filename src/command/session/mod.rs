//! The verbs of sessions: where `session`, which knows states, and `launch`, which runs commands, meet.

mod background;
mod backup;
mod capture;
mod enter;
mod exec;
mod explain;
mod image;
mod inside;
mod keep;
mod line;
mod list;
mod log;
mod look;
mod moves;
mod new;
mod put;
mod replay;
mod room;
mod run;
mod shell;
mod survey;
mod trust;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::{Global, SessionPlace, Verb};
use crate::container;
use crate::session::store::Store;
use crate::sys::process::effective_uid;

/// Does what a verb of sessions says; None: it is none. `argv` is the whole command line.
pub fn run(global: &Global, verb: &Verb, argv: &[OsString]) -> Result<Option<i32>> {
    match verb {
        Verb::SessionExec(words) => return exec::run(global, words, argv).map(Some),
        Verb::SessionShell(words) => return shell::run(global, words, argv).map(Some),
        Verb::SessionPut(arguments) => put::put(arguments),
        Verb::SessionEdit(arguments) => put::edit(arguments),
        Verb::SessionWatch(arguments) => return watch::run(arguments).map(Some),
        Verb::SessionInside(arguments) => inside::run(arguments),
        Verb::SessionSettle(arguments) => background::settle(arguments),
        Verb::SessionNew(arguments) => new::run(arguments),
        Verb::SessionList(arguments) => list::run(arguments),
        Verb::SessionLog(arguments) => log::run(arguments),
        Verb::SessionUndo(arguments) => moves::undo(arguments),
        Verb::SessionGoto(arguments) => moves::goto(arguments),
        Verb::SessionBranch(arguments) => moves::branch(arguments),
        Verb::SessionRename(arguments) => moves::rename(arguments),
        Verb::SessionClose(arguments) => moves::close(arguments),
        Verb::SessionDiff(arguments) => look::diff(arguments),
        Verb::SessionLs(arguments) => look::ls(arguments),
        Verb::SessionExport(arguments) => look::export(arguments),
        Verb::SessionCat(arguments) => look::cat(arguments),
        Verb::SessionExplain(arguments) => explain::run(arguments),
        Verb::SessionTree(arguments) => survey::tree(arguments),
        Verb::SessionStats(arguments) => survey::stats(arguments),
        Verb::SessionBackup(arguments) => backup::backup(arguments),
        Verb::SessionRestore(arguments) => backup::restore(arguments),
        Verb::SessionPolicy(arguments) => trust::policy(arguments),
        Verb::SessionDisown(arguments) => trust::disown(arguments),
        Verb::SessionVerify(arguments) => keep::verify(global, arguments),
        Verb::SessionGc(arguments) => keep::gc(global, arguments),
        _ => return Ok(None),
    }
    .map(|()| Some(0))
}

/// The store the command line means.
pub(super) fn store_path(place: &SessionPlace) -> Result<PathBuf> {
    let home = || {
        let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        data.or_else(home).map(|data| data.join("deja/sessions"))
    };
    let path = match &place.store {
        Some(path) if path.as_os_str().is_empty() => bail!("--store needs a directory"),
        Some(path) => path.clone(),
        None if effective_uid() == 0 => PathBuf::from("/var/lib/deja/sessions"),
        None => home().context("find the session store: neither --store nor $HOME says where")?,
    };
    container::absolute(&path, std::env::current_dir)
}

fn store(place: &SessionPlace) -> Result<Store> {
    Store::open(store_path(place)?)
}

/// The flags in front of the verb, of the whole command line.
fn before(argv: &[OsString]) -> &[OsString] {
    let verb = argv.iter().position(|word| word == "session").unwrap_or(argv.len());
    &argv[1usize.min(verb)..verb]
}

/// One line of JSON, for `--json`.
fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(value).context("write JSON")?;
    text.push('\n');
    super::print(&text)
}
