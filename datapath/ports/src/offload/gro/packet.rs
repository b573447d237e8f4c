//! Which packets of a tunnel is a frame? One, or a train of several behind one set of outer headers (`offload::Tunnel`), as
//! whoever sends, or the kernel that receives, may make of them.

use frame::{DropReason, GsoKind, HEAD_BYTES, Offload};
use wire::{EtherType, IpProtocol, geneve, udp};

use crate::offload::MAX_PIECES;
use crate::offload::headers::Headers;

/// A packet of a tunnel, as it lies in its port's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'m> {
    /// The outer headers, UDP's the last. Their lengths are the train's if there is one.
    pub(super) outer: &'m [u8],
    pub(super) headers: Headers,
    /// From Geneve on.
    pub(super) payload: &'m [u8],
    pub(super) origin: Origin<'m>,
}

/// What a packet came in as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'m> {
    /// A frame, with what was left to do on it.
    Alone(&'m [u8], Offload),
    /// The part of a train with this number.
    Train(usize),
}

/// The packets that `frame` is, on which `offload` is left to do; `None` if it is in no tunnel.
///
/// # Errors
/// [`DropReason::BadOffload`] for a train of an absurd number of packets.
pub(super) fn packets<'m>(
    frame: &'m [u8],
    offload: Offload,
) -> Result<Option<impl Iterator<Item = Packet<'m>>>, DropReason> {
    let Some(headers) = outer(frame) else { return Ok(None) };
    let (outer, payload) = frame[..headers.end].split_at(headers.payload);
    let size = match offload.gso {
        None => payload.len(),
        Some(gso) if gso.kind == GsoKind::UdpSegment => gso.size.into(),
        Some(_) => return Ok(None),
    };
    if size == 0 || payload.len().div_ceil(size) > MAX_PIECES {
        return Err(DropReason::BadOffload);
    }
    Ok(Some(payload.chunks(size).enumerate().map(move |(number, payload)| {
        let origin = match offload.gso {
            None => Origin::Alone(frame, offload),
            Some(_) => Origin::Train(number),
        };
        Packet { outer, headers, payload, origin }
    })))
}

/// The outer headers of a frame in a tunnel, if they are what a switch of ours looks for: untagged, whole, with lengths that
/// are true, and short enough to be in a frame's head.
fn outer(frame: &[u8]) -> Option<Headers> {
    let ether_type = EtherType(u16::from_be_bytes(*frame.get(12..)?.first_chunk()?));
    if !matches!(ether_type, EtherType::IPV4 | EtherType::IPV6) {
        return None;
    }
    let headers = Headers::parse_at(frame, 0)?;
    let is_udp = headers.protocol == IpProtocol::UDP;
    let fits = headers.payload <= HEAD_BYTES && headers.payload < headers.end && headers.end <= frame.len();
    if !is_udp || !fits {
        return None;
    }
    let udp = udp::View::new(&frame[headers.transport..]).ok()?;
    let is_true = usize::from(udp.len()) == headers.end - headers.transport;
    (udp.destination_port() == geneve::PORT && is_true).then_some(headers)
}

impl Packet<'_> {
    /// Which packet of its train it is.
    pub(super) fn number(&self) -> usize {
        match self.origin {
            Origin::Alone(..) => 0,
            Origin::Train(number) => number,
        }
    }

    /// Writes to `head` the outer headers that a packet of a train has by itself, and returns what is left to do on it.
    pub(super) fn write_outer(&self, head: &mut [u8]) -> Offload {
        head.copy_from_slice(self.outer);
        let len = self.outer.len() + self.payload.len();
        self.headers.write_datagram(head, len, self.number());
        if head[self.headers.transport..][udp::field::CHECKSUM] == [0, 0] {
            return Offload::NONE;
        }
        Offload { checksum: self.headers.leave_checksum(head, len), ..Offload::NONE }
    }
}
