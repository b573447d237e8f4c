//! Which frames are the packets of a tunnel that come in? They may come by themselves or as trains of UDP (`packet`), which are
//! parted here.
mod packet;

use frame::{BURST_FRAMES, DropReason, Offload, Segment};

use super::MAX_HEAD_BYTES;
use packet::{Origin, Packet};

/// Takes a frame, by its parts, and what is left to do on it. The parts may be used until it has taken [`BURST_FRAMES`] more.
pub(crate) type Emit<'e> = dyn FnMut(&[Segment], Offload) + 'e;

/// What parting needs room for. Made once per queue.
#[derive(Debug)]
pub(crate) struct Room {
    /// Headers, of the frames of a burst in turn.
    heads: Box<[[u8; MAX_HEAD_BYTES]]>,
    next: usize,
}

impl Default for Room {
    fn default() -> Self {
        let heads = vec![[0; MAX_HEAD_BYTES]; BURST_FRAMES].into();
        Self { heads, next: 0 }
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
}

impl<'m> Gro<'m> {
    pub(crate) fn new(room: &'m mut Room) -> Self {
        Self { room }
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
            Some(packets) => packets.for_each(|packet| self.emit_alone(&packet, emit)),
            None => emit(&[segment(frame)], offload),
        }
        Ok(())
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
