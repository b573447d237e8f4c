//! What in the headers of a tunnel changes with the piece of a frame behind them? The lengths, the IPv4 identification, and
//! the checksum of UDP.
//!
//! The pieces of one frame may also leave as one *train* again: datagrams of UDP of equal length behind one set of outer headers,
//! which a device that knows no tunnel parts as it parts any (USO); only the last may be shorter.
//!
//! That checksum covers the payload and is cheap all the same: bytes that have a right checksum of their own add up, with
//! their pseudo header, to zero, so that the headers tell the sum of what lies behind them ("local checksum offload", Linux
//! Documentation/networking/checksum-offloads.rst). It holds too for a checksum that a device is still to finish.

use frame::{Gather, Gso, GsoKind, Offload};
use wire::checksum::Sum;
use wire::udp;

use super::headers::Headers;
use super::sum;

/// The tunnel in front of a frame that is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tunnel {
    outer: Headers,
    /// The source wants a checksum: the field of UDP is not 0 (RFC 768).
    is_summed: bool,
}

/// What the headers of a piece tell about the sum of its bytes.
pub(super) enum Known {
    /// From the inner transport header, at `transport`, on, they have a checksum, which `pseudo` belongs to.
    Summed { transport: usize, pseudo: Sum },
    /// Nothing: a datagram without a checksum, or a fragment.
    Nothing,
}

impl Tunnel {
    /// The tunnel that the first `outer_bytes` of `head` are the headers of, if they are.
    pub(crate) fn parse(head: &[u8], outer_bytes: usize) -> Option<Self> {
        let outer = Headers::parse_outer(head, outer_bytes)?;
        let is_summed = head[outer.transport..][udp::field::CHECKSUM] != [0, 0];
        Some(Self { outer, is_summed })
    }

    /// True if the outer lengths can be those of a piece, or of a train, of `piece_len` bytes.
    pub(crate) fn holds(&self, piece_len: usize) -> bool {
        piece_len - self.outer.ip <= usize::from(u16::MAX)
    }

    /// Writes the outer headers of piece `number`, whose bytes, all others complete, are `head` and the body of `payload`.
    pub(super) fn write(&self, head: &mut [u8], payload: &Gather<'_>, number: usize, known: &Known) {
        let piece_len = head.len() + payload.body_len();
        let udp = self.outer.transport;
        self.outer.write_datagram(head, piece_len, number);
        if !self.is_summed {
            return;
        }
        head[udp..][udp::field::CHECKSUM].fill(0);
        let pseudo = self.outer.pseudo(piece_len - udp);
        let sum = match known {
            Known::Summed { transport, pseudo: inner } => {
                pseudo.add_bytes(&head[udp..*transport]).add_word(!inner.fold())
            }
            Known::Nothing => sum::add_body(pseudo.add_bytes(&head[udp..]), payload),
        };
        head[udp..][udp::field::CHECKSUM].copy_from_slice(&sum.checksum_nonzero().to_be_bytes());
    }

    /// True if pieces may leave as a train: whoever parts it gives each datagram a checksum.
    pub(crate) fn may_lead_train(&self) -> bool {
        self.is_summed
    }

    /// Bytes of the headers that a train has once: those up to UDP's, and nothing behind it.
    pub(crate) fn train_headers_bytes(&self) -> usize {
        self.outer.payload
    }

    /// Makes `head`, which begins with the outer headers of a piece, the head of a train of `train_len` bytes, all of whose
    /// datagrams but the last carry `size` bytes. Returns what is left to do.
    pub(crate) fn lead_train(&self, head: &mut [u8], train_len: usize, size: u16) -> Offload {
        self.outer.write_datagram(head, train_len, 0);
        let checksum = self.outer.leave_checksum(head, train_len);
        let headers_bytes = self.train_headers_bytes() as u16;
        let gso = Gso { kind: GsoKind::UdpSegment, size, ecn: false, headers_bytes };
        Offload { checksum, gso: Some(gso), outer_bytes: 0 }
    }
}
