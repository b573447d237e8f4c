//! Which memory lies behind a device address?
//!
//! Device addresses (IOVAs) are looked up in the kernel's IOTLB, which answers with a file to map. What backs a device that
//! a kernel driver drives is the kernel's own (`[vduse-domain]`): one bounce buffer for all packets at address 0, which is
//! not there before the driver prepares its first packet (of a netdev: when it is set up), and small regions above it for
//! the rings. What backs a device that somebody drives through `/dev/vhost-vdpa-*` is that
//! process's memory, of whatever file it likes.

use std::fmt;
use std::os::fd::OwnedFd;

use crate::abi::{self, IOVA_CAP_UMEM};
use crate::error::Error;
use crate::mapping::Mapping;

/// Device addresses from `start` to `last`, both of them included: never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IovaRange {
    start: u64,
    last: u64,
}

impl IovaRange {
    /// Every address.
    pub const ALL: Self = Self { start: 0, last: u64::MAX };

    /// `start` to `last`, if that is the order.
    pub fn new(start: u64, last: u64) -> Option<Self> {
        (start <= last).then_some(Self { start, last })
    }

    /// The `len` bytes at `start`, if there are any and they do not wrap.
    pub fn with_len(start: u64, len: u64) -> Option<Self> {
        Some(Self { start, last: start.checked_add(len.checked_sub(1)?)? })
    }

    /// The first address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The last address, which belongs to the range.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Bytes; `None` for [`IovaRange::ALL`], whose number does not fit.
    pub fn bytes(&self) -> Option<u64> {
        (self.last - self.start).checked_add(1)
    }

    /// True if the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }

    /// Where in the range the `len` bytes at `addr` begin, if all of them lie in it.
    pub fn offset_of(&self, addr: u64, len: u64) -> Option<u64> {
        let offset = addr.checked_sub(self.start)?;
        let end = addr.checked_add(len.saturating_sub(1))?;
        (addr <= self.last && end <= self.last).then_some(offset)
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.last)
    }
}

/// What a device may do with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read it.
    ReadOnly,
    /// Write it.
    WriteOnly,
    /// Both.
    ReadWrite,
}

impl Access {
    fn new(perm: u8) -> Result<Self, RegionProblem> {
        match perm {
            1 => Ok(Self::ReadOnly),
            2 => Ok(Self::WriteOnly),
            3 => Ok(Self::ReadWrite),
            other => Err(RegionProblem::Access(other)),
        }
    }

    /// True unless it is [`Access::WriteOnly`].
    pub fn can_read(self) -> bool {
        self != Self::WriteOnly
    }

    /// True unless it is [`Access::ReadOnly`].
    pub fn can_write(self) -> bool {
        self != Self::ReadOnly
    }
}

/// Why memory that the kernel describes cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegionProblem {
    /// The region ends before it starts.
    #[error("a region from {0:#x} to {1:#x}")]
    Inverted(u64, u64),
    /// The region is not where it was looked for.
    #[error("a region at {0}, which was not asked for")]
    Elsewhere(IovaRange),
    /// Neither reading nor writing, or something else.
    #[error("access {0}, which is none")]
    Access(u8),
    /// The region is as large as the address space, or reaches past the end of its file's.
    #[error("a region at {0} whose offset {1:#x} reaches past the end of all files")]
    Overflow(IovaRange, u64),
    /// mmap(2) refuses it.
    #[error("mmap: {0}")]
    Map(rustix::io::Errno),
    /// Some pages cannot be made present: nothing is behind them yet, or any more.
    #[error("its pages cannot be made present: {0}")]
    Populate(rustix::io::Errno),
}

/// A region of device addresses, and the file that it is part of.
#[derive(Debug)]
pub struct IotlbEntry {
    /// The addresses: often more than were asked for.
    pub range: IovaRange,
    /// Where in the file the region begins, in bytes.
    pub offset: u64,
    /// What may be done with it.
    pub access: Access,
    /// The file. The mapping outlives it.
    pub fd: OwnedFd,
}

