//! What has moved, and what ended here?
//!
//! Each worker counts each port in cells of its own ([`PortCells`], [`WorkerCells`]): one writer, so that an addition
//! is a plain load and store without a lock prefix, once per burst. Readers add the workers' cells up; while traffic
//! flows they may see the two ends of a frame a moment apart.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};

use frame::{DropCounts, DropReason};
use ports::SendReport;
use vswitch::ProcessReport;
use vswitch::program::PortNo;

/// What moved through a port, or through all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in by the port.
    pub rx_frames: u64,
    /// Their bytes, without virtio-net headers.
    pub rx_bytes: u64,
    /// Frames sent out by the port.
    pub tx_frames: u64,
    /// Their bytes, without virtio-net headers.
    pub tx_bytes: u64,
    /// Further times that frames which came in by the port were sent: a flood to three ports counts two.
    pub copies: u64,
    /// Body bytes copied in user space to send by the port.
    pub copied_bytes: u64,
    /// Frames, and copies of frames, that came in by the port and were not sent.
    pub drops: DropCounts,
}

impl Counters {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Counters) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.copies += other.copies;
        self.copied_bytes += other.copied_bytes;
        self.drops.merge(&other.drops);
    }

    /// True if every frame that came in has an end: rx + copies == tx + drops. Meaningful for the total of all ports
    /// once nothing moves.
    pub fn is_balanced(&self) -> bool {
        self.rx_frames + self.copies == self.tx_frames + self.drops.total()
    }
}

/// The counters of the whole datapath at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Each port that exists.
    pub ports: BTreeMap<PortNo, Counters>,
    /// All ports, those that were removed included: what the balance holds for.
    pub total: Counters,
}

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Adds `n`; only the owning worker calls it.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker has counted for one port. Cells of different workers share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct PortCells {
    rx_frames: Count,
    rx_bytes: Count,
    tx_frames: Count,
    tx_bytes: Count,
    copies: Count,
    copied_bytes: Count,
    drops: ByReason,
}

/// A count for each reason, by its number.
#[derive(Debug)]
struct ByReason([Count; DropReason::ALL.len()]);

impl Default for ByReason {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl PortCells {
    /// Counts one poll: `frames` came in, were sent `copies` further times, and ended as `drops` say.
    #[inline]
    pub(crate) fn received(&self, frames: u64, bytes: u64, copies: u64, drops: &DropCounts) {
        self.rx_frames.add(frames);
        self.rx_bytes.add(bytes);
        if copies > 0 {
            self.copies.add(copies);
        }
        // One vectorised sum finds that nothing was dropped, sooner than a look at each reason.
        if drops.total() > 0 {
            self.dropped(drops);
        }
    }

    #[cold]
    fn dropped(&self, drops: &DropCounts) {
        for (reason, count) in drops.iter() {
            self.drops.0[reason as usize].add(count);
        }
    }

    /// Counts one send.
    #[inline]
    pub(crate) fn sent(&self, report: &SendReport) {
        self.tx_frames.add(report.frames);
        self.tx_bytes.add(report.bytes);
        self.copied_bytes.add(report.copied_bytes);
    }

    pub(crate) fn read(&self) -> Counters {
        let mut drops = DropCounts::default();
        for reason in DropReason::ALL {
            drops.add(reason, self.drops.0[reason as usize].get());
        }
        Counters {
            rx_frames: self.rx_frames.get(),
            rx_bytes: self.rx_bytes.get(),
            tx_frames: self.tx_frames.get(),
            tx_bytes: self.tx_bytes.get(),
            copies: self.copies.get(),
            copied_bytes: self.copied_bytes.get(),
            drops,
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It asks its queues for frames, turn after turn, and found some lately.
    Polling,
    /// It found none for a while, and pauses between its turns.
    BackingOff,
    /// It waits in the kernel for a queue, or for control, to wake it.
    Sleeping,
}

/// What one worker has counted about itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCells {
    pub(crate) turns: Count,
    pub(crate) frames: Count,
    pub(crate) busy_cycles: Count,
    pub(crate) idle_cycles: Count,
    sleep_cycles: Count,
    sleeps: Count,
    microflow_hits: Count,
    megaflow_hits: Count,
    misses: Count,
    /// When the sleep that lasts began, by the counter of cycles; 0 while awake.
    asleep_since: AtomicU64,
    backing_off: AtomicBool,
}

impl WorkerCells {
    /// Counts how one burst was answered.
    #[inline]
    pub(crate) fn looked_up(&self, report: &ProcessReport) {
        self.microflow_hits.add(report.microflow_hits);
        self.megaflow_hits.add(report.megaflow_hits);
        self.misses.add(report.misses);
    }

