//! What is one VDUSE port, as control asks for it, and which device is that?

use std::io;

use vduse::{
    Control, Device, DeviceConfig, DeviceId, DeviceName, Error, QueueProblem, VqConfig, VqGroups, feature,
};
use wire::MacAddr;

use crate::virtio::Features;
use crate::virtio::config::NetConfig;

/// The driver's receive queue and its transmit queue (virtio 1.2 §5.1.2).
pub(super) const RECEIVE: u32 = 0;
pub(super) const TRANSMIT: u32 = 1;
const QUEUES: [u32; 2] = [RECEIVE, TRANSMIT];
/// Chains of each ring. A large TCP segment to a netdev takes some forty of them.
const RING_SIZE: u16 = 1024;
/// Rings begin on pages of their own.
const RING_ALIGN: u32 = 4096;
/// Of the virtio PCI devices, so that programs which look for virtio by vendor find it.
const VENDOR_ID: u32 = 0x1af4;

/// One VDUSE port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VduseSpec {
    /// The device's name: `/dev/vduse/NAME`.
    pub name: String,
    /// The address that the device's configuration space shows; `None` leaves it to the driver.
    pub mac: Option<MacAddr>,
    /// The largest IP packet, shown in the configuration space; 0 shows none.
    pub mtu_bytes: u16,
}

/// Why a VDUSE port was not opened. A device that had to be created is gone again.
#[derive(Debug, thiserror::Error)]
pub enum VduseError {
    /// No device can have that name.
    #[error("{name:?} cannot be the name of a VDUSE device: {source}")]
    Name {
        /// As asked for.
        name: String,
        /// What is wrong with it.
        source: vduse::NameError,
    },
    /// VDUSE: what it is about and the remedy are in its text.
    #[error(transparent)]
    Vduse(#[from] Error),
    /// The kernel has no descriptor left.
    #[error("VDUSE port: {0}")]
    Descriptors(#[from] io::Error),
}

/// What every port offers, apart from what its configuration space shows.
fn offered() -> u64 {
    let several_queues = Features::MQ.0;
    // A legacy matter, and this device has no legacy.
    let any_layout = Features::ANY_LAYOUT.0;
    Features::OFFERED.0 & !(several_queues | any_layout) | feature::ACCESS_PLATFORM
}

/// Opens the device that is there, or creates it.
pub(super) fn device(spec: &VduseSpec) -> Result<Device, VduseError> {
    let named = DeviceName::new(spec.name.clone());
    let name = named.map_err(|source| VduseError::Name { name: spec.name.clone(), source })?;
    match Device::open(&name) {
        Ok(device) if device.is_broken()? => {
            drop(device);
            Control::open()?.destroy_dev(&name)?;
            create(spec, &name)
        }
        Ok(device) => {
            // A predecessor may have been killed before it came to this.
            match set_up(&device) {
                Err(Error::Queue { problem: QueueProblem::Setup, .. }) | Ok(()) => Ok(device),
                Err(error) => Err(error.into()),
            }
        }
        Err(Error::NotFound(_)) => create(spec, &name),
        Err(error) => Err(error.into()),
    }
}

fn create(spec: &VduseSpec, name: &DeviceName) -> Result<Device, VduseError> {
    let shown = NetConfig { mac: spec.mac, queue_pairs: 1, mtu_bytes: spec.mtu_bytes };
    let control = Control::open()?;
    control.create_dev(&DeviceConfig {
        name: name.clone(),
        vendor_id: VENDOR_ID,
        device_id: DeviceId::NET,
        features: offered() | shown.features(),
        vq_num: QUEUES.len() as u16,
        vq_align: RING_ALIGN,
        groups: VqGroups::ONE,
        config: shown.bytes().to_vec(),
    })?;
    let opened = Device::open(name).and_then(|device| set_up(&device).map(|()| device));
    if opened.is_err() {
        // Why it was not opened is the better news.
        let _ = control.destroy_dev(name);
    }
    Ok(opened?)
}

/// Sets up the queues that no driver has made ready.
fn set_up(device: &Device) -> Result<(), Error> {
    for index in QUEUES {
        if !device.vq_get_info(index)?.ready {
            device.vq_setup(VqConfig::new(index, RING_SIZE))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_has_what_the_kernel_demands_and_not_what_it_refuses() {
        let offered = offered();
        for wanted in
            [feature::ACCESS_PLATFORM, feature::VERSION_1, Features::HOST_TSO4.0, Features::MRG_RXBUF.0]
        {
            assert_eq!(offered & wanted, wanted, "{wanted:#x}");
        }
        assert_eq!(offered & (feature::NET_CTRL_VQ | feature::RING_PACKED | Features::MQ.0), 0);
    }

    #[test]
    fn a_name_that_no_device_can_have_is_refused_by_name() {
        let spec = VduseSpec { name: "../control".into(), mac: None, mtu_bytes: 0 };
        let error = device(&spec).unwrap_err();
        assert!(
            matches!(error, VduseError::Name { .. }) && error.to_string().contains("../control"),
            "{error}"
        );
    }
}
