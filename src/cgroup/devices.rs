//! `linux.resources.devices` -> an eBPF program for BPF_CGROUP_DEVICE. Pure.
//!
//! Rules mean what the v1 devices controller, and runc after it, made them mean. They are applied one after
//! the other to a default and a set of exceptions: type `a` sets the default and forgets the exceptions,
//! any other rule adds or takes away an exception. An access is allowed against a default of deny when one
//! exception covers all of it, and denied against a default of allow when an exception names any of it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::spec::DeviceRule;
use crate::sys::bpf::Instruction;

/// What is done to a device, as the kernel numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access(u8);

impl Access {
    pub const MKNOD: Access = Access(1);
    pub const READ: Access = Access(2);
    pub const WRITE: Access = Access(4);
    pub const ALL: Access = Access(7);

    fn parse(text: &str) -> Result<Self> {
        let mut bits = 0;
        for letter in text.chars() {
            bits |= match letter {
                'm' => Self::MKNOD.0,
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                // Not in the spec, but in configs: runc reads over it.
                'a' => 0,
                _ => bail!("invalid device access {text:?}: it is made of r, w and m"),
            };
        }
        Ok(Self(bits))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Block = 1,
    Character = 2,
}

/// Which devices an exception is about; None: any number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Devices {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
}

/// What every container may do, appended to its own rules: make any node, and use those in its /dev,
/// terminals (136, 5:2) and /dev/net/tun (10:200), which callers have come to rely on.
const DEFAULTS: [(Kind, Option<u32>, Option<u32>, Access); 11] = [
    (Kind::Character, None, None, Access::MKNOD),
    (Kind::Block, None, None, Access::MKNOD),
    (Kind::Character, Some(1), Some(3), Access::ALL),
    (Kind::Character, Some(1), Some(5), Access::ALL),
    (Kind::Character, Some(1), Some(7), Access::ALL),
    (Kind::Character, Some(1), Some(8), Access::ALL),
    (Kind::Character, Some(1), Some(9), Access::ALL),
    (Kind::Character, Some(5), Some(0), Access::ALL),
    (Kind::Character, Some(5), Some(2), Access::ALL),
    (Kind::Character, Some(10), Some(200), Access::ALL),
    (Kind::Character, Some(136), None, Access::ALL),
];

/// The meaning of a list of rules.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Filter {
    allow: bool,
    exceptions: BTreeMap<Devices, u8>,
}

impl Filter {
    /// The rules of a container followed by those every container has. Nothing is allowed to begin with.
    pub fn new(rules: &[DeviceRule]) -> Result<Self> {
        let mut filter = Self::of(rules)?;
        for (kind, major, minor, access) in DEFAULTS {
            filter.except(Devices { kind, major, minor }, access, true)?;
        }
        Ok(filter)
    }

    fn of(rules: &[DeviceRule]) -> Result<Self> {
        let mut filter = Self::default();
        for (place, rule) in rules.iter().enumerate() {
            filter.apply(place, rule)?;
        }
        Ok(filter)
    }

    fn apply(&mut self, place: usize, rule: &DeviceRule) -> Result<()> {
        let Some(access) = rule.access.as_deref().filter(|access| !access.is_empty()) else {
            bail!("device access at {place} field cannot be empty");
        };
        let access = Access::parse(access)?;
        let kind = match rule.kind.as_deref().unwrap_or("a") {
            "" | "a" => {
                *self = Self { allow: rule.allow, exceptions: BTreeMap::new() };
                return Ok(());
            }
            "b" => Kind::Block,
            "c" => Kind::Character,
            other => bail!("invalid cgroup device type {other:?}"),
        };
        let devices = Devices { kind, major: number(rule.major)?, minor: number(rule.minor)? };
        self.except(devices, access, rule.allow)
    }

