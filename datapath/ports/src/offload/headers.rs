//! What are the headers of a frame that is to be cut? Read from its private head alone, so that nothing that was checked
//! here can change later.
//!
//! A frame in a tunnel has two sets of them: the outer ones, and those of the frame inside that the claims are about.

use frame::{Checksum, Gather, Gso, GsoKind, Offload};
use wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use wire::{EtherType, IpProtocol, ipv4, ipv6, tcp, udp, vlan};

/// The IP header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4 { id: u16 },
    V6,
}

/// Where the parts of a frame lie, as offsets from its first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    pub(super) family: Family,
    pub(super) protocol: IpProtocol,
    /// The IP header's first byte.
    pub(super) ip: usize,
    /// The transport header's first byte.
    pub(super) transport: usize,
    /// The transport payload's first byte, still in the head.
    pub(super) payload: usize,
    /// Behind the payload's last byte; Ethernet padding may follow.
    pub(super) end: usize,
    /// The sum over the addresses and the protocol.
    pseudo: Sum,
}

impl Headers {
    /// The headers of `frame` behind its tunnel, if it is in one; `None` unless they are all in its head and are what
    /// `gso` and `offload` claim them to be.
    pub(super) fn parse(frame: &Gather<'_>, gso: Gso, offload: &Offload) -> Option<Self> {
        let headers = Self::parse_at(frame.head(), usize::from(offload.outer_bytes))?;
        let is_as_claimed = headers.payload <= headers.end
            && headers.end <= frame.len()
            && headers.is_kind(gso.kind)
            && headers.is_summed_as(offload.checksum);
        is_as_claimed.then_some(headers)
    }

    /// The outer headers of a frame whose `head` begins with `outer_bytes` of a tunnel over UDP. Their lengths are those of
    /// a frame that may be too long for them, and say nothing.
    pub(super) fn parse_outer(head: &[u8], outer_bytes: usize) -> Option<Self> {
        let outer = Self::parse_at(head.get(..outer_bytes)?, 0)?;
        // All headers are of an even length; a checksum over an odd one could not be put together from its parts.
        let is_tunnel =
            outer.protocol == IpProtocol::UDP && (outer_bytes - outer.transport).is_multiple_of(2);
        is_tunnel.then_some(outer)
    }

    /// The headers of the Ethernet frame that begins `at` bytes into `head`.
    pub(super) fn parse_at(head: &[u8], at: usize) -> Option<Self> {
        let (ether_type, ip) = vlan::skip_tags(head.get(at..)?).ok()?;
        let mut headers = match ether_type {
            EtherType::IPV4 => Self::parse_v4(head, at + ip)?,
            EtherType::IPV6 => Self::parse_v6(head, at + ip)?,
            _ => return None,
        };
        headers.payload = headers.transport + headers.transport_len(head)?;
        Some(headers)
    }

    fn parse_v4(head: &[u8], ip: usize) -> Option<Self> {
        let view = ipv4::View::new(head.get(ip..)?).ok().filter(|view| !view.is_fragment())?;
        Some(Self {
            family: Family::V4 { id: view.id() },
            protocol: view.protocol(),
            ip,
            transport: ip + view.header_len(),
            payload: 0,
            end: ip + usize::from(view.total_len()),
            pseudo: pseudo_v4(view.source(), view.destination(), view.protocol(), 0),
        })
    }

    fn parse_v6(head: &[u8], ip: usize) -> Option<Self> {
        let view = ipv6::View::new(head.get(ip..)?).ok()?;
        let upper = ipv6::walk(view.next_header(), &head[ip + ipv6::HEADER_BYTES..]).ok()?;
        if upper.fragment.is_some() {
            return None;
        }
        Some(Self {
            family: Family::V6,
            protocol: upper.protocol,
            ip,
            transport: ip + ipv6::HEADER_BYTES + upper.offset,
            payload: 0,
            end: ip + ipv6::HEADER_BYTES + usize::from(view.payload_len()),
            pseudo: pseudo_v6(view.source(), view.destination(), upper.protocol, 0),
        })
    }

