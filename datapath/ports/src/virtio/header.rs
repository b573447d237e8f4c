//! What does the virtio-net header say, and can it be true? `struct virtio_net_hdr_mrg_rxbuf` (virtio 1.2 §5.1.6) to
//! and from [`Offload`]. TAP devices with IFF_VNET_HDR speak the same header.
//!
//! **Invariant:** what [`decode`] accepts lies inside the frame, so that nobody later has to ask the source again.

use frame::{Checksum, DropReason, Gso, GsoKind, Offload};

/// Bytes of the header with `num_buffers`.
pub const HEADER_BYTES: usize = 12;
/// Bytes of the header of a legacy device without mergeable buffers.
pub const LEGACY_HEADER_BYTES: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_UDP: u8 = 3;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// No checksum that a source may leave to others starts inside the Ethernet header.
const ETHERNET_HEADER_BYTES: u16 = 14;

/// Who wrote a header: what it says about verification is believed of the kernel only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A guest. VIRTIO_NET_HDR_F_DATA_VALID is not a driver's to set (§5.1.6.2) and is ignored.
    Guest,
    /// The kernel behind a TAP device.
    Kernel,
}

/// True if a guest's header leaves nothing to do, whatever its other fields say.
#[inline]
pub(crate) fn is_plain(flags: u8, gso_type: u8) -> bool {
    flags & F_NEEDS_CSUM == 0 && gso_type == GSO_NONE
}

/// Reads the header of a frame of `frame_len` bytes. Only the first ten bytes have a meaning in this direction.
///
/// # Errors
/// [`DropReason::BadOffload`] if the header contradicts the frame or itself.
#[inline]
pub fn decode(header: &[u8; HEADER_BYTES], frame_len: usize, source: Source) -> Result<Offload, DropReason> {
    // Nearly all frames leave nothing to do.
    if is_plain(header[0], header[1]) {
        let valid = header[0] & F_DATA_VALID != 0 && source == Source::Kernel;
        let checksum = if valid { Checksum::Valid } else { Checksum::Complete };
        return Ok(Offload { checksum, ..Offload::NONE });
    }
    decode_work(header, frame_len, source)
}

fn decode_work(header: &[u8; HEADER_BYTES], frame_len: usize, source: Source) -> Result<Offload, DropReason> {
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (flags, gso_type, headers_bytes, size, start, offset) =
        (header[0], header[1], half(2), half(4), half(6), half(8));
    let checksum = if flags & F_NEEDS_CSUM != 0 {
        let end = usize::from(start) + usize::from(offset) + 2;
        if start < ETHERNET_HEADER_BYTES || end > frame_len {
            return Err(DropReason::BadOffload);
        }
        Checksum::Partial { start, offset }
    } else if flags & F_DATA_VALID != 0 && source == Source::Kernel {
        Checksum::Valid
    } else {
        Checksum::Complete
    };
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE => return Ok(Offload { checksum, ..Offload::NONE }),
        GSO_TCPV4 => GsoKind::TcpV4,
        GSO_TCPV6 => GsoKind::TcpV6,
        GSO_UDP => GsoKind::UdpFragment,
        GSO_UDP_L4 => GsoKind::UdpSegment,
        _ => return Err(DropReason::BadOffload),
    };
    let ecn = gso_type & GSO_ECN != 0;
    let tcp = matches!(kind, GsoKind::TcpV4 | GsoKind::TcpV6);
    // A source that leaves segmentation to others leaves them the checksums too (§5.1.6.2).
    if size == 0 || checksum == Checksum::Complete || (ecn && !tcp) || usize::from(headers_bytes) > frame_len
    {
        return Err(DropReason::BadOffload);
    }
    Ok(Offload { checksum, gso: Some(Gso { kind, size, ecn, headers_bytes }), ..Offload::NONE })
}

/// The header that leaves nothing to do: `num_buffers` is 1.
pub(crate) const PLAIN: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Writes the header that hands `offload` on, with `num_buffers` 1. [`Checksum::Valid`] becomes
/// VIRTIO_NET_HDR_F_DATA_VALID.
pub fn encode(offload: &Offload) -> [u8; HEADER_BYTES] {
    let mut header = PLAIN;
    match offload.checksum {
        Checksum::Complete => {}
        Checksum::Valid => header[0] = F_DATA_VALID,
        Checksum::Partial { start, offset } => {
            header[0] = F_NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_le_bytes());
            header[8..10].copy_from_slice(&offset.to_le_bytes());
        }
    }
    if let Some(gso) = &offload.gso {
        let kind = match gso.kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::UdpFragment => GSO_UDP,
            GsoKind::UdpSegment => GSO_UDP_L4,
        };
        header[1] = kind | if gso.ecn { GSO_ECN } else { 0 };
        header[2..4].copy_from_slice(&gso.headers_bytes.to_le_bytes());
        header[4..6].copy_from_slice(&gso.size.to_le_bytes());
    }
    header
}
