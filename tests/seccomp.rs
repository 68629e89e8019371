//! The seccomp compiler against a naive reading of the profile, and what it makes of a realistic one.

#[path = "support/seccomp.rs"]
mod support;

use deja::launch::seccomp::{Arch, Program, compile};
use deja::spec::seccomp::Seccomp;
use deja::sys::seccomp::{action, flag};
use proptest::prelude::*;
use support::{Call, DEFAULT_PROFILE, Judge, compare, run};

fn parse(json: &str) -> Seccomp<'_> {
    serde_json::from_str(json).expect("a profile")
}

fn refusal(json: &str) -> String {
    format!("{:#}", compile(&parse(json), Arch::X86_64).expect_err("a refusal"))
}

fn answer(json: &str, call: Call) -> u32 {
    let program = compile(&parse(json), Arch::X86_64).expect("a program");
    run(&program.instructions, &call, false).0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_answer_as_profiles_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        support::check(&bytes);
    }
}

/// Inputs that once made program and profile differ: an architecture without any comparison, and a rule on a
/// call that is only reached through ipc(2), whose number is greater than all the profile names.
#[test]
fn what_was_found_stays_found() {
    support::check(&[0, 0, 0, 0x65, 0xba, 0]);
    support::check(&[28, 226, 215, 4, 86, 76, 34, 12, 184, 129, 172, 235, 60, 78]);
}

/// A filter belongs to a thread, so a thread is all it takes to try one.
fn filtered<T: Send>(json: &str, work: impl FnOnce(bool) -> T + Send) -> T {
    let program = compile(&parse(json), Arch::native()).expect("a program");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("no_new_privs");
            let listener = deja::sys::seccomp::set_mode_filter(program.flags, &program.instructions);
            work(listener.expect("the kernel takes the program").is_some())
        });
        thread.join().expect("the thread")
    })
}

#[test]
fn the_kernel_takes_the_programs_and_does_as_they_say() {
    let errno = |listener: bool| {
        assert!(!listener);
        ["/x/a", "/x/b"].map(|path| std::fs::create_dir(path).expect_err("refused").raw_os_error())
    };
    let rule = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 123}"#;
    let flags = r#""flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    let json = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {flags}, "syscalls": [{rule}]}}"#);
    assert_eq!(filtered(&json, errno), [Some(123); 2]);

    let refused = |_| rustix::system::sethostname(b"filtered").expect_err("refused");
    assert_eq!(filtered(DEFAULT_PROFILE, refused), rustix::io::Errno::PERM);
}

#[test]
fn a_listener_comes_with_the_filter() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
        "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    assert!(filtered(json, |listener| listener));
}

/// `cargo test --release --test seccomp -- --ignored --nocapture` prints what a start costs.
#[test]
#[ignore = "prints times, proves nothing"]
fn times_of_the_default_profile() {
    let median = |work: &dyn Fn()| {
        let mut times: Vec<_> = (0..1000)
            .map(|_| {
                let start = std::time::Instant::now();
                work();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let profile = parse(DEFAULT_PROFILE);
    let program = compile(&profile, Arch::native()).expect("a program");
    let bytes = program.to_bytes();
    println!("parse      {:?}", median(&|| drop(std::hint::black_box(parse(DEFAULT_PROFILE)))));
    println!("compile    {:?}", median(&|| drop(std::hint::black_box(compile(&profile, Arch::native())))));
    println!(
        "from_bytes {:?}",
        median(&|| drop(std::hint::black_box(Program::from_bytes(&bytes, Arch::native()))))
    );
    println!("{} instructions, {} bytes", program.instructions.len(), bytes.len());
}

/// Rules on every name of the default profile, so that targets are further than a jump reaches.
#[test]
fn far_targets_are_reached() {
    let default = parse(DEFAULT_PROFILE);
    let names: Vec<&str> = default.syscalls[0].names.iter().map(|name| name.as_str()).collect();
    for group in [1, 2, 5, 20] {
        let rules: Vec<_> = names
            .chunks(group)
            .take(110)
            .enumerate()
            .map(|(at, names)| {
                let args = [0, 1]
                    .map(|index| serde_json::json!({"index": index, "value": at * 7, "op": "SCMP_CMP_GT"}));
                serde_json::json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": at, "args": args})
            })
            .collect();
        let text = serde_json::json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": rules,
        });
        let text = text.to_string();
        let profile = parse(&text);
        let program = compile(&profile, Arch::X86_64).expect("a program");
        let judge = Judge::new(&profile, Arch::X86_64);
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            for number in (0..1200).map(|n| n + if arch == Arch::X32 { 1 << 30 } else { 0 }) {
                for arguments in [[0; 6], [300; 6], [u64::MAX; 6]] {
                    compare(&judge, &program, &Call { number, token: arch.token(), arguments });
                }
            }
        }
    }
}

