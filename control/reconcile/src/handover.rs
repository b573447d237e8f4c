//! How is a device of a card given to a pod, and taken back as it was?
//!
//! | kind, driver | given |
//! |---|---|
//! | `sriov` | the netdev of the virtual function, moved into the pod and configured |
//! | `sriov`, `vfio-pci` | the function, bound to vfio; the runtime's device plugin gives the pod the file of its group |
//! | `vdpa`, `virtio_vdpa` | the vDPA device of the function, its netdev moved into the pod and configured |
//! | `vdpa`, `vhost_vdpa` | the vDPA device of the function, its file owned |
//!
//! [`look`] changes nothing; what it found is stored before [`configure`] makes the first change, and is what [`take_back`]
//! brings back. As long as the device cannot be taken from its user, the card's settings stay: they keep the user in its
//! VLAN.

use model::{DeviceDriver, MacAddr, PortKind, VfConfig, VhostSocket, Vlan, VlanProtocol};

use crate::cards::{FunctionState, NetdevPlace, Restored, VdpaState, VfState};
use crate::kernel::{KernelError, ManagementDevice, NewVdpaDevice, Ownership, VdpaDriver};
use crate::parts::link_config;
use crate::record::{Attachment, CardDevice, CardState, VdpaPlace};
use crate::{Kernel, representor};

/// Looks at the device: whether the pod can have it, who is to drive it, which station address it has, and how it is to come
/// back. `vlan` is the network's.
pub(crate) fn look(
    kernel: &dyn Kernel,
    attachment: &mut Attachment,
    vlan: Option<u16>,
) -> Result<(), KernelError> {
    let Some(card) = &mut attachment.card else { return Ok(()) };
    let function = kernel.function(card.function)?;
    for note in &function.notes {
        tracing::warn!(attachment = %attachment.id, %note, "the card");
    }
    match &function.representor {
        // The pods of a network are in its VLAN, whoever puts them there. A network's VLAN is checked.
        None => card.settings.vlan = card.settings.vlan.or(vlan.and_then(untagged_into)),
        Some(found) => representor::refuse_settings(card, found)?,
    }
    refuse_settings(card, &function)?;
    let vdpa = if attachment.kind == PortKind::Vdpa {
        let (place, state) = look_at_bus(kernel, card)?;
        if function.representor.is_some() {
            fix_station(kernel, card, state.as_ref().map(|_| &place), &mut attachment.mac)?;
        }
        attachment.vdpa = Some(place);
        state
    } else {
        let vf = function.vf.as_ref().ok_or_else(|| not_virtual(card, "be given away as one"))?;
        let is_vfio = vf.driver.as_deref() == Some(DeviceDriver::VfioPci.as_str());
        card.driver = card.driver.or(is_vfio.then_some(DeviceDriver::VfioPci));
        choose_station(card, vf, &mut attachment.mac);
        None
    };
    card.before = Some(CardState { function, vdpa });
    Ok(())
}

/// The vDPA device of the function: the one that is there, as it is, or the one that is to be made.
fn look_at_bus(
    kernel: &dyn Kernel,
    card: &mut CardDevice,
) -> Result<(VdpaPlace, Option<VdpaState>), KernelError> {
    let (name, state) = match kernel.vdpa_of(card.function)? {
        Some((name, state)) => (name, Some(state)),
        None => (format!("mr-{}", card.function), None),
    };
    let had = state.as_ref().and_then(|state| state.driver);
    card.driver = card.driver.or(Some(had.map_or(DeviceDriver::VirtioVdpa, driven_by)));
    Ok((VdpaPlace::new(name), state))
}

/// Has the card enforce what is asked, and its representor pass what the port will be given.
pub(crate) fn configure(
    kernel: &dyn Kernel,
    attachment: &Attachment,
    card: &CardDevice,
) -> Result<(), KernelError> {
    if card.before.as_ref().is_some_and(|before| before.function.vf.is_some()) {
        kernel.configure_vf(card.function, &card.settings)?;
    }
    match attachment.representor() {
        Some(found) => kernel.set_representor(&representor::serving(attachment, found)),
        None => Ok(()),
    }
}

/// Gives the device to the pod, and describes it.
pub(crate) fn give(
    kernel: &dyn Kernel,
    attachment: &mut Attachment,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    let Some(driver) = attachment.card.as_ref().map(|card| card.driver) else { return Ok(()) };
    match driver {
        None => give_netdev(kernel, attachment)?,
        Some(DeviceDriver::VfioPci) => {
            if let Some(card) = &mut attachment.card {
                card.group = Some(kernel.bind_vfio(card.function)?);
            }
        }
        Some(DeviceDriver::VirtioVdpa) => give_vdpa_netdev(kernel, attachment)?,
        Some(DeviceDriver::VhostVdpa) => give_vdpa_file(kernel, attachment, socket)?,
    }
    match attachment.card.as_ref().and_then(|card| card.device_info.as_ref()) {
        Some(path) => {
            let readable = Ownership { uid: 0, gid: 0, mode: 0o644 };
            kernel.write_file(path, device_info(attachment).to_string().as_bytes(), readable)
        }
        None => Ok(()),
    }
}

