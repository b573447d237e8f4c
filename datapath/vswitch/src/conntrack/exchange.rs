//! How far is a connection of a protocol without states of its own: UDP, an echo, anything else?
//!
//! Unreplied until the other end says something, then replied; a stream if it still goes on after [`STREAM_MS`], and
//! then kept longer.

use super::progress::{Progress, Step};
use super::state::{Class, State};
use super::tuple::Direction;
use crate::time::Now;

/// A question and its answer, a DNS look-up say, are over by then. Linux's figure.
const STREAM_MS: u64 = 2000;
/// The word that says when the connection began.
const SINCE: usize = 0;

pub(super) fn begin(class: Class, now: Now) -> Progress {
    let mut progress = Progress::none(class, State::Unreplied);
    progress.words[SINCE] = now.ms;
    progress
}

#[inline]
pub(super) fn step(progress: Progress, direction: Direction, now: Now) -> Step {
    let since = Now { ms: progress.words[SINCE] };
    let state = match progress.state {
        State::Unreplied if direction == Direction::Reply => State::Replied,
        State::Replied if now.since(since) >= STREAM_MS => State::Stream,
        state => state,
    };
    Step::Accept(Progress { state, ..progress })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(progress: Progress, direction: Direction, ms: u64) -> Progress {
        match step(progress, direction, Now { ms }) {
            Step::Accept(after) => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_makes_it_replied_and_time_a_stream() {
        let asked = begin(Class::Udp, Now { ms: 5000 });
        let again = after(asked, Direction::Original, 9000);
        assert_eq!(again.state, State::Unreplied);
        let replied = after(asked, Direction::Reply, 6999);
        assert_eq!(replied.state, State::Replied);
        assert_eq!(after(replied, Direction::Original, 6999).state, State::Replied);
        assert_eq!(after(replied, Direction::Original, 7000).state, State::Stream);
    }
}
