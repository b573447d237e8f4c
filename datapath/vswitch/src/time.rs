//! The one clock of the datapath, read by whoever calls.

/// Monotonic time since an arbitrary start, in milliseconds. Read once per turn by the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds since the start.
    pub ms: u64,
}

impl Now {
    /// Milliseconds from `earlier` to now, 0 if it lies ahead.
    pub fn since(self, earlier: Now) -> u64 {
        self.ms.saturating_sub(earlier.ms)
    }
}
