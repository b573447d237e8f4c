//! How does memory of a peer stay mapped for exactly as long as somebody uses it?

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mm::{MapFlags, ProtFlags};

use super::memory::MemoryError;
use super::sigbus::Guard;

/// tmpfs, where memfds live too, and hugetlbfs. A file of any other kind can make whoever touches its memory wait: for a
/// server (FUSE, NFS) that is the peer's own, for ever.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x9584_58f6];

/// A shared, writable mapping of a peer's file, unmapped on drop.
pub(crate) struct Mapping {
    /// Whole pages, as the kernel maps and unmaps them.
    base: *mut u8,
    mapped_bytes: usize,
    /// Where the bytes that were asked for start.
    start: usize,
    /// Taken down before the mapping is.
    guard: Option<Guard>,
}

// SAFETY: the mapping is an address range that this value alone unmaps; access through it is the user's business.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; nothing here changes after `new`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on. The file must hold them now.
    ///
    /// # Errors
    /// [`MemoryError::FileSystem`] if it is no memory file, [`MemoryError::Truncated`] if it is shorter,
    /// [`MemoryError::Map`] if the kernel refuses.
    pub(crate) fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemoryError> {
        let end = offset.checked_add(len).ok_or(MemoryError::Overflow)?;
        // Before anything is asked of the file itself. In 64 bits, for the field's width differs by architecture.
        let kind = rustix::fs::fstatfs(fd)?.f_type as u64;
        if !MEMORY_FILE_SYSTEMS.contains(&kind) {
            return Err(MemoryError::FileSystem(kind));
        }
        let stat = rustix::fs::fstat(fd)?;
        let file_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if file_bytes < end {
            return Err(MemoryError::Truncated { file_bytes, needed_bytes: end });
        }
        // hugetlbfs reports its page size here; it maps and unmaps whole pages only.
        let block = u64::try_from(stat.st_blksize).unwrap_or(0).max(rustix::param::page_size() as u64);
        Self::of_blocks(fd, offset, len, block)
    }

    /// The same for memory behind a VDUSE device: the kernel's own, which has no length to be compared with, or else a memory
    /// file of the program that drives it.
    ///
    /// # Errors
    /// As for [`Mapping::new`].
    pub(crate) fn of_device(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, MemoryError> {
        if is_kernel_memory(fd) {
            Self::of_blocks(fd, offset, len, rustix::param::page_size() as u64)
        } else {
            Self::new(fd, offset, len)
        }
    }

    fn of_blocks(fd: BorrowedFd<'_>, offset: u64, len: u64, block: u64) -> Result<Self, MemoryError> {
        let start = offset % block;
        let mapped_bytes =
            (start + len).checked_next_multiple_of(block).ok_or(MemoryError::Overflow)? as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                fd,
                offset - start,
            )?
        };
        let base = base.cast();
        Ok(Self { base, mapped_bytes, start: start as usize, guard: Some(Guard::new(base, mapped_bytes)) })
    }

    /// The first byte that was asked for.
    pub(crate) fn start(&self) -> *mut u8 {
        // SAFETY: `start` is less than one page of the mapping.
        unsafe { self.base.add(self.start) }
    }

    /// True once the file was found to be shorter than the mapping; the bytes are all zero and nobody's since then.
    pub(crate) fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_lost)
    }
}

/// True for the memory that the kernel itself keeps for a VDUSE device ("vduse-domain", drivers/vdpa/vdpa_user/iova_domain.c).
/// What it has no page for is SIGBUS, never a wait.
pub(super) fn is_kernel_memory(fd: BorrowedFd<'_>) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(link).is_ok_and(|path| path.as_os_str() == "anon_inode:[vduse-domain]")
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: `base..base + mapped_bytes` was mapped by `new`, is unmapped once, and whoever used it held this value.
        let result = unsafe { rustix::mm::munmap(self.base.cast(), self.mapped_bytes) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}
