//! The IPv6 header (RFC 8200 §3) and the bounded walk over its extension headers (§4).

use std::net::Ipv6Addr;

use crate::error::{array, at_least, be16, be32};
use crate::{Error, IpProtocol};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a fragment header.
pub const FRAGMENT_HEADER_BYTES: usize = 8;
/// Extension headers that [`walk`] passes over; RFC 8200 §4.1 recommends at most seven in a packet.
pub const MAX_EXTENSIONS: usize = 8;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// Version, traffic class, flow label.
    pub const VERSION_CLASS_FLOW: Range<usize> = 0..4;
    /// Bytes behind this header, extension headers included.
    pub const PAYLOAD_LEN: Range<usize> = 4..6;
    /// What follows.
    pub const NEXT_HEADER: usize = 6;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SOURCE: Range<usize> = 8..24;
    /// Destination address.
    pub const DESTINATION: Range<usize> = 24..40;
}

/// A borrowed fixed header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] for another version.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let bytes = at_least(bytes, HEADER_BYTES, "IPv6 header")?;
        if bytes[0] >> 4 != 6 {
            return Err(Error::Malformed("the IPv6 header does not have version 6"));
        }
        Ok(Self(bytes))
    }

    /// Bytes behind this header, as it claims.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        be16(self.0, field::PAYLOAD_LEN.start)
    }

    /// DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// The flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        be32(self.0, 0) & 0x000f_ffff
    }

    /// What follows: a protocol or the first extension header.
    #[inline]
    pub fn next_header(&self) -> IpProtocol {
        IpProtocol(self.0[field::NEXT_HEADER])
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0[field::HOP_LIMIT]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        array::<16>(self.0, field::SOURCE.start).into()
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        array::<16>(self.0, field::DESTINATION.start).into()
    }

    /// What of the payload is at hand, extension headers first; Ethernet padding is not part of it.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..(HEADER_BYTES + usize::from(self.payload_len())).min(self.0.len())]
    }

    /// Walks over the extension headers.
    ///
    /// # Errors
    /// As [`walk`].
    #[inline]
    pub fn walk(&self) -> Result<Upper, Error> {
        walk(self.next_header(), self.payload())
    }
}

/// What a fragment header says (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where in the datagram this fragment's payload lies, in bytes; a multiple of eight.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Which datagram it belongs to.
    pub id: u32,
}

impl Fragment {
    /// Writes a fragment header, behind which `next` follows, to the front of `out`.
    pub fn emit(&self, next: IpProtocol, out: &mut [u8]) {
        out[0] = next.0;
        out[1] = 0;
        out[2..4].copy_from_slice(&(self.offset & !7 | u16::from(self.more)).to_be_bytes());
        out[4..8].copy_from_slice(&self.id.to_be_bytes());
    }

    fn parse(header: &[u8]) -> Self {
        let offset = be16(header, 2);
        Self { offset: offset & !7, more: offset & 1 == 1, id: be32(header, 4) }
    }
}

/// What lies behind the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// The upper protocol, or the first header that cannot be passed over (ESP, an unknown one).
    pub protocol: IpProtocol,
    /// Bytes of extension headers before it.
    pub offset: usize,
    /// The fragment header, if there was one. Behind one with an offset other than 0 lies no transport header, and the
    /// walk ends there.
    pub fragment: Option<Fragment>,
}

/// Walks over the extension headers in `bytes`, the first of which is `next`. At most [`MAX_EXTENSIONS`], never beyond
/// `bytes`.
///
/// # Errors
/// [`Error::Truncated`] if `bytes` end inside an extension header; [`Error::Malformed`] for hop-by-hop options that are
/// not first, a second fragment header, or too many headers.
#[inline]
pub fn walk(next: IpProtocol, bytes: &[u8]) -> Result<Upper, Error> {
    let mut upper = Upper { protocol: next, offset: 0, fragment: None };
    for _ in 0..=MAX_EXTENSIONS {
        let here = bytes.get(upper.offset..).unwrap_or_default();
        let len = match upper.protocol {
            IpProtocol::HOP_BY_HOP if upper.offset > 0 => {
                return Err(Error::Malformed(
                    "the IPv6 hop-by-hop options are not the first extension header",
                ));
            }
            IpProtocol::HOP_BY_HOP | IpProtocol::ROUTING | IpProtocol::DESTINATION_OPTIONS => {
                (usize::from(at_least(here, 8, "IPv6 extension header")?[1]) + 1) * 8
            }
            IpProtocol::AH => (usize::from(at_least(here, 12, "IPv6 authentication header")?[1]) + 2) * 4,
            IpProtocol::FRAGMENT if upper.fragment.is_some() => {
                return Err(Error::Malformed("the IPv6 packet has two fragment headers"));
            }
            IpProtocol::FRAGMENT => {
                upper.fragment =
                    Some(Fragment::parse(at_least(here, FRAGMENT_HEADER_BYTES, "IPv6 fragment header")?));
                FRAGMENT_HEADER_BYTES
            }
            _ => return Ok(upper),
        };
        upper.protocol = IpProtocol(at_least(here, len, "IPv6 extension header")?[0]);
        upper.offset += len;
        if upper.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(upper);
        }
    }
    Err(Error::Malformed("the IPv6 packet has too many extension headers"))
}

