//! deja or CRIU killed on the way, and deja failing, at every second point each: the container runs or is an image, and is never lost or there
//! twice; what was left behind is deleted like anything else.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Bundle, Leaks, eventually, requires};

fn counting() -> Bundle {
    let script =
        "i=0; while :; do i=$((i+1)); echo $i > /tmp/new && mv /tmp/new /tmp/count; sleep 0.05; done";
    Bundle::new().script(script).mount(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
}

fn count(bundle: &Bundle) -> Option<u64> {
    let finished = bundle.deja().args(["exec", bundle.id(), "cat", "/tmp/count"]).output();
    finished.stdout().trim().parse().ok()
}

/// The count at least, after it was seen to go on.
#[track_caller]
fn goes_on(bundle: &Bundle, least: u64) -> u64 {
    let before = eventually("a count", || count(bundle));
    assert!(before >= least, "{least} before, {before} after");
    eventually("the count to go on", || count(bundle).filter(|now| *now > before))
}

fn status(bundle: &Bundle) -> Option<String> {
    let finished = bundle.deja().args(["state", bundle.id()]).output();
    finished.status.success().then(|| finished.json()["status"].as_str().expect("a status").to_owned())
}

/// Whatever happened to a checkpoint: the container runs afterwards, from where it was.
#[track_caller]
fn recover(bundle: &Bundle, image: &str, least: u64, what: &str) -> u64 {
    // Whoever stopped it for a moment may have been killed meanwhile: nobody has to let it go on but its guard.
    eventually(&format!("{what}: a container that runs, or an image"), || match status(bundle).as_deref() {
        Some("paused") => None,
        Some("running") => count(bundle).map(drop),
        ended => {
            if ended.is_some() {
                bundle.deja().args(["delete", "--force", bundle.id()]).ok();
            }
            restore(bundle, image).output().status.success().then_some(())
        }
    });
    goes_on(bundle, least)
}

fn restore(bundle: &Bundle, image: &str) -> support::Deja {
    bundle.verb("restore").args(["--detach", "--image-path", image]).arg(bundle.id())
}

fn path(bundle: &Bundle) -> String {
    bundle.file("image").to_str().expect("a path").to_owned()
}

/// A killed deja leaves CRIU, which notices at its next question. Before it is CRIU it has the arguments of deja, and
/// until it has read what to do our directory; from then on that of the image.
fn wait_for_criu(bundle: &Bundle) {
    let here = std::env::current_dir().expect("a current directory");
    let ours = |process: &Path| -> Option<bool> {
        let words = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).into_owned();
        let place = fs::read_link(process.join("cwd")).ok()?;
        let criu = words.starts_with("criu\0swrk") && (place == here || place.starts_with(bundle.path()));
        Some(criu || words.contains(&*bundle.path().to_string_lossy()))
    };
    eventually("criu to end", || {
        let mut processes = fs::read_dir("/proc").expect("read /proc").flatten();
        (!processes.any(|entry| ours(&entry.path()) == Some(true))).then_some(())
    });
}

/// The points at which something goes wrong: one half dies there, the other fails, because each takes its time.
fn points(kind: &str) -> impl Iterator<Item = u32> {
    (if kind == "kill" { 1 } else { 2 }..).step_by(2)
}

/// Makes the points of a checkpoint go wrong in turn, until none is left.
fn wrong_at_points_of_a_checkpoint(kind: &str) {
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let image = path(&bundle);
    bundle.verb("create").arg(bundle.id()).ok();
    bundle.deja().args(["start", bundle.id()]).ok();
    let mut least = 0;
    for point in points(kind) {
        let trial = format!("{kind}:{point}");
        let tried = bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).trial(&trial);
        let finished = tried.output();
        wait_for_criu(&bundle);
        least = recover(&bundle, &image, least, &trial);
        if finished.status.success() {
            assert!(point > 4, "points were passed");
            break;
        }
    }
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
    leaks.assert_none();
}

#[test]
fn a_checkpoint_that_is_killed_loses_nothing() {
    requires!(bed, criu, debug);
    wrong_at_points_of_a_checkpoint("kill");
}

#[test]
fn a_checkpoint_that_fails_loses_nothing() {
    requires!(bed, criu, debug);
    wrong_at_points_of_a_checkpoint("fail");
}

/// As above, for a restore.
fn wrong_at_points_of_a_restore(kind: &str) {
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let image = path(&bundle);
    bundle.verb("create").arg(bundle.id()).ok();
    bundle.deja().args(["start", bundle.id()]).ok();
    let least = goes_on(&bundle, 0);
    bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).ok();
    for point in points(kind) {
        let trial = format!("{kind}:{point}");
        let finished = restore(&bundle, &image).trial(&trial).output();
        wait_for_criu(&bundle);
        let done = finished.status.success();
        if done {
            assert!(point > 4, "points were passed");
            goes_on(&bundle, least);
        } else if kind == "fail" {
            assert_eq!(status(&bundle), None, "{trial}: {finished}");
        }
        bundle.deja().args(["delete", "--force", bundle.id()]).ok();
        leaks.assert_none();
        if done {
            break;
        }
    }
}

