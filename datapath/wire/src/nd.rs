//! Neighbour discovery (RFC 4861): the ICMPv6 messages that say who is where, and their options.

use std::net::Ipv6Addr;

use crate::error::{array, at_least};
use crate::{Error, MacAddr, icmpv6};

/// Asks routers to advertise themselves.
pub const ROUTER_SOLICIT: u8 = 133;
/// A router's advertisement.
pub const ROUTER_ADVERT: u8 = 134;
/// Asks who has an address.
pub const NEIGHBOR_SOLICIT: u8 = 135;
/// Says who has it.
pub const NEIGHBOR_ADVERT: u8 = 136;
/// A better first hop.
pub const REDIRECT: u8 = 137;
/// Option: the sender's link-layer address.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// Option: the target's link-layer address.
pub const TARGET_LINK_LAYER: u8 = 2;

/// In a neighbour advertisement: the sender is a router.
pub const FLAG_ROUTER: u8 = 0x80;
/// In a neighbour advertisement: answers a solicitation.
pub const FLAG_SOLICITED: u8 = 0x40;
/// In a neighbour advertisement: replaces what the receiver knows.
pub const FLAG_OVERRIDE: u8 = 0x20;

/// Bytes of an option that carries a MAC address.
pub const LINK_LAYER_OPTION_BYTES: usize = 8;
/// Bytes of a neighbour solicitation or advertisement without options.
pub const NEIGHBOR_BYTES: usize = icmpv6::HEADER_BYTES + 16;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A host looks for routers (§4.1).
    RouterSolicit,
    /// A router speaks (§4.2).
    RouterAdvert,
    /// A node looks for `target` (§4.3).
    NeighborSolicit {
        /// The address looked for.
        target: Ipv6Addr,
    },
    /// A node claims `target` (§4.4).
    NeighborAdvert {
        /// The address claimed.
        target: Ipv6Addr,
        /// [`FLAG_ROUTER`], [`FLAG_SOLICITED`], [`FLAG_OVERRIDE`].
        flags: u8,
    },
    /// A router names a better first hop (§4.5).
    Redirect {
        /// The better first hop.
        target: Ipv6Addr,
        /// The destination it is better for.
        destination: Ipv6Addr,
    },
}

impl Message {
    /// The message that the ICMPv6 packet `packet` (from its type on) carries, with its options; `None` if it is not
    /// neighbour discovery.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn parse(packet: &[u8]) -> Result<Option<(Self, Options<'_>)>, Error> {
        let header = icmpv6::View::new(packet)?;
        let body = header.payload();
        let need = |len: usize| at_least(body, len, "neighbour discovery message");
        let (message, fixed) = match header.kind() {
            ROUTER_SOLICIT => (Self::RouterSolicit, 0),
            ROUTER_ADVERT => (Self::RouterAdvert, 8),
            NEIGHBOR_SOLICIT => (Self::NeighborSolicit { target: address(need(16)?, 0) }, 16),
            NEIGHBOR_ADVERT => {
                (Self::NeighborAdvert { target: address(need(16)?, 0), flags: header.rest()[0] }, 16)
            }
            REDIRECT => {
                let body = need(32)?;
                (Self::Redirect { target: address(body, 0), destination: address(body, 16) }, 32)
            }
            _ => return Ok(None),
        };
        Ok(Some((message, Options(&need(fixed)?[fixed..]))))
    }
}

fn address(bytes: &[u8], at: usize) -> Ipv6Addr {
    array::<16>(bytes, at).into()
}

/// One option, of which the length was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its type.
    pub kind: u8,
    /// Its bytes behind type and length.
    pub data: &'a [u8],
}

impl Opt<'_> {
    /// The MAC address of a link-layer option of Ethernet's length.
    pub fn mac(&self) -> Option<MacAddr> {
        let is_link_layer = matches!(self.kind, SOURCE_LINK_LAYER | TARGET_LINK_LAYER);
        (is_link_layer && self.data.len() == 6).then(|| MacAddr(array(self.data, 0)))
    }
}

