//! Which frames of an interface are the port's?

use std::fmt;

use super::NetdevError;

/// The most UDP ports of one port.
pub const MAX_UDP_PORTS: usize = 16;
/// The most VLANs of one port that does not take all: a filter compares them one by one.
pub const MAX_VLANS: usize = 256;

/// What a port takes from its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Every frame.
    All,
    /// Some frames; the others are the host's.
    Only {
        /// Datagrams to these UDP ports, over IPv4 and IPv6, unless they are fragments.
        udp_ports: Vec<u16>,
        /// Frames whose (outer) tag names one of these VLANs.
        vlans: Vec<u16>,
    },
}

impl Take {
    /// Refuses what no interface can give.
    pub(super) fn check(&self) -> Result<(), NetdevError> {
        let Take::Only { udp_ports, vlans } = self else { return Ok(()) };
        if udp_ports.is_empty() && vlans.is_empty() {
            return Err(NetdevError::NothingTaken);
        }
        for (what, asked, limit) in
            [("UDP ports", udp_ports.len(), MAX_UDP_PORTS), ("VLANs", vlans.len(), MAX_VLANS)]
        {
            if asked > limit {
                return Err(NetdevError::TooMany { what, asked, limit });
            }
        }
        if udp_ports.contains(&0) {
            return Err(NetdevError::UdpPort);
        }
        vlans
            .iter()
            .find(|vlan| !(1..=4094).contains(*vlan))
            .map_or(Ok(()), |vlan| Err(NetdevError::Vlan(*vlan)))
    }

    /// The UDP ports that are the port's alone.
    pub(super) fn udp_ports(&self) -> &[u16] {
        match self {
            Take::All => &[],
            Take::Only { udp_ports, .. } => udp_ports,
        }
    }

    /// True if frames to other stations than the interface itself are taken, which it has to be told to let through.
    pub(super) fn is_promiscuous(&self) -> bool {
        match self {
            Take::All => true,
            Take::Only { vlans, .. } => !vlans.is_empty(),
        }
    }
}

impl fmt::Display for Take {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Take::Only { udp_ports, vlans } = self else { return f.write_str("all frames") };
        let mut words = Vec::new();
        for (what, numbers) in [("UDP", udp_ports), ("VLAN", vlans)] {
            if !numbers.is_empty() {
                let numbers: Vec<_> = numbers.iter().map(u16::to_string).collect();
                words.push(format!("{what} {}", numbers.join(" ")));
            }
        }
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use wire::{EtherType, IpProtocol, ipv4, ipv6, udp, vlan};

    use super::*;

    pub(in crate::netdev) fn only(udp_ports: &[u16], vlans: &[u16]) -> Take {
        Take::Only { udp_ports: udp_ports.to_vec(), vlans: vlans.to_vec() }
    }

    /// What the filters are held against: whether `take` takes a frame as it was on the wire.
    pub(in crate::netdev) fn takes(take: &Take, frame: &[u8]) -> bool {
        let Take::Only { udp_ports, vlans } = take else { return true };
        is_in(vlans, frame).unwrap_or(false) || is_to(udp_ports, frame).unwrap_or(false)
    }

    fn is_in(vlans: &[u16], frame: &[u8]) -> Option<bool> {
        let ether_type = EtherType(u16::from_be_bytes(*frame.get(12..)?.first_chunk()?));
        let tag = ether_type.is_tag().then(|| vlan::View::new(&frame[14..]).ok()).flatten()?;
        Some(vlans.contains(&tag.tci().vlan_id()))
    }

