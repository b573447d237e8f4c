//! To which endpoint did a client's last connection go? For services that keep a client at one.
//!
//! Theory of operation. A client that nobody remembers goes where the hash of its address says, on all nodes to the same endpoint.
//! Where it went is remembered, with the time of its last connection, so that endpoints that come and go do not move it; until it has
//! begun none for the service's timeout, or its endpoint no longer serves.
//!
//! **Bounds.** [`BUCKETS`] of [`WAYS`] each, made when the first such connection begins: 4 MiB. In a full bucket the client that has
//! been away for longest makes room, and goes by the hash again. New connections of such services alone take a bucket's lock.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::program::{EndpointSpec, ServiceNo};
use crate::time::Now;

/// Buckets, a power of two.
const BUCKETS: usize = 1 << 13;
/// Clients of a bucket.
const WAYS: usize = 8;

/// Clients and their endpoints.
#[derive(Debug, Default)]
pub(crate) struct Affinities {
    buckets: OnceLock<Box<[Mutex<Bucket>]>>,
    hasher: RandomState,
    /// The bucket that the next sweep begins with.
    hand: AtomicUsize,
}

type Bucket = [Option<Kept>; WAYS];

/// A client of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) service: ServiceNo,
    client: IpAddr,
    pub(crate) endpoint: EndpointSpec,
    /// When it last began a connection.
    pub(crate) used: Now,
}

impl Affinities {
    /// Where the client's last connection to the service went, and when.
    pub(crate) fn find(&self, service: ServiceNo, client: IpAddr) -> Option<Kept> {
        let bucket = lock(self.buckets.get()?, self.place(service, client));
        bucket.iter().flatten().find(|kept| kept.is_of(service, client)).copied()
    }

    /// The client begins a connection with `endpoint`.
    pub(crate) fn note(&self, service: ServiceNo, client: IpAddr, endpoint: EndpointSpec, used: Now) {
        let buckets = self.buckets.get_or_init(|| (0..BUCKETS).map(|_| Mutex::default()).collect());
        let mut bucket = lock(buckets, self.place(service, client));
        let own = bucket.iter().position(|way| way.is_some_and(|kept| kept.is_of(service, client)));
        let stalest = || (0..WAYS).min_by_key(|at| bucket[*at].map(|kept| kept.used.ms));
        if let Some(at) = own.or_else(stalest) {
            bucket[at] = Some(Kept { service, client, endpoint, used });
        }
    }

    /// Forgets those for which `is_over` is true, among the clients of `budget` buckets.
    pub(crate) fn sweep(&self, budget: usize, is_over: impl Fn(&Kept) -> bool) {
        let Some(buckets) = self.buckets.get() else { return };
        let budget = budget.min(BUCKETS);
        let first = self.hand.fetch_add(budget, Relaxed);
        for number in first..first + budget {
            for way in lock(buckets, number % BUCKETS).iter_mut() {
                *way = way.filter(|kept| !is_over(kept));
            }
        }
    }

    fn place(&self, service: ServiceNo, client: IpAddr) -> usize {
        self.hasher.hash_one((service, client)) as usize % BUCKETS
    }
}

impl Kept {
    fn is_of(&self, service: ServiceNo, client: IpAddr) -> bool {
        (self.service, self.client) == (service, client)
    }
}

fn lock(buckets: &[Mutex<Bucket>], number: usize) -> MutexGuard<'_, Bucket> {
    // No step under the lock panics half-way.
    buckets[number].lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: ServiceNo = ServiceNo(1);

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn endpoint(port: u16) -> EndpointSpec {
        EndpointSpec { address: client(1), port }
    }

    #[test]
    fn a_client_is_where_it_was_last_at_each_service() {
        let affinities = Affinities::default();
        assert_eq!(affinities.find(SERVICE, client(7)), None);
        affinities.note(SERVICE, client(7), endpoint(1), Now { ms: 1 });
        affinities.note(SERVICE, client(7), endpoint(2), Now { ms: 2 });
        affinities.note(ServiceNo(2), client(7), endpoint(3), Now { ms: 3 });
        let at = |service| affinities.find(service, client(7)).map(|kept| (kept.endpoint.port, kept.used.ms));
        assert_eq!((at(SERVICE), at(ServiceNo(2))), (Some((2, 2)), Some((3, 3))));
        affinities.sweep(usize::MAX, |kept| kept.service == SERVICE);
        assert_eq!((at(SERVICE), at(ServiceNo(2))), (None, Some((3, 3))));
    }

    #[test]
    fn more_clients_than_there_is_room_for_displace_those_that_were_away_for_longest() {
        let affinities = Affinities::default();
        let most = (BUCKETS * WAYS) as u32;
        for number in 0..4 * most {
            affinities.note(SERVICE, client(number), endpoint(1), Now { ms: number.into() });
        }
        let known = |range: std::ops::Range<u32>| {
            range.filter(|number| affinities.find(SERVICE, client(*number)).is_some()).count()
        };
        assert_eq!(known(0..4 * most), most as usize, "all places are taken");
        assert!(known(0..2 * most) < most as usize / 20, "few of the first");
        assert_eq!(known(4 * most - 1..4 * most), 1, "the last one");
    }
}
