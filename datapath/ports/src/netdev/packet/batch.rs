//! How do many frames leave by one system call? Each becomes a message: a copy of its head behind its virtio-net header, then
//! the runs of its body where they lie.
//!
//! The head is copied because a frame that is cut in software has only one piece's head at a time.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use frame::{BURST_FRAMES, DropReason, Gather, MAX_SEGMENTS, Offload, Segment};
use rustix::io::Errno;

use super::Packet;
use super::sys::{self, Header};
use crate::offload::MAX_HEAD_BYTES;
use crate::virtio::header::{self, HEADER_BYTES};

/// Messages of one call.
const MESSAGES: usize = BURST_FRAMES;
/// Runs of all messages of a batch: room for one frame that is scattered as widely as can be, and many that are not.
const RUNS: usize = 2 * (1 + MAX_SEGMENTS);

/// Why frames of a burst were not sent, by index.
pub(super) type Fates = [Option<DropReason>; BURST_FRAMES];

/// A header and a head.
type Store = [u8; HEADER_BYTES + MAX_HEAD_BYTES];

/// Messages that wait to be sent. Between calls of [`Batch::flush`] it refers to bodies of the burst that is being sent.
pub(super) struct Batch {
    stores: Box<[Store; MESSAGES]>,
    runs: Vec<Segment>,
    messages: Vec<Message>,
}

#[derive(Clone, Copy)]
struct Message {
    /// Its first run, and how many it has.
    first: usize,
    count: usize,
    /// Which frame of the burst it is of.
    frame: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            stores: Box::new([[0; HEADER_BYTES + MAX_HEAD_BYTES]; MESSAGES]),
            runs: Vec::with_capacity(RUNS),
            messages: Vec::with_capacity(MESSAGES),
        }
    }

    /// True if another message may not fit.
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() == MESSAGES || self.runs.len() + 1 + MAX_SEGMENTS > RUNS
    }

    /// Adds `piece` of frame `frame`. The batch is not full, and is flushed before the burst that the piece is of goes away.
    pub(super) fn add(&mut self, frame: usize, piece: &Gather<'_>, left: &Offload, header: Header) {
        let store = &mut self.stores[self.messages.len()];
        let (front, head) = (header.len(), piece.head());
        store[..front].copy_from_slice(&header::encode(left)[..front]);
        store[front..front + head.len()].copy_from_slice(head);
        let first = self.runs.len();
        // SAFETY: the store is not touched again before the batch is flushed, and boxed, so that it stays where it is.
        self.runs.push(unsafe { Segment::new(store.as_ptr(), front + head.len()) });
        self.runs.extend(piece.body());
        self.messages.push(Message { first, count: self.runs.len() - first, frame });
    }

    /// Sends everything. A message that the kernel refuses is its frame's fate, if the frame has none yet.
    pub(super) fn flush(&mut self, packet: &Packet, fates: &mut Fates) {
        let mut messages: [_; MESSAGES] = std::array::from_fn(|number| {
            let (first, count) =
                self.messages.get(number).map_or((0, 0), |message| (message.first, message.count));
            sys::message(self.runs[first..].as_ptr().cast_mut().cast(), count, None)
        });
        let count = self.messages.len();
        let mut at = 0;
        while at < count {
            // SAFETY: a message points to `count` runs, laid out like `iovec`, that were not touched since `add`; they are
            // its store, which lives in `self`, and runs of a body, readable for the burst's life (`Segment::new`). The
            // kernel only reads them.
            let until = match unsafe { sys::send(&packet.fd, &mut messages[at..count]) } {
                Ok(sent @ 1..) => {
                    at += sent;
                    continue;
                }
                Ok(0) => self.refuse(at..count, DropReason::RingFull, fates),
                Err(errno) => match packet.refusal(errno) {
                    // The others would fare no better.
                    reason @ (DropReason::RingFull | DropReason::PortDown) => {
                        self.refuse(at..count, reason, fates)
                    }
                    reason => self.refuse(at..at + 1, reason, fates),
                },
            };
            at = until;
        }
        self.runs.clear();
        self.messages.clear();
    }

    /// Notes `reason` for the frames of some messages, and returns the number of the next message.
    fn refuse(&self, messages: Range<usize>, reason: DropReason, fates: &mut Fates) -> usize {
        for message in &self.messages[messages.clone()] {
            fates[message.frame].get_or_insert(reason);
        }
        messages.end
    }
}

impl Packet {
    /// What the errno of a failed send means for the frame.
    #[cold]
    fn refusal(&self, errno: Errno) -> DropReason {
        match errno {
            Errno::AGAIN | Errno::NOBUFS => DropReason::RingFull,
            Errno::NETDOWN | Errno::NXIO | Errno::NODEV => DropReason::PortDown,
            Errno::MSGSIZE => DropReason::TooBig,
            _ => {
                self.refusal.store(errno.raw_os_error(), Relaxed);
                DropReason::KernelRefused
            }
        }
    }
}
