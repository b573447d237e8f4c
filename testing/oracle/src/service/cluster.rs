//! Who is where? Nodes with a switch each, joined by their uplinks, and the pods on them.

use std::net::IpAddr;

use sim::{Outcome, World};
use vswitch::program::{
    self, GatewaySpec, NetworkNo, NetworkSpec, NodeNo, NodeSpec, OverlaySpec, PortNo, PortSpec, Prefix,
    ProgramSpec, RouteSpec, RouterNo, Scope, UnderlaySpec, Via, VlanMode, Vni,
};
use wire::MacAddr;

use super::Services;

/// The network of all pods, and its router, of which services are.
const NETWORK: NetworkNo = NetworkNo(1);
const ROUTER: RouterNo = RouterNo(1);
pub(super) const SCOPE: Scope = Scope::Router(ROUTER);
/// The gateway's station, the same on all nodes.
pub(super) const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
/// The ports to other nodes: the uplink, in a network of its own, and what stands for all of them.
const UPLINK: PortNo = PortNo(99);
const UPLINKS: NetworkNo = NetworkNo(2);
const ELSEWHERE: PortNo = PortNo(100);

/// A pod: the same addresses on whichever node it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod(pub u8);

impl Pod {
    /// How many there are, from 0 on.
    pub const COUNT: u8 = 6;

    /// All pods.
    pub fn all() -> impl Iterator<Item = Pod> {
        (0..Self::COUNT).map(Pod)
    }

    /// Its address of a family.
    pub fn address(self, is_v4: bool) -> IpAddr {
        let host = 10 + self.0;
        if is_v4 { [10, 2, 0, host].into() } else { [0xfd02, 0, 0, 0, 0, 0, 0, host.into()].into() }
    }

    /// Whose address it is.
    pub(super) fn at(address: IpAddr) -> Option<Pod> {
        Pod::all().find(|pod| pod.address(address.is_ipv4()) == address)
    }

    pub(super) fn station(self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 10 + self.0])
    }

    fn port(self) -> PortNo {
        PortNo(u16::from(self.0) + 1)
    }
}

/// The gateway's address of a family.
pub(super) fn gateway_address(is_v4: bool) -> IpAddr {
    if is_v4 { [10, 2, 0, 1].into() } else { [0xfd02, 0, 0, 0, 0, 0, 0, 1].into() }
}

/// On which node, counted from 0, each pod is.
pub(super) type Placement = fn(Pod) -> u16;

/// Nodes, and the pods on them.
#[derive(Debug)]
pub(super) struct Cluster {
    nodes: Vec<World>,
    placement: Placement,
}

impl Cluster {
    /// Nodes without a program.
    pub(super) fn new(nodes: u16, placement: Placement) -> Self {
        Self { nodes: (0..nodes).map(|_| World::new(1)).collect(), placement }
    }

