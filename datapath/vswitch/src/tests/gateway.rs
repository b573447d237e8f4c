//! The first hop: what it answers, whom it reaches, what it complains about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frame::{Checksum, DropReason, Offload};
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::{IpProtocol, MacAddr, arp, icmpv4, icmpv6, ipv4, ipv6, nd};

use super::{Bed, Fate, port, spec, station};
use crate::program::{GatewaySpec, NetworkNo, PortSpec, Prefix, ProgramError, ProgramSpec, RouterNo};
use crate::{Now, Program};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn gateway_mac(network: u32) -> MacAddr {
    MacAddr([2, 0xff, 0, 0, 0, network as u8])
}

fn gateway(network: u32, router: u32) -> GatewaySpec {
    let prefix = |address: String, len| Prefix { address: ip(&address), len };
    GatewaySpec {
        mac: gateway_mac(network),
        addresses: vec![prefix(format!("10.0.{network}.1"), 24), prefix(format!("fd00:{network}::1"), 64)],
        router: RouterNo(router),
        routes: Vec::new(),
    }
}

/// Station `number` of a network, with the addresses 10.0.NETWORK.NUMBER and fd00:NETWORK::NUMBER.
fn host(number: u16, network: u32) -> PortSpec {
    PortSpec {
        network: NetworkNo(network),
        macs: vec![station(number as u8)],
        ips: vec![ip(&format!("10.0.{network}.{number}")), ip(&format!("fd00:{network}::{number}"))],
        port_security: true,
        ..port(number)
    }
}

/// Networks 1 and 2 of one router with the stations 11, 12 and 21, network 3 of another with station 31.
fn world() -> ProgramSpec {
    let mut spec = spec([host(11, 1), host(12, 1), host(21, 2), host(31, 3)]);
    for (number, router) in [(1, 1), (2, 1), (3, 9)] {
        spec.networks.get_mut(&NetworkNo(number)).unwrap().gateway = Some(gateway(number, router));
    }
    spec
}

/// That world, with station 11 behind port 1 too.
pub(super) fn bed() -> Bed {
    let mut spec = world();
    let alike =
        PortSpec { port_security: false, macs: vec![station(1)], ips: vec![ip("10.0.0.1")], ..port(1) };
    spec.ports.insert(alike.number, alike);
    Bed::new(Program::build(spec).unwrap())
}

/// From station 11 through its gateway.
fn path(to: &str) -> Path {
    let source = if ip(to).is_ipv4() { "10.0.1.11" } else { "fd00:1::11" };
    Path { source_mac: station(11), destination_mac: gateway_mac(1), source: ip(source), destination: ip(to) }
}

/// What port 11 gets back.
#[track_caller]
fn answered(fate: &Fate) -> Vec<u8> {
    assert_eq!((fate.ports(), fate.drops.len()), (vec![11], 0), "{fate:?}");
    assert_eq!(fate.sent[&11][..6], station(11).0);
    assert_eq!(fate.sent[&11][6..12], gateway_mac(1).0);
    fate.sent[&11].clone()
}

/// The ICMP message of an answer from `from` to station 11: type, code, last four bytes, what it quotes. Its sums are right.
#[track_caller]
fn icmp(frame: &[u8], from: &str) -> (u8, u8, [u8; 4], Vec<u8>) {
    if ip(from).is_ipv4() {
        let packet = ipv4::View::new(&frame[14..]).unwrap();
        assert!(packet.checksum_is_valid() && packet.protocol() == IpProtocol::ICMP);
        assert_eq!(
            (IpAddr::V4(packet.source()), IpAddr::V4(packet.destination())),
            (ip(from), ip("10.0.1.11"))
        );
        let message = icmpv4::View::new(packet.payload()).unwrap();
        assert!(message.checksum_is_valid());
        (message.kind(), message.code(), message.rest(), message.payload().to_vec())
    } else {
        let packet = ipv6::View::new(&frame[14..]).unwrap();
        assert_eq!(
            (IpAddr::V6(packet.source()), IpAddr::V6(packet.destination())),
            (ip(from), ip("fd00:1::11"))
        );
        let message = icmpv6::View::new(packet.payload()).unwrap();
        assert!(message.checksum_is_valid(packet.source(), packet.destination()));
        (message.kind(), message.code(), message.rest(), message.payload().to_vec())
    }
}

