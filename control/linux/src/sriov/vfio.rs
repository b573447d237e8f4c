//! How is a function handed to a program or virtual machine by vfio, and is one using it?

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use reconcile::kernel::KernelError;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::driver::{self, Driving};
use super::netdev;
use super::sysfs::Sysfs;
use super::vf::Vf;
use crate::refused;
use model::PciAddress;

/// The driver.
const VFIO: &str = "vfio-pci";
/// Drivers that hand a function to a program as it is.
const FOR_PROGRAMS: [&str; 5] = [VFIO, "igb_uio", "uio_pci_generic", "pci-stub", "vp-vdpa"];
/// What a card's own driver for vfio ends with (`mlx5_vfio_pci`).
const VFIO_VARIANT: &str = "vfio_pci";
/// Drivers that leave the memory of a group to vfio: a bridge's, which is in a group with what is behind it, and none at all.
const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];

/// Whether a driver makes no netdevs.
pub(super) fn is_for_programs(driver: &str) -> bool {
    FOR_PROGRAMS.contains(&driver) || driver.ends_with(VFIO_VARIANT)
}

fn is_vfio(driver: &str) -> bool {
    driver == VFIO || driver.ends_with(VFIO_VARIANT)
}

/// Gives a function to vfio.
pub(super) fn bind(vf: &Vf) -> Result<PathBuf, KernelError> {
    let sysfs = Sysfs::of_kernel();
    let doing = || format!("{vf}: hand it to vfio");
    let refuse = |reason: String| KernelError::Refused { doing: doing(), reason };
    if vf.driver()?.as_deref() != Some(VFIO) {
        netdev::free(vf)?;
        can(&sysfs, vf.address).map_err(refuse)?;
    }
    driver::change(&vf.to_string(), vf.address, Driving { driver: Some(VFIO), allowed: Some(VFIO) })?;
    let file = file(&sysfs, vf.address).map_err(|error| refused(doing(), &error))?;
    file.ok_or_else(|| refuse("it is in no IOMMU group, though vfio has it: see the kernel's log".to_owned()))
}

/// Whether a program could use the function by vfio.
fn can(sysfs: &Sysfs, address: PciAddress) -> Result<(), String> {
    if !sysfs.has_driver(VFIO) {
        return Err(format!("the driver {VFIO} is missing: modprobe {VFIO}"));
    }
    let Some(group) = sysfs.iommu_group(address).map_err(|error| error.to_string())? else {
        return if sysfs.allows_unsafe_vfio() { Ok(()) } else { Err(NO_IOMMU.to_owned()) };
    };
    let members = sysfs.group_members(group).map_err(|error| error.to_string())?;
    let is_used = |(name, driver): &&(String, Option<String>)| {
        let harmless = |driver: &String| is_vfio(driver) || HARMLESS.contains(&driver.as_str());
        *name != address.to_string() && !driver.as_ref().is_none_or(harmless)
    };
    match members.iter().find(is_used) {
        None => Ok(()),
        Some((name, driver)) => Err(format!(
            "the IOMMU cannot keep it apart from {name}, which {} drives (both are in group {group}): take that one from its \
             driver, or put the card into a slot with ACS",
            driver.as_deref().unwrap_or_default()
        )),
    }
}

const NO_IOMMU: &str = "there is no IOMMU: switch it on in the firmware (VT-d, AMD-Vi, SMMU), and boot with intel_iommu=on \
                        on Intel; or, without any protection of the node from the program, `echo Y > \
                        /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`";

/// The file of the function's group.
fn file(sysfs: &Sysfs, address: PciAddress) -> std::io::Result<Option<PathBuf>> {
    let group = sysfs.iommu_group(address)?;
    Ok(group.map(|group| {
        let prefix = if sysfs.is_unsafe_group(group) { "noiommu-" } else { "" };
        Path::new("/dev/vfio").join(format!("{prefix}{group}"))
    }))
}

/// Refuses a function that a program uses.
pub(super) fn refuse_while_open(sysfs: &Sysfs, vf: &Vf) -> Result<(), KernelError> {
    hold(sysfs, vf.address, &format!("{vf}: take it from the node")).map(|_| ())
}

/// Keeps programs from the function, as long as what is returned lives: the file of its group can be open once only.
/// Nothing is held of a function that vfio has not.
pub(super) fn hold(sysfs: &Sysfs, address: PciAddress, doing: &str) -> Result<Option<OwnedFd>, KernelError> {
    let cannot = |error| refused(doing.to_owned(), &error);
    if !sysfs.driver(address).map_err(cannot)?.is_some_and(|driver| is_vfio(&driver)) {
        return Ok(None);
    }
    let Some(path) = file(sysfs, address).map_err(cannot)? else { return Ok(None) };
    match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::BUSY) => Err(KernelError::Refused {
            doing: doing.to_owned(),
            reason: format!(
                "a program has {0} open: end it, or its pod (look at `fuser -v {0}`)",
                path.display()
            ),
        }),
        // What else keeps us from opening it does not keep its driver.
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::tests::{Tree, VF};
    use super::*;

    fn verdict(tree: &Tree) -> Result<(), String> {
        can(&tree.sysfs(), VF.parse().unwrap())
    }

    #[test]
    fn can_when_the_driver_is_missing_names_the_command() {
        assert!(verdict(&Tree::new()).unwrap_err().contains("modprobe vfio-pci"));
    }

    #[test]
    fn can_when_there_is_no_iommu_names_the_remedies_and_takes_one() {
        let tree = Tree::new();
        tree.file("bus/pci/drivers/vfio-pci/bind", "");
        let error = verdict(&tree).unwrap_err();
        assert!(error.contains("intel_iommu=on") && error.contains("enable_unsafe_noiommu_mode"), "{error}");
        tree.file("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
        assert_eq!(verdict(&tree), Ok(()));
        tree.member(0, VF, "vfio-pci");
        tree.file("kernel/iommu_groups/0/name", "vfio-noiommu\n");
        let file = file(&tree.sysfs(), VF.parse().unwrap()).unwrap();
        assert_eq!(file, Some("/dev/vfio/noiommu-0".into()));
    }

    #[test]
    fn can_when_another_function_of_the_group_is_used_names_it() {
        let tree = Tree::new();
        tree.file("bus/pci/drivers/vfio-pci/bind", "");
        tree.member(12, VF, "igbvf");
        tree.member(12, "0000:00:1c.0", "pcieport");
        tree.member(12, "0000:01:10.0", "vfio-pci");
        assert_eq!(verdict(&tree), Ok(()));
        tree.member(12, "0000:02:00.0", "nvme");
        let error = verdict(&tree).unwrap_err();
        assert!(error.contains("0000:02:00.0, which nvme drives") && error.contains("group 12"), "{error}");
    }
}
