//! What can happen, and how likely?

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanId, VlanMode};
use wire::MacAddr;

use crate::message::{Claim, Message, Tag};

/// Ports, networks and stations that a scenario is about: few, so that they meet.
const PORTS: u16 = 6;
const NETWORKS: u32 = 2;
const STATIONS: u8 = 7;
const VLANS: std::ops::Range<u16> = 10..13;

/// One event.
#[derive(Clone)]
pub enum Step {
    /// Frames come in by a port, which may not exist.
    Frames(PortNo, Vec<Message>),
    /// Time passes.
    Pass(u64),
    /// A port is made, or changed.
    PutPort(PortSpec),
    /// A port is removed.
    DeletePort(PortNo),
    /// A network is made, or changed.
    PutNetwork(NetworkSpec),
    /// A network is removed with its ports.
    DeleteNetwork(NetworkNo),
}

impl Step {
    /// Changes `spec` as the step says. True if that makes a new program.
    pub fn apply(&self, spec: &mut ProgramSpec) -> bool {
        match self {
            Self::Frames(..) | Self::Pass(_) => return false,
            Self::PutPort(port) if spec.networks.contains_key(&port.network) => {
                spec.ports.insert(port.number, port.clone());
            }
            Self::PutPort(_) => return false,
            Self::DeletePort(port) => drop(spec.ports.remove(port)),
            Self::PutNetwork(network) => drop(spec.networks.insert(network.number, network.clone())),
            Self::DeleteNetwork(number) => {
                spec.networks.remove(number);
                spec.ports.retain(|_, port| port.network != *number);
            }
        }
        spec.version += 1;
        true
    }
}

/// Lists of steps, which begin with two networks and some ports.
pub fn scenario(steps: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let networks =
        (1..=NETWORKS).map(|number| network(number).prop_map(Step::PutNetwork)).collect::<Vec<_>>();
    let ports = (1..=4).map(|number| port(number).prop_map(Step::PutPort)).collect::<Vec<_>>();
    (networks, ports, prop::collection::vec(step(), steps))
        .prop_map(|(networks, ports, steps)| [networks, ports, steps].concat())
}

fn step() -> impl Strategy<Value = Step> {
    let frames = (1..=PORTS + 1, prop::collection::vec(message(), 1..6));
    let pass = prop_oneof![Just(0u64), 1u64..300, Just(1000), Just(15_000)];
    prop_oneof![
        20 => frames.prop_map(|(port, messages)| Step::Frames(PortNo(port), messages)),
        4 => pass.prop_map(Step::Pass),
        2 => (1..=PORTS).prop_flat_map(port).prop_map(Step::PutPort),
        1 => (1..=PORTS).prop_map(|port| Step::DeletePort(PortNo(port))),
        1 => (1..=NETWORKS).prop_flat_map(network).prop_map(Step::PutNetwork),
        1 => (1..=NETWORKS).prop_map(|number| Step::DeleteNetwork(NetworkNo(number))),
    ]
}

fn network(number: u32) -> impl Strategy<Value = NetworkSpec> {
    (any::<bool>(), prop_oneof![Just(200u64), Just(1000)], 0u32..6).prop_map(move |(flood, age, limit)| {
        NetworkSpec {
            number: NetworkNo(number),
            name: format!("network-{number}"),
            flood_unknown: flood,
            mac_age_ms: age,
            mac_limit: limit,
            gateway: None,
            dhcp: None,
            overlay: None,
        }
    })
}

/// A port that lists no station but its own, so that no two list the same.
fn port(number: u16) -> impl Strategy<Value = PortSpec> {
    let rare = || prop::bool::weighted(0.3);
    let lists = (rare(), rare(), rare());
    let limits = (0u32..4, prop_oneof![Just(1500u32), Just(600)]);
    (1..=NETWORKS, vlan_mode(), lists, rare(), limits, 0u8..2).prop_map(
        move |(network, vlan, (has_mac, has_ip, security), isolated, (mac_limit, mtu_bytes), life)| {
            PortSpec {
                number: PortNo(number),
                name: format!("port-{number}-{life}"),
                network: NetworkNo(network),
                vlan,
                macs: if has_mac || security { vec![station(number as u8)] } else { vec![] },
                ips: if has_ip { vec![v4(number as u8).into(), v6(number as u8).into()] } else { vec![] },
                port_security: security,
                mac_limit,
                isolated,
                mtu_bytes,
                policy: None,
            }
        },
    )
}

