//! What has an attachment of each kind besides its port?
//!
//! | kind | before the port | behind it |
//! |---|---|---|
//! | `tap` | | the netdev, which the port made in the pod, configured |
//! | `vduse` | | the device on the vDPA bus, its netdev moved into the pod and configured |
//! | `vhost-user` | the directory | the files that describe the socket, the mount |
//! | `vdpa-vhost` | the directory | the device on the vDPA bus, its file owned; the files that describe it, the mount |
//! | `sriov`, `vdpa` | what the card is to enforce | no port, but a device of a card ([`handover`]) |
//!
//! Going back is the exact reverse: a vDPA device leaves the bus while the switch still answers for it, and VDUSE's device
//! goes after the switch has let go of it.

use model::{PortKind, VhostSocket};

use crate::kernel::{KernelError, LinkConfig, ManagementDevice, NewVdpaDevice, Ownership, VdpaDriver};
use crate::record::Attachment;
use crate::{Kernel, choice, handover, representor, vhost};

/// Makes what has to be there before the port.
pub(crate) fn prepare(
    kernel: &dyn Kernel,
    attachment: &Attachment,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    match (&attachment.card, &attachment.vhost) {
        (Some(card), _) => handover::configure(kernel, attachment, card),
        (None, Some(files)) => vhost::make_directory(kernel, files, socket),
        (None, None) => Ok(()),
    }
}

/// Makes what comes behind the port. Done again, it finds all as it is to be, or makes it so.
pub(crate) fn finish(
    kernel: &dyn Kernel,
    attachment: &mut Attachment,
    socket: VhostSocket,
) -> Result<(), KernelError> {
    if attachment.card.is_some() {
        return handover::give(kernel, attachment, socket);
    }
    put_on_bus(kernel, attachment)?;
    if attachment.kind == PortKind::VdpaVhost
        && let Some(place) = &mut attachment.vdpa
    {
        let ownership = Ownership { uid: socket.uid, gid: socket.gid, mode: socket.mode };
        place.path = Some(kernel.own_vhost_vdpa(&place.device, ownership)?);
    }
    if attachment.kind == PortKind::Vduse
        && let Some(place) = &attachment.vdpa
    {
        kernel.adopt_vdpa_netdev(&place.device, &attachment.netns, attachment.id.interface.as_str())?;
    }
    match &attachment.vhost {
        None => kernel.configure_link(&attachment.netns, &link_config(attachment)),
        Some(files) => vhost::hand_over(kernel, attachment, files, socket),
    }
}

/// Takes back what the pod has, while the port is still there. `last`: no other interface of the container has its files in
/// the directory. Never stops at an error.
pub(crate) fn withdraw(kernel: &dyn Kernel, attachment: &Attachment, last: bool) -> Vec<KernelError> {
    if let Some(card) = &attachment.card {
        return handover::take_back(kernel, attachment, card);
    }
    let mut errors = Vec::new();
    if let Some(files) = &attachment.vhost {
        errors.extend(vhost::take_back(kernel, files, last));
    }
    if let Some(place) = &attachment.vdpa {
        errors.extend(kernel.delete_vdpa_device(&place.device).err());
    }
    errors
}

/// Removes what the port leaves behind where the switch is away, and what was there before it. `inherited`: what is now in
/// the pod's place is another's. Never stops at an error.
pub(crate) fn clear(
    kernel: &dyn Kernel,
    attachment: &Attachment,
    last: bool,
    inherited: bool,
) -> Vec<KernelError> {
    let mut errors: Vec<_> = representor::leave(kernel, attachment).err().into_iter().collect();
    if attachment.kind == PortKind::Tap && !inherited {
        errors.extend(kernel.delete_link(&attachment.netns, attachment.id.interface.as_str()).err());
    }
    if let Some(place) = attachment.vdpa.as_ref().filter(|_| attachment.kind.is_vduse()) {
        errors.extend(kernel.destroy_vduse(&place.device).err());
    }
    if let Some(files) = &attachment.vhost {
        errors.extend(vhost::remove_directory(kernel, files, last));
    }
    errors
}

/// The driver of the attachment's device, if that is one of the vDPA bus.
pub(crate) fn driver(attachment: &Attachment) -> Option<VdpaDriver> {
    attachment.card.as_ref().map_or_else(|| choice::driver(attachment.kind), handover::vdpa_driver)
}

/// Whether the attachment's device is on the vDPA bus and its driver uses it. True of kinds that have none.
pub(crate) fn is_on_bus(kernel: &dyn Kernel, attachment: &Attachment) -> Result<bool, KernelError> {
    let (Some(place), Some(driver)) = (&attachment.vdpa, driver(attachment)) else {
        return Ok(true);
    };
    Ok(kernel.vdpa_device(&place.device)?.is_some_and(|device| device.serves(driver)))
}

/// The device of a kernel pod, as it is to be.
pub(crate) fn link_config(attachment: &Attachment) -> LinkConfig {
    LinkConfig {
        name: attachment.id.interface.as_str().to_owned(),
        mac: attachment.mac,
        mtu_bytes: attachment.mtu_bytes,
        addresses: attachment.addresses.iter().map(|address| address.net).collect(),
        routes: attachment.routes.clone(),
    }
}

fn put_on_bus(kernel: &dyn Kernel, attachment: &Attachment) -> Result<(), KernelError> {
    let (Some(place), Some(driver)) = (&attachment.vdpa, choice::driver(attachment.kind)) else {
        return Ok(());
    };
    // Its station address and MTU are in its configuration space already: the switch wrote them there.
    let device = NewVdpaDevice {
        name: place.device.clone(),
        management: ManagementDevice::vduse(),
        mac: None,
        mtu_bytes: None,
    };
    kernel.put_vdpa_device(&device)?;
    kernel.bind_vdpa_driver(&place.device, driver)
}
