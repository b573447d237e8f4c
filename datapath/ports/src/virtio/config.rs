//! What does a driver read of a net device apart from its rings? (virtio 1.2 §5.1.3, §5.1.4)

use wire::MacAddr;

/// The configuration space shows an MTU (VIRTIO_NET_F_MTU).
pub(crate) const NET_MTU: u64 = 1 << 3;
/// It shows a MAC address (VIRTIO_NET_F_MAC).
pub(crate) const NET_MAC: u64 = 1 << 5;
/// It shows the link's state (VIRTIO_NET_F_STATUS).
pub(crate) const NET_STATUS: u64 = 1 << 16;

/// The link is up (VIRTIO_NET_S_LINK_UP).
const STATUS_LINK_UP: u16 = 1;

/// What a port shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NetConfig {
    /// `None` leaves the address to the driver.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) queue_pairs: u16,
    /// 0 shows none.
    pub(crate) mtu_bytes: u16,
}

impl NetConfig {
    /// Bytes of [`NetConfig::bytes`].
    pub(crate) const BYTES: usize = 12;

    /// The feature bits of what is shown.
    pub(crate) fn features(&self) -> u64 {
        let mac = if self.mac.is_some() { NET_MAC } else { 0 };
        let mtu = if self.mtu_bytes == 0 { 0 } else { NET_MTU };
        NET_STATUS | mac | mtu
    }

    /// The first fields of `struct virtio_net_config`.
    pub(crate) fn bytes(&self) -> [u8; Self::BYTES] {
        let mut space = [0; Self::BYTES];
        space[..6].copy_from_slice(&self.mac.unwrap_or_default().0);
        space[6..8].copy_from_slice(&STATUS_LINK_UP.to_le_bytes());
        space[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        space[10..].copy_from_slice(&self.mtu_bytes.to_le_bytes());
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_drivers_read_them_and_only_those_shown_are_offered() {
        let config =
            NetConfig { mac: Some(MacAddr([2, 0, 0, 0, 0, 7])), queue_pairs: 0x0304, mtu_bytes: 0x05dc };
        assert_eq!(config.bytes(), [2, 0, 0, 0, 0, 7, 1, 0, 4, 3, 0xdc, 5]);
        assert_eq!(config.features(), NET_MAC | NET_MTU | NET_STATUS);
        assert_eq!(NetConfig { mac: None, queue_pairs: 1, mtu_bytes: 0 }.features(), NET_STATUS);
    }
}
