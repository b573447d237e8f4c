//! Networks of several nodes: what crosses the underlay, in which shape, and what is refused.

use std::net::IpAddr;

use frame::{Checksum, DropReason, Gso, GsoKind, Offload};
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::checksum::{pseudo_v4, pseudo_v6};
use wire::{EtherType, IpProtocol, MacAddr, geneve, icmpv4, ipv4, ipv6, tcp, udp};

use super::{Bed, Fate, port, spec, station};
use crate::program::{
    GatewaySpec, NetworkNo, NodeNo, NodeSpec, OverlaySpec, PortNo, PortSpec, Prefix, ProgramError,
    ProgramSpec, RouteSpec, RouterNo, UnderlaySpec, Via, Vni,
};
use crate::{Entrance, Now, Program};

const UPLINK: u16 = 99;
/// Stands for the other node in network 1, 2.
const REMOTE: [u16; 2] = [101, 102];
const GATEWAY: MacAddr = MacAddr([2, 0xff, 0, 0, 0, 1]);
const OUTER_V4: usize = 50;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The underlay's address of a node: 192.0.2.NODE, or 2001:db8::NODE.
fn address(node: u16, is_v4: bool) -> IpAddr {
    if is_v4 { [192, 0, 2, node as u8].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, node].into() }
}

fn uplink_mac(node: u16) -> MacAddr {
    MacAddr([2, 0xaa, 0, 0, 0, node as u8])
}

fn node(own: u16, number: u16, is_v4: bool) -> NodeSpec {
    NodeSpec {
        number: NodeNo(number),
        name: format!("node-{number}"),
        address: address(number, is_v4),
        source: address(own, is_v4),
        source_mac: uplink_mac(own),
        next_hop: Some(uplink_mac(number)),
        mtu_bytes: 1500,
    }
}

/// Node `own` of nodes 1, 2 and 3. Network 1 is of layer 2 and has station OWN; network 2 is routed and has station
/// 20 + OWN at 10.2.OWN.(20 + OWN) and fd02:OWN::(20 + OWN).
fn world(own: u16, is_v4: bool) -> ProgramSpec {
    let routed = PortSpec {
        network: NetworkNo(2),
        macs: vec![station(20 + own as u8)],
        ips: vec![ip(&format!("10.2.{own}.{}", 20 + own)), ip(&format!("fd02:{own}::{}", 20 + own))],
        port_security: true,
        ..port(20 + own)
    };
    let mut spec =
        spec([port(own), port(10 + own), routed, PortSpec { network: NetworkNo(9), ..port(UPLINK) }]);
    let others = [1, 2, 3].into_iter().filter(|other| *other != own);
    let nodes = others.clone().map(|other| (NodeNo(other), node(own, other, is_v4))).collect();
    spec.underlay = Some(UnderlaySpec { port: PortNo(UPLINK), nodes });
    for (number, floods) in [(1, true), (2, false)] {
        let network = spec.networks.get_mut(&NetworkNo(number)).unwrap();
        let vni = Vni::new(1000 + number).unwrap();
        let port = PortNo(REMOTE[number as usize - 1]);
        network.overlay = Some(OverlaySpec { vni, port, floods, isolated: false });
    }
    let prefix = |text: String, len| Prefix { address: ip(&text), len };
    let routes = others.flat_map(|other| {
        let to = [prefix(format!("10.2.{other}.0"), 24), prefix(format!("fd02:{other}::"), 64)];
        to.map(|to| RouteSpec { to, via: Via::Node(NodeNo(other)) })
    });
    spec.networks.get_mut(&NetworkNo(2)).unwrap().gateway = Some(GatewaySpec {
        mac: GATEWAY,
        addresses: vec![prefix(format!("10.2.{own}.1"), 24), prefix(format!("fd02:{own}::1"), 64)],
        router: RouterNo(1),
        routes: routes.collect(),
    });
    spec
}

fn bed(own: u16, is_v4: bool) -> Bed {
    Bed::new(Program::build(world(own, is_v4)).unwrap())
}

/// Carries what one node sent by its uplink to another.
#[track_caller]
fn cross(fate: &Fate, to: &mut Bed) -> Fate {
    assert_eq!(fate.drops.len(), 0, "{fate:?}");
    to.send(UPLINK, fate.sent[&UPLINK].clone())
}

