//! What a tuner knows at one moment, as data: the answer of `fair status`, the rows of `top`, and Prometheus'
//! text. Pure but for taking the snapshot.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::controller::Leaf;
use super::meter::Held;
use super::record::{Point, Row, rounded};
use super::simulate::jain;
use super::tuned::Tuned;
use super::tuner::{Siblings, Tuner};

pub const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Snapshot {
    pub version: u32,
    /// When the last sample was taken, in seconds; only differences mean anything.
    pub at: f64,
    /// What tunes; empty where nothing does.
    pub policy: String,
    pub cpus: f64,
    /// Another scheduler is loaded, so weights are left alone.
    pub extended: bool,
    pub siblings: Vec<Group>,
    /// Samples taken, and the CPU time and memory this cost.
    pub samples: u64,
    pub cost_seconds: f64,
    /// CPU time of a sample with all that follows from it: on average, and the most of any.
    pub sample_seconds: f64,
    pub longest_sample_seconds: f64,
    pub memory_bytes: u64,
}

/// Containers with the same parent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Group {
    pub cgroup: String,
    pub acting: String,
    pub meaning: String,
    pub containers: Vec<Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Entry {
    pub id: String,
    pub class: Option<String>,
    pub tenant: Option<String>,
    pub shares: f64,
    pub reservation: f64,
    pub limit: Option<f64>,
    pub best_effort: bool,
    /// CPU-seconds since it is watched.
    pub entitled: f64,
    pub received: f64,
    /// CPU-seconds.
    pub lag: f64,
    /// s_i: CPU-seconds received per share.
    pub service: f64,
    /// CPUs it could use.
    pub demand: f64,
    pub saturated: bool,
    /// frozen, throttled or new.
    pub held: Option<String>,
    /// What it had before, and what it has; absent without the cpu controller.
    pub base: Option<u16>,
    pub weight: Option<u16>,
    pub idle: bool,
    pub trim: f64,
    /// Part of the time in which somebody waited for a CPU.
    pub pressure: f64,
    pub memory_bytes: u64,
    /// Seconds in which somebody waited for memory.
    pub memory_waited: f64,
    pub writes: u64,
    pub fault: Option<String>,
}

impl Snapshot {
    pub fn take(tuner: &Tuner) -> Self {
        Self {
            version: VERSION,
            at: tuner.siblings.values().map(Siblings::sampled_at).fold(0.0, f64::max),
            samples: tuner.samples,
            extended: tuner.kernel.extended,
            siblings: tuner.siblings.values().map(group).collect(),
            ..Self::default()
        }
    }

    pub fn containers(&self) -> impl Iterator<Item = &Entry> {
        self.siblings.iter().flat_map(|group| &group.containers)
    }

    /// What happened since `before`, as a recording has it: CPUs on average.
    pub fn since(&self, before: &Snapshot) -> Vec<(&Entry, f64, f64)> {
        let old: BTreeMap<&str, &Entry> =
            before.containers().map(|entry| (entry.id.as_str(), entry)).collect();
        let elapsed = (self.at - before.at).max(1e-6);
        let rate = |now: f64, then: f64| ((now - then) / elapsed).max(0.0);
        self.containers()
            .map(|entry| {
                let then = old.get(entry.id.as_str());
                let (entitled, received) = then.map_or((0.0, 0.0), |then| (then.entitled, then.received));
                (entry, rate(entry.entitled, entitled), rate(entry.received, received))
            })
            .collect()
    }

    pub fn point(&self, before: &Snapshot, began: f64) -> Point {
        let row = |(entry, entitled, received): (&Entry, f64, f64)| Row {
            name: entry.id.clone(),
            entitled: rounded(entitled),
            received: rounded(received),
            lag: rounded(entry.lag),
            weight: if entry.idle { 0 } else { entry.weight.unwrap_or(0) },
        };
        Point { at: rounded(self.at - began), leaves: self.since(before).into_iter().map(row).collect() }
    }
}

/// Jain's index over what everybody got of its entitlement.
pub fn fairness(rates: &[(&Entry, f64, f64)]) -> f64 {
    let judged = rates.iter().filter(|(_, entitled, _)| *entitled > 0.005);
    jain(&judged.map(|(_, entitled, received)| received / entitled).collect::<Vec<_>>())
}

fn group(siblings: &Siblings) -> Group {
    let entry = |leaf: &Leaf| siblings.tuned.get(&leaf.key).map(|tuned| entry(leaf, tuned, siblings));
    Group {
        cgroup: siblings.path(),
        acting: siblings.controller.acting().name().to_owned(),
        meaning: siblings.controller.meaning().name().to_owned(),
        containers: siblings.controller.leaves().iter().filter_map(entry).collect(),
    }
}

fn entry(leaf: &Leaf, tuned: &Tuned, siblings: &Siblings) -> Entry {
    let member = siblings.controller.members().iter().find(|member| member.key == leaf.key);
    let terms = member.map(|member| member.terms).unwrap_or_default();
    Entry {
        id: tuned.name.clone(),
        class: member.and_then(|member| member.class.clone()),
        tenant: member.and_then(|member| member.tenant.clone()),
        shares: terms.shares,
        reservation: terms.reservation,
        limit: terms.limit.is_finite().then_some(terms.limit),
        best_effort: terms.best_effort,
        entitled: rounded(tuned.entitled),
        received: rounded(tuned.received),
        lag: rounded(leaf.lag),
        service: rounded(leaf.service),
        demand: rounded(leaf.measure.demand),
        saturated: leaf.measure.saturated,
        held: leaf.measure.held.map(|held| word(held).to_owned()),
        base: tuned.base.as_ref().map(|base| base.weight),
        weight: tuned.base.is_some().then_some(tuned.written.weight),
        idle: tuned.written.idle,
        trim: rounded(leaf.trim),
        pressure: rounded(leaf.measure.pressure),
        memory_bytes: tuned.probe.memory_bytes,
        memory_waited: tuned.probe.memory_waited_us as f64 / 1e6,
        writes: tuned.writes,
        fault: tuned.fault.clone(),
    }
}