    fn except(&mut self, devices: Devices, access: Access, allow: bool) -> Result<()> {
        if allow != self.allow {
            *self.exceptions.entry(devices).or_default() |= access.0;
            return Ok(());
        }
        self.refuse_holes(devices, access)?;
        if let Some(bits) = self.exceptions.get_mut(&devices) {
            *bits &= !access.0;
            if *bits == 0 {
                self.exceptions.remove(&devices);
            }
        }
        Ok(())
    }

    /// An exception cannot be taken away from a wider one: the wider one would still hold, unnoticed.
    fn refuse_holes(&self, devices: Devices, access: Access) -> Result<()> {
        let wider = [
            Devices { major: None, ..devices },
            Devices { minor: None, ..devices },
            Devices { major: None, minor: None, ..devices },
        ];
        for wide in wider.iter().filter(|wide| **wide != devices) {
            if self.exceptions.get(wide).is_some_and(|bits| bits & access.0 != 0) {
                bail!(
                    "device rule for {} cannot punch a hole in the wildcard rule for {}",
                    devices.text(),
                    wide.text()
                );
            }
        }
        Ok(())
    }

    /// The program: what an exception covers jumps to the one answer for exceptions. Few jumps and few ends, because
    /// the kernel's verifier follows each, which is what loading a program costs.
    pub fn program(&self) -> Vec<Instruction> {
        let mut code = Vec::with_capacity(16 + self.exceptions.len() * 3);
        code.extend([
            load(KIND, 0),
            and(KIND, 0xffff),
            load(ACCESS, 0),
            shift_right(ACCESS, 16),
            load(MAJOR, 4),
            load(MINOR, 8),
            copy(NUMBER, MAJOR),
            shift_left(NUMBER, MINOR_BITS),
            or(NUMBER, MINOR),
        ]);
        let exceptions: Vec<(Devices, u8)> =
            self.exceptions.iter().map(|(devices, access)| (*devices, *access)).collect();
        let mut parts = exceptions.chunks(MOST_IN_REACH).peekable();
        while let Some(part) = parts.next() {
            let mut block = Block::default();
            for same in part.chunk_by(|one, next| one.0.kind == next.0.kind) {
                self.exceptions_of(same, &mut block);
            }
            block.end_with(if parts.peek().is_some() {
                &[ALWAYS_OVER_ANSWER]
            } else {
                &ANSWERS[usize::from(self.allow)]
            });
            code.extend(block.code);
            code.extend(ANSWERS[usize::from(!self.allow)]);
        }
        if exceptions.is_empty() {
            code.extend(ANSWERS[usize::from(self.allow)]);
        }
        code
    }

    /// Those of one kind of device, behind one question for it.
    fn exceptions_of(&self, same: &[(Devices, u8)], block: &mut Block) {
        let kind = same[0].0.kind;
        let question = block.code.len();
        block.code.push(not_equal(KIND, kind as i32));
        for (devices, access) in same {
            self.exception(*devices, i32::from(*access), block);
        }
        block.aim(question, block.code.len());
    }

    fn exception(&self, devices: Devices, access: i32, block: &mut Block) {
        let matches = match (devices.major, devices.minor) {
            (Some(major), Some(minor)) => {
                if major >> MAJOR_BITS != 0 || minor >> MINOR_BITS != 0 {
                    // No device has such a number.
                    return;
                }
                Some((NUMBER, major << MINOR_BITS | minor))
            }
            (Some(major), None) => Some((MAJOR, major)),
            (None, Some(minor)) => Some((MINOR, minor)),
            (None, None) => None,
        };
        if access == i32::from(Access::ALL.0) {
            // Every access is one of the three.
            return block.leave(matches.map_or(ALWAYS, |(register, value)| equal(register, value as i32)));
        }
        let other = matches.map(|(register, value)| {
            block.code.push(not_equal(register, value as i32));
            block.code.len() - 1
        });
        block.code.push(copy(SCRATCH, ACCESS));
        if self.allow {
            // Denied when anything lies inside it.
            block.code.push(and(SCRATCH, access));
            block.leave(not_equal(SCRATCH, 0));
        } else {
            // Allowed when nothing is left outside it.
            block.code.push(and(SCRATCH, !access));
            block.leave(equal(SCRATCH, 0));
        }
        if let Some(other) = other {
            block.aim(other, block.code.len());
        }
    }
}

