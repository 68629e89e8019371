//! `list`: all containers of one root.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Observer;
use crate::cli::{self, Format};
use crate::container::{Listing, Store};
use crate::{error, log};

pub fn run(global: &cli::Global, arguments: &cli::List) -> Result<()> {
    let store = super::store(global)?;
    let ids = match store.list()? {
        Some(ids) => ids,
        // The default root is made with the first container; one that was asked for has to be there.
        None if global.root.is_none() => Vec::new(),
        None => bail!("open {:?}: no such file or directory", store.root()),
    };
    if arguments.quiet {
        return super::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let mut report = Report::new(arguments.format);
    look(&store, &ids, |listing| report.add(&listing))?;
    super::print(&report.finish())
}

/// Shows one container after the other. One that is broken, or deleted meanwhile, does not keep the others from being listed.
fn look(store: &Store, ids: &[String], mut show: impl FnMut(Listing<'_>) -> Result<()>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let crowd = store.crowd()?;
    let mut observer = Observer::default();
    let mut owners = Owners::default();
    for id in ids {
        let loaded = store.load_of(&crowd, id).and_then(|container| {
            let status = observer.status(&container, Some(&crowd))?;
            Ok((container.record, status))
        });
        match loaded {
            Ok((record, status)) => show(record.listing(status, owners.name(record.owner)))?,
            Err(failure) => log::warning(&format!("load container {id}: {}", error::sentence(&failure))),
        }
    }
    Ok(())
}

/// What is printed. It grows by one container after the other, so that a thousand records are not kept at once.
enum Report {
    Json(Vec<u8>),
    Table(Vec<[String; 6]>),
}

impl Report {
    fn new(format: Format) -> Self {
        let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
        match format {
            Format::Json => Report::Json(Vec::new()),
            Format::Table => Report::Table(vec![header]),
        }
    }

    fn add(&mut self, row: &Listing<'_>) -> Result<()> {
        match self {
            Report::Json(text) => {
                text.push(if text.is_empty() { b'[' } else { b',' });
                serde_json::to_writer(text, row).context("write the list as JSON")?;
            }
            Report::Table(rows) => {
                let cells = [row.id, &row.pid.to_string(), row.status, row.bundle, row.created, row.owner];
                rows.push(cells.map(str::to_owned));
            }
        }
        Ok(())
    }

    fn finish(self) -> String {
        match self {
            // runc prints null where there is nothing, and callers have learned to read it.
            Report::Json(text) if text.is_empty() => "null\n".to_owned(),
            Report::Json(text) => String::from_utf8_lossy(&text).into_owned() + "]\n",
            Report::Table(rows) => table(rows),
        }
    }
}

/// Columns at least 12 wide, three blanks apart; the last one is not padded.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let mut widths = [12; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            match column + 1 == N {
                true => text.push_str(cell),
                false => text.push_str(&format!("{cell:width$}")),
            }
        }
        text.push('\n');
    }
    text
}

/// The names of users, looked up once each.
#[derive(Default)]
struct Owners(BTreeMap<u32, String>);

impl Owners {
    fn name(&mut self, uid: u32) -> &str {
        self.0.entry(uid).or_insert_with(|| owner_name(uid))
    }
}

/// The name of a user, or `#` and the number where there is none.
pub fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&users, uid).unwrap_or_else(|| format!("#{uid}"))
}

fn name_in(users: &str, uid: u32) -> Option<String> {
    let number = uid.to_string();
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_runcs() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        assert_eq!(
            table(vec![row(["ID", "PID", "OWNER"]), row(["a-name-of-fifteen", "1", "root"])]),
            "ID                  PID         OWNER\na-name-of-fifteen   1           root\n"
        );
    }

    #[test]
    fn owners_have_names_or_numbers() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\njo:x:1000:100::/:/bin/sh\n";
        assert_eq!(name_in(users, 1000).as_deref(), Some("jo"));
        assert_eq!(name_in(users, 1001), None);
        assert_eq!(owner_name(u32::MAX - 7), "#4294967288");
    }
}
