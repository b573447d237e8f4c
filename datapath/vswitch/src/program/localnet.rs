//! Which networks go on in a VLAN of the uplink?

use super::underlay::overlay_error;
use super::{NetworkNo, NetworkSpec, Port, PortNo, ProgramError, ProgramSpec, Underlay, VlanId};

/// A network that goes on in a VLAN behind the uplink, with whoever is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalnetSpec {
    /// The VLAN: of one network only.
    pub vlan: VlanId,
    /// The number of the port that stands for what is behind the uplink: of no device, and no other port's.
    pub port: PortNo,
}

/// Checks the networks that are in VLANs of the uplink, and tells `underlay` of their ports.
pub(super) fn add(spec: &ProgramSpec, underlay: &mut Option<Underlay>) -> Result<(), ProgramError> {
    for (number, localnet) in &spec.localnets {
        let Some(network) = spec.networks.get(number) else { continue };
        let wrong = |what| Err(overlay_error(network, what));
        let Some(underlay) = underlay.as_mut() else {
            return wrong("no uplink leads to its VLAN");
        };
        if network.overlay.is_some() {
            return wrong("it is in tunnels and in a VLAN of the uplink");
        }
        if spec.ports.contains_key(&localnet.port) || is_others(spec, *number, localnet.port) {
            return wrong("the port of its VLAN is another port, too");
        }
        if underlay.by_vlan.insert(localnet.vlan, localnet.port).is_some() {
            return wrong("another network has the same VLAN of the uplink");
        }
    }
    Ok(())
}

fn is_others(spec: &ProgramSpec, own: NetworkNo, port: PortNo) -> bool {
    let overlays = spec.networks.values().filter_map(|network| network.overlay.as_ref());
    let localnets = spec.localnets.iter().filter(|(number, _)| **number != own);
    overlays.map(|overlay| overlay.port).chain(localnets.map(|(_, it)| it.port)).any(|other| other == port)
}

/// The port that stands for what is in the VLAN.
pub(super) fn port(network: &NetworkSpec, localnet: &LocalnetSpec, transparent: bool) -> Port {
    Port {
        uplink_vlan: Some(localnet.vlan),
        ..super::underlay::stand_in(network.number, localnet.port, network.mac_limit, transparent)
    }
}