fn word(held: Held) -> &'static str {
    match held {
        Held::Frozen => "frozen",
        Held::Throttled => "throttled",
        Held::New => "new",
    }
}

type Value = fn(&Entry) -> Option<f64>;

/// Name, kind, meaning and value of everything that is told of a container.
const METRICS: [(&str, &str, &str, Value); 12] = [
    ("received_cpu_seconds_total", "counter", "CPU time it received.", |entry| Some(entry.received)),
    ("entitled_cpu_seconds_total", "counter", "CPU time it was entitled to.", |entry| Some(entry.entitled)),
    ("lag_cpu_seconds", "gauge", "Entitled minus received, while saturated.", |entry| Some(entry.lag)),
    ("service_seconds", "gauge", "CPU time received per share (s_i).", |entry| Some(entry.service)),
    ("demand_cpus", "gauge", "CPUs it could use.", |entry| Some(entry.demand)),
    ("saturated", "gauge", "1: it wants more than it gets.", |entry| {
        Some(f64::from(u8::from(entry.saturated)))
    }),
    ("shares", "gauge", "Shares it has.", |entry| Some(entry.shares)),
    ("weight", "gauge", "cpu.weight in force; 0: idle.", |entry| {
        entry.weight.map(|weight| if entry.idle { 0.0 } else { f64::from(weight) })
    }),
    ("base_weight", "gauge", "cpu.weight before it was tuned.", |entry| entry.base.map(f64::from)),
    ("pressure_ratio", "gauge", "Part of the time in which somebody waited for a CPU.", |entry| {
        Some(entry.pressure)
    }),
    ("memory_bytes", "gauge", "Memory in use.", |entry| Some(entry.memory_bytes as f64)),
    ("writes_total", "counter", "Writes to its cgroup.", |entry| Some(entry.writes as f64)),
];

/// The text Prometheus reads.
pub fn metrics(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments| {
        writeln!(text, "{arguments}").expect("a String takes everything");
    };
    for (name, kind, help, value) in METRICS {
        line(format_args!("# HELP deja_fair_{name} {help}"));
        line(format_args!("# TYPE deja_fair_{name} {kind}"));
        for entry in snapshot.containers() {
            let Some(value) = value(entry) else { continue };
            let label = |text: &Option<String>| escaped(text.as_deref().unwrap_or_default());
            line(format_args!(
                "deja_fair_{name}{{container=\"{}\",class=\"{}\",tenant=\"{}\"}} {value}",
                escaped(&entry.id),
                label(&entry.class),
                label(&entry.tenant)
            ));
        }
    }
    for (name, kind, help, value) in [
        ("samples_total", "counter", "Samples taken.", snapshot.samples as f64),
        ("cost_cpu_seconds_total", "counter", "CPU time deja itself used.", snapshot.cost_seconds),
        ("sample_cpu_seconds", "gauge", "CPU time of a sample, on average.", snapshot.sample_seconds),
        ("resident_bytes", "gauge", "Memory deja itself uses.", snapshot.memory_bytes as f64),
    ] {
        line(format_args!("# HELP deja_fair_{name} {help}"));
        line(format_args!("# TYPE deja_fair_{name} {kind}\ndeja_fair_{name} {value}"));
    }
    text
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(at: f64, a: (f64, f64), b: (f64, f64)) -> Snapshot {
        let entry = |id: &str, (entitled, received)| Entry {
            id: id.to_owned(),
            entitled,
            received,
            weight: Some(100),
            ..Entry::default()
        };
        let containers = vec![entry("a", a), entry("b \"x\"", b)];
        let group = Group { containers, ..Group::default() };
        Snapshot { version: VERSION, at, siblings: vec![group], ..Snapshot::default() }
    }

    #[test]
    fn rates_are_differences() {
        let before = snapshot(10.0, (1.0, 1.0), (0.0, 0.0));
        let now = snapshot(12.0, (3.0, 2.0), (0.0, 0.0));
        let rates = now.since(&before);
        assert_eq!((rates[0].1, rates[0].2), (1.0, 0.5));
        assert_eq!((rates[1].1, rates[1].2), (0.0, 0.0));
        assert_eq!(fairness(&rates), 1.0, "who is entitled to nothing is not judged");
        let point = now.point(&before, 10.0);
        assert_eq!((point.at, point.leaves[0].received, point.leaves[0].weight), (2.0, 0.5, 100));
    }

    #[test]
    fn metrics_are_lines_prometheus_reads() {
        let text = metrics(&snapshot(1.0, (1.5, 1.25), (0.0, 0.0)));
        assert!(text.contains("# TYPE deja_fair_received_cpu_seconds_total counter\n"), "{text}");
        let line = "deja_fair_received_cpu_seconds_total{container=\"a\",class=\"\",tenant=\"\"} 1.25\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("container=\"b \\\"x\\\"\""), "{text}");
        assert!(!text.contains("base_weight{"), "what is not known is not told: {text}");
    }

    #[test]
    fn a_snapshot_comes_back() {
        let now = snapshot(1.0, (1.5, 1.25), (0.0, 0.0));
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), now);
    }
}
