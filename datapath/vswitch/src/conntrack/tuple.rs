//! Between whom is a packet, as a connection sees it?

use std::net::{IpAddr, Ipv6Addr};

use wire::IpProtocol;

use crate::key::FlowKey;

/// Where addresses mean one thing: a network, or a router with all its networks. Equal tuples of two zones are two
/// connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct ZoneNo(pub(crate) u32);

impl ZoneNo {
    /// Of addresses that are the node's outside, whichever router their packets come from: of answers only, as no connection
    /// begins there. No network has its number.
    pub(crate) const OUTSIDE: Self = Self(u32::MAX);
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    /// IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
    pub(crate) ip: Ipv6Addr,
    /// The transport's port. Of an echo: the identifier at the end that asks, 0 at the one that answers. Otherwise 0.
    pub(crate) port: u16,
}

/// What a packet says about the connection that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) zone: ZoneNo,
    pub(crate) protocol: IpProtocol,
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
}

/// Whether a packet goes the way of the connection's first one, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Original,
    Reply,
}

impl Endpoint {
    pub(crate) fn new(ip: IpAddr, port: u16) -> Self {
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip, port }
    }

    /// The address as its packets have it.
    pub(crate) fn address(&self) -> IpAddr {
        self.ip.to_canonical()
    }
}

impl Tuple {
    /// All that it says, for a hash.
    pub(super) fn words(&self) -> FlowKey {
        let [source, destination] = [&self.source, &self.destination].map(|end| end.ip.to_bits());
        let place = u64::from(self.zone.0) << 8 | u64::from(self.protocol.0);
        let ports = u64::from(self.source.port) << 16 | u64::from(self.destination.port);
        let halves = |bits: u128| [(bits >> 64) as u64, bits as u64];
        let ([a, b], [c, d]) = (halves(source), halves(destination));
        FlowKey([place, ports, a, b, c, d, 0, 0])
    }

    /// What a packet back has, if nobody translates.
    pub(crate) fn turned(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }

    /// Its place in a pair.
    #[inline]
    pub(super) fn index(self) -> usize {
        self as usize
    }
}
