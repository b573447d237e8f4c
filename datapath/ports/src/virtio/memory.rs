//! Where does a guest's address lie in this process? A table of mapped regions, immutable: a change makes a new table,
//! and the old one stays mapped until the last burst that uses it has ended.
//!
//! **Invariant:** no memory of a guest can stop or end the thread that touches it: it never has to be waited for
//! ([`MemoryError::FileSystem`]), and a file that is truncated leaves zero pages behind ([`GuestMemory::is_lost`]).
//! **Limit:** a page that nobody touched before is charged to the control group of whoever does: a guest whose memory was not
//! allocated up front can have it charged to the switch.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::mapping::{self, Mapping};

/// Regions that a table may have; what Linux's vhost and QEMU use for hot-plugged memory.
pub const MAX_MEMORY_SLOTS: usize = 509;
/// Bytes that one guest may have mapped, so that no guest's sparse file uses up the address space of all.
pub const MAX_MEMORY_BYTES: u64 = 1 << 42;

/// Why memory was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// A region has no bytes.
    #[error("memory region at guest address {0:#x} has no bytes")]
    Empty(u64),
    /// A region reaches past the end of an address space.
    #[error("memory region reaches past the end of its address space")]
    Overflow,
    /// Two regions share guest addresses, or user addresses.
    #[error("memory regions at guest addresses {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// More than [`MAX_MEMORY_SLOTS`].
    #[error("more than {MAX_MEMORY_SLOTS} memory regions")]
    TooManySlots,
    /// More than [`MAX_MEMORY_BYTES`] in all.
    #[error("more than {MAX_MEMORY_BYTES} bytes of memory")]
    TooLarge,
    /// No region like the one to remove.
    #[error("no memory region at guest address {0:#x} with that size and user address")]
    Unknown(u64),
    /// The file is neither a memfd nor on tmpfs or hugetlbfs, so that whoever touches it may have to wait for it.
    #[error("memory file is on a file system of type {0:#x}: only memfd, tmpfs and hugetlbfs are taken")]
    FileSystem(u64),
    /// The file ends before the region does.
    #[error("memory file has {file_bytes} bytes, the region needs {needed_bytes}")]
    Truncated {
        /// The file's size.
        file_bytes: u64,
        /// The region's end in the file.
        needed_bytes: u64,
    },
    /// The kernel did not map it.
    #[error("memory cannot be mapped: {0}")]
    Map(#[from] rustix::io::Errno),
}

/// Where a region lies in the three address spaces, as the peer describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// The guest's (physical) address: what descriptors hold.
    pub guest_addr: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// The peer's own address: what vhost-user gives ring addresses in.
    pub user_addr: u64,
    /// Where the region starts in its file.
    pub file_offset: u64,
}

/// One mapped region.
pub struct Region {
    spec: RegionSpec,
    mapping: Mapping,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.spec.fmt(f)
    }
}

impl Region {
    /// Maps what `spec` describes of `fd`. The descriptor may be closed afterwards.
    ///
    /// # Errors
    /// Sizes and offsets that make no sense or that the file does not hold, and what mmap(2) refuses.
    pub fn map(spec: RegionSpec, fd: BorrowedFd<'_>) -> Result<Arc<Region>, MemoryError> {
        Self::checked(spec)?;
        let mapping = Mapping::new(fd, spec.file_offset, spec.size_bytes)?;
        Ok(Arc::new(Region { spec, mapping }))
    }

    /// The same for memory behind a VDUSE device, which may also be the kernel's own.
    ///
    /// # Errors
    /// As for [`Region::map`].
    pub(crate) fn map_device(spec: RegionSpec, fd: BorrowedFd<'_>) -> Result<Arc<Region>, MemoryError> {
        Self::checked(spec)?;
        let mapping = Mapping::of_device(fd, spec.file_offset, spec.size_bytes)?;
        Ok(Arc::new(Region { spec, mapping }))
    }

    /// True if `fd` is the memory that the kernel itself keeps for a VDUSE device.
    pub(crate) fn is_device_memory(fd: BorrowedFd<'_>) -> bool {
        mapping::is_kernel_memory(fd)
    }

    fn checked(spec: RegionSpec) -> Result<(), MemoryError> {
        if spec.size_bytes == 0 {
            return Err(MemoryError::Empty(spec.guest_addr));
        }
        let ends =
            [spec.guest_addr, spec.user_addr, spec.file_offset].map(|at| at.checked_add(spec.size_bytes));
        if spec.size_bytes > MAX_MEMORY_BYTES {
            return Err(MemoryError::TooLarge);
        }
        if ends.contains(&None) {
            return Err(MemoryError::Overflow);
        }
        Ok(())
    }

