//! Of which connection is a fragment that shows no ports? Of the one that its datagram's first fragment is of.
//!
//! The ports of first fragments are kept by what all fragments of a datagram show, each in the one of [`PLACES`] that a secret hash
//! says: a newer datagram takes an older one's place, and nothing grows. Each ingress port has a share of the places, so that
//! one that sends many takes none of most others. A fragment that comes before its first is of no connection.

use std::hash::{BuildHasher, RandomState};
use std::net::Ipv6Addr;
use std::sync::{Mutex, OnceLock, PoisonError};

use wire::{IpProtocol, ipv4, ipv6};

use super::observe::Sight;
use super::tuple::{Tuple, ZoneNo};
use crate::key::{Field, class};
use crate::program::PortNo;
use crate::time::Now;

/// Datagrams that are known at once.
const PLACES: usize = 1 << 14;
/// Shares of them. Ports that have the same number but for multiples of it have one.
const SHARES: usize = 64;
/// Hosts wait no longer for the rest of a datagram (Linux's `ipfrag_time`; RFC 8200 §4.5 says 60 s).
const LIFE_MS: u64 = 30_000;
/// A fragment of TCP that begins before this many bytes could change the flags that were looked at (RFC 1858 §3.2.2).
const MIN_TCP_OFFSET: u16 = 20;

/// What all fragments of a datagram show (RFC 791 §3.2, RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Datagram {
    /// It comes in by it.
    port: PortNo,
    zone: ZoneNo,
    protocol: IpProtocol,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    id: u32,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    datagram: Datagram,
    ports: (u16, u16),
    seen: Now,
}

/// The ports of datagrams in pieces.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    /// Made when the first one comes.
    places: OnceLock<Box<[Mutex<Option<Known>>]>>,
    hasher: RandomState,
}

impl Fragments {
    /// A first fragment came, which is of `tuple`.
    pub(super) fn enter(&self, datagram: &Datagram, tuple: &Tuple, now: Now) {
        let ports = (tuple.source.port, tuple.destination.port);
        let places = self.places.get_or_init(|| (0..PLACES).map(|_| Mutex::new(None)).collect());
        let known = Known { datagram: *datagram, ports, seen: now };
        *places[self.place(datagram)].lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// The ports that its first fragment showed, not long ago.
    pub(super) fn ports(&self, datagram: &Datagram, now: Now) -> Option<(u16, u16)> {
        let places = self.places.get()?;
        let known = (*places[self.place(datagram)].lock().unwrap_or_else(PoisonError::into_inner))?;
        (known.datagram == *datagram && now.since(known.seen) < LIFE_MS).then_some(known.ports)
    }

    fn place(&self, datagram: &Datagram) -> usize {
        const SHARE: usize = PLACES / SHARES;
        let share = usize::from(datagram.port.0) % SHARES;
        share * SHARE + self.hasher.hash_one(datagram) as usize % SHARE
    }
}

impl Sight<'_> {
    /// The datagram that the packet is a fragment of; `None` if it is whole, or may be none of any.
    pub(crate) fn datagram(&self, port: PortNo, zone: ZoneNo) -> Option<Datagram> {
        if self.packet.key.get(Field::CLASS) & class::FRAGMENT == 0 {
            return None;
        }
        let Tuple { protocol, source, destination, .. } = self.tuple(zone, (0, 0));
        let (id, offset) = self.fragment()?;
        let hides_flags = protocol == IpProtocol::TCP && (1..MIN_TCP_OFFSET).contains(&offset);
        (!hides_flags).then_some(Datagram {
            port,
            zone,
            protocol,
            source: source.ip,
            destination: destination.ip,
            id,
        })
    }

    /// The datagram's number, and where in it the fragment lies.
    fn fragment(&self) -> Option<(u32, u16)> {
        let packet = self.head.get(usize::from(self.packet.link_bytes)..)?;
        if packet.first()? >> 4 == 4 {
            let ip = ipv4::View::new(packet).ok()?;
            return Some((ip.id().into(), (ip.fragment() & ipv4::FRAGMENT_OFFSET) << 3));
        }
        let ip = ipv6::View::new(packet).ok()?;
        let fragment = ipv6::walk(ip.next_header(), packet.get(ipv6::HEADER_BYTES..)?).ok()?.fragment?;
        Some((fragment.id, fragment.offset))
    }
}
