//! What do the stages look up in a program?

use std::collections::HashMap;
use std::net::IpAddr;

use wire::MacAddr;

use super::{
    Dhcp, Gateway, Hop, HopNo, Host, Lease, NetworkNo, PolicyNo, PortNo, ProgramSpec, Router, RouterNo,
    Scope, Tunnel, Underlay, VlanId, Vni,
};
use crate::stations::{Place, StationView};

/// One checked, immutable version of what the switch forwards by. The default has no ports.
#[derive(Debug, Clone, Default)]
pub struct Program {
    pub(super) spec: ProgramSpec,
    /// By port number, so that the packet path finds a port without a search.
    pub(super) ports: Vec<Option<Box<Port>>>,
    pub(super) networks: HashMap<NetworkNo, Network>,
    pub(super) domains: Vec<Domain>,
    pub(super) routers: HashMap<RouterNo, Router>,
    pub(super) hops: Vec<Hop>,
    pub(super) underlay: Option<Underlay>,
    pub(super) host: Option<Host>,
}

/// The position of a [`Domain`] in its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DomainNo(pub(super) u32);

/// The VLANs that a port carries, ready to ask. VLAN 0 stands for "in no VLAN".
#[derive(Debug, Clone)]
pub(crate) enum Carries {
    /// One, untagged.
    Access(u16),
    /// Those of the set and the native one.
    Trunk { allowed: VlanSet, native: Option<u16> },
}

/// A set of VLAN ids.
#[derive(Debug, Clone)]
pub(crate) enum VlanSet {
    /// All of 1 to 4094.
    All,
    /// Those whose bit is set.
    Some(Box<[u64; 64]>),
}

impl Carries {
    /// The VLANs that it names one by one.
    pub(super) fn named(&self) -> Vec<u16> {
        match self {
            Self::Access(own) => vec![*own],
            Self::Trunk { allowed: VlanSet::All, native } => native.iter().copied().collect(),
            Self::Trunk { allowed, native } => {
                (1..=4094).filter(|vlan| allowed.contains(*vlan) || *native == Some(*vlan)).collect()
            }
        }
    }

    /// True if it carries every VLAN, named or not.
    pub(super) fn all(&self) -> bool {
        matches!(self, Self::Trunk { allowed: VlanSet::All, .. })
    }
}

impl VlanSet {
    /// A VLAN id that no port names: stands for all those.
    pub(super) const UNNAMED: u16 = 4095;

    pub(super) fn new(ids: &[VlanId]) -> Self {
        if ids.is_empty() {
            return Self::All;
        }
        let mut bits = Box::new([0; 64]);
        for id in ids {
            bits[usize::from(id.get() / 64)] |= 1 << (id.get() % 64);
        }
        Self::Some(bits)
    }

    fn contains(&self, vlan: u16) -> bool {
        match self {
            Self::All => (1..=4094).contains(&vlan),
            Self::Some(bits) => bits[usize::from(vlan / 64) % 64] & (1 << (vlan % 64)) != 0,
        }
    }
}

/// A port, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) number: PortNo,
    pub(crate) network: NetworkNo,
    pub(super) carries: Carries,
    /// Tagged frames pass as they are: the network has no VLANs.
    pub(crate) transparent: bool,
    pub(crate) isolated: bool,
    pub(crate) security: Option<Security>,
    pub(crate) mac_limit: u32,
    pub(crate) mtu_bytes: u32,
    pub(crate) policy: Option<PolicyNo>,
    /// What its stations get that ask for addresses.
    pub(crate) lease: Option<Box<Lease>>,
    /// It stands for all other nodes of the network with this identifier.
    pub(crate) vni: Option<Vni>,
    /// It stands for what is in this VLAN behind the uplink.
    pub(crate) uplink_vlan: Option<VlanId>,
}

/// The addresses that a port's stations may use.
#[derive(Debug, Clone)]
pub(crate) struct Security {
    pub(super) macs: Vec<MacAddr>,
    pub(super) ips: Vec<IpAddr>,
}

impl Security {
    pub(crate) fn allows_mac(&self, mac: MacAddr) -> bool {
        self.macs.contains(&mac)
    }

    /// True if the port may use any IP address: none is listed.
    pub(crate) fn allows_any_ip(&self) -> bool {
        self.ips.is_empty()
    }

    /// True for a listed address, and for the link-local ones that follow from the MACs (RFC 4291 appendix A).
    pub(crate) fn allows_ip(&self, ip: IpAddr) -> bool {
        self.allows_any_ip()
            || self.ips.contains(&ip)
            || matches!(ip, IpAddr::V6(ip) if self.macs.iter().any(|mac| link_local(*mac) == ip))
    }
}

/// The link-local address that a station derives from its MAC (RFC 4291 §2.5.6 and appendix A).
pub(super) fn link_local(mac: MacAddr) -> std::net::Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut ip = [0; 16];
    ip[..2].copy_from_slice(&[0xfe, 0x80]);
    ip[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    ip.into()
}

impl Port {
    /// True if frames of `vlan` (0: of no VLAN) enter and leave by this port.
    pub(crate) fn carries(&self, vlan: u16) -> bool {
        match &self.carries {
            Carries::Access(own) => *own == vlan,
            Carries::Trunk { allowed, native } => *native == Some(vlan) || allowed.contains(vlan),
        }
    }

