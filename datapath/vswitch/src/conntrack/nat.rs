//! What do the packets of a connection become, and which source port is free for them?
//!
//! A connection has two tuples: what its first packet had, and what a packet back has. Without translation one is the
//! other turned round. A translation changes the reply tuple, and that is all there is to it: a packet of either
//! direction leaves with the *other* direction's tuple, turned round.
//!
//! The reply tuple must be no other connection's. Where the source is translated, its port is searched: the packet's
//! own first, so that most keep it, then from a place that the hash chooses, [`MAX_PROBES`] in all.

use std::net::{IpAddr, Ipv6Addr};

use wire::IpProtocol;

use super::tuple::{Endpoint, Tuple, ZoneNo};

/// Source ports tried before the connection is refused: bounds the work of one packet, and fails one in a thousand
/// times only where 95 % of the range are taken for one destination.
pub(super) const MAX_PROBES: usize = 128;

/// What a connection's packets are to have instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Translation {
    /// Of the source ("SNAT", "masquerade").
    pub(crate) source: Option<SourceNat>,
    /// Of the destination ("DNAT"): a service's backend.
    pub(crate) destination: Option<DestinationNat>,
}

/// A source's address, and the ports to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceNat {
    pub(crate) ip: Ipv6Addr,
    pub(crate) ports: PortRange,
    /// Answers are looked for in [`ZoneNo::OUTSIDE`]: all zones share the address and its ports.
    pub(crate) is_outside: bool,
}

/// A destination's address, and its port if that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DestinationNat {
    pub(crate) ip: Ipv6Addr,
    pub(crate) port: Option<u16>,
}

/// Ports from the first to the last, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Those that no service is expected at.
    pub(crate) const UNPRIVILEGED: Self = Self { first: 1024, last: u16::MAX };

    /// `None` if `last` is below `first`.
    pub(crate) fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The port `offset` behind the first, going round.
    fn at(self, offset: u32) -> u16 {
        self.first + (offset % self.count()) as u16
    }
}

impl SourceNat {
    pub(crate) fn new(ip: IpAddr, ports: PortRange) -> Self {
        Self { ip: Endpoint::new(ip, 0).ip, ports, is_outside: false }
    }

    /// Of packets that leave for the outside.
    pub(crate) fn outside(ip: IpAddr, ports: PortRange) -> Self {
        Self { is_outside: true, ..Self::new(ip, ports) }
    }
}

impl DestinationNat {
    pub(crate) fn new(ip: IpAddr, port: Option<u16>) -> Self {
        Self { ip: Endpoint::new(ip, 0).ip, port }
    }
}

impl Translation {
    /// The reply tuples that may be had for a connection of `original`, best first.
    pub(super) fn replies(&self, original: &Tuple, hash: u64) -> impl Iterator<Item = Tuple> + use<> {
        let from = self.destination(original);
        let plain = original.source;
        let source = self.source;
        let zone = if source.is_some_and(|nat| nat.is_outside) { ZoneNo::OUTSIDE } else { original.zone };
        let reply = Tuple { zone, source: from, destination: plain, ..*original };
        let has_ports = has_source_port(original.protocol);
        let own = match source {
            None => Some(plain),
            Some(nat) if !has_ports => Some(Endpoint { ip: nat.ip, port: 0 }),
            Some(nat) => nat.ports.contains(plain.port).then_some(Endpoint { ip: nat.ip, ..plain }),
        };
        let searched = source.filter(|_| has_ports).into_iter().flat_map(move |nat| {
            let tries = nat.ports.count().min(MAX_PROBES as u32);
            // The hash is secret: who does not see the packets cannot tell the port.
            let start = hash as u32 % nat.ports.count();
            (0..tries).map(move |step| Endpoint { ip: nat.ip, port: nat.ports.at(start + step) })
        });
        own.into_iter()
            .chain(searched)
            .take(MAX_PROBES)
            .map(move |destination| Tuple { destination, ..reply })
    }

    fn destination(&self, original: &Tuple) -> Endpoint {
        let old = original.destination;
        match self.destination {
            None => old,
            // An echo is answered at no port.
            Some(nat) if !original.protocol.has_ports() => Endpoint { ip: nat.ip, ..old },
            Some(nat) => Endpoint { ip: nat.ip, port: nat.port.unwrap_or(old.port) },
        }
    }
}

/// True for protocols of which several connections can share an address at each end. An echo's identifier is a port.
pub(crate) fn has_source_port(protocol: IpProtocol) -> bool {
    protocol.has_ports() || matches!(protocol, IpProtocol::ICMP | IpProtocol::ICMPV6)
}
