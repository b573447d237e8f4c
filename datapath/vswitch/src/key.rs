//! By what is a frame classified, and which bits of it did the pipeline look at?
//!
//! A [`FlowKey`] is all that the switch ever looks at in a frame, in eight words, one cache line. Stages do not read it:
//! they ask a [`View`], which records each bit that it gives out. The record is the [`Mask`] under which the decision
//! holds for other frames; no stage writes one by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::MacAddr;

/// Words of a key.
pub(crate) const WORDS: usize = 8;

/// What a frame is classified by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct FlowKey(pub(crate) [u64; WORDS]);

/// Bits of a key: those set are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mask(pub(crate) [u64; WORDS]);

/// Where a value of up to 64 bits lies in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) word: usize,
    shift: u32,
    bits: u32,
}

impl Field {
    const fn new(word: usize, shift: u32, bits: u32) -> Self {
        Self { word, shift, bits }
    }

    /// All its bits, at the low end.
    pub(crate) const fn ones(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// `value` where it belongs in the word.
    #[inline]
    pub(crate) const fn place(self, value: u64) -> u64 {
        (value & self.ones()) << self.shift
    }

    pub(crate) const fn read(self, words: &[u64; WORDS]) -> u64 {
        words[self.word] >> self.shift & self.ones()
    }

    /// The port that the frame came in by.
    pub(crate) const IN_PORT: Field = Field::new(0, 48, 16);
    /// The outer tag: [`TAGGED`] and the VLAN id, or 0. Priority and DEI are no part of the key.
    pub(crate) const TAG: Field = Field::new(0, 32, 16);
    /// The EtherType behind the outer tag; 0 for IEEE 802.3 frames, which have a length there.
    pub(crate) const ETHER_TYPE: Field = Field::new(0, 16, 16);
    /// The IP protocol behind IPv6's extension headers.
    pub(crate) const PROTOCOL: Field = Field::new(0, 8, 8);
    /// What the headers showed: bits of [`class`].
    pub(crate) const CLASS: Field = Field::new(0, 0, 8);
    pub(crate) const DESTINATION_MAC: Field = Field::new(1, 16, 48);
    /// The transport's source port; ICMP's type; ARP's operation.
    pub(crate) const SOURCE_PORT: Field = Field::new(1, 0, 16);
    pub(crate) const SOURCE_MAC: Field = Field::new(2, 16, 48);
    /// The transport's destination port; ICMP's code.
    pub(crate) const DESTINATION_PORT: Field = Field::new(2, 0, 16);
    /// IPv4 addresses are mapped (RFC 4291 §2.5.5.2). ARP: the sender's.
    pub(crate) const SOURCE_IP: [Field; 2] = [Field::new(3, 0, 64), Field::new(4, 0, 64)];
    /// ARP: the target's.
    pub(crate) const DESTINATION_IP: [Field; 2] = [Field::new(5, 0, 64), Field::new(6, 0, 64)];
    /// ARP: the MAC address that the sender claims.
    pub(crate) const CLAIMED_MAC: Field = Field::new(7, 16, 48);
    /// Frames out of a tunnel, whose port has no security that would ask for the claim: the node that they come from.
    pub(crate) const NODE: Field = Field::CLAIMED_MAC;
    /// Not of the frame: the number of the mask that a masked key belongs to (see [`crate::cache`]).
    pub(crate) const MASK_NUMBER: Field = Field::new(7, 0, 16);
}

/// In [`Field::TAG`]: there is a tag.
pub(crate) const TAGGED: u64 = 0x1000;

/// Bits of [`Field::CLASS`].
pub(crate) mod class {
    /// A fragment of an IP packet.
    pub(crate) const FRAGMENT: u64 = 1;
    /// Not the first fragment: there are no ports.
    pub(crate) const LATER_FRAGMENT: u64 = 2;
    /// The transport's ports, or ICMP's type and code, are known.
    pub(crate) const TRANSPORT: u64 = 4;
    /// Neighbour discovery (RFC 4861).
    pub(crate) const NEIGHBOR: u64 = 8;
    /// The IPv6 extension headers go on behind the head.
    pub(crate) const HIDDEN: u64 = 16;
    /// ARP for IPv4 over Ethernet.
    pub(crate) const ARP: u64 = 32;
}

impl FlowKey {
    pub(crate) fn get(&self, field: Field) -> u64 {
        field.read(&self.0)
    }

