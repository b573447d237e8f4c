//! Where are the other nodes, and which networks reach them? Tunnels (Geneve, RFC 8926) over the underlay, which one port
//! of the switch, the uplink, leads to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use wire::MacAddr;
use wire::geneve;

use super::build::is_source;
use super::tables::Carries;
use super::{NetworkNo, NetworkSpec, Port, PortNo, Program, ProgramError, ProgramSpec, VlanId};
use crate::tunnel::Outer;

/// Another node's number: assigned by control, stable while the node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeNo(pub u16);

/// A virtual network identifier: the same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vni(u32);

impl Vni {
    /// The identifier, if it has 24 bits.
    pub fn new(vni: u32) -> Option<Self> {
        (vni <= geneve::MAX_VNI).then_some(Self(vni))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// The other nodes, and the port that leads to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlaySpec {
    /// The uplink. While it is no port, what is for other nodes is dropped.
    pub port: PortNo,
    /// All other nodes.
    pub nodes: BTreeMap<NodeNo, NodeSpec>,
}

/// How one other node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its number.
    pub number: NodeNo,
    /// Its name, for people.
    pub name: String,
    /// Where its tunnels end.
    pub address: IpAddr,
    /// Where ours end: of the same family.
    pub source: IpAddr,
    /// The uplink's station address.
    pub source_mac: MacAddr,
    /// The station of the next hop towards it; none while that is unknown: frames to it are dropped.
    pub next_hop: Option<MacAddr>,
    /// The largest IP packet that the underlay takes to it, in bytes.
    pub mtu_bytes: u32,
}

/// A network's part on other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlaySpec {
    /// Its identifier.
    pub vni: Vni,
    /// The number of the port that stands for all other nodes: of no device, and no other port's.
    pub port: PortNo,
    /// Groups and unknown stations are on other nodes too: floods go to all of them. False for a network that is
    /// only routed.
    pub floods: bool,
    /// Stations elsewhere are isolated, as those here.
    pub isolated: bool,
}

/// The underlay, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Underlay {
    pub(crate) port: PortNo,
    nodes: BTreeMap<NodeNo, Node>,
    by_address: HashMap<IpAddr, NodeNo>,
    own: HashSet<IpAddr>,
    by_vni: HashMap<Vni, PortNo>,
    pub(super) by_vlan: HashMap<VlanId, PortNo>,
}

/// Another node, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// The headers of tunnels to it; none while its next hop is unknown.
    pub(crate) outer: Option<Outer>,
    /// The largest IP packet inside a tunnel to it.
    pub(crate) mtu_bytes: u32,
}

/// The end of a tunnel: a network on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tunnel {
    /// The node.
    pub node: NodeNo,
    /// The network.
    pub vni: Vni,
}

impl Underlay {
    pub(crate) fn node(&self, number: NodeNo) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeNo, &Node)> {
        self.nodes.iter().map(|(number, node)| (*number, node))
    }

    /// The node whose tunnels end at `address`.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<NodeNo> {
        self.by_address.get(&address).copied()
    }

    /// True for an address of this node where tunnels end.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The port that stands for the other nodes in the network of `vni`.
    pub(crate) fn port_of(&self, vni: Vni) -> Option<PortNo> {
        self.by_vni.get(&vni).copied()
    }

    /// The port that stands for what is in `vlan` behind the uplink.
    pub(crate) fn port_of_vlan(&self, vlan: u16) -> Option<PortNo> {
        self.by_vlan.get(&VlanId::new(vlan)?).copied()
    }
}

/// Checks the underlay of `spec` and derives its lookups.
pub(super) fn build(spec: &ProgramSpec) -> Result<Option<Underlay>, ProgramError> {
    let Some(underlay) = &spec.underlay else {
        let overlay = spec.networks.values().find(|network| network.overlay.is_some());
        return match overlay {
            Some(network) => Err(overlay_error(network, "no uplink leads to other nodes")),
            None => Ok(None),
        };
    };
    let mut built = Underlay {
        port: underlay.port,
        nodes: BTreeMap::new(),
        by_address: HashMap::new(),
        own: HashSet::new(),
        by_vni: HashMap::new(),
        by_vlan: HashMap::new(),
    };
    for (filed, node) in &underlay.nodes {
        check_node(*filed, node)?;
        built.own.insert(node.source);
        if let Some(rival) = built.by_address.insert(node.address, node.number) {
            let rival = underlay.nodes.get(&rival).map(|rival| rival.name.clone()).unwrap_or_default();
            return Err(node_error(
                node,
                format!("the address {}, which is node {rival:?}'s too", node.address),
            ));
        }
        built.nodes.insert(node.number, derive_node(node));
    }
    for network in spec.networks.values() {
        if let Some(overlay) = &network.overlay {
            check_overlay(spec, network, overlay)?;
            if built.by_vni.insert(overlay.vni, overlay.port).is_some() {
                return Err(overlay_error(network, "another network has the same VNI"));
            }
        }
    }
    Ok(Some(built))
}

