//! What does a worker do when its queues are empty: poll on, back off, or sleep?
//!
//! ```text
//! polling --STEP_TURNS empty turns--> backing off --patience is over--> sleeping --a signal--> polling
//! ```
//!
//! *Polling*: one PAUSE for each empty turn, because the next frame of a stream often follows at once. *Backing off*:
//! turn by turn more PAUSEs, up to [`MAX_PAUSES`], which leave the core's other hyperthread its execution units.
//! *Sleeping*: in the kernel.
//!
//! *Patience* is how long a worker polls empty queues before it sleeps, between a floor and the ceiling that the
//! configuration sets. It follows the gaps between arrivals, as KVM's halt polling does: a gap that the ceiling would
//! have covered doubles it, because the worker slept and woke for nothing; a longer gap halves it, because polling did
//! not help. So a stream with short gaps is polled for, and one with long gaps costs its wake-ups and little else.

use std::time::Duration;

use ports::cycles;

use crate::counters::Mode;

/// Empty turns after which a worker is idle enough to back off, and after which it pauses twice as long, again and
/// again. About what a peer on another core needs to answer.
const STEP_TURNS: u32 = 16;
/// PAUSEs in one empty turn. A PAUSE takes up to 140 cycles, so these stay far below the 4096 cycles of pauses in a row
/// after which KVM takes a virtual CPU for one that spins on a lock and leaves the guest (`ple_window`).
const MAX_PAUSES: u32 = 8;
/// The ceiling of patience by its floor: four short gaps raise it from one to the other, four long ones lower it.
const CEILING_BY_FLOOR: u64 = 16;

/// What to do after an empty turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Execute so many PAUSEs, and poll again.
    Pause(u32),
    /// Wait in the kernel.
    Sleep,
}

/// How long the queues have been empty, and how long that is borne. Times are cycles.
#[derive(Debug)]
pub(crate) struct Idle {
    ceiling: u64,
    patience: u64,
    /// When the first of the empty turns began.
    since: u64,
    empty_turns: u32,
}

impl Idle {
    /// Never polls empty queues for longer than about `spin`.
    pub(crate) fn new(spin: Duration) -> Self {
        let ceiling = u64::try_from(spin.as_micros()).unwrap_or(u64::MAX).saturating_mul(cycles::MICROSECOND);
        Self { ceiling, patience: ceiling, since: 0, empty_turns: 0 }
    }

    /// A turn moved frames.
    #[inline]
    pub(crate) fn worked(&mut self) {
        self.empty_turns = 0;
    }

    /// A turn that began at `start` moved none.
    #[inline]
    pub(crate) fn rest(&mut self, start: u64) -> Rest {
        if self.empty_turns == 0 {
            self.since = start;
        }
        if start.wrapping_sub(self.since) >= self.patience {
            return Rest::Sleep;
        }
        self.empty_turns = self.empty_turns.saturating_add(1);
        let doublings = (self.empty_turns / STEP_TURNS).min(MAX_PAUSES.ilog2());
        Rest::Pause(1 << doublings)
    }

    /// A sleep has ended at `now`: takes the whole gap, from the first empty turn on, as what to expect.
    pub(crate) fn slept(&mut self, now: u64) {
        let gap = now.wrapping_sub(self.since);
        self.patience = if gap < self.ceiling {
            self.patience.saturating_mul(2).min(self.ceiling)
        } else {
            (self.patience / 2).max(self.ceiling / CEILING_BY_FLOOR)
        };
        self.empty_turns = 0;
    }

    /// What an awake worker does.
    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        if self.empty_turns < STEP_TURNS { Mode::Polling } else { Mode::BackingOff }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: Duration = Duration::from_micros(16);
    const CEILING: u64 = 16 * cycles::MICROSECOND;

    /// Polls empty queues from `start` on, a turn per 100 cycles, until it is time to sleep. Returns when.
    fn until_sleep(idle: &mut Idle, start: u64) -> u64 {
        (start..).step_by(100).find(|&now| idle.rest(now) == Rest::Sleep).unwrap()
    }

    #[test]
    fn pauses_grow_to_their_bound_and_the_mode_says_so() {
        let mut idle = Idle::new(Duration::MAX);
        let mut seen = Vec::new();
        for now in 0..200 {
            let Rest::Pause(pauses) = idle.rest(now) else { panic!("slept at {now}") };
            assert_eq!(idle.mode() == Mode::Polling, pauses == 1, "{pauses}");
            seen.push(pauses);
        }
        assert!(seen.is_sorted());
        seen.dedup();
        assert_eq!(seen, [1, 2, 4, 8]);
        idle.worked();
        assert_eq!((idle.mode(), idle.rest(300)), (Mode::Polling, Rest::Pause(1)));
    }

    #[test]
    fn without_patience_the_first_empty_turn_sleeps() {
        let mut idle = Idle::new(Duration::ZERO);
        for now in [5, 1_000_000] {
            assert_eq!(idle.rest(now), Rest::Sleep);
            idle.slept(now + 10);
        }
    }

    #[test]
    fn long_gaps_lower_the_patience_to_its_floor_and_short_ones_raise_it_to_its_ceiling() {
        let mut idle = Idle::new(SPIN);
        let mut now = 0;
        let mut patience = |idle: &mut Idle, gap: u64| {
            let start = now;
            let asleep = until_sleep(idle, start);
            now = start + gap;
            idle.slept(now);
            idle.worked();
            asleep - start
        };
        let long: Vec<u64> = (0..8).map(|_| patience(&mut idle, 10 * CEILING)).collect();
        assert!(long[0] >= CEILING && long.is_sorted_by(|a, b| a >= b), "{long:?}");
        assert!((CEILING / 16..CEILING / 15).contains(&long[7]), "{long:?}");
        let short: Vec<u64> = (0..8).map(|_| patience(&mut idle, CEILING - 1)).collect();
        assert!(short.is_sorted() && short[7] >= CEILING - 1, "{short:?}");
    }

    #[test]
    fn gaps_just_beyond_the_ceiling_are_not_polled_for() {
        let mut idle = Idle::new(SPIN);
        let mut polled = 0;
        for round in 0..100 {
            let start = round * 2 * CEILING;
            polled += until_sleep(&mut idle, start) - start;
            idle.slept(start + CEILING + 1);
        }
        assert!(polled < 100 * CEILING / 10, "polled {polled} of {} cycles", 100 * CEILING);
    }
}
