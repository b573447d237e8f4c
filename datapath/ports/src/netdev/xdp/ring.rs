//! How do entries pass between us and the kernel? The rings of AF_XDP (Linux Documentation/networking/af_xdp.rst).
//!
//! A ring is an array of a power of two of entries between two numbers that only grow, and wrap: the producer has written
//! all entries before its number, the consumer has read all before its own. Each side writes its number after it has touched
//! the entries (release) and reads the other's before it touches them (acquire).
//!
//! **Invariant:** no number that the other side writes leads outside of the array: an index is a number modulo the size, and
//! there are never more entries to read, or to write, than the ring has.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::xdp::XdpRingOffset;

use super::region::Region;

/// The other side sleeps and wants to be woken by a system call (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// A ring, whoever's side.
struct Ring<T> {
    /// What the pointers lead into.
    _region: Region,
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    flags: Option<*const AtomicU32>,
    entries: *mut T,
    /// A power of two.
    size: u32,
}

// SAFETY: the pointers lead into the region that the ring owns, wherever that moves; what is behind them is shared with the
// kernel by atomic numbers, and by the rule that only one side touches an entry at a time.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// The ring of `size` entries in `region`, if the kernel's `offsets` lie inside.
    fn new(region: Region, offsets: &XdpRingOffset, size: u32) -> Option<Self> {
        let flags = match offsets.flags {
            Some(at) => Some(region.at::<AtomicU32>(at, 1)?.cast_const()),
            None => None,
        };
        Some(Self {
            producer: region.at(offsets.producer, 1)?,
            consumer: region.at(offsets.consumer, 1)?,
            flags,
            entries: region.at(offsets.desc, size as usize)?,
            size: size.is_power_of_two().then_some(size)?,
            _region: region,
        })
    }

    fn map(socket: BorrowedFd<'_>, at: u64, offsets: &XdpRingOffset, size: u32) -> rustix::io::Result<Self> {
        let len = offsets.desc as usize + size as usize * size_of::<T>();
        Self::new(Region::of_socket(socket, at, len)?, offsets, size).ok_or(rustix::io::Errno::PROTO)
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the region, aligned (`new`), and never accessed but atomically.
        unsafe { &*self.producer }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { &*self.consumer }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for the producer.
        self.flags.is_some_and(|flags| unsafe { &*flags }.load(Ordering::Relaxed) & NEED_WAKEUP != 0)
    }

    fn entry(&self, number: u32) -> *mut T {
        // SAFETY: the index is less than `size`, and `new` found as many entries inside the region.
        unsafe { self.entries.add((number & (self.size - 1)) as usize) }
    }
}

