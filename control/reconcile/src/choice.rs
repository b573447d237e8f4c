//! Which kind of interface does a pod get, and why?
//!
//! What the pod asks for, else what the network says; and where that is `auto`, a netdev of VDUSE if the kernel can make
//! one, else a TAP. The answer is kept with the attachment: a node that learns VDUSE later changes nothing that is there.

use model::{KindChoice, NetworkSpec, PortKind};

use crate::Kernel;
use crate::desired::{AddRequest, ReserveError};
use crate::kernel::VdpaDriver;

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
    match request.kind.unwrap_or(network.port_kind) {
        KindChoice::Auto => Ok(best(kernel, network)),
        KindChoice::Only(kind) => {
            require(kernel, kind, network)?;
            Ok(Chosen { kind, reason: format!("{by} asks for it") })
        }
    }
}

/// The driver of a kind's device, if it is one of the vDPA bus.
pub(crate) fn driver(kind: PortKind) -> Option<VdpaDriver> {
    match kind {
        PortKind::Vduse => Some(VdpaDriver::Virtio),
        PortKind::VdpaVhost => Some(VdpaDriver::Vhost),
        PortKind::Tap | PortKind::VhostUser => None,
    }
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
