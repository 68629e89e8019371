//! The kinds of values flags and arguments have, and how each is read. Numbers are read strictly: anything
//! but digits, with a sign where one makes sense, is refused.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::table::Given;

/// A value made from one argument; the error is the reason why it cannot be.
pub trait Value: Sized {
    fn read(given: OsString) -> Result<Self, String>;
}

fn text(given: &OsStr) -> Result<&str, String> {
    given.to_str().ok_or_else(|| "not valid UTF-8".to_owned())
}

impl Value for PathBuf {
    fn read(given: OsString) -> Result<Self, String> {
        Ok(given.into())
    }
}

impl Value for String {
    fn read(given: OsString) -> Result<Self, String> {
        text(&given).map(str::to_owned)
    }
}

fn is_number(text: &str, signed: bool) -> bool {
    let digits = if signed { text.strip_prefix(['-', '+']).unwrap_or(text) } else { text };
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

macro_rules! numbers {
    ($($type:ty, $signed:literal;)*) => {$(
        impl Value for $type {
            fn read(given: OsString) -> Result<Self, String> {
                let text = text(&given)?;
                if !is_number(text, $signed) {
                    return Err("not a number".to_owned());
                }
                text.parse().map_err(|_| format!("not between {} and {}", <$type>::MIN, <$type>::MAX))
            }
        }
    )*};
}

numbers! { u16, false; u32, false; u64, false; i32, true; i64, true; }

/// Memory sizes: bytes, or with a binary suffix as in `100M`; -1 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub i64);

impl Value for Bytes {
    fn read(given: OsString) -> Result<Self, String> {
        let text = text(&given)?;
        if is_number(text, true) {
            return i64::read(given).map(Bytes);
        }
        let reason = || "not a size: bytes, or a number with k, m, g or t".to_owned();
        let lower = text.to_ascii_lowercase();
        let letters = lower.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &lower[..lower.len() - letters.len()];
        let power = match letters.trim_start_matches(' ') {
            "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(reason()),
        };
        let value: f64 = number.parse().map_err(|_| reason())?;
        let bytes = value * (1u64 << power) as f64;
        if bytes < i64::MAX as f64 { Ok(Bytes(bytes as i64)) } else { Err("too large".to_owned()) }
    }
}

/// The most of something, or the word for no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound<T> {
    None,
    Most(T),
}

impl<T> Bound<T> {
    pub fn most(self) -> Option<T> {
        match self {
            Bound::None => None,
            Bound::Most(most) => Some(most),
        }
    }
}

impl<T: Value> Value for Bound<T> {
    fn read(given: OsString) -> Result<Self, String> {
        match given == "none" {
            true => Ok(Bound::None),
            false => T::read(given).map(Bound::Most),
        }
    }
}

/// CPUs, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus(pub u32);

impl Value for Cpus {
    fn read(given: OsString) -> Result<Self, String> {
        let number: f64 = text(&given)?.parse().map_err(|_| "not a number of CPUs".to_owned())?;
        // The kernel's smallest quota is a hundredth.
        match (0.01..=100_000.0).contains(&number) {
            true => Ok(Cpus((number * 1000.0).round() as u32)),
            false => Err("not between 0.01 and 100000".to_owned()),
        }
    }
}

/// A duration as Go writes them: `5s`, `1m30s`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Value for Interval {
    fn read(given: OsString) -> Result<Self, String> {
        let reason = || "not a duration such as 5s, 1m30s or 250ms".to_owned();
        let mut rest = text(&given)?;
        let mut total = 0f64;
        while !rest.is_empty() {
            let letters = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let number: f64 = rest[..rest.len() - letters.len()].parse().map_err(|_| reason())?;
            let next = letters.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
            total += number
                * match &letters[..letters.len() - next.len()] {
                    "h" => 3600.0,
                    "m" => 60.0,
                    "s" => 1.0,
                    "ms" => 1e-3,
                    "us" | "µs" => 1e-6,
                    "ns" => 1e-9,
                    _ => return Err(reason()),
                };
            rest = next;
        }
        match Duration::try_from_secs_f64(total) {
            Ok(duration) if !duration.is_zero() => Ok(Interval(duration)),
            _ => Err("duration interval must be greater than 0".to_owned()),
        }
    }
}

