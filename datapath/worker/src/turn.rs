//! What does a worker do, turn after turn?
//!
//! ```text
//! obey commands -> (per queue: poll -> forward -> give back) -> nothing for a while? arm, sleep, turn, disarm
//! ```
//!
//! A busy worker makes no system call of its own. An idle one polls on for a while ([`Idle`]) and then sleeps: it arms
//! every queue, which asks the devices for signals, and looks once more at each, so that a frame which came before the
//! arming is not slept through. What woke it is served before the queues are disarmed, which costs system calls.
//!
//! The counter of cycles is read once per burst, and once per turn that moved nothing: what lies between two readings is
//! the cost of the queue that had the burst, or idle time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frame::Burst;
use ports::{WaitSet, cycles};
use vswitch::program::PortNo;
use vswitch::{Now, ProcessReport};

use crate::clock::Clock;
use crate::counters::WorkerCells;
use crate::entry::{Entry, QueueId};
use crate::forward::{Exit, Forwarder};
use crate::idle::{Idle, Rest};
use crate::mailbox::Inbox;

/// Milliseconds between two sweeps of the caches, and the entries that one looks at.
const SWEEP_EVERY_MS: u64 = 100;
const SWEEP_BUDGET: usize = 4096;
/// The longest sleep while cached decisions can still age. Without any, a worker sleeps until it is woken.
const AGEING_SLEEP: Duration = Duration::from_secs(1);

/// One worker, on its thread.
pub(crate) struct Worker {
    pub(crate) forwarder: Forwarder,
    entries: Vec<Entry>,
    burst: Burst,
    inbox: Inbox,
    cells: Arc<WorkerCells>,
    clock: Clock,
    waits: WaitSet,
    idle: Idle,
    /// The counter of cycles, as it was read last.
    mark: u64,
    /// The last turn moved frames: quiet queues may rest in this one.
    busy: bool,
    /// The queues were armed for a sleep and not disarmed yet.
    armed: bool,
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
        let mark = cycles::now();
        Self {
            forwarder,
            entries: Vec::new(),
            burst: Burst::new(),
            inbox,
            cells,
            clock: Clock::new(start, mark),
            waits: WaitSet::default(),
            idle: Idle::new(spin),
            mark,
            busy: false,
            armed: false,
            swept: Now::default(),
            stopped: false,
        }
    }

    /// Polls `entries` from the next turn on.
    pub(crate) fn poll(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries);
    }

    /// Hands back what this worker had of `port`, and touches none of it any more.
    pub(crate) fn leave(&mut self, port: PortNo) -> (Option<Exit>, Vec<Entry>) {
        let (gone, kept) =
            std::mem::take(&mut self.entries).into_iter().partition(|entry| entry.id.port == port);
        self.entries = kept;
        (self.forwarder.close(port), gone)
    }

    /// Gives up a queue, disarmed: all that came in by it has been sent, and this worker polls it no more.
    pub(crate) fn release(&mut self, id: QueueId) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        let mut entry = self.entries.remove(at);
        entry.queue.disarm();
        Some(entry)
    }

    /// Polls a queue that another worker has released.
    pub(crate) fn adopt(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Ends the thread before the next turn.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Works until it is stopped.
    pub(crate) fn run(mut self) {
        loop {
            if self.inbox.is_called() {
                self.obey();
                // At once: the wake that came with the command is used up, and another sleep would have no end.
                if self.stopped {
                    return;
                }
            }
            let start = self.mark;
            let now = self.clock.at(start);
            let moved = self.turn(now);
            if self.armed {
                self.disarm();
            }
            self.busy = moved > 0;
            if self.busy {
                self.idle.worked();
            } else {
                self.rest(start);
                self.mark = cycles::now();
            }
            self.cells.set_mode(self.idle.mode());
            self.count_turn(moved, self.mark.wrapping_sub(start));
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
        let (mut moved, start) = (0, self.mark);
        let mut report = ProcessReport::default();
        for entry in &mut self.entries {
            if self.busy && entry.quiet.rests(start) {
                continue;
            }
            let (forwarder, source) = (&mut self.forwarder, entry.source);
            let taken = entry.queue.poll(&mut self.burst, &mut |burst| {
                forwarder.forward(burst, source, now, &mut report);
            });
            let frames = taken.frames + taken.drops.total();
            if frames == 0 {
                entry.quiet.was_empty();
                continue;
            }
            entry.quiet.had_frames();
            moved += frames;
            report.drops.merge(&taken.drops);
            entry.cells.received(frames, taken.bytes, report.copies, &report.drops);
            self.cells.looked_up(&report);
            report = ProcessReport::default();
            let mark = cycles::now();
            entry.load.busy_cycles.add(mark.wrapping_sub(self.mark));
            self.mark = mark;
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

    /// After a turn without frames that began at `start`.
    #[inline]
    fn rest(&mut self, start: u64) {
        match self.idle.rest(start) {
            Rest::Pause(pauses) => (0..pauses).for_each(|_| std::hint::spin_loop()),
            Rest::Sleep => self.sleep(),
        }
    }

    /// Waits in the kernel until a queue has frames or control calls.
    fn sleep(&mut self) {
        self.armed = true;
        if self.arm() {
            let begin = cycles::now();
            self.cells.fall_asleep(begin);
            let limit = (self.forwarder.switch.flow_count() > 0).then_some(AGEING_SLEEP);
            // A kernel without memory for the wait makes this worker poll instead, which is right, only warmer.
            let _ = self.waits.wait(limit);
            self.cells.wake_up(cycles::now().wrapping_sub(begin));
            self.inbox.signal.settle();
        }
        self.idle.slept(cycles::now());
    }

    /// Asks all queues for signals, and lists whom to wait for. False if there are frames already.
    fn arm(&mut self) -> bool {
        self.waits.clear();
        self.waits.add(self.inbox.signal.fd());
        for entry in &mut self.entries {
            if entry.queue.arm() {
                return false;
            }
            if let Some(fd) = entry.queue.fd() {
                self.waits.add(fd);
            }
        }
        true
    }

    #[cold]
    fn disarm(&mut self) {
        self.armed = false;
        for entry in &mut self.entries {
            entry.queue.disarm();
        }
    }
}
