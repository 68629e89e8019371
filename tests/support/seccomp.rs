//! The judge of the seccomp compiler: an interpreter of classic BPF as the kernel runs it, an evaluator that
//! walks a profile rule by rule, and a comparison of the two over a profile made from arbitrary bytes. Used by
//! the tests and by the fuzz target.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use deja::launch::seccomp::{Arch, Program, Width, compile};
use deja::spec::seccomp::{ArgumentRule, Seccomp, SyscallRule};
use deja::spec::{List, Str};
use deja::sys::seccomp::{Instruction, action, errno};

pub const DEFAULT_PROFILE: &str = include_str!("../data/seccomp-default.json");

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub token: u32,
    pub arguments: [u64; 6],
}

impl Call {
    pub fn of(arch: Arch, name: &str, arguments: &[u64]) -> Call {
        let number = arch.number(name).unwrap_or_else(|| panic!("{arch:?} has no {name}"));
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        Call { number, token: arch.token(), arguments: all }
    }

    fn word(&self, offset: u32, big_endian: bool) -> u32 {
        match offset {
            0 => self.number,
            4 => self.token,
            16..=60 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                let high = (offset % 8 == 4) != big_endian;
                if high { (argument >> 32) as u32 } else { argument as u32 }
            }
            _ => panic!("load from offset {offset}"),
        }
    }
}

/// The result of a program and how many instructions it took.
pub fn run(program: &[Instruction], call: &Call, big_endian: bool) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, if_true, if_false, value } =
            *program.get(at).unwrap_or_else(|| panic!("jump to {at} of {}", program.len()));
        steps += 1;
        at += 1;
        let choose = |condition| if condition { if_true } else { if_false } as usize;
        match code {
            0x20 => {
                assert_eq!(value % 4, 0);
                accumulator = call.word(value, big_endian);
            }
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += choose(accumulator == value),
            0x25 => at += choose(accumulator > value),
            0x35 => at += choose(accumulator >= value),
            0x06 => return (value, steps),
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// A profile as read for one architecture: what every rule says, by the number it is about.
struct Reading<'p> {
    newest: u32,
    by_number: BTreeMap<u32, Vec<Saying<'p>>>,
}

struct Saying<'p> {
    rule: &'p SyscallRule<'p>,
    result: u32,
    /// The value of the first argument where the number is that of socketcall(2) or ipc(2).
    function: Option<u64>,
}

/// What a profile says about calls, read rule by rule.
pub struct Judge<'p> {
    native: Arch,
    default: u32,
    readings: Vec<(Arch, Reading<'p>)>,
}

impl<'p> Judge<'p> {
    pub fn new(profile: &'p Seccomp, native: Arch) -> Judge<'p> {
        let default = result(&profile.default_action, profile.default_errno_ret);
        let listed = |arch: &Arch| profile.architectures.iter().any(|name| *name == arch.name());
        let known = Arch::ALL.iter().filter(|arch| **arch == native || listed(arch));
        let served = known.filter(|arch| arch.shares_a_kernel_with(native));
        let readings = served.map(|arch| (*arch, read(profile, *arch, default))).collect();
        Judge { native, default, readings }
    }

    pub fn evaluate(&self, call: &Call) -> u32 {
        const X32_BIT: u32 = 1 << 30;
        let on_x86 = call.token == Arch::X86_64.token();
        let serves = |arch: Arch| {
            let right_half = !on_x86 || (arch == Arch::X32) == (call.number >= X32_BIT);
            arch.token() == call.token && right_half
        };
        let Some((arch, reading)) = self.readings.iter().find(|(arch, _)| serves(*arch)) else {
            let skipped =
                call.number == u32::MAX && self.readings.iter().any(|(a, _)| a.token() == call.token);
            return if skipped && on_x86 { self.default } else { action::KILL_THREAD };
        };
        if !matches!(self.default & action::MASK, action::ALLOW | action::LOG | action::TRACE) {
            let multiplexer = matches!(arch, Arch::S390 | Arch::S390x) && call.number == 0;
            if reading.newest > 0 && (call.number > reading.newest || multiplexer) {
                return action::ERRNO | errno::ENOSYS;
            }
        }
        let Some(sayings) = reading.by_number.get(&call.number) else {
            return self.default;
        };
        let settled =
            sayings.iter().find(|saying| saying.function.is_none() && always(&saying.rule.args, *arch));
        let first = || sayings.iter().find(|saying| saying.holds(*arch, call));
        settled.or_else(first).map_or(self.default, |saying| saying.result)
    }
}

fn read<'p>(profile: &'p Seccomp, arch: Arch, default: u32) -> Reading<'p> {
    let mut reading = Reading { newest: 0, by_number: BTreeMap::new() };
    for rule in profile.syscalls.iter() {
        let result = result(&rule.action, rule.errno_ret);
        for name in rule.names.iter() {
            let direct = arch.number(name);
            let door = second_door(arch, name).and_then(|(door, _)| arch.number(door));
            reading.newest = reading.newest.max(direct.max(door).unwrap_or(0));
            if result == default {
                continue;
            }
            if let Some(number) = direct {
                let saying = Saying { rule, result, function: None };
                reading.by_number.entry(number).or_default().push(saying);
            }
            if let Some((door, function)) = second_door(arch, name) {
                let number = arch.number(door).expect("the door");
                let saying = Saying { rule, result, function: Some(function) };
                reading.by_number.entry(number).or_default().push(saying);
            }
        }
    }
    reading
}

