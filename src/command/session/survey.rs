//! The whole of a store: `tree` shows states and the commands between them, `stats` counts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::enter;
use super::replay::{counted, shown_time};
use crate::cli;
use crate::plot;
use crate::session::Id;
use crate::session::history::{self, History};
use crate::session::journal::{self, Act};
use crate::session::store::{Found, Shelf, Store};
use crate::session::transition::{Head, Transition};

/// What everybody did, from the journals.
#[derive(Default)]
struct Deeds {
    sessions: BTreeMap<String, Id>,
    begins: BTreeSet<Id>,
    hits: BTreeMap<Id, u64>,
    history: History,
    counts: Stats,
}

#[derive(Default, Serialize)]
struct Stats {
    sessions: usize,
    commands: u64,
    hits: u64,
    runs: u64,
    once: u64,
    /// Time that runs took, and that hits would have taken.
    run_micros: u64,
    saved_micros: u64,
    states: usize,
    layers: usize,
    transitions: usize,
    bytes: u64,
}

fn deeds(store: &Store) -> Result<Deeds> {
    let mut deeds = Deeds::default();
    for name in store.list(Shelf::Sessions)? {
        // It may have been closed just now.
        let Ok(steps) = journal::look(store, &name) else { continue };
        let counts = &mut deeds.counts;
        for step in &steps {
            counts.commands += u64::from(step.act.is_command());
            deeds.history.add(step);
            match step.act {
                Act::New => drop(deeds.begins.insert(step.state)),
                Act::Hit => {
                    counts.hits += 1;
                    counts.saved_micros += step.micros;
                    step.key.iter().for_each(|key| *deeds.hits.entry(*key).or_default() += 1);
                }
                Act::Run => counts.runs += 1,
                Act::Once | Act::Live => counts.once += 1,
                Act::Settled | Act::Undo | Act::Goto => (),
            }
            if matches!(step.act, Act::Run | Act::Once | Act::Live) {
                counts.run_micros += step.micros;
            }
        }
        deeds.sessions.extend(steps.last().map(|last| (name, last.state)));
    }
    deeds.counts.sessions = deeds.sessions.len();
    Ok(deeds)
}

pub fn stats(arguments: &cli::SessionStats) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let Deeds { counts: mut stats, history, .. } = deeds(&store)?;
    for path in &arguments.plot {
        let title = format!(
            "{}: replays saved {} of running",
            counted(stats.sessions, "session"),
            shown_time(stats.saved_micros)
        );
        let Some(shapes) = history::draw(&title, &history) else {
            bail!("no command was asked for in this store yet: there is nothing to draw")
        };
        std::fs::write(path, plot::file(&shapes, path)).with_context(|| format!("write {path:?}"))?;
    }
    stats.states = store.list(Shelf::States)?.len();
    stats.layers = store.list(Shelf::Layers)?.len();
    stats.transitions = store.list(Shelf::Transitions)?.len();
    enter::enter(&store)?;
    stats.bytes = store.size()?;
    if arguments.at.json {
        return super::print_json(&stats);
    }
    let Stats { sessions, commands, hits, runs, once, .. } = stats;
    crate::command::print(&format!(
        "{} asked for {}: {}, {}, {once} not kept for others\n\
         runs took {}, hits saved {}\n\
         {}, {}, {}, {} KiB on disk\n",
        counted(sessions, "session"),
        counted(commands, "command"),
        counted(hits, "hit"),
        counted(runs, "run"),
        shown_time(stats.run_micros),
        shown_time(stats.saved_micros),
        counted(stats.states, "state"),
        counted(stats.transitions, "transition"),
        counted(stats.layers, "layer"),
        stats.bytes >> 10
    ))
}

#[derive(Serialize)]
struct Edge {
    key: Id,
    #[serde(flatten)]
    head: Head,
    hits: u64,
}

pub fn tree(arguments: &cli::SessionTree) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.share()?;
    let deeds = deeds(&store)?;
    let mut edges: BTreeMap<Id, Vec<Edge>> = BTreeMap::new();
    for name in store.list(Shelf::Transitions)? {
        let (Some(key), Found::Whole(bytes)) = (Id::parse(&name), store.get(Shelf::Transitions, &name)?)
        else {
            continue;
        };
        let Ok(Transition { head, .. }) = Transition::from_bytes(&bytes) else { continue };
        let hits = deeds.hits.get(&key).copied().unwrap_or(0);
        edges.entry(head.from).or_default().push(Edge { key, head, hits });
    }
    if arguments.at.json {
        let all: Vec<&Edge> = edges.values().flatten().collect();
        return super::print_json(&all);
    }
    edges.values_mut().for_each(|edges| edges.sort_by(|a, b| a.head.at.cmp(&b.head.at)));
    let mut stands: BTreeMap<Id, Vec<&str>> = BTreeMap::new();
    deeds.sessions.iter().for_each(|(name, at)| stands.entry(*at).or_default().push(name));
    let mut drawing = Drawing { stands, edges: &edges, seen: BTreeSet::new(), text: String::new() };
    for begin in &deeds.begins {
        drawing.state(begin, 0);
    }
    crate::command::print(&drawing.text)
}

/// Of those who stand at one state.
const NAMED: usize = 4;

struct Drawing<'d> {
    /// Who stands where.
    stands: BTreeMap<Id, Vec<&'d str>>,
    edges: &'d BTreeMap<Id, Vec<Edge>>,
    seen: BTreeSet<Id>,
    text: String,
}

impl Drawing<'_> {
    fn state(&mut self, begin: &Id, depth: usize) {
        // A history may be longer than the stack is deep.
        let mut waiting = vec![(*begin, depth, None::<&Edge>)];
        while let Some((state, depth, edge)) = waiting.pop() {
            self.line(&state, depth, edge);
            if edge.is_some_and(|edge| edge.head.from == state) || !self.seen.insert(state) {
                continue;
            }
            for edge in self.edges.get(&state).into_iter().flatten().rev() {
                waiting.push((edge.head.to, depth + 1, Some(edge)));
            }
        }
    }

    fn line(&mut self, state: &Id, depth: usize, edge: Option<&Edge>) {
        let who = self.stands.get(state).map(Vec::as_slice).unwrap_or_default();
        let named = who[..who.len().min(NAMED)].join(" ");
        let here = match who.len() {
            0 => String::new(),
            1..=NAMED => format!("  <- {named}"),
            many => format!("  <- {named} and {} more", many - NAMED),
        };
        let how = edge.map_or_else(String::new, |edge| {
            let first = edge.head.shown.lines().next().unwrap_or_default();
            let hits = counted(edge.hits, "hit");
            format!("  {first}  ({}, {hits}, code {})", shown_time(edge.head.micros), edge.head.code)
        });
        self.text.push_str(&format!("{}{}{how}{here}\n", "  ".repeat(depth), state.short()));
    }
}
