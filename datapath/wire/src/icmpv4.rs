//! ICMP for IPv4 (RFC 792): the header that all messages share.

use crate::error::{array, at_least, be16};
use crate::{Error, checksum};

/// Bytes of the header: type, code, checksum, and four bytes whose meaning depends on the type.
pub const HEADER_BYTES: usize = 8;
/// Answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: too long for the next link, and fragmenting is forbidden.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Echo request, "ping".
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Type.
    pub const TYPE: usize = 0;
    /// Code.
    pub const CODE: usize = 1;
    /// Checksum of the whole message.
    pub const CHECKSUM: Range<usize> = 2..4;
    /// Identifier and sequence number of an echo; other things in other messages.
    pub const REST: Range<usize> = 4..8;
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
        at_least(bytes, HEADER_BYTES, "ICMP header").map(Self)
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.0[field::TYPE]
    }

    /// Code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0[field::CODE]
    }

    /// The last four bytes of the header.
    #[inline]
    pub fn rest(&self) -> [u8; 4] {
        array(self.0, field::REST.start)
    }

    /// An echo's identifier.
    #[inline]
    pub fn echo_id(&self) -> u16 {
        be16(self.0, 4)
    }

    /// An echo's sequence number.
    #[inline]
    pub fn echo_sequence(&self) -> u16 {
        be16(self.0, 6)
    }

    /// What of the payload is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..]
    }

    /// True if the checksum is right for a message that is all at hand.
    pub fn checksum_is_valid(&self) -> bool {
        checksum::checksum(self.0) == 0
    }
}

/// Writes the checksum of a whole message into it.
///
/// # Panics
/// If `message` is shorter than a header.
pub fn fill_checksum(message: &mut [u8]) {
    message[field::CHECKSUM].fill(0);
    let sum = checksum::checksum(message);
    message[field::CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

/// A header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The last four bytes.
    pub rest: [u8; 4],
}

impl Repr {
    /// An echo request or reply.
    pub fn echo(kind: u8, id: u16, sequence: u16) -> Self {
        let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
        Self { kind, code: 0, rest: [a, b, c, d] }
    }

    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self { kind: view.kind(), code: view.code(), rest: view.rest() }
    }

    /// Writes the header, with a checksum of 0, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[field::TYPE] = self.kind;
        out[field::CODE] = self.code;
        out[field::CHECKSUM].fill(0);
        out[field::REST].copy_from_slice(&self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_echo_returns_it(kind: u8, id: u16, sequence: u16) {
            let repr = Repr::echo(kind, id, sequence);
            let mut bytes = [0xaa; HEADER_BYTES + 3];
            repr.emit(&mut bytes);
            fill_checksum(&mut bytes);
            let view = View::new(&bytes).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert_eq!((view.echo_id(), view.echo_sequence()), (id, sequence));
            prop_assert!(view.checksum_is_valid());
        }
    }

    #[test]
    fn view_of_a_short_header_is_truncated() {
        assert_eq!(View::new(&[0; 7]).unwrap_err(), Error::Truncated("ICMP header"));
    }
}