impl Saying<'_> {
    fn holds(&self, arch: Arch, call: &Call) -> bool {
        let right_function = self.function.is_none_or(|function| matches(&equal(0, function), arch, call));
        right_function && holds(&self.rule.args, arch, call, self.function.is_some())
    }
}

fn result(action: &str, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1);
    match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        other => panic!("action {other}"),
    }
}

fn equal(index: u32, value: u64) -> ArgumentRule<'static> {
    ArgumentRule { index, value, value_two: 0, op: Str::from_static("SCMP_CMP_EQ") }
}

fn mask_of(width: Width) -> u64 {
    match width {
        Width::Bits32 => u32::MAX.into(),
        Width::Bits64 => u64::MAX,
    }
}

fn vacuous(rule: &ArgumentRule, arch: Arch) -> bool {
    rule.op == "SCMP_CMP_MASKED_EQ" && rule.value & mask_of(arch.width()) == 0
}

fn repeats(rules: &[ArgumentRule]) -> bool {
    rules.iter().any(|rule| rules.iter().filter(|other| other.index == rule.index).count() > 1)
}

fn always(rules: &[ArgumentRule], arch: Arch) -> bool {
    if repeats(rules) {
        rules.iter().any(|rule| vacuous(rule, arch))
    } else {
        rules.iter().all(|rule| vacuous(rule, arch))
    }
}

/// Behind a second door the first argument is the function, and conditions on it are not looked at.
fn holds(rules: &[ArgumentRule], arch: Arch, call: &Call, second_door: bool) -> bool {
    let one = |rule: &ArgumentRule| (second_door && rule.index == 0) || matches(rule, arch, call);
    if repeats(rules) { rules.iter().any(one) } else { rules.iter().all(one) }
}

fn matches(rule: &ArgumentRule, arch: Arch, call: &Call) -> bool {
    let width = mask_of(arch.width());
    let argument = call.arguments[rule.index as usize] & width;
    let (value, second) = (rule.value & width, rule.value_two & width);
    match rule.op.as_str() {
        "SCMP_CMP_NE" => argument != value,
        "SCMP_CMP_LT" => argument < value,
        "SCMP_CMP_LE" => argument <= value,
        "SCMP_CMP_EQ" => argument == value,
        "SCMP_CMP_GE" => argument >= value,
        "SCMP_CMP_GT" => argument > value,
        "SCMP_CMP_MASKED_EQ" => argument & value == second & value,
        other => panic!("operator {other}"),
    }
}

fn second_door(arch: Arch, name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    // The numberings with socketcall(2) for which libraries still use it.
    let has = arch.number("socketcall").is_some() && arch.number("ipc").is_some();
    let has = has && !matches!(arch, Arch::Parisc | Arch::Parisc64);
    let socket = SOCKET.iter().position(|known| *known == name).map(|at| ("socketcall", at as u64 + 1));
    let ipc = || IPC.iter().find(|(known, _)| *known == name).map(|(_, function)| ("ipc", *function));
    socket.or_else(ipc).filter(|_| has)
}

/// A source of decisions that never ends: behind the bytes there are only zeros.
struct Choices<'b>(&'b [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first as usize
            }
            None => 0,
        }
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.byte() % list.len()]
    }

    fn value(&mut self) -> u64 {
        let small = self.byte() as u64;
        match self.byte() % 8 {
            0..=2 => small,
            3 => small << 32,
            4 => small << 32 | self.byte() as u64,
            5 => u64::MAX - small,
            6 => u64::from(u32::MAX) - small,
            _ => (1 << 31) + small,
        }
    }
}

fn names() -> &'static [String] {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let profile: Seccomp = serde_json::from_str(DEFAULT_PROFILE).expect("the default profile");
        let all = profile.syscalls.iter().flat_map(|rule| rule.names.iter());
        all.map(|name| name.to_string()).chain(["no_such_call".to_owned()]).collect()
    })
}

const TALKATIVE: [&str; 12] = [
    "socket",
    "accept4",
    "recv",
    "shmat",
    "semtimedop",
    "ipc",
    "socketcall",
    "personality",
    "clone",
    "read",
    "cacheflush",
    "listns",
];

