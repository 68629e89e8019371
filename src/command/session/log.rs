//! `session log`: what a session went through.

use anyhow::Result;

use super::replay::shown_time;
use crate::cli;
use crate::command::fair::table;
use crate::session::journal;

pub fn run(arguments: &cli::SessionLog) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let steps = journal::look(&store, &arguments.session)?;
    if arguments.at.json {
        return super::print_json(&steps);
    }
    let head = ["TIME", "ACT", "STATE", "CODE", "TOOK", "COMMAND"].map(str::to_owned);
    let cells = steps.iter().map(|step| {
        let (code, took) = match step.act.is_command() {
            true => (step.code.to_string(), shown_time(step.micros)),
            false => Default::default(),
        };
        let shown = step.shown.lines().next().unwrap_or_default().to_owned();
        [step.at.clone(), step.act.word().to_owned(), step.state.short(), code, took, shown]
    });
    let all: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
    crate::command::print(&table(6, &all))
}
