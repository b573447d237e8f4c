//! Which endpoint does a connection go to? Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, §3.4): one lookup in a table, and an endpoint that comes or goes moves few connections but its own.

mod affinity;

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::program::EndpointSpec;
pub(crate) use affinity::Affinities;

/// Sizes of tables: primes.
const SIZES: [usize; 11] = [61, 127, 251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
/// Places for each endpoint at least: shares differ by a few per cent.
const PLACES: usize = 20;

/// A table of endpoints, by their places in the list that it was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Maglev {
    /// Empty where there is nothing to choose.
    table: Box<[u16]>,
    endpoints: usize,
}

impl Maglev {
    /// The table of `endpoints`, each of which is there once. More than 65 535 are not chosen from.
    pub(crate) fn new(endpoints: &[EndpointSpec]) -> Self {
        let endpoints = &endpoints[..endpoints.len().min(u16::MAX.into())];
        if endpoints.len() < 2 {
            return Self { table: Box::default(), endpoints: endpoints.len() };
        }
        let wanted = endpoints.len() * PLACES;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        Self { table: fill(endpoints, size), endpoints: endpoints.len() }
    }

    /// The endpoint for `hash`.
    pub(crate) fn choose(&self, hash: u64) -> Option<usize> {
        match self.table.len() {
            0 => (self.endpoints > 0).then_some(0),
            size => Some(self.table[(hash % size as u64) as usize].into()),
        }
    }
}

/// Endpoints take places in turn, each in the order of its own permutation of them.
fn fill(endpoints: &[EndpointSpec], size: usize) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let mut table = vec![FREE; size].into_boxed_slice();
    let mut turns: Vec<(usize, usize)> =
        endpoints.iter().map(|endpoint| permutation(endpoint, size)).collect();
    let mut left = size;
    loop {
        for (number, (next, skip)) in turns.iter_mut().enumerate() {
            // A permutation of a prime number of places meets a free one.
            while table[*next] != FREE {
                *next = (*next + *skip) % size;
            }
            table[*next] = number as u16;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// Where an endpoint's permutation begins, and its step.
fn permutation(endpoint: &EndpointSpec, size: usize) -> (usize, usize) {
    // The same on all nodes and in all versions: a connection that another node takes over goes where it went.
    let hash = |seed: u64| {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ seed);
        (endpoint.address, endpoint.port).hash(&mut hasher);
        hasher.finish()
    };
    ((hash(0) % size as u64) as usize, (hash(0x9e37_79b9_7f4a_7c15) % (size as u64 - 1)) as usize + 1)
}

/// The hash by which a connection's endpoint is chosen: of the client's address, and of the ports if each connection is one's own
/// matter. The same on all nodes.
pub(crate) fn hash(client: IpAddr, ports: Option<(u16, u16)>) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (client, ports).hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a, mixed once more at the end.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 33
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Vec<EndpointSpec> {
        let endpoint = |number: u16| {
            let [high, low] = number.to_be_bytes();
            EndpointSpec { address: IpAddr::from([10, 1, high, low]), port: 8080 }
        };
        (0..count).map(endpoint).collect()
    }

    #[test]
    fn endpoints_have_equal_shares() {
        for count in [2, 3, 5, 30, 250] {
            let table = Maglev::new(&endpoints(count));
            let mut shares = vec![0usize; count.into()];
            table.table.iter().for_each(|at| shares[usize::from(*at)] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn an_endpoint_that_goes_moves_few_connections_but_its_own() {
        let all = endpoints(10);
        let (before, after) = (Maglev::new(&all), Maglev::new(&all[..9]));
        let moved = (0..10_000u64).filter(|hash| {
            let old = before.choose(*hash).unwrap();
            old < 9 && after.choose(*hash).unwrap() != old
        });
        let moved = moved.count();
        assert!(moved < 2000, "{moved} of 9000");
    }

    #[test]
    fn none_and_one_need_no_table() {
        assert_eq!(Maglev::new(&[]).choose(7), None);
        assert_eq!(Maglev::new(&endpoints(1)).choose(7), Some(0));
    }
}
