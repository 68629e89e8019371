//! `session list`: the sessions of a store and where they stand.

use anyhow::Result;
use serde::Serialize;

use crate::cli;
use crate::command::fair::table;
use crate::session::Id;
use crate::session::journal;
use crate::session::store::Shelf;

#[derive(Serialize)]
struct Row {
    session: String,
    state: Id,
    commands: usize,
    hits: usize,
    changed: String,
}

pub fn run(arguments: &cli::SessionList) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let mut rows = Vec::new();
    for name in store.list(Shelf::Sessions)? {
        // It may have been closed just now.
        let Ok(steps) = journal::look(&store, &name) else { continue };
        let Some(last) = steps.last() else { continue };
        rows.push(Row {
            session: name,
            state: last.state,
            commands: steps.iter().filter(|step| step.act.is_command()).count(),
            hits: steps.iter().filter(|step| step.act == journal::Act::Hit).count(),
            changed: last.at.clone(),
        });
    }
    if arguments.at.json {
        return super::print_json(&rows);
    }
    let head = ["SESSION", "STATE", "CHANGED", "COMMANDS", "HITS"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        [
            row.session.clone(),
            row.state.short(),
            row.changed.clone(),
            row.commands.to_string(),
            row.hits.to_string(),
        ]
    });
    let all: Vec<[String; 5]> = std::iter::once(head).chain(cells).collect();
    crate::command::print(&table(3, &all))
}