/// Between the routed stations of two nodes, through the gateway.
fn routed(from: u16, to: u16, is_v4: bool) -> Path {
    let address = |node: u16| {
        if is_v4 { format!("10.2.{node}.{}", 20 + node) } else { format!("fd02:{node}::{}", 20 + node) }
    };
    let (source, destination) = (ip(&address(from)), ip(&address(to)));
    Path { source_mac: station(20 + from as u8), destination_mac: GATEWAY, source, destination }
}

#[test]
fn a_frame_of_a_layer_2_network_crosses_as_it_is_and_its_answer_comes_back_to_one_node() {
    for is_v4 in [true, false] {
        let (mut one, mut two) = (bed(1, is_v4), bed(2, is_v4));
        let question = super::udp(1, 2);
        let asked = one.send(1, question.clone());
        // To the other station here, and to both nodes; the test's books hold one frame for the uplink.
        assert_eq!(asked.sent.keys().copied().collect::<Vec<_>>(), [11, UPLINK]);
        let heard = cross(&Fate { drops: Default::default(), ..asked }, &mut two);
        assert_eq!(heard.sent.into_values().collect::<Vec<_>>(), [question.clone(), question.clone()]);
        let answer = super::udp(2, 1);
        let answered = two.send(2, answer.clone());
        assert_eq!(answered.ports(), [UPLINK]);
        assert_eq!(answered.sent[&UPLINK][..12], [uplink_mac(1).0, uplink_mac(2).0].concat());
        assert_eq!(cross(&answered, &mut one).sent, [(1, answer)].into());
        // From now on both know where the other is, and the caches do.
        one.hits_and_misses();
        for _ in 0..3 {
            let sent = one.send(1, question.clone());
            assert_eq!(cross(&sent, &mut two).sent, [(2, question.clone())].into());
        }
        assert_eq!(one.hits_and_misses(), (2, 1));
    }
}

#[test]
fn stations_elsewhere_are_forgotten_with_their_network() {
    let (mut one, mut two) = (bed(1, true), bed(2, true));
    let hello = super::to(MacAddr::BROADCAST, super::udp(7, 1));
    cross(&two.send(2, hello), &mut one);
    let elsewhere = (7, REMOTE[0]);
    assert!(one.learned().contains(&elsewhere));
    let mut later = world(1, true);
    later.version = 2;
    one.switch.set_program(Program::build(later.clone()).unwrap());
    assert!(one.learned().contains(&elsewhere), "nothing has changed");
    later.version = 3;
    later.networks.get_mut(&NetworkNo(1)).unwrap().overlay = None;
    one.switch.set_program(Program::build(later).unwrap());
    assert!(!one.learned().contains(&elsewhere), "it is on this node alone");
}

#[test]
fn a_station_that_moves_to_another_node_is_followed() {
    let mut one = bed(1, true);
    let frame = super::udp(7, 1);
    for from in [2, 3] {
        let mut node = bed(from, true);
        cross(&node.send(from, frame.clone()), &mut one);
        let answer = one.send(1, super::udp(1, 7));
        assert_eq!(answer.ports(), [UPLINK]);
        assert_eq!(answer.sent[&UPLINK][..6], uplink_mac(from).0);
    }
}

#[test]
fn a_packet_between_subnets_of_two_nodes_is_routed_once() {
    for is_v4 in [true, false] {
        let (mut one, mut two) = (bed(1, true), bed(2, true));
        let frame = build::udp(routed(1, 2, is_v4), (1, 2), b"hello");
        let arrived = cross(&one.send(21, frame.clone()), &mut two);
        let received = &arrived.sent[&22];
        assert_eq!(received[..12], [station(22).0, GATEWAY.0].concat());
        let ttl = 14 + if is_v4 { ipv4::field::TTL } else { ipv6::field::HOP_LIMIT };
        assert_eq!(received[ttl], frame[ttl] - 1, "one router, wherever its parts are");
        assert_eq!(received[34..], frame[34..], "nothing else changed");
        let back = build::udp(routed(2, 1, is_v4), (2, 1), b"hello");
        assert_eq!(cross(&two.send(22, back), &mut one).ports(), [21]);
    }
}

