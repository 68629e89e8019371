//! A scenario file: who wants what, when, on which machine. Parsing and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::super::meaning::Meaning;
use super::super::model::{Groups, Terms, check_group};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    #[serde(default)]
    pub about: String,
    #[serde(default = "two")]
    pub cpus: u32,
    pub seconds: f64,
    /// Figures count from this second on.
    #[serde(default)]
    pub from: f64,
    #[serde(default = "one")]
    pub seed: u64,
    /// The part of the time in which the machine's own host takes each CPU away from it.
    #[serde(default)]
    pub steal: f64,
    #[serde(default = "group_only")]
    pub kernels: Vec<Kernel>,
    #[serde(default = "static_and_wfq")]
    pub policies: Vec<PolicyName>,
    /// How often the tuner looks.
    #[serde(default = "quarter")]
    pub period_ms: u64,
    /// How long a round of `strict` and `lottery` is.
    #[serde(default = "fifty")]
    pub round_ms: u64,
    /// Seconds of missed service a sleeper may catch up.
    #[serde(default)]
    pub credit: f64,
    #[serde(default)]
    pub groups: BTreeMap<String, Asked>,
    pub containers: Vec<Container>,
}

fn one() -> u64 {
    1
}

fn two() -> u32 {
    2
}

fn quarter() -> u64 {
    250
}

fn fifty() -> u64 {
    50
}

fn group_only() -> Vec<Kernel> {
    vec![Kernel::Group]
}

fn static_and_wfq() -> Vec<PolicyName> {
    vec![PolicyName::Static, PolicyName::Wfq]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    Group,
    Cpu,
}

