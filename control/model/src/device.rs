//! Which device of a card does a pod ask for, and who is to drive it?

use std::fmt;
use std::str::FromStr;

use crate::{MtuBytes, PciAddress, PortKind, VfConfig};

/// A device of a card, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The function, which the runtime chose.
    pub function: PciAddress,
    /// Who is to drive it; none: who does already.
    pub driver: Option<DeviceDriver>,
    /// The largest IP packet; none: the network's.
    pub mtu: Option<MtuBytes>,
    /// What the card is to enforce.
    pub settings: VfConfig,
}

/// Who drives a device of a card while a pod has it, where that is not the card's own network driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum DeviceDriver {
    /// A program or virtual machine, by the file of the function's IOMMU group.
    #[serde(rename = "vfio-pci")]
    VfioPci,
    /// The kernel: the vDPA device is a netdev.
    #[serde(rename = "virtio_vdpa")]
    VirtioVdpa,
    /// A program or virtual machine, by `/dev/vhost-vdpa-N`.
    #[serde(rename = "vhost_vdpa")]
    VhostVdpa,
}

impl DeviceDriver {
    const ALL: [Self; 3] = [Self::VfioPci, Self::VirtioVdpa, Self::VhostVdpa];

    /// Its name in the kernel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VfioPci => "vfio-pci",
            Self::VirtioVdpa => "virtio_vdpa",
            Self::VhostVdpa => "vhost_vdpa",
        }
    }

    /// The kind of interface whose device it drives.
    pub fn kind(self) -> PortKind {
        match self {
            Self::VfioPci => PortKind::Sriov,
            Self::VirtioVdpa | Self::VhostVdpa => PortKind::Vdpa,
        }
    }
}

impl fmt::Display for DeviceDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no driver of a pod's device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no driver to choose: it is vfio-pci, virtio_vdpa or vhost_vdpa; or leave it out, for the one that has it"
)]
pub struct UnknownDriver(String);

impl FromStr for DeviceDriver {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        let found = Self::ALL.into_iter().find(|driver| driver.as_str() == text);
        found.ok_or_else(|| UnknownDriver(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_when_written_and_read_is_the_same() {
        for driver in DeviceDriver::ALL {
            assert_eq!(driver.as_str().parse(), Ok(driver));
            assert_eq!(serde_json::to_value(driver).unwrap(), driver.as_str());
            assert!(driver.kind().is_of_card());
        }
        for text in ["", "igb", "vfio_pci", "../vfio-pci"] {
            assert!(text.parse::<DeviceDriver>().unwrap_err().to_string().contains("vhost_vdpa"), "{text}");
        }
    }
}