/// `uid[:gid]`, numbers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserSpec {
    pub uid: u32,
    pub gid: Option<u32>,
}

impl Value for UserSpec {
    fn read(given: OsString) -> Result<Self, String> {
        let text = text(&given)?;
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text, None),
        };
        let number = |part: &str| {
            u32::read(part.into()).map_err(|reason| format!("{part:?} is {reason}; the form is uid[:gid]"))
        };
        Ok(Self { uid: number(uid)?, gid: gid.map(number).transpose()? })
    }
}

/// The permissions of a file, as chmod takes them in digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions(pub u32);

impl Value for Permissions {
    fn read(given: OsString) -> Result<Self, String> {
        let digits = text(&given)?;
        let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.map(Self).ok_or_else(|| "it must be permissions in octal digits, as 0644".to_owned())
    }
}

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize(pub u32, pub u32);

impl Value for WindowSize {
    fn read(given: OsString) -> Result<Self, String> {
        let parts = text(&given)?.split_once('x').map(|(rows, columns)| (rows.parse(), columns.parse()));
        match parts {
            Some((Ok(rows @ 1..=9999), Ok(columns @ 1..=9999))) => Ok(Self(rows, columns)),
            _ => Err("it must be rows and columns of a terminal, as 24x80".to_owned()),
        }
    }
}

/// A signal by number, name, or name without `SIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    pub const TERM: Signal = Signal(15);
    pub const KILL: Signal = Signal(9);
}

const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

/// Linux's signals; the same numbers on every architecture deja is built for.
pub const SIGNALS: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

impl Value for Signal {
    fn read(given: OsString) -> Result<Self, String> {
        let text = text(&given)?;
        let unknown = || format!("unknown signal {text:?}");
        if is_number(text, false) {
            return match text.parse() {
                Ok(number @ 0..=REAL_TIME_MAX) => Ok(Signal(number)),
                _ => Err(unknown()),
            };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = SIGNALS.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        real_time(name).map(Signal).ok_or_else(unknown)
    }
}

/// `RTMIN`, `RTMIN+n`, `RTMAX-n`, `RTMAX`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign).filter(|n| is_number(n, false)).and_then(|n| n.parse::<i32>().ok()),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        REAL_TIME_MIN.checked_add(offset(rest, '+')?)?
    } else {
        REAL_TIME_MAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (REAL_TIME_MIN..=REAL_TIME_MAX).contains(&number).then_some(number)
}

macro_rules! choices {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $($word:literal)|+,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl Value for $name {
            fn read(given: OsString) -> Result<Self, String> {
                match text(&given)? {
                    $($($word)|+ => Ok(Self::$variant),)*
                    _ => Err(choices!(@list $($($word)|+),*)),
                }
            }
        }
    )*};
    (@list $($first:literal $(| $alias:literal)*),*) => {
        format!("it must be one of: {}", [$($first),*].join(", "))
    };
}