fn profile_from(choices: &mut Choices) -> Seccomp<'static> {
    let text = |text: &'static str| Str::from_static(text);
    let (default_action, default_errno_ret) = action_from(choices, &deja::launch::seccomp::ACTIONS);
    let architectures = (0..choices.byte() % 4).map(|_| text(choices.of(Arch::ALL).name())).collect();
    let syscalls = (0..choices.byte() % 12).map(|_| rule_from(choices)).collect();
    Seccomp {
        default_action,
        default_errno_ret,
        architectures: List(architectures),
        flags: None,
        listener_path: text("/run/agent"),
        listener_metadata: text(""),
        syscalls: List(syscalls),
    }
}

fn action_from(choices: &mut Choices, actions: &[&'static str]) -> (Str<'static>, Option<u32>) {
    let mut name = choices.of(actions);
    if name == "SCMP_ACT_NOTIFY" && actions.len() == deja::launch::seccomp::ACTIONS.len() {
        name = "SCMP_ACT_ALLOW";
    }
    let errno = choices.byte();
    let takes_errno = matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && errno % 2 == 1;
    (Str::from_static(name), takes_errno.then_some(errno as u32 / 16))
}

fn rule_from(choices: &mut Choices) -> SyscallRule<'static> {
    const BUT_WRITE: [&str; 8] = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ];
    let (action, errno_ret) = action_from(choices, &BUT_WRITE);
    let mut list: Vec<&'static str> = Vec::new();
    match choices.byte() % 3 {
        0 => list.push(choices.of(&TALKATIVE)),
        1 => {
            list.extend((0..choices.byte() % 9).map(|_| names()[choices.byte() * 2 % names().len()].as_str()))
        }
        _ => {
            let (first, step) = (choices.byte() * 2, 1 + choices.byte() % 5);
            list.extend(names().iter().skip(first).step_by(step).take(choices.byte()).map(String::as_str));
        }
    }
    list.retain(|name| *name != "write" || action != "SCMP_ACT_NOTIFY");
    let args = match choices.byte() % 3 {
        0 => Vec::new(),
        _ => (0..choices.byte() % 5)
            .map(|_| ArgumentRule {
                index: choices.byte() as u32 % 6,
                value: choices.value(),
                value_two: choices.value(),
                op: Str::from_static(choices.of(&deja::launch::seccomp::OPERATORS)),
            })
            .collect(),
    };
    let names = list.into_iter().map(Str::from_static).collect();
    SyscallRule { names: List(names), action, errno_ret, args: List(args) }
}

/// Builds a profile from bytes, compiles it, and compares program and profile on the calls where they are
/// most likely to differ. Gives the program, or None where the profile was refused for a good reason.
pub fn check(bytes: &[u8]) -> Option<Program> {
    let mut choices = Choices(bytes);
    let native = choices.of(Arch::ALL);
    let profile = profile_from(&mut choices);
    let program = match compile(&profile, native) {
        Ok(program) => program,
        Err(error) => {
            let text = format!("{error:#}");
            assert!(text.contains("contradicts") || text.contains("at most 4096"), "{text}: {profile:?}");
            return None;
        }
    };
    assert_eq!(Program::from_bytes(&program.to_bytes(), native).as_ref(), Some(&program));
    let judge = Judge::new(&profile, native);
    compare(&judge, &program, &Call { number: 0, token: 0x1234_5678, arguments: [0; 6] });
    let arguments = interesting_arguments(&profile, &mut choices);
    for arch in Arch::ALL.iter().filter(|arch| arch.shares_a_kernel_with(native)) {
        for number in interesting_numbers(&profile, *arch) {
            for arguments in &arguments {
                compare(&judge, &program, &Call { number, token: arch.token(), arguments: *arguments });
            }
        }
    }
    Some(program)
}

pub fn compare(judge: &Judge, program: &Program, call: &Call) {
    let (got, _) = run(&program.instructions, call, judge.native.is_big_endian());
    let expected = judge.evaluate(call);
    assert_eq!(got, expected, "{got:#x} instead of {expected:#x} for {call:x?} on {:?}", judge.native);
}

fn interesting_numbers(profile: &Seccomp, arch: Arch) -> Vec<u32> {
    let mut numbers = vec![0, 1, 0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    let named = profile.syscalls.iter().flat_map(|rule| rule.names.iter().map(Str::as_str));
    for name in named.chain(["socketcall", "ipc"]) {
        if let Some(number) = arch.number(name) {
            numbers.extend([number.wrapping_sub(1), number, number + 1]);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn interesting_arguments(profile: &Seccomp, choices: &mut Choices) -> Vec<[u64; 6]> {
    let rules = profile.syscalls.iter().flat_map(|rule| rule.args.iter());
    let mut list = vec![[0; 6], [u64::MAX; 6], [1; 6]];
    for rule in rules.take(4) {
        let values = [rule.value, rule.value.wrapping_add(1), rule.value.wrapping_sub(1), rule.value_two];
        for value in values {
            let mut arguments = [choices.byte() as u64 % 25; 6];
            arguments[rule.index as usize] = value;
            list.push(arguments);
            list.push([value; 6]);
        }
        list.push([rule.value ^ 1 << 32; 6]);
    }
    list
}
