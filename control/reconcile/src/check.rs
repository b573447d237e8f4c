//! Is an attachment still as it was made?

use std::path::Path;

use model::{AttachmentId, PortKind};

use crate::kernel::{LinkConfig, LinkState, VdpaDevice};
use crate::parts::link_config;
use crate::record::{Attachment, State, VdpaPlace};
use crate::{Engine, choice};

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
        match attachment.kind {
            PortKind::Tap | PortKind::Vduse => self.check_link(&attachment, device.as_ref(), &mut drift),
            PortKind::VhostUser | PortKind::VdpaVhost => self.check_files(&attachment, &mut drift),
        }
        self.check_port(&attachment, &mut drift);
        if drift.is_empty() { Ok(attachment) } else { Err(drift) }
    }

    fn check_port(&self, attachment: &Attachment, drift: &mut Vec<String>) {
        match self.rim().datapath.ports() {
            Ok(ports) if ports.contains(&vswitch::program::PortNo(attachment.port)) => {}
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
        let driver = choice::driver(attachment.kind)?;
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

    fn check_link(&self, attachment: &Attachment, device: Option<&VdpaDevice>, drift: &mut Vec<String>) {
        let wanted = link_config(attachment);
        match self.rim().kernel.link(&attachment.netns, &wanted.name) {
            Ok(Some(state)) => {
                compare(&wanted, &state, drift);
                if device.is_some_and(|device| device.virtio != state.parent) {
                    drift.push(format!("{} is not the netdev of the attachment's vDPA device", wanted.name));
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
