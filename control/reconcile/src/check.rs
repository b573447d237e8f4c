//! Is an attachment still as it was made?

use std::path::Path;

use model::{AttachmentId, DeviceDriver, PortKind};
use vswitch::program::PortNo;

use crate::kernel::{LinkConfig, LinkState, VdpaDevice};
use crate::parts::{self, link_config};
use crate::record::{Attachment, CardDevice, State, VdpaPlace};
use crate::{Engine, handover, representor};

impl Engine {
    /// CHECK: the attachment, if it is as it was made.
    ///
    /// # Errors
    /// One sentence for each thing that is not.
    pub fn check(&self, id: &AttachmentId, netns: &Path) -> Result<Attachment, Vec<String>> {
        let Some(attachment) = self.find(id) else {
            return Err(vec![format!("{id} is not attached: remove the container and start it again")]);
        };
        let mut drift = Vec::new();
        if attachment.state != State::Ready {
            drift.push(format!("{id} is {}, not ready", attachment.state.as_str()));
        }
        if attachment.netns != netns {
            drift.push(format!("{id} is in {}, not in {}", attachment.netns.display(), netns.display()));
        }
        let device =
            attachment.vdpa.as_ref().and_then(|place| self.check_device(&attachment, place, &mut drift));
        let virtio = device.and_then(|device| device.virtio);
        match (attachment.kind, &attachment.card) {
            (_, Some(card)) => self.check_card(&attachment, card, virtio.as_deref(), &mut drift),
            (PortKind::VhostUser | PortKind::VdpaVhost, None) => self.check_files(&attachment, &mut drift),
            (_, None) => self.check_link(&attachment, virtio.as_deref(), &mut drift),
        }
        if let Some(number) = attachment.port {
            self.check_port(&attachment, PortNo(number), &mut drift);
        }
        if drift.is_empty() { Ok(attachment) } else { Err(drift) }
    }

    /// What the card enforces; and the netdev of its device in the pod, or that a program has the device still.
    fn check_card(
        &self,
        attachment: &Attachment,
        card: &CardDevice,
        virtio: Option<&str>,
        drift: &mut Vec<String>,
    ) {
        let kernel = &*self.rim().kernel;
        drift.extend(handover::drift(kernel, card));
        drift.extend(representor::drift(kernel, attachment));
        match card.driver {
            None => self.check_link(attachment, Some(&card.function.to_string()), drift),
            Some(DeviceDriver::VirtioVdpa) => self.check_link(attachment, virtio, drift),
            // The bus was looked at.
            Some(DeviceDriver::VhostVdpa) => {}
            Some(wanted @ DeviceDriver::VfioPci) => match self.rim().kernel.function_driver(card.function) {
                Ok(driver) if driver.as_deref() == Some(wanted.as_str()) => {}
                Ok(_) => drift.push(format!("{wanted} does not drive the PCI function {}", card.function)),
                Err(error) => drift.push(error.to_string()),
            },
        }
    }

    fn check_port(&self, attachment: &Attachment, number: PortNo, drift: &mut Vec<String>) {
        match self.rim().datapath.ports() {
            Ok(ports) if ports.contains(&number) => {}
            Ok(_) => drift.push(format!("the switch has no port {:?}: see its log", attachment.port_name())),
            Err(error) => drift.push(error.to_string()),
        }
    }

    fn check_files(&self, attachment: &Attachment, drift: &mut Vec<String>) {
        let Some(files) = &attachment.vhost else { return };
        if !self.rim().kernel.is_dir(&files.dir) {
            drift.push(format!("the socket's directory {} is gone", files.dir.display()));
        }
    }

    /// The device on the vDPA bus, if it is as it is to be.
    fn check_device(
        &self,
        attachment: &Attachment,
        place: &VdpaPlace,
        drift: &mut Vec<String>,
    ) -> Option<VdpaDevice> {
        let name = &place.device;
        let driver = parts::driver(attachment)?;
        match self.rim().kernel.vdpa_device(name) {
            Ok(None) => drift.push(format!("the device {name} is gone from the vDPA bus")),
            Ok(Some(device)) if !device.serves(driver) => {
                drift.push(format!("{} does not drive the vDPA device {name}", driver.as_str()));
            }
            Ok(Some(device)) if place.path.is_some() && device.path != place.path => {
                let path = |path: &Option<std::path::PathBuf>| {
                    path.as_deref().unwrap_or(Path::new("nothing")).display().to_string()
                };
                drift.push(format!(
                    "the vDPA device {name} is {}, not {}",
                    path(&device.path),
                    path(&place.path)
                ));
            }
            Ok(Some(device)) => return Some(device),
            Err(error) => drift.push(error.to_string()),
        }
        None
    }

    /// The netdev in the pod, which belongs to `parent` where that is known.
    fn check_link(&self, attachment: &Attachment, parent: Option<&str>, drift: &mut Vec<String>) {
        let wanted = link_config(attachment);
        match self.rim().kernel.link(&attachment.netns, &wanted.name) {
            Ok(Some(state)) => {
                compare(&wanted, &state, drift);
                if parent.is_some() && parent != state.parent.as_deref() {
                    drift.push(format!("{} is not the netdev of the attachment's device", wanted.name));
                }
            }
            Ok(None) => {
                drift.push(format!("the device {} is gone from {}", wanted.name, attachment.netns.display()))
            }
            Err(error) => drift.push(error.to_string()),
        }
    }
}

fn compare(wanted: &LinkConfig, state: &LinkState, drift: &mut Vec<String>) {
    let name = &wanted.name;
    if !state.up {
        drift.push(format!("{name} is down"));
    }
    if state.mac != wanted.mac {
        drift.push(format!("{name} has MAC {}, not {}", state.mac, wanted.mac));
    }
    if state.mtu_bytes != wanted.mtu_bytes {
        drift.push(format!("{name} has MTU {}, not {}", state.mtu_bytes, wanted.mtu_bytes));
    }
    let missing = wanted.addresses.iter().filter(|address| !state.addresses.contains(address));
    drift.extend(missing.map(|address| format!("{name} lacks address {address}")));
    let missing = wanted.routes.iter().filter(|route| !state.routes.contains(route));
    drift.extend(missing.map(|route| format!("{name} lacks the route to {}", route.destination)));
}
