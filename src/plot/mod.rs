//! Pictures: shapes, which `svg` writes and `png` paints, and the axes of panels over time. Pure.
//!
//! Colours are told apart by the colour-blind.

use std::path::Path;

pub mod png;
pub mod svg;

pub const WIDTH: f64 = 960.0;
pub const HEIGHT: f64 = 560.0;
pub const LEFT: f64 = 56.0;
pub const RIGHT: f64 = 800.0;
/// Okabe and Ito's colours.
const COLOURS: [Colour; 8] = [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0x56b4e9, 0xe69f00, 0x000000, 0x999933];
pub const BLACK: Colour = 0;
pub const GREY: Colour = 0x555555;
pub const PALE: Colour = 0xdddddd;
pub const PALER: Colour = 0xeeeeee;
/// Red, green and blue, a byte each.
pub type Colour = u32;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// Lines that do not touch each other, painted at once.
    Lines { pieces: Vec<Vec<(f64, f64)>>, colour: Colour, width: f64, opacity: f64 },
    /// `at` is a point on the line the letters stand on.
    Text { at: (f64, f64), text: String, anchor: Anchor, size: f64, colour: Colour },
}

/// Where values are in the picture, along one direction.
pub struct Axis {
    pub from: f64,
    pub to: f64,
    pub low: f64,
    pub high: f64,
}

impl Axis {
    pub fn at(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }
}

/// Of the line of this number.
pub fn colour(index: usize) -> Colour {
    COLOURS[index % COLOURS.len()]
}

pub fn text(x: f64, y: f64, text: &str, anchor: Anchor, size: f64, colour: Colour) -> Shape {
    Shape::Text { at: (x, y), text: text.to_owned(), anchor, size, colour }
}

pub fn ruler(from: (f64, f64), to: (f64, f64), colour: Colour, width: f64) -> Shape {
    Shape::Lines { pieces: vec![vec![from, to]], colour, width, opacity: 1.0 }
}

/// 1, 2 or 5 times a power of ten.
pub fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value * 0.999).unwrap_or(value)
}

/// At most two decimals, none where there are none.
pub fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The rulers of a panel, with the values they stand for.
pub fn grid(shapes: &mut Vec<Shape>, time: &Axis, values: &Axis, label: &str, with_time: bool) {
    const STEPS: u32 = 5;
    const LETTERS: f64 = 12.0;
    let (top, bottom) = (values.to, values.from);
    shapes.push(text(LEFT, top - 8.0, label, Anchor::Start, LETTERS, GREY));
    for step in 0..=STEPS {
        let part = f64::from(step) / f64::from(STEPS);
        let value = values.low + part * (values.high - values.low);
        let y = values.at(value);
        shapes.push(ruler((LEFT, y), (RIGHT, y), PALE, 1.0));
        shapes.push(text(LEFT - 6.0, y + 4.0, &short(value), Anchor::End, LETTERS, BLACK));
    }
    for step in 0..=6 {
        let value = time.high * f64::from(step) / 6.0;
        let x = time.at(value);
        shapes.push(ruler((x, top), (x, bottom), PALER, 1.0));
        if with_time {
            let label = format!("{} s", short(value));
            shapes.push(text(x, bottom + 18.0, &label, Anchor::Middle, LETTERS, BLACK));
        }
    }
}

/// A picture as a file of this name is to have it: PNG where the name ends so, and SVG otherwise.
pub fn file(shapes: &[Shape], path: &Path) -> Vec<u8> {
    match path.extension().is_some_and(|extension| extension == "png") {
        true => png::write(shapes),
        false => svg::write(shapes).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in
            [(0.9, 1.0), (1.01, 1.2), (2.0, 2.0), (7.3, 8.0), (0.034, 0.04), (99.0, 100.0)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }
}
