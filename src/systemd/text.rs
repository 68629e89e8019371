//! The value of an `org.systemd.property.` annotation: text as `systemd` and GVariant write it. Pure.

use anyhow::{Result, bail};

use super::wire::Value;

/// `true`, `5`, `uint64 5`, `'word'`, `['a', 'b']`. A number without a type is an int32, with a point a double.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value()?;
    match parser.rest.trim() {
        "" => Ok(value),
        rest => bail!("unexpected {rest:?} behind the value"),
    }
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn value(&mut self) -> Result<Value> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => self.quoted(quote).map(Value::Str),
            Some('[') => self.array(),
            Some(_) => self.word(),
            None => bail!("a value is missing"),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut letters = self.rest[1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some((_, next)) => text.push(next),
                    None => break,
                },
                letter if letter == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(text);
                }
                letter => text.push(letter),
            }
        }
        bail!("a string without an end")
    }

    fn array(&mut self) -> Result<Value> {
        let mut values: Vec<Value> = Vec::new();
        self.rest = &self.rest[1..];
        loop {
            let value = self.value()?;
            if values.first().is_some_and(|first| first.signature() != value.signature()) {
                bail!("an array with elements of several types");
            }
            values.push(value);
            self.rest = self.rest.trim_start();
            match self.rest.chars().next() {
                Some(',') => self.rest = &self.rest[1..],
                Some(']') => break,
                _ => bail!("an array without an end"),
            }
        }
        self.rest = &self.rest[1..];
        Ok(Value::Array(values[0].signature(), values))
    }

    fn next_word(&mut self) -> &'t str {
        let text = self.rest.trim_start();
        let end =
            text.find(|letter: char| letter.is_whitespace() || ",]".contains(letter)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        word
    }

    fn word(&mut self) -> Result<Value> {
        let word = self.next_word();
        let kind = match word {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            word if word.starts_with(|letter: char| letter.is_ascii_alphabetic()) => word,
            word if word.contains('.') => return number("double", word),
            word => return number("int32", word),
        };
        match kind {
            "string" | "objectpath" => self.value(),
            kind => number(kind, self.next_word()),
        }
    }
}

fn number(kind: &str, word: &str) -> Result<Value> {
    let value = match kind {
        "byte" => word.parse().ok().map(Value::Byte),
        "int16" => word.parse().ok().map(Value::Int16),
        "uint16" => word.parse().ok().map(Value::Uint16),
        "int32" => word.parse().ok().map(Value::Int32),
        "uint32" => word.parse().ok().map(Value::Uint32),
        "int64" => word.parse().ok().map(Value::Int64),
        "uint64" => word.parse().ok().map(Value::Uint64),
        "double" => word.parse().ok().map(Value::Double),
        _ => bail!("{kind:?} is no type"),
    };
    match value {
        Some(value) => Ok(value),
        None => bail!("{word:?} is no {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let strings =
            |words: &[&str]| Value::Array("s".to_owned(), words.iter().map(|w| Value::text(*w)).collect());
        let table = [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::Int32(5)),
            ("-5", Value::Int32(-5)),
            ("1.5", Value::Double(1.5)),
            ("uint64 123456789", Value::Uint64(123_456_789)),
            ("byte 7", Value::Byte(7)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""it's""#, Value::text("it's")),
            (r"'it\'s'", Value::text("it's")),
            ("string 'x'", Value::text("x")),
            ("['a', \"b\"]", strings(&["a", "b"])),
            ("[uint32 1,uint32 2]", Value::Array("u".to_owned(), vec![Value::Uint32(1), Value::Uint32(2)])),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in
            ["", "'x", "uint64", "uint64 -1", "uint7 1", "[1, 'a']", "[1", "[]", "1 2", "word", "99999999999"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
