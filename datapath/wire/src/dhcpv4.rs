//! DHCP for IPv4: the message (RFC 2131 §2) and its options (RFC 2132).

use std::net::Ipv4Addr;

use crate::error::{array, at_least, be16};
use crate::writer::Writer;
use crate::{Error, MacAddr};

/// The client's UDP port.
pub const CLIENT_PORT: u16 = 68;
/// The server's.
pub const SERVER_PORT: u16 = 67;
/// Bytes of a message in front of its options, the cookie included.
pub const FIXED_BYTES: usize = 240;
/// The longest IP packet that every client takes (RFC 2131 §2).
pub const MIN_MAX_PACKET_BYTES: usize = 576;
/// Bytes of options that are left in such a packet for what a network says, behind all headers and what is said about the
/// client and its lease.
pub const ROOM_FOR_NETWORK_BYTES: usize = 210;
/// What options begin with (RFC 2132 §2).
pub const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Operation: from a client.
pub const REQUEST: u8 = 1;
/// Operation: to a client.
pub const REPLY: u8 = 2;
/// In the flags: answers are to be broadcast.
pub const BROADCAST: u16 = 0x8000;

/// Where the fields lie.
pub mod field {
    use std::ops::Range;
    /// [`super::REQUEST`] or [`super::REPLY`].
    pub const OPERATION: usize = 0;
    /// The hardware address' type; 1 is Ethernet.
    pub const HARDWARE_TYPE: usize = 1;
    /// Its bytes.
    pub const HARDWARE_LEN: usize = 2;
    /// Which exchange this is of: the client's choice.
    pub const XID: Range<usize> = 4..8;
    /// [`super::BROADCAST`].
    pub const FLAGS: Range<usize> = 10..12;
    /// The client's own address, if it uses it.
    pub const CLIENT: Range<usize> = 12..16;
    /// The address that the client gets.
    pub const YOURS: Range<usize> = 16..20;
    /// The relay that the message came through.
    pub const RELAY: Range<usize> = 24..28;
    /// The client's hardware address.
    pub const HARDWARE: Range<usize> = 28..44;
    /// [`super::COOKIE`].
    pub const COOKIE: Range<usize> = 236..240;
}

/// Options, by the name of RFC 2132 if no other is told.
#[allow(missing_docs, reason = "the names are the documents'")]
pub mod option {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DOMAIN_NAME_SERVER: u8 = 6;
    pub const DOMAIN_NAME: u8 = 15;
    pub const INTERFACE_MTU: u8 = 26;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_IDENTIFIER: u8 = 54;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT_IDENTIFIER: u8 = 61;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
    /// RFC 3442.
    pub const CLASSLESS_ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// What a message is for (RFC 2132 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(pub u8);

#[allow(missing_docs, reason = "the names are RFC 2131's")]
impl MessageType {
    pub const DISCOVER: Self = Self(1);
    pub const OFFER: Self = Self(2);
    pub const REQUEST: Self = Self(3);
    pub const DECLINE: Self = Self(4);
    pub const ACK: Self = Self(5);
    pub const NAK: Self = Self(6);
    pub const RELEASE: Self = Self(7);
    pub const INFORM: Self = Self(8);
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = ["DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM"];
        match names.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.write_str(name),
            None => write!(f, "message {}", self.0),
        }
    }
}

