//! Users and groups by number, and the home directory of a number.

use anyhow::{Context, Result, ensure};

/// `uid` or `uid:gid` of `exec --user`: digits only, and never the number that means "unchanged" to the kernel.
pub fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let invalid = || format!("invalid user {text:?}: expected uid or uid:gid");
    match text.split_once(':') {
        None => Ok((parse_id(text).with_context(invalid)?, None)),
        Some((uid, gid)) => {
            Ok((parse_id(uid).with_context(invalid)?, Some(parse_id(gid).with_context(invalid)?)))
        }
    }
}

/// A user or group id: digits only.
pub fn parse_id(text: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(digits, "{text:?} is not a number");
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.with_context(|| format!("{text} is out of range"))
}

/// Looks for a user in /etc/passwd as the bytes come in. No heap: the child uses it.
pub struct HomeSearch {
    uid: u32,
    line: [u8; LINE_MAX],
    length: usize,
}

/// Longer lines are passed over.
const LINE_MAX: usize = 1024;

impl HomeSearch {
    pub fn new(uid: u32) -> Self {
        Self { uid, line: [0; LINE_MAX], length: 0 }
    }

    /// Takes the next bytes of the file; the home directory once its line is complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        let mut found = None;
        for &byte in bytes {
            if byte != b'\n' {
                if let Some(place) = self.line.get_mut(self.length) {
                    *place = byte;
                }
                self.length += 1;
                continue;
            }
            let length = std::mem::take(&mut self.length);
            if self.matches(length) {
                found = Some(length);
                break;
            }
        }
        self.home(found?)
    }

    /// After the last byte: the file may end without a line break.
    pub fn finish(&mut self) -> Option<&[u8]> {
        let length = std::mem::take(&mut self.length);
        if self.matches(length) { self.home(length) } else { None }
    }

    fn field(&self, length: usize, index: usize) -> Option<&[u8]> {
        self.line.get(..length)?.split(|byte| *byte == b':').nth(index)
    }

    fn matches(&self, length: usize) -> bool {
        let Some(digits) = self.field(length, 2) else { return false };
        let number = digits.iter().try_fold(0u32, |number, digit| match digit {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
            _ => None,
        });
        !digits.is_empty() && number == Some(self.uid)
    }

    fn home(&self, length: usize) -> Option<&[u8]> {
        self.field(length, 5).filter(|home| !home.is_empty() && !home.contains(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_parsed_strictly() {
        assert_eq!(parse_user("0").unwrap(), (0, None));
        assert_eq!(parse_user("1000:100").unwrap(), (1000, Some(100)));
        for bad in
            ["", ":", "1:", ":1", "a", "1a", " 1", "1 ", "-1", "+1", "1:2:3", "4294967295", "1:4294967295"]
        {
            assert!(parse_user(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_user("4294967294").unwrap().0, u32::MAX - 1);
    }

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# a comment\n\nbad:x::0::/no:\nweb:x:33:33:web:/var/www:/x\nlast:x:7:7::/home/last:/bin/sh";

    fn home(uid: u32, chunk: usize) -> Option<Vec<u8>> {
        let mut search = HomeSearch::new(uid);
        for part in PASSWD.chunks(chunk) {
            if let Some(home) = search.feed(part) {
                return Some(home.to_vec());
            }
        }
        search.finish().map(<[u8]>::to_vec)
    }

    #[test]
    fn homes_are_found_whatever_the_chunks() {
        for chunk in [1, 7, 4096] {
            assert_eq!(home(0, chunk).unwrap(), b"/root");
            assert_eq!(home(33, chunk).unwrap(), b"/var/www");
            assert_eq!(home(7, chunk).unwrap(), b"/home/last");
            assert_eq!(home(1000, chunk), None);
        }
    }

    #[test]
    fn a_line_too_long_is_passed_over() {
        let mut search = HomeSearch::new(5);
        let long = [b"x:x:5:5:".as_slice(), &[b'a'; LINE_MAX], b":/long:/x\n"].concat();
        assert_eq!(search.feed(&long), None);
        assert_eq!(search.feed(b"y:x:5:5::/short:/x\n").unwrap(), b"/short");
    }
}
