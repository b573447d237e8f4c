//! Where do packets for other subnets go? What the gateways of a program's networks know of each other.

use std::collections::HashMap;
use std::net::IpAddr;

use wire::MacAddr;

use super::shared::Map;
use super::{NetworkNo, NodeNo, PortNo, Tunnel};

/// A router's number: assigned by control. Networks whose gateways have one number reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RouterNo(pub u32);

/// An address with its subnet's prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// The address; bits behind the prefix may be set.
    pub address: IpAddr,
    /// The subnet's bits: up to 32, or 128.
    pub len: u8,
}

impl Prefix {
    /// True if `ip` is of the subnet.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = |differences: u128, width: u8| differences >> (width - self.len.min(width));
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                // A shift by the whole width would not be one.
                self.len == 0 || bits((own.to_bits() ^ ip.to_bits()).into(), 32) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                self.len == 0 || bits(own.to_bits() ^ ip.to_bits(), 128) == 0
            }
            _ => false,
        }
    }

    /// The address with the bits behind the prefix cleared.
    pub(super) fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(own) => IpAddr::V4((own.to_bits() & leading(self.len, 32) as u32).into()),
            IpAddr::V6(own) => IpAddr::V6((own.to_bits() & leading(self.len, 128)).into()),
        }
    }

    /// True if some address is of both subnets.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        if self.len <= other.len { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// True if the length is one that the address can have.
    pub fn is_sound(&self) -> bool {
        self.len <= if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// The low `width` bits, of which the first `len` are set.
fn leading(len: u8, width: u8) -> u128 {
    let behind = u32::from(width - len.min(width));
    u128::MAX.checked_shl(behind).unwrap_or(0)
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The first hop of a network: the switch itself, at the same addresses on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySpec {
    /// Its station address in the network.
    pub mac: MacAddr,
    /// Its addresses, one or more of a subnet each.
    pub addresses: Vec<Prefix>,
    /// The router that it belongs to.
    pub router: RouterNo,
    /// What is behind it and no station of this node.
    pub routes: Vec<RouteSpec>,
}

/// Where packets to some addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    /// The addresses.
    pub to: Prefix,
    /// Where.
    pub via: Via,
}

/// Who takes packets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The gateway of the same network on another node.
    Node(NodeNo),
    /// The node itself. While its port is not there, nobody does.
    Host,
}

/// A gateway, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) mac: MacAddr,
    /// As listed; where one is IPv6, the link-local one of its MAC is the last.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) router: RouterNo,
}

impl Gateway {
    pub(crate) fn router(&self) -> RouterNo {
        self.router
    }

    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// What it sends as to somebody at `peer`: its first address of that family.
    pub(crate) fn address_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        towards(&self.addresses, peer)
    }
}

/// The first of `addresses` that is of the family of `peer`.
pub(super) fn towards(addresses: &[IpAddr], peer: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|own| own.is_ipv4() == peer.is_ipv4())
}

/// The position of a [`Hop`] in its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HopNo(pub(super) u32);

/// Whom packets are routed to: the station that has their destination, or the gateway of its network on another node.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) port: PortNo,
    /// The tunnel to it, if it is on another node.
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) network: NetworkNo,
    pub(crate) mac: MacAddr,
    /// Of its network's gateway: whom routed frames come from.
    pub(crate) gateway_mac: MacAddr,
    pub(crate) mtu_bytes: u32,
    pub(crate) isolated: bool,
}

/// The networks that reach each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Router {
    pub(super) stations: HashMap<IpAddr, HopNo>,
    routes: Prefixes<Route>,
}

/// What a router says to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Hop(HopNo),
    /// Its subnet is here, and no port lists it.
    Nobody,
    Nowhere,
}

impl Router {
    pub(crate) fn route(&self, to: IpAddr) -> Route {
        match self.stations.get(&to) {
            Some(station) => Route::Hop(*station),
            None => self.routes.longest(to).copied().unwrap_or(Route::Nowhere),
        }
    }

