//! Whole packets from a few values, for tests, traces and the demo.
//!
//! All have correct lengths and checksums and no Ethernet padding. Addresses of both IP families are accepted where the
//! protocol exists in both; source and destination must be of one family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::ethernet::{self, EtherType};
use crate::{IpProtocol, MacAddr, arp, icmpv4, icmpv6, ipv4, ipv6, nd, sctp, tcp, udp, vlan};

/// Hop limit of built packets; neighbour discovery is always sent with 255.
pub const TTL: u8 = 64;

/// Who sends a packet to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The sender's MAC address.
    pub source_mac: MacAddr,
    /// The receiver's MAC address.
    pub destination_mac: MacAddr,
    /// The sender's IP address.
    pub source: IpAddr,
    /// The receiver's IP address.
    pub destination: IpAddr,
}

impl Path {
    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
        }
    }

    fn pseudo(&self, protocol: IpProtocol, len: usize) -> Sum {
        match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => pseudo_v4(from, to, protocol, len as u16),
            (IpAddr::V6(from), IpAddr::V6(to)) => pseudo_v6(from, to, protocol, len as u32),
            _ => mixed_families(),
        }
    }
}

fn mixed_families() -> ! {
    panic!("source and destination are of two IP families")
}

/// An Ethernet frame around `payload`.
pub fn ethernet(source: MacAddr, destination: MacAddr, ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_BYTES];
    ethernet::Repr { destination, source, ether_type }.emit(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// `frame` with an 802.1Q tag of VLAN `id` pushed.
///
/// # Panics
/// If `frame` has no Ethernet header.
pub fn tagged(id: u16, frame: &[u8]) -> Vec<u8> {
    let mut room = vec![0; vlan::TAG_BYTES];
    room.extend_from_slice(frame);
    vlan::push_front(&mut room, EtherType::VLAN, vlan::Tci(id & 0x0fff));
    room
}

/// An IP packet in its frame around `payload`.
///
/// # Panics
/// If the addresses are of two families, or the packet is longer than 65 535 bytes.
pub fn ip(path: Path, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let payload_len = u16::try_from(payload.len()).expect("IP payload length");
    let (ether_type, header_len) = match path.source {
        IpAddr::V4(_) => (EtherType::IPV4, ipv4::MIN_HEADER_BYTES),
        IpAddr::V6(_) => (EtherType::IPV6, ipv6::HEADER_BYTES),
    };
    let mut packet = vec![0; header_len];
    match (path.source, path.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4::Repr {
            source,
            destination,
            protocol,
            tos: 0,
            ttl: TTL,
            id: 0,
            fragment: ipv4::DONT_FRAGMENT,
            options: &[],
            payload_len,
        }
        .emit(&mut packet),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6::Repr {
            source,
            destination,
            next_header: protocol,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: if protocol == IpProtocol::ICMPV6 { 255 } else { TTL },
            payload_len,
        }
        .emit(&mut packet),
        _ => mixed_families(),
    }
    packet.extend_from_slice(payload);
    ethernet(path.source_mac, path.destination_mac, ether_type, &packet)
}

/// A UDP datagram. `ports` are source and destination.
///
/// # Panics
/// As [`ip`].
pub fn udp(path: Path, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let payload_len = u16::try_from(payload.len()).expect("UDP payload length");
    let mut datagram = vec![0; udp::HEADER_BYTES];
    udp::Repr { source_port: ports.0, destination_port: ports.1, payload_len }.emit(&mut datagram);
    datagram.extend_from_slice(payload);
    let sum = path.pseudo(IpProtocol::UDP, datagram.len()).add_bytes(&datagram).checksum_nonzero();
    datagram[udp::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    ip(path, IpProtocol::UDP, &datagram)
}

/// A TCP segment.
///
/// # Panics
/// As [`ip`].
pub fn tcp(path: Path, header: &tcp::Repr<'_>, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; header.header_len()];
    header.emit(&mut segment);
    segment.extend_from_slice(payload);
    let sum = path.pseudo(IpProtocol::TCP, segment.len()).add_bytes(&segment).checksum();
    segment[tcp::field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
    ip(path, IpProtocol::TCP, &segment)
}

/// A TCP segment without data that opens a connection. `ports` are source and destination.
///
/// # Panics
/// As [`ip`].
pub fn tcp_syn(path: Path, ports: (u16, u16)) -> Vec<u8> {
    let header = tcp::Repr {
        source_port: ports.0,
        destination_port: ports.1,
        sequence: 1,
        acknowledgement: 0,
        flags: tcp::Flags::SYN,
        window: u16::MAX,
        urgent: 0,
        options: &[],
    };
    tcp(path, &header, &[])
}

/// An SCTP packet around `chunks`. `ports` are source and destination.
///
/// # Panics
/// As [`ip`].
pub fn sctp(path: Path, ports: (u16, u16), chunks: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; sctp::HEADER_BYTES];
    sctp::Repr { source_port: ports.0, destination_port: ports.1, tag: 1 }.emit(&mut packet);
    packet.extend_from_slice(chunks);
    sctp::fill_checksum(&mut packet);
    ip(path, IpProtocol::SCTP, &packet)
}

/// An echo request, "ping", of either family.
///
/// # Panics
/// As [`ip`].
pub fn echo_request(path: Path, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    echo(path, (icmpv4::ECHO_REQUEST, icmpv6::ECHO_REQUEST), (id, sequence), payload)
}

/// The answer to an echo request, of either family.
///
/// # Panics
/// As [`ip`].
pub fn echo_reply(path: Path, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    echo(path, (icmpv4::ECHO_REPLY, icmpv6::ECHO_REPLY), (id, sequence), payload)
}

fn echo(path: Path, kinds: (u8, u8), numbers: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; icmpv4::HEADER_BYTES];
    message.extend_from_slice(payload);
    match (path.source, path.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            icmpv4::Repr::echo(kinds.0, numbers.0, numbers.1).emit(&mut message);
            icmpv4::fill_checksum(&mut message);
            ip(path, IpProtocol::ICMP, &message)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            icmpv6::Repr::echo(kinds.1, numbers.0, numbers.1).emit(&mut message);
            icmpv6::fill_checksum(&mut message, source, destination);
            ip(path, IpProtocol::ICMPV6, &message)
        }
        _ => mixed_families(),
    }
}

