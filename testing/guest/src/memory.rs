//! Where do the guest's rings and buffers live? In one memfd, of small or huge pages, that the switch maps as well.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vhost::VhostUserMemoryRegionInfo;

use crate::GuestError;

/// The guest address of the first region: neither zero nor any process's address, so that a confusion of address kinds
/// shows at once.
const GUEST_BASE: u64 = 0x1_0000_0000;
/// Guest addresses between two regions that belong to nobody.
const GUEST_GAP: u64 = 1 << 30;
const SMALL_PAGE_BYTES: usize = 4096;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// One run of guest addresses.
#[derive(Debug, Clone, Copy)]
struct Region {
    guest_base: u64,
    /// Where it starts in the file, and in the mapping.
    offset: usize,
    bytes: usize,
}

/// The guest's memory: a mapping of `regions` equal parts of one memfd, unmapped when the last user is gone.
#[derive(Debug)]
pub(crate) struct Memory {
    file: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
    regions: Vec<Region>,
}

// SAFETY: the mapping belongs to the value and moves with it; access is by raw pointers, whose users take care of order.
unsafe impl Send for Memory {}
// SAFETY: as above; the value itself is never changed after `new`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of `regions` parts of at least `region_bytes` each.
    pub(crate) fn new(
        regions: usize,
        region_bytes: usize,
        huge_pages: bool,
    ) -> Result<Arc<Self>, GuestError> {
        let page = if huge_pages { HUGE_PAGE_BYTES } else { SMALL_PAGE_BYTES };
        let region_bytes = region_bytes.next_multiple_of(page);
        let bytes = region_bytes * regions;
        let (file, base) =
            map(bytes, huge_pages).map_err(|source| GuestError::Memory { bytes, huge_pages, source })?;
        let regions = (0..regions)
            .map(|index| Region {
                guest_base: GUEST_BASE + index as u64 * (region_bytes as u64 + GUEST_GAP),
                offset: index * region_bytes,
                bytes: region_bytes,
            })
            .collect();
        Ok(Arc::new(Self { file, base, bytes, regions }))
    }

    /// What SET_MEM_TABLE says.
    pub(crate) fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.regions
            .iter()
            .map(|region| VhostUserMemoryRegionInfo {
                guest_phys_addr: region.guest_base,
                memory_size: region.bytes as u64,
                userspace_addr: self.base.as_ptr() as u64 + region.offset as u64,
                mmap_offset: region.offset as u64,
                mmap_handle: self.file.as_raw_fd(),
            })
            .collect()
    }

    /// Hands out the bytes of one region, front to back.
    pub(crate) fn arena(self: &Arc<Self>, region: usize) -> Arena {
        Arena { memory: Arc::clone(self), region: self.regions[region], taken: 0 }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `base` and `bytes` are of the mapping that `map` made; nobody holds the memory any more.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "the mapping was ours");
    }
}

fn map(bytes: usize, huge_pages: bool) -> io::Result<(OwnedFd, NonNull<u8>)> {
    let mut flags = MemfdFlags::CLOEXEC;
    if huge_pages {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    let file = memfd_create("millrace-guest", flags)?;
    ftruncate(&file, bytes as u64)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::POPULATE,
            &file,
            0,
        )?
    };
    let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at zero"))?;
    Ok((file, base))
}

/// Hands out the bytes of one region.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Arc<Memory>,
    region: Region,
    taken: usize,
}

impl Arena {
    /// The next `bytes` of the region, aligned to `align`, all zero.
    ///
    /// # Panics
    /// If the region was made too small: the builder computes its size.
    pub(crate) fn take(&mut self, bytes: usize, align: usize) -> Block {
        let start = self.taken.next_multiple_of(align);
        assert!(start + bytes <= self.region.bytes, "the region was made large enough");
        self.taken = start + bytes;
        // SAFETY: `start + bytes` lies in the region, which lies in the mapping.
        let host = unsafe { self.memory.base.add(self.region.offset + start) };
        Block { host, guest: self.region.guest_base + start as u64, bytes, _memory: Arc::clone(&self.memory) }
    }
}

/// A piece of guest memory, which it keeps mapped. Both sides may write to it at any time.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    host: NonNull<u8>,
    guest: u64,
    bytes: usize,
    _memory: Arc<Memory>,
}

// SAFETY: the mapping lives as long as the block; the block is moved with its users.
unsafe impl Send for Block {}

impl Block {
    /// The guest's address of byte `offset`.
    #[inline]
    pub(crate) fn guest(&self, offset: usize) -> u64 {
        self.guest + offset as u64
    }

    /// This process's address of byte `offset`, for SET_VRING_ADDR.
    pub(crate) fn user(&self, offset: usize) -> u64 {
        self.host.as_ptr() as u64 + offset as u64
    }

    /// A pointer to `T` at byte `offset`.
    ///
    /// # Panics
    /// If it does not lie in the block, or is not aligned.
    #[inline]
    pub(crate) fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.bytes, "inside the block");
        // SAFETY: `offset` is inside the block.
        let at = unsafe { self.host.as_ptr().add(offset) }.cast::<T>();
        debug_assert!(at.is_aligned());
        at
    }

    /// Asks for the line at `offset`, to write to it soon.
    ///
    /// # Panics
    /// If it does not lie in the block.
    #[inline]
    pub(crate) fn will_write(&self, offset: usize) {
        let at = self.at::<u8>(offset);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch changes nothing and cannot fault.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_ET0>(at.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes, "inside the block");
        // SAFETY: the range is inside the block; `bytes` is memory of this process alone, so they do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.host.as_ptr().add(offset), bytes.len());
        }
    }

    /// Appends `len` bytes from `offset` to `to`.
    ///
    /// # Panics
    /// If they are not all in the block.
    pub(crate) fn read(&self, offset: usize, len: usize, to: &mut Vec<u8>) {
        assert!(offset + len <= self.bytes, "inside the block");
        to.reserve(len);
        // SAFETY: the range is inside the block; `to` has room for `len` more bytes, which are initialised by the copy.
        unsafe {
            let end = to.as_mut_ptr().add(to.len());
            std::ptr::copy_nonoverlapping(self.host.as_ptr().add(offset), end, len);
            to.set_len(to.len() + len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_when_written_reads_back_and_regions_do_not_touch() {
        let memory = Memory::new(2, 5000, false).unwrap();
        let table = memory.table();
        assert_eq!(table[0].memory_size, 8192);
        assert!(table[1].guest_phys_addr > table[0].guest_phys_addr + 8192);
        let block = memory.arena(1).take(100, 64);
        block.write(90, b"0123456789");
        let mut back = Vec::new();
        block.read(92, 8, &mut back);
        assert_eq!(back, b"23456789");
        assert_eq!(block.guest(4), table[1].guest_phys_addr + 4);
        assert_eq!(block.user(4), table[1].userspace_addr + 4);
    }

    #[test]
    #[should_panic(expected = "large enough")]
    fn arena_when_exhausted_panics() {
        Memory::new(1, 4096, false).unwrap().arena(0).take(4097, 1);
    }
}
