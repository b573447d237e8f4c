//! What do the first bytes of a frame say?
//!
//! One pass over the private head fills a [`Packet`]: the flow key, and where the headers lie. Only headers that
//! contradict themselves end a frame here; what is not known is switched by its addresses alone. The outer tag, 802.1Q or
//! 802.1ad, is the network's VLAN; a second one is left alone.
//!
//! The lengths of a frame that is still to be segmented are not compared: sources write them differently.

use frame::{DropReason, Gso, GsoKind};
use wire::{EtherType, IpProtocol, arp, ethernet, ipv4, ipv6, nd, sctp, tcp, udp, vlan};

use crate::key::{Field, FlowKey, TAGGED, class};
use crate::program::{NodeNo, PortNo};

/// IPv6 extension headers walked before the rest counts as hidden.
const MAX_EXTENSIONS: usize = 8;
/// The largest value of a length field in IEEE 802.3 frames (802.3 §3.2.6).
const MAX_LENGTH_FIELD: u16 = 1500;
/// ICMP's type and code, all that is asked of it.
const ICMP_BYTES: usize = 4;

/// A frame's key, and where its headers lie.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Packet {
    pub(crate) key: FlowKey,
    /// Bytes of the Ethernet header and the tags.
    pub(crate) link_bytes: u8,
    /// Where the transport header starts; 0 if it was not seen.
    pub(crate) transport_at: u8,
    /// Where the transport's payload starts; 0 if that was not seen.
    payload_at: u8,
    /// What counts for an MTU: the IP packet's bytes, or one segment's if the frame is still to be cut.
    pub(crate) network_bytes: u32,
    /// The outer tag is an 802.1ad one.
    pub(crate) service_tag: bool,
    /// The outer tag's priority, DEI and VLAN id; 0 without one.
    pub(crate) tci: u16,
}

impl Packet {
    /// It came out of a tunnel from `node`.
    pub(crate) fn set_node(&mut self, node: NodeNo) {
        let Field { word, .. } = Field::NODE;
        self.key.0[word] &= !Field::NODE.place(u64::MAX);
        self.key.0[word] |= Field::NODE.place(node.0.into());
    }

    /// Where the transport's payload starts; 0 if that was not seen.
    pub(crate) fn payload_at(&self) -> usize {
        self.payload_at.into()
    }
}

/// A frame as the parser is given it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) frame_bytes: usize,
    /// It is still to be segmented.
    pub(crate) gso: Option<Gso>,
    pub(crate) port: PortNo,
}

/// Fills `packet` from `raw`.
///
/// # Errors
/// [`DropReason::Truncated`] or [`DropReason::Malformed`].
#[inline(always)]
pub(crate) fn parse(raw: Raw<'_>, packet: &mut Packet) -> Result<(), DropReason> {
    parse_headers(raw, packet)?;
    let bytes = match raw.gso {
        None => raw.frame_bytes - usize::from(packet.link_bytes),
        Some(gso) => segment_bytes(packet, gso),
    };
    packet.network_bytes = bytes as u32;
    Ok(())
}

/// The IP packet's bytes of one segment.
#[cold]
fn segment_bytes(packet: &Packet, gso: Gso) -> usize {
    let headers = match gso.kind {
        // The source's claim about its headers counts only where they were not seen.
        _ if packet.payload_at == 0 => gso.headers_bytes,
        // IP fragments: the UDP header is payload of the first. IPv6 has a header for it (RFC 8200 §4.5).
        GsoKind::UdpFragment if packet.key.get(Field::ETHER_TYPE) == u64::from(EtherType::IPV6.0) => {
            u16::from(packet.transport_at) + ipv6::FRAGMENT_HEADER_BYTES as u16
        }
        GsoKind::UdpFragment => packet.transport_at.into(),
        GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::UdpSegment => packet.payload_at.into(),
    };
    usize::from(headers.saturating_sub(packet.link_bytes.into())) + usize::from(gso.size)
}

