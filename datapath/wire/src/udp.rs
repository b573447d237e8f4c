//! The UDP header (RFC 768).

use crate::Error;
use crate::error::{at_least, be16};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    /// Bytes of header and payload.
    pub const LEN: Range<usize> = 4..6;
    /// Checksum; 0 means none.
    pub const CHECKSUM: Range<usize> = 6..8;
}

/// A borrowed header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] for a length below 8.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let view = Self(at_least(bytes, HEADER_BYTES, "UDP header")?);
        if usize::from(view.len()) < HEADER_BYTES {
            return Err(Error::Malformed("the UDP length is below 8"));
        }
        Ok(view)
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

    /// Bytes of header and payload, as the header claims; at least 8.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a UDP packet holds its header at least")]
    pub fn len(&self) -> u16 {
        be16(self.0, field::LEN.start)
    }

    /// Checksum; 0 means none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0, field::CHECKSUM.start)
    }

    /// What of the payload is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..usize::from(self.len()).min(self.0.len())]
    }
}

/// A header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Bytes that follow; at most 65 527.
    pub payload_len: u16,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self {
            source_port: view.source_port(),
            destination_port: view.destination_port(),
            payload_len: view.len() - HEADER_BYTES as u16,
        }
    }

    /// Writes the header, with a checksum of 0, to the front of `out`.
    ///
    /// # Panics
    /// Also if the payload is longer than 65 527 bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let len = self.payload_len.checked_add(HEADER_BYTES as u16).expect("UDP length");
        out[field::SOURCE_PORT].copy_from_slice(&self.source_port.to_be_bytes());
        out[field::DESTINATION_PORT].copy_from_slice(&self.destination_port.to_be_bytes());
        out[field::LEN].copy_from_slice(&len.to_be_bytes());
        out[field::CHECKSUM].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(source_port: u16, destination_port: u16, payload_len in 0_u16..=65_527) {
            let repr = Repr { source_port, destination_port, payload_len };
            let mut bytes = [0; HEADER_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }
    }

    #[test]
    fn view_of_a_length_below_its_header_is_malformed() {
        let mut bytes = [0; 8];
        bytes[5] = 7;
        assert_eq!(View::new(&bytes).unwrap_err(), Error::Malformed("the UDP length is below 8"));
        assert_eq!(View::new(&bytes[..7]).unwrap_err(), Error::Truncated("UDP header"));
    }

    #[test]
    fn payload_ends_where_the_length_says() {
        let bytes = [0, 1, 0, 2, 0, 10, 0, 0, 7, 7, 9, 9];
        assert_eq!(View::new(&bytes).unwrap().payload(), [7, 7]);
    }
}
