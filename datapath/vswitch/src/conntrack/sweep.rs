//! Which connections are there, and which are over? Everything here goes through the entries by their numbers, a
//! bounded number at a time.

use std::sync::atomic::Ordering::Relaxed;

use super::census::Event;
use super::entry::Cold;
use super::state::State;
use super::table::Handle;
use super::tuple::{Direction, Tuple};
use super::{Connections, EVICTION_PROBES, Mark};
use crate::program::PortNo;
use crate::time::Now;

/// A connection, for people and for control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionView {
    /// What its first packet had.
    pub(crate) original: Tuple,
    /// What packets back have. Another than the first turned round: it is translated.
    pub(crate) reply: Tuple,
    pub(crate) state: State,
    /// The port that it was opened from.
    pub(crate) port: PortNo,
    pub(crate) mark: Mark,
    /// Milliseconds until it is forgotten, if no packet comes.
    pub(crate) left_ms: u64,
}

/// A part of all connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk<T> {
    pub(crate) found: T,
    /// Where the next part begins; `None` at the end.
    pub(crate) next: Option<usize>,
}

impl Connections {
    /// Forgets what has been idle for too long: looks at up to `budget` entries, going on where the last call of any
    /// worker ended. Returns how many were forgotten.
    pub(crate) fn sweep(&self, now: Now, budget: usize) -> usize {
        let entries = self.table.len();
        let budget = budget.min(entries);
        let from = self.sweep_hand.fetch_add(budget, Relaxed);
        (from..from.saturating_add(budget)).filter(|at| self.expire(at % entries, now)).count()
    }

    /// Removes the first connection that may go among [`EVICTION_PROBES`], and is wanted. False if there is none.
    pub(super) fn evict(&self, now: Now, is_wanted: impl Fn(&Cold) -> bool) -> bool {
        let entries = self.table.len();
        for _ in 0..EVICTION_PROBES.min(entries) {
            let number = self.eviction_hand.fetch_add(1, Relaxed) % entries;
            let Some(handle) = self.table.handle(number as u32) else { continue };
            let Some(entry) = self.table.get(handle) else { continue };
            let Some((progress, _)) = entry.hot.read(handle.generation()) else { continue };
            let may_go = progress.is_dispensable() || self.is_expired(entry.hot, &progress, now);
            if !may_go || !is_wanted(entry.cold) {
                continue;
            }
            if self.displace(handle) {
                return true;
            }
        }
        false
    }

    /// Ends a connection that makes room for another, and counts that where it was. False if it was gone.
    pub(super) fn displace(&self, handle: Handle) -> bool {
        let zone = self.table.get(handle).map(|entry| entry.cold.zone());
        let is_removed = self.remove(handle);
        if let Some(zone) = zone.filter(|_| is_removed) {
            self.census.count(zone, Event::Evicted);
        }
        is_removed
    }

    fn expire(&self, number: usize, now: Now) -> bool {
        let Some(handle) = self.table.handle(number as u32) else { return false };
        let Some(entry) = self.table.get(handle) else { return false };
        let Some((progress, _)) = entry.hot.read(handle.generation()) else { return false };
        self.is_expired(entry.hot, &progress, now) && self.remove(handle)
    }

    /// The connections among `budget` entries from number `from` on (0: the first). What changes meanwhile may be
    /// missed.
    pub(crate) fn list(&self, from: usize, budget: usize, now: Now) -> Chunk<Vec<ConnectionView>> {
        let (numbers, next) = self.part(from, budget);
        let views = numbers.filter_map(|number| self.view(self.table.handle(number as u32)?, now));
        Chunk { found: views.collect(), next }
    }

    /// Ends the connections for which `is_over` is true among `budget` entries from number `from` on. Returns how many.
    pub(crate) fn remove_if(
        &self,
        (from, budget): (usize, usize),
        now: Now,
        is_over: impl Fn(&ConnectionView) -> bool,
    ) -> Chunk<usize> {
        let (numbers, next) = self.part(from, budget);
        let found = numbers
            .filter_map(|number| self.table.handle(number as u32))
            .filter(|handle| {
                self.view(*handle, now).is_some_and(|view| is_over(&view)) && self.remove(*handle)
            })
            .count();
        Chunk { found, next }
    }

    fn part(&self, from: usize, budget: usize) -> (std::ops::Range<usize>, Option<usize>) {
        let entries = self.table.len();
        let end = from.saturating_add(budget).min(entries);
        (from.min(end)..end, (end < entries).then_some(end))
    }

    /// What there is to know of a connection; `None` if it is gone.
    pub(crate) fn view(&self, handle: Handle, now: Now) -> Option<ConnectionView> {
        let entry = self.table.get(handle)?;
        let [original, reply] = Direction::BOTH.map(|direction| entry.cold.tuple(direction));
        let port = entry.cold.port();
        let idle_ms = entry.hot.idle_ms(now);
        let (progress, mark) = entry.hot.read(handle.generation())?;
        let left_ms = progress.timeout_ms(&self.timeouts).saturating_sub(idle_ms);
        Some(ConnectionView { original, reply, state: progress.state, port, mark, left_ms })
    }
}
