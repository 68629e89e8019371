//! Terms as people write them: one word and one value each, in annotations of config.json (`deja.fair.shares`),
//! on the command line of `fair set`, and in what `fair set` remembers. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::model::Terms;
use super::squeeze::Memory;

/// Before a word, in annotations.
pub const PREFIX: &str = "deja.fair.";

pub const WORDS: [&str; 9] = [
    "shares",
    "reservation",
    "limit",
    "class",
    "tenant",
    "best-effort",
    "memory-reservation",
    "memory-limit",
    "squeeze",
];

/// Words and values; who says nothing about a word leaves it to somebody else.
pub type Said = BTreeMap<String, String>;

/// What one container asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    pub class: Option<String>,
    pub tenant: Option<String>,
    pub terms: Terms,
    pub memory: Memory,
}

/// What annotations say. Other annotations are somebody else's, but a word behind our prefix that means
/// nothing is a mistake.
pub fn of_annotations<'a>(annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Said> {
    let mut said = Said::new();
    for (name, value) in annotations {
        let Some(word) = name.strip_prefix(PREFIX) else { continue };
        if !WORDS.contains(&word) {
            bail!("annotation {name:?}: {PREFIX}* knows {}", WORDS.join(", "));
        }
        said.insert(word.to_owned(), value.to_owned());
    }
    Ok(said)
}

/// Understands what was said, over `usual` terms. An empty value, or `none`, takes back what was said before.
pub fn read(said: &Said, usual: Terms) -> Result<Asked> {
    let mut asked = Asked { terms: usual, ..Asked::default() };
    for (word, value) in said.iter().filter(|(_, value)| !value.is_empty() && *value != "none") {
        put(&mut asked, word, value).with_context(|| format!("{word} {value:?}"))?;
    }
    if asked.terms.best_effort && !said.contains_key("reservation") {
        asked.terms.reservation = 0.0;
    }
    asked.terms.check()?;
    Ok(asked)
}

fn put(asked: &mut Asked, word: &str, value: &str) -> Result<()> {
    let number = || value.parse::<f64>().ok().context("not a number");
    match word {
        "shares" => asked.terms.shares = number()?,
        "reservation" => asked.terms.reservation = number()?,
        "limit" => asked.terms.limit = number()?,
        "best-effort" => asked.terms.best_effort = yes_or_no(value)?,
        "memory-reservation" => asked.memory.reservation = Some(bytes(value)?),
        "memory-limit" => asked.memory.limit = Some(bytes(value)?),
        "squeeze" => asked.memory.squeeze = yes_or_no(value)?,
        "class" => asked.class = Some(group(value)?),
        "tenant" => asked.tenant = Some(group(value)?),
        _ => bail!("not one of {}", WORDS.join(", ")),
    }
    Ok(())
}

fn yes_or_no(value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => bail!("neither true nor false"),
    }
}

/// `64M`, or bytes as a number.
fn bytes(value: &str) -> Result<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => bail!("not a size: bytes, or a number with k, m, g or t"),
    };
    let number: u64 = digits.parse().ok().context("not a size: bytes, or a number with k, m, g or t")?;
    number.checked_mul(1 << power).filter(|bytes| *bytes > 0).context("not a size there is")
}

/// Paths are made of these names, and lines of text.
fn group(name: &str) -> Result<String> {
    if name.contains('/') || name.chars().any(char::is_control) {
        bail!("a name holds no slash and no control character");
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pairs: &[(&str, &str)]) -> Said {
        pairs.iter().map(|(word, value)| ((*word).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn words_become_terms() {
        let usual = Terms::of_shares(2.0);
        assert_eq!(read(&Said::new(), usual).unwrap(), Asked { terms: usual, ..Asked::default() });
        let all = said(&[
            ("shares", "0.5"),
            ("reservation", "0.25"),
            ("limit", "1.5"),
            ("class", "students"),
            ("tenant", "ann"),
            ("best-effort", "false"),
            ("memory-reservation", "4096"),
            ("memory-limit", "64M"),
            ("squeeze", "true"),
        ]);
        let asked = read(&all, usual).unwrap();
        assert_eq!((asked.class.as_deref(), asked.tenant.as_deref()), (Some("students"), Some("ann")));
        let expected = Terms { shares: 0.5, reservation: 0.25, limit: 1.5, best_effort: false };
        assert_eq!(asked.terms, expected);
        let memory = Memory { reservation: Some(4096), limit: Some(64 << 20), squeeze: true };
        assert_eq!(asked.memory, memory);
        for none in ["", "none"] {
            let taken_back = said(&[("shares", none), ("limit", none), ("tenant", none)]);
            assert_eq!(read(&taken_back, usual).unwrap(), Asked { terms: usual, ..Asked::default() });
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_word() {
        let table = [
            ("shares", "much", "shares \"much\": not a number"),
            ("shares", "0", "shares 0 is not a positive number"),
            ("limit", "-1", "limit -1 is not a positive number of CPUs"),
            ("best-effort", "yes", "best-effort \"yes\": neither true nor false"),
            ("tenant", "a/b", "tenant \"a/b\": a name holds no slash and no control character"),
            ("memory-limit", "64X", "memory-limit \"64X\": not a size: "),
            ("memory-limit", "0", "memory-limit \"0\": not a size there is"),
            ("memory-reservation", "99999999t", "memory-reservation \"99999999t\": not a size there is"),
            ("weight", "1", "weight \"1\": not one of shares, "),
        ];
        for (word, value, expected) in table {
            let error = format!("{:#}", read(&said(&[(word, value)]), Terms::default()).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn only_our_annotations_are_ours() {
        let annotations = [("io.podman.x", "1"), ("deja.fair.shares", "3")];
        assert_eq!(of_annotations(annotations.into_iter()).unwrap(), said(&[("shares", "3")]));
        let error = of_annotations([("deja.fair.share", "3")].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("annotation \"deja.fair.share\": deja.fair.* knows shares, "), "{error}");
    }
}
