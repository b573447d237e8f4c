//! Is the frame for the first hop, which is the switch itself? Then it is answered, or routed to its destination's port.
//!
//! A network with a gateway has a router that knows, of each network it joins, the stations that ports list, by address.
//! Their network's gateway answers for itself and for them, so that nobody is asked by a flood.

use std::net::IpAddr;

use frame::DropReason;
use wire::{EtherType, IpProtocol, MacAddr, arp, icmpv4, icmpv6, nd};

use super::Walk;
use super::security::neighbor_message;
use crate::actions::{Actions, Output};
use crate::gateway::{Answer, Complaint};
use crate::key::{Field, TAGGED, class};
use crate::program::{Gateway, Hop, Route};

/// Refuses frames that claim to come from the network's own gateway.
pub(crate) fn guard(walk: &mut Walk<'_>) -> Result<(), DropReason> {
    let Some(gateway) = &walk.scene.network.gateway else { return Ok(()) };
    // Out of a tunnel it is the same gateway, on another node.
    if walk.scene.tunnel.is_some() || walk.view.source_mac() != gateway.mac {
        return Ok(());
    }
    walk.say("gateway", || format!("claims to come from the gateway {}", gateway.mac));
    Err(DropReason::SpoofedMac)
}

/// Decides on frames for the gateway, or about it; `None` for all others.
pub(crate) fn run(walk: &mut Walk<'_>) -> Result<Option<Actions>, DropReason> {
    let Some(gateway) = &walk.scene.network.gateway else { return Ok(None) };
    // It is a station without a VLAN.
    if walk.view.bits(Field::TAG, TAGGED) != 0 {
        return Ok(None);
    }
    let ether_type = EtherType(walk.view.get(Field::ETHER_TYPE) as u16);
    if ether_type == EtherType::ARP && walk.view.is(class::ARP) {
        return Ok(resolve(walk, gateway));
    }
    if ether_type == EtherType::IPV6 && walk.view.is(class::NEIGHBOR) {
        return advertise(walk, gateway);
    }
    if let Some(host) = walk.scene.program.host().filter(|_| walk.served.is_some_and(|it| it.is_for_host)) {
        walk.say("gateway", || "goes back by the node, as the connection came".to_owned());
        return Ok(Some(Actions::to(Output::Route(host.hop))));
    }
    if walk.view.destination_mac() != gateway.mac {
        return Ok(None);
    }
    let destination = match ether_type {
        EtherType::IPV4 => {
            let address = walk.view.bits(Field::DESTINATION_IP[1], 0xffff_ffff) as u32;
            IpAddr::V4(address.into())
        }
        EtherType::IPV6 => {
            let [high, low] = Field::DESTINATION_IP.map(|field| walk.view.get(field));
            IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into())
        }
        _ => return Err(DropReason::ForGateway),
    };
    let destination = walk.served.map_or(destination, |served| served.to);
    // What comes back from outside may be of another router, whose addresses are its own.
    let is_own = gateway.has(destination) && walk.scope == walk.scene.scope();
    if is_own { serve(walk) } else { route(walk, destination) }.map(Some)
}

fn answer(answer: Answer) -> Actions {
    Actions::to(Output::Answer(answer))
}

/// Who has `target`, for somebody at the ingress: the gateway, or a station that its port lists.
fn owner(walk: &Walk<'_>, gateway: &Gateway, target: IpAddr) -> Option<MacAddr> {
    if gateway.has(target) {
        return Some(gateway.mac);
    }
    let station = station(walk, target)?;
    // Whoever asks for an address of its own looks for a duplicate.
    let asks_itself = station.port == walk.scene.ingress.number;
    let hidden = station.isolated && walk.scene.ingress.isolated;
    (station.network == walk.scene.network.number && !asks_itself && !hidden).then_some(station.mac)
}

