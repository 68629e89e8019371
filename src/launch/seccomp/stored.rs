//! A program as bytes, to be kept in a file and read back by a later start. A file that is damaged, from
//! another version or for another kernel reads as None and is compiled anew; it is never an error.
//!
//! ```text
//! magic 8 | version 4 | native 4 | flags 4 | listener 4 | lets start 4 | instructions 4 | warnings 4
//! instructions: 8 bytes each | warnings: length 4, text | checksum 8 over all before
//! ```
//! All numbers are little endian. The checksum finds accidents; against intent the directory is the guard.

use super::{Arch, Program};
use crate::sys::seccomp::{INSTRUCTIONS_MAX, Instruction};

const MAGIC: &[u8; 8] = b"dejabpf\n";
/// To be raised whenever `compile` makes another program of the same profile.
const VERSION: u32 = 3;
const CHECKSUM: usize = 8;

impl Program {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.instructions.len() * size_of::<Instruction>());
        bytes.extend_from_slice(MAGIC);
        let numbers = [
            VERSION,
            self.native as u32,
            self.flags,
            u32::from(self.listener),
            u32::from(self.lets_start),
            self.instructions.len() as u32,
            self.warnings.len() as u32,
        ];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.code.to_le_bytes());
            bytes.extend_from_slice(&[instruction.if_true, instruction.if_false]);
            bytes.extend_from_slice(&instruction.value.to_le_bytes());
        }
        for warning in &self.warnings {
            bytes.extend_from_slice(&(warning.len() as u32).to_le_bytes());
            bytes.extend_from_slice(warning.as_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        bytes
    }

    /// The program that `to_bytes` wrote for a kernel of the architecture `native`.
    pub fn from_bytes(bytes: &[u8], native: Arch) -> Option<Program> {
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if checksum(content) != u64::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        if take_number(&mut rest)? != VERSION || take_number(&mut rest)? != native as u32 {
            return None;
        }
        let flags = take_number(&mut rest)?;
        let listener = take_number(&mut rest)? == 1;
        let lets_start = take_number(&mut rest)? == 1;
        let count = take_number(&mut rest)? as usize;
        let warning_count = take_number(&mut rest)?;
        if count > INSTRUCTIONS_MAX {
            return None;
        }
        let mut instructions = Vec::with_capacity(count);
        for _ in 0..count {
            let [c0, c1, if_true, if_false] = take_number(&mut rest)?.to_le_bytes();
            let code = u16::from_le_bytes([c0, c1]);
            instructions.push(Instruction { code, if_true, if_false, value: take_number(&mut rest)? });
        }
        let mut warnings = Vec::new();
        for _ in 0..warning_count {
            let length = take_number(&mut rest)? as usize;
            let (text, after) = rest.split_at_checked(length)?;
            warnings.push(String::from_utf8(text.to_vec()).ok()?);
            rest = after;
        }
        let program = Program { flags, instructions, listener, lets_start, warnings, native };
        rest.is_empty().then_some(program)
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*number))
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        let instruction = Instruction { code: 0x15, if_true: 3, if_false: 250, value: 0xc000_003e };
        Program {
            flags: 12,
            instructions: vec![instruction; 5],
            listener: true,
            lets_start: false,
            warnings: vec!["one".to_owned(), "zwö".to_owned()],
            native: Arch::X86_64,
        }
    }

    #[test]
    fn a_program_survives_its_bytes() {
        assert_eq!(Program::from_bytes(&program().to_bytes(), Arch::X86_64), Some(program()));
        assert_eq!(Program::from_bytes(&program().to_bytes(), Arch::Aarch64), None);
    }

    #[test]
    fn any_damage_is_a_miss() {
        let bytes = program().to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(Program::from_bytes(&bytes[..end], Arch::X86_64), None, "cut at {end}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x40;
            assert_eq!(Program::from_bytes(&damaged, Arch::X86_64), None, "flipped at {place}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Program::from_bytes(&longer, Arch::X86_64), None);
    }

    #[test]
    fn another_version_is_a_miss() {
        let mut bytes = program().to_bytes();
        bytes[MAGIC.len()] ^= 0xff;
        let end = bytes.len() - CHECKSUM;
        let sum = checksum(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
        assert_eq!(Program::from_bytes(&bytes, Arch::X86_64), None);
    }
}
