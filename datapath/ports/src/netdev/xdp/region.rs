//! How does memory that is shared with the kernel stay mapped for as long as somebody uses it?

use std::os::fd::BorrowedFd;

use rustix::mm::{MapFlags, ProtFlags};

/// A writable mapping in whole pages, unmapped on drop. The kernel may change its bytes at any time.
#[derive(Debug)]
pub(super) struct Region {
    base: *mut u8,
    len: usize,
}

// SAFETY: the mapping is an address range that this value alone unmaps; access through it is the user's business.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; nothing here changes after it is made.
unsafe impl Sync for Region {}

impl Region {
    /// Memory of our own, all zeroes.
    pub(super) fn anonymous(len: usize) -> rustix::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        Ok(Self { base: base.cast(), len })
    }

    /// `len` bytes that a socket shares at `offset`.
    pub(super) fn of_socket(socket: BorrowedFd<'_>, offset: u64, len: usize) -> rustix::io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: as above.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, socket, offset)? };
        Ok(Self { base: base.cast(), len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where `count` values of `T` lie from `offset` on; `None` unless all of them are inside, and aligned.
    pub(super) fn at<T>(&self, offset: u64, count: usize) -> Option<*mut T> {
        let offset = usize::try_from(offset).ok()?;
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        // The region itself begins with a page.
        (end <= self.len && offset.is_multiple_of(align_of::<T>())).then(|| {
            // SAFETY: `offset <= end <= len`.
            unsafe { self.base.add(offset).cast() }
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `base..base + len` was mapped when this was made, is unmapped once, and whoever used it held this value.
        let result = unsafe { rustix::mm::munmap(self.base.cast(), self.len) };
        debug_assert!(result.is_ok(), "munmap: {result:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_is_found() {
        let region = Region::anonymous(4096).unwrap();
        assert!(region.at::<u64>(0, 512).is_some() && region.at::<u8>(4096, 0).is_some());
        for (offset, count) in [(0, 513), (8, 512), (4096, 1), (u64::MAX, 1), (0, usize::MAX), (4, 1)] {
            assert!(region.at::<u64>(offset, count).is_none(), "{offset} {count}");
        }
    }
}
