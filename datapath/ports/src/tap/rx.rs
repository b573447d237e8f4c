//! Frames that the pod's kernel sends: read one by one, lent as a burst.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use frame::{BURST_FRAMES, Burst, DropReason, MAX_FRAME_BYTES, PushError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Queue;
use crate::quiet::Quiet;
use crate::virtio::header::{self, HEADER_BYTES, Source};
use crate::{PollReport, RxQueue};

/// Room for one read: the longest frame behind its header.
const READ_BYTES: usize = (HEADER_BYTES + MAX_FRAME_BYTES).next_multiple_of(64);
/// Room for a burst: 32 frames of an ordinary MTU use a fifth of it, and a read begins only where the longest frame
/// would fit, so that it takes 4 of those. The kernel backs only the pages that were ever touched.
const ARENA_BYTES: usize = 4 * READ_BYTES;

/// The receive side of one queue.
pub(super) struct TapRx {
    queue: Arc<Queue>,
    quiet: Quiet,
    /// Used from its start by each burst, so that it stays in the cache.
    arena: Vec<u8>,
}

/// One packet in the arena.
enum Read {
    /// Header and frame are this many bytes.
    Packet(usize),
    /// Nothing more now.
    Nothing,
}

impl TapRx {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, quiet: Quiet::default(), arena: vec![0; ARENA_BYTES] }
    }

    fn read(&mut self, at: usize) -> Read {
        match rustix::io::read(&self.queue.fd, &mut self.arena[at..at + READ_BYTES]) {
            Ok(0) => Read::Nothing,
            Ok(bytes) => Read::Packet(bytes),
            Err(Errno::BADFD) => {
                // The netdev is gone for good; its descriptor would be in error for ever.
                self.queue.gone.store(true, Relaxed);
                Read::Nothing
            }
            // EAGAIN, the usual end; or a packet that the kernel could not hand out and counts itself.
            Err(_) => Read::Nothing,
        }
    }

    /// Takes the packet of `bytes` bytes at `at` into the burst.
    fn push(&self, burst: &mut Burst, at: usize, bytes: usize, report: &mut PollReport) {
        let packet = &self.arena[at..at + bytes];
        let Some((header, frame)) = packet.split_first_chunk::<HEADER_BYTES>() else {
            report.drops.add(DropReason::Truncated, 1);
            return;
        };
        let offload = match header::decode(header, frame.len(), Source::Kernel) {
            Ok(offload) => offload,
            Err(reason) => return report.drops.add(reason, 1),
        };
        // SAFETY: the arena is neither moved nor written before `poll` clears the burst.
        match unsafe { burst.push(frame.as_ptr(), frame.len(), offload) } {
            Ok(()) => {
                report.frames += 1;
                report.bytes += frame.len() as u64;
            }
            Err(PushError::Length | PushError::Full | PushError::Segments) => {
                report.drops.add(DropReason::Truncated, 1);
            }
        }
    }
}

impl RxQueue for TapRx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let mut report = PollReport::default();
        if self.quiet.rests() {
            return report;
        }
        let mut at = 0;
        for _ in 0..BURST_FRAMES {
            if at + READ_BYTES > ARENA_BYTES {
                break;
            }
            let Read::Packet(bytes) = self.read(at) else { break };
            self.push(burst, at, bytes, &mut report);
            at += bytes.next_multiple_of(64);
        }
        self.quiet.asked(at > 0);
        if !burst.is_empty() {
            turn(burst);
            burst.clear();
        }
        report
    }

    fn arm(&mut self) -> bool {
        if self.queue.gone.load(Relaxed) {
            return false;
        }
        let mut fds = [PollFd::from_borrowed_fd(self.queue.fd.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).is_err() {
            return false;
        }
        let events = fds[0].revents();
        self.quiet.wake();
        if events.contains(PollFlags::ERR) {
            self.queue.gone.store(true, Relaxed);
            return false;
        }
        events.contains(PollFlags::IN)
    }

    fn disarm(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        (!self.queue.gone.load(Relaxed)).then(|| self.queue.fd.as_raw_fd())
    }
}
