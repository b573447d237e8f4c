//! DHCP for IPv6 (RFC 8415): the message between client and server, and its options.

use std::net::Ipv6Addr;

use crate::error::{array, at_least, be16, be32};
use crate::writer::Writer;
use crate::{Error, MacAddr};

/// The client's UDP port.
pub const CLIENT_PORT: u16 = 546;
/// The server's.
pub const SERVER_PORT: u16 = 547;
/// The group of all servers and relays of a link (§7.1).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// Bytes of a message in front of its options.
pub const FIXED_BYTES: usize = 4;
/// The longest DUID (§11.1).
pub const MAX_DUID_BYTES: usize = 130;
/// Bytes that an answer, or a router advertisement, has for what a network says: no more than what fits into the packet that
/// every link takes (RFC 8200 §5), behind all headers and what is said about the client.
pub const ROOM_FOR_NETWORK_BYTES: usize = 512;
/// Bytes of a [`duid_of`].
pub const LINK_LAYER_DUID_BYTES: usize = 10;
/// Bytes of an IA_NA in front of its options: its number, T1, T2 (§21.4).
pub const IA_BYTES: usize = 12;
/// Bytes of an address in an IA, in front of its options: with two lifetimes (§21.6).
pub const ADDRESS_BYTES: usize = 24;

/// Options, by their names in §24 if no other document is told.
#[allow(missing_docs, reason = "the names are the documents'")]
pub mod option {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const PREFERENCE: u16 = 7;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    /// RFC 3646.
    pub const DNS_SERVERS: u16 = 23;
    /// RFC 3646.
    pub const DOMAIN_LIST: u16 = 24;
    pub const IA_PD: u16 = 25;
}

/// Codes of a status option (§21.13).
#[allow(missing_docs, reason = "the names are the document's")]
pub mod status {
    pub const SUCCESS: u16 = 0;
    pub const NO_ADDRESSES: u16 = 2;
    pub const NOT_ON_LINK: u16 = 4;
}

/// What a message is for (§7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(pub u8);

#[allow(missing_docs, reason = "the names are the document's")]
impl MessageType {
    pub const SOLICIT: Self = Self(1);
    pub const ADVERTISE: Self = Self(2);
    pub const REQUEST: Self = Self(3);
    pub const CONFIRM: Self = Self(4);
    pub const RENEW: Self = Self(5);
    pub const REBIND: Self = Self(6);
    pub const REPLY: Self = Self(7);
    pub const RELEASE: Self = Self(8);
    pub const DECLINE: Self = Self(9);
    pub const INFORMATION_REQUEST: Self = Self(11);
}

impl std::fmt::Display for MessageType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self {
            Self::SOLICIT => "SOLICIT",
            Self::ADVERTISE => "ADVERTISE",
            Self::REQUEST => "REQUEST",
            Self::CONFIRM => "CONFIRM",
            Self::RENEW => "RENEW",
            Self::REBIND => "REBIND",
            Self::REPLY => "REPLY",
            Self::RELEASE => "RELEASE",
            Self::DECLINE => "DECLINE",
            Self::INFORMATION_REQUEST => "INFORMATION-REQUEST",
            Self(kind) => return write!(f, "message {kind}"),
        })
    }
}

/// A borrowed message of a client or to it; a relay's is another (§9).
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// The message that `bytes` are.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        at_least(bytes, FIXED_BYTES, "DHCPv6 message").map(Self)
    }

    /// What it is for.
    pub fn kind(&self) -> MessageType {
        MessageType(self.0[0])
    }

    /// Which exchange it is of: the client's choice.
    pub fn transaction(&self) -> [u8; 3] {
        array(self.0, 1)
    }

    /// Its options.
    pub fn options(&self) -> Options<'a> {
        Options(&self.0[FIXED_BYTES..])
    }
}

/// One option, of which the length was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its code: one of [`option`].
    pub code: u16,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The options of a message or of an option, in order. Ends behind the first bad one.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let header = bytes.first_chunk::<4>();
        let found = header.and_then(|header| {
            let (code, len) = (be16(header, 0), usize::from(be16(header, 2)));
            Some((code, bytes.get(4..4 + len)?))
        });
        let Some((code, data)) = found else { return Some(Err(Error::Truncated("DHCPv6 option"))) };
        self.0 = &bytes[4 + data.len()..];
        Some(Ok(Opt { code, data }))
    }
}

/// Addresses that a client asks for or gets under one number: an IA_NA (§21.4).
#[derive(Debug, Clone, Copy)]
pub struct Ia<'a>(&'a [u8]);

impl<'a> Ia<'a> {
    /// The association that the option's bytes are.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn new(data: &'a [u8]) -> Result<Self, Error> {
        at_least(data, IA_BYTES, "identity association").map(Self)
    }

    /// Its number: the client's choice.
    pub fn number(&self) -> u32 {
        be32(self.0, 0)
    }

    /// Its options.
    pub fn options(&self) -> Options<'a> {
        Options(&self.0[IA_BYTES..])
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Result<Ipv6Addr, Error>> + use<'a> {
        let address = |option: Opt<'_>| {
            let data = at_least(option.data, ADDRESS_BYTES, "address of an identity association")?;
            Ok(array::<16>(data, 0).into())
        };
        let is_address = |option: &Result<Opt<'_>, Error>| {
            option.as_ref().map_or(true, |option| option.code == option::IA_ADDRESS)
        };
        self.options().filter(is_address).map(move |option| option.and_then(address))
    }
}

