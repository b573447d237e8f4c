//! What has moved, and what ended here?
//!
//! Each worker counts each port in cells of its own ([`PortCells`], [`WorkerCells`]): one writer, so that an addition
//! is a plain load and store without a lock prefix, once per burst. Readers add the workers' cells up; while traffic
//! flows they may see the two ends of a frame a moment apart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use frame::{DropCounts, DropReason};
use ports::SendReport;
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
    drops: [Count; DropReason::ALL.len()],
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
            self.drops[reason as usize].add(count);
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
            drops.add(reason, self.drops[reason as usize].get());
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

/// Whether a worker polls or sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It asks its queues for frames, turn after turn.
    Polling,
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
    pub(crate) sleeps: Count,
    pub(crate) microflow_hits: Count,
    pub(crate) megaflow_hits: Count,
    pub(crate) misses: Count,
    sleeping: AtomicU8,
}

impl WorkerCells {
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.sleeping.store(u8::from(mode == Mode::Sleeping), Relaxed);
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.sleeping.load(Relaxed) == 0 { Mode::Polling } else { Mode::Sleeping }
    }
}

/// A worker, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number; its thread is `worker-<number>`.
    pub number: usize,
    /// The CPU that it is pinned to.
    pub cpu: usize,
    /// Passes over its queues.
    pub turns: u64,
    /// Frames that it took in.
    pub frames: u64,
    /// Cycles of turns that moved frames, by the time stamp counter.
    pub busy_cycles: u64,
    /// Cycles of turns that moved none, sleep included.
    pub idle_cycles: u64,
    /// Times that it went to sleep.
    pub sleeps: u64,
    /// CPU time of its thread, in nanoseconds.
    pub cpu_time_ns: u64,
    /// The ports that it polls.
    pub ports: Vec<PortNo>,
    /// Frames answered by the exact-match cache.
    pub microflow_hits: u64,
    /// Frames answered by the masked cache.
    pub megaflow_hits: u64,
    /// Frames that ran through the pipeline.
    pub misses: u64,
    /// What it does now.
    pub mode: Mode,
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
}
