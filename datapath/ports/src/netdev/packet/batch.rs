//! How do many frames leave by one system call? Each becomes a message: a copy of its head behind its virtio-net header, then
//! the runs of its body where they lie.
//!
//! The head is copied because a frame that is cut in software has only one piece's head at a time. The pieces of a frame in a
//! tunnel become one message, a *train* (`offload::Tunnel`), as far as one is long enough: the headers of each piece from the
//! tunnel's own on, and its payload, behind those of the piece before it.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use frame::{BURST_FRAMES, DropReason, Gather, MAX_SEGMENTS, Offload, Segment};
use rustix::io::Errno;

use super::Packet;
use super::sys::{self, Header};
use crate::offload::{MAX_HEAD_BYTES, Tunnel};
use crate::virtio::header::{self, HEADER_BYTES};

/// Messages of one call.
const MESSAGES: usize = BURST_FRAMES;
/// Heads of all messages of a batch: those of four trains of the longest frames with an ordinary MTU, and some.
const HEADS: usize = 256;
/// Runs of all messages of a batch: room for one frame that is scattered as widely as can be, and many that are not.
const RUNS: usize = 2 * HEADS + 1 + MAX_SEGMENTS;
/// Pieces of a train: what Linux let programs send as one before 6.9 (UDP_MAX_SEGMENTS), which is what drivers were made for.
const TRAIN_PIECES: usize = 64;

/// Why frames of a burst were not sent, by index.
pub(super) type Fates = [Option<DropReason>; BURST_FRAMES];

/// A header and a head.
type Store = [u8; HEADER_BYTES + MAX_HEAD_BYTES];

/// Messages that wait to be sent. Between calls of [`Batch::flush`] it refers to bodies of the burst that is being sent.
pub(super) struct Batch {
    stores: Box<[Store; HEADS]>,
    /// Stores that are taken.
    heads: usize,
    header: Header,
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
    train: Option<Train>,
}

/// Pieces that leave as one.
#[derive(Clone, Copy)]
struct Train {
    tunnel: Tunnel,
    /// Where the first piece's head is stored.
    store: usize,
    pieces: usize,
    /// Bytes of the train so far, and what each of its datagrams carries.
    len: usize,
    size: usize,
    /// No other piece goes behind a shorter one.
    is_open: bool,
}

impl Train {
    /// Takes another piece, which adds `bytes`; false if there is no room for it.
    fn couple(&mut self, bytes: usize) -> bool {
        let has_room = self.is_open && bytes <= self.size && self.pieces < TRAIN_PIECES;
        if !has_room || !self.tunnel.holds(self.len + bytes) {
            return false;
        }
        self.pieces += 1;
        self.len += bytes;
        self.is_open = bytes == self.size;
        true
    }
}

impl Batch {
    pub(super) fn new(header: Header) -> Self {
        let stores: Box<[Store]> = vec![[0; HEADER_BYTES + MAX_HEAD_BYTES]; HEADS].into();
        let Ok(stores) = stores.try_into() else { unreachable!("HEADS stores were made") };
        let messages = Vec::with_capacity(MESSAGES);
        Self { stores, heads: 0, header, runs: Vec::with_capacity(RUNS), messages }
    }

    /// True if another message may not fit.
    pub(super) fn is_full(&self) -> bool {
        self.messages.len() == MESSAGES || self.heads == HEADS || self.runs.len() + 1 + MAX_SEGMENTS > RUNS
    }

    /// Adds `piece` of frame `frame`. The batch is not full, and is flushed before the burst that the piece is of goes away.
    pub(super) fn add(&mut self, frame: usize, piece: &Gather<'_>, left: &Offload) {
        let first = self.runs.len();
        self.put(&header::encode(left)[..self.header.len()], piece.head(), piece);
        self.messages.push(Message { first, count: self.runs.len() - first, frame, train: None });
    }

    /// As [`Batch::add`], for a piece that is in `tunnel`: behind the one before it, if it is of the same frame.
    pub(super) fn couple(&mut self, tunnel: &Tunnel, frame: usize, piece: &Gather<'_>, left: &Offload) {
        let outer = tunnel.train_headers_bytes();
        let bytes = piece.len() - outer;
        if let Some(Message { frame: before, train: Some(train), .. }) = self.messages.last_mut()
            && *before == frame
            && train.couple(bytes)
        {
            let from = self.runs.len();
            self.put(&[], &piece.head()[outer..], piece);
            let added = self.runs.len() - from;
            self.messages.last_mut().expect("there is one").count += added;
            return;
        }
        let (tunnel, store) = (*tunnel, self.heads);
        self.add(frame, piece, left);
        let train = Train { tunnel, store, pieces: 1, len: piece.len(), size: bytes, is_open: true };
        self.messages.last_mut().expect("it was added").train = Some(train);
    }

    /// Stores `front` and `head`, and adds them and the body of `piece` to the runs.
    fn put(&mut self, front: &[u8], head: &[u8], piece: &Gather<'_>) {
        let store = &mut self.stores[self.heads];
        self.heads += 1;
        store[..front.len()].copy_from_slice(front);
        store[front.len()..front.len() + head.len()].copy_from_slice(head);
        // SAFETY: the store is boxed, so that it stays where it is, and nobody else's before the batch is sent.
        self.runs.push(unsafe { Segment::new(store.as_ptr(), front.len() + head.len()) });
        self.runs.extend(piece.body());
    }

