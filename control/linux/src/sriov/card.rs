//! Does a function of a card make devices of the vDPA bus, and can a program use one?
//!
//! Making, binding and removing those is [`crate::vdpa`]'s, as of any other.

use std::path::Path;

use reconcile::kernel::{KernelError, ManagementDevice};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sysfs::Sysfs;
use crate::refused;
use crate::vdpa::{self, Maker};
use model::PciAddress;

/// ENOTSUPP of the kernel (`linux/errno.h`), which no libc knows.
const NOT_SUPPORTED: Errno = Errno::from_raw_os_error(524);

/// What the function may make.
///
/// # Errors
/// It makes no network devices, or the kernel does not tell.
pub fn vdpa_maker(address: PciAddress) -> Result<Maker, KernelError> {
    let wanted = ManagementDevice::function(address);
    let found = vdpa::makers()?.into_iter().find(|maker| maker.management == wanted && maker.makes_net());
    found.ok_or_else(|| {
        let driver = Sysfs::of_kernel().driver(address).ok().flatten();
        let driver = driver.map_or("no driver has it".to_owned(), |driver| format!("its driver is {driver}"));
        let reason = format!(
            "it makes no vDPA devices ({driver}): load its card's vDPA driver (modprobe mlx5_vdpa, or give a virtio function \
             to vp-vdpa), and see `vdpa mgmtdev show`"
        );
        KernelError::Refused { doing: format!("PCI function {address}: make a vDPA device"), reason }
    })
}

/// Whether a program can use a device of a card, by the file that vhost_vdpa made of it. The kernel says only when that is
/// opened that there is no IOMMU to keep the card to the program's memory.
///
/// # Errors
/// There is none, or the file cannot be opened. One that a program has open already is good.
pub fn can_vhost(file: &Path) -> Result<(), KernelError> {
    let doing = || format!("hand {} to a program", file.display());
    match rustix::fs::open(file, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(_) | Err(Errno::BUSY) => Ok(()),
        Err(NOT_SUPPORTED) => {
            let reason = "its card has no IOMMU, without which it would reach all memory (error 524): switch it on in the \
                          firmware (VT-d, AMD-Vi, SMMU), and boot with intel_iommu=on on Intel"
                .to_owned();
            Err(KernelError::Refused { doing: doing(), reason })
        }
        Err(errno) => Err(refused(doing(), &errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_vhost_when_there_is_no_file_names_it() {
        let error = can_vhost(Path::new("/nonexistent/vhost-vdpa-0")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/vhost-vdpa-0"), "{error}");
    }
}
