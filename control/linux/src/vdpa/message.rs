//! What do the messages of the generic netlink family `vdpa` say (`linux/vdpa.h`)?
//!
//! Unknown attributes are left out, as newer kernels have more; known ones of a wrong size make the message unreadable.

use netlink_packet_core::{
    DecodeError, Emitable, Nla, NlaBuffer, NlasIterator, ParseableParametrized, emit_u16, emit_u32, emit_u64,
    parse_mac, parse_string, parse_u16, parse_u32, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use reconcile::kernel::ManagementDevice;
use wire::MacAddr;

/// The family's name and version (`VDPA_GENL_NAME`, `VDPA_GENL_VERSION`).
pub(crate) const FAMILY: &str = "vdpa";
const VERSION: u8 = 1;

/// What is asked (`enum vdpa_command`). Answers have commands too, which mean nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command(u8);

impl Command {
    pub(crate) const GET_MANAGEMENT: Self = Self(2);
    pub(crate) const NEW_DEVICE: Self = Self(3);
    pub(crate) const DELETE_DEVICE: Self = Self(4);
    pub(crate) const GET_DEVICE: Self = Self(5);
    pub(crate) const GET_CONFIG: Self = Self(6);
}

const MGMTDEV_BUS_NAME: u16 = 1;
const MGMTDEV_DEV_NAME: u16 = 2;
const MGMTDEV_SUPPORTED_CLASSES: u16 = 3;
const DEV_NAME: u16 = 4;
const DEV_ID: u16 = 5;
const DEV_MAX_VQS: u16 = 7;
const DEV_NET_CFG_MACADDR: u16 = 10;
const DEV_NET_CFG_MTU: u16 = 13;
const DEV_MGMTDEV_MAX_VQS: u16 = 15;
const DEV_SUPPORTED_FEATURES: u16 = 16;

/// An attribute (`enum vdpa_attr`), of those that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    ManagementBus(String),
    ManagementName(String),
    SupportedClasses(u64),
    DeviceName(String),
    DeviceId(u32),
    MaxQueues(u32),
    Mac(MacAddr),
    Mtu(u16),
    ManagementMaxQueues(u32),
    SupportedFeatures(u64),
}

impl Attribute {
    /// The attribute, if it is one of those.
    fn parse(nla: &NlaBuffer<&[u8]>) -> Result<Option<Self>, DecodeError> {
        let value = nla.value();
        Ok(Some(match nla.kind() {
            MGMTDEV_BUS_NAME => Self::ManagementBus(parse_string(value)?),
            MGMTDEV_DEV_NAME => Self::ManagementName(parse_string(value)?),
            MGMTDEV_SUPPORTED_CLASSES => Self::SupportedClasses(parse_u64(value)?),
            DEV_NAME => Self::DeviceName(parse_string(value)?),
            DEV_ID => Self::DeviceId(parse_u32(value)?),
            DEV_MAX_VQS => Self::MaxQueues(parse_u32(value)?),
            DEV_NET_CFG_MACADDR => Self::Mac(MacAddr(parse_mac(value)?)),
            DEV_NET_CFG_MTU => Self::Mtu(parse_u16(value)?),
            DEV_MGMTDEV_MAX_VQS => Self::ManagementMaxQueues(parse_u32(value)?),
            DEV_SUPPORTED_FEATURES => Self::SupportedFeatures(parse_u64(value)?),
            _ => return Ok(None),
        }))
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        match self {
            // With its NUL, which the kernel reads up to.
            Self::ManagementBus(text) | Self::ManagementName(text) | Self::DeviceName(text) => text.len() + 1,
            Self::SupportedClasses(_) | Self::SupportedFeatures(_) => size_of::<u64>(),
            Self::DeviceId(_) | Self::MaxQueues(_) | Self::ManagementMaxQueues(_) => size_of::<u32>(),
            Self::Mac(mac) => mac.0.len(),
            Self::Mtu(_) => size_of::<u16>(),
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::ManagementBus(_) => MGMTDEV_BUS_NAME,
            Self::ManagementName(_) => MGMTDEV_DEV_NAME,
            Self::SupportedClasses(_) => MGMTDEV_SUPPORTED_CLASSES,
            Self::DeviceName(_) => DEV_NAME,
            Self::DeviceId(_) => DEV_ID,
            Self::MaxQueues(_) => DEV_MAX_VQS,
            Self::Mac(_) => DEV_NET_CFG_MACADDR,
            Self::Mtu(_) => DEV_NET_CFG_MTU,
            Self::ManagementMaxQueues(_) => DEV_MGMTDEV_MAX_VQS,
            Self::SupportedFeatures(_) => DEV_SUPPORTED_FEATURES,
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        // The buffer is as long as `value_len` said.
        let emitted = match self {
            Self::ManagementBus(text) | Self::ManagementName(text) | Self::DeviceName(text) => {
                buffer[..text.len()].copy_from_slice(text.as_bytes());
                buffer[text.len()] = 0;
                Ok(())
            }
            Self::SupportedClasses(number) | Self::SupportedFeatures(number) => emit_u64(buffer, *number),
            Self::DeviceId(number) | Self::MaxQueues(number) | Self::ManagementMaxQueues(number) => {
                emit_u32(buffer, *number)
            }
            Self::Mac(mac) => {
                buffer.copy_from_slice(&mac.0);
                Ok(())
            }
            Self::Mtu(number) => emit_u16(buffer, *number),
        };
        debug_assert!(emitted.is_ok(), "{self:?} is longer than it said");
    }
}

/// A message of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    command: Command,
    attributes: Vec<Attribute>,
}

