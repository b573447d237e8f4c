//! How does the driver talk to the device? One split virtqueue, driver side (virtio 1.2 §2.7).
//!
//! The driver owns the descriptor table and the *avail* ring, the device owns the *used* ring. An index is published with
//! a release store and read with an acquire load; nothing else orders the two sides. Every number the device writes is
//! checked.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::memory::{Arena, Block};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_BYTES: usize = 16;
const AVAIL_FLAGS: usize = 0;
const AVAIL_INDEX: usize = 2;
const AVAIL_RING: usize = 4;
const USED_FLAGS: usize = 0;
const USED_INDEX: usize = 2;
const USED_RING: usize = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY.
const QUIET: u16 = 1;

/// One entry of a descriptor table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Descriptor {
    /// Another one follows.
    pub(crate) const NEXT: u16 = 1;
    /// The device writes.
    pub(crate) const WRITE: u16 = 2;
    /// It describes a table of descriptors.
    pub(crate) const INDIRECT: u16 = 4;
}

/// One chain that the device gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) head: u16,
    pub(crate) len: u32,
}

/// The driver's side of a split virtqueue.
#[derive(Debug)]
pub(crate) struct Ring {
    size: u16,
    descriptors: Block,
    avail: Block,
    used: Block,
    /// The next avail index to fill; published by [`Ring::publish`].
    next_avail: u16,
    published: u16,
    /// The next used index to read.
    next_used: u16,
    event_idx: bool,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
}

impl Ring {
    /// Bytes that a ring of `size` takes from an arena, alignment included.
    pub(crate) fn bytes(size: u16) -> usize {
        let size = size as usize;
        DESCRIPTOR_BYTES * size + (6 + 2 * size) + (6 + 8 * size) + 3 * 64
    }

    /// An empty ring of `size` descriptors, a power of two.
    pub(crate) fn new(arena: &mut Arena, size: u16, event_idx: bool) -> std::io::Result<Self> {
        let entries = size as usize;
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        Ok(Self {
            size,
            descriptors: arena.take(DESCRIPTOR_BYTES * entries, 64),
            avail: arena.take(6 + 2 * entries, 64),
            used: arena.take(6 + 8 * entries, 64),
            next_avail: 0,
            published: 0,
            next_used: 0,
            event_idx,
            kick: eventfd()?,
            call: eventfd()?,
        })
    }

    /// Descriptors.
    #[inline]
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// The addresses of SET_VRING_ADDR: descriptors, avail, used.
    pub(crate) fn user_addresses(&self) -> [u64; 3] {
        [self.descriptors.user(0), self.avail.user(0), self.used.user(0)]
    }

    /// Where a device that knows nothing of this ring starts: after the last chain given back (as QEMU does when a
    /// backend died).
    pub(crate) fn restart_base(&self) -> u16 {
        self.used_index()
    }

    /// Chains made available and not yet given back.
    #[inline]
    pub(crate) fn outstanding(&self) -> u16 {
        self.next_avail.wrapping_sub(self.next_used)
    }

    #[inline]
    fn slot(&self, index: u16) -> usize {
        (index & (self.size - 1)) as usize
    }

    /// Writes entry `index` of the table.
    #[inline]
    pub(crate) fn write_descriptor(&mut self, index: u16, descriptor: Descriptor) {
        let at = self.descriptors.at::<Descriptor>(DESCRIPTOR_BYTES * self.slot(index));
        // SAFETY: `at` checked the bounds; blocks of descriptors are aligned; volatile, because the device may read it.
        unsafe { at.write_volatile(descriptor) }
    }

    /// Puts a chain into the avail ring, without telling the device yet. The entry is left alone if it says so already:
    /// a driver that offers the same chains in the same order dirties no cache line.
    #[inline]
    pub(crate) fn offer(&mut self, head: u16) {
        let entry = self.avail_u16(AVAIL_RING + 2 * self.slot(self.next_avail));
        if entry.load(Ordering::Relaxed) != head {
            entry.store(head, Ordering::Relaxed);
        }
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Tells the device of all chains offered, and signals it if it wants that.
    pub(crate) fn publish(&mut self) {
        if self.expose() {
            self.notify();
        }
    }

    /// Moves the avail index. True if the device wants a signal.
    #[inline]
    pub(crate) fn expose(&mut self) -> bool {
        let old = std::mem::replace(&mut self.published, self.next_avail);
        if old == self.next_avail {
            return false;
        }
        self.avail_u16(AVAIL_INDEX).store(self.next_avail, Ordering::Release);
        // The index must be out before the wish for a signal is read (virtio 1.2 §2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.used_u16(USED_RING + 8 * self.size as usize).load(Ordering::Relaxed);
            crossed(event, old, self.next_avail)
        } else {
            self.used_u16(USED_FLAGS).load(Ordering::Relaxed) & QUIET == 0
        }
    }

    /// Signals the device, wanted or not.
    pub(crate) fn notify(&self) {
        // A full eventfd counter is a signal as well.
        let _full = self.kick.write(1);
    }

