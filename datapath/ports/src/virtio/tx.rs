//! How do frames get into a guest's receive queue?
//!
//! Reserve first, then copy: a frame's chains are all found and checked before its first byte is written, so that no
//! partial frame is ever visible and a full ring costs nothing but the look.

use std::ops::ControlFlow;
use std::sync::Arc;

use frame::{Burst, Checksum, DropReason, Gather, MAX_SEGMENTS, Offload};

use super::chain::{Access, Run};
use super::features::Features;
use super::header::{self, HEADER_BYTES};
use super::ring::{Ring, RingError};
use super::slot::{Call, QueueSlot, State};
use crate::offload::{self, Capabilities, Scratch};
use crate::{SendReport, TxQueue};

/// Looks at a full ring before its frames are dropped: a few hundred cycles.
const FULL_RING_LOOKS: u32 = 8;
/// Chains that one frame may be spread over; with buffers of 256 bytes the longest frame still fits.
const MAX_CHAINS: usize = 256;
/// Runs that one frame may be written to.
const MAX_RUNS: usize = 2 * MAX_SEGMENTS;

/// The switch's transmit side of a guest's receive queue.
#[derive(Debug)]
pub struct VirtioTx {
    slot: Arc<QueueSlot>,
    /// Takes over while the guest uses fewer queues.
    fallback: Option<Arc<QueueSlot>>,
}

impl VirtioTx {
    /// A queue that sends to whatever ring is in `slot`.
    pub fn new(slot: Arc<QueueSlot>) -> Self {
        Self { slot, fallback: None }
    }

    /// As [`VirtioTx::new`], but sends to `fallback` while `slot` does not run: a guest may use fewer queue pairs than
    /// the device has.
    pub fn with_fallback(slot: Arc<QueueSlot>, fallback: Arc<QueueSlot>) -> Self {
        Self { slot, fallback: Some(fallback) }
    }

    fn running_slot(&self) -> &QueueSlot {
        match &self.fallback {
            Some(fallback) if !self.slot.is_running() => fallback,
            _ => &self.slot,
        }
    }
}

/// Lists that one send at a time uses, kept so that nothing is allocated per frame.
#[derive(Debug, Default)]
pub(crate) struct WriteScratch {
    runs: Vec<Run>,
    /// Each chain of the frame: id and bytes.
    chains: Vec<(u16, usize)>,
    software: Scratch,
}

// SAFETY: the runs are scratch for one frame and point to nothing between two calls of `send`.
unsafe impl Send for WriteScratch {}

impl TxQueue for VirtioTx {
    fn send(&self, burst: &Burst, frames: &[u8]) -> SendReport {
        let mut report = SendReport::default();
        let slot = self.running_slot();
        let mut state = slot.lock();
        let State { stage, enabled, call, scratch, .. } = &mut *state;
        let Some(ring) = stage.ring().filter(|_| *enabled) else {
            report.drops.add(DropReason::PortDown, frames.len() as u64);
            return report;
        };
        let capabilities = capabilities(ring.setup().features);
        let WriteScratch { runs, chains, software } = scratch;
        let mut writer = Writer::new(ring, runs, chains);
        for index in frames {
            let index = usize::from(*index);
            let (gather, offload) = (burst.gather(index), burst.offload(index));
            let result = if offload::needs_software(&offload, &capabilities) {
                writer.write_softened(&gather, offload, &capabilities, software)
            } else {
                writer.write(&gather, &offload)
            };
            match result {
                Ok(()) => {
                    report.frames += 1;
                    report.bytes += gather.len() as u64;
                }
                Err(reason) => report.drops.add(reason, 1),
            }
        }
        writer.publish();
        report.copied_bytes = writer.copied_bytes;
        if writer.notify {
            call.iter().for_each(Call::ring);
        }
        if let Some(fault) = writer.fault {
            slot.break_ring(&mut state, fault);
        }
        report
    }
}

/// What a driver with `features` takes as it is.
fn capabilities(features: Features) -> Capabilities {
    Capabilities {
        checksum: features.has(Features::GUEST_CSUM),
        // Where the field is, is all that the header says.
        tunnel_checksum: true,
        tso4: features.has(Features::GUEST_TSO4),
        tso6: features.has(Features::GUEST_TSO6),
        ecn: features.has(Features::GUEST_ECN),
        ufo: features.has(Features::GUEST_UFO),
        uso: features.has(Features::GUEST_USO4.with(Features::GUEST_USO6)),
    }
}

