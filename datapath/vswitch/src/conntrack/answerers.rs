//! Who may answer in another's name? Those that connections were given to which were meant for another address, also when
//! nothing of the program says any more that they might be.
//!
//! A count for each of [`PLACES`] hashes, without a lock. It says yes to some who are none: whoever asks looks further.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use wire::IpProtocol;

use super::tuple::{Endpoint, Tuple, ZoneNo};

/// Counts, a power of two: few addresses are taken for one of a few thousand endpoints'.
const PLACES: usize = 1 << 16;

/// Connections by who answers them, of those that were meant for another.
#[derive(Debug)]
pub(super) struct Answerers {
    /// Made when the first one begins.
    counts: OnceLock<Box<[AtomicU32]>>,
    all: AtomicU32,
    hasher: RandomState,
}

impl Default for Answerers {
    fn default() -> Self {
        Self { counts: OnceLock::new(), all: AtomicU32::new(0), hasher: RandomState::new() }
    }
}

impl Answerers {
    /// A connection has begun.
    pub(super) fn enter(&self, tuples: &[Tuple; 2]) {
        if is_given_away(tuples) {
            for count in self.counts_of(&tuples[1]) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// It is over.
    pub(super) fn leave(&self, tuples: &[Tuple; 2]) {
        if is_given_away(tuples) {
            for count in self.counts_of(&tuples[1]) {
                count.fetch_sub(1, Relaxed);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.load(Relaxed) == 0
    }

    /// False if `address` answers for no other.
    pub(super) fn may_have(&self, zone: ZoneNo, address: IpAddr) -> bool {
        let host = Endpoint::new(address, 0).ip;
        !self.is_empty() && self.count((zone, host)).load(Relaxed) > 0
    }

    /// False if it does not from that port.
    pub(super) fn may_have_at(&self, zone: ZoneNo, protocol: IpProtocol, end: &Endpoint) -> bool {
        !self.is_empty() && self.count((zone, protocol, end)).load(Relaxed) > 0
    }

    /// All counts of a connection with these answers.
    fn counts_of(&self, reply: &Tuple) -> [&AtomicU32; 3] {
        let Tuple { zone, protocol, source, .. } = *reply;
        [&self.all, self.count((zone, source.ip)), self.count((zone, protocol, &source))]
    }

    fn count(&self, key: impl Hash) -> &AtomicU32 {
        let counts = self.counts.get_or_init(|| (0..PLACES).map(|_| AtomicU32::new(0)).collect());
        &counts[self.hasher.hash_one(key) as usize & (PLACES - 1)]
    }
}

fn is_given_away([original, reply]: &[Tuple; 2]) -> bool {
    original.destination != reply.source
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: [u8; 4], destination: [u8; 4]) -> Tuple {
        let [source, destination] =
            [source, destination].map(|address| Endpoint::new(IpAddr::from(address), 80));
        Tuple { zone: ZoneNo(1), protocol: IpProtocol::TCP, source, destination }
    }

    #[test]
    fn an_address_answers_for_another_while_one_of_its_connections_is_there() {
        let (client, service, endpoint) = ([10, 0, 0, 1], [172, 30, 0, 1], [10, 0, 0, 4]);
        let answerers = Answerers::default();
        let given_away = [tuple(client, service), tuple(endpoint, client)];
        let direct = [tuple(client, endpoint), tuple(endpoint, client)];
        let has = |zone| answerers.may_have(ZoneNo(zone), endpoint.into());
        answerers.enter(&direct);
        assert!(answerers.is_empty() && !has(1));
        answerers.enter(&given_away);
        answerers.enter(&given_away);
        answerers.leave(&given_away);
        assert!(has(1) && !has(2) && !answerers.may_have(ZoneNo(1), client.into()));
        let at =
            |port| answerers.may_have_at(ZoneNo(1), IpProtocol::TCP, &Endpoint::new(endpoint.into(), port));
        assert!(at(80) && !at(81));
        answerers.leave(&given_away);
        answerers.leave(&direct);
        assert!(answerers.is_empty() && !has(1));
    }
}
