//! The cards of the fake node: one with four virtual functions, one of them with vfio and one that has made a vDPA device; one that
//! is a switch, with three, the last of which can make a vDPA device; and a physical function that can.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::{MacAddr, PciAddress, VfConfig, VfLinkState, Vlan};

use super::world::{State, Vdpa, World, refused};
use crate::cards::{
    Cards, FunctionState, NetdevPlace, NetdevState, Representor, Restored, VdpaState, VfSettings, VfState,
};
use crate::kernel::{KernelError, LinkState, VdpaDriver};

/// Two functions with netdevs, one that vfio has, one whose vDPA device is there.
pub(crate) const VFS: [&str; 4] = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"];
/// Functions of a card that is a switch: two with netdevs, one that makes vDPA devices.
pub(crate) const SWITCHED: [&str; 3] = ["0000:03:10.0", "0000:03:10.2", "0000:03:10.4"];
/// A physical function, which makes vDPA devices.
pub(crate) const CARD: &str = "0000:02:00.0";
/// The vDPA device that is there.
pub(crate) const THERE: &str = "vdpa2";

/// A virtual function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vf {
    pub(crate) state: VfState,
    /// The namespace of its netdev; none: the node's.
    pub(crate) netns: Option<PathBuf>,
}

/// The functions, as nobody has changed them yet.
pub(crate) fn vfs() -> BTreeMap<PciAddress, Vf> {
    let settings = VfSettings {
        mac: MacAddr::default(),
        vlan: Vlan::default(),
        spoof_check: true,
        trust: false,
        link_state: VfLinkState::Auto,
        min_tx_rate_mbps: 0,
        max_tx_rate_mbps: 0,
    };
    let netdev = |number: usize| NetdevState {
        name: format!("ens1f0v{number}"),
        mac: MacAddr([2, 0, 0, 9, 0, number as u8]),
        mtu_bytes: 1500,
        up: false,
        promiscuous: false,
        all_multicast: false,
    };
    let vf = |(number, address): (usize, &&str)| {
        let (driver, netdev) = match number {
            2 => ("vfio-pci", None),
            3 | 6 => ("vp-vdpa", None),
            _ => ("igbvf", Some(netdev(number))),
        };
        let state = VfState {
            settings: settings.clone(),
            driver: Some(driver.to_owned()),
            driver_override: None,
            netdev,
        };
        (pci(address), Vf { state, netns: None })
    };
    VFS.iter().chain(&SWITCHED).enumerate().map(vf).collect()
}

/// The representors, as nobody has changed them yet.
pub(crate) fn representors() -> BTreeMap<PciAddress, Representor> {
    let representor = |(index, address): (u32, &&str)| {
        (pci(address), Representor { index, name: format!("ens3f0_{index}"), mtu_bytes: 1500, up: false })
    };
    (0..).zip(&SWITCHED).map(representor).collect()
}

/// The vDPA device that is there, as nobody has changed it yet.
pub(crate) fn there() -> Vdpa {
    Vdpa { function: Some(pci(VFS[3])), ..Vdpa::new(700, VdpaDriver::Vhost, false) }
}

