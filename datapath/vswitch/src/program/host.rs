//! Which port is the node itself, and what may the switch send in its name?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::router::towards;
use super::{Hop, HopNo, PortNo, Program, ProgramSpec, RouterNo};
use crate::conntrack::PortRange;

/// The node as a station of one of its networks: by this port its own programs reach pods and services, and packets for
/// nobody else are left to its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its port, which lists its station and addresses. While it is no port, nothing goes to the node.
    pub port: PortNo,
    /// Source ports that the switch uses with the node's addresses, there and outside, and the kernel does not.
    pub nat_ports: RangeInclusive<u16>,
    /// What packets of routers have outside that the switch translates, one address of a family at most.
    pub sources: BTreeMap<RouterNo, Vec<IpAddr>>,
    /// The node's addresses elsewhere, which are not outside.
    pub elsewhere: Vec<IpAddr>,
}

/// The node, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) port: PortNo,
    pub(crate) hop: HopNo,
    pub(crate) nat_ports: PortRange,
    /// Of its network.
    pub(crate) router: RouterNo,
    addresses: Vec<IpAddr>,
    sources: HashMap<RouterNo, Vec<IpAddr>>,
    all_sources: HashSet<IpAddr>,
    elsewhere: HashSet<IpAddr>,
}

impl Host {
    /// True for one of the node's own addresses in its network.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// What the node is to somebody at `peer`.
    pub(crate) fn address_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        towards(&self.addresses, peer)
    }

    /// True if packets of `router` are translated that leave.
    pub(crate) fn translates(&self, router: RouterNo) -> bool {
        self.sources.contains_key(&router)
    }

    /// True if packets of any router are.
    pub(crate) fn has_sources(&self) -> bool {
        !self.sources.is_empty()
    }

    /// What packets of `router` have to somebody at `peer`; `None` if that is not outside, or they have no address of its
    /// family there.
    pub(crate) fn source_towards(&self, router: RouterNo, peer: IpAddr) -> Option<IpAddr> {
        let sources = self.sources.get(&router).filter(|_| !self.is_own(peer))?;
        towards(sources, peer)
    }

    /// True for an address that packets have outside.
    pub(crate) fn is_source(&self, ip: IpAddr) -> bool {
        self.all_sources.contains(&ip)
    }

    /// True for an address that stands for pods outside, or is the node's in none of its networks.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.is_source(ip) || self.elsewhere.contains(&ip)
    }
}

/// Adds the node of `spec`, if its port is there, is in a network with a gateway, and has a station.
pub(super) fn add(program: &mut Program, spec: &ProgramSpec) {
    let host = spec.host.as_ref().and_then(|host| Some((host, spec.ports.get(&host.port)?)));
    program.host = host.and_then(|(host, port)| {
        let gateway = program.network(port.network)?.gateway.as_ref()?;
        let (station, router) = (Hop::station(port, *port.macs.first()?, gateway.mac), gateway.router());
        let nat_ports = PortRange::new(*host.nat_ports.start(), *host.nat_ports.end())?;
        program.hops.push(station);
        Some(Host {
            port: host.port,
            hop: HopNo(program.hops.len() as u32 - 1),
            nat_ports,
            router,
            addresses: port.ips.clone(),
            sources: host.sources.clone().into_iter().collect(),
            all_sources: host.sources.values().flatten().copied().collect(),
            elsewhere: host.elsewhere.iter().copied().collect(),
        })
    });
}

impl Program {
    /// The node itself.
    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The same, if `port` is its port.
    pub(crate) fn host_at(&self, port: PortNo) -> Option<&Host> {
        self.host().filter(|host| host.port == port)
    }
}
