//! How do versions of a program share what is the same in them? By maps whose copies cost nothing, and of which a change
//! copies the few nodes on its way.

use std::hash::Hash;

/// A map of which most is shared with its copies. Its keys are control's, not packets'.
pub(super) type Map<K, V> = rpds::HashTrieMapSync<K, V, foldhash::fast::RandomState>;

/// What is there, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tally<K: Eq + Hash>(Map<K, u32>);

impl<K: Eq + Hash> Default for Tally<K> {
    fn default() -> Self {
        Self(Map::default())
    }
}

impl<K: Eq + Hash + Copy> Tally<K> {
    pub(super) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn add(&mut self, key: K) {
        if let Some(count) = self.0.get_mut(&key) {
            *count += 1;
        } else {
            self.0.insert_mut(key, 1);
        }
    }

    /// Takes back one [`Tally::add`].
    pub(super) fn remove(&mut self, key: &K) {
        match self.0.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.0.remove_mut(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_is_still_there_once_and_copies_stay_as_they_were() {
        let mut tally = Tally::default();
        tally.add(7);
        tally.add(7);
        let before = tally.clone();
        tally.remove(&7);
        assert!(tally.has(&7));
        tally.remove(&7);
        assert!(!tally.has(&7) && before.has(&7));
    }
}
