//! Results that may be wrong: commands that come to another one each time, that ask the network, and states that are
//! withdrawn.

mod support;

use support::{Sessions, requires};

const UUID: &str = "cat /proc/sys/kernel/random/uuid";

fn last_act(sessions: &Sessions, name: &str) -> String {
    sessions.acts(name).pop().expect("an act")
}

#[test]
fn a_command_whose_state_varies_is_found_out_and_everybody_s_run_is_their_own() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob", "eve"]);
    let verify = |name: &str, text: &str| sessions.verb("exec").args(["--verify", name, "-c", text]);
    sessions.shell("ada", "echo same > /tmp/f; cat /tmp/f").ok();
    verify("bob", "echo same > /tmp/f; cat /tmp/f").ok().assert_stdout("same");
    assert_eq!(last_act(&sessions, "bob"), "hit");
    let text = format!("{UUID} > /tmp/id; cat /tmp/id");
    sessions.shell("ada", &text).ok();
    sessions.shell("bob", &text).ok();
    assert_eq!(
        (last_act(&sessions, "bob"), sessions.state("bob")),
        ("hit".to_owned(), sessions.state("ada"))
    );
    sessions.shell("eve", "echo same > /tmp/f; cat /tmp/f").ok();
    // Whoever finds it out gets the run that was made for it.
    let told = verify("eve", &text).ok().assert_says("the state it leads to differs from run to run");
    sessions.exec("eve", &["cat", "/tmp/id"]).ok().assert_stdout(told.stdout().trim());
    sessions.verb("undo").args(["eve", "2"]).ok();
    sessions.shell("eve", &text).ok();
    assert_eq!(last_act(&sessions, "eve"), "once");
    let states: std::collections::BTreeSet<String> =
        ["ada", "eve"].map(|name| sessions.state(name)).into_iter().collect();
    assert_eq!(states.len(), 2);
    // The class is the command's, wherever it starts from.
    sessions.begin("new");
    sessions.shell("new", &text).ok();
    assert_eq!(last_act(&sessions, "new"), "once");
    let explained = sessions.verb("explain").args(["new", "-c", &text]).ok();
    explained.assert_stdout_contains("what it leads to varies from run to run");
}

#[test]
fn a_command_whose_output_varies_is_replayed_unless_the_policy_says_otherwise() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let first = sessions.shell("ada", UUID).ok().stdout();
    let again = sessions.verb("exec").args(["--verify", "ada", "-c", UUID]).ok();
    assert_eq!(again.assert_says("its standard output differs").stdout(), first);
    assert_eq!(sessions.shell("ada", UUID).ok().stdout(), first);
    let policy = sessions.verb("policy").args(["--json", "--output", "run"]).ok().json();
    assert_eq!(
        (&policy["output"], &policy["state"], &policy["sample"]),
        (&"run".into(), &"run".into(), &0.into())
    );
    let other = sessions.shell("ada", UUID).ok().stdout();
    assert_ne!(other, first);
    assert_ne!(sessions.shell("ada", UUID).ok().stdout(), other);
    sessions.verb("policy").args(["--output", "replay"]).ok().assert_stdout_contains("output   replay");
    assert_eq!(sessions.shell("ada", UUID).ok().stdout(), first);
    assert_eq!(sessions.acts("ada"), ["new", "run", "hit", "hit", "once", "once", "hit"]);
    sessions.verb("policy").args(["--sample", "101"]).fails().assert_says("more than all");
}

