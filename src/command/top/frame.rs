//! Two snapshots as rows, and rows as lines. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::{Grouping, SortKey};
use crate::fair::model::DEFAULT_CLASS;
use crate::fair::record::rounded;
use crate::fair::status::{Entry, Snapshot, fairness};

/// A container, tenant or class. Rates are CPUs; parts are parts of the time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub name: String,
    pub tenant: String,
    pub class: String,
    pub entitled: f64,
    pub received: f64,
    /// CPU-seconds.
    pub lag: f64,
    pub demand: f64,
    /// Only containers have weights; 0 is idle.
    pub base: Option<u16>,
    pub weight: Option<u16>,
    pub trim: Option<f64>,
    pub pressure: f64,
    pub memory_bytes: u64,
    pub memory_pressure: f64,
    pub state: String,
}

/// Everything one view shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    pub policy: String,
    pub cpus: f64,
    pub used: f64,
    pub jain: f64,
    /// What is done about each set of siblings.
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
}

/// How a view is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Choice {
    pub grouping: Grouping,
    pub sort: SortKey,
    pub reverse: bool,
}

pub fn view(before: &Snapshot, now: &Snapshot, choice: Choice) -> View {
    let rates = now.since(before);
    let elapsed = (now.at - before.at).max(1e-6);
    let memory: BTreeMap<&str, f64> =
        before.containers().map(|entry| (entry.id.as_str(), entry.memory_waited)).collect();
    let rows = rates.iter().map(|(entry, entitled, received)| {
        let waited = memory.get(entry.id.as_str()).map_or(0.0, |before| entry.memory_waited - before);
        Row {
            memory_pressure: rounded((waited / elapsed).clamp(0.0, 1.0)),
            ..row(entry, *entitled, *received)
        }
    });
    let mut rows = match choice.grouping {
        Grouping::Containers => rows.collect(),
        Grouping::Tenants => grouped(rows, |row| match row.tenant.as_str() {
            "-" => format!("{}/{}", row.class, row.name),
            tenant => format!("{}/{tenant}", row.class),
        }),
        Grouping::Classes => grouped(rows, |row| row.class.clone()),
    };
    rows.sort_by(|a, b| order(a, b, choice.sort));
    if choice.reverse {
        rows.reverse();
    }
    View {
        policy: now.policy.clone(),
        cpus: now.cpus,
        used: rounded(rates.iter().map(|(_, _, received)| received).sum()),
        jain: rounded(fairness(&rates)),
        notes: notes(now),
        rows,
    }
}

fn row(entry: &Entry, entitled: f64, received: f64) -> Row {
    let state = match (&entry.fault, &entry.held) {
        (Some(_), _) => "cannot write",
        (None, Some(held)) => held.as_str(),
        (None, None) if entry.saturated => "wants more",
        (None, None) => "",
    };
    Row {
        name: entry.id.clone(),
        tenant: entry.tenant.clone().unwrap_or_else(|| "-".to_owned()),
        class: entry.class.clone().unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
        entitled: rounded(entitled),
        received: rounded(received),
        lag: entry.lag,
        demand: entry.demand,
        base: entry.base,
        weight: entry.weight.map(|weight| if entry.idle { 0 } else { weight }),
        trim: Some(entry.trim),
        pressure: entry.pressure,
        memory_bytes: entry.memory_bytes,
        memory_pressure: 0.0,
        state: state.to_owned(),
    }
}

