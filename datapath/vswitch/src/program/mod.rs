//! What does the switch forward by? One immutable version; the only way from control into the datapath.
//!
//! `Spec -> Program`: the specs are passive data; [`Program::build`] checks them and derives what lookups need. Of services,
//! policies and identities there may be many: [`Services`] and [`Policies`] are derived as they are put, and versions share
//! what is the same in them, so that a change costs what it is about.
//!
//! Words: a *domain* is a network, or one VLAN of it: the ports that a flood reaches. A *transparent* network is one
//! without VLANs: it carries tagged frames as they are.

mod build;
mod dhcp;
mod host;
mod localnet;
mod policy;
mod router;
mod routers;
mod service;
mod shared;
mod tables;
mod underlay;

use std::collections::BTreeMap;
use std::net::IpAddr;

use wire::MacAddr;

pub use dhcp::DhcpSpec;
pub(crate) use dhcp::{Dhcp, Lease, Server};
pub(crate) use host::Host;
pub use host::HostSpec;
pub use localnet::LocalnetSpec;
pub(crate) use policy::Policy;
pub use policy::{
    IdentityNo, IdentitySpec, Policies, PolicyNo, PolicySpec, PortRangeSpec, RuleAction, RuleSpec, Scope,
    TierSpec,
};
pub(crate) use router::{Gateway, Hop, HopNo, Route, Router};
pub use router::{GatewaySpec, Prefix, RouteSpec, RouterNo, Via};
pub(crate) use service::Service;
pub use service::{Affinity, EndpointSpec, FrontendSpec, ServiceNo, ServiceSpec, Services};
pub use tables::Program;
pub(crate) use tables::{Domain, DomainNo, Member, Network, Port, Security};
pub(crate) use underlay::{Node, Underlay};
pub use underlay::{NodeNo, NodeSpec, OverlaySpec, Tunnel, UnderlaySpec, Vni};

/// A port's number in the datapath: assigned by control, stable while the port lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PortNo(pub u16);

/// A network's number: assigned by control, stable while the network lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NetworkNo(pub u32);

/// An 802.1Q VLAN id that a port can be in: 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VlanId(u16);

impl VlanId {
    /// The id, if it is one of 1 to 4094.
    pub fn new(id: u16) -> Option<Self> {
        (1..=4094).contains(&id).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// Which VLANs of its network a port carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VlanMode {
    /// Frames are untagged outside; inside the network they belong to this VLAN, or to none. A tagged frame is carried
    /// as it is only by a network that has no VLANs.
    Access(Option<VlanId>),
    /// Frames carry their tag outside. Untagged ones belong to `native`, or are dropped where there is none.
    Trunk {
        /// The VLANs that the port carries, beside `native`; empty means all.
        allowed: Vec<VlanId>,
        /// The VLAN of untagged frames, in both directions.
        native: Option<VlanId>,
    },
}

/// An L2 domain that learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its number.
    pub number: NetworkNo,
    /// Its name, for people.
    pub name: String,
    /// Whether frames to unknown stations are sent to everybody.
    pub flood_unknown: bool,
    /// Learned addresses are forgotten after this long without a frame, in milliseconds.
    pub mac_age_ms: u64,
    /// Learned addresses the network may hold; further stations are not learned.
    pub mac_limit: u32,
    /// Where its packets to other subnets go; none: to a station that somebody else runs.
    pub gateway: Option<GatewaySpec>,
    /// What hosts are told that ask for their configuration; none: whoever answers them is somebody else.
    pub dhcp: Option<DhcpSpec>,
    /// Its part on other nodes; none: it is of this node alone.
    pub overlay: Option<OverlaySpec>,
}

/// One port's place in the forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// Its number.
    pub number: PortNo,
    /// Its name, for people.
    pub name: String,
    /// The network it is in.
    pub network: NetworkNo,
    /// The VLANs it carries.
    pub vlan: VlanMode,
    /// The stations behind it: known without learning, in every VLAN that the port carries.
    pub macs: Vec<MacAddr>,
    /// The addresses its stations may use as a source; meaningful with `port_security`. Empty: any.
    pub ips: Vec<IpAddr>,
    /// Refuse frames whose source is not one of `macs` and `ips` (IPv6 link-local and unspecified sources derived from
    /// the MAC, DHCP's and duplicate address detection's, stay allowed).
    pub port_security: bool,
    /// Learned addresses the port may hold; further stations are not learned.
    pub mac_limit: u32,
    /// Never send to other isolated ports of the network.
    pub isolated: bool,
    /// The largest IP packet that the port takes, in bytes: [`MIN_MTU_BYTES`] to [`MAX_MTU_BYTES`].
    pub mtu_bytes: u32,
    /// What may be sent to it and by it; none: everything.
    pub policy: Option<PolicyNo>,
}

