//! How often is a queue asked that costs a system call to ask and never has anything?

use crate::cycles;

/// Polls in a row that found nothing after which a queue is quiet.
const QUIET_POLLS: u32 = 64;
/// How often a quiet queue is asked: a read that finds nothing costs a fifth of a microsecond, which a worker that is
/// busy with other ports would pay in every turn.
const QUIET_CYCLES: u64 = 6 * cycles::MICROSECOND;

/// What is known of one queue.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// Polls in a row that found nothing.
    empty_polls: u32,
    /// When it was last asked while quiet.
    asked_at: u64,
}

impl Quiet {
    /// True if the queue has been empty for long and was asked a moment ago.
    pub(crate) fn rests(&mut self) -> bool {
        if self.empty_polls < QUIET_POLLS {
            return false;
        }
        let now = cycles::now();
        let rests = now.wrapping_sub(self.asked_at) < QUIET_CYCLES;
        if !rests {
            self.asked_at = now;
        }
        rests
    }

    /// The queue was asked, and had something or nothing.
    pub(crate) fn asked(&mut self, found: bool) {
        self.empty_polls = if found { 0 } else { self.empty_polls.saturating_add(1) };
    }

    /// Whoever arms a queue has decided to sleep: the next poll is to look.
    pub(crate) fn wake(&mut self) {
        self.empty_polls = 0;
    }
}
