//! Do two workers that open, advance, sweep and remove the same connections ever see one for another?

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};

use super::super::tcp::{Scale, Segment};
use super::*;
use crate::conntrack::{Fault, State};
use wire::tcp::Flags;

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

/// The bytes that a client sends in all, in pieces of which a server takes [`WINDOW`] at once.
const BYTES: u32 = 100_000_000;
const PIECE: u32 = 100;
const WINDOW: u32 = 60_000;

fn segment(flags: Flags, sequence: u32, acknowledgement: u32, payload_bytes: u32) -> Transport {
    let (window, scale) = (WINDOW as u16, Scale::Absent);
    Transport::Tcp(Segment { sequence, acknowledgement, window, flags, payload_bytes, scale })
}

#[test]
fn two_workers_may_follow_the_two_directions_of_one_connection() {
    let connections = tracker(10);
    let tuple = Tuple { protocol: IpProtocol::TCP, ..udp(1) };
    let now = Now { ms: 0 };
    let syn = segment(Flags::SYN, u32::MAX, 0, 0);
    let client = connections.open(&Opening { transport: &syn, ..opening(&tuple) }, now).unwrap();
    let server = client.turned();
    let pass = |handle, transport: Transport| connections.advance(handle, &transport, now).unwrap();
    pass(server, segment(Flags::SYN.with(Flags::ACK), 6, 0, 0));
    pass(client, segment(Flags::ACK, 0, 7, 0));
    let (sent, acknowledged) = (AtomicU32::new(0), AtomicU32::new(0));
    let is_broken = AtomicBool::new(false);
    let pass_or_break = |handle, transport: Transport| {
        if connections.advance(handle, &transport, now).is_err() {
            is_broken.store(true, Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while sent.load(Relaxed) < BYTES && !is_broken.load(Relaxed) {
                let at = sent.load(Relaxed);
                if at - acknowledged.load(Acquire) + PIECE > WINDOW {
                    std::thread::yield_now();
                    continue;
                }
                pass_or_break(client, segment(Flags::ACK, at, 7, PIECE));
                sent.store(at + PIECE, Release);
            }
        });
        scope.spawn(|| {
            while acknowledged.load(Relaxed) < BYTES && !is_broken.load(Relaxed) {
                let got = sent.load(Acquire);
                if got == acknowledged.load(Relaxed) {
                    std::thread::yield_now();
                    continue;
                }
                pass_or_break(server, segment(Flags::ACK, 7, got, 0));
                acknowledged.store(got, Release);
            }
        });
    });
    assert!(!is_broken.into_inner(), "all of it fits");
    // No update was lost: the windows are where they belong, to the byte.
    let invalid = |handle, transport| connections.advance(handle, &transport, now) == Err(Fault::Invalid);
    assert!(invalid(server, segment(Flags::ACK, 7, BYTES + 1, 0)));
    assert!(invalid(client, segment(Flags::ACK, BYTES + WINDOW + 1, 7, 0)));
    pass(client, segment(Flags::ACK, BYTES + WINDOW, 7, 0));
    assert_eq!(connections.view(client, now).unwrap().state, State::Established);
}
