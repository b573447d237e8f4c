//! The VLAN tag (IEEE 802.1Q §9): customer (802.1Q) and service (802.1ad) tags differ in their TPID only.

use crate::error::{at_least, be16};
use crate::ethernet::{self, EtherType};
use crate::{Error, MacAddr};

/// Bytes that one tag adds to a frame.
pub const TAG_BYTES: usize = 4;
/// Tags that [`skip_tags`] passes over.
pub const MAX_TAGS: usize = 2;

/// Where the fields lie, counted from the first byte behind the TPID.
pub mod field {
    use std::ops::Range;
    /// Priority, drop eligibility and VLAN id.
    pub const TCI: Range<usize> = 0..2;
    /// What follows the tag.
    pub const ETHER_TYPE: Range<usize> = 2..4;
}

/// The 16 bits of a tag that are not its TPID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tci(pub u16);

impl Tci {
    /// The VLAN id, 0 to 4095; 0 means "priority only", 4095 is reserved.
    #[inline]
    pub fn vlan_id(self) -> u16 {
        self.0 & 0x0fff
    }

    /// The priority code point, 0 to 7.
    #[inline]
    pub fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Drop eligible.
    #[inline]
    pub fn drop_eligible(self) -> bool {
        self.0 & 0x1000 != 0
    }
}

/// A borrowed tag, seen from the byte behind its TPID (as an Ethernet header's payload shows it).
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The tag at the front of `bytes`, which follow a TPID.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        at_least(bytes, TAG_BYTES, "VLAN tag").map(Self)
    }

    /// Priority, drop eligibility and VLAN id.
    #[inline]
    pub fn tci(&self) -> Tci {
        Tci(be16(self.0, field::TCI.start))
    }

    /// What follows the tag.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        EtherType(be16(self.0, field::ETHER_TYPE.start))
    }

    /// The bytes behind the tag.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[TAG_BYTES..]
    }
}

/// A tag as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Priority, drop eligibility and VLAN id.
    pub tci: Tci,
    /// What follows.
    pub ether_type: EtherType,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self { tci: view.tci(), ether_type: view.ether_type() }
    }

    /// Writes the tag, without its TPID, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[field::TCI].copy_from_slice(&self.tci.0.to_be_bytes());
        out[field::ETHER_TYPE].copy_from_slice(&self.ether_type.0.to_be_bytes());
    }
}

/// The EtherType and the offset of what lies behind the Ethernet header of `frame` and at most [`MAX_TAGS`] tags.
/// A third tag is returned as the EtherType it is.
///
/// # Errors
/// [`Error::Truncated`].
pub fn skip_tags(frame: &[u8]) -> Result<(EtherType, usize), Error> {
    let mut ether_type = ethernet::View::new(frame)?.ether_type();
    let mut offset = ethernet::HEADER_BYTES;
    for _ in 0..MAX_TAGS {
        if !ether_type.is_tag() {
            break;
        }
        ether_type = View::new(&frame[offset..])?.ether_type();
        offset += TAG_BYTES;
    }
    Ok((ether_type, offset))
}

/// Pushes a tag onto a frame whose first [`TAG_BYTES`] bytes are free (the Ethernet header starts behind them).
///
/// # Panics
/// If `frame` is shorter than a tag and an Ethernet header.
#[inline]
pub fn push_front(frame: &mut [u8], tpid: EtherType, tci: Tci) {
    frame.copy_within(TAG_BYTES..TAG_BYTES + 2 * MacAddr::BYTES, 0);
    frame[12..14].copy_from_slice(&tpid.0.to_be_bytes());
    frame[14..16].copy_from_slice(&tci.0.to_be_bytes());
}

/// Undoes [`push_front`]: the addresses move back by a tag, and the first [`TAG_BYTES`] bytes are free again.
///
/// # Panics
/// If `frame` is shorter than a tag and an Ethernet header.
#[inline]
pub fn pop_front(frame: &mut [u8]) {
    frame.copy_within(0..2 * MacAddr::BYTES, TAG_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_tag_returns_it(tci: u16, ether_type: u16) {
            let repr = Repr { tci: Tci(tci), ether_type: EtherType(ether_type) };
            let mut bytes = [0; TAG_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }

        #[test]
        fn popping_a_pushed_tag_restores_the_frame(tci: u16, frame in proptest::collection::vec(any::<u8>(), 14..64)) {
            let mut room = vec![0; TAG_BYTES];
            room.extend_from_slice(&frame);
            push_front(&mut room, EtherType::VLAN, Tci(tci));
            prop_assert_eq!(&room[..12], &frame[..12]);
            prop_assert_eq!(ethernet::View::new(&room).unwrap().ether_type(), EtherType::VLAN);
            prop_assert_eq!(View::new(&room[14..]).unwrap().tci(), Tci(tci));
            prop_assert_eq!(&room[16..], &frame[12..]);
            pop_front(&mut room);
            prop_assert_eq!(&room[TAG_BYTES..], &frame[..]);
        }

        #[test]
        fn skip_tags_of_any_bytes_stays_inside(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok((_, offset)) = skip_tags(&bytes) {
                prop_assert!(offset <= bytes.len());
            }
        }
    }

    #[test]
    fn tci_parts_are_read_from_their_bits() {
        let tci = Tci(0b1011_0000_0000_0111);
        assert_eq!((tci.priority(), tci.drop_eligible(), tci.vlan_id()), (5, true, 7));
    }

    #[test]
    fn skip_tags_stops_behind_two() {
        let mut frame = vec![0; 12];
        for _ in 0..3 {
            frame.extend_from_slice(&[0x81, 0x00, 0, 1]);
        }
        frame.extend_from_slice(&[0x08, 0x00]);
        assert_eq!(skip_tags(&frame).unwrap(), (EtherType::VLAN, 22));
    }
}