/// Writes the frames of one send.
struct Writer<'a> {
    ring: &'a mut Ring,
    runs: &'a mut Vec<Run>,
    chains: &'a mut Vec<(u16, usize)>,
    /// The next chain to take; everything before it holds whole frames.
    at: u16,
    header_bytes: usize,
    mergeable: bool,
    /// The driver knows what DATA_VALID and NEEDS_CSUM mean.
    checksum: bool,
    waited: bool,
    notify: bool,
    copied_bytes: u64,
    fault: Option<RingError>,
}

impl<'a> Writer<'a> {
    fn new(ring: &'a mut Ring, runs: &'a mut Vec<Run>, chains: &'a mut Vec<(u16, usize)>) -> Self {
        let features = ring.setup().features;
        Self {
            at: ring.position(),
            ring,
            runs,
            chains,
            header_bytes: features.header_bytes(),
            mergeable: features.has(Features::MRG_RXBUF),
            checksum: features.has(Features::GUEST_CSUM),
            waited: false,
            notify: false,
            copied_bytes: 0,
            fault: None,
        }
    }

    /// Writes one frame that the driver takes as it is. Always in place: a call would pass the frame through memory.
    #[inline(always)]
    fn write(&mut self, gather: &Gather<'_>, offload: &Offload) -> Result<(), DropReason> {
        if !self.is_ready(self.at) {
            return Err(self.full());
        }
        let head = self.ring.head(self.at);
        let need = self.header_bytes + gather.len();
        if head.is_in_table()
            && head.first.is_single_writable()
            && head.first.len() as usize >= need
            && let Some(host) = self.ring.contiguous(&head.first)
        {
            // SAFETY: `contiguous` gave at least `need` mapped bytes, which stay mapped while the ring is locked. Frames
            // are borrowed from other memory or, looped back, from chains of another ring: a guest that lets them
            // overlap garbles only its own frame.
            unsafe {
                self.write_header(host, offload);
                gather.copy_to(host.add(self.header_bytes));
            }
            self.ring.log_write(head.first.addr(), need);
            self.copied_bytes += gather.body_len() as u64;
            self.ring.put_used(self.at, head.used_id(), need as u32);
            self.at = self.at.wrapping_add(1);
            return Ok(());
        }
        self.write_scattered(gather, offload)
    }

