//! Does the packet leave for the outside with an address of the node, or come back from there?
//!
//! A router whose sources the switch translates has addresses outside, and a range of their ports that nobody else of the node
//! uses. What the router sends to the node's kernel, to take on, gets one of them when its connection begins. The answers are
//! handed to the switch by the node's port; whom they are for only the connection says, and of which router: outside, all
//! routers share the addresses, and their own may overlap.
//!
//! A client outside that reaches a pod by the pod's own address is no matter of this: its connection is remembered, so that
//! the answers are told from what the pod begins.

use frame::DropReason;

use super::connection::{about, addresses, end, is_ip, observe, track};
use super::service::{Served, is_for_host};
use super::{Walk, scope_of};
use crate::actions::{Actions, Output};
use crate::conntrack::{
    Direction, Handle, Observed, SourceNat, Translation, Transport, Tuple, ZoneNo, has_source_port,
};
use crate::gateway::{Answer, Complaint};
use crate::key::class;
use crate::program::{Host, Program, Route, Scope};

/// Finds whom a packet is for that comes back from outside. False if it is none.
pub(crate) fn back(walk: &mut Walk<'_>) -> Result<bool, DropReason> {
    let Some(host) = walk.scene.program.host_at(walk.scene.ingress.number) else { return Ok(false) };
    if !host.has_sources() || !is_ip(walk) {
        return Ok(false);
    }
    let (_, destination) = addresses(walk);
    if !host.is_source(destination) {
        return Ok(false);
    }
    walk.zone = ZoneNo::OUTSIDE;
    let (handle, error_of) = match observe(walk) {
        Observed::Flow(tuple, transport) => {
            (track(walk, (tuple, transport))?.found.map(|(handle, _)| handle), None)
        }
        Observed::Error => {
            let error_of = about(walk);
            (error_of, error_of)
        }
        Observed::Untracked => (None, None),
    };
    let connections = walk.scene.shared.connections();
    let ends = handle.and_then(|handle| {
        Some((connections.tuple(handle.turned())?.zone, connections.translated(handle)?.destination))
    });
    let Some((zone, pod)) = ends else {
        walk.say("outside", || format!("is for {destination}, and of no connection that left with it"));
        // The next one may be.
        walk.cacheable = false;
        return Err(DropReason::OutOfState);
    };
    walk.scope = scope_of(zone);
    let served = Served::plain(pod.address(), pod.port);
    // One that the node began, or let in, with a service whose endpoint is outside.
    let is_for_host = handle.is_some_and(|handle| is_for_host(walk, handle));
    walk.served = Some(Served { error_of, is_for_host, ..served });
    walk.say("outside", || format!("comes back to {}, whose connection left with {destination}", served.to));
    Ok(true)
}

/// Gives what goes outside, by `actions`, an address that is known there, and remembers what comes from there.
pub(crate) fn leave(walk: &mut Walk<'_>, actions: Actions) -> Result<Actions, DropReason> {
    let program = walk.scene.program;
    let (Some(host), Scope::Router(router)) = (program.host(), walk.scope) else { return Ok(actions) };
    if !host.translates(router) || walk.zone == ZoneNo::OUTSIDE {
        return Ok(actions);
    }
    let is_out = actions.output == Output::Route(host.hop);
    if !is_out {
        if walk.served.is_none() && goes_to_a_pod(program, &actions) && is_from_outside(walk, host) {
            walk.served = remember(walk);
        }
        return Ok(actions);
    }
    let is_answer = walk.served.is_some_and(|served| served.is_for_host);
    if is_answer || walk.scene.ingress.number == host.port {
        return Ok(actions);
    }
    let (_, destination) = addresses(walk);
    let to = walk.served.map_or(destination, |served| served.to);
    if host.router == router && host.is_own(to) {
        // The node answers by the way it came, also what is not for a pod of its own network.
        walk.served = walk.served.or_else(|| remember(walk));
        return Ok(actions);
    }
    let Some(own) = host.source_towards(router, to) else {
        walk.say("outside", || match host.is_own(to) {
            true => format!("is for {to}, the node itself, which is not outside: says so"),
            false => "has no address outside in its family: says so".to_owned(),
        });
        return Ok(Actions::to(Output::Answer(Answer::Complain(Complaint::NoRoute))));
    };
    translate(walk, SourceNat::outside(own, host.nat_ports)).map(|()| actions)
}

