//! Where are decisions kept? In a set-associative table of fixed size: allocated once, nothing moves, nothing grows.
//!
//! A set holds [`WAYS`] entries; their 16-bit tags share a quarter of a cache line, and an entry takes two. A full set
//! gives up what is stale, else what was used longest ago, so that frames which come once, as in a scan, displace each
//! other rather than a flow that lives.

use crate::actions::Actions;
use crate::key::FlowKey;
use crate::stations::{Dependence, Slot};
use crate::time::Now;

/// Entries of one set.
const WAYS: usize = 8;

/// A decision, with all that says whether it still holds.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) key: FlowKey,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// The stations that it depends on: the source and the destination.
    pub(crate) depends: [Dependence; 2],
    pub(crate) actions: Actions,
    /// The program that it was derived from.
    pub(crate) epoch: u32,
    /// Where to note that the source is alive.
    pub(crate) source: Slot,
    /// When it was used last: the low bits of [`Now`].
    pub(crate) seen_ms: u32,
}

impl Entry {
    /// Milliseconds since it was used. Right while below 49 days: sweeps see to that.
    pub(crate) fn idle_ms(&self, now: Now) -> u64 {
        u64::from((now.ms as u32).wrapping_sub(self.seen_ms))
    }
}

/// The table.
pub(crate) struct Table {
    /// By set; 0 for an empty way.
    tags: Vec<[u16; WAYS]>,
    /// Way `w` of set `s` is at `s * WAYS + w`.
    entries: Vec<Entry>,
    len: usize,
    /// The entry that the next sweep begins with.
    cursor: usize,
}

impl Table {
    /// A table of `capacity` entries, a power of two of at least [`WAYS`].
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= WAYS, "{capacity} entries make no table");
        let empty = Entry {
            key: FlowKey::default(),
            frames: 0,
            bytes: 0,
            depends: [Dependence::NONE; 2],
            actions: Actions::drop(frame::DropReason::NoNetwork),
            epoch: 0,
            source: Slot::NONE,
            seen_ms: 0,
        };
        Self { tags: vec![[0; WAYS]; capacity / WAYS], entries: vec![empty; capacity], len: 0, cursor: 0 }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn entry(&self, at: usize) -> &Entry {
        &self.entries[at]
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, at: usize) -> &mut Entry {
        &mut self.entries[at]
    }

    #[inline]
    fn set(&self, hash: u64) -> usize {
        hash as usize & (self.tags.len() - 1)
    }

    /// The hash bits that chose no set; never 0.
    #[inline]
    fn tag(hash: u64) -> u16 {
        (hash >> 48) as u16 | 1
    }

    /// The entry of `key`, stale or not.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &FlowKey) -> Option<usize> {
        let set = self.set(hash);
        let tag = Self::tag(hash);
        let tags = &self.tags[set];
        let mut hits = 0u32;
        for (way, held) in tags.iter().enumerate() {
            hits |= u32::from(*held == tag) << way;
        }
        while hits != 0 {
            let at = set * WAYS + hits.trailing_zeros() as usize;
            if same(&self.entries[at].key, key) {
                return Some(at);
            }
            hits &= hits - 1;
        }
        None
    }

    /// Keeps `entry`. Returns what it took the place of, if that was not an entry of the same key.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        let (at, evicted) = match self.find(hash, &entry.key) {
            Some(at) => (at, None),
            None => {
                let at = self.victim(self.set(hash), &entry);
                (at, self.remove(at))
            }
        };
        let tag = &mut self.tags[at / WAYS][at % WAYS];
        self.len += usize::from(*tag == 0);
        *tag = Self::tag(hash);
        self.entries[at] = entry;
        evicted
    }

    /// The way of `set` that `newcomer` is to have: an empty one, else a stale one, else the one idle for longest.
    fn victim(&self, set: usize, newcomer: &Entry) -> usize {
        let worth = |way: &usize| {
            let entry = &self.entries[set * WAYS + way];
            let idle = newcomer.seen_ms.wrapping_sub(entry.seen_ms);
            (self.tags[set][*way] != 0, entry.epoch == newcomer.epoch, u32::MAX - idle)
        };
        set * WAYS + (0..WAYS).min_by_key(worth).unwrap_or(0)
    }

    /// Empties the place `at` and returns what was there.
    fn remove(&mut self, at: usize) -> Option<Entry> {
        let tag = &mut self.tags[at / WAYS][at % WAYS];
        (std::mem::take(tag) != 0).then(|| {
            self.len -= 1;
            self.entries[at]
        })
    }

    /// Empties the place `at` if `over` says so of its entry.
    pub(crate) fn remove_if(&mut self, at: usize, over: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let held = self.tags[at / WAYS][at % WAYS] != 0;
        if held && over(&self.entries[at]) { self.remove(at) } else { None }
    }

    /// The next up to `budget` places, going round; each call goes on where the last ended.
    pub(crate) fn sweep_places(&mut self, budget: usize) -> impl Iterator<Item = usize> + use<> {
        let capacity = self.entries.len();
        let from = self.cursor;
        let count = budget.min(capacity);
        self.cursor = (from + count) % capacity;
        (from..from + count).map(move |at| at % capacity)
    }

    /// All entries.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let tags = self.tags.as_flattened();
        self.entries.iter().zip(tags).filter(|(_, tag)| **tag != 0).map(|(entry, _)| entry)
    }
}

/// True if the keys are equal; without branches, so that it becomes a few vector instructions.
#[inline]
fn same(one: &FlowKey, other: &FlowKey) -> bool {
    one.0.iter().zip(other.0).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u64, seen_ms: u32, epoch: u32) -> Entry {
        let mut entry = *Table::new(WAYS).entry(0);
        entry.key.0[0] = key;
        (entry.seen_ms, entry.epoch) = (seen_ms, epoch);
        entry
    }

    #[test]
    fn an_entry_takes_two_cache_lines() {
        assert_eq!(size_of::<Entry>(), 128);
    }

    #[test]
    fn a_full_set_gives_up_the_stale_then_the_idle() {
        let mut table = Table::new(WAYS);
        for key in 0..WAYS as u32 {
            assert!(table.insert(0, entry(key.into(), 100 + key, if key == 5 { 0 } else { 1 })).is_none());
        }
        assert_eq!(table.len(), WAYS);
        assert_eq!(table.insert(0, entry(100, 200, 1)).map(|gone| gone.key.0[0]), Some(5));
        assert_eq!(table.insert(0, entry(101, 200, 1)).map(|gone| gone.key.0[0]), Some(0));
        assert_eq!(table.len(), WAYS);
    }

    #[test]
    fn the_same_key_is_held_once() {
        let mut table = Table::new(WAYS);
        table.insert(0, entry(1, 1, 1));
        assert!(table.insert(0, entry(1, 2, 2)).is_none());
        assert_eq!((table.len(), table.iter().count()), (1, 1));
        let at = table.find(0, &entry(1, 0, 0).key).unwrap();
        assert_eq!(table.remove(at).unwrap().seen_ms, 2);
        assert_eq!((table.len(), table.remove(at).is_none()), (0, true));
    }
}
