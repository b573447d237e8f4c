//! The Ethernet II header (IEEE 802.3 §3.2.6).

use std::fmt;

use crate::error::{array, at_least, be16};
use crate::{Error, MacAddr};

/// Bytes of the header, without tags.
pub const HEADER_BYTES: usize = 14;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 0..6;
    /// Source address.
    pub const SOURCE: Range<usize> = 6..12;
    /// EtherType, or the first tag's TPID.
    pub const ETHER_TYPE: Range<usize> = 12..14;
}

/// What an Ethernet header or a tag is followed by. Values below 1536 are an 802.3 length (LLC follows).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    /// True for the TPID of an 802.1Q or 802.1ad tag.
    #[inline]
    pub fn is_tag(self) -> bool {
        self == Self::VLAN || self == Self::SERVICE_VLAN
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("IPv4"),
            Self::ARP => f.write_str("ARP"),
            Self::VLAN => f.write_str("802.1Q"),
            Self::IPV6 => f.write_str("IPv6"),
            Self::SERVICE_VLAN => f.write_str("802.1ad"),
            Self(number) => write!(f, "{number:#06x}"),
        }
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A borrowed header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        at_least(bytes, HEADER_BYTES, "Ethernet header").map(Self)
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> MacAddr {
        MacAddr(array(self.0, field::DESTINATION.start))
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> MacAddr {
        MacAddr(array(self.0, field::SOURCE.start))
    }

    /// What follows: a protocol, a tag, or a length.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(be16(self.0, field::ETHER_TYPE.start))
    }

    /// The bytes behind the header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..]
    }
}

/// The header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address.
    pub source: MacAddr,
    /// What follows.
    pub ether_type: EtherType,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self { destination: view.destination(), source: view.source(), ether_type: view.ether_type() }
    }

    /// Writes the header to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[field::DESTINATION].copy_from_slice(&self.destination.0);
        out[field::SOURCE].copy_from_slice(&self.source.0);
        out[field::ETHER_TYPE].copy_from_slice(&self.ether_type.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(to: [u8; 6], from: [u8; 6], ether_type: u16) {
            let repr = Repr { destination: MacAddr(to), source: MacAddr(from), ether_type: EtherType(ether_type) };
            let mut bytes = [0xaa; HEADER_BYTES + 3];
            repr.emit(&mut bytes);
            let view = View::new(&bytes).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert_eq!(view.payload(), &[0xaa; 3]);
        }
    }

    #[test]
    fn view_of_a_short_frame_is_truncated() {
        assert_eq!(View::new(&[0; 13]).unwrap_err(), Error::Truncated("Ethernet header"));
    }
}
