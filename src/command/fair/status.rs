//! `fair status`: everything a running `fair run` knows, or what a second of watching tells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::host::Host;
use super::{Places, serve};
use crate::cli::{self, Format, Global};
use crate::fair::policy::Static;
use crate::fair::sample::online;
use crate::fair::status::{Entry, Snapshot};
use crate::fair::tuner::{Options, Tuner};

pub fn run(global: &Global, arguments: &cli::FairStatus) -> Result<()> {
    let mut source = Source::find(global)?;
    if let Source::Own(_) = source {
        source.snapshot()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let snapshot = source.snapshot()?;
    match arguments.format {
        Format::Json => {
            let text = serde_json::to_string_pretty(&snapshot).context("write the status as JSON")?;
            super::super::print(&(text + "\n"))
        }
        Format::Table => super::super::print(&table(&snapshot)),
    }
}

/// Where snapshots come from: the daemon, or a look of our own.
pub enum Source {
    Daemon(std::path::PathBuf),
    Own(Box<Watcher>),
}

/// Containers that are watched and never written to.
pub struct Watcher {
    host: Host,
    began: Instant,
}

impl Source {
    pub fn find(global: &Global) -> Result<Self> {
        let store = super::super::store(global)?;
        let socket = Places::of(&store).socket;
        if serve::ask(&socket)?.is_some() {
            return Ok(Source::Daemon(socket));
        }
        let tuner = Tuner::new(Options {
            policy: Box::new(|| Box::new(Static)),
            watch_only: true,
            emulate_per_cpu: false,
            journal: None,
            cpus: online(),
            // It samples when it is asked, and that is never late.
            period: Duration::MAX,
        });
        let mut host = Host::new(store, tuner)?;
        host.scan()?;
        Ok(Source::Own(Box::new(Watcher { host, began: Instant::now() })))
    }

    pub fn snapshot(&mut self) -> Result<Snapshot> {
        match self {
            Source::Daemon(socket) => {
                serve::ask(socket)?.with_context(|| format!("deja fair run at {socket:?} has ended"))
            }
            Source::Own(watcher) => watcher.snapshot(),
        }
    }
}

impl Watcher {
    fn snapshot(&mut self) -> Result<Snapshot> {
        self.host.notice()?;
        self.host.tuner.refresh();
        self.host.tick(self.began.elapsed().as_micros() as u64 + 1, true)?;
        Ok(Snapshot { cpus: online(), ..Snapshot::take(&self.host.tuner) })
    }
}

fn table(snapshot: &Snapshot) -> String {
    let header = ["CONTAINER", "CLASS", "TENANT", "SHARES", "ENTITLED", "RECEIVED", "LAG", "BASE", "WEIGHT"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(snapshot.containers().map(|entry| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [
            entry.id.clone(),
            text(&entry.class),
            text(&entry.tenant),
            entry.shares.to_string(),
            format!("{:.2} s", entry.entitled),
            format!("{:.2} s", entry.received),
            format!("{:+.3} s", entry.lag),
            entry.base.map_or("-".to_owned(), |base| base.to_string()),
            weight(entry),
        ]
    }));
    let mut text = super::table(3, &rows);
    for group in &snapshot.siblings {
        text += &format!("{}: {} (a weight is the {}'s)\n", group.cgroup, group.acting, group.meaning);
    }
    if snapshot.policy.is_empty() {
        text += "nothing tunes: start deja fair run\n";
    }
    text
}

/// The weight in force, as a person reads it.
pub fn weight(entry: &Entry) -> String {
    match entry.weight {
        Some(_) if entry.idle => "idle".to_owned(),
        Some(weight) => weight.to_string(),
        None => "-".to_owned(),
    }
}
