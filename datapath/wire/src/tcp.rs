//! The TCP header (RFC 9293 §3.1).

use std::fmt;

use crate::Error;
use crate::error::{at_least, be16, be32};

/// Bytes of a header without options.
pub const MIN_HEADER_BYTES: usize = 20;
/// Bytes of a header with all the options that fit.
pub const MAX_HEADER_BYTES: usize = 60;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Source port.
    pub const SOURCE_PORT: Range<usize> = 0..2;
    /// Destination port.
    pub const DESTINATION_PORT: Range<usize> = 2..4;
    /// Sequence number.
    pub const SEQUENCE: Range<usize> = 4..8;
    /// Acknowledgement number.
    pub const ACKNOWLEDGEMENT: Range<usize> = 8..12;
    /// Header length in words, in the upper four bits.
    pub const DATA_OFFSET: usize = 12;
    /// Flags.
    pub const FLAGS: usize = 13;
    /// Window.
    pub const WINDOW: Range<usize> = 14..16;
    /// Checksum.
    pub const CHECKSUM: Range<usize> = 16..18;
    /// Urgent pointer.
    pub const URGENT: Range<usize> = 18..20;
}

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number means something.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer means something.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// True if all of `other`'s bits are set.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits but for `other`'s.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<&str> = (0..8).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| NAMES[bit]).collect();
        f.write_str(&set.join("|"))
    }
}

/// A borrowed header. The payload may be cut short, the options may not.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] for a header length below 20.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let view = Self(at_least(bytes, MIN_HEADER_BYTES, "TCP header")?);
        if view.header_len() < MIN_HEADER_BYTES {
            return Err(Error::Malformed("the TCP header length is below 20"));
        }
        at_least(bytes, view.header_len(), "TCP options")?;
        Ok(view)
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[field::DATA_OFFSET] >> 4) * 4
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

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        be32(self.0, field::SEQUENCE.start)
    }

    /// Acknowledgement number.
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        be32(self.0, field::ACKNOWLEDGEMENT.start)
    }

    /// Control bits.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.0[field::FLAGS])
    }

    /// Window.
    #[inline]
    pub fn window(&self) -> u16 {
        be16(self.0, field::WINDOW.start)
    }

    /// Checksum.
    #[inline]
    pub fn checksum(&self) -> u16 {
        be16(self.0, field::CHECKSUM.start)
    }

    /// Urgent pointer.
    #[inline]
    pub fn urgent(&self) -> u16 {
        be16(self.0, field::URGENT.start)
    }

    /// The options, padding included.
    #[inline]
    pub fn options(&self) -> &'a [u8] {
        &self.0[MIN_HEADER_BYTES..self.header_len()]
    }

    /// What of the payload is at hand.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[self.header_len()..]
    }
}

/// A header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control bits.
    pub flags: Flags,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, padded to a multiple of four bytes; at most 40.
    pub options: &'a [u8],
}

impl<'a> Repr<'a> {
    /// The values of `view`.
    pub fn parse(view: &View<'a>) -> Self {
        Self {
            source_port: view.source_port(),
            destination_port: view.destination_port(),
            sequence: view.sequence(),
            acknowledgement: view.acknowledgement(),
            flags: view.flags(),
            window: view.window(),
            urgent: view.urgent(),
            options: view.options(),
        }
    }

    /// Bytes of the header.
    pub fn header_len(&self) -> usize {
        MIN_HEADER_BYTES + self.options.len()
    }

    /// Writes the header, with a checksum of 0, to the front of `out`.
    ///
    /// # Panics
    /// Also if the options are longer than 40 bytes or no multiple of four.
    pub fn emit(&self, out: &mut [u8]) {
        let header_len = self.header_len();
        assert!(header_len <= MAX_HEADER_BYTES && header_len.is_multiple_of(4), "TCP options length");
        out[field::SOURCE_PORT].copy_from_slice(&self.source_port.to_be_bytes());
        out[field::DESTINATION_PORT].copy_from_slice(&self.destination_port.to_be_bytes());
        out[field::SEQUENCE].copy_from_slice(&self.sequence.to_be_bytes());
        out[field::ACKNOWLEDGEMENT].copy_from_slice(&self.acknowledgement.to_be_bytes());
        out[field::DATA_OFFSET] = ((header_len / 4) as u8) << 4;
        out[field::FLAGS] = self.flags.0;
        out[field::WINDOW].copy_from_slice(&self.window.to_be_bytes());
        out[field::CHECKSUM].fill(0);
        out[field::URGENT].copy_from_slice(&self.urgent.to_be_bytes());
        out[MIN_HEADER_BYTES..header_len].copy_from_slice(self.options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(
            ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16, urgent: u16, words in 0_usize..=10,
        ) {
            let options = [1; 40];
            let repr = Repr {
                source_port: ports.0,
                destination_port: ports.1,
                sequence: numbers.0,
                acknowledgement: numbers.1,
                flags: Flags(flags),
                window,
                urgent,
                options: &options[..words * 4],
            };
            let mut bytes = [0; MAX_HEADER_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }

        #[test]
        fn view_of_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(view) = View::new(&bytes) {
                let _ = (Repr::parse(&view), view.payload(), view.checksum());
            }
        }
    }

    #[test]
    fn view_of_a_short_data_offset_is_malformed() {
        let mut bytes = [0; 20];
        bytes[12] = 0x40;
        assert_eq!(View::new(&bytes).unwrap_err(), Error::Malformed("the TCP header length is below 20"));
        bytes[12] = 0x60;
        assert_eq!(View::new(&bytes).unwrap_err(), Error::Truncated("TCP options"));
    }

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(format!("{:?}", Flags::SYN.with(Flags::ACK)), "SYN|ACK");
        assert!(!Flags::SYN.with(Flags::ACK).without(Flags::ACK).contains(Flags::ACK));
    }
}
