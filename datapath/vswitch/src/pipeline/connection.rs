//! Of which connection is the packet, and what was decided for that? What services and policies have in common.

use std::net::IpAddr;

use frame::DropReason;
use wire::{EtherType, IpProtocol};

use super::Walk;
use crate::conntrack::{Datagram, Fault, Handle, Mark, Observed, Transport, Tuple, Vacancy};
use crate::key::Field;
use crate::stations::Effect;

/// A packet that its connection is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tracked {
    pub(crate) tuple: Tuple,
    pub(crate) transport: Transport,
    /// The connection, which has taken the packet; none yet.
    pub(crate) found: Option<(Handle, Mark)>,
    /// There was none, from whatever source port; while this stands, none has begun since.
    pub(crate) vacancy: Option<Vacancy>,
}

pub(super) fn is_ip(walk: &mut Walk<'_>) -> bool {
    let ether_type = EtherType(walk.view.get(Field::ETHER_TYPE) as u16);
    ether_type == EtherType::IPV4 || ether_type == EtherType::IPV6
}

/// Source and destination.
pub(super) fn addresses(walk: &mut Walk<'_>) -> (IpAddr, IpAddr) {
    let mut read = |[high, low]: [Field; 2]| crate::key::ip(walk.view.get(high), walk.view.get(low));
    (read(Field::SOURCE_IP), read(Field::DESTINATION_IP))
}

/// What the packet is to the tracker. That looks at all that makes a connection but the source port: at that look those who ask
/// for the connection itself, and [`super::run`] where a packet is not denied.
pub(super) fn observe(walk: &mut Walk<'_>) -> Observed {
    let [a, b] = Field::SOURCE_IP;
    let [c, d] = Field::DESTINATION_IP;
    let rest = [Field::PROTOCOL, Field::CLASS, Field::DESTINATION_PORT];
    for field in [a, b, c, d].into_iter().chain(rest) {
        walk.view.get(field);
    }
    let protocol = IpProtocol(walk.view.get(Field::PROTOCOL) as u8);
    let observed = match walk.sight.datagram(walk.scene.ingress.number, walk.zone) {
        None => walk.sight.observe(walk.zone),
        Some(datagram) => observe_fragment(walk, &datagram),
    };
    // An echo's identifier is not in the key.
    if !matches!(observed, Observed::Flow(..)) || [IpProtocol::ICMP, IpProtocol::ICMPV6].contains(&protocol) {
        walk.cacheable = false;
    }
    observed
}

/// The same of a fragment: one behind the first is of the first one's connection. Fragments are told apart one by one.
fn observe_fragment(walk: &mut Walk<'_>, datagram: &Datagram) -> Observed {
    walk.cacheable = false;
    let (connections, now) = (walk.scene.shared.connections(), walk.scene.now);
    let observed = walk.sight.observe(walk.zone);
    match observed {
        Observed::Flow(tuple, _) if walk.scene.effect == Effect::Commit => {
            connections.begin_datagram(datagram, &tuple, now);
            observed
        }
        Observed::Untracked => match connections.ports_of(datagram, now) {
            Some(ports) => Observed::Flow(walk.sight.tuple(walk.zone, ports), Transport::Fragment),
            None => observed,
        },
        _ => observed,
    }
}

/// Lets the connection of a packet take it, once for all stages.
pub(super) fn track(
    walk: &mut Walk<'_>,
    (tuple, transport): (Tuple, Transport),
) -> Result<Tracked, DropReason> {
    if let Some(tracked) = walk.tracked {
        return Ok(tracked);
    }
    let (connections, now) = (walk.scene.shared.connections(), walk.scene.now);
    let (vacancy, mut found) = (connections.vacancy(&tuple), None);
    if vacancy.is_none() {
        walk.view.get(Field::SOURCE_PORT);
    }
    if vacancy.is_none()
        && let Some(handle) = connections.find(&tuple, now)
    {
        let advanced = match walk.scene.effect {
            Effect::Commit => connections.advance(handle, &transport, now),
            Effect::DryRun => connections.mark(handle).ok_or(Fault::Gone),
        };
        match advanced {
            Ok(mark) => found = Some((handle, mark)),
            Err(Fault::Invalid) => {
                walk.say("connection", || "does not fit the state of its connection".to_owned());
                // The next one may.
                walk.cacheable = false;
                return Err(DropReason::OutOfState);
            }
            Err(Fault::Gone) => {}
        }
    }
    let tracked = Tracked { tuple, transport, found, vacancy };
    walk.tracked = Some(tracked);
    Ok(tracked)
}

/// The connection that the packet, an ICMP error, is about.
pub(super) fn about(walk: &Walk<'_>) -> Option<Handle> {
    let related = || walk.scene.shared.connections().related(&walk.sight.error(walk.zone)?, walk.scene.now);
    walk.served.and_then(|served| served.error_of).or_else(related)
}

/// Ends the packet's connection, which is not what it would be now: the packet has none, and may open another.
pub(super) fn end(walk: &mut Walk<'_>, handle: Handle) {
    if walk.scene.effect == Effect::Commit {
        walk.scene.shared.connections().remove(handle);
    }
    if let Some(tracked) = &mut walk.tracked {
        tracked.found = None;
    }
}
