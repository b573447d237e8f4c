//! Is the packet for a service, or an endpoint's answer? Then it goes on with other addresses.
//!
//! A connection to a service's address is given to one of its endpoints when it begins, and stays with it; its packets have
//! the endpoint's address from here on, and those back have the service's. Routes and policies see the endpoint.
//!
//! Most packets are told apart by their addresses alone: only those of services' addresses, and from endpoints, are looked
//! at further. A pod that is its own endpoint would answer itself, so the gateway's address stands for it. What came from
//! outside by the node and goes on to another one has the node's address there; its answers go back to the node.

use std::net::IpAddr;

use frame::DropReason;
use wire::IpProtocol;

use super::Walk;
use super::connection::{about, addresses, end, is_ip, observe, track};
use crate::actions::{Actions, Output};
use crate::conntrack::{
    DestinationNat, Direction, Handle, Observed, PortRange, SourceNat, Translation, Tuple,
};
use crate::gateway::{Answer, Complaint};
use crate::key::{Field, TAGGED, class};
use crate::program::{Affinity, EndpointSpec, FrontendSpec, Gateway, Route, Service};
use crate::service;
use crate::stations::Effect;

/// What becomes of a packet's addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    /// Where it goes from here on.
    pub(crate) to: IpAddr,
    /// The endpoint's port.
    pub(crate) port: u16,
    /// Of a connection that begins; that of others is known.
    pub(crate) translation: Translation,
    /// For an error, which opens no connection: the one that it is about.
    pub(crate) error_of: Option<Handle>,
    /// It is an answer to what came by the node, and goes back the same way, whoever `to` is.
    pub(crate) is_for_host: bool,
}

impl Served {
    /// It goes where its connection says, which is not of a service.
    pub(crate) fn plain(to: IpAddr, port: u16) -> Self {
        Self { to, port, translation: Translation::default(), error_of: None, is_for_host: false }
    }
}

/// Decides where packets of services go on; answers those that nobody serves.
pub(crate) fn run(walk: &mut Walk<'_>) -> Result<Option<Actions>, DropReason> {
    let services = walk.scene.program.services();
    let Some(gateway) = &walk.scene.network.gateway else { return Ok(None) };
    let connections = walk.scene.shared.connections();
    if services.is_empty() && !connections.has_answerers() {
        return Ok(None);
    }
    if walk.view.bits(Field::TAG, TAGGED) != 0 || !is_ip(walk) {
        return Ok(None);
    }
    let (scope, (source, destination)) = (walk.scope, addresses(walk));
    let is_for_service =
        services.is_frontend(scope, destination) && walk.view.destination_mac() == gateway.mac;
    // An endpoint that went still has connections.
    let is_host = services.is_host(scope, source) || connections.may_answer_for_another(walk.zone, source);
    let concerns_services = is_for_service || is_host && may_answer(walk, source);
    if !concerns_services {
        return Ok(None);
    }
    match observe(walk) {
        Observed::Flow(tuple, transport) => {
            let tracked = track(walk, (tuple, transport))?;
            if let Some((handle, _)) = tracked.found.filter(|(handle, _)| is_current(walk, *handle, &tuple)) {
                walk.served = known(walk, handle, &tuple);
                return Ok(None);
            }
            if is_for_service {
                return begin(walk, gateway, &tuple);
            }
            // A client may yet begin the connection whose answer this would be.
            walk.cacheable = false;
            Ok(None)
        }
        Observed::Error => {
            walk.served = error(walk);
            Ok(None)
        }
        Observed::Untracked if is_for_service => refuse(walk, destination, 0),
        Observed::Untracked => Ok(None),
    }
}

/// True for a packet from where some service is served, or was, and for what could be an error about one, or a fragment.
fn may_answer(walk: &mut Walk<'_>, source: IpAddr) -> bool {
    let protocol = IpProtocol(walk.view.get(Field::PROTOCOL) as u8);
    if walk.view.is(class::LATER_FRAGMENT) {
        return true;
    }
    if !protocol.has_ports() {
        return [IpProtocol::ICMP, IpProtocol::ICMPV6].contains(&protocol);
    }
    let port = walk.view.get(Field::SOURCE_PORT) as u16;
    let end = FrontendSpec { address: source, protocol, port };
    walk.scene.program.services().is_endpoint(walk.scope, &end)
        || walk.scene.shared.connections().may_answer_for_another_at(walk.zone, &end)
}

/// True for a connection that its endpoint still serves. TCP and SCTP are left to end; a datagram's sender would never learn.
fn is_current(walk: &mut Walk<'_>, handle: Handle, tuple: &Tuple) -> bool {
    let connections = walk.scene.shared.connections();
    let Some(translated) = connections.translated(handle) else { return false };
    if tuple.protocol != IpProtocol::UDP || translated.destination == tuple.destination {
        return true;
    }
    let service = walk.scene.program.services().at(walk.scope, &frontend(tuple));
    let endpoint =
        EndpointSpec { address: translated.destination.address(), port: translated.destination.port };
    // What goes back to a client is of no service.
    let is_back = handle.direction() == Direction::Reply;
    if is_back || service.is_some_and(|service| service.has(&endpoint)) {
        return true;
    }
    walk.say("service", || format!("was served by {}, which no longer does", endpoint.address));
    end(walk, handle);
    false
}