/// Rows with the same name become one: amounts add up, and of pressures the worst counts.
fn grouped(rows: impl Iterator<Item = Row>, name: impl Fn(&Row) -> String) -> Vec<Row> {
    let mut groups: BTreeMap<String, Row> = BTreeMap::new();
    for row in rows {
        let name = name(&row);
        let group = groups.entry(name.clone()).or_insert_with(|| Row {
            name,
            tenant: "-".to_owned(),
            class: row.class.clone(),
            ..Row::default()
        });
        group.entitled = rounded(group.entitled + row.entitled);
        group.received = rounded(group.received + row.received);
        group.lag = rounded(group.lag + row.lag);
        group.demand = rounded(group.demand + row.demand);
        group.memory_bytes += row.memory_bytes;
        group.pressure = group.pressure.max(row.pressure);
        group.memory_pressure = group.memory_pressure.max(row.memory_pressure);
    }
    groups.into_values().collect()
}

/// Names from A on, everything else from the largest down.
fn order(a: &Row, b: &Row, key: SortKey) -> Ordering {
    let by_number = match key {
        SortKey::Name => Ordering::Equal,
        SortKey::Entitled => b.entitled.total_cmp(&a.entitled),
        SortKey::Received => b.received.total_cmp(&a.received),
        SortKey::Lag => b.lag.total_cmp(&a.lag),
        SortKey::Weight => b.weight.cmp(&a.weight),
        SortKey::Pressure => b.pressure.total_cmp(&a.pressure),
        SortKey::Memory => b.memory_bytes.cmp(&a.memory_bytes),
    };
    by_number.then_with(|| a.name.cmp(&b.name))
}

fn notes(now: &Snapshot) -> Vec<String> {
    if now.extended {
        return vec!["another scheduler is loaded (sched_ext), weights are left alone".to_owned()];
    }
    if now.policy.is_empty() {
        return vec!["nothing tunes: start deja fair run".to_owned()];
    }
    now.siblings.iter().map(|group| format!("{}: {}", group.cgroup, group.acting)).collect()
}

/// The view as lines of at most `width` characters; the table is cut off at `height` lines.
pub fn lines(view: &View, choice: Choice, width: usize, height: usize) -> Vec<String> {
    let policy = if view.policy.is_empty() { "none" } else { &view.policy };
    let mut lines = vec![format!(
        "deja top   {} CPUs, {:.2} in use by containers   policy {policy}   Jain {:.3}",
        view.cpus, view.used, view.jain
    )];
    lines.extend(view.notes.iter().take(3).cloned());
    lines.push(String::new());
    lines.extend(table(view, choice).lines().map(str::to_owned));
    lines.truncate(height);
    lines.iter().map(|line| line.chars().take(width).collect()).collect()
}

