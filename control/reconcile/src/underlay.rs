//! How does the node reach the others? The uplink's port, a port for each network of several nodes, and the next hops, which
//! the kernel knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{MacAddr, Network, Node, Topology, Underlay};
use vswitch::program::{
    LocalnetSpec, NetworkNo, NetworkSpec, NodeNo, NodeSpec, OverlaySpec, PortNo, PortSpec, Prefix, RouteSpec,
    UnderlaySpec, Via, VlanId, VlanMode, Vni,
};

use crate::Kernel;
use crate::datapath::{Device, Port, Take};
use crate::desired::Known;
use crate::kernel::NextHop;

/// The network of the uplink's own frames, which are nobody's here. Networks that are defined have numbers from 1 on.
const NETWORK: NetworkNo = NetworkNo(0);
/// The largest that there is: what fits is decided node by node.
const ANY_MTU_BYTES: u32 = vswitch::program::MAX_MTU_BYTES;

/// The node among the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) nodes: Underlay,
    /// The uplink's port.
    pub(crate) port: u16,
    /// By the number of the node; one to which there is no way has none.
    pub(crate) next_hops: BTreeMap<u16, NextHop>,
}

impl Reached {
    /// Looks for the ways to all other nodes: those found, and a sentence for each that was not.
    pub(crate) fn look(nodes: &Underlay, kernel: &dyn Kernel) -> (BTreeMap<u16, NextHop>, Vec<String>) {
        let own = nodes.own();
        let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
        let others = nodes.others().iter().filter_map(|node| Some((node, node.tunnel_from(own)?)));
        let (others, ways): (Vec<_>, Vec<_>) = others.unzip();
        for (node, looked) in others.into_iter().zip(kernel.next_hops(own.uplink().as_str(), &ways)) {
            match looked {
                Ok(hop) => drop(found.insert(node.number(), hop)),
                Err(error) => problems.push(format!("node {}: {error}", node.name())),
            }
        }
        (found, problems)
    }

    /// What the switch is told of the nodes.
    pub(crate) fn spec(&self) -> UnderlaySpec {
        let reached = self.nodes.others().iter().filter_map(|node| self.node(node));
        UnderlaySpec { port: PortNo(self.port), nodes: reached.map(|node| (node.number, node)).collect() }
    }

    fn node(&self, node: &Node) -> Option<NodeSpec> {
        let hop = self.next_hops.get(&node.number())?;
        let (source, address) = node.tunnel_from(self.nodes.own())?;
        Some(NodeSpec {
            number: NodeNo(node.number()),
            name: node.name().to_string(),
            address,
            source,
            source_mac: hop.source_mac,
            next_hop: hop.mac,
            mtu_bytes: hop.mtu_bytes,
        })
    }

    /// The uplink, with the VLANs that networks are in.
    pub(crate) fn uplink(&self, vlans: Vec<u16>) -> Port {
        let spec = PortSpec {
            number: PortNo(self.port),
            name: "uplink".to_owned(),
            network: NETWORK,
            vlan: VlanMode::Access(None),
            macs: Vec::new(),
            ips: Vec::new(),
            port_security: false,
            mac_limit: 0,
            isolated: false,
            mtu_bytes: ANY_MTU_BYTES,
            policy: None,
        };
        let netdev = self.nodes.own().uplink().to_string();
        Port { spec, device: Device::Netdev { netdev, take: Take::Ours { vlans } } }
    }

    /// What is behind the gateway of `network` on the nodes that are reached.
    pub(crate) fn routes(&self, network: &Network) -> Vec<RouteSpec> {
        let reached = network.elsewhere().iter().filter(|(node, _)| self.next_hops.contains_key(node));
        let route = |(node, net): &(u16, ipnet::IpNet)| RouteSpec {
            to: Prefix { address: net.addr(), len: net.prefix_len() },
            via: Via::Node(NodeNo(*node)),
        };
        reached.map(route).collect()
    }
}

/// A node, as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The node.
    pub node: Node,
    /// It is the agent's own.
    pub own: bool,
    /// Where tunnels to it end.
    pub address: Option<IpAddr>,
    /// The way to it; none: there is none, or it is the own.
    pub next_hop: Option<NextHop>,
}

/// The nodes, the own first.
pub(crate) fn views(reached: &Reached) -> Vec<NodeView> {
    let own = reached.nodes.own();
    let of_own =
        NodeView { node: own.clone(), own: true, address: own.addresses().first().copied(), next_hop: None };
    let others = reached.nodes.others().iter().map(|node| NodeView {
        node: node.clone(),
        own: false,
        address: node.tunnel_from(own).map(|(_, address)| address),
        next_hop: reached.next_hops.get(&node.number()).cloned(),
    });
    std::iter::once(of_own).chain(others).collect()
}

/// The network that the uplink's port is in.
pub(crate) fn network() -> NetworkSpec {
    NetworkSpec {
        number: NETWORK,
        name: "underlay".to_owned(),
        flood_unknown: false,
        mac_age_ms: 1000,
        mac_limit: 0,
        gateway: None,
        dhcp: None,
        overlay: None,
    }
}

/// A network's part on other nodes; `None` for a network of this one.
pub(crate) fn overlay(known: &Known) -> Option<OverlaySpec> {
    let spec = known.network.spec();
    Some(OverlaySpec {
        vni: spec.vni.and_then(Vni::new)?,
        port: PortNo(known.overlay_port?),
        floods: spec.topology == Topology::Layer2,
        isolated: spec.isolated,
    })
}

/// A network's part in a VLAN of the uplink; `None` for all others.
pub(crate) fn localnet(known: &Known) -> Option<LocalnetSpec> {
    let spec = known.network.spec();
    let vlan = spec.vlan.filter(|_| spec.topology == Topology::Localnet).and_then(VlanId::new)?;
    Some(LocalnetSpec { vlan, port: PortNo(known.overlay_port?) })
}

/// The address of the gateway of a network of several nodes, the same on all of them: locally administered, and apart from
/// those of networks of one node.
pub(crate) fn gateway_mac(vni: u32) -> MacAddr {
    let [_, high, middle, low] = vni.to_be_bytes();
    MacAddr([0x02, 0x4d, 0x56, high, middle, low])
}
