//! May the packet's connection be?
//!
//! A packet that one port sends to another is held to two policies: the sender's, about what it may begin (egress), and the
//! receiver's, about what may be begun with it (ingress). Both are asked when a connection begins, and again when the
//! program changes; in between, and for the packets back, the connection answers.
//!
//! Not of a connection: neighbour discovery and ARP, which no policy is about; multicast, which policies allow; fragments that
//! come before the first of their datagram, which show no ports and are asked about one by one. An IP packet to one host is
//! never flooded where policies are: nobody's rules could be asked.

use std::net::IpAddr;

use frame::DropReason;
use wire::IpProtocol;

use super::Walk;
use super::connection::{Tracked, about, addresses, is_ip, observe, track};
use crate::actions::{Actions, Output};
use crate::conntrack::{Direction, Handle, Mark, Observed, Opening, Pickup, Quota, Refusal};
use crate::key::{Field, class};
use crate::policy::{Side, Verdict};
use crate::program::{Policy, Port};
use crate::stations::Effect;

/// Connections of one zone, and of those one port may open.
const QUOTA: Quota = Quota { zone: 1 << 20, port: 1 << 18 };

/// Adds to the decision `actions` what policies say, and the connection that policies or services are about.
pub(crate) fn run(walk: &mut Walk<'_>, actions: Actions) -> Result<Actions, DropReason> {
    let program = walk.scene.program;
    let to = match actions.output {
        Output::Drop(_) | Output::Deny(_) | Output::Answer(_) => return Ok(actions),
        Output::Port { port, .. } => program.port(port),
        Output::Route(hop) => program.hop(hop).and_then(|hop| program.port(hop.port)),
        Output::Tunnel(_) => None,
        Output::Flood { .. } => return flood(walk, actions),
    };
    let policy = |port: Option<&Port>| program.policies().get(port?.policy?);
    let (from, to_policy) = (policy(Some(walk.scene.ingress)), policy(to));
    let nobody_asks = from.is_none() && to_policy.is_none() && walk.served.is_none();
    if nobody_asks || !is_ip(walk) || walk.view.is(class::NEIGHBOR) {
        return Ok(actions);
    }
    let (source, destination) = addresses(walk);
    let is_host = |port: Option<&Port>, address| {
        program.host().is_some_and(|host| port.is_some_and(|it| it.number == host.port) && host.has(address))
    };
    let ends = Ends {
        from: End { policy: from, is_host: is_host(Some(walk.scene.ingress), source) },
        to: End { policy: to_policy, is_host: is_host(to, destination) },
    };
    if destination.is_multicast() {
        return Ok(actions);
    }
    match observe(walk) {
        Observed::Flow(tuple, transport) => {
            let tracked = track(walk, (tuple, transport))?;
            let connection = decide(walk, &ends, &tracked)?;
            Ok(Actions { connection, translate: walk.served.is_some() && connection.is_some(), ..actions })
        }
        Observed::Error if relate(walk, &ends)? => {
            let connection = walk.served.and_then(|served| served.error_of);
            Ok(Actions { connection, translate: connection.is_some(), ..actions })
        }
        Observed::Error | Observed::Untracked => {
            let protocol = IpProtocol(walk.view.get(Field::PROTOCOL) as u8);
            let asked = Question { client: source, server: destination, protocol, port: None };
            ask(walk, &ends, &asked).map(|()| actions)
        }
    }
}

/// True for an ICMP error about a packet of a connection that may be.
fn relate<'a>(walk: &mut Walk<'a>, ends: &Ends<'a>) -> Result<bool, DropReason> {
    let connections = walk.scene.shared.connections();
    let Some(known) = about(walk).and_then(|handle| Some((handle, connections.mark(handle)?))) else {
        return Ok(false);
    };
    walk.say("policy", || "is an error about a connection".to_owned());
    keep(walk, ends, known).map(|_| true)
}

/// Whoever sends the packet, and whom it is for.
struct Ends<'a> {
    from: End<'a>,
    to: End<'a>,
}

#[derive(Clone, Copy)]
struct End<'a> {
    policy: Option<&'a Policy>,
    /// It is the node itself: what it begins with its pods, their policies allow (its probes must reach them).
    is_host: bool,
}

/// What is asked about a connection: services' endpoints, not their addresses.
struct Question {
    client: IpAddr,
    server: IpAddr,
    protocol: IpProtocol,
    /// The server's; none where the protocol has none.
    port: Option<u16>,
}

impl Question {
    fn new(client: IpAddr, protocol: IpProtocol, (server, port): (IpAddr, u16)) -> Self {
        Self { client, server, protocol, port: protocol.has_ports().then_some(port) }
    }
}