/// Instructions, some of which jump to what comes after the block's end.
#[derive(Default)]
struct Block {
    code: Vec<Instruction>,
    leaving: Vec<usize>,
}

impl Block {
    fn leave(&mut self, jump: Instruction) {
        self.leaving.push(self.code.len());
        self.code.push(jump);
    }

    fn aim(&mut self, jump: usize, target: usize) {
        self.code[jump].offset = (target - jump - 1) as i16;
    }

    fn end_with(&mut self, end: &[Instruction]) {
        self.code.extend_from_slice(end);
        for jump in std::mem::take(&mut self.leaving) {
            self.aim(jump, self.code.len());
        }
    }
}

impl Devices {
    fn text(&self) -> String {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        format!("{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// -1 and absent stand for any number.
fn number(number: Option<i64>) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number @ 0..=0x7fff_ffff) => Ok(Some(number as u32)),
        Some(number) => bail!("invalid device number {number}"),
    }
}

// Registers: the kernel hands over the context in the second; the first is the answer.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
/// Major and minor number in one, as the kernel keeps them.
const NUMBER: u8 = 7;

const MAJOR_BITS: i32 = 12;
const MINOR_BITS: i32 = 20;
/// A jump is at most 32767 instructions long, and an exception takes five.
const MOST_IN_REACH: usize = 5000;

// Operations: class | source | operation, as in the kernel's uapi/linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const SHIFT_LEFT_32: u8 = 0x64;
const OR_REGISTER_32: u8 = 0x4c;
const MOVE_32: u8 = 0xb4;
const MOVE_REGISTER_32: u8 = 0xbc;
// They compare the lower half: an immediate is sign-extended to the whole register otherwise.
const JUMP_EQUAL_32: u8 = 0x16;
const JUMP_NOT_EQUAL_32: u8 = 0x56;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

const fn load(register: u8, offset: i16) -> Instruction {
    Instruction::new(LOAD_WORD, register, CONTEXT, offset, 0)
}

const fn and(register: u8, mask: i32) -> Instruction {
    Instruction::new(AND_32, register, 0, 0, mask)
}

const fn shift_right(register: u8, bits: i32) -> Instruction {
    Instruction::new(SHIFT_RIGHT_32, register, 0, 0, bits)
}

const fn copy(to: u8, from: u8) -> Instruction {
    Instruction::new(MOVE_REGISTER_32, to, from, 0, 0)
}

const fn equal(register: u8, value: i32) -> Instruction {
    Instruction::new(JUMP_EQUAL_32, register, 0, 0, value)
}

const fn not_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(JUMP_NOT_EQUAL_32, register, 0, 0, value)
}

const fn shift_left(register: u8, bits: i32) -> Instruction {
    Instruction::new(SHIFT_LEFT_32, register, 0, 0, bits)
}

const fn or(to: u8, from: u8) -> Instruction {
    Instruction::new(OR_REGISTER_32, to, from, 0, 0)
}

const ALWAYS: Instruction = Instruction::new(JUMP, 0, 0, 0, 0);
const ALWAYS_OVER_ANSWER: Instruction = Instruction::new(JUMP, 0, 0, 2, 0);

/// Denied, allowed.
const ANSWERS: [[Instruction; 2]; 2] = [answer(0), answer(1)];

const fn answer(allow: i32) -> [Instruction; 2] {
    [Instruction::new(MOVE_32, ANSWER, 0, 0, allow), Instruction::new(EXIT, 0, 0, 0, 0)]
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
