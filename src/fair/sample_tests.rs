use std::fs;
use std::path::Path;

use super::*;

#[test]
fn lists_of_cpus_are_counted() {
    for (list, count) in [("0-3,7\n", 5), ("0\n", 1), ("\n", 0), ("", 0), ("0-1,4-5,9", 5)] {
        assert_eq!(count_listed(list), count, "{list:?}");
    }
}

#[test]
fn a_thread_s_own_counters_are_read() {
    let file = open_of(u64::from(std::process::id()), "schedstat").expect("this process is there");
    let (ran, _) = schedstat(&file).expect("schedstat");
    assert!(ran > 0);
    assert!(open_of(0x7fff_fff0, "schedstat").is_none());
}

#[test]
fn who_wants_to_run_says_how_often_it_slept() {
    let of = |state: &str| {
        format!("Name:\ta\nState:\t{state}\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n")
    };
    assert_eq!(times_slept(&of("R (running)")), Some(17));
    assert_eq!(times_slept(&of("S (sleeping)")), None);
    assert_eq!(times_slept("Name:\ta\nState:\tR (running)\n"), None);
    // The thread that asks runs.
    let own = fs::read_link("/proc/thread-self").unwrap();
    let own = own.file_name().unwrap().to_str().unwrap().parse().unwrap();
    assert!(Watched::open(own).expect("this thread is there").slept(own).is_some());
}

