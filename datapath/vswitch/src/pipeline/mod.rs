//! What is to happen to a frame that no cache knows?
//!
//! ```text
//! admit -> security -> learn -> dhcp -> outside -> service -> gateway -> forward -> outside -> policy
//! ```
//!
//! Stages are plain functions, one file each, over a [`Walk`]: the key's view, which records what they look at; the program;
//! the stations; and, when somebody asks, the sentences of a trace. The same functions decide and explain.

mod admit;
mod connection;
mod dhcp;
mod forward;
mod gateway;
mod learn;
mod outside;
mod policy;
mod security;
mod service;

use frame::DropReason;

use self::connection::Tracked;
use self::service::Served;
use crate::actions::{Actions, Origin, Output};
use crate::cache::Derived;
use crate::conntrack::{Sight, Tuple, Vacancy, ZoneNo};
use crate::explain::Step;
use crate::key::{Field, View};
use crate::program::{Network, NetworkNo, Port, PortNo, Program, RouterNo, Scope, Tunnel};
use crate::stations::{Dependence, Effect, Shared, Slot};
use crate::time::Now;

/// In a zone's number: it is a network's, and not a router's. Both have numbers of their own.
const NETWORK: u32 = 1 << 31;

/// The scope of a zone's addresses.
fn scope_of(zone: ZoneNo) -> Scope {
    match zone.0 & NETWORK {
        0 => Scope::Router(RouterNo(zone.0)),
        _ => Scope::Network(NetworkNo(zone.0 & !NETWORK)),
    }
}

/// What a decision is made in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) program: &'a Program,
    pub(crate) shared: &'a Shared,
    pub(crate) now: Now,
    pub(crate) effect: Effect,
    /// The port that the frame came in by.
    pub(crate) ingress: &'a Port,
    /// Its network.
    pub(crate) network: &'a Network,
    /// The tunnel that it came out of; its port is then the one that stands for other nodes.
    pub(crate) tunnel: Option<Tunnel>,
}

impl<'a> Scene<'a> {
    /// The scene of frames that come in by `port`; `None` if it is in no network.
    pub(crate) fn of(program: &'a Program, port: PortNo, shared: &'a Shared, now: Now) -> Option<Self> {
        let ingress = program.port(port)?;
        let network = program.network(ingress.network)?;
        Some(Self { program, shared, now, effect: Effect::Commit, ingress, network, tunnel: None })
    }

    /// Where its frames come from.
    pub(crate) fn origin(&self) -> Origin {
        Origin { port: self.ingress.number, tunnel: self.tunnel }
    }

    /// Where its addresses mean one thing.
    pub(crate) fn scope(&self) -> Scope {
        match &self.network.gateway {
            Some(gateway) => Scope::Router(gateway.router()),
            None => Scope::Network(self.network.number),
        }
    }

    /// The same, for connections.
    pub(crate) fn zone(&self) -> ZoneNo {
        match self.scope() {
            Scope::Router(router) => ZoneNo(router.0 & !NETWORK),
            Scope::Network(network) => ZoneNo(network.0 | NETWORK),
        }
    }

    /// Of the program, for connections that remember it.
    pub(crate) fn epoch(&self) -> u32 {
        self.program.version() as u32
    }
}

/// One frame's walk through the stages.
pub(crate) struct Walk<'a> {
    pub(crate) scene: Scene<'a>,
    /// For stages that read beyond the key.
    sight: Sight<'a>,
    view: View<'a>,
    /// Where its addresses mean one thing, and its connection is looked for: the scene's, but of what comes back from outside.
    scope: Scope,
    zone: ZoneNo,
    /// What the decision depends on: the source's station, the destination's.
    depends: [Dependence; 2],
    /// Where the source's last frame is noted.
    source: Slot,
    /// The source was learned to be behind the ingress, or would be.
    source_is_here: bool,
    /// The packet's connection has taken it.
    tracked: Option<Tracked>,
    /// It is of a service's connection: its destination is another from here on.
    served: Option<Served>,
    /// Who denied it, in a policy's words.
    denied_by: Option<&'a str>,
    /// It is denied because no connection has it; while this stands, none does.
    denied_while: Option<Vacancy>,
    /// False once something beyond the key was read: the decision is this frame's alone.
    cacheable: bool,
    /// The stages' sentences, if somebody wants them.
    trace: Option<Vec<Step>>,
}

impl<'a> Walk<'a> {
    /// The walk of the frame that `sight` is of.
    pub(crate) fn new(scene: Scene<'a>, sight: Sight<'a>) -> Self {
        let view = View::new(&sight.packet.key);
        let (depends, source) = ([Dependence::NONE; 2], Slot::NONE);
        let (source_is_here, cacheable, trace) = (false, true, None);
        let (tracked, served, denied_by, denied_while) = (None, None, None, None);
        Self {
            scene,
            sight,
            view,
            scope: scene.scope(),
            zone: scene.zone(),
            depends,
            source,
            source_is_here,
            tracked,
            served,
            denied_by,
            denied_while,
            cacheable,
            trace,
        }
    }

    /// The same walk, whose stages say what they do.
    pub(crate) fn with_trace(self, trace: Vec<Step>) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// What the stages said.
    pub(crate) fn into_trace(self) -> Vec<Step> {
        self.trace.unwrap_or_default()
    }

    /// The rule, or the policies that isolate, by which the packet is denied.
    pub(crate) fn denied_by(&self) -> Option<&'a str> {
        self.denied_by
    }

    /// What the packet leaves with, if it would open a connection that is translated.
    pub(crate) fn opens(&self) -> Option<Tuple> {
        let (served, tracked) = (self.served?, self.tracked?);
        let opens = tracked.found.is_none() && served.error_of.is_none();
        let connections = self.scene.shared.connections();
        opens.then(|| connections.foresee(&tracked.tuple, &served.translation, self.scene.now)).flatten()
    }

    /// What the caches are to keep of the decision `actions`; `None` if it is this frame's alone.
    pub(crate) fn derived(&self, actions: Actions) -> Option<Derived> {
        let Self { depends, source, .. } = *self;
        self.cacheable.then(|| Derived { actions, mask: self.view.mask(), depends, source })
    }

    /// Adds a sentence to the trace, if there is one.
    fn say(&mut self, stage: &'static str, sentence: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(Step { stage, sentence: sentence() });
        }
    }
}

/// Decides on the frame of `walk`.
pub(crate) fn run(walk: &mut Walk<'_>) -> Actions {
    let decided = decide(walk);
    if let (Err(_), Some(vacancy)) = (&decided, walk.denied_while) {
        return Actions::to(Output::Deny(vacancy));
    }
    if walk.tracked.is_some() {
        // It is of one connection's packets alone, or of those that open it.
        walk.view.get(Field::SOURCE_PORT);
    }
    decided.unwrap_or_else(Actions::drop)
}

fn decide(walk: &mut Walk<'_>) -> Result<Actions, DropReason> {
    let admitted = admit::run(walk)?;
    security::run(walk)?;
    gateway::guard(walk)?;
    learn::run(walk, admitted);
    if let Some(answer) = dhcp::run(walk)? {
        return Ok(answer);
    }
    if !outside::back(walk)?
        && let Some(answer) = service::run(walk)?
    {
        return Ok(answer);
    }
    let actions = match gateway::run(walk)? {
        Some(actions) => actions,
        None => forward::run(walk, admitted)?,
    };
    let actions = outside::leave(walk, actions)?;
    policy::run(walk, actions)
}
