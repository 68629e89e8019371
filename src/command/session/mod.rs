//! The verbs of sessions: where `session`, which knows states, and `launch`, which runs commands, meet.

mod capture;
pub mod exec;
pub mod inside;
pub mod list;
pub mod log;
pub mod new;
mod room;
mod run;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::SessionPlace;
use crate::container;
use crate::session::store::Store;
use crate::sys::process::effective_uid;

/// The store the command line means.
fn store_path(place: &SessionPlace) -> Result<PathBuf> {
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

/// One line of JSON, for `--json`.
fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(value).context("write JSON")?;
    text.push('\n');
    super::print(&text)
}
