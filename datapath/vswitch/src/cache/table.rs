//! Where are decisions kept? In a set-associative table of fixed size: allocated once, nothing moves, nothing grows.
//!
//! A set holds [`WAYS`] entries; their 8-bit tags are one word, compared at once, and an entry takes two cache lines. A full set
//! gives up what is stale, else what was used longest ago, so that frames which come once, as in a scan, displace each
//! other rather than a flow that lives.

use crate::actions::Actions;
use crate::key::FlowKey;
use crate::stations::{Dependence, Depends, Shared, Slot};
use crate::time::Now;

/// Entries of one set: the bytes of a word of tags.
const WAYS: usize = 8;
/// 1 in each byte, and the top bit of each.
const ONES: u64 = u64::from_ne_bytes([0x01; WAYS]);
const TOPS: u64 = u64::from_ne_bytes([0x80; WAYS]);

/// A decision, with all that says whether it still holds.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Entry {
    pub(crate) key: FlowKey,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// The stations that it depends on: the source and the destination.
    pub(crate) depends: Depends,
    pub(crate) actions: Actions,
    /// The program that it was derived from.
    pub(crate) epoch: u32,
    /// Where to note that the source is alive.
    pub(crate) source: Slot,
    /// When it was used last: the low bits of [`Now`].
    pub(crate) seen_ms: u32,
}

// A third cache line would be fetched for each.
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// True if nothing that the decision was derived from has changed.
    #[inline(always)]
    pub(crate) fn holds(&self, epoch: u32, shared: &Shared) -> bool {
        let [source, destination] = self.depends.both();
        self.epoch == epoch && shared.holds(source) && shared.holds(destination)
    }

    /// It answered so many frames now: counts them and keeps their source's station alive.
    #[inline(always)]
    pub(crate) fn count(&mut self, frames: u64, bytes: u64, shared: &Shared, now: Now) {
        self.frames += frames;
        self.bytes += bytes;
        if self.seen_ms != now.ms as u32 {
            self.seen_ms = now.ms as u32;
            shared.touch(self.source, now);
        }
    }

    /// Milliseconds since it was used. Right while below 49 days: sweeps see to that.
    pub(crate) fn idle_ms(&self, now: Now) -> u64 {
        u64::from((now.ms as u32).wrapping_sub(self.seen_ms))
    }
}

/// The table.
pub(crate) struct Table {
    /// By set; byte `w` is way `w`'s tag, 0 where that is empty.
    tags: Vec<u64>,
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
            depends: Depends::new([Dependence::NONE; 2]),
            actions: Actions::drop(frame::DropReason::NoNetwork),
            epoch: 0,
            source: Slot::NONE,
            seen_ms: 0,
        };
        Self { tags: vec![0; capacity / WAYS], entries: vec![empty; capacity], len: 0, cursor: 0 }
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
    fn tag(hash: u64) -> u8 {
        ((hash >> 56) as u8).max(1)
    }

    /// The tag of the place `at`.
    fn tag_at(&self, at: usize) -> u8 {
        (self.tags[at / WAYS] >> (at % WAYS * 8)) as u8
    }

    fn set_tag_at(&mut self, at: usize, tag: u8) {
        let shift = at % WAYS * 8;
        let tags = &mut self.tags[at / WAYS];
        *tags = *tags & !(0xff << shift) | u64::from(tag) << shift;
    }

    /// The tags of the set that `hash` chooses.
    #[inline(always)]
    pub(crate) fn tags(&self, hash: u64) -> u64 {
        self.tags[self.set(hash)]
    }

    /// The entry of `key`, stale or not.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, key: &FlowKey) -> Option<usize> {
        self.find_in(hash, self.tags(hash), key)
    }

    /// `at`, if the entry of `key` is there and holds.
    #[inline(always)]
    pub(crate) fn is_at(&self, at: usize, key: &FlowKey, (epoch, shared): (u32, &Shared)) -> Option<usize> {
        let entry = &self.entries[at];
        (same(&entry.key, key) && self.tag_at(at) != 0 && entry.holds(epoch, shared)).then_some(at)
    }

    /// As [`Table::find`], in a set whose tags are `tags`.
    #[inline(always)]
    pub(crate) fn find_in(&self, hash: u64, tags: u64, key: &FlowKey) -> Option<usize> {
        let set = self.set(hash);
        // The bytes that are 0 here are the ways with this tag. Their top bits are set below; some other's may be
        // too, which the comparison of the keys finds out.
        let differences = tags ^ (ONES * u64::from(Self::tag(hash)));
        let mut hits = differences.wrapping_sub(ONES) & !differences & TOPS;
        while hits != 0 {
            let at = set * WAYS + hits.trailing_zeros() as usize / 8;
            if same(&self.entries[at].key, key) && self.tag_at(at) != 0 {
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
        self.len += usize::from(self.tag_at(at) == 0);
        self.set_tag_at(at, Self::tag(hash));
        self.entries[at] = entry;
        evicted
    }

    /// The way of `set` that `newcomer` is to have: an empty one, else a stale one, else the one idle for longest.
    fn victim(&self, set: usize, newcomer: &Entry) -> usize {
        let worth = |way: &usize| {
            let entry = &self.entries[set * WAYS + way];
            let idle = newcomer.seen_ms.wrapping_sub(entry.seen_ms);
            (self.tag_at(set * WAYS + way) != 0, entry.epoch == newcomer.epoch, u32::MAX - idle)
        };
        set * WAYS + (0..WAYS).min_by_key(worth).unwrap_or(0)
    }

    /// Empties the place `at` and returns what was there.
    fn remove(&mut self, at: usize) -> Option<Entry> {
        self.remove_if(at, |_| true)
    }

    /// Empties the place `at` if `over` says so of its entry.
    pub(crate) fn remove_if(&mut self, at: usize, over: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        if self.tag_at(at) == 0 || !over(&self.entries[at]) {
            return None;
        }
        self.set_tag_at(at, 0);
        self.len -= 1;
        Some(self.entries[at])
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
        (0..self.entries.len()).filter(|at| self.tag_at(*at) != 0).map(|at| &self.entries[at])
    }
}

/// True if the keys are equal; without branches, so that it becomes a few vector instructions.
#[inline(always)]
pub(crate) fn same(one: &FlowKey, other: &FlowKey) -> bool {
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