#[test]
fn nobody_at_a_routed_address_of_another_node_is_said_by_that_node() {
    let (mut one, mut two) = (bed(1, true), bed(2, true));
    let path = Path { destination: ip("10.2.2.77"), ..routed(1, 2, true) };
    let complaint = cross(&one.send(21, build::udp(path, (1, 2), b"hello")), &mut two);
    assert_eq!(complaint.ports(), [UPLINK], "{complaint:?}");
    let told = cross(&complaint, &mut one);
    let message = icmpv4::View::new(&told.sent[&21][34..]).unwrap();
    assert_eq!((message.kind(), message.code()), (icmpv4::UNREACHABLE, 1));
    let packet = ipv4::View::new(&told.sent[&21][14..]).unwrap();
    assert_eq!(IpAddr::from(packet.source()), ip("10.2.2.1"));
}

#[test]
fn what_came_from_a_node_is_not_sent_to_another() {
    let (mut one, mut two) = (bed(1, true), bed(2, true));
    let mut sent = one.send(21, build::udp(routed(1, 2, true), (1, 2), b"hello"));
    // As if node 1 had an old idea of where node 3's addresses are.
    let frame = sent.sent.get_mut(&UPLINK).unwrap();
    frame[OUTER_V4 + 14 + 18] = 3;
    ipv4::fill_checksum(&mut frame[OUTER_V4 + 14..OUTER_V4 + 34]);
    assert_eq!(cross(&sent, &mut two), Fate::drop(DropReason::NoNeighbor));
}

#[test]
fn a_packet_that_the_tunnel_does_not_take_is_answered_with_what_it_takes() {
    let mut one = bed(1, true);
    let fits = build::udp(routed(1, 2, true), (1, 2), &[0; 1450 - 28]);
    assert_eq!(one.send(21, fits).sent[&UPLINK].len(), 1500 + 14);
    let mut long = build::udp(routed(1, 2, true), (1, 2), &[0; 1450 - 27]);
    long[14 + 6] = 0x40;
    ipv4::fill_checksum(&mut long[14..34]);
    let told = one.send(21, long);
    let message = icmpv4::View::new(&told.sent[&21][34..]).unwrap();
    assert_eq!((message.kind(), message.code()), (icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED));
    assert_eq!(message.rest(), 1450_u32.to_be_bytes());
    // A station of the same network is told nothing; its tag takes room too.
    cross(&bed(2, true).send(2, super::udp(2, 1)), &mut one);
    let untagged = build::udp(super::path(1, 2), (1, 2), &[0; 1450 - 28]);
    assert_eq!(one.send(1, untagged.clone()).ports(), [UPLINK]);
    assert_eq!(one.send(1, build::tagged(5, &untagged)).drops, [(DropReason::TooBig, 1)].into());
}