impl Kernel {
    pub fn meaning(self) -> Meaning {
        match self {
            Kernel::Group => Meaning::PerGroup,
            Kernel::Cpu => Meaning::PerCpu,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyName {
    Static,
    Wfq,
    Strict,
    /// Strict, but a sleeper goes on where it was: what `s_min` is for.
    StrictWithoutMinimum,
    Lottery,
    Quota,
}

impl PolicyName {
    pub const ALL: [PolicyName; 6] = [
        PolicyName::Static,
        PolicyName::Wfq,
        PolicyName::Strict,
        PolicyName::StrictWithoutMinimum,
        PolicyName::Lottery,
        PolicyName::Quota,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PolicyName::Static => "static",
            PolicyName::Wfq => "wfq",
            PolicyName::Strict => "strict",
            PolicyName::StrictWithoutMinimum => "strict-without-minimum",
            PolicyName::Lottery => "lottery",
            PolicyName::Quota => "quota",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name)
    }
}

/// Terms as they are written; what is absent stays as it was.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub shares: Option<f64>,
    pub reservation: Option<f64>,
    pub limit: Option<f64>,
    pub best_effort: Option<bool>,
}

impl Asked {
    pub fn over(&self, terms: Terms) -> Terms {
        Terms {
            shares: self.shares.unwrap_or(terms.shares),
            reservation: self.reservation.unwrap_or(terms.reservation),
            limit: self.limit.unwrap_or(terms.limit),
            best_effort: self.best_effort.unwrap_or(terms.best_effort),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// `{n}` in names becomes the number of the copy.
    pub name: String,
    pub class: Option<String>,
    pub tenant: Option<String>,
    #[serde(default = "one_copy")]
    pub copies: u32,
    pub shares: Option<f64>,
    pub reservation: Option<f64>,
    pub limit: Option<f64>,
    pub best_effort: Option<bool>,
    #[serde(default = "one_hog")]
    pub threads: Threads,
    #[serde(default)]
    pub start: f64,
    pub stop: Option<f64>,
    /// Spans of seconds in which it wants nothing.
    #[serde(default)]
    pub away: Vec<(f64, f64)>,
    /// The CPUs it may use; all when absent.
    pub cpus: Option<Vec<u32>>,
    #[serde(default)]
    pub updates: Vec<Update>,
}

fn one_copy() -> u32 {
    1
}

fn one_hog() -> Threads {
    Threads::Hogs(1)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Threads {
    /// So many that always want to run.
    Hogs(u32),
    Bursts(Vec<Bursts>),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    #[serde(default = "one_copy")]
    pub count: u32,
    pub run_ms: f64,
    pub sleep_ms: f64,
    /// Lengths vary around these instead of being these.
    #[serde(default)]
    pub random: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Update {
    pub at: f64,
    #[serde(flatten)]
    pub terms: Asked,
}

impl Container {
    pub fn terms(&self) -> Terms {
        let asked = Asked {
            shares: self.shares,
            reservation: self.reservation,
            limit: self.limit,
            best_effort: self.best_effort,
        };
        asked.over(Terms::default())
    }

    fn copy(&self, number: u32) -> Self {
        let numbered = |text: &String| text.replace("{n}", &number.to_string());
        let name = if self.copies > 1 && !self.name.contains("{n}") {
            format!("{}{number}", self.name)
        } else {
            numbered(&self.name)
        };
        Self {
            name,
            class: self.class.as_ref().map(numbered),
            tenant: self.tenant.as_ref().map(numbered),
            copies: 1,
            ..self.clone()
        }
    }
}

impl Scenario {
    pub fn parse(text: &str) -> Result<Self> {
        let mut scenario: Self = serde_json::from_str(text)?;
        scenario.containers = scenario
            .containers
            .iter()
            .flat_map(|container| (1..=container.copies).map(|number| container.copy(number)))
            .collect();
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        if !(1..=256).contains(&self.cpus) {
            bail!("cpus: {} is not between 1 and 256", self.cpus);
        }
        if !(self.seconds > 0.0 && self.seconds <= 100_000.0 && self.from < self.seconds && self.from >= 0.0)
        {
            bail!("seconds: {} from {} is no span of time", self.seconds, self.from);
        }
        if !(0.0..1.0).contains(&self.steal) {
            bail!("steal: {} is not from 0 to less than 1", self.steal);
        }
        if self.period_ms == 0 || self.round_ms == 0 {
            bail!("period_ms and round_ms must be at least 1");
        }
        if self.containers.is_empty() || self.kernels.is_empty() || self.policies.is_empty() {
            bail!("containers, kernels and policies must each name at least one");
        }
        for container in &self.containers {
            self.check_container(container).with_context(|| format!("container {:?}", container.name))?;
        }
        let mut names: Vec<&str> = self.containers.iter().map(|container| container.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two containers are called {:?}", pair[0]);
        }
        self.groups.iter().try_for_each(|(name, asked)| check_group(name, &asked.over(Terms::default())))
    }

    fn check_container(&self, container: &Container) -> Result<()> {
        container.terms().check()?;
        let mut terms = container.terms();
        for update in &container.updates {
            terms = update.terms.over(terms);
            terms.check().with_context(|| format!("update at {}", update.at))?;
        }
        if let Some(cpu) = container.cpus.iter().flatten().find(|cpu| **cpu >= self.cpus) {
            bail!("there is no CPU {cpu}");
        }
        if container.cpus.as_ref().is_some_and(Vec::is_empty) {
            bail!("cpus is empty");
        }
        if let Threads::Bursts(list) = &container.threads {
            if list.iter().any(|burst| !(burst.run_ms >= 1.0 && burst.sleep_ms >= 0.0)) {
                bail!("a burst runs at least 1 ms and sleeps at least 0 ms");
            }
        }
        Ok(())
    }

    pub fn terms_of_groups(&self) -> Groups {
        self.groups.iter().map(|(name, asked)| (name.clone(), asked.over(Terms::default()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_numbered() {
        let text = r#"{"name": "x", "seconds": 1, "containers": [
            {"name": "c{n}", "tenant": "t{n}", "copies": 2},
            {"name": "d", "copies": 2, "threads": [{"run_ms": 5, "sleep_ms": 5}]}]}"#;
        let scenario = Scenario::parse(text).unwrap();
        let names: Vec<_> = scenario
            .containers
            .iter()
            .map(|c| (c.name.as_str(), c.tenant.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(names, [("c1", "t1"), ("c2", "t2"), ("d1", "-"), ("d2", "-")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let table = [
            (r#""cpus": 0, "containers": [{"name": "a"}]"#, "cpus: 0 is not between 1 and 256"),
            (r#""steal": 1, "containers": [{"name": "a"}]"#, "steal: 1 is not from 0 to less than 1"),
            (r#""containers": []"#, "containers, kernels and policies must each name at least one"),
            (r#""containers": [{"name": "a"}, {"name": "a"}]"#, "two containers are called \"a\""),
            (r#""containers": [{"name": "a", "cpus": [2]}]"#, "container \"a\": there is no CPU 2"),
            (
                r#""containers": [{"name": "a", "updates": [{"at": 3, "shares": -1}]}]"#,
                "container \"a\": update at 3: shares -1 is not a positive number",
            ),
            (
                r#""groups": {"g": {"limit": 1}}, "containers": [{"name": "a"}]"#,
                "\"g\" is a group: a limit needs a cgroup, so it can only be set on a container",
            ),
            (r#""containers": [{"name": "a", "weigth": 3}]"#, "unknown field `weigth`"),
        ];
        for (rest, expected) in table {
            let text = format!(r#"{{"name": "x", "seconds": 1, {rest}}}"#);
            let error = format!("{:#}", Scenario::parse(&text).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
