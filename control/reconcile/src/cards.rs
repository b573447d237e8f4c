//! What does control ask of the node's network cards, and what must it remember of them? The part of the kernel's rim by
//! which their functions are given to pods and taken back.
//!
//! As of [`crate::kernel`], every operation is idempotent.

use std::path::{Path, PathBuf};

use model::{MacAddr, PciAddress, VfConfig, VfLinkState, Vlan};
use serde::{Deserialize, Serialize};

use crate::kernel::{KernelError, VdpaDriver};

/// A function of a card, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionState {
    /// What is behind it, if it is a virtual one.
    pub vf: Option<VfState>,
    /// The physical function of a virtual one.
    pub pf: Option<PciAddress>,
    /// What stands for it on the node, where the card is a switch.
    pub representor: Option<Representor>,
    /// What a person may want to know of it, for the log.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The netdev on the node that stands for a virtual function, where the card is a switch (switchdev mode): what the function
/// sends comes out of it, and what is sent by it comes to the function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Representor {
    /// Its number, which tells it from a later one of its name.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Administratively up.
    pub up: bool,
}

/// A virtual function as it was found. It belongs into the attachment's record before the first change, and is not read
/// anew as long as that exists: what is found then is what the attachment made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfState {
    /// What the card enforces.
    pub settings: VfSettings,
    /// The driver that had it; none: it was free.
    pub driver: Option<String>,
    /// The one driver that was allowed to have it; none: any.
    pub driver_override: Option<String>,
    /// Its netdev; none: its driver made none.
    pub netdev: Option<NetdevState>,
}

/// What the card enforces on a virtual function, as its physical function tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfSettings {
    /// The address; zero: the function has the choice.
    pub mac: MacAddr,
    /// The VLAN.
    pub vlan: Vlan,
    /// Frames from other addresses are dropped.
    pub spoof_check: bool,
    /// It may do what only the node may else.
    pub trust: bool,
    /// Its link.
    pub link_state: VfLinkState,
    /// What it may send at least, in Mbit/s; 0: nothing is kept for it.
    pub min_tx_rate_mbps: u32,
    /// What it may send at most, in Mbit/s; 0: no limit.
    pub max_tx_rate_mbps: u32,
}

/// The netdev of a virtual function, on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdevState {
    /// Its name.
    pub name: String,
    /// The address it used.
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Administratively up.
    pub up: bool,
    /// It took frames to anybody.
    pub promiscuous: bool,
    /// It took frames to any group.
    pub all_multicast: bool,
}

/// A vDPA device of a card that was there before the attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdpaState {
    /// Who drove it, if somebody did.
    pub driver: Option<VdpaDriver>,
    /// The one driver that was allowed to; none: any.
    pub driver_override: Option<String>,
    /// Its netdev, on the node; none: its driver made none.
    pub netdev: Option<NetdevState>,
}

/// Where the netdev of a virtual function is to be, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetdevPlace {
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Its name there.
    pub name: String,
    /// Its address; none: the one it has.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; none: as it is.
    pub mtu_bytes: Option<u32>,
}

/// What came of bringing a device back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// What a person may want to know, and nobody needs to do again.
    pub notes: Vec<String>,
    /// What is not as it was. Asked again, it is tried again.
    pub errors: Vec<KernelError>,
}

impl Restored {
    /// Adds what is not there yet: what was tried twice is told once.
    pub fn add(&mut self, errors: impl IntoIterator<Item = KernelError>) {
        for error in errors {
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }
}

/// The node's cards, as control needs them. Calls may take seconds: a driver starts, or a namespace ends.
pub trait Cards: Send + Sync {
    /// The function as it is, before its attachment changes it.
    ///
    /// # Errors
    /// There is none, somebody uses it (a program, another namespace, a bridge or bond), or its card does not tell.
    fn function(&self, function: PciAddress) -> Result<FunctionState, KernelError>;