choices! {
    /// How `list` and `ps` print.
    Format {
        #[default]
        Table = "table",
        Json = "json",
    }
    LogFormat {
        #[default]
        Text = "text" | "",
        Json = "json",
    }
    /// From which severity on something is logged.
    Level {
        Error = "error",
        #[default]
        Warning = "warning" | "warn",
        Debug = "debug" | "info" | "trace",
    }
    CgroupManager {
        #[default]
        Cgroupfs = "cgroupfs",
        Systemd = "systemd",
        Disabled = "disabled",
    }
    /// Who decides about shares.
    SharePolicy {
        Static = "static",
        #[default]
        Wfq = "wfq",
        Strict = "strict",
        StrictWithoutMinimum = "strict-without-minimum",
        Lottery = "lottery",
        Quota = "quota",
    }
    /// What `top` sorts by.
    SortKey {
        #[default]
        Name = "name",
        Entitled = "entitled",
        Received = "received",
        Lag = "lag",
        Weight = "weight",
        Pressure = "pressure",
        Memory = "memory",
    }
    /// What a row of `top` stands for.
    Grouping {
        #[default]
        Containers = "containers",
        Tenants = "tenants",
        Classes = "classes",
    }
    /// What a kernel takes a cgroup's weight for.
    WeightMeaning {
        #[default]
        Group = "group",
        Cpu = "cpu",
    }
    /// What CRIU does about cgroups.
    CgroupsMode {
        #[default]
        Ignore = "ignore",
        Soft = "soft",
        Full = "full",
        Strict = "strict",
    }
    /// What lies around an archive.
    Compression {
        None = "none",
        Gzip = "gzip",
        #[default]
        Zstd = "zstd",
    }
    /// How CRIU holds the network.
    NetworkLock {
        #[default]
        Iptables = "iptables",
        Nftables = "nftables",
        Skip = "skip",
    }
    /// What a state is written as.
    StateForm {
        #[default]
        Tree = "tree",
        Bundle = "bundle",
        Layout = "layout",
        Archive = "archive",
    }
    /// What happens to a session's command whose results vary.
    Variation {
        #[default]
        Replay = "replay",
        Run = "run",
    }
    Choice {
        #[default]
        No = "no" | "false",
        Yes = "yes" | "true",
    }
    /// A setting that deja may find out by itself.
    Switch {
        #[default]
        Auto = "auto" | "Auto" | "AUTO" | "",
        On = "true" | "1" | "t" | "T" | "TRUE" | "True",
        Off = "false" | "0" | "f" | "F" | "FALSE" | "False",
    }
}

/// A field that takes the value of a flag.
pub trait Slot {
    fn put(&mut self, given: Given) -> Result<(), String>;
}

impl Slot for bool {
    fn put(&mut self, given: Given) -> Result<(), String> {
        *self = match given {
            None => true,
            Some(value) => match text(&value)? {
                "1" | "t" | "T" | "true" | "TRUE" | "True" | "yes" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" | "no" => false,
                _ => return Err("it must be true or false".to_owned()),
            },
        };
        Ok(())
    }
}

impl<T: Value> Slot for Option<T> {
    fn put(&mut self, given: Given) -> Result<(), String> {
        *self = Some(T::read(given.unwrap_or_default())?);
        Ok(())
    }
}

impl<T: Value> Slot for Vec<T> {
    fn put(&mut self, given: Given) -> Result<(), String> {
        self.push(T::read(given.unwrap_or_default())?);
        Ok(())
    }
}

macro_rules! plain_slots {
    ($($type:ty),*) => {$(
        impl Slot for $type {
            fn put(&mut self, given: Given) -> Result<(), String> {
                *self = Value::read(given.unwrap_or_default())?;
                Ok(())
            }
        }
    )*};
}

plain_slots!(Compression, Format, StateForm, LogFormat, CgroupManager, Switch, SortKey, Grouping, u32);

/// A field that takes words from behind the flags.
pub trait Place {
    const LEAST: usize;
    const MOST: usize;
    fn take(&mut self, words: &mut std::vec::IntoIter<OsString>) -> Result<(), String>;
}

macro_rules! places {
    ($($type:ty),*) => {$(
        impl Place for $type {
            const LEAST: usize = 1;
            const MOST: usize = 1;
            fn take(&mut self, words: &mut std::vec::IntoIter<OsString>) -> Result<(), String> {
                if let Some(word) = words.next() {
                    *self = Value::read(word)?;
                }
                Ok(())
            }
        }
    )*};
}

places!(String, PathBuf);

impl<T: Value> Place for Option<T> {
    const LEAST: usize = 0;
    const MOST: usize = 1;
    fn take(&mut self, words: &mut std::vec::IntoIter<OsString>) -> Result<(), String> {
        // An empty word stands for none, as Go programs see it.
        *self = words.next().filter(|word| !word.is_empty()).map(T::read).transpose()?;
        Ok(())
    }
}

impl<T: Value> Place for Vec<T> {
    const LEAST: usize = 0;
    const MOST: usize = usize::MAX;
    fn take(&mut self, words: &mut std::vec::IntoIter<OsString>) -> Result<(), String> {
        for word in words {
            self.push(T::read(word)?);
        }
        Ok(())
    }
}
