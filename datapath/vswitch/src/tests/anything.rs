//! Any bytes are a frame or a named drop.

use frame::{DropReason, Gso, GsoKind, Offload};
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::{EtherType, IpProtocol};

use super::{Bed, path, port, station};
use crate::key::{Field, class, ip};
use crate::parse::{Packet, Raw, parse};
use crate::program::{PortNo, PortSpec, VlanMode};

fn parsed(frame: &[u8]) -> Result<Packet, DropReason> {
    let mut packet = Packet::default();
    let head = &frame[..frame.len().min(frame::HEAD_BYTES)];
    parse(Raw { head, frame_bytes: frame.len(), gso: None, port: PortNo(3) }, &mut packet)?;
    Ok(packet)
}

/// Bytes that look like packets, and are not.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let v6 = |ip: [u16; 8]| std::net::IpAddr::from(ip);
    let six = Path {
        source: v6([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        destination: v6([0xfe80, 0, 0, 0, 0, 0, 0, 2]),
        ..path(1, 2)
    };
    let whole = prop_oneof![
        Just(build::udp(path(1, 2), (1, 2), &[0; 40])),
        Just(build::tcp_syn(path(1, 2), (1, 2))),
        Just(build::udp(six, (1, 2), &[0; 200])),
        Just(build::ip(six, IpProtocol::HOP_BY_HOP, &[58, 0, 0, 0, 0, 0, 0, 0, 135, 0, 0, 0])),
        Just(build::neighbor_advert(six)),
        Just(build::arp_request(station(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into())),
        Just(build::tagged(7, &build::echo_request(path(1, 2), 1, 1, &[0; 32]))),
        prop::collection::vec(any::<u8>(), 1..200),
    ];
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..6);
    (whole, changes, 1usize..300).prop_map(|(mut frame, changes, len)| {
        frame.truncate(len);
        for (at, byte) in changes {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        frame
    })
}

proptest! {
    #[test]
    fn any_bytes_are_sent_or_dropped_by_name(frames in prop::collection::vec((mangled(), prop::option::of(any::<(u16, u16)>())), 1..8)) {
        let secured = PortSpec {
            macs: vec![station(1)], ips: vec![[10, 0, 0, 1].into()], port_security: true, ..port(1)
        };
        let trunk = PortSpec { vlan: VlanMode::Trunk { allowed: vec![], native: None }, ..port(3) };
        let mut beds = [
            Bed::with([port(1), port(2)]),
            Bed::with([secured.clone(), port(2)]),
            Bed::with([secured, port(2), trunk.clone()]),
            Bed::with([PortSpec { number: PortNo(1), ..trunk.clone() }, port(2), trunk]),
            super::gateway::bed(),
        ];
        for (frame, gso) in frames {
            let gso = gso.map(|(size, headers_bytes)| Gso { kind: GsoKind::TcpV4, size, ecn: false, headers_bytes });
            for bed in &mut beds {
                let offload = Offload { gso, ..Offload::NONE };
                // `send` checks the ledger.
                let first = bed.send_offloaded(1, frame.clone(), offload);
                prop_assert_eq!(bed.send_offloaded(1, frame.clone(), offload), first);
                bed.switch.explain(crate::Entrance::Port(PortNo(1)), &frame, bed.now);
            }
        }
    }

    #[test]
    fn a_truncated_frame_never_has_more_than_the_whole(len in 0usize..80) {
        let frame = build::tcp_syn(path(1, 2), (7, 8));
        match parsed(&frame[..len.min(frame.len())]) {
            Ok(packet) => prop_assert!(len >= frame.len(), "{packet:?}"),
            Err(reason) => prop_assert_eq!(reason, DropReason::Truncated),
        }
    }
}

#[test]
fn a_key_holds_what_the_headers_say() {
    let packet = parsed(&build::tagged(5, &build::udp(path(1, 2), (1000, 2000), b"x"))).unwrap();
    let key = packet.key;
    assert_eq!(key.get(Field::IN_PORT), 3);
    assert_eq!(key.get(Field::TAG), 0x1005);
    assert_eq!(key.get(Field::ETHER_TYPE), 0x0800);
    assert_eq!(key.get(Field::PROTOCOL), 17);
    assert_eq!(key.get(Field::CLASS), class::TRANSPORT);
    assert_eq!((key.get(Field::SOURCE_PORT), key.get(Field::DESTINATION_PORT)), (1000, 2000));
    assert_eq!(ip(key.0[3], key.0[4]).to_string(), "10.0.0.1");
    assert_eq!(ip(key.0[5], key.0[6]).to_string(), "10.0.0.2");
    assert_eq!((packet.link_bytes, packet.transport_at, packet.tci), (18, 38, 5));
}

#[test]
fn fragments_show_their_ports_only_in_the_first() {
    let mut frame = build::udp(path(1, 2), (1000, 2000), &[0; 64]);
    frame[20] = 0x20;
    let first = parsed(&frame).unwrap();
    assert_eq!(first.key.get(Field::CLASS), class::FRAGMENT | class::TRANSPORT);
    frame[21] = 1;
    let later = parsed(&frame).unwrap();
    assert_eq!(later.key.get(Field::CLASS), class::FRAGMENT | class::LATER_FRAGMENT);
    assert_eq!(later.key.get(Field::SOURCE_PORT), 0);
}

#[test]
fn ipv6_extension_headers_are_walked_to_the_transport() {
    let six = |last| std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let path = Path { source: six(1), destination: six(2), ..path(1, 2) };
    let udp = [0, 7, 0, 8, 0, 8, 0, 0];
    let payload = [
        &[IpProtocol::DESTINATION_OPTIONS.0, 0, 1, 4, 0, 0, 0, 0][..],
        &[IpProtocol::AH.0, 0, 1, 4, 0, 0, 0, 0],
        &[IpProtocol::FRAGMENT.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[IpProtocol::UDP.0, 0, 0, 0, 0, 0, 0, 1],
        &udp,
    ]
    .concat();
    let packet = parsed(&build::ip(path, IpProtocol::HOP_BY_HOP, &payload)).unwrap();
    assert_eq!(packet.key.get(Field::PROTOCOL), 17);
    // An atomic fragment is a whole packet (RFC 6946).
    assert_eq!(packet.key.get(Field::CLASS), class::TRANSPORT);
    assert_eq!(packet.key.get(Field::DESTINATION_PORT), 8);
}

#[test]
fn a_long_chain_of_extension_headers_ends_the_walk_and_not_the_frame() {
    let six = |last| std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let path = Path { source: six(1), destination: six(2), ..path(1, 2) };
    let chain = [IpProtocol::DESTINATION_OPTIONS.0, 0, 1, 4, 0, 0, 0, 0].repeat(100);
    let packet = parsed(&build::ip(path, IpProtocol::DESTINATION_OPTIONS, &chain)).unwrap();
    assert_eq!(packet.key.get(Field::CLASS), class::HIDDEN);
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let udp = build::udp(path(1, 2), (1, 2), &[0; 8]);
    let tcp = build::tcp_syn(path(1, 2), (1, 2));
    let with = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        parsed(&frame).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(&udp, 14, 0x65), DropReason::Malformed, "version");
    assert_eq!(with(&udp, 14, 0x44), DropReason::Malformed, "header length");
    assert_eq!(with(&udp, 17, 10), DropReason::Malformed, "total length within the header");
    assert_eq!(with(&udp, 17, 200), DropReason::Truncated, "total length beyond the frame");
    assert_eq!(with(&udp, 39, 4), DropReason::Malformed, "UDP length");
    assert_eq!(with(&udp, 39, 200), DropReason::Truncated, "UDP length beyond the packet");
    assert_eq!(with(&tcp, 46, 0x40), DropReason::Malformed, "data offset");
    assert_eq!(with(&tcp, 46, 0xf0), DropReason::Truncated, "data offset beyond the packet");
    let arp = build::arp_request(station(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    assert_eq!(with(&arp, 18, 8), DropReason::Malformed, "ARP hardware address length");
}

#[test]
fn a_frame_with_a_length_instead_of_a_type_is_switched_by_its_addresses() {
    let frame = build::ethernet(station(1), station(2), EtherType(46), &[0xaa; 46]);
    assert_eq!(parsed(&frame).unwrap().key.get(Field::ETHER_TYPE), 0);
}
