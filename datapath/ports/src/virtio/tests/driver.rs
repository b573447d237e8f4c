//! The least driver that a test needs: guest memory in a memfd, one ring in it, and every byte under the test's control.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use crate::virtio::memory::Region;
use crate::virtio::{
    AddressSpace, Features, GuestMemory, QueueSetup, QueueSlot, RegionSpec, RingAddresses, VirtioRx, VirtioTx,
};

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Where the guest's memory starts, and where its frontend has it.
pub(super) const GUEST_BASE: u64 = 0x10_0000;
pub(super) const USER_BASE: u64 = 0x7000_0000_0000;
/// Where buffers may lie; the ring is below.
pub(super) const DATA: u64 = GUEST_BASE + 0x4_0000;
pub(super) const MEMORY_BYTES: u64 = 0x40_0000;

/// The features that most tests negotiate.
pub(super) const MODERN: Features =
    Features::VERSION_1.with(Features::MRG_RXBUF).with(Features::INDIRECT_DESC);

pub(super) fn memfd(bytes: u64) -> File {
    let fd: OwnedFd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = File::from(fd);
    file.set_len(bytes).unwrap();
    file
}

pub(super) fn region(file: &File, guest_addr: u64, size_bytes: u64, file_offset: u64) -> Arc<Region> {
    let user_addr = USER_BASE + (guest_addr - GUEST_BASE);
    Region::map(RegionSpec { guest_addr, size_bytes, user_addr, file_offset }, file.as_fd()).unwrap()
}

pub(super) struct Driver {
    pub(super) file: File,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) features: Features,
    pub(super) size: u16,
    avail_index: u16,
    used_seen: u16,
}

impl Driver {
    pub(super) fn new(size: u16, features: Features) -> Self {
        Self::with_regions(size, features, &[MEMORY_BYTES])
    }

    /// Memory in one file, but mapped as regions of the given sizes, adjacent for the guest.
    pub(super) fn with_regions(size: u16, features: Features, sizes: &[u64]) -> Self {
        let file = memfd(sizes.iter().sum());
        let mut at = 0;
        let mut regions = Vec::new();
        for bytes in sizes {
            regions.push(region(&file, GUEST_BASE + at, *bytes, at));
            at += bytes;
        }
        let memory = Arc::new(GuestMemory::new(regions).unwrap());
        Self { file, memory, features, size, avail_index: 0, used_seen: 0 }
    }

    pub(super) fn addresses(&self) -> RingAddresses {
        let desc = USER_BASE;
        let avail = desc + u64::from(self.size) * 16;
        let used = (avail + 6 + u64::from(self.size) * 2).next_multiple_of(4096);
        RingAddresses { space: AddressSpace::User, desc, avail, used }
    }

    pub(super) fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: self.size,
            addresses: self.addresses(),
            features: self.features,
            memory: Arc::clone(&self.memory),
            log: None,
        }
    }

    /// A running slot and its receive queue.
    pub(super) fn rx(&self) -> (Arc<QueueSlot>, VirtioRx) {
        let slot = QueueSlot::for_receive().unwrap();
        slot.install(self.setup()).unwrap();
        slot.set_enabled(true);
        (Arc::clone(&slot), VirtioRx::new(slot))
    }

    /// A running slot and its transmit queue.
    pub(super) fn tx(&self) -> (Arc<QueueSlot>, VirtioTx) {
        let slot = QueueSlot::for_transmit();
        slot.install(self.setup()).unwrap();
        slot.set_enabled(true);
        (Arc::clone(&slot), VirtioTx::new(slot))
    }

    fn host(&self, addr: u64, len: u64) -> *mut u8 {
        self.memory.window(addr).and_then(|window| window.translate(addr, len)).expect("a mapped address")
    }

    fn guest(user: u64) -> u64 {
        user - USER_BASE + GUEST_BASE
    }

    pub(super) fn write(&self, addr: u64, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: `host` checked the address; byte writes race with nobody who minds.
            unsafe { self.host(addr + offset as u64, 1).write_volatile(*byte) };
        }
    }

    pub(super) fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        // SAFETY: `host` checked the address.
        (0..len).map(|offset| unsafe { self.host(addr + offset as u64, 1).read_volatile() }).collect()
    }

    fn half(&self, user: u64) -> &AtomicU16 {
        // SAFETY: inside the mapped memory, which `self` keeps; ring fields are two-byte aligned.
        unsafe { AtomicU16::from_ptr(self.host(Self::guest(user), 2).cast()) }
    }

    /// Writes a descriptor as two words, neither of which anybody sees half written.
    pub(super) fn desc(&self, index: u16, (addr, len): (u64, u32), flags: u16, next: u16) {
        let at = Self::guest(self.addresses().desc) + u64::from(index) * 16;
        let words = [addr, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48];
        for (offset, word) in [0, 8].into_iter().zip(words) {
            // SAFETY: inside the mapped memory, which `self` keeps, and a multiple of 8.
            let to = unsafe { AtomicU64::from_ptr(self.host(at + offset, 8).cast()) };
            to.store(word.to_le(), Ordering::Relaxed);
        }
    }

    pub(super) fn offer(&mut self, head: u16) {
        let slot = u64::from(self.avail_index & (self.size - 1));
        self.half(self.addresses().avail + 4 + slot * 2).store(head, Ordering::Relaxed);
        self.avail_index = self.avail_index.wrapping_add(1);
        self.set_avail_index(self.avail_index);
    }

    pub(super) fn set_avail_index(&self, index: u16) {
        self.half(self.addresses().avail + 2).store(index, Ordering::Release);
    }

    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.half(self.addresses().avail).store(flags, Ordering::Release);
    }

    pub(super) fn set_used_event(&self, index: u16) {
        self.half(self.addresses().avail + 4 + u64::from(self.size) * 2).store(index, Ordering::Release);
    }

    pub(super) fn avail_event(&self) -> u16 {
        self.half(self.addresses().used + 4 + u64::from(self.size) * 8).load(Ordering::Acquire)
    }

    pub(super) fn used_flags(&self) -> u16 {
        self.half(self.addresses().used).load(Ordering::Acquire)
    }

    pub(super) fn used_index(&self) -> u16 {
        self.half(self.addresses().used + 2).load(Ordering::Acquire)
    }

    pub(super) fn set_used_index(&mut self, index: u16) {
        self.half(self.addresses().used + 2).store(index, Ordering::Release);
        self.used_seen = index;
        self.avail_index = index;
        self.set_avail_index(index);
    }

    /// The used entries since the last call: ids and lengths.
    pub(super) fn used(&mut self) -> Vec<(u32, u32)> {
        let mut entries = Vec::new();
        while self.used_seen != self.used_index() {
            let slot = u64::from(self.used_seen & (self.size - 1));
            let bytes = self.read(Self::guest(self.addresses().used) + 4 + slot * 8, 8);
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            entries.push((word(0), word(4)));
            self.used_seen = self.used_seen.wrapping_add(1);
        }
        entries
    }
}

pub(super) fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

/// `len` bytes that differ from frame to frame.
pub(super) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// Tells another thread to stop, also when the test panics first.
#[derive(Default)]
pub(super) struct Stop(AtomicBool);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it when the returned guard is dropped.
    pub(super) fn on_drop(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a Stop);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.0.store(true, Ordering::Relaxed);
            }
        }
        Guard(self)
    }
}
