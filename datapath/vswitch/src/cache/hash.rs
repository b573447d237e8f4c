//! Into which bucket does a key fall? Unpredictable to those who choose the keys.

use crate::key::{FlowKey, WORDS};

/// A keyed hash: products of two words, each hidden by a secret one, folded to 64 bits.
#[derive(Debug, Clone)]
pub(crate) struct KeyHasher([u64; WORDS]);

impl KeyHasher {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        let fold = |at: usize| {
            let product = u128::from(key.0[at] ^ self.0[at]) * u128::from(key.0[at + 1] ^ self.0[at + 1]);
            (product as u64) ^ (product >> 64) as u64
        };
        // The four products do not wait for each other.
        let hash = (fold(0) ^ fold(2)).wrapping_add(fold(4) ^ fold(6).rotate_left(32));
        hash ^ hash >> 32
    }
}

/// Sebastiano Vigna's SplitMix64: makes many secrets of one.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn neighbouring_keys_fall_into_different_buckets() {
        let hasher = KeyHasher::new(1);
        for word in 0..WORDS {
            let buckets: HashSet<u64> = (0..4096u64)
                .map(|value| {
                    let mut key = FlowKey::default();
                    key.0[word] = value;
                    hasher.hash(&key) & 0xffff
                })
                .collect();
            // 4096 balls in 65536 bins: some 3970 bins are hit by chance.
            assert!(buckets.len() > 3800, "word {word}: {} buckets", buckets.len());
        }
    }

    #[test]
    fn another_seed_gives_other_buckets() {
        let key = FlowKey([3; WORDS]);
        assert_ne!(KeyHasher::new(1).hash(&key), KeyHasher::new(2).hash(&key));
    }
}