    /// Adds a route; the one that was there, if there was one to the same addresses.
    pub(super) fn add(&mut self, to: Prefix, route: Route) -> Option<Route> {
        self.routes.add(to, route)
    }
}

/// What prefixes of addresses have, found by the longest: as many lookups as there are lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefixes<T: Eq> {
    /// By length, the longest first, none of them empty; addresses with the bits behind the prefix cleared.
    by_len: Vec<(u8, Map<IpAddr, T>)>,
}

impl<T: Eq> Default for Prefixes<T> {
    fn default() -> Self {
        Self { by_len: Vec::new() }
    }
}

impl<T: Eq + Copy> Prefixes<T> {
    /// Adds what `prefix` has; what it had, if it had something.
    pub(super) fn add(&mut self, prefix: Prefix, value: T) -> Option<T> {
        let at = self.by_len.partition_point(|(len, _)| *len > prefix.len);
        if self.by_len.get(at).is_none_or(|(len, _)| *len != prefix.len) {
            self.by_len.insert(at, (prefix.len, Map::default()));
        }
        let of_len = &mut self.by_len[at].1;
        let before = of_len.get(&prefix.network()).copied();
        of_len.insert_mut(prefix.network(), value);
        before
    }

    /// Removes what `prefix` has.
    pub(super) fn remove(&mut self, prefix: Prefix) {
        let Ok(at) = self.by_len.binary_search_by(|(len, _)| prefix.len.cmp(len)) else { return };
        let of_len = &mut self.by_len[at].1;
        of_len.remove_mut(&prefix.network());
        if of_len.is_empty() {
            self.by_len.remove(at);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_len.is_empty()
    }

    /// What the longest prefix of `address` has.
    pub(super) fn longest(&self, address: IpAddr) -> Option<&T> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let fitting = self.by_len.iter().filter(|(len, _)| *len <= width);
        fitting.filter_map(|(len, values)| values.get(&Prefix { address, len: *len }.network())).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, len: u8) -> Prefix {
        Prefix { address: address.parse().unwrap(), len }
    }

    #[test]
    fn a_prefix_contains_its_subnet_and_nothing_else() {
        for (own, len, inside, outside) in [
            ("10.1.2.1", 24, "10.1.2.255", "10.1.3.0"),
            ("10.1.2.1", 32, "10.1.2.1", "10.1.2.0"),
            ("0.0.0.0", 0, "255.1.2.3", "::1"),
            ("fd00::1", 64, "fd00::ffff:0:0:1", "fd00:0:0:1::1"),
            ("fd00::1", 128, "fd00::1", "fd00::"),
            ("::", 0, "ff02::1", "1.2.3.4"),
        ] {
            let prefix = prefix(own, len);
            assert!(prefix.contains(inside.parse().unwrap()), "{inside} in {prefix}");
            assert!(!prefix.contains(outside.parse().unwrap()), "{outside} in {prefix}");
        }
    }

    #[test]
    fn prefixes_overlap_where_one_contains_the_other() {
        let (wide, narrow) = (prefix("10.0.0.0", 8), prefix("10.9.0.0", 16));
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        assert!(!narrow.overlaps(&prefix("10.8.0.0", 16)) && !narrow.overlaps(&prefix("::", 0)));
    }

    #[test]
    fn the_longest_prefix_has_the_route() {
        let mut router = Router::default();
        let hop = |number| Route::Hop(HopNo(number));
        assert_eq!(router.add(prefix("10.0.0.0", 8), hop(8)), None);
        assert_eq!(router.add(prefix("10.1.2.3", 24), Route::Nobody), None);
        assert_eq!(router.add(prefix("::", 0), hop(0)), None);
        assert_eq!(router.add(prefix("10.1.2.9", 24), hop(24)), Some(Route::Nobody), "the same addresses");
        let route = |to: &str| router.route(to.parse().unwrap());
        assert_eq!(route("10.1.2.200"), hop(24));
        assert_eq!(route("10.1.3.200"), hop(8));
        assert_eq!(route("11.0.0.1"), Route::Nowhere);
        assert_eq!(route("fd00::1"), hop(0));
    }
}
