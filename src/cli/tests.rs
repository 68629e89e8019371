use super::*;

fn line(text: &str) -> Result<Invocation, String> {
    let argv = text.split_whitespace().map(OsString::from);
    parse([OsString::from("/usr/bin/deja")].into_iter().chain(argv))
        .map_err(|misuse| misuse.error.to_string())
}

fn verb(text: &str) -> Verb {
    line(text).unwrap_or_else(|error| panic!("{text}: {error}")).verb
}

#[test]
fn flags_are_read_in_every_spelling() {
    for spelling in [
        "-b /x c",
        "--bundle /x c",
        "--bundle=/x c",
        "-b=/x c",
        "-b/x c",
        "-bundle /x c",
        "-bundle=/x c",
        "c -b /x",
    ] {
        let Verb::Create(create) = verb(&format!("create {spelling}")) else { panic!("{spelling}") };
        assert_eq!(create.launch.bundle.as_deref(), Some("/x".as_ref()), "{spelling}");
        assert_eq!(create.id, "c", "{spelling}");
    }
}

#[test]
fn the_command_lines_of_callers_are_understood() {
    let containerd = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json";
    for text in [
        "create --bundle /b --pid-file /b/init.pid --console-socket /s --no-pivot --no-new-keyring --preserve-fds 2 id",
        "create --bundle /b --pid-file /b/init.pid --pidfd-socket /s id",
        "start id",
        "exec --process /tmp/p --console-socket /s --detach --pid-file /b/e.pid id",
        "kill --all id 9",
        "delete --force id",
        "pause id",
        "resume id",
        "ps --format json id",
        "update --resources=- id",
        "restore --bundle /b --image-path /i --work-path /w --detach --no-subreaper --pid-file /p id",
        "checkpoint --image-path /i --work-path /w --leave-running --tcp-established --file-locks id",
        "list --format=json",
        "state id",
        "events --stats id",
        "events --interval=5s id",
        "ps --format table id -ef",
    ] {
        for prefix in ["", "--systemd-cgroup", "--rootless=true", "--cgroup-manager disabled", "--debug"] {
            let full = format!("{containerd} {prefix} {text}");
            let invocation = line(&full).unwrap_or_else(|error| panic!("{full}: {error}"));
            assert_eq!(invocation.global.log_format, LogFormat::Json);
            assert_eq!(invocation.verb.page().name, text.split(' ').next().unwrap());
        }
    }
    line("features").unwrap();
    line("kill -a id KILL").unwrap();
    line("-no-such").unwrap_err();
    line("restore -no-subreaper -image-path /i id").unwrap();
}

#[test]
fn flags_end_at_the_id_where_the_rest_is_not_ours() {
    let Verb::Exec(exec) = verb("exec -e A=1 --env B=2 -t c ls -l --color") else { panic!() };
    assert_eq!(exec.command, ["ls", "-l", "--color"]);
    assert_eq!(exec.env, ["A=1", "B=2"]);
    assert!(exec.tty);
    let Verb::Exec(exec) = verb("exec -- c -- x") else { panic!() };
    assert_eq!((exec.id.as_str(), exec.command), ("c", vec!["--".to_owned(), "x".to_owned()]));
    let Verb::Ps(ps) = verb("ps c -e -x") else { panic!() };
    assert_eq!(ps.arguments, ["-e", "-x"]);
}

#[test]
fn values_that_begin_with_a_dash_are_values() {
    let Verb::Update(update) = verb("update --memory -1 --cpu-quota -1 --pids-limit -1 c") else { panic!() };
    assert_eq!(
        (update.limits.memory, update.limits.cpu_quota, update.limits.pids_limit),
        (Some(Bytes(-1)), Some(-1), Some(-1))
    );
    let Verb::Update(update) = verb("update -r - c") else { panic!() };
    assert_eq!(update.resources.as_deref(), Some("-".as_ref()));
}

#[test]
fn sizes_durations_users_and_signals() {
    for (text, bytes) in
        [("100M", 100 << 20), ("1g", 1 << 30), ("1.5k", 1536), ("2048", 2048), ("1GiB", 1 << 30)]
    {
        let Verb::Update(update) = verb(&format!("update --memory {text} c")) else { panic!() };
        assert_eq!(update.limits.memory, Some(Bytes(bytes)), "{text}");
    }
    for (text, millis) in [("5s", 5000), ("1m30s", 90_000), ("250ms", 250), ("1.5s", 1500)] {
        let Verb::Events(events) = verb(&format!("events --interval {text} c")) else { panic!() };
        assert_eq!(events.interval.unwrap().0.as_millis(), millis, "{text}");
    }
    let Verb::Exec(exec) = verb("exec -u 1000:5 c x") else { panic!() };
    assert_eq!(exec.user, Some(UserSpec { uid: 1000, gid: Some(5) }));
    for (text, number) in
        [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("0", 0), ("RTMIN+2", 36), ("SIGRTMAX", 64)]
    {
        let Verb::Kill(kill) = verb(&format!("kill c {text}")) else { panic!() };
        assert_eq!(kill.signal, Some(Signal(number)), "{text}");
    }
}