pub(crate) fn pci(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn group(function: PciAddress) -> PathBuf {
    format!("/dev/vfio/{function}").into()
}

impl State {
    fn vf(&mut self, address: PciAddress) -> Result<&mut Vf, KernelError> {
        self.vfs.get_mut(&address).ok_or_else(|| refused("look for a VF", "there is none"))
    }

    /// Whether a program has the function.
    fn refuse_group(&self, function: PciAddress) -> Result<(), KernelError> {
        match self.opened.contains(&group(function)) {
            true => Err(refused("take the VF", "a program has its group open")),
            false => Ok(()),
        }
    }

    fn remove_link_of(&mut self, parent: PciAddress) {
        let parent = Some(parent.to_string());
        self.links.retain(|_, link| link.parent != parent);
    }
}

impl Cards for World {
    fn function(&self, function: PciAddress) -> Result<FunctionState, KernelError> {
        self.kernel("look at the function", |state| {
            if function == pci(CARD) {
                return Ok(FunctionState::default());
            }
            state.refuse_group(function)?;
            let vf = state.vf(function)?;
            if vf.netns.is_some() {
                return Err(refused("look at the VF", "another pod has it"));
            }
            Ok(FunctionState {
                vf: Some(vf.state.clone()),
                pf: Some(pci(if SWITCHED.map(pci).contains(&function) {
                    "0000:03:00.0"
                } else {
                    "0000:01:00.0"
                })),
                representor: state.representors.get(&function).cloned(),
                notes: Vec::new(),
            })
        })
    }

    fn function_driver(&self, function: PciAddress) -> Result<Option<String>, KernelError> {
        self.kernel("look at the driver", |state| Ok(state.vf(function)?.state.driver.clone()))
    }

    fn vf_settings(&self, vf: PciAddress) -> Result<VfSettings, KernelError> {
        self.kernel("read the settings", |state| Ok(state.vf(vf)?.state.settings.clone()))
    }

    fn configure_vf(&self, vf: PciAddress, asked: &VfConfig) -> Result<(), KernelError> {
        self.kernel("configure the VF", |state| {
            let settings = &mut state.vf(vf)?.state.settings;
            settings.mac = asked.mac.unwrap_or(settings.mac);
            settings.vlan = asked.vlan.unwrap_or(settings.vlan);
            settings.trust = asked.trust.unwrap_or(settings.trust);
            settings.spoof_check = asked.spoof_check.unwrap_or(settings.spoof_check);
            Ok(())
        })
    }

    fn representor(&self, vf: PciAddress) -> Result<Option<Representor>, KernelError> {
        self.kernel("look for the representor", |state| Ok(state.representors.get(&vf).cloned()))
    }

    fn set_representor(&self, wanted: &Representor) -> Result<(), KernelError> {
        self.kernel("set the representor", |state| {
            let mut all = state.representors.values_mut();
            let found = all.find(|found| found.index == wanted.index);
            let found = found.ok_or_else(|| refused("set the representor", "it is gone"))?;
            (found.mtu_bytes, found.up) = (wanted.mtu_bytes, wanted.up);
            Ok(())
        })
    }

    fn give_vf_netdev(&self, address: PciAddress, place: &NetdevPlace) -> Result<(), KernelError> {
        self.kernel("give the netdev", |state| {
            if !state.netns.contains(&place.netns) {
                return Err(KernelError::NoNetns(place.netns.clone()));
            }
            let key = (place.netns.clone(), place.name.clone());
            let taken = state.links.contains_key(&key);
            let vf = state.vf(address)?;
            match (&vf.netns, &vf.state.netdev) {
                (Some(netns), _) if *netns == place.netns => return Ok(()),
                (Some(_), _) => return Err(refused("give the netdev", "another pod has it")),
                (None, None) => return Err(refused("give the netdev", "its driver makes none")),
                (None, Some(_)) if taken => return Err(refused("give the netdev", "the name is taken")),
                (None, Some(_)) => vf.netns = Some(place.netns.clone()),
            }
            let link = LinkState {
                mac: place.mac.unwrap_or_default(),
                mtu_bytes: place.mtu_bytes.unwrap_or_default(),
                parent: Some(address.to_string()),
                ..LinkState::default()
            };
            state.links.insert(key, link);
            Ok(())
        })
    }

    fn bind_vfio(&self, address: PciAddress) -> Result<PathBuf, KernelError> {
        self.kernel("bind vfio", |state| {
            let vf = state.vf(address)?;
            assert_eq!(vf.netns, None, "the netdev is a pod's");
            vf.state.driver = Some("vfio-pci".to_owned());
            vf.state.driver_override = Some("vfio-pci".to_owned());
            vf.state.netdev = None;
            Ok(group(address))
        })
    }

    fn restore_vf(&self, address: PciAddress, before: &VfState, _: &Path) -> Restored {
        let restored = self.kernel("restore the VF", |state| {
            state.refuse_group(address)?;
            if state.vfs.contains_key(&address) {
                state.remove_link_of(address);
                state.vfs.insert(address, Vf { state: before.clone(), netns: None });
            }
            Ok(())
        });
        Restored { notes: Vec::new(), errors: restored.err().into_iter().collect() }
    }

    fn vdpa_of(&self, function: PciAddress) -> Result<Option<(String, VdpaState)>, KernelError> {
        self.kernel("look for the vDPA device", |state| {
            if ![CARD, VFS[3], SWITCHED[2]].map(pci).contains(&function) {
                return Err(refused("look for the vDPA device", "it makes none: modprobe mlx5_vdpa"));
            }
            let of_function = |(_, device): &(&String, &Vdpa)| device.function == Some(function);
            let Some((name, device)) = state.vdpa.iter().find(of_function) else { return Ok(None) };
            state.refuse_open(name)?;
            if device.place.0.is_some() {
                return Err(refused("look at the vDPA device", "another pod has it"));
            }
            Ok(Some((name.clone(), device.state())))
        })
    }

    fn vdpa_mac(&self, device: &str) -> Result<Option<MacAddr>, KernelError> {
        self.kernel("read the configuration", |state| {
            let device = state.vdpa.get(device).ok_or_else(|| refused("read", "it is not on the bus"))?;
            Ok(Some(device.mac))
        })
    }

    fn can_vhost(&self, _: &Path) -> Result<(), KernelError> {
        self.kernel("open the file", |state| match state.no_iommu {
            true => Err(refused("open the file", "its card has no IOMMU (error 524)")),
            false => Ok(()),
        })
    }

    fn restore_vdpa(&self, device: &str, before: &VdpaState) -> Restored {
        let restored = self.kernel("restore the vDPA device", |state| {
            state.refuse_open(device)?;
            let Some(function) = state.vdpa.get(device).map(|device| device.function) else { return Ok(()) };
            state.remove_vdpa(device);
            state.serial += 1;
            let driver = before.driver.expect("the one that is there has a driver");
            let mut made = Vdpa { function, ..Vdpa::new(state.serial, driver, false) };
            made.driver_override.clone_from(&before.driver_override);
            state.vdpa.insert(device.to_owned(), made);
            Ok(())
        });
        Restored { notes: Vec::new(), errors: restored.err().into_iter().collect() }
    }
}
