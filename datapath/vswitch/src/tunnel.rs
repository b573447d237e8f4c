//! How does a frame cross the underlay? The headers around it: Ethernet, IP, UDP, Geneve (RFC 8926).
//!
//! The source port of UDP is a hash of the frame's addresses and ports, so that the underlay spreads connections and keeps
//! each in order (RFC 8926 §3.3). The UDP checksum costs no look at the payload: where the frame's own checksum is still
//! partial, what it will be is known, and so is the sum of all that it covers. Over IPv4 other frames go without
//! (RFC 8926 §3.3 allows it); over IPv6 the port that sends is asked to fill it in.

use std::net::IpAddr;

use frame::{Burst, Checksum, DropReason, Offload};
use wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use wire::{EtherType, IpProtocol, MacAddr, ethernet, geneve, ipv4, ipv6, udp};

use crate::program::{Tunnel, Underlay, Vni};

/// Bytes of the longest outer headers.
const MAX_OUTER_BYTES: usize =
    ethernet::HEADER_BYTES + ipv6::HEADER_BYTES + udp::HEADER_BYTES + geneve::HEADER_BYTES;
/// Hops of outer packets.
const TTL: u8 = 64;
/// Source ports are of the ephemeral range (RFC 8926 §3.3, RFC 6335 §6).
const FIRST_PORT: u16 = 49_152;
/// In place of a checksum that is computed for each piece when the frame is cut; 0 would mean that there is none.
const LATER: u16 = 0xffff;

/// The headers of tunnels to one node; what differs from frame to frame is filled in.
#[derive(Debug, Clone)]
pub(crate) struct Outer {
    bytes: [u8; MAX_OUTER_BYTES],
    is_v4: bool,
    /// Of addresses and protocol.
    pseudo: Sum,
}

impl Outer {
    /// Bytes from the outer IP header to the inner frame's payload: what a tunnel takes from the underlay's MTU.
    pub(crate) fn ip_bytes(is_v4: bool) -> usize {
        let ip = if is_v4 { ipv4::MIN_HEADER_BYTES } else { ipv6::HEADER_BYTES };
        ip + udp::HEADER_BYTES + geneve::HEADER_BYTES + ethernet::HEADER_BYTES
    }