    fn transport_len(&self, head: &[u8]) -> Option<usize> {
        let bytes = head.get(self.transport..)?;
        match self.protocol {
            IpProtocol::TCP => Some(tcp::View::new(bytes).ok()?.header_len()),
            IpProtocol::UDP => (bytes.len() >= udp::HEADER_BYTES).then_some(udp::HEADER_BYTES),
            _ => None,
        }
    }

    fn is_kind(&self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::TcpV4 => self.protocol == IpProtocol::TCP && self.is_v4(),
            GsoKind::TcpV6 => self.protocol == IpProtocol::TCP && !self.is_v4(),
            GsoKind::UdpFragment | GsoKind::UdpSegment => self.protocol == IpProtocol::UDP,
        }
    }

    fn is_summed_as(&self, checksum: Checksum) -> bool {
        match checksum {
            Checksum::Complete | Checksum::Valid => true,
            Checksum::Partial { start, offset } => {
                usize::from(start) == self.transport && usize::from(offset) == self.checksum_offset()
            }
        }
    }

    pub(super) fn is_v4(&self) -> bool {
        matches!(self.family, Family::V4 { .. })
    }

    /// Where the checksum field lies in the transport header.
    pub(super) fn checksum_offset(&self) -> usize {
        match self.protocol {
            IpProtocol::TCP => tcp::field::CHECKSUM.start,
            _ => udp::field::CHECKSUM.start,
        }
    }

    /// The pseudo header's sum for `len` bytes of transport header and payload.
    pub(super) fn pseudo(&self, len: usize) -> Sum {
        self.pseudo.add_word(len as u16)
    }

    /// Writes the IP length of a piece that is `piece_len` bytes long from its first byte on.
    pub(super) fn write_len(&self, head: &mut [u8], piece_len: usize) {
        let ip_len = piece_len - self.ip;
        let header = &mut head[self.ip..];
        match self.family {
            Family::V4 { .. } => {
                header[ipv4::field::TOTAL_LEN].copy_from_slice(&(ip_len as u16).to_be_bytes());
            }
            Family::V6 => {
                let payload_len = (ip_len - ipv6::HEADER_BYTES) as u16;
                header[ipv6::field::PAYLOAD_LEN].copy_from_slice(&payload_len.to_be_bytes());
            }
        }
    }

    /// Writes what differs from datagram to datagram of UDP but its checksum: lengths and identification, for the one of this
    /// number, which is `len` bytes long from the frame's first byte on.
    pub(super) fn write_datagram(&self, head: &mut [u8], len: usize, number: usize) {
        self.write_len(head, len);
        self.write_id(head, number);
        let udp_len = (len - self.transport) as u16;
        head[self.transport..][udp::field::LEN].copy_from_slice(&udp_len.to_be_bytes());
    }

    /// Leaves the checksum of such a datagram to whoever sends it, and says so.
    pub(super) fn leave_checksum(&self, head: &mut [u8], len: usize) -> Checksum {
        let pseudo = self.pseudo(len - self.transport).fold();
        head[self.transport..][udp::field::CHECKSUM].copy_from_slice(&pseudo.to_be_bytes());
        Checksum::Partial { start: self.transport as u16, offset: udp::field::CHECKSUM.start as u16 }
    }

    /// Gives the piece of this number its own IPv4 identification, and with it the header checksum, which covers the length
    /// too.
    pub(super) fn write_id(&self, head: &mut [u8], number: usize) {
        let Family::V4 { id } = self.family else { return };
        let header = &mut head[self.ip..self.transport];
        header[ipv4::field::ID].copy_from_slice(&id.wrapping_add(number as u16).to_be_bytes());
        ipv4::fill_checksum(header);
    }
}