/// The outer packet is what a receiver expects, its checksum included, once the inner checksum is finished.
#[track_caller]
fn assert_outer_is_sound(frame: &[u8], offload: Offload) {
    let mut frame = frame.to_vec();
    if let Checksum::Partial { start, offset } = offload.checksum {
        let (start, field) = (usize::from(start), usize::from(start + offset));
        let sum = wire::checksum::Sum::ZERO.add_bytes(&frame[start..]).checksum_nonzero();
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let bytes = &frame[14..];
    let (pseudo, payload) = match EtherType(u16::from_be_bytes([frame[12], frame[13]])) {
        EtherType::IPV4 => {
            let ip = ipv4::View::new(bytes).unwrap();
            assert!(ip.checksum_is_valid() && usize::from(ip.total_len()) == bytes.len());
            assert_eq!(ip.fragment(), ipv4::DONT_FRAGMENT);
            (pseudo_v4(ip.source(), ip.destination(), IpProtocol::UDP, ip.total_len() - 20), ip.payload())
        }
        _ => {
            let ip = ipv6::View::new(bytes).unwrap();
            assert_eq!(usize::from(ip.payload_len()) + ipv6::HEADER_BYTES, bytes.len());
            let len = ip.payload_len().into();
            (pseudo_v6(ip.source(), ip.destination(), IpProtocol::UDP, len), ip.payload())
        }
    };
    let header = udp::View::new(payload).unwrap();
    assert_eq!(usize::from(header.len()), payload.len());
    assert_eq!(header.destination_port(), geneve::PORT);
    assert!(header.source_port() >= 49_152);
    if header.checksum() != 0 {
        assert_eq!(pseudo.add_bytes(payload).checksum(), 0, "the outer checksum");
    }
}

proptest! {
    #[test]
    fn outer_checksums_are_right_without_a_look_at_the_payload(
        payload in prop::collection::vec(any::<u8>(), 0..1200), ports: (u16, u16), underlay_is_v4: bool, is_v4: bool,
        is_tcp: bool, is_partial: bool
    ) {
        let path = routed(1, 2, is_v4);
        let mut frame = if is_tcp {
            build::tcp(path, &tcp::Repr { source_port: ports.0, destination_port: ports.1, ..tcp_header() }, &payload)
        } else {
            build::udp(path, ports, &payload)
        };
        let start = 14 + if is_v4 { 20 } else { 40 };
        let offset = if is_tcp { tcp::field::CHECKSUM.start } else { udp::field::CHECKSUM.start };
        let mut offload = Offload::NONE;
        if is_partial {
            let len = frame.len() - start;
            let protocol = if is_tcp { IpProtocol::TCP } else { IpProtocol::UDP };
            let pseudo = match (path.source, path.destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => pseudo_v4(a, b, protocol, len as u16),
                (IpAddr::V6(a), IpAddr::V6(b)) => pseudo_v6(a, b, protocol, len as u32),
                _ => unreachable!(),
            };
            frame[start + offset..start + offset + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
            offload.checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
        }
        let mut one = bed(1, underlay_is_v4);
        let sent = one.send_offloaded(21, frame, offload);
        assert_outer_is_sound(&sent.sent[&UPLINK], sent.offload);
        let sum_at = if underlay_is_v4 { 40 } else { 60 };
        prop_assert_eq!(sent.sent[&UPLINK][sum_at..sum_at + 2] == [0, 0], underlay_is_v4 && !is_partial);
    }

    #[test]
    fn whatever_is_in_a_tunnels_packet_has_a_fate(
        bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..70usize, flips in prop::collection::vec(any::<u8>(), 0..8)
    ) {
        let mut two = bed(2, true);
        let mut sent = bed(1, true).send(1, super::udp(1, 2)).sent.remove(&UPLINK).unwrap();
        for (place, flip) in (at..).zip(&flips) {
            if let Some(byte) = sent.get_mut(place) {
                *byte ^= flip;
            }
        }
        // `send` holds the books.
        two.send(UPLINK, sent.clone());
        sent.truncate(OUTER_V4);
        sent.extend(&bytes);
        two.send(UPLINK, sent);
    }
}

fn tcp_header() -> tcp::Repr<'static> {
    tcp::Repr {
        source_port: 0,
        destination_port: 0,
        sequence: 1,
        acknowledgement: 2,
        flags: tcp::Flags::ACK,
        window: 100,
        urgent: 0,
        options: &[],
    }
}

#[test]
fn a_large_frame_leaves_whole_and_its_pieces_get_their_own_outer_checksum() {
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400, ecn: false, headers_bytes: 54 };
    let offload =
        Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso), ..Offload::NONE };
    let frame = build::tcp(routed(1, 2, true), &tcp_header(), &[7; 30_000]);
    let sent = bed(1, true).send_offloaded(21, frame.clone(), offload);
    assert_eq!(sent.sent[&UPLINK].len(), frame.len() + OUTER_V4);
    assert_eq!(sent.offload.outer_bytes, OUTER_V4 as u16);
    assert_ne!(sent.sent[&UPLINK][40..42], [0, 0], "none would mean none for the pieces too");
    let segment = Gso { size: 1411, ..gso };
    let long = Offload { gso: Some(segment), ..offload };
    assert_eq!(bed(1, true).send_offloaded(21, frame, long).ports(), [21], "its segments do not fit");
}

