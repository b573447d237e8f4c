//! The SCTP common header (RFC 9260 §3.1). Its checksum is a CRC32c over the whole packet, stored little-endian.

use crate::Error;
use crate::checksum::crc32c;
use crate::error::{array, at_least, be16, be32};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    /// Verification tag.
    pub const TAG: Range<usize> = 4..8;
    /// CRC32c.
    pub const CHECKSUM: Range<usize> = 8..12;
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
        at_least(bytes, HEADER_BYTES, "SCTP header").map(Self)
    }

    /// Source port.
    #[inline]
    pub fn source_port(&self) -> u16 {
        be16(self.0, field::SOURCE_PORT.start)
    }

    /// Destination port.
    #[inline]
    pub fn destination_port(&self) -> u16 {
        be16(self.0, field::DESTINATION_PORT.start)
    }

    /// Verification tag.
    #[inline]
    pub fn tag(&self) -> u32 {
        be32(self.0, field::TAG.start)
    }

    /// What of the chunks is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..]
    }

    /// True if the CRC32c is right for a packet that is all at hand.
    pub fn checksum_is_valid(&self) -> bool {
        u32::from_le_bytes(array(self.0, field::CHECKSUM.start)) == packet_crc(self.0)
    }
}

fn packet_crc(packet: &[u8]) -> u32 {
    crc32c([&packet[..field::CHECKSUM.start], &[0; 4], &packet[field::CHECKSUM.end..]])
}

/// Writes the CRC32c of a whole packet into it.
///
/// # Panics
/// If `packet` is shorter than a header.
pub fn fill_checksum(packet: &mut [u8]) {
    let crc = packet_crc(packet);
    packet[field::CHECKSUM].copy_from_slice(&crc.to_le_bytes());
}

/// A header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Verification tag.
    pub tag: u32,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self { source_port: view.source_port(), destination_port: view.destination_port(), tag: view.tag() }
    }

    /// Writes the header, with a checksum of 0, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[field::SOURCE_PORT].copy_from_slice(&self.source_port.to_be_bytes());
        out[field::DESTINATION_PORT].copy_from_slice(&self.destination_port.to_be_bytes());
        out[field::TAG].copy_from_slice(&self.tag.to_be_bytes());
        out[field::CHECKSUM].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(source_port: u16, destination_port: u16, tag: u32, chunks: [u8; 9]) {
            let repr = Repr { source_port, destination_port, tag };
            let mut bytes = [0; HEADER_BYTES + 9];
            repr.emit(&mut bytes);
            bytes[HEADER_BYTES..].copy_from_slice(&chunks);
            fill_checksum(&mut bytes);
            let view = View::new(&bytes).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert!(view.checksum_is_valid());
            bytes[HEADER_BYTES] ^= 1;
            prop_assert!(!View::new(&bytes).unwrap().checksum_is_valid());
        }
    }

    #[test]
    fn view_of_a_short_header_is_truncated() {
        assert_eq!(View::new(&[0; 11]).unwrap_err(), Error::Truncated("SCTP header"));
    }
}