    /// Tells all nodes of these services. Each hears of endpoints in another order.
    pub(super) fn program(&mut self, version: u64, services: &Services) {
        for own in 0..self.nodes.len() {
            let mut services = services.clone();
            for service in services.values_mut() {
                let turns = own % service.endpoints.len().max(1);
                service.endpoints.rotate_left(turns);
            }
            let services = program::Services::new(services.into_values()).expect("a cluster's services");
            let spec = ProgramSpec { version, services, ..self.node(own as u16) };
            self.nodes[own].set_program(&spec).expect("a cluster's program");
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, ms: u64) {
        self.nodes.iter_mut().for_each(|node| node.pass(ms));
    }

    /// Who gets what `from` sends, and what they get.
    pub(super) fn send(&mut self, from: Pod, frame: Vec<u8>) -> Vec<(Pod, Vec<u8>)> {
        let node = (self.placement)(from);
        let outcome = self.receive(node, from.port(), &[frame]);
        self.arrivals(node, outcome)
    }

    fn receive(&mut self, node: u16, port: PortNo, frames: &[Vec<u8>]) -> Outcome {
        let outcome = self.nodes[usize::from(node)].receive(port, frames);
        assert!(outcome.is_balanced(), "{outcome:?}");
        outcome
    }

    /// What a node sent, and what others send of what it sent to them.
    fn arrivals(&mut self, node: u16, outcome: Outcome) -> Vec<(Pod, Vec<u8>)> {
        let mut arrivals = Vec::new();
        for ((port, _), frames) in outcome.sent {
            if port != UPLINK {
                let pod = Pod::all().find(|pod| pod.port() == port && (self.placement)(*pod) == node);
                let pod = pod.expect("a port of this node");
                arrivals.extend(frames.into_iter().map(|frame| (pod, frame)));
                continue;
            }
            for frame in frames {
                let to = (0..self.nodes.len() as u16).find(|node| frame.starts_with(&uplink_mac(*node).0));
                let to = to.expect("the station of a node");
                let outcome = self.receive(to, UPLINK, &[frame]);
                assert!(outcome.sent.keys().all(|(port, _)| *port != UPLINK), "it goes round");
                arrivals.extend(self.arrivals(to, outcome));
            }
        }
        arrivals
    }

    fn node(&self, own: u16) -> ProgramSpec {
        let others = (0..self.nodes.len() as u16).filter(|other| *other != own);
        let nodes = others.map(|other| (NodeNo(other), node(own, other))).collect();
        let here = Pod::all().filter(|pod| (self.placement)(*pod) == own);
        let pods = here.map(|pod| PortSpec {
            macs: vec![pod.station()],
            ips: [true, false].map(|is_v4| pod.address(is_v4)).into(),
            port_security: true,
            ..port(pod.port(), NETWORK)
        });
        let ports = pods.chain([port(UPLINK, UPLINKS)]);
        let overlay =
            Vni::new(100).map(|vni| OverlaySpec { vni, port: ELSEWHERE, floods: false, isolated: false });
        let pods_network = NetworkSpec { gateway: Some(self.gateway(own)), overlay, ..network(NETWORK) };
        ProgramSpec {
            networks: [(NETWORK, pods_network), (UPLINKS, network(UPLINKS))].into(),
            ports: ports.map(|port| (port.number, port)).collect(),
            underlay: Some(UnderlaySpec { port: UPLINK, nodes }),
            ..ProgramSpec::default()
        }
    }

    fn gateway(&self, own: u16) -> GatewaySpec {
        let prefix = |address: IpAddr, len| Prefix { address, len };
        let elsewhere = Pod::all().filter(|pod| (self.placement)(*pod) != own);
        let routes = elsewhere.flat_map(|pod| {
            let via = Via::Node(NodeNo((self.placement)(pod)));
            [(true, 32), (false, 128)]
                .map(|(is_v4, len)| RouteSpec { to: prefix(pod.address(is_v4), len), via })
        });
        GatewaySpec {
            mac: GATEWAY,
            addresses: vec![prefix(gateway_address(true), 24), prefix(gateway_address(false), 64)],
            router: ROUTER,
            routes: routes.collect(),
        }
    }
}

fn uplink_mac(node: u16) -> MacAddr {
    MacAddr([2, 0xaa, 0, 0, 0, node as u8])
}

fn node(own: u16, other: u16) -> NodeSpec {
    let address = |node: u16| IpAddr::from([192, 0, 2, node as u8 + 1]);
    NodeSpec {
        number: NodeNo(other),
        name: format!("node-{other}"),
        address: address(other),
        source: address(own),
        source_mac: uplink_mac(own),
        next_hop: Some(uplink_mac(other)),
        mtu_bytes: 1500,
    }
}

fn network(number: NetworkNo) -> NetworkSpec {
    NetworkSpec {
        number,
        name: format!("network-{}", number.0),
        flood_unknown: false,
        mac_age_ms: 300_000,
        mac_limit: 100,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

fn port(number: PortNo, network: NetworkNo) -> PortSpec {
    PortSpec {
        number,
        name: format!("port-{}", number.0),
        network,
        vlan: VlanMode::Access(None),
        macs: Vec::new(),
        ips: Vec::new(),
        port_security: false,
        mac_limit: 0,
        isolated: false,
        mtu_bytes: 1400,
        policy: None,
    }
}
