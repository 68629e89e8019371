//! `session put` and `session edit`: changing files of a session from outside. Nothing is run.

use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::{background, enter, exec, moves, replay, run};
use crate::cli;
use crate::error::Failure;
use crate::session::journal::{Act, Session};
use crate::session::key;
use crate::session::put::{self, Put};
use crate::session::state::State;
use crate::session::store::{Shelf, Store};
use crate::session::transition::{Head, Transition};
use crate::session::tree::Kind;
use crate::session::{Content, Id};
use crate::sys::process::{self, SignalSet};
use crate::time::Moment;

/// What a new file's permissions are taken from when it is read from the standard input.
const PLAIN: u32 = 0o666;

/// Keys of the terminal for whoever runs in front.
const INTERRUPT: i32 = 2;
const QUIT: i32 = 3;

/// Something to be put, and where it was asked to go.
struct Source {
    content: Box<dyn Read>,
    /// The permissions of the file it is read from.
    like: u32,
    /// What it is called when it goes into a directory.
    name: Option<String>,
}

pub fn put(arguments: &cli::SessionPut) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let Some((path, files)) = arguments.paths.split_last() else {
        return Err(Failure::usage("there is no path: say where the file goes").into());
    };
    let path = path.to_str().context("the path in the session is not valid UTF-8")?;
    let sources = match files {
        [] => vec![Source { content: Box::new(std::io::stdin()), like: PLAIN, name: None }],
        files => files.iter().map(|file| source(file)).collect::<Result<_>>()?,
    };
    let mut session = Session::open(&store, &arguments.session)?;
    let mode = arguments.mode.map(|mode| mode.0);
    let transition = apply(&store, &mut session, sources, path, mode)?;
    tell(arguments.at.json, &transition)
}

fn tell(json: bool, (act, transition): &(Act, Transition)) -> Result<()> {
    match json {
        true => replay::tell(*act, transition),
        false => crate::command::print(&format!("{}\n", transition.head.to.short())),
    }
}

fn source(path: &Path) -> Result<Source> {
    let file = File::open(path).with_context(|| format!("open {path:?}"))?;
    let metadata = file.metadata().with_context(|| format!("look at {path:?}"))?;
    if metadata.is_dir() {
        bail!("{path:?} is a directory, and only files are put: name them");
    }
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    Ok(Source { content: Box::new(file), like: metadata.permissions().mode(), name })
}

/// Puts files into a session: what they lead to is a transition like any other.
fn apply(
    store: &Store,
    session: &mut Session,
    sources: Vec<Source>,
    path: &str,
    mode: Option<u32>,
) -> Result<(Act, Transition)> {
    background::refuse(store, session)?;
    enter::enter(store)?;
    let begin = Instant::now();
    let state = exec::short_chain(store, &session.state())?;
    let draft = store.draft()?;
    let tree = draft.path.join("tree");
    std::fs::create_dir(&tree).with_context(|| format!("create {tree:?}"))?;
    let several = sources.len() > 1;
    let mut files = Vec::new();
    for mut source in sources {
        let located = put::place(store, &state.root, &state.context.cwd, path, source.name.as_deref())?;
        if several && files.iter().any(|other: &Put| other.located == located) {
            bail!("{path:?} is no directory, and several files cannot become one");
        }
        let mut file = Put::new(located, mode, source.like, state.context.umask);
        file.write(&mut source.content, &tree)?;
        files.push(file);
    }
    let facts = put::facts(&files);
    let key = key::key(&session.state(), &facts);
    let _runner = store.lock(&key.to_string())?;
    if let Some(known) = exec::known(store, &key)? {
        let _held = store.share()?;
        session.step(exec::step(Act::Hit, &known.head, Some(key)), true)?;
        return Ok((Act::Hit, known));
    }
    let _held = store.share()?;
    let (after, bytes) = run::advance(store, &draft, &state)?;
    let to = store.keep(&after)?;
    let names: Vec<String> =
        files.iter().map(|file| String::from_utf8_lossy(&file.located.path()).into_owned()).collect();
    let head = Head {
        from: session.state(),
        to,
        facts,
        shown: shown(&names),
        code: 0,
        micros: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
        bytes,
        at: Moment::now().seconds(),
        expires: None,
    };
    let transition = Transition { head, output: Vec::new() };
    if store.has(Shelf::Disowned, &to.to_string()) {
        eprintln!("deja: the result is not kept for others: the state it leads to was disowned");
        session.step(exec::step(Act::Once, &transition.head, None), true)?;
        return Ok((Act::Once, transition));
    }
    store.put(Shelf::Transitions, &key.to_string(), &transition.to_bytes()?)?;
    store.sync(Shelf::Transitions)?;
    session.step(exec::step(Act::Run, &transition.head, Some(key)), true)?;
    Ok((Act::Run, transition))
}

