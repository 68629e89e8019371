//! The words of a profile turned into numbers: what is asked, checked once, with errors that name the place
//! in config.json. Nothing here depends on an architecture.

use anyhow::{Result, bail};
use seccompiler::SeccompCmpOp as Operator;

use super::arch::Arch;
use super::numbers::{self, Name};
use crate::spec::seccomp::{ArgumentRule, Seccomp, SyscallRule};
use crate::sys::seccomp::{action, errno, flag};

/// The names config.json may use, in the order `features` lists them.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The child tells its parent with this call which descriptor the listener is. Nobody could answer a
/// notification about it: the agent gets the listener only afterwards.
const NEEDED_BEFORE_THE_LISTENER: &str = "write";

/// The calls of a child that waits for `start` with its filter already loaded.
const NEEDED_FOR_START: [&str; 4] = ["accept4", "close", "recvfrom", "sendto"];

const ARGUMENTS: u32 = 6;
const HERE: &str = "linux.seccomp";

/// One comparison; all conditions of a set must hold.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Condition {
    pub index: u8,
    pub operator: Operator,
    pub value: u64,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// Where in `linux.seccomp.syscalls`.
    pub position: usize,
    pub names: Vec<Name>,
    /// What the filter returns.
    pub action: u32,
    /// The rule holds when any of these sets does; an empty set always holds.
    pub alternatives: Vec<Vec<Condition>>,
}

#[derive(Debug)]
pub(super) struct Profile {
    pub default: u32,
    pub architectures: Vec<Arch>,
    pub flags: u32,
    /// In the order of the config, without those that ask for what the default does anyway.
    pub rules: Vec<Rule>,
    /// Every known name, also of the rules left out: it tells how new the profile is.
    pub named: Vec<Name>,
    pub listener: bool,
    pub lets_start: bool,
    pub unknown: Vec<String>,
}

pub(super) fn read(profile: &Seccomp) -> Result<Profile> {
    let default = default_action(profile)?;
    let mut read = Profile {
        default,
        architectures: architectures(profile)?,
        flags: flags(profile)?,
        rules: Vec::with_capacity(profile.syscalls.len()),
        named: Vec::new(),
        listener: false,
        lets_start: false,
        unknown: Vec::new(),
    };
    for (position, asked) in profile.syscalls.iter().enumerate() {
        let rule = read_rule(position, asked, &mut read)?;
        read.named.extend_from_slice(&rule.names);
        if rule.action != default {
            read.rules.push(rule);
        }
    }
    read.named.sort_unstable();
    read.named.dedup();
    refuse_contradictions(&read.rules)?;
    read.lets_start =
        NEEDED_FOR_START.iter().all(|name| numbers::find(name).is_some_and(|name| read.lets(name)));
    if read.listener {
        if profile.listener_path.is_empty() {
            bail!("{HERE}.syscalls asks for SCMP_ACT_NOTIFY, but seccomp listenerPath is not set");
        }
        read.flags |= flag::NEW_LISTENER;
    } else {
        // The kernel refuses it where nobody can be notified.
        read.flags &= !flag::WAIT_KILLABLE_RECV;
    }
    if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
        bail!("{HERE}.listenerMetadata is set, but listenerPath is not");
    }
    Ok(read)
}

impl Profile {
    /// Whether nothing is in the way of this call, whatever its arguments.
    fn lets(&self, name: Name) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.names.contains(&name)).peekable();
        let action = match rules.peek() {
            None => Some(self.default),
            Some(_) => rules.find(|rule| rule.alternatives.iter().any(Vec::is_empty)).map(|rule| rule.action),
        };
        action.is_some_and(|action| matches!(action & action::MASK, action::ALLOW | action::LOG))
    }
}

fn default_action(profile: &Seccomp) -> Result<u32> {
    let name = profile.default_action.as_str();
    if name.is_empty() {
        bail!("{HERE}.defaultAction is not set");
    }
    let action = read_action(name, profile.default_errno_ret, HERE, ["defaultAction", "defaultErrnoRet"])?;
    if action == action::NOTIFY {
        bail!("{HERE}.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action");
    }
    Ok(action)
}

fn architectures(profile: &Seccomp) -> Result<Vec<Arch>> {
    let mut known = Vec::with_capacity(profile.architectures.len());
    for (position, name) in profile.architectures.iter().enumerate() {
        match Arch::from_name(name) {
            Some(arch) if known.contains(&arch) => {}
            Some(arch) => known.push(arch),
            None => bail!("{HERE}.architectures[{position}]: unknown architecture {:?}", name.as_str()),
        }
    }
    Ok(known)
}

fn flags(profile: &Seccomp) -> Result<u32> {
    let Some(names) = &profile.flags else {
        return Ok(flag::SPEC_ALLOW);
    };
    let mut flags = 0;
    for (position, name) in names.iter().enumerate() {
        flags |= match name.as_str() {
            // The child that loads the filter has one thread; there is nothing to synchronise, and the flag
            // would change what the kernel returns for a listener.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => flag::LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flag::SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => flag::WAIT_KILLABLE_RECV,
            unknown => bail!("{HERE}.flags[{position}]: unknown flag {unknown:?}"),
        };
    }
    Ok(flags)
}

