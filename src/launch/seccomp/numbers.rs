//! Names of system calls to numbers. Nothing here knows what a call does.
//!
//! A number is relative to the base of its architecture (x32 counts from 1 << 30, the three MIPS numberings
//! from 4000, 5000 and 6000); numbers from 0xf000 stand for the private calls of ARM at 0x0f0000. The binary
//! holds each name once and one array per numbering, so that a profile touches only the pages of the
//! architectures it is compiled for.

use super::table::{CALLS, NO, NUMBERINGS, ROWS};

/// A numbering; architectures that differ only in byte order share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Numbering {
    X86,
    X86_64,
    X32,
    Arm,
    Aarch64,
    Loongarch64,
    M68k,
    Mips,
    Mips64,
    Mips64N32,
    Parisc,
    Parisc64,
    Ppc,
    Ppc64,
    Riscv64,
    S390,
    S390x,
    Sh,
}

const ARM_PRIVATE: u16 = 0xf000;

/// Where a name stands in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Name(u16);

pub(super) fn find(name: &str) -> Option<Name> {
    NAMES.binary_search(&name).ok().map(|position| Name(position as u16))
}

impl Name {
    pub(super) fn as_str(self) -> &'static str {
        NAMES[self.0 as usize]
    }

    /// The number of the call, or None where the numbering does not have it.
    pub(super) fn number(self, numbering: Numbering) -> Option<u32> {
        match NUMBERS[numbering as usize][self.0 as usize] {
            NO => None,
            private @ ARM_PRIVATE.. => Some(0x0f_0000 | u32::from(private - ARM_PRIVATE)),
            number => Some(u32::from(number)),
        }
    }
}

static NAMES: [&str; CALLS] = {
    let mut names = [""; CALLS];
    let mut row = 0;
    while row < CALLS {
        names[row] = ROWS[row].0;
        row += 1;
    }
    names
};

static NUMBERS: [[u16; CALLS]; NUMBERINGS] = {
    let mut numbers = [[NO; CALLS]; NUMBERINGS];
    let mut row = 0;
    while row < CALLS {
        let mut column = 0;
        while column < NUMBERINGS {
            numbers[column][row] = ROWS[row].1[column];
            column += 1;
        }
        row += 1;
    }
    numbers
};

#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = Name> + Clone {
    (0..CALLS).map(|row| Name(row as u16))
}
