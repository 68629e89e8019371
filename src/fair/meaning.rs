//! What the kernel takes `cpu.weight` for, found out by watching. Pure.
//!
//! Until Linux 7.2 a weight is the whole group's. From 7.3 on it may be that of each CPU the group is active
//! on: a group with threads for eight CPUs then weighs eight times as much as one with one. The version says
//! nothing (the default may change, and can be set), so both are tried against what was received: whichever
//! predicts it clearly better is believed.

use super::fill::{Claim, fill};
use super::meter::Measure;
use super::policy::Setting;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    PerGroup,
    PerCpu,
}

impl Meaning {
    pub fn name(self) -> &'static str {
        match self {
            Meaning::PerGroup => "group",
            Meaning::PerCpu => "cpu",
        }
    }

    /// How many times its weight a leaf weighs.
    pub fn factor(self, measure: &Measure) -> f64 {
        match self {
            Meaning::PerGroup => 1.0,
            Meaning::PerCpu => measure.runnable.min(measure.cpus).max(1.0),
        }
    }
}

/// Evidence, in seconds times squared relative error, everybody counting by its size. Positive speaks for PerCpu.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    evidence: f64,
    believed: Option<Meaning>,
}

/// So much evidence decides, and no more is kept, so that a change of mind stays possible.
const ENOUGH: f64 = 0.05;
const MOST: f64 = 0.1;
/// Predictions closer than this cannot tell the two apart.
const DISTINCT: f64 = 0.1;

impl Detector {
    /// None while nothing has told them apart.
    pub fn believed(&self) -> Option<Meaning> {
        self.believed
    }

    /// Weighs an interval in which `settings` were in force.
    pub fn watch(&mut self, elapsed: f64, measures: &[Measure], settings: &[Setting]) {
        let (group, cpu) =
            (predict(Meaning::PerGroup, measures, settings), predict(Meaning::PerCpu, measures, settings));
        let judged: Vec<usize> = (0..measures.len())
            .filter(|leaf| measures[*leaf].saturated && measures[*leaf].held.is_none())
            .collect();
        let distinct = judged.iter().any(|leaf| (group[*leaf] / cpu[*leaf]).ln().abs() > DISTINCT);
        if judged.len() < 2 || !distinct {
            return;
        }
        // Both errors are measured with the same yard: what chance adds to them then cancels out, even where a small
        // share has had no turn or two in an interval, and large shares, which have had many, decide.
        let mut difference = 0.0;
        let mut size = 0.0;
        for leaf in judged {
            let (group, cpu, used) = (group[leaf], cpu[leaf], measures[leaf].used);
            let middle = ((group + cpu) / 2.0).max(1e-6);
            difference += ((used - group).powi(2) - (used - cpu).powi(2)) / middle;
            size += middle;
        }
        self.evidence = (self.evidence + elapsed.min(1.0) * difference / size).clamp(-MOST, MOST);
        if self.evidence.abs() >= ENOUGH {
            self.believed = Some(if self.evidence > 0.0 { Meaning::PerCpu } else { Meaning::PerGroup });
        }
    }
}

/// What each leaf would receive of all that was used, if weights meant this.
fn predict(meaning: Meaning, measures: &[Measure], settings: &[Setting]) -> Vec<f64> {
    let claims: Vec<Claim> = measures
        .iter()
        .zip(settings)
        .map(|(measure, setting)| Claim {
            weight: if setting.idle { 0.01 } else { f64::from(setting.weight) * meaning.factor(measure) },
            floor: 0.0,
            demand: if measure.held.is_some() { measure.used } else { measure.demand },
        })
        .collect();
    fill(measures.iter().map(|measure| measure.used).sum(), &claims).amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hogs(count: f64, used: f64) -> Measure {
        let demand = count.min(2.0);
        Measure {
            used,
            demand,
            runnable: count,
            saturated: used < demand,
            pressure: 1.0,
            cpus: 2.0,
            held: None,
        }
    }

    fn believed(measures: &[Measure], weights: &[u16]) -> Option<Meaning> {
        let settings: Vec<Setting> = weights.iter().map(|weight| Setting::of_weight(*weight)).collect();
        let mut detector = Detector::default();
        for _ in 0..8 {
            detector.watch(0.25, measures, &settings);
        }
        detector.believed()
    }

    #[test]
    fn what_is_received_tells() {
        let (group, cpu) = (Some(Meaning::PerGroup), Some(Meaning::PerCpu));
        // 1 thread against 16 on two CPUs, equal weights.
        assert_eq!(believed(&[hogs(1.0, 0.96), hogs(16.0, 1.04)], &[100, 100]), group);
        assert_eq!(believed(&[hogs(1.0, 0.67), hogs(16.0, 1.33)], &[100, 100]), cpu);
        // Compensated: one to three, written so that only one meaning explains it.
        assert_eq!(believed(&[hogs(1.0, 0.51), hogs(16.0, 1.49)], &[100, 150]), cpu);
        assert_eq!(believed(&[hogs(1.0, 0.99), hogs(1.0, 0.5), hogs(1.0, 0.5)], &[200, 100, 100]), None);
        assert_eq!(believed(&[hogs(1.0, 1.0), hogs(1.0, 1.0)], &[100, 100]), None);
        assert_eq!(believed(&[], &[]), None);
    }

    /// Eighty that share two CPUs get whole turns of 8 ms: most have none in an interval, some have two.
    #[test]
    fn it_tells_among_many_who_have_a_turn_now_and_then_only() {
        let counts: Vec<f64> = (0..80).map(|leaf| if leaf < 20 { 2.0 } else { 1.0 }).collect();
        let settings = vec![Setting::of_weight(100); counts.len()];
        for (meaning, size) in [(Meaning::PerGroup, [1.0, 1.0]), (Meaning::PerCpu, [2.0, 1.0])] {
            let size = |leaf: usize| size[usize::from(leaf >= 20)];
            let total: f64 = (0..80).map(size).sum();
            let mut detector = Detector::default();
            let mut owed: Vec<f64> = (0..80).map(|leaf| 0.008 * (leaf % 7) as f64 / 7.0).collect();
            for _ in 0..12 {
                let turn = |(leaf, owed): (usize, &mut f64)| {
                    *owed += 0.5 * size(leaf) / total;
                    let turns = (*owed / 0.008).floor();
                    *owed -= turns * 0.008;
                    hogs(counts[leaf], turns * 0.008 / 0.25)
                };
                let measures: Vec<Measure> = owed.iter_mut().enumerate().map(turn).collect();
                detector.watch(0.25, &measures, &settings);
            }
            assert_eq!(detector.believed(), Some(meaning));
        }
    }

    #[test]
    fn a_belief_can_change() {
        let settings = [Setting::of_weight(100), Setting::of_weight(100)];
        let mut detector = Detector::default();
        for (used, expected) in [(0.67, Meaning::PerCpu), (0.98, Meaning::PerGroup), (0.67, Meaning::PerCpu)]
        {
            for _ in 0..12 {
                detector.watch(0.25, &[hogs(1.0, used), hogs(16.0, 2.0 - used)], &settings);
            }
            assert_eq!(detector.believed(), Some(expected));
        }
    }
}
