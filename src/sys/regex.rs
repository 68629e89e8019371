//! Extended POSIX regular expressions, from the C library.

use std::ffi::CStr;
use std::mem::MaybeUninit;

/// A compiled expression.
pub struct Regex(Box<libc::regex_t>);

impl Regex {
    /// The error is what the C library says about the expression.
    pub fn new(pattern: &CStr) -> Result<Self, String> {
        let mut compiled: Box<MaybeUninit<libc::regex_t>> = Box::new(MaybeUninit::uninit());
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the space is ours and the pattern ends with a NUL byte.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), pattern.as_ptr(), flags) };
        if code != 0 {
            return Err(reason(code, &compiled));
        }
        // SAFETY: regcomp has filled it in.
        Ok(Self(unsafe { compiled.assume_init() }))
    }

    /// Whether any part of `text` matches.
    pub fn is_match(&self, text: &CStr) -> bool {
        // SAFETY: the expression is compiled, the text ends with a NUL byte, no places are asked for.
        unsafe { libc::regexec(&*self.0, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

fn reason(code: i32, compiled: &MaybeUninit<libc::regex_t>) -> String {
    let mut text = [0u8; 128];
    // SAFETY: the text is ours and its size is given; of the expression only the code is looked at.
    unsafe { libc::regerror(code, compiled.as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled once, freed once.
        unsafe { libc::regfree(&mut *self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_as_posix_says() {
        for (pattern, text, matches) in [
            (c"^web-[0-9]+$", c"web-12", true),
            (c"^web-[0-9]+$", c"web-x", false),
            (c"b|d", c"abc", true),
            (c"", c"anything", true),
        ] {
            assert_eq!(Regex::new(pattern).unwrap().is_match(text), matches, "{pattern:?} {text:?}");
        }
        assert!(Regex::new(c"(").is_err_and(|reason| !reason.is_empty()));
    }
}
