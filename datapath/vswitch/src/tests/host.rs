//! The node as a station: what its own programs may, what leaves by it, and what goes back by it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use frame::DropReason;
use wire::build::{self, Path};
use wire::{IpProtocol, MacAddr, ipv4, udp};

use super::{Bed, Fate, NETWORK, port, spec, station};
use crate::Program;
use crate::program::{
    Affinity, EndpointSpec, FrontendSpec, GatewaySpec, HostSpec, NetworkNo, NodeNo, NodeSpec, OverlaySpec,
    PolicyNo, PolicySpec, PortNo, PortSpec, Prefix, ProgramSpec, RouteSpec, RouterNo, Scope, ServiceNo,
    ServiceSpec, TierSpec, UnderlaySpec, Via, Vni,
};

const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
/// The node's port, by which it is 10.0.0.9.
const HOST: u16 = 9;
const UPLINK: u16 = 50;
/// Whom the node's kernel sends packets of node ports to.
const VIP: &str = "169.254.169.4";
const CLIENT: &str = "198.51.100.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str, len: u8) -> Prefix {
    Prefix { address: ip(text), len }
}

/// Stations 1 and 2 at 10.0.0.1 and .2, of which 1 takes nothing from anybody; 10.0.1.0/24 is on another node. A service is
/// served by 10.0.0.2, another one by 10.0.1.5, and one by an address of the node.
fn world() -> ProgramSpec {
    let listed = |number: u16, policy| PortSpec {
        macs: vec![station(number as u8)],
        ips: vec![ip(&format!("10.0.0.{number}"))],
        port_security: number != HOST,
        policy,
        ..port(number)
    };
    let uplink = PortSpec { network: NetworkNo(9), ..port(UPLINK) };
    let mut spec = spec([listed(1, Some(PolicyNo(1))), listed(2, None), listed(HOST, None), uplink]);
    spec.policies.put(&closed());
    let network = spec.networks.get_mut(&NETWORK).unwrap();
    network.overlay =
        Some(OverlaySpec { vni: Vni::new(7).unwrap(), port: PortNo(51), floods: false, isolated: false });
    network.gateway = Some(GatewaySpec {
        mac: GATEWAY,
        addresses: vec![prefix("10.0.0.254", 24)],
        router: RouterNo(1),
        routes: vec![
            RouteSpec { to: prefix("10.0.1.0", 24), via: Via::Node(NodeNo(2)) },
            RouteSpec { to: prefix("0.0.0.0", 0), via: Via::Host },
        ],
    });
    let node = NodeSpec {
        number: NodeNo(2),
        name: "b".into(),
        address: ip("192.0.2.2"),
        source: ip("192.0.2.1"),
        source_mac: station(100),
        next_hop: Some(station(102)),
        mtu_bytes: 1500,
    };
    spec.underlay = Some(UnderlaySpec { port: PortNo(UPLINK), nodes: [(node.number, node)].into() });
    spec.host = Some(HostSpec {
        port: PortNo(HOST),
        nat_ports: 61_000..=65_535,
        sources: BTreeMap::new(),
        elsewhere: Vec::new(),
    });
    for (number, endpoint) in [(1, "10.0.0.2"), (2, "10.0.1.5"), (3, "192.0.2.1")] {
        spec.services.put(service(number, endpoint)).unwrap();
    }
    spec
}

fn closed() -> PolicySpec {
    let nobody = TierSpec { rules: Vec::new(), isolated_by: Some("closed".into()) };
    PolicySpec { number: PolicyNo(1), name: "closed".into(), egress: Vec::new(), ingress: vec![nobody] }
}

