//! Is what real frames say what the tracker is told?

use frame::{Gso, GsoKind, HEAD_BYTES};
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::tcp::{self, Flags};
use wire::{MacAddr, icmpv4, icmpv6};

use super::super::sctp::Chunk;
use super::super::tcp::Scale;
use super::*;
use crate::conntrack::{Observed, Sight};
use crate::parse::{Packet, Raw, parse};

const ZONE: ZoneNo = ZoneNo(5);

fn v4() -> Path {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    let (source_mac, destination_mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    Path { source_mac, destination_mac, source: ip(1), destination: ip(2) }
}

fn v6() -> Path {
    let ip = |last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    Path { source: ip(1), destination: ip(2), ..v4() }
}

fn observe_whole(frame: &[u8], gso: Option<Gso>) -> Observed {
    let head = &frame[..frame.len().min(HEAD_BYTES)];
    let mut packet = Packet::default();
    if parse(Raw { head, frame_bytes: frame.len(), gso, port: PortNo(1) }, &mut packet).is_err() {
        return Observed::Untracked;
    }
    Sight { packet: &packet, head, frame_bytes: frame.len(), gso }.observe(ZONE)
}

fn observe(frame: &[u8]) -> (Tuple, Transport) {
    match observe_whole(frame, None) {
        Observed::Flow(tuple, transport) => (tuple, transport),
        other => panic!("{other:?}"),
    }
}

fn header(flags: Flags) -> tcp::Repr<'static> {
    tcp::Repr {
        source_port: 1000,
        destination_port: 80,
        sequence: 7,
        acknowledgement: 9,
        flags,
        window: 500,
        urgent: 0,
        options: &[2, 4, 5, 180, 1, 3, 3, 9],
    }
}

#[test]
fn a_tuple_is_what_the_headers_say() {
    for path in [v4(), v6()] {
        let (tuple, transport) = observe(&build::udp(path, (1000, 53), b"question"));
        let ends = (Endpoint::new(path.source, 1000), Endpoint::new(path.destination, 53));
        assert_eq!((tuple.zone, tuple.protocol, transport), (ZONE, IpProtocol::UDP, Transport::Udp));
        assert_eq!((tuple.source, tuple.destination), ends);
        assert_eq!((tuple.source.address(), tuple.turned().turned()), (path.source, tuple));
        let (tuple, transport) = observe(&build::ip(path, IpProtocol(47), &[0; 20]));
        assert_eq!((tuple.source.port, tuple.destination.port, transport), (0, 0, Transport::Other));
    }
}

#[test]
fn payload_is_counted_without_padding_and_beyond_the_head() {
    for path in [v4(), v6()] {
        for payload in [0, 1, 1000] {
            let mut frame = build::tcp(path, &header(Flags::ACK), &vec![0; payload]);
            frame.resize(frame.len().max(100), 0);
            let (_, transport) = observe(&frame);
            let Transport::Tcp(segment) = transport else { panic!("{transport:?}") };
            assert_eq!((segment.payload_bytes as usize, segment.sequence), (payload, 7));
            assert_eq!((segment.acknowledgement, segment.window, segment.scale), (9, 500, Scale::Absent));
        }
        let frame = build::tcp(path, &header(Flags::ACK), &[0; 5000]);
        let kind = GsoKind::TcpV4;
        let gso = Some(Gso { kind, size: 1000, ecn: false, headers_bytes: 0 });
        let Observed::Flow(_, Transport::Tcp(segment)) = observe_whole(&frame, gso) else { panic!() };
        assert_eq!(segment.payload_bytes, 5000);
    }
    let (_, transport) = observe(&build::tcp(v4(), &header(Flags::SYN), &[]));
    assert!(matches!(transport, Transport::Tcp(segment) if segment.scale == Scale::Shift(9)));
}