/// The station of this node that has `address`.
fn station<'a>(walk: &Walk<'a>, address: IpAddr) -> Option<&'a Hop> {
    let Route::Hop(number) = walk.scene.program.router_of(walk.scope)?.route(address) else { return None };
    walk.scene.program.hop(number).filter(|hop| hop.tunnel.is_none())
}

/// Answers an ARP request about the gateway or a listed station.
fn resolve(walk: &mut Walk<'_>, gateway: &Gateway) -> Option<Actions> {
    if walk.view.get(Field::SOURCE_PORT) != u64::from(arp::REQUEST) {
        return None;
    }
    let target = IpAddr::V4((walk.view.bits(Field::DESTINATION_IP[1], 0xffff_ffff) as u32).into());
    let mac = owner(walk, gateway, target)?;
    walk.say("gateway", || format!("answers that {target} is at {mac}"));
    Some(answer(Answer::Arp(mac)))
}

/// The same for neighbour discovery. Reads the message itself: rare enough to be decided on one by one.
fn advertise(walk: &mut Walk<'_>, gateway: &Gateway) -> Result<Option<Actions>, DropReason> {
    if walk.view.get(Field::SOURCE_PORT) != u64::from(nd::NEIGHBOR_SOLICIT) {
        return Ok(None);
    }
    walk.cacheable = false;
    let message = neighbor_message(walk).map(nd::Message::parse);
    let Some(Ok(Some((nd::Message::NeighborSolicit { target }, _)))) = message else { return Ok(None) };
    let Some(mac) = owner(walk, gateway, target.into()) else { return Ok(None) };
    walk.say("gateway", || format!("answers that {target} is at {mac}"));
    Ok(Some(answer(Answer::Neighbor(mac))))
}

/// A packet to the gateway's own address: it answers a ping, and nothing else.
fn serve(walk: &mut Walk<'_>) -> Result<Actions, DropReason> {
    let protocol = IpProtocol(walk.view.get(Field::PROTOCOL) as u8);
    let request = match protocol {
        IpProtocol::ICMP => icmpv4::ECHO_REQUEST,
        IpProtocol::ICMPV6 => icmpv6::ECHO_REQUEST,
        _ => 0,
    };
    let is_whole = walk.view.bits(Field::CLASS, class::TRANSPORT | class::FRAGMENT) == class::TRANSPORT;
    if request == 0 || !is_whole || walk.view.get(Field::SOURCE_PORT) != u64::from(request) {
        walk.say("gateway", || format!("is for the gateway itself, which has no use for {protocol}"));
        return Err(DropReason::ForGateway);
    }
    walk.say("gateway", || "answers the ping".to_owned());
    Ok(answer(Answer::Echo))
}

fn route(walk: &mut Walk<'_>, to: IpAddr) -> Result<Actions, DropReason> {
    let program = walk.scene.program;
    let complaint = match program.router_of(walk.scope).map(|router| router.route(to)) {
        Some(Route::Hop(number)) => {
            let hop = program.hop(number).ok_or(DropReason::NoNeighbor)?;
            if hop.isolated && walk.scene.ingress.isolated {
                return Err(DropReason::Isolated);
            }
            if hop.tunnel.is_some() && walk.scene.tunnel.is_some() {
                walk.say("gateway", || format!("came from another node, which takes {to} to be here"));
                return Err(DropReason::NoNeighbor);
            }
            walk.say("gateway", || match hop.tunnel {
                None => format!("routes it: {to} is {} behind port {}", hop.mac, hop.port.0),
                Some(tunnel) => format!("routes it: {to} is on node {}", program.node_name(tunnel.node)),
            });
            return Ok(Actions::to(Output::Route(number)));
        }
        Some(Route::Nobody) => Complaint::NoNeighbor,
        Some(Route::Nowhere) | None => Complaint::NoRoute,
    };
    walk.say("gateway", || match complaint {
        Complaint::NoNeighbor => format!("no port has {to}, whose subnet is here: says so"),
        _ => format!("no subnet of its router holds {to}: says so"),
    });
    Ok(answer(Answer::Complain(complaint)))
}
