//! What does the node itself have on a network: its interface, its ways to pods and services, and what its kernel translates?
//!
//! The node is a station of one network, by the TAP `mp0`. Its programs reach pods and services by the network's gateway,
//! and what the gateway sends out, its kernel takes on. Of services the kernel knows two addresses at each node port, for all
//! endpoints and for those of this node; whom they stand for is the switch's to know. So what the kernel remembers of a
//! connection stays true when endpoints come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use model::{
    Gateway, MacAddr, NAT_PORTS, Network, NetworkName, Service, ServicePort, Snat, Subnet, TrafficPolicy,
};
use vswitch::program::{
    HostSpec, NetworkNo, PortNo, PortSpec, Prefix, RouteSpec, RouterNo, Via, VlanId, VlanMode,
};

use crate::Kernel;
use crate::datapath::{Device, Port};
use crate::desired::{Desired, Known};
use crate::kernel::{Forward, HostRules, KernelError, LinkConfig, LinkState, Outside, Route, Translated};
use crate::program::{router_of, station_mac};

/// The node's interface.
pub(crate) const INTERFACE: &str = "mp0";
/// The agent's own namespace: the node's.
const NETNS: &str = "/proc/self/ns/net";
/// Whom the kernel sends packets for node ports to: all endpoints.
const ALL: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 169, 4), Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 4));
/// Or those of this node.
const HERE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 169, 3), Ipv6Addr::new(0xfd69, 0, 0, 0, 0, 0, 0, 3));

/// What the node is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPlan {
    link: LinkConfig,
    rules: HostRules,
}

/// What the node had last.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// As it was made; none: nothing, or not known.
    kept: Option<HostPlan>,
    /// It is as it is to be.
    settled: bool,
    /// The last error, which is told once.
    error: Option<KernelError>,
}

impl Keeper {
    /// With the next [`Keeper::keep`], everything is looked at.
    pub(crate) fn distrust(&mut self) {
        self.settled = false;
    }

    /// Makes the node be as it is to be, if that is in question.
    pub(crate) fn keep(&mut self, desired: impl FnOnce() -> Desired, kernel: &dyn Kernel) {
        if self.settled {
            return;
        }
        let desired = desired();
        let plan = plan(&desired);
        let kept = match &plan {
            Some(plan) => self.make(plan, kernel),
            None if desired.host_port().is_some() => kernel.put_host_rules(None).map(|()| true),
            None => Ok(true),
        };
        match kept {
            Ok(settled) => {
                self.settled = settled;
                self.error = None;
                self.kept = plan.filter(|_| settled);
            }
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the node is not on its network; it is tried again");
                }
                self.error = Some(error);
            }
        }
    }

    /// False while the interface is not there yet: the switch makes it.
    fn make(&self, plan: &HostPlan, kernel: &dyn Kernel) -> Result<bool, KernelError> {
        let netns = Path::new(NETNS);
        let Some(state) = kernel.link(netns, INTERFACE)? else { return Ok(false) };
        let stale: Vec<Route> = state
            .routes
            .iter()
            .filter(|it| it.gateway.is_some() && !plan.link.routes.contains(it))
            .cloned()
            .collect();
        if !stale.is_empty() {
            kernel.remove_routes(netns, INTERFACE, &stale)?;
        }
        if !is_as_planned(&state, &plan.link) {
            kernel.configure_link(netns, &plan.link)?;
        }
        // Others flush rules too: they are written again, whatever was written before.
        kernel.put_host_rules(Some(&plan.rules))?;
        if self.kept.as_ref() != Some(plan) {
            tracing::info!(
                routes = plan.link.routes.len(),
                ports = plan.rules.forwards.len(),
                "the node is on its network"
            );
        }
        Ok(true)
    }
}

fn is_as_planned(state: &LinkState, plan: &LinkConfig) -> bool {
    state.up
        && state.mac == plan.mac
        && state.mtu_bytes == plan.mtu_bytes
        && plan.addresses.iter().all(|address| state.addresses.contains(address))
        && plan.routes.iter().all(|route| state.routes.contains(route))
}

/// The network that the node is on.
fn network(desired: &Desired) -> Option<&Known> {
    desired.networks().find(|known| known.defined && known.network.spec().host)
}

