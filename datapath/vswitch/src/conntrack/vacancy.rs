//! How does a decision that was made because a packet had no connection learn that it has one now?
//!
//! Theory of operation. What may begin does not depend on the client's port. So connections are counted by their tuples without the
//! source port, each twice, as packets of its two directions have them: at the place that the tuple's hash falls on, how many
//! there are, and how many ever began. Where there are none, no packet to that address and port has a connection, whatever
//! port it is from, and none has one while the second count stands: one cached denial answers them all. Where there are some,
//! those or others of the same place, a packet's own connection is looked for, and a denial is not cached.
//!
//! Both counts are one word, which moves under the lock of the tuple's bucket. A denial that holds has no lock to take: whoever
//! answers a connection's first packet has got it after the counts moved.

use std::sync::atomic::{AtomicU64, Ordering::*};

/// Places at most, a power of two: 2 MiB. With fifty thousand connections, a fifth of all denials share their place with one of
/// them.
const MAX_PLACES: usize = 1 << 18;
/// In a word: one connection that there is, and one that began.
const LIVE: u64 = 1;
const BEGUN: u64 = 1 << 32;

/// No connection of a tuple was there. It costs no look-up to ask whether that is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vacancy {
    place: u32,
    begun: u32,
}

/// Connections, by hash of a tuple without its source port.
#[derive(Debug)]
pub(super) struct Places(Box<[AtomicU64]>);

impl Places {
    /// Of a table with so many buckets.
    pub(super) fn new(buckets: usize) -> Self {
        let places = buckets.next_power_of_two().min(MAX_PLACES);
        Self((0..places).map(|_| AtomicU64::new(0)).collect())
    }

    /// That there is no connection of the tuple; `None` if there may be one.
    pub(super) fn vacancy(&self, hash: u64) -> Option<Vacancy> {
        let place = self.place(hash);
        let word = self.0[place].load(Acquire);
        (word as u32 == 0).then_some(Vacancy { place: place as u32, begun: begun(word) })
    }

    /// False if a connection of the tuple may have begun since.
    #[inline]
    pub(super) fn stands(&self, vacancy: Vacancy) -> bool {
        self.0.get(vacancy.place as usize).is_some_and(|word| begun(word.load(Acquire)) == vacancy.begun)
    }

    /// A connection begins. Under the locks of both tuples' buckets.
    pub(super) fn enter(&self, hashes: [u64; 2]) {
        for hash in hashes {
            self.0[self.place(hash)].fetch_add(BEGUN + LIVE, AcqRel);
        }
    }

    /// It is over. Likewise.
    pub(super) fn leave(&self, hashes: [u64; 2]) {
        for hash in hashes {
            self.0[self.place(hash)].fetch_sub(LIVE, AcqRel);
        }
    }

    fn place(&self, hash: u64) -> usize {
        hash as usize & (self.0.len() - 1)
    }
}

fn begun(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vacancy_stands_until_a_connection_of_its_place_begins() {
        let places = Places::new(1024);
        let [one, other] = [7, 8].map(|hash| places.vacancy(hash).unwrap());
        places.enter([9, 7]);
        assert!(!places.stands(one) && places.stands(other));
        assert_eq!(places.vacancy(7), None);
        places.leave([9, 7]);
        assert!(!places.stands(one), "it is over, and began all the same");
        assert!(places.stands(places.vacancy(7).unwrap()));
    }
}