/// The identifier of whoever has this Ethernet address for good: a DUID-LL (§11.4).
pub fn duid_of(mac: MacAddr) -> [u8; LINK_LAYER_DUID_BYTES] {
    let [a, b, c, d, e, f] = mac.0;
    [0, 3, 0, 1, a, b, c, d, e, f]
}

/// Appends the front of a message.
pub fn put_message(out: &mut Writer<'_>, kind: MessageType, transaction: [u8; 3]) {
    out.put(&[kind.0]).put(&transaction);
}

/// Appends an option; one of more than 65 535 bytes does not fit.
pub fn put_option(out: &mut Writer<'_>, code: u16, parts: &[&[u8]]) {
    out.put_measured(parts, |len| {
        let ([a, b], [c, d]) = (code.to_be_bytes(), u16::try_from(len).ok()?.to_be_bytes());
        Some([a, b, c, d])
    });
}

/// An option of an address with its lifetimes, in seconds.
pub fn address_option(address: Ipv6Addr, preferred_s: u32, valid_s: u32) -> [u8; 4 + ADDRESS_BYTES] {
    let mut option = [0; 4 + ADDRESS_BYTES];
    option[..4].copy_from_slice(&[0, option::IA_ADDRESS as u8, 0, ADDRESS_BYTES as u8]);
    option[4..20].copy_from_slice(&address.octets());
    option[20..24].copy_from_slice(&preferred_s.to_be_bytes());
    option[24..28].copy_from_slice(&valid_s.to_be_bytes());
    option
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Captured: what dhclient 4.4.3 sends first.
    const SOLICIT: [u8; 56] = [
        1, 0xdd, 0x48, 0x13, 0, 1, 0, 14, 0, 1, 0, 1, 0x32, 0x94, 0x93, 0xf5, 2, 0, 0, 0, 0, 0x0b, 0, 6, 0,
        8, 0, 23, 0, 24, 0, 39, 0, 31, 0, 8, 0, 2, 0, 0, 0, 3, 0, 12, 0, 0, 0, 0x0b, 0, 0, 0x0e, 0x10, 0, 0,
        0x15, 0x18,
    ];

    #[test]
    fn a_clients_message_is_read() {
        let view = View::new(&SOLICIT).unwrap();
        assert_eq!((view.kind(), view.transaction()), (MessageType::SOLICIT, [0xdd, 0x48, 0x13]));
        let options: Vec<_> = view.options().map(|option| option.unwrap()).collect();
        let codes: Vec<_> = options.iter().map(|option| option.code).collect();
        assert_eq!(codes, [option::CLIENT_ID, 6, 8, option::IA_NA]);
        let ia = Ia::new(options[3].data).unwrap();
        assert_eq!((ia.number(), ia.addresses().count()), (0x0b, 0));
    }

    #[test]
    fn what_is_cut_off_is_said() {
        assert_eq!(View::new(&[1, 2, 3]).unwrap_err(), Error::Truncated("DHCPv6 message"));
        let last = View::new(&SOLICIT[..55]).unwrap().options().last();
        assert_eq!(last, Some(Err(Error::Truncated("DHCPv6 option"))));
        assert!(Ia::new(&[0; 11]).is_err());
        let short = [&[0; 12][..], &[0, 5, 0, 4, 1, 2, 3, 4]].concat();
        assert!(Ia::new(&short).unwrap().addresses().next().unwrap().is_err());
    }

    #[test]
    fn options_are_written_as_they_are_read() {
        let address: Ipv6Addr = "fd00:1::b".parse().unwrap();
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out);
        put_message(&mut writer, MessageType::REPLY, [7, 8, 9]);
        put_option(&mut writer, option::IA_NA, &[&[0; IA_BYTES], &address_option(address, 10, 20)]);
        assert_eq!(writer.written()[..8], [7, 7, 8, 9, 0, 3, 0, 40]);
        let len = writer.finish().unwrap();
        let option = View::new(&out[..len]).unwrap().options().next().unwrap().unwrap();
        let addresses: Vec<_> = Ia::new(option.data).unwrap().addresses().collect();
        assert_eq!(addresses, [Ok(address)]);
        assert_eq!(out[len - 8..len], [0, 0, 0, 10, 0, 0, 0, 20]);
        assert_eq!(duid_of(MacAddr([2, 0, 0, 0, 0, 7])), [0, 3, 0, 1, 2, 0, 0, 0, 0, 7]);
    }

    proptest! {
        #[test]
        fn options_of_any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Options(&bytes).count() <= bytes.len() / 4 + 1);
            if let Ok(ia) = Ia::new(&bytes) {
                prop_assert!(ia.addresses().count() <= bytes.len());
            }
        }
    }
}