fn service(number: u32, endpoint: &str) -> ServiceSpec {
    let at = FrontendSpec { address: ip(VIP), protocol: IpProtocol::UDP, port: 30_000 + number as u16 };
    ServiceSpec {
        number: ServiceNo(number),
        name: format!("service {number}"),
        scope: Scope::Router(RouterNo(1)),
        frontends: vec![at],
        endpoints: vec![EndpointSpec { address: ip(endpoint), port: 53 }],
        affinity: Affinity::None,
    }
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

fn path(from: u8, to: MacAddr, source: &str, destination: &str) -> Path {
    Path { source_mac: station(from), destination_mac: to, source: ip(source), destination: ip(destination) }
}

/// What the port sent: addresses and ports of a UDP frame.
#[track_caller]
fn sent(fate: &Fate, port: u16) -> ((String, u16), (String, u16)) {
    let frame = fate.sent.get(&port).unwrap_or_else(|| panic!("{fate:?}"));
    // Behind the headers of a tunnel, if it left by one.
    let at = if port == UPLINK { 14 + 20 + 8 + 8 } else { 0 };
    let packet = ipv4::View::new(&frame[at + 14..]).unwrap();
    assert!(packet.checksum_is_valid());
    let udp = udp::View::new(packet.payload()).unwrap();
    (
        (packet.source().to_string(), udp.source_port()),
        (packet.destination().to_string(), udp.destination_port()),
    )
}

#[test]
fn a_pods_policies_allow_what_its_own_node_begins_and_nothing_that_comes_by_it() {
    let mut bed = bed();
    let probe = build::udp(path(9, station(1), "10.0.0.9", "10.0.0.1"), (40_000, 53), b"");
    for _ in 0..2 {
        assert!(bed.send(HOST, probe.clone()).sent.contains_key(&1));
    }
    let answer = build::udp(path(1, station(9), "10.0.0.1", "10.0.0.9"), (53, 40_000), b"");
    assert!(bed.send(1, answer.clone()).sent.contains_key(&HOST));
    // Others have the node's port, too, but not its address; and others have its address, but not its port.
    let forwarded = build::udp(path(9, GATEWAY, CLIENT, "10.0.0.1"), (40_000, 53), b"");
    assert_eq!(
        bed.send(HOST, forwarded).drops.keys().copied().collect::<Vec<_>>(),
        [DropReason::PolicyDenied]
    );
    let pod = build::udp(path(2, station(1), "10.0.0.2", "10.0.0.1"), (40_000, 53), b"");
    assert!(bed.send(2, pod).drops.contains_key(&DropReason::PolicyDenied));
    // A new program asks again, by the answer first.
    let mut next = world();
    next.version = 2;
    bed.switch.set_program(Program::build(next).unwrap());
    assert!(bed.send(1, answer).sent.contains_key(&HOST));
    assert!(bed.send(HOST, probe).sent.contains_key(&1));
}

#[test]
fn what_no_network_has_leaves_by_the_node_while_it_has_a_port() {
    let mut bed = bed();
    let out = build::udp(path(2, GATEWAY, "10.0.0.2", CLIENT), (4000, 53), b"");
    let fate = bed.send(2, out.clone());
    assert_eq!(sent(&fate, HOST), (("10.0.0.2".into(), 4000), (CLIENT.into(), 53)));
    assert_eq!(fate.sent[&HOST][..12], [station(9).0, GATEWAY.0].concat());
    let mut without = world();
    without.version = 2;
    without.ports.remove(&PortNo(HOST));
    bed.switch.set_program(Program::build(without).unwrap());
    assert!(!bed.send(2, out).sent.contains_key(&HOST));
}

#[test]
fn a_client_from_outside_is_seen_by_pods_of_the_node_and_answered_by_the_way_it_came() {
    let mut bed = bed();
    let asked = build::udp(path(9, GATEWAY, CLIENT, VIP), (4000, 30_001), b"");
    assert_eq!(sent(&bed.send(HOST, asked), 2), ((CLIENT.into(), 4000), ("10.0.0.2".into(), 53)));
    let answer = build::udp(path(2, GATEWAY, "10.0.0.2", CLIENT), (53, 4000), b"");
    assert_eq!(sent(&bed.send(2, answer), HOST), ((VIP.into(), 30_001), (CLIENT.into(), 4000)));
    // A pod that comes by the node is answered by the node, too, though it is next door.
    let asked = build::udp(path(9, GATEWAY, "10.0.0.1", VIP), (4001, 30_001), b"");
    sent(&bed.send(HOST, asked), 2);
    let answer = build::udp(path(2, station(1), "10.0.0.2", "10.0.0.1"), (53, 4001), b"");
    assert_eq!(sent(&bed.send(2, answer), HOST), ((VIP.into(), 30_001), ("10.0.0.1".into(), 4001)));
}

#[test]
fn on_another_node_a_client_has_the_address_of_the_one_that_let_it_in() {
    let mut bed = bed();
    let asked = build::udp(path(9, GATEWAY, CLIENT, VIP), (4000, 30_002), b"");
    let ((source, from), to) = sent(&bed.send(HOST, asked), UPLINK);
    assert_eq!((source.as_str(), to), ("10.0.0.9", ("10.0.1.5".into(), 53)));
    assert!((61_000..).contains(&from), "a port that the kernel does not give out: {from}");
    // The node itself goes there as it is.
    let own = build::udp(path(9, GATEWAY, "10.0.0.9", VIP), (4000, 30_002), b"");
    assert_eq!(sent(&bed.send(HOST, own), UPLINK).0, ("10.0.0.9".into(), 4000));
}

#[test]
fn what_goes_back_to_the_nodes_kernel_does_not_have_its_own_address() {
    let mut bed = bed();
    for source in [CLIENT, "10.0.0.9"] {
        let asked = build::udp(path(9, GATEWAY, source, VIP), (4000, 30_003), b"");
        let ((seen, from), to) = sent(&bed.send(HOST, asked), HOST);
        assert_eq!((seen.as_str(), to), ("10.0.0.254", ("192.0.2.1".into(), 53)));
        let answer = build::udp(path(9, GATEWAY, "192.0.2.1", "10.0.0.254"), (53, from), b"");
        assert_eq!(sent(&bed.send(HOST, answer), HOST), ((VIP.into(), 30_003), (source.into(), 4000)));
    }
}
