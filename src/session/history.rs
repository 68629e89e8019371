//! What a store was asked for over time, as numbers and as a picture. Pure.

use std::collections::BTreeMap;

use super::journal::{Act, Step};
use crate::plot::{Anchor, Axis, BLACK, LEFT, RIGHT, Shape, colour, grid, round_up, text};
use crate::time::Moment;

/// The commands of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Second {
    asked: u64,
    hits: u64,
}

/// The commands of a store, by the second in which they ended, as journals write it: that is in the order of time.
#[derive(Default)]
pub struct History(BTreeMap<String, Second>);

impl History {
    pub fn add(&mut self, step: &Step) {
        if !step.act.is_command() {
            return;
        }
        if !self.0.contains_key(&step.at) {
            self.0.insert(step.at.clone(), Second::default());
        }
        if let Some(second) = self.0.get_mut(&step.at) {
            second.asked += 1;
            second.hits += u64::from(step.act == Act::Hit);
        }
    }

    /// Seconds since 1970; what is no time is left out.
    fn seconds(&self) -> Vec<(u64, Second)> {
        let known = |(at, second): (&String, &Second)| Some((Moment::parse(at)?.since_1970(), *second));
        self.0.iter().filter_map(known).collect()
    }

    /// Equal parts of the time, with what was asked in each: from when to when, in seconds since the first.
    fn parts(&self) -> Vec<(f64, f64, Second)> {
        let known = self.seconds();
        let ([(first, _), ..], [.., (last, _)]) = (known.as_slice(), known.as_slice()) else {
            return Vec::new();
        };
        let seconds = last - first + 1;
        let count = seconds.min(MOST_PARTS);
        let mut parts: Vec<(f64, f64, Second)> = (0..count)
            .map(|part| {
                let at = |part: u64| part as f64 * seconds as f64 / count as f64;
                (at(part), at(part + 1), Second::default())
            })
            .collect();
        for (at, second) in &known {
            let part = &mut parts[((at - first) * count / seconds) as usize].2;
            part.asked += second.asked;
            part.hits += second.hits;
        }
        parts
    }
}

/// More steps than these in a line are not seen.
const MOST_PARTS: u64 = 60;

/// The panels have so many marks of time.
const MARKS: f64 = 6.0;

const UPPER: (f64, f64) = (48.0, 330.0);
const LOWER: (f64, f64) = (380.0, 510.0);

/// Two panels over time: the commands that were asked for and those that were run, and the share of the others. None when
/// there were no commands.
pub fn draw(title: &str, history: &History) -> Option<Vec<Shape>> {
    let parts = history.parts();
    // Up to where each mark on the axis is a whole second.
    let end = (parts.last()?.1 / MARKS).ceil() * MARKS;
    let mut asked = vec![(0.0, 0)];
    let mut run = vec![(0.0, 0)];
    for (_, to, second) in &parts {
        let sum = |line: &[(f64, u64)], more: u64| line.last().map_or(0, |(_, sum)| sum + more);
        asked.push((*to, sum(&asked, second.asked)));
        run.push((*to, sum(&run, second.asked - second.hits)));
    }
    let most = asked.last().map_or(0, |(_, sum)| *sum);
    let time = Axis { from: LEFT, to: RIGHT, low: 0.0, high: end };
    let commands = Axis { from: UPPER.1, to: UPPER.0, low: 0.0, high: round_up(most as f64) };
    let shares = Axis { from: LOWER.1, to: LOWER.0, low: 0.0, high: 100.0 };
    let mut shapes = vec![text(LEFT, 26.0, title, Anchor::Start, 16.0, BLACK)];
    grid(&mut shapes, &time, &commands, "commands", false);
    grid(&mut shapes, &time, &shares, "of a hundred commands, so many were replayed", true);
    for (index, (name, line)) in [("asked for", &asked), ("run", &run)].into_iter().enumerate() {
        let place = |(at, sum): &(f64, u64)| (time.at(*at), commands.at(*sum as f64));
        let pieces = vec![line.iter().map(place).collect()];
        shapes.push(Shape::Lines { pieces, colour: colour(index), width: 2.4, opacity: 1.0 });
        let (_, total) = line[line.len() - 1];
        let label = format!("{total} {name}");
        shapes.push(text(
            RIGHT + 8.0,
            commands.at(total as f64) + 4.0,
            &label,
            Anchor::Start,
            12.0,
            colour(index),
        ));
    }
    // Where nothing was asked there is no share.
    let shares = parts.iter().map(|(from, to, second)| {
        let share = shares.at(second.hits as f64 * 100.0 / second.asked as f64);
        if second.asked == 0 { Vec::new() } else { vec![(time.at(*from), share), (time.at(*to), share)] }
    });
    let pieces = joined(shares);
    shapes.push(Shape::Lines { pieces, colour: colour(2), width: 2.4, opacity: 1.0 });
    Some(shapes)
}

/// Stretches one after the other as steps of one line, which stops where a stretch is empty.
fn joined(stretches: impl Iterator<Item = Vec<(f64, f64)>>) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = vec![Vec::new()];
    for stretch in stretches {
        match pieces.last_mut() {
            Some(piece) if !stretch.is_empty() => piece.extend(stretch),
            _ => pieces.push(Vec::new()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::svg;
    use crate::session::Id;

    fn step(act: Act, at: &str) -> Step {
        let state = Id::of("state", b"1");
        Step { act, state, at: at.to_owned(), key: None, shown: String::new(), code: 0, micros: 1 }
    }

    #[test]
    fn commands_are_counted_in_the_second_they_ended_in() {
        let mut history = History::default();
        for (act, second) in [(Act::New, 0), (Act::Run, 10), (Act::Hit, 10), (Act::Undo, 11), (Act::Hit, 12)]
        {
            history.add(&step(act, &format!("2026-11-20T23:43:{second:02}Z")));
        }
        let second = |asked, hits| Second { asked, hits };
        let expected = [(0.0, 1.0, second(2, 1)), (1.0, 2.0, second(0, 0)), (2.0, 3.0, second(1, 1))];
        assert_eq!(history.parts(), expected);
        let picture = svg::write(&draw("a & b", &history).unwrap());
        assert!(picture.contains("3 asked for") && picture.contains("1 run"), "{picture}");
        // The second without commands divides the line of shares.
        assert_eq!(picture.lines().filter(|line| line.matches('M').count() == 2).count(), 1, "{picture}");
        assert!(draw("nothing", &History::default()).is_none());
    }

    #[test]
    fn a_long_time_has_as_many_parts_as_can_be_seen() {
        let mut history = History::default();
        for minute in 0..59 {
            history.add(&step(Act::Hit, &format!("2026-11-20T23:{minute:02}:00Z")));
        }
        let parts = history.parts();
        assert_eq!(parts.len(), 60);
        assert_eq!(parts.iter().map(|(_, _, second)| second.asked).sum::<u64>(), 59);
    }
}