#[test]
fn the_default_profile_is_short_and_shallow() {
    let profile = parse(DEFAULT_PROFILE);
    let program = compile(&profile, Arch::X86_64).expect("a program");
    let judge = Judge::new(&profile, Arch::X86_64);
    assert!(program.warnings.is_empty(), "{:?}", program.warnings);
    let mut deepest = 0;
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for number in (0..600).map(|n| n + if arch == Arch::X32 { 1 << 30 } else { 0 }) {
            for arguments in [[0; 6], [0x2_0008; 6], [0x1000_0000; 6], [u64::MAX; 6]] {
                let call = Call { number, token: arch.token(), arguments };
                compare(&judge, &program, &call);
                deepest = deepest.max(run(&program.instructions, &call, false).1);
            }
        }
    }
    let length = program.instructions.len();
    println!("{length} instructions, at most {deepest} for one call");
    assert!(length <= 500, "{length} instructions");
    assert!(deepest <= 40, "{deepest} instructions for one call");
    let getppid = Call::of(Arch::X86_64, "getppid", &[]);
    let (result, steps) = run(&program.instructions, &getppid, false);
    assert_eq!(result, action::ALLOW);
    assert!(steps <= 14, "{steps} instructions for getppid");
}

#[test]
fn unlisted_architectures_are_killed_and_x32_is_one_of_them() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["listns"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!(answer(json, Call::of(Arch::X86_64, "read", &[])), action::ALLOW);
    assert_eq!(answer(json, Call::of(Arch::X86, "read", &[])), action::KILL_THREAD);
    assert_eq!(answer(json, Call::of(Arch::X32, "read", &[])), action::KILL_THREAD);
    assert_eq!(answer(json, Call::of(Arch::Aarch64, "read", &[])), action::KILL_THREAD);
    let skipped = Call { number: u32::MAX, token: Arch::X86_64.token(), arguments: [0; 6] };
    assert_eq!(answer(json, skipped), action::ERRNO | 1);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let json = |default: &str| {
        format!(
            r#"{{"defaultAction": "{default}", "syscalls": [{{"names": ["clone3"], "action": "SCMP_ACT_KILL"}}]}}"#
        )
    };
    let newer = Call::of(Arch::X86_64, "close_range", &[]);
    let older = Call::of(Arch::X86_64, "getpid", &[]);
    for (default, old, new) in [
        ("SCMP_ACT_ERRNO", 0x5_0001, 0x5_0026),
        ("SCMP_ACT_TRAP", 0x3_0000, 0x5_0026),
        ("SCMP_ACT_KILL_PROCESS", 0x8000_0000, 0x5_0026),
        ("SCMP_ACT_ALLOW", 0x7fff_0000, 0x7fff_0000),
        ("SCMP_ACT_LOG", 0x7ffc_0000, 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001, 0x7ff0_0001),
    ] {
        assert_eq!(answer(&json(default), older), old, "{default}");
        assert_eq!(answer(&json(default), newer), new, "{default}");
    }
}

#[test]
fn the_first_answer_counts_and_no_condition_beats_conditions() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_LT"}]},
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_LT"}]},
        {"names": ["fcntl"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]},
        {"names": ["fcntl"], "action": "SCMP_ACT_ALLOW"}, {"names": ["fcntl"], "action": "SCMP_ACT_TRAP"}]}"#;
    let ioctl = |request| answer(json, Call::of(Arch::X86_64, "ioctl", &[0, request]));
    assert_eq!([ioctl(1), ioctl(7), ioctl(9)], [action::LOG, action::ALLOW, action::ERRNO | 1]);
    assert_eq!(answer(json, Call::of(Arch::X86_64, "fcntl", &[0, 5])), action::ALLOW);
}

#[test]
fn one_argument_named_twice_makes_rules_of_its_own() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"},
                 {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#;
    let ioctl = |a, b| answer(json, Call::of(Arch::X86_64, "ioctl", &[0, a, b]));
    assert_eq!([ioctl(5, 0), ioctl(7, 0), ioctl(0, 1)], [action::ALLOW; 3]);
    assert_eq!(ioctl(6, 0), action::ERRNO | 1);
}

#[test]
fn arguments_are_compared_at_the_width_of_the_architecture() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#;
    let high = 8 | 1 << 32;
    assert_eq!(answer(json, Call::of(Arch::X86, "personality", &[high])), action::ALLOW);
    assert_eq!(answer(json, Call::of(Arch::X86_64, "personality", &[high])), action::ERRNO | 1);
}