fn check_node(filed: NodeNo, node: &NodeSpec) -> Result<(), ProgramError> {
    if filed != node.number {
        let (own, filed) = (node.number.0.into(), filed.0.into());
        return Err(ProgramError::Misfiled { object: node.name.clone(), own, filed });
    }
    if !is_source(node.address) || !is_source(node.source) {
        return Err(node_error(
            node,
            format!("the addresses {} and {}, of which one is no host's", node.address, node.source),
        ));
    }
    if node.address.is_ipv4() != node.source.is_ipv4() {
        return Err(node_error(
            node,
            format!("the address {}, of another family than {}", node.address, node.source),
        ));
    }
    if !node.source_mac.is_unicast() || node.next_hop.is_some_and(|mac| !mac.is_unicast()) {
        return Err(node_error(node, "a MAC address on its way that is no station's".to_owned()));
    }
    Ok(())
}

fn derive_node(node: &NodeSpec) -> Node {
    let outer_bytes = Outer::ip_bytes(node.address.is_ipv4()) as u32;
    let outer =
        node.next_hop.map(|next_hop| Outer::new((node.source_mac, next_hop), (node.source, node.address)));
    Node { name: node.name.clone(), outer, mtu_bytes: node.mtu_bytes.saturating_sub(outer_bytes) }
}

fn check_overlay(
    spec: &ProgramSpec,
    network: &NetworkSpec,
    overlay: &OverlaySpec,
) -> Result<(), ProgramError> {
    if spec.ports.contains_key(&overlay.port) {
        return Err(overlay_error(network, "the port of its overlay is another port, too"));
    }
    let others = spec.networks.values().filter(|other| other.number != network.number);
    if others.filter_map(|other| other.overlay.as_ref()).any(|other| other.port == overlay.port) {
        return Err(overlay_error(network, "the port of its overlay is another network's, too"));
    }
    Ok(())
}

pub(super) fn overlay_error(network: &NetworkSpec, what: &'static str) -> ProgramError {
    ProgramError::Overlay { network: network.name.clone(), what }
}

fn node_error(node: &NodeSpec, what: String) -> ProgramError {
    ProgramError::Node { node: node.name.clone(), what }
}

/// The port that stands for other nodes in a network.
pub(super) fn port(network: NetworkNo, mac_limit: u32, overlay: &OverlaySpec, transparent: bool) -> Port {
    let port = stand_in(network, overlay.port, mac_limit, transparent);
    Port { isolated: overlay.isolated, vni: Some(overlay.vni), ..port }
}

/// A port without a device, for those behind the uplink.
pub(super) fn stand_in(network: NetworkNo, number: PortNo, mac_limit: u32, transparent: bool) -> Port {
    Port {
        number,
        network,
        carries: Carries::Access(0),
        transparent,
        isolated: false,
        security: None,
        mac_limit,
        // Each node has its own.
        mtu_bytes: super::MAX_MTU_BYTES,
        policy: None,
        lease: None,
        vni: None,
        uplink_vlan: None,
    }
}

impl Program {
    /// The port that leads to other nodes. Asked for only where there is one.
    pub(crate) fn uplink(&self) -> PortNo {
        self.underlay.as_ref().map(|underlay| underlay.port).unwrap_or_default()
    }

    /// The largest IP packet in a tunnel to `node`, in bytes.
    pub(crate) fn tunnel_mtu_bytes(&self, node: NodeNo) -> u32 {
        self.underlay.as_ref().and_then(|underlay| underlay.node(node)).map_or(0, |node| node.mtu_bytes)
    }

    /// For people.
    pub(crate) fn node_name(&self, node: NodeNo) -> &str {
        self.underlay.as_ref().and_then(|underlay| underlay.node(node)).map_or("?", |node| &node.name)
    }

    /// The other nodes, if there is an uplink that leads to them.
    pub(crate) fn underlay(&self) -> Option<&Underlay> {
        self.underlay.as_ref()
    }
}
