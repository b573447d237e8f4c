//! To which station does a pod send what is for an address? To the one that has it if that is on its subnet, else to the
//! gateway.

use std::net::IpAddr;

use anyhow::Context;
use ipnet::IpNet;
use local_api::switch_v1 as api;
use wire::MacAddr;

use super::place::{Place, Station};

/// The station that a packet from `sender`, a port of the first of `places`, to `destination` is sent to.
///
/// # Errors
/// The address is of the sender's own subnet, and nobody is known to have it.
pub(super) fn first_hop(
    sender: &api::Port,
    destination: IpAddr,
    places: &[Place],
) -> anyhow::Result<MacAddr> {
    let network = places.first().and_then(|here| here.network_of(sender));
    let gateway = network.and_then(|network| network.gateway.as_ref());
    if let Some(gateway) = gateway
        && let Some(mac) = mac_of(gateway, destination)
    {
        return Ok(mac);
    }
    let neighbour = places.iter().find_map(|place| neighbour(network?, place, destination));
    neighbour.with_context(|| {
        format!(
            "no port of network {} is known to have {destination}, which {} would send to its own station: say which \
             with --to MAC and --ip SRC,{destination}, or where its node is with --node",
            network.map_or("?", |network| &network.name),
            sender.name
        )
    })
}

/// The gateway's station, if `destination` is behind it or its own.
fn mac_of(gateway: &api::Gateway, destination: IpAddr) -> Option<MacAddr> {
    let mut subnets = gateway.addresses.iter().filter_map(|text| text.parse::<IpNet>().ok());
    let is_near = subnets.any(|own| own.contains(&destination) && own.addr() != destination);
    (!is_near).then(|| gateway.mac.parse().ok()).flatten()
}

/// The station at `place` that has `destination` in the network.
fn neighbour(network: &api::Network, place: &Place, destination: IpAddr) -> Option<MacAddr> {
    let there = place.networks.iter().find(|there| there.name == network.name)?;
    let ports = place.ports.iter().filter(|port| port.network == there.number);
    ports.map(Station::of).find(|station| station.ips.contains(&destination))?.mac
}
