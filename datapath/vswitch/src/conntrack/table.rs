//! Where is the connection of a tuple? Two chains per connection, in buckets that never grow.
//!
//! Theory of operation. Entries lie in segments of [`SEGMENT`], which are made as they are needed and never freed, so
//! that an entry's number reaches it without a lock for ever after. The buckets' heads are as many as the table may
//! ever need: nothing is hashed again, nothing moves, and a page of heads that nobody has used costs no memory.
//!
//! An entry is in the chains of two buckets, by its original tuple and by its reply tuple. Buckets belong to [`SHARDS`]
//! shards by the upper bits of the hash, each with its lock. A look-up takes one lock; what inserts and removes takes
//! both shards' locks, the lower number first. A shard gives its connections entries of its own segments.
//!
//! **Memory.** 152 bytes each, and heads: 8 to 16 bytes more for each connection that the table has room for, once they
//! are all used.
//!
//! The hash is keyed, so that nobody can aim at a bucket.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::entry::{Cold, Hot, Record};
use super::tuple::{Direction, Tuple};
use super::vacancy::{Places, Shared, Vacancy};
use crate::cache::hash::KeyHasher;
use crate::time::Now;

/// Locks, a power of two: many more than workers.
const SHARDS: usize = 64;
/// Entries that are made at once: the most that one new connection can cost in allocation.
pub(super) const SEGMENT: usize = 128;
/// One entry in so many is spare, for shards that chance gives more than others.
const SPARE: usize = 16;
/// Connections that a table holds at most: their numbers leave room for a direction and for "none".
pub(super) const MAX_ENTRIES: usize = 1 << 29;

/// A connection and a direction of it. Costs no look-up to use, and is void when the connection is gone, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle {
    place: Place,
    generation: NonZeroU32,
}

/// An entry's number, and in the lowest bit a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u32);

/// An entry in use, or not.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) hot: &'a Hot,
    pub(super) cold: &'a Cold,
}

#[derive(Debug)]
struct Segment {
    hot: [Hot; SEGMENT],
    cold: [Cold; SEGMENT],
}

#[derive(Debug)]
pub(super) struct Table {
    segments: Box<[OnceLock<Box<Segment>>]>,
    /// Segments that a shard has asked for.
    taken: AtomicU32,
    shards: Box<[Mutex<Shard>]>,
    places: Places,
    hasher: KeyHasher,
    /// Bits of the hash that choose the bucket within a shard.
    bucket_mask: usize,
}

#[derive(Debug)]
struct Shard {
    /// By bucket: one more than the first place of the chain; 0 if that is empty.
    heads: Vec<u32>,
    /// One more than the number of the first unused entry; they are chained, too.
    free: u32,
}

/// Why an entry was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is a connection of the original tuple.
    Original,
    /// There is one of the reply tuple.
    Reply,
    /// There is no room.
    Full,
}

impl Handle {
    pub(crate) fn direction(self) -> Direction {
        self.place.direction()
    }

    /// The same connection, the other way.
    pub(crate) fn turned(self) -> Self {
        Self { place: Place(self.place.0 ^ 1), ..self }
    }

    pub(super) fn generation(self) -> NonZeroU32 {
        self.generation
    }
}

impl Place {
    fn new(entry: u32, direction: Direction) -> Self {
        Self(entry << 1 | direction.index() as u32)
    }

    fn entry(self) -> u32 {
        self.0 >> 1
    }

    fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply }
    }

    /// As a link of a chain.
    fn link(self) -> u32 {
        self.0 + 1
    }

    fn of_link(link: u32) -> Option<Self> {
        link.checked_sub(1).map(Self)
    }
}

