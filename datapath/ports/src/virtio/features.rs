//! Which virtio-net feature bits does the device side know? (virtio 1.2 §5.1.3, §6)

/// The feature bits that driver and device agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u64);

impl Features {
    /// The device takes frames with a partial checksum.
    pub const CSUM: Features = Features(1 << 0);
    /// The driver takes frames with a partial checksum.
    pub const GUEST_CSUM: Features = Features(1 << 1);
    /// The driver takes large TCP segments over IPv4.
    pub const GUEST_TSO4: Features = Features(1 << 7);
    /// The driver takes large TCP segments over IPv6.
    pub const GUEST_TSO6: Features = Features(1 << 8);
    /// The driver takes large TCP segments with ECN.
    pub const GUEST_ECN: Features = Features(1 << 9);
    /// The driver takes large UDP datagrams, to be fragmented.
    pub const GUEST_UFO: Features = Features(1 << 10);
    /// The device takes large TCP segments over IPv4.
    pub const HOST_TSO4: Features = Features(1 << 11);
    /// The device takes large TCP segments over IPv6.
    pub const HOST_TSO6: Features = Features(1 << 12);
    /// The device takes large TCP segments with ECN.
    pub const HOST_ECN: Features = Features(1 << 13);
    /// The device takes large UDP datagrams, to be fragmented.
    pub const HOST_UFO: Features = Features(1 << 14);
    /// One received frame may be spread over several chains.
    pub const MRG_RXBUF: Features = Features(1 << 15);
    /// Several queue pairs.
    pub const MQ: Features = Features(1 << 22);
    /// A legacy driver may lay out its buffers as it likes.
    pub const ANY_LAYOUT: Features = Features(1 << 27);
    /// Descriptors may point to tables of descriptors (§2.7.5.3).
    pub const INDIRECT_DESC: Features = Features(1 << 28);
    /// Notifications are wanted at an index, not always or never (§2.7.10).
    pub const EVENT_IDX: Features = Features(1 << 29);
    /// The modern layout of the virtio-net header; little endian.
    pub const VERSION_1: Features = Features(1 << 32);
    /// Chains are used in the order in which they were made available. This device always does that.
    pub const IN_ORDER: Features = Features(1 << 35);
    /// The driver takes large UDP datagrams over IPv4, to be segmented.
    pub const GUEST_USO4: Features = Features(1 << 54);
    /// The driver takes large UDP datagrams over IPv6, to be segmented.
    pub const GUEST_USO6: Features = Features(1 << 55);
    /// The device takes large UDP datagrams, to be segmented.
    pub const HOST_USO: Features = Features(1 << 56);

    /// Everything that the ring and header code can do; a transport offers this and its own bits.
    pub const OFFERED: Features = Features(
        Self::CSUM.0
            | Self::GUEST_CSUM.0
            | Self::GUEST_TSO4.0
            | Self::GUEST_TSO6.0
            | Self::GUEST_ECN.0
            | Self::GUEST_UFO.0
            | Self::HOST_TSO4.0
            | Self::HOST_TSO6.0
            | Self::HOST_ECN.0
            | Self::HOST_UFO.0
            | Self::MRG_RXBUF.0
            | Self::MQ.0
            | Self::ANY_LAYOUT.0
            | Self::INDIRECT_DESC.0
            | Self::EVENT_IDX.0
            | Self::VERSION_1.0
            | Self::IN_ORDER.0
            | Self::GUEST_USO4.0
            | Self::GUEST_USO6.0
            | Self::HOST_USO.0,
    );

    const NAMES: [(Features, &'static str); 20] = [
        (Self::VERSION_1, "VERSION_1"),
        (Self::MRG_RXBUF, "MRG_RXBUF"),
        (Self::MQ, "MQ"),
        (Self::INDIRECT_DESC, "INDIRECT_DESC"),
        (Self::EVENT_IDX, "EVENT_IDX"),
        (Self::IN_ORDER, "IN_ORDER"),
        (Self::ANY_LAYOUT, "ANY_LAYOUT"),
        (Self::CSUM, "CSUM"),
        (Self::HOST_TSO4, "HOST_TSO4"),
        (Self::HOST_TSO6, "HOST_TSO6"),
        (Self::HOST_ECN, "HOST_ECN"),
        (Self::HOST_UFO, "HOST_UFO"),
        (Self::HOST_USO, "HOST_USO"),
        (Self::GUEST_CSUM, "GUEST_CSUM"),
        (Self::GUEST_TSO4, "GUEST_TSO4"),
        (Self::GUEST_TSO6, "GUEST_TSO6"),
        (Self::GUEST_ECN, "GUEST_ECN"),
        (Self::GUEST_UFO, "GUEST_UFO"),
        (Self::GUEST_USO4, "GUEST_USO4"),
        (Self::GUEST_USO6, "GUEST_USO6"),
    ];

    /// True if every bit of `other` is set.
    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    /// Bytes of the virtio-net header: 12 with VERSION_1 or MRG_RXBUF, else 10 (§5.1.6.1, legacy).
    pub const fn header_bytes(self) -> usize {
        if self.has(Self::VERSION_1) || self.has(Self::MRG_RXBUF) {
            super::header::HEADER_BYTES
        } else {
            super::header::LEGACY_HEADER_BYTES
        }
    }

    /// The names of the set bits that this device knows.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.has(*bit)).map(|(_, name)| name)
    }
}
