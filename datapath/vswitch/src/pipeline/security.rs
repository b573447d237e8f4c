//! Does the frame claim addresses that are not the port's?
//!
//! Checked are the Ethernet source, the IP source, and the sender that an ARP or neighbour discovery message claims. What
//! could hide a claim from the check is refused: a second tag, extension headers beyond the head, fragmented
//! neighbour discovery (RFC 6980 §5).

use std::net::{IpAddr, Ipv6Addr};

use frame::DropReason;
use wire::{EtherType, IpProtocol, MacAddr, ipv6, nd};

use super::Walk;
use crate::conntrack::Sight;
use crate::key::{Field, class, mac};
use crate::program::Security;

/// DHCP's ports, client to server (RFC 2131 §4.1).
const DHCP: (u64, u64) = (68, 67);
/// Multicast listener reports, version 1, done, and version 2 (RFC 2710 §3, RFC 3810 §5.2): sent before there is an address.
const MLD: [u64; 3] = [131, 132, 143];

/// Refuses frames with addresses of others, where the port has security.
pub(crate) fn run(walk: &mut Walk<'_>) -> Result<(), DropReason> {
    let Some(security) = &walk.scene.ingress.security else { return Ok(()) };
    let checked = check(walk, security);
    walk.say("security", || match checked {
        Ok(()) => "uses only addresses of its port".to_owned(),
        Err(reason) => reason.sentence().to_owned(),
    });
    checked
}

fn check(walk: &mut Walk<'_>, security: &Security) -> Result<(), DropReason> {
    let source = walk.view.source_mac();
    check_mac(security, source)?;
    match EtherType(walk.view.get(Field::ETHER_TYPE) as u16) {
        EtherType::IPV4 => check_ipv4(walk, security),
        EtherType::IPV6 => check_ipv6(walk, security),
        EtherType::ARP => check_arp(walk, security),
        inner if inner.is_tag() => Err(DropReason::VlanNotAllowed),
        _ => Ok(()),
    }
}

fn check_mac(security: &Security, mac: MacAddr) -> Result<(), DropReason> {
    if security.allows_mac(mac) { Ok(()) } else { Err(DropReason::SpoofedMac) }
}

fn check_ip(security: &Security, ip: IpAddr) -> Result<(), DropReason> {
    if security.allows_ip(ip) { Ok(()) } else { Err(DropReason::SpoofedIp) }
}

fn check_ipv4(walk: &mut Walk<'_>, security: &Security) -> Result<(), DropReason> {
    if security.allows_any_ip() {
        return Ok(());
    }
    let source = walk.view.source_v4();
    if source.is_unspecified() && is_dhcp(walk) { Ok(()) } else { check_ip(security, source.into()) }
}

fn is_dhcp(walk: &mut Walk<'_>) -> bool {
    let view = &mut walk.view;
    IpProtocol(view.get(Field::PROTOCOL) as u8) == IpProtocol::UDP
        && view.is(class::TRANSPORT)
        && (view.get(Field::SOURCE_PORT), view.get(Field::DESTINATION_PORT)) == DHCP
}

fn check_arp(walk: &mut Walk<'_>, security: &Security) -> Result<(), DropReason> {
    if !walk.view.is(class::ARP) {
        return Ok(());
    }
    let claimed = mac(walk.view.get(Field::CLAIMED_MAC));
    check_mac(security, claimed)?;
    if security.allows_any_ip() {
        return Ok(());
    }
    // A probe for a duplicate has no sender yet (RFC 5227 §2.1.1).
    let sender = walk.view.source_v4();
    if sender.is_unspecified() { Ok(()) } else { check_ip(security, sender.into()) }
}

fn check_ipv6(walk: &mut Walk<'_>, security: &Security) -> Result<(), DropReason> {
    if walk.view.is(class::HIDDEN) {
        return Err(DropReason::SpoofedIp);
    }
    let is_neighbor = walk.view.is(class::NEIGHBOR);
    if !security.allows_any_ip() {
        let source = walk.view.source_v6();
        if !(source.is_unspecified() && may_be_sourceless(walk)) {
            check_ip(security, source.into())?;
        }
    }
    if is_neighbor { check_neighbor(walk, security) } else { Ok(()) }
}

/// True for what a station sends before it has an address (RFC 4862 §5.4.2).
fn may_be_sourceless(walk: &mut Walk<'_>) -> bool {
    let view = &mut walk.view;
    if IpProtocol(view.get(Field::PROTOCOL) as u8) != IpProtocol::ICMPV6 || !view.is(class::TRANSPORT) {
        return false;
    }
    let kind = view.get(Field::SOURCE_PORT);
    let solicits = [nd::ROUTER_SOLICIT, nd::NEIGHBOR_SOLICIT].map(u64::from);
    solicits.contains(&kind) || MLD.contains(&kind)
}

/// Reads the message itself: rare enough to be decided on one by one.
fn check_neighbor(walk: &mut Walk<'_>, security: &Security) -> Result<(), DropReason> {
    walk.cacheable = false;
    if walk.view.is(class::FRAGMENT) || !walk.view.is(class::TRANSPORT) {
        return Err(DropReason::SpoofedIp);
    }
    let sourceless = walk.view.source_v6().is_unspecified();
    let message = neighbor_message(walk).ok_or(DropReason::SpoofedIp)?;
    let Some((message, options)) = nd::Message::parse(message).map_err(drop_reason)? else { return Ok(()) };
    let is_routers = matches!(message, nd::Message::RouterAdvert | nd::Message::Redirect { .. });
    if is_routers && walk.scene.network.gateway.is_some() {
        return Err(DropReason::RogueServer);
    }
    let claimed: Option<Ipv6Addr> = match message {
        nd::Message::NeighborAdvert { target, .. } => Some(target),
        // A probe for a duplicate claims what it asks for.
        nd::Message::NeighborSolicit { target } if sourceless => Some(target),
        _ => None,
    };
    if let Some(claimed) = claimed {
        check_ip(security, claimed.into())?;
    }
    // A redirect names somebody else's link-layer address; all others their sender's.
    let names_itself = !matches!(message, nd::Message::Redirect { .. });
    for option in options {
        if let Some(named) = option.map_err(drop_reason)?.mac()
            && names_itself
        {
            check_mac(security, named)?;
        }
    }
    Ok(())
}

/// The neighbour discovery message, without padding behind the packet; `None` if not all of it is in the head.
pub(crate) fn neighbor_message<'a>(walk: &Walk<'a>) -> Option<&'a [u8]> {
    let Sight { packet, head, .. } = walk.sight;
    let packet_at = usize::from(packet.link_bytes);
    let ip = ipv6::View::new(head.get(packet_at..)?).ok()?;
    let end = packet_at + ipv6::HEADER_BYTES + usize::from(ip.payload_len());
    head.get(packet.transport_at.into()..end)
}

fn drop_reason(error: wire::Error) -> DropReason {
    match error {
        wire::Error::Truncated(_) => DropReason::Truncated,
        wire::Error::Malformed(_) => DropReason::Malformed,
    }
}
