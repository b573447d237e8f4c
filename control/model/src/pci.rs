//! How is a function of a PCI card named, so that no name of one leads out of sysfs?

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Hex digits of a domain: four, and more where a host bridge makes domains of its own.
const DOMAIN_DIGITS: std::ops::RangeInclusive<usize> = 4..=8;
/// Devices of a bus, functions of a device (PCI 3.0 §6.1). A card with ARI has its further functions as further devices.
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

/// The address of a PCI function: `0000:01:10.2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Why a text is no address of a PCI function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not written like one.
    #[error(
        "{0:?} is not a PCI address: DOMAIN:BUS:DEVICE.FUNCTION in hex digits is expected, as in 0000:01:10.2"
    )]
    Shape(String),
    /// No such device or function can be on a bus.
    #[error("{0} is not a PCI address: devices go to 1f and functions to 7")]
    Range(String),
}

impl PciAddress {
    /// The number of the function within its device: that of the port, where a card has a physical function for each.
    pub fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PciAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = parse(text).ok_or_else(|| AddressError::Shape(text.to_owned()))?;
        if address.device >= DEVICES || address.function >= FUNCTIONS {
            return Err(AddressError::Range(text.to_owned()));
        }
        Ok(address)
    }
}

impl TryFrom<String> for PciAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (domain, rest) = text.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let domain = DOMAIN_DIGITS.contains(&domain.len()).then(|| hex(domain, domain.len()))??;
    let byte = |text, digits| hex(text, digits).map(|number| number as u8);
    Some(PciAddress { domain, bus: byte(bus, 2)?, device: byte(device, 2)?, function: byte(function, 1)? })
}

/// A number of just so many digits: `from_str_radix` alone would take a sign.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parse_when_written_well_gives_the_kernels_spelling() {
        for (text, spelling) in [
            ("0000:01:10.2", "0000:01:10.2"),
            ("0000:AF:1F.7", "0000:af:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
        ] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), spelling);
        }
    }

    #[test]
    fn parse_when_hostile_refuses() {
        for text in [
            "",
            "/",
            "..",
            "0000:01:10.2/..",
            "../0000:01:10.2",
            "0000:01:10.2\n",
            "0000:01:10.2 ",
            " 0000:01:10.2",
            "01:10.2",
            "0000:01:10",
            "0000:01:10.",
            "0000:1:10.2",
            "0000:01:+1.2",
            "+000:01:10.2",
            "000000001:01:10.2",
            "0000:01:10.22",
            "0000:01:10.2\0",
            "0000:01:1g.2",
            "００００:01:10.2",
        ] {
            assert_eq!(text.parse::<PciAddress>(), Err(AddressError::Shape(text.to_owned())), "{text:?}");
        }
        for text in ["0000:01:20.0", "0000:01:10.8"] {
            assert_eq!(text.parse::<PciAddress>(), Err(AddressError::Range(text.to_owned())));
        }
    }

    #[test]
    fn serde_when_written_and_read_is_the_text() {
        let address: PciAddress = "0000:01:10.2".parse().unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"0000:01:10.2\"");
        assert_eq!(serde_json::from_str::<PciAddress>("\"0000:01:10.2\"").unwrap(), address);
        assert!(serde_json::from_str::<PciAddress>("\"../x\"").is_err());
    }

    proptest! {
        #[test]
        fn parse_whatever_comes_never_leaves_a_folder(text in ".{0,20}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert!(!address.to_string().contains(['/', '\0']));
            }
        }

        #[test]
        fn parse_of_what_is_displayed_is_the_same(domain: u32, bus: u8, device in 0..DEVICES, function in 0..FUNCTIONS) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse::<PciAddress>(), Ok(address));
        }
    }
}