#[test]
fn flags_and_listener() {
    let flags = |rest: &str| {
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {rest} "architectures": null}}"#);
        let program = compile(&parse(&json), Arch::X86_64).expect("a program");
        (program.flags, program.listener)
    };
    assert_eq!(flags(""), (flag::SPEC_ALLOW, false));
    assert_eq!(flags(r#""flags": null,"#), (flag::SPEC_ALLOW, false));
    assert_eq!(flags(r#""flags": [],"#), (0, false));
    assert_eq!(
        flags(r#""flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],"#),
        (flag::LOG, false)
    );
    assert_eq!(flags(r#""flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],"#), (0, false));
    let notify = r#""listenerPath": "/a", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],"#;
    assert_eq!(flags(notify), (flag::SPEC_ALLOW | flag::NEW_LISTENER, true));
    let killable = format!(r#""flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], {notify}"#);
    assert_eq!(flags(&killable), (flag::WAIT_KILLABLE_RECV | flag::NEW_LISTENER, true));
}

#[test]
fn unknown_system_calls_are_named_in_a_warning() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "frobnicate", "defrob"],
        "action": "SCMP_ACT_ALLOW"}]}"#;
    let program = compile(&parse(json), Arch::X86_64).expect("a program");
    assert_eq!(program.warnings, ["linux.seccomp: unknown system calls are ignored: frobnicate, defrob"]);
}

#[test]
fn what_is_wrong_is_refused_by_its_place() {
    let cases = [
        (r#"{"syscalls": []}"#, "linux.seccomp.defaultAction is not set"),
        (
            r#"{"defaultAction": "SCMP_ACT_FOO"}"#,
            r#"linux.seccomp.defaultAction: unknown action "SCMP_ACT_FOO""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}"#,
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL does not return an errno",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#,
            "linux.seccomp.defaultErrnoRet: 4096 is too great for SCMP_ACT_ERRNO, the most is 4095",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_VAX"]}"#,
            r#"linux.seccomp.architectures[1]: unknown architecture "SCMP_ARCH_VAX""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_KILL", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#,
            r#"linux.seccomp.flags[0]: unknown flag "SECCOMP_FILTER_FLAG_NEW_LISTENER""#,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_KILL", "listenerMetadata": "x"}"#,
            "linux.seccomp.listenerMetadata is set, but listenerPath is not",
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(refusal(json), expected);
    }
}

#[test]
fn a_wrong_rule_is_refused_by_its_place() {
    let read = r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#;
    let argument = |op: &str, index: u32, action: &str| {
        format!(
            r#"{{"names": ["read"], "action": "{action}", "args": [{{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}},
               {{"index": {index}, "value": 0, "op": "{op}"}}]}}"#
        )
    };
    let cases = [
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_FOO"}"#.to_owned(),
            r#"syscalls[1].action: unknown action "SCMP_ACT_FOO""#,
        ),
        (r#"{"names": ["read"], "action": ""}"#.to_owned(), r#"syscalls[1].action: unknown action """#),
        (
            r#"{"names": ["read", ""], "action": "SCMP_ACT_ALLOW"}"#.to_owned(),
            "syscalls[1].names[1]: empty string is not a valid syscall",
        ),
        (
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 0}"#.to_owned(),
            "syscalls[1].errnoRet: SCMP_ACT_ALLOW does not return an errno",
        ),
        (
            r#"{"names": ["dup", "write"], "action": "SCMP_ACT_NOTIFY"}"#.to_owned(),
            "syscalls[1].names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            r#"{"names": ["dup"], "action": "SCMP_ACT_NOTIFY"}"#.to_owned(),
            "syscalls asks for SCMP_ACT_NOTIFY, but seccomp listenerPath is not set",
        ),
        (
            argument("SCMP_CMP_XX", 1, "SCMP_ACT_ALLOW"),
            r#"syscalls[1].args[1].op: unknown operator "SCMP_CMP_XX""#,
        ),
        (
            argument("SCMP_CMP_EQ", 6, "SCMP_ACT_ALLOW"),
            "syscalls[1].args[1].index: 6 is not an argument of a system call, they are 0 to 5",
        ),
    ];
    for (rule, expected) in cases {
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{read}, {rule}]}}"#);
        assert_eq!(refusal(&json), format!("linux.seccomp.{expected}"));
    }
    let (one, two) =
        (argument("SCMP_CMP_EQ", 1, "SCMP_ACT_ALLOW"), argument("SCMP_CMP_EQ", 1, "SCMP_ACT_LOG"));
    let json = format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{one}, {one}, {two}]}}"#);
    assert_eq!(
        refusal(&json),
        "linux.seccomp.syscalls[2] contradicts syscalls[0]: read with the same arguments, another action"
    );
    let json = format!(r#"{{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{one}, {two}, {read}]}}"#);
    assert_eq!(answer(&json, Call::of(Arch::X86_64, "read", &[])), action::ALLOW);
}

#[test]
fn too_many_instructions_are_counted_in_the_error() {
    let default = parse(DEFAULT_PROFILE);
    let names = &default.syscalls[0].names;
    let rules: Vec<_> = (0..300)
        .map(|at| {
            let args: Vec<_> = (0..6)
                .map(|index| serde_json::json!({"index": index, "value": at, "op": "SCMP_CMP_GT"}))
                .collect();
            serde_json::json!({"names": [names[at].as_str()], "action": "SCMP_ACT_ALLOW", "args": args})
        })
        .collect();
    let text = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).to_string();
    let error = refusal(&text);
    assert!(error.starts_with("linux.seccomp: the filter needs "), "{error}");
    assert!(error.ends_with(" instructions, and the kernel takes at most 4096"), "{error}");
}