/// An ARP request: who has `target`? Broadcast.
pub fn arp_request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let repr = arp::Repr {
        operation: arp::REQUEST,
        sender_mac,
        sender_ip,
        target_mac: MacAddr::default(),
        target_ip,
    };
    arp(MacAddr::BROADCAST, &repr)
}

/// An ARP reply: `sender_mac` has `sender_ip`, told to the target alone.
pub fn arp_reply(
    sender_mac: MacAddr,
    sender_ip: Ipv4Addr,
    target_mac: MacAddr,
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    arp(target_mac, &arp::Repr { operation: arp::REPLY, sender_mac, sender_ip, target_mac, target_ip })
}

fn arp(destination: MacAddr, repr: &arp::Repr) -> Vec<u8> {
    let mut packet = [0; arp::PACKET_BYTES];
    repr.emit(&mut packet);
    ethernet(repr.sender_mac, destination, EtherType::ARP, &packet)
}

/// A neighbour solicitation: who has `target`? Sent to the target's solicited-node group.
pub fn neighbor_solicit(source_mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let group = nd::solicited_node(target);
    let path = Path {
        source_mac,
        destination_mac: nd::multicast_mac(group),
        source: source.into(),
        destination: group.into(),
    };
    // A probe for a duplicate address has no source to tell (RFC 4861 §4.3).
    let mac = (!source.is_unspecified()).then_some(source_mac);
    neighbor(path, &nd::Repr { kind: nd::NEIGHBOR_SOLICIT, flags: 0, target, mac })
}

