//! Which packets are one TCP segment that was cut? Those that cutting it again would make: the rules of Linux's GRO
//! (net/core/gro.c, net/ipv4/tcp_offload.c), and each one's checksum is right.
//!
//! Identifications of IPv4 are no order where fragmentation is forbidden, and are then not looked at (RFC 6864 §4).

use std::ops::Range;

use frame::{Checksum, Gso, GsoKind, MAX_SEGMENTS, Offload};
use wire::tcp::Flags;
use wire::{IpProtocol, checksum, geneve, ipv4, ipv6, tcp, udp};

use super::packet::Packet;
use crate::offload::MAX_HEAD_BYTES;
use crate::offload::headers::{Family, Headers};

/// Packets of one frame, which has a segment for each, one for its headers, and what is left of its head.
const MAX_PACKETS: usize = MAX_SEGMENTS - 2;
/// A last packet may say these.
const ENDING: Flags = Flags::PSH.with(Flags::FIN);

/// Packets that are being put together.
pub(super) struct Train<'m> {
    first: Packet<'m>,
    /// Bytes of Geneve.
    geneve: usize,
    /// Those of the frame inside, from Geneve on.
    inner: Headers,
    packets: usize,
    /// Bytes of TCP's payload: of each packet but the last, and of all.
    size: usize,
    bytes: usize,
    /// What the last packet says of [`ENDING`].
    ending: Flags,
    is_open: bool,
    /// The first packet's checksum is right.
    is_verified: bool,
}

impl<'m> Train<'m> {
    /// A train of `first` alone; `None` if no packet can go behind it.
    pub(super) fn begin(first: Packet<'m>) -> Option<Self> {
        let payload = first.payload;
        let view = geneve::View::new(payload).ok()?;
        if view.protocol() != geneve::ETHERNET || payload[geneve::field::FLAGS] != 0 {
            return None;
        }
        let geneve = view.header_len();
        let inner = Headers::parse_at(payload, geneve)?;
        let shortest = if inner.is_v4() { ipv4::MIN_HEADER_BYTES } else { ipv6::HEADER_BYTES };
        let is_plain = inner.protocol == IpProtocol::TCP && inner.transport - inner.ip == shortest;
        let fits = inner.end == payload.len() && first.outer.len() + inner.payload <= MAX_HEAD_BYTES;
        if !is_plain || !fits || inner.payload >= inner.end {
            return None;
        }
        let flags = Flags(payload[inner.transport + tcp::field::FLAGS]);
        if flags.without(ENDING.with(Flags::ECE)) != Flags::ACK || !is_summed(&inner, payload) {
            return None;
        }
        let size = inner.end - inner.payload;
        let ending = Flags(flags.0 & ENDING.0);
        let is_open = ending == Flags::default();
        Some(Self {
            first,
            geneve,
            inner,
            packets: 1,
            size,
            bytes: size,
            ending,
            is_open,
            is_verified: false,
        })
    }

