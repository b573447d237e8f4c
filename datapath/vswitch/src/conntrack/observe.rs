//! What of a packet does its connection depend on?

use frame::Gso;
use wire::{EtherType, IpProtocol, icmpv4, icmpv6, ipv4, ipv6};

use super::rewrite::Layout;
use super::sctp;
use super::tcp::Segment;
use super::tuple::{Endpoint, Tuple, ZoneNo};
use crate::key::{Field, class};
use crate::parse::Packet;

/// What the transport header says about a connection's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp(Segment),
    Udp,
    Sctp(sctp::Packet),
    EchoRequest,
    EchoReply,
    /// A fragment behind the first one of a datagram.
    Fragment,
    /// A protocol of which only the addresses are known.
    Other,
}

/// What a packet is to the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observed {
    /// Part of a connection.
    Flow(Tuple, Transport),
    /// An ICMP error about a packet of one: see [`super::related`].
    Error,
    /// Neither: no IP, a fragment without a transport header, neighbour discovery, other ICMP, IPv4-mapped addresses in
    /// IPv6.
    Untracked,
}

/// A frame as the tracker is given it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) packet: &'a Packet,
    pub(crate) head: &'a [u8],
    pub(crate) frame_bytes: usize,
    /// It is still to be segmented: its headers' lengths mean nothing.
    pub(crate) gso: Option<Gso>,
}

/// The largest type of an ICMPv6 error (RFC 4443 §2.1).
const MAX_ERROR_V6: u8 = 127;

impl Sight<'_> {
    /// What the packet is in `zone`.
    pub(crate) fn observe(&self, zone: ZoneNo) -> Observed {
        let key = &self.packet.key;
        let ether_type = EtherType(key.get(Field::ETHER_TYPE) as u16);
        let classes = key.get(Field::CLASS);
        if ether_type != EtherType::IPV4 && ether_type != EtherType::IPV6
            || classes & (class::LATER_FRAGMENT | class::HIDDEN | class::NEIGHBOR) != 0
        {
            return Observed::Untracked;
        }
        // Else they would pass for IPv4's. They are for interfaces to programs, and not for links (RFC 4942 §2.2).
        let is_mapped = |[high, low]: [Field; 2]| key.get(high) == 0 && key.get(low) >> 32 == 0xffff;
        if ether_type == EtherType::IPV6 && (is_mapped(Field::SOURCE_IP) || is_mapped(Field::DESTINATION_IP))
        {
            return Observed::Untracked;
        }
        let protocol = IpProtocol(key.get(Field::PROTOCOL) as u8);
        if classes & class::TRANSPORT == 0 {
            return Observed::Flow(self.tuple(zone, (0, 0)), Transport::Other);
        }
        let ports = (key.get(Field::SOURCE_PORT) as u16, key.get(Field::DESTINATION_PORT) as u16);
        match protocol {
            IpProtocol::ICMP => self.icmp(zone, &ICMP),
            IpProtocol::ICMPV6 => self.icmp(zone, &ICMPV6),
            IpProtocol::UDP => Observed::Flow(self.tuple(zone, ports), Transport::Udp),
            IpProtocol::TCP => match Segment::read(self.transport(), self.payload_bytes()) {
                Some(segment) => Observed::Flow(self.tuple(zone, ports), Transport::Tcp(segment)),
                None => Observed::Untracked,
            },
            IpProtocol::SCTP => match sctp::Packet::read(self.transport()) {
                Some(packet) => Observed::Flow(self.tuple(zone, ports), Transport::Sctp(packet)),
                None => Observed::Untracked,
            },
            _ => Observed::Flow(self.tuple(zone, (0, 0)), Transport::Other),
        }
    }

    fn icmp(&self, zone: ZoneNo, family: &Family) -> Observed {
        let Some(Some(header)) = self.transport().map(|bytes| bytes.first_chunk::<8>()) else {
            return Observed::Untracked;
        };
        let id = u16::from_be_bytes([header[4], header[5]]);
        let kind = header[0];
        if kind == family.request {
            Observed::Flow(self.tuple(zone, (id, 0)), Transport::EchoRequest)
        } else if kind == family.reply {
            Observed::Flow(self.tuple(zone, (0, id)), Transport::EchoReply)
        } else if (family.is_error)(kind) {
            Observed::Error
        } else {
            Observed::Untracked
        }
    }

    pub(crate) fn tuple(&self, zone: ZoneNo, (source_port, destination_port): (u16, u16)) -> Tuple {
        let key = &self.packet.key;
        let ip =
            |[high, low]: [Field; 2]| (u128::from(key.get(high)) << 64 | u128::from(key.get(low))).into();
        Tuple {
            zone,
            protocol: IpProtocol(key.get(Field::PROTOCOL) as u8),
            source: Endpoint { ip: ip(Field::SOURCE_IP), port: source_port },
            destination: Endpoint { ip: ip(Field::DESTINATION_IP), port: destination_port },
        }
    }

    fn transport(&self) -> Option<&[u8]> {
        self.head.get(usize::from(self.packet.transport_at)..)
    }

    /// Where the headers lie, for [`super::rewrite()`].
    pub(crate) fn layout(&self) -> Layout {
        let transport_at = usize::from(self.packet.transport_at);
        Layout {
            ip_at: self.packet.link_bytes.into(),
            transport_at: (transport_at > 0).then_some(transport_at),
            transport_bytes: self.end().saturating_sub(transport_at),
        }
    }

    /// Bytes behind the transport header.
    fn payload_bytes(&self) -> usize {
        self.end().saturating_sub(self.packet.payload_at())
    }

    /// Where the packet ends: behind it, a link pads short ones.
    fn end(&self) -> usize {
        let ip_at = usize::from(self.packet.link_bytes);
        let ip = self.head.get(ip_at..).unwrap_or_default();
        let length = |field: std::ops::Range<usize>| match ip.get(field) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let is_v4 = ip.first().is_some_and(|byte| byte >> 4 == 4);
        match if is_v4 { length(ipv4::field::TOTAL_LEN) } else { length(ipv6::field::PAYLOAD_LEN) } {
            _ if self.gso.is_some() => self.frame_bytes,
            // A jumbogram's (RFC 2675 §3).
            0 => self.frame_bytes,
            bytes if is_v4 => ip_at + bytes,
            bytes => ip_at + ipv6::HEADER_BYTES + bytes,
        }
    }
}

/// What the two ICMPs have in different places.
pub(super) struct Family {
    pub(super) request: u8,
    pub(super) reply: u8,
    is_error: fn(u8) -> bool,
}

pub(super) const ICMP: Family = Family {
    request: icmpv4::ECHO_REQUEST,
    reply: icmpv4::ECHO_REPLY,
    is_error: |kind| {
        matches!(kind, icmpv4::UNREACHABLE | SOURCE_QUENCH | icmpv4::TIME_EXCEEDED | PARAMETER_PROBLEM)
    },
};
pub(super) const ICMPV6: Family = Family {
    request: icmpv6::ECHO_REQUEST,
    reply: icmpv6::ECHO_REPLY,
    is_error: |kind| kind <= MAX_ERROR_V6,
};

/// RFC 792; deprecated by RFC 6633, and still heard.
const SOURCE_QUENCH: u8 = 4;
/// RFC 792.
const PARAMETER_PROBLEM: u8 = 12;