    /// From one station and address to the other. Addresses of two families give a header that nobody takes: the program
    /// has none.
    pub(crate) fn new((from_mac, to_mac): (MacAddr, MacAddr), addresses: (IpAddr, IpAddr)) -> Self {
        let mut bytes = [0; MAX_OUTER_BYTES];
        let is_v4 = addresses.0.is_ipv4();
        let ether_type = if is_v4 { EtherType::IPV4 } else { EtherType::IPV6 };
        ethernet::Repr { destination: to_mac, source: from_mac, ether_type }.emit(&mut bytes);
        let ip = &mut bytes[ethernet::HEADER_BYTES..];
        let pseudo = match addresses {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let fragment = ipv4::DONT_FRAGMENT;
                let (protocol, options) = (IpProtocol::UDP, &[][..]);
                let repr = ipv4::Repr {
                    source,
                    destination,
                    protocol,
                    tos: 0,
                    ttl: TTL,
                    id: 0,
                    fragment,
                    options,
                    payload_len: 0,
                };
                repr.emit(ip);
                pseudo_v4(source, destination, protocol, 0)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let next_header = IpProtocol::UDP;
                let repr = ipv6::Repr {
                    source,
                    destination,
                    next_header,
                    traffic_class: 0,
                    flow_label: 0,
                    hop_limit: TTL,
                    payload_len: 0,
                };
                repr.emit(ip);
                pseudo_v6(source, destination, next_header, 0)
            }
            _ => Sum::ZERO,
        };
        let mut outer = Self { bytes, is_v4, pseudo };
        let udp_at = outer.udp_at();
        outer.bytes[udp_at..][udp::field::DESTINATION_PORT].copy_from_slice(&geneve::PORT.to_be_bytes());
        outer
    }

    fn udp_at(&self) -> usize {
        ethernet::HEADER_BYTES + if self.is_v4 { ipv4::MIN_HEADER_BYTES } else { ipv6::HEADER_BYTES }
    }

    fn len(&self) -> usize {
        self.udp_at() + udp::HEADER_BYTES + geneve::HEADER_BYTES
    }

    /// Puts frame `frame` of `burst` behind these headers, into the network `vni`.
    pub(crate) fn wrap(&self, burst: &mut Burst, frame: usize, vni: Vni) -> Result<(), DropReason> {
        let mut outer = self.bytes;
        let (udp_at, len) = (self.udp_at(), self.len());
        let udp_bytes = len - udp_at + burst.frame_len(frame);
        // Of a frame that is still to be cut, each piece gets its own length.
        let udp_len = u16::try_from(udp_bytes).unwrap_or(u16::MAX);
        self.write_ip_len(&mut outer, udp_len);
        let header = &mut outer[udp_at..];
        header[udp::field::SOURCE_PORT].copy_from_slice(&source_port(burst.head(frame)).to_be_bytes());
        header[udp::field::LEN].copy_from_slice(&udp_len.to_be_bytes());
        geneve::Repr { vni: vni.get() }.emit(&mut header[udp::HEADER_BYTES..]);
        let offload = burst.offload(frame);
        let (checksum, left) = self.checksum(&outer[udp_at..len], burst.head(frame), offload);
        outer[udp_at..][udp::field::CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        if !burst.encapsulate(frame, &outer[..len]) {
            return Err(DropReason::BadTunnel);
        }
        if let Some(left) = left {
            burst.set_offload(frame, left);
        }
        Ok(())
    }

    fn write_ip_len(&self, outer: &mut [u8], udp_len: u16) {
        let ip = &mut outer[ethernet::HEADER_BYTES..];
        if self.is_v4 {
            let total = udp_len.saturating_add(ipv4::MIN_HEADER_BYTES as u16);
            ip[ipv4::field::TOTAL_LEN].copy_from_slice(&total.to_be_bytes());
            ipv4::fill_checksum(&mut ip[..ipv4::MIN_HEADER_BYTES]);
        } else {
            ip[ipv6::field::PAYLOAD_LEN].copy_from_slice(&udp_len.to_be_bytes());
        }
    }

    /// The outer checksum over the UDP header `udp`, which has none yet, and the frame that begins with `head`; and what is
    /// left to the port instead of what the frame leaves to it.
    fn checksum(&self, udp: &[u8], head: &[u8], offload: Offload) -> (u16, Option<Offload>) {
        let udp_len = u16::from_be_bytes([udp[udp::field::LEN.start], udp[udp::field::LEN.start + 1]]);
        let sum = self.pseudo.add_word(udp_len);
        match offload.checksum {
            _ if offload.gso.is_some() => (LATER, None),
            Checksum::Partial { start, offset } => {
                let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
                let (Some(before), Some(pseudo)) = (head.get(..start), head.get(field..field + 2)) else {
                    return (0, None);
                };
                // Once it is filled in, all from `start` on sums up to the complement of what the field holds now.
                let rest = !u16::from_be_bytes([pseudo[0], pseudo[1]]);
                let sum = sum.add_bytes(udp).add_bytes(before).add_bytes(&rest.to_be_bytes());
                (sum.checksum_nonzero(), None)
            }
            _ if self.is_v4 => (0, None),
            _ => {
                let start = self.udp_at() as u16;
                let checksum = Checksum::Partial { start, offset: udp::field::CHECKSUM.start as u16 };
                (sum.fold(), Some(Offload { checksum, ..Offload::NONE }))
            }
        }
    }
}

/// The source port of a frame's tunnel: the same for all frames of a connection.
fn source_port(head: &[u8]) -> u16 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    let mut mix = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            hash ^= hash >> 32;
        }
    };
    match flow(head) {
        Some((addresses, ports)) => {
            mix(addresses);
            mix(ports);
        }
        None => mix(&head[..head.len().min(ethernet::HEADER_BYTES)]),
    }
    FIRST_PORT | hash as u16
}

