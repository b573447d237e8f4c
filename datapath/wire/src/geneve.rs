//! The Geneve header (RFC 8926 §3.4), behind UDP.

use crate::Error;
use crate::error::{at_least, be16};
use crate::ethernet::EtherType;

/// Bytes of the header without options.
pub const HEADER_BYTES: usize = 8;
/// The UDP destination port (RFC 8926 §3.3).
pub const PORT: u16 = 6081;
/// The largest virtual network identifier.
pub const MAX_VNI: u32 = (1 << 24) - 1;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Version, and the options' length in units of four bytes.
    pub const VERSION_OPTIONS: usize = 0;
    /// Control and critical bits.
    pub const FLAGS: usize = 1;
    /// The EtherType of what is inside; [`super::ETHERNET`] for a frame.
    pub const PROTOCOL: Range<usize> = 2..4;
    /// Virtual network identifier.
    pub const VNI: Range<usize> = 4..7;
}

/// "Transparent Ethernet bridging": a frame is inside.
pub const ETHERNET: EtherType = EtherType(0x6558);

const CONTROL: u8 = 0x80;
const CRITICAL: u8 = 0x40;

/// A borrowed header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`], also if the options are not all there; [`Error::Malformed`] for a version that is not 0.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let view = Self(at_least(bytes, HEADER_BYTES, "Geneve header")?);
        if bytes[field::VERSION_OPTIONS] >> 6 != 0 {
            return Err(Error::Malformed("the Geneve version is not 0"));
        }
        at_least(bytes, view.header_len(), "Geneve options")?;
        Ok(view)
    }

    /// Bytes of the header and its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_BYTES + usize::from(self.0[field::VERSION_OPTIONS] & 0x3f) * 4
    }

    /// True for a message between tunnel endpoints, which is no packet of the network.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.0[field::FLAGS] & CONTROL != 0
    }

    /// True if some option must be understood or the packet dropped.
    #[inline]
    pub fn is_critical(&self) -> bool {
        self.0[field::FLAGS] & CRITICAL != 0
    }

    /// What is inside.
    #[inline]
    pub fn protocol(&self) -> EtherType {
        EtherType(be16(self.0, field::PROTOCOL.start))
    }

    /// Virtual network identifier.
    #[inline]
    pub fn vni(&self) -> u32 {
        let [a, b, c] = [0, 1, 2].map(|byte| self.0[field::VNI.start + byte]);
        u32::from_be_bytes([0, a, b, c])
    }

    /// The options.
    pub fn options(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..self.header_len()]
    }
}

/// The header of a frame, without options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Virtual network identifier, up to [`MAX_VNI`]; higher bits are cut off.
    pub vni: u32,
}

impl Repr {
    /// Writes the header to the front of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than [`HEADER_BYTES`].
    #[inline]
    pub fn emit(&self, out: &mut [u8]) {
        out[..HEADER_BYTES].fill(0);
        out[field::PROTOCOL].copy_from_slice(&ETHERNET.0.to_be_bytes());
        out[field::VNI].copy_from_slice(&self.vni.to_be_bytes()[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_emitted_header_reads_as_its_values(vni in 0..=MAX_VNI) {
            let mut bytes = [0xff; HEADER_BYTES];
            Repr { vni }.emit(&mut bytes);
            let view = View::new(&bytes).unwrap();
            prop_assert_eq!((view.vni(), view.protocol(), view.header_len()), (vni, ETHERNET, HEADER_BYTES));
            prop_assert!(!view.is_control() && !view.is_critical() && view.options().is_empty());
        }

        #[test]
        fn any_bytes_give_a_header_inside_them_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(view) = View::new(&bytes) {
                prop_assert!(view.header_len() <= bytes.len() && view.vni() <= MAX_VNI);
                prop_assert_eq!(view.options().len() + HEADER_BYTES, view.header_len());
            }
        }
    }

    #[test]
    fn a_header_of_another_version_or_with_options_cut_off_is_refused() {
        assert!(matches!(View::new(&[0x40, 0, 0x65, 0x58, 0, 0, 1, 0]), Err(Error::Malformed(_))));
        assert!(matches!(View::new(&[0x01, 0, 0x65, 0x58, 0, 0, 1, 0]), Err(Error::Truncated(_))));
    }
}