#[test]
fn arp_is_answered_for_the_gateway_and_for_listed_stations_and_nobody_else_hears_it() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    for (target, owner) in [([10, 0, 1, 1], gateway_mac(1)), ([10, 0, 1, 12], station(12))] {
        let asked = build::arp_request(station(11), [10, 0, 1, 11].into(), target.into());
        let fate = bed.send(11, asked.clone());
        assert_eq!(fate.ports(), [11]);
        let reply = arp::Repr::parse(&arp::View::new(&fate.sent[&11][14..]).unwrap());
        assert_eq!((reply.operation, reply.sender_mac, reply.sender_ip), (arp::REPLY, owner, target.into()));
        assert_eq!((reply.target_mac, reply.target_ip), (station(11), [10, 0, 1, 11].into()));
        assert_eq!(bed.send(11, asked), fate, "from the cache");
    }
    // Of another network, unknown, and the asking station's own (which looks for a duplicate): the network decides.
    for target in [[10, 0, 2, 21], [10, 0, 1, 99], [10, 0, 1, 11]] {
        let asked = build::arp_request(station(11), [10, 0, 1, 11].into(), target.into());
        assert_eq!(bed.send(11, asked).ports(), [12], "{target:?}");
    }
}

#[test]
fn neighbour_discovery_is_answered_likewise() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    let source: Ipv6Addr = "fd00:1::11".parse().unwrap();
    for (target, owner, router) in
        [("fd00:1::1", gateway_mac(1), nd::FLAG_ROUTER), ("fd00:1::12", station(12), 0)]
    {
        let fate = bed.send(11, build::neighbor_solicit(station(11), source, target.parse().unwrap()));
        assert_eq!(fate.ports(), [11], "{fate:?}");
        let frame = &fate.sent[&11];
        assert_eq!((&frame[..6], &frame[6..12]), (&station(11).0[..], &owner.0[..]));
        let packet = ipv6::View::new(&frame[14..]).unwrap();
        assert_eq!((packet.hop_limit(), packet.destination()), (255, source));
        assert!(icmpv6::View::new(packet.payload()).unwrap().checksum_is_valid(packet.source(), source));
        let (message, mut options) = nd::Message::parse(packet.payload()).unwrap().unwrap();
        let expected = nd::Message::NeighborAdvert {
            target: target.parse().unwrap(),
            flags: router | nd::FLAG_SOLICITED | nd::FLAG_OVERRIDE,
        };
        assert_eq!(message, expected);
        assert_eq!(options.next().unwrap().unwrap().mac(), Some(owner));
    }
    let asked = build::neighbor_solicit(station(11), source, "fd00:1::99".parse().unwrap());
    assert_eq!(bed.send(11, asked).ports(), [12]);
}

#[test]
fn the_gateway_answers_pings_with_their_payload_and_has_no_other_service() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    for (own, reply) in [("10.0.1.1", icmpv4::ECHO_REPLY), ("fd00:1::1", icmpv6::ECHO_REPLY)] {
        let payload: Vec<u8> = (0..1400u16).map(|byte| byte as u8).collect();
        let frame = answered(&bed.send(11, build::echo_request(path(own), 7, 9, &payload)));
        assert_eq!(icmp(&frame, own), (reply, 0, [0, 7, 0, 9], payload));
        assert_eq!(bed.send(11, build::udp(path(own), (1, 2), b"x")), Fate::drop(DropReason::ForGateway));
    }
    let unsummed = Offload { checksum: Checksum::Partial { start: 34, offset: 2 }, ..Offload::NONE };
    let mut asked = build::echo_request(path("10.0.1.1"), 7, 9, b"x");
    asked[36..38].fill(0);
    let frame = bed.send_offloaded(11, asked, unsummed).sent.remove(&11).unwrap();
    assert_eq!(
        (frame[34], &frame[36..38]),
        (icmpv4::ECHO_REPLY, &[0, 0][..]),
        "whoever sums it sums the new type"
    );
}

