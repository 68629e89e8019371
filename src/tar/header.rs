//! The block of 512 bytes that stands before every entry (POSIX ustar), and the records that say what does not fit
//! into it (pax). Pure.

use anyhow::{Context, Result, bail, ensure};

pub const BLOCK: usize = 512;

pub type Block = [u8; BLOCK];

const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const SUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const TARGET: std::ops::Range<usize> = 157..257;
const MAGIC: std::ops::Range<usize> = 257..263;
const VERSION: std::ops::Range<usize> = 263..265;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// A block taken apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Header {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: i64,
    pub target: Vec<u8>,
    pub major: i64,
    pub minor: i64,
}

impl Header {
    /// None: a block of zeros, which is the end.
    pub fn read(block: &Block) -> Result<Option<Self>> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = number(&block[SUM]).context("the sum of a header")?;
        let signed = |at: usize| i64::from(block[at] as i8);
        let sums = [sum_of(|at| i64::from(block[at])), sum_of(signed)];
        ensure!(sums.contains(&sum), "a header is damaged, or this is no tar archive");
        let mut name = text(&block[NAME]);
        // GNU's own form has other things where the prefix is.
        if &block[MAGIC] == b"ustar\0" && block[PREFIX.start] != 0 {
            name = [text(&block[PREFIX]).as_slice(), b"/", &name].concat();
        }
        let field = |range: std::ops::Range<usize>, what: &'static str| number(&block[range]).context(what);
        Ok(Some(Self {
            name,
            kind: block[KIND],
            mode: field(MODE, "a mode")?,
            uid: field(UID, "an owner")?,
            gid: field(GID, "a group")?,
            size: field(SIZE, "a size")?,
            mtime: field(MTIME, "a time")?,
            target: text(&block[TARGET]),
            major: field(MAJOR, "a device number").unwrap_or(0),
            minor: field(MINOR, "a device number").unwrap_or(0),
        }))
    }

    /// What does not fit is cut, and `misfits` says so beforehand.
    pub fn write(&self) -> Block {
        let mut block = [0; BLOCK];
        put_text(&mut block[NAME], &self.name);
        for (range, value) in [
            (MODE, self.mode),
            (UID, self.uid),
            (GID, self.gid),
            (SIZE, self.size),
            (MTIME, self.mtime),
            (MAJOR, self.major),
            (MINOR, self.minor),
        ] {
            put_number(&mut block[range], value);
        }
        put_text(&mut block[TARGET], &self.target);
        block[KIND] = self.kind;
        block[MAGIC].copy_from_slice(b"ustar\0");
        block[VERSION].copy_from_slice(b"00");
        let sum = sum_of(|at| i64::from(block[at]));
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// The records that say what the block cannot.
    pub fn misfits(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut found = Vec::new();
        for (key, text, range) in [("path", &self.name, NAME), ("linkpath", &self.target, TARGET)] {
            if text.len() > range.len() {
                found.push((key, text.clone()));
            }
        }
        for (key, value, range) in [
            ("uid", self.uid, UID),
            ("gid", self.gid, GID),
            ("size", self.size, SIZE),
            ("mtime", self.mtime, MTIME),
        ] {
            if !fits(value, range.len()) {
                found.push((key, value.to_string().into_bytes()));
            }
        }
        found
    }
}

/// Of all bytes, the sum itself being blanks.
fn sum_of(byte: impl Fn(usize) -> i64) -> i64 {
    (0..BLOCK).map(|at| if SUM.contains(&at) { i64::from(b' ') } else { byte(at) }).sum()
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits, or GNU's binary form, which the first bit tells.
fn number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { field[0] as i8 } else { (field[0] & 0x3f) as i8 };
        return field[1..].iter().try_fold(i64::from(first), |value, byte| {
            let shifted = value.checked_mul(256).context("it is too large")?;
            Ok(shifted + i64::from(*byte))
        });
    }
    let end = |byte: &u8| *byte == 0 || *byte == b' ';
    let digits = field.iter().skip_while(|byte| end(byte)).take_while(|byte| !end(byte));
    digits.into_iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => {
            value.checked_mul(8).map(|value| value + i64::from(digit - b'0')).context("it is too large")
        }
        _ => bail!("it is no number"),
    })
}

fn fits(value: i64, length: usize) -> bool {
    value >= 0 && value < 1 << (3 * (length - 1))
}

/// A value that does not fit stands in a record, and is zero here.
fn put_number(field: &mut [u8], value: i64) {
    let length = field.len();
    let value = if fits(value, length) { value } else { 0 };
    let digits = format!("{value:0width$o}", width = length - 1);
    field[..length - 1].copy_from_slice(digits.as_bytes());
}

/// Records as one text: length, key, value.
pub fn write_records<'r>(records: impl Iterator<Item = (&'r [u8], &'r [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + b" =\n".len();
        // The length counts its own digits.
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(length.to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// A record's key and value.
pub type Record<'r> = (&'r [u8], &'r [u8]);

pub fn read_records(mut text: &[u8]) -> Result<Vec<Record<'_>>> {
    const DAMAGED: &str = "a pax record is damaged";
    let mut records = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().position(|byte| *byte == b' ').context(DAMAGED)?;
        let length = std::str::from_utf8(&text[..blank]).ok().and_then(|digits| digits.parse().ok());
        let (record, rest) = length.and_then(|length| text.split_at_checked(length)).context(DAMAGED)?;
        let record =
            record.get(blank + 1..).and_then(|record| record.strip_suffix(b"\n")).context(DAMAGED)?;
        let equals = record.iter().position(|byte| *byte == b'=').context(DAMAGED)?;
        records.push((&record[..equals], &record[equals + 1..]));
        text = rest;
    }
    Ok(records)
}
