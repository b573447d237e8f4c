//! Which memory of this process is behind a device's addresses?

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vduse::{Device, Error, IovaRange, sysfs};

use crate::virtio::{GuestMemory, MAX_MEMORY_SLOTS, MemoryError, Region, RegionSpec};

/// Why a device's memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Vduse(#[from] Error),
    #[error("device address {at:#x}: {error}")]
    Region { at: u64, error: MemoryError },
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Maps all of a device's memory as it is now: the kernel's bounce buffer and rings, or, behind `/dev/vhost-vdpa-*`, what the
/// driving program has given. Regions that are not for both reading and writing are left out.
pub(super) fn map(device: &Device) -> Result<GuestMemory, Unusable> {
    let mut regions = Vec::new();
    let mut from = Some(0);
    while let Some(rest) = from.and_then(|start| IovaRange::new(start, u64::MAX)) {
        let entry = match device.iotlb_get_fd(rest, 0) {
            Ok(entry) => entry,
            Err(Error::NoRegion(..)) => break,
            Err(error) => return Err(error.into()),
        };
        let range = entry.range;
        if regions.is_empty() && range.start() > 0 && Region::is_device_memory(entry.fd.as_fd()) {
            regions.push(bounce_buffer(device, entry.fd.as_fd())?);
        }
        if entry.access.can_read() && entry.access.can_write() {
            regions.push(region(range, entry.offset, entry.fd.as_fd())?);
        }
        if regions.len() > MAX_MEMORY_SLOTS {
            return Err(MemoryError::TooManySlots.into());
        }
        from = range.last().checked_add(1);
    }
    Ok(GuestMemory::new(regions)?)
}

/// The buffer that all packets of a kernel driver lie in: from address 0 on, at the beginning of the file that its rings are
/// in. The kernel lists it only once the driver has mapped a packet, after DRIVER_OK, and tells nobody then.
fn bounce_buffer(device: &Device, fd: BorrowedFd<'_>) -> Result<Arc<Region>, Unusable> {
    let bytes = sysfs::bounce_size_bytes(device.name())?;
    let range = IovaRange::with_len(0, bytes.into()).ok_or(MemoryError::Empty(0))?;
    region(range, 0, fd)
}

fn region(range: IovaRange, file_offset: u64, fd: BorrowedFd<'_>) -> Result<Arc<Region>, Unusable> {
    let at = range.start();
    let unusable = |error| Unusable::Region { at, error };
    let size_bytes = range.bytes().ok_or(unusable(MemoryError::Overflow))?;
    let spec = RegionSpec { guest_addr: at, size_bytes, user_addr: at, file_offset };
    Region::map_device(spec, fd).map_err(unusable)
}
