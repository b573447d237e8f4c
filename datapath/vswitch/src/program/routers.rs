//! Are the gateways of a spec consistent, and whom do their routers reach?

use std::net::IpAddr;

use wire::MacAddr;

use super::build::is_source;
use super::tables::link_local;
use super::{
    Gateway, GatewaySpec, Hop, HopNo, NetworkSpec, NodeNo, PortNo, PortSpec, Prefix, Program, ProgramError,
    ProgramSpec, Route, RouteSpec, Tunnel, Via, host,
};

/// Adds the gateways of `spec`, the routers that join them, and the stations behind those, to `program`, which has all else.
pub(super) fn add(program: &mut Program, spec: &ProgramSpec) -> Result<(), ProgramError> {
    for network in spec.networks.values() {
        if let Some(gateway) = &network.gateway {
            check(network, gateway)?;
            check_overlaps(spec, network, gateway)?;
            add_gateway(program, network, gateway);
        }
    }
    for port in spec.ports.values() {
        add_stations(program, spec, port)?;
    }
    host::add(program, spec);
    for network in spec.networks.values() {
        for route in network.gateway.iter().flat_map(|gateway| &gateway.routes) {
            add_route(program, network, route)?;
        }
    }
    Ok(())
}

fn check(network: &NetworkSpec, gateway: &GatewaySpec) -> Result<(), ProgramError> {
    let wrong = |what: String| Err(ProgramError::Gateway { network: network.name.clone(), what });
    if !gateway.mac.is_unicast() {
        return wrong(format!("the address {}, which is no station's", gateway.mac));
    }
    if gateway.addresses.is_empty() {
        return wrong("no address".into());
    }
    match gateway.addresses.iter().find(|prefix| !is_source(prefix.address) || !prefix.is_sound()) {
        Some(prefix) => wrong(format!("the address {prefix}, which is no station's")),
        None => Ok(()),
    }
}

/// Networks of one router have no address in common: else packets would have two ways.
fn check_overlaps(
    spec: &ProgramSpec,
    network: &NetworkSpec,
    gateway: &GatewaySpec,
) -> Result<(), ProgramError> {
    let before = spec.networks.range(..network.number).map(|(_, other)| other);
    for (other, others) in before.filter_map(|other| Some((other, other.gateway.as_ref()?))) {
        if others.router != gateway.router {
            continue;
        }
        let pairs =
            others.addresses.iter().flat_map(|one| gateway.addresses.iter().map(move |two| (*one, *two)));
        if let Some((subnet, other_subnet)) =
            pairs.into_iter().find(|(one, two): &(Prefix, Prefix)| one.overlaps(two))
        {
            return Err(ProgramError::Overlap {
                first: other.name.clone(),
                second: network.name.clone(),
                subnet,
                other: other_subnet,
            });
        }
    }
    Ok(())
}

fn add_gateway(program: &mut Program, network: &NetworkSpec, gateway: &GatewaySpec) {
    let router = program.routers.entry(gateway.router).or_default();
    for subnet in &gateway.addresses {
        router.add(*subnet, Route::Nobody);
    }
    let mut addresses: Vec<IpAddr> = gateway.addresses.iter().map(|prefix| prefix.address).collect();
    // Hosts know their routers by it (RFC 4861 §4.2).
    if addresses.iter().any(IpAddr::is_ipv6) {
        addresses.push(link_local(gateway.mac).into());
    }
    if let Some(built) = program.networks.get_mut(&network.number) {
        built.gateway = Some(Gateway { mac: gateway.mac, addresses, router: gateway.router });
    }
}

/// The stations that `port` lists, by its addresses: the first one has them.
fn add_stations(program: &mut Program, spec: &ProgramSpec, port: &PortSpec) -> Result<(), ProgramError> {
    let gateway = spec.networks.get(&port.network).and_then(|network| network.gateway.as_ref());
    let (Some(gateway), Some(mac)) = (gateway, port.macs.first()) else { return Ok(()) };
    for ip in &port.ips {
        let number = HopNo(program.hops.len() as u32);
        let stations = program.routers.get_mut(&gateway.router).map(|router| &mut router.stations);
        let rival = stations.and_then(|stations| stations.insert(*ip, number));
        let rival = rival.and_then(|rival| program.hop(rival));
        if let Some(rival) = rival.filter(|rival| rival.port != port.number) {
            return Err(duplicate(spec, rival.port, port, *ip));
        }
        program.hops.push(Hop::station(port, *mac, gateway.mac));
    }
    Ok(())
}

impl Hop {
    /// A station that a port of this node lists.
    pub(super) fn station(port: &PortSpec, mac: MacAddr, gateway_mac: MacAddr) -> Self {
        let &PortSpec { number, network, mtu_bytes, isolated, .. } = port;
        Self { port: number, tunnel: None, network, mac, gateway_mac, mtu_bytes, isolated }
    }
}

/// What is behind a gateway and no station of this node. It may be a part of the network's own subnets, not the whole of one.
fn add_route(program: &mut Program, network: &NetworkSpec, route: &RouteSpec) -> Result<(), ProgramError> {
    let wrong = |what: String| ProgramError::Gateway { network: network.name.clone(), what };
    let Some(gateway) = &network.gateway else { return Ok(()) };
    if !route.to.is_sound() {
        return Err(wrong(format!("a route to {}, which is no prefix", route.to)));
    }
    let hop = match route.via {
        Via::Node(node) => node_hop(program, network, node)
            .map_err(|what| wrong(format!("a route to {} {what}", route.to)))?,
        // The node has no port at the moment.
        Via::Host => match program.host() {
            Some(host) => host.hop,
            None => return Ok(()),
        },
    };
    let router = program.routers.entry(gateway.router).or_default();
    match router.add(route.to, Route::Hop(hop)) {
        None => Ok(()),
        Some(_) => Err(wrong(format!("a route to {}, which its router has already", route.to))),
    }
}

/// The gateway of `network` on another node.
fn node_hop(program: &mut Program, network: &NetworkSpec, number: NodeNo) -> Result<HopNo, String> {
    let (Some(gateway), Some(overlay)) = (&network.gateway, &network.overlay) else {
        return Err("by another node, but is on none".to_owned());
    };
    let node = program.underlay().and_then(|underlay| underlay.node(number));
    let node = node.ok_or_else(|| format!("by node {}, which does not exist", number.0))?;
    let hop = Hop {
        port: overlay.port,
        tunnel: Some(Tunnel { node: number, vni: overlay.vni }),
        network: network.number,
        mac: gateway.mac,
        gateway_mac: gateway.mac,
        mtu_bytes: node.mtu_bytes,
        isolated: overlay.isolated,
    };
    program.hops.push(hop);
    Ok(HopNo(program.hops.len() as u32 - 1))
}

fn duplicate(spec: &ProgramSpec, rival: PortNo, port: &PortSpec, ip: IpAddr) -> ProgramError {
    let first = spec.ports.get(&rival).map(|rival| rival.name.clone()).unwrap_or_default();
    ProgramError::DuplicateAddress { first, second: port.name.clone(), ip }
}
