//! Which rules? A set of rule numbers, of which most words are empty and none is stored.

/// A set of numbers, in words that are not empty, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits(Vec<(u32, u64)>);

impl Bits {
    /// Adds a number; numbers come in ascending order.
    pub(super) fn push(&mut self, number: u32) {
        let (word, bit) = (number / 64, 1 << (number % 64));
        match self.0.last_mut() {
            Some((last, bits)) if *last == word => *bits |= bit,
            _ => self.0.push((word, bit)),
        }
    }

    /// Word `word`.
    fn word(&self, word: u32) -> u64 {
        self.0.binary_search_by_key(&word, |(at, _)| *at).map_or(0, |at| self.0[at].1)
    }

    /// The first word from `word` on that is not empty.
    fn next(&self, word: u32) -> Option<u32> {
        self.0.get(self.0.partition_point(|(at, _)| *at < word)).map(|(at, _)| *at)
    }
}

/// The least number from `from` on that one of `these` has and one of `those`. Takes time by the words that `these` have.
pub(super) fn first_common(these: [&Bits; 2], those: [&Bits; 2], from: u32) -> Option<u32> {
    let mut word = from / 64;
    let mut wanted = u64::MAX << (from % 64);
    loop {
        word = match these.map(|bits| bits.next(word)) {
            [Some(one), Some(other)] => {
                let next = one.min(other);
                wanted = if next == word { wanted } else { u64::MAX };
                next
            }
            [Some(next), None] | [None, Some(next)] => {
                wanted = if next == word { wanted } else { u64::MAX };
                next
            }
            [None, None] => return None,
        };
        let either = |bits: [&Bits; 2]| bits[0].word(word) | bits[1].word(word);
        let common = either(these) & either(those) & wanted;
        if common != 0 {
            return Some(word * 64 + common.trailing_zeros());
        }
        word = word.checked_add(1)?;
        wanted = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn bits(numbers: &BTreeSet<u32>) -> Bits {
        let mut bits = Bits::default();
        numbers.iter().for_each(|number| bits.push(*number));
        bits
    }

    proptest! {
        #[test]
        fn the_first_common_number_is_that_of_the_sets(
            a in btree_set(0..500u32, 0..40), b in btree_set(0..500u32, 0..40),
            c in btree_set(0..500u32, 0..40), d in btree_set(0..500u32, 0..40), from in 0..520u32
        ) {
            let [wa, wb, wc, wd] = [&a, &b, &c, &d].map(bits);
            let these: BTreeSet<u32> = &a | &b;
            let those: BTreeSet<u32> = &c | &d;
            let expected = (&these & &those).into_iter().find(|number| *number >= from);
            prop_assert_eq!(first_common([&wa, &wb], [&wc, &wd], from), expected);
        }
    }
}