#[test]
fn packets_are_routed_between_the_networks_of_a_router_with_new_stations_and_one_hop_less() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    for (to, port, network) in [("10.0.2.21", 21, 2), ("fd00:2::21", 21, 2), ("10.0.1.12", 12, 1)] {
        let sent = build::udp(path(to), (1000, 2000), &[7; 900]);
        let (hits, misses) = {
            let fate = bed.send(11, sent.clone());
            assert_eq!(fate.ports(), [port], "{fate:?}");
            let got = &fate.sent[&port];
            assert_eq!((&got[..6], &got[6..12]), (&station(port as u8).0[..], &gateway_mac(network).0[..]));
            let mut expected = sent.clone();
            expected[..12].copy_from_slice(&got[..12]);
            if ip(to).is_ipv4() {
                expected[22] -= 1;
                ipv4::fill_checksum(&mut expected[14..34]);
            } else {
                expected[21] -= 1;
            }
            assert_eq!(*got, expected);
            assert_eq!(bed.send(11, sent), fate, "from the cache");
            bed.hits_and_misses()
        };
        assert_eq!((hits, misses), (1, 1));
    }
}

#[test]
fn whoever_is_not_reached_is_complained_about() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    for (to, kind, code) in [
        ("10.0.2.99", icmpv4::UNREACHABLE, 1),
        ("10.0.3.31", icmpv4::UNREACHABLE, 0),
        ("192.0.2.1", icmpv4::UNREACHABLE, 0),
        ("fd00:2::99", icmpv6::UNREACHABLE, 3),
        ("fd00:3::31", icmpv6::UNREACHABLE, 0),
    ] {
        let sent = build::udp(path(to), (1000, 2000), &[7; 900]);
        let frame = answered(&bed.send(11, sent.clone()));
        let own = if ip(to).is_ipv4() { "10.0.1.1" } else { "fd00:1::1" };
        let (got, got_code, rest, quoted) = icmp(&frame, own);
        assert_eq!((got, got_code, rest), (kind, code, [0; 4]), "{to}");
        // The header and at least eight bytes more (RFC 792).
        assert!(quoted.len() >= if ip(to).is_ipv4() { 28 } else { 48 }, "{}", quoted.len());
        assert_eq!(quoted, sent[14..14 + quoted.len()]);
    }
}

#[test]
fn a_packet_that_has_no_hop_left_is_complained_about() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    for (to, own, at, kind) in [
        ("10.0.2.21", "10.0.1.1", 22, icmpv4::TIME_EXCEEDED),
        ("fd00:2::21", "fd00:1::1", 21, icmpv6::TIME_EXCEEDED),
    ] {
        for ttl in [0, 1] {
            let mut sent = build::udp(path(to), (1000, 2000), b"x");
            sent[at] = ttl;
            if ip(to).is_ipv4() {
                ipv4::fill_checksum(&mut sent[14..34]);
            }
            let frame = answered(&bed.send(11, sent));
            assert_eq!(icmp(&frame, own).0, kind);
        }
    }
}

#[test]
fn a_packet_too_long_for_the_next_link_tells_the_length_that_is_not() {
    let mut small = world();
    small.ports.get_mut(&crate::program::PortNo(21)).unwrap().mtu_bytes = 1280;
    let mut bed = Bed::new(Program::build(small).unwrap());
    let long = |to: &str| build::udp(path(to), (1, 2), &[0; 1300]);
    let mut forbids = long("10.0.2.21");
    forbids[20] |= 0x40;
    ipv4::fill_checksum(&mut forbids[14..34]);
    let frame = answered(&bed.send(11, forbids.clone()));
    let (kind, code, rest, _) = icmp(&frame, "10.0.1.1");
    assert_eq!((kind, code, rest), (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED, [0, 0, 5, 0]));
    let frame = answered(&bed.send(11, long("fd00:2::21")));
    assert_eq!(icmp(&frame, "fd00:1::1").2, [0, 0, 5, 0]);
    let mut allows = forbids;
    allows[20] &= !0x40;
    ipv4::fill_checksum(&mut allows[14..34]);
    assert_eq!(bed.send(11, allows), Fate::drop(DropReason::TooBig));
}

