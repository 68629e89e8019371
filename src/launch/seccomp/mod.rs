//! `linux.seccomp` to a classic BPF program: pure, no kernel is asked.
//!
//! A filter answers for every architecture the kernel can run: it looks at the token, then searches the
//! number in a binary tree, and only for calls with argument rules at the arguments. What a profile means
//! where the spec is silent is what runc and libseccomp make of it; docs/seccomp.md lists the cases.
//! Every word of the profile is understood or refused by its place in config.json; only names of system
//! calls may be unknown, because profiles are written for kernels newer and older than this.

mod arch;
mod arguments;
mod listener;
mod numbers;
mod profile;
mod stored;
mod table;
mod tree;

use anyhow::{Result, bail};

pub use arch::{Arch, Width};
use arguments::Answer;
pub use listener::ProcessState;
use numbers::Name;
pub use profile::{ACTIONS, FLAGS, OPERATORS};
use profile::{Condition, Profile, Rule};
use tree::{Section, Segment, Verdict};

use crate::spec::seccomp::Seccomp;
use crate::sys::seccomp::{INSTRUCTIONS_MAX, Instruction, action, errno};

/// A filter ready to be loaded.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// Flags of seccomp(2).
    pub flags: u32,
    pub instructions: Vec<Instruction>,
    /// Loading it gives a listener, which `listenerPath` is waiting for.
    pub listener: bool,
    /// A child that is under it can still wait for `start`.
    pub lets_start: bool,
    /// What the user should hear about, a sentence each.
    pub warnings: Vec<String>,
    /// The kernel it is for.
    native: Arch,
}

impl Program {
    /// A container that waits for `start` can be under it, and has to be, for its agent to know of it.
    pub fn may_wait(&self) -> bool {
        self.listener && self.lets_start
    }
}

/// Compiles `profile` for a kernel of the architecture `native`, which is always part of the filter.
pub fn compile(profile: &Seccomp, native: Arch) -> Result<Program> {
    let profile = profile::read(profile)?;
    let mut architectures = vec![native];
    architectures.extend(profile.architectures.iter().filter(|arch| **arch != native));
    architectures.retain(|arch| arch.shares_a_kernel_with(native));

    let mut bodies = Bodies { list: Vec::new(), default: profile.default };
    let mut sections: Vec<Section> = Vec::new();
    for arch in &architectures {
        if sections.iter().any(|section| section.token == arch.token()) {
            continue;
        }
        let same_token: Vec<Arch> =
            architectures.iter().copied().filter(|other| other.token() == arch.token()).collect();
        let mut points = Vec::new();
        for arch in &same_token {
            points.extend(decide(&profile, *arch, &mut bodies));
        }
        points.sort_unstable_by_key(|(number, _)| *number);
        let segments = tree::segments(&background(&profile, &same_token), &points);
        sections.push(Section { token: arch.token(), segments });
    }
    let instructions = tree::assemble(&sections, &bodies.list, WRONG_ARCHITECTURE);
    if instructions.len() > INSTRUCTIONS_MAX {
        bail!(
            "linux.seccomp: the filter needs {} instructions, and the kernel takes at most {INSTRUCTIONS_MAX}",
            instructions.len()
        );
    }
    let mut warnings = Vec::new();
    if !profile.unknown.is_empty() {
        warnings
            .push(format!("linux.seccomp: unknown system calls are ignored: {}", profile.unknown.join(", ")));
    }
    let profile::Profile { flags, listener, lets_start, .. } = profile;
    Ok(Program { flags, instructions, listener, lets_start, warnings, native })
}

/// What happens to a call of an architecture that the profile does not list.
const WRONG_ARCHITECTURE: u32 = action::KILL_THREAD;
const UNKNOWN_TO_THE_PROFILE: u32 = action::ERRNO | errno::ENOSYS;
/// A tracer that wants a call to be skipped sets its number to this.
const SKIPPED: u32 = u32::MAX;

/// Bodies of calls whose arguments decide; equal ones are written once.
struct Bodies {
    list: Vec<Vec<Instruction>>,
    default: u32,
}

impl Bodies {
    fn add(&mut self, answers: &[Answer], arch: Arch) -> Verdict {
        let body = arguments::lower(answers, self.default, arch.width(), arch.is_big_endian());
        let known = self.list.iter().position(|other| *other == body);
        Verdict::Ask(known.unwrap_or_else(|| {
            self.list.push(body);
            self.list.len() - 1
        }))
    }
}