#[test]
fn a_restore_that_is_killed_leaves_nothing() {
    requires!(bed, criu, debug);
    wrong_at_points_of_a_restore("kill");
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    requires!(bed, criu, debug);
    wrong_at_points_of_a_restore("fail");
}

/// Moments between half a millisecond and half a second, short and long ones in turn: the next is never near the last.
/// A variable asks for more of them.
fn moments() -> impl Iterator<Item = Duration> {
    const SHORTEST: f64 = 0.0005;
    const RANGE: f64 = 1000.0;
    let asked = std::env::var("DEJA_TEST_KILLS").ok().map(|number| number.parse().expect("a number"));
    let number: u32 = asked.unwrap_or(8);
    (0..number).map(|round| {
        let place = (f64::from(round) * 0.618_034 + 0.3).fract();
        Duration::from_secs_f64(SHORTEST * RANGE.powf(place))
    })
}

#[test]
fn a_deja_that_is_killed_at_any_moment_of_a_checkpoint_loses_nothing() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let image = path(&bundle);
    bundle.verb("create").arg(bundle.id()).ok();
    bundle.deja().args(["start", bundle.id()]).ok();
    let mut least = 0;
    for (round, moment) in moments().enumerate() {
        let running = bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).spawn();
        std::thread::sleep(moment);
        running.signal(Signal::KILL);
        drop(running.finish());
        wait_for_criu(&bundle);
        least = recover(&bundle, &image, least, &format!("round {round}, after {moment:?}"));
    }
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
    leaks.assert_none();
}

#[test]
fn a_deja_that_is_killed_at_any_moment_of_a_restore_leaves_nothing() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let image = path(&bundle);
    bundle.verb("create").arg(bundle.id()).ok();
    bundle.deja().args(["start", bundle.id()]).ok();
    let least = goes_on(&bundle, 0);
    bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).ok();
    for moment in moments() {
        let running = restore(&bundle, &image).spawn();
        std::thread::sleep(moment);
        running.signal(Signal::KILL);
        drop(running.finish());
        wait_for_criu(&bundle);
        // It may have been quicker, or left nothing to be deleted.
        if status(&bundle).as_deref() == Some("running") {
            goes_on(&bundle, least);
        }
        bundle.deja().args(["delete", "--force", bundle.id()]).ok();
        leaks.assert_none();
    }
    restore(&bundle, &image).ok();
    goes_on(&bundle, least);
    bundle.deja().args(["delete", "--force", bundle.id()]).ok();
    leaks.assert_none();
}

/// A process that CRIU has hold of does not always survive it; but then everybody says so.
#[test]
fn a_criu_that_is_killed_at_any_moment_leaves_the_truth() {
    requires!(bed, criu);
    let bundle = counting();
    let leaks = Leaks::snapshot(&bundle);
    let image = path(&bundle);
    for moment in moments() {
        bundle.verb("create").arg(bundle.id()).ok();
        bundle.deja().args(["start", bundle.id()]).ok();
        let running = bundle.deja().args(["checkpoint", "--image-path", &image, bundle.id()]).spawn();
        let killed = kill_child(running.pid(), moment);
        let finished = running.finish();
        if killed && !finished.status.success() {
            finished.assert_says("criu was killed by signal 9");
            restore(&bundle, &image).fails();
        }
        if status(&bundle).as_deref() == Some("running") && goes_on_or_ends(&bundle) {
            assert_eq!(status(&bundle).as_deref(), Some("running"));
        }
        bundle.deja().args(["delete", "--force", bundle.id()]).ok();
        leaks.assert_none();
    }
}

fn goes_on_or_ends(bundle: &Bundle) -> bool {
    let before = count(bundle);
    eventually("the count to go on, or the container to end", || match status(bundle).as_deref() {
        Some("running") => (count(bundle) > before).then_some(true),
        _ => Some(false),
    })
}

/// Kills the first child of `parent` that is called criu, `after` it was seen.
fn kill_child(parent: u32, after: Duration) -> bool {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let child = eventually("criu to start, or deja to end", || {
        let Ok(text) = fs::read_to_string(&children) else { return Some(None) };
        let ids = text.split_whitespace().filter_map(|id| id.parse::<i32>().ok());
        let is_criu =
            |id: &i32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "criu\n");
        ids.into_iter().find(is_criu).map(Some).or_else(|| {
            let state = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(None)
        })
    });
    std::thread::sleep(after);
    child.and_then(Pid::from_raw).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}
