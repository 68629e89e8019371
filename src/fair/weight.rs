//! From what everybody stands for to the whole numbers of `cpu.weight`, keeping the ratios. Pure.
//!
//! OCI's own conversion bends ratios by up to 60 %; here 1024 shares are 100 and twice as much is twice as
//! much. Where a small weight could not be written within half a percent, all are scaled up together, unless
//! others beside ours have weights too, which would then have less.

pub const LEAST: u16 = 1;
pub const MOST: u16 = 10_000;
/// What 1024 shares are, as the kernel's default.
pub const USUAL: f64 = 100.0;

/// How far rounding may bend a ratio before all weights are scaled.
const BENT: f64 = 0.005;

/// The weights nearest to `standing` at `usual` for one unit of it. With `fixed` that scale is kept as long
/// as the largest weight allows.
pub fn weights(standing: &[f64], usual: f64, fixed: bool) -> Vec<u16> {
    let positive = standing.iter().copied().filter(|value| *value > 0.0 && value.is_finite());
    let least = positive.clone().fold(f64::INFINITY, f64::min);
    let most = positive.fold(0.0, f64::max);
    if most == 0.0 {
        return vec![USUAL as u16; standing.len()];
    }
    let largest_scale = f64::from(MOST) / most;
    let mut scale = usual.min(largest_scale);
    if !fixed && bent(standing, scale) > BENT {
        scale = straightest(standing, least, scale, largest_scale);
    }
    standing.iter().map(|value| whole(value * scale)).collect()
}

fn whole(value: f64) -> u16 {
    value.round().clamp(f64::from(LEAST), f64::from(MOST)) as u16
}

/// The smallest scale from about `from` on that bends no ratio by more than allowed, or the one that bends least.
fn straightest(standing: &[f64], least: f64, from: f64, to: f64) -> f64 {
    const FINEST: u32 = 400;
    let first = ((from * least) as u32).max(1);
    let mut best = (bent(standing, from), from);
    for whole in first..=first.max(FINEST) {
        let scale = f64::from(whole) / least;
        if scale > to {
            break;
        }
        let error = bent(standing, scale);
        if error < best.0 {
            best = (error, scale);
        }
        if error <= BENT {
            break;
        }
    }
    best.1
}

/// By how much the worst pair of weights misses the ratio that was meant.
pub fn bent(standing: &[f64], scale: f64) -> f64 {
    let (mut low, mut high) = (f64::INFINITY, 0.0f64);
    for value in standing.iter().filter(|value| **value > 0.0) {
        let ratio = f64::from(whole(value * scale)) / (value * scale);
        low = low.min(ratio);
        high = high.max(ratio);
    }
    if high > 0.0 { high / low - 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::Terms;
    use super::*;

    fn of_shares(shares: &[u64]) -> Vec<u16> {
        let standing: Vec<f64> = shares.iter().map(|shares| Terms::from_cpu_shares(*shares)).collect();
        weights(&standing, USUAL, false)
    }

    #[test]
    fn ratios_are_kept() {
        let table: &[(&[u64], &[u16])] = &[
            (&[1024], &[100]),
            (&[1024, 2048], &[100, 200]),
            (&[1024, 10240], &[100, 1000]),
            (&[102, 1024], &[10, 100]),
            (&[1024, 65536], &[100, 6400]),
            (&[2, 1024], &[1, 512]),
            (&[2, 20_000], &[1, 10_000]),
            // Further apart than the kernel's numbers are: the small one has the least there is.
            (&[2, 262_144], &[1, 10_000]),
            (&[], &[]),
        ];
        for (shares, expected) in table {
            assert_eq!(of_shares(shares), *expected, "{shares:?}");
        }
    }

    #[test]
    fn beside_others_the_scale_stays() {
        assert_eq!(weights(&[0.002, 1.0], USUAL, true), [1, 100]);
        assert_eq!(weights(&[1.0, 200.0], USUAL, true), [50, 10_000]);
    }

    #[test]
    fn any_two_shares_up_to_ten_thousand_apart_keep_their_ratio_within_one_percent() {
        let mut worst: f64 = 0.0;
        let mut small = 2;
        while small <= 262_144 {
            let mut large = small;
            while large <= 262_144 && large / small < 10_000 {
                let written = of_shares(&[small, large]);
                let ratio = f64::from(written[1]) / f64::from(written[0]);
                worst = worst.max((ratio * small as f64 / large as f64 - 1.0).abs());
                large += 1 + large / 37;
            }
            small += 1 + small / 41;
        }
        assert!(worst < 0.01, "{worst}");
    }

    proptest! {
        #[test]
        fn a_mix_up_to_two_hundred_apart_is_within_one_percent(shares in prop::collection::vec(2u64..262_144, 1..40)) {
            let most = *shares.iter().max().unwrap();
            let shares: Vec<u64> = shares.into_iter().map(|s| s.max(most / 200).max(2)).collect();
            let written = of_shares(&shares);
            for (a, wa) in shares.iter().zip(&written) {
                for (b, wb) in shares.iter().zip(&written) {
                    let error = (f64::from(*wa) / f64::from(*wb)) * (*b as f64 / *a as f64) - 1.0;
                    prop_assert!(error.abs() < 0.0105, "{a}:{b} written {wa}:{wb}");
                }
            }
        }

        #[test]
        fn weights_are_in_range_and_in_order(standing in prop::collection::vec(1e-6f64..1e6, 1..40), fixed: bool) {
            let written = weights(&standing, USUAL, fixed);
            for (a, wa) in standing.iter().zip(&written) {
                prop_assert!((LEAST..=MOST).contains(wa));
                for (b, wb) in standing.iter().zip(&written) {
                    prop_assert!(a > b || wa <= wb);
                }
            }
        }
    }
}
