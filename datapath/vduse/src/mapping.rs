//! How is a device's memory touched, while the other side writes it at any time?
//!
//! By raw pointers and by volatile copies: never as `&[u8]`, whose bytes Rust takes for constant.
//!
//! **Limit:** touching a page that has nothing behind it raises SIGBUS, as with any mapped file. In the bounce buffer of a
//! kernel driver these are the pages that no descriptor has named since the device went onto the bus, and all of them once
//! memory of this process was registered in their place: touch what a descriptor names, not all of it. The rings of a
//! kernel driver may go at any time: [`Mapping::populate`] keeps their pages. Memory that comes through `/dev/vhost-vdpa-*`
//! may be a file that its owner truncates: guard [`Mapping::pages`] with a handler, if that owner is not trusted.

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::ProtFlags;

use crate::error::Error;
use crate::iotlb::{Access, IotlbEntry, IovaRange, RegionProblem};
use crate::pages::{Pages, Populate};

/// A region of a device's memory, mapped; unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    /// Whole pages, as the kernel maps and unmaps them.
    pages: Pages,
    /// Where the region begins in them.
    start: usize,
    range: IovaRange,
    access: Access,
}

impl Mapping {
    pub(crate) fn new(entry: &IotlbEntry) -> Result<Self, RegionProblem> {
        let overflow = RegionProblem::Overflow(entry.range, entry.offset);
        let len = entry.range.bytes().and_then(|bytes| usize::try_from(bytes).ok()).ok_or(overflow)?;
        // A file of huge pages reports their size here, and maps and unmaps whole ones only.
        let stat = rustix::fs::fstat(&entry.fd).map_err(RegionProblem::Map)?;
        let block = u64::try_from(stat.st_blksize).unwrap_or(0).max(rustix::param::page_size() as u64);
        let block = usize::try_from(block).map_err(|_| overflow)?;
        let start = (entry.offset % block as u64) as usize;
        let whole = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(block));
        // No platform maps pages that can be written only.
        let prot = match entry.access {
            Access::ReadOnly => ProtFlags::READ,
            Access::WriteOnly | Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let from = entry.offset - start as u64;
        let pages = Pages::of_file(entry.fd.as_fd(), from, whole.ok_or(overflow)?, prot);
        Ok(Self {
            pages: pages.map_err(RegionProblem::Map)?,
            start,
            range: entry.range,
            access: entry.access,
        })
    }

    /// The device addresses that are mapped.
    pub fn range(&self) -> IovaRange {
        self.range
    }

    /// What may be done with them. Writing to a [`Access::ReadOnly`] mapping by a pointer raises SIGSEGV.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Where the first byte of [`Mapping::range`] is. Valid as long as this value; the bytes change at any time.
    pub fn as_ptr(&self) -> *mut u8 {
        // Within the first page, so that it does not wrap.
        self.pages.base().wrapping_add(self.start)
    }

