//! Do two workers that open, advance, sweep and remove the same connections ever see one for another?

use super::*;
use crate::conntrack::Fault;

/// Tuples that they fight for: few, so that entries change hands all the time.
const TUPLES: u32 = 64;
const ROUNDS: u32 = 100_000;

/// The mark says the tuple, and so does every packet.
fn mark_of(number: u32) -> Mark {
    Mark { cookie: number.into(), verdict: !number, epoch: number }
}

fn work(connections: &Connections, seed: u32) {
    let mut random = seed;
    let mut handles = vec![None; TUPLES as usize];
    for round in 0..ROUNDS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = (random >> 8) % TUPLES;
        let tuple = udp(number);
        let now = Now { ms: u64::from(round) / 8 };
        let cached: &mut Option<Handle> = &mut handles[number as usize];
        if random >> 28 == 0 {
            if let Some(handle) = cached {
                connections.remove(*handle);
            }
        } else if random >> 28 == 1 {
            connections.sweep(now, 100);
        }
        let advanced = cached.map(|handle| connections.advance(handle, &Transport::Udp, now));
        match advanced {
            Some(Ok(mark)) => assert_eq!(mark, mark_of(number), "of its own connection"),
            Some(Err(Fault::Invalid)) => panic!("UDP always fits"),
            Some(Err(Fault::Gone)) | None => {
                *cached = connections.find(&tuple, now).or_else(|| {
                    let mark = mark_of(number);
                    connections.open(&Opening { mark, ..opening(&tuple) }, now).ok()
                });
            }
        }
        if let Some(seen) = cached.and_then(|handle| connections.tuple(handle)) {
            assert_eq!(seen, tuple);
        }
    }
}

#[test]
fn two_workers_never_see_one_connection_for_another() {
    let connections = tracker(1000);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let connections = &connections;
            scope.spawn(move || work(connections, seed));
        }
    });
    let live = connections.len();
    assert!(live <= TUPLES);
    let views = connections.list(0, usize::MAX, Now { ms: 0 }).found;
    assert_eq!(views.len() as u32, live);
    let later = Now { ms: 10_000_000 };
    assert_eq!(connections.sweep(later, usize::MAX) as u32, live);
    assert_eq!((connections.len(), connections.of_port(PortNo(1))), (0, 0));
    assert_eq!(connections.zones()[0].1.live, 0);
}
