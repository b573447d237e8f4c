//! Does a translated packet look as if it had been sent so, and does its sender understand the errors about it?

use frame::Checksum;
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::tcp::{self, Flags};
use wire::{MacAddr, checksum, icmpv4, icmpv6};

use super::*;
use crate::conntrack::{
    DestinationNat, Direction, IcmpError, Layout, Observed, PortRange, Sight, SourceNat, rewrite,
};
use crate::parse::{Packet, Raw, parse};

/// Sums of 0 and 0xffff are one number.
const NEGATIVE_ZERO: [u8; 2] = [0xff; 2];

/// Does `look` at a frame.
fn sight<R>(frame: &[u8], look: impl FnOnce(Sight<'_>) -> R) -> R {
    let head = &frame[..frame.len().min(frame::HEAD_BYTES)];
    let mut packet = Packet::default();
    parse(Raw { head, frame_bytes: frame.len(), gso: None, port: PortNo(1) }, &mut packet).unwrap();
    look(Sight { packet: &packet, head, frame_bytes: frame.len(), gso: None })
}

fn flow(frame: &[u8]) -> (Tuple, Transport, Layout) {
    sight(frame, |sight| match sight.observe(ZoneNo(1)) {
        Observed::Flow(tuple, transport) => (tuple, transport, sight.layout()),
        other => panic!("{other:?}"),
    })
}

fn path(source: IpAddr, destination: IpAddr) -> Path {
    let (source_mac, destination_mac) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    Path { source_mac, destination_mac, source, destination }
}

/// The packet that has this tuple.
fn packet(tuple: &Tuple, payload: &[u8]) -> Vec<u8> {
    let path = path(tuple.source.address(), tuple.destination.address());
    let ports = (tuple.source.port, tuple.destination.port);
    match tuple.protocol {
        IpProtocol::UDP => build::udp(path, ports, payload),
        IpProtocol::SCTP => {
            let mut chunk = vec![1, 0, 0, (payload.len() + 8) as u8, 0, 0, 0, 1];
            chunk.extend_from_slice(payload);
            build::sctp(path, ports, &chunk)
        }
        IpProtocol::TCP => {
            let header = tcp::Repr {
                source_port: ports.0,
                destination_port: ports.1,
                sequence: 1,
                acknowledgement: 0,
                flags: Flags::SYN,
                window: 9,
                urgent: 0,
                options: &[],
            };
            build::tcp(path, &header, payload)
        }
        _ if ports.1 == 0 => build::echo_request(path, ports.0, 1, payload),
        _ => build::echo_reply(path, ports.1, 1, payload),
    }
}

/// All sums of 0 written the same way.
fn plain(mut frame: Vec<u8>, fields: &[usize]) -> Vec<u8> {
    for at in fields {
        if let Some(field) = frame.get_mut(*at..at + 2)
            && field == NEGATIVE_ZERO
        {
            field.fill(0);
        }
    }
    frame
}

fn checksum_at(frame: &[u8], protocol: IpProtocol, layout: Layout) -> Vec<usize> {
    let offset = match protocol {
        IpProtocol::TCP => 16,
        IpProtocol::UDP => 6,
        IpProtocol::ICMP | IpProtocol::ICMPV6 => 2,
        _ => return vec![24],
    };
    assert!(frame.len() >= layout.ip_at);
    vec![24, layout.transport_at.unwrap() + offset]
}

fn protocol(is_v4: bool) -> impl Strategy<Value = IpProtocol> {
    let icmp = if is_v4 { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
    prop::sample::select(vec![IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP, icmp])
}

fn address(is_v4: bool) -> impl Strategy<Value = IpAddr> {
    any::<(u32, u128)>().prop_map(move |(v4, v6)| match is_v4 {
        true => IpAddr::from(v4.to_be_bytes()),
        // Mapped ones are no packet's.
        false => IpAddr::from((v6 | 1 << 120).to_be_bytes()),
    })
}

/// Two packets of one protocol and IP version.
fn tuples() -> impl Strategy<Value = (Tuple, Tuple)> {
    any::<bool>().prop_flat_map(|is_v4| {
        let ends = || (address(is_v4), any::<u16>(), address(is_v4), any::<u16>());
        (protocol(is_v4), ends(), ends()).prop_map(|(protocol, one, other)| {
            let is_echo = matches!(protocol, IpProtocol::ICMP | IpProtocol::ICMPV6);
            let tuple = |(source, source_port, destination, port)| Tuple {
                zone: ZoneNo(1),
                protocol,
                source: Endpoint::new(source, source_port),
                destination: Endpoint::new(destination, if is_echo { 0 } else { port }),
            };
            (tuple(one), tuple(other))
        })
    })
}

proptest! {
    #[test]
    fn a_rewritten_packet_is_the_one_that_has_those_addresses(
        (from, to) in tuples(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        is_turned: bool,
    ) {
        let (from, to) = if is_turned { (from.turned(), to.turned()) } else { (from, to) };
        let mut frame = packet(&from, &payload);
        let (seen, _, layout) = flow(&frame);
        prop_assert_eq!(seen, from);
        let head = frame.len().min(frame::HEAD_BYTES);
        prop_assert!(rewrite(&mut frame[..head], layout, Checksum::Complete, &to));
        let fields = checksum_at(&frame, from.protocol, layout);
        prop_assert_eq!(plain(frame, &fields), plain(packet(&to, &payload), &fields));
    }

    #[test]
    fn a_sum_that_is_to_be_completed_is_corrected_for_the_addresses_alone(
        (from, to) in tuples().prop_filter("no pseudo header", |(from, _)| {
            matches!(from.protocol, IpProtocol::TCP | IpProtocol::UDP)
        }),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let partial = |tuple: &Tuple| {
            let mut frame = packet(tuple, &payload);
            let (.., layout) = flow(&frame);
            let at = layout.transport_at.unwrap();
            let len = frame.len() - at;
            let sum = match (tuple.source.address(), tuple.destination.address()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => checksum::pseudo_v4(a, b, tuple.protocol, len as u16),
                (IpAddr::V6(a), IpAddr::V6(b)) => checksum::pseudo_v6(a, b, tuple.protocol, len as u32),
                _ => unreachable!("one version"),
            };
            let offset = if tuple.protocol == IpProtocol::TCP { 16 } else { 6 };
            frame[at + offset..at + offset + 2].copy_from_slice(&sum.fold().to_be_bytes());
            (frame, layout, Checksum::Partial { start: at as u16, offset: offset as u16 })
        };
        let (mut frame, layout, checksum) = partial(&from);
        let head = frame.len().min(frame::HEAD_BYTES);
        prop_assert!(rewrite(&mut frame[..head], layout, checksum, &to));
        let fields = checksum_at(&frame, from.protocol, layout);
        prop_assert_eq!(plain(frame, &fields), plain(partial(&to).0, &fields));
    }

    #[test]
    fn an_error_reaches_the_sender_as_one_about_what_it_sent(
        (first, other) in tuples(),
        is_from_router: bool,
        is_about_reply: bool,
        keeps: (bool, bool),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let connections = tracker(10);
        let source = SourceNat::new(other.source.address(), PortRange::UNPRIVILEGED);
        let destination = DestinationNat::new(other.destination.address(), Some(other.destination.port));
        let translation =
            Translation { source: keeps.0.then_some(source), destination: keeps.1.then_some(destination) };
        let (_, transport, _) = flow(&packet(&first, &payload));
        let opening = Opening { transport: &transport, translation, ..opening(&first) };
        let now = Now { ms: 0 };
        let Ok(handle) = connections.open(&opening, now) else { return Ok(()) };
        let sender = if is_about_reply { handle.turned() } else { handle };
        let sent = connections.tuple(sender).unwrap();
        let seen = connections.translated(sender).unwrap();

        let router: IpAddr = if first.source.address().is_ipv4() {
            [192, 0, 2, 77].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, 77].into()
        };
        let from = |tuple: &Tuple| if is_from_router { router } else { tuple.destination.address() };
        let mut error = error_about(&packet(&seen, &payload), from(&seen), seen.source.address());
        let wanted = error_about(&packet(&sent, &payload), from(&sent), sent.source.address());

        let about = sight(&error, |sight| sight.error(ZoneNo(1))).unwrap();
        let found = connections.related(&about, now).unwrap();
        prop_assert_eq!(found, sender.turned());
        let head = error.len().min(frame::HEAD_BYTES);
        prop_assert!(connections.translate_error(found, &about, &mut error[..head], Checksum::Complete));
        // The quoted SCTP checksum is of a packet that is not all there.
        let crc = if first.protocol == IpProtocol::SCTP { 4 } else { 0 };
        let (error, wanted) = (without_sums(error, crc), without_sums(wanted, crc));
        prop_assert_eq!(error, wanted);
    }

    #[test]
    fn any_bytes_are_an_error_about_something_or_nothing(
        frame in prop_oneof![
            any::<bool>().prop_map(|is_v4| {
                let ip = |last| if is_v4 { IpAddr::from([10, 0, 0, last]) } else { IpAddr::from([last; 16]) };
                let tuple = Tuple { source: Endpoint::new(ip(1), 7), destination: Endpoint::new(ip(2), 8), ..udp(1) };
                error_about(&packet(&tuple, &[]), ip(3), ip(1))
            }),
            prop::collection::vec(any::<u8>(), 14..130),
        ],
        changes in prop::collection::vec((14usize..110, any::<u8>()), 0..6),
        len in 14usize..130,
        cut in 0usize..130,
    ) {
        let mut frame = frame;
        for (at, byte) in changes {
            if let Some(old) = frame.get_mut(at) {
                *old = byte;
            }
        }
        frame.truncate(len);
        let head = &frame[..frame.len().min(frame::HEAD_BYTES)];
        let mut packet = Packet::default();
        let raw = Raw { head, frame_bytes: frame.len(), gso: None, port: PortNo(1) };
        if parse(raw, &mut packet).is_ok() {
            let sight = Sight { packet: &packet, head, frame_bytes: frame.len(), gso: None };
            let (error, layout): (Option<IcmpError>, Layout) = (sight.error(ZoneNo(1)), sight.layout());
            let connections = tracker(1);
            let handle = open(&connections, &udp(1), 0).unwrap();
            let end = cut.min(frame.len());
            if let Some(error) = error {
                connections.related(&error, Now { ms: 0 });
                connections.translate_error(handle, &error, &mut frame[..end], Checksum::Complete);
            }
            rewrite(&mut frame[..end], layout, Checksum::Complete, &udp(2));
        }
    }
}

/// "Unreachable", from `router` to `sender`, about `frame`.
fn error_about(frame: &[u8], router: IpAddr, sender: IpAddr) -> Vec<u8> {
    let packet = &frame[wire::ethernet::HEADER_BYTES..];
    let quote = &packet[..packet.len().min(60)];
    let path = path(router, sender);
    match (router, sender) {
        (IpAddr::V4(_), _) => {
            let mut message = [&[icmpv4::UNREACHABLE, 1, 0, 0, 0, 0, 0, 0][..], quote].concat();
            icmpv4::fill_checksum(&mut message);
            build::ip(path, IpProtocol::ICMP, &message)
        }
        (IpAddr::V6(router), IpAddr::V6(sender)) => {
            let mut message = [&[icmpv6::UNREACHABLE, 1, 0, 0, 0, 0, 0, 0][..], quote].concat();
            icmpv6::fill_checksum(&mut message, router, sender);
            build::ip(path, IpProtocol::ICMPV6, &message)
        }
        _ => unreachable!("one version"),
    }
}

/// The frame with the sums that may be written in two ways checked and cleared.
fn without_sums(mut frame: Vec<u8>, crc: usize) -> Vec<u8> {
    let is_v4 = frame[12..14] == [8, 0];
    let (icmp_at, inner_bytes) = if is_v4 { (34, 20) } else { (54, 40) };
    let message = &frame[icmp_at..];
    match is_v4 {
        true => assert!([0, 0xffff].contains(&checksum::checksum(message)), "ICMP"),
        false => {
            let source = <[u8; 16]>::try_from(&frame[22..38]).unwrap();
            let destination = <[u8; 16]>::try_from(&frame[38..54]).unwrap();
            let pseudo = checksum::pseudo_v6(
                source.into(),
                destination.into(),
                IpProtocol::ICMPV6,
                message.len() as u32,
            );
            assert!([0, 0xffff].contains(&pseudo.add_bytes(message).checksum()), "ICMPv6");
        }
    }
    let inner = icmp_at + 8;
    let transport = inner + inner_bytes;
    let sums = if is_v4 { vec![24, icmp_at + 2, inner + 10] } else { vec![icmp_at + 2] };
    let protocol = frame[if is_v4 { inner + 9 } else { inner + 6 }];
    let own = match protocol {
        6 => transport + 16,
        17 => transport + 6,
        _ => transport + 2,
    };
    for at in sums.into_iter().chain((crc == 0).then_some(own)) {
        if let Some(field) = frame.get_mut(at..at + 2)
            && (at == icmp_at + 2 || field == NEGATIVE_ZERO)
        {
            field.fill(0);
        }
    }
    if crc > 0 {
        frame[transport + 8..transport + 8 + crc].fill(0);
    }
    frame
}

#[test]
fn a_udp_packet_without_a_sum_keeps_none() {
    let mut frame = packet(&udp(1), b"x");
    let (.., layout) = flow(&frame);
    frame[40..42].fill(0);
    assert!(rewrite(&mut frame, layout, Checksum::Complete, &udp(2)));
    assert_eq!((&frame[40..42], flow(&frame).0), (&[0, 0][..], udp(2)));
}

#[test]
fn addresses_of_another_version_are_refused_and_nothing_is_changed() {
    let mut frame = packet(&udp(1), b"x");
    let before = frame.clone();
    let (.., layout) = flow(&frame);
    let six = Endpoint::new([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), 9);
    for to in [Tuple { source: six, destination: six, ..udp(1) }, Tuple { source: six, ..udp(1) }] {
        assert!(!rewrite(&mut frame, layout, Checksum::Complete, &to));
        assert_eq!(frame, before);
    }
}

#[test]
fn a_later_fragment_has_addresses_and_no_ports() {
    let mut frame = packet(&udp(1), &[7; 40]);
    frame[21] = 1;
    let layout = sight(&frame, |sight| sight.layout());
    let payload = frame[34..].to_vec();
    assert!(rewrite(&mut frame, layout, Checksum::Complete, &udp(2)));
    assert_eq!(frame[34..], payload);
    assert_eq!(frame[26..30], [10, 0, 0, 2]);
}

#[test]
fn an_error_about_an_error_is_about_nothing() {
    let router = IpAddr::from([192, 0, 2, 1]);
    let tuple = udp(1);
    let error = error_about(&packet(&tuple, b"x"), router, tuple.source.address());
    assert!(sight(&error, |sight| sight.error(ZoneNo(1))).is_some());
    let about = error_about(&error, router, router);
    assert!(sight(&about, |sight| sight.error(ZoneNo(1))).is_none());
    let connections = tracker(1);
    let unknown = sight(&error, |sight| sight.error(ZoneNo(1))).unwrap();
    assert_eq!(connections.related(&unknown, Now { ms: 0 }), None);
    let handle = open(&connections, &tuple, 0).unwrap();
    let found = connections.related(&unknown, Now { ms: 0 }).unwrap();
    assert_eq!((found, found.direction()), (handle.turned(), Direction::Reply));
}
