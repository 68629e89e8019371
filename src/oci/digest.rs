//! SHA-256 of what is read or written, as images name their blobs.

use std::io::{self, Read, Write};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// Passes bytes on and remembers what they were.
pub struct Hashing<I> {
    pub inner: I,
    sum: Sha256,
    pub length: u64,
}

impl<I> Hashing<I> {
    pub fn new(inner: I) -> Self {
        Self { inner, sum: Sha256::new(), length: 0 }
    }

    /// `sha256:` and 64 digits.
    pub fn digest(&self) -> String {
        let sum = self.sum.clone().finalize();
        sum.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }
}

impl<R: Read> Hashing<R> {
    /// Reads what is left, and fails unless all of it is what `digest` names.
    pub fn check(mut self, digest: &str) -> Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let found = self.digest();
        ensure!(found == digest, "its content is {found}, and should be {digest}");
        Ok(())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.sum.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.sum.update(&bytes[..length]);
        self.length += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_read_and_written_is_named_alike() {
        assert_eq!(Hashing::new(io::empty()).digest(), EMPTY);
        let mut writer = Hashing::new(Vec::new());
        writer.write_all(b"abc").unwrap();
        assert_eq!((writer.digest().as_str(), writer.length), (ABC, 3));
        let mut reader = Hashing::new(&b"abc"[..]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 1);
        reader.check(ABC).unwrap();
        assert!(Hashing::new(&b"abd"[..]).check(ABC).is_err());
    }
}
