//! Frames for the interface: a burst by one `sendmmsg(2)`, bodies straight from where they lie.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use frame::{BURST_FRAMES, Burst, Gather, Offload};

use super::Packet;
use super::batch::{Batch, Fates};
use crate::offload::{Capabilities, Scratch, Tunnel, soften};
use crate::{SendReport, TxQueue};

/// One of the transmit sides.
pub(super) struct PacketTx {
    packet: Arc<Packet>,
    capabilities: Capabilities,
    room: Mutex<Room>,
}

/// What a send needs room for.
struct Room {
    batch: Batch,
    scratch: Scratch,
}

impl PacketTx {
    pub(super) fn new(packet: Arc<Packet>, capabilities: Capabilities) -> Self {
        let room = Mutex::new(Room { batch: Batch::new(packet.header), scratch: Scratch::default() });
        Self { packet, capabilities, room }
    }

    /// Puts frame `index` into the batch, in as many pieces as it takes, and sends the batch whenever it is full.
    fn add(&self, room: &mut Room, burst: &Burst, index: usize, fates: &mut Fates) {
        let Room { batch, scratch } = room;
        let (frame, offload) = (burst.gather(index), burst.offload(index));
        let tunnel = self.leads_train(&frame, &offload);
        let mut emit = |piece: Gather<'_>, left: Offload| {
            if batch.is_full() {
                batch.flush(&self.packet, fates);
            }
            match &tunnel {
                Some(tunnel) => batch.couple(tunnel, index, &piece, &left),
                None => batch.add(index, &piece, &left),
            }
            // The receiver's transport repeats the rest of a frame whose first pieces the kernel did not take.
            if fates[index].is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if let Err(reason) = soften(&frame, offload, &self.capabilities, scratch, &mut emit) {
            fates[index] = Some(reason);
        }
    }

    /// The tunnel that `frame` is in, if its pieces are to leave as a train.
    fn leads_train(&self, frame: &Gather<'_>, offload: &Offload) -> Option<Tunnel> {
        if offload.gso.is_none() || offload.outer_bytes == 0 || !self.packet.trains.load(Relaxed) {
            return None;
        }
        Tunnel::parse(frame.head(), offload.outer_bytes.into()).filter(Tunnel::may_lead_train)
    }
}

impl TxQueue for PacketTx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        // A worker that panicked left a batch of frames that are gone.
        let mut room = self.room.lock().unwrap_or_else(|poisoned| {
            let mut room = PoisonError::into_inner(poisoned);
            room.batch = Batch::new(self.packet.header);
            room
        });
        let mut fates = [None; BURST_FRAMES];
        for index in frames {
            self.add(&mut room, burst, usize::from(*index), &mut fates);
        }
        room.batch.flush(&self.packet, &mut fates);
        let mut report = SendReport::default();
        for index in frames.iter().map(|index| usize::from(*index)) {
            match fates[index] {
                None => {
                    report.frames += 1;
                    report.bytes += burst.gather(index).len() as u64;
                }
                Some(reason) => report.drops.add(reason, 1),
            }
        }
        report
    }
}
