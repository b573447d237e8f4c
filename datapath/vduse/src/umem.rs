//! How can packets lie in memory of this process instead of the kernel's?
//!
//! The kernel copies packets of its drivers into a bounce buffer. That buffer can be memory of ours, which saves nothing of
//! the copy but lets it be huge pages, or memory that another process shares.

use std::os::fd::BorrowedFd;

use rustix::mm::ProtFlags;

use crate::error::Error;
use crate::pages::Pages;

/// Why memory for a device's packets was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UmemProblem {
    /// It is not what the kernel wants.
    #[error(
        "it must be exactly as large as the bounce buffer (sysfs: bounce_size, divided by the address spaces), for device \
         address 0, and the driver must have begun to use the bounce buffer"
    )]
    Invalid,
    /// There is some already.
    #[error("the device has such memory already")]
    Exists,
    /// None is registered.
    #[error("the device has no such memory")]
    NotRegistered,
    /// It cannot be locked.
    #[error("there is not so much memory that may be locked: raise RLIMIT_MEMLOCK")]
    Locked,
    /// It cannot be mapped.
    #[error("mmap: {0}")]
    Map(rustix::io::Errno),
}

/// Memory that the kernel may write at any time, in whole pages; unmapped on drop.
///
/// Dropping it while it is registered is no harm to anybody: the kernel holds its pages until they are deregistered, or the
/// device is closed.
#[derive(Debug)]
pub struct Umem(Pages);

impl Umem {
    /// `bytes` bytes of anonymous memory.
    ///
    /// # Errors
    /// [`Error::Umem`].
    pub fn anonymous(bytes: usize) -> Result<Self, Error> {
        Ok(Self(Pages::anonymous(bytes).map_err(UmemProblem::Map)?))
    }

    /// `bytes` bytes of `file` from `offset` on: a memfd, or a file of hugetlbfs, of which both must be whole pages. The
    /// file must have them, or touching them raises SIGBUS.
    ///
    /// # Errors
    /// [`Error::Umem`].
    pub fn of_file(file: BorrowedFd<'_>, offset: u64, bytes: usize) -> Result<Self, Error> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        Ok(Self(Pages::of_file(file, offset, bytes, prot).map_err(UmemProblem::Map)?))
    }

    /// Where it is. Valid as long as this value; the bytes change at any time once it is registered.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }

    /// Its bytes.
    #[expect(clippy::len_without_is_empty, reason = "mmap(2) maps no empty memory")]
    pub fn len(&self) -> usize {
        self.0.bytes()
    }

    /// Copies from `offset` on. False if there are not so many bytes; nothing is copied then.
    #[must_use]
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        self.0.read(offset, bytes)
    }

    /// Copies to `offset` on. False if there are not so many bytes; nothing is copied then.
    #[must_use]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        self.0.write(offset, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn memory_is_copied_within_its_bounds_only() {
        let umem = Umem::anonymous(8192).unwrap();
        assert!(umem.write(8190, &[7, 8]) && !umem.write(8191, &[1, 1]) && !umem.write(usize::MAX, &[1]));
        let mut bytes = [0; 2];
        assert!(umem.read(8190, &mut bytes) && !umem.read(8191, &mut bytes));
        assert_eq!((bytes, umem.len()), ([7, 8], 8192));
    }

    #[test]
    fn an_impossible_wish_is_an_error() {
        assert!(matches!(Umem::anonymous(0), Err(Error::Umem(UmemProblem::Map(_)))));
        let pipe = rustix::pipe::pipe().unwrap().0;
        assert!(matches!(Umem::of_file(pipe.as_fd(), 0, 4096), Err(Error::Umem(UmemProblem::Map(_)))));
    }
}