fn read_rule(position: usize, asked: &SyscallRule, read: &mut Profile) -> Result<Rule> {
    let here = format!("{HERE}.syscalls[{position}]");
    let action = read_action(&asked.action, asked.errno_ret, &here, ["action", "errnoRet"])?;
    let notifies = action == action::NOTIFY;
    read.listener |= notifies;
    let mut names = Vec::with_capacity(asked.names.len());
    for (place, name) in asked.names.iter().enumerate() {
        if name.is_empty() {
            bail!("{here}.names[{place}]: empty string is not a valid syscall");
        }
        if notifies && *name == NEEDED_BEFORE_THE_LISTENER {
            bail!("{here}.names[{place}]: SCMP_ACT_NOTIFY cannot be used for the {name} syscall");
        }
        match numbers::find(name) {
            Some(name) => names.push(name),
            None => read.unknown.push(name.to_string()),
        }
    }
    let mut conditions = Vec::with_capacity(asked.args.len());
    for (place, argument) in asked.args.iter().enumerate() {
        conditions.push(read_condition(argument, &format!("{here}.args[{place}]"))?);
    }
    Ok(Rule { position, names, action, alternatives: alternatives(conditions) })
}

/// Conditions on different arguments must all hold. Where one argument is named twice, each condition is a
/// rule of its own, whatever the others are about: that is how profiles have always been read.
fn alternatives(conditions: Vec<Condition>) -> Vec<Vec<Condition>> {
    let twice = |c: &Condition| conditions.iter().filter(|other| other.index == c.index).count() > 1;
    if conditions.iter().any(twice) {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    }
}

fn read_action(name: &str, errno: Option<u32>, here: &str, fields: [&str; 2]) -> Result<u32> {
    let [action_field, errno_field] = fields;
    let (action, greatest) = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => (action::KILL_THREAD, None),
        "SCMP_ACT_KILL_PROCESS" => (action::KILL_PROCESS, None),
        "SCMP_ACT_TRAP" => (action::TRAP, None),
        "SCMP_ACT_ERRNO" => (action::ERRNO, Some(errno::MAX)),
        "SCMP_ACT_TRACE" => (action::TRACE, Some(u16::MAX.into())),
        "SCMP_ACT_ALLOW" => (action::ALLOW, None),
        "SCMP_ACT_LOG" => (action::LOG, None),
        "SCMP_ACT_NOTIFY" => (action::NOTIFY, None),
        unknown => bail!("{here}.{action_field}: unknown action {unknown:?}"),
    };
    match (greatest, errno) {
        (None, None) => Ok(action),
        (None, Some(_)) => bail!("{here}.{errno_field}: {name} does not return an errno"),
        (Some(greatest), Some(errno)) if errno > greatest => {
            bail!("{here}.{errno_field}: {errno} is too great for {name}, the most is {greatest}")
        }
        (Some(_), errno) => Ok(action | errno.unwrap_or(errno::EPERM)),
    }
}

fn read_condition(asked: &ArgumentRule, here: &str) -> Result<Condition> {
    if asked.index >= ARGUMENTS {
        bail!("{here}.index: {} is not an argument of a system call, they are 0 to 5", asked.index);
    }
    let (operator, value) = match asked.op.as_str() {
        "SCMP_CMP_NE" => (Operator::Ne, asked.value),
        "SCMP_CMP_LT" => (Operator::Lt, asked.value),
        "SCMP_CMP_LE" => (Operator::Le, asked.value),
        "SCMP_CMP_EQ" => (Operator::Eq, asked.value),
        "SCMP_CMP_GE" => (Operator::Ge, asked.value),
        "SCMP_CMP_GT" => (Operator::Gt, asked.value),
        // `value` is the mask, `valueTwo` what must be left of the argument.
        "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEq(asked.value), asked.value_two & asked.value),
        unknown => bail!("{here}.op: unknown operator {unknown:?}"),
    };
    Ok(Condition { index: asked.index as u8, operator, value })
}

/// Two rules that give different answers to the very same question are a mistake in the profile; whichever
/// was taken, its author would be surprised. A rule without conditions settles a call for good.
fn refuse_contradictions(rules: &[Rule]) -> Result<()> {
    type Asked<'r> = (Name, &'r [Condition], &'r Rule);
    let mut settled: Vec<Name> = Vec::new();
    let mut asked: Vec<Asked> = Vec::new();
    for rule in rules {
        for set in &rule.alternatives {
            if set.is_empty() {
                settled.extend_from_slice(&rule.names);
            } else {
                asked.extend(rule.names.iter().map(|name| (*name, set.as_slice(), rule)));
            }
        }
    }
    settled.sort_unstable();
    asked.retain(|(name, ..)| settled.binary_search(name).is_err());
    asked.sort_by_key(|(name, ..)| *name);
    for of_one_name in asked.chunk_by(|a, b| a.0 == b.0) {
        for (later, (name, set, rule)) in of_one_name.iter().enumerate() {
            let earlier = of_one_name[..later].iter().find(|(_, other, _)| same(other, set));
            if let Some((.., other)) = earlier.filter(|(.., other)| other.action != rule.action) {
                bail!(
                    "{HERE}.syscalls[{}] contradicts syscalls[{}]: {} with the same arguments, another action",
                    rule.position,
                    other.position,
                    name.as_str()
                );
            }
        }
    }
    Ok(())
}

fn same(a: &[Condition], b: &[Condition]) -> bool {
    a.len() == b.len() && a.iter().all(|condition| b.contains(condition))
}
