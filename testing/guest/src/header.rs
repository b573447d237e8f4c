//! What does the guest say about a frame? The raw fields of `virtio_net_hdr` (virtio 1.2 §5.1.6), so that a test can also
//! say what is not true.

/// The header in front of each frame, field by field, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetHeader {
    /// [`NetHeader::NEEDS_CSUM`], [`NetHeader::DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` constants, perhaps with [`NetHeader::GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all protocol headers.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// First byte to sum.
    pub csum_start: u16,
    /// Where the checksum lies, counted from `csum_start`.
    pub csum_offset: u16,
    /// Buffers that a received frame spans.
    pub num_buffers: u16,
}

impl NetHeader {
    /// The checksum is partial.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum has been verified.
    pub const DATA_VALID: u8 = 2;
    /// Not a large frame.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// UDP to be fragmented.
    pub const GSO_UDP: u8 = 3;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP to be segmented.
    pub const GSO_UDP_L4: u8 = 5;
    /// TCP with ECN.
    pub const GSO_ECN: u8 = 0x80;
    /// The longest encoding.
    pub const MAX_BYTES: usize = 12;

    /// A large TCP frame whose checksum is partial. `tcp_offset` is where the TCP header starts, `mss` the payload of
    /// each segment.
    pub fn tcp_segments(gso_type: u8, tcp_offset: u16, mss: u16) -> Self {
        Self {
            flags: Self::NEEDS_CSUM,
            gso_type,
            hdr_len: tcp_offset + 20,
            gso_size: mss,
            csum_start: tcp_offset,
            csum_offset: 16,
            num_buffers: 0,
        }
    }

    /// The bytes on the ring; the first 10 are the legacy header.
    pub fn encode(&self) -> [u8; Self::MAX_BYTES] {
        let mut bytes = [0; Self::MAX_BYTES];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset, self.num_buffers];
        for (at, field) in bytes[2..].chunks_exact_mut(2).zip(fields) {
            at.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads a header; a legacy one (10 bytes) has one buffer.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        Some(Self {
            flags: *bytes.first()?,
            gso_type: *bytes.get(1)?,
            hdr_len: field(2)?,
            gso_size: field(4)?,
            csum_start: field(6)?,
            csum_offset: field(8)?,
            num_buffers: field(10).unwrap_or(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_when_encoded_decodes_to_itself() {
        let header = NetHeader {
            num_buffers: 3,
            ..NetHeader::tcp_segments(NetHeader::GSO_TCPV4 | NetHeader::GSO_ECN, 34, 1448)
        };
        assert_eq!(NetHeader::decode(&header.encode()), Some(header));
    }

    #[test]
    fn header_when_legacy_has_one_buffer() {
        assert_eq!(NetHeader::decode(&[0; 10]).map(|header| header.num_buffers), Some(1));
        assert_eq!(NetHeader::decode(&[0; 9]), None);
    }
}