#[test]
fn a_large_frame_that_a_port_put_together_in_its_tunnel_is_received_whole() {
    let gso = Gso { kind: GsoKind::TcpV4, size: 1000, ecn: false, headers_bytes: 54 };
    let offload =
        Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso), ..Offload::NONE };
    let frame = build::tcp(routed(1, 2, true), &tcp_header(), &[7; 30_000]);
    let sent = bed(1, true).send_offloaded(21, frame.clone(), offload);
    let (bytes, left) = (sent.sent[&UPLINK].clone(), sent.offload);
    assert_eq!(usize::from(left.outer_bytes), OUTER_V4);
    let arrived = bed(2, true).send_offloaded(UPLINK, bytes.clone(), left);
    assert_eq!((arrived.ports(), arrived.offload), (vec![22], offload));
    assert_eq!(arrived.sent[&22][34..], frame[34..]);
    // Several packets of somebody else, or with other headers in front of them than the port saw.
    for outer_bytes in [0, OUTER_V4 as u16 + 4] {
        let lie = Offload { outer_bytes, ..left };
        let refused = bed(2, true).send_offloaded(UPLINK, bytes.clone(), lie);
        assert_eq!(refused, Fate::drop(DropReason::BadTunnel), "{outer_bytes}");
    }
}

#[test]
fn packets_of_a_connection_have_one_source_port_and_those_of_others_another() {
    let mut one = bed(1, true);
    let mut source_port = |ports, payload: &[u8]| {
        let sent = one.send(21, build::udp(routed(1, 2, true), ports, payload));
        [sent.sent[&UPLINK][34], sent.sent[&UPLINK][35]]
    };
    assert_eq!(source_port((1, 2), b"a"), source_port((1, 2), b"another"));
    let different: std::collections::HashSet<_> = (0..64).map(|port| source_port((port, 2), b"a")).collect();
    assert!(different.len() > 48, "{} of 64", different.len());
}

#[test]
fn packets_of_no_node_of_no_network_or_of_another_shape_are_refused() {
    let sent = bed(1, true).send(1, super::udp(1, 2)).sent.remove(&UPLINK).unwrap();
    let mut two = bed(2, true);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = sent.clone();
        change(&mut frame);
        ipv4::fill_checksum(&mut frame[14..34]);
        frame
    };
    let mut refused = |frame: Vec<u8>| two.send(UPLINK, frame).drops.into_keys().next();
    assert_eq!(refused(changed(&|frame| frame[29] = 77)), Some(DropReason::NotANode));
    assert_eq!(refused(changed(&|frame| frame[42 + 6] ^= 0xff)), Some(DropReason::UnknownVni));
    assert_eq!(
        refused(changed(&|frame| frame[42 + 1] = 0x40)),
        Some(DropReason::BadTunnel),
        "a critical option"
    );
    assert_eq!(
        refused(changed(&|frame| frame[42 + 1] = 0x80)),
        Some(DropReason::BadTunnel),
        "a control message"
    );
    assert_eq!(
        refused(changed(&|frame| frame[42 + 2] = 8)),
        Some(DropReason::BadTunnel),
        "no Ethernet frame"
    );
    assert_eq!(refused(changed(&|frame| frame[42] = 0x80)), Some(DropReason::BadTunnel), "another version");
    assert_eq!(refused(changed(&|frame| frame.truncate(50))), Some(DropReason::Truncated), "nothing inside");
    // For somebody else, or no tunnel: as any frame of the uplink's own network.
    assert_eq!(refused(changed(&|frame| frame[33] = 77)), Some(DropReason::NoReceiver));
    assert_eq!(refused(changed(&|frame| frame[37] ^= 1)), Some(DropReason::NoReceiver));
}

#[test]
fn options_that_nobody_must_understand_are_skipped() {
    let mut sent = bed(1, true).send(1, super::udp(1, 2)).sent.remove(&UPLINK).unwrap();
    sent[42] = 2;
    sent.splice(50..50, [0, 1, 2, 1, 9, 9, 9, 9]);
    assert_eq!(bed(2, true).send(UPLINK, sent).sent[&2], super::udp(1, 2));
}

