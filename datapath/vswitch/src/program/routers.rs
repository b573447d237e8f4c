//! Are the gateways of a spec consistent, and whom do their routers reach?

use std::net::IpAddr;

use wire::MacAddr;

use super::build::is_source;
use super::{
    Gateway, GatewaySpec, Host, HostNo, NetworkSpec, PortNo, PortSpec, Prefix, Program, ProgramError,
    ProgramSpec,
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
        add_hosts(program, spec, port)?;
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
    router.subnets.extend(&gateway.addresses);
    let addresses = gateway.addresses.iter().map(|prefix| prefix.address).collect();
    if let Some(built) = program.networks.get_mut(&network.number) {
        built.gateway = Some(Gateway { mac: gateway.mac, addresses, router: gateway.router });
    }
}

/// The stations that `port` lists, by its addresses: the first one has them.
fn add_hosts(program: &mut Program, spec: &ProgramSpec, port: &PortSpec) -> Result<(), ProgramError> {
    let gateway = spec.networks.get(&port.network).and_then(|network| network.gateway.as_ref());
    let (Some(gateway), Some(mac)) = (gateway, port.macs.first()) else { return Ok(()) };
    for ip in &port.ips {
        let number = HostNo(program.hosts.len() as u32);
        let hosts = program.routers.get_mut(&gateway.router).map(|router| &mut router.hosts);
        let rival = hosts.and_then(|hosts| hosts.insert(*ip, number)).and_then(|rival| program.host(rival));
        if let Some(rival) = rival.filter(|rival| rival.port != port.number) {
            return Err(duplicate(spec, rival.port, port, *ip));
        }
        program.hosts.push(host(port, *mac, gateway.mac));
    }
    Ok(())
}

fn host(port: &PortSpec, mac: MacAddr, gateway_mac: MacAddr) -> Host {
    let &PortSpec { number, network, mtu_bytes, isolated, .. } = port;
    Host { port: number, network, mac, gateway_mac, mtu_bytes, isolated }
}

fn duplicate(spec: &ProgramSpec, rival: PortNo, port: &PortSpec, ip: IpAddr) -> ProgramError {
    let first = spec.ports.get(&rival).map(|rival| rival.name.clone()).unwrap_or_default();
    ProgramError::DuplicateAddress { first, second: port.name.clone(), ip }
}
