//! Was a frame like this one decided on before?
//!
//! Theory of operation. Two tables hold decisions of the pipeline:
//!
//! - **megaflows** by the key under a mask: the mask is the record of the bits that the pipeline asked for (`key::View`), so that
//!   one entry answers every frame that agrees in them. Each port has its own list of masks, ordered by use and capped,
//!   so that no tenant can make another's lookups slow;
//! - **microflows** by the exact key: copies of megaflow entries, one lookup where several masks would be several.
//!
//! ```text
//! (-) the port's habit: a template of what its frames look like  one comparison of raw bytes, no parsing (`template`)
//! (0) the decision on the frame before, in the same burst       one comparison
//! (1) the port's leading mask, while it answers most frames     one masked lookup
//! (2) the microflow                                             one exact lookup
//! (3) the port's other masks, most used first                   one masked lookup each; makes a microflow
//! (4) miss: the pipeline decides, and its mask makes a megaflow
//! ```
//!
//! (1) is why the number of flows costs nothing while the program looks at few bits: a hundred thousand connections
//! between two stations are one megaflow in the first-level cache, where their microflows would each be a cache miss.
//! (0) is (1) for the next frame of a flow: neither hashed nor looked up, as long as nothing was derived in between.
//! After [`HABIT_FRAMES`] such frames in one burst their first bytes become the port's habit.
//!
//! **When an entry holds.** It was derived from a program and from what was known of up to two stations. It holds while the
//! epoch (the number of program changes) and the generations of those stations stand (see `stations`). A program change so
//! invalidates everything without touching anything; a station that moves invalidates what asked for it. A stale entry
//! is overwritten when a frame asks for it, or removed by a sweep.
//!
//! **What cannot happen.** Two valid entries that match one frame agree: each says what the pipeline would. A masked key
//! carries its mask's number, so that keys under different masks never meet.
//!
//! Limits: [`CacheSizes`] and [`masks::MAX_MASKS`]; entries idle for [`IDLE_MS`] are removed.

mod habit;
pub(crate) mod hash;
mod masks;
mod table;
mod template;

use frame::{BURST_FRAMES, PEEK_BYTES};

use crate::actions::Actions;
use crate::key::{Field, FlowKey, Mask};
use crate::parse::Packet;
use crate::program::PortNo;
use crate::stations::{Dependence, Depends, Shared, Slot};
use crate::time::Now;
pub(crate) use habit::{Alike, Habit};
use hash::KeyHasher;
use masks::PortMasks;
pub(crate) use table::Entry;
use table::{Table, same};
#[cfg(test)]
pub(crate) use template::Template;

/// Entries that the caches of one switch hold at most: powers of two of at least 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSizes {
    /// By masked key.
    pub megaflows: usize,
    /// By exact key.
    pub microflows: usize,
}

impl Default for CacheSizes {
    fn default() -> Self {
        Self { megaflows: 131_072, microflows: 32_768 }
    }
}

/// Frames of one burst, one after the other, that one megaflow answers before their looks become their port's habit:
/// worth the hundred cycles that it takes.
const HABIT_FRAMES: u32 = 4;
/// Entries without a frame for this long are removed.
pub(crate) const IDLE_MS: u64 = 10_000;

/// The caches of one switch.
pub(crate) struct Cache {
    megaflows: Table,
    microflows: Table,
    /// By port number.
    ports: Vec<PortMasks>,
    hasher: KeyHasher,
    /// Counts program changes.
    epoch: u32,
    /// The port whose masks are ranked next.
    rank_cursor: usize,
    /// The megaflow that answered last in this burst: its masked key and its place.
    last: Option<(FlowKey, usize)>,
    /// Frames that it has answered in a row.
    run: u32,
}

/// Which cache answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Microflow,
    Megaflow,
}

/// Where entries seem to be, frame by frame. See [`Cache::foresee`].
pub(crate) struct Foreseen(pub(crate) [u32; BURST_FRAMES]);

/// No entry was seen.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A pipeline's answer, to be cached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Derived {
    pub(crate) actions: Actions,
    pub(crate) mask: Mask,
    pub(crate) depends: [Dependence; 2],
    pub(crate) source: Slot,
}