/// Where what the card enforces differs from what it was told, one sentence each.
pub(crate) fn drift(kernel: &dyn Kernel, card: &CardDevice) -> Vec<String> {
    if card.before.as_ref().is_none_or(|before| before.function.vf.is_none()) {
        return Vec::new();
    }
    let now = match kernel.vf_settings(card.function) {
        Ok(now) => now,
        Err(error) => return vec![error.to_string()],
    };
    let asked = &card.settings;
    let settings = [
        ("mac", asked.mac.is_none_or(|mac| mac == now.mac)),
        ("vlan", asked.vlan.is_none_or(|vlan| vlan == now.vlan)),
        ("spoofchk", asked.spoof_check.is_none_or(|on| on == now.spoof_check)),
        ("trust", asked.trust.is_none_or(|on| on == now.trust)),
        ("link_state", asked.link_state.is_none_or(|state| state == now.link_state)),
        ("min_tx_rate", asked.min_tx_rate_mbps.is_none_or(|rate| rate == now.min_tx_rate_mbps)),
        ("max_tx_rate", asked.max_tx_rate_mbps.is_none_or(|rate| rate == now.max_tx_rate_mbps)),
    ];
    let changed = settings.into_iter().filter(|(_, is_so)| !is_so);
    changed.map(|(name, _)| format!("{name} of VF {} is not as the card was told", card.function)).collect()
}

/// Takes the device back, and makes it be as it was before. Never stops at an error, but where the pod still has the device.
pub(crate) fn take_back(kernel: &dyn Kernel, attachment: &Attachment, card: &CardDevice) -> Vec<KernelError> {
    let mut errors: Vec<_> =
        card.device_info.iter().filter_map(|path| kernel.remove_file(path).err()).collect();
    let Some(before) = &card.before else { return errors };
    if let Some(place) = &attachment.vdpa {
        let failed = match &before.vdpa {
            Some(earlier) => told(attachment, kernel.restore_vdpa(&place.device, earlier)),
            None => kernel.delete_vdpa_device(&place.device).err().into_iter().collect(),
        };
        if !failed.is_empty() {
            errors.extend(failed);
            return errors;
        }
    }
    if let Some(vf) = &before.function.vf {
        errors.extend(told(attachment, kernel.restore_vf(card.function, vf, &attachment.netns)));
    }
    errors
}

/// The driver of a card's device on the vDPA bus.
pub(crate) fn vdpa_driver(card: &CardDevice) -> Option<VdpaDriver> {
    match card.driver? {
        DeviceDriver::VfioPci => None,
        DeviceDriver::VirtioVdpa => Some(VdpaDriver::Virtio),
        DeviceDriver::VhostVdpa => Some(VdpaDriver::Vhost),
    }
}

fn driven_by(driver: VdpaDriver) -> DeviceDriver {
    match driver {
        VdpaDriver::Virtio => DeviceDriver::VirtioVdpa,
        VdpaDriver::Vhost => DeviceDriver::VhostVdpa,
    }
}

/// An address that is not asked for is the one that the function has; where it has none, that of the attachment. A program
/// has that of the card: with its netdev, the function loses the netdev's.
fn choose_station(card: &mut CardDevice, vf: &VfState, mac: &mut MacAddr) {
    if card.settings.mac.is_some() {
        return;
    }
    let of_card = Some(vf.settings.mac).filter(|mac| mac.is_unicast());
    let own = vf.netdev.as_ref().map(|netdev| netdev.mac).or(of_card);
    *mac = own.unwrap_or(*mac);
    if own.is_none() || card.driver == Some(DeviceDriver::VfioPci) {
        card.settings.mac = Some(*mac);
    }
}

/// The address has to be known before the device is the pod's: the port lets no other one through. It is that of the device
/// that is there, or the attachment's.
fn fix_station(
    kernel: &dyn Kernel,
    card: &mut CardDevice,
    there: Option<&VdpaPlace>,
    mac: &mut MacAddr,
) -> Result<(), KernelError> {
    if card.settings.mac.is_none() {
        let own = there.map(|place| kernel.vdpa_mac(&place.device)).transpose()?.flatten();
        *mac = own.unwrap_or(*mac);
        card.settings.mac = Some(*mac);
    }
    Ok(())
}

fn untagged_into(vlan: u16) -> Option<Vlan> {
    Vlan::new(vlan.into(), 0, VlanProtocol::Dot1q).ok()
}

fn refuse_settings(card: &CardDevice, function: &FunctionState) -> Result<(), KernelError> {
    // The address is the vDPA device's too.
    let others = VfConfig { mac: None, ..card.settings.clone() };
    if function.vf.is_some() || others == VfConfig::default() {
        return Ok(());
    }
    Err(not_virtual(card, "have vlan, spoofchk, trust, link_state or rates"))
}

