//! What is a network, and which fields of it make sense together?

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    KindChoice, NameError, NetworkName, PortKind, Subnet, SubnetError, SubnetSpec, Underlay, dhcp, parts,
};

/// A network as a person writes it in the networks file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NetworkSpec {
    /// Its name: what a CNI configuration refers to.
    pub name: String,
    /// Where pods' addresses come from: one address of each family, taken from the first subnet of it that has one left.
    /// None: a network without addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<SubnetSpec>,
    /// Which nodes the network is on.
    #[serde(default, skip_serializing_if = "Topology::is_local")]
    pub topology: Topology,
    /// Its virtual network identifier, the same on all nodes: for networks of several nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// The largest IP packet, in bytes [default: 1500; 1400 with a VNI, which leaves room for the tunnels' headers].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The switch is the gateway of the subnets, and routes between the networks that name the same router; none: gateways
    /// are somebody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// The node itself is on the network, by its interface `mp0`: its programs reach pods and services, and its kernel takes
    /// what a gateway sends out. It has the first address that pods could have. For one network with a router.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host: bool,
    /// The switch answers DHCP, of both families, with the addresses that pods were given, and as a router those that look for
    /// one; not: whoever answers is somebody else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dhcp: bool,
    /// Routes that pods get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Name resolution, passed on to the runtime.
    #[serde(default, skip_serializing_if = "Dns::is_empty")]
    pub dns: Dns,
    /// The VLAN of the network's pods; none: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The kind of interface pods get when they do not ask for one.
    #[serde(default, skip_serializing_if = "KindChoice::is_auto")]
    pub port_kind: KindChoice,
    /// Queue pairs of each interface.
    #[serde(default = "default_queues")]
    pub queues: u32,
    /// Pods may only send from the addresses they were given.
    #[serde(default = "yes")]
    pub port_security: bool,
    /// Policies are about the pods of the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub policies: bool,
    /// Pods of the network do not reach each other, only others.
    #[serde(default)]
    pub isolated: bool,
    /// Frames to unknown stations are sent to everybody.
    #[serde(default = "yes")]
    pub flood_unknown: bool,
    /// Learned stations are forgotten after this long without a frame.
    #[serde(default = "default_mac_age")]
    pub mac_age_seconds: u32,
    /// Stations the network may learn.
    #[serde(default = "default_mac_limit")]
    pub mac_limit: u32,
    /// Stations one port may learn.
    #[serde(default = "default_port_mac_limit")]
    pub port_mac_limit: u32,
    /// How vhost-user sockets are made, and who owns the files of pods' programs.
    #[serde(default)]
    pub vhost_user: VhostSocketSpec,
}

/// Which nodes a network is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// This one: a network of the same name on another node is another network.
    #[default]
    Local,
    /// All of them: one L2 domain.
    Layer2,
    /// All of them: each has a subnet, and packets are routed between those.
    Layer3,
    /// All of them, and whoever else is in its VLAN behind their uplinks: one L2 domain.
    Localnet,
}

impl NetworkSpec {
    /// The VLAN that pods are in within the network; that of the uplink is the network itself.
    pub fn own_vlan(&self) -> Option<u16> {
        self.vlan.filter(|_| self.topology != Topology::Localnet)
    }
}

impl Topology {
    /// True for a network of one node.
    pub fn is_local(&self) -> bool {
        *self == Self::Local
    }

    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Layer2 => "layer2",
            Self::Layer3 => "layer3",
            Self::Localnet => "localnet",
        }
    }
}

/// A route as a person writes it (the CNI result's field names).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The destination in CIDR notation.
    pub dst: IpNet,
    /// The next hop; none: the gateway of the first subnet of the family that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// Name resolution (CNI 1.1 §"ADD Success", `dns`).
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Servers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search domains, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options for the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// True if nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How vhost-user sockets are made, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VhostSocketSpec {
    /// Who creates the socket.
    #[serde(default)]
    pub created_by: SocketCreator,
    /// The owner of the socket and its directory: a user id on the node.
    #[serde(default)]
    pub uid: u32,
    /// Their group id on the node.
    #[serde(default)]
    pub gid: u32,
    /// The socket's permission bits as octal digits [default: "0660"].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Who creates a vhost-user socket; the other one connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketCreator {
    /// The switch listens.
    #[default]
    Switch,
    /// The pod's program listens; the switch connects, and again for ever.
    Pod,
}

