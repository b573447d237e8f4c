//! What does a worker do, turn after turn?
//!
//! ```text
//! obey commands -> (per queue: poll -> forward -> give back) -> nothing for a while? arm, sleep, disarm
//! ```
//!
//! A busy worker makes no system call of its own. An idle one polls on for [`Config::spin`](crate::Config), because the
//! next frame often follows soon, and then sleeps: it arms every queue, which asks the devices for signals, and looks
//! once more at each, so that a frame which came before the arming is not slept through.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frame::Burst;
use ports::{RxQueue, WaitSet, cycles};
use vswitch::program::PortNo;
use vswitch::{Now, ProcessReport};

use crate::clock::Clock;
use crate::counters::{Mode, PortCells, WorkerCells};
use crate::forward::{Exit, Forwarder};
use crate::mailbox::Inbox;

/// Milliseconds between two sweeps of the caches, and the entries that one looks at.
const SWEEP_EVERY_MS: u64 = 100;
const SWEEP_BUDGET: usize = 4096;
/// The longest sleep while cached decisions can still age. Without any, a worker sleeps until it is woken.
const AGEING_SLEEP: Duration = Duration::from_secs(1);

/// A receive queue that a worker polls.
pub(crate) struct Entry {
    /// The port that its frames come in by.
    pub(crate) port: PortNo,
    /// The queue.
    pub(crate) queue: Box<dyn RxQueue>,
    /// What this worker counts for the port.
    pub(crate) cells: Arc<PortCells>,
}

/// One worker, on its thread.
pub(crate) struct Worker {
    pub(crate) forwarder: Forwarder,
    entries: Vec<Entry>,
    burst: Burst,
    inbox: Inbox,
    cells: Arc<WorkerCells>,
    clock: Clock,
    waits: WaitSet,
    spin: Duration,
    idle_since: Option<Instant>,
    swept: Now,
    stopped: bool,
}

impl Worker {
    pub(crate) fn new(
        forwarder: Forwarder,
        inbox: Inbox,
        cells: Arc<WorkerCells>,
        start: Instant,
        spin: Duration,
    ) -> Self {
        Self {
            forwarder,
            entries: Vec::new(),
            burst: Burst::new(),
            inbox,
            cells,
            clock: Clock::new(start, cycles::now()),
            waits: WaitSet::default(),
            spin,
            idle_since: None,
            swept: Now::default(),
            stopped: false,
        }
    }

    /// Polls `entries` and sends by `exit` from the next turn on.
    pub(crate) fn join(&mut self, port: PortNo, exit: Exit, entries: Vec<Entry>) {
        self.forwarder.open(port, exit);
        self.entries.extend(entries);
    }

    /// Hands back what this worker had of `port`, and touches none of it any more.
    pub(crate) fn leave(&mut self, port: PortNo) -> (Option<Exit>, Vec<Entry>) {
        let (gone, kept) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.port == port);
        self.entries = kept;
        (self.forwarder.close(port), gone)
    }

    /// Ends the thread after this turn.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Works until it is stopped.
    pub(crate) fn run(mut self) {
        let mut before = cycles::now();
        while !self.stopped {
            if self.inbox.is_called() {
                self.obey();
            }
            let now = self.clock.at(before);
            let moved = self.turn(now);
            if moved == 0 {
                self.idle();
            } else {
                self.idle_since = None;
            }
            let after = cycles::now();
            self.count_turn(moved, after.wrapping_sub(before));
            before = after;
        }
    }

    #[cold]
    fn obey(&mut self) {
        while let Some(command) = self.inbox.next() {
            command(self);
        }
    }

    /// One pass over the queues. Returns the frames that came in.
    fn turn(&mut self, now: Now) -> u64 {
        let mut moved = 0;
        let mut report = ProcessReport::default();
        for entry in &mut self.entries {
            let (forwarder, port) = (&mut self.forwarder, entry.port);
            let taken = entry.queue.poll(&mut self.burst, &mut |burst| {
                forwarder.forward(burst, port, now, &mut report);
            });
            let frames = taken.frames + taken.drops.total();
            if frames == 0 {
                continue;
            }
            moved += frames;
            report.drops.merge(&taken.drops);
            entry.cells.received(frames, taken.bytes, report.copies, &report.drops);
            self.cells.microflow_hits.add(report.microflow_hits);
            self.cells.megaflow_hits.add(report.megaflow_hits);
            self.cells.misses.add(report.misses);
            report = ProcessReport::default();
        }
        if now.since(self.swept) >= SWEEP_EVERY_MS {
            self.swept = now;
            self.forwarder.switch.sweep(now, SWEEP_BUDGET);
        }
        moved
    }

    #[inline]
    fn count_turn(&self, moved: u64, cycles: u64) {
        self.cells.turns.add(1);
        if moved == 0 {
            self.cells.idle_cycles.add(cycles);
        } else {
            self.cells.frames.add(moved);
            self.cells.busy_cycles.add(cycles);
        }
    }

    /// After a turn without frames: polls on for a while, then sleeps.
    #[allow(clippy::disallowed_methods, reason = "the worker is the one reader of the datapath's clock")]
    fn idle(&mut self) {
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        if now.duration_since(since) < self.spin {
            std::hint::spin_loop();
            return;
        }
        self.idle_since = None;
        self.sleep();
    }

    /// Waits in the kernel until a queue has frames or control calls.
    fn sleep(&mut self) {
        self.waits.clear();
        self.waits.add(self.inbox.signal.fd());
        let mut frames_wait = false;
        for entry in &mut self.entries {
            if entry.queue.arm() {
                frames_wait = true;
                break;
            }
            if let Some(fd) = entry.queue.fd() {
                self.waits.add(fd);
            }
        }
        if !frames_wait {
            self.cells.sleeps.add(1);
            self.cells.set_mode(Mode::Sleeping);
            let limit = (self.forwarder.switch.flow_count() > 0).then_some(AGEING_SLEEP);
            // A kernel without memory for the wait makes this worker poll instead, which is right, only warmer.
            let _ = self.waits.wait(limit);
            self.cells.set_mode(Mode::Polling);
            self.inbox.signal.settle();
        }
        for entry in &mut self.entries {
            entry.queue.disarm();
        }
    }
}
