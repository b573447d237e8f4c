//! Is a spec consistent, and what follows from it?

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use wire::MacAddr;

use super::tables::{Carries, Security, VlanSet};
use super::{
    Domain, DomainNo, LocalnetSpec, MAX_MTU_BYTES, MIN_MTU_BYTES, Member, Network, NetworkNo, NetworkSpec,
    Node, NodeNo, Port, PortNo, PortSpec, Program, ProgramError, ProgramSpec, Tunnel, Underlay, VlanMode,
};
use super::{dhcp, localnet, policy, routers, underlay};

impl Program {
    /// Checks `spec` and derives the lookups.
    ///
    /// # Errors
    /// The first object that contradicts itself or another.
    pub fn build(spec: ProgramSpec) -> Result<Arc<Program>, ProgramError> {
        check_numbers(&spec)?;
        let mut by_network: HashMap<NetworkNo, Vec<&PortSpec>> = HashMap::new();
        for port in spec.ports.values() {
            check_port(&spec, port)?;
            by_network.entry(port.network).or_default().push(port);
        }
        let mut underlay = underlay::build(&spec)?;
        localnet::add(&spec, &mut underlay)?;
        policy::check(&spec)?;
        let mut program = Program {
            spec: ProgramSpec::default(),
            ports: Vec::new(),
            networks: HashMap::new(),
            domains: Vec::new(),
            routers: HashMap::new(),
            hops: Vec::new(),
            underlay,
            host: None,
        };
        for network in spec.networks.values() {
            let specs = by_network.get(&network.number).map_or(&[][..], Vec::as_slice);
            add_network(&mut program, network, (specs, spec.localnets.get(&network.number)))?;
        }
        routers::add(&mut program, &spec)?;
        program.spec = spec;
        Ok(Arc::new(program))
    }
}

fn check_numbers(spec: &ProgramSpec) -> Result<(), ProgramError> {
    let networks = spec.networks.iter().map(|(filed, it)| (filed.0, it.number.0, &it.name));
    let ports = spec.ports.iter().map(|(filed, it)| (u32::from(filed.0), u32::from(it.number.0), &it.name));
    match networks.chain(ports).find(|(filed, own, _)| filed != own) {
        Some((filed, own, name)) => Err(ProgramError::Misfiled { object: name.clone(), own, filed }),
        None => Ok(()),
    }
}

fn check_port(spec: &ProgramSpec, port: &PortSpec) -> Result<(), ProgramError> {
    let name = || port.name.clone();
    if !spec.networks.contains_key(&port.network) {
        return Err(ProgramError::UnknownNetwork { port: name(), network: port.network.0 });
    }
    if !(MIN_MTU_BYTES..=MAX_MTU_BYTES).contains(&port.mtu_bytes) {
        return Err(ProgramError::Mtu { port: name(), mtu_bytes: port.mtu_bytes });
    }
    if let Some(mac) = port.macs.iter().find(|mac| !mac.is_unicast()) {
        return Err(ProgramError::NotAStation { port: name(), mac: *mac });
    }
    if let Some(ip) = port.ips.iter().find(|ip| !is_source(**ip)) {
        return Err(ProgramError::NotASource { port: name(), ip: *ip });
    }
    Ok(())
}

pub(super) fn is_source(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast)
}

/// Adds a network with its ports, its domains and its stations to `program`.
fn add_network(
    program: &mut Program,
    spec: &NetworkSpec,
    (specs, localnet): (&[&PortSpec], Option<&LocalnetSpec>),
) -> Result<(), ProgramError> {
    let transparent = specs.iter().all(|port| port.vlan == VlanMode::Access(None));
    let dhcp = dhcp::build(spec)?;
    let lease = |port: &PortSpec| dhcp.as_ref().and_then(|dhcp| dhcp::lease(port, dhcp));
    let ports: Vec<Port> =
        specs.iter().map(|port| Port { lease: lease(port), ..derive_port(port, transparent) }).collect();
    let overlay = spec.overlay.as_ref();
    let overlay = overlay.map(|overlay| underlay::port(spec.number, spec.mac_limit, overlay, transparent));
    let localnet = localnet.map(|localnet| localnet::port(spec, localnet, transparent));
    let stand_in = overlay.or(localnet);
    let mut remote = remote_members(spec, program.underlay());
    remote.extend(stand_in.as_ref().filter(|port| port.uplink_vlan.is_some()).map(vlan_member));
    let (named, unnamed) = add_domains(&mut program.domains, &ports, &remote);
    let mut stations: HashMap<MacAddr, Vec<PortNo>> = HashMap::new();
    for (port, port_spec) in ports.into_iter().zip(specs) {
        for mac in &port_spec.macs {
            let claims = stations.entry(*mac).or_default();
            let rivals = claims.iter().filter_map(|rival| program.port(*rival));
            if let Some(rival) = rivals.into_iter().find(|rival| share_a_vlan(rival, &port, &named)) {
                let first = specs.iter().find(|spec| spec.number == rival.number);
                return Err(ProgramError::DuplicateStation {
                    first: first.map(|spec| spec.name.clone()).unwrap_or_default(),
                    second: port_spec.name.clone(),
                    mac: *mac,
                });
            }
            if claims.last() != Some(&port.number) {
                claims.push(port.number);
            }
        }
        place(&mut program.ports, port);
    }
    if let Some(stand_in) = stand_in {
        place(&mut program.ports, stand_in);
    }
    let network = Network {
        number: spec.number,
        flood_unknown: spec.flood_unknown,
        mac_age_ms: spec.mac_age_ms,
        mac_limit: spec.mac_limit,
        named,
        unnamed,
        stations,
        gateway: None,
        dhcp,
        has_policies: specs.iter().any(|port| port.policy.is_some()),
    };
    program.networks.insert(spec.number, network);
    Ok(())
}

