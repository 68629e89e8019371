//! Extended regular expressions as POSIX has them, for short texts. Pure.
//!
//! An expression is a tree, and what matches is found by following all possible ends at once: from a set of places in the text
//! each part leads to another set. No expression makes that take exponentially long.

use std::iter::Peekable;
use std::str::Bytes;

pub struct Regex(Node);

enum Node {
    One(Box<Set>),
    Begin,
    End,
    Sequence(Vec<Node>),
    Either(Vec<Node>),
    Repeat { node: Box<Node>, least: usize, most: Option<usize> },
}

/// Some of the 256 bytes.
#[derive(Clone)]
struct Set([bool; 256]);

/// As many repetitions as POSIX asks every implementation for.
const MOST: usize = 255;
/// So many ( in each other, and repetitions of one repetition.
const DEEPEST: usize = 100;
const REPEATED: usize = 4;

impl Regex {
    /// The error says what is wrong with the expression.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        let mut parser = Parser { rest: pattern.bytes().peekable(), depth: 0 };
        let node = parser.either()?;
        match parser.rest.next() {
            None => Ok(Self(node)),
            Some(_) => Err("a ) without a ("),
        }
    }

    /// Whether any part of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.follow(text.as_bytes(), &vec![true; text.len() + 1]).contains(&true)
    }
}

impl Node {
    /// Where it may end, from any of these places on.
    fn follow(&self, text: &[u8], from: &[bool]) -> Vec<bool> {
        match self {
            Node::One(set) => {
                let ends = text.iter().zip(from).map(|(byte, from)| *from && set.0[usize::from(*byte)]);
                std::iter::once(false).chain(ends).collect()
            }
            Node::Begin => from.iter().enumerate().map(|(place, from)| *from && place == 0).collect(),
            Node::End => from.iter().enumerate().map(|(place, from)| *from && place == text.len()).collect(),
            Node::Sequence(parts) => parts.iter().fold(from.to_vec(), |from, part| part.follow(text, &from)),
            Node::Either(parts) => {
                let mut ends = vec![false; from.len()];
                for part in parts {
                    unite(&mut ends, &part.follow(text, from));
                }
                ends
            }
            Node::Repeat { node, least, most } => repeat(node, *least, *most, text, from),
        }
    }
}

fn repeat(node: &Node, least: usize, most: Option<usize>, text: &[u8], from: &[bool]) -> Vec<bool> {
    let mut now = from.to_vec();
    for _ in 0..least {
        let next = node.follow(text, &now);
        if std::mem::replace(&mut now, next) == now {
            break;
        }
    }
    let mut ends = now.clone();
    for _ in least..most.unwrap_or(usize::MAX) {
        now = node.follow(text, &now);
        if !unite(&mut ends, &now) {
            break;
        }
    }
    ends
}

/// Whether something new came in.
fn unite(all: &mut [bool], more: &[bool]) -> bool {
    let mut new = false;
    for (all, more) in all.iter_mut().zip(more) {
        new |= *more && !*all;
        *all |= *more;
    }
    new
}

impl Set {
    fn of(member: impl Fn(u8) -> bool) -> Self {
        Self(std::array::from_fn(|byte| member(byte as u8)))
    }

    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"alpha" => Self::of(|byte| byte.is_ascii_alphabetic()),
            b"digit" => Self::of(|byte| byte.is_ascii_digit()),
            b"alnum" => Self::of(|byte| byte.is_ascii_alphanumeric()),
            b"upper" => Self::of(|byte| byte.is_ascii_uppercase()),
            b"lower" => Self::of(|byte| byte.is_ascii_lowercase()),
            b"punct" => Self::of(|byte| byte.is_ascii_punctuation()),
            b"space" => Self::of(|byte| byte.is_ascii_whitespace() || byte == 11),
            b"blank" => Self::of(|byte| byte == b' ' || byte == b'\t'),
            b"xdigit" => Self::of(|byte| byte.is_ascii_hexdigit()),
            b"cntrl" => Self::of(|byte| byte.is_ascii_control()),
            b"graph" => Self::of(|byte| byte.is_ascii_graphic()),
            b"print" => Self::of(|byte| byte.is_ascii_graphic() || byte == b' '),
            _ => return None,
        })
    }
}

struct Parser<'p> {
    rest: Peekable<Bytes<'p>>,
    depth: usize,
}