fn plan(desired: &Desired) -> Option<HostPlan> {
    let known = network(desired)?;
    let routed: Vec<&Network> = desired
        .networks()
        .filter(|other| other.defined && other.network.router() == known.network.router())
        .map(|other| &*other.network)
        .collect();
    let services: Vec<&Service> = desired
        .objects()
        .services
        .values()
        .filter(|service| routed.iter().any(|network| network.name() == service.network()))
        .collect();
    let cluster: Vec<IpNet> = routed.iter().flat_map(|network| network.cluster()).copied().collect();
    let addresses = known.network.subnets().iter().filter_map(host_net).collect();
    let routes = routes(known, &cluster, &services);
    let (name, mac) = (INTERFACE.to_owned(), mac(desired));
    let link = LinkConfig { name, mac, mtu_bytes: known.network.mtu().get(), addresses, routes };
    let own = link.addresses.iter().map(IpNet::addr).collect();
    let translated = translated(known, desired);
    let forwards = services.iter().flat_map(|service| forwards(service)).collect();
    let outside = outside(known, desired);
    let rules = HostRules { interface: INTERFACE.to_owned(), own, cluster, translated, forwards, outside };
    Some(HostPlan { link, rules })
}

fn host_net(subnet: &Subnet) -> Option<IpNet> {
    IpNet::new(subnet.host()?, subnet.net().prefix_len()).ok()
}

/// By the network's gateway: to the networks of its router, and to services.
fn routes(known: &Known, cluster: &[IpNet], services: &[&Service]) -> Vec<Route> {
    let network = &known.network;
    let nets = cluster.iter().copied().filter(|net| network.subnets().iter().all(|own| own.net() != *net));
    let services = services.iter().flat_map(|service| service.addresses()).copied();
    let ports = [ALL, HERE].into_iter().flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)]);
    let to = nets.chain(services.chain(ports).map(IpNet::from));
    let route = |destination: IpNet| {
        let mut gateways = network.subnets().iter().filter_map(Subnet::gateway);
        let gateway = gateways.find(|gateway| gateway.is_ipv4() == destination.addr().is_ipv4());
        Some(Route { destination, gateway: Some(gateway?) })
    };
    let mut routes: Vec<Route> = to.filter_map(route).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

/// What the kernel translates of what the gateway sends out.
fn translated(known: &Known, desired: &Desired) -> Option<Translated> {
    let gateway = desired.gateways().get(known.network.router()?)?;
    let is_its = gateway.snat() == Snat::Host && is_here(gateway, desired);
    is_its.then(|| Translated { to: gateway.addresses().to_vec() })
}

/// True for a gateway by which packets leave this node.
fn is_here(gateway: &Gateway, desired: &Desired) -> bool {
    let own = desired.reached().map(|reached| reached.nodes.own().name());
    gateway.node().is_none() || gateway.node() == own
}

/// What packets have outside that the switch translates, by their router's name.
fn sources(desired: &Desired) -> impl Iterator<Item = (&NetworkName, &[IpAddr])> {
    let own = desired.reached().map(|reached| reached.nodes.own().addresses()).unwrap_or_default();
    let gateways = desired.gateways().iter();
    let of_switch = gateways.filter(|(_, it)| it.snat() == Snat::Switch && is_here(it, desired));
    of_switch.map(move |(router, gateway)| match gateway.addresses() {
        [] => (router, own),
        addresses => (router, addresses),
    })
}

/// What the kernel hands in.
fn outside(known: &Known, desired: &Desired) -> Option<Outside> {
    let mut addresses: Vec<IpAddr> = sources(desired).flat_map(|(_, addresses)| addresses).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    let uplink = desired.reached()?.nodes.own().uplink().to_string();
    let (gateway, mac) = (station_mac(known), mac(desired));
    (!addresses.is_empty()).then_some(Outside { uplink, addresses, ports: NAT_PORTS, gateway, mac })
}

/// The ports and addresses at which a service is reached from outside.
fn forwards(service: &Service) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for port in service.ports() {
        let forward = |address: Option<IpAddr>, at: u16, is_v4| {
            let to = target(service, port, is_v4)?;
            Some(Forward { address, protocol: port.protocol, port: at, to })
        };
        for is_v4 in [true, false].into_iter().filter(|is_v4| service.has_family(*is_v4)) {
            forwards.extend(port.node_port.and_then(|at| forward(None, at, is_v4)));
        }
        let external = service.external_addresses().iter().filter(|it| service.has_family(it.is_ipv4()));
        forwards.extend(external.filter_map(|it| forward(Some(*it), port.port, it.is_ipv4())));
    }
    forwards
}

