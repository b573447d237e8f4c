//! To whom does the frame go?

use frame::DropReason;
use wire::MacAddr;

use super::Walk;
use super::admit::Admitted;
use crate::actions::{Actions, Output};
use crate::key::{Field, mac};
use crate::program::{NodeNo, Port, Tunnel};
use crate::stations::Station;

/// In a MAC address as a number: it is a group's (IEEE 802-2014 §8.2.2).
const GROUP_BIT: u64 = 1 << 40;
/// The groups that no bridge forwards, 01-80-C2-00-00-00 to -0F (IEEE 802.1Q §8.6.3), and the bits they have in common.
const LINK_LOCAL: u64 = 0x0180_c200_0000;
const LINK_LOCAL_BITS: u64 = 0xffff_ffff_fff0;

/// Sends to the station, or to everybody: for groups, and where the station is unknown.
pub(crate) fn run(walk: &mut Walk<'_>, admitted: Admitted) -> Result<Actions, DropReason> {
    if walk.view.bits(Field::DESTINATION_MAC, GROUP_BIT) != 0 {
        let group = walk.view.bits(Field::DESTINATION_MAC, LINK_LOCAL_BITS);
        if group == LINK_LOCAL {
            walk.say("forward", || format!("{} stays on its link", mac(group)));
            return Err(DropReason::LinkLocal);
        }
        walk.say("forward", || "goes to a group: to everybody in its VLAN".to_owned());
        return flood(walk, admitted);
    }
    let destination = walk.view.destination_mac();
    match locate(walk, admitted, destination) {
        Some((port, node)) => unicast(walk, admitted, (destination, port, node)),
        None if walk.scene.network.flood_unknown => {
            walk.say("forward", || format!("nobody knows {destination}: goes to everybody in its VLAN"));
            flood(walk, admitted)
        }
        None => {
            walk.say("forward", || format!("nobody knows {destination}, and the network does not flood"));
            Err(DropReason::UnknownDestination)
        }
    }
}

/// The port that the destination is behind, and the node if it is another one: where the program says, else where it was
/// learned.
fn locate<'a>(walk: &mut Walk<'a>, admitted: Admitted, mac: MacAddr) -> Option<(&'a Port, Option<NodeNo>)> {
    if let Some(port) = walk.scene.program.configured_station(walk.scene.network, admitted.vlan, mac) {
        return Some((port, None));
    }
    // Known even while somebody only asks and nothing is learned.
    if walk.source_is_here && mac == walk.view.source_mac() {
        return Some((walk.scene.ingress, None));
    }
    let station = Station { network: walk.scene.network.number, vlan: admitted.vlan, mac };
    let (place, depends) = walk.scene.shared.find(&station);
    walk.depends[1] = depends;
    let place = place.filter(|place| walk.scene.program.reaches(*place, station.network, station.vlan))?;
    Some((walk.scene.program.port(place.port)?, place.node))
}

fn unicast(
    walk: &mut Walk<'_>,
    admitted: Admitted,
    to: (MacAddr, &Port, Option<NodeNo>),
) -> Result<Actions, DropReason> {
    let (destination, port, node) = to;
    let program = walk.scene.program;
    walk.say("forward", || match (node, port.uplink_vlan) {
        (None, None) => format!("{destination} is behind port {}", port.number.0),
        (None, Some(vlan)) => format!("{destination} is in VLAN {} of the uplink", vlan.get()),
        (Some(node), _) => format!("{destination} is on node {}", program.node_name(node)),
    });
    if port.number == walk.scene.ingress.number {
        return Err(DropReason::SamePort);
    }
    if port.isolated && walk.scene.ingress.isolated {
        return Err(DropReason::Isolated);
    }
    if let (Some(node), Some(vni)) = (node, port.vni) {
        return Ok(of(admitted, Output::Tunnel(Tunnel { node, vni })));
    }
    if let Some(vlan) = port.uplink_vlan {
        let output = Output::Port { port: program.uplink(), tagged: true, mtu_bytes: port.mtu_bytes };
        return Ok(Actions { vlan: vlan.get(), ..of(admitted, output) });
    }
    let tagged = port.tags(admitted.vlan);
    Ok(of(admitted, Output::Port { port: port.number, tagged, mtu_bytes: port.mtu_bytes }))
}

/// To all but the sender, and not from an isolated port to another.
fn flood(walk: &mut Walk<'_>, admitted: Admitted) -> Result<Actions, DropReason> {
    let domain = walk.scene.network.domain(admitted.vlan);
    let sender_isolated = walk.scene.ingress.isolated;
    let receivers = walk.scene.program.domain(domain).receivers(sender_isolated);
    if receivers.iter().all(|member| member.port == walk.scene.ingress.number) {
        return Err(DropReason::NoReceiver);
    }
    Ok(of(admitted, Output::Flood { domain, sender_isolated }))
}

fn of(admitted: Admitted, output: Output) -> Actions {
    Actions { strip: admitted.strip, vlan: admitted.vlan, ..Actions::to(output) }
}