#[test]
fn nothing_is_said_about_complaints_fragments_and_senders_that_cannot_be_told() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    let complaint = build::ip(path("10.0.2.99"), IpProtocol::ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bed.send(11, complaint), Fate::drop(DropReason::NoNeighbor));
    let complaint = build::ip(path("fd00:2::99"), IpProtocol::ICMPV6, &[1, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bed.send(11, complaint), Fate::drop(DropReason::NoNeighbor));
    let mut later = build::udp(path("10.0.2.99"), (1, 2), &[0; 64]);
    later[21] = 4;
    assert_eq!(bed.send(11, later), Fate::drop(DropReason::NoNeighbor));
    answered(&bed.send(11, build::echo_request(path("10.0.2.99"), 1, 1, b"")));
    let mut open = world();
    open.ports.values_mut().for_each(|port| port.port_security = false);
    let mut bed = Bed::new(Program::build(open).unwrap());
    for source in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1"] {
        let untold = Path { source: ip(source), ..path("10.0.2.99") };
        assert_eq!(
            bed.send(11, build::udp(untold, (1, 2), b"x")),
            Fate::drop(DropReason::NoNeighbor),
            "{source}"
        );
    }
}

#[test]
fn complaints_have_a_limit_and_end_by_name_beyond_it() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    let mut told = 0;
    for _ in 0..1500 {
        let fate = bed.send(11, build::udp(path("10.0.2.99"), (1, 2), b"x"));
        told += fate.sent.len();
        assert!(fate.sent.len() == 1 || fate == Fate::drop(DropReason::NoNeighbor));
    }
    assert_eq!(told, 1000);
    bed.now = Now { ms: bed.now.ms + 1000 };
    answered(&bed.send(11, build::udp(path("10.0.2.99"), (1, 2), b"x")));
}

#[test]
fn nobody_else_is_the_gateway() {
    let mut spec = world();
    spec.ports.values_mut().for_each(|port| port.port_security = false);
    let mut bed = Bed::new(Program::build(spec).unwrap());
    let claims = Path { source_mac: gateway_mac(1), destination_mac: station(12), ..path("10.0.1.12") };
    assert_eq!(bed.send(11, build::udp(claims, (1, 2), b"x")), Fate::drop(DropReason::SpoofedMac));
    assert!(bed.learned().is_empty());
}

#[test]
fn isolated_stations_do_not_reach_each_other_through_the_gateway_either() {
    let mut spec = world();
    spec.ports.values_mut().for_each(|port| port.isolated = true);
    let mut bed = Bed::new(Program::build(spec).unwrap());
    let sent = build::udp(path("10.0.1.12"), (1, 2), b"x");
    assert_eq!(bed.send(11, sent), Fate::drop(DropReason::Isolated));
}

#[test]
fn a_change_of_the_program_changes_the_route() {
    let mut bed = Bed::new(Program::build(world()).unwrap());
    let sent = || build::udp(path("10.0.2.21"), (1, 2), b"x");
    assert_eq!(bed.send(11, sent()).ports(), [21]);
    let mut moved = world();
    let mut host = moved.ports.remove(&crate::program::PortNo(21)).unwrap();
    host.number = crate::program::PortNo(22);
    moved.ports.insert(host.number, host);
    moved.version = 2;
    bed.switch.set_program(Program::build(moved).unwrap());
    assert_eq!(bed.send(11, sent()).ports(), [22]);
}