impl Table {
    /// A table for at least `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.min(MAX_ENTRIES);
        // Each shard may have begun a segment, and may hold more than its share: its entries are for no other.
        let segments = (capacity + capacity / SPARE).div_ceil(SEGMENT) + SHARDS;
        // Two chains each, and a chain's length of 1 on average at most.
        let buckets = (capacity * 2 / SHARDS).next_power_of_two();
        let shard = || Shard { heads: vec![0; buckets], free: 0 };
        Self {
            segments: (0..segments).map(|_| OnceLock::new()).collect(),
            taken: AtomicU32::new(0),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            places: Places::new(),
            hasher: KeyHasher::new(RandomState::new().build_hasher().finish()),
            bucket_mask: buckets - 1,
        }
    }

    /// The connection of `tuple`, and which direction that is.
    pub(super) fn find(&self, tuple: &Tuple) -> Option<Handle> {
        let hash = self.hash(tuple);
        self.walk(&self.lock(hash), hash, tuple)
    }

    /// That there is no connection of `tuple`, nor of one with another source port; `None` if there may be one.
    pub(super) fn vacancy(&self, tuple: &Tuple) -> Option<Vacancy> {
        self.places.vacancy(self.places_of(&Shared::of_packet(tuple)))
    }

    /// False if one may have begun since.
    #[inline]
    pub(super) fn is_vacant(&self, vacancy: Vacancy) -> bool {
        self.places.stands(vacancy)
    }

    /// The entry that `handle` was given for, unless it is another's by now.
    #[inline]
    pub(super) fn get(&self, handle: Handle) -> Option<Entry<'_>> {
        self.entry(handle.place.entry()).filter(|entry| entry.hot.is(handle.generation))
    }

    /// Entry `number`, if there is one.
    #[inline]
    pub(super) fn entry(&self, number: u32) -> Option<Entry<'_>> {
        let (segment, at) = (number as usize / SEGMENT, number as usize % SEGMENT);
        let segment = self.segments.get(segment)?.get()?;
        Some(Entry { hot: &segment.hot[at], cold: &segment.cold[at] })
    }

    /// The connection that lives in entry `number`, if one does.
    pub(super) fn handle(&self, number: u32) -> Option<Handle> {
        let generation = self.entry(number)?.hot.generation()?;
        Some(Handle { place: Place::new(number, Direction::Original), generation })
    }

    /// Entries that were ever made: numbers are below.
    pub(super) fn len(&self) -> usize {
        (self.taken.load(Relaxed) as usize).min(self.segments.len()) * SEGMENT
    }

    /// Bytes that the entries made so far and the heads take.
    pub(super) fn bytes(&self) -> usize {
        let heads = SHARDS * (self.bucket_mask + 1) * size_of::<u32>();
        heads + size_of_val(&*self.segments) + self.len() / SEGMENT * size_of::<Segment>()
    }

    /// Makes an entry, if neither tuple is taken.
    pub(super) fn insert(&self, record: &Record, now: Now) -> Result<Handle, Taken> {
        let hashes = record.tuples.map(|tuple| self.hash(&tuple));
        let mut locks = self.lock_both(hashes);
        for (direction, taken) in Direction::BOTH.into_iter().zip([Taken::Original, Taken::Reply]) {
            let at = direction.index();
            if self.walk(locks.shard(direction), hashes[at], &record.tuples[at]).is_some() {
                return Err(taken);
            }
        }
        let number = self.take(locks.shard(Direction::Original)).ok_or(Taken::Full)?;
        let entry = self.entry(number).ok_or(Taken::Full)?;
        entry.cold.write(record);
        let generation = entry.hot.begin(record, now);
        for direction in Direction::BOTH {
            let head = self.bucket(hashes[direction.index()]);
            let head = &mut locks.shard(direction).heads[head];
            let place = Place::new(number, direction);
            entry.cold.next[direction.index()].store(std::mem::replace(head, place.link()), Relaxed);
        }
        self.places.enter(self.places_of(&Shared::of_connection(&record.tuples)));
        Ok(Handle { place: Place::new(number, Direction::Original), generation })
    }

    /// Removes a connection. False if it was gone.
    pub(super) fn remove(&self, handle: Handle) -> bool {
        let Some(entry) = self.get(handle) else { return false };
        let tuples = Direction::BOTH.map(|direction| entry.cold.tuple(direction));
        let hashes = tuples.map(|tuple| self.hash(&tuple));
        let mut locks = self.lock_both(hashes);
        // What was read without the lock was this connection's if it still lives.
        if !entry.hot.is(handle.generation) {
            return false;
        }
        entry.hot.end();
        self.places.leave(self.places_of(&Shared::of_connection(&tuples)));
        for direction in Direction::BOTH {
            let bucket = self.bucket(hashes[direction.index()]);
            self.unlink(locks.shard(direction), bucket, Place::new(handle.place.entry(), direction));
        }
        let home = locks.shard(Direction::Original);
        entry.cold.next[0].store(home.free, Relaxed);
        home.free = handle.place.entry() + 1;
        true
    }

    /// Does `change` to a connection while nobody can remove it. False if it was gone.
    pub(super) fn with(&self, handle: Handle, change: impl FnOnce(&Entry<'_>)) -> bool {
        let Some(entry) = self.get(handle) else { return false };
        let _lock = self.lock(self.hash(&entry.cold.tuple(Direction::Original)));
        let is_here = entry.hot.is(handle.generation);
        if is_here {
            change(&entry);
        }
        is_here
    }

    pub(super) fn hash(&self, tuple: &Tuple) -> u64 {
        self.hasher.hash(&tuple.words())
    }

    /// Where connections are counted without their source port.
    fn places_of(&self, shared: &Shared) -> [u64; 2] {
        [self.hash(&shared.begins), self.hash(&shared.answers)]
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & self.bucket_mask
    }

    fn shard_of(hash: u64) -> usize {
        (hash >> 58) as usize % SHARDS
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, Shard> {
        self.lock_shard(Self::shard_of(hash))
    }

    fn lock_shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // No step under the lock panics half-way.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_both(&self, hashes: [u64; 2]) -> Both<'_> {
        let [original, reply] = hashes.map(Self::shard_of);
        if original == reply {
            return Both { original: self.lock_shard(original), reply: None };
        }
        // Always the lower number first: nobody waits for who waits for him.
        let first = self.lock_shard(original.min(reply));
        let second = self.lock_shard(original.max(reply));
        let (original, reply) = if original < reply { (first, second) } else { (second, first) };
        Both { original, reply: Some(reply) }
    }

    fn walk(&self, shard: &Shard, hash: u64, tuple: &Tuple) -> Option<Handle> {
        let mut link = shard.heads[self.bucket(hash)];
        while let Some(place) = Place::of_link(link) {
            let entry = self.entry(place.entry())?;
            if entry.cold.tuple(place.direction()) == *tuple {
                return Some(Handle { place, generation: entry.hot.generation()? });
            }
            link = entry.cold.next[place.direction().index()].load(Relaxed);
        }
        None
    }

    fn unlink(&self, shard: &mut Shard, bucket: usize, gone: Place) {
        let next = |place: Place| {
            let entry = self.entry(place.entry()).expect("an entry in a chain exists");
            &entry.cold.next[place.direction().index()]
        };
        let after = next(gone).load(Relaxed);
        if shard.heads[bucket] == gone.link() {
            shard.heads[bucket] = after;
            return;
        }
        let mut link = shard.heads[bucket];
        while let Some(place) = Place::of_link(link) {
            link = next(place).load(Relaxed);
            if link == gone.link() {
                return next(place).store(after, Relaxed);
            }
        }
    }

    /// An unused entry of `shard`, perhaps of a new segment.
    fn take(&self, shard: &mut Shard) -> Option<u32> {
        if shard.free == 0 {
            self.grow(shard)?;
        }
        let number = shard.free.checked_sub(1)?;
        shard.free = self.entry(number)?.cold.next[0].load(Relaxed);
        Some(number)
    }

    fn grow(&self, shard: &mut Shard) -> Option<()> {
        let all = self.segments.len() as u32;
        let number =
            self.taken.fetch_update(Relaxed, Relaxed, |taken| (taken < all).then_some(taken + 1)).ok()?;
        let first = number * SEGMENT as u32;
        let segment = Segment {
            hot: std::array::from_fn(|_| Hot::default()),
            cold: std::array::from_fn(|at| Cold::chained(chain_of_unused(first, at))),
        };
        self.segments[number as usize].get_or_init(|| Box::new(segment));
        shard.free = first + 1;
        Some(())
    }

    /// The longest chain.
    #[cfg(test)]
    pub(super) fn longest_chain(&self) -> usize {
        let mut longest = 0;
        for shard in 0..SHARDS {
            let shard = self.lock_shard(shard);
            for head in &shard.heads {
                let (mut link, mut length) = (*head, 0);
                while let Some(place) = Place::of_link(link) {
                    length += 1;
                    let entry = self.entry(place.entry()).unwrap();
                    link = entry.cold.next[place.direction().index()].load(Relaxed);
                }
                longest = longest.max(length);
            }
        }
        longest
    }
}

/// The link from unused entry `at` of the segment that begins with `first` to the next one; the last has none.
fn chain_of_unused(first: u32, at: usize) -> u32 {
    if at + 1 < SEGMENT { first + at as u32 + 2 } else { 0 }
}

/// The shards of a connection's two tuples, locked.
struct Both<'a> {
    original: MutexGuard<'a, Shard>,
    /// None: it is the same one.
    reply: Option<MutexGuard<'a, Shard>>,
}

impl Both<'_> {
    fn shard(&mut self, direction: Direction) -> &mut Shard {
        match (direction, &mut self.reply) {
            (Direction::Reply, Some(reply)) => reply,
            _ => &mut self.original,
        }
    }
}