/// The options of a message, in order. Ends behind the first bad one.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// The MAC address in the first option of this kind.
    ///
    /// # Errors
    /// As the iterator, if a bad option comes first.
    pub fn find_mac(self, kind: u8) -> Result<Option<MacAddr>, Error> {
        for option in self {
            let option = option?;
            if option.kind == kind && option.mac().is_some() {
                return Ok(option.mac());
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Error>;

    /// The next option, [`Error::Malformed`] for one of length 0 (§4.6: the packet must be discarded), or
    /// [`Error::Truncated`].
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let [kind, eights, ..] = *bytes else {
            return Some(Err(Error::Truncated("neighbour discovery option")));
        };
        let len = usize::from(eights) * 8;
        if len == 0 {
            return Some(Err(Error::Malformed("a neighbour discovery option has length 0")));
        }
        if bytes.len() < len {
            return Some(Err(Error::Truncated("neighbour discovery option")));
        }
        self.0 = &bytes[len..];
        Some(Ok(Opt { kind, data: &bytes[2..len] }))
    }
}

/// A neighbour solicitation or advertisement as values, with the one link-layer option that it usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// [`NEIGHBOR_SOLICIT`] or [`NEIGHBOR_ADVERT`].
    pub kind: u8,
    /// An advertisement's flags.
    pub flags: u8,
    /// The address looked for or claimed.
    pub target: Ipv6Addr,
    /// The MAC address in the option: the source's in a solicitation, the target's in an advertisement.
    pub mac: Option<MacAddr>,
}

impl Repr {
    /// Bytes of the message.
    pub fn message_len(&self) -> usize {
        NEIGHBOR_BYTES + if self.mac.is_some() { LINK_LAYER_OPTION_BYTES } else { 0 }
    }

    /// Writes the message, with a checksum of 0, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        icmpv6::Repr { kind: self.kind, code: 0, rest: [self.flags, 0, 0, 0] }.emit(out);
        out[icmpv6::HEADER_BYTES..NEIGHBOR_BYTES].copy_from_slice(&self.target.octets());
        if let Some(mac) = self.mac {
            let option = if self.kind == NEIGHBOR_SOLICIT { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
            out[NEIGHBOR_BYTES] = option;
            out[NEIGHBOR_BYTES + 1] = 1;
            out[NEIGHBOR_BYTES + 2..NEIGHBOR_BYTES + 8].copy_from_slice(&mac.0);
        }
    }
}

/// The multicast group that an address's owner listens on (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    group.into()
}

/// The MAC address of an IPv6 multicast group (RFC 2464 §7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip_of_an_advertisement_returns_it(target: [u8; 16], flags: u8, mac: Option<[u8; 6]>) {
            let repr = Repr { kind: NEIGHBOR_ADVERT, flags, target: target.into(), mac: mac.map(MacAddr) };
            let mut bytes = vec![0; repr.message_len()];
            repr.emit(&mut bytes);
            let (message, options) = Message::parse(&bytes).unwrap().unwrap();
            prop_assert_eq!(message, Message::NeighborAdvert { target: target.into(), flags });
            prop_assert_eq!(options.find_mac(TARGET_LINK_LAYER).unwrap(), mac.map(MacAddr));
        }

        #[test]
        fn parse_of_any_bytes_never_panics_and_options_end(
            kind in 130_u8..140, mut bytes in proptest::collection::vec(any::<u8>(), 1..120),
        ) {
            bytes[0] = kind;
            if let Ok(Some((_, options))) = Message::parse(&bytes) {
                prop_assert!(options.count() <= 16);
            }
        }
    }

    #[test]
    fn options_of_length_zero_end_with_an_error() {
        let mut options = Options(&[1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(options.next(), Some(Err(Error::Malformed(_)))));
        assert!(options.next().is_none());
    }

    #[test]
    fn groups_are_derived_from_the_address() {
        let group = solicited_node("2001:db8::1:2:3".parse().unwrap());
        assert_eq!(group, "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
        assert_eq!(multicast_mac(group), MacAddr([0x33, 0x33, 0xff, 0x02, 0, 3]));
    }
}
