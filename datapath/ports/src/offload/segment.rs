//! How is a large frame cut? Every piece gets a copy of the headers, corrected, and borrows its part of the payload.
//!
//! A piece carries the frame's headers with its own lengths, IPv4 identification, sequence number, flags and checksums, as
//! the kernel's GSO would write them (Linux net/ipv4/tcp_offload.c, udp_offload.c), so that a receiver sees what the
//! source would have sent without offloads.

use std::ops::{ControlFlow, Range};

use frame::{Checksum, DropReason, Gather, Gso, GsoKind, Offload};
use wire::checksum::Sum;
use wire::tcp::Flags;
use wire::{IpProtocol, ipv4, ipv6, tcp, udp};

use super::headers::Headers;
use super::tunnel::{Known, Tunnel};
use super::{Capabilities, Scratch, sum};

/// Pieces that one frame may become: a 64 KB frame with the smallest segments that Linux's TCP makes (TCP_MIN_SND_MSS
/// 48). A source that asks for more wants the switch's time, not its service.
pub(super) const MAX_PIECES: usize = 2048;

type Emit<'e> = dyn FnMut(Gather<'_>, Offload) -> ControlFlow<()> + 'e;

/// A large frame whose source's claims have been checked.
pub(super) struct Cutter<'a> {
    frame: &'a Gather<'a>,
    gso: Gso,
    offload: Offload,
    headers: Headers,
    /// What the frame is behind, if it is in a tunnel.
    tunnel: Option<Tunnel>,
    /// The device finishes partial checksums.
    finishes_checksums: bool,
}

/// One piece of a payload.
struct Piece {
    /// 0 for the first.
    number: usize,
    /// Where it lies in the frame.
    range: Range<usize>,
    is_last: bool,
}

/// The pieces of at most `size` bytes that `payload`, a range of the frame, is cut into; at least one.
fn pieces(payload: Range<usize>, size: usize) -> Result<impl Iterator<Item = Piece>, DropReason> {
    let count = if size == 0 { usize::MAX } else { payload.len().div_ceil(size).max(1) };
    if count > MAX_PIECES {
        return Err(DropReason::BadOffload);
    }
    Ok((0..count).map(move |number| {
        let start = payload.start + number * size;
        Piece { number, range: start..(start + size).min(payload.end), is_last: number + 1 == count }
    }))
}

impl<'a> Cutter<'a> {
    /// Checks what `offload`, whose `gso` it is, claims about `frame`.
    pub(super) fn new(
        frame: &'a Gather<'a>,
        gso: Gso,
        offload: Offload,
        capabilities: &Capabilities,
    ) -> Result<Self, DropReason> {
        let headers = Headers::parse(frame, gso, &offload).ok_or(DropReason::BadOffload)?;
        let tunnel = match usize::from(offload.outer_bytes) {
            0 => None,
            outer => Some(Tunnel::parse(frame.head(), outer).ok_or(DropReason::BadOffload)?),
        };
        let longest = headers.payload + (headers.end - headers.payload).min(usize::from(gso.size));
        if tunnel.as_ref().is_some_and(|tunnel| !tunnel.holds(longest + ipv6::FRAGMENT_HEADER_BYTES)) {
            return Err(DropReason::TooBig);
        }
        let finishes_checksums = capabilities.finishes(&offload);
        Ok(Self { frame, gso, offload, headers, tunnel, finishes_checksums })
    }

    /// Cuts the frame and gives the pieces to `emit`.
    pub(super) fn cut(
        &self,
        scratch: &mut Scratch,
        emit: &mut Emit<'_>,
    ) -> Result<ControlFlow<()>, DropReason> {
        match self.gso.kind {
            GsoKind::TcpV4 | GsoKind::TcpV6 | GsoKind::UdpSegment => self.segments(scratch, emit),
            GsoKind::UdpFragment => self.fragments(scratch, emit),
        }
    }

