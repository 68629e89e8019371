//! `session list`: the sessions of a store and where they stand.

use anyhow::Result;
use serde::Serialize;

use crate::cli;
use crate::command::fair::table;
use crate::session::Id;
use crate::session::journal;
use crate::session::live::{self, Notice};
use crate::session::store::Shelf;

#[derive(Serialize)]
struct Row {
    session: String,
    state: Id,
    commands: usize,
    hits: usize,
    changed: String,
    /// What runs in it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<String>,
}

pub fn run(arguments: &cli::SessionList) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let mut rows = Vec::new();
    let going_on = live::all(&store)?;
    for name in store.list(Shelf::Sessions)? {
        // It may have been closed just now.
        let Ok(steps) = journal::look(&store, &name) else { continue };
        let Some(last) = steps.last() else { continue };
        let own = going_on.iter().find(|sight| sight.notice.session == name);
        rows.push(Row {
            now: own.map(|sight| now(&sight.notice)),
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
    let head = ["SESSION", "STATE", "CHANGED", "COMMANDS", "HITS", "NOW"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        [
            row.session.clone(),
            row.state.short(),
            row.changed.clone(),
            row.commands.to_string(),
            row.hits.to_string(),
            row.now.clone().unwrap_or_default(),
        ]
    });
    let all: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
    crate::command::print(&table(3, &all))
}

fn now(notice: &Notice) -> String {
    let shown = notice.shown.lines().next().unwrap_or_default();
    let word = if notice.container.is_some() { "live" } else { "runs" };
    format!("{word}: {shown}")
}
