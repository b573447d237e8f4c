//! What does a router say to a host that looks for one? RFC 4861 §6.2.6.
//!
//! It says so when it is asked, and never unasked: routes last for good, by the option of RFC 4191.

use std::net::{IpAddr, Ipv6Addr};

use frame::{DropReason, MAX_REPLACED_BYTES};
use wire::{EtherType, IpProtocol, Writer, ethernet, icmpv6, ipv6, nd, router_advert};

use super::Told;
use crate::gateway::{ALL_NODES, Handled, LINK_TTL};
use crate::program::Dhcp;

impl Handled<'_> {
    /// Puts the advertisement in the solicitation's place.
    pub(super) fn advertise(&mut self, dhcp: &Dhcp, mtu_bytes: u32) -> Result<Told, DropReason> {
        let advert = dhcp.advert.as_deref().ok_or(DropReason::DhcpUnanswered)?;
        let asker = self.solicitor()?;
        let (source, is_nobody) = (dhcp.link_local, asker.is_unspecified());
        let to = if is_nobody { ALL_NODES } else { asker };
        let mut bytes = [0; MAX_REPLACED_BYTES];
        let message_at = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
        let mut out = Writer::new(&mut bytes[message_at..]);
        out.put(advert);
        router_advert::put_mtu(&mut out, mtu_bytes);
        let end = message_at + out.finish().ok_or(DropReason::TooBig)?;
        icmpv6::fill_checksum(&mut bytes[message_at..end], source, to);
        let header = ipv6::Repr {
            traffic_class: 0,
            flow_label: 0,
            next_header: IpProtocol::ICMPV6,
            hop_limit: LINK_TTL,
            source,
            destination: to,
            payload_len: (end - message_at) as u16,
        };
        header.emit(&mut bytes[ethernet::HEADER_BYTES..]);
        let destination = if is_nobody { nd::multicast_mac(ALL_NODES) } else { self.asker() };
        ethernet::Repr { source: dhcp.mac, destination, ether_type: EtherType::IPV6 }.emit(&mut bytes);
        let fits = end - ethernet::HEADER_BYTES <= mtu_bytes as usize;
        let put = fits && self.burst.replace(self.frame, &bytes[..end]);
        put.then_some(Told::Router(source)).ok_or(DropReason::TooBig)
    }

    /// Who asks, by a solicitation that came from this very link (§6.1.1).
    fn solicitor(&self) -> Result<Ipv6Addr, DropReason> {
        let head = self.burst.head(self.frame);
        let ip = head.get(usize::from(self.packet.link_bytes)..).ok_or(DropReason::Truncated)?;
        let ip = ipv6::View::new(ip).map_err(super::drop_reason)?;
        match self.addresses().0 {
            IpAddr::V6(asker) if ip.hop_limit() == LINK_TTL => Ok(asker),
            _ => Err(DropReason::Malformed),
        }
    }
}
