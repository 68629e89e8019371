//! `fair run`: the daemon.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::host::Host;
use super::{Places, restore, serve};
use crate::cli::{self, Global, Interval, SharePolicy};
use crate::fair::base::Journal;
use crate::fair::record;
use crate::fair::sample::online;
use crate::fair::simulate;
use crate::fair::status::Snapshot;
use crate::fair::tuner::{Event, Options, Tuner};
use crate::sys::event::{self, Interest};
use crate::sys::process::{self, SignalSet};
use crate::sys::sched::{self, Limit};
use crate::sys::{AsFd, OwnedFd, socket};
use crate::time::Moment;
use crate::{error, log};

const PERIOD: Duration = Duration::from_millis(250);
/// What other managers hear can wait so long: they read it again only when they read everything again.
const TELL: Duration = Duration::from_secs(1);
/// Of policies that decide who runs until the next round.
const ROUND: Duration = Duration::from_millis(100);
const POINT: Duration = Duration::from_millis(500);

const HANGUP: i32 = 1;
const ENDING: [i32; 3] = [2, 3, 15];

pub fn run(global: &Global, arguments: &cli::FairRun) -> Result<()> {
    let store = super::super::store(global)?;
    store.make_root()?;
    let places = Places::of(&store);
    let _lock = restore::lock(&places.lock)?;
    process::set_signal_mask(&SignalSet::all())?;
    let signals = event::signalfd(&SignalSet::all())?;
    allow_many_files()?;
    let restored = restore::journal(&places.journal)?;
    let policy = arguments.policy.unwrap_or_default();
    let tuner = Tuner::new(options(arguments, policy, &places));
    let mut daemon = Daemon {
        host: Host::new(store, tuner)?,
        listener: serve::listen(&places.socket)?,
        voice: Voice { json: arguments.json },
        recording: arguments.record.as_deref().map(Recording::open).transpose()?,
        period: period(arguments, policy),
        policy: super::policy_name(policy).name(),
        began: Instant::now(),
        cost: Cost::default(),
        tell: Instant::now(),
    };
    daemon.voice.say(restored.into_iter().map(|cgroup| Event::Restored { cgroup }).collect())?;
    let events = daemon.host.scan()?;
    daemon.voice.say(events)?;
    daemon.voice.begun(daemon.policy, daemon.period)?;
    tell_manager()?;
    let served = daemon.serve(&signals);
    // Whatever ended it, a closed pipe for example: nothing stays changed.
    let events = daemon.host.tuner.finish();
    daemon.tell_units();
    Journal::remove(&places.journal)?;
    std::fs::remove_file(&places.socket).with_context(|| format!("remove {:?}", places.socket))?;
    served.and_then(|()| daemon.voice.say(events))
}

fn options(arguments: &cli::FairRun, policy: SharePolicy, places: &Places) -> Options {
    let credit = arguments.credit.map_or(0.0, |Interval(credit)| credit.as_secs_f64());
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    Options {
        policy: Box::new(move || simulate::policy(super::policy_name(policy), credit, seed)),
        watch_only: false,
        emulate_per_cpu: arguments.emulate_per_cpu,
        journal: Some(places.journal.clone()),
        cpus: online(),
        period: period(arguments, policy),
    }
}

fn period(arguments: &cli::FairRun, policy: SharePolicy) -> Duration {
    let usual = match policy {
        SharePolicy::Strict | SharePolicy::StrictWithoutMinimum | SharePolicy::Lottery => ROUND,
        SharePolicy::Static | SharePolicy::Wfq | SharePolicy::Quota => PERIOD,
    };
    arguments.period.map_or(usual, |Interval(period)| period)
}

/// A container needs about five descriptors and one for every thread.
fn allow_many_files() -> Result<()> {
    const RLIMIT_NOFILE: u32 = 7;
    let limit = sched::prlimit(0, RLIMIT_NOFILE, None)?;
    sched::prlimit(0, RLIMIT_NOFILE, Some(Limit { soft: limit.hard, ..limit }))?;
    Ok(())
}

/// As a service of type notify this process says when it is at work.
fn tell_manager() -> Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = socket::connect_datagrams(name.as_encoded_bytes()).context("NOTIFY_SOCKET")?;
    socket::send(&socket, b"READY=1").context("NOTIFY_SOCKET")
}

struct Daemon {
    host: Host,
    listener: UnixListener,
    voice: Voice,
    recording: Option<Recording>,
    period: Duration,
    policy: &'static str,
    began: Instant,
    cost: Cost,
    tell: Instant,
}