/// How vhost-user sockets are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VhostSocket {
    /// Who creates the socket.
    pub created_by: SocketCreator,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The socket's permission bits.
    pub mode: u32,
}

impl Default for VhostSocket {
    fn default() -> Self {
        Self { created_by: SocketCreator::Switch, uid: 0, gid: 0, mode: 0o660 }
    }
}

/// An MTU that an Ethernet device of the kernel takes: 68 (RFC 791) to 65521 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MtuBytes(u32);

impl MtuBytes {
    /// The MTU, if it is one of 68 to 65521.
    pub fn new(bytes: u32) -> Option<Self> {
        (68..=65_521).contains(&bytes).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Queue pairs that a port may have.
const MAX_QUEUES: u32 = 64;
/// Stations that a network may be allowed to learn.
const MAX_STATIONS: u32 = 1 << 20;
/// A week: longer than any station is quiet.
const MAX_AGE_SECONDS: u32 = 7 * 24 * 3600;
/// The smallest MTU that carries IPv6 (RFC 8200 §5).
const MIN_MTU_IPV6: u32 = 1280;

/// Of an untagged Ethernet.
const DEFAULT_MTU: u32 = 1500;
/// That with room for the headers of a tunnel over either family, as others in this field have it.
const DEFAULT_OVERLAY_MTU: u32 = 1400;
/// Identifiers have 24 bits (RFC 8926 §3.4); 0 stands for none with some.
const MAX_VNI: u32 = (1 << 24) - 1;

fn default_queues() -> u32 {
    1
}
fn default_mac_age() -> u32 {
    300
}
fn default_mac_limit() -> u32 {
    4096
}
fn default_port_mac_limit() -> u32 {
    64
}
fn yes() -> bool {
    true
}

/// What is wrong with one field of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The name is none.
    #[error("name: {0}")]
    Name(#[from] NameError),
    /// A subnet's field.
    #[error("subnets[{index}].{error}")]
    Subnet {
        /// Which one, from 0.
        index: usize,
        /// Why.
        error: SubnetError,
    },
    /// Two subnets share addresses.
    #[error("subnets[{index}].subnet: {subnet} overlaps {other}: remove one of them")]
    Overlap {
        /// The second one's place.
        index: usize,
        /// The second one.
        subnet: IpNet,
        /// The first one.
        other: IpNet,
    },
    /// A network of several nodes has no identifier.
    #[error("vni: a network of topology {} needs one: choose 1 to {MAX_VNI}, the same on all nodes", .0.as_str())]
    NoVni(Topology),
    /// A network of one node has one.
    #[error("vni: a local network has none: remove it, or set topology to layer2 or layer3")]
    LocalVni,
    /// A network in a VLAN of the uplink without one.
    #[error("vlan: a network of topology localnet needs one: that of the uplink, 1 to 4094")]
    NoVlan,
    /// Its gateway is somebody else's.
    #[error("router: the switch is no gateway in a VLAN of the uplink, where others are: remove it")]
    LocalnetRouter,
    /// A VLAN and a VNI.
    #[error("vlan: a network with a VNI has no VLAN: remove one of them")]
    VlanAndVni,
    /// Addresses would be given out twice.
    #[error("subnets[{index}].nodePrefix: which part of {subnet} does each node have? Choose a prefix length longer than {len}", len = .subnet.prefix_len())]
    NoNodePrefix {
        /// Which one, from 0.
        index: usize,
        /// The subnet.
        subnet: IpNet,
    },
    /// Parts of a subnet of one node.
    #[error(
        "subnets[{index}].nodePrefix: a local network has no parts: remove it, or set topology to layer2 or layer3"
    )]
    LocalNodePrefix {
        /// Which one, from 0.
        index: usize,
    },
    /// The node has no part.
    #[error(
        "subnets[{index}].nodePrefix: {subnet} has no part {number} of prefix length {prefix}, which is node {node:?}'s: choose a longer one"
    )]
    NoPart {
        /// Which one, from 0.
        index: usize,
        /// The subnet.
        subnet: IpNet,
        /// The length.
        prefix: u8,
        /// The node.
        node: String,
        /// Its number.
        number: u16,
    },
    /// What follows from the node is given.
    #[error("subnets[{index}].{field}: each node has its own, which follows from nodePrefix: remove it")]
    OfNode {
        /// Which one, from 0.
        index: usize,
        /// The field.
        field: &'static str,
    },
    /// The router's name is none.
    #[error("router: {0}")]
    Router(NameError),
    /// The router has nothing to be the gateway of.
    #[error("router: the network has no subnets: add one, or remove the router")]
    RouterWithoutSubnet,
    /// The router is to be the gateway of a subnet that names none.
    #[error(
        "subnets[{index}].gateway: a router needs the address that it has in {subnet}: name one of its hosts"
    )]
    RouterWithoutGateway {
        /// Which one, from 0.
        index: usize,
        /// The subnet.
        subnet: IpNet,
    },
    /// The node has nobody to ask for the way.
    #[error("host: the network has no router that is the node's gateway there: name one, or remove host")]
    HostWithoutRouter,
    /// No address is left for the node.
    #[error("host: {0} has no address for the node: widen its ranges or exclude less")]
    NoHostAddress(IpNet),
    /// There are no addresses to give.
    #[error("dhcp: the network has no subnets: add one, or remove dhcp")]
    DhcpWithoutSubnet,
    /// Nobody could answer in the subnet.
    #[error(
        "subnets[{index}].gateway: DHCP needs an address in {subnet} to answer from: name one of its hosts, or remove dhcp"
    )]
    DhcpWithoutGateway {
        /// Which one, from 0.
        index: usize,
        /// The subnet.
        subnet: IpNet,
    },
    /// A domain that DHCP cannot tell.
    #[error(
        "{field}: {text:?} is no domain name, which DHCP is to tell: write labels of letters, digits and hyphens between dots"
    )]
    DhcpDomain {
        /// The field.
        field: String,
        /// What it says.
        text: String,
    },
    /// Answers would be too long.
    #[error(
        "dhcp: the network's nameservers, domains and routes take {bytes} bytes of an answer of {family}, which has room for {max}: remove some"
    )]
    DhcpTooLong {
        /// DHCPv4, or what IPv6 has.
        family: &'static str,
        /// The bytes.
        bytes: usize,
        /// Those that there are.
        max: usize,
    },
    /// A number outside of its bounds.
    #[error("{field}: {value} is out of bounds: choose {min} to {max}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
        /// The least legal value.
        min: u32,
        /// The largest legal value.
        max: u32,
    },
    /// More queue pairs than the kind of port can have.
    #[error("queues: {queues} is more than a port of kind {kind} can have: choose 1, or another portKind")]
    QueuesOfKind {
        /// The number.
        queues: u32,
        /// The kind.
        kind: PortKind,
    },
    /// The MTU is too small for the family.
    #[error("mtu: {0} is too small for IPv6: choose at least {MIN_MTU_IPV6}, or remove the IPv6 subnets")]
    MtuForIpv6(u32),
    /// Bits behind the prefix of a route.
    #[error("routes[{index}].dst: {dst} has bits set behind its prefix: write {network}", network = .dst.trunc())]
    RouteHostBits {
        /// Which one, from 0.
        index: usize,
        /// The destination.
        dst: IpNet,
    },
    /// The gateway is of the other family.
    #[error("routes[{index}].gw: {gw} is not of the family of {dst}: name a gateway of the same family")]
    RouteFamily {
        /// Which one, from 0.
        index: usize,
        /// The destination.
        dst: IpNet,
        /// The gateway.
        gw: IpAddr,
    },
    /// No gateway is named, and no subnet has one.
    #[error(
        "routes[{index}].gw: {dst} needs a next hop: name it here, or give a subnet of its family a gateway"
    )]
    RouteGateway {
        /// Which one, from 0.
        index: usize,
        /// The destination.
        dst: IpNet,
    },
    /// Pods have no address that the route could be used with.
    #[error("routes[{index}].dst: no subnet is of the family of {dst}: add one, or remove the route")]
    RouteWithoutSubnet {
        /// Which one, from 0.
        index: usize,
        /// The destination.
        dst: IpNet,
    },
    /// Not octal permission bits.
    #[error("vhostUser.mode: {0:?} are no permission bits: write octal digits in quotes, as in \"0660\"")]
    Mode(String),
}

