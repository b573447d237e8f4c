//! How does a decision that was made because a packet had no connection learn that it has one now?
//!
//! Theory of operation. What may begin does not depend on the client's port. So connections are counted by what a packet shows but
//! its source port: by whom they begin, with whom and at which port; and, for the packets back, between which two hosts, and in
//! which of sixteen ranges the client's port is. Of each there is a count at the place that its hash falls on: how many there
//! are, and how many ever began. Where both of a packet's counts say none, no packet from its source to that address and port
//! has a connection, whatever port it is from, and none has one while the second counts stand: one cached denial answers them
//! all. Where there are some, those or others of the same place, a packet's own connection is looked for, and a denial is not cached.
//!
//! Many connections of two hosts share a few places: how many denials share theirs depends on how many hosts talk.
//!
//! Both counts of a place are one word, which moves under the lock of the tuple's bucket. A denial that holds has no lock to take:
//! whoever answers a connection's first packet has got it after the counts moved.

use std::sync::atomic::{AtomicU64, Ordering::*};

use super::tuple::{Endpoint, Tuple};

/// Places, as many as two bytes number: 512 KiB.
const PLACES: usize = 1 << 16;
/// In a word: one connection that there is, and one that began.
const LIVE: u64 = 1;
const BEGUN: u64 = 1 << 32;
/// Bits of a client's port that packets back are told apart by.
const RANGE_SHIFT: u32 = 12;

/// No connection of a tuple was there. It costs no look-up to ask whether that is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vacancy {
    places: [u16; 2],
    /// Connections that ever began at both places: neither count goes back, so that the sum stands if both do.
    begun: u32,
}

/// What is counted of a connection, as tuples that stand for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared {
    /// By packets that go the way of its first one.
    pub(super) begins: Tuple,
    /// By packets back.
    pub(super) answers: Tuple,
}

impl Shared {
    /// Of whatever connection a packet of `tuple` could be of.
    pub(super) fn of_packet(tuple: &Tuple) -> Self {
        Self::of_connection(&[*tuple; 2])
    }

    /// Of a connection, by its tuples.
    pub(super) fn of_connection([original, reply]: &[Tuple; 2]) -> Self {
        let with_ports = |tuple: &Tuple, source, destination| Tuple {
            source: Endpoint { port: source, ..tuple.source },
            destination: Endpoint { port: destination, ..tuple.destination },
            ..*tuple
        };
        Self {
            begins: with_ports(original, 0, original.destination.port),
            // The source port tells the two kinds apart.
            answers: with_ports(reply, 1, reply.destination.port >> RANGE_SHIFT),
        }
    }
}

/// Connections, by hashes of what is counted.
#[derive(Debug)]
pub(super) struct Places(Box<[AtomicU64]>);

impl Places {
    pub(super) fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// That there is no connection with these hashes; `None` if there may be one.
    pub(super) fn vacancy(&self, hashes: [u64; 2]) -> Option<Vacancy> {
        let places = hashes.map(|hash| hash as u16);
        let [one, other] = self.words(places);
        let is_vacant = one as u32 == 0 && other as u32 == 0;
        is_vacant.then_some(Vacancy { places, begun: begun([one, other]) })
    }

    /// False if one may have begun since.
    #[inline]
    pub(super) fn stands(&self, vacancy: Vacancy) -> bool {
        begun(self.words(vacancy.places)) == vacancy.begun
    }

    /// A connection begins. Under the locks of both tuples' buckets.
    pub(super) fn enter(&self, hashes: [u64; 2]) {
        for hash in hashes {
            self.0[usize::from(hash as u16)].fetch_add(BEGUN + LIVE, AcqRel);
        }
    }

    /// It is over. Likewise.
    pub(super) fn leave(&self, hashes: [u64; 2]) {
        for hash in hashes {
            self.0[usize::from(hash as u16)].fetch_sub(LIVE, AcqRel);
        }
    }

    #[inline]
    fn words(&self, places: [u16; 2]) -> [u64; 2] {
        places.map(|place| self.0[usize::from(place)].load(Acquire))
    }
}

fn begun([one, other]: [u64; 2]) -> u32 {
    ((one >> 32) as u32).wrapping_add((other >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vacancy_stands_until_a_connection_of_one_of_its_places_begins() {
        let places = Places::new();
        let [one, answered, other] = [[7, 1], [2, 9], [8, 3]].map(|hashes| places.vacancy(hashes).unwrap());
        places.enter([7, 9]);
        assert!(!places.stands(one) && !places.stands(answered) && places.stands(other));
        assert_eq!((places.vacancy([7, 1]), places.vacancy([2, 9])), (None, None));
        places.leave([7, 9]);
        assert!(!places.stands(one), "it is over, and began all the same");
        assert!(places.stands(places.vacancy([7, 1]).unwrap()));
    }

    #[test]
    fn packets_of_a_connection_are_counted_whatever_else_is_of_their_hosts() {
        use super::super::tuple::ZoneNo;
        let end = |host: u8, port| Endpoint::new([10, 0, 0, host].into(), port);
        let tuple = |from: Endpoint, to: Endpoint| Tuple {
            zone: ZoneNo(1),
            protocol: wire::IpProtocol::TCP,
            source: from,
            destination: to,
        };
        let (client, server) = (end(1, 40_000), end(2, 80));
        let connection = Shared::of_connection(&[tuple(client, server), tuple(server, client)]);
        let is_counted = |packet: Tuple| {
            let packet = Shared::of_packet(&packet);
            packet.begins == connection.begins || packet.answers == connection.answers
        };
        assert!(is_counted(tuple(client, server)) && is_counted(tuple(server, client)));
        assert!(is_counted(tuple(end(1, 7), server)), "whatever port it is from");
        assert!(!is_counted(tuple(client, end(2, 81))));
        assert!(!is_counted(tuple(server, end(1, 80))), "the client's own services are another matter");
    }
}