/// A neighbour advertisement: the sender of `path` has its own address. Solicited, overriding.
///
/// # Panics
/// If `path` is not IPv6.
pub fn neighbor_advert(path: Path) -> Vec<u8> {
    let IpAddr::V6(target) = path.source else { mixed_families() };
    let flags = nd::FLAG_SOLICITED | nd::FLAG_OVERRIDE;
    neighbor(path, &nd::Repr { kind: nd::NEIGHBOR_ADVERT, flags, target, mac: Some(path.source_mac) })
}

fn neighbor(path: Path, repr: &nd::Repr) -> Vec<u8> {
    let mut message = vec![0; repr.message_len()];
    repr.emit(&mut message);
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (path.source, path.destination) else {
        mixed_families()
    };
    icmpv6::fill_checksum(&mut message, source, destination);
    ip(path, IpProtocol::ICMPV6, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: &str, destination: &str) -> Path {
        Path {
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn udp_over_both_families_verifies() {
        for path in [path("10.0.0.1", "10.0.0.2"), path("fd00::1", "fd00::2")] {
            let frame = udp(path, (1, 2), b"odd");
            let (_, at) = vlan::skip_tags(&frame).unwrap();
            let header = if path.source.is_ipv4() { 20 } else { 40 };
            let datagram = &frame[at + header..];
            assert_eq!(path.pseudo(IpProtocol::UDP, datagram.len()).add_bytes(datagram).checksum(), 0);
            assert_eq!(udp::View::new(datagram).unwrap().payload(), b"odd");
        }
    }

    #[test]
    fn tcp_syn_is_what_a_host_would_send() {
        let frame = tcp_syn(path("10.0.0.1", "10.0.0.2"), (1234, 80));
        let ip = ipv4::View::new(&frame[14..]).unwrap();
        let segment = tcp::View::new(ip.payload()).unwrap();
        assert!(ip.checksum_is_valid());
        assert_eq!((segment.destination_port(), segment.flags()), (80, tcp::Flags::SYN));
    }

    #[test]
    fn echo_over_both_families_verifies() {
        let v4 = echo_request(path("10.0.0.1", "10.0.0.2"), 7, 1, b"hello");
        assert!(
            icmpv4::View::new(ipv4::View::new(&v4[14..]).unwrap().payload()).unwrap().checksum_is_valid()
        );
        let v6 = echo_reply(path("fd00::1", "fd00::2"), 7, 1, b"hello");
        let ip = ipv6::View::new(&v6[14..]).unwrap();
        let message = icmpv6::View::new(ip.payload()).unwrap();
        assert!(message.checksum_is_valid(ip.source(), ip.destination()));
        assert_eq!(message.kind(), icmpv6::ECHO_REPLY);
    }

    #[test]
    fn neighbor_solicit_goes_to_the_targets_group() {
        let frame = neighbor_solicit(
            MacAddr([2, 0, 0, 0, 0, 1]),
            "fe80::1".parse().unwrap(),
            "fe80::aa:bbcc".parse().unwrap(),
        );
        let ethernet = ethernet::View::new(&frame).unwrap();
        assert_eq!(ethernet.destination(), MacAddr([0x33, 0x33, 0xff, 0xaa, 0xbb, 0xcc]));
        let ip = ipv6::View::new(ethernet.payload()).unwrap();
        let (message, options) = nd::Message::parse(ip.payload()).unwrap().unwrap();
        assert_eq!(message, nd::Message::NeighborSolicit { target: "fe80::aa:bbcc".parse().unwrap() });
        assert_eq!(options.find_mac(nd::SOURCE_LINK_LAYER).unwrap(), Some(MacAddr([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn sctp_and_arp_and_tags_are_built_as_they_are_read() {
        let frame = tagged(5, &sctp(path("10.0.0.1", "10.0.0.2"), (1, 2), b"chunk"));
        let (ether_type, at) = vlan::skip_tags(&frame).unwrap();
        assert_eq!((ether_type, at), (EtherType::IPV4, 18));
        assert!(
            sctp::View::new(ipv4::View::new(&frame[at..]).unwrap().payload()).unwrap().checksum_is_valid()
        );
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let request = arp_request(mac, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(arp::View::new(&request[14..]).unwrap().sender_mac(), mac);
    }
}