/// In parentheses, because it is nothing that could be typed again.
const SHOWN: &str = "(put ";

fn shown(names: &[String]) -> String {
    format!("{SHOWN}{})", names.join(" "))
}

/// Whether what a journal shows is of a file that was put, and not of a command.
pub fn is_put(shown: &str) -> bool {
    shown.starts_with(SHOWN)
}

pub fn edit(arguments: &cli::SessionEdit) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let path = &arguments.path;
    let state = store.state(&moves::standing(&store, &arguments.session)?)?;
    let before = file_at(&store, &state, path)?;
    let copy = Copy::new(path)?;
    if before.is_some() {
        copy.fill(&store, &state, path)?;
    }
    copy.edit()?;
    let edited = std::fs::read(&copy.path).with_context(|| format!("read {:?}", copy.path))?;
    let after = Content::id_of(&edited);
    if before.map_or(edited.is_empty(), |before| before == after) {
        eprintln!("deja: nothing was changed");
        return copy.remove();
    }
    let mut session = Session::open(&store, &arguments.session)?;
    let now = store.state(&session.state())?;
    if file_at(&store, &now, path)? != before {
        bail!("{path:?} has changed in the session meanwhile: what was edited is in {:?}", copy.path);
    }
    let source = Source { content: Box::new(Cursor::new(edited)), like: PLAIN, name: None };
    let transition = apply(&store, &mut session, vec![source], path, None)
        .with_context(|| format!("what was edited is in {:?}", copy.path))?;
    copy.remove()?;
    tell(arguments.at.json, &transition)
}

/// The content of a file of the state; None: there is none.
fn file_at(store: &Store, state: &State, path: &str) -> Result<Option<Id>> {
    let located = put::place(store, &state.root, &state.context.cwd, path, None)?;
    let entry = located.way.last().filter(|_| located.missing.is_none());
    Ok(entry.and_then(|(_, entry)| match entry.kind {
        Kind::File { content, .. } => Some(content),
        _ => None,
    }))
}

/// A file of a session for an editor, under its own name, in a directory that nobody else may look into.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn new(path: &str) -> Result<Self> {
        let name = Path::new(path).file_name().with_context(|| format!("{path:?} names no file"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let directory = std::env::temp_dir().join(format!("deja-edit-{}-{now}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("create {directory:?}"))?;
        Ok(Self { path: directory.join(name) })
    }

    fn fill(&self, store: &Store, state: &State, path: &str) -> Result<()> {
        let located = put::place(store, &state.root, &state.context.cwd, path, None)?;
        let whole = String::from_utf8(located.path()).context("a name on the way is not valid UTF-8")?;
        let to = File::create(&self.path).with_context(|| format!("create {:?}", self.path))?;
        // By a deja of its own: the editor is to be started by whoever the user is outside.
        let mut cat = Command::new("/proc/self/exe");
        cat.args(["session", "cat", "--store"]).arg(store.root()).arg(state.id().to_string()).arg(whole);
        let status = cat.stdout(to).status().context("start deja")?;
        if !status.success() {
            bail!("copy {path:?}: {status}");
        }
        Ok(())
    }

    /// Lets the user's editor do its work.
    fn edit(&self) -> Result<()> {
        let choice = ["VISUAL", "EDITOR"].iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
        let editor = choice.unwrap_or_else(|| "vi".into());
        // The variable may hold arguments; a shell takes them apart as everybody else's does.
        let mut text = editor.clone();
        text.push(" \"$1\"");
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text).arg("sh").arg(&self.path);
        // The keys that interrupt are the editor's.
        process::set_signal_mask(&SignalSet::of(&[INTERRUPT, QUIT]))?;
        process::begin_unblocked(&mut command);
        let status = command.status();
        let status = status.with_context(|| format!("start the editor {editor:?}"))?;
        if !status.success() {
            bail!("the editor {editor:?} failed ({status}): what it left is in {:?}", self.path);
        }
        if !self.path.exists() {
            bail!("the editor {editor:?} has saved nothing");
        }
        Ok(())
    }

    fn remove(self) -> Result<()> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        std::fs::remove_dir_all(directory).with_context(|| format!("remove {directory:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_shown_as_nothing_that_can_be_typed_again() {
        let text = shown(&["/srv/a.c".to_owned(), "/srv/b.c".to_owned()]);
        assert_eq!(text, "(put /srv/a.c /srv/b.c)");
        assert!(is_put(&text) && !is_put("put x"));
    }
}
