//! The id of what is in a file, in which zeros cost next to nothing: a hole of a terabyte takes no longer than none. Pure.
//!
//! A file of up to a block is hashed as it is. Of a longer one each block that is not all zeros is hashed with its number, and
//! the size. Whether zeros are a hole or were written makes no difference.

use super::id::{Hasher, Id};

const BLOCK: u64 = 1 << 20;
const SHORT: &str = "deja content 1";
const LONG: &str = "deja content of blocks 1";

pub struct Content {
    hasher: Hasher,
    size: u64,
    /// Of the block that is being filled something was hashed, so all of it has to be.
    counts: bool,
}

impl Default for Content {
    fn default() -> Self {
        Self { hasher: Hasher::new(SHORT), size: 0, counts: true }
    }
}

impl Content {
    pub fn id_of(bytes: &[u8]) -> Id {
        let mut content = Self::default();
        content.bytes(bytes);
        content.finish()
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let place = self.begin_block();
            let (now, later) = bytes.split_at(bytes.len().min((BLOCK - place) as usize));
            if !self.counts && now.iter().any(|byte| *byte != 0) {
                self.counts = true;
                self.hasher.raw(&(self.size / BLOCK).to_le_bytes());
                self.hash_zeros(place);
            }
            if self.counts {
                self.hasher.raw(now);
            }
            self.size += now.len() as u64;
            bytes = later;
        }
    }

    /// So many zeros, as a hole has them.
    pub fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            let place = self.begin_block();
            let whole = if self.counts { 0 } else { count / BLOCK * BLOCK };
            let now = if place == 0 && whole > 0 { whole } else { count.min(BLOCK - place) };
            if self.counts {
                self.hash_zeros(now);
            }
            self.size += now;
            count -= now;
        }
    }

    /// Where in a block what comes next belongs.
    fn begin_block(&mut self) -> u64 {
        let place = self.size % BLOCK;
        if self.size == BLOCK {
            let first = std::mem::replace(&mut self.hasher, Hasher::new(LONG));
            self.hasher.raw(&first.finish().0);
        }
        if self.size >= BLOCK && place == 0 {
            self.counts = false;
        }
        place
    }

    fn hash_zeros(&mut self, mut count: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let now = count.min(ZEROS.len() as u64);
            self.hasher.raw(&ZEROS[..now as usize]);
            count -= now;
        }
    }

    pub fn finish(mut self) -> Id {
        if self.size > BLOCK {
            self.hasher.raw(&self.size.to_le_bytes());
        }
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_of_a_block_is_hashed_as_it_is() {
        for size in [0, 1, BLOCK as usize] {
            let bytes = vec![7; size];
            assert_eq!(Content::id_of(&bytes), Id::of(SHORT, &bytes), "{size} bytes");
        }
    }

    #[test]
    fn a_hole_of_a_terabyte_takes_no_time_and_counts() {
        let hole = |before: &[u8], zeros: u64, after: &[u8]| {
            let mut content = Content::default();
            content.bytes(before);
            content.zeros(zeros);
            content.bytes(after);
            content.finish()
        };
        let all = [
            hole(b"", 1 << 50, b""),
            hole(b"", (1 << 50) + 1, b""),
            hole(b"x", 1 << 50, b""),
            hole(b"", 1 << 50, b"x"),
            hole(b"", (1 << 50) + BLOCK, b"x"),
            hole(b"x", 1 << 50, b"x"),
        ];
        for (one, id) in all.iter().enumerate() {
            assert!(!all[..one].contains(id), "{one}");
        }
    }

    /// Zeros and others, in pieces around the sizes that matter.
    fn pieces() -> impl Strategy<Value = Vec<(bool, usize)>> {
        let size =
            prop_oneof![1..9usize, (BLOCK as usize - 4)..(BLOCK as usize + 4), 1..(2 * BLOCK as usize)];
        prop::collection::vec((any::<bool>(), size), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn holes_and_zeros_are_one_and_pieces_do_not_matter(pieces in pieces(), cut in 1..300_000usize) {
            let mut whole = Vec::new();
            let mut content = Content::default();
            for (zero, size) in pieces {
                let bytes = vec![u8::from(!zero); size];
                if zero { content.zeros(size as u64) } else { content.bytes(&bytes) }
                whole.extend(bytes);
            }
            prop_assert_eq!(content.size(), whole.len() as u64);
            let mut cuts = Content::default();
            whole.chunks(cut).for_each(|chunk| cuts.bytes(chunk));
            let id = content.finish();
            prop_assert_eq!(cuts.finish(), id);
            if let Some(last) = whole.last_mut() {
                *last ^= 2;
                prop_assert_ne!(Content::id_of(&whole), id);
            }
        }
    }
}
