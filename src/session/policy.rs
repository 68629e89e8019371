//! Commands come to the same result again, or do not: what their runs have shown, and what a store makes of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::id::{Hasher, Id};
use super::key::Fact;
use super::store::{Found, Shelf, Store};

/// What two or more runs of a command from one state have shown; the worst counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It was never compared.
    #[default]
    Untested,
    Pure,
    /// It wrote something else, and led to the same.
    OutputVaries,
    /// It led to another state, or ended with another exit code.
    StateVaries,
}

impl Class {
    pub fn words(self) -> &'static str {
        match self {
            Class::Untested => "never compared with a second run",
            Class::Pure => "the same in every run",
            Class::OutputVaries => "its output varies from run to run",
            Class::StateVaries => "what it leads to varies from run to run",
        }
    }
}

/// What is known of a command, whatever state it starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Habit {
    pub class: Class,
    /// How often a run was compared with another.
    pub compared: u32,
    pub shown: String,
}

/// What happens to a command whose results differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// The first result is everybody's.
    Replay,
    /// Everybody gets a run of their own.
    Run,
}

/// What each command may use at the most. What ran into one of these is not a result for others, so that results are
/// those of commands that had enough, and the bounds need not be in their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Bytes, with no swap besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads at a time, with process 1 of the container and the shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Thousandths of a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u64>,
}

impl Bounds {
    pub fn need_a_cgroup(&self) -> bool {
        self.memory.is_some() || self.pids.is_some() || self.cpus.is_some()
    }

    /// How long a command may take of which somebody has asked the same.
    pub fn time(&self, asked: Option<Duration>) -> Option<Duration> {
        self.time.map(Duration::from_millis).into_iter().chain(asked).min()
    }
}

/// How a store deals with commands: those that may not come to the same result again, and what each may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Of a hundred hits, so many are run again and compared.
    pub sample: u32,
    /// A first run is followed by a second, and published when both were compared.
    pub twice: bool,
    pub output: Treatment,
    pub state: Treatment,
    /// How long a result that came over the network is given to others, in seconds.
    pub network: u64,
    pub bounds: Bounds,
    /// Stores whose results are taken for own ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<PathBuf>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            sample: 0,
            twice: false,
            output: Treatment::Replay,
            state: Treatment::Run,
            network: 3600,
            bounds: Bounds::default(),
            trust: Vec::new(),
        }
    }
}

/// So many comparisons are made of the first runs of one command, from whatever states.
const ENOUGH: u32 = 3;

/// The file of a store's policy.
const NAME: &str = "policy";

impl Policy {
    pub fn read(store: &Store) -> Result<Self> {
        match store.get(Shelf::Policy, NAME)? {
            Found::Whole(bytes) => serde_json::from_slice(&bytes).context("read the store's policy"),
            // Without one, and with one that cannot be read, nothing is promised beyond the default.
            Found::Damaged | Found::Nothing => Ok(Self::default()),
        }
    }

    pub fn write(&self, store: &Store) -> Result<()> {
        let bytes = serde_json::to_vec(self).context("write the store's policy")?;
        store.put(Shelf::Policy, NAME, &bytes)?;
        store.sync(Shelf::Policy)
    }

    /// What is known of it allows a command's result to be given to others.
    pub fn replays(&self, class: Class) -> bool {
        let treatment = match class {
            Class::Untested | Class::Pure => Treatment::Replay,
            Class::OutputVaries => self.output,
            Class::StateVaries => self.state,
        };
        treatment == Treatment::Replay
    }

    /// A command that came to the same result often enough is believed.
    pub fn checks_first_run(&self, habit: &Habit) -> bool {
        self.twice && habit.compared < ENOUGH
    }

    /// Whether this hit is one of those that are run again. It depends on who asks and where they stand, not on chance:
    /// a deja that is executed anew comes to the same answer.
    pub fn samples(&self, key: &Id, session: &str, steps: u64) -> bool {
        if self.sample == 0 {
            return false;
        }
        let mut hasher = Hasher::new("deja sample 1");
        hasher.field(&key.0);
        hasher.field(session.as_bytes());
        hasher.field(&steps.to_le_bytes());
        let [a, b, c, d, ..] = hasher.finish().0;
        u32::from_le_bytes([a, b, c, d]) % 100 < self.sample
    }
}

/// What a command is called by, wherever it runs.
fn command_id(facts: &[Fact]) -> Id {
    let mut hasher = Hasher::new("deja command 1");
    for (name, value) in facts {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.finish()
}

/// What earlier comparisons have shown of a command.
pub fn habit(store: &Store, facts: &[Fact]) -> Result<Habit> {
    Ok(match store.get(Shelf::Habits, &command_id(facts).to_string())? {
        Found::Whole(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Found::Damaged | Found::Nothing => Habit::default(),
    })
}

/// Remembers a comparison, and gives what is known with it.
pub fn learn(store: &Store, facts: &[Fact], shown: &str, class: Class) -> Result<Habit> {
    let name = command_id(facts).to_string();
    let _alone = store.lock(&format!("habit-{name}"))?;
    let before = habit(store, facts)?;
    let now = Habit {
        class: before.class.max(class),
        compared: before.compared.saturating_add(1),
        shown: shown.to_owned(),
    };
    let bytes = serde_json::to_vec(&now).context("write what is known of a command")?;
    store.put(Shelf::Habits, &name, &bytes)?;
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_what_is_given_to_others() {
        let strict = Policy { output: Treatment::Run, ..Policy::default() };
        let lenient = Policy { state: Treatment::Replay, ..Policy::default() };
        let table = [
            (Class::Untested, [true, true, true]),
            (Class::Pure, [true, true, true]),
            (Class::OutputVaries, [true, false, true]),
            (Class::StateVaries, [false, false, true]),
        ];
        for (class, expected) in table {
            let policies = [&Policy::default(), &strict, &lenient];
            assert_eq!(policies.map(|policy| policy.replays(class)), expected, "{class:?}");
        }
    }

    #[test]
    fn about_as_many_hits_are_sampled_as_the_policy_says() {
        let count = |sample: u32| {
            let policy = Policy { sample, ..Policy::default() };
            (0..2000).filter(|steps| policy.samples(&Id::default(), "ada", *steps)).count()
        };
        assert_eq!((count(0), count(100)), (0, 2000));
        assert!((300..500).contains(&count(20)), "{}", count(20));
    }

    #[test]
    fn whoever_asks_for_less_time_gets_less() {
        let bounds = |time| Bounds { time, ..Bounds::default() };
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        assert_eq!(bounds(None).time(None), None);
        assert_eq!(bounds(None).time(Some(second)), Some(second));
        assert_eq!(bounds(Some(60_000)).time(None), Some(minute));
        assert_eq!(bounds(Some(60_000)).time(Some(second)), Some(second));
        assert_eq!(bounds(Some(1_000)).time(Some(minute)), Some(second));
    }

    #[test]
    fn what_an_older_policy_does_not_say_is_the_default() {
        let policy: Policy = serde_json::from_str(r#"{"sample": 5}"#).unwrap();
        assert_eq!(policy, Policy { sample: 5, ..Policy::default() });
    }
}
