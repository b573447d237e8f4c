//! How is a connection kept, so that every worker may read and advance it without a lock?
//!
//! Theory of operation. An entry is two parts: [`Hot`], one cache line, all that a packet of an established connection
//! reads and writes; and [`Cold`], its names and chains, which only look-ups and translations need. Both are atomics.
//!
//! A *generation* counts the uses of an entry: odd while it is used. It stands in one word with the state, so that no
//! state is ever written into an entry that has become another connection's. Who reads asks for the generation before
//! and after: what lies between is of one connection. That is right because words are stored with `Release` and loaded
//! with `Acquire`: who sees a word of the next connection sees the end of the last one, too.
//!
//! Advancing writes what changed word by word, each on condition that nobody else has changed it. Whoever loses a race
//! looks again, and does once more what was done in part. Protocols see to it that this comes to the same; the last
//! word is written after the state, for what must stand until all else is done.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use super::Mark;
use super::progress::{Progress, WORDS};
use super::tuple::{Direction, Endpoint, Tuple, ZoneNo};
use crate::program::PortNo;
use crate::time::Now;
use wire::IpProtocol;

/// The word that is written last.
const LAST: usize = WORDS - 1;
/// In [`Cold::place`]: the answers are of [`ZoneNo::OUTSIDE`].
const ANSWERED_OUTSIDE: u64 = 1 << 24;

/// What packets change.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Hot {
    /// The generation, and [`Progress::control`].
    control: AtomicU64,
    words: [AtomicU64; WORDS],
    seen_ms: AtomicU64,
    cookie: AtomicU64,
    /// [`Mark::verdict`] and [`Mark::epoch`].
    judged: AtomicU64,
}

/// What stays as long as the connection.
#[derive(Debug, Default)]
pub(super) struct Cold {
    /// By direction: source, destination.
    addresses: [[[AtomicU64; 2]; 2]; 2],
    /// By direction: source and destination, in the low half of a word.
    ports: [AtomicU32; 2],
    /// Zone, protocol, [`ANSWERED_OUTSIDE`] and the port that it was opened from.
    place: AtomicU64,
    /// By direction: what follows in the bucket's chain; written and read under the bucket's lock.
    pub(super) next: [AtomicU32; 2],
}

/// What an entry is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) tuples: [Tuple; 2],
    pub(super) port: PortNo,
    pub(super) progress: Progress,
    pub(super) mark: Mark,
}

impl Hot {
    /// The generation now, if the entry is in use.
    #[inline]
    pub(super) fn generation(&self) -> Option<NonZeroU32> {
        let generation = (self.control.load(Acquire) >> 32) as u32;
        NonZeroU32::new(generation).filter(|generation| generation.get() & 1 == 1)
    }

    #[inline]
    pub(super) fn is(&self, generation: NonZeroU32) -> bool {
        (self.control.load(Acquire) >> 32) as u32 == generation.get()
    }

    /// What the connection of this generation is; `None` if it is gone.
    #[inline]
    pub(super) fn read(&self, generation: NonZeroU32) -> Option<(Progress, Mark)> {
        let control = self.control.load(Acquire);
        let words = std::array::from_fn(|at| self.words[at].load(Acquire));
        let judged = self.judged.load(Acquire);
        let mark =
            Mark { cookie: self.cookie.load(Acquire), verdict: (judged >> 32) as u32, epoch: judged as u32 };
        let is_one = (control >> 32) as u32 == generation.get() && self.is(generation);
        is_one.then(|| (Progress::from_control(control as u32, words), mark))
    }

    /// Writes what changed from `before` to `after`. False if somebody else changed it: look again.
    #[inline]
    pub(super) fn advance(&self, generation: NonZeroU32, before: &Progress, after: &Progress) -> bool {
        let change = |cell: &AtomicU64, old: u64, new: u64| {
            old == new || cell.compare_exchange(old, new, AcqRel, Relaxed).is_ok()
        };
        let control = |progress: &Progress| u64::from(generation.get()) << 32 | u64::from(progress.control());
        let word = |at: usize| change(&self.words[at], before.words[at], after.words[at]);
        (0..LAST).all(word) && change(&self.control, control(before), control(after)) && word(LAST)
    }

    #[inline]
    pub(super) fn touch(&self, now: Now) {
        if self.seen_ms.load(Relaxed) != now.ms {
            self.seen_ms.store(now.ms, Relaxed);
        }
    }

    #[inline]
    pub(super) fn idle_ms(&self, now: Now) -> u64 {
        now.since(Now { ms: self.seen_ms.load(Relaxed) })
    }

    /// Under the lock of its first bucket.
    pub(super) fn set_mark(&self, mark: Mark) {
        self.cookie.store(mark.cookie, Release);
        self.judged.store(u64::from(mark.verdict) << 32 | u64::from(mark.epoch), Release);
    }

