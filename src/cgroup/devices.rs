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

    /// The program, shortest way out first: a rule that does not match jumps to the next.
    pub fn program(&self) -> Vec<Instruction> {
        let mut code = Vec::with_capacity(8 + self.exceptions.len() * 6);
        code.extend([
            load(KIND, 0),
            and(KIND, 0xffff),
            load(ACCESS, 0),
            shift_right(ACCESS, 16),
            load(MAJOR, 4),
            load(MINOR, 8),
        ]);
        for (devices, access) in &self.exceptions {
            self.exception(*devices, *access, &mut code);
        }
        code.extend(answer(self.allow));
        code
    }

    fn exception(&self, devices: Devices, access: u8, code: &mut Vec<Instruction>) {
        let mut body = vec![not_equal(KIND, devices.kind as i32)];
        body.extend(devices.major.map(|major| not_equal(MAJOR, major as i32)));
        body.extend(devices.minor.map(|minor| not_equal(MINOR, minor as i32)));
        let access = i32::from(access);
        match (self.allow, access == i32::from(Access::ALL.0)) {
            // Every access is one of the three.
            (_, true) => {}
            // Allowed when nothing is left outside the exception.
            (false, false) => {
                body.extend([copy(SCRATCH, ACCESS), and(SCRATCH, !access), not_equal(SCRATCH, 0)]);
            }
            // Denied when anything lies inside it.
            (true, false) => body.extend([copy(SCRATCH, ACCESS), and(SCRATCH, access), equal(SCRATCH, 0)]),
        }
        body.extend(answer(!self.allow));
        let length = body.len();
        for (place, instruction) in body.iter_mut().enumerate() {
            if is_jump(*instruction) {
                instruction.offset = (length - place - 1) as i16;
            }
        }
        code.extend(body);
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

// Operations: class | source | operation, as in the kernel's uapi/linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const MOVE_32: u8 = 0xb4;
const MOVE_REGISTER_32: u8 = 0xbc;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
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
    Instruction::new(JUMP_EQUAL, register, 0, 0, value)
}

const fn not_equal(register: u8, value: i32) -> Instruction {
    Instruction::new(JUMP_NOT_EQUAL, register, 0, 0, value)
}

const fn is_jump(instruction: Instruction) -> bool {
    matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL)
}

const fn answer(allow: bool) -> [Instruction; 2] {
    [Instruction::new(MOVE_32, ANSWER, 0, 0, allow as i32), Instruction::new(EXIT, 0, 0, 0, 0)]
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
