//! The 48-bit station address (IEEE 802-2014 §8).

use std::fmt;
use std::str::FromStr;

/// A MAC address, in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

/// Why a text is no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six groups.
    #[error(
        "{0:?} is not a MAC address: six pairs of hex digits with colons are expected, as in 02:00:00:00:00:01"
    )]
    Shape(String),
}

impl MacAddr {
    /// Bytes of an address.
    pub const BYTES: usize = 6;
    /// All stations.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// True for a group address, broadcast included.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// True for 00:00:00:00:00:00.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// True for an address that one station may have.
    pub fn is_unicast(self) -> bool {
        !self.is_group() && !self.is_zero()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let shape = || MacError::Shape(text.to_owned());
        let mut bytes = [0; 6];
        let mut groups = text.split([':', '-']);
        for byte in &mut bytes {
            let group = groups.next().ok_or_else(shape)?;
            if group.len() != 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(shape());
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| shape())?;
        }
        if groups.next().is_some() { Err(shape()) } else { Ok(Self(bytes)) }
    }
}

impl serde::Serialize for MacAddr {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MacAddr {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