/// Fills in all but the length.
#[inline(always)]
fn parse_headers(raw: Raw<'_>, packet: &mut Packet) -> Result<(), DropReason> {
    let head = raw.head;
    let eth: &[u8; ethernet::HEADER_BYTES] = chunk(head, 0)?;
    let mut ether_type = be16(eth, 12);
    let mut tag = 0;
    *packet = Packet { link_bytes: ethernet::HEADER_BYTES as u8, ..Packet::default() };
    if EtherType(ether_type).is_tag() {
        let bytes: &[u8; vlan::TAG_BYTES] = chunk(head, ethernet::HEADER_BYTES)?;
        packet.service_tag = EtherType(ether_type) == EtherType::SERVICE_VLAN;
        packet.tci = be16(bytes, 0);
        packet.link_bytes += vlan::TAG_BYTES as u8;
        tag = TAGGED | u64::from(packet.tci & 0xfff);
        ether_type = be16(bytes, 2);
    }
    if ether_type <= MAX_LENGTH_FIELD {
        ether_type = 0;
    }
    let words = &mut packet.key.0;
    words[0] = Field::IN_PORT.place(raw.port.0.into())
        | Field::TAG.place(tag)
        | Field::ETHER_TYPE.place(ether_type.into());
    words[1] = Field::DESTINATION_MAC.place(be64(eth, 0) >> 16);
    words[2] = Field::SOURCE_MAC.place(be64(eth, 6) >> 16);
    let at = packet.link_bytes.into();
    match EtherType(ether_type) {
        EtherType::IPV4 => parse_ipv4(raw, at, packet),
        EtherType::IPV6 => parse_ipv6(raw, at, packet),
        EtherType::ARP => parse_arp(head, at, packet),
        inner if inner.is_tag() => {
            // A tag that the frame ends in is somebody else's matter.
            let tags = usize::from(packet.link_bytes) + vlan::TAG_BYTES;
            packet.link_bytes = tags.min(raw.frame_bytes) as u8;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn parse_ipv4(raw: Raw<'_>, at: usize, packet: &mut Packet) -> Result<(), DropReason> {
    let ip: &[u8; ipv4::MIN_HEADER_BYTES] = chunk(raw.head, at)?;
    let header_bytes = match ip[0] {
        // Nearly always: version 4, no options.
        0x45 => ipv4::MIN_HEADER_BYTES,
        0x46..=0x4f => usize::from(ip[0] & 0xf) * 4,
        _ => return Err(DropReason::Malformed),
    };
    let total = if raw.gso.is_some() { raw.frame_bytes - at } else { be16(ip, 2).into() };
    if total < header_bytes {
        return Err(if raw.gso.is_some() { DropReason::Truncated } else { DropReason::Malformed });
    }
    if at + total > raw.frame_bytes {
        return Err(DropReason::Truncated);
    }
    let fragment = be16(ip, 6) & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET);
    let protocol = ip[9];
    packet.key.0[4] = FlowKey::mapped(be32(ip, 12));
    packet.key.0[6] = FlowKey::mapped(be32(ip, 16));
    packet.key.0[0] |= Field::PROTOCOL.place(protocol.into());
    if fragment != 0 {
        packet.key.0[0] |= fragment_class(fragment, ipv4::FRAGMENT_OFFSET);
        if fragment & ipv4::FRAGMENT_OFFSET != 0 {
            return Ok(());
        }
    }
    let whole = fragment == 0 && raw.gso.is_none();
    let transport = Transport { at: at + header_bytes, bytes: total - header_bytes, whole };
    match IpProtocol(protocol) {
        IpProtocol::ICMPV6 => Ok(()),
        protocol => parse_transport(raw.head, protocol, transport, packet),
    }
}

fn parse_ipv6(raw: Raw<'_>, at: usize, packet: &mut Packet) -> Result<(), DropReason> {
    let ip: &[u8; ipv6::HEADER_BYTES] = chunk(raw.head, at)?;
    if ip[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    // A payload length of 0 is a jumbogram's (RFC 2675 §3).
    let end = match be16(ip, 4) {
        bytes if bytes > 0 && raw.gso.is_none() => at + ipv6::HEADER_BYTES + usize::from(bytes),
        _ => raw.frame_bytes,
    };
    if end > raw.frame_bytes {
        return Err(DropReason::Truncated);
    }
    let words = &mut packet.key.0;
    (words[3], words[4]) = (be64(ip, 8), be64(ip, 16));
    (words[5], words[6]) = (be64(ip, 24), be64(ip, 32));
    let upper = walk_extensions(raw.head, at + ipv6::HEADER_BYTES, end, IpProtocol(ip[6]))?;
    words[0] |= Field::PROTOCOL.place(upper.protocol.0.into()) | upper.class;
    if upper.class & (class::HIDDEN | class::LATER_FRAGMENT) != 0 || upper.protocol == IpProtocol::ICMP {
        return Ok(());
    }
    let whole = upper.class & class::FRAGMENT == 0 && raw.gso.is_none();
    let transport = Transport { at: upper.at, bytes: end - upper.at, whole };
    parse_transport(raw.head, upper.protocol, transport, packet)
}

/// What lies behind IPv6's extension headers.
struct Upper {
    protocol: IpProtocol,
    at: usize,
    class: u64,
}

/// Walks the extension headers from `at` on (RFC 8200 §4). The packet ends at `end`, which may lie behind the head.
#[inline]
fn walk_extensions(head: &[u8], at: usize, end: usize, first: IpProtocol) -> Result<Upper, DropReason> {
    let mut upper = Upper { protocol: first, at, class: 0 };
    for _ in 0..=MAX_EXTENSIONS {
        if !is_extension(upper.protocol) {
            return Ok(upper);
        }
        // Each is at least 8 bytes long.
        if upper.at + 8 > end {
            return Err(DropReason::Truncated);
        }
        let Some(bytes) = head.get(upper.at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
        let length = usize::from(bytes[1]);
        upper.at += match upper.protocol {
            IpProtocol::FRAGMENT => 8,
            // RFC 4302 §2.2: in words of 4 bytes, minus 2.
            IpProtocol::AH => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        if upper.at > end {
            return Err(DropReason::Truncated);
        }
        if upper.protocol == IpProtocol::FRAGMENT {
            // Offset and more-fragments (RFC 8200 §4.5). Both 0: an atomic fragment, a whole packet (RFC 6946).
            upper.class |= fragment_class(be16(bytes, 2) & 0xfff9, 0xfff8);
        }
        upper.protocol = IpProtocol(bytes[0]);
        if upper.class & class::LATER_FRAGMENT != 0 {
            return Ok(upper);
        }
    }
    upper.class |= class::HIDDEN;
    Ok(upper)
}

fn is_extension(protocol: IpProtocol) -> bool {
    matches!(
        protocol,
        IpProtocol::HOP_BY_HOP
            | IpProtocol::ROUTING
            | IpProtocol::FRAGMENT
            | IpProtocol::AH
            | IpProtocol::DESTINATION_OPTIONS
    )
}

/// The class bits of a packet whose fragment field, without flags that say nothing, is `fragment`.
#[inline]
fn fragment_class(fragment: u16, offset_bits: u16) -> u64 {
    let is_fragment = if fragment != 0 { class::FRAGMENT } else { 0 };
    let is_later = if fragment & offset_bits != 0 { class::LATER_FRAGMENT } else { 0 };
    is_fragment | is_later
}

/// Where a transport header lies.
#[derive(Clone, Copy)]
struct Transport {
    at: usize,
    /// Bytes of the IP payload from there on.
    bytes: usize,
    /// The frame holds the whole datagram, so that its length can be compared.
    whole: bool,
}

/// What a transport header showed.
#[derive(Clone, Copy)]
struct Seen {
    /// The source's port in the upper half, the destination's in the lower.
    ports: u32,
    header_bytes: usize,
}

impl Transport {
    /// The first `N` bytes, which the packet must have; `None` if they lie behind the head.
    #[inline(always)]
    fn header<const N: usize>(self, head: &[u8]) -> Result<Option<&[u8; N]>, DropReason> {
        if self.bytes < N {
            return Err(DropReason::Truncated);
        }
        Ok(head.get(self.at..).and_then(|rest| rest.first_chunk()))
    }
}

#[inline(always)]
fn parse_transport(
    head: &[u8],
    protocol: IpProtocol,
    transport: Transport,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let seen = match protocol {
        IpProtocol::TCP => parse_tcp(head, transport)?,
        IpProtocol::UDP => parse_udp(head, transport)?,
        IpProtocol::SCTP => {
            let header = transport.header::<{ sctp::HEADER_BYTES }>(head)?;
            header.map(|sctp| Seen { ports: be32(sctp, 0), header_bytes: sctp::HEADER_BYTES })
        }
        IpProtocol::ICMP => parse_icmp(head, transport)?,
        IpProtocol::ICMPV6 => {
            let seen = parse_icmp(head, transport)?;
            let kind = seen.map_or(0, |seen| (seen.ports >> 16) as u8);
            if (nd::ROUTER_SOLICIT..=nd::REDIRECT).contains(&kind) {
                packet.key.0[0] |= class::NEIGHBOR;
            }
            seen
        }
        _ => return Ok(()),
    };
    let Some(Seen { ports, header_bytes }) = seen else {
        packet.key.0[0] |= class::HIDDEN;
        return Ok(());
    };
    packet.transport_at = transport.at as u8;
    packet.payload_at = (transport.at + header_bytes) as u8;
    packet.key.0[0] |= class::TRANSPORT;
    packet.key.0[1] |= Field::SOURCE_PORT.place(u64::from(ports >> 16));
    packet.key.0[2] |= Field::DESTINATION_PORT.place(ports.into());
    Ok(())
}

#[inline(always)]
fn parse_tcp(head: &[u8], transport: Transport) -> Result<Option<Seen>, DropReason> {
    let Some(tcp) = transport.header::<{ tcp::MIN_HEADER_BYTES }>(head)? else { return Ok(None) };
    let header_bytes = usize::from(tcp[12] >> 4) * 4;
    if header_bytes < tcp::MIN_HEADER_BYTES {
        return Err(DropReason::Malformed);
    }
    if header_bytes > transport.bytes {
        return Err(DropReason::Truncated);
    }
    Ok(Some(Seen { ports: be32(tcp, 0), header_bytes }))
}

#[inline(always)]
fn parse_udp(head: &[u8], transport: Transport) -> Result<Option<Seen>, DropReason> {
    let Some(udp) = transport.header::<{ udp::HEADER_BYTES }>(head)? else { return Ok(None) };
    let len = usize::from(be16(udp, 4));
    // A length of 0 is a jumbogram's (RFC 2675 §4).
    if transport.whole && len != 0 && !(udp::HEADER_BYTES..=transport.bytes).contains(&len) {
        return Err(if len > transport.bytes { DropReason::Truncated } else { DropReason::Malformed });
    }
    Ok(Some(Seen { ports: be32(udp, 0), header_bytes: udp::HEADER_BYTES }))
}

/// ICMP's type and code count as ports.
fn parse_icmp(head: &[u8], transport: Transport) -> Result<Option<Seen>, DropReason> {
    let header = transport.header::<ICMP_BYTES>(head)?;
    let ports = |icmp: &[u8; ICMP_BYTES]| u32::from(icmp[0]) << 16 | u32::from(icmp[1]);
    Ok(header.map(|icmp| Seen { ports: ports(icmp), header_bytes: ICMP_BYTES }))
}

/// ARP for IPv4 fills the address fields; for anything else it is switched like any frame. The hardware type is not
/// asked for, because hosts accept more than one (IEEE 802 as well as Ethernet).
fn parse_arp(head: &[u8], at: usize, packet: &mut Packet) -> Result<(), DropReason> {
    let bytes: &[u8; 8] = chunk(head, at)?;
    if EtherType(be16(bytes, 2)) != EtherType::IPV4 {
        return Ok(());
    }
    if (bytes[4], bytes[5]) != (6, 4) {
        return Err(DropReason::Malformed);
    }
    let arp: &[u8; arp::PACKET_BYTES] = chunk(head, at)?;
    let words = &mut packet.key.0;
    words[0] |= class::ARP;
    words[1] |= Field::SOURCE_PORT.place(be16(arp, 6).into());
    words[4] = FlowKey::mapped(be32(arp, 14));
    words[6] = FlowKey::mapped(be32(arp, 24));
    words[7] = Field::CLAIMED_MAC.place(be64(arp, 8) >> 16);
    Ok(())
}

#[inline]
fn chunk<const N: usize>(head: &[u8], at: usize) -> Result<&[u8; N], DropReason> {
    head.get(at..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::Truncated)
}

#[inline]
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