/// The verdict on every number of `arch` that a rule is about.
fn decide(profile: &Profile, arch: Arch, bodies: &mut Bodies) -> Vec<(u32, Verdict)> {
    let mut asked: Vec<(u32, Asked)> = Vec::with_capacity(profile.named.len());
    for rule in &profile.rules {
        for name in &rule.names {
            add_rule(&mut asked, rule, *name, arch);
        }
    }
    // Stable, so that the rules of one number stay in the order of the profile.
    asked.sort_by_key(|(number, _)| *number);
    asked.chunk_by(|a, b| a.0 == b.0).map(|rules| (rules[0].0, verdict(rules, arch, bodies))).collect()
}

/// A set of conditions asked for one number, and through which door the call comes.
struct Asked<'r> {
    conditions: &'r [Condition],
    door: Option<u64>,
    action: u32,
}

fn add_rule<'r>(asked: &mut Vec<(u32, Asked<'r>)>, rule: &'r Rule, name: Name, arch: Arch) {
    let doors = [
        arch.number_of(name).map(|number| (number, None)),
        arch.second_door(name).map(|(number, function)| (number, Some(function))),
    ];
    for (number, door) in doors.into_iter().flatten() {
        for conditions in &rule.alternatives {
            asked.push((number, Asked { conditions, door, action: rule.action }));
        }
    }
}

impl Asked<'_> {
    /// Behind a second door the first argument says which call it is, and takes the place of a condition on
    /// the call's own first argument.
    fn answer(&self, arch: Arch) -> Answer {
        let mut conditions: Vec<Condition> =
            arguments::needed(self.conditions, arch.width()).cloned().collect();
        if let Some(value) = self.door {
            conditions.retain(|condition| condition.index != 0);
            conditions.insert(0, Condition { index: 0, operator: seccompiler::SeccompCmpOp::Eq, value });
        }
        Answer { conditions, action: self.action }
    }
}

/// A rule without conditions settles a number, the first such rule for good; else the first that holds does.
fn verdict(rules: &[(u32, Asked)], arch: Arch, bodies: &mut Bodies) -> Verdict {
    let answers: Vec<Answer> = rules.iter().map(|(_, asked)| asked.answer(arch)).collect();
    match answers.iter().find(|answer| answer.conditions.is_empty()) {
        Some(settled) => Verdict::Give(settled.action),
        None => bodies.add(&answers, arch),
    }
}

/// What happens to numbers without a rule.
fn background(profile: &Profile, same_token: &[Arch]) -> Vec<Segment> {
    let default = Verdict::Give(profile.default);
    let wrong = Verdict::Give(WRONG_ARCHITECTURE);
    let has = |arch| same_token.contains(&arch);
    let mut list = Vec::new();
    for (arch, first) in [(Arch::X86_64, 0), (Arch::X32, arch::X32_BIT)] {
        if has(arch) {
            add_background(&mut list, profile, arch, first);
        } else if same_token[0].token() == Arch::X86_64.token() {
            list.push(Segment { first, verdict: wrong });
        }
    }
    match list.last() {
        None => add_background(&mut list, profile, same_token[0], 0),
        Some(last) if last.verdict == wrong => list.push(Segment { first: SKIPPED, verdict: default }),
        Some(_) => {}
    }
    list
}

/// The default from `first` on, and above the greatest number the profile names "no such call": software that
/// tries a new call must be able to fall back, which it only does on ENOSYS.
fn add_background(list: &mut Vec<Segment>, profile: &Profile, arch: Arch, first: u32) {
    let default = Verdict::Give(profile.default);
    let unknown = Verdict::Give(UNKNOWN_TO_THE_PROFILE);
    let permissive = matches!(profile.default & action::MASK, action::ALLOW | action::LOG | action::TRACE);
    let doors = |name: &Name| arch.second_door(*name).map(|(number, _)| number).max(arch.number_of(*name));
    let newest = profile.named.iter().filter_map(doors).max();
    match newest.filter(|newest| !permissive && *newest > 0) {
        None => list.push(Segment { first, verdict: default }),
        Some(newest) => {
            if matches!(arch, Arch::S390 | Arch::S390x) {
                // The kernel reports numbers that do not fit its old encoding as 0 when it has no such call.
                list.push(Segment { first: 0, verdict: unknown });
                list.push(Segment { first: 1, verdict: default });
            } else {
                list.push(Segment { first, verdict: default });
            }
            list.push(Segment { first: newest + 1, verdict: unknown });
        }
    }
}
