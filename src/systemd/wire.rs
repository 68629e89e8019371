//! D-Bus messages as bytes: the little of them that talking to systemd takes. Pure.

use anyhow::{Context, Result, bail};

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Str(String),
    /// The elements' signature, because there may be none of them.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Value::Str(text.into())
    }

    pub fn variant(value: Value) -> Self {
        Value::Variant(Box::new(value))
    }

    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".to_owned(),
            Value::Bool(_) => "b".to_owned(),
            Value::Int16(_) => "n".to_owned(),
            Value::Uint16(_) => "q".to_owned(),
            Value::Int32(_) => "i".to_owned(),
            Value::Uint32(_) => "u".to_owned(),
            Value::Int64(_) => "x".to_owned(),
            Value::Uint64(_) => "t".to_owned(),
            Value::Double(_) => "d".to_owned(),
            Value::Str(_) => "s".to_owned(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".to_owned(),
        }
    }
}

/// What the first letter of a signature is aligned to.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn raw<const N: usize>(&mut self, bytes: [u8; N]) {
        self.pad(N);
        self.0.extend_from_slice(&bytes);
    }

    fn text(&mut self, text: &str) {
        self.raw((text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.0.push(*number),
            Value::Bool(yes) => self.raw(u32::from(*yes).to_le_bytes()),
            Value::Int16(number) => self.raw(number.to_le_bytes()),
            Value::Uint16(number) => self.raw(number.to_le_bytes()),
            Value::Int32(number) => self.raw(number.to_le_bytes()),
            Value::Uint32(number) => self.raw(number.to_le_bytes()),
            Value::Int64(number) => self.raw(number.to_le_bytes()),
            Value::Uint64(number) => self.raw(number.to_le_bytes()),
            Value::Double(number) => self.raw(number.to_le_bytes()),
            Value::Str(text) => self.text(text),
            Value::Array(element, values) => self.array(element, values),
            Value::Struct(fields) => {
                self.pad(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    /// The length counts from the first element, not from the padding before it.
    fn array(&mut self, element: &str, values: &[Value]) {
        self.raw([0; 4]);
        let place = self.0.len() - 4;
        self.pad(alignment(element));
        let start = self.0.len();
        values.iter().for_each(|value| self.value(value));
        let length = ((self.0.len() - start) as u32).to_le_bytes();
        self.0[place..place + 4].copy_from_slice(&length);
    }
}

const CALL: u8 = 1;
const REPLY: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call of a method of systemd's manager.
pub fn call(serial: u32, member: &str, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.value(argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut header = Writer(vec![b'l', CALL, 0, 1]);
    header.raw((body.0.len() as u32).to_le_bytes());
    header.raw(serial.to_le_bytes());
    header.raw([0; 4]);
    let fields = [
        (PATH, "o", "/org/freedesktop/systemd1"),
        (INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
        (MEMBER, "s", member),
        (DESTINATION, "s", "org.freedesktop.systemd1"),
        (SIGNATURE, "g", &signature),
    ];
    let start = header.0.len();
    for (code, kind, text) in fields {
        header.pad(8);
        header.0.push(code);
        header.signature(kind);
        if kind == "g" { header.signature(text) } else { header.text(text) }
    }
    let length = ((header.0.len() - start) as u32).to_le_bytes();
    header.0[start - 4..start].copy_from_slice(&length);
    header.pad(8);
    header.0.extend_from_slice(&body.0);
    header.0
}

/// What comes from systemd, as far as anybody here looks at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// With the strings at the beginning of its body.
    Reply {
        to: u32,
        texts: Vec<String>,
    },
    Error {
        to: u32,
        name: String,
        texts: Vec<String>,
    },
    Signal {
        member: String,
        texts: Vec<String>,
    },
    Other,
}

/// The length of the fixed part of a header.
pub const PRELUDE: usize = 16;

/// No message of systemd's is longer, and nobody may make us keep more.
const LONGEST: usize = 1 << 20;

/// How long the message that begins with `bytes` is; None: not enough is there to know.
pub fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(prelude) = bytes.get(..PRELUDE) else { return Ok(None) };
    if prelude[0] != b'l' {
        bail!("a message in an unknown byte order");
    }
    let number =
        |at: usize| u32::from_le_bytes([prelude[at], prelude[at + 1], prelude[at + 2], prelude[at + 3]]);
    let (body, fields) = (number(4) as usize, number(12) as usize);
    let total = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(PRELUDE + body));
    total.filter(|total| *total <= LONGEST).map(Some).context("a message that is too long")
}

/// Reads a whole message.
pub fn read(bytes: &[u8]) -> Result<Message> {
    let mut reader = Reader { bytes, at: 1 };
    let kind = reader.byte()?;
    reader.at = 12;
    let end = reader.number()? as usize + PRELUDE;
    let (mut to, mut member, mut name, mut signature) = (0, String::new(), String::new(), String::new());
    while reader.at < end {
        reader.pad(8)?;
        let code = reader.byte()?;
        let field = reader.signature()?;
        match (code, field.as_str()) {
            (REPLY_SERIAL, "u") => to = reader.number()?,
            (MEMBER, "s") => member = reader.text()?,
            (ERROR_NAME, "s") => name = reader.text()?,
            (SIGNATURE, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            (_, other) => bail!("a header field of type {other:?}"),
        }
    }
    reader.pad(8)?;
    let texts = reader.texts(&signature)?;
    Ok(match kind {
        REPLY => Message::Reply { to, texts },
        ERROR => Message::Error { to, name, texts },
        SIGNAL => Message::Signal { member, texts },
        _ => Message::Other,
    })
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.context("a message that ends too early")?;
        let piece = &self.bytes[self.at..end];
        self.at = end;
        Ok(piece)
    }

    fn pad(&mut self, to: usize) -> Result<()> {
        let count = self.at.next_multiple_of(to) - self.at;
        self.take(count).map(drop)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32> {
        self.pad(4)?;
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()? as usize;
        self.string(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.byte()? as usize;
        self.string(length)
    }

    /// The strings among the first values, up to one of a type that is neither string nor number.
    fn texts(&mut self, signature: &str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for letter in signature.bytes() {
            match letter {
                b's' | b'o' => texts.push(self.text()?),
                b'u' => drop(self.number()?),
                _ => break,
            }
        }
        Ok(texts)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