#[test]
fn misuse_is_one_clear_sentence() {
    for (text, expected) in [
        ("bla", "No help topic for 'bla'"),
        ("--bla state c", "flag provided but not defined: --bla"),
        ("state --bla c", "flag provided but not defined: --bla"),
        ("state -x c", "flag provided but not defined: -x"),
        ("state", "\"state\" requires exactly 1 argument(s), got 0: see \"state --help\""),
        ("state a b", "\"state\" requires exactly 1 argument(s), got 2: see \"state --help\""),
        ("kill", "\"kill\" requires a minimum of 1 argument(s), got 0: see \"kill --help\""),
        ("kill a 9 b", "\"kill\" requires a maximum of 2 argument(s), got 3: see \"kill --help\""),
        ("restore --lsm-mount-context", "flag needs an argument: --lsm-mount-context"),
        ("create -b", "flag needs an argument: --bundle"),
        ("kill c NOPE", "unknown signal \"NOPE\""),
        ("kill c 65", "unknown signal \"65\""),
        ("kill c 9x", "unknown signal \"9x\""),
        ("kill c RTMIN+99999999999", "unknown signal \"RTMIN+99999999999\""),
        ("create --preserve-fds x c", "invalid value \"x\" for flag --preserve-fds: not a number"),
        ("create --preserve-fds -1 c", "invalid value \"-1\" for flag --preserve-fds: not a number"),
        (
            "create --preserve-fds 4294967296 c",
            "invalid value \"4294967296\" for flag --preserve-fds: not between 0 and 4294967295",
        ),
        (
            "exec -u 1x c y",
            "invalid value \"1x\" for flag --user: \"1x\" is not a number; the form is uid[:gid]",
        ),
        (
            "exec -u \u{661} c y",
            "invalid value \"\u{661}\" for flag --user: \"\u{661}\" is not a number; the form is uid[:gid]",
        ),
        ("list -f xml", "invalid value \"xml\" for flag --format: it must be one of: table, json"),
        (
            "--log-format xml list",
            "invalid value \"xml\" for flag --log-format: it must be one of: text, json",
        ),
        (
            "--cgroup-manager v3 list",
            "invalid value \"v3\" for flag --cgroup-manager: it must be one of: cgroupfs, systemd, disabled",
        ),
        (
            "--rootless maybe list",
            "invalid value \"maybe\" for flag --rootless: it must be one of: auto, true, false",
        ),
        ("run --keep=perhaps c", "invalid value \"perhaps\" for flag --keep: it must be true or false"),
        (
            "update --memory 5x c",
            "invalid value \"5x\" for flag --memory: not a size: bytes, or a number with k, m, g or t",
        ),
        (
            "events --interval 5 c",
            "invalid value \"5\" for flag --interval: not a duration such as 5s, 1m30s or 250ms",
        ),
        (
            "events --interval 0s c",
            "invalid value \"0s\" for flag --interval: duration interval must be greater than 0",
        ),
    ] {
        assert_eq!(line(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn misuse_keeps_what_was_said_about_logging() {
    let misuse =
        parse(["deja", "--log", "/l", "--log-format", "json", "nope"].map(OsString::from)).unwrap_err();
    assert_eq!(misuse.global.log.as_deref(), Some("/l"));
    assert_eq!(misuse.global.log_format, LogFormat::Json);
}

#[test]
fn help_and_version_win_over_missing_arguments() {
    for text in ["checkpoint --help", "create -h", "exec --help", "kill --all -h"] {
        let Verb::Help(help) = verb(text) else { panic!("{text}") };
        assert_eq!(help.topic.first().map(String::as_str), text.split(' ').next(), "{text}");
    }
    for text in ["-v", "--version", "-V", "--log /x --version"] {
        assert_eq!(verb(text), Verb::Version, "{text}");
    }
    for text in ["", "-h", "--help", "help", "h"] {
        assert_eq!(verb(text), Verb::Help(Help::default()), "{text:?}");
    }
}

#[test]
fn no_table_names_a_flag_twice() {
    for page in PAGES.iter().copied() {
        let flags: Vec<&Flag> = page.flags.iter().flat_map(|group| group.iter()).collect();
        for (index, flag) in flags.iter().enumerate() {
            let twin = |other: &&&Flag| {
                other.long == flag.long || other.short.is_some() && other.short == flag.short
            };
            assert!(!flags[index + 1..].iter().any(|other| twin(&other)), "{} --{}", page.name, flag.long);
            assert_ne!(flag.short, Some('h'), "{} --{}", page.name, flag.long);
        }
    }
}

#[test]
fn everything_shown_is_in_help_manual_and_completions() {
    let manual = pages();
    for page in PAGES.iter().filter(|page| !page.hidden) {
        let help = verb_help("deja", page.name).unwrap();
        let (_, text) = manual
            .iter()
            .find(|(name, _)| *name == format!("deja-{}.8", page.name.replace(' ', "-")))
            .unwrap();
        for flag in page.shown_flags() {
            assert!(help.contains(&format!("--{}", flag.long)), "{help}");
            assert!(text.contains(&format!("\\-\\-{}", flag.long.replace('-', "\\-"))), "{text}");
        }
        for flag in page.flags.iter().flat_map(|group| group.iter()).filter(|flag| flag.hidden) {
            assert!(!help.contains(&format!("--{} ", flag.long)), "{help}");
        }
        assert!(overview("deja").contains(page.summary));
        for shell in SHELLS {
            let script = completion(shell).unwrap();
            assert!(page.name.split(' ').all(|word| script.contains(word)), "{shell}");
        }
    }
}

#[test]
fn help_begins_as_callers_expect() {
    let help = verb_help("runc", "kill").unwrap();
    assert!(help.starts_with("NAME:\n   runc kill - "), "{help}");
    assert!(overview("runc").starts_with("NAME:\n   runc - Open Container Initiative runtime\n"));
    assert!(version("runc", "abc", "1.3.0").starts_with("runc version 0."));
}

#[test]
fn the_name_comes_from_the_way_it_was_called() {
    for (argv0, name) in [("/usr/bin/runc", "runc"), ("crun", "crun"), ("", "deja"), ("./deja", "deja")] {
        assert_eq!(parse([OsString::from(argv0)]).unwrap().program, name);
    }
}