/// A spec that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network {network:?}: {invalid}")]
pub struct NetworkError {
    /// Its name, as written.
    pub network: String,
    /// What is wrong.
    pub invalid: Invalid,
}

/// A checked network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    spec: NetworkSpec,
    name: NetworkName,
    subnets: Vec<Subnet>,
    router: Option<NetworkName>,
    mtu: MtuBytes,
    routes: Vec<(IpNet, IpAddr)>,
    vhost_socket: VhostSocket,
    /// The subnets that the nodes' parts are of.
    cluster: Vec<IpNet>,
    /// Which part which other node has.
    elsewhere: Vec<(u16, IpNet)>,
}

impl Network {
    /// Checks a spec.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn new(spec: &NetworkSpec) -> Result<Self, NetworkError> {
        Self::check(spec).map_err(|invalid| NetworkError { network: spec.name.clone(), invalid })
    }

    fn check(spec: &NetworkSpec) -> Result<Self, Invalid> {
        let name = spec.name.parse()?;
        let mut subnets = check_subnets(&spec.subnets)?;
        let router = check_router(spec, &subnets)?;
        check_topology(spec)?;
        if spec.host {
            reserve_host(router.as_ref(), &mut subnets)?;
        }
        let mtu = spec.mtu.unwrap_or(if spec.vni.is_some() { DEFAULT_OVERLAY_MTU } else { DEFAULT_MTU });
        let mtu = MtuBytes::new(mtu).ok_or_else(|| out_of_bounds("mtu", mtu, 68, 65_521))?;
        if mtu.get() < MIN_MTU_IPV6 && subnets.iter().any(|subnet| subnet.net().addr().is_ipv6()) {
            return Err(Invalid::MtuForIpv6(mtu.get()));
        }
        if let Some(vlan) = spec.vlan {
            within("vlan", u32::from(vlan), 1, 4094)?;
        }
        within("queues", spec.queues, 1, MAX_QUEUES)?;
        check_queues_of_kind(spec)?;
        within("macAgeSeconds", spec.mac_age_seconds, 1, MAX_AGE_SECONDS)?;
        within("macLimit", spec.mac_limit, 1, MAX_STATIONS)?;
        within("portMacLimit", spec.port_mac_limit, 0, MAX_STATIONS)?;
        let routes = check_routes(&spec.routes, &subnets)?;
        if spec.dhcp {
            dhcp::check(&spec.dns, &subnets, &routes)?;
        }
        let vhost_socket = check_socket(&spec.vhost_user)?;
        let cluster = subnets.iter().map(Subnet::net).collect();
        let (spec, elsewhere) = (spec.clone(), Vec::new());
        Ok(Self { spec, name, subnets, router, mtu, routes, vhost_socket, cluster, elsewhere })
    }

    /// The network as the agent of `underlay`'s own node has it: of each subnet that node's part.
    ///
    /// # Errors
    /// The first field that is not legal.
    pub fn on_node(spec: &NetworkSpec, underlay: &Underlay) -> Result<Self, NetworkError> {
        let parts = || {
            let own = parts::of_node(spec, underlay.own())?;
            let mut network = Self::check(&own)?;
            network.cluster = spec.subnets.iter().map(|subnet| subnet.subnet).collect();
            network.elsewhere = parts::elsewhere(spec, underlay)?;
            Ok(network)
        };
        parts().map_err(|invalid| NetworkError { network: spec.name.clone(), invalid })
    }

    /// The subnets that it has on all nodes together.
    pub fn cluster(&self) -> &[IpNet] {
        &self.cluster
    }

    /// The parts of its subnets that other nodes have, by the nodes' numbers.
    pub fn elsewhere(&self) -> &[(u16, IpNet)] {
        &self.elsewhere
    }

    /// As it was written: the fields that are legal by themselves (`vlan`, `queues`, limits, switches).
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// Its name.
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The router that is the gateway of its subnets, each of which names one.
    pub fn router(&self) -> Option<&NetworkName> {
        self.router.as_ref()
    }

    /// Where addresses come from, in order.
    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// The largest IP packet.
    pub fn mtu(&self) -> MtuBytes {
        self.mtu
    }

    /// The routes pods get: destination and next hop.
    pub fn routes(&self) -> &[(IpNet, IpAddr)] {
        &self.routes
    }

    /// How vhost-user sockets are made.
    pub fn vhost_socket(&self) -> VhostSocket {
        self.vhost_socket
    }
}

