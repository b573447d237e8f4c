//! The IPv4 header (RFC 791 §3.1), with options and fragments.

use std::net::Ipv4Addr;

use crate::error::{array, at_least, be16};
use crate::{Error, IpProtocol, checksum};

/// Bytes of a header without options.
pub const MIN_HEADER_BYTES: usize = 20;
/// Bytes of a header with all the options that fit.
pub const MAX_HEADER_BYTES: usize = 60;
/// Don't fragment, in the fragment field.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments follow, in the fragment field.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset's bits in the fragment field, in units of eight bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Version and header length in words.
    pub const VERSION_IHL: usize = 0;
    /// DSCP and ECN.
    pub const TOS: usize = 1;
    /// Bytes of header and payload.
    pub const TOTAL_LEN: Range<usize> = 2..4;
    /// Identification: which datagram a fragment belongs to.
    pub const ID: Range<usize> = 4..6;
    /// Flags and fragment offset.
    pub const FRAGMENT: Range<usize> = 6..8;
    /// Time to live.
    pub const TTL: usize = 8;
    /// What follows.
    pub const PROTOCOL: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: Range<usize> = 10..12;
    /// Source address.
    pub const SOURCE: Range<usize> = 12..16;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 16..20;
}

/// A borrowed header. The payload may be cut short, the options may not.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] for another version, a header length below 20, or a total length below
    /// the header's. The header checksum is not verified: see [`View::checksum_is_valid`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let bytes = at_least(bytes, MIN_HEADER_BYTES, "IPv4 header")?;
        let view = Self(bytes);
        if bytes[field::VERSION_IHL] >> 4 != 4 {
            return Err(Error::Malformed("the IPv4 header does not have version 4"));
        }
        if view.header_len() < MIN_HEADER_BYTES {
            return Err(Error::Malformed("the IPv4 header length is below 20"));
        }
        at_least(bytes, view.header_len(), "IPv4 options")?;
        if usize::from(view.total_len()) < view.header_len() {
            return Err(Error::Malformed("the IPv4 total length is below the header length"));
        }
        Ok(view)
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[field::VERSION_IHL] & 0x0f) * 4
    }

    /// Bytes of header and payload, as the header claims.
    #[inline]
    pub fn total_len(&self) -> u16 {
        be16(self.0, field::TOTAL_LEN.start)
    }

    /// DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0[field::TOS]
    }

    /// Which datagram a fragment belongs to.
    #[inline]
    pub fn id(&self) -> u16 {
        be16(self.0, field::ID.start)
    }

    /// Flags and fragment offset, raw.
    #[inline]
    pub fn fragment(&self) -> u16 {
        be16(self.0, field::FRAGMENT.start)
    }

    /// Where in the datagram this fragment's payload lies, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.fragment() & FRAGMENT_OFFSET) * 8
    }

    /// True for a part of a larger datagram, the first part included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0[field::TTL]
    }

    /// What follows.
    #[inline]
    pub fn protocol(&self) -> IpProtocol {
        IpProtocol(self.0[field::PROTOCOL])
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        array::<4>(self.0, field::SOURCE.start).into()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        array::<4>(self.0, field::DESTINATION.start).into()
    }

    /// The options, padding included.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        &self.0[MIN_HEADER_BYTES..self.header_len()]
    }

    /// What of the payload is at hand; bytes behind the total length (Ethernet padding) are not part of it.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[self.header_len()..usize::from(self.total_len()).min(self.0.len())]
    }

    /// True if the header checksum is right.
    pub fn checksum_is_valid(&self) -> bool {
        checksum::checksum(&self.0[..self.header_len()]) == 0
    }
}

/// A header as values. Its lengths and its checksum follow from the others and from the payload's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// What follows.
    pub protocol: IpProtocol,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Which datagram a fragment belongs to.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Options, padded to a multiple of four bytes; at most 40.
    pub options: &'a [u8],
    /// Bytes that follow the header; with the header at most 65 535.
    pub payload_len: u16,
}

