//! Where does a split virtqueue stand, and what has the driver made available? (virtio 1.2 §2.7)
//!
//! The device's side of one ring. Positions are the ring's free-running 16-bit indices. Because chains are given back in
//! the order in which they were taken, one position serves as next available and next used.
//!
//! The available index is read when the cached one runs short, available entries and descriptors are read a batch at a
//! time, and the used index is stored once per burst: a ring costs a handful of cache-line transfers per burst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use frame::BURST_FRAMES;

use super::chain::{Access, ChainError, DESCRIPTOR_BYTES, Descriptor, Limits, Run, Table, Translate, walk};
use super::features::Features;
use super::memory::{GuestMemory, Window};
use super::slot::QueueLog;

/// Chains that a ring may have (virtio 1.2 §2.7).
pub const MAX_RING_SIZE: u16 = 32768;

/// The driver wants no interrupt (`avail.flags`).
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// The device wants no kick (`used.flags`).
const USED_F_NO_NOTIFY: u16 = 1;
/// Fields of the available ring, in halves.
const AVAIL_FLAGS: usize = 0;
const AVAIL_INDEX: usize = 1;
const AVAIL_ENTRIES: usize = 2;
/// Fields of the used ring, in bytes.
const USED_FLAGS: usize = 0;
const USED_INDEX: usize = 2;
/// Bytes of `flags` and `idx`, before the entries of either ring.
const INDICES_BYTES: usize = 4;
const USED_ENTRY_BYTES: usize = 8;

/// Why a ring cannot run. Each stops this ring only; the peer has to set it up anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The size is no power of two from 1 to [`MAX_RING_SIZE`].
    #[error("ring size {0} is no power of two up to {MAX_RING_SIZE}")]
    Size(u16),
    /// A part of the ring does not lie in one region of the guest's memory.
    #[error("the {part} at {addr:#x} is not inside one memory region")]
    Unmapped {
        /// Which part.
        part: &'static str,
        /// Its address, in the space in which it was given.
        addr: u64,
    },
    /// A part of the ring is not aligned as virtio 1.2 §2.7 wants.
    #[error("the {part} at {addr:#x} is not aligned to {align_bytes} bytes")]
    Unaligned {
        /// Which part.
        part: &'static str,
        /// Its address.
        addr: u64,
        /// What it must be a multiple of.
        align_bytes: usize,
    },
    /// The peer truncated the file behind its memory.
    #[error("the guest's memory was taken away under the ring")]
    MemoryLost,
    /// The driver's available index is more than a ring ahead, or went backwards.
    #[error("available index {avail} is impossible at position {position} of a ring of {size}")]
    AvailIndex {
        /// What the driver wrote.
        avail: u16,
        /// Where the device stands.
        position: u16,
        /// The ring's size.
        size: u16,
    },
}

/// Which address space ring addresses are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSpace {
    /// The peer's own (vhost-user without an IOMMU).
    User,
    /// The same as descriptors' (VDUSE, or vhost-user with an IOMMU).
    Guest,
}

/// Where the three parts of a ring lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// What the addresses mean.
    pub space: AddressSpace,
    /// The descriptor table.
    pub desc: u64,
    /// The available ring, written by the driver.
    pub avail: u64,
    /// The used ring, written by the device.
    pub used: u64,
}

/// All that a ring needs to run.
#[derive(Debug, Clone)]
pub struct QueueSetup {
    /// Chains in the ring.
    pub size: u16,
    /// Where it lies.
    pub addresses: RingAddresses,
    /// What was negotiated.
    pub features: Features,
    /// The guest's memory.
    pub memory: Arc<GuestMemory>,
    /// Where to mark what the device writes.
    pub log: Option<QueueLog>,
}

/// A chain's head: what its available entry and its first descriptor said when they were read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) first: Descriptor,
    id: u32,
}

impl Head {
    /// Stands for an id outside the descriptor table.
    const NO_ID: u32 = u32::MAX;

    /// True if the chain starts inside the descriptor table.
    #[inline]
    pub(crate) fn is_in_table(&self) -> bool {
        self.id != Self::NO_ID
    }

    /// What goes into the used ring. A head outside the table is given back as 0: there is no true answer.
    #[inline]
    pub(crate) fn used_id(&self) -> u16 {
        if self.is_in_table() { self.id as u16 } else { 0 }
    }
}