    /// An IPv4 address where it belongs in the second word of an address field.
    #[inline]
    pub(crate) fn mapped(v4: u32) -> u64 {
        0xffff << 32 | u64::from(v4)
    }
}

impl Mask {
    /// The key with only the bits of this mask.
    #[inline]
    pub(crate) fn apply(&self, key: &FlowKey) -> FlowKey {
        let mut masked = *key;
        for (word, bits) in masked.0.iter_mut().zip(self.0) {
            *word &= bits;
        }
        masked
    }
}

/// A MAC address from its field.
pub(crate) fn mac(value: u64) -> MacAddr {
    let [_, _, bytes @ ..] = value.to_be_bytes();
    MacAddr(bytes)
}

/// An IP address from the two words of its field.
pub(crate) fn ip(high: u64, low: u64) -> IpAddr {
    let v6 = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
    match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(v6),
    }
}

/// A key that remembers which of its bits were asked for.
#[derive(Debug)]
pub(crate) struct View<'a> {
    key: &'a FlowKey,
    mask: Mask,
}

impl<'a> View<'a> {
    /// A view of `key`. The port counts as looked at: caches are kept per port.
    pub(crate) fn new(key: &'a FlowKey) -> Self {
        let mut view = Self { key, mask: Mask::default() };
        view.get(Field::IN_PORT);
        view
    }

    /// The bits asked for so far.
    pub(crate) fn mask(&self) -> Mask {
        self.mask
    }

    /// The whole field.
    pub(crate) fn get(&mut self, field: Field) -> u64 {
        self.bits(field, field.ones())
    }

    /// The field's bits that are set in `bits`; the others are 0 and not looked at.
    pub(crate) fn bits(&mut self, field: Field, bits: u64) -> u64 {
        self.mask.0[field.word] |= field.place(bits);
        self.key.get(field) & bits
    }

    /// True if one of the bits `class` is set.
    pub(crate) fn is(&mut self, class: u64) -> bool {
        self.bits(Field::CLASS, class) != 0
    }

    pub(crate) fn source_mac(&mut self) -> MacAddr {
        mac(self.get(Field::SOURCE_MAC))
    }

    pub(crate) fn destination_mac(&mut self) -> MacAddr {
        mac(self.get(Field::DESTINATION_MAC))
    }

    /// The source address of an IPv4 packet, or the sender's of an ARP one.
    pub(crate) fn source_v4(&mut self) -> Ipv4Addr {
        // The bits that say "mapped" follow from the EtherType, which the caller has asked for.
        Ipv4Addr::from(self.bits(Field::SOURCE_IP[1], 0xffff_ffff) as u32)
    }

    /// The source address of an IPv6 packet.
    pub(crate) fn source_v6(&mut self) -> Ipv6Addr {
        let [high, low] = Field::SOURCE_IP.map(|field| u128::from(self.get(field)));
        Ipv6Addr::from(high << 64 | low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_records_the_bits_that_were_asked_for_and_no_others() {
        let key = FlowKey([u64::MAX; WORDS]);
        let mut view = View::new(&key);
        assert_eq!(view.bits(Field::DESTINATION_MAC, 1 << 40), 1 << 40);
        assert!(view.is(class::ARP));
        let mut wanted = [0; WORDS];
        wanted[0] = 0xffff << 48 | class::ARP;
        wanted[1] = 1 << 56;
        assert_eq!(view.mask(), Mask(wanted));
    }

    #[test]
    fn no_two_fields_overlap() {
        let mut seen = [0u64; WORDS];
        let [a, b] = Field::SOURCE_IP;
        let [c, d] = Field::DESTINATION_IP;
        for field in [
            Field::IN_PORT,
            Field::TAG,
            Field::ETHER_TYPE,
            Field::PROTOCOL,
            Field::CLASS,
            Field::DESTINATION_MAC,
            Field::SOURCE_PORT,
            Field::SOURCE_MAC,
            Field::DESTINATION_PORT,
            a,
            b,
            c,
            d,
            Field::CLAIMED_MAC,
            Field::MASK_NUMBER,
        ] {
            assert_eq!(seen[field.word] & field.place(u64::MAX), 0, "{field:?}");
            seen[field.word] |= field.place(u64::MAX);
        }
    }

    #[test]
    fn addresses_survive_their_fields() {
        assert_eq!(mac(0x0200_0000_0001).to_string(), "02:00:00:00:00:01");
        assert_eq!(ip(0, FlowKey::mapped(0x0a00_0001)).to_string(), "10.0.0.1");
        assert_eq!(ip(0xfe80 << 48, 1).to_string(), "fe80::1");
    }
}
