//! Which function of which card is it, and who has it now?

use std::fmt;
use std::path::PathBuf;

use reconcile::kernel::KernelError;

use super::link::{self, Link};
use super::netdev;
use super::sysfs::Sysfs;
use super::{representor, settings, vfio};
use crate::netns::Netns;
use crate::refused;
use model::PciAddress;
use model::VfConfig;
use reconcile::cards::{NetdevPlace, Representor, VfSettings, VfState};

/// A virtual function of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vf {
    /// Its address.
    pub address: PciAddress,
    /// Its number within its physical function.
    pub index: u32,
    /// The address of its physical function.
    pub pf: PciAddress,
    /// The name of the netdev of its physical function.
    pub pf_netdev: String,
    /// Whether that is up: most cards pass nothing of their virtual functions else.
    pub pf_is_up: bool,
    pub(super) pf_link: u32,
}

impl fmt::Display for Vf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VF {} ({} of {})", self.address, self.index, self.pf_netdev)
    }
}

impl Vf {
    /// The virtual function of this address.
    ///
    /// # Errors
    /// There is none, or its physical function has no netdev here, by which alone it can be configured.
    pub fn find(address: PciAddress) -> Result<Self, KernelError> {
        let none = || {
            let reason = "no function has that address: it was removed, or not made yet; \
                          `echo N > /sys/bus/pci/devices/PF/sriov_numvfs` makes those of a card";
            KernelError::Refused { doing: format!("VF {address}: find it"), reason: reason.to_owned() }
        };
        Self::look(address)?.ok_or_else(none)
    }

    /// The virtual function of this number, of a physical one that is named by its address or its netdev.
    ///
    /// # Errors
    /// As [`Vf::find`].
    pub fn of(pf: &str, index: u32) -> Result<Self, KernelError> {
        let doing = || format!("VF {index} of {pf}: find it");
        let refuse = |reason: &str| KernelError::Refused { doing: doing(), reason: reason.to_owned() };
        let physical = match pf.parse() {
            Ok(address) => address,
            Err(_) => {
                let link = link::list(&Netns::own()?)?.into_iter().find(|link| link.name == pf);
                let parent = link.ok_or_else(|| refuse("the node has no such netdev"))?.parent;
                let address = parent.and_then(|parent| parent.parse().ok());
                address.ok_or_else(|| refuse("that netdev is of no PCI function"))?
            }
        };
        let found = Sysfs::of_kernel().virtual_function(physical, index);
        let address = found.map_err(|error| refused(doing(), &error))?;
        let none = || {
            let reason = format!(
                "it was not made: `echo N > /sys/bus/pci/devices/{physical}/sriov_numvfs` makes N of them"
            );
            refuse(&reason)
        };
        Self::find(address.ok_or_else(none)?)
    }

    /// The virtual function, if there is one of this address.
    pub(super) fn look(address: PciAddress) -> Result<Option<Self>, KernelError> {
        let sysfs = Sysfs::of_kernel();
        let doing = || format!("VF {address}: find it");
        let refuse = |reason: String| KernelError::Refused { doing: doing(), reason };
        if !sysfs.exists(address) {
            return Ok(None);
        }
        let pf = sysfs.physical(address).map_err(|error| refused(doing(), &error))?;
        let pf = pf.ok_or_else(|| refuse("it is no virtual function: it has no physical one".to_owned()))?;
        let index = sysfs.index(pf, address).map_err(|error| refused(doing(), &error))?;
        // Gone again, between two looks.
        let Some(index) = index else { return Ok(None) };
        let Some(link) = uplink(pf)? else {
            let driver = sysfs.driver(pf).ok().flatten();
            let why =
                driver.map_or("no driver has it".to_owned(), |driver| format!("its driver is {driver}"));
            return Err(refuse(format!(
                "its physical function {pf} has no netdev on the node, by which it is configured ({why}): give {pf} to its \
                 network driver, and its netdev to the node"
            )));
        };
        let (pf_is_up, pf_link) = (link.is_up(), link.index);
        Ok(Some(Self { address, index, pf, pf_netdev: link.name, pf_is_up, pf_link }))
    }

    /// The driver that has it.
    ///
    /// # Errors
    /// The system refuses to tell.
    pub fn driver(&self) -> Result<Option<String>, KernelError> {
        let driver = Sysfs::of_kernel().driver(self.address);
        driver.map_err(|error| refused(format!("{self}: look for its driver"), &error))
    }

    /// How it is: what belongs into the attachment's record before the first change.
    ///
    /// # Errors
    /// Somebody uses it: a program, another namespace, a bridge or bond. Or the card does not tell.
    pub fn state(&self) -> Result<VfState, KernelError> {
        let sysfs = Sysfs::of_kernel();
        let cannot = |error| refused(format!("{self}: look at it"), &error);
        let driver = self.driver()?;
        vfio::refuse_while_open(&sysfs, self)?;
        Ok(VfState {
            settings: settings::read(self)?,
            driver_override: sysfs.driver_override(self.address).map_err(cannot)?,
            driver,
            netdev: netdev::settled(self)?.map(|link| link.state()),
        })
    }

    /// What the card enforces on it.
    ///
    /// # Errors
    /// The card does not tell.
    pub fn settings(&self) -> Result<VfSettings, KernelError> {
        settings::read(self)
    }

    /// Sets what is given, each by itself.
    ///
    /// # Errors
    /// The first that the card refuses, by its name in the configuration, with the card's answer.
    pub fn configure(&self, config: &VfConfig) -> Result<(), KernelError> {
        settings::configure(self, config)
    }

    /// Moves its netdev into a pod. It is down there and has no addresses.
    ///
    /// # Errors
    /// It has none, another namespace has it, or the kernel refuses.
    pub fn give_netdev(&self, place: &NetdevPlace) -> Result<(), KernelError> {
        netdev::give(self, place)
    }

    /// Gives it to vfio, for a program or virtual machine. Answers with the file of its IOMMU group; whoever opens that needs
    /// `/dev/vfio/vfio` too.
    ///
    /// # Errors
    /// There is no IOMMU, vfio-pci is not loaded, somebody uses the function or another one of its group.
    pub fn bind_vfio(&self) -> Result<PathBuf, KernelError> {
        vfio::bind(self)
    }

    /// Its representor: the port of the card's switch that it is behind. None where the card is no switch.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn representor(&self) -> Result<Option<Representor>, KernelError> {
        representor::of(&self.pf_netdev, self.index)
    }
}

/// The netdev of a physical function: the one that is no representor, of which a card that is a switch has one for each
/// function, all as children of the physical one.
fn uplink(pf: PciAddress) -> Result<Option<Link>, KernelError> {
    let parent = pf.to_string();
    let is_uplink = |link: &Link| {
        link.parent.as_ref() == Some(&parent) && !representor::is_representor(link.port.as_deref())
    };
    let links = link::list(&Netns::own()?)?;
    Ok(links.into_iter().filter(is_uplink).min_by_key(|link| link.index))
}