/// The fixed header as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// What follows.
    pub next_header: IpProtocol,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label; its low 20 bits are sent.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Bytes that follow.
    pub payload_len: u16,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self {
            source: view.source(),
            destination: view.destination(),
            next_header: view.next_header(),
            traffic_class: view.traffic_class(),
            flow_label: view.flow_label(),
            hop_limit: view.hop_limit(),
            payload_len: view.payload_len(),
        }
    }

    /// Writes the header to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        out[field::VERSION_CLASS_FLOW].copy_from_slice(&first.to_be_bytes());
        out[field::PAYLOAD_LEN].copy_from_slice(&self.payload_len.to_be_bytes());
        out[field::NEXT_HEADER] = self.next_header.0;
        out[field::HOP_LIMIT] = self.hop_limit;
        out[field::SOURCE].copy_from_slice(&self.source.octets());
        out[field::DESTINATION].copy_from_slice(&self.destination.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_any_header_returns_it(
            addresses: ([u8; 16], [u8; 16]), next: u8, traffic_class: u8, flow_label in 0_u32..1 << 20, hop_limit: u8,
            payload_len: u16,
        ) {
            let repr = Repr {
                source: addresses.0.into(),
                destination: addresses.1.into(),
                next_header: IpProtocol(next),
                traffic_class,
                flow_label,
                hop_limit,
                payload_len,
            };
            let mut bytes = [0; HEADER_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }

        #[test]
        fn round_trip_of_any_fragment_header_returns_it(eights in 0_u16..1 << 13, more: bool, id: u32) {
            let fragment = Fragment { offset: eights << 3, more, id };
            let mut bytes = [0; 8];
            fragment.emit(IpProtocol::UDP, &mut bytes);
            let upper = walk(IpProtocol::FRAGMENT, &bytes).unwrap();
            prop_assert_eq!(upper, Upper { protocol: IpProtocol::UDP, offset: 8, fragment: Some(fragment) });
        }

        #[test]
        fn walk_of_any_bytes_stays_inside(next: u8, bytes in vec(prop_oneof![Just(0_u8), Just(43), Just(44), Just(60), any::<u8>()], 0..120)) {
            if let Ok(upper) = walk(IpProtocol(next), &bytes) {
                prop_assert!(upper.offset <= bytes.len());
            }
        }
    }

    #[test]
    fn walk_over_all_kinds_reaches_the_transport() {
        let mut bytes = vec![43, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, 8 bytes
        bytes.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // routing, 16 bytes
        bytes.extend([44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication, 12 bytes
        bytes.extend([60, 0, 0, 1, 0, 0, 0, 7]); // first fragment
        bytes.extend([6, 0, 0, 0, 0, 0, 0, 0]); // destination options
        let upper = walk(IpProtocol::HOP_BY_HOP, &bytes).unwrap();
        let fragment = Some(Fragment { offset: 0, more: true, id: 7 });
        assert_eq!(upper, Upper { protocol: IpProtocol::TCP, offset: 52, fragment });
    }

    #[test]
    fn walk_ends_at_a_later_fragment() {
        let bytes = [60, 0, 0, 8, 0, 0, 0, 7, 6, 0, 0, 0, 0, 0, 0, 0];
        let upper = walk(IpProtocol::FRAGMENT, &bytes).unwrap();
        assert_eq!((upper.protocol, upper.offset), (IpProtocol::DESTINATION_OPTIONS, 8));
    }

    #[test]
    fn walk_over_hop_by_hop_in_the_middle_is_malformed() {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(walk(IpProtocol::ROUTING, &bytes), Err(Error::Malformed(_))));
    }

    #[test]
    fn walk_over_endless_headers_is_malformed() {
        let bytes = [60, 0, 0, 0, 0, 0, 0, 0].repeat(32);
        assert!(matches!(walk(IpProtocol::DESTINATION_OPTIONS, &bytes), Err(Error::Malformed(_))));
    }
}