    /// Says what the worker, which is awake, does.
    #[inline]
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.backing_off.store(mode == Mode::BackingOff, Relaxed);
    }

    /// A sleep begins at `now`.
    pub(crate) fn fall_asleep(&self, now: u64) {
        self.sleeps.add(1);
        self.asleep_since.store(now.max(1), Relaxed);
    }

    /// The sleep has ended, after so many cycles.
    pub(crate) fn wake_up(&self, slept: u64) {
        // In this order, and read in the other, the sleep may be missed for a moment, and is never counted twice.
        self.asleep_since.store(0, Relaxed);
        fence(Release);
        self.sleep_cycles.add(slept);
    }

    /// What has been counted, a sleep that lasts at `now` included: it may last for hours.
    pub(crate) fn read(&self, now: u64) -> Activity {
        let mut activity = Activity {
            turns: self.turns.get(),
            frames: self.frames.get(),
            busy_cycles: self.busy_cycles.get(),
            idle_cycles: self.idle_cycles.get(),
            sleep_cycles: self.sleep_cycles.get(),
            sleeps: self.sleeps.get(),
            microflow_hits: self.microflow_hits.get(),
            megaflow_hits: self.megaflow_hits.get(),
            misses: self.misses.get(),
            mode: if self.backing_off.load(Relaxed) { Mode::BackingOff } else { Mode::Polling },
        };
        fence(Acquire);
        let asleep_since = self.asleep_since.load(Relaxed);
        if asleep_since != 0 {
            let asleep = now.saturating_sub(asleep_since);
            activity.idle_cycles += asleep;
            activity.sleep_cycles += asleep;
            activity.mode = Mode::Sleeping;
        }
        activity
    }
}

/// What a worker does, and has done since it began. Cycles are those of the time stamp counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Passes over its queues.
    pub turns: u64,
    /// Frames that it took in.
    pub frames: u64,
    /// Cycles of turns that moved frames.
    pub busy_cycles: u64,
    /// Cycles of turns that moved none, sleep included.
    pub idle_cycles: u64,
    /// Those of the idle cycles that it slept.
    pub sleep_cycles: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// Frames answered by the exact-match cache.
    pub microflow_hits: u64,
    /// Frames answered by the masked cache.
    pub megaflow_hits: u64,
    /// Frames that ran through the pipeline.
    pub misses: u64,
    /// What it does now.
    pub mode: Mode,
}

/// A worker, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number; its thread is `worker-<number>`.
    pub number: usize,
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// CPU time of its thread, in nanoseconds.
    pub cpu_time_ns: u64,
    /// The ports that it polls.
    pub ports: Vec<PortNo>,
    /// What it does, and has done.
    pub activity: Activity,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(reason: DropReason, frames: u64) -> DropCounts {
        let mut drops = DropCounts::default();
        drops.add(reason, frames);
        drops
    }

    #[test]
    fn what_the_cells_of_two_ports_counted_balances_in_the_total() {
        let [first, second] = [PortCells::default(), PortCells::default()];
        first.received(5, 300, 2, &drops(DropReason::SamePort, 3));
        let sent = SendReport { frames: 4, bytes: 240, copied_bytes: 9, drops: DropCounts::default() };
        second.sent(&sent);
        let mut total = first.read();
        assert!(!total.is_balanced());
        total.merge(&second.read());
        assert!(total.is_balanced());
        let expected = Counters {
            rx_frames: 5,
            rx_bytes: 300,
            tx_frames: 4,
            tx_bytes: 240,
            copies: 2,
            copied_bytes: 9,
            drops: drops(DropReason::SamePort, 3),
        };
        assert_eq!(total, expected);
    }

    #[test]
    fn a_sleep_that_lasts_is_in_the_books_and_once_it_ended_still_once() {
        let cells = WorkerCells::default();
        let books = |now| {
            let read = cells.read(now);
            (read.mode, read.sleeps, read.sleep_cycles)
        };
        assert_eq!(books(50), (Mode::Polling, 0, 0));
        cells.fall_asleep(100);
        assert_eq!(books(175), (Mode::Sleeping, 1, 75));
        assert_eq!(cells.read(175).idle_cycles, 75);
        cells.wake_up(80);
        assert_eq!(books(500), (Mode::Polling, 1, 80));
        cells.set_mode(Mode::BackingOff);
        assert_eq!(books(500), (Mode::BackingOff, 1, 80));
    }
}
