//! What a store makes of commands and of results that may be wrong: `session policy` and `session disown`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::moves::resolve;
use crate::cli::{self, Bound, Bytes, Choice, Cpus, Interval, Variation};
use crate::session::policy::{Bounds, Policy, Treatment};
use crate::session::store::{Shelf, Store};
use crate::session::{Id, disown, journal};
use crate::time::Moment;

pub fn policy(arguments: &cli::SessionPolicy) -> Result<()> {
    let store = Store::create(super::store_path(&arguments.at)?)?;
    let before = Policy::read(&store)?;
    let policy = changed(before.clone(), arguments)?;
    if policy != before {
        policy.write(&store)?;
    }
    arguments.readable.map_or(Ok(()), |choice| store.open_to_others(choice == Choice::Yes))?;
    let readable = store.is_open_to_others()?;
    if arguments.at.json {
        return super::print_json(&Told { policy, readable });
    }
    let trusted: String = policy.trust.iter().map(|path| format!("trust    {}\n", path.display())).collect();
    let word = |treatment| if treatment == Treatment::Replay { "replay" } else { "run" };
    let bounds = &policy.bounds;
    let most = |bound: Option<String>| bound.unwrap_or_else(|| "none".to_owned());
    crate::command::print(&format!(
        "sample   {}  hits of a hundred that are run again and compared\n\
         twice    {}  a first run is followed by a second and compared\n\
         output   {}  what happens when the output varies\n\
         state    {}  what happens when the state or the exit code varies\n\
         network  {} s  how long a result that used the network is given to others\n\
         memory   {}  bytes that a command has at the most\n\
         pids     {}  processes and threads that a command has at the most\n\
         cpus     {}  CPUs that a command has at the most\n\
         time     {}  how long a command may take\n\
         readable {}  others of this machine may read what was run and where it led\n\
         {trusted}",
        policy.sample,
        if policy.twice { "yes" } else { "no" },
        word(policy.output),
        word(policy.state),
        policy.network,
        most(bounds.memory.map(|bytes| bytes.to_string())),
        most(bounds.pids.map(|pids| pids.to_string())),
        most(bounds.cpus.map(|thousandths| (f64::from(thousandths) / 1000.0).to_string())),
        most(bounds.time.map(|time| format!("{} s", time as f64 / 1000.0))),
        if readable { "yes" } else { "no" },
    ))
}

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    policy: Policy,
    readable: bool,
}

/// The store at `path`, as others will be looking for it.
fn lender(path: &Path) -> Result<PathBuf> {
    let path = std::fs::canonicalize(path).with_context(|| format!("find the store {path:?}"))?;
    Ok(Store::open(path)?.root().to_owned())
}

fn bound(bounds: &mut Bounds, arguments: &cli::SessionPolicy) -> Result<()> {
    if let Some(memory) = arguments.memory {
        let bytes = memory.most().map(|Bytes(bytes)| u64::try_from(bytes));
        bounds.memory = bytes.transpose().context("--memory is negative: none is the word for no limit")?;
    }
    bounds.pids = arguments.pids.map_or(bounds.pids, Bound::most);
    bounds.cpus = arguments.cpus.map_or(bounds.cpus, |cpus| cpus.most().map(|Cpus(thousandths)| thousandths));
    if let Some(time) = arguments.time {
        let milliseconds = time.most().map(|Interval(time)| u64::try_from(time.as_millis()));
        bounds.time = milliseconds.transpose().context("--time is too long")?;
    }
    Ok(())
}

fn changed(mut policy: Policy, arguments: &cli::SessionPolicy) -> Result<Policy> {
    let treatment = |variation| match variation {
        Variation::Replay => Treatment::Replay,
        Variation::Run => Treatment::Run,
    };
    if let Some(sample) = arguments.sample {
        if sample > 100 {
            bail!("--sample {sample} is more than all: it counts hits of a hundred");
        }
        policy.sample = sample;
    }
    policy.twice = arguments.twice.map_or(policy.twice, |choice| choice == Choice::Yes);
    policy.output = arguments.output.map_or(policy.output, treatment);
    policy.state = arguments.state.map_or(policy.state, treatment);
    policy.network = arguments.network.map_or(policy.network, |time| time.0.as_secs());
    bound(&mut policy.bounds, arguments)?;
    for path in &arguments.trust {
        let path = lender(path)?;
        if !policy.trust.contains(&path) {
            policy.trust.push(path);
        }
    }
    for path in &arguments.distrust {
        let known = policy.trust.len();
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        policy.trust.retain(|trusted| *trusted != real);
        if policy.trust.len() == known {
            bail!("{path:?} is not trusted");
        }
    }
    Ok(policy)
}

#[derive(Serialize)]
struct Disowned {
    state: Id,
    states: BTreeSet<Id>,
    transitions: usize,
    /// Those that stand at one of the states.
    sessions: Vec<String>,
}

pub fn disown(arguments: &cli::SessionDisown) -> Result<()> {
    let store = super::store(&arguments.at)?;
    let _held = store.own()?;
    let state = resolve(&store, &arguments.state)?;
    let name = state.to_string();
    if arguments.take_back {
        if !store.has(Shelf::Disowned, &name) {
            bail!("state {} is not disowned", state.short());
        }
        return store.forget(Shelf::Disowned, &name);
    }
    // First what keeps it from coming back.
    store.put(Shelf::Disowned, &name, Moment::now().seconds().as_bytes())?;
    store.sync(Shelf::Disowned)?;
    let (edges, bases) = disown::survey(&store)?;
    let disown::Derived { states, keys } = disown::derived(state, &edges, &bases);
    for key in &keys {
        store.forget(Shelf::Transitions, &key.to_string())?;
    }
    let mut sessions = Vec::new();
    for name in store.list(Shelf::Sessions)? {
        let steps = journal::look(&store, &name)?;
        if steps.last().is_some_and(|last| states.contains(&last.state)) {
            sessions.push(name);
        }
    }
    let transitions = keys.len();
    if arguments.at.json {
        return super::print_json(&Disowned { state, states, transitions, sessions });
    }
    let standing: String = sessions
        .iter()
        .map(|name| format!("session {name} stands there: \"session undo\" leads it out\n"))
        .collect();
    crate::command::print(&format!(
        "{} states and {transitions} transitions are given to nobody any more\n{standing}",
        states.len()
    ))
}
