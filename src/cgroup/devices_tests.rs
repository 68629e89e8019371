use proptest::prelude::*;

use super::*;
use crate::spec::Str;

/// A device node that somebody wants to use.
#[derive(Clone, Copy, Debug)]
struct Request {
    kind: Kind,
    major: u32,
    minor: u32,
    access: u8,
}

/// Runs a program as the kernel would, for the operations it may contain; anything else is a mistake.
fn run(program: &[Instruction], request: Request) -> bool {
    let context = [u32::from(request.access) << 16 | request.kind as u32, request.major, request.minor];
    let mut registers: [Option<u64>; 11] = [None; 11];
    let mut at = 0;
    for _ in 0..program.len() {
        let instruction = program[at];
        let (to, from) = (instruction.destination() as usize, instruction.source() as usize);
        let value = instruction.immediate;
        at += 1;
        match instruction.code {
            LOAD_WORD => {
                assert_eq!(from, CONTEXT as usize);
                registers[to] = Some(u64::from(context[instruction.offset as usize / 4]));
            }
            AND_32 => registers[to] = Some(u64::from(registers[to].unwrap() as u32 & value as u32)),
            SHIFT_LEFT_32 => registers[to] = Some(u64::from((registers[to].unwrap() as u32) << value)),
            OR_REGISTER_32 => {
                registers[to] = Some(u64::from((registers[to].unwrap() | registers[from].unwrap()) as u32));
            }
            SHIFT_RIGHT_32 => registers[to] = Some(u64::from(registers[to].unwrap() as u32 >> value)),
            MOVE_32 => registers[to] = Some(u64::from(value as u32)),
            MOVE_REGISTER_32 => registers[to] = Some(u64::from(registers[from].unwrap() as u32)),
            JUMP_EQUAL_32 if registers[to].unwrap() as u32 == value as u32 => {
                at += instruction.offset as usize
            }
            JUMP_NOT_EQUAL_32 if registers[to].unwrap() as u32 != value as u32 => {
                at += instruction.offset as usize;
            }
            JUMP => at += instruction.offset as usize,
            JUMP_EQUAL_32 | JUMP_NOT_EQUAL_32 => {}
            EXIT => return registers[ANSWER as usize].unwrap() != 0,
            code => panic!("operation {code:#x}"),
        }
    }
    panic!("the program does not end");
}

/// The meaning of rules, said without programs: replay the list on a default and a plain list of exceptions.
fn naive(rules: &[DeviceRule], request: Request) -> Option<bool> {
    let mut allow = false;
    let mut exceptions: Vec<(Kind, i64, i64, u8)> = Vec::new();
    for rule in rules {
        let kind = match rule.kind.as_deref() {
            Some("b") => Kind::Block,
            Some("c") => Kind::Character,
            _ => {
                (allow, exceptions) = (rule.allow, Vec::new());
                continue;
            }
        };
        let (major, minor) = (rule.major.unwrap_or(-1), rule.minor.unwrap_or(-1));
        let bits = Access::parse(rule.access.as_deref().unwrap()).unwrap().0;
        if rule.allow != allow {
            for bit in [1, 2, 4] {
                if bits & bit != 0 {
                    exceptions.push((kind, major, minor, bit));
                }
            }
            continue;
        }
        let hole = |e: &(Kind, i64, i64, u8)| {
            e.0 == kind
                && (e.1, e.2) != (major, minor)
                && [-1, major].contains(&e.1)
                && [-1, minor].contains(&e.2)
                && e.3 & bits != 0
        };
        if exceptions.iter().any(hole) {
            return None;
        }
        exceptions.retain(|e| (e.0, e.1, e.2) != (kind, major, minor) || e.3 & bits == 0);
    }
    let matching = |e: &&(Kind, i64, i64, u8)| {
        e.0 == request.kind
            && [-1, i64::from(request.major)].contains(&e.1)
            && [-1, i64::from(request.minor)].contains(&e.2)
    };
    if allow {
        return Some(!exceptions.iter().filter(matching).any(|e| e.3 & request.access != 0));
    }
    // One exception has to cover the whole access: exceptions for the same devices count as one.
    let covered = exceptions.iter().filter(matching).any(|one| {
        let same = exceptions.iter().filter(|e| (e.0, e.1, e.2) == (one.0, one.1, one.2));
        same.fold(0, |bits, e| bits | e.3) & request.access == request.access
    });
    Some(covered)
}

