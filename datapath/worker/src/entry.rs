//! What does a worker know of a receive queue that it polls?

use std::sync::Arc;

use ports::{RxQueue, cycles};
use vswitch::program::PortNo;

use crate::counters::{Count, PortCells};
use crate::forward::Source;

/// Empty polls in a row after which a queue is quiet.
const QUIET_POLLS: u32 = 64;
/// How often a busy worker asks a quiet queue. An empty poll takes a lock and reads memory that the guest shares; a
/// worker with a hundred quiet pods would spend more on them than on the busy one. Small beside the 50 microseconds
/// that a wake-up may take.
const QUIET_CYCLES: u64 = 5 * cycles::MICROSECOND;

/// A receive queue of the datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Its port.
    pub port: PortNo,
    /// Which of the port's receive queues, from 0.
    pub queue: usize,
}

/// What a queue's work has cost, whichever worker did it: a move takes it along.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct QueueCells {
    pub(crate) busy_cycles: Count,
}

/// A receive queue that a worker polls.
pub(crate) struct Entry {
    pub(crate) id: QueueId,
    /// Where its frames come from.
    pub(crate) source: Source,
    pub(crate) queue: Box<dyn RxQueue>,
    /// What this worker counts for the port.
    pub(crate) cells: Arc<PortCells>,
    pub(crate) load: Arc<QueueCells>,
    pub(crate) quiet: Quiet,
}

/// Whether a queue may rest while its worker has better to do.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    empty_polls: u32,
    /// When it was asked last, in cycles; kept while it is quiet.
    asked_at: u64,
}

impl Quiet {
    /// True if the queue is quiet and was asked a moment before the turn that begins at `start`. If not, it is asked in
    /// this turn.
    #[inline]
    pub(crate) fn rests(&mut self, start: u64) -> bool {
        if self.empty_polls < QUIET_POLLS {
            return false;
        }
        let rests = start.wrapping_sub(self.asked_at) < QUIET_CYCLES;
        if !rests {
            self.asked_at = start;
        }
        rests
    }

    /// A poll found nothing.
    #[inline]
    pub(crate) fn was_empty(&mut self) {
        self.empty_polls = self.empty_polls.saturating_add(1);
    }

    /// A poll found frames.
    #[inline]
    pub(crate) fn had_frames(&mut self) {
        self.empty_polls = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Quiet {
        let mut quiet = Quiet::default();
        for turn in 0..u64::from(QUIET_POLLS) {
            assert!(!quiet.rests(turn));
            quiet.was_empty();
        }
        quiet
    }

    #[test]
    fn a_quiet_queue_is_asked_again_after_its_rest_and_not_before() {
        let mut quiet = quiet();
        let start = 1 << 40;
        assert!(!quiet.rests(start));
        for rest in 0..5 {
            let asked_at = start + rest * QUIET_CYCLES;
            assert!(quiet.rests(asked_at + 1) && quiet.rests(asked_at + QUIET_CYCLES - 1));
            assert!(!quiet.rests(asked_at + QUIET_CYCLES));
        }
    }

    #[test]
    fn a_queue_that_had_frames_is_asked_in_every_turn() {
        let mut quiet = quiet();
        quiet.had_frames();
        for start in 0..u64::from(QUIET_POLLS) {
            assert!(!quiet.rests(start));
            quiet.was_empty();
        }
    }
}
