//! What work on a frame was left to the next hop? The meaning of the virtio-net header (virtio 1.2 §5.1.6), as types.

/// Who has verified, or still has to fill in, the transport checksum. Offsets count from the frame's first byte
/// *without* a VLAN tag that a port strips or adds: whoever shifts the frame shifts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Complete in the frame, not verified by anybody here (VIRTIO_NET_HDR flags 0).
    #[default]
    Complete,
    /// Complete and verified by the source (VIRTIO_NET_HDR_F_DATA_VALID).
    Valid,
    /// Only the pseudo header's sum is in the field at `start + offset`; the sum of everything from `start` on must
    /// still be folded into it (VIRTIO_NET_HDR_F_NEEDS_CSUM).
    Partial {
        /// First byte to sum.
        start: u16,
        /// Where the checksum field lies, counted from `start`.
        offset: u16,
    },
}

/// What a large frame is to be cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4 (VIRTIO_NET_HDR_GSO_TCPV4).
    TcpV4,
    /// TCP over IPv6 (VIRTIO_NET_HDR_GSO_TCPV6).
    TcpV6,
    /// One UDP datagram as IP fragments, "UFO" (VIRTIO_NET_HDR_GSO_UDP).
    UdpFragment,
    /// UDP datagrams of equal size, "USO" (VIRTIO_NET_HDR_GSO_UDP_L4).
    UdpSegment,
}

/// A frame that stands for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// What the pieces are.
    pub kind: GsoKind,
    /// Payload bytes of each piece but the last.
    pub size: u16,
    /// CWR must be set on the first piece only (VIRTIO_NET_HDR_GSO_ECN).
    pub ecn: bool,
    /// Bytes of all headers before the payload, as the source claims; a hint that is checked, never trusted.
    pub headers_bytes: u16,
}

/// The work on a frame that its source left to others. It travels with the frame and is done in software only at a
/// port that cannot pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Set for a frame that is to be segmented.
    pub gso: Option<Gso>,
    /// Bytes of the headers of a tunnel in front of the frame that all this is about; 0 if it is in none. Offsets count
    /// from the tunnel's first byte.
    pub outer_bytes: u16,
}

impl Offload {
    /// Nothing was left to do.
    pub const NONE: Offload = Offload { checksum: Checksum::Complete, gso: None, outer_bytes: 0 };

    /// True if any port can send the frame as it is.
    pub fn is_none(&self) -> bool {
        self.gso.is_none() && !matches!(self.checksum, Checksum::Partial { .. })
    }
}
