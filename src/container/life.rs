//! Whether a process is still the one that was recorded. A pid alone lies, because the kernel gives it away
//! again; pid and start time together do not.

use std::ffi::CString;

use anyhow::{Context, Result, anyhow};

use crate::sys::fs::{self, CWD, Mode, OFlags};
use crate::sys::{Errno, Reason, process};

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// It has ended and waits for its parent to notice.
    pub ended: bool,
    /// It was killed, or is about to end, and may hold files and locks until it has.
    pub ending: bool,
    /// It has executed a program since it was forked.
    pub executed: bool,
    /// In clock ticks since the machine's start.
    pub start_time: u64,
    /// The signals it ignores, signal N as bit N - 1; the real-time ones are not told.
    pub ignored: u32,
}

/// What /proc says about `pid`; None: there is no such process.
pub fn life(pid: i32) -> Result<Option<Life>> {
    let path = format!("/proc/{pid}/stat");
    let mut buffer = [0; 1024];
    let mut read = || {
        let c_path = CString::new(path.as_str()).expect("a number holds no NUL byte");
        let file = fs::openat(CWD, &c_path, OFlags::RDONLY, Mode::empty())?;
        fs::read(&file, &mut buffer)
    };
    match read() {
        Ok(length) => {
            parse(&buffer[..length]).map(Some).ok_or_else(|| anyhow!("read {path:?}: not in the known form"))
        }
        Err(fault) if matches!(fault.errno, Errno::NOENT | Errno::SRCH) => Ok(None),
        Err(fault) => Err(anyhow!("read {path:?}: {}", Reason(fault.errno))),
    }
}

/// What /proc says about this process.
pub fn own_life() -> Result<Life> {
    life(process::own_pid().as_raw_nonzero().get())?.context("/proc does not know this process")
}

/// In the kernel's flags of a task: forked, and nothing executed since.
const FORKED_NO_EXEC: u32 = 0x40;
/// And: on its way out.
const EXITING: u32 = 0x4;
/// Among pending signals.
const KILL: u32 = 1 << 8;

/// Fields 3, 9, 22, 31 and 33. The name in field 2 may hold anything, parentheses included.
fn parse(stat: &[u8]) -> Option<Life> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X" | "x");
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    let pending: u32 = fields.nth(8)?.parse().ok()?;
    let ignored = fields.nth(1)?.parse().ok()?;
    let ending = !ended && (flags & EXITING != 0 || pending & KILL != 0);
    Some(Life { ended, ending, executed: flags & FORKED_NO_EXEC == 0, start_time, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_says_the_same() {
        let own = procfs::process::Process::myself().unwrap().stat().unwrap();
        let ignored = own.sigignore as u32;
        assert_eq!(
            own_life().unwrap(),
            Life { ended: false, ending: false, executed: true, start_time: own.starttime, ignored }
        );
    }

    #[test]
    fn stat_is_read_behind_any_name() {
        let rest = "1 2 3 4 5 0 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21 22 23 24 25 26 27 28 29 4096 31";
        for (name, state, ended) in [("sh", "S", false), (") Z 1 (", "R", false), ("a b)", "Z", true)] {
            let stat = format!("42 ({name}) {state} {rest}\n");
            assert_eq!(
                parse(stat.as_bytes()),
                Some(Life { ended, ending: false, executed: true, start_time: 4711, ignored: 4096 }),
                "{stat}"
            );
        }
        for broken in [
            "",
            "42",
            "42 (sh)",
            "42 (sh) S 1 2 3",
            "42 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x",
            "42 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
        ] {
            assert_eq!(parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn a_fork_is_told_from_what_has_executed() {
        let stat = |flags: u32| {
            format!("1 (a) S 1 2 3 4 5 {flags} 7 8 9 10 11 12 13 14 15 16 17 18 19 {}", "0 ".repeat(20))
        };
        assert!(!parse(stat(0x0040_0040).as_bytes()).unwrap().executed);
        assert!(parse(stat(0x0040_0100).as_bytes()).unwrap().executed);
    }

    #[test]
    fn who_was_killed_or_exits_is_ending_until_it_has_ended() {
        let is_ending = |state: &str, flags: u32, pending: u32| {
            let times = "0 ".repeat(21);
            let stat = format!("1 (a) {state} 1 2 3 4 5 {flags} {times}{pending} 0 0 0");
            parse(stat.as_bytes()).unwrap().ending
        };
        assert!(!is_ending("S", 0x0040_0100, 0x4000));
        assert!(is_ending("R", 0x0040_0100, 0x100));
        assert!(is_ending("D", 0x0040_0104, 0));
        assert!(!is_ending("Z", 0x0040_0104, 0x100));
    }

    #[test]
    fn this_process_lives() {
        assert!(!life(std::process::id() as i32).unwrap().unwrap().ended);
        assert_eq!(life(0x7fff_fff0).unwrap(), None);
    }
}