impl Cache {
    pub(crate) fn new(sizes: CacheSizes, seed: u64) -> Self {
        Self {
            megaflows: Table::new(sizes.megaflows),
            microflows: Table::new(sizes.microflows),
            ports: Vec::new(),
            hasher: KeyHasher::new(seed),
            epoch: 1,
            rank_cursor: 0,
            last: None,
            run: 0,
        }
    }

    /// All entries are of an old program from now on. `ports_end` is one more than the largest port number of the new.
    pub(crate) fn next_epoch(&mut self, ports_end: usize) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.ports.len() < ports_end {
            self.ports.resize_with(ports_end, PortMasks::default);
        }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.megaflows.len() + self.microflows.len()
    }

    /// A burst begins, or the pipeline has run: what held before may hold no more.
    pub(crate) fn begin(&mut self) {
        self.last = None;
        self.run = 0;
    }

    /// Where the leading mask's megaflow of each packet seems to be: of those of `packets` whose bit is set in `frames`, all
    /// from `port`. Looking at all of them before the first is used lets the processor fetch many at a time, which is
    /// what a table costs that is larger than its caches.
    #[inline(never)]
    pub(crate) fn foresee(&self, port: PortNo, packets: &[Packet; BURST_FRAMES], frames: u32) -> Foreseen {
        let mut foreseen = Foreseen([NOWHERE; BURST_FRAMES]);
        let masks = self.ports.get(usize::from(port.0));
        let Some((slot, mask)) = masks.and_then(PortMasks::leader) else { return foreseen };
        let mut sought = [(FlowKey::default(), 0, 0); BURST_FRAMES];
        for (frame, sought) in sought.iter_mut().enumerate().filter(|(frame, _)| frames >> frame & 1 != 0) {
            let key = masked(&packets[frame].key, slot, mask);
            let hash = self.hasher.hash(&key);
            *sought = (key, hash, self.megaflows.tags(hash));
        }
        for (frame, (key, hash, tags)) in
            sought.iter().enumerate().filter(|(frame, _)| frames >> frame & 1 != 0)
        {
            let at = self.megaflows.find_in(*hash, *tags, key);
            foreseen.0[frame] = at.map_or(NOWHERE, |at| at as u32);
        }
        foreseen
    }

    /// The decision on `key`, if one holds; perhaps at `foreseen`. Counts the frame and keeps its source's station alive.
    #[inline(always)]
    pub(crate) fn lookup(
        &mut self,
        (key, foreseen): (&FlowKey, u32),
        bytes: usize,
        shared: &Shared,
        now: Now,
    ) -> Option<(&Actions, Level)> {
        let (level, at) = self.locate(key, foreseen, shared)?;
        let table = match level {
            Level::Microflow => &mut self.microflows,
            Level::Megaflow => &mut self.megaflows,
        };
        let entry = table.entry_mut(at);
        entry.count(1, bytes as u64, shared, now);
        Some((&entry.actions, level))
    }

    /// What the frames of `port` have looked like lately, if the decision on such frames still holds.
    pub(crate) fn habit(&mut self, port: PortNo, shared: &Shared) -> Option<&Habit> {
        let masks = self.ports.get_mut(usize::from(port.0))?;
        let entry = self.megaflows.entry(masks.habit.as_ref()?.at);
        if !masks.habit.as_ref()?.is_of(entry) || !entry.holds(self.epoch, shared) {
            masks.habit = None;
        }
        masks.habit.as_ref()
    }

    /// The habit of `port` has answered the frames `alike`.
    pub(crate) fn count_alike(&mut self, port: PortNo, alike: Alike, shared: &Shared, now: Now) {
        let Some(masks) = self.ports.get_mut(usize::from(port.0)) else { return };
        let Some(Habit { key, at, .. }) = &masks.habit else { return };
        let frames = alike.frames as u64;
        self.megaflows.entry_mut(*at).count(frames, alike.bytes, shared, now);
        masks.lookups += frames;
        if let Some(slot) = mask_number(key) {
            masks.hit(slot, frames);
        }
    }

    /// True if the last frame was one of so many in a row that it is time for [`Cache::learn_habit`].
    #[inline(always)]
    pub(crate) fn is_habitual(&self) -> bool {
        self.run == HABIT_FRAMES
    }

    /// Makes a habit of `packet`, the last that was looked up, whose first bytes are `bytes`.
    #[cold]
    pub(crate) fn learn_habit(&mut self, packet: &Packet, bytes: &[u8; PEEK_BYTES]) {
        let Some((key, at)) = self.last else { return };
        let Some(masks) = self.ports.get_mut(key.get(Field::IN_PORT) as usize) else { return };
        let Some(mask) = mask_number(&key).and_then(|slot| masks.mask(slot)) else { return };
        let habit = Habit::new((bytes, packet), (self.megaflows.entry(at), at), mask);
        masks.habit = habit.or(masks.habit);
    }

    #[inline(always)]
    fn locate(&mut self, key: &FlowKey, foreseen: u32, shared: &Shared) -> Option<(Level, usize)> {
        let masks = self.ports.get_mut(key.get(Field::IN_PORT) as usize)?;
        masks.lookups += 1;
        let leader = masks.leader().map(|(slot, mask)| (slot, masked(key, slot, mask)));
        if let Some((slot, key)) = leader {
            let known = match &self.last {
                Some((last, at)) if same(last, &key) => {
                    self.run += 1;
                    Some(*at)
                }
                _ => {
                    let moment = (self.epoch, shared);
                    let known = match foreseen {
                        NOWHERE => valid(&self.megaflows, &self.hasher, &key, moment),
                        // What was there may have made room for another meanwhile.
                        at => self
                            .megaflows
                            .is_at(at as usize, &key, moment)
                            .or_else(|| valid(&self.megaflows, &self.hasher, &key, moment)),
                    };
                    known.inspect(|at| {
                        self.last = Some((key, *at));
                        self.run = 0;
                    })
                }
            };
            if let Some(at) = known {
                masks.hit(slot, 1);
                return Some((Level::Megaflow, at));
            }
        }
        if let Some(at) = valid(&self.microflows, &self.hasher, key, (self.epoch, shared)) {
            return Some((Level::Microflow, at));
        }
        self.search(key, usize::from(leader.is_some()), shared)
    }

    /// Tries the masks of the port but the first `skip`.
    #[inline(never)]
    fn search(&mut self, key: &FlowKey, skip: usize, shared: &Shared) -> Option<(Level, usize)> {
        let masks = self.ports.get_mut(key.get(Field::IN_PORT) as usize)?;
        let found = masks.ranked().skip(skip).find_map(|(slot, mask)| {
            let key = masked(key, slot, mask);
            valid(&self.megaflows, &self.hasher, &key, (self.epoch, shared)).map(|at| (slot, at))
        });
        let (slot, at) = found?;
        masks.hit(slot, 1);
        // A connection's decision is one frame's of many fields already, and one place is to know when it is over.
        if !self.megaflows.entry(at).actions.asks_connections() {
            self.promote(key, at);
        }
        Some((Level::Megaflow, at))
    }

    /// Makes a microflow of the megaflow at `at`, for frames of exactly `key`.
    fn promote(&mut self, key: &FlowKey, at: usize) {
        let copy = Entry { key: *key, frames: 0, bytes: 0, ..*self.megaflows.entry(at) };
        self.insert_microflow(copy);
    }

    fn insert_microflow(&mut self, entry: Entry) {
        if let Some(evicted) = self.microflows.insert(self.hasher.hash(&entry.key), entry) {
            self.credit(&evicted);
        }
    }

    /// Keeps what the pipeline derived for `key` from a frame of `bytes`.
    pub(crate) fn insert(&mut self, key: &FlowKey, derived: &Derived, bytes: usize, now: Now) {
        let Derived { actions, mask, depends, source } = *derived;
        let depends = Depends::new(depends);
        let (epoch, seen_ms) = (self.epoch, now.ms as u32);
        let mut entry =
            Entry { key: *key, frames: 1, bytes: bytes as u64, depends, actions, epoch, source, seen_ms };
        let Some(masks) = self.ports.get_mut(key.get(Field::IN_PORT) as usize) else { return };
        let Some(slot) = masks.admit(mask) else { return self.insert_microflow(entry) };
        entry.key = masked(key, slot, &mask);
        let hash = self.hasher.hash(&entry.key);
        let before = self.megaflows.len();
        let evicted = self.megaflows.insert(hash, entry);
        if evicted.is_some() || self.megaflows.len() > before {
            masks.added(slot);
        }
        if let Some(evicted) = evicted {
            self.uncount(&evicted);
        }
    }

    /// A megaflow is gone: its mask has one entry less.
    fn uncount(&mut self, megaflow: &Entry) {
        let port = megaflow.key.get(Field::IN_PORT) as usize;
        if let (Some(masks), Some(slot)) = (self.ports.get_mut(port), mask_number(&megaflow.key)) {
            masks.removed(slot);
        }
    }

    /// A microflow is gone: its frames count for the megaflow that it was made of, if that is still there.
    fn credit(&mut self, microflow: &Entry) {
        if let Some(at) = self.parent(microflow) {
            let parent = self.megaflows.entry_mut(at);
            parent.frames += microflow.frames;
            parent.bytes += microflow.bytes;
        }
    }

    /// The megaflow that answers what `microflow` does.
    fn parent(&self, microflow: &Entry) -> Option<usize> {
        let masks = self.ports.get(microflow.key.get(Field::IN_PORT) as usize)?;
        masks.ranked().find_map(|(slot, mask)| {
            let key = masked(&microflow.key, slot, mask);
            let at = self.megaflows.find(self.hasher.hash(&key), &key)?;
            (self.megaflows.entry(at).actions == microflow.actions).then_some(at)
        })
    }

    /// Removes entries that are idle or of an old program; looks at up to `budget` places of each table.
    pub(crate) fn sweep(&mut self, now: Now, budget: usize) {
        let epoch = self.epoch;
        let over = |entry: &Entry| entry.epoch != epoch || entry.idle_ms(now) >= IDLE_MS;
        for at in self.microflows.sweep_places(budget) {
            if let Some(gone) = self.microflows.remove_if(at, over) {
                self.credit(&gone);
            }
        }
        for at in self.megaflows.sweep_places(budget) {
            if let Some(gone) = self.megaflows.remove_if(at, over) {
                self.uncount(&gone);
            }
        }
        let ports = self.ports.len();
        for _ in 0..budget.min(ports) {
            self.rank_cursor = (self.rank_cursor + 1) % ports;
            self.ports[self.rank_cursor].rank();
        }
    }

    /// Each decision held, with the mask that it is held under and all frames that it answered. A microflow counts for its megaflow; one
    /// without is a decision of its own.
    pub(crate) fn decisions(&self) -> Vec<(Entry, Mask)> {
        let mut decisions: std::collections::HashMap<FlowKey, (Entry, Mask)> = self
            .megaflows
            .iter()
            .filter(|entry| entry.epoch == self.epoch)
            .filter_map(|entry| Some((entry.key, (*entry, *self.mask_of(&entry.key)?))))
            .collect();
        for microflow in self.microflows.iter().filter(|entry| entry.epoch == self.epoch) {
            let parent = self.parent(microflow).map(|at| self.megaflows.entry(at).key);
            match parent.and_then(|key| decisions.get_mut(&key)) {
                Some((entry, _)) => {
                    entry.frames += microflow.frames;
                    entry.bytes += microflow.bytes;
                }
                None => {
                    decisions.insert(microflow.key, (*microflow, Mask([u64::MAX; crate::key::WORDS])));
                }
            }
        }
        decisions.into_values().collect()
    }

    fn mask_of(&self, masked: &FlowKey) -> Option<&Mask> {
        self.ports.get(masked.get(Field::IN_PORT) as usize)?.mask(mask_number(masked)?)
    }
}

/// The key of a megaflow under mask number `slot`.
#[inline(always)]
fn masked(key: &FlowKey, slot: u8, mask: &Mask) -> FlowKey {
    let mut masked = mask.apply(key);
    masked.0[Field::MASK_NUMBER.word] |= Field::MASK_NUMBER.place(u64::from(slot) + 1);
    masked
}

/// The number of the mask that a megaflow's key is under.
fn mask_number(masked: &FlowKey) -> Option<u8> {
    masked.get(Field::MASK_NUMBER).checked_sub(1).map(|slot| slot as u8)
}

/// The place of `key`'s entry in `table`, if it holds.
#[inline(always)]
fn valid(table: &Table, hasher: &KeyHasher, key: &FlowKey, (epoch, shared): (u32, &Shared)) -> Option<usize> {
    let at = table.find(hasher.hash(key), key)?;
    table.entry(at).holds(epoch, shared).then_some(at)
}