/// A packet of a connection whose endpoint is chosen.
fn known(walk: &mut Walk<'_>, handle: Handle, tuple: &Tuple) -> Option<Served> {
    let translated = walk.scene.shared.connections().translated(handle).filter(|it| it != tuple)?;
    let (to, port) = (translated.destination.address(), translated.destination.port);
    walk.say("service", || match translated.destination == tuple.destination {
        true => format!("is an endpoint's answer: from {} on the way", translated.source.address()),
        false => format!("is of a connection with {to} port {port}"),
    });
    let is_for_host = is_for_host(walk, handle);
    Some(Served { is_for_host, ..Served::plain(to, port) })
}

/// True if what goes in the direction of `handle` goes back to the node, which began the connection or let it in.
pub(super) fn is_for_host(walk: &Walk<'_>, handle: Handle) -> bool {
    let host = walk.scene.program.host();
    handle.direction() == Direction::Reply
        && host.is_some_and(|host| walk.scene.shared.connections().opened_by(handle) == Some(host.port))
}

/// An ICMP error about a packet of such a connection.
fn error(walk: &mut Walk<'_>) -> Option<Served> {
    let connections = walk.scene.shared.connections();
    let handle = about(walk)?;
    let (tuple, translated) = (connections.tuple(handle)?, connections.translated(handle)?);
    if tuple == translated {
        return None;
    }
    walk.say("service", || "is an error about a connection with a service".to_owned());
    let (to, port) = (translated.destination.address(), translated.destination.port);
    let is_for_host = is_for_host(walk, handle);
    Some(Served { error_of: Some(handle), is_for_host, ..Served::plain(to, port) })
}

/// The first packet of a connection.
fn begin(walk: &mut Walk<'_>, gateway: &Gateway, tuple: &Tuple) -> Result<Option<Actions>, DropReason> {
    let (client, server) = (tuple.source.address(), frontend(tuple));
    if !tuple.protocol.has_ports() {
        return refuse(walk, server.address, 0);
    }
    let Some(service) = walk.scene.program.services().at(walk.scope, &server) else {
        return refuse(walk, server.address, server.port);
    };
    let ports = (service.affinity() == Affinity::None).then_some((tuple.source.port, tuple.destination.port));
    if ports.is_some() && service.is_choice() {
        walk.view.get(Field::SOURCE_PORT);
    }
    let hashed = service.choose(service::hash(client, ports));
    let Some(EndpointSpec { address, port }) =
        hashed.map(|hashed| keep_together(walk, service, (client, hashed)))
    else {
        walk.say("service", || format!("is for service {}, which has no endpoint", service.name()));
        return refuse(walk, server.address, server.port);
    };
    walk.say("service", || format!("is for service {}: {address} port {port} serves it", service.name()));
    let source = match address == client {
        true => gateway.address_towards(client).map(|own| SourceNat::new(own, PortRange::UNPRIVILEGED)),
        false => stand_in(walk, gateway, (client, address)),
    };
    let destination = Some(DestinationNat::new(address, Some(port)));
    let translation = Translation { source, destination };
    walk.served = Some(Served { translation, ..Served::plain(address, port) });
    Ok(None)
}

/// Where a client's connection goes that hashes to `hashed`: where its last one went, if the service keeps it there.
fn keep_together(
    walk: &mut Walk<'_>,
    service: &Service,
    (client, hashed): (IpAddr, EndpointSpec),
) -> EndpointSpec {
    if service.affinity() == Affinity::None {
        return hashed;
    }
    let (affinities, now) = (walk.scene.shared.affinities(), walk.scene.now);
    let kept = affinities.find(service.number(), client);
    let kept = kept.filter(|kept| service.keeps(&kept.endpoint, kept.used, now)).map(|kept| kept.endpoint);
    let endpoint = kept.unwrap_or(hashed);
    if endpoint != hashed {
        walk.say("service", || {
            format!("is from {client}, whose last connection went to {}", endpoint.address)
        });
        // Which no bit of a program says.
        walk.cacheable = false;
    }
    if walk.scene.effect == Effect::Commit {
        affinities.note(service.number(), client, endpoint, now);
    }
    endpoint
}

/// The source of a connection that came by the node and does not end at a pod here, so that the answers come back this way: on
/// another node the node's address, and beyond the node's kernel the gateway's. Pods of this node see the client itself.
fn stand_in(walk: &mut Walk<'_>, gateway: &Gateway, (client, to): (IpAddr, IpAddr)) -> Option<SourceNat> {
    let program = walk.scene.program;
    let host = program.host_at(walk.scene.ingress.number)?;
    let Route::Hop(number) = program.router_of(walk.scope)?.route(to) else { return None };
    let hop = program.hop(number)?;
    let nat = match host.source_towards(gateway.router(), to) {
        Some(own) if hop.port == host.port => SourceNat::outside(own, host.nat_ports),
        None if hop.port == host.port => {
            SourceNat::new(gateway.address_towards(client)?, PortRange::UNPRIVILEGED)
        }
        _ if hop.tunnel.is_some() && !host.has(client) => {
            SourceNat::new(host.address_towards(client)?, host.nat_ports)
        }
        _ => return None,
    };
    walk.say("service", || {
        format!("goes on from {}, so that the answers come back here", nat.ip.to_canonical())
    });
    Some(nat)
}

fn frontend(tuple: &Tuple) -> FrontendSpec {
    let (address, port) = (tuple.destination.address(), tuple.destination.port);
    FrontendSpec { address, protocol: tuple.protocol, port }
}

/// Tells the sender that nobody serves it.
fn refuse(walk: &mut Walk<'_>, address: IpAddr, port: u16) -> Result<Option<Actions>, DropReason> {
    walk.say("service", || format!("nobody serves {address} port {port}: says so"));
    Ok(Some(Actions::to(Output::Answer(Answer::Complain(Complaint::NoEndpoint)))))
}