#[test]
fn a_node_whose_next_hop_is_unknown_gets_nothing() {
    let mut world = world(1, true);
    for node in world.underlay.as_mut().unwrap().nodes.values_mut() {
        node.next_hop = None;
    }
    let mut one = Bed::new(Program::build(world).unwrap());
    let frame = build::udp(routed(1, 2, true), (1, 2), b"hello");
    assert_eq!(one.send(21, frame), Fate::drop(DropReason::NoNeighbor));
}

#[test]
fn a_trace_names_the_node_on_both_sides() {
    let (mut one, two) = (bed(1, true), bed(2, true));
    let frame = build::udp(routed(1, 2, true), (1, 2), b"hello");
    let words = |explanation: &crate::Explanation| {
        let words = explanation.steps.iter().map(|step| format!("{}: {}", step.stage, step.sentence));
        words.collect::<Vec<_>>().join("\n")
    };
    let left = one.switch.explain(Entrance::Port(PortNo(21)), &frame, Now::default());
    let here = words(&left);
    assert!(here.contains("gateway: routes it: 10.2.2.22 is on node node-2"), "{here}");
    assert!(
        here.contains("leaves by port 99 (port-99), through the tunnel to node node-2, VNI 1002"),
        "{here}"
    );
    let sent = one.send(21, frame);
    let [out] = &left.outputs[..] else { panic!("{left:?}") };
    assert_eq!((&out.bytes, out.outer_bytes), (&sent.sent[&UPLINK], OUTER_V4), "as it is sent");
    let there = words(&two.switch.explain(Entrance::Uplink, &out.bytes, Now::default()));
    assert!(there.contains("tunnel: comes out of the tunnel from node node-1, VNI 1002"), "{there}");
    assert!(there.contains("routes it: 10.2.2.22 is 02:00:00:00:00:16 behind port 22"), "{there}");
}

#[test]
fn a_program_with_nodes_that_contradict_each_other_is_refused() {
    let refused = |change: &dyn Fn(&mut ProgramSpec)| {
        let mut world = world(1, true);
        change(&mut world);
        Program::build(world).map(|_| ()).unwrap_err()
    };
    fn node(world: &mut ProgramSpec) -> &mut NodeSpec {
        world.underlay.as_mut().unwrap().nodes.get_mut(&NodeNo(2)).unwrap()
    }
    fn overlay(world: &mut ProgramSpec, network: u32) -> &mut OverlaySpec {
        world.networks.get_mut(&NetworkNo(network)).unwrap().overlay.as_mut().unwrap()
    }
    let is_node = |error| matches!(error, ProgramError::Node { node, .. } if node.starts_with("node-"));
    assert!(is_node(refused(&|world| node(world).address = address(3, true))));
    assert!(is_node(refused(&|world| node(world).address = ip("::1"))));
    assert!(is_node(refused(&|world| node(world).source = ip("0.0.0.0"))));
    assert!(is_node(refused(&|world| node(world).next_hop = Some(MacAddr([0xff; 6])))));
    let is_overlay = |error| matches!(error, ProgramError::Overlay { .. });
    assert!(is_overlay(refused(&|world| overlay(world, 1).vni = Vni::new(1002).unwrap())));
    assert!(is_overlay(refused(&|world| overlay(world, 1).port = PortNo(REMOTE[1]))));
    assert!(is_overlay(refused(&|world| overlay(world, 1).port = PortNo(1))));
    assert!(is_overlay(refused(&|world| world.underlay = None)));
    let gateway = |world: &mut ProgramSpec, route| {
        world.networks.get_mut(&NetworkNo(2)).unwrap().gateway.as_mut().unwrap().routes.push(route);
    };
    let is_gateway = |error| matches!(error, ProgramError::Gateway { .. });
    let to = |text, len| Prefix { address: ip(text), len };
    let by = |node, to| RouteSpec { to, via: Via::Node(NodeNo(node)) };
    assert!(is_gateway(refused(&|world| gateway(world, by(9, to("10.9.0.0", 16))))));
    assert!(is_gateway(refused(&|world| gateway(world, by(2, to("10.9.0.0", 33))))));
    assert!(
        is_gateway(refused(&|world| gateway(world, by(3, to("10.2.2.99", 24))))),
        "two nodes for one prefix"
    );
}
