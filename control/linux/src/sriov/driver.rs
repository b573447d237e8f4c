//! How does a function get another driver, at any instant of which this program may die?
//!
//! It is told first which driver may have it, then taken from the one, then given to the other. Whoever finds it between two
//! of these steps goes on from there.

use reconcile::kernel::KernelError;

use super::bounded::within;
use super::sysfs::Sysfs;
use super::vf::Vf;
use super::vfio;
use crate::refused;
use model::PciAddress;

/// A driver for a function, and the one that is allowed to have it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Driving<'a> {
    pub(super) driver: Option<&'a str>,
    pub(super) allowed: Option<&'a str>,
}

/// Gives a function of a card to a driver, and lets no other have it: `vfio-pci`, `vp-vdpa`, `virtio-pci`.
///
/// # Errors
/// The driver is not loaded or does not take it, or a program uses it.
pub fn bind_driver(address: PciAddress, driver: &str) -> Result<(), KernelError> {
    let driving = Driving { driver: Some(driver), allowed: Some(driver) };
    change(&format!("PCI function {address}"), address, driving)
}

/// Makes a function be driven so. `whose` names it in errors.
pub(super) fn change(whose: &str, address: PciAddress, to_be: Driving<'_>) -> Result<(), KernelError> {
    let sysfs = Sysfs::of_kernel();
    let doing = match to_be.driver {
        Some(driver) => format!("{whose}: let {driver} drive it"),
        None => format!("{whose}: let no driver have it"),
    };
    let now = sysfs.driver(address).map_err(|error| refused(doing.clone(), &error))?;
    let allowed = sysfs.driver_override(address).map_err(|error| refused(doing.clone(), &error))?;
    if now.as_deref() == to_be.driver && allowed.as_deref() == to_be.allowed {
        return Ok(());
    }
    if let Some(driver) = to_be.driver.filter(|driver| !sysfs.has_driver(driver)) {
        let reason = format!("the driver is missing: modprobe {}", driver.replace('-', "_"));
        return Err(KernelError::Refused { doing, reason });
    }
    let driver = to_be.driver.map(str::to_owned);
    let allowed = to_be.allowed.map(str::to_owned);
    within(address, &doing.clone(), move || {
        if now != driver {
            exchange(&sysfs, address, &doing, driver.as_deref())?;
        }
        sysfs.allow_driver(address, allowed.as_deref()).map_err(|error| refused(doing, &error))
    })
}

fn exchange(
    sysfs: &Sysfs,
    address: PciAddress,
    doing: &str,
    driver: Option<&str>,
) -> Result<(), KernelError> {
    let cannot = |error| refused(doing.to_owned(), &error);
    if driver.is_some() {
        sysfs.allow_driver(address, driver).map_err(cannot)?;
    }
    release(sysfs, address, doing)?;
    let Some(driver) = driver else { return Ok(()) };
    sysfs.bind(address, driver).map_err(|error| {
        let gone = !sysfs.exists(address);
        let reason =
            if gone { "the function is gone".to_owned() } else { format!("{error}: see the kernel's log") };
        KernelError::Refused { doing: doing.to_owned(), reason }
    })
}

/// Takes it from its driver, and from nobody who uses it by vfio: the kernel would wait for that one.
fn release(sysfs: &Sysfs, address: PciAddress, doing: &str) -> Result<(), KernelError> {
    let _held = vfio::hold(sysfs, address, doing)?;
    sysfs.unbind(address).map_err(|error| refused(doing.to_owned(), &error))
}

/// Lets the driver of a function start anew.
pub(super) fn restart(vf: &Vf) -> Result<(), KernelError> {
    let sysfs = Sysfs::of_kernel();
    let Some(driver) = vf.driver()? else { return Ok(()) };
    let doing = format!("{vf}: start its driver {driver} anew");
    let address = vf.address;
    within(address, &doing.clone(), move || {
        let allowed = sysfs.driver_override(address).map_err(|error| refused(doing.clone(), &error))?;
        exchange(&sysfs, address, &doing, Some(&driver))?;
        sysfs.allow_driver(address, allowed.as_deref()).map_err(|error| refused(doing, &error))
    })
}
