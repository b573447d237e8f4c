//! What time is it for this turn?

use std::time::Instant;

use ports::cycles;
use vswitch::Now;

/// Cycles for which a reading of the clock is good enough: about 0.1 ms. The switch's shortest timeout is a thousand
/// times longer.
const FRESH_CYCLES: u64 = 100 * cycles::MICROSECOND;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a start for the clock under test")]
    fn the_clock_is_read_for_the_first_turn_and_then_only_when_the_reading_is_old() {
        let start = Instant::now().checked_sub(std::time::Duration::from_secs(5)).unwrap();
        let mut clock = Clock::new(start, 1000);
        let first = clock.at(1000);
        assert!(first.ms >= 5000);
        clock.start = start.checked_sub(std::time::Duration::from_secs(60)).unwrap();
        assert_eq!(clock.at(1000 + FRESH_CYCLES - 1), first);
        assert!(clock.at(1000 + FRESH_CYCLES).ms >= first.ms + 60_000);
    }
}
