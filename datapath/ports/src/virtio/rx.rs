//! How does a guest's transmit queue become bursts?

use std::os::fd::RawFd;
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropReason, MAX_SEGMENTS, Offload, PushError, Segment};

use super::chain::{Access, ChainError, Run};
use super::header::{self, HEADER_BYTES, Source};
use super::ring::{Head, Ring};
use super::slot::{Call, QueueSlot, State};
use crate::{PollReport, RxQueue};

/// Runs of one chain: the frame's segments, and a header in a descriptor of its own.
const MAX_RUNS: usize = MAX_SEGMENTS + 1;

/// The switch's receive side of a guest's transmit queue.
pub struct VirtioRx {
    slot: Arc<QueueSlot>,
    runs: Vec<Run>,
    parts: Vec<Segment>,
}

// SAFETY: the runs are scratch for one chain and point to nothing between two calls of `poll`.
unsafe impl Send for VirtioRx {}

impl std::fmt::Debug for VirtioRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VirtioRx").field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl VirtioRx {
    /// A queue that receives from whatever ring is in `slot`.
    pub fn new(slot: Arc<QueueSlot>) -> Self {
        Self { slot, runs: Vec::with_capacity(MAX_RUNS), parts: Vec::with_capacity(MAX_RUNS) }
    }

    /// Puts the frame of one chain into the burst and returns its bytes. Three ways, by cost: (1) one descriptor and
    /// nothing left to do, (2) one descriptor with a header that says more, (3) everything else.
    #[inline]
    fn take(&mut self, ring: &mut Ring, head: &Head, burst: &mut Burst) -> Result<usize, DropReason> {
        let header_bytes = ring.setup().features.header_bytes();
        let len = head.first.len() as usize;
        if head.is_in_table()
            && head.first.is_single_readable()
            && len > header_bytes
            && let Some(host) = ring.contiguous(&head.first)
        {
            let frame_len = len - header_bytes;
            // SAFETY: `contiguous` gave `len` mapped bytes, and `len > header_bytes` >= 10; they stay mapped while the ring
            // is locked, which it is until the burst has been cleared.
            return unsafe {
                let frame = host.add(header_bytes);
                if header::is_plain(host.read_volatile(), host.add(1).read_volatile()) {
                    burst.push(frame, frame_len, Offload::NONE).map_err(reason)?;
                } else {
                    let offload = read_offload(host, header_bytes, frame_len)?;
                    burst.push(frame, frame_len, offload).map_err(reason)?;
                }
                Ok(frame_len)
            };
        }
        self.take_scattered(ring, head, header_bytes, burst)
    }

    #[inline(never)]
    fn take_scattered(
        &mut self,
        ring: &mut Ring,
        head: &Head,
        header_bytes: usize,
        burst: &mut Burst,
    ) -> Result<usize, DropReason> {
        self.runs.clear();
        let total = ring.walk(head, Access::Read, MAX_RUNS, &mut self.runs).map_err(ChainError::reason)?;
        if total <= header_bytes {
            return Err(DropReason::BadDescriptor);
        }
        let mut header = [0; HEADER_BYTES];
        let mut got = 0;
        self.parts.clear();
        for run in &self.runs {
            let of_header = run.len.min(header_bytes - got);
            // SAFETY: `walk` gave `run.len` mapped bytes, which stay mapped while the ring is locked, and that it is until
            // the burst has been cleared.
            unsafe {
                copy_volatile(run.host, &mut header[got..got + of_header]);
                if of_header < run.len {
                    self.parts.push(Segment::new(run.host.add(of_header), run.len - of_header));
                }
            }
            got += of_header;
        }
        let frame_len = total - header_bytes;
        let offload = header::decode(&header, frame_len, Source::Guest)?;
        // SAFETY: as above, for every part.
        unsafe { burst.push_parts(&self.parts, offload) }.map_err(reason)?;
        Ok(frame_len)
    }
}

/// A burst that borrows guest memory, until it is dropped: also when the turn panics.
struct Loan<'a>(&'a mut Burst);

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl RxQueue for VirtioRx {
    fn poll(&mut self, burst: &mut Burst, turn: &mut dyn FnMut(&mut Burst)) -> PollReport {
        let mut report = PollReport::default();
        let slot = Arc::clone(&self.slot);
        let Some(mut state) = slot.lock_unless_changing() else { return report };
        let State { stage, enabled, call, .. } = &mut *state;
        let Some(ring) = stage.ring() else { return report };
        let start = ring.position();
        let taken = match ring.ready(start, BURST_FRAMES as u16) {
            Ok(ready) => ready.min(BURST_FRAMES as u16),
            Err(fault) => {
                slot.break_ring(&mut state, fault);
                return report;
            }
        };
        if taken == 0 {
            return report;
        }
        let loan = Loan(burst);
        for offset in 0..taken {
            let at = start.wrapping_add(offset);
            let head = ring.head(at);
            let result = if *enabled { self.take(ring, &head, loan.0) } else { Err(DropReason::PortDown) };
            match result {
                Ok(bytes) => report.bytes += bytes as u64,
                Err(reason) => report.drops.add(reason, 1),
            }
            ring.put_used(at, head.used_id(), 0);
        }
        report.frames = loan.0.len() as u64;
        if !loan.0.is_empty() {
            turn(loan.0);
        }
        drop(loan);
        if ring.publish(start.wrapping_add(taken)) {
            call.iter().for_each(Call::ring);
        }
        report
    }

    fn arm(&mut self) -> bool {
        self.slot.arm()
    }

    fn disarm(&mut self) {
        self.slot.disarm();
    }

    fn fd(&self) -> Option<RawFd> {
        self.slot.fd()
    }
}

/// What the header at `host` leaves to others. What it said at an earlier look does not count.
///
/// # Safety
/// `host` is valid for `header_bytes` bytes of reads.
#[inline(never)]
unsafe fn read_offload(
    host: *const u8,
    header_bytes: usize,
    frame_len: usize,
) -> Result<Offload, DropReason> {
    let mut header = [0; HEADER_BYTES];
    // SAFETY: the caller's contract.
    unsafe { copy_volatile(host, &mut header[..header_bytes]) };
    header::decode(&header, frame_len, Source::Guest)
}

/// Fills `to` from memory that may change meanwhile, reading each byte once.
///
/// # Safety
/// `from` is valid for `to.len()` bytes of reads.
unsafe fn copy_volatile(from: *const u8, to: &mut [u8]) {
    for (offset, byte) in to.iter_mut().enumerate() {
        // SAFETY: `offset < to.len()`.
        *byte = unsafe { from.add(offset).read_volatile() };
    }
}

/// A chain that cannot be a frame breaks the rules of virtio-net.
#[cold]
fn reason(error: PushError) -> DropReason {
    match error {
        PushError::Segments => DropReason::TooManySegments,
        PushError::Full | PushError::Length => DropReason::BadDescriptor,
    }
}