    /// What it maps.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }
}

/// A run of guest addresses that is contiguous in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    start: u64,
    size: u64,
    host: *mut u8,
}

impl Window {
    /// Holds no address.
    pub(crate) const NONE: Window = Window { start: 0, size: 0, host: std::ptr::null_mut() };

    /// The host address of `len` bytes at `addr`, if they lie in this window.
    #[inline]
    pub(crate) fn translate(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let offset = addr.wrapping_sub(self.start);
        if offset < self.size && len <= self.size - offset {
            // SAFETY: `offset < size`, and the window's `size` bytes at `host` are mapped.
            Some(unsafe { self.host.add(offset as usize) })
        } else {
            None
        }
    }

    /// The host address of `addr` and how many bytes follow contiguously.
    pub(crate) fn at(&self, addr: u64) -> Option<(*mut u8, u64)> {
        let host = self.translate(addr, 1)?;
        Some((host, self.size - (addr - self.start)))
    }
}

/// All memory of one guest.
#[derive(Debug, Default)]
pub struct GuestMemory {
    /// Sorted by guest address.
    windows: Vec<Window>,
    /// In the same order; keeps the windows mapped.
    regions: Vec<Arc<Region>>,
}

// SAFETY: the windows point into the mappings that `regions` keeps; guest memory is only accessed by volatile, atomic
// and raw copies, from any thread.
unsafe impl Send for GuestMemory {}
// SAFETY: as for `Send`; the table never changes.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// A table of `regions`, in any order.
    ///
    /// # Errors
    /// Too many regions, or two that overlap.
    pub fn new(mut regions: Vec<Arc<Region>>) -> Result<GuestMemory, MemoryError> {
        if regions.len() > MAX_MEMORY_SLOTS {
            return Err(MemoryError::TooManySlots);
        }
        if regions.iter().map(|region| region.spec.size_bytes).sum::<u64>() > MAX_MEMORY_BYTES {
            return Err(MemoryError::TooLarge);
        }
        for address in [|spec: &RegionSpec| spec.user_addr, |spec: &RegionSpec| spec.guest_addr] {
            regions.sort_by_key(|region| address(&region.spec));
            for pair in regions.windows(2) {
                let (low, high) = (&pair[0].spec, &pair[1].spec);
                if address(high) - address(low) < low.size_bytes {
                    return Err(MemoryError::Overlap(low.guest_addr, high.guest_addr));
                }
            }
        }
        let window = |region: &Arc<Region>| Window {
            start: region.spec.guest_addr,
            size: region.spec.size_bytes,
            host: region.mapping.start(),
        };
        Ok(GuestMemory { windows: regions.iter().map(window).collect(), regions })
    }

    /// This table with one region more.
    ///
    /// # Errors
    /// As [`GuestMemory::new`].
    pub fn with_region(&self, region: Arc<Region>) -> Result<GuestMemory, MemoryError> {
        GuestMemory::new(self.regions.iter().cloned().chain([region]).collect())
    }

    /// This table without the region of that guest address, user address and size.
    ///
    /// # Errors
    /// [`MemoryError::Unknown`] if there is none.
    pub fn without_region(&self, spec: &RegionSpec) -> Result<GuestMemory, MemoryError> {
        let same = |region: &Arc<Region>| {
            let have = &region.spec;
            (have.guest_addr, have.user_addr, have.size_bytes)
                == (spec.guest_addr, spec.user_addr, spec.size_bytes)
        };
        let kept: Vec<_> = self.regions.iter().filter(|region| !same(region)).cloned().collect();
        if kept.len() == self.regions.len() {
            return Err(MemoryError::Unknown(spec.guest_addr));
        }
        GuestMemory::new(kept)
    }

    /// The regions, sorted by guest address.
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// Bytes of all regions.
    pub fn size_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.spec.size_bytes).sum()
    }

    /// True if a region's file was truncated while it was mapped: its bytes are zero since the first access to it, and
    /// the peer has to give its memory anew.
    pub fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_lost())
    }

    /// The guest address behind the peer's own address `user_addr`.
    pub fn user_to_guest(&self, user_addr: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user_addr.checked_sub(region.spec.user_addr)?;
            (offset < region.spec.size_bytes).then(|| region.spec.guest_addr + offset)
        })
    }

    /// The window that holds `addr`.
    pub(crate) fn window(&self, addr: u64) -> Option<Window> {
        let after = self.windows.partition_point(|window| window.start <= addr);
        let window = *self.windows.get(after.checked_sub(1)?)?;
        window.translate(addr, 1).map(|_| window)
    }
}
