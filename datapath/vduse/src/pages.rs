//! How does memory that somebody else writes stay mapped, and how is it copied from and to?

use std::os::fd::BorrowedFd;
use std::ptr::null_mut;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Shared pages, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Pages {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: an address range that this value alone unmaps; nothing of it belongs to a thread.
unsafe impl Send for Pages {}
// SAFETY: as for `Send`; nothing here changes after it is made, and the memory is copied by volatile accesses only.
unsafe impl Sync for Pages {}

impl Pages {
    /// `bytes` bytes of `file` from `offset` on: both whole pages of the file's.
    pub(crate) fn of_file(
        file: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        prot: ProtFlags,
    ) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { rustix::mm::mmap(null_mut(), bytes, prot, SHARED, file, offset) }?;
        Ok(Self { base: base.cast(), bytes })
    }

    /// `bytes` bytes of nothing else.
    pub(crate) fn anonymous(bytes: usize) -> Result<Self, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { rustix::mm::mmap_anonymous(null_mut(), bytes, prot, SHARED) }?;
        Ok(Self { base: base.cast(), bytes })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the `len` bytes from `offset` on are, if there are so many.
    pub(crate) fn ptr(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset` is no more than the bytes of the one mapping at `base`.
        (end <= self.bytes).then(|| unsafe { self.base.add(offset) })
    }

    /// Copies the bytes from `offset` on, which must be mapped readable. False if there are not so many.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let Some(from) = self.ptr(offset, bytes.len()) else { return false };
        for (i, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `ptr` found that `bytes.len()` bytes are mapped there; volatile, for they may change at any time.
            *byte = unsafe { from.add(i).read_volatile() };
        }
        true
    }

    /// Copies to the bytes from `offset` on, which must be mapped writable. False if there are not so many.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        let Some(to) = self.ptr(offset, bytes.len()) else { return false };
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: `ptr` found that `bytes.len()` bytes are mapped there; volatile, for others look at them.
            unsafe { to.add(i).write_volatile(*byte) };
        }
        true
    }

    /// Makes every page present.
    pub(crate) fn populate(&self, advice: Populate) -> Result<(), Errno> {
        let advice = match advice {
            Populate::ForReading => Advice::LinuxPopulateRead,
            Populate::ForWriting => Advice::LinuxPopulateWrite,
        };
        // SAFETY: the whole of a mapping that is ours; neither advice changes a byte of it.
        unsafe { rustix::mm::madvise(self.base.cast(), self.bytes, advice) }
    }
}

/// What pages are made present for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Populate {
    ForReading,
    ForWriting,
}

const SHARED: MapFlags = MapFlags::SHARED.union(MapFlags::NORESERVE);

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `base..base + bytes` was mapped by a constructor and is unmapped once; every pointer into it has ended with
        // this value, as the documentation of those who give out pointers demands.
        let result = unsafe { rustix::mm::munmap(self.base.cast(), self.bytes) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}
