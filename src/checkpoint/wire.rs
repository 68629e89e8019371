//! The little of protobuf that CRIU's messages need: numbers, texts, and messages in messages. Pure.
//!
//! A message is a row of fields, each a key (number and kind) and a value. Fields that are not known are passed
//! over, as protobuf wants it; what is cut short or cannot be is an error, never a panic.

use anyhow::{Result, bail};

const NUMBER: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const BYTES: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// A message in the making.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn number(&mut self, field: u32, value: u64) {
        self.key(field, NUMBER);
        self.varint(value);
    }

    /// Negative numbers take ten bytes, as an int32 of protobuf does.
    pub fn signed(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value) as u64);
    }

    /// A flag that is off is left out, which means the same.
    pub fn flag(&mut self, field: u32, on: bool) {
        if on {
            self.number(field, 1);
        }
    }

    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub fn message(&mut self, field: u32, value: &Message) {
        self.bytes(field, &value.0);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

impl<'b> Value<'b> {
    pub fn bytes(self) -> Result<&'b [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => bail!("a number where bytes should be"),
        }
    }

    pub fn number(self) -> Result<u64> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) => bail!("bytes where a number should be"),
        }
    }

    /// A text; what is not UTF-8 is shown as well as it can be.
    pub fn text(self) -> Result<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Calls `each` with the number and the value of every field, in order.
pub fn fields<'b>(mut message: &'b [u8], mut each: impl FnMut(u64, Value<'b>) -> Result<()>) -> Result<()> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            NUMBER => Value::Number(varint(&mut message)?),
            BYTES => {
                let length = varint(&mut message)?;
                Value::Bytes(take(&mut message, length)?)
            }
            EIGHT_BYTES => Value::Bytes(take(&mut message, 8)?),
            FOUR_BYTES => Value::Bytes(take(&mut message, 4)?),
            kind => bail!("a field of the unknown kind {kind}"),
        };
        each(key >> 3, value)?;
    }
    Ok(())
}

fn take<'b>(rest: &mut &'b [u8], length: u64) -> Result<&'b [u8]> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let Some((taken, after)) = split else { bail!("a field is cut short") };
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let Some((byte, after)) = rest.split_first() else { bail!("a number is cut short") };
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
        let mut found = Vec::new();
        fields(bytes, |number, value| {
            found.push((number, value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn bytes_are_those_of_protobuf() {
        let mut inner = Message::default();
        inner.text(1, "k");
        let mut message = Message::default();
        message.number(1, 300);
        message.signed(2, -1);
        message.flag(3, false);
        message.message(27, &inner);
        let expected = b"\x08\xac\x02\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xda\x01\x03\x0a\x01k";
        assert_eq!(message.into_bytes(), expected);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        for (bytes, reason) in [
            (b"\x08" as &[u8], "a number is cut short"),
            (b"\x0a\x05abc", "a field is cut short"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a field is cut short"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number is too long"),
            (b"\x0b", "a field of the unknown kind 3"),
            (b"\x0d\x01\x02", "a field is cut short"),
        ] {
            assert_eq!(read(bytes).unwrap_err().to_string(), reason, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in proptest::collection::vec((1u32..1000, any::<u64>(), any::<Option<Vec<u8>>>()), 0..20)) {
            let mut message = Message::default();
            for (field, number, bytes) in &entries {
                match bytes {
                    Some(bytes) => message.bytes(*field, bytes),
                    None => message.number(*field, *number),
                }
            }
            let bytes = message.into_bytes();
            let expected: Vec<(u64, Value)> = entries
                .iter()
                .map(|(field, number, bytes)| {
                    let value = bytes.as_ref().map_or(Value::Number(*number), |bytes| Value::Bytes(bytes));
                    (u64::from(*field), value)
                })
                .collect();
            prop_assert_eq!(read(&bytes).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes));
        }
    }
}