fn table(view: &View, choice: Choice) -> String {
    let header = [
        "NAME", "TENANT", "CLASS", "ENTITLED", "RECEIVED", "LAG", "DEMAND", "BASE", "WEIGHT", "TRIM",
        "WAITS", "MEMORY", "WAITS", "STATE",
    ];
    let number = |value: Option<u16>| value.map_or("-".to_owned(), |value| value.to_string());
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(view.rows.iter().map(|row| {
        [
            row.name.clone(),
            row.tenant.clone(),
            row.class.clone(),
            format!("{:.3}", row.entitled),
            format!("{:.3}", row.received),
            format!("{:+.3}", row.lag),
            format!("{:.2}", row.demand),
            number(row.base),
            if row.weight == Some(0) { "idle".to_owned() } else { number(row.weight) },
            row.trim.map_or("-".to_owned(), |trim| format!("{trim:.2}")),
            format!("{:.0}%", row.pressure * 100.0),
            size(row.memory_bytes),
            format!("{:.0}%", row.memory_pressure * 100.0),
            row.state.clone(),
        ]
    }));
    if choice.grouping != Grouping::Containers {
        let without: Vec<[String; 9]> = rows
            .into_iter()
            .map(|[name, _, class, entitled, received, lag, demand, _, _, _, waits, memory, stalls, _]| {
                [name, class, entitled, received, lag, demand, waits, memory, stalls]
            })
            .collect();
        return super::super::fair::table(2, &without);
    }
    super::super::fair::table(3, &rows)
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "K", "M", "G"] {
        if value < 1024.0 {
            return format!("{value:.0}{unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::status::Group;

    fn entry(id: &str, tenant: Option<&str>, received: f64) -> Entry {
        Entry {
            id: id.to_owned(),
            tenant: tenant.map(str::to_owned),
            entitled: 1.0,
            received,
            base: Some(39),
            weight: Some(100),
            memory_bytes: 3 << 20,
            memory_waited: received,
            ..Entry::default()
        }
    }

    fn snapshot(at: f64, containers: Vec<Entry>) -> Snapshot {
        let group = Group { cgroup: "/c".into(), acting: "trimming".into(), containers, ..Group::default() };
        let siblings = vec![group];
        Snapshot { at, policy: "wfq".into(), cpus: 2.0, siblings, ..Snapshot::default() }
    }

    fn both() -> (Snapshot, Snapshot) {
        let zero = |id, tenant| Entry { entitled: 0.0, ..entry(id, tenant, 0.0) };
        let before = snapshot(1.0, vec![zero("a", Some("ann")), zero("b", Some("ann")), zero("c", None)]);
        let mut now =
            vec![entry("a", Some("ann"), 0.5), entry("b", Some("ann"), 1.0), entry("c", None, 0.25)];
        now[2].idle = true;
        now[1].held = Some("throttled".into());
        (before, snapshot(3.0, now))
    }

    #[test]
    fn rows_are_sorted_and_grouped() {
        let (before, now) = both();
        let names = |choice| {
            let view = view(&before, &now, choice);
            view.rows.iter().map(|row| row.name.clone()).collect::<Vec<_>>()
        };
        let sort = |sort, reverse| Choice { sort, reverse, ..Choice::default() };
        assert_eq!(names(sort(SortKey::Name, false)), ["a", "b", "c"]);
        assert_eq!(names(sort(SortKey::Received, false)), ["b", "a", "c"]);
        assert_eq!(names(sort(SortKey::Received, true)), ["c", "a", "b"]);
        assert_eq!(names(sort(SortKey::Weight, false)), ["a", "b", "c"]);
        let tenants = Choice { grouping: Grouping::Tenants, ..Choice::default() };
        assert_eq!(names(tenants), ["default/ann", "default/c"]);
        let ann = &view(&before, &now, tenants).rows[0];
        assert_eq!((ann.received, ann.entitled, ann.memory_bytes), (0.75, 1.0, 6 << 20));
        assert_eq!(names(Choice { grouping: Grouping::Classes, ..Choice::default() }), ["default"]);
    }

    #[test]
    fn a_view_becomes_lines_that_fit() {
        let (before, now) = both();
        let choice = Choice::default();
        let view = view(&before, &now, choice);
        let whole = lines(&view, choice, 200, 50);
        assert!(whole[0].contains("policy wfq   Jain 0.7"), "{whole:#?}");
        assert_eq!(whole[1], "/c: trimming");
        let expected = [
            "NAME  TENANT  CLASS    ENTITLED  RECEIVED     LAG  DEMAND  BASE  WEIGHT  TRIM  WAITS  MEMORY  WAITS      STATE",
            "a     ann     default     0.500     0.250  +0.000    0.00    39     100  0.00     0%      3M    25%",
            "b     ann     default     0.500     0.500  +0.000    0.00    39     100  0.00     0%      3M    50%  throttled",
            "c     -       default     0.500     0.125  +0.000    0.00    39    idle  0.00     0%      3M    12%",
        ];
        assert_eq!(whole[3..], expected, "{whole:#?}");
        let small = lines(&view, choice, 10, 4);
        assert_eq!(small.len(), 4);
        assert!(small.iter().all(|line| line.chars().count() <= 10), "{small:?}");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [(0, "0"), (1023, "1023"), (1536, "2K"), (5 << 30, "5G"), (3 << 40, "3.0T")] {
            assert_eq!(size(bytes), text);
        }
    }
}