/// A borrowed message.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The message that `bytes` are.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Malformed`] without the cookie, or for hardware that is not Ethernet.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let bytes = at_least(bytes, FIXED_BYTES, "DHCP message")?;
        if bytes[field::COOKIE] != COOKIE {
            return Err(Error::Malformed("the message has no cookie of DHCP"));
        }
        if (bytes[field::HARDWARE_TYPE], bytes[field::HARDWARE_LEN]) != (1, 6) {
            return Err(Error::Malformed("the hardware of the DHCP message is not Ethernet"));
        }
        Ok(Self(bytes))
    }

    /// [`REQUEST`] or [`REPLY`].
    pub fn operation(&self) -> u8 {
        self.0[field::OPERATION]
    }

    /// Which exchange this is of.
    pub fn xid(&self) -> [u8; 4] {
        array(self.0, field::XID.start)
    }

    /// [`BROADCAST`] and bits without a meaning.
    pub fn flags(&self) -> u16 {
        be16(self.0, field::FLAGS.start)
    }

    /// The client's own address, 0.0.0.0 if it uses none.
    pub fn client(&self) -> Ipv4Addr {
        array::<4>(self.0, field::CLIENT.start).into()
    }

    /// The address that the client gets.
    pub fn yours(&self) -> Ipv4Addr {
        array::<4>(self.0, field::YOURS.start).into()
    }

    /// The relay that it came through, 0.0.0.0 if there was none.
    pub fn relay(&self) -> Ipv4Addr {
        array::<4>(self.0, field::RELAY.start).into()
    }

    /// The client's hardware address.
    pub fn mac(&self) -> MacAddr {
        MacAddr(array(self.0, field::HARDWARE.start))
    }

    /// Its options. Those in the fields for names (option overload) are not among them.
    pub fn options(&self) -> Options<'a> {
        Options(&self.0[FIXED_BYTES..])
    }

    /// The first option of this kind.
    ///
    /// # Errors
    /// As the iterator, if a bad option comes first.
    pub fn option(&self, kind: u8) -> Result<Option<&'a [u8]>, Error> {
        for option in self.options() {
            let option = option?;
            if option.kind == kind {
                return Ok(Some(option.data));
            }
        }
        Ok(None)
    }

    /// The address that an option of this kind holds.
    ///
    /// # Errors
    /// As [`View::option`], and [`Error::Malformed`] if it is of another length.
    pub fn address(&self, kind: u8) -> Result<Option<Ipv4Addr>, Error> {
        let address = |data: &[u8]| <[u8; 4]>::try_from(data).map(Ipv4Addr::from);
        let option = self.option(kind)?.map(address).transpose();
        option.map_err(|_| Error::Malformed("the DHCP option is no address"))
    }

    /// What the message is for; `None` in one of BOOTP.
    ///
    /// # Errors
    /// As [`View::option`], and [`Error::Malformed`] if the option is not one byte.
    pub fn message_type(&self) -> Result<Option<MessageType>, Error> {
        match self.option(option::MESSAGE_TYPE)? {
            Some([kind]) => Ok(Some(MessageType(*kind))),
            Some(_) => Err(Error::Malformed("the DHCP message type is not one byte")),
            None => Ok(None),
        }
    }
}

/// One option, of which the length was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its kind: one of [`option`].
    pub kind: u8,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The options of a message, in order. Ends at the end option, with the bytes, or behind the first bad one.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let start = bytes.iter().position(|byte| *byte != option::PAD)?;
        let bytes = &bytes[start..];
        if bytes[0] == option::END {
            return None;
        }
        let found = bytes.get(1).and_then(|len| Some((len, bytes.get(2..2 + usize::from(*len))?)));
        let Some((len, data)) = found else { return Some(Err(Error::Truncated("DHCP option"))) };
        self.0 = &bytes[2 + usize::from(*len)..];
        Some(Ok(Opt { kind: bytes[0], data }))
    }
}

/// What is in front of the options, as values. The fields for names and for booting are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// [`REQUEST`] or [`REPLY`].
    pub operation: u8,
    /// Which exchange this is of.
    pub xid: [u8; 4],
    /// [`BROADCAST`].
    pub flags: u16,
    /// The client's own address.
    pub client: Ipv4Addr,
    /// The address that the client gets.
    pub yours: Ipv4Addr,
    /// The relay that it goes through.
    pub relay: Ipv4Addr,
    /// The client's hardware address.
    pub mac: MacAddr,
}

impl Repr {
    /// The values of `view`.
    pub fn parse(view: &View<'_>) -> Self {
        Self {
            operation: view.operation(),
            xid: view.xid(),
            flags: view.flags(),
            client: view.client(),
            yours: view.yours(),
            relay: view.relay(),
            mac: view.mac(),
        }
    }

    /// Writes the first [`FIXED_BYTES`] of a message to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) {
        out[..FIXED_BYTES].fill(0);
        out[field::OPERATION] = self.operation;
        out[field::HARDWARE_TYPE] = 1;
        out[field::HARDWARE_LEN] = 6;
        out[field::XID].copy_from_slice(&self.xid);
        out[field::FLAGS].copy_from_slice(&self.flags.to_be_bytes());
        out[field::CLIENT].copy_from_slice(&self.client.octets());
        out[field::YOURS].copy_from_slice(&self.yours.octets());
        out[field::RELAY].copy_from_slice(&self.relay.octets());
        out[field::HARDWARE][..6].copy_from_slice(&self.mac.0);
        out[field::COOKIE].copy_from_slice(&COOKIE);
    }
}

/// Appends an option; one of more than 255 bytes does not fit.
pub fn put_option(out: &mut Writer<'_>, kind: u8, parts: &[&[u8]]) {
    out.put_measured(parts, |len| Some([kind, len.try_into().ok()?]));
}

/// A route as an option of [`option::CLASSLESS_ROUTES`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClasslessRoute {
    /// The destination; bits behind the prefix are not looked at.
    pub to: Ipv4Addr,
    /// Its prefix length, up to 32.
    pub prefix_len: u8,
    /// The next hop; 0.0.0.0: the destination is on the link.
    pub via: Ipv4Addr,
}

