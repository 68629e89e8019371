//! Random lives of containers, with deja killed at random moments: whatever happened, `delete --force` ends it,
//! nothing is left, and the same id can live again. `$DEJA_LIFECYCLES` asks for more of them, `$DEJA_SEED` for
//! those of an earlier run.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use support::{Bundle, Deja, Finished, Leaks, requires};

/// Without a number asked for, as many as fit into this.
const USUAL: usize = 300;
const USUAL_TIME: Duration = Duration::from_secs(30);

/// xorshift: the same seed, the same lives.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn pick<'t, T>(&mut self, choices: &'t [T]) -> &'t T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value:?}")))
}

/// Runs it, and sometimes kills it on the way. A deja that is left alone ends by itself, well or with an error.
fn run(dice: &mut Dice, deja: Deja) -> Option<Finished> {
    let running = deja.spawn();
    let killed = dice.below(3) == 0;
    if killed {
        std::thread::sleep(Duration::from_micros(dice.below(12_000)));
        running.signal(Signal::KILL);
    }
    let finished = running.finish();
    if killed {
        return None;
    }
    sane(&finished);
    Some(finished)
}

#[track_caller]
fn sane(finished: &Finished) {
    assert!(finished.code().is_some(), "ended by signal {:?}: {finished}", finished.status.signal());
    let text = finished.stderr();
    assert!(!text.contains("panicked") && !text.contains("bug:"), "{finished}");
    // From 128 on it is the end of a program that `exec` or `run` waited for.
    if finished.code().is_some_and(|code| (1..128).contains(&code) || code == 255) {
        assert!(text.contains("level=error"), "failed without a word: {finished}");
    }
}

/// Three kinds of containers that are ended and found in different ways.
fn kinds() -> [Bundle; 3] {
    let script = "trap 'exit 0' TERM; sleep 1000 & wait";
    let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "0.002"]}]);
    let hooked = Bundle::new().script("sleep 0.02");
    let nested = format!("/deja-test/{0}/a/b", hooked.id());
    [
        Bundle::new().script(script),
        Bundle::new().without_namespace("pid").args(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"]),
        hooked
            .set("/linux/cgroupsPath", json!(nested))
            .set("/hooks/createRuntime", hook.clone())
            .set("/hooks/createContainer", hook.clone())
            .set("/hooks/poststart", hook.clone())
            .set("/hooks/poststop", hook),
    ]
}

fn live(dice: &mut Dice, bundle: &Bundle) {
    let id = bundle.id();
    let verb = |words: &[&str]| bundle.deja().args(words).arg(id);
    match dice.below(4) {
        0 => drop(run(dice, bundle.verb("run").args(["--detach"]).arg(id))),
        1 => {
            // In the foreground it would stay, so it is always killed.
            let running = bundle.verb("run").arg(id).spawn();
            std::thread::sleep(Duration::from_micros(dice.below(30_000)));
            drop(running);
        }
        _ => drop(run(dice, bundle.verb("create").arg(id))),
    }
    // Not STOP: an init that is stopped before its start starts when somebody sends CONT, and start waits for it.
    for _ in 0..dice.below(6) {
        let deja = match dice.below(10) {
            0..=2 => verb(&["start"]),
            3 => verb(&["exec", "--detach"]).args(["/bin/sleep", "1000"]),
            4 => verb(&["exec"]).args(["/bin/true"]),
            5 => verb(&["kill"]).arg(dice.pick(&["KILL", "TERM", "CONT", "USR1"])),
            6 => verb(&["pause"]),
            7 => verb(&["resume"]),
            8 => verb(&["state"]),
            _ => verb(&["delete"]),
        };
        run(dice, deja);
    }
    verb(&["delete", "--force"]).ok();
}

#[test]
fn nothing_is_left_of_random_lives() {
    requires!(bed);
    let seed = number("DEJA_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let asked = number("DEJA_LIFECYCLES").map(|count| count as usize);
    let begin = Instant::now();
    let bundles = kinds();
    let leaks = bundles.each_ref().map(Leaks::snapshot);
    let mut lived = 0;
    while lived < asked.unwrap_or(USUAL) && (asked.is_some() || begin.elapsed() < USUAL_TIME) {
        let kind = lived % bundles.len();
        let life = seed.wrapping_add(lived as u64);
        let result = std::panic::catch_unwind(|| {
            live(&mut Dice::new(life), &bundles[kind]);
            leaks[kind].assert_none();
        });
        if let Err(panic) = result {
            let number = life.wrapping_sub(lived as u64 % bundles.len() as u64);
            eprintln!("life {lived} of seed {seed}: DEJA_SEED={number} repeats it among its first three");
            std::panic::resume_unwind(panic);
        }
        lived += 1;
    }
    println!("{lived} lives from seed {seed} in {:?}", begin.elapsed());
    assert!(lived > 5);
}

#[test]
fn many_are_made_at_once() {
    requires!(bed);
    let bundle = Bundle::new().sleeps().set("/linux/cgroupsPath", json!(null));
    bundle.save();
    let leaks = Leaks::snapshot(&bundle);
    let ids: Vec<String> = (0..24).map(|number| format!("{}-{number}", bundle.id())).collect();
    let all = |words: &[&str], more: &[&str]| {
        let one = |id: &String| bundle.deja().args(words).arg(id).args(more).spawn();
        let running: Vec<_> = ids.iter().map(one).collect();
        for running in running {
            let finished = running.finish();
            assert_eq!(finished.code(), Some(0), "{finished}");
        }
    };
    all(&["create", "--bundle", bundle.path().to_str().unwrap()], &[]);
    all(&["start"], &[]);
    all(&["exec"], &["true"]);
    all(&["kill"], &["KILL"]);
    all(&["delete", "--force"], &[]);
    leaks.assert_none();
}

#[test]
fn one_id_is_taken_once() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    bundle.save();
    let leaks = Leaks::snapshot(&bundle);
    for _ in 0..8 {
        let running: Vec<_> = (0..4).map(|_| bundle.verb("create").arg(bundle.id()).spawn()).collect();
        let finished: Vec<_> = running.into_iter().map(|running| running.finish()).collect();
        let (made, refused): (Vec<_>, Vec<_>) =
            finished.iter().partition(|finished| finished.code() == Some(0));
        assert_eq!(made.len(), 1, "{}", finished[0]);
        for finished in refused {
            assert!(finished.stderr().contains("container with given ID already exists"), "{finished}");
        }
        bundle.deja().args(["delete", "--force", bundle.id()]).ok();
        leaks.assert_none();
    }
}

#[test]
fn verbs_that_meet_on_one_container_agree() {
    requires!(bed);
    let bundle = Bundle::new().sleeps();
    let leaks = Leaks::snapshot(&bundle);
    for round in 0..12 {
        bundle.verb("create").arg(bundle.id()).ok();
        let id = bundle.id();
        let lines: [&[&str]; 9] = [
            &["start", id],
            &["state", id],
            &["start", id],
            &["exec", id, "true"],
            &["kill", id, "KILL"],
            &["list"],
            &["delete", id],
            &["pause", id],
            if round % 2 == 0 { &["delete", "--force", id] } else { &["state", id] },
        ];
        let running = lines.map(|line| bundle.deja().args(line).spawn());
        let finished = running.map(|running| running.finish());
        finished.iter().for_each(sane);
        assert!(finished[0].code() != Some(0) || finished[2].code() != Some(0), "started twice");
        bundle.deja().args(["delete", "--force", id]).ok();
        leaks.assert_none();
    }
}