    #[inline]
    fn used_index(&self) -> u16 {
        self.used_u16(USED_INDEX).load(Ordering::Acquire)
    }

    /// Chains that the device gave back and that were not taken yet.
    ///
    /// # Errors
    /// In words, when the device claims more than it has.
    #[inline]
    pub(crate) fn ready(&self) -> Result<u16, String> {
        let ready = self.used_index().wrapping_sub(self.next_used);
        if ready > self.published.wrapping_sub(self.next_used) {
            return Err(format!(
                "used index {} is beyond the avail index {}",
                self.used_index(),
                self.published
            ));
        }
        Ok(ready)
    }

    /// Reads the next used entry. Only after [`Ring::ready`] has counted it.
    #[inline]
    pub(crate) fn take_used(&mut self) -> Used {
        let at = USED_RING + 8 * self.slot(self.next_used);
        self.next_used = self.next_used.wrapping_add(1);
        Used {
            head: self.used_u32(at).load(Ordering::Relaxed) as u16,
            len: self.used_u32(at + 4).load(Ordering::Relaxed),
        }
    }

    /// Asks for a signal when the device gives back the next chain. True if one is there already.
    pub(crate) fn arm(&mut self) -> bool {
        if self.event_idx {
            self.avail_u16(AVAIL_RING + 2 * self.size as usize).store(self.next_used, Ordering::Relaxed);
        } else {
            self.avail_u16(AVAIL_FLAGS).store(0, Ordering::Relaxed);
        }
        // The wish must be out before the used index is read again (virtio 1.2 §2.7.14).
        fence(Ordering::SeqCst);
        self.used_index() != self.next_used
    }

    /// Wants no signals.
    pub(crate) fn disarm(&mut self) {
        if self.event_idx {
            // Half a turn of the index away: the furthest point from now.
            let never = self.next_used.wrapping_sub(1 << 15);
            self.avail_u16(AVAIL_RING + 2 * self.size as usize).store(never, Ordering::Relaxed);
        } else {
            self.avail_u16(AVAIL_FLAGS).store(QUIET, Ordering::Relaxed);
        }
    }

    #[inline]
    fn avail_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `at` checked the bounds; offsets are even and the block is aligned; the mapping lives as long as the
        // block; all access to it is atomic.
        unsafe { &*self.avail.at::<AtomicU16>(offset) }
    }

    #[inline]
    fn used_u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as `avail_u16`.
        unsafe { &*self.used.at::<AtomicU16>(offset) }
    }

    #[inline]
    fn used_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as `avail_u16`; entries are at multiples of four.
        unsafe { &*self.used.at::<AtomicU32>(offset) }
    }
}

/// True if an index that moved from `old` to `new` passed `event` (virtio 1.2 §2.7.10, `vring_need_event`).
fn crossed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn ring(event_idx: bool) -> Ring {
        let memory = Memory::new(1, Ring::bytes(4), false).unwrap();
        Ring::new(&mut memory.arena(0), 4, event_idx).unwrap()
    }

    /// What a device does with the next chain.
    fn give_back(ring: &Ring, index: u16, head: u16, len: u32) {
        let at = USED_RING + 8 * ring.slot(index);
        ring.used_u32(at).store(head.into(), Ordering::Relaxed);
        ring.used_u32(at + 4).store(len, Ordering::Relaxed);
        ring.used_u16(USED_INDEX).store(index.wrapping_add(1), Ordering::Release);
    }

    #[test]
    fn ring_when_used_returns_chains_over_the_wrap() {
        let mut ring = ring(false);
        for turn in 0..70_000_u32 {
            let index = turn as u16;
            ring.offer(index % 4);
            assert!(ring.expose(), "no flags: signals are wanted");
            assert_eq!(ring.outstanding(), 1);
            give_back(&ring, index, index % 4, turn);
            assert_eq!(ring.ready(), Ok(1));
            assert_eq!(ring.take_used(), Used { head: index % 4, len: turn });
        }
    }

    #[test]
    fn ring_when_the_device_claims_too_much_is_broken() {
        let mut ring = ring(false);
        ring.offer(0);
        ring.publish();
        ring.used_u16(USED_INDEX).store(2, Ordering::Release);
        assert!(ring.ready().is_err());
    }

    #[test]
    fn expose_when_event_idx_signals_only_at_the_event() {
        let mut ring = ring(true);
        ring.used_u16(USED_RING + 8 * 4).store(1, Ordering::Relaxed);
        ring.offer(0);
        assert!(!ring.expose());
        ring.offer(1);
        assert!(ring.expose());
        assert!(!ring.expose(), "nothing new");
    }

    #[test]
    fn arm_when_something_is_there_says_so() {
        for event_idx in [false, true] {
            let mut ring = ring(event_idx);
            ring.offer(0);
            ring.publish();
            assert!(!ring.arm());
            give_back(&ring, 0, 0, 0);
            assert!(ring.arm());
            ring.disarm();
        }
    }
}