impl ClasslessRoute {
    /// Appends it: the length, the bytes that it covers, and the next hop (RFC 3442).
    pub fn put(&self, out: &mut Writer<'_>) {
        let significant = usize::from(self.prefix_len.min(32)).div_ceil(8);
        let octets = self.to.octets();
        out.put(&[self.prefix_len.min(32)]).put(&octets[..significant]).put(&self.via.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Captured: what udhcpc of busybox 1.35.0 sends first, without the zeros at its end.
    fn discover() -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 0x92, 0x11, 0x4b, 0x19]);
        bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 0x0b]);
        bytes[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        bytes.extend([53, 1, 1, 57, 2, 2, 0x40, 55, 7, 1, 3, 6, 12, 15, 28, 42]);
        bytes.extend(*b"\x3c\x0cudhcp 1.35.0\x3d\x07\x01\x02\0\0\0\0\x0b\xff\0\0");
        bytes
    }

    #[test]
    fn a_clients_message_is_read() {
        let bytes = discover();
        let view = View::new(&bytes).unwrap();
        assert_eq!((view.operation(), view.xid(), view.flags()), (REQUEST, [0x92, 0x11, 0x4b, 0x19], 0));
        assert_eq!(view.mac(), MacAddr([2, 0, 0, 0, 0, 0x0b]));
        assert_eq!(view.message_type(), Ok(Some(MessageType::DISCOVER)));
        assert_eq!(view.option(option::CLIENT_IDENTIFIER), Ok(Some(&[1, 2, 0, 0, 0, 0, 0x0b][..])));
        assert_eq!(view.options().count(), 5);
        assert_eq!(view.address(option::REQUESTED_ADDRESS), Ok(None));
        assert!(view.address(option::CLIENT_IDENTIFIER).is_err(), "seven bytes are no address");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let bytes = discover();
        assert_eq!(View::new(&bytes[..239]).unwrap_err(), Error::Truncated("DHCP message"));
        for at in [1, 2, 236] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(matches!(View::new(&bytes), Err(Error::Malformed(_))), "{at}");
        }
        let mut bytes = bytes[..FIXED_BYTES].to_vec();
        assert_eq!(View::new(&bytes).unwrap().message_type(), Ok(None), "BOOTP");
        bytes.extend([53, 2, 1]);
        assert_eq!(View::new(&bytes).unwrap().message_type(), Err(Error::Truncated("DHCP option")));
        bytes.extend([1]);
        assert!(matches!(View::new(&bytes).unwrap().message_type(), Err(Error::Malformed(_))));
    }

    /// The examples of RFC 3442.
    #[test]
    fn routes_are_written_with_their_significant_octets() {
        let mut out = [0; 64];
        for (to, prefix_len, expected) in [
            ([0, 0, 0, 0], 0, &[0][..]),
            ([10, 0, 0, 0], 8, &[8, 10]),
            ([10, 0, 0, 0], 24, &[24, 10, 0, 0]),
            ([10, 17, 0, 0], 16, &[16, 10, 17]),
            ([10, 27, 129, 0], 24, &[24, 10, 27, 129]),
            ([10, 229, 0, 128], 25, &[25, 10, 229, 0, 128]),
            ([10, 198, 122, 47], 32, &[32, 10, 198, 122, 47]),
        ] {
            let mut writer = Writer::new(&mut out);
            ClasslessRoute { to: to.into(), prefix_len, via: [10, 0, 0, 1].into() }.put(&mut writer);
            assert_eq!(writer.written(), [expected, &[10, 0, 0, 1]].concat());
        }
    }

    #[test]
    fn an_option_says_its_length_and_one_that_is_too_long_does_not_fit() {
        let mut out = [0; 600];
        let mut writer = Writer::new(&mut out);
        put_option(&mut writer, option::DOMAIN_NAME_SERVER, &[&[10, 0, 0, 1], &[10, 0, 0, 2]]);
        assert_eq!(writer.written(), [6, 8, 10, 0, 0, 1, 10, 0, 0, 2]);
        put_option(&mut writer, option::DOMAIN_SEARCH, &[&[1; 256]]);
        assert_eq!(writer.finish(), None);
    }

    proptest! {
        #[test]
        fn round_trip_of_any_message_returns_it(
            operation: u8, xid: [u8; 4], flags: u16, addresses: ([u8; 4], [u8; 4], [u8; 4]), mac: [u8; 6],
        ) {
            let (client, yours, relay) = (addresses.0.into(), addresses.1.into(), addresses.2.into());
            let repr = Repr { operation, xid, flags, client, yours, relay, mac: MacAddr(mac) };
            let mut bytes = [0xaa; FIXED_BYTES];
            repr.emit(&mut bytes);
            prop_assert_eq!(Repr::parse(&View::new(&bytes).unwrap()), repr);
        }

        #[test]
        fn options_of_any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Options(&bytes).count() <= bytes.len());
        }
    }
}