#[test]
fn gateways_that_contradict_each_other_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut ProgramSpec)| {
        let mut spec = world();
        change(&mut spec);
        Program::build(spec).unwrap_err()
    };
    fn of(spec: &mut ProgramSpec, network: u32) -> &mut GatewaySpec {
        spec.networks.get_mut(&NetworkNo(network)).unwrap().gateway.as_mut().unwrap()
    }
    let overlap = with(&|spec| of(spec, 2).addresses = vec![Prefix { address: ip("10.0.0.1"), len: 16 }]);
    assert_eq!(
        overlap.to_string(),
        "networks \"network-1\" and \"network-2\" of one router overlap: 10.0.1.1/24 and 10.0.0.1/16"
    );
    let twice = with(&|spec| {
        spec.ports.get_mut(&crate::program::PortNo(21)).unwrap().ips.push(ip("10.0.1.11"));
    });
    assert_eq!(twice.to_string(), "ports \"port-11\" and \"port-21\" of one router both list 10.0.1.11");
    for wrong in ["224.0.0.1", "0.0.0.0"] {
        let error = with(&|spec| of(spec, 1).addresses = vec![Prefix { address: ip(wrong), len: 24 }]);
        assert!(matches!(error, ProgramError::Gateway { .. }), "{error}");
    }
    assert!(matches!(with(&|spec| of(spec, 1).addresses.clear()), ProgramError::Gateway { .. }));
    assert!(matches!(with(&|spec| of(spec, 1).addresses[0].len = 33), ProgramError::Gateway { .. }));
    assert!(matches!(with(&|spec| of(spec, 1).mac = MacAddr::BROADCAST), ProgramError::Gateway { .. }));
    // Other routers are other worlds: addresses may be the same.
    let mut apart = world();
    of(&mut apart, 3).addresses = of(&mut apart, 1).addresses.clone();
    apart.ports.get_mut(&crate::program::PortNo(31)).unwrap().ips = vec![ip("10.0.1.11")];
    Program::build(apart).unwrap();
}

#[test]
fn a_trace_tells_what_the_gateway_does() {
    let bed = Bed::new(Program::build(world()).unwrap());
    let told = |frame: &[u8]| {
        let steps =
            bed.switch.explain(crate::Entrance::Port(crate::program::PortNo(11)), frame, bed.now).steps;
        steps.into_iter().find(|step| step.stage == "gateway").unwrap().sentence
    };
    let v4 = |to: &str| build::udp(path(to), (1, 2), b"x");
    assert_eq!(told(&v4("10.0.2.21")), "routes it: 10.0.2.21 is 02:00:00:00:00:15 behind port 21");
    assert_eq!(told(&v4("10.0.2.99")), "no port has 10.0.2.99, whose subnet is here: says so");
    let asked = build::arp_request(station(11), [10, 0, 1, 11].into(), Ipv4Addr::new(10, 0, 1, 1));
    assert_eq!(told(&asked), "answers that 10.0.1.1 is at 02:ff:00:00:00:01");
    let mut tired = v4("10.0.2.21");
    tired[14 + ipv4::field::TTL] = 1;
    ipv4::fill_checksum(&mut tired[14..34]);
    let explained = bed.switch.explain(crate::Entrance::Port(crate::program::PortNo(11)), &tired, bed.now);
    let words: Vec<_> = explained.steps.iter().map(|step| step.sentence.as_str()).collect();
    assert!(words.iter().any(|words| words.starts_with("cannot send it on: ")), "{words:?}");
    let [out] = &explained.outputs[..] else { panic!("{explained:?}") };
    assert!(out.is_answer && out.port.0 == 11, "its sender is told");
}

proptest! {
    #[test]
    fn cached_and_derived_decisions_agree(flows in prop::collection::vec((0u8..4, 0u8..6, any::<bool>(), 1u8..4), 1..40)) {
        let mut cached = Bed::new(Program::build(world()).unwrap());
        for (from, to, six, port) in flows {
            let (from, network) = [(11, 1), (12, 1), (21, 2), (31, 3)][usize::from(from)];
            let (to, of) = [(11, 1), (12, 1), (21, 2), (31, 3), (99, 2), (1, network)][usize::from(to)];
            let address = |network: u32, number: u32| {
                ip(&if six { format!("fd00:{network}::{number}") } else { format!("10.0.{network}.{number}") })
            };
            let path = Path {
                source_mac: station(from as u8), destination_mac: gateway_mac(network),
                source: address(network, from), destination: address(of, to),
            };
            let frame = build::udp(path, (port.into(), 2), b"x");
            let mut fresh = Bed::new(Program::build(world()).unwrap());
            prop_assert_eq!(cached.send(from as u16, frame.clone()), fresh.send(from as u16, frame));
        }
    }
}
