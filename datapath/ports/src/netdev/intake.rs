//! How do frames of one receive get into bursts? Into one, which is lent whenever it is full: what came as one packet may be
//! more frames than a burst holds. Packets of tunnels become large frames on the way (`offload::gro`).

use frame::{Burst, DropReason, Offload, Segment};

use super::Take;
use crate::PollReport;
use crate::offload::gro::{Gro, Room};

/// Room for putting packets together, if the port takes those of tunnels.
pub(super) fn room(take: &Take) -> Option<Room> {
    take.udp_ports().contains(&wire::geneve::PORT).then(Room::default)
}

/// The frames of one receive, whose memory lives for `'m`.
pub(super) struct Intake<'m> {
    gro: Option<Gro<'m>>,
    lender: Lender<'m>,
}

struct Lender<'m> {
    burst: &'m mut Burst,
    turn: &'m mut dyn FnMut(&mut Burst),
    report: PollReport,
}

impl<'m> Intake<'m> {
    /// Into `burst`, which is empty, and lent to `turn`.
    pub(super) fn new(
        room: Option<&'m mut Room>,
        burst: &'m mut Burst,
        turn: &'m mut dyn FnMut(&mut Burst),
    ) -> Self {
        Self { gro: room.map(Gro::new), lender: Lender { burst, turn, report: PollReport::default() } }
    }

    /// Takes a frame with `offload` left to do.
    pub(super) fn take(&mut self, frame: &'m [u8], offload: Offload) {
        let Self { gro, lender } = self;
        let Some(gro) = gro else { return lender.push_whole(frame, offload) };
        if let Err(reason) = gro.take(frame, offload, &mut |parts, offload| lender.push(parts, offload)) {
            lender.report.drops.add(reason, 1);
        }
    }

    /// Counts a frame that could not be taken.
    pub(super) fn drop(&mut self, reason: DropReason) {
        self.lender.report.drops.add(reason, 1);
    }

    /// Lends what was taken last.
    pub(super) fn end(mut self) -> PollReport {
        let Self { gro, lender } = &mut self;
        if let Some(gro) = gro {
            gro.end(&mut |parts, offload| lender.push(parts, offload));
        }
        lender.lend();
        lender.report
    }
}

impl Lender<'_> {
    fn push_whole(&mut self, frame: &[u8], offload: Offload) {
        // SAFETY: the frame lives for `'m`, longer than this, which clears the burst when it goes.
        self.push(&[unsafe { Segment::new(frame.as_ptr(), frame.len()) }], offload);
    }

    fn push(&mut self, parts: &[Segment], offload: Offload) {
        // SAFETY: the parts are of frames that live for `'m`, or of heads of the room, which lives as long and uses none of
        // them again before it has emitted as many frames as a burst holds: by then it was lent and cleared, below.
        let pushed = unsafe {
            match parts {
                [whole] => self.burst.push(whole.base(), whole.len(), offload),
                parts => self.burst.push_parts(parts, offload),
            }
        };
        match pushed {
            Ok(()) => {
                self.report.frames += 1;
                self.report.bytes += self.burst.frame_len(self.burst.len() - 1) as u64;
            }
            Err(_) => self.report.drops.add(DropReason::Truncated, 1),
        }
        if self.burst.is_full() {
            self.lend();
        }
    }

    fn lend(&mut self) {
        if !self.burst.is_empty() {
            (self.turn)(self.burst);
            self.burst.clear();
        }
    }
}

impl Drop for Lender<'_> {
    fn drop(&mut self) {
        self.burst.clear();
    }
}

#[cfg(test)]
mod tests {
    use frame::BURST_FRAMES;

    use super::*;

    #[test]
    fn a_burst_is_lent_as_soon_as_it_is_full() {
        // The room uses the heads of its first frame again for the next one.
        let frame = [7; 60];
        let mut burst = Burst::new();
        let mut lent = Vec::new();
        let mut turn = |burst: &mut Burst| lent.push(burst.len());
        let mut intake = Intake::new(None, &mut burst, &mut turn);
        for _ in 0..BURST_FRAMES {
            assert!(!intake.lender.burst.is_full());
            intake.take(&frame, Offload::NONE);
        }
        assert!(intake.lender.burst.is_empty());
        intake.take(&frame, Offload::NONE);
        assert_eq!(intake.end().frames, BURST_FRAMES as u64 + 1);
        assert_eq!(lent, [BURST_FRAMES, 1]);
    }
}
