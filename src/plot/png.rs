//! Shapes as PNG: a canvas of bytes, capital letters of three by five dots, and as much of deflate as long runs
//! of the same byte need, which is what most of such a picture is once every row is a difference to the one
//! above it. Pure.

use super::{Anchor, Colour, HEIGHT, Shape, WIDTH};

const COLUMNS: usize = WIDTH as usize;
const ROWS: usize = HEIGHT as usize;

pub fn write(shapes: &[Shape]) -> Vec<u8> {
    let mut canvas = Canvas { pixels: vec![[255; 3]; COLUMNS * ROWS] };
    shapes.iter().for_each(|shape| canvas.paint(shape));
    let mut header = Vec::new();
    header.extend((COLUMNS as u32).to_be_bytes());
    header.extend((ROWS as u32).to_be_bytes());
    // Eight bits for each of three colours; no other way to pack, filter or interlace.
    header.extend([8, 2, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut out, b"IHDR", &header);
    chunk(&mut out, b"IDAT", &compress(&canvas.rows()));
    chunk(&mut out, b"IEND", &[]);
    out
}

struct Canvas {
    pixels: Vec<[u8; 3]>,
}

impl Canvas {
    fn paint(&mut self, shape: &Shape) {
        let mut mask = vec![false; self.pixels.len()];
        let (colour, opacity) = match shape {
            Shape::Lines { pieces, colour, width, opacity } => {
                pieces.iter().for_each(|piece| stroke(&mut mask, piece, *width));
                (*colour, *opacity)
            }
            Shape::Text { at, text, anchor, size, colour } => {
                letters(&mut mask, *at, text, *anchor, *size);
                (*colour, 1.0)
            }
        };
        self.blend(&mask, colour, opacity);
    }

    /// Once for each dot, however often the shape crosses itself.
    fn blend(&mut self, mask: &[bool], colour: Colour, opacity: f64) {
        let [_, colour @ ..] = colour.to_be_bytes();
        for (pixel, _) in self.pixels.iter_mut().zip(mask).filter(|(_, painted)| **painted) {
            for (old, new) in pixel.iter_mut().zip(colour) {
                *old = (f64::from(*old) * (1.0 - opacity) + f64::from(new) * opacity).round() as u8;
            }
        }
    }

    /// Each row behind the number of its filter: the difference to the row above.
    fn rows(&self) -> Vec<u8> {
        const UP: u8 = 2;
        let mut out = Vec::with_capacity(ROWS * (1 + COLUMNS * 3));
        let mut above = vec![0; COLUMNS * 3];
        for row in self.pixels.chunks(COLUMNS) {
            let row: Vec<u8> = row.iter().flatten().copied().collect();
            out.push(UP);
            out.extend(row.iter().zip(&above).map(|(now, above)| now.wrapping_sub(*above)));
            above = row;
        }
        out
    }
}

fn square(mask: &mut [bool], x: f64, y: f64, width: f64) {
    let from = |middle: f64| (middle - width / 2.0).round().max(0.0) as usize;
    let side = width.round().max(1.0) as usize;
    for row in from(y)..(from(y) + side).min(ROWS) {
        for column in from(x)..(from(x) + side).min(COLUMNS) {
            mask[row * COLUMNS + column] = true;
        }
    }
}

fn stroke(mask: &mut [bool], piece: &[(f64, f64)], width: f64) {
    if let [(x, y)] = piece {
        square(mask, *x, *y, width);
    }
    for pair in piece.windows(2) {
        let ((x, y), (to_x, to_y)) = (pair[0], pair[1]);
        let steps = (to_x - x).abs().max((to_y - y).abs()).ceil().max(1.0);
        for step in 0..=steps as u32 {
            let part = f64::from(step) / steps;
            square(mask, x + part * (to_x - x), y + part * (to_y - y), width);
        }
    }
}

fn letters(mask: &mut [bool], (x, y): (f64, f64), text: &str, anchor: Anchor, size: f64) {
    let dot = (size / 6.0).round().max(1.0);
    let width = text.chars().count() as f64 * 4.0 * dot - dot;
    let left = match anchor {
        Anchor::Start => x,
        Anchor::Middle => x - width / 2.0,
        Anchor::End => x - width,
    };
    for (place, letter) in text.chars().enumerate() {
        for (row, dots) in dots(letter).into_iter().enumerate() {
            for column in (0..3).filter(|column| dots >> (2 - column) & 1 == 1) {
                let middle = |number: f64| (number + 0.5) * dot;
                let across = left + place as f64 * 4.0 * dot + middle(f64::from(column));
                square(mask, across, y - 5.0 * dot + middle(row as f64), dot);
            }
        }
    }
}

/// Five rows of three dots.
fn dots(letter: char) -> [u8; 5] {
    const CAPITALS: [u16; 26] = [
        0o25755, 0o65656, 0o34443, 0o65556, 0o74647, 0o74644, 0o34553, 0o55755, 0o72227, 0o11152, 0o55655,
        0o44447, 0o57755, 0o65555, 0o25552, 0o65644, 0o25563, 0o65655, 0o34216, 0o72222, 0o55557, 0o55552,
        0o55775, 0o55255, 0o55222, 0o71247,
    ];
    const DIGITS: [u16; 10] =
        [0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71122, 0o75757, 0o75717];
    let rows: u16 = match letter.to_ascii_uppercase() {
        letter @ 'A'..='Z' => CAPITALS[letter as usize - 'A' as usize],
        digit @ '0'..='9' => DIGITS[digit as usize - '0' as usize],
        ' ' => 0,
        '.' => 0o00002,
        ',' => 0o00024,
        '-' => 0o00700,
        '_' => 0o00007,
        ':' => 0o02020,
        '+' => 0o02720,
        '/' => 0o11244,
        '%' => 0o51245,
        '(' => 0o12221,
        ')' => 0o42224,
        _ => 0o07770,
    };
    std::array::from_fn(|row| (rows >> (3 * (4 - row)) & 7) as u8)
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    out.extend((content.len() as u32).to_be_bytes());
    let checked = out.len();
    out.extend(kind);
    out.extend(content);
    let sum = crc32(&out[checked..]);
    out.extend(sum.to_be_bytes());
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !sum
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1u32, 0u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    high << 16 | low
}

/// zlib's frame around one deflate block with the fixed codes of RFC 1951: bytes, and copies of the byte before.
fn compress(bytes: &[u8]) -> Vec<u8> {
    const LONGEST: usize = 258;
    let mut bits = Bits { bytes: vec![0x78, 0x01], bit: 8 };
    bits.put(0b011, 3);
    let mut place = 0;
    while place < bytes.len() {
        let same =
            |before: u8| bytes[place..].iter().take(LONGEST).take_while(|byte| **byte == before).count();
        let copied = place.checked_sub(1).map_or(0, |before| same(bytes[before]));
        // Lengths from 3 to 10 and 258 need no further bits, so these are the ones that are used.
        let length = if copied == LONGEST { LONGEST } else { copied.min(10) };
        if length < 3 {
            bits.symbol(u16::from(bytes[place]));
            place += 1;
        } else {
            bits.symbol(if length == LONGEST { 285 } else { 254 + length as u16 });
            // A distance of one.
            bits.put(0, 5);
            place += length;
        }
    }
    bits.symbol(256);
    bits.bytes.extend(adler32(bytes).to_be_bytes());
    bits.bytes
}

struct Bits {
    bytes: Vec<u8>,
    /// The next free bit of the last byte.
    bit: u32,
}

impl Bits {
    /// The lowest bit first.
    fn put(&mut self, value: u16, count: u32) {
        for place in 0..count {
            if self.bit == 8 {
                self.bytes.push(0);
                self.bit = 0;
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> place & 1) as u8) << self.bit;
            self.bit += 1;
        }
    }

    /// Codes have their highest bit first.
    fn symbol(&mut self, symbol: u16) {
        let (code, count) = match symbol {
            0..=143 => (0x30 + symbol, 8),
            144..=255 => (0x190 + symbol - 144, 9),
            256..=279 => (symbol - 256, 7),
            _ => (0xc0 + symbol - 280, 8),
        };
        self.put(code.reverse_bits() >> (16 - count), count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other way round, for what `compress` writes.
    fn expand(bytes: &[u8]) -> Vec<u8> {
        let mut place = 16;
        let mut bit = || {
            place += 1;
            u16::from(bytes[(place - 1) / 8] >> ((place - 1) % 8) & 1)
        };
        assert_eq!([bit(), bit(), bit()], [1, 1, 0]);
        let mut out: Vec<u8> = Vec::new();
        loop {
            let mut code = (0..7).fold(0, |code, _| code << 1 | bit());
            let symbol = if code < 0x18 {
                256 + code
            } else {
                code = code << 1 | bit();
                match code {
                    0x30..=0xbf => code - 0x30,
                    0xc0..=0xc7 => 280 + code - 0xc0,
                    _ => 144 + (code << 1 | bit()) - 0x190,
                }
            };
            let count = match symbol {
                0..=255 => {
                    out.push(symbol as u8);
                    continue;
                }
                256 => break,
                285 => 258,
                length => usize::from(length) - 254,
            };
            (0..5).for_each(|_| assert_eq!(bit(), 0));
            let last = *out.last().expect("a byte to copy");
            out.extend(std::iter::repeat_n(last, count));
        }
        assert_eq!(bytes[bytes.len() - 4..], adler32(&out).to_be_bytes());
        out
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let mut mixed: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        mixed.extend([7; 1000]);
        mixed.extend([200; 14]);
        for bytes in [Vec::new(), vec![0], vec![9; 3], vec![0; 100_000], mixed] {
            assert_eq!(expand(&compress(&bytes)), bytes);
        }
    }

    #[test]
    fn sums_are_those_everybody_makes() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn shapes_become_dots_and_few_bytes() {
        let line = |width, opacity| Shape::Lines {
            pieces: vec![vec![(10.0, 20.0), (30.0, 20.0)]],
            colour: 0xff0000,
            width,
            opacity,
        };
        let word = Shape::Text {
            at: (100.0, 50.0),
            text: "lag 0.5".into(),
            anchor: Anchor::End,
            size: 12.0,
            colour: 0,
        };
        let mut canvas = Canvas { pixels: vec![[255; 3]; COLUMNS * ROWS] };
        [line(1.0, 1.0), word].iter().for_each(|shape| canvas.paint(shape));
        let painted = |colour| canvas.pixels.iter().filter(|pixel| **pixel == colour).count();
        assert_eq!(painted([255, 0, 0]), 21);
        assert!(painted([0; 3]) > 100, "{}", painted([0; 3]));
        let picture = write(&[line(7.0, 0.25)]);
        assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.ends_with(b"IEND\xae\x42\x60\x82"));
        assert!(picture.len() < 20_000, "{}", picture.len());
    }
}