impl Daemon {
    /// Until a signal ends it. Time is that of a clock that nobody sets; after a pause of the whole machine the
    /// next sample is simply a long one.
    fn serve(&mut self, signals: &OwnedFd) -> Result<()> {
        let mut next = Instant::now();
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let [changed, signalled, asked] = event::poll(
                [
                    (self.host.as_fd(), Interest::Read),
                    (signals.as_fd(), Interest::Read),
                    (self.listener.as_fd(), Interest::Read),
                ],
                Some(wait),
            )?;
            if signalled {
                match event::next_signal(signals)? {
                    Some(HANGUP) => self.act(Host::scan)?,
                    Some(signal) if ENDING.contains(&signal) => return Ok(()),
                    _ => {}
                }
            }
            if changed {
                self.act(Host::notice)?;
            }
            let now = Instant::now();
            if asked || now >= next {
                self.sample(asked || self.recording.is_some())?;
            }
            if asked {
                self.host.tuner.refresh();
                serve::answer(&self.listener, &|| self.snapshot());
            }
            if now >= self.tell {
                self.tell = now + TELL;
                self.tell_units();
            }
            if now >= next {
                self.record(now)?;
                next = (next + self.period).max(now + self.period / 2);
            }
        }
    }

    fn sample(&mut self, watching: bool) -> Result<()> {
        let (before, began) = (self.host.tuner.samples, process::cpu_time());
        let at_us = self.began.elapsed().as_micros() as u64 + 1;
        self.act(|host| host.tick(at_us, watching))?;
        if self.host.tuner.samples > before {
            let took = process::cpu_time().saturating_sub(began);
            self.cost = Cost { all: self.cost.all + took, longest: self.cost.longest.max(took) };
        }
        Ok(())
    }

    /// Without it the weights are right until systemd reads its units anew, which is no reason to end.
    fn tell_units(&mut self) {
        if let Err(failure) = super::tell_units(&self.host.tuner.tidings()) {
            log::warning(&error::sentence(&failure));
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut Host) -> Result<Vec<Event>>) -> Result<()> {
        let events = act(&mut self.host)?;
        self.voice.say(events)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            policy: self.policy.to_owned(),
            cpus: online(),
            cost_seconds: process::cpu_time().as_secs_f64(),
            sample_seconds: self.cost.all.as_secs_f64() / self.host.tuner.samples.max(1) as f64,
            longest_sample_seconds: self.cost.longest.as_secs_f64(),
            memory_bytes: own_memory(),
            ..Snapshot::take(&self.host.tuner)
        }
    }

    fn record(&mut self, now: Instant) -> Result<()> {
        let Some(recording) = self.recording.as_ref().filter(|recording| now >= recording.next) else {
            return Ok(());
        };
        let snapshot = Snapshot::take(&self.host.tuner);
        let point = snapshot.point(&recording.before, 0.0);
        let recording = self.recording.as_mut().expect("it was there two lines above");
        recording.next = now + POINT;
        recording.before = snapshot;
        if !point.leaves.is_empty() {
            writeln!(recording.file, "{}", record::line(&point)).context("write the recording")?;
        }
        Ok(())
    }
}

/// CPU time of samples.
#[derive(Default, Clone, Copy)]
struct Cost {
    all: Duration,
    longest: Duration,
}

/// Bytes that are in memory of this process, as /proc tells.
fn own_memory() -> u64 {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

struct Recording {
    file: File,
    before: Snapshot,
    next: Instant,
}

impl Recording {
    fn open(path: &std::path::Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("open {path:?}"))?;
        Ok(Self { file, before: Snapshot::default(), next: Instant::now() })
    }
}

struct Voice {
    json: bool,
}

impl Voice {
    fn say(&self, events: Vec<Event>) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = events
            .iter()
            .map(|event| match self.json {
                true => stamped(serde_json::to_value(event).unwrap_or_default()),
                false => sentence(event),
            })
            .collect();
        super::super::print(&(lines.join("\n") + "\n"))
    }

    fn begun(&self, policy: &str, period: Duration) -> Result<()> {
        let text = match self.json {
            true => stamped(json!({"event": "begun", "policy": policy, "period": period.as_secs_f64()})),
            false => format!("sharing the CPUs: policy {policy}, a sample every {period:?}"),
        };
        super::super::print(&(text + "\n"))
    }
}

fn stamped(mut event: Value) -> String {
    event["time"] = Moment::now().nanoseconds().into();
    event.to_string()
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Arrived { container, cgroup, weight: Some(weight) } => {
            format!("{container}: arrived in {cgroup}, weight {weight}")
        }
        Event::Arrived { container, cgroup, weight: None } => {
            format!("{container}: arrived in {cgroup}, which has no cpu controller: watching only")
        }
        Event::Left { container } => format!("{container}: left"),
        Event::Changed { container } => format!("{container}: asks for something else"),
        Event::Wrote { container, idle: true, .. } => format!("{container}: idle"),
        Event::Wrote { container, weight, limit: None, .. } => format!("{container}: weight {weight}"),
        Event::Wrote { container, weight, limit: Some(limit), .. } => {
            format!("{container}: weight {weight}, at most {limit} CPUs")
        }
        Event::Overridden { container, weight, .. } => {
            format!("{container}: somebody else wrote weight {weight}, which it will have in the end")
        }
        Event::Squeezed { container, bytes } => format!("{container}: {bytes} bytes of memory taken back"),
        Event::Failed { container, why } => format!("{container}: {why}"),
        Event::Acting { cgroup, what, meaning } => format!("{cgroup}: {what} (a weight is the {meaning}'s)"),
        Event::Restored { cgroup } => format!("{cgroup}: restored"),
    }
}