    fn is_to(udp_ports: &[u16], frame: &[u8]) -> Option<bool> {
        let mut ether_type = EtherType(u16::from_be_bytes(*frame.get(12..)?.first_chunk()?));
        let mut ip = frame.get(14..)?;
        if ether_type.is_tag() {
            let tag = vlan::View::new(ip).ok()?;
            (ether_type, ip) = (tag.ether_type(), tag.payload());
        }
        let (protocol, transport) = match ether_type {
            EtherType::IPV4 => {
                let header_len = usize::from(ip.first()? & 0x0f) * 4;
                let fragment = u16::from_be_bytes(*ip.get(6..)?.first_chunk()?);
                (IpProtocol(*ip.get(9)?), if fragment & 0x3fff == 0 { ip.get(header_len..)? } else { &[] })
            }
            EtherType::IPV6 => (IpProtocol(*ip.get(6)?), ip.get(40..)?),
            _ => return None,
        };
        let port = u16::from_be_bytes(*transport.get(2..)?.first_chunk()?);
        Some(protocol == IpProtocol::UDP && udp_ports.contains(&port))
    }

    /// Frames around the edges of what is taken: right but for a byte, a tag, or their end.
    pub(in crate::netdev) fn frames() -> impl Strategy<Value = Vec<u8>> {
        let tags = vec(
            (prop_oneof![Just(0x8100_u16), Just(0x88a8)], prop_oneof![Just(7_u16), Just(8), Just(0x2007)]),
            0..3,
        );
        let port = prop_oneof![Just(6081_u16), Just(4789), Just(6082)];
        let damage = proptest::option::of((0_usize..80, any::<u8>()));
        let cut = proptest::option::of(0_usize..90);
        (tags, any::<bool>(), 0_usize..=10, port, damage, cut).prop_map(
            |(tags, v6, words, port, damage, cut)| {
                let mut frame = datagram(&tags, v6, words, port);
                if let Some((at, value)) = damage {
                    frame[at.min(20 + words)] = value;
                }
                frame.truncate(cut.unwrap_or(frame.len()));
                frame
            },
        )
    }

    pub(in crate::netdev) fn datagram(
        tags: &[(u16, u16)],
        v6: bool,
        option_words: usize,
        port: u16,
    ) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for (tpid, tci) in tags {
            frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        let mut datagram = vec![0; udp::HEADER_BYTES];
        udp::Repr { source_port: 9, destination_port: port, payload_len: 12 }.emit(&mut datagram);
        datagram.extend([7; 12]);
        let payload_len = datagram.len() as u16;
        let mut ip = vec![0; if v6 { 40 } else { 20 + option_words * 4 }];
        if v6 {
            let (source, destination) = ([1; 16].into(), [2; 16].into());
            let next_header = IpProtocol::UDP;
            ipv6::Repr {
                source,
                destination,
                next_header,
                traffic_class: 0,
                flow_label: 0,
                hop_limit: 9,
                payload_len,
            }
            .emit(&mut ip);
        } else {
            let (source, destination) = ([1; 4].into(), [2; 4].into());
            let options = &vec![1; option_words * 4];
            let protocol = IpProtocol::UDP;
            ipv4::Repr {
                source,
                destination,
                protocol,
                tos: 0,
                ttl: 9,
                id: 1,
                fragment: 0,
                options,
                payload_len,
            }
            .emit(&mut ip);
        }
        frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        [frame, ip, datagram].concat()
    }

    #[test]
    fn what_no_interface_can_give_is_refused() {
        assert!(matches!(only(&[], &[]).check(), Err(NetdevError::NothingTaken)));
        assert!(matches!(only(&[0], &[]).check(), Err(NetdevError::UdpPort)));
        assert!(matches!(only(&[1; 17], &[]).check(), Err(NetdevError::TooMany { asked: 17, .. })));
        assert!(matches!(only(&[], &[1; 257]).check(), Err(NetdevError::TooMany { asked: 257, .. })));
        for vlan in [0, 4095, u16::MAX] {
            assert!(matches!(only(&[], &[7, vlan]).check(), Err(NetdevError::Vlan(bad)) if bad == vlan));
        }
        assert!(only(&[6081], &[1, 4094]).check().is_ok() && Take::All.check().is_ok());
    }

    #[test]
    fn what_is_taken_is_said_in_words() {
        assert_eq!(only(&[6081, 4789], &[7]).to_string(), "UDP 6081 4789, VLAN 7");
        assert_eq!(Take::All.to_string(), "all frames");
    }
}