    /// True if frames of `vlan`, which the port carries, have a tag outside.
    pub(crate) fn tags(&self, vlan: u16) -> bool {
        match &self.carries {
            Carries::Access(_) => false,
            Carries::Trunk { native, .. } => *native != Some(vlan),
        }
    }

    /// The VLAN of frames that come in without a tag, or with one that has a priority only (802.1Q §6.9.1).
    /// `None` if the port takes no such frames; 0 for no VLAN.
    pub(crate) fn untagged_vlan(&self) -> Option<u16> {
        match &self.carries {
            Carries::Access(own) => Some(*own),
            Carries::Trunk { native, .. } => *native,
        }
    }

    /// True if frames may come in tagged with a VLAN.
    pub(crate) fn is_trunk(&self) -> bool {
        matches!(self.carries, Carries::Trunk { .. })
    }
}

/// A network, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) number: NetworkNo,
    pub(crate) flood_unknown: bool,
    pub(crate) mac_age_ms: u64,
    pub(crate) mac_limit: u32,
    /// The VLANs that some port names.
    pub(super) named: HashMap<u16, DomainNo>,
    /// All other VLANs: only the trunks that carry all of them.
    pub(super) unnamed: DomainNo,
    /// The ports that list a station; several only when they share no VLAN.
    pub(super) stations: HashMap<MacAddr, Vec<PortNo>>,
    pub(crate) gateway: Option<Gateway>,
    pub(crate) dhcp: Option<Dhcp>,
    /// Some port of it has a policy.
    pub(crate) has_policies: bool,
}

/// The ports that a flood reaches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Domain {
    /// First those that are not isolated.
    members: Vec<Member>,
    /// How many are not.
    open: usize,
}

/// A port of a domain, with all that a flood has to know of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) port: PortNo,
    /// The tunnel to it, if it is on another node.
    pub(crate) tunnel: Option<Tunnel>,
    /// Its VLAN behind the uplink, if it stands for one.
    pub(crate) uplink_vlan: Option<VlanId>,
    pub(crate) tagged: bool,
    pub(crate) mtu_bytes: u32,
    pub(super) isolated: bool,
}

impl Domain {
    pub(super) fn push(&mut self, member: Member) {
        self.members.push(member);
    }

    pub(super) fn seal(&mut self) {
        self.members.sort_by_key(|member| member.isolated);
        self.open = self.members.partition_point(|member| !member.isolated);
    }

    /// Who may receive a flood from a port that is isolated, or is not; the sender itself included.
    #[inline]
    pub(crate) fn receivers(&self, sender_isolated: bool) -> &[Member] {
        if sender_isolated { &self.members[..self.open] } else { &self.members }
    }
}

impl Program {
    /// The spec that it was built from.
    pub fn spec(&self) -> &ProgramSpec {
        &self.spec
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.spec.version
    }

    /// The stations that its ports list, once per port.
    pub fn stations(&self) -> Vec<StationView> {
        let view = |port: &super::PortSpec, mac: &MacAddr| StationView {
            network: port.network,
            vlan: self.port(port.number).and_then(Port::untagged_vlan).and_then(VlanId::new),
            mac: *mac,
            port: port.number,
            node: None,
            configured: true,
            idle_ms: 0,
        };
        self.spec.ports.values().flat_map(|port| port.macs.iter().map(move |mac| view(port, mac))).collect()
    }

    /// One more than the largest port number.
    pub(crate) fn ports_end(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    pub(crate) fn port(&self, number: PortNo) -> Option<&Port> {
        self.ports.get(usize::from(number.0))?.as_deref()
    }

    pub(crate) fn network(&self, number: NetworkNo) -> Option<&Network> {
        self.networks.get(&number)
    }

    #[inline]
    pub(crate) fn domain(&self, number: DomainNo) -> &Domain {
        &self.domains[number.0 as usize]
    }

    /// The router whose addresses mean one thing in `scope`.
    pub(crate) fn router_of(&self, scope: Scope) -> Option<&Router> {
        match scope {
            Scope::Router(router) => self.routers.get(&router),
            Scope::Network(_) => None,
        }
    }

    #[inline]
    pub(crate) fn hop(&self, number: HopNo) -> Option<&Hop> {
        self.hops.get(number.0 as usize)
    }

    /// The port that lists `mac` in `vlan` of `network`.
    pub(crate) fn configured_station(&self, network: &Network, vlan: u16, mac: MacAddr) -> Option<&Port> {
        let ports = network.stations.get(&mac)?;
        ports.iter().filter_map(|port| self.port(*port)).find(|port| port.carries(vlan))
    }

    /// True if a station learned to be at `place` can still be reached there.
    pub(crate) fn reaches(&self, place: Place, network: NetworkNo, vlan: u16) -> bool {
        let node_is_there =
            |node| self.underlay.as_ref().is_some_and(|underlay| underlay.node(node).is_some());
        self.port(place.port).is_some_and(|port| {
            port.network == network && port.carries(vlan) && place.node.is_none_or(node_is_there)
        })
    }
}

impl Network {
    /// The domain of `vlan` (0: of no VLAN).
    pub(crate) fn domain(&self, vlan: u16) -> DomainNo {
        self.named.get(&vlan).copied().unwrap_or(self.unnamed)
    }
}