fn rule(text: &'static str) -> DeviceRule<'static> {
    // "+c 1:3 rwm", with * for any number.
    let (allow, rest) = text.split_at(1);
    let mut fields = rest.split([' ', ':']);
    let kind = fields.next().unwrap();
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let (major, minor) = (number(), number());
    DeviceRule {
        allow: allow == "+",
        kind: Str::new(kind),
        major,
        minor,
        access: fields.next().and_then(Str::new).or(Str::new("rwm")),
    }
}

fn rules(texts: &[&'static str]) -> Vec<DeviceRule<'static>> {
    texts.iter().map(|text| rule(text)).collect()
}

fn request(kind: Kind, major: u32, minor: u32, access: Access) -> Request {
    Request { kind, major, minor, access: access.0 }
}

#[test]
fn a_list_of_rules_means_what_it_says() {
    use Kind::{Block as B, Character as C};
    let rw = Access(Access::READ.0 | Access::WRITE.0);
    let table: [(&[&str], Request, bool); 14] = [
        (&[], request(C, 1, 3, rw), false),
        (&["+a"], request(B, 8, 0, Access::ALL), true),
        (&["-a"], request(C, 1, 3, Access::READ), false),
        (&["-a", "+c 1:3 rw"], request(C, 1, 3, rw), true),
        (&["-a", "+c 1:3 rw"], request(C, 1, 3, Access::MKNOD), false),
        (&["-a", "+c 1:3 rw"], request(B, 1, 3, rw), false),
        (&["-a", "+c 1:3 r", "+c 1:3 w"], request(C, 1, 3, rw), true),
        (&["-a", "+c 1:* r", "+c 1:3 w"], request(C, 1, 3, rw), false),
        (&["+c 1:3 rw", "-a"], request(C, 1, 3, rw), false),
        (&["-a", "+c 1:3 rw", "-c 1:3 w"], request(C, 1, 3, Access::READ), true),
        (&["-a", "+c 1:3 rw", "-c 1:3 w"], request(C, 1, 3, rw), false),
        (&["+a", "-b *:* rwm"], request(B, 8, 0, Access::READ), false),
        (&["+a", "-b 8:0 w"], request(B, 8, 0, Access::READ), true),
        // Opening for reading and writing writes.
        (&["+a", "-b 8:0 w"], request(B, 8, 0, rw), false),
    ];
    for (texts, request, expected) in table {
        let list = rules(texts);
        let program = Filter::of(&list).unwrap().program();
        assert_eq!(run(&program, request), expected, "{texts:?} {request:?}");
        assert_eq!(naive(&list, request), Some(expected), "{texts:?} {request:?}");
    }
}

#[test]
fn every_container_has_its_defaults() {
    let program = Filter::new(&rules(&["-a"])).unwrap().program();
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (10, 200), (136, 9)] {
        assert!(run(&program, request(Kind::Character, major, minor, Access::ALL)), "{major}:{minor}");
    }
    assert!(run(&program, request(Kind::Block, 8, 0, Access::MKNOD)));
    assert!(!run(&program, request(Kind::Block, 8, 0, Access::READ)));
    assert!(!run(&program, request(Kind::Character, 1, 1, Access::READ)));
    // Allowing everything leaves nothing to except.
    assert_eq!(Filter::new(&rules(&["+a"])).unwrap().program().len(), 11);
}

#[test]
fn the_largest_numbers_and_the_longest_lists_are_right() {
    let largest = rules(&["-a", "+c 4095:1048575 r", "+c 4096:0 rwm", "+b 2048:0 rwm"]);
    let program = Filter::of(&largest).unwrap().program();
    assert!(run(&program, request(Kind::Character, 4095, 0xfffff, Access::READ)));
    assert!(!run(&program, request(Kind::Character, 4095, 0xfffff, Access::WRITE)));
    assert!(!run(&program, request(Kind::Character, 0, 0, Access::READ)));
    assert!(run(&program, request(Kind::Block, 2048, 0, Access::ALL)));

    let mut filter = Filter::default();
    for minor in 0..12_000 {
        let devices = Devices { kind: Kind::Block, major: Some(7), minor: Some(minor) };
        filter.except(devices, if minor % 2 == 0 { Access::ALL } else { Access::READ }, true).unwrap();
    }
    let program = filter.program();
    for minor in [0, 1, 4999, 5000, 5001, 9999, 10_000, 11_999] {
        assert!(run(&program, request(Kind::Block, 7, minor, Access::READ)), "{minor}");
        assert_eq!(run(&program, request(Kind::Block, 7, minor, Access::WRITE)), minor % 2 == 0, "{minor}");
    }
    assert!(!run(&program, request(Kind::Block, 7, 12_000, Access::READ)));
    assert!(!run(&program, request(Kind::Character, 7, 1, Access::READ)));
}

#[test]
fn bad_rules_are_refused() {
    let with = |change: fn(&mut DeviceRule)| {
        let mut bad = rule("+c 1:3 rw");
        change(&mut bad);
        Filter::new(&[rule("-a"), bad]).unwrap_err().to_string()
    };
    assert_eq!(with(|rule| rule.access = None), "device access at 1 field cannot be empty");
    assert_eq!(with(|rule| rule.access = Str::new("")), "device access at 1 field cannot be empty");
    assert_eq!(with(|rule| rule.kind = Str::new("p")), "invalid cgroup device type \"p\"");
    assert_eq!(with(|rule| rule.major = Some(-2)), "invalid device number -2");
    assert_eq!(with(|rule| rule.minor = Some(1 << 31)), "invalid device number 2147483648");
    assert_eq!(
        with(|rule| rule.access = Str::new("rx")),
        "invalid device access \"rx\": it is made of r, w and m"
    );
    assert_eq!(
        Filter::of(&rules(&["+c 1:* rw", "-c 1:3 w"])).unwrap_err().to_string(),
        "device rule for c 1:3 cannot punch a hole in the wildcard rule for c 1:*"
    );
}

fn any_rule() -> impl Strategy<Value = DeviceRule<'static>> {
    let kind = prop_oneof![1 => Just("a"), 6 => Just("b"), 6 => Just("c")];
    let number = || prop_oneof![Just(None), Just(Some(-1i64)), (0i64..3).prop_map(Some)];
    let access = prop::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"]);
    (any::<bool>(), kind, number(), number(), access).prop_map(|(allow, kind, major, minor, access)| {
        DeviceRule { allow, kind: Str::new(kind), major, minor, access: Str::new(access) }
    })
}

proptest! {
    #[test]
    fn the_program_agrees_with_the_rules(list in prop::collection::vec(any_rule(), 0..12)) {
        let filter = Filter::of(&list);
        let first = Request { kind: Kind::Block, major: 0, minor: 0, access: 1 };
        prop_assert_eq!(filter.is_err(), naive(&list, first).is_none());
        if let Ok(filter) = filter {
            let program = filter.program();
            for kind in [Kind::Block, Kind::Character] {
                for major in 0..4 {
                    for minor in 0..4 {
                        for access in 1..8 {
                            let request = Request { kind, major, minor, access };
                            prop_assert_eq!(Some(run(&program, request)), naive(&list, request), "{:?}", request);
                        }
                    }
                }
            }
        }
    }
}
