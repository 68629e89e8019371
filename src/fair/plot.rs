//! A recording as a picture: SVG written by hand, nothing drawn that is not a number of the recording. Pure.
//!
//! Two panels over time: what everybody received (lines) against what it was entitled to (pale bands behind
//! them), and the lag. Colours are told apart by the colour-blind; names stand beside the lines' ends.

use std::fmt::Write;

use super::record::{Point, Row};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 800.0;
const UPPER: (f64, f64) = (48.0, 330.0);
const LOWER: (f64, f64) = (380.0, 510.0);
/// Okabe and Ito's colours.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999933"];
/// More lines than these cannot be told apart: the rest are drawn together.
const NAMED: usize = 12;

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
pub fn svg(title: &str, points: &[Point]) -> Option<String> {
    let names = names(points);
    let end = points.last()?.at;
    let time = Axis { from: LEFT, to: RIGHT, low: 0.0, high: end.max(1e-3) };
    let rows = || points.iter().flat_map(|point| &point.leaves);
    let most = rows().map(|row| row.received.max(row.entitled)).fold(0.1, f64::max);
    let cpus = Axis { from: UPPER.1, to: UPPER.0, low: 0.0, high: round_up(most) };
    let behind = rows().map(|row| row.lag.abs()).fold(0.01, f64::max);
    let lags = Axis { from: LOWER.1, to: LOWER.0, low: -round_up(behind), high: round_up(behind) };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{}</text>\n",
        escaped(title)
    );
    grid(&mut out, &time, &cpus, "CPUs received (line) and entitled (band)", false);
    grid(&mut out, &time, &lags, "lag, CPU-seconds", true);
    for (index, name) in names.iter().enumerate() {
        line(&mut out, points, name, colour(index), Stroke::BAND, &time, &cpus, |row| row.entitled);
    }
    for (index, name) in names.iter().enumerate() {
        line(&mut out, points, name, colour(index), Stroke::LINE, &time, &cpus, |row| row.received);
        line(&mut out, points, name, colour(index), Stroke::LINE, &time, &lags, |row| row.lag);
    }
    legend(&mut out, &names);
    out.push_str("</svg>\n");
    Some(out)
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// At most two decimals, none where there are none.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn grid(out: &mut String, time: &Axis, values: &Axis, label: &str, with_time: bool) {
    const STEPS: u32 = 5;
    let (top, bottom) = (values.to, values.from);
    put(out, format_args!("<text x=\"{LEFT}\" y=\"{}\" fill=\"#555\">{label}</text>", short(top - 8.0)));
    for step in 0..=STEPS {
        let part = f64::from(step) / f64::from(STEPS);
        let value = values.low + part * (values.high - values.low);
        let y = short(values.at(value));
        put(out, format_args!("<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ddd\"/>"));
        let text = short(value);
        put(
            out,
            format_args!("<text x=\"{}\" y=\"{y}\" dy=\"4\" text-anchor=\"end\">{text}</text>", LEFT - 6.0),
        );
    }
    for step in 0..=6 {
        let value = time.high * f64::from(step) / 6.0;
        let x = short(time.at(value));
        put(out, format_args!("<line x1=\"{x}\" x2=\"{x}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#eee\"/>"));
        if with_time {
            let text = short(value);
            let y = bottom + 18.0;
            put(out, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{text} s</text>"));
        }
    }
}

fn put(out: &mut String, what: std::fmt::Arguments) {
    writeln!(out, "{what}").expect("a string takes everything");
}

#[derive(Clone, Copy)]
struct Stroke {
    width: f64,
    opacity: f64,
}

impl Stroke {
    const LINE: Stroke = Stroke { width: 1.6, opacity: 1.0 };
    const BAND: Stroke = Stroke { width: 7.0, opacity: 0.25 };
}

#[allow(clippy::too_many_arguments, reason = "each is one property of the line")]
fn line(
    out: &mut String,
    points: &[Point],
    name: &str,
    colour: &str,
    stroke: Stroke,
    time: &Axis,
    values: &Axis,
    value: impl Fn(&Row) -> f64,
) {
    let mut path = String::new();
    let mut drawing = false;
    for point in points {
        let Some(row) = point.leaves.iter().find(|row| row.name == name) else {
            // It was not there: the line stops, and begins anew if it returns.
            drawing = false;
            continue;
        };
        let (x, y) = (short(time.at(point.at)), short(values.at(value(row))));
        write!(path, "{}{x} {y} ", if drawing { 'L' } else { 'M' }).expect("a string takes everything");
        drawing = true;
    }
    put(
        out,
        format_args!(
            "<path d=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{}\" stroke-opacity=\"{}\" \
             stroke-linejoin=\"round\"/>",
            path.trim_end(),
            stroke.width,
            stroke.opacity
        ),
    );
}

fn legend(out: &mut String, names: &[String]) {
    let x = RIGHT + 16.0;
    for (index, name) in names.iter().take(NAMED).enumerate() {
        let y = UPPER.0 + 14.0 + index as f64 * 18.0;
        let colour = colour(index);
        put(
            out,
            format_args!(
                "<line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
                 <text x=\"{}\" y=\"{y}\" dy=\"4\">{}</text>",
                x + 18.0,
                x + 24.0,
                escaped(name)
            ),
        );
    }
    if names.len() > NAMED {
        let y = UPPER.0 + 14.0 + NAMED as f64 * 18.0;
        put(out, format_args!("<text x=\"{x}\" y=\"{y}\" dy=\"4\">and {} more</text>", names.len() - NAMED));
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
        let picture = svg("one & two", &points).unwrap();
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert_eq!(picture.matches("<path ").count(), 6);
        assert!(picture.contains("one &amp; two") && picture.contains("&lt;b&gt;"));
        // Who was away has a line of two pieces.
        let broken = picture.lines().filter(|line| line.matches('M').count() == 2).count();
        assert_eq!(broken, 3, "{picture}");
        assert_eq!(svg("nothing", &[]), None);
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
