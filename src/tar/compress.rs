//! What may lie around an archive: nothing, gzip or zstd. What an archive is compressed with is seen in its first
//! bytes, not in its name.

use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    None,
    Gzip,
    #[default]
    Zstd,
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Frames of zstd that hold no data have this in common.
const ZSTD_SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];

/// The archive itself, whatever lies around it.
pub fn decompress<'r>(inner: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut inner = BufReader::with_capacity(128 << 10, inner);
    let first = inner.fill_buf()?;
    if first.starts_with(GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(inner)));
    }
    if first.starts_with(ZSTD) || first.get(1..).is_some_and(|rest| rest.starts_with(ZSTD_SKIPPED)) {
        return Ok(Box::new(Frames { inner, decoder: FrameDecoder::new(), within: false }));
    }
    Ok(Box::new(inner))
}

/// A row of zstd frames.
struct Frames<R> {
    inner: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Frames<R> {
    /// Begins the next frame that holds data; false: there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.inner.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut self.inner.by_ref().take(length), &mut io::sink())? < length {
                        return Err(damaged("it is cut short"));
                    }
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    /// Content of which the sum is not the one written down is not the content.
    fn check(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(written) if Some(written) != self.decoder.get_calculated_checksum() => {
                Err(damaged("its sum is wrong"))
            }
            _ => Ok(()),
        }
    }
}

/// What the decoder says at the end of what it was given is long, and says only that.
fn refused(error: &FrameDecoderError) -> io::Error {
    let first: &(dyn Error + 'static) = error;
    let ended = std::iter::successors(Some(first), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == ErrorKind::UnexpectedEof);
    if ended { damaged("it is cut short") } else { damaged(error) }
}

fn damaged(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("its zstd compression is damaged: {reason}"))
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                if !self.begin()? {
                    return Ok(0);
                }
                self.within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBytes(buffer.len());
                self.decoder.decode_blocks(&mut self.inner, strategy).map_err(|e| refused(&e))?;
            }
            let length = self.decoder.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            self.check()?;
            self.within = false;
        }
    }
}

/// Compresses what is written to it.
pub enum Compressor<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd { inner: W, waiting: Vec<u8> },
}

/// As much as becomes one frame of zstd; readers put them together.
const FRAME: usize = 1 << 20;

impl<W: Write> Compressor<W> {
    pub fn new(inner: W, how: Compression) -> Self {
        match how {
            Compression::None => Compressor::None(inner),
            Compression::Gzip => Compressor::Gzip(GzEncoder::new(inner, flate2::Compression::fast())),
            Compression::Zstd => Compressor::Zstd { inner, waiting: Vec::with_capacity(FRAME) },
        }
    }

    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd { mut inner, waiting } => {
                write_frame(&mut inner, &waiting)?;
                Ok(inner)
            }
        }
    }
}

fn write_frame(inner: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    inner.write_all(&compress_to_vec(bytes, CompressionLevel::Fastest))
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(bytes),
            Compressor::Gzip(encoder) => encoder.write(bytes),
            Compressor::Zstd { inner, waiting } => {
                let length = bytes.len().min(FRAME - waiting.len());
                waiting.extend_from_slice(&bytes[..length]);
                if waiting.len() == FRAME {
                    write_frame(inner, waiting)?;
                    waiting.clear();
                }
                Ok(length)
            }
        }
    }

    /// A frame is written when it is full, or at the end.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) | Compressor::Zstd { inner, .. } => inner.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
        }
    }
}