/// One split virtqueue that runs.
pub(crate) struct Ring {
    desc: *const u8,
    avail: *mut u16,
    used: *mut u8,
    size: u16,
    /// The first chain that was not given back yet: next available and next used at once.
    position: u16,
    /// The driver's available index, as last read.
    avail_index: u16,
    /// Heads read ahead of `position`: those of `batch_start..batch_start + batch_len`.
    batch: [Head; BURST_FRAMES],
    batch_start: u16,
    batch_len: u16,
    /// Used entries that are not in the ring yet, the first of them for position `unwritten`.
    shadow: [u64; BURST_FRAMES],
    unwritten: u16,
    translator: Translator,
    /// No used entry was published yet, so that the driver's event index means nothing (§2.7.10).
    first_publish: bool,
    setup: QueueSetup,
}

// SAFETY: the pointers are into memory that `setup.memory` keeps mapped; one thread at a time has the ring.
unsafe impl Send for Ring {}

/// The guest's memory, with the window that the last address was in.
struct Translator {
    memory: Arc<GuestMemory>,
    window: Window,
}

impl Translator {
    #[inline]
    fn contiguous(&mut self, addr: u64, len: u64) -> Option<*mut u8> {
        self.window.translate(addr, len).or_else(|| self.contiguous_elsewhere(addr, len))
    }

    #[cold]
    fn contiguous_elsewhere(&mut self, addr: u64, len: u64) -> Option<*mut u8> {
        self.window = self.memory.window(addr)?;
        self.window.translate(addr, len)
    }
}

impl Translate for Translator {
    fn contiguous(&mut self, addr: u64, len: u64) -> Option<*mut u8> {
        Translator::contiguous(self, addr, len)
    }