/// Files that say what a kernel might; whatever is not written is not there.
struct Fake {
    directory: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        let fake = Self { directory: tempfile::tempdir().unwrap() };
        fake.say("cgroup.events", "populated 1\nfrozen 0\n");
        fake.used(0);
        fake
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn say(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    fn used(&self, us: u64) {
        self.say("cpu.stat", &format!("usage_usec {us}\nuser_usec 0\nsystem_usec 0\n"));
    }

    fn waited(&self, us: u64) {
        self.say("cpu.pressure", &format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={us}\n"));
    }

    fn probe(&self) -> Probe {
        Probe::open(Cgroup::stand_in(self.path())).unwrap()
    }
}

const SECOND: u64 = 1_000_000;

#[test]
fn without_pressure_and_schedstat_usage_is_all_that_is_known() {
    let fake = Fake::new();
    // A thread that has ended since, and whatever else has no schedstat.
    fake.say("cgroup.threads", "2147483632\n");
    let mut probe = fake.probe();
    assert!(!probe.has_pressure());
    for turn in 1..4 {
        fake.used(turn * SECOND);
        let reading = probe.read(7, turn * SECOND).unwrap();
        assert_eq!((reading.key, reading.used_us, reading.pressure_us), (7, turn * SECOND, None));
        assert!(reading.threads.is_none_or(|threads| threads.is_empty()));
    }
}

#[test]
fn without_a_list_of_threads_or_with_cgroups_below_pressure_has_to_do() {
    let fake = Fake::new();
    fake.waited(0);
    let mut probe = fake.probe();
    assert!(probe.has_pressure());
    for (turn, below) in [(1, None), (2, Some("nr_descendants 1\n"))] {
        if let Some(text) = below {
            fake.say("cgroup.threads", &format!("{}\n", std::process::id()));
            fake.say("cgroup.stat", text);
        }
        fake.used(turn * SECOND);
        fake.waited(turn * SECOND);
        let reading = probe.read(1, turn * SECOND).unwrap();
        assert_eq!((reading.threads, reading.pressure_us), (None, Some(turn * SECOND)));
    }
}

#[test]
fn pressure_that_is_switched_off_while_it_is_watched_is_not_known_any_more() {
    let fake = Fake::new();
    fake.waited(10);
    let mut probe = fake.probe();
    assert_eq!(probe.read(1, SECOND).unwrap().pressure_us, Some(10));
    fake.say("cpu.pressure", "");
    fake.used(5);
    assert_eq!(probe.read(1, 2 * SECOND).unwrap().pressure_us, None);
}

#[test]
fn a_cgroup_that_vanishes_while_it_is_read_is_gone_and_no_error() {
    let fake = Fake::new();
    let mut probe = fake.probe();
    assert!(probe.read(1, SECOND).is_some());
    // What a read that comes too late gives.
    fake.say("cpu.stat", "");
    assert_eq!(probe.read(1, 2 * SECOND), None);
    fs::remove_file(fake.path().join("cpu.stat")).unwrap();
    assert_eq!(probe.read(1, 3 * SECOND), None);
    probe.refresh();
    let error = Probe::open(Cgroup::stand_in(fake.path())).err().unwrap().to_string();
    assert!(error.ends_with("has no cpu.stat"), "{error}");
}

#[test]
fn frozen_and_throttled_is_seen() {
    let fake = Fake::new();
    let mut probe = fake.probe();
    fake.say("cgroup.events", "populated 1\nfrozen 1\n");
    fake.say("cpu.stat", "usage_usec 9\nnr_periods 5\nnr_throttled 3\n");
    probe.refresh();
    let reading = probe.read(1, SECOND).unwrap();
    assert!(reading.frozen);
    assert_eq!(reading.throttled, 3);
}

#[test]
fn whoever_sleeps_says_so_and_whether_it_woke() {
    let fake = Fake::new();
    fake.waited(0);
    let mut probe = fake.probe();
    let quarter = SECOND / 4;
    for turn in 1..=ASLEEP {
        assert!(!probe.sleeps());
        probe.read(1, u64::from(turn) * quarter).unwrap();
    }
    let at_us = u64::from(ASLEEP) * quarter;
    fake.used(SECOND);
    assert!(probe.sleeps());
    assert_eq!(probe.remembered(1).used_us, 0, "nobody looked");
    assert_eq!(probe.read(1, at_us + SECOND).unwrap().used_us, SECOND);
    assert!(probe.woke && !probe.sleeps());
    fake.used(SECOND + 5);
    assert_eq!(probe.read(1, at_us + SECOND + quarter).unwrap().used_us, SECOND + 5);
    assert!(!probe.woke);
}

/// Their parent has used what they have, and what others did before.
#[test]
fn sleepers_are_looked_at_when_one_of_them_must_have_run() {
    let fake = Fake::new();
    let mut crowd = Crowd::open(&Cgroup::stand_in(fake.path())).unwrap();
    let others = 7 * SECOND;
    let mut at = |ms: u64, all_us: u64, known_us: u64, expected: bool| {
        fake.used(others + all_us);
        let all = crowd.used_us();
        assert_eq!(crowd.has_to_look(ms * 1000, all, known_us), expected, "after {ms} ms");
        if expected {
            // Whoever looks knows.
            crowd.looked(ms * 1000, all, all_us);
        }
    };
    at(1000, SECOND, SECOND, true);
    at(2000, 2 * SECOND, 2 * SECOND, false);
    at(3000, 3 * SECOND, 3 * SECOND - 4_000, false);
    at(3100, 3 * SECOND + 9_000, 3 * SECOND, true);
    // Not every time where others run whom nobody tunes.
    at(3600, 3 * SECOND + 99_000, 3 * SECOND, false);
    at(4100, 3 * SECOND + 99_000, 3 * SECOND, true);
    at(12_000, 3 * SECOND + 99_000, 3 * SECOND + 99_000, false);
    at(12_100, 3 * SECOND + 99_000, 3 * SECOND + 99_000, true);
    // A clock that goes back.
    at(100, 3 * SECOND + 99_000, 3 * SECOND + 99_000, true);
    crowd.forget();
    assert!(crowd.has_to_look(100_000, Some(0), 0));
    crowd.looked(100_000, None, 0);
    assert!(crowd.has_to_look(101_000_000, None, 0), "where nobody knows what all have used");
}

#[test]
fn whoever_waits_long_for_its_turn_is_not_taken_for_asleep() {
    let fake = Fake::new();
    fake.waited(0);
    let mut probe = fake.probe();
    let quarter = SECOND / 4;
    for turn in 1..=3 * u64::from(ASLEEP) {
        fake.waited(turn * quarter);
        assert_eq!(probe.read(1, turn * quarter).unwrap().pressure_us, Some(turn * quarter));
    }
}

#[test]
fn a_clock_that_jumps_does_no_harm() {
    let fake = Fake::new();
    fake.waited(0);
    fake.say("cgroup.threads", &format!("{}\n", std::process::id()));
    let mut probe = fake.probe();
    for (used, at_us) in
        [(1, SECOND), (2, 9000 * SECOND), (3, SECOND), (4, 0), (5, u64::MAX / 2), (6, SECOND)]
    {
        fake.used(used);
        assert_eq!(probe.read(1, at_us).unwrap().used_us, used, "at {at_us}");
    }
}

#[test]
fn a_crowd_that_begins_to_wait_is_noticed_once() {
    let fake = Fake::new();
    let mut blind = Crowd::open(&Cgroup::stand_in(fake.path())).unwrap();
    assert!(!blind.begins_to_wait(SECOND));
    fake.waited(0);
    let mut crowd = Crowd::open(&Cgroup::stand_in(fake.path())).unwrap();
    let mut at = |second: u64, waited_ms: u64| {
        fake.waited(waited_ms * 1000);
        crowd.begins_to_wait(second * SECOND)
    };
    let table =
        [(1, 10, false), (2, 20, false), (3, 720, true), (4, 1700, false), (5, 1700, false), (6, 2600, true)];
    for (second, waited_ms, expected) in table {
        assert_eq!(at(second, waited_ms), expected, "second {second}");
    }
}
