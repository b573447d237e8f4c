//! What does a port do with work on a frame that its device cannot take?
//!
//! A frame may reach a port with its transport checksum unfinished, or stand for several frames (GSO). A device that
//! negotiated the matching offload gets it as it is; for any other, [`soften`] does the work here: it folds checksums
//! and cuts large frames into pieces that borrow the payload, so that only headers are written twice.
//!
//! A frame may be in a tunnel ([`Offload::outer_bytes`]): the work is on the frame inside, and each piece leaves behind outer
//! headers of its own. No device here cuts such frames; one that finishes their checksums does so for a frame that
//! needs not be cut, for whoever put the tunnel in front of it wrote the outer checksum as it will be then.
//!
//! Everything a source claims about a frame is checked against the frame's private head before the first piece leaves:
//! a claim that does not hold is [`DropReason::BadOffload`].
pub(crate) mod gro;
mod headers;
mod segment;
mod sum;
#[cfg(test)]
mod tests;
mod tunnel;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;

use frame::{Checksum, DropReason, Gather, GsoKind, HEAD_BYTES, HEADROOM_BYTES, Offload};

use segment::{Cutter, MAX_PIECES};
pub(crate) use tunnel::Tunnel;

/// The work that a device takes over from the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Finishes a transport checksum, or does not need one (GUEST_CSUM). Without it no large frame is taken.
    pub checksum: bool,
    /// Finishes the checksum of a frame in a tunnel too: it goes by where the field is, not by the headers that come first.
    pub tunnel_checksum: bool,
    /// Takes large TCP frames over IPv4 (GUEST_TSO4).
    pub tso4: bool,
    /// Takes large TCP frames over IPv6 (GUEST_TSO6).
    pub tso6: bool,
    /// Takes large TCP frames with CWR set (GUEST_ECN).
    pub ecn: bool,
    /// Takes large UDP datagrams that are to be fragmented (GUEST_UFO).
    pub ufo: bool,
    /// Takes large frames of equal UDP datagrams, over both IPv4 and IPv6 (GUEST_USO4 and GUEST_USO6).
    pub uso: bool,
}

impl Capabilities {
    /// A device that takes only finished frames.
    pub const NONE: Capabilities = Capabilities {
        checksum: false,
        tunnel_checksum: false,
        tso4: false,
        tso6: false,
        ecn: false,
        ufo: false,
        uso: false,
    };

    /// A device that takes everything.
    pub const ALL: Capabilities = Capabilities {
        checksum: true,
        tunnel_checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
        ufo: true,
        uso: true,
    };

    /// True if a checksum that is left partial in such a frame is finished.
    fn finishes(&self, offload: &Offload) -> bool {
        self.checksum && (self.tunnel_checksum || offload.outer_bytes == 0)
    }

    /// True if a large frame of this kind can be passed on whole.
    fn takes(&self, kind: GsoKind, ecn: bool) -> bool {
        let kind_is_taken = match kind {
            GsoKind::TcpV4 => self.tso4,
            GsoKind::TcpV6 => self.tso6,
            GsoKind::UdpFragment => self.ufo,
            GsoKind::UdpSegment => self.uso,
        };
        self.checksum && kind_is_taken && (self.ecn || !ecn)
    }
}

/// Room for the headers of one piece. Made once per queue, reused for every frame.
#[derive(Debug, Clone)]
pub struct Scratch {
    head: [u8; MAX_HEAD_BYTES],
    fragment_id: u32,
}

/// The longest head: a full one, and the IPv6 fragment header that cutting may add.
pub(crate) const MAX_HEAD_BYTES: usize = HEADROOM_BYTES + HEAD_BYTES + wire::ipv6::FRAGMENT_HEADER_BYTES;

impl Default for Scratch {
    fn default() -> Self {
        // Fragment identifications start where nobody can guess (RFC 7739 §5.3).
        let fragment_id = RandomState::new().build_hasher().finish() as u32;
        Self { head: [0; MAX_HEAD_BYTES], fragment_id }
    }
}

impl Scratch {
    fn next_fragment_id(&mut self) -> u32 {
        self.fragment_id = self.fragment_id.wrapping_add(1);
        self.fragment_id
    }
}

/// True if a device with `capabilities` cannot take a frame that leaves `offload` to it: [`soften`] it first.
#[inline]
pub fn needs_software(offload: &Offload, capabilities: &Capabilities) -> bool {
    match (offload.gso, offload.checksum) {
        (None, Checksum::Complete | Checksum::Valid) => false,
        (None, Checksum::Partial { .. }) => !capabilities.finishes(offload),
        (Some(gso), _) => offload.outer_bytes > 0 || !capabilities.takes(gso.kind, gso.ecn),
    }
}

/// Does in software what a device with `capabilities` cannot take, and hands each resulting frame to `emit` in order,
/// with what it still leaves to the device (a piece's checksum stays partial where the device finishes those). A frame
/// that needs nothing is handed on as it is. Payload is borrowed from `frame`, never copied.
///
/// Stops early when `emit` breaks, and then returns [`ControlFlow::Break`].
///
/// # Errors
/// [`DropReason::BadOffload`] if `offload` contradicts the frame's headers or asks for an absurd number of pieces;
/// [`DropReason::TooBig`] for pieces that do not fit into their tunnel. All checks come before the first call of `emit`.
pub fn soften(
    frame: &Gather<'_>,
    offload: Offload,
    capabilities: &Capabilities,
    scratch: &mut Scratch,
    emit: &mut dyn FnMut(Gather<'_>, Offload) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, DropReason> {
    if !needs_software(&offload, capabilities) {
        return Ok(emit(*frame, offload));
    }
    match (offload.gso, offload.checksum) {
        (Some(gso), _) => Cutter::new(frame, gso, offload, capabilities)?.cut(scratch, emit),
        (None, Checksum::Partial { start, .. }) if start < offload.outer_bytes => Err(DropReason::BadOffload),
        (None, Checksum::Partial { start, offset }) => {
            let head = sum::finish(frame, start, offset, scratch).ok_or(DropReason::BadOffload)?;
            Ok(emit(frame.with_head(head), Offload::NONE))
        }
        (None, _) => Ok(emit(*frame, offload)),
    }
}
