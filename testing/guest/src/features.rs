//! Which virtio features does the guest ask for? Bit numbers of virtio 1.2 §5.1.3 and §6.

bitflags::bitflags! {
    /// Feature bits of a virtio network device. The guest negotiates those it wants that the switch offers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// The switch takes frames with a partial checksum.
        const CSUM = 1 << 0;
        /// The guest takes frames with a partial checksum.
        const GUEST_CSUM = 1 << 1;
        /// The switch announces its MTU.
        const MTU = 1 << 3;
        /// The switch announces a MAC address.
        const MAC = 1 << 5;
        /// The guest takes large TCP over IPv4 frames.
        const GUEST_TSO4 = 1 << 7;
        /// The guest takes large TCP over IPv6 frames.
        const GUEST_TSO6 = 1 << 8;
        /// The guest takes large TCP frames with ECN.
        const GUEST_ECN = 1 << 9;
        /// The guest takes large UDP datagrams to be fragmented.
        const GUEST_UFO = 1 << 10;
        /// The switch takes large TCP over IPv4 frames.
        const HOST_TSO4 = 1 << 11;
        /// The switch takes large TCP over IPv6 frames.
        const HOST_TSO6 = 1 << 12;
        /// The switch takes large TCP frames with ECN.
        const HOST_ECN = 1 << 13;
        /// The switch takes large UDP datagrams to be fragmented.
        const HOST_UFO = 1 << 14;
        /// A received frame may span several buffers.
        const MRG_RXBUF = 1 << 15;
        /// Link status in the configuration space.
        const STATUS = 1 << 16;
        /// Several queue pairs.
        const MQ = 1 << 22;
        /// Descriptors may stand in tables of their own.
        const INDIRECT_DESC = 1 << 28;
        /// Notifications at a named ring position.
        const EVENT_IDX = 1 << 29;
        /// The vhost-user protocol's own feature bit.
        const PROTOCOL_FEATURES = 1 << 30;
        /// Virtio 1.0 and later.
        const VERSION_1 = 1 << 32;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// The guest takes large UDP over IPv4 frames to be segmented.
        const GUEST_USO4 = 1 << 54;
        /// The guest takes large UDP over IPv6 frames to be segmented.
        const GUEST_USO6 = 1 << 55;
        /// The switch takes large UDP frames to be segmented.
        const HOST_USO = 1 << 56;
    }
}

impl Features {
    /// What a guest needs to move plain frames: one descriptor, no offloads.
    pub const PLAIN: Self = Self::VERSION_1.union(Self::PROTOCOL_FEATURES);

    /// What a current Linux guest negotiates for its rings.
    pub const RINGS: Self =
        Self::PLAIN.union(Self::MRG_RXBUF).union(Self::INDIRECT_DESC).union(Self::EVENT_IDX).union(Self::MQ);

    /// Everything the driver knows how to leave to the switch, or to take from it.
    pub const OFFLOADS: Self = Self::CSUM
        .union(Self::GUEST_CSUM)
        .union(Self::GUEST_TSO4)
        .union(Self::GUEST_TSO6)
        .union(Self::GUEST_ECN)
        .union(Self::GUEST_UFO)
        .union(Self::GUEST_USO4)
        .union(Self::GUEST_USO6)
        .union(Self::HOST_TSO4)
        .union(Self::HOST_TSO6)
        .union(Self::HOST_ECN)
        .union(Self::HOST_UFO)
        .union(Self::HOST_USO);

    /// True if a received frame may be larger than the MTU.
    pub fn receives_large_frames(self) -> bool {
        self.intersects(
            Self::GUEST_TSO4 | Self::GUEST_TSO6 | Self::GUEST_UFO | Self::GUEST_USO4 | Self::GUEST_USO6,
        )
    }

    /// Bytes of the header in front of each frame (virtio 1.2 §5.1.6: `num_buffers` is absent from a legacy header
    /// without mergeable buffers).
    pub fn header_bytes(self) -> usize {
        if self.intersects(Self::VERSION_1 | Self::MRG_RXBUF) { 12 } else { 10 }
    }
}