    /// Writes the headers of trains, which are as long as they will be.
    fn lead_trains(&mut self) {
        let trains = self.messages.iter().filter_map(|message| message.train);
        for train in trains.filter(|train| train.pieces > 1) {
            let (front, head) = self.stores[train.store].split_at_mut(self.header.len());
            let left = train.tunnel.lead_train(head, train.len, train.size as u16);
            front.copy_from_slice(&header::encode(&left)[..self.header.len()]);
        }
    }

    /// Sends everything. A message that the kernel refuses is its frame's fate, if the frame has none yet.
    pub(super) fn flush(&mut self, packet: &Packet, fates: &mut Fates) {
        self.lead_trains();
        let mut messages: [_; MESSAGES] = std::array::from_fn(|number| {
            let (first, count) =
                self.messages.get(number).map_or((0, 0), |message| (message.first, message.count));
            sys::message(self.runs[first..].as_ptr().cast_mut().cast(), count, None)
        });
        let count = self.messages.len();
        let mut at = 0;
        while at < count {
            // SAFETY: a message points to `count` runs, laid out like `iovec`, that were not touched since they were put; they
            // are stores, which live in `self`, and runs of a body, readable for the burst's life (`Segment::new`). The
            // kernel only reads them.
            let until = match unsafe { sys::send(&packet.fd, &mut messages[at..count]) } {
                Ok(sent @ 1..) => {
                    at += sent;
                    continue;
                }
                Ok(0) => self.refuse(at..count, DropReason::RingFull, fates),
                Err(errno) => {
                    let is_train = self.messages[at].train.is_some_and(|train| train.pieces > 1);
                    match packet.refusal(errno, is_train) {
                        // The others would fare no better.
                        reason @ (DropReason::RingFull | DropReason::PortDown) => {
                            self.refuse(at..count, reason, fates)
                        }
                        reason => self.refuse(at..at + 1, reason, fates),
                    }
                }
            };
            at = until;
        }
        self.heads = 0;
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
    fn refusal(&self, errno: Errno, is_train: bool) -> DropReason {
        if is_train && errno == Errno::INVAL {
            self.trains.store(false, Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers of a tunnel over IPv4 that wants a checksum, up to the frame inside.
    fn outer() -> Vec<u8> {
        let link = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
        let ip = [0x45, 0, 0, 200, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
        let udp = [0xc0, 0, 0x17, 0xc1, 0, 180, 0xff, 0xff];
        [&link[..], &ip, &udp, &[0, 0, 0x65, 0x58, 0, 0, 7, 0]].concat()
    }

    fn train(len: usize) -> Train {
        let tunnel = Tunnel::parse(&outer(), 50).unwrap();
        let size = len - tunnel.train_headers_bytes();
        Train { tunnel, store: 0, pieces: 1, len, size, is_open: true }
    }

    #[test]
    fn a_train_ends_with_a_shorter_piece_and_takes_no_longer_one() {
        let mut train = train(1042);
        assert!(!train.couple(1001));
        assert!(train.couple(1000) && train.couple(1));
        assert!(!train.couple(1), "only the last piece is shorter");
        assert_eq!((train.pieces, train.len), (3, 2043));
    }

    #[test]
    fn a_train_is_no_longer_than_ip_and_the_kernel_allow() {
        for (size, pieces) in [(1458, 44), (1000, TRAIN_PIECES), (9000, 7)] {
            let mut train = train(42 + size);
            while train.couple(size) {}
            assert_eq!(train.pieces, pieces, "{size}");
            assert!(train.len - 14 <= 65_535);
        }
    }

    #[test]
    fn pieces_of_a_frame_leave_as_one_message_that_says_how_to_part_it() {
        let mut burst = frame::Burst::new();
        for _ in 0..2 {
            burst.push_owned([outer(), vec![7; 958]].concat(), Offload::NONE).unwrap();
        }
        let mut batch = Batch::new(Header::Full);
        let (tunnel, piece) = (Tunnel::parse(&outer(), 50).unwrap(), burst.gather(0));
        for frame in [0, 0, 0, 1] {
            batch.couple(&tunnel, frame, &piece, &Offload::NONE);
        }
        batch.lead_trains();
        let bytes: Vec<usize> = batch
            .messages
            .iter()
            .map(|message| batch.runs[message.first..][..message.count].iter().map(Segment::len).sum())
            .collect();
        assert_eq!(bytes, [12 + 42 + 3 * 966, 12 + 42 + 966], "another frame begins another train");
        // NEEDS_CSUM at UDP's field, GSO_UDP_L4 in pieces of 966 bytes behind 42.
        assert_eq!(batch.stores[0][..10], [1, 5, 42, 0, 0xc6, 3, 34, 0, 6, 0]);
        let head = &batch.stores[0][12..];
        assert_eq!(head[16..18], (20_u16 + 8 + 3 * 966).to_be_bytes());
        assert_eq!(head[38..40], (8_u16 + 3 * 966).to_be_bytes());
        assert_eq!(wire::checksum::checksum(&head[14..34]), 0);
        assert_eq!(batch.stores[3][..2], [0, 0], "one piece is no train");
    }
}
