//! A line that is being typed: what keys do to it. Pure; `shell` reads the keys and draws the line.

/// A key, whatever bytes a terminal has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    KillLeft,
    KillRight,
    KillWord,
    Clear,
    /// Control and C.
    Cancel,
    /// Control and D: the end on an empty line.
    Finish,
}

/// Takes bytes as they come and gives the keys they are.
#[derive(Default)]
pub struct Keys {
    waiting: Vec<u8>,
}

impl Keys {
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        self.waiting.push(byte);
        let (known, key) = match self.waiting.as_slice() {
            [0x1b, rest @ ..] => escape(rest),
            [byte] if *byte < 0x20 || *byte == 0x7f => (true, control(*byte)),
            bytes => character(bytes),
        };
        if known {
            self.waiting.clear();
        }
        key
    }
}

fn control(byte: u8) -> Option<Key> {
    Some(match byte {
        0x01 => Key::Home,
        0x02 => Key::Left,
        0x03 => Key::Cancel,
        0x04 => Key::Finish,
        0x05 => Key::End,
        0x06 => Key::Right,
        0x08 | 0x7f => Key::Backspace,
        b'\t' => Key::Tab,
        b'\n' | b'\r' => Key::Enter,
        0x0b => Key::KillRight,
        0x0c => Key::Clear,
        0x0e => Key::Down,
        0x10 => Key::Up,
        0x15 => Key::KillLeft,
        0x17 => Key::KillWord,
        _ => return None,
    })
}

/// What stands behind an escape: whether it is whole, and the key.
fn escape(rest: &[u8]) -> (bool, Option<Key>) {
    match rest {
        [] | [b'['] | [b'O'] => (false, None),
        [b'b'] => (true, Some(Key::WordLeft)),
        [b'f'] => (true, Some(Key::WordRight)),
        [0x7f] => (true, Some(Key::KillWord)),
        [b'[' | b'O', middle @ .., last] if (0x40..=0x7e).contains(last) => (true, sequence(middle, *last)),
        [b'[' | b'O', middle @ ..] => (middle.len() > 16, None),
        _ => (true, None),
    }
}

fn sequence(middle: &[u8], last: u8) -> Option<Key> {
    // With control or alt held, the terminal says so in front.
    let held = middle.ends_with(b";5") || middle.ends_with(b";3");
    Some(match (last, middle) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if held => Key::WordRight,
        (b'D', _) if held => Key::WordLeft,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', b"1" | b"7") => Key::Home,
        (b'F', _) | (b'~', b"4" | b"8") => Key::End,
        (b'~', b"3") => Key::Delete,
        _ => return None,
    })
}

fn character(bytes: &[u8]) -> (bool, Option<Key>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (true, text.chars().next().map(Key::Char)),
        // The rest of it is still to come, or it never was a character.
        Err(error) => (error.error_len().is_some() || bytes.len() > 4, None),
    }
}

/// What a key leads to, beside a changed line.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Nothing,
    Changed,
    Complete,
    Clear,
    Entered(String),
    Cancelled,
    End,
}

/// The line, where the cursor stands in it, and what was entered before.
#[derive(Default)]
pub struct Line {
    text: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// The place in the history that is shown, and the line that was typed before it was.
    shown: Option<(usize, Vec<char>)>,
}

impl Line {
    pub fn with_history(history: Vec<String>) -> Self {
        Self { history, ..Self::default() }
    }

    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// The text up to the cursor.
    pub fn head(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// As much of the line as fits into `width`, and where in it the cursor stands.
    pub fn window(&self, width: usize) -> (String, usize) {
        let width = width.max(2);
        let begin = (self.cursor + 1).saturating_sub(width);
        (self.text.iter().skip(begin).take(width - 1).collect(), self.cursor - begin)
    }

    /// Replaces the `length` characters in front of the cursor.
    pub fn replace(&mut self, length: usize, with: &str) {
        let begin = self.cursor.saturating_sub(length);
        let new: Vec<char> = with.chars().collect();
        self.text.splice(begin..self.cursor, new.iter().copied());
        self.cursor = begin + new.len();
    }

    pub fn press(&mut self, key: Key) -> Event {
        match key {
            Key::Enter => return self.enter(),
            Key::Cancel => {
                self.reset();
                return Event::Cancelled;
            }
            Key::Finish if self.text.is_empty() => return Event::End,
            Key::Tab => return Event::Complete,
            Key::Clear => return Event::Clear,
            Key::Char(letter) => {
                self.text.insert(self.cursor, letter);
                self.cursor += 1;
            }
            Key::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            Key::Delete | Key::Finish if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::KillLeft => self.cut(0, self.cursor),
            Key::KillRight => self.text.truncate(self.cursor),
            Key::KillWord => self.cut(self.word_left(), self.cursor),
            Key::Up => return self.show(-1),
            Key::Down => return self.show(1),
            Key::Backspace | Key::Delete | Key::Finish => return Event::Nothing,
        }
        Event::Changed
    }

    fn reset(&mut self) {
        (self.text, self.cursor, self.shown) = (Vec::new(), 0, None);
    }

    fn enter(&mut self) -> Event {
        let text = self.text();
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            self.history.push(text.clone());
        }
        self.reset();
        Event::Entered(text)
    }

    fn cut(&mut self, begin: usize, end: usize) {
        self.text.drain(begin..end);
        self.cursor = begin;
    }

    fn word_left(&self) -> usize {
        let before = &self.text[..self.cursor];
        let word = before.iter().rposition(|c| !c.is_whitespace()).map_or(0, |last| last + 1);
        before[..word].iter().rposition(|c| c.is_whitespace()).map_or(0, |blank| blank + 1)
    }