/// The bytes of the addresses and the ports of an untagged IP packet; no ports where not every packet of the flow shows them.
fn flow(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, packet) = head.split_at_checked(ethernet::HEADER_BYTES)?;
    match EtherType(u16::from_be_bytes([head[12], head[13]])) {
        EtherType::IPV4 => {
            let ip = ipv4::View::new(packet).ok()?;
            let addresses = &packet[ipv4::field::SOURCE.start..ipv4::field::DESTINATION.end];
            let has_ports = !ip.is_fragment() && ip.protocol().has_ports();
            Some((addresses, ports(packet, ip.header_len(), has_ports)))
        }
        EtherType::IPV6 => {
            let ip = ipv6::View::new(packet).ok()?;
            let addresses = &packet[ipv6::field::SOURCE.start..ipv6::field::DESTINATION.end];
            Some((addresses, ports(packet, ipv6::HEADER_BYTES, ip.next_header().has_ports())))
        }
        _ => None,
    }
}

fn ports(packet: &[u8], at: usize, are_there: bool) -> &[u8] {
    packet.get(at..at + 4).filter(|_| are_there).unwrap_or_default()
}

/// The tunnel that the frame beginning with `head` is in, and the bytes in front of the inner frame; `None` if it is in none
/// that ends here.
///
/// # Errors
/// [`DropReason::NotANode`] if it comes from nobody known, [`DropReason::BadTunnel`] if its headers cannot be taken.
pub(crate) fn find(head: &[u8], underlay: &Underlay) -> Result<Option<(Tunnel, usize)>, DropReason> {
    let Some((addresses, udp_at)) = outer_udp(head) else { return Ok(None) };
    let bytes = head.get(udp_at..).unwrap_or_default();
    let Ok(header) = udp::View::new(bytes) else { return Ok(None) };
    if header.destination_port() != geneve::PORT || !underlay.is_own(addresses.1) {
        return Ok(None);
    }
    let node = underlay.node_at(addresses.0).ok_or(DropReason::NotANode)?;
    let geneve = geneve::View::new(&bytes[udp::HEADER_BYTES..]).map_err(|_| DropReason::BadTunnel)?;
    if geneve.is_control() || geneve.is_critical() || geneve.protocol() != geneve::ETHERNET {
        return Err(DropReason::BadTunnel);
    }
    let vni = Vni::new(geneve.vni()).ok_or(DropReason::BadTunnel)?;
    let outer_bytes = udp_at + udp::HEADER_BYTES + geneve.header_len();
    Ok(Some((Tunnel { node, vni }, outer_bytes)))
}

/// Takes the tunnel's headers, the first `outer_bytes` bytes, off frame `frame` of `burst`.
///
/// # Errors
/// [`DropReason::Truncated`] if nothing is behind them, [`DropReason::BadTunnel`] if the packet is several by what they say:
/// their headers are not one's. (A port that put packets together says that it is the frame inside that is large.)
pub(crate) fn unwrap(burst: &mut Burst, frame: usize, outer_bytes: usize) -> Result<(), DropReason> {
    let offload = burst.offload(frame);
    if offload.gso.is_some() && usize::from(offload.outer_bytes) != outer_bytes {
        return Err(DropReason::BadTunnel);
    }
    burst.shrink_front(frame, outer_bytes).ok_or(DropReason::Truncated)?;
    let is_of_inner =
        matches!(offload.checksum, Checksum::Partial { start, .. } if usize::from(start) >= outer_bytes);
    // What covers the outer packet says nothing about the inner one.
    if !is_of_inner {
        burst.set_offload(frame, Offload::NONE);
    }
    burst.refill(frame);
    Ok(())
}

/// Source and destination of an untagged, whole UDP packet, and where UDP begins.
fn outer_udp(head: &[u8]) -> Option<((IpAddr, IpAddr), usize)> {
    let (_, packet) = head.split_at_checked(ethernet::HEADER_BYTES)?;
    match EtherType(u16::from_be_bytes([head[12], head[13]])) {
        EtherType::IPV4 => {
            let ip = ipv4::View::new(packet).ok()?;
            let is_udp = ip.protocol() == IpProtocol::UDP && !ip.is_fragment();
            let at = ethernet::HEADER_BYTES + ip.header_len();
            is_udp.then(|| ((ip.source().into(), ip.destination().into()), at))
        }
        EtherType::IPV6 => {
            let ip = ipv6::View::new(packet).ok()?;
            let at = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
            (ip.next_header() == IpProtocol::UDP).then(|| ((ip.source().into(), ip.destination().into()), at))
        }
        _ => None,
    }
}
