//! What is a packet called? One line, for people.

use std::net::IpAddr;

use wire::{EtherType, IpProtocol, arp, ethernet, geneve, icmpv4, icmpv6, ipv4, ipv6, udp};

/// Bytes of a VLAN tag behind the EtherType that says that there is one.
const TAG_BYTES: usize = 4;

/// The packet in a frame.
pub(super) fn packet(frame: &[u8]) -> String {
    match ethernet::View::new(frame) {
        Ok(view) => inside(view.ether_type(), view.payload()),
        Err(_) => format!("a frame of {} bytes", frame.len()),
    }
}

fn inside(ether_type: EtherType, payload: &[u8]) -> String {
    match ether_type {
        EtherType::VLAN if payload.len() >= TAG_BYTES => {
            let id = u16::from_be_bytes([payload[0], payload[1]]) & 0x0fff;
            let inner = EtherType(u16::from_be_bytes([payload[2], payload[3]]));
            format!("{} in VLAN {id}", inside(inner, &payload[TAG_BYTES..]))
        }
        EtherType::IPV4 => ipv4::View::new(payload).map_or("a broken IPv4 packet".into(), |ip| {
            let ends = (ip.source().into(), ip.destination().into());
            // A later fragment begins anywhere.
            let transport = if ip.is_fragment() { &[][..] } else { ip.payload() };
            transported(ip.protocol(), ends, transport)
        }),
        EtherType::IPV6 => ipv6::View::new(payload).map_or("a broken IPv6 packet".into(), |ip| {
            transported(ip.next_header(), (ip.source().into(), ip.destination().into()), ip.payload())
        }),
        EtherType::ARP => arp::View::new(payload).map_or("a broken ARP packet".into(), |arp| {
            format!("ARP of {} about {}", arp.sender_ip(), arp.target_ip())
        }),
        EtherType(other) => format!("a frame of type {other:#06x}"),
    }
}

fn transported(protocol: IpProtocol, (source, destination): (IpAddr, IpAddr), payload: &[u8]) -> String {
    let ports = payload.first_chunk().filter(|_| protocol.has_ports());
    match ports.map(|&[a, b, c, d]| (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))) {
        Some((_, geneve::PORT)) if protocol == IpProtocol::UDP => {
            let inner = tunnelled(payload).unwrap_or_else(|| "a broken packet".into());
            format!("{inner}, in a tunnel from {source} to {destination}")
        }
        Some((from, to)) => format!("{protocol} from {source} port {from} to {destination} port {to}"),
        None => format!("{protocol}{} from {source} to {destination}", kind(protocol, payload)),
    }
}

/// The packet in a tunnel's datagram.
fn tunnelled(datagram: &[u8]) -> Option<String> {
    let tunnel = datagram.get(udp::HEADER_BYTES..)?;
    let header = geneve::View::new(tunnel).ok()?;
    Some(packet(tunnel.get(header.header_len()..)?))
}

/// What an ICMP message is.
fn kind(protocol: IpProtocol, message: &[u8]) -> &'static str {
    let (request, reply, is_error) = match (protocol, message.first()) {
        (IpProtocol::ICMP, Some(kind)) => {
            let errors = [icmpv4::UNREACHABLE, icmpv4::TIME_EXCEEDED];
            (*kind == icmpv4::ECHO_REQUEST, *kind == icmpv4::ECHO_REPLY, errors.contains(kind))
        }
        (IpProtocol::ICMPV6, Some(kind)) => {
            (*kind == icmpv6::ECHO_REQUEST, *kind == icmpv6::ECHO_REPLY, *kind < icmpv6::ECHO_REQUEST)
        }
        _ => return "",
    };
    match (request, reply, is_error) {
        (true, ..) => " echo request",
        (_, true, _) => " echo reply",
        (.., true) => " error",
        _ => "",
    }
}
