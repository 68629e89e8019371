//! A recording as a picture: shapes, which `svg` writes and `png` paints. Pure.
//!
//! Two panels over time: what everybody received (lines) against what it was entitled to (pale bands behind
//! them), and the lag. Colours are told apart by the colour-blind; names stand beside the lines' ends.

pub mod png;
pub mod svg;

use super::record::{Point, Row};

pub const WIDTH: f64 = 960.0;
pub const HEIGHT: f64 = 560.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 800.0;
const UPPER: (f64, f64) = (48.0, 330.0);
const LOWER: (f64, f64) = (380.0, 510.0);
/// Okabe and Ito's colours.
const COLOURS: [Colour; 8] = [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0x56b4e9, 0xe69f00, 0x000000, 0x999933];
const BLACK: Colour = 0;
const GREY: Colour = 0x555555;
const PALE: Colour = 0xdddddd;
const PALER: Colour = 0xeeeeee;
/// More lines than these cannot be told apart: the rest are drawn together.
const NAMED: usize = 12;

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

struct Axis {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }
}

/// The picture of a recording; None when there is nothing in it.
pub fn draw(title: &str, points: &[Point]) -> Option<Vec<Shape>> {
    let names = names(points);
    let end = points.last()?.at;
    let time = Axis { from: LEFT, to: RIGHT, low: 0.0, high: end.max(1e-3) };
    let rows = || points.iter().flat_map(|point| &point.leaves);
    let most = rows().map(|row| row.received.max(row.entitled)).fold(0.1, f64::max);
    let cpus = Axis { from: UPPER.1, to: UPPER.0, low: 0.0, high: round_up(most) };
    let behind = rows().map(|row| row.lag.abs()).fold(0.01, f64::max);
    let lags = Axis { from: LOWER.1, to: LOWER.0, low: -round_up(behind), high: round_up(behind) };
    let mut shapes = vec![text(LEFT, 26.0, title, Anchor::Start, 16.0, BLACK)];
    grid(&mut shapes, &time, &cpus, "CPUs received (line) and entitled (band)", false);
    grid(&mut shapes, &time, &lags, "lag, CPU-seconds", true);
    let mut line =
        |index: usize, name: &str, (width, opacity): (f64, f64), values: &Axis, value: fn(&Row) -> f64| {
            let pieces = pieces(points, name, |point, row| (time.at(point.at), values.at(value(row))));
            shapes.push(Shape::Lines { pieces, colour: colour(index), width, opacity });
        };
    let (thin, band) = ((1.6, 1.0), (7.0, 0.25));
    for (index, name) in names.iter().enumerate() {
        line(index, name, band, &cpus, |row| row.entitled);
    }
    for (index, name) in names.iter().enumerate() {
        line(index, name, thin, &cpus, |row| row.received);
        line(index, name, thin, &lags, |row| row.lag);
    }
    legend(&mut shapes, &names);
    Some(shapes)
}

fn colour(index: usize) -> Colour {
    COLOURS[index % COLOURS.len()]
}

fn text(x: f64, y: f64, text: &str, anchor: Anchor, size: f64, colour: Colour) -> Shape {
    Shape::Text { at: (x, y), text: text.to_owned(), anchor, size, colour }
}

fn ruler(from: (f64, f64), to: (f64, f64), colour: Colour, width: f64) -> Shape {
    Shape::Lines { pieces: vec![vec![from, to]], colour, width, opacity: 1.0 }
}

/// In order of appearance.
fn names(points: &[Point]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let all = points.iter().flat_map(|point| &point.leaves);
    all.filter(|row| seen.insert(row.name.as_str())).map(|row| row.name.clone()).collect()
}

/// 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value * 0.999).unwrap_or(value)
}

/// At most two decimals, none where there are none.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn grid(shapes: &mut Vec<Shape>, time: &Axis, values: &Axis, label: &str, with_time: bool) {
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

/// Where a container was not there its line stops, and begins anew if it returns.
fn pieces(points: &[Point], name: &str, place: impl Fn(&Point, &Row) -> (f64, f64)) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = vec![Vec::new()];
    for point in points {
        match point.leaves.iter().find(|row| row.name == name) {
            Some(row) => pieces.last_mut().expect("there is always one").push(place(point, row)),
            None => pieces.push(Vec::new()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn legend(shapes: &mut Vec<Shape>, names: &[String]) {
    let x = RIGHT + 16.0;
    let y = |index: usize| UPPER.0 + 14.0 + index as f64 * 18.0;
    for (index, name) in names.iter().take(NAMED).enumerate() {
        let y = y(index);
        shapes.push(ruler((x, y), (x + 18.0, y), colour(index), 3.0));
        shapes.push(text(x + 24.0, y + 4.0, name, Anchor::Start, 12.0, BLACK));
    }
    if names.len() > NAMED {
        let more = format!("and {} more", names.len() - NAMED);
        shapes.push(text(x, y(NAMED) + 4.0, &more, Anchor::Start, 12.0, BLACK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, received: f64) -> Row {
        Row { name: name.to_owned(), entitled: 1.0, received, lag: 0.0, weight: 100 }
    }

    #[test]
    fn a_recording_becomes_lines() {
        let points = [
            Point { at: 1.0, leaves: vec![row("a", 0.5), row("<b>", 1.5)] },
            Point { at: 2.0, leaves: vec![row("a", 1.0)] },
            Point { at: 3.0, leaves: vec![row("a", 1.0), row("<b>", 1.0)] },
        ];
        let picture = svg::write(&draw("one & two", &points).unwrap());
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("one &amp; two") && picture.contains("&lt;b&gt;"));
        // Who was away has a line of two pieces.
        let broken = picture.lines().filter(|line| line.matches('M').count() == 2).count();
        assert_eq!(broken, 3, "{picture}");
        assert_eq!(draw("nothing", &[]), None);
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, expected) in
            [(0.9, 1.0), (1.01, 1.2), (2.0, 2.0), (7.3, 8.0), (0.034, 0.04), (99.0, 100.0)]
        {
            assert!((round_up(value) - expected).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }
}