impl<'a> Repr<'a> {
    /// The values of `view`.
    pub fn parse(view: &View<'a>) -> Self {
        Self {
            source: view.source(),
            destination: view.destination(),
            protocol: view.protocol(),
            tos: view.tos(),
            ttl: view.ttl(),
            id: view.id(),
            fragment: view.fragment(),
            options: view.options(),
            payload_len: view.total_len() - view.header_len() as u16,
        }
    }

    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        MIN_HEADER_BYTES + self.options.len()
    }

    /// Writes the header, with its checksum, to the front of `out`.
    ///
    /// # Panics
    /// Also if the options are longer than 40 bytes or no multiple of four, or the packet is longer than 65 535.
    pub fn emit(&self, out: &mut [u8]) {
        let header_len = self.header_len();
        assert!(header_len <= MAX_HEADER_BYTES && header_len.is_multiple_of(4), "IPv4 options length");
        let total_len = u16::try_from(header_len + usize::from(self.payload_len)).expect("IPv4 total length");
        out[field::VERSION_IHL] = 0x40 | (header_len / 4) as u8;
        out[field::TOS] = self.tos;
        out[field::TOTAL_LEN].copy_from_slice(&total_len.to_be_bytes());
        out[field::ID].copy_from_slice(&self.id.to_be_bytes());
        out[field::FRAGMENT].copy_from_slice(&self.fragment.to_be_bytes());
        out[field::TTL] = self.ttl;
        out[field::PROTOCOL] = self.protocol.0;
        out[field::CHECKSUM].fill(0);
        out[field::SOURCE].copy_from_slice(&self.source.octets());
        out[field::DESTINATION].copy_from_slice(&self.destination.octets());
        out[MIN_HEADER_BYTES..header_len].copy_from_slice(self.options);
        fill_checksum(&mut out[..header_len]);
    }
}

/// Writes the checksum of a whole header, options included, into it.
#[inline]
pub fn fill_checksum(header: &mut [u8]) {
    header[field::CHECKSUM].fill(0);
    let sum = checksum::checksum(header);
    header[field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_repr()(
            addresses: (u32, u32), protocol: u8, tos: u8, ttl: u8, id: u16, fragment: u16, words in 0_usize..=10,
            payload_len in 0_u16..=65_475,
        ) -> Repr<'static> {
            static OPTIONS: [u8; 40] = [1; 40];
            Repr {
                source: addresses.0.into(),
                destination: addresses.1.into(),
                protocol: IpProtocol(protocol),
                tos,
                ttl,
                id,
                fragment,
                options: &OPTIONS[..words * 4],
                payload_len,
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(repr in any_repr()) {
            let mut bytes = [0xaa; MAX_HEADER_BYTES];
            repr.emit(&mut bytes);
            let view = View::new(&bytes).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert!(view.checksum_is_valid());
        }

        #[test]
        fn view_of_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(view) = View::new(&bytes) {
                let _ = (Repr::parse(&view), view.payload(), view.checksum_is_valid());
            }
        }
    }

    #[test]
    fn view_of_contradictory_lengths_is_malformed() {
        let mut bytes = [0; 24];
        bytes[0] = 0x44;
        assert_eq!(View::new(&bytes).unwrap_err(), Error::Malformed("the IPv4 header length is below 20"));
        bytes[0] = 0x46;
        bytes[3] = 23;
        assert!(matches!(View::new(&bytes), Err(Error::Malformed(_))));
        assert_eq!(View::new(&bytes[..20]).unwrap_err(), Error::Truncated("IPv4 options"));
        bytes[0] = 0x65;
        assert!(matches!(View::new(&bytes), Err(Error::Malformed(_))));
    }

    #[test]
    fn payload_leaves_out_ethernet_padding() {
        let mut bytes = [0; 46];
        bytes[0] = 0x45;
        bytes[3] = 28;
        assert_eq!(View::new(&bytes).unwrap().payload().len(), 8);
    }
}