    /// Writes one frame after the work that the driver does not take has been done on it here.
    #[inline(never)]
    fn write_softened(
        &mut self,
        gather: &Gather<'_>,
        offload: Offload,
        capabilities: &Capabilities,
        software: &mut Scratch,
    ) -> Result<(), DropReason> {
        let mut result = Ok(());
        let _ = offload::soften(gather, offload, capabilities, software, &mut |piece, left| {
            result = self.write(&piece, &left);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    /// Writes one frame to as many runs and chains as it needs.
    #[inline(never)]
    fn write_scattered(&mut self, gather: &Gather<'_>, offload: &Offload) -> Result<(), DropReason> {
        let need = self.header_bytes + gather.len();
        self.reserve(need)?;
        let mut header = self.header(offload);
        header[10..].copy_from_slice(&(self.chains.len() as u16).to_le_bytes());
        let mut cursor = Cursor { runs: self.runs, ring: self.ring, offset: 0 };
        cursor.put(&header[..self.header_bytes]);
        cursor.put(gather.head());
        for run in gather.body() {
            // SAFETY: a gather's runs are readable while its burst is lent; they are only copied.
            unsafe { cursor.put_raw(run.base(), run.len()) };
        }
        self.copied_bytes += gather.body_len() as u64;
        let mut left = need;
        for (id, bytes) in self.chains.iter() {
            let len = left.min(*bytes);
            self.ring.put_used(self.at, *id, len as u32);
            self.at = self.at.wrapping_add(1);
            left -= len;
        }
        Ok(())
    }

    /// Finds chains for `need` bytes. On an error nothing is taken, but for a malformed chain and those before it,
    /// which are given back empty.
    fn reserve(&mut self, need: usize) -> Result<(), DropReason> {
        self.runs.clear();
        self.chains.clear();
        let mut room = 0;
        let mut at = self.at;
        while room < need {
            if self.chains.len() == MAX_CHAINS {
                return Err(DropReason::TooManySegments);
            }
            if !self.is_ready(at) {
                return Err(self.full());
            }
            let head = self.ring.head(at);
            let walked = self.ring.walk(&head, Access::Write, MAX_RUNS, self.runs);
            self.chains.push((head.used_id(), walked.unwrap_or(0)));
            let bytes = walked.map_err(|error| {
                self.give_back_empty();
                error.reason()
            })?;
            room += bytes;
            at = at.wrapping_add(1);
            if !self.mergeable && room < need {
                return Err(DropReason::TooBig);
            }
        }
        Ok(())
    }

    #[cold]
    fn give_back_empty(&mut self) {
        for (id, _) in self.chains.iter() {
            self.ring.put_used(self.at, *id, 0);
            self.at = self.at.wrapping_add(1);
        }
    }

    /// True if there is a chain at `at`, after a short wait if need be.
    #[inline]
    fn is_ready(&mut self, at: u16) -> bool {
        match self.ring.ready(at, 1) {
            Ok(0) => self.wait(at),
            Ok(_) => self.fault.is_none(),
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    /// Shows the driver what it has got so far, and looks a few times whether it makes room. Once per send.
    #[cold]
    fn wait(&mut self, at: u16) -> bool {
        if std::mem::replace(&mut self.waited, true) {
            return false;
        }
        self.publish();
        for _ in 0..FULL_RING_LOOKS {
            std::hint::spin_loop();
            match self.ring.ready(at, 1) {
                Ok(0) => {}
                Ok(_) => return true,
                Err(fault) => {
                    self.fault = Some(fault);
                    return false;
                }
            }
        }
        false
    }

    fn full(&self) -> DropReason {
        if self.fault.is_some() { DropReason::PortDown } else { DropReason::RingFull }
    }

    fn publish(&mut self) {
        self.notify |= self.ring.publish(self.at);
    }

    /// Writes the header of a frame in one chain: for nearly all frames a constant, by stores of a fixed size.
    ///
    /// # Safety
    /// `host` is valid for `header_bytes` bytes of writes.
    #[inline]
    unsafe fn write_header(&self, host: *mut u8, offload: &Offload) {
        if self.header_bytes == HEADER_BYTES
            && offload.gso.is_none()
            && offload.checksum == Checksum::Complete
        {
            // SAFETY: the caller's contract; an array of bytes has no alignment.
            unsafe { host.cast::<[u8; HEADER_BYTES]>().write_unaligned(header::PLAIN) };
            return;
        }
        let header = self.header(offload);
        // SAFETY: the caller's contract; `header_bytes` is at most that of the longest header.
        unsafe { host.copy_from_nonoverlapping(header.as_ptr(), self.header_bytes) };
    }

    fn header(&self, offload: &Offload) -> [u8; HEADER_BYTES] {
        if offload.checksum == Checksum::Valid && !self.checksum {
            return header::encode(&Offload { checksum: Checksum::Complete, ..*offload });
        }
        header::encode(offload)
    }
}

/// Where the next byte of a scattered frame goes.
struct Cursor<'a> {
    runs: &'a [Run],
    ring: &'a Ring,
    /// Bytes of the first run that are written.
    offset: usize,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) {
        // SAFETY: a slice is readable.
        unsafe { self.put_raw(bytes.as_ptr(), bytes.len()) };
    }

    /// # Safety
    /// `from` is valid for `len` bytes of reads.
    unsafe fn put_raw(&mut self, mut from: *const u8, mut len: usize) {
        while len > 0 {
            let Some(run) = self.runs.first() else { return };
            let take = len.min(run.len - self.offset);
            // SAFETY: `take` bytes are left of the source by the caller's contract, and in the run, which `walk` found
            // mapped for as long as the ring is locked.
            unsafe {
                run.host.add(self.offset).copy_from_nonoverlapping(from, take);
                from = from.add(take);
            }
            self.ring.log_write(run.guest + self.offset as u64, take);
            len -= take;
            self.offset += take;
            if self.offset == run.len {
                self.runs = &self.runs[1..];
                self.offset = 0;
            }
        }
    }
}