    fn piece(&mut self, addr: u64, len: u64) -> Option<(*mut u8, u64)> {
        if self.window.translate(addr, 1).is_none() {
            self.window = self.memory.window(addr)?;
        }
        let (host, follow) = self.window.at(addr)?;
        Some((host, follow.min(len)))
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("size", &self.size)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring at the position that its used index tells.
    pub(crate) fn new(setup: QueueSetup) -> Result<Self, RingError> {
        let size = setup.size;
        if !size.is_power_of_two() || size > MAX_RING_SIZE {
            return Err(RingError::Size(size));
        }
        let event_bytes = if setup.features.has(Features::EVENT_IDX) { 2 } else { 0 };
        let entries = usize::from(size);
        let parts = setup.addresses;
        let desc = locate(&setup, "descriptor table", parts.desc, entries * DESCRIPTOR_BYTES, 16)?;
        let avail_bytes = INDICES_BYTES + entries * 2 + event_bytes;
        let avail = locate(&setup, "available ring", parts.avail, avail_bytes, 2)?;
        let used_bytes = INDICES_BYTES + entries * USED_ENTRY_BYTES + event_bytes;
        let used = locate(&setup, "used ring", parts.used, used_bytes, 4)?;
        let mut ring = Self {
            desc,
            avail: avail.cast(),
            used,
            size,
            position: 0,
            avail_index: 0,
            batch: [Head::default(); BURST_FRAMES],
            batch_start: 0,
            batch_len: 0,
            shadow: [0; BURST_FRAMES],
            unwritten: 0,
            translator: Translator { memory: Arc::clone(&setup.memory), window: Window::NONE },
            first_publish: true,
            setup,
        };
        ring.position = u16::from_le(ring.used_field(USED_INDEX).load(Ordering::Acquire));
        ring.avail_index = ring.position;
        ring.unwritten = ring.position;
        Ok(ring)
    }

    /// The next chain to take, which is also the used index.
    pub(crate) fn position(&self) -> u16 {
        self.position
    }

    /// What it was made from.
    pub(crate) fn setup(&self) -> &QueueSetup {
        &self.setup
    }

    /// Marks writes in `log` from now on.
    pub(crate) fn set_log(&mut self, log: Option<QueueLog>) {
        self.setup.log = log;
    }

    /// Chains that can be taken from `at` on. Asks the driver only when fewer than `want` are known.
    ///
    /// # Errors
    /// [`RingError::AvailIndex`]; the ring is broken then.
    #[inline]
    pub(crate) fn ready(&mut self, at: u16, want: u16) -> Result<u16, RingError> {
        let known = self.avail_index.wrapping_sub(at);
        if known >= want {
            return Ok(known);
        }
        let avail = u16::from_le(self.avail_field(AVAIL_INDEX).load(Ordering::Acquire));
        let from_position = avail.wrapping_sub(self.position);
        if from_position > self.size || avail.wrapping_sub(at) > from_position {
            return Err(RingError::AvailIndex { avail, position: self.position, size: self.size });
        }
        self.avail_index = avail;
        Ok(avail.wrapping_sub(at))
    }

    /// The head of the chain at `at`, which [`Ring::ready`] must have counted.
    #[inline]
    pub(crate) fn head(&mut self, at: u16) -> Head {
        let offset = at.wrapping_sub(self.batch_start);
        if offset < self.batch_len {
            return self.batch[usize::from(offset)];
        }
        self.read_batch(at);
        self.batch[0]
    }

    /// Reads the available entries from `at` on, then their descriptors, each once.
    fn read_batch(&mut self, at: u16) {
        let ready = usize::from(self.avail_index.wrapping_sub(at)).min(BURST_FRAMES);
        for offset in 0..ready {
            let slot = usize::from(at.wrapping_add(offset as u16) & (self.size - 1));
            // SAFETY: `slot < size`, and the available ring of `size` entries behind its two indices is mapped.
            let id = u16::from_le(unsafe { self.avail.add(AVAIL_ENTRIES + slot).read_volatile() });
            self.batch[offset].id = if id < self.size { id.into() } else { Head::NO_ID };
        }
        for head in &mut self.batch[..ready] {
            let id = usize::from(head.used_id());
            // SAFETY: `id < size`; the table of `size` descriptors is mapped and 16-byte aligned (`locate`).
            head.first = unsafe { Descriptor::read_aligned(self.desc.add(id * DESCRIPTOR_BYTES)) };
        }
        self.batch_start = at;
        self.batch_len = ready as u16;
    }

    /// The host address of all of `first`, if one region holds it.
    #[inline]
    pub(crate) fn contiguous(&mut self, first: &Descriptor) -> Option<*mut u8> {
        self.translator.contiguous(first.addr(), first.len().into())
    }

    /// Appends the memory of the chain behind `head` to `runs`, up to `limit` of them, and returns its bytes.
    pub(crate) fn walk(
        &mut self,
        head: &Head,
        access: Access,
        limit: usize,
        runs: &mut Vec<Run>,
    ) -> Result<usize, ChainError> {
        if !head.is_in_table() {
            return Err(ChainError::Malformed);
        }
        let limits =
            Limits { access, indirect: self.setup.features.has(Features::INDIRECT_DESC), runs: limit };
        // SAFETY: `locate` found `size` descriptors at `desc`, mapped as long as this ring keeps its memory.
        let table = unsafe { Table::new(self.desc, self.size.into()) };
        walk(head.first, table, &mut self.translator, limits, runs)
    }

    /// Notes the used entry of position `at`: `len` bytes were written to chain `id`. The driver does not see it before
    /// [`Ring::publish`]. Called for one position after the other.
    #[inline]
    pub(crate) fn put_used(&mut self, at: u16, id: u16, len: u32) {
        let mut offset = usize::from(at.wrapping_sub(self.unwritten));
        if offset >= BURST_FRAMES {
            self.write_used(at);
            offset = 0;
        }
        self.shadow[offset] = u64::from(id) | u64::from(len) << 32;
    }

    /// Writes the noted entries before `to` to the ring, all at once: a line that is written bit by bit is taken away each
    /// time by the driver's processor, which fetches ahead (`docs/adr/0010-shadow-used-ring.md`).
    fn write_used(&mut self, to: u16) {
        let noted = usize::from(to.wrapping_sub(self.unwritten)).min(BURST_FRAMES);
        for (entry, number) in self.shadow[..noted].iter().zip(0..) {
            let slot = usize::from(self.unwritten.wrapping_add(number) & (self.size - 1));
            let offset = INDICES_BYTES + slot * USED_ENTRY_BYTES;
            // SAFETY: `slot < size`, and the used ring of `size` entries behind its two indices is mapped. The driver does
            // not read this entry before it sees the index that `publish` stores.
            unsafe { self.used.add(offset).cast::<u64>().write_unaligned(entry.to_le()) };
        }
        self.unwritten = to;
    }

    /// Shows the driver all used entries before `to` with one store. Returns true if it wants to be notified.
    pub(crate) fn publish(&mut self, to: u16) -> bool {
        let from = self.position;
        if to == from {
            return false;
        }
        self.write_used(to);
        self.log_used(from, to);
        self.used_field(USED_INDEX).store(to.to_le(), Ordering::Release);
        self.position = to;
        // The index must be visible before the driver's wish is read: §2.7.7.2, and the barrier §2.7.13.
        fence(Ordering::SeqCst);
        if !self.setup.features.has(Features::EVENT_IDX) {
            let flags = u16::from_le(self.avail_field(AVAIL_FLAGS).load(Ordering::Relaxed));
            return flags & AVAIL_F_NO_INTERRUPT == 0;
        }
        let event = self.avail_field(AVAIL_ENTRIES + usize::from(self.size)).load(Ordering::Relaxed);
        let crossed = to.wrapping_sub(u16::from_le(event)).wrapping_sub(1) < to.wrapping_sub(from);
        std::mem::take(&mut self.first_publish) || crossed
    }

    /// Asks the driver for a kick with the next chain. Returns true if there are chains already.
    pub(crate) fn want_kicks(&mut self) -> bool {
        if self.setup.features.has(Features::EVENT_IDX) {
            let event = INDICES_BYTES + usize::from(self.size) * USED_ENTRY_BYTES;
            self.store_used_field(event, self.position);
        }
        self.store_used_field(USED_FLAGS, 0);
        // The wish must be visible before the available index is read: §2.7.10.1.
        fence(Ordering::SeqCst);
        u16::from_le(self.avail_field(AVAIL_INDEX).load(Ordering::Acquire)) != self.position
    }

    /// Tells the driver that kicks are for nothing. With EVENT_IDX flags must be 0 and the event index simply stays
    /// behind (§2.7.10).
    pub(crate) fn refuse_kicks(&mut self) {
        let event_idx = self.setup.features.has(Features::EVENT_IDX);
        self.store_used_field(USED_FLAGS, if event_idx { 0 } else { USED_F_NO_NOTIFY });
    }

    fn store_used_field(&self, offset: usize, value: u16) {
        self.used_field(offset).store(value.to_le(), Ordering::Relaxed);
        self.log_used_bytes(offset, size_of::<u16>());
    }

    /// Marks `len` bytes that the device wrote at guest address `addr`.
    #[inline]
    pub(crate) fn log_write(&self, addr: u64, len: usize) {
        if let Some(log) = &self.setup.log {
            log.log.mark(addr, len as u64);
        }
    }

    fn log_used(&self, from: u16, to: u16) {
        if self.setup.log.is_none() {
            return;
        }
        self.log_used_bytes(0, INDICES_BYTES);
        let mut at = from;
        while at != to {
            let slot = usize::from(at & (self.size - 1));
            self.log_used_bytes(INDICES_BYTES + slot * USED_ENTRY_BYTES, USED_ENTRY_BYTES);
            at = at.wrapping_add(1);
        }
    }

    fn log_used_bytes(&self, offset: usize, len: usize) {
        if let Some(QueueLog { log, used_guest_addr: Some(addr) }) = &self.setup.log {
            log.mark(addr.saturating_add(offset as u64), len as u64);
        }
    }

    /// The 16-bit field `index` of the available ring: flags, index, entries, event.
    #[inline]
    fn avail_field(&self, index: usize) -> &AtomicU16 {
        // SAFETY: callers name fields that `new` located, two-byte aligned, mapped while `self` keeps its memory.
        unsafe { AtomicU16::from_ptr(self.avail.add(index)) }
    }

    /// The 16-bit field at byte `offset` of the used ring.
    #[inline]
    fn used_field(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: callers name even offsets of fields that `new` located, mapped while `self` keeps its memory.
        unsafe { AtomicU16::from_ptr(self.used.add(offset).cast()) }
    }
}

/// The host address of `bytes` bytes of a ring at `addr`, aligned both here and where the peer sees them.
fn locate(
    setup: &QueueSetup,
    part: &'static str,
    addr: u64,
    bytes: usize,
    align_bytes: usize,
) -> Result<*mut u8, RingError> {
    let guest = match setup.addresses.space {
        AddressSpace::User => setup.memory.user_to_guest(addr),
        AddressSpace::Guest => Some(addr),
    };
    let host = guest.and_then(|guest| setup.memory.window(guest)?.translate(guest, bytes as u64));
    let host = host.ok_or(RingError::Unmapped { part, addr })?;
    if !host.addr().is_multiple_of(align_bytes) {
        return Err(RingError::Unaligned { part, addr, align_bytes });
    }
    Ok(host)
}
