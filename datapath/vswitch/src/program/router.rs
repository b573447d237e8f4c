//! Where do packets for other subnets go? What the gateways of a program's networks know of each other.

use std::collections::HashMap;
use std::net::IpAddr;

use wire::MacAddr;

use super::{NetworkNo, PortNo};

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

    /// True if some address is of both subnets.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        if self.len <= other.len { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// True if the length is one that the address can have.
    pub(super) fn is_sound(&self) -> bool {
        self.len <= if self.address.is_ipv4() { 32 } else { 128 }
    }
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
}

/// A gateway, as the stages see it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    pub(crate) mac: MacAddr,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) router: RouterNo,
}

impl Gateway {
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// What it sends as to somebody at `peer`: its first address of that family.
    pub(crate) fn address_towards(&self, peer: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == peer.is_ipv4())
    }
}

/// The position of a [`Host`] in its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostNo(pub(super) u32);

/// A station with an address that packets are routed to.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) port: PortNo,
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
    pub(super) hosts: HashMap<IpAddr, HostNo>,
    pub(super) subnets: Vec<Prefix>,
}

/// What a router says to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Host(HostNo),
    /// Its subnet is here, and no port lists it.
    Nobody,
    Nowhere,
}

impl Router {
    pub(crate) fn route(&self, to: IpAddr) -> Route {
        match self.hosts.get(&to) {
            Some(host) => Route::Host(*host),
            None if self.subnets.iter().any(|subnet| subnet.contains(to)) => Route::Nobody,
            None => Route::Nowhere,
        }
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
}
