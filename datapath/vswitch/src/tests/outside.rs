//! What leaves with an address of the node, and what comes back to it.

use std::net::IpAddr;

use frame::DropReason;
use wire::build::{self, Path};
use wire::tcp::Flags;
use wire::{IpProtocol, MacAddr, icmpv4, ipv4};

use super::{Bed, Fate, NETWORK, network, port, segment, spec, station};
use crate::Program;
use crate::program::{
    Affinity, EndpointSpec, FrontendSpec, GatewaySpec, HostSpec, NetworkNo, PolicyNo, PolicySpec, PortNo,
    PortSpec, Prefix, ProgramSpec, RouteSpec, RouterNo, Scope, ServiceNo, ServiceSpec, TierSpec, Via,
};

const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const HOST: u16 = 9;
/// A router whose networks have the same addresses.
const TENANT: NetworkNo = NetworkNo(2);
/// The node's addresses outside: the first router's, the tenant's.
const NODE: &str = "192.0.2.1";
const EGRESS: &str = "192.0.2.50";
const SERVER: &str = "198.51.100.7";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Port 1 at 10.0.0.1 and port 2 at the same address of the tenant; the node at 10.0.0.9.
fn world() -> ProgramSpec {
    let listed = |number: u16, network, address| PortSpec {
        macs: vec![station(number as u8)],
        ips: vec![ip(address)],
        network,
        ..port(number)
    };
    let mut spec = spec([
        listed(1, NETWORK, "10.0.0.1"),
        listed(2, TENANT, "10.0.0.1"),
        listed(HOST, NETWORK, "10.0.0.9"),
    ]);
    for (number, router) in [(NETWORK, 1), (TENANT, 2)] {
        let gateway = GatewaySpec {
            mac: GATEWAY,
            addresses: vec![Prefix { address: ip("10.0.0.254"), len: 24 }],
            router: RouterNo(router),
            routes: vec![RouteSpec { to: Prefix { address: ip("0.0.0.0"), len: 0 }, via: Via::Host }],
        };
        let spec = spec.networks.entry(number).or_insert_with(|| network(number.0));
        spec.gateway = Some(gateway);
    }
    spec.host = Some(HostSpec {
        port: PortNo(HOST),
        nat_ports: 61_000..=61_001,
        sources: [(RouterNo(1), vec![ip(NODE)]), (RouterNo(2), vec![ip(EGRESS)])].into(),
        elsewhere: vec![ip("203.0.113.1")],
    });
    spec
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

/// From the pod behind `port` to `to`.
fn out(port: u16, to: &str) -> Path {
    Path {
        source_mac: station(port as u8),
        destination_mac: GATEWAY,
        source: ip("10.0.0.1"),
        destination: ip(to),
    }
}

/// As the node's rules hand in what comes from outside.
fn back(from: &str, to: &str) -> Path {
    Path { source_mac: station(9), destination_mac: GATEWAY, source: ip(from), destination: ip(to) }
}

/// Both addresses of the packet that `port` sent, and the four bytes of its ports.
#[track_caller]
fn sent(fate: &Fate, port: u16) -> (String, u16, String, u16) {
    let frame = fate.sent.get(&port).unwrap_or_else(|| panic!("{fate:?}"));
    let packet = ipv4::View::new(&frame[14..]).unwrap();
    assert!(packet.checksum_is_valid());
    let word = |at: usize| u16::from_be_bytes([packet.payload()[at], packet.payload()[at + 1]]);
    (packet.source().to_string(), word(0), packet.destination().to_string(), word(2))
}

#[test]
fn what_leaves_has_an_address_of_the_node_and_one_of_its_own_ports() {
    let mut bed = bed();
    for times in 0..2 {
        let fate = bed.send(1, build::udp(out(1, SERVER), (4000, 53), b"question"));
        let (source, port, to, to_port) = sent(&fate, HOST);
        assert_eq!((source.as_str(), to.as_str(), to_port), (NODE, SERVER, 53), "{times}");
        assert!((61_000..=61_001).contains(&port), "{port}");
        let fate = bed.send(HOST, build::udp(back(SERVER, NODE), (53, port), b"answer"));
        assert_eq!(sent(&fate, 1), (SERVER.into(), 53, "10.0.0.1".into(), 4000));
        assert_eq!(fate.sent[&1][..12], [station(1).0, GATEWAY.0].concat());
    }
    assert_eq!(bed.hits_and_misses(), (2, 2), "the second of each is cached");
}

#[test]
fn routers_with_the_same_addresses_are_told_apart_by_what_they_left_with() {
    let mut bed = bed();
    let port_of = |bed: &mut Bed, port| {
        let fate = bed.send(port, build::udp(out(port, SERVER), (4000, 53), b""));
        let (source, from, ..) = sent(&fate, HOST);
        (source, from)
    };
    let (first, tenant) = (port_of(&mut bed, 1), port_of(&mut bed, 2));
    assert_eq!((first.0.as_str(), tenant.0.as_str()), (NODE, EGRESS));
    for (to, (address, port)) in [(1, first), (2, tenant)] {
        let fate = bed.send(HOST, build::udp(back(SERVER, &address), (53, port), b""));
        assert_eq!(fate.ports(), [to]);
        assert_eq!(sent(&fate, to).3, 4000);
    }
}

#[test]
fn routers_that_share_an_address_share_its_ports() {
    let mut world = world();
    world.host.as_mut().unwrap().sources.insert(RouterNo(2), vec![ip(NODE)]);
    let mut bed = Bed::new(Program::build(world).unwrap());
    let mut ports = Vec::new();
    for port in [1, 2] {
        let fate = bed.send(port, build::udp(out(port, SERVER), (4000, 53), b""));
        ports.push(sent(&fate, HOST).1);
    }
    ports.sort_unstable();
    assert_eq!(ports, [61_000, 61_001], "two connections to one server are two");
    // One that nobody answered makes room for another of its own port, and no other.
    let third = build::udp(out(1, SERVER), (4001, 53), b"");
    let taken = sent(&bed.send(1, third), HOST).1;
    for port in [61_000, 61_001] {
        bed.send(HOST, build::udp(back(SERVER, NODE), (53, port), b""));
    }
    let fourth = build::udp(out(1, SERVER), (4002, 53), b"");
    assert_eq!(bed.send(1, fourth.clone()), Fate::drop(DropReason::NoNatPort));
    let answer = build::udp(back(SERVER, NODE), (53, taken), b"");
    assert_eq!(sent(&bed.send(HOST, answer), 1).3, 4001);
    // And once one is over, the next has its port.
    bed.pass(600_000);
    sent(&bed.send(1, fourth), HOST);
}

#[test]
fn echoes_have_identifiers_of_the_range() {
    let mut bed = bed();
    let fate = bed.send(2, build::echo_request(out(2, SERVER), 7, 1, b"ping"));
    let frame = &fate.sent[&HOST];
    let id = u16::from_be_bytes([frame[14 + 20 + 4], frame[14 + 20 + 5]]);
    assert!((61_000..=61_001).contains(&id), "{id}");
    let fate = bed.send(HOST, build::echo_reply(back(SERVER, EGRESS), id, 1, b"ping"));
    let frame = &fate.sent[&2];
    assert_eq!(frame[14 + 20 + 4..14 + 20 + 6], 7_u16.to_be_bytes());
    let message = &frame[14 + 20..];
    assert_eq!(wire::checksum::Sum::ZERO.add_bytes(message).fold(), 0xffff, "its sum is right");
}

#[test]
fn errors_from_outside_reach_whom_they_are_about_with_what_it_sent() {
    let mut bed = bed();
    let fate = bed.send(2, build::udp(out(2, SERVER), (4000, 53), b"question"));
    let left = fate.sent[&HOST][14..].to_vec();
    let error = icmp_error(&left);
    let fate = bed.send(HOST, build::ip(back("198.51.100.1", EGRESS), IpProtocol::ICMP, &error));
    let packet = ipv4::View::new(&fate.sent[&2][14..]).unwrap();
    assert_eq!((packet.source().to_string(), packet.destination().to_string()), {
        ("198.51.100.1".to_owned(), "10.0.0.1".to_owned())
    });
    let quoted = ipv4::View::new(&packet.payload()[8..]).unwrap();
    assert_eq!(quoted.source().to_string(), "10.0.0.1");
    assert_eq!(quoted.payload()[..2], 4000_u16.to_be_bytes());
    // One about what never left.
    let mut other = left;
    other[20..22].copy_from_slice(&1_u16.to_be_bytes());
    let error = icmp_error(&other);
    let fate = bed.send(HOST, build::ip(back("198.51.100.1", EGRESS), IpProtocol::ICMP, &error));
    assert_eq!(fate, Fate::drop(DropReason::OutOfState));
}

/// That the port is unreachable, about `packet`.
fn icmp_error(packet: &[u8]) -> Vec<u8> {
    let mut error = vec![0; icmpv4::HEADER_BYTES];
    icmpv4::Repr { kind: icmpv4::UNREACHABLE, code: 3, rest: [0; 4] }.emit(&mut error);
    error.extend_from_slice(packet);
    icmpv4::fill_checksum(&mut error);
    error
}

#[test]
fn nobody_outside_begins_anything_with_those_ports() {
    let mut bed = bed();
    for _ in 0..2 {
        let fate = bed.send(HOST, build::udp(back(SERVER, NODE), (53, 61_000), b""));
        assert_eq!(fate, Fate::drop(DropReason::OutOfState));
    }
    // Nor does the refusal stay when a pod does.
    let fate = bed.send(1, build::udp(out(1, SERVER), (4000, 53), b""));
    let port = sent(&fate, HOST).1;
    let fate = bed.send(HOST, build::udp(back(SERVER, NODE), (53, port), b""));
    assert_eq!(fate.ports(), [1]);
}

#[test]
fn what_shows_no_port_does_not_leave() {
    let mut bed = bed();
    let tunnel = build::ip(out(1, SERVER), IpProtocol(47), b"payload");
    assert_eq!(bed.send(1, tunnel), Fate::drop(DropReason::NotTranslatable));
    let mut fragment = build::udp(out(1, SERVER), (4000, 53), b"question");
    fragment[14 + 7] = 1;
    ipv4::fill_checksum(&mut fragment[14..34]);
    assert_eq!(bed.send(1, fragment), Fate::drop(DropReason::NotTranslatable));
}

#[test]
fn the_node_itself_is_not_outside() {
    let mut bed = bed();
    for own in ["203.0.113.1", NODE, EGRESS] {
        // Its network reaches it as before.
        let fate = bed.send(1, build::udp(out(1, own), (4000, 53), b""));
        assert_eq!(sent(&fate, HOST).0, "10.0.0.1", "{own}");
        // A tenant does not: it is told so.
        let fate = bed.send(2, build::udp(out(2, own), (4000, 53), b""));
        assert_eq!(fate.ports(), [2]);
        assert_eq!(fate.sent[&2][14 + 20], icmpv4::UNREACHABLE);
    }
}

#[test]
fn a_client_outside_that_reaches_a_pod_by_its_own_address_is_answered_from_there() {
    // The node is on the pod's network: its kernel finds the pod's station, or asks the gateway.
    for to in [GATEWAY, station(1)] {
        let mut bed = bed();
        let path = Path { destination_mac: to, ..back(SERVER, "10.0.0.1") };
        let flags = |flags| segment(path, (4000, 80), flags, (1, 0));
        assert_eq!(bed.send(HOST, flags(Flags::SYN)).ports(), [1]);
        let answer = segment(out(1, SERVER), (80, 4000), Flags::SYN.with(Flags::ACK), (7, 2));
        for _ in 0..2 {
            let fate = bed.send(1, answer.clone());
            assert_eq!(sent(&fate, HOST), ("10.0.0.1".into(), 80, SERVER.into(), 4000));
        }
    }
}

#[test]
fn the_nodes_own_address_elsewhere_answers_a_pod() {
    for to in [GATEWAY, station(1)] {
        let mut bed = bed();
        let begun = segment(out(1, NODE), (4000, 6443), Flags::SYN, (1, 0));
        assert_eq!(sent(&bed.send(1, begun), HOST).0, "10.0.0.1");
        let path = Path { destination_mac: to, ..back(NODE, "10.0.0.1") };
        let answer = segment(path, (6443, 4000), Flags::SYN.with(Flags::ACK), (7, 2));
        assert_eq!(bed.send(HOST, answer).ports(), [1]);
    }
}

#[test]
fn a_service_outside_is_reached_by_the_node_with_an_address_that_is_known_there() {
    let mut world = world();
    let at = FrontendSpec { address: ip("172.30.0.1"), protocol: IpProtocol::UDP, port: 443 };
    let service = ServiceSpec {
        number: ServiceNo(1),
        name: "kubernetes".into(),
        scope: Scope::Router(RouterNo(1)),
        frontends: vec![at],
        endpoints: vec![EndpointSpec { address: ip(SERVER), port: 6443 }],
        affinity: Affinity::None,
    };
    world.services.put(service).unwrap();
    let mut bed = Bed::new(Program::build(world).unwrap());
    let asked = build::udp(back("10.0.0.9", "172.30.0.1"), (4000, 443), b"");
    let (source, port, to, to_port) = sent(&bed.send(HOST, asked), HOST);
    assert_eq!((source.as_str(), to.as_str(), to_port), (NODE, SERVER, 6443));
    let answer = build::udp(back(SERVER, NODE), (6443, port), b"");
    assert_eq!(sent(&bed.send(HOST, answer), HOST), ("172.30.0.1".into(), 443, "10.0.0.9".into(), 4000));
    // A pod's too.
    let asked = build::udp(out(1, "172.30.0.1"), (4000, 443), b"");
    let (_, port, to, _) = sent(&bed.send(1, asked), HOST);
    assert_eq!(to, SERVER);
    let answer = build::udp(back(SERVER, NODE), (6443, port), b"");
    assert_eq!(sent(&bed.send(HOST, answer), 1).0, "172.30.0.1");
}

#[test]
fn a_connection_whose_address_is_no_more_its_routers_is_begun_anew() {
    let mut world = world();
    let mut bed = Bed::new(Program::build(world.clone()).unwrap());
    let packet = build::udp(out(2, SERVER), (4000, 53), b"");
    assert_eq!(sent(&bed.send(2, packet.clone()), HOST).0, EGRESS);
    world.version = 2;
    world.host.as_mut().unwrap().sources.insert(RouterNo(2), vec![ip("192.0.2.51")]);
    bed.switch.set_program(Program::build(world).unwrap());
    assert_eq!(sent(&bed.send(2, packet), HOST).0, "192.0.2.51");
}

#[test]
fn an_error_that_comes_first_after_a_change_is_translated_all_the_same() {
    let mut world = world();
    let mut bed = Bed::new(Program::build(world.clone()).unwrap());
    let left = bed.send(2, build::udp(out(2, SERVER), (4000, 53), b"question")).sent[&HOST][14..].to_vec();
    world.version = 2;
    bed.switch.set_program(Program::build(world).unwrap());
    let error = icmp_error(&left);
    let fate = bed.send(HOST, build::ip(back("198.51.100.1", EGRESS), IpProtocol::ICMP, &error));
    let packet = ipv4::View::new(&fate.sent[&2][14..]).unwrap();
    assert_eq!(packet.destination().to_string(), "10.0.0.1");
}

#[test]
fn policies_are_asked_about_what_leaves_and_connections_are_asked_about_what_comes_back() {
    let mut world = world();
    let nothing = TierSpec { rules: Vec::new(), isolated_by: Some("closed".into()) };
    let closed = |number, egress: &[TierSpec], ingress: &[TierSpec]| PolicySpec {
        number: PolicyNo(number),
        name: format!("policy-{number}"),
        egress: egress.to_vec(),
        ingress: ingress.to_vec(),
    };
    let nothing = [nothing];
    world.policies.put(&closed(1, &nothing, &[]));
    world.policies.put(&closed(2, &[], &nothing));
    world.ports.get_mut(&PortNo(1)).unwrap().policy = Some(PolicyNo(1));
    world.ports.get_mut(&PortNo(2)).unwrap().policy = Some(PolicyNo(2));
    let mut bed = Bed::new(Program::build(world.clone()).unwrap());
    let denied = bed.send(1, build::udp(out(1, SERVER), (4000, 53), b""));
    assert_eq!(denied, Fate::drop(DropReason::PolicyDenied));
    // Who lets nobody in is answered all the same, also after a change.
    let port = sent(&bed.send(2, build::udp(out(2, SERVER), (4000, 53), b"")), HOST).1;
    let answer = build::udp(back(SERVER, EGRESS), (53, port), b"");
    assert_eq!(bed.send(HOST, answer.clone()).ports(), [2]);
    world.version = 2;
    bed.switch.set_program(Program::build(world).unwrap());
    assert_eq!(bed.send(HOST, answer).ports(), [2]);
}

#[test]
fn a_connection_of_before_is_begun_anew_when_its_router_is_given_an_address() {
    let mut before = world();
    let open =
        PolicySpec { number: PolicyNo(1), name: "open".into(), egress: Vec::new(), ingress: Vec::new() };
    before.policies.put(&open);
    before.ports.get_mut(&PortNo(1)).unwrap().policy = Some(PolicyNo(1));
    before.host.as_mut().unwrap().sources.clear();
    let mut bed = Bed::new(Program::build(before.clone()).unwrap());
    let packet = build::udp(out(1, SERVER), (4000, 53), b"");
    assert_eq!(sent(&bed.send(1, packet.clone()), HOST).0, "10.0.0.1");
    let after = ProgramSpec { version: 2, host: world().host, ..before };
    bed.switch.set_program(Program::build(after).unwrap());
    assert_eq!(sent(&bed.send(1, packet), HOST).0, NODE);
}

#[test]
fn a_packet_that_is_too_big_for_the_pod_is_complained_about_from_the_address_it_was_for() {
    let mut world = world();
    world.ports.get_mut(&PortNo(2)).unwrap().mtu_bytes = 600;
    let mut bed = Bed::new(Program::build(world).unwrap());
    let port = sent(&bed.send(2, build::udp(out(2, SERVER), (4000, 53), b"")), HOST).1;
    let mut answer = build::udp(back(SERVER, EGRESS), (53, port), &[7; 700]);
    answer[14 + 6] |= 0x40;
    ipv4::fill_checksum(&mut answer[14..34]);
    let fate = bed.send(HOST, answer);
    let packet = ipv4::View::new(&fate.sent[&HOST][14..]).unwrap();
    assert_eq!((packet.source().to_string(), packet.destination().to_string()), {
        (EGRESS.to_owned(), SERVER.to_owned())
    });
    assert_eq!(packet.payload()[..2], [icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED]);
    let quoted = ipv4::View::new(&packet.payload()[8..]).unwrap();
    assert_eq!(quoted.destination().to_string(), EGRESS, "it is quoted as it came");
}