    pub(super) fn first(&self) -> &Packet<'m> {
        &self.first
    }

    pub(super) fn packets(&self) -> usize {
        self.packets
    }

    /// What `packet`, which is of this train, has of TCP's payload.
    pub(super) fn payload_of(&self, packet: &Packet<'m>) -> &'m [u8] {
        &packet.payload[self.inner.payload..]
    }

    /// Takes `packet` if it goes on where the train ends.
    pub(super) fn take(&mut self, packet: &Packet<'m>) -> bool {
        if !self.is_open || !self.has_room(packet) || !self.is_of_train(packet) || !self.is_next(packet) {
            return false;
        }
        self.is_verified = self.is_verified || is_right(&self.inner, self.first.payload);
        if !self.is_verified || !is_right(&self.inner, packet.payload) {
            // A wrong one goes to its receiver as it is, and so do those around it.
            self.is_open = false;
            return false;
        }
        let added = packet.payload.len() - self.inner.payload;
        self.packets += 1;
        self.bytes += added;
        self.ending = Flags(self.flags_of(packet).0 & ENDING.0);
        self.is_open = added == self.size && self.ending == Flags::default();
        true
    }

    /// True if the outer lengths hold `packet`, which is no longer than those before it.
    fn has_room(&self, packet: &Packet<'_>) -> bool {
        let len = self.first.outer.len() - self.first.headers.ip + self.inner.payload + self.bytes;
        let added = packet.payload.len().checked_sub(self.inner.payload).filter(|added| *added > 0);
        let fits = |added| added <= self.size && len + added <= usize::from(u16::MAX);
        self.packets < MAX_PACKETS && added.is_some_and(fits)
    }

    /// True if the headers are those of the train but for what differs from packet to packet.
    fn is_of_train(&self, packet: &Packet<'_>) -> bool {
        let (udp, tcp, end) = (self.first.headers.transport, self.inner.transport, self.inner.payload);
        let [ip_len, ip_sum] = varying(&self.first.headers);
        let outer = [ip_len, ip_sum, udp + udp::field::LEN.start..udp + udp::field::CHECKSUM.end];
        let [ip_len, ip_sum] = varying(&self.inner);
        let at = |field: Range<usize>| tcp + field.start..tcp + field.end;
        let flags = tcp + tcp::field::FLAGS;
        let inner = [ip_len, ip_sum, at(tcp::field::SEQUENCE), flags..flags + 1, at(tcp::field::CHECKSUM)];
        let (first, flags) = (&self.first, self.flags_of(packet));
        flags.without(ENDING) == self.flags_of(first).without(ENDING)
            && same_but(&inner, &first.payload[..end], &packet.payload[..end])
            && (std::ptr::eq(first.outer, packet.outer) || same_but(&outer, first.outer, packet.outer))
    }

    /// True if the fields that differ are those of the packet behind the last one.
    fn is_next(&self, packet: &Packet<'_>) -> bool {
        let Headers { ip, transport, .. } = self.inner;
        let (len, header) = (packet.payload.len() - ip, &packet.payload[ip..]);
        let says = |field: Range<usize>| u16::from_be_bytes([header[field.start], header[field.start + 1]]);
        let is_next = match self.inner.family {
            Family::V4 { id } => {
                let forbids = says(ipv4::field::FRAGMENT) & ipv4::DONT_FRAGMENT != 0;
                usize::from(says(ipv4::field::TOTAL_LEN)) == len
                    && (forbids || says(ipv4::field::ID) == id.wrapping_add(self.packets as u16))
                    && is_summed(&self.inner, packet.payload)
            }
            Family::V6 => usize::from(says(ipv6::field::PAYLOAD_LEN)) + ipv6::HEADER_BYTES == len,
        };
        let first = sequence(&self.first.payload[transport..]);
        is_next && sequence(&packet.payload[transport..]) == first.wrapping_add(self.bytes as u32)
    }

    fn flags_of(&self, packet: &Packet<'_>) -> Flags {
        Flags(packet.payload[self.inner.transport + tcp::field::FLAGS])
    }

    /// Writes all headers of the frame that the train is, and returns their length and what is left to do on the frame.
    pub(super) fn write_headers(&self, head: &mut [u8]) -> (usize, Offload) {
        let (inner, at) = (&self.inner, self.first.outer.len());
        let (headers_bytes, inner_len) = (at + inner.payload, inner.payload + self.bytes);
        let (outer, rest) = head[..headers_bytes].split_at_mut(at);
        outer.copy_from_slice(self.first.outer);
        rest.copy_from_slice(&self.first.payload[..inner.payload]);
        self.first.headers.write_datagram(outer, at + inner_len, self.first.number());
        inner.write_len(rest, inner_len);
        inner.write_id(rest, 0);
        let tcp = &mut rest[inner.transport..];
        tcp[tcp::field::FLAGS] |= self.ending.0;
        let pseudo = inner.pseudo(inner_len - inner.transport).fold();
        tcp[tcp::field::CHECKSUM].copy_from_slice(&pseudo.to_be_bytes());
        (headers_bytes, self.offload(headers_bytes))
    }

    fn offload(&self, headers_bytes: usize) -> Offload {
        let at = self.first.outer.len();
        let start = (at + self.inner.transport) as u16;
        let kind = if self.inner.is_v4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
        let gso = Gso { kind, size: self.size as u16, ecn: false, headers_bytes: headers_bytes as u16 };
        Offload {
            checksum: Checksum::Partial { start, offset: self.inner.checksum_offset() as u16 },
            gso: Some(gso),
            outer_bytes: (at + self.geneve) as u16,
        }
    }
}

/// Where the lengths, identifications and checksums of an IP header lie, in order.
fn varying(headers: &Headers) -> [Range<usize>; 2] {
    let at = |field: Range<usize>| headers.ip + field.start..headers.ip + field.end;
    match headers.family {
        Family::V4 { .. } => {
            [at(ipv4::field::TOTAL_LEN.start..ipv4::field::ID.end), at(ipv4::field::CHECKSUM)]
        }
        Family::V6 => {
            [at(ipv6::field::PAYLOAD_LEN), at(ipv6::field::PAYLOAD_LEN.end..ipv6::field::PAYLOAD_LEN.end)]
        }
    }
}

/// True if `a` and `b` are the same but for `fields`, which are in order.
fn same_but(fields: &[Range<usize>], a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    let is_same = |from: usize, to: usize| a[from..to] == b[from..to];
    a.len() == b.len()
        && fields.iter().all(|field| is_same(std::mem::replace(&mut at, field.end), field.start))
        && is_same(at, a.len())
}

fn sequence(tcp: &[u8]) -> u32 {
    let [a, b, c, d] = [0, 1, 2, 3].map(|byte| tcp[tcp::field::SEQUENCE.start + byte]);
    u32::from_be_bytes([a, b, c, d])
}

/// True if the checksum of an IPv4 header is right.
fn is_summed(headers: &Headers, payload: &[u8]) -> bool {
    !headers.is_v4() || checksum::checksum(&payload[headers.ip..headers.transport]) == 0
}

/// True if the checksum of TCP is right.
fn is_right(headers: &Headers, payload: &[u8]) -> bool {
    let segment = &payload[headers.transport..];
    headers.pseudo(segment.len()).add_bytes(segment).checksum() == 0
}