fn out_of_bounds(field: &'static str, value: u32, min: u32, max: u32) -> Invalid {
    Invalid::OutOfBounds { field, value, min, max }
}

fn within(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), Invalid> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(out_of_bounds(field, value, min, max)) }
}

/// Keeps an address of each subnet for the node.
fn reserve_host(router: Option<&NetworkName>, subnets: &mut [Subnet]) -> Result<(), Invalid> {
    if router.is_none() {
        return Err(Invalid::HostWithoutRouter);
    }
    subnets.iter_mut().try_for_each(|subnet| {
        subnet.reserve_host().then_some(()).ok_or_else(|| Invalid::NoHostAddress(subnet.net()))
    })
}

fn check_topology(spec: &NetworkSpec) -> Result<(), Invalid> {
    let has_part = |subnet: &SubnetSpec| subnet.node_prefix.is_some();
    match (spec.topology, spec.vni) {
        (Topology::Localnet, Some(_)) => Err(Invalid::VlanAndVni),
        (Topology::Localnet, None) if spec.vlan.is_none() => Err(Invalid::NoVlan),
        (Topology::Localnet, None) if spec.router.is_some() => Err(Invalid::LocalnetRouter),
        (Topology::Localnet, None) => Ok(()),
        (Topology::Local, Some(_)) => Err(Invalid::LocalVni),
        (Topology::Local, None) => match spec.subnets.iter().position(has_part) {
            Some(index) => Err(Invalid::LocalNodePrefix { index }),
            None => Ok(()),
        },
        (topology, None) => Err(Invalid::NoVni(topology)),
        (_, Some(_)) if spec.vlan.is_some() => Err(Invalid::VlanAndVni),
        (_, Some(vni)) => within("vni", vni, 1, MAX_VNI),
    }
}