impl IotlbEntry {
    /// Checks what the kernel answered to a search for `wanted`.
    pub(crate) fn new(
        entry: &abi::IotlbEntry,
        wanted: IovaRange,
        fd: OwnedFd,
    ) -> Result<Self, RegionProblem> {
        let range = region(entry.start, entry.last, wanted)?;
        let access = Access::new(entry.perm)?;
        let end = range.bytes().and_then(|bytes| entry.offset.checked_add(bytes));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(RegionProblem::Overflow(range, entry.offset));
        }
        Ok(Self { range, offset: entry.offset, access, fd })
    }

    /// Maps the whole region.
    ///
    /// # Errors
    /// [`Error::Region`].
    pub fn map(&self) -> Result<Mapping, Error> {
        Ok(Mapping::new(self)?)
    }
}

/// What is known of a region without mapping it (`struct vduse_iova_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IovaInfo {
    /// The addresses: often more than were asked for.
    pub range: IovaRange,
    /// Memory of this process can take the place of the kernel's ([`crate::Device::reg_umem`]): it is the bounce buffer.
    pub takes_umem: bool,
}

impl IovaInfo {
    pub(crate) fn new(info: &abi::IovaInfo, wanted: IovaRange) -> Result<Self, RegionProblem> {
        let range = region(info.start, info.last, wanted)?;
        Ok(Self { range, takes_umem: info.capability & IOVA_CAP_UMEM != 0 })
    }
}

fn region(start: u64, last: u64, wanted: IovaRange) -> Result<IovaRange, RegionProblem> {
    let range = IovaRange::new(start, last).ok_or(RegionProblem::Inverted(start, last))?;
    if range.overlaps(&wanted) { Ok(range) } else { Err(RegionProblem::Elsewhere(range)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn check(offset: u64, start: u64, last: u64, perm: u8) -> Result<IotlbEntry, RegionProblem> {
        let entry = abi::IotlbEntry { offset, start, last, perm, padding: [0; 7] };
        IotlbEntry::new(&entry, IovaRange::new(0x1000, 0x1fff).unwrap(), null())
    }

    #[test]
    fn what_the_kernel_gives_normally_is_taken() {
        let entry = check(0, 0, 0x3ff_ffff, 3).unwrap();
        assert_eq!((entry.range.bytes(), entry.access), (Some(64 << 20), Access::ReadWrite));
    }

    #[test]
    fn hostile_numbers_of_the_kernel_are_refused_by_name() {
        let problem = |result: Result<IotlbEntry, RegionProblem>| result.map(|_| ()).unwrap_err();
        assert_eq!(problem(check(0, 9, 8, 3)), RegionProblem::Inverted(9, 8));
        let far = IovaRange::new(0x2000, 0x2fff).unwrap();
        assert_eq!(problem(check(0, 0x2000, 0x2fff, 3)), RegionProblem::Elsewhere(far));
        for perm in [0, 4, 255] {
            assert_eq!(problem(check(0, 0, 0x1fff, perm)), RegionProblem::Access(perm));
        }
        assert_eq!(problem(check(0, 0, u64::MAX, 1)), RegionProblem::Overflow(IovaRange::ALL, 0));
        let two = IovaRange::new(0x1000, 0x2fff).unwrap();
        for offset in [u64::MAX, u64::MAX - 0x1fff, 1 << 63, (1 << 63) - 0x1fff] {
            assert_eq!(problem(check(offset, 0x1000, 0x2fff, 1)), RegionProblem::Overflow(two, offset));
        }
    }

    proptest! {
        #[test]
        fn an_offset_lies_in_the_range_with_all_its_bytes(
            start: u64, last: u64, addr: u64, len in prop_oneof![0..9u64, any::<u64>()],
        ) {
            let (start, last) = (start.min(last), start.max(last));
            let range = IovaRange::new(start, last).unwrap();
            let inside = addr >= start && addr <= last && u128::from(addr) + u128::from(len) <= u128::from(last) + 1;
            prop_assert_eq!(range.offset_of(addr, len), inside.then(|| addr - start));
        }

        #[test]
        fn a_range_by_length_has_that_length(start: u64, len: u64) {
            match IovaRange::with_len(start, len) {
                Some(range) => prop_assert_eq!((range.start(), range.bytes()), (start, Some(len))),
                None => prop_assert!(len == 0 || u128::from(start) + u128::from(len) > 1 << 64),
            }
        }
    }
}
