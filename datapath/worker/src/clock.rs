//! What time is it for this turn?

use std::time::Instant;

use vswitch::Now;

/// Cycles for which a reading of the clock is good enough: about 0.1 ms on a processor of 2.6 GHz, at most 11 ms where
/// the counter ticks slowest (24 MHz on some aarch64). The switch's shortest timeout is a thousand times longer.
const FRESH_CYCLES: u64 = 1 << 18;

/// A worker's clock. All workers count from the same start, because they share stations and their ages.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    read_at: u64,
    now: Now,
}

impl Clock {
    /// A clock that counts from `start`; `cycles` is the counter now.
    pub(crate) fn new(start: Instant, cycles: u64) -> Self {
        Self { start, read_at: cycles.wrapping_sub(FRESH_CYCLES), now: Now::default() }
    }

    /// The time of a turn that begins at `cycles`. The system's clock is read only when the last reading is old.
    #[inline]
    pub(crate) fn at(&mut self, cycles: u64) -> Now {
        if cycles.wrapping_sub(self.read_at) >= FRESH_CYCLES {
            self.read_at = cycles;
            self.now = Now { ms: self.start.elapsed().as_millis() as u64 };
        }
        self.now
    }
}
