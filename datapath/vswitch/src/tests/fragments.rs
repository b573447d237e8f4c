//! What becomes of datagrams in pieces, of which only the first shows ports.

use std::net::IpAddr;

use frame::DropReason;
use wire::build::{self, Path};
use wire::{IpProtocol, MacAddr, ipv4, ipv6};

use super::{Bed, Fate, NETWORK, port, spec, station};
use crate::Program;
use crate::program::{
    Affinity, EndpointSpec, FrontendSpec, GatewaySpec, PolicyNo, PolicySpec, PortRangeSpec, PortSpec, Prefix,
    ProgramSpec, RouterNo, RuleAction, RuleSpec, Scope, ServiceNo, ServiceSpec, TierSpec,
};

const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const VIPS: [&str; 2] = ["172.30.0.10", "fd30::10"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(number: u16, is_v4: bool) -> IpAddr {
    ip(&if is_v4 { format!("10.0.0.{number}") } else { format!("fd00::{number}") })
}

/// Stations 1 to 3; 2 serves, at port 53, what is for port 5353, and lets in what is for its port 53 and no other.
fn world() -> ProgramSpec {
    let listed = |number: u16, policy| PortSpec {
        macs: vec![station(number as u8)],
        ips: vec![address(number, true), address(number, false)],
        policy,
        ..port(number)
    };
    let mut spec = spec([listed(1, None), listed(2, Some(PolicyNo(1))), listed(3, None)]);
    spec.networks.get_mut(&NETWORK).unwrap().gateway = Some(GatewaySpec {
        mac: GATEWAY,
        addresses: vec![
            Prefix { address: ip("10.0.0.254"), len: 24 },
            Prefix { address: ip("fd00::fe"), len: 64 },
        ],
        router: RouterNo(1),
        routes: Vec::new(),
    });
    spec.policies.put(&server(IpProtocol::UDP));
    for (number, is_v4) in [(1, true), (2, false)] {
        let address_of_vip = ip(VIPS[number as usize - 1]);
        let frontend = FrontendSpec { address: address_of_vip, protocol: IpProtocol::UDP, port: 5353 };
        let service = ServiceSpec {
            number: ServiceNo(number),
            name: "dns".into(),
            scope: Scope::Router(RouterNo(1)),
            frontends: vec![frontend],
            endpoints: vec![EndpointSpec { address: address(2, is_v4), port: 53 }],
            affinity: Affinity::None,
        };
        spec.services.put(service).unwrap();
    }
    spec
}

/// Lets in what is for port 53 of a protocol.
fn server(protocol: IpProtocol) -> PolicySpec {
    let ports = Some(vec![PortRangeSpec { protocol, ports: 53..=53 }]);
    let rule = RuleSpec { name: "dns".into(), peers: None, ports, action: RuleAction::Allow };
    let tier = TierSpec { rules: vec![rule], isolated_by: Some("closed".into()) };
    PolicySpec { number: PolicyNo(1), name: "server".into(), egress: Vec::new(), ingress: vec![tier] }
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

fn between((from, to): (u16, u16), is_v4: bool) -> Path {
    Path {
        source_mac: station(from as u8),
        destination_mac: station(to as u8),
        source: address(from, is_v4),
        destination: address(to, is_v4),
    }
}

fn to_service(from: u16, is_v4: bool) -> Path {
    let destination = ip(VIPS[usize::from(!is_v4)]);
    Path { destination_mac: GATEWAY, destination, ..between((from, 2), is_v4) }
}

/// The first and the second half of a frame, as fragments of datagram `id`.
fn halves(frame: &[u8], id: u16) -> [Vec<u8>; 2] {
    const HALF: usize = 32;
    let is_v4 = frame[14] >> 4 == 4;
    let (header_bytes, mut headers) =
        if is_v4 { (20, frame[..34].to_vec()) } else { (40, frame[..54].to_vec()) };
    let payload = &frame[14 + header_bytes..];
    [(0, &payload[..HALF]), (HALF, &payload[HALF..])].map(|(offset, part)| {
        let more = offset == 0;
        if is_v4 {
            let fragment = (offset >> 3) as u16 | if more { ipv4::MORE_FRAGMENTS } else { 0 };
            headers[14 + 4..][..2].copy_from_slice(&id.to_be_bytes());
            headers[14..][ipv4::field::FRAGMENT].copy_from_slice(&fragment.to_be_bytes());
            headers[14..][ipv4::field::TOTAL_LEN].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            ipv4::fill_checksum(&mut headers[14..34]);
            return [headers.clone(), part.to_vec()].concat();
        }
        let mut header = [0; ipv6::FRAGMENT_HEADER_BYTES];
        let fragment = ipv6::Fragment { offset: offset as u16, more, id: id.into() };
        fragment.emit(IpProtocol::UDP, &mut header);
        let mut headers = headers.clone();
        headers[14 + 6] = IpProtocol::FRAGMENT.0;
        headers[14..][ipv6::field::PAYLOAD_LEN]
            .copy_from_slice(&(header.len() as u16 + part.len() as u16).to_be_bytes());
        [headers, header.to_vec(), part.to_vec()].concat()
    })
}

/// Source and destination of the packet that `port` sent.
#[track_caller]
fn sent(fate: &Fate, port: u16) -> (IpAddr, IpAddr) {
    let frame = fate.sent.get(&port).unwrap_or_else(|| panic!("{fate:?}"));
    if frame[14] >> 4 == 4 {
        let packet = ipv4::View::new(&frame[14..]).unwrap();
        assert!(packet.checksum_is_valid());
        return (packet.source().into(), packet.destination().into());
    }
    let packet = ipv6::View::new(&frame[14..]).unwrap();
    (packet.source().into(), packet.destination().into())
}

#[test]
fn all_pieces_of_a_datagram_go_to_the_endpoint_and_those_of_the_answer_come_from_the_service() {
    for is_v4 in [true, false] {
        let mut bed = bed();
        let asked = build::udp(to_service(1, is_v4), (4000, 5353), &[7; 56]);
        for piece in halves(&asked, 9) {
            assert_eq!(sent(&bed.send(1, piece), 2), (address(1, is_v4), address(2, is_v4)));
        }
        let mut answer = between((2, 1), is_v4);
        answer.destination_mac = GATEWAY;
        for piece in halves(&build::udp(answer, (53, 4000), &[7; 56]), 10) {
            let (source, _) = sent(&bed.send(2, piece), 1);
            assert_eq!(source, ip(VIPS[usize::from(!is_v4)]));
        }
        // What has no ports is nobody's to serve.
        let [_, stray] = halves(&asked, 11);
        assert_eq!(bed.send(1, stray), Fate::drop(DropReason::NoEndpoint));
    }
}

#[test]
fn a_piece_is_allowed_as_the_first_one_of_its_datagram_is() {
    for is_v4 in [true, false] {
        let mut bed = bed();
        let [first, later] = halves(&build::udp(between((1, 2), is_v4), (4000, 53), &[7; 56]), 9);
        assert_eq!(bed.send(1, later.clone()), Fate::drop(DropReason::PolicyDenied), "it came too early");
        assert_eq!(bed.send(1, first.clone()).ports(), [2]);
        assert_eq!(bed.send(1, later.clone()).ports(), [2]);
        let [denied, after] = halves(&build::udp(between((1, 2), is_v4), (4000, 54), &[7; 56]), 9);
        assert_eq!(bed.send(1, denied), Fate::drop(DropReason::PolicyDenied));
        assert_eq!(
            bed.send(1, after),
            Fate::drop(DropReason::PolicyDenied),
            "of two with one number, the last"
        );
        let [_, others] = halves(&build::udp(between((3, 2), is_v4), (4000, 53), &[7; 56]), 9);
        assert_eq!(bed.send(3, others), Fate::drop(DropReason::PolicyDenied), "another's datagram");
        // Half a minute later nobody waits for it.
        bed.send(1, first);
        bed.pass(29_000);
        assert_eq!(bed.send(1, later.clone()).ports(), [2]);
        bed.pass(1_000);
        assert_eq!(bed.send(1, later), Fate::drop(DropReason::PolicyDenied));
    }
}

#[test]
fn a_piece_of_tcp_that_could_change_what_was_looked_at_is_of_no_connection() {
    let mut world = world();
    world.policies.put(&server(IpProtocol::TCP));
    let mut bed = Bed::new(Program::build(world).unwrap());
    let mut frame = build::tcp_syn(between((1, 2), true), (4000, 53));
    frame.resize(14 + 20 + 64, 0);
    let [first, later] = halves(&frame, 9);
    assert_eq!(bed.send(1, first).ports(), [2]);
    assert_eq!(bed.send(1, later.clone()).ports(), [2]);
    let mut overlaps = later;
    overlaps[14..][ipv4::field::FRAGMENT].copy_from_slice(&1_u16.to_be_bytes());
    ipv4::fill_checksum(&mut overlaps[14..34]);
    assert_eq!(bed.send(1, overlaps), Fate::drop(DropReason::PolicyDenied));
}