fn vlan_mode() -> impl Strategy<Value = VlanMode> {
    let id = || VLANS.prop_filter_map("a VLAN id", VlanId::new);
    prop_oneof![
        5 => Just(VlanMode::Access(None)),
        2 => id().prop_map(|id| VlanMode::Access(Some(id))),
        2 => (prop::collection::vec(id(), 0..3), prop::option::of(id()))
            .prop_map(|(allowed, native)| VlanMode::Trunk { allowed, native }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let source =
        prop_oneof![30 => any_station(), 1 => Just(MacAddr::BROADCAST), 1 => Just(MacAddr::default())];
    let destination = prop_oneof![
        8 => any_station(),
        2 => Just(MacAddr::BROADCAST),
        1 => (0u8..18).prop_map(|last| MacAddr([0x01, 0x80, 0xc2, 0, 0, last])),
    ];
    let payload = prop_oneof![8 => 46usize..100, 1 => 550usize..650, 1 => 1440usize..1520];
    (source, destination, tags(), any::<prop::sample::Index>(), (1..=STATIONS, 1..=STATIONS), payload)
        .prop_map(|(source, destination, tags, kind, (honest, other), payload_bytes)| {
            // The claim is mostly the source's own.
            let own = source.0[5].clamp(1, STATIONS);
            let claimed = if honest > 2 { own } else { other };
            let (claim, fixed) = match kind.index(7) {
                0 => (Claim::Nothing, false),
                1 => (Claim::Udp(v4(claimed).into()), false),
                2 => (Claim::Udp(IpAddr::V6(v6(claimed))), false),
                3 => (Claim::Dhcp, false),
                4 => (Claim::Arp(station(claimed), v4(claimed)), true),
                5 => (Claim::Neighbor(v6(own), v6(claimed), station(own)), true),
                _ => (Claim::Probe(v6(claimed)), true),
            };
            let payload_bytes = if fixed { 0 } else { payload_bytes };
            Message { source, destination, tags, claim, payload_bytes }
        })
}

fn tags() -> impl Strategy<Value = Vec<Tag>> {
    let id = prop_oneof![4 => VLANS, 1 => Just(0u16), 1 => Just(99), 1 => Just(4095)];
    let tag = (id, prop_oneof![Just(0u16), Just(0xe000)], prop::bool::weighted(0.2))
        .prop_map(|(id, priority, service)| Tag { tci: priority | id, service });
    prop_oneof![3 => Just(vec![]), 2 => prop::collection::vec(tag, 1..3)]
}

fn any_station() -> impl Strategy<Value = MacAddr> {
    (1..=STATIONS).prop_map(station)
}

fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// The link-local address of [`station`].
fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, number.into())
}

/// One line, so that a failing scenario can be read.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(port, messages) => write!(f, "port {} receives {messages:?}", port.0),
            Self::Pass(ms) => write!(f, "{ms} ms pass"),
            Self::PutPort(spec) => {
                let PortSpec { name, network, vlan, macs, ips, .. } = spec;
                let (secure, isolated) = (spec.port_security, spec.isolated);
                write!(f, "put {name} in network {} as {vlan:?}, lists {macs:?} {ips:?}, ", network.0)?;
                write!(f, "secure {secure}, isolated {isolated}, ")?;
                write!(f, "up to {} stations and {} bytes", spec.mac_limit, spec.mtu_bytes)
            }
            Self::DeletePort(port) => write!(f, "delete port {}", port.0),
            Self::PutNetwork(spec) => {
                let NetworkSpec { name, flood_unknown, mac_age_ms, mac_limit, .. } = spec;
                write!(
                    f,
                    "put {name}: flood {flood_unknown}, age {mac_age_ms} ms, up to {mac_limit} stations"
                )
            }
            Self::DeleteNetwork(number) => write!(f, "delete network {}", number.0),
        }
    }
}
