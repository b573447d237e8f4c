//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use crate::error::{array, at_least, be16};
use crate::{Error, EtherType, MacAddr};

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 28;
/// Asks who has an address.
pub const REQUEST: u16 = 1;
/// Says who has it.
pub const REPLY: u16 = 2;

const HARDWARE_ETHERNET: u16 = 1;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Hardware type: 1, Ethernet.
    pub const HARDWARE: Range<usize> = 0..2;
    /// Protocol type: IPv4.
    pub const PROTOCOL: Range<usize> = 2..4;
    /// Length of a hardware address: 6.
    pub const HARDWARE_BYTES: usize = 4;
    /// Length of a protocol address: 4.
    pub const PROTOCOL_BYTES: usize = 5;
    /// Request or reply.
    pub const OPERATION: Range<usize> = 6..8;
    /// The sender's MAC address.
    pub const SENDER_MAC: Range<usize> = 8..14;
    /// The sender's IP address.
    pub const SENDER_IP: Range<usize> = 14..18;
    /// The target's MAC address.
    pub const TARGET_MAC: Range<usize> = 18..24;
    /// The target's IP address.
    pub const TARGET_IP: Range<usize> = 24..28;
}

/// A borrowed packet.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The packet at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] if it is not about IPv4 over Ethernet.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let bytes = at_least(bytes, PACKET_BYTES, "ARP packet")?;
        let about =
            (be16(bytes, 0), be16(bytes, 2), bytes[field::HARDWARE_BYTES], bytes[field::PROTOCOL_BYTES]);
        if about != (HARDWARE_ETHERNET, EtherType::IPV4.0, 6, 4) {
            return Err(Error::Malformed("the ARP packet is not about IPv4 over Ethernet"));
        }
        Ok(Self(bytes))
    }

    /// [`REQUEST`], [`REPLY`], or something rarer.
    #[inline]
    pub fn operation(&self) -> u16 {
        be16(self.0, field::OPERATION.start)
    }

    /// The sender's MAC address.
    #[inline]
    pub fn sender_mac(&self) -> MacAddr {
        MacAddr(array(self.0, field::SENDER_MAC.start))
    }

    /// The sender's IP address.
    #[inline]
    pub fn sender_ip(&self) -> Ipv4Addr {
        array::<4>(self.0, field::SENDER_IP.start).into()
    }

    /// The target's MAC address; zero in most requests.
    #[inline]
    pub fn target_mac(&self) -> MacAddr {
        MacAddr(array(self.0, field::TARGET_MAC.start))
    }

    /// The target's IP address.
    #[inline]
    pub fn target_ip(&self) -> Ipv4Addr {
        array::<4>(self.0, field::TARGET_IP.start).into()
    }
}

/// A packet as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// [`REQUEST`], [`REPLY`], or something rarer.
    pub operation: u16,
    /// The sender's MAC address.
    pub sender_mac: MacAddr,
    /// The sender's IP address.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC address.
    pub target_mac: MacAddr,
    /// The target's IP address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self {
            operation: view.operation(),
            sender_mac: view.sender_mac(),
            sender_ip: view.sender_ip(),
            target_mac: view.target_mac(),
            target_ip: view.target_ip(),
        }
    }

    /// Writes the packet to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[field::HARDWARE].copy_from_slice(&HARDWARE_ETHERNET.to_be_bytes());
        out[field::PROTOCOL].copy_from_slice(&EtherType::IPV4.0.to_be_bytes());
        out[field::HARDWARE_BYTES] = 6;
        out[field::PROTOCOL_BYTES] = 4;
        out[field::OPERATION].copy_from_slice(&self.operation.to_be_bytes());
        out[field::SENDER_MAC].copy_from_slice(&self.sender_mac.0);
        out[field::SENDER_IP].copy_from_slice(&self.sender_ip.octets());
        out[field::TARGET_MAC].copy_from_slice(&self.target_mac.0);
        out[field::TARGET_IP].copy_from_slice(&self.target_ip.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_packet_returns_it(
            operation: u16, sender_mac: [u8; 6], sender_ip: u32, target_mac: [u8; 6], target_ip: u32,
        ) {
            let repr = Repr {
                operation,
                sender_mac: MacAddr(sender_mac),
                sender_ip: sender_ip.into(),
                target_mac: MacAddr(target_mac),
                target_ip: target_ip.into(),
            };
            let mut bytes = [0; PACKET_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }
    }

    #[test]
    fn view_of_another_hardware_is_malformed() {
        let mut bytes = [0; PACKET_BYTES];
        assert!(matches!(View::new(&bytes), Err(Error::Malformed(_))));
        bytes[1] = 1;
        assert!(matches!(View::new(&bytes), Err(Error::Malformed(_))));
        assert!(matches!(View::new(&bytes[..27]), Err(Error::Truncated(_))));
    }
}
