//! How do packets of a tunnel become large frames again? ("Generic receive offload", GRO; the reverse of `offload::segment`.)
//!
//! A node that sends cuts a large segment of TCP into packets, for the wire's sake. Those that come in one after the other and
//! are what cutting one segment would have made become one frame in a tunnel, [`Offload::gso`] saying how it is to be cut,
//! before the switch sees them: it decides on one frame, and a device that takes large frames gets it whole. For others it
//! is cut again, into the same packets.
//!
//! Goal: a burst of one connection costs about what one frame does; a packet of any other kind costs a look at its headers.
//! Payload is neither moved nor copied: a frame is put together of where its parts lie. It is read once, because the
//! frame's checksum is left to others, so that each packet's own has to be right.
//!
//! States: no train -> a packet that may begin one (*open*) -> others behind it -> emitted, by a packet that is not the next
//! one, or at the end of what was received. A train never waits for another receive. Limits: TCP in Geneve without control
//! flags; one train at a time, so that connections whose packets alternate stay as they are; frames as long as IP allows.
//!
//! The packets may come by themselves or as trains of UDP (`packet`), which are parted here.
mod packet;
mod train;

use frame::{BURST_FRAMES, DropReason, MAX_SEGMENTS, Offload, Segment};

use super::MAX_HEAD_BYTES;
use packet::{Origin, Packet};
use train::Train;

/// Takes a frame, by its parts, and what is left to do on it. The parts may be used until it has taken [`BURST_FRAMES`] more.
pub(crate) type Emit<'e> = dyn FnMut(&[Segment], Offload) + 'e;

/// What putting together needs room for. Made once per queue.
#[derive(Debug)]
pub(crate) struct Room {
    /// Headers, of the frames of a burst in turn.
    heads: Box<[[u8; MAX_HEAD_BYTES]]>,
    next: usize,
    /// The payload of the train.
    parts: Vec<Segment>,
}

impl Default for Room {
    fn default() -> Self {
        let heads = vec![[0; MAX_HEAD_BYTES]; BURST_FRAMES].into();
        Self { heads, next: 0, parts: Vec::with_capacity(MAX_SEGMENTS) }
    }
}

impl Room {
    /// Where the headers of the next frame are to be written.
    fn head(&mut self) -> &mut [u8; MAX_HEAD_BYTES] {
        self.next = (self.next + 1) % self.heads.len();
        &mut self.heads[self.next]
    }
}

/// The packets of one receive, whose memory lives for `'m`.
pub(crate) struct Gro<'m> {
    room: &'m mut Room,
    train: Option<Train<'m>>,
}

impl<'m> Gro<'m> {
    pub(crate) fn new(room: &'m mut Room) -> Self {
        Self { room, train: None }
    }

    /// Takes a frame that came in with `offload` left to do. Frames are emitted in the order in which they were taken.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] for a train of too many packets.
    pub(crate) fn take(
        &mut self,
        frame: &'m [u8],
        offload: Offload,
        emit: &mut Emit<'_>,
    ) -> Result<(), DropReason> {
        match packet::packets(frame, offload)? {
            Some(packets) => packets.for_each(|packet| self.put(packet, emit)),
            None => {
                self.end(emit);
                emit(&[segment(frame)], offload);
            }
        }
        Ok(())
    }

    /// Emits what is open.
    pub(crate) fn end(&mut self, emit: &mut Emit<'_>) {
        let Some(train) = self.train.take() else { return };
        if train.packets() == 1 {
            return self.emit_alone(train.first(), emit);
        }
        let head = self.room.head();
        let (len, offload) = train.write_headers(head);
        let head = segment(&head[..len]);
        self.room.parts.insert(0, head);
        emit(&self.room.parts, offload);
    }

    fn put(&mut self, packet: Packet<'m>, emit: &mut Emit<'_>) {
        if let Some(train) = &mut self.train
            && train.take(&packet)
        {
            self.room.parts.push(segment(train.payload_of(&packet)));
            return;
        }
        self.end(emit);
        match Train::begin(packet) {
            Some(train) => {
                self.room.parts.clear();
                self.room.parts.push(segment(train.payload_of(&packet)));
                self.train = Some(train);
            }
            None => self.emit_alone(&packet, emit),
        }
    }

    fn emit_alone(&mut self, packet: &Packet<'_>, emit: &mut Emit<'_>) {
        match packet.origin {
            Origin::Alone(frame, offload) => emit(&[segment(frame)], offload),
            Origin::Train(_) => {
                let head = &mut self.room.head()[..packet.outer.len()];
                let offload = packet.write_outer(head);
                emit(&[segment(head), segment(packet.payload)], offload);
            }
        }
    }
}

/// `bytes`, whose memory is that of the receive, or of the room, and stays as it is until the frame is gone.
fn segment(bytes: &[u8]) -> Segment {
    // SAFETY: what is received lives for `'m`, longer than the burst that it is pushed into; the room's heads are used again
    // only after as many frames as a burst has, and never freed before.
    unsafe { Segment::new(bytes.as_ptr(), bytes.len()) }
}