/// The connection of a packet, which may be.
fn decide<'a>(walk: &mut Walk<'a>, ends: &Ends<'a>, tracked: &Tracked) -> Result<Option<Handle>, DropReason> {
    let Tracked { tuple, transport, found, vacancy } = tracked;
    if let Some(found) = *found {
        return keep(walk, ends, found).map(Some);
    }
    let end = &tuple.destination;
    let server = walk.served.map_or((end.address(), end.port), |served| (served.to, served.port));
    if let Err(denied) = ask(walk, ends, &Question::new(tuple.source.address(), tuple.protocol, server)) {
        // Whoever it is for may begin this very connection, and make of it an answer.
        walk.denied_while = *vacancy;
        walk.cacheable &= vacancy.is_some();
        return Err(denied);
    }
    if walk.scene.effect == Effect::DryRun {
        return Ok(None);
    }
    let opening = Opening {
        tuple,
        transport,
        port: walk.scene.ingress.number,
        quota: QUOTA,
        translation: walk.served.map(|served| served.translation).unwrap_or_default(),
        mark: Mark { epoch: walk.scene.epoch(), ..Mark::default() },
        // The switch may have restarted under it.
        pickup: Pickup::Accept,
    };
    let (connections, now) = (walk.scene.shared.connections(), walk.scene.now);
    match connections.open(&opening, now) {
        Ok(handle) => Ok(Some(handle)),
        // Another worker was first: the packet is as good as its.
        Err(Refusal::Exists) => Ok(connections.find(tuple, now)),
        Err(refusal) => {
            // The next packet may open it, or find room.
            walk.cacheable = false;
            Err(refusal.reason())
        }
    }
}

/// A connection that was allowed under this program, or still is under it.
fn keep<'a>(
    walk: &mut Walk<'a>,
    ends: &Ends<'a>,
    (handle, mark): (Handle, Mark),
) -> Result<Handle, DropReason> {
    let epoch = walk.scene.epoch();
    if mark.epoch == epoch {
        walk.say("policy", || "is of a connection that was allowed".to_owned());
        return Ok(handle);
    }
    let connections = walk.scene.shared.connections();
    let (original, turned) = match handle.direction() {
        Direction::Original => (handle, Ends { from: ends.from, to: ends.to }),
        Direction::Reply => (handle.turned(), Ends { from: ends.to, to: ends.from }),
    };
    let both = connections.tuple(original).zip(connections.translated(original));
    let (tuple, translated) = both.ok_or(DropReason::OutOfState)?;
    let server = (translated.destination.address(), translated.destination.port);
    let asked = ask(walk, &turned, &Question::new(tuple.source.address(), tuple.protocol, server));
    // What is denied now may be begun from the other end.
    walk.cacheable &= asked.is_ok();
    if walk.scene.effect == Effect::Commit {
        match asked {
            Ok(()) => drop(connections.set_mark(handle, Mark { epoch, ..mark })),
            Err(_) => drop(connections.remove(handle)),
        }
    }
    asked.map(|()| handle)
}

/// Asks both policies about a connection.
fn ask<'a>(walk: &mut Walk<'a>, ends: &Ends<'a>, question: &Question) -> Result<(), DropReason> {
    let egress = ends.from.policy.map(|policy| (policy, &policy.egress, question.server, "egress"));
    let to = ends.to.policy.filter(|_| !ends.from.is_host);
    let ingress = to.map(|policy| (policy, &policy.ingress, question.client, "ingress"));
    for (policy, side, peer, direction) in egress.into_iter().chain(ingress) {
        let verdict = verdict(walk, side, peer, question);
        walk.say("policy", || match verdict {
            Verdict::Allow(Some(rule)) => format!("{direction} of {}: allowed by {rule}", policy.name),
            Verdict::Allow(None) => format!("{direction} of {}: nothing is against it", policy.name),
            Verdict::Deny(rule) => format!("{direction} of {}: denied by {rule}", policy.name),
        });
        if let Verdict::Deny(rule) = verdict {
            walk.denied_by = Some(rule);
            return Err(DropReason::PolicyDenied);
        }
    }
    Ok(())
}

fn verdict<'a>(walk: &Walk<'a>, side: &'a Side, peer: IpAddr, question: &Question) -> Verdict<'a> {
    let identity = walk.scene.program.policies().identity(walk.scope, peer);
    side.verdict(identity, question.protocol, question.port)
}

/// A packet to everybody: groups are nobody's peers.
fn flood(walk: &mut Walk<'_>, actions: Actions) -> Result<Actions, DropReason> {
    if !walk.scene.network.has_policies || !is_ip(walk) {
        return Ok(actions);
    }
    let is_group = match addresses(walk).1 {
        // A subnet's broadcast address is not told from a host's.
        IpAddr::V4(to) => to.is_multicast() || to.is_broadcast(),
        IpAddr::V6(to) => to.is_multicast(),
    };
    if is_group {
        return Ok(actions);
    }
    walk.say("policy", || {
        "is for one host, and that one is unknown: nobody's policy can be asked".to_owned()
    });
    Err(DropReason::PolicyDenied)
}