/// The smallest MTU of a port: what IPv4 asks of every link (RFC 791 §3.2).
pub const MIN_MTU_BYTES: u32 = 68;
/// The largest MTU of a port: the longest IPv4 packet.
pub const MAX_MTU_BYTES: u32 = 65_535;

/// Everything the switch forwards by, as data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgramSpec {
    /// Grows with each change.
    pub version: u64,
    /// All networks.
    pub networks: BTreeMap<NetworkNo, NetworkSpec>,
    /// All ports.
    pub ports: BTreeMap<PortNo, PortSpec>,
    /// The other nodes.
    pub underlay: Option<UnderlaySpec>,
    /// Networks that go on in VLANs of the uplink.
    pub localnets: BTreeMap<NetworkNo, LocalnetSpec>,
    /// The node itself, if it is on a network.
    pub host: Option<HostSpec>,
    /// All policies, and who is who to them.
    pub policies: Policies,
    /// All services.
    pub services: Services,
}

/// Why a spec is no program. The message names the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// A port names a network that does not exist.
    #[error("port {port:?} is in network {network}, which does not exist")]
    UnknownNetwork {
        /// The port's name.
        port: String,
        /// The network's number.
        network: u32,
    },
    /// An object is filed under another number than its own.
    #[error("{object:?} is number {own} but filed under {filed}")]
    Misfiled {
        /// The object's name.
        object: String,
        /// Its own number.
        own: u32,
        /// The number that it is filed under.
        filed: u32,
    },
    /// A port's MTU is out of range.
    #[error("port {port:?} has an MTU of {mtu_bytes} bytes: {MIN_MTU_BYTES} to {MAX_MTU_BYTES} are possible")]
    Mtu {
        /// The port's name.
        port: String,
        /// What it asks for.
        mtu_bytes: u32,
    },
    /// A port lists an address that no packet may have as its source.
    #[error("port {port:?} lists {ip}, which is no station's address")]
    NotASource {
        /// The port's name.
        port: String,
        /// The address.
        ip: IpAddr,
    },
    /// A port lists a group or zero address as a station.
    #[error("port {port:?} lists {mac}, which is no station's address")]
    NotAStation {
        /// The port's name.
        port: String,
        /// The address.
        mac: MacAddr,
    },
    /// Two ports of a network claim one station.
    #[error("ports {first:?} and {second:?} of one network and VLAN both list {mac}")]
    DuplicateStation {
        /// One port's name.
        first: String,
        /// The other's.
        second: String,
        /// The address.
        mac: MacAddr,
    },
    /// A gateway has no station's MAC, no address, or one that no packet may have as its source.
    #[error("the gateway of network {network:?} has {what}")]
    Gateway {
        /// The network's name.
        network: String,
        /// What is wrong with it.
        what: String,
    },
    /// What hosts are told cannot be told, or is too long.
    #[error("the DHCP of network {network:?} has {what}")]
    Dhcp {
        /// The network's name.
        network: String,
        /// What is wrong with it.
        what: String,
    },
    /// A port names a policy that does not exist.
    #[error("port {port:?} has a policy that does not exist")]
    UnknownPolicy {
        /// The port's name.
        port: String,
    },
    /// A service has an address or a protocol that none can have.
    #[error("service {service:?} has {what}")]
    Service {
        /// Its name.
        service: String,
        /// What is wrong with it.
        what: String,
    },
    /// Two services have one address and port.
    #[error("services {first:?} and {second:?} both have {address} port {port}")]
    DuplicateFrontend {
        /// One's name.
        first: String,
        /// The other's.
        second: String,
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// What an identity is of is no prefix.
    #[error("an identity is of {addresses}, which is no prefix")]
    Identity {
        /// The addresses.
        addresses: Prefix,
    },
    /// A node cannot be reached as it says.
    #[error("node {node:?} has {what}")]
    Node {
        /// Its name.
        node: String,
        /// What is wrong with it.
        what: String,
    },
    /// A network cannot be on other nodes as it says.
    #[error("network {network:?}: {what}")]
    Overlay {
        /// Its name.
        network: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two networks of one router have subnets with common addresses.
    #[error("networks {first:?} and {second:?} of one router overlap: {subnet} and {other}")]
    Overlap {
        /// One network's name.
        first: String,
        /// The other's.
        second: String,
        /// The one's subnet.
        subnet: Prefix,
        /// The other's.
        other: Prefix,
    },
    /// Two ports of one router list one address.
    #[error("ports {first:?} and {second:?} of one router both list {ip}")]
    DuplicateAddress {
        /// One port's name.
        first: String,
        /// The other's.
        second: String,
        /// The address.
        ip: IpAddr,
    },
}
