//! Which pages of the guest did the device write? The bitmap a live migration reads (vhost-user SET_LOG_BASE).

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::mapping::Mapping;
use super::memory::MemoryError;

/// Bytes of guest memory that one bit stands for (VHOST_LOG_PAGE).
const LOG_PAGE_BYTES: u64 = 4096;
/// A bitmap for 16 TiB of guest addresses.
const MAX_LOG_BYTES: u64 = 1 << 29;

/// A bitmap of guest pages in memory shared with the peer: one bit per 4 KiB, least significant first.
pub struct DirtyLog {
    mapping: Mapping,
    size_bytes: u64,
}

impl std::fmt::Debug for DirtyLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirtyLog").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

impl DirtyLog {
    /// Maps `size_bytes` bytes of bitmap at `file_offset` in `fd`.
    ///
    /// # Errors
    /// A size or offset that makes no sense or that the file does not hold, and what mmap(2) refuses.
    pub fn map(fd: BorrowedFd<'_>, file_offset: u64, size_bytes: u64) -> Result<Arc<DirtyLog>, MemoryError> {
        if size_bytes == 0 {
            return Err(MemoryError::Empty(0));
        }
        if size_bytes > MAX_LOG_BYTES {
            return Err(MemoryError::TooLarge);
        }
        let mapping = Mapping::new(fd, file_offset, size_bytes)?;
        Ok(Arc::new(DirtyLog { mapping, size_bytes }))
    }

    /// Marks the pages of `len` bytes at guest address `addr`. Pages behind the bitmap's end are not marked: the peer
    /// that made it too short loses them.
    pub fn mark(&self, addr: u64, len: u64) {
        if len == 0 {
            return;
        }
        let first = addr / LOG_PAGE_BYTES;
        let last = (addr.saturating_add(len - 1) / LOG_PAGE_BYTES).min(self.size_bytes * 8 - 1);
        for page in first..=last {
            // SAFETY: `page / 8 < size_bytes`, all of which is mapped while `self` lives. The peer accesses the bitmap
            // atomically too, and a byte has no alignment.
            let byte = unsafe { AtomicU8::from_ptr(self.mapping.start().add((page / 8) as usize)) };
            byte.fetch_or(1 << (page % 8), Ordering::Relaxed);
        }
    }
}
