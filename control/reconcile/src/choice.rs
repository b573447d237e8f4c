//! Which kind of interface does a pod get, and why?
//!
//! What the pod asks for, else what the network says; and where that is `auto`, the device that the runtime gives the pod;
//! without one, a netdev of VDUSE if the kernel can make one, else a TAP. The answer is kept with the attachment: a node that learns VDUSE later changes nothing that is there.

use model::{DeviceRequest, KindChoice, NetworkSpec, PortKind};

use crate::Kernel;
use crate::desired::{AddRequest, ReserveError};
use crate::kernel::VdpaDriver;
use crate::record::Attachment;

/// The kind of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Which.
    pub kind: PortKind,
    /// Why, in words.
    pub reason: String,
}

/// Chooses the kind of what `request` asks for in `network`.
pub(crate) fn choose(
    kernel: &dyn Kernel,
    request: &AddRequest,
    network: &NetworkSpec,
) -> Result<Chosen, ReserveError> {
    let by = if request.kind.is_some() { "the CNI configuration" } else { "the network" };
    let chosen = match (request.kind.unwrap_or(network.port_kind), &request.device) {
        (KindChoice::Auto, None) => return Ok(best(kernel, network)),
        (KindChoice::Auto, Some(device)) => given(device),
        (KindChoice::Only(kind), _) => Chosen { kind, reason: format!("{by} asks for it") },
    };
    require(kernel, chosen.kind, network)?;
    require_device(chosen.kind, request)?;
    Ok(chosen)
}

/// The driver of a kind's device of VDUSE.
pub(crate) fn driver(kind: PortKind) -> Option<VdpaDriver> {
    match kind {
        PortKind::Vduse => Some(VdpaDriver::Virtio),
        PortKind::VdpaVhost => Some(VdpaDriver::Vhost),
        PortKind::Tap | PortKind::VhostUser | PortKind::Sriov | PortKind::Vdpa => None,
    }
}

fn given(device: &DeviceRequest) -> Chosen {
    let kind = device.driver.map_or(PortKind::Sriov, model::DeviceDriver::kind);
    Chosen { kind, reason: format!("auto: the runtime gives the pod {}", device.function) }
}

fn best(kernel: &dyn Kernel, network: &NetworkSpec) -> Chosen {
    let tap = |reason: String| Chosen { kind: PortKind::Tap, reason: format!("auto: {reason}") };
    if network.queues > 1 {
        return tap(format!("the network has queues: {}, VDUSE one queue pair", network.queues));
    }
    match kernel.can_vduse(VdpaDriver::Virtio) {
        Ok(()) => Chosen { kind: PortKind::Vduse, reason: "auto: the kernel has VDUSE".to_owned() },
        Err(reason) => tap(reason),
    }
}

fn require(kernel: &dyn Kernel, kind: PortKind, network: &NetworkSpec) -> Result<(), ReserveError> {
    let Some(driver) = driver(kind) else { return Ok(()) };
    if network.queues > 1 {
        let (network, queues) = (network.name.clone(), network.queues);
        return Err(ReserveError::QueuesOfKind { kind, network, queues });
    }
    kernel.can_vduse(driver).map_err(|reason| ReserveError::KindNotHere { kind, reason })
}

/// A device of a card is asked for, and the kind is one of those; or neither.
fn require_device(kind: PortKind, request: &AddRequest) -> Result<(), ReserveError> {
    match &request.device {
        None if kind.is_of_card() => Err(ReserveError::NoDevice(kind)),
        None => Ok(()),
        Some(device) if !kind.is_of_card() => {
            Err(ReserveError::DeviceOfKind { kind, function: device.function })
        }
        Some(device) => match device.driver.filter(|driver| driver.kind() != kind) {
            Some(driver) => Err(ReserveError::DriverOfKind { kind, driver }),
            None => Ok(()),
        },
    }
}

/// Refuses a network that asks for what a device of a card, which was looked at, cannot have.
pub(crate) fn require_network(attachment: &Attachment, network: &NetworkSpec) -> Result<(), ReserveError> {
    let (kind, name) = (attachment.kind, network.name.clone());
    match only_by_switch(network) {
        Some(field) if attachment.representor().is_none() => {
            Err(ReserveError::PassesSwitch { kind, network: name, field })
        }
        _ if network.queues > 1 => {
            Err(ReserveError::QueuesOfKind { kind, network: name, queues: network.queues })
        }
        _ => Ok(()),
    }
}

/// A field of a network that asks for what nobody but the switch does.
fn only_by_switch(network: &NetworkSpec) -> Option<&'static str> {
    let fields = [
        (network.router.is_some(), "router"),
        (network.vni.is_some(), "vni"),
        (network.isolated, "isolated"),
        (network.queues > 1, "queues"),
    ];
    fields.into_iter().find(|(asked, _)| *asked).map(|(_, field)| field)
}