impl Message {
    pub(crate) fn new(command: Command) -> Self {
        Self { command, attributes: Vec::new() }
    }

    /// With one attribute more.
    pub(crate) fn with(mut self, attribute: Attribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// About this maker of devices.
    pub(crate) fn of(self, management: &ManagementDevice) -> Self {
        let name = Attribute::ManagementName(management.name.clone());
        match &management.bus {
            Some(bus) => self.with(Attribute::ManagementBus(bus.clone())).with(name),
            None => self.with(name),
        }
    }

    /// About the device of this name.
    pub(crate) fn named(self, name: &str) -> Self {
        self.with(Attribute::DeviceName(name.to_owned()))
    }

    /// The first attribute that `pick` takes.
    pub(crate) fn find<T>(&self, pick: impl Fn(&Attribute) -> Option<T>) -> Option<T> {
        self.attributes.iter().find_map(pick)
    }

    /// The maker that it is about.
    pub(crate) fn management(&self) -> Option<ManagementDevice> {
        let bus = self.find(|attribute| match attribute {
            Attribute::ManagementBus(bus) => Some(bus.clone()),
            _ => None,
        });
        let name = self.find(|attribute| match attribute {
            Attribute::ManagementName(name) => Some(name.clone()),
            _ => None,
        });
        name.map(|name| ManagementDevice { bus, name })
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        self.command.0
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let parse = |nla: Result<NlaBuffer<&[u8]>, DecodeError>| nla.and_then(|nla| Attribute::parse(&nla));
        let attributes: Result<Vec<_>, _> = NlasIterator::new(payload).map(parse).collect();
        Ok(Self { command: Command(header.cmd), attributes: attributes?.into_iter().flatten().collect() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(payload: &[u8]) -> Result<Message, DecodeError> {
        Message::parse_with_param(payload, GenlHeader { cmd: 1, version: VERSION })
    }

    fn emit(message: &Message) -> Vec<u8> {
        let mut bytes = vec![0xff; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    /// `vdpa mgmtdev show` of a Linux 6.12 with VDUSE: what the kernel put into the message.
    #[test]
    fn parse_when_the_kernel_tells_of_vduse_reads_it() {
        let mut bytes = vec![10, 0, 2, 0];
        bytes.extend(b"vduse\0\0\0");
        bytes.extend([12, 0, 3, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        // An attribute that nobody knows yet.
        bytes.extend([8, 0, 0xfe, 0x3f, 1, 2, 3, 4]);
        bytes.extend([8, 0, 15, 0, 0, 0, 1, 0]);
        let message = parse(&bytes).unwrap();
        assert_eq!(message.management(), Some(ManagementDevice::vduse()));
        assert_eq!(
            message.attributes[1..],
            [Attribute::SupportedClasses(6), Attribute::ManagementMaxQueues(65_536)]
        );
    }

    #[test]
    fn parse_when_an_attribute_has_a_wrong_size_is_an_error() {
        assert!(parse(&[6, 0, 5, 0, 1, 0, 0, 0]).is_err(), "a u32 of two bytes");
        assert!(parse(&[200, 0, 4, 0, b'a', 0, 0, 0]).is_err(), "longer than the message");
        assert!(parse(&[3, 0, 4, 0]).is_err(), "shorter than its own head");
        assert!(parse(&[6, 0, 4, 0, 0xff, 0xfe]).is_err(), "a name that is no text");
    }

    fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            "[a-z0-9:.-]{0,40}".prop_map(Attribute::ManagementBus),
            "[a-z0-9:.-]{0,40}".prop_map(Attribute::ManagementName),
            "[a-z0-9:.-]{0,255}".prop_map(Attribute::DeviceName),
            any::<u64>().prop_map(Attribute::SupportedClasses),
            any::<u64>().prop_map(Attribute::SupportedFeatures),
            any::<u32>().prop_map(Attribute::DeviceId),
            any::<u32>().prop_map(Attribute::MaxQueues),
            any::<u32>().prop_map(Attribute::ManagementMaxQueues),
            any::<[u8; 6]>().prop_map(|mac| Attribute::Mac(MacAddr(mac))),
            any::<u16>().prop_map(Attribute::Mtu),
        ]
    }

    proptest! {
        #[test]
        fn parse_of_emit_gives_the_same(attributes in proptest::collection::vec(attribute(), 0..12)) {
            let message = Message { command: Command(1), attributes };
            prop_assert_eq!(parse(&emit(&message)).unwrap(), message);
        }

        /// Whatever the kernel, or who pretends to be it, writes: a message or an error.
        #[test]
        fn parse_of_anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        /// The same for messages that are right but for a few bytes.
        #[test]
        fn parse_of_what_is_nearly_right_ends(
            attributes in proptest::collection::vec(attribute(), 1..6),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = emit(&Message { command: Command(1), attributes });
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = parse(&bytes);
        }
    }
}