#[test]
fn first_runs_are_compared_with_a_second_when_the_policy_says_so() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.verb("policy").arg("--twice=yes").ok();
    let text = format!("{UUID} > /tmp/id");
    sessions.shell("ada", &text).ok().assert_says("the state it leads to differs from run to run");
    sessions.shell("bob", &text).ok();
    let pure = sessions.verb("exec").args(["-i", "ada", "-c", "cat; wc -c < /etc/passwd"]).stdin("asked\n");
    pure.ok().assert_stdout_contains("asked\n");
    assert_eq!(sessions.acts("ada"), ["new", "once", "run"]);
    assert_eq!(sessions.acts("bob"), ["new", "once"]);
    assert_ne!(sessions.state("ada"), sessions.state("bob"));
    // Only what was taken for one of many is kept from others.
    sessions.shell("bob", "true").ok();
    sessions.verb("explain").args(["bob", "-c", "true"]).ok().assert_stdout_contains("the same in every run");
}

#[test]
fn sampled_hits_are_run_again() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada"]);
    let text = format!("{UUID} > /tmp/id");
    let begin = sessions.state("ada");
    sessions.shell("ada", &text).ok();
    sessions.verb("goto").args(["ada", &begin]).ok();
    sessions.shell("ada", &text).ok();
    assert_eq!(last_act(&sessions, "ada"), "hit");
    sessions.verb("policy").args(["--sample", "100"]).ok();
    sessions.verb("goto").args(["ada", &begin]).ok();
    sessions.shell("ada", &text).ok().assert_says("differs from run to run");
    assert_eq!(last_act(&sessions, "ada"), "once");
}

#[test]
fn what_used_the_network_is_given_to_others_for_a_time() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob", "eve"]);
    let online = |name: &str| {
        let words =
            ["--network", name, "-c", "ls /sys/class/net | wc -l; cat /etc/resolv.conf > /dev/null; ls /etc"];
        sessions.verb("exec").args(words).ok();
        last_act(&sessions, name)
    };
    let begin = sessions.state("ada");
    assert_eq!(online("ada"), "run");
    assert_eq!(sessions.state("ada"), begin, "the machine's name servers are no change");
    assert_eq!(online("bob"), "hit");
    // Without the network it is another command.
    sessions.shell("bob", "ls /sys/class/net").ok().assert_stdout("lo");
    sessions.verb("policy").args(["--network", "1s"]).ok();
    sessions.shell("eve", "echo x > /tmp/x").ok();
    let explained = sessions.verb("explain").args(["--network", "eve", "ls"]).ok();
    explained.assert_stdout_contains("miss");
    assert_eq!(online("eve"), "run");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(online("eve"), "run");
}

#[test]
fn a_disowned_state_and_what_came_of_it_are_given_to_nobody_any_more() {
    requires!(bed, overlay);
    let sessions = Sessions::new(&["ada", "bob"]);
    sessions.shell("ada", "echo wrong > /tmp/f").ok();
    let wrong = sessions.state("ada");
    sessions.shell("ada", "cp /tmp/f /tmp/g").ok();
    sessions.shell("bob", "echo right > /tmp/f").ok();
    let told = sessions.verb("disown").args(["--json", &wrong[..12]]).ok().json();
    assert_eq!((&told["transitions"], &told["sessions"]), (&2.into(), &serde_json::json!(["ada"])), "{told}");
    assert_eq!(told["states"].as_array().map(Vec::len), Some(2));
    sessions.begin("eve");
    sessions.shell("eve", "echo right > /tmp/f").ok();
    assert_eq!(last_act(&sessions, "eve"), "hit");
    sessions.verb("undo").arg("eve").ok();
    // What leads there again is not for others.
    sessions.shell("eve", "echo wrong > /tmp/f").ok().assert_says("was disowned");
    assert_eq!((last_act(&sessions, "eve"), sessions.state("eve")), ("once".to_owned(), wrong.clone()));
    sessions.verb("disown").args(["--take-back", &wrong]).ok();
    sessions.verb("disown").args(["--take-back", &wrong]).fails().assert_says("is not disowned");
    sessions.verb("undo").arg("eve").ok();
    sessions.shell("eve", "echo wrong > /tmp/f").ok();
    assert_eq!(last_act(&sessions, "eve"), "run");
    sessions.verb("verify").ok();
}