fn check_router(spec: &NetworkSpec, subnets: &[Subnet]) -> Result<Option<NetworkName>, Invalid> {
    let Some(name) = &spec.router else { return Ok(None) };
    let name = name.parse().map_err(Invalid::Router)?;
    if subnets.is_empty() {
        return Err(Invalid::RouterWithoutSubnet);
    }
    match subnets.iter().position(|subnet| subnet.gateway().is_none()) {
        Some(index) => Err(Invalid::RouterWithoutGateway { index, subnet: subnets[index].net() }),
        None => Ok(Some(name)),
    }
}

/// VDUSE refuses VIRTIO_NET_F_CTRL_VQ, without which there is no VIRTIO_NET_F_MQ (virtio 1.2 §5.1.3.1).
fn check_queues_of_kind(spec: &NetworkSpec) -> Result<(), Invalid> {
    match spec.port_kind {
        KindChoice::Only(kind) if kind.is_vduse() && spec.queues > 1 => {
            Err(Invalid::QueuesOfKind { queues: spec.queues, kind })
        }
        _ => Ok(()),
    }
}

fn check_subnets(specs: &[SubnetSpec]) -> Result<Vec<Subnet>, Invalid> {
    let mut subnets: Vec<Subnet> = Vec::with_capacity(specs.len());
    for (index, spec) in specs.iter().enumerate() {
        let subnet = Subnet::new(spec).map_err(|error| Invalid::Subnet { index, error })?;
        let net = subnet.net();
        let overlaps = |other: &&Subnet| other.net().contains(&net) || net.contains(&other.net());
        if let Some(other) = subnets.iter().find(overlaps) {
            return Err(Invalid::Overlap { index, subnet: net, other: other.net() });
        }
        subnets.push(subnet);
    }
    Ok(subnets)
}

fn check_routes(specs: &[RouteSpec], subnets: &[Subnet]) -> Result<Vec<(IpNet, IpAddr)>, Invalid> {
    let check = |(index, &RouteSpec { dst, gw }): (usize, &RouteSpec)| {
        let same_family = |address: IpAddr| address.is_ipv4() == dst.addr().is_ipv4();
        if dst != dst.trunc() {
            return Err(Invalid::RouteHostBits { index, dst });
        }
        if let Some(gw) = gw.filter(|gw| !same_family(*gw)) {
            return Err(Invalid::RouteFamily { index, dst, gw });
        }
        let mut family = subnets.iter().filter(|subnet| same_family(subnet.net().addr())).peekable();
        if family.peek().is_none() {
            return Err(Invalid::RouteWithoutSubnet { index, dst });
        }
        let gateway = gw.or_else(|| family.find_map(Subnet::gateway));
        gateway.map(|gateway| (dst, gateway)).ok_or(Invalid::RouteGateway { index, dst })
    };
    specs.iter().enumerate().map(check).collect()
}

fn check_socket(spec: &VhostSocketSpec) -> Result<VhostSocket, Invalid> {
    let text = spec.mode.as_deref().unwrap_or("0660");
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| Invalid::Mode(text.to_owned()))?;
    Ok(VhostSocket { created_by: spec.created_by, uid: spec.uid, gid: spec.gid, mode })
}
