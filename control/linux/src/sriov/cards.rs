//! [`reconcile::Cards`] on a real kernel.

use std::path::{Path, PathBuf};

use model::{MacAddr, PciAddress, VfConfig};
use reconcile::Cards;
use reconcile::cards::{FunctionState, NetdevPlace, Representor, Restored, VdpaState, VfSettings, VfState};
use reconcile::kernel::KernelError;

use super::sysfs::Sysfs;
use super::vf::Vf;
use super::{card, representor, restore, vdpa};
use crate::{Linux, refused};

impl Cards for Linux {
    fn function(&self, function: PciAddress) -> Result<FunctionState, KernelError> {
        let sysfs = Sysfs::of_kernel();
        let doing = || format!("PCI function {function}: look at it");
        let pf = sysfs.physical(function).map_err(|error| refused(doing(), &error))?;
        if pf.is_none() && sysfs.exists(function) {
            return Ok(FunctionState::default());
        }
        let vf = Vf::find(function)?;
        let is_down = || {
            let pf = &vf.pf_netdev;
            format!(
                "{vf}: {pf} is down, with which most cards pass nothing of their VFs: `ip link set {pf} up`"
            )
        };
        Ok(FunctionState {
            vf: Some(vf.state()?),
            pf,
            representor: vf.representor()?,
            notes: (!vf.pf_is_up).then(is_down).into_iter().collect(),
        })
    }

    fn function_driver(&self, function: PciAddress) -> Result<Option<String>, KernelError> {
        let driver = Sysfs::of_kernel().driver(function);
        driver.map_err(|error| refused(format!("PCI function {function}: look for its driver"), &error))
    }

    fn vf_settings(&self, vf: PciAddress) -> Result<VfSettings, KernelError> {
        Vf::find(vf)?.settings()
    }

    fn configure_vf(&self, vf: PciAddress, settings: &VfConfig) -> Result<(), KernelError> {
        Vf::find(vf)?.configure(settings)
    }

    fn representor(&self, vf: PciAddress) -> Result<Option<Representor>, KernelError> {
        Vf::look(vf)?.map_or(Ok(None), |vf| vf.representor())
    }

    fn set_representor(&self, wanted: &Representor) -> Result<(), KernelError> {
        representor::set(wanted)
    }

    fn give_vf_netdev(&self, vf: PciAddress, place: &NetdevPlace) -> Result<(), KernelError> {
        Vf::find(vf)?.give_netdev(place)
    }

    fn bind_vfio(&self, vf: PciAddress) -> Result<PathBuf, KernelError> {
        Vf::find(vf)?.bind_vfio()
    }

    fn restore_vf(&self, vf: PciAddress, before: &VfState, netns: &Path) -> Restored {
        restore(vf, before, Some(netns))
    }

    fn vdpa_of(&self, function: PciAddress) -> Result<Option<(String, VdpaState)>, KernelError> {
        let maker = card::vdpa_maker(function)?;
        let devices = crate::vdpa::devices()?;
        let Some(listed) = devices.into_iter().find(|listed| listed.management == maker.management) else {
            return Ok(None);
        };
        vdpa::state(&listed.name).map(|state| Some((listed.name, state)))
    }

    fn vdpa_mac(&self, device: &str) -> Result<Option<MacAddr>, KernelError> {
        crate::vdpa::mac(device)
    }

    fn can_vhost(&self, file: &Path) -> Result<(), KernelError> {
        card::can_vhost(file)
    }

    fn restore_vdpa(&self, device: &str, before: &VdpaState) -> Restored {
        vdpa::restore(device, before)
    }
}
