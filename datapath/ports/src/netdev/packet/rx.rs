//! Packets of the interface: a burst read at once, lent as it lies.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use frame::{BURST_FRAMES, Burst, Checksum, DropReason, MAX_FRAME_BYTES, Offload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Packet;
use super::sys::{self, CONTROL_BYTES, Control, Header};
use crate::netdev::Take;
use crate::netdev::intake::{self, Intake};
use crate::offload::gro::Room;
use crate::quiet::Quiet;
use crate::virtio::header::{self, HEADER_BYTES, Source};
use crate::{PollReport, RxQueue};

/// Bytes of a VLAN tag, and of the two addresses before it.
const TAG_BYTES: usize = 4;
const ADDRESS_BYTES: usize = 12;
/// Room for one packet behind its header. An odd number of cache lines, so that the first bytes of packets, which are what
/// is looked at, do not all fall into the same few sets of the cache.
const SLOT_BYTES: usize = ((HEADER_BYTES + MAX_FRAME_BYTES).div_ceil(64) | 1) * 64;

/// The receive side.
pub(super) struct PacketRx {
    packet: Arc<Packet>,
    quiet: Quiet,
    /// One slot for each packet of a burst. The kernel backs only the pages that were ever touched.
    arena: Vec<u8>,
    room: Option<Room>,
}

/// What the kernel said about one packet.
#[derive(Clone, Copy)]
struct Filled {
    /// Header and packet.
    bytes: usize,
    truncated: bool,
    control_bytes: usize,
}

impl PacketRx {
    pub(super) fn new(packet: Arc<Packet>, take: &Take) -> Self {
        let arena = vec![0; BURST_FRAMES * SLOT_BYTES];
        Self { packet, quiet: Quiet::default(), arena, room: intake::room(take) }
    }

    /// Reads up to a burst of packets, each into its slot, and returns how many, with what is known about them.
    fn read(&mut self, controls: &mut [Control; BURST_FRAMES]) -> (usize, [Filled; BURST_FRAMES]) {
        let mut filled = [Filled { bytes: 0, truncated: false, control_bytes: 0 }; BURST_FRAMES];
        let mut pieces: [_; BURST_FRAMES] = std::array::from_fn(|slot| {
            let room = &mut self.arena[slot * SLOT_BYTES..][..SLOT_BYTES];
            libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: SLOT_BYTES }
        });
        let mut with = pieces.iter_mut().zip(controls);
        let mut messages: [_; BURST_FRAMES] = std::array::from_fn(|_| {
            let (piece, control) = with.next().expect("one piece for each message");
            sys::message(piece, 1, Some(control))
        });
        // SAFETY: each message points to its slot of the arena and to its control bytes, both of which live here and are
        // writable for the lengths given; nothing borrows the arena while `self` is exclusive.
        let count = match unsafe { sys::receive(&self.packet.fd, &mut messages) } {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN) => 0,
            // The interface went down, for a while or for good; the kernel says so once.
            Err(_) => {
                self.packet.is_gone();
                0
            }
        };
        for (filled, message) in filled.iter_mut().zip(&messages[..count]) {
            filled.bytes = message.msg_len as usize;
            filled.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            filled.control_bytes = message.msg_hdr.msg_controllen;
        }
        (count, filled)
    }
}

/// The frame in `slot`, behind its header, and what is left to do on it. The tag that was taken off is put back.
fn frame(
    slot: &mut [u8],
    filled: Filled,
    header: Header,
    tag: Option<[u8; TAG_BYTES]>,
) -> Result<(&[u8], Offload), DropReason> {
    let mut start = header.len();
    if filled.truncated || filled.bytes <= start || filled.bytes > slot.len() {
        return Err(DropReason::Truncated);
    }
    let slot = &mut slot[..filled.bytes];
    let mut bytes = [0; HEADER_BYTES];
    bytes[..start].copy_from_slice(&slot[..start]);
    let mut offload = header::decode(&bytes, slot.len() - start, Source::Kernel)?;
    if let Some(tag) = tag {
        start = put_back(slot, start, tag).ok_or(DropReason::Truncated)?;
        offload = behind_tag(offload);
    }
    Ok((&slot[start..], offload))
}

/// Puts `tag` back into the frame that begins at `start`, over the header in front of it, which is read by now. Returns
/// where the frame begins then; `None` if it has no addresses to move.
fn put_back(room: &mut [u8], start: usize, tag: [u8; TAG_BYTES]) -> Option<usize> {
    if room.len() < start + ADDRESS_BYTES {
        return None;
    }
    let begin = start - TAG_BYTES;
    room.copy_within(start..start + ADDRESS_BYTES, begin);
    room[begin + ADDRESS_BYTES..][..TAG_BYTES].copy_from_slice(&tag);
    Some(begin)
}

/// What was left to do on a frame, after a tag was put into it.
fn behind_tag(mut offload: Offload) -> Offload {
    if let Checksum::Partial { start, .. } = &mut offload.checksum {
        *start = start.saturating_add(TAG_BYTES as u16);
    }
    if let Some(gso) = &mut offload.gso {
        gso.headers_bytes = gso.headers_bytes.saturating_add(TAG_BYTES as u16);
    }
    offload
}

impl RxQueue for PacketRx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        if self.packet.gone.load(Relaxed) || self.quiet.rests() {
            return PollReport::default();
        }
        let mut controls = [Control([0; CONTROL_BYTES]); BURST_FRAMES];
        let (count, filled) = self.read(&mut controls);
        self.quiet.asked(count > 0);
        let mut intake = Intake::new(self.room.as_mut(), burst, turn);
        let slots = self.arena.chunks_mut(SLOT_BYTES).zip(&filled[..count]).zip(&controls);
        for ((slot, filled), control) in slots {
            let tag = sys::tag(control, filled.control_bytes);
            match frame(slot, *filled, self.packet.header, tag) {
                Ok((frame, offload)) => intake.take(frame, offload),
                Err(reason) => intake.drop(reason),
            }
        }
        intake.end()
    }

    fn arm(&mut self) -> bool {
        if self.packet.gone.load(Relaxed) {
            return false;
        }
        self.quiet.wake();
        let mut fds = [PollFd::from_borrowed_fd(self.packet.fd.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).is_err() {
            return false;
        }
        let events = fds[0].revents();
        // An error is read, and with it gone, by the next poll.
        events.intersects(PollFlags::IN | PollFlags::ERR)
            && !(events.contains(PollFlags::ERR) && self.packet.is_gone())
    }

    fn disarm(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        (!self.packet.gone.load(Relaxed)).then(|| self.packet.fd.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_back_between_addresses_and_type() {
        let mut room: Vec<u8> = (0..30).collect();
        assert_eq!(put_back(&mut room, 10, [0x81, 0, 0, 7]), Some(6));
        let frame: Vec<u8> = (10..22).chain([0x81, 0, 0, 7]).chain(22..30).collect();
        assert_eq!(room[6..], frame);
        assert_eq!(put_back(&mut [0; 21], 10, [0; 4]), None);
    }

    #[test]
    fn work_left_on_a_tagged_frame_lies_behind_the_tag() {
        let gso = frame::Gso { kind: frame::GsoKind::TcpV4, size: 1000, ecn: false, headers_bytes: 54 };
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            gso: Some(gso),
            ..Offload::NONE
        };
        let shifted = behind_tag(offload);
        assert_eq!(shifted.checksum, Checksum::Partial { start: 38, offset: 16 });
        assert_eq!(shifted.gso.unwrap().headers_bytes, 58);
        assert_eq!(behind_tag(Offload::NONE), Offload::NONE);
    }
}
