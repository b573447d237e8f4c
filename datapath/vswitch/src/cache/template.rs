//! Is a frame like those before it, as far as anybody would look? Its first bytes tell, without parsing them.
//!
//! A [`Template`] is made of one frame that a megaflow answered. It holds the frame's first bytes under a mask of all bits
//! that either the parser goes by (types, versions, header lengths, fragment fields) or the megaflow's own mask names.
//! A frame that agrees in them, and whose length fields fit, parses without an error to a key that the same megaflow
//! answers: `tests::a_frame_that_matches_a_template_parses_to_the_same_masked_key` states it.
//!
//! Only the shapes that traffic has are described: TCP and UDP in whole IPv4 packets without options and IPv6 packets
//! without extension headers, with one tag or none. All others are parsed.

use frame::PEEK_BYTES;
use wire::{EtherType, IpProtocol, ipv4, ipv6};

use crate::key::{Field, Mask, class};
use crate::parse::Packet;

/// Words of the bytes that are compared.
const WORDS: usize = PEEK_BYTES / 8;

/// The bytes that frames of one kind share. See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Template {
    bytes: [u64; WORDS],
    mask: [u64; WORDS],
    /// Where IP's length field lies, and what is added to it to have the packet's end in the frame.
    ip_length: LengthField,
    /// The same for UDP's; IP's again where there is none.
    transport_length: LengthField,
    /// Where the transport's payload starts: no frame is shorter.
    payload_at: usize,
    /// The longest frame that is answered alike: the output's MTU allows no more.
    max_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct LengthField {
    at: usize,
    base: usize,
}

impl LengthField {
    /// Where the part that the field speaks of ends in the frame.
    #[inline(always)]
    fn end(self, bytes: &[u8; PEEK_BYTES]) -> usize {
        // `at` is below PEEK_BYTES - 1 (`Sketch::length`); the remainder tells the compiler so.
        let at = self.at % (PEEK_BYTES - 1);
        usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])) + self.base
    }
}

impl Template {
    /// The template of the frame whose first bytes are `bytes`, which was parsed to `packet` and answered under `mask`;
    /// `None` for a shape that is not described. `mtu_bytes` is that of the port it leaves by.
    pub(crate) fn new(
        bytes: &[u8; PEEK_BYTES],
        packet: &Packet,
        mask: &Mask,
        mtu_bytes: u32,
    ) -> Option<Template> {
        let key = &packet.key;
        // With ports and no other peculiarity.
        if key.get(Field::CLASS) != class::TRANSPORT {
            return None;
        }
        let link_bytes = usize::from(packet.link_bytes);
        let transport_at = usize::from(packet.transport_at);
        let mut sketch = Sketch { mask: [0; PEEK_BYTES] };
        sketch.fields(0, &[(Field::DESTINATION_MAC, 6), (Field::SOURCE_MAC, 6)], mask);
        // The types, and all of the tag: its priority is in no key, but leaves with the frame.
        sketch.exactly(12, link_bytes - 12);
        let ip_length = match EtherType(key.get(Field::ETHER_TYPE) as u16) {
            EtherType::IPV4 if transport_at == link_bytes + ipv4::MIN_HEADER_BYTES => {
                sketch.ipv4(link_bytes, mask);
                LengthField { at: link_bytes + 2, base: link_bytes }
            }
            EtherType::IPV6 if transport_at == link_bytes + ipv6::HEADER_BYTES => {
                sketch.ipv6(link_bytes, mask);
                LengthField { at: link_bytes + 4, base: transport_at }
            }
            _ => return None,
        };
        sketch.fields(transport_at, &[(Field::SOURCE_PORT, 2), (Field::DESTINATION_PORT, 2)], mask);
        let transport_length = match IpProtocol(key.get(Field::PROTOCOL) as u8) {
            IpProtocol::TCP => {
                // The data offset.
                sketch.mask[transport_at + 12] = 0xf0;
                ip_length
            }
            IpProtocol::UDP => LengthField { at: transport_at + 4, base: transport_at },
            _ => return None,
        };
        let mask = words(&sketch.mask);
        let shown = words(bytes);
        Some(Template {
            bytes: std::array::from_fn(|word| shown[word] & mask[word]),
            mask,
            ip_length,
            transport_length,
            payload_at: packet.payload_at(),
            max_bytes: link_bytes + mtu_bytes as usize,
        })
    }

    /// True if a frame of `frame_bytes` that begins with `bytes` is one of those.
    #[inline(always)]
    pub(crate) fn matches(&self, bytes: &[u8; PEEK_BYTES], frame_bytes: usize) -> bool {
        let shown = words(bytes);
        let differences =
            (0..WORDS).fold(0, |all, word| all | shown[word] & self.mask[word] ^ self.bytes[word]);
        let (ip_end, transport_end) = (self.ip_length.end(bytes), self.transport_length.end(bytes));
        differences == 0
            && frame_bytes <= self.max_bytes
            // Headers, then the transport's end, the packet's, and the frame's: padding may follow.
            && self.payload_at <= transport_end
            && transport_end <= ip_end
            && ip_end <= frame_bytes
    }
}

/// The bits of a template, while they are collected.
struct Sketch {
    mask: [u8; PEEK_BYTES],
}

impl Sketch {
    /// All bits of `len` bytes from `at` on.
    fn exactly(&mut self, at: usize, len: usize) {
        self.mask[at..at + len].fill(0xff);
    }

    /// The bits of fields that follow each other from `at` on, each with its length in bytes, that `mask` names.
    fn fields(&mut self, mut at: usize, fields: &[(Field, usize)], mask: &Mask) {
        for &(field, len) in fields {
            let bits = field.read(&mask.0).to_be_bytes();
            self.mask[at..at + len].copy_from_slice(&bits[bits.len() - len..]);
            at += len;
        }
    }

    /// Version, header length, fragment field, protocol; and what `mask` names of the addresses.
    fn ipv4(&mut self, at: usize, mask: &Mask) {
        self.exactly(at, 1);
        let fragment = ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET;
        self.mask[at + 6..at + 8].copy_from_slice(&fragment.to_be_bytes());
        self.exactly(at + 9, 1);
        self.fields(at + 12, &[(Field::SOURCE_IP[1], 4), (Field::DESTINATION_IP[1], 4)], mask);
    }

    /// Version, next header; and what `mask` names of the addresses.
    fn ipv6(&mut self, at: usize, mask: &Mask) {
        self.mask[at] = 0xf0;
        self.exactly(at + 6, 1);
        let [a, b] = Field::SOURCE_IP;
        let [c, d] = Field::DESTINATION_IP;
        self.fields(at + 8, &[(a, 8), (b, 8), (c, 8), (d, 8)], mask);
    }
}

#[inline(always)]
fn words(bytes: &[u8; PEEK_BYTES]) -> [u64; WORDS] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|word| u64::from_ne_bytes(chunks[word]))
}
