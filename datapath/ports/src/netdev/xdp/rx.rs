//! Frames of one queue: lent where the driver or the kernel put them.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropReason, Offload};

use super::ring::{Consumer, Producer};
use super::socket::{Descriptor, Socket};
use super::tx::XdpTx;
use super::unfinished;
use crate::netdev::Interface;
use crate::{PollReport, RxQueue};

/// The receive side of one queue.
pub(super) struct XdpRx {
    pub(super) socket: Arc<Socket>,
    pub(super) interface: Arc<Interface>,
    pub(super) rx: Consumer<Descriptor>,
    pub(super) fill: Producer<u64>,
    /// The transmit side of the same queue.
    pub(super) tx: Arc<XdpTx>,
    /// The interface was deleted under us.
    pub(super) is_gone: bool,
}

impl XdpRx {
    /// Takes one frame into the burst, and returns the chunk that it is in.
    fn push(&self, burst: &mut Burst, descriptor: Descriptor, report: &mut PollReport) -> Option<u64> {
        let len = descriptor.len as usize;
        let Some((first, chunk)) = self.socket.umem.received(descriptor.address, descriptor.len) else {
            report.drops.add(DropReason::BadDescriptor, 1);
            return None;
        };
        // SAFETY: the bytes are in a chunk that the kernel has given us, and gets back when `poll` has cleared the burst.
        if unsafe { burst.push(first, len, Offload::NONE) }.is_err() {
            report.drops.add(DropReason::Truncated, 1);
            return Some(chunk);
        }
        if !self.socket.is_zero_copy {
            // What comes from a wire is finished; a copy may come from a kernel.
            let index = burst.len() - 1;
            let checksum = unfinished::checksum(burst.head(index), len);
            burst.set_offload(index, Offload { checksum, ..Offload::NONE });
        }
        report.frames += 1;
        report.bytes += len as u64;
        Some(chunk)
    }

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
        let mut report = PollReport::default();
        self.tx.go_on();
        let mut descriptors = [Descriptor::default(); BURST_FRAMES];
        let count = self.rx.read(&mut descriptors).len();
        if count == 0 {
            return report;
        }
        self.rx.release();
        let mut chunks = [0; BURST_FRAMES];
        let mut taken = 0;
        for descriptor in &descriptors[..count] {
            if let Some(chunk) = self.push(burst, *descriptor, &mut report) {
                chunks[taken] = chunk;
                taken += 1;
            }
        }
        if !burst.is_empty() {
            turn(burst);
            burst.clear();
        }
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
