//! Frames of one queue: lent where the driver or the kernel put them.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropReason, HEAD_BYTES, Offload};

use super::ring::{Consumer, Producer};
use super::socket::{Descriptor, Socket};
use super::tx::XdpTx;
use super::unfinished;
use crate::netdev::Interface;
use crate::netdev::intake::Intake;
use crate::offload::gro::Room;
use crate::{PollReport, RxQueue};

/// The receive side of one queue.
pub(super) struct XdpRx {
    pub(super) socket: Arc<Socket>,
    pub(super) interface: Arc<Interface>,
    pub(super) rx: Consumer<Descriptor>,
    pub(super) fill: Producer<u64>,
    /// The transmit side of the same queue.
    pub(super) tx: Arc<XdpTx>,
    pub(super) room: Option<Room>,
    /// The interface was deleted under us.
    pub(super) is_gone: bool,
}

impl XdpRx {
    /// Gives chunks back to the kernel.
    fn refill(&mut self, chunks: &[u64]) {
        for chunk in chunks {
            // There is room: the ring has as many entries as there are chunks.
            self.fill.push(*chunk);
        }
        self.fill.publish();
        if self.fill.needs_wakeup() {
            self.socket.wake_receive();
        }
    }
}

impl RxQueue for XdpRx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        self.tx.go_on();
        let mut descriptors = [Descriptor::default(); BURST_FRAMES];
        let count = self.rx.read(&mut descriptors).len();
        if count == 0 {
            return PollReport::default();
        }
        self.rx.release();
        let mut chunks = [0; BURST_FRAMES];
        let mut taken = 0;
        let mut intake = Intake::new(self.room.as_mut(), burst, turn);
        for descriptor in &descriptors[..count] {
            let Some((first, chunk)) = self.socket.umem.received(descriptor.address, descriptor.len) else {
                intake.drop(DropReason::BadDescriptor);
                continue;
            };
            // SAFETY: the bytes are in a chunk that the kernel has given us, writes no more, and gets back when the intake
            // has ended.
            let frame = unsafe { std::slice::from_raw_parts(first, descriptor.len as usize) };
            intake.take(frame, left_on(frame, self.socket.is_zero_copy));
            chunks[taken] = chunk;
            taken += 1;
        }
        let report = intake.end();
        self.refill(&chunks[..taken]);
        report
    }

    fn arm(&mut self) -> bool {
        // A socket says nothing when its interface goes: whoever is about to sleep asks.
        self.is_gone = self.is_gone || !self.interface.exists();
        !self.is_gone && self.rx.available() > 0
    }

    fn disarm(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        (!self.is_gone).then(|| self.socket.fd.as_raw_fd())
    }
}

/// What is left to do on a frame: what comes from a wire is finished; a copy may come from a kernel.
fn left_on(frame: &[u8], is_zero_copy: bool) -> Offload {
    if is_zero_copy {
        return Offload::NONE;
    }
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    Offload { checksum: unfinished::checksum(head, frame.len()), ..Offload::NONE }
}
