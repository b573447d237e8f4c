//! What is a frame, before it is bytes? The reference reads this, the switch the bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::build::{self, Path};
use wire::{EtherType, MacAddr};

/// A frame as a person would tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub source: MacAddr,
    /// To whom.
    pub destination: MacAddr,
    /// Its tags, outermost first.
    pub tags: Vec<Tag>,
    /// What it carries, and who that says it is from.
    pub claim: Claim,
    /// Bytes of payload behind all headers, where there is room for one.
    pub payload_bytes: usize,
}

/// A VLAN tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// Priority, DEI and VLAN id.
    pub tci: u16,
    /// 802.1ad rather than 802.1Q.
    pub service: bool,
}

/// What a frame carries, with the sender that it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing that the switch knows.
    Nothing,
    /// UDP from this address.
    Udp(IpAddr),
    /// A DHCP client without an address.
    Dhcp,
    /// A request from this station.
    Arp(MacAddr, Ipv4Addr),
    /// A neighbour advertisement: from this address, for that one, by this station.
    Neighbor(Ipv6Addr, Ipv6Addr, MacAddr),
    /// A probe whether anybody has this address.
    Probe(Ipv6Addr),
}

impl Message {
    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let payload = vec![0; self.payload_bytes];
        let mut frame = match self.claim {
            Claim::Nothing => build::ethernet(self.source, self.destination, EtherType(0x88b5), &payload),
            Claim::Udp(source) => build::udp(self.path(source), (1000, 2000), &payload),
            Claim::Dhcp => build::udp(self.path(Ipv4Addr::UNSPECIFIED.into()), (68, 67), &payload),
            Claim::Arp(mac, ip) => build::arp_request(mac, ip, Ipv4Addr::new(10, 0, 0, 99)),
            Claim::Neighbor(source, target, mac) => {
                let mut advert = build::neighbor_advert(self.path(source.into()));
                // Behind Ethernet, IPv6 and the message's first 8 bytes; the option with the address is last.
                advert[62..78].copy_from_slice(&target.octets());
                let option = advert.len() - 6;
                advert[option..].copy_from_slice(&mac.0);
                advert
            }
            Claim::Probe(target) => build::neighbor_solicit(self.source, Ipv6Addr::UNSPECIFIED, target),
        };
        frame[..6].copy_from_slice(&self.destination.0);
        frame[6..12].copy_from_slice(&self.source.0);
        self.tags.iter().rev().fold(frame, |frame, tag| tagged(*tag, &frame))
    }

    fn path(&self, source: IpAddr) -> Path {
        let destination = match source {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, 0, 0, 99)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
        };
        Path { source_mac: self.source, destination_mac: self.destination, source, destination }
    }

    /// Bytes that count for an MTU: all but Ethernet's header and up to two tags.
    pub fn network_bytes(&self) -> usize {
        self.bytes().len() - 14 - 4 * self.tags.len().min(2)
    }
}

/// `frame` with a tag put in.
pub(crate) fn tagged(tag: Tag, frame: &[u8]) -> Vec<u8> {
    let tpid: u16 = if tag.service { 0x88a8 } else { 0x8100 };
    [&frame[..12], &tpid.to_be_bytes(), &tag.tci.to_be_bytes(), &frame[12..]].concat()
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:#06x}", if self.service { "s" } else { "" }, self.tci)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, tags, claim, payload_bytes } = self;
        write!(f, "{source} to {destination} tags {tags:?} {claim:?} +{payload_bytes}")
    }
}
