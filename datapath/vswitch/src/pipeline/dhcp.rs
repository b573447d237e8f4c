//! Does the host behind the port ask for its configuration, which the switch knows? Then the switch answers.
//!
//! Where a network has DHCP, questions of stations that a port lists go no further, whoever they are sent to; those of others
//! go on like any frame. What the answer says is in [`crate::dhcp`]. Ports with security give no answers there.

use frame::DropReason;
use wire::{EtherType, IpProtocol, dhcpv4, dhcpv6, nd};

use super::Walk;
use crate::actions::{Actions, Output};
use crate::dhcp::Asked;
use crate::gateway::Answer;
use crate::key::{Field, TAGGED, class};
use crate::program::Lease;

/// Bits that no port of DHCP has: datagrams to others are told apart by them alone.
const HIGH_PORT_BITS: u64 = 0xfc00;

/// Decides on questions, and on answers of others; `None` for all other frames.
pub(crate) fn run(walk: &mut Walk<'_>) -> Result<Option<Actions>, DropReason> {
    let is_guarded = walk.scene.ingress.security.is_some() && walk.scene.network.dhcp.is_some();
    if is_guarded && answers(walk) {
        walk.say("dhcp", || DropReason::RogueServer.sentence().to_owned());
        return Err(DropReason::RogueServer);
    }
    Ok(answer(walk))
}

/// True for what only a server sends.
fn answers(walk: &mut Walk<'_>) -> bool {
    match EtherType(walk.view.get(Field::ETHER_TYPE) as u16) {
        EtherType::IPV4 => is_datagram(walk, dhcpv4::SERVER_PORT, dhcpv4::CLIENT_PORT),
        EtherType::IPV6 => is_datagram(walk, dhcpv6::SERVER_PORT, dhcpv6::CLIENT_PORT),
        _ => false,
    }
}

fn answer(walk: &mut Walk<'_>) -> Option<Actions> {
    let lease = walk.scene.ingress.lease.as_deref()?;
    if walk.view.bits(Field::TAG, TAGGED) != 0 {
        return None;
    }
    let asked = asked(walk, lease)?;
    let source = walk.view.source_mac();
    if !lease.macs.contains(&source) {
        walk.say("dhcp", || format!("{source} asks, whom the port does not list: not the switch's matter"));
        return None;
    }
    walk.say("dhcp", || format!("asks for its configuration, which it is told {}", asked.words()));
    Some(Actions::to(Output::Answer(Answer::Configure(asked))))
}

fn asked(walk: &mut Walk<'_>, lease: &Lease) -> Option<Asked> {
    match EtherType(walk.view.get(Field::ETHER_TYPE) as u16) {
        EtherType::IPV4 => {
            let asks = lease.v4.is_some() && is_datagram(walk, dhcpv4::CLIENT_PORT, dhcpv4::SERVER_PORT);
            asks.then_some(Asked::DhcpV4)
        }
        EtherType::IPV6 if walk.view.is(class::NEIGHBOR) => {
            let is_router = walk.scene.network.dhcp.as_ref()?.advert.is_some();
            let solicits = walk.view.get(Field::SOURCE_PORT) == u64::from(nd::ROUTER_SOLICIT);
            (is_router && solicits).then_some(Asked::Router)
        }
        EtherType::IPV6 => {
            let asks = lease.v6.is_some() && is_datagram(walk, dhcpv6::CLIENT_PORT, dhcpv6::SERVER_PORT);
            asks.then_some(Asked::DhcpV6)
        }
        _ => None,
    }
}

fn is_datagram(walk: &mut Walk<'_>, from: u16, to: u16) -> bool {
    let view = &mut walk.view;
    IpProtocol(view.get(Field::PROTOCOL) as u8) == IpProtocol::UDP
        && view.bits(Field::DESTINATION_PORT, HIGH_PORT_BITS) == 0
        && view.get(Field::DESTINATION_PORT) == u64::from(to)
        && view.get(Field::SOURCE_PORT) == u64::from(from)
        && view.bits(Field::CLASS, class::TRANSPORT | class::FRAGMENT) == class::TRANSPORT
}
