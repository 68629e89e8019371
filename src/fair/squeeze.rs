//! Memory as the second thing that is shared: what terms come to in control files, and the squeeze, which takes
//! back what nobody misses. Pure.
//!
//! The squeeze asks the kernel to reclaim a little (`memory.reclaim`), and less the more its container waits for
//! memory; it stops well before waiting hurts. It sets no limit, so it can push nobody out of memory, and it
//! leaves alone what is reserved.

use std::collections::BTreeMap;

/// What a container asks for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Never taken away.
    pub reservation: Option<u64>,
    pub limit: Option<u64>,
    /// What it does not use may be taken back.
    pub squeeze: bool,
}

/// The files that are ever written.
pub const FILES: [&str; 3] = ["memory.min", "memory.high", "memory.max"];

impl Memory {
    /// The values of `FILES` that follow from the terms; the others stay what they are. Allocations are slowed
    /// down in the last tenth before the limit, so that there is time to reclaim.
    pub fn files(&self) -> BTreeMap<&'static str, String> {
        let mut files = BTreeMap::new();
        if let Some(reservation) = self.reservation {
            files.insert("memory.min", reservation.to_string());
        }
        if let Some(limit) = self.limit {
            let floor = self.reservation.unwrap_or(0).min(limit);
            let high = floor + (limit - floor) / 10 * 9;
            files.insert("memory.high", high.to_string());
            files.insert("memory.max", limit.to_string());
        }
        files
    }
}

/// Seconds between two squeezes.
pub const PACE: f64 = 6.0;
/// Part of the time that waiting for memory may cost.
const TARGET: f64 = 0.0017;
/// The most that is taken at once: part of what is there, and bytes.
const PART: f64 = 0.01;
const MOST: u64 = 64 << 20;
/// Less is not worth a system call.
const LEAST: u64 = 64 << 10;
/// Every program needs some.
const FLOOR: u64 = 4 << 20;

/// How many bytes to reclaim of `bytes`, if somebody waited for memory `waited` of the time.
pub fn reclaim(memory: &Memory, bytes: u64, waited: f64) -> Option<u64> {
    let spare = bytes.checked_sub(memory.reservation.unwrap_or(0).max(FLOOR))?;
    let ease = (1.0 - waited / TARGET).max(0.0);
    let amount = ((bytes as f64 * PART * ease * ease) as u64).min(spare).min(MOST);
    (memory.squeeze && amount >= LEAST).then_some(amount)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_become_files() {
        let files = |reservation, limit| {
            let memory = Memory { reservation, limit, squeeze: false };
            memory.files().into_iter().map(|(file, value)| format!("{file} {value}")).collect::<Vec<_>>()
        };
        assert!(files(None, None).is_empty());
        assert_eq!(files(Some(50), None), ["memory.min 50"]);
        assert_eq!(files(None, Some(1000)), ["memory.high 900", "memory.max 1000"]);
        let both = ["memory.high 950", "memory.max 1000", "memory.min 500"];
        assert_eq!(files(Some(500), Some(1000)), both);
        assert_eq!(files(Some(2000), Some(1000))[0], "memory.high 1000");
    }

    #[test]
    fn the_more_it_waits_the_less_is_taken() {
        let memory = Memory { squeeze: true, reservation: Some(100 << 20), limit: None };
        let table = [
            (1 << 30, 0.0, Some(10_737_418)),
            (1 << 30, TARGET / 2.0, Some(2_684_354)),
            (1 << 30, TARGET, None),
            (1 << 30, 0.5, None),
            // What is reserved stays.
            ((100 << 20) + (1 << 18), 0.0, Some(1 << 18)),
            (100 << 20, 0.0, None),
            (50 << 20, 0.0, None),
            (100 << 30, 0.0, Some(MOST)),
        ];
        for (bytes, waited, expected) in table {
            assert_eq!(reclaim(&memory, bytes, waited), expected, "{bytes} bytes, waiting {waited}");
        }
        assert_eq!(reclaim(&Memory::default(), 1 << 30, 0.0), None, "only where it was asked for");
    }

    proptest! {
        #[test]
        fn never_more_than_a_hundredth_and_never_what_is_reserved(bytes: u64, reserved in 0u64..1 << 40, waited in 0.0f64..1.0) {
            let memory = Memory { squeeze: true, reservation: Some(reserved), limit: None };
            if let Some(amount) = reclaim(&memory, bytes, waited) {
                prop_assert!(bytes - amount >= reserved);
                prop_assert!(amount as f64 <= bytes as f64 * PART * 1.000_001);
            }
        }
    }
}