    fn word_right(&self) -> usize {
        let after = &self.text[self.cursor..];
        let word = after.iter().position(|c| !c.is_whitespace()).unwrap_or(after.len());
        let end =
            after[word..].iter().position(|c| c.is_whitespace()).map_or(after.len(), |blank| word + blank);
        self.cursor + end
    }

    fn show(&mut self, step: isize) -> Event {
        let at = self.shown.as_ref().map_or(self.history.len(), |(at, _)| *at);
        let Some(next) = at.checked_add_signed(step).filter(|next| *next <= self.history.len()) else {
            return Event::Nothing;
        };
        let typed = self.shown.take().map_or_else(|| self.text.clone(), |(_, typed)| typed);
        match self.history.get(next) {
            Some(text) => {
                self.text = text.chars().collect();
                self.shown = Some((next, typed));
            }
            None => self.text = typed,
        }
        self.cursor = self.text.len();
        Event::Changed
    }
}

/// Whether a shell would wait for more: a quote is open, or the line ends with a backslash.
pub fn is_open(text: &str) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for c in text.chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => (),
            (_, '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(c),
            _ => (),
        }
    }
    quote.is_some() || escaped
}

/// The word in front of the cursor, and whether it stands where a command does.
pub fn word(head: &str) -> (&str, bool) {
    let ends = |c: char| c.is_whitespace() || ";|&<>()$=`'\"".contains(c);
    let begin = head.rfind(ends).map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
    let before = head[..begin].trim_end();
    (&head[begin..], before.is_empty() || before.ends_with([';', '|', '&', '(', '`']))
}

/// What all of `names` begin with.
pub fn common(names: &[String]) -> String {
    let Some((first, rest)) = names.split_first() else { return String::new() };
    let shared = |other: &String| first.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let length = rest.iter().map(shared).min().unwrap_or(first.chars().count());
    first.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &mut Line, bytes: &[u8]) -> Vec<Event> {
        let mut keys = Keys::default();
        let pressed: Vec<Key> = bytes.iter().filter_map(|byte| keys.feed(*byte)).collect();
        pressed.into_iter().map(|key| line.press(key)).collect()
    }

    /// What is on the line after these keys, with the cursor as a bar.
    fn after(bytes: &str) -> String {
        let mut line = Line::with_history(vec!["first one".to_owned(), "second".to_owned()]);
        typed(&mut line, bytes.as_bytes());
        let head = line.head();
        format!("{head}|{}", &line.text()[head.len()..])
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, line) in [
            ("ab\u{e4}", "ab\u{e4}|"),
            ("abc\x1b[D\x1b[DX", "aX|bc"),
            ("abc\x02\x02\x06\x7f", "a|c"),
            ("one two\x17", "one |"),
            ("one two  \x17x", "one x|"),
            ("one two\x1bb\x1bb", "|one two"),
            ("one two\x01\x1b[1;5Cx", "onex| two"),
            ("one two\x1b[1;5D\x0b", "one |"),
            ("one two\x1b[1;5D\x15", "|two"),
            ("abc\x1b[H\x1b[3~\x1bOF!", "bc!|"),
            ("abc\x01\x04", "|bc"),
            ("\x1b[A", "second|"),
            ("\x1b[A\x1b[A\x1b[A", "first one|"),
            ("typed\x1b[A\x1b[A\x1b[B\x1b[B", "typed|"),
            ("a\x1b[200~b\x1b[99;99Rc", "abc|"),
            ("x\x7f\x7f\x7f\x1b[3~", "|"),
        ] {
            assert_eq!(after(keys), line, "{keys:?}");
        }
    }

    #[test]
    fn a_line_is_entered_cancelled_or_the_end() {
        let mut line = Line::default();
        assert_eq!(typed(&mut line, b"\x04"), [Event::End]);
        assert_eq!(typed(&mut line, b"ls\r").pop(), Some(Event::Entered("ls".to_owned())));
        assert_eq!(typed(&mut line, b"x\x03").pop(), Some(Event::Cancelled));
        assert_eq!(typed(&mut line, b"\x1b[A\r").pop(), Some(Event::Entered("ls".to_owned())));
        assert_eq!(line.history, ["ls"]);
    }

    #[test]
    fn what_does_not_fit_is_moved_out_of_sight() {
        let mut line = Line::default();
        typed(&mut line, b"0123456789");
        assert_eq!(line.window(5), ("6789".to_owned(), 4));
        assert_eq!(line.window(80), ("0123456789".to_owned(), 10));
        typed(&mut line, b"\x01");
        assert_eq!(line.window(5), ("0123".to_owned(), 0));
    }

    #[test]
    fn open_quotes_and_words_are_seen_as_a_shell_does() {
        for (text, open) in [
            ("echo", false),
            ("echo 'a", true),
            ("echo \"it's\"", false),
            ("a \\", true),
            ("'\\'", false),
            ("\\'", false),
        ] {
            assert_eq!(is_open(text), open, "{text}");
        }
        for (head, expected) in [
            ("ca", ("ca", true)),
            ("cat /et", ("/et", false)),
            ("a; b", ("b", true)),
            ("a > ", ("", false)),
            ("x \u{e4}", ("\u{e4}", false)),
        ] {
            assert_eq!(word(head), expected, "{head}");
        }
        let names = ["source", "sound", "soup"].map(str::to_owned);
        assert_eq!(common(&names), "sou");
        assert_eq!((common(&names[..1]), common(&[])), ("source".to_owned(), String::new()));
    }
}