fn not_virtual(card: &CardDevice, wanted: &str) -> KernelError {
    KernelError::Refused {
        doing: format!("PCI function {}: {wanted}", card.function),
        reason: "it is a physical function: choose one of its virtual ones (VFs), or another configuration and network"
            .to_owned(),
    }
}

fn give_netdev(kernel: &dyn Kernel, attachment: &Attachment) -> Result<(), KernelError> {
    let Some(card) = &attachment.card else { return Ok(()) };
    let place = NetdevPlace {
        netns: attachment.netns.clone(),
        name: attachment.id.interface.as_str().to_owned(),
        mac: Some(attachment.mac),
        mtu_bytes: Some(attachment.mtu_bytes),
    };
    kernel.give_vf_netdev(card.function, &place)?;
    kernel.configure_link(&attachment.netns, &link_config(attachment))
}

fn give_vdpa_netdev(kernel: &dyn Kernel, attachment: &mut Attachment) -> Result<(), KernelError> {
    // Its address is set of the netdev: not all makers of devices take one.
    let found = put_on_bus(kernel, attachment, VdpaDriver::Virtio, None)?;
    if let (Some(card), Some(mac)) = (&attachment.card, found)
        && card.settings.mac.is_none()
    {
        attachment.mac = mac;
    }
    if let Some(place) = &attachment.vdpa {
        kernel.adopt_vdpa_netdev(&place.device, &attachment.netns, attachment.id.interface.as_str())?;
    }
    kernel.configure_link(&attachment.netns, &link_config(attachment))
}

fn give_vdpa_file(
    kernel: &dyn Kernel,
    attachment: &mut Attachment,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    let asked = attachment.card.as_ref().and_then(|card| card.settings.mac);
    let found = put_on_bus(kernel, attachment, VdpaDriver::Vhost, asked)?;
    let Some(place) = &mut attachment.vdpa else { return Ok(()) };
    match (asked, found) {
        (Some(asked), found) if found != Some(asked) => {
            return Err(has_other_mac(&place.device, asked, found));
        }
        (_, found) => attachment.mac = found.unwrap_or(attachment.mac),
    }
    let ownership = Ownership { uid: socket.uid, gid: socket.gid, mode: socket.mode };
    let path = kernel.own_vhost_vdpa(&place.device, ownership)?;
    kernel.can_vhost(&path)?;
    place.path = Some(path);
    Ok(())
}

fn has_other_mac(device: &str, asked: MacAddr, found: Option<MacAddr>) -> KernelError {
    let found = found.map_or_else(|| "no address".to_owned(), |mac| format!("the address {mac}"));
    KernelError::Refused {
        doing: format!("vDPA device {device}: hand it to a program with the address {asked}"),
        reason: format!(
            "it has {found}: ask for no other, or `vdpa dev del {device}`, so that it is made as asked"
        ),
    }
}

/// Puts the device onto the bus, if it is not there, and gives it to its driver. Answers with its station address.
fn put_on_bus(
    kernel: &dyn Kernel,
    attachment: &Attachment,
    driver: VdpaDriver,
    mac: Option<MacAddr>,
) -> Result<Option<MacAddr>, KernelError> {
    let (Some(card), Some(place)) = (&attachment.card, &attachment.vdpa) else { return Ok(None) };
    let device = NewVdpaDevice {
        name: place.device.clone(),
        management: ManagementDevice::function(card.function),
        mac,
        mtu_bytes: None,
    };
    kernel.put_vdpa_device(&device)?;
    kernel.bind_vdpa_driver(&place.device, driver)?;
    kernel.vdpa_mac(&place.device)
}

/// NPWG device-info-spec 1.1.0 §4.
fn device_info(attachment: &Attachment) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(key.to_owned(), value.into());
        }
    };
    if let Some(place) = &attachment.vdpa {
        let driver = attachment.card.as_ref().and_then(vdpa_driver);
        let word = driver.map(|driver| if driver == VdpaDriver::Vhost { "vhost" } else { "virtio" });
        put("parent-device", Some(place.device.clone()));
        put("driver", word.map(str::to_owned));
        put("path", place.path.as_ref().map(|path| path.to_string_lossy().into_owned()));
    }
    if let Some(card) = &attachment.card {
        let function = card.before.as_ref().map(|before| &before.function);
        put("pci-address", Some(card.function.to_string()));
        put("pf-pci-address", function.and_then(|function| function.pf).map(|pf| pf.to_string()));
        put("representor-device", attachment.representor().map(|representor| representor.name.clone()));
    }
    let kind = if attachment.vdpa.is_some() { "vdpa" } else { "pci" };
    serde_json::json!({ "type": kind, "version": "1.1.0", kind: fields })
}

/// The errors; the notes go to the log.
fn told(attachment: &Attachment, restored: Restored) -> Vec<KernelError> {
    for note in restored.notes {
        tracing::info!(attachment = %attachment.id, %note, "taken back");
    }
    restored.errors
}