    /// The driver that has the function.
    ///
    /// # Errors
    /// The system refuses to tell.
    fn function_driver(&self, function: PciAddress) -> Result<Option<String>, KernelError>;

    /// What the card enforces on a virtual function now.
    ///
    /// # Errors
    /// There is none, or its card does not tell.
    fn vf_settings(&self, vf: PciAddress) -> Result<VfSettings, KernelError>;

    /// Has the card enforce what is given, each setting by itself.
    ///
    /// # Errors
    /// The first that the card refuses, by its name in the configuration.
    fn configure_vf(&self, vf: PciAddress, settings: &VfConfig) -> Result<(), KernelError>;

    /// The representor of a virtual function, as it is. None where the card is no switch, or the function is gone.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    fn representor(&self, vf: PciAddress) -> Result<Option<Representor>, KernelError>;

    /// Makes a representor, which goes by its number, have the MTU and be up, or not, as `wanted` says.
    ///
    /// # Errors
    /// It is gone, or its driver does not take the MTU.
    fn set_representor(&self, wanted: &Representor) -> Result<(), KernelError>;

    /// Moves the netdev of a virtual function into a pod. It is down there and has no addresses. It may be there already.
    ///
    /// # Errors
    /// [`KernelError::NoNetns`]; it has none, another namespace has it, or its name is taken.
    fn give_vf_netdev(&self, vf: PciAddress, place: &NetdevPlace) -> Result<(), KernelError>;

    /// Gives a virtual function to vfio, and answers with the file of its group.
    ///
    /// # Errors
    /// There is no IOMMU, the driver is not loaded, or somebody uses the function or another one of its group.
    fn bind_vfio(&self, vf: PciAddress) -> Result<PathBuf, KernelError>;

    /// Makes a virtual function be as it was, wherever between that and its use in the namespace `netns` it is now. A
    /// function that is gone needs nothing.
    fn restore_vf(&self, vf: PciAddress, before: &VfState, netns: &Path) -> Restored;

    /// The vDPA device that the function has made, by name, and how it is before its attachment changes it.
    ///
    /// # Errors
    /// The function makes none, or somebody uses the device.
    fn vdpa_of(&self, function: PciAddress) -> Result<Option<(String, VdpaState)>, KernelError>;

    /// The station address in the configuration of a vDPA device; none: it has none.
    ///
    /// # Errors
    /// The device is not there, or the kernel refuses to tell.
    fn vdpa_mac(&self, device: &str) -> Result<Option<MacAddr>, KernelError>;

    /// Whether a program can use the vDPA device of a card behind `file`. One that a program has open is good.
    ///
    /// # Errors
    /// There is no IOMMU, or the system refuses.
    fn can_vhost(&self, file: &Path) -> Result<(), KernelError>;

    /// Makes a vDPA device that was there before be as it was. One that is gone needs nothing.
    fn restore_vdpa(&self, device: &str, before: &VdpaState) -> Restored;
}

#[cfg(test)]
mod tests {
    use model::VlanProtocol;

    use super::*;

    #[test]
    fn serde_when_written_and_read_forgets_nothing() {
        let state = VfState {
            settings: VfSettings {
                mac: MacAddr([2, 0, 0, 0, 0, 1]),
                vlan: Vlan::new(5, 3, VlanProtocol::Dot1ad).unwrap(),
                spoof_check: true,
                trust: false,
                link_state: VfLinkState::Disable,
                min_tx_rate_mbps: 1,
                max_tx_rate_mbps: 2,
            },
            driver: Some("igbvf".into()),
            driver_override: None,
            netdev: Some(NetdevState {
                name: "eth2".into(),
                mac: MacAddr([2, 0, 0, 0, 0, 2]),
                mtu_bytes: 1500,
                up: true,
                promiscuous: false,
                all_multicast: true,
            }),
        };
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<VfState>(&json).unwrap(), state);
    }
}
