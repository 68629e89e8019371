//! A small seeded generator (SplitMix64): the same seed gives the same run on every machine.

#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to but not including 1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// An index, each as likely as its weight says; None when all weights are zero.
    pub fn pick(&mut self, weights: &[f64]) -> Option<usize> {
        let total: f64 = weights.iter().sum();
        let mut left = self.unit() * total;
        let mut last = None;
        for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            last = Some(index);
            if left < *weight {
                break;
            }
            left -= weight;
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        let first = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.draw(), random.draw(), random.draw()], first);
    }

    #[test]
    fn tickets_win_in_proportion() {
        let mut random = Random::new(7);
        let mut wins = [0; 4];
        for _ in 0..60_000 {
            wins[random.pick(&[1.0, 2.0, 0.0, 3.0]).unwrap()] += 1;
        }
        assert_eq!(wins[2], 0);
        for (won, expected) in [(wins[0], 10_000), (wins[1], 20_000), (wins[3], 30_000i32)] {
            assert!((won - expected).abs() < 400, "{wins:?}");
        }
        assert_eq!(random.pick(&[0.0, 0.0]), None);
        assert_eq!(random.pick(&[]), None);
    }
}