    /// The bytes of [`Mapping::range`].
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        // At most the mapping, so that it fits.
        self.range.bytes().unwrap_or(0) as usize
    }

    /// The pages that are mapped: their address and their bytes. At least the region, which may begin within the first.
    pub fn pages(&self) -> (*mut u8, usize) {
        (self.pages.base(), self.pages.bytes())
    }

    /// Where the `len` bytes at the device address `iova` are, if all of them are mapped.
    pub fn ptr(&self, iova: u64, len: usize) -> Option<*mut u8> {
        self.pages.ptr(self.offset_of(iova, len)?, len)
    }

    /// Makes all pages present, so that they stay even when the kernel takes them away (Linux 5.14).
    ///
    /// # Errors
    /// [`Error::Region`] if a page has nothing behind it.
    pub fn populate(&self) -> Result<(), Error> {
        let advice = if self.access.can_write() { Populate::ForWriting } else { Populate::ForReading };
        self.pages.populate(advice).map_err(|errno| RegionProblem::Populate(errno).into())
    }

    /// Copies from the device address `iova`. False if not all of `bytes` are mapped to be read; nothing is copied then.
    #[must_use]
    pub fn read(&self, iova: u64, bytes: &mut [u8]) -> bool {
        let offset = self.offset_of(iova, bytes.len()).filter(|_| self.access.can_read());
        offset.is_some_and(|offset| self.pages.read(offset, bytes))
    }

    /// Copies to the device address `iova`. False if not all of `bytes` are mapped to be written; nothing is copied then.
    #[must_use]
    pub fn write(&self, iova: u64, bytes: &[u8]) -> bool {
        let offset = self.offset_of(iova, bytes.len()).filter(|_| self.access.can_write());
        offset.is_some_and(|offset| self.pages.write(offset, bytes))
    }

    /// The word at the device address `iova`, little endian as in all of virtio. What is read after it is read no earlier
    /// (acquire). `None` if it is not mapped to be read, or not at an even address.
    pub fn load_u16(&self, iova: u64) -> Option<u16> {
        let word = self.word(iova).filter(|_| self.access.can_read())?;
        // SAFETY: `word` found two aligned bytes mapped; volatile and not atomic, for pages that may be read only.
        let value = unsafe { word.read_volatile() };
        fence(Ordering::Acquire);
        Some(u16::from_le(value))
    }

    /// Writes the word at the device address `iova`, little endian. What was written before it is seen no later (release).
    /// `None` if it is not mapped to be written, or not at an even address.
    pub fn store_u16(&self, iova: u64, value: u16) -> Option<()> {
        let word = self.word(iova).filter(|_| self.access.can_write())?;
        fence(Ordering::Release);
        // SAFETY: `word` found two aligned bytes mapped, which may be written; volatile, for others look at them.
        unsafe { word.write_volatile(value.to_le()) };
        Some(())
    }

    /// Where the word at `iova` is, aligned.
    fn word(&self, iova: u64) -> Option<*mut u16> {
        Some(self.ptr(iova, size_of::<u16>())?.cast::<u16>()).filter(|word| word.is_aligned())
    }

    fn offset_of(&self, iova: u64, len: usize) -> Option<usize> {
        // Both parts are less than the mapping, so that they fit.
        Some(self.start + self.range.offset_of(iova, len as u64)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::abi;

    /// A region at 0x8000 of a file whose bytes count up, from `offset` on.
    fn region(offset: u64, len: u64, perm: u8) -> Result<Mapping, Error> {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let bytes: Vec<u8> = (0..3 * 4096u32).map(|i| i as u8).collect();
        rustix::io::write(&fd, &bytes).unwrap();
        entry(offset, len, perm, fd).map()
    }

    fn entry(offset: u64, len: u64, perm: u8, fd: OwnedFd) -> IotlbEntry {
        let raw = abi::IotlbEntry { offset, start: 0x8000, last: 0x8000 + len - 1, perm, padding: [0; 7] };
        IotlbEntry::new(&raw, IovaRange::ALL, fd).unwrap()
    }

    #[test]
    fn bytes_are_where_the_device_address_says_even_when_the_offset_is_no_page() {
        let mapping = region(0x1003, 0x1000, 3).unwrap();
        let mut bytes = [0; 3];
        assert!(mapping.read(0x8001, &mut bytes));
        assert_eq!(bytes, [4, 5, 6]);
        assert!(mapping.write(0x8fff, &[99]));
        assert!(mapping.read(0x8fff, &mut bytes[..1]));
        assert_eq!((bytes[0], mapping.len()), (99, 0x1000));
        let (pages, bytes) = mapping.pages();
        assert_eq!((pages as usize % 4096, bytes), (0, 0x2000));
    }

    #[test]
    fn nothing_outside_of_the_region_is_touched() {
        let mapping = region(0, 0x800, 3).unwrap();
        let mut bytes = [0; 2];
        for iova in [0, 0x7fff, 0x87ff, 0x8800, u64::MAX] {
            assert!(!mapping.read(iova, &mut bytes) && !mapping.write(iova, &bytes), "{iova:#x}");
            assert_eq!(mapping.load_u16(iova), None);
        }
        assert_eq!(mapping.ptr(0x8000, usize::MAX), None);
        assert_eq!(mapping.ptr(0x8000, 0x800), Some(mapping.as_ptr()));
    }

    #[test]
    fn words_are_little_endian_and_aligned() {
        let mapping = region(0, 0x1000, 3).unwrap();
        assert_eq!(mapping.load_u16(0x8004), Some(0x0504));
        assert_eq!(mapping.store_u16(0x8004, 0xabcd), Some(()));
        let mut bytes = [0; 2];
        assert!(mapping.read(0x8004, &mut bytes));
        assert_eq!(bytes, [0xcd, 0xab]);
        assert_eq!(mapping.load_u16(0x8005), None);
    }

    #[test]
    fn memory_that_is_read_only_is_not_written() {
        let mapping = region(0, 0x1000, 1).unwrap();
        assert!(!mapping.write(0x8000, &[1]));
        assert_eq!(mapping.store_u16(0x8000, 1), None);
        assert_eq!(mapping.load_u16(0x8000), Some(0x0100));
        assert!(mapping.populate().is_ok());
    }

    #[test]
    fn pages_past_the_end_of_the_file_cannot_be_made_present() {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        let mapping = entry(0, 0x1000, 3, fd).map().unwrap();
        assert!(matches!(mapping.populate(), Err(Error::Region(RegionProblem::Populate(_)))));
    }

    #[test]
    fn a_file_that_cannot_be_mapped_and_a_region_larger_than_memory_are_errors() {
        let pipe = rustix::pipe::pipe().unwrap().0;
        assert!(matches!(entry(0, 0x1000, 3, pipe).map(), Err(Error::Region(RegionProblem::Map(_)))));
        assert!(matches!(region(0, 1 << 62, 3), Err(Error::Region(_))));
    }
}