fn place(ports: &mut Vec<Option<Box<Port>>>, port: Port) {
    let index = usize::from(port.number.0);
    if ports.len() <= index {
        ports.resize_with(index + 1, || None);
    }
    ports[index] = Some(Box::new(port));
}

/// Whoever is in a VLAN behind the uplink, as one receiver of floods in no VLAN.
fn vlan_member(port: &Port) -> Member {
    Member {
        port: port.number,
        tunnel: None,
        uplink_vlan: port.uplink_vlan,
        tagged: true,
        mtu_bytes: port.mtu_bytes,
        isolated: port.isolated,
    }
}

/// The other nodes as receivers of floods in no VLAN.
fn remote_members(spec: &NetworkSpec, underlay: Option<&Underlay>) -> Vec<Member> {
    let (Some(overlay), Some(underlay)) = (spec.overlay.as_ref().filter(|it| it.floods), underlay) else {
        return Vec::new();
    };
    let member = |(number, node): (NodeNo, &Node)| Member {
        port: overlay.port,
        tunnel: Some(Tunnel { node: number, vni: overlay.vni }),
        uplink_vlan: None,
        tagged: false,
        mtu_bytes: node.mtu_bytes,
        isolated: overlay.isolated,
    };
    underlay.nodes().map(member).collect()
}

fn derive_port(spec: &PortSpec, transparent: bool) -> Port {
    let number = |vlan: super::VlanId| vlan.get();
    let carries = match &spec.vlan {
        VlanMode::Access(vlan) => Carries::Access(vlan.map_or(0, number)),
        VlanMode::Trunk { allowed, native } => {
            Carries::Trunk { allowed: VlanSet::new(allowed), native: native.map(number) }
        }
    };
    let security = || Security { macs: spec.macs.clone(), ips: spec.ips.clone() };
    Port {
        number: spec.number,
        network: spec.network,
        carries,
        transparent,
        isolated: spec.isolated,
        security: spec.port_security.then(security),
        mac_limit: spec.mac_limit,
        mtu_bytes: spec.mtu_bytes,
        policy: spec.policy,
        lease: None,
        vni: None,
        uplink_vlan: None,
    }
}

/// Adds the domains of one network: one for each VLAN that a port names, and one for all others. `remote` are in no VLAN.
fn add_domains(
    domains: &mut Vec<Domain>,
    ports: &[Port],
    remote: &[Member],
) -> (HashMap<u16, DomainNo>, DomainNo) {
    let mut named: BTreeSet<u16> = ports.iter().flat_map(|port| port.carries.named()).collect();
    if !remote.is_empty() {
        named.insert(0);
    }
    let unnamed = DomainNo(domains.len() as u32);
    let first = domains.len() + 1;
    domains.resize_with(first + named.len(), Domain::default);
    let numbered: HashMap<u16, DomainNo> =
        named.iter().enumerate().map(|(at, vlan)| (*vlan, DomainNo((first + at) as u32))).collect();
    for port in ports {
        let member = |vlan: u16| Member {
            port: port.number,
            tunnel: None,
            uplink_vlan: None,
            tagged: port.tags(vlan),
            mtu_bytes: port.mtu_bytes,
            isolated: port.isolated,
        };
        if port.carries.all() {
            domains[unnamed.0 as usize].push(member(VlanSet::UNNAMED));
            named.iter().filter(|vlan| port.carries(**vlan)).for_each(|vlan| {
                domains[numbered[vlan].0 as usize].push(member(*vlan));
            });
        } else {
            port.carries.named().iter().for_each(|vlan| {
                domains[numbered[vlan].0 as usize].push(member(*vlan));
            });
        }
    }
    if let Some(untagged) = numbered.get(&0) {
        remote.iter().for_each(|member| domains[untagged.0 as usize].push(*member));
    }
    domains[unnamed.0 as usize..].iter_mut().for_each(Domain::seal);
    (numbered, unnamed)
}

/// True if some VLAN is carried by both ports.
fn share_a_vlan(one: &Port, other: &Port, named: &HashMap<u16, DomainNo>) -> bool {
    one.number != other.number
        && (one.carries.all() && other.carries.all()
            || named.keys().any(|vlan| one.carries(*vlan) && other.carries(*vlan)))
}