#[test]
fn an_echo_is_known_by_its_identifier_at_the_end_that_asks() {
    for path in [v4(), v6()] {
        let (asked, transport) = observe(&build::echo_request(path, 77, 1, b"x"));
        assert_eq!((transport, asked.source.port, asked.destination.port), (Transport::EchoRequest, 77, 0));
        let (answered, transport) = observe(&build::echo_reply(path.reversed(), 77, 1, b"x"));
        assert_eq!((transport, answered), (Transport::EchoReply, asked.turned()));
    }
}

#[test]
fn an_echo_reply_that_nobody_asked_for_opens_nothing() {
    let connections = tracker(10);
    let (tuple, transport) = observe(&build::echo_reply(v4(), 1, 1, b"x"));
    let opening = Opening { transport: &transport, ..opening(&tuple) };
    assert_eq!(connections.open(&opening, Now { ms: 0 }), Err(Refusal::Invalid));
    assert_eq!(connections.len(), 0);
}

#[test]
fn sctp_shows_its_tag_and_its_chunk() {
    let (tuple, transport) = observe(&build::sctp(v4(), (5, 6), &[1, 0, 0, 8, 0, 0, 0, 44]));
    assert_eq!((tuple.source.port, tuple.destination.port), (5, 6));
    assert!(matches!(transport, Transport::Sctp(packet) if packet.chunk == Chunk::Init(44)));
}

#[test]
fn errors_are_told_from_flows_and_the_rest_is_nobodys() {
    let icmp = |path: Path, kind: u8| {
        let protocol = if path.source.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
        observe_whole(&build::ip(path, protocol, &[kind, 0, 0, 0, 0, 0, 0, 0]), None)
    };
    for kind in [icmpv4::UNREACHABLE, icmpv4::TIME_EXCEEDED, 4, 12] {
        assert_eq!(icmp(v4(), kind), Observed::Error);
    }
    for kind in [icmpv6::UNREACHABLE, icmpv6::PACKET_TOO_BIG, icmpv6::TIME_EXCEEDED, 4] {
        assert_eq!(icmp(v6(), kind), Observed::Error);
    }
    assert_eq!((icmp(v4(), 13), icmp(v6(), 130)), (Observed::Untracked, Observed::Untracked));
    assert_eq!(observe_whole(&build::neighbor_advert(v6()), None), Observed::Untracked);
    let arp = build::arp_request(v4().source_mac, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(observe_whole(&arp, None), Observed::Untracked);
    let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
    let disguised = build::udp(Path { source: mapped.into(), ..v6() }, (1, 2), b"x");
    assert_eq!(observe_whole(&disguised, None), Observed::Untracked);
    let mut fragment = build::udp(v4(), (1, 2), &[0; 64]);
    fragment[21] = 1;
    assert_eq!(observe_whole(&fragment, None), Observed::Untracked);
}

proptest! {
    #[test]
    fn any_bytes_are_observed(
        frame in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            Just(build::tcp(v4(), &header(Flags::SYN), &[0; 100])),
            Just(build::tcp(v6(), &header(Flags::SYN), &[0; 100])),
            Just(build::sctp(v6(), (1, 2), &[0, 0, 0, 4, 1, 0, 0, 20, 0, 0])),
            Just(build::echo_request(v6(), 1, 1, &[0; 4])),
        ],
        changes in prop::collection::vec((0usize..160, any::<u8>()), 0..8),
        len in 0usize..250,
    ) {
        let mut frame = frame;
        for (at, byte) in changes {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        frame.truncate(len);
        if let Observed::Flow(tuple, transport) = observe_whole(&frame, None) {
            let connections = tracker(1);
            let opening = Opening { transport: &transport, pickup: Pickup::Accept, ..opening(&tuple) };
            if let Ok(handle) = connections.open(&opening, Now { ms: 0 }) {
                let answer = connections.advance(handle.turned(), &transport, Now { ms: 1 });
                prop_assert_eq!(connections.tuple(handle), Some(tuple), "{:?}", answer);
            }
        }
    }
}
