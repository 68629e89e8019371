//! From ranges of system call numbers to instructions: a binary search tree per architecture token.
//!
//! Classic BPF only jumps forward, and a comparison at most 255 instructions far. So the program is written
//! from its end: whatever an instruction jumps to is already there, its distance is known, and where it is
//! too far the target is repeated (a result) or reached through one more jump (a body).

use std::collections::BTreeMap;

use crate::sys::seccomp::Instruction;

/// What is decided for a system call number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Verdict {
    /// The filter returns this.
    Give(u32),
    /// The arguments decide: the number of a body.
    Ask(usize),
}

/// From `first` up to the next segment's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub first: u32,
    pub verdict: Verdict,
}

/// The search tree of one token.
pub(super) struct Section {
    pub token: u32,
    pub segments: Vec<Segment>,
}

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const TOKEN: u32 = 4;
const REACH: usize = u8::MAX as usize;

pub(super) const fn give(result: u32) -> Instruction {
    Instruction { code: RETURN, if_true: 0, if_false: 0, value: result }
}

const fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD_WORD, if_true: 0, if_false: 0, value: offset }
}

/// Lays `points` (sorted by number) over `background` (sorted, starting at 0) and joins equal neighbours.
pub(super) fn segments(background: &[Segment], points: &[(u32, Verdict)]) -> Vec<Segment> {
    let mut firsts: Vec<u32> = background.iter().map(|segment| segment.first).collect();
    firsts.extend(points.iter().flat_map(|(number, _)| [Some(*number), number.checked_add(1)]).flatten());
    firsts.sort_unstable();
    firsts.dedup();
    let mut joined: Vec<Segment> = Vec::with_capacity(firsts.len());
    for first in firsts {
        let verdict = match points.binary_search_by_key(&first, |(number, _)| *number) {
            Ok(point) => points[point].1,
            Err(_) => background[background.partition_point(|segment| segment.first <= first) - 1].verdict,
        };
        if joined.last().is_none_or(|last| last.verdict != verdict) {
            joined.push(Segment { first, verdict });
        }
    }
    joined
}

/// The whole program. A token without a section gets `otherwise`; the first section is found fastest.
pub(super) fn assemble(
    sections: &[Section],
    bodies: &[Vec<Instruction>],
    otherwise: u32,
) -> Vec<Instruction> {
    let mut assembler = Assembler { reversed: Vec::new(), bodies, nearest: BTreeMap::new() };
    let mut starts = Vec::with_capacity(sections.len());
    for section in sections.iter().rev() {
        let start = assembler.search(&section.segments);
        assembler.fall_into(start);
        starts.push((section.token, assembler.push(load(NUMBER))));
    }
    let mut next = assembler.leaf(Verdict::Give(otherwise));
    for (token, start) in starts {
        next = assembler.branch(JUMP_IF_EQUAL, token, start, next);
    }
    assembler.fall_into(next);
    assembler.push(load(TOKEN));
    assembler.reversed.reverse();
    assembler.reversed
}

/// A place in the program, counted from its end.
type Place = usize;

struct Assembler<'b> {
    reversed: Vec<Instruction>,
    bodies: &'b [Vec<Instruction>],
    /// The place of each verdict that is nearest to where we write.
    nearest: BTreeMap<Verdict, Place>,
}