impl Parser<'_> {
    fn either(&mut self) -> Result<Node, &'static str> {
        let mut parts = vec![self.sequence()?];
        while self.rest.next_if_eq(&b'|').is_some() {
            parts.push(self.sequence()?);
        }
        Ok(Node::Either(parts))
    }

    fn sequence(&mut self) -> Result<Node, &'static str> {
        let mut parts = Vec::new();
        while let Some(byte) = self.rest.next_if(|byte| !matches!(byte, b'|' | b')')) {
            let mut node = self.atom(byte)?;
            let mut repeated = 0;
            while let Some((least, most)) = self.count()? {
                node = Node::Repeat { node: Box::new(node), least, most };
                repeated += 1;
                if repeated > REPEATED {
                    return Err("too many repetitions of a repetition");
                }
            }
            parts.push(node);
        }
        Ok(Node::Sequence(parts))
    }

    fn atom(&mut self, byte: u8) -> Result<Node, &'static str> {
        Ok(match byte {
            b'^' => Node::Begin,
            b'$' => Node::End,
            b'.' => Node::One(Box::new(Set::of(|_| true))),
            b'*' | b'+' | b'?' | b'{' => return Err("nothing before a repetition"),
            b'[' => Node::One(Box::new(self.set()?)),
            b'\\' => Node::One(Box::new(self.escaped()?)),
            b'(' => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err("too many ( in each other");
                }
                let node = self.either()?;
                self.rest.next_if_eq(&b')').ok_or("a ( without a )")?;
                self.depth -= 1;
                node
            }
            other => Node::One(Box::new(Set::of(|byte| byte == other))),
        })
    }

    fn escaped(&mut self) -> Result<Set, &'static str> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        Ok(match self.rest.next().ok_or("a \\ at the end")? {
            b'w' => Set::of(word),
            b'W' => Set::of(|byte| !word(byte)),
            b's' => Set::of(|byte| byte.is_ascii_whitespace()),
            b'S' => Set::of(|byte| !byte.is_ascii_whitespace()),
            byte if byte.is_ascii_alphanumeric() => {
                return Err("a \\ before a letter or digit that has no meaning");
            }
            other => Set::of(|byte| byte == other),
        })
    }

    fn count(&mut self) -> Result<Option<(usize, Option<usize>)>, &'static str> {
        let simple = match self.rest.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => {
                self.rest.next();
                return self.bounds().map(Some);
            }
            _ => return Ok(None),
        };
        self.rest.next();
        Ok(Some(simple))
    }

    /// Between braces: `3`, `3,` or `3,5`.
    fn bounds(&mut self) -> Result<(usize, Option<usize>), &'static str> {
        const WRONG: &str = "between { and } stand one or two numbers up to 255";
        let least = self.number()?.ok_or(WRONG)?;
        let most = match self.rest.next_if_eq(&b',') {
            Some(_) => self.number()?,
            None => Some(least),
        };
        self.rest.next_if_eq(&b'}').ok_or(WRONG)?;
        match least > MOST || most.is_some_and(|most| most > MOST || most < least) {
            true => Err(WRONG),
            false => Ok((least, most)),
        }
    }

    fn number(&mut self) -> Result<Option<usize>, &'static str> {
        let mut number = None;
        while let Some(digit) = self.rest.next_if(u8::is_ascii_digit) {
            let more = number.unwrap_or(0) * 10 + usize::from(digit - b'0');
            number = Some(more.min(MOST + 1));
        }
        Ok(number)
    }

    /// Between brackets. A ] is one of the set where it comes first.
    fn set(&mut self) -> Result<Set, &'static str> {
        const OPEN: &str = "a [ without a ]";
        let negated = self.rest.next_if_eq(&b'^').is_some();
        let mut set = Set::of(|_| false);
        let mut first = true;
        loop {
            let byte = self.rest.next().ok_or(OPEN)?;
            if byte == b']' && !first {
                break;
            }
            first = false;
            if byte == b'[' && matches!(self.rest.peek(), Some(b':' | b'.' | b'=')) {
                let class = self.class()?;
                set.0.iter_mut().zip(class.0).for_each(|(all, more)| *all |= more);
                continue;
            }
            let (low, high) = self.range(byte).ok_or(OPEN)?;
            if low > high {
                return Err("a range between [ and ] that goes backwards");
            }
            set.0[usize::from(low)..=usize::from(high)].fill(true);
        }
        if negated {
            set.0.iter_mut().for_each(|member| *member = !*member);
        }
        Ok(set)
    }

    /// A single byte, or from one to another: a - at either end of the brackets is itself.
    fn range(&mut self, low: u8) -> Option<(u8, u8)> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some(b'-') || ahead.next()? == b']' {
            return Some((low, low));
        }
        self.rest.next();
        Some((low, self.rest.next()?))
    }

    /// `[:alpha:]` and the like.
    fn class(&mut self) -> Result<Set, &'static str> {
        self.rest.next_if_eq(&b':').ok_or("[. and [= are not known")?;
        let mut name = Vec::new();
        while let Some(byte) = self.rest.next_if(u8::is_ascii_lowercase) {
            name.push(byte);
        }
        let ends = self.rest.next() == Some(b':') && self.rest.next() == Some(b']');
        Set::named(&name).filter(|_| ends).ok_or("a class between [: and :] that is not known")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_match_as_posix_says() {
        let table = [
            ("^web-[0-9]+$", "web-12", true),
            ("^web-[0-9]+$", "web-x", false),
            ("b|d", "abc", true),
            ("b|d", "ac", false),
            ("", "anything", true),
            ("^$", "", true),
            ("^$", "x", false),
            ("a.c", "xabcx", true),
            ("^(ab)*$", "ababab", true),
            ("^(ab)*$", "aba", false),
            ("^(a|b)*c$", "abbac", true),
            ("^a{2,3}$", "aa", true),
            ("^a{2,3}$", "aaaa", false),
            ("^a{2}$", "aaa", false),
            ("^a{2,}$", "aaaaa", true),
            ("^a?b$", "b", true),
            ("^(a*)*$", "aaa", true),
            ("^(a?){3}b$", "aab", true),
            ("[^a]", "aaa", false),
            ("[^a]", "aab", true),
            ("^[]a]+$", "]a]", true),
            ("^[a-]+$", "a-a", true),
            ("^[^]]$", "]", false),
            ("^[[:alpha:]_][[:alnum:]]*$", "_9z", true),
            ("[[:digit:]]", "abc", false),
            (r"^a\.b$", "a.b", true),
            (r"^a\.b$", "axb", false),
            (r"^\w+$", "one_2", true),
            (r"\W", "one_2", false),
            ("(^a|b$)", "xb", true),
            ("x(|y)z", "xz", true),
            ("a|^b", "cb", false),
            ("^[a-c]{3}$", "cab", true),
        ];
        for (pattern, text, expected) in table {
            let regex = Regex::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            assert_eq!(regex.is_match(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_explained() {
        let table = [
            ("(", "a ( without"),
            ("a)", "a ) without"),
            ("[a", "a [ without"),
            ("[", "a [ without"),
            ("[a-", "a [ without"),
            ("*a", "nothing before"),
            ("a|+", "nothing before"),
            ("a\\", "at the end"),
            (r"\d", "no meaning"),
            ("a{", "between { and }"),
            ("a{2", "between { and }"),
            ("a{3,2}", "between { and }"),
            ("a{256}", "between { and }"),
            ("[b-a]", "backwards"),
            ("[[:none:]]", "not known"),
            ("[[=a=]]", "not known"),
        ];
        for (pattern, words) in table {
            let why = Regex::new(pattern).err().unwrap_or_else(|| panic!("{pattern} is an expression"));
            assert!(why.contains(words), "{pattern}: {why}");
        }
        assert!(Regex::new(&"(".repeat(100_000)).is_err());
        assert!(Regex::new(&format!("a{}", "*".repeat(100_000))).is_err());
    }

    #[test]
    fn what_others_try_for_ever_takes_no_time() {
        let regex = Regex::new("^(a|a)*(a*)*(a?){100}b$").unwrap();
        assert!(!regex.is_match(&"a".repeat(1000)));
    }

    proptest! {
        #[test]
        fn no_pattern_brings_it_down(pattern in "[ab()|*+?{},0-9\\[\\]^$.:\\\\-]{0,24}", text in "[ab]{0,12}") {
            if let Ok(regex) = Regex::new(&pattern) {
                regex.is_match(&text);
            }
        }

        #[test]
        fn a_text_matches_itself(text in "[a-zA-Z0-9_+-]{0,40}") {
            let pattern: String = text.chars().flat_map(|letter| match letter {
                '+' => vec!['\\', '+'],
                other => vec![other],
            }).collect();
            prop_assert!(Regex::new(&["^", &pattern, "$"].concat()).unwrap().is_match(&text));
        }
    }
}