/// The side of a ring that writes entries.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Of the next entry to be written; the kernel is told by [`Producer::publish`].
    next: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        at: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> rustix::io::Result<Self> {
        Ok(Self { ring: Ring::map(socket, at, offsets, size)?, next: 0 })
    }

    /// Entries that the kernel has not read, published or not.
    pub(super) fn unread(&self) -> u32 {
        self.next.wrapping_sub(self.ring.consumer().load(Ordering::Acquire)).min(self.ring.size)
    }

    /// Writes an entry; false if the ring is full.
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.unread() == self.ring.size {
            return false;
        }
        // SAFETY: one of the ring's entries, which the kernel has read and does not look at before it is published.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Hands what was written to the kernel.
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// The kernel wants a system call to go on.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The side of a ring that reads entries.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Of the next entry to be read; the kernel is told by [`Consumer::release`].
    next: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        at: u64,
        offsets: &XdpRingOffset,
        size: u32,
    ) -> rustix::io::Result<Self> {
        Ok(Self { ring: Ring::map(socket, at, offsets, size)?, next: 0 })
    }

    /// Entries to read.
    pub(super) fn available(&self) -> u32 {
        self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.next).min(self.ring.size)
    }

    /// Reads up to as many entries as `to` has room for, and returns those read.
    pub(super) fn read<'t>(&mut self, to: &'t mut [T]) -> &'t [T] {
        let count = (self.available() as usize).min(to.len());
        for slot in &mut to[..count] {
            // SAFETY: one of the ring's entries, which the kernel has written and does not touch before it is released. It
            // holds plain numbers: any bytes are some.
            *slot = unsafe { self.ring.entry(self.next).read() };
            self.next = self.next.wrapping_add(1);
        }
        &to[..count]
    }

    /// Gives what was read back to the kernel.
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFSETS: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 64, desc: 128, flags: Some(4) };
    const SIZE: u32 = 8;

    fn ring(start: u32) -> Ring<u64> {
        let ring = Ring::new(Region::anonymous(4096).unwrap(), &OFFSETS, SIZE).unwrap();
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        ring
    }

    /// What the kernel does at the other end: takes what is published.
    fn take(ring: &Ring<u64>, most: u32) -> Vec<u64> {
        let (from, to) = (ring.consumer().load(Ordering::Relaxed), ring.producer().load(Ordering::Relaxed));
        let count = to.wrapping_sub(from).min(most);
        ring.consumer().store(from.wrapping_add(count), Ordering::Relaxed);
        // SAFETY: entries of the ring.
        (0..count).map(|n| unsafe { ring.entry(from.wrapping_add(n)).read() }).collect()
    }

    proptest! {
        #[test]
        fn what_is_produced_is_taken_in_order_wherever_the_numbers_wrap(
            start in prop_oneof![any::<u32>(), Just(u32::MAX - 3)], steps in prop::collection::vec((0_u32..12, 0_u32..12), 1..30),
        ) {
            let mut producer = Producer { ring: ring(start), next: start };
            let (mut pushed, mut taken) = (0_u64, 0_u64);
            for (pushes, takes) in steps {
                for _ in 0..pushes {
                    let is_full = pushed - taken == u64::from(SIZE);
                    prop_assert_eq!(producer.push(pushed), !is_full);
                    pushed += u64::from(!is_full);
                }
                producer.publish();
                for entry in take(&producer.ring, takes) {
                    prop_assert_eq!(entry, taken);
                    taken += 1;
                }
                prop_assert_eq!(u64::from(producer.unread()), pushed - taken);
            }
        }

        #[test]
        fn what_comes_in_is_read_in_order_wherever_the_numbers_wrap(
            start in prop_oneof![any::<u32>(), Just(u32::MAX - 3)], steps in prop::collection::vec((0_u32..12, 0_usize..12), 1..30),
        ) {
            let mut consumer = Consumer { ring: ring(start), next: start };
            let (mut written, mut read) = (0_u64, 0_u64);
            for (writes, reads) in steps {
                for _ in 0..writes {
                    let ring = &consumer.ring;
                    let number = ring.producer().load(Ordering::Relaxed);
                    if number.wrapping_sub(ring.consumer().load(Ordering::Relaxed)) < SIZE {
                        // SAFETY: an entry of the ring.
                        unsafe { ring.entry(number).write(written) };
                        ring.producer().store(number.wrapping_add(1), Ordering::Relaxed);
                        written += 1;
                    }
                }
                let mut room = vec![0; reads];
                for entry in consumer.read(&mut room) {
                    prop_assert_eq!(*entry, read);
                    read += 1;
                }
                consumer.release();
                prop_assert_eq!(u64::from(consumer.available()), written - read);
            }
        }
    }

    #[test]
    fn numbers_that_lie_lead_nowhere() {
        let mut consumer = Consumer { ring: ring(5), next: 5 };
        consumer.ring.producer().store(4, Ordering::Relaxed);
        assert_eq!(consumer.available(), SIZE);
        assert_eq!(consumer.read(&mut [0; 100]).len(), SIZE as usize);
        let mut producer = Producer { ring: ring(5), next: 5 };
        producer.ring.consumer().store(6, Ordering::Relaxed);
        assert!(!producer.push(1) && producer.unread() == SIZE);
    }

    #[test]
    fn a_ring_outside_of_its_region_is_refused() {
        for wrong in [
            XdpRingOffset { producer: 4096, ..OFFSETS },
            XdpRingOffset { consumer: 2, ..OFFSETS },
            XdpRingOffset { desc: 4040, ..OFFSETS },
            XdpRingOffset { flags: Some(4094), ..OFFSETS },
        ] {
            assert!(Ring::<u64>::new(Region::anonymous(4096).unwrap(), &wrong, SIZE).is_none(), "{wrong:?}");
        }
        assert!(Ring::<u64>::new(Region::anonymous(4096).unwrap(), &OFFSETS, 9).is_none());
    }

    #[test]
    fn a_side_that_sleeps_says_so() {
        let producer = Producer { ring: ring(0), next: 0 };
        assert!(!producer.needs_wakeup());
        // SAFETY: the flags of the ring, as the kernel writes them.
        unsafe { &*producer.ring.flags.unwrap() }.store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }
}