    /// Segments of TCP (RFC 9293) or datagrams of UDP, each complete with its own transport header.
    fn segments(&self, scratch: &mut Scratch, emit: &mut Emit<'_>) -> Result<ControlFlow<()>, DropReason> {
        let headers = &self.headers;
        let all = pieces(headers.payload..headers.end, usize::from(self.gso.size))?;
        scratch.head[..headers.payload].copy_from_slice(&self.frame.head()[..headers.payload]);
        for piece in all {
            let payload = self.frame.split(piece.range.start, piece.range.len());
            let head_len = headers.payload + payload.head().len();
            let head = &mut scratch.head[..head_len];
            head[headers.payload..].copy_from_slice(payload.head());
            headers.write_len(head, headers.payload + piece.range.len());
            headers.write_id(head, piece.number);
            match headers.protocol {
                IpProtocol::TCP => self.write_tcp(head, &piece),
                _ => self.write_udp_len(head, piece.range.len()),
            }
            let pseudo = headers.pseudo(head.len() - headers.transport + payload.body_len());
            let (left, known) = self.write_checksum(head, &payload, pseudo);
            if let Some(tunnel) = &self.tunnel {
                tunnel.write(head, &payload, piece.number, &known);
            }
            if emit(payload.with_head(head), left).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Fragments of one UDP datagram, whose checksum covers all of them (RFC 791 §3.2, RFC 8200 §4.5).
    fn fragments(&self, scratch: &mut Scratch, emit: &mut Emit<'_>) -> Result<ControlFlow<()>, DropReason> {
        let headers = &self.headers;
        let adds_header = !headers.is_v4();
        // Nobody sends these behind extension headers, some of which would have to stay in front of the new one.
        if adds_header && headers.transport != headers.ip + ipv6::HEADER_BYTES {
            return Err(DropReason::BadOffload);
        }
        let all = pieces(headers.transport..headers.end, usize::from(self.gso.size & !7))?;
        let udp_checksum = self.datagram_checksum();
        let fragment_id = scratch.next_fragment_id();
        scratch.head[..headers.transport].copy_from_slice(&self.frame.head()[..headers.transport]);
        for piece in all {
            let payload = self.frame.split(piece.range.start, piece.range.len());
            let payload_at = headers.transport + if adds_header { ipv6::FRAGMENT_HEADER_BYTES } else { 0 };
            let head = &mut scratch.head[..payload_at + payload.head().len()];
            head[payload_at..].copy_from_slice(payload.head());
            if piece.number == 0 {
                // The first fragment holds the UDP header; it is at least 8 bytes long, all in the head.
                head[payload_at..][udp::field::CHECKSUM].copy_from_slice(&udp_checksum);
            }
            let offset = (piece.range.start - headers.transport) as u16;
            headers.write_len(head, payload_at + piece.range.len());
            if adds_header {
                head[headers.ip + ipv6::field::NEXT_HEADER] = IpProtocol::FRAGMENT.0;
                ipv6::Fragment { offset, more: !piece.is_last, id: fragment_id }
                    .emit(headers.protocol, &mut head[headers.transport..]);
            } else {
                let more = if piece.is_last { 0 } else { ipv4::MORE_FRAGMENTS };
                let header = &mut head[headers.ip..headers.transport];
                header[ipv4::field::FRAGMENT].copy_from_slice(&((offset / 8) | more).to_be_bytes());
                ipv4::fill_checksum(header);
            }
            if let Some(tunnel) = &self.tunnel {
                tunnel.write(head, &payload, piece.number, &Known::Nothing);
            }
            if emit(payload.with_head(head), Offload::NONE).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// FIN and PSH belong to the last piece, CWR to the first (RFC 3168 §6.1.2).
    fn write_tcp(&self, head: &mut [u8], piece: &Piece) {
        let original = &self.frame.head()[self.headers.transport..];
        let [a, b, c, d] = [4, 5, 6, 7].map(|at| original[at]);
        let skipped = (piece.range.start - self.headers.payload) as u32;
        let sequence = u32::from_be_bytes([a, b, c, d]).wrapping_add(skipped);
        let mut flags = Flags(original[tcp::field::FLAGS]);
        if !piece.is_last {
            flags = flags.without(Flags::FIN.with(Flags::PSH));
        }
        if piece.number > 0 {
            flags = flags.without(Flags::CWR);
        }
        let header = &mut head[self.headers.transport..];
        header[tcp::field::SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
        header[tcp::field::FLAGS] = flags.0;
    }

    fn write_udp_len(&self, head: &mut [u8], payload_len: usize) {
        let len = (udp::HEADER_BYTES + payload_len) as u16;
        head[self.headers.transport..][udp::field::LEN].copy_from_slice(&len.to_be_bytes());
    }

    /// Writes the transport checksum of a segment whose head is `head` and whose pseudo header's sum is `pseudo`, or the
    /// part of it that a device that finishes checksums wants. Returns what is left to do, and what is known then.
    fn write_checksum(&self, head: &mut [u8], payload: &Gather<'_>, pseudo: Sum) -> (Offload, Known) {
        if self.is_unsummed() {
            return (Offload::NONE, Known::Nothing);
        }
        let transport = self.headers.transport;
        let known = Known::Summed { transport, pseudo };
        let field = transport + self.headers.checksum_offset();
        if self.finishes_checksums {
            head[field..field + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
            let offset = self.headers.checksum_offset() as u16;
            let checksum = Checksum::Partial { start: transport as u16, offset };
            return (Offload { checksum, gso: None, ..self.offload }, known);
        }
        head[field..field + 2].fill(0);
        let sum = sum::add_body(pseudo.add_bytes(&head[transport..]), payload);
        head[field..field + 2].copy_from_slice(&self.complement(sum).to_be_bytes());
        (Offload::NONE, known)
    }

    /// The checksum of a whole UDP datagram that is to be fragmented: finished if it was left partial, else as it is.
    fn datagram_checksum(&self) -> [u8; 2] {
        let Headers { transport, end, .. } = self.headers;
        let datagram = self.frame.split(transport, end - transport);
        let (before, field) = datagram.head().split_at(udp::field::CHECKSUM.start);
        let (field, behind) = field.split_at(udp::field::CHECKSUM.len());
        if !matches!(self.offload.checksum, Checksum::Partial { .. }) {
            return [field[0], field[1]];
        }
        let sum = self.headers.pseudo(end - transport).add_bytes(before).add_bytes(behind);
        sum::add_body(sum, &datagram).checksum_nonzero().to_be_bytes()
    }

    fn complement(&self, sum: Sum) -> u16 {
        if self.headers.protocol == IpProtocol::UDP { sum.checksum_nonzero() } else { sum.checksum() }
    }

    /// UDP over IPv4 may go without a checksum; its source says so with a field of 0 that nobody is asked to finish.
    fn is_unsummed(&self) -> bool {
        let field = self.headers.transport + self.headers.checksum_offset();
        self.headers.protocol == IpProtocol::UDP
            && self.headers.is_v4()
            && !matches!(self.offload.checksum, Checksum::Partial { .. })
            && self.frame.head()[field..field + 2] == [0, 0]
    }
}