/// Where the kernel sends what comes from outside.
fn target(service: &Service, port: &ServicePort, is_v4: bool) -> Option<(IpAddr, u16)> {
    match port.node_port {
        Some(node_port) => Some((node_port_address(service.external_policy(), is_v4), node_port)),
        None => {
            let address = service.addresses().iter().find(|address| address.is_ipv4() == is_v4)?;
            Some((*address, port.port))
        }
    }
}

/// The address that stands for a node port's endpoints.
pub(crate) fn node_port_address(policy: TrafficPolicy, is_v4: bool) -> IpAddr {
    let (v4, v6) = match policy {
        TrafficPolicy::Cluster => ALL,
        TrafficPolicy::Local => HERE,
    };
    if is_v4 { v4.into() } else { v6.into() }
}

/// Locally administered, and apart from those of pods and gateways: by the node's number.
fn mac(desired: &Desired) -> MacAddr {
    let number = desired.reached().map_or(0, |reached| reached.nodes.own().number());
    let [high, low] = number.to_be_bytes();
    MacAddr([0x02, 0x4d, 0x48, 0, high, low])
}

/// What the switch is told of the node.
pub(crate) fn spec(desired: &Desired) -> Option<HostSpec> {
    network(desired)?;
    let number = |router: &NetworkName| {
        let known = desired.networks().find(|known| known.network.router() == Some(router))?;
        Some(RouterNo(router_of(known, router, desired)))
    };
    let elsewhere = desired.reached().map(|reached| reached.nodes.own().addresses().to_vec());
    Some(HostSpec {
        port: PortNo(desired.host_port()?),
        nat_ports: NAT_PORTS,
        sources: sources(desired)
            .filter_map(|(router, addresses)| Some((number(router)?, addresses.to_vec())))
            .collect(),
        elsewhere: elsewhere.unwrap_or_default(),
    })
}

/// The node's port.
pub(crate) fn port(desired: &Desired) -> Option<Port> {
    let known = network(desired)?;
    let spec = known.network.spec();
    Some(Port {
        spec: PortSpec {
            number: PortNo(desired.host_port()?),
            name: INTERFACE.to_owned(),
            network: NetworkNo(known.number),
            vlan: VlanMode::Access(spec.own_vlan().and_then(VlanId::new)),
            macs: vec![mac(desired)],
            ips: known.network.subnets().iter().filter_map(Subnet::host).collect(),
            // It forwards for others.
            port_security: false,
            mac_limit: 0,
            isolated: false,
            mtu_bytes: known.network.mtu().get(),
            policy: None,
        },
        device: Device::Tap { netns: PathBuf::new(), netdev: INTERFACE.to_owned(), queues: 1 },
    })
}

/// To everybody that no network has: by the node of the gateway of the router of `known`. One network of a router has the
/// routes of all.
pub(crate) fn routes_out(known: &Known, desired: &Desired) -> Vec<RouteSpec> {
    let way = way_out(known, desired).filter(|(_, carrier)| *carrier == known.number);
    let Some((via, _)) = way else { return Vec::new() };
    let default = |address: IpAddr| RouteSpec { to: Prefix { address, len: 0 }, via };
    vec![default(Ipv4Addr::UNSPECIFIED.into()), default(Ipv6Addr::UNSPECIFIED.into())]
}

/// How packets leave a router, and which of its networks takes them there.
fn way_out(known: &Known, desired: &Desired) -> Option<(Via, u32)> {
    let router = known.network.router()?;
    let gateway = desired.gateways().get(router)?;
    let reached = desired.reached();
    let other =
        gateway.node().and_then(|name| reached?.nodes.others().iter().find(|node| node.name() == name));
    let routed = || desired.networks().filter(|it| it.defined && it.network.router() == Some(router));
    match other {
        Some(node) => {
            reached?.next_hops.get(&node.number())?;
            let carrier = routed().find(|it| it.overlay_port.is_some())?;
            Some((Via::Node(vswitch::program::NodeNo(node.number())), carrier.number))
        }
        None => Some((Via::Host, routed().next()?.number)),
    }
}
