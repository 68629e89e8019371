//! A recording as a picture. Pure.
//!
//! Two panels over time: what everybody received (lines) against what it was entitled to (pale bands behind
//! them), and the lag. Names stand beside the lines' ends.

use super::record::{Point, Row};
use crate::plot::{Anchor, Axis, BLACK, LEFT, RIGHT, Shape, colour, grid, round_up, ruler, text};

const UPPER: (f64, f64) = (48.0, 330.0);
const LOWER: (f64, f64) = (380.0, 510.0);
/// More lines than these cannot be told apart: the rest are drawn together.
const NAMED: usize = 12;

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

/// In order of appearance.
fn names(points: &[Point]) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let all = points.iter().flat_map(|point| &point.leaves);
    all.filter(|row| seen.insert(row.name.as_str())).map(|row| row.name.clone()).collect()
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
    use crate::plot::svg;

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
}