impl Assembler<'_> {
    fn push(&mut self, instruction: Instruction) -> Place {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }

    /// How many instructions the next one would jump over to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - place - 1
    }

    fn search(&mut self, segments: &[Segment]) -> Place {
        if let [only] = segments {
            return self.leaf(only.verdict);
        }
        if let Some(single) = single_to_peel(segments) {
            let mut around = segments.to_vec();
            around.drain(single..=single + 1);
            let outside = self.search(&around);
            let inside = self.leaf(segments[single].verdict);
            return self.branch(JUMP_IF_EQUAL, segments[single].first, inside, outside);
        }
        let (below, above) = segments.split_at(segments.len() / 2);
        let at_least = self.search(above);
        let less = self.search(below);
        self.branch(JUMP_IF_AT_LEAST, above[0].first, at_least, less)
    }

    fn leaf(&mut self, verdict: Verdict) -> Place {
        if let Some(&place) = self.nearest.get(&verdict) {
            return place;
        }
        let place = match verdict {
            Verdict::Give(result) => self.push(give(result)),
            Verdict::Ask(body) => {
                self.reversed.extend(self.bodies[body].iter().rev());
                self.reversed.len() - 1
            }
        };
        self.nearest.insert(verdict, place);
        place
    }

    fn branch(&mut self, code: u16, value: u32, if_true: Place, if_false: Place) -> Place {
        // Bringing the second target near can put one instruction more between us and the first.
        let if_true = self.near(if_true, REACH - 1);
        let if_false = self.near(if_false, REACH);
        let (if_true, if_false) = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        self.push(Instruction { code, if_true, if_false, value })
    }

    /// `place`, or a place that does the same and is at most `reach` away.
    fn near(&mut self, place: Place, reach: usize) -> Place {
        if self.distance(place) <= reach {
            return place;
        }
        let verdict = self.nearest.iter().find(|(_, known)| **known == place).map(|(verdict, _)| *verdict);
        let target = self.reversed[place];
        let nearer = if target.code == RETURN {
            self.push(target)
        } else {
            let value = self.distance(place) as u32;
            self.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value })
        };
        if let Some(verdict) = verdict {
            self.nearest.insert(verdict, nearer);
        }
        nearer
    }

    /// Makes the next instruction be followed by what `place` does.
    fn fall_into(&mut self, place: Place) {
        if self.distance(place) > 0 {
            self.near(place, 0);
        }
    }
}

/// In a short list, a number whose neighbours on both sides share one verdict: asking for it alone takes one
/// comparison and leaves two segments less, where cutting takes two. In long lists halving is faster.
fn single_to_peel(segments: &[Segment]) -> Option<usize> {
    const SHORT: usize = 7;
    if segments.len() > SHORT {
        return None;
    }
    let peels = |w: &[Segment]| w[0].verdict == w[2].verdict && w[2].first - w[1].first == 1;
    segments.windows(3).position(peels).map(|before| before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: Verdict = Verdict::Give(1);
    const DENY: Verdict = Verdict::Give(0);

    fn from(first: u32, verdict: Verdict) -> Segment {
        Segment { first, verdict }
    }

    #[test]
    fn points_over_background() {
        let background = [from(0, DENY), from(100, Verdict::Give(38))];
        assert_eq!(segments(&background, &[]), background);
        assert_eq!(
            segments(&background, &[(0, ALLOW), (1, ALLOW), (2, DENY), (3, ALLOW), (99, ALLOW)]),
            [
                from(0, ALLOW),
                from(2, DENY),
                from(3, ALLOW),
                from(4, DENY),
                from(99, ALLOW),
                from(100, Verdict::Give(38)),
            ]
        );
        let last = [from(0, DENY), from(u32::MAX, ALLOW)];
        assert_eq!(segments(&[from(0, DENY)], &[(u32::MAX, ALLOW)]), last);
    }

    #[test]
    fn one_number_among_others_is_one_comparison() {
        let list = segments(&[from(0, DENY)], &[(5, ALLOW), (9, ALLOW), (40, ALLOW)]);
        let program = assemble(&[Section { token: 77, segments: list }], &[], 3);
        let comparisons = program.iter().filter(|i| i.code == JUMP_IF_EQUAL).count();
        assert_eq!((comparisons, program.len()), (4, 9), "{program:?}");
    }

    #[test]
    fn a_section_without_a_search_does_not_run_into_another() {
        let sections = [1, 2, 3].map(|token| {
            let verdict = if token == 2 { DENY } else { ALLOW };
            Section { token, segments: vec![from(0, verdict)] }
        });
        let program = assemble(&sections, &[], 3);
        let loads: Vec<u32> = program
            .windows(2)
            .filter(|pair| pair[0] == load(NUMBER))
            .map(|pair| match pair[1].code {
                RETURN => pair[1].value,
                code => panic!("instruction {code:#x}"),
            })
            .collect();
        assert_eq!(loads, [1, 0, 1]);
    }
}