/// True for what goes to a station of this node, which will answer.
fn goes_to_a_pod(program: &Program, actions: &Actions) -> bool {
    match actions.output {
        Output::Port { .. } => true,
        Output::Route(hop) => program.hop(hop).is_some_and(|hop| hop.tunnel.is_none()),
        _ => false,
    }
}

/// True for what the node let in, here or by its tunnel, and did not send itself.
fn is_from_outside(walk: &mut Walk<'_>, host: &Host) -> bool {
    let is_by_host = walk.scene.ingress.number == host.port;
    if !is_by_host && walk.scene.tunnel.is_none() || !is_ip(walk) || walk.view.is(class::NEIGHBOR) {
        return false;
    }
    let (source, destination) = addresses(walk);
    let router = walk.scene.program.router_of(walk.scope);
    let comes_by_node = router.is_some_and(|router| router.route(source) == Route::Hop(host.hop));
    !destination.is_multicast() && !host.has(source) && (is_by_host || comes_by_node)
}

/// Translates the source of a packet that leaves, or finds that its connection has it translated.
fn translate(walk: &mut Walk<'_>, nat: SourceNat) -> Result<(), DropReason> {
    match observe(walk) {
        Observed::Flow(tuple, transport)
            if has_source_port(tuple.protocol) && transport != Transport::Other =>
        {
            let found = track(walk, (tuple, transport))?.found;
            match found.and_then(|(handle, _)| of_connection(walk, handle, (&tuple, &nat))) {
                Some(served) => walk.served = Some(served),
                None => begin(walk, &tuple, nat),
            }
            Ok(())
        }
        Observed::Error => {
            let error_of = about(walk).ok_or(DropReason::NotTranslatable)?;
            let (_, destination) = addresses(walk);
            walk.served = Some(Served { error_of: Some(error_of), ..Served::plain(destination, 0) });
            Ok(())
        }
        Observed::Flow(..) | Observed::Untracked => {
            walk.say("outside", || "shows no port, and cannot be told from others outside".to_owned());
            Err(DropReason::NotTranslatable)
        }
    }
}

/// What becomes of a packet of the connection; `None` if that is of a time when nothing was translated, or to another address:
/// it is over.
fn of_connection(walk: &mut Walk<'_>, handle: Handle, (tuple, nat): (&Tuple, &SourceNat)) -> Option<Served> {
    let connections = walk.scene.shared.connections();
    let translated = connections.translated(handle)?;
    let is_answer = handle.direction() == Direction::Reply;
    if is_answer || translated.zone == ZoneNo::OUTSIDE && translated.source.ip == nat.ip {
        let (to, port) = (translated.destination.address(), translated.destination.port);
        walk.say("outside", || match translated.source == tuple.source {
            true => "answers who reached it by its own address".to_owned(),
            false => format!("leaves as {} port {}", translated.source.address(), translated.source.port),
        });
        return Some(Served::plain(to, port));
    }
    end(walk, handle);
    None
}

/// The first packet of a connection: to a service's endpoint, perhaps.
fn begin(walk: &mut Walk<'_>, tuple: &Tuple, nat: SourceNat) {
    let end = &tuple.destination;
    let served = walk.served.unwrap_or_else(|| Served::plain(end.address(), end.port));
    let translation = Translation { source: Some(nat), ..served.translation };
    walk.served = Some(Served { translation, ..served });
    walk.say("outside", || format!("leaves for the outside as {}", nat.ip.to_canonical()));
}

/// As of a service's connection, but its own destination: it is remembered, and nothing is translated.
fn remember(walk: &mut Walk<'_>) -> Option<Served> {
    let Observed::Flow(tuple, _) = observe(walk) else { return None };
    Some(Served::plain(tuple.destination.address(), tuple.destination.port))
}
