//! Which number stands for a meaning? One, while anybody uses it.

use std::hash::Hash;
use std::sync::Arc;

use crate::hash::{Map, NumberMap};

/// Meanings and their numbers, with how often each is used.
#[derive(Debug)]
pub(crate) struct Numbers<K> {
    by_meaning: Map<Arc<K>, u32>,
    by_number: NumberMap<u32, Entry<K>>,
    next: u32,
    /// Perhaps without a use.
    idle: Vec<u32>,
}

#[derive(Debug)]
struct Entry<K> {
    meaning: Arc<K>,
    uses: usize,
}

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Self { by_meaning: Map::default(), by_number: NumberMap::default(), next: 1, idle: Vec::new() }
    }
}

impl<K: Eq + Hash> Numbers<K> {
    /// One more use of a meaning: its number, and true if it is new.
    pub(crate) fn acquire(&mut self, meaning: K) -> (u32, bool) {
        if let Some(number) = self.by_meaning.get(&meaning) {
            if let Some(entry) = self.by_number.get_mut(number) {
                entry.uses += 1;
            }
            return (*number, false);
        }
        // Numbers come again only when all others did.
        while self.by_number.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let (number, meaning) = (self.next, Arc::new(meaning));
        self.next = self.next.wrapping_add(1);
        self.by_meaning.insert(Arc::clone(&meaning), number);
        self.by_number.insert(number, Entry { meaning, uses: 1 });
        (number, true)
    }

    /// One use less. The number stands until the next [`Numbers::sweep`].
    pub(crate) fn release(&mut self, number: u32) {
        if let Some(entry) = self.by_number.get_mut(&number) {
            entry.uses -= 1;
            if entry.uses == 0 {
                self.idle.push(number);
            }
        }
    }

    /// Forgets what nobody uses: its numbers and meanings.
    pub(crate) fn sweep(&mut self) -> Vec<(u32, Arc<K>)> {
        let mut gone = Vec::new();
        for number in std::mem::take(&mut self.idle) {
            if self.by_number.get(&number).is_some_and(|entry| entry.uses == 0)
                && let Some(entry) = self.by_number.remove(&number)
            {
                self.by_meaning.remove(&entry.meaning);
                gone.push((number, entry.meaning));
            }
        }
        gone
    }

    pub(crate) fn meaning(&self, number: u32) -> Option<&Arc<K>> {
        self.by_number.get(&number).map(|entry| &entry.meaning)
    }

    pub(crate) fn find(&self, meaning: &K) -> Option<u32> {
        self.by_meaning.get(meaning).copied()
    }

    /// All numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.by_number.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_while_anybody_uses_it_and_is_not_the_next_ones() {
        let mut numbers = Numbers::default();
        let (a, born) = numbers.acquire("a");
        assert!(born);
        assert_eq!(numbers.acquire("a"), (a, false));
        numbers.release(a);
        assert_eq!(numbers.sweep(), []);
        numbers.release(a);
        assert_eq!(numbers.acquire("a"), (a, false), "released and taken up again");
        numbers.release(a);
        assert_eq!(numbers.sweep(), [(a, Arc::new("a"))]);
        let (again, born) = numbers.acquire("a");
        assert!(born && again != a);
        assert_eq!(numbers.find(&"a"), Some(again));
    }
}
