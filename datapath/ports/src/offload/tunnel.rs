//! What in the headers of a tunnel changes with the piece of a frame behind them? The lengths, the IPv4 identification, and
//! the checksum of UDP.
//!
//! That checksum covers the payload and is cheap all the same: bytes that have a right checksum of their own add up, with
//! their pseudo header, to zero, so that the headers tell the sum of what lies behind them ("local checksum offload", Linux
//! Documentation/networking/checksum-offloads.rst). It holds too for a checksum that a device is still to finish.

use frame::Gather;
use wire::checksum::Sum;
use wire::udp;

use super::headers::Headers;
use super::sum;

/// The tunnel in front of a frame that is cut.
pub(super) struct Tunnel {
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
    pub(super) fn parse(head: &[u8], outer_bytes: usize) -> Option<Self> {
        let outer = Headers::parse_outer(head, outer_bytes)?;
        let is_summed = head[outer.transport..][udp::field::CHECKSUM] != [0, 0];
        Some(Self { outer, is_summed })
    }

    /// True if the outer lengths can be those of a piece of `piece_len` bytes.
    pub(super) fn holds(&self, piece_len: usize) -> bool {
        piece_len - self.outer.ip <= usize::from(u16::MAX)
    }

    /// Writes the outer headers of piece `number`, whose bytes, all others complete, are `head` and the body of `payload`.
    pub(super) fn write(&self, head: &mut [u8], payload: &Gather<'_>, number: usize, known: &Known) {
        let piece_len = head.len() + payload.body_len();
        let udp = self.outer.transport;
        self.outer.write_len(head, piece_len);
        self.outer.write_id(head, number);
        head[udp..][udp::field::LEN].copy_from_slice(&((piece_len - udp) as u16).to_be_bytes());
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
}