    /// Begins the next generation. Under the locks of both buckets, as the last step.
    pub(super) fn begin(&self, record: &Record, now: Now) -> NonZeroU32 {
        self.seen_ms.store(now.ms, Release);
        for (cell, word) in self.words.iter().zip(record.progress.words) {
            cell.store(word, Release);
        }
        self.set_mark(record.mark);
        let generation = (self.control.load(Relaxed) >> 32) as u32 | 1;
        self.control.store(u64::from(generation) << 32 | u64::from(record.progress.control()), Release);
        NonZeroU32::new(generation).expect("an odd number is not 0")
    }

    /// Ends the generation. Under the locks of both buckets, as the first step.
    pub(super) fn end(&self) {
        let generation = (self.control.load(Relaxed) >> 32) as u32;
        self.control.store(u64::from(generation.wrapping_add(1)) << 32, Release);
    }
}

impl Cold {
    /// An unused one, before the unused one that `next` links to.
    pub(super) fn chained(next: u32) -> Self {
        Self { next: [AtomicU32::new(next), AtomicU32::new(0)], ..Self::default() }
    }

    pub(super) fn write(&self, record: &Record) {
        for (direction, tuple) in record.tuples.iter().enumerate() {
            for (cells, end) in self.addresses[direction].iter().zip([tuple.source, tuple.destination]) {
                let bits = u128::from(end.ip);
                cells[0].store((bits >> 64) as u64, Release);
                cells[1].store(bits as u64, Release);
            }
            self.ports[direction].store(ports(tuple), Release);
        }
        let [original, reply] = &record.tuples;
        let outside = if reply.zone == ZoneNo::OUTSIDE { ANSWERED_OUTSIDE } else { 0 };
        self.place.store(place(original) | outside | u64::from(record.port.0), Release);
    }

    pub(super) fn tuple(&self, direction: Direction) -> Tuple {
        let place = self.place.load(Acquire);
        let ports = self.ports[direction.index()].load(Acquire);
        let [source, destination] = &self.addresses[direction.index()];
        let end = |cells: &[AtomicU64; 2], port: u32| {
            let [high, low] = [0, 1].map(|at: usize| u128::from(cells[at].load(Acquire)));
            Endpoint { ip: (high << 64 | low).into(), port: port as u16 }
        };
        let is_outside = direction == Direction::Reply && place & ANSWERED_OUTSIDE != 0;
        Tuple {
            zone: if is_outside { ZoneNo::OUTSIDE } else { ZoneNo((place >> 32) as u32) },
            protocol: IpProtocol((place >> 16) as u8),
            source: end(source, ports >> 16),
            destination: end(destination, ports),
        }
    }

    pub(super) fn zone(&self) -> ZoneNo {
        ZoneNo((self.place.load(Acquire) >> 32) as u32)
    }

    /// The port that it was opened from.
    pub(super) fn port(&self) -> PortNo {
        PortNo(self.place.load(Acquire) as u16)
    }
}

fn ports(tuple: &Tuple) -> u32 {
    u32::from(tuple.source.port) << 16 | u32::from(tuple.destination.port)
}

fn place(tuple: &Tuple) -> u64 {
    u64::from(tuple.zone.0) << 32 | u64::from(tuple.protocol.0) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_packet_touches_is_one_cache_line() {
        assert_eq!((size_of::<Hot>(), size_of::<Cold>()), (64, 88));
    }

    #[test]
    fn what_is_read_is_of_one_connection() {
        use crate::conntrack::state::{Class, State};
        let end = Endpoint { ip: std::net::Ipv6Addr::LOCALHOST, port: 1 };
        let tuple = Tuple { zone: ZoneNo(1), protocol: IpProtocol::TCP, source: end, destination: end };
        let record = |number: u64| Record {
            tuples: [tuple; 2],
            port: PortNo(1),
            progress: Progress { words: [number; WORDS], ..Progress::none(Class::Tcp, State::Established) },
            mark: Mark { cookie: number, verdict: number as u32, epoch: number as u32 },
        };
        let hot = Hot::default();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in (0..).take_while(|_| !is_over.load(Relaxed)) {
                    hot.begin(&record(number), Now { ms: 0 });
                    hot.end();
                }
            });
            scope.spawn(|| {
                for _ in 0..1_000_000 {
                    let Some((progress, mark)) = hot.generation().and_then(|it| hot.read(it)) else {
                        continue;
                    };
                    let number = mark.cookie;
                    let is_one = (mark.verdict, mark.epoch) == (number as u32, number as u32)
                        && progress.words == [number; WORDS];
                    if !is_one {
                        is_over.store(true, Relaxed);
                    }
                    assert!(is_one, "{progress:?} {mark:?}");
                }
                is_over.store(true, Relaxed);
            });
        });
    }
}
