//! Who may have how many connections, and what does that cost the others?

use super::super::state::State;
use super::*;
use crate::conntrack::table::SEGMENT;
use crate::conntrack::{Chunk, ConnectionView, DestinationNat, Direction, Fault, PortRange, SourceNat};
use frame::DropReason;

#[test]
fn a_full_port_and_a_full_zone_are_refused_by_name_and_others_are_not() {
    let connections = tracker(1000);
    let quota = Quota { zone: 20, port: 10 };
    let from = |port: u16, zone: u32, number: u32| {
        let tuple = Tuple { zone: ZoneNo(zone), ..udp(number) };
        let opened =
            connections.open(&Opening { port: PortNo(port), quota, ..opening(&tuple) }, Now { ms: 0 })?;
        // Who talks is not displaced.
        connections.advance(opened.turned(), &Transport::Udp, Now { ms: 0 }).unwrap();
        Ok(opened)
    };
    for number in 0..10 {
        from(1, 1, number).unwrap();
        from(2, 1, 100 + number).unwrap();
    }
    assert_eq!(from(1, 1, 50), Err(Refusal::PortFull));
    assert_eq!(from(3, 1, 51), Err(Refusal::ZoneFull));
    let other = from(3, 2, 51).unwrap();
    assert_eq!(
        (connections.len(), connections.of_port(PortNo(1)), connections.of_port(PortNo(3))),
        (21, 10, 1)
    );
    connections.remove(other);
    assert_eq!(connections.of_port(PortNo(3)), 0);
    let mut zones = connections.zones();
    zones.sort_by_key(|(zone, _)| *zone);
    let counts = zones.iter().map(|(zone, counts)| (zone.0, counts.live, counts.opened, counts.refused));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 20, 20, 2), (2, 0, 1, 0)]);
    connections.forget_zones(|_| true);
    assert_eq!(connections.zones().len(), 1, "a zone with connections is not forgotten");
}

#[test]
fn a_port_and_a_zone_that_are_full_displace_their_own_that_are_not_answered() {
    for quota in [Quota { zone: 90_000, port: 20_000 }, Quota { zone: 20_000, port: 90_000 }] {
        let connections = tracker(100_000);
        let from = |port: u16, number: u32| {
            let tuple = Tuple { zone: ZoneNo(port.into()), ..udp(number) };
            connections.open(&Opening { port: PortNo(port), quota, ..opening(&tuple) }, Now { ms: 0 })
        };
        let others: Vec<Handle> = (0..50).map(|number| from(2, number).unwrap()).collect();
        let refused = (0..50_000).filter(|number| from(1, *number).is_err()).count();
        assert!(refused < 100, "{refused} of 50000 were refused");
        assert_eq!(connections.of_port(PortNo(1)), 20_000);
        let is_there = |handle: &Handle| connections.tuple(*handle).is_some();
        assert!(others.iter().all(is_there), "nobody else's go");
    }
}

#[test]
fn a_flood_displaces_itself_and_not_those_who_talk() {
    let connections = tracker(2000);
    let talking: Vec<Handle> = (0..500)
        .map(|number| {
            let handle = open(&connections, &udp(number), 0).unwrap();
            connections.advance(handle.turned(), &Transport::Udp, Now { ms: 1 }).unwrap();
            handle
        })
        .collect();
    let refused = (10_000..60_000).filter(|number| open(&connections, &udp(*number), 2).is_err()).count();
    assert!(refused < 100, "{refused} of 50000 were refused");
    assert!(connections.len() <= 2000);
    for handle in talking {
        connections.advance(handle, &Transport::Udp, Now { ms: 3 }).unwrap();
    }
    let (_, counts) = connections.zones()[0];
    assert!(counts.evicted > 48_000, "{counts:?}");
}

#[test]
fn a_table_of_those_who_talk_is_full() {
    let connections = tracker(100);
    for number in 0..100 {
        let handle = open(&connections, &udp(number), 0).unwrap();
        connections.advance(handle.turned(), &Transport::Udp, Now { ms: 0 }).unwrap();
    }
    assert_eq!(open(&connections, &udp(100), 0), Err(Refusal::TableFull));
    assert_eq!(connections.len(), 100);
    // What nobody has swept yet makes room all the same, after a few tries.
    assert!((0..100).any(|_| open(&connections, &udp(101), 30_000).is_ok()));
}

#[test]
fn a_sweep_looks_at_no_more_than_its_budget_and_finds_all_in_the_end() {
    let connections = tracker(10_000);
    for number in 0..5000 {
        open(&connections, &udp(number), 0).unwrap();
    }
    let entries = connections.table.len();
    let now = Now { ms: 30_000 };
    assert_eq!(connections.sweep(Now { ms: 29_999 }, entries), 0);
    let mut forgotten = 0;
    for call in 1..=entries.div_ceil(100) {
        let found = connections.sweep(now, 100);
        assert!(found <= 100, "call {call}");
        forgotten += found;
    }
    assert_eq!((forgotten, connections.len()), (5000, 0));
}

#[test]
fn an_entry_is_used_again_and_old_handles_are_void() {
    let connections = tracker(1000);
    let mut old: Vec<Handle> = Vec::new();
    for round in 0..1000u32 {
        let handle = open(&connections, &udp(7), u64::from(round)).unwrap();
        for gone in &old {
            assert_eq!(connections.advance(*gone, &Transport::Udp, Now { ms: 0 }), Err(Fault::Gone));
        }
        assert_eq!((connections.tuple(handle), connections.remove(handle)), (Some(udp(7)), true));
        assert!(!connections.remove(handle) && connections.view(handle, Now::default()).is_none());
        old.truncate(10);
        old.push(handle);
    }
    assert_eq!((connections.len(), connections.table.len()), (0, SEGMENT));
}

/// What one call may cost, by counts. A chain's length is what a look-up walks, a segment what an insert makes.
#[test]
fn a_table_grows_by_one_segment_at_a_time_and_its_chains_stay_short() {
    let connections = tracker(300_000);
    let mut entries = 0;
    for number in 0..300_000 {
        open(&connections, &udp(number), 0).unwrap();
        assert!(connections.table.len() - entries <= SEGMENT);
        entries = connections.table.len();
    }
    let longest = connections.table.longest_chain();
    assert!(longest <= 16, "{longest}");
    let per_connection = connections.bytes() / 300_000;
    assert!(per_connection < 200, "{per_connection} bytes each");
}

#[test]
fn listing_and_removal_go_through_all_connections_in_parts() {
    let connections = tracker(2000);
    for number in 0..1000 {
        open(&connections, &udp(number), 0).unwrap();
    }
    let now = Now { ms: 1000 };
    let (mut at, mut seen) = (Some(0), std::collections::HashSet::new());
    while let Some(from) = at {
        let chunk: Chunk<Vec<ConnectionView>> = connections.list(from, 50, now);
        assert!(chunk.found.len() <= 50);
        seen.extend(chunk.found.iter().map(|view| view.original));
        assert!(chunk.found.iter().all(|view| view.state == State::Unreplied && view.left_ms == 29_000));
        assert!(chunk.found.iter().all(|view| view.reply == view.original.turned()));
        at = chunk.next;
    }
    assert_eq!(seen.len(), 1000);
    let (mut at, mut removed) = (Some(0), 0);
    while let Some(from) = at {
        let chunk = connections.remove_if((from, 64), now, |view| view.original.source.ip.octets()[15] < 128);
        removed += chunk.found;
        at = chunk.next;
    }
    assert_eq!(removed as u32 + connections.len(), 1000);
    assert!(connections.find(&udp(1), now).is_none() && connections.find(&udp(200), now).is_some());
    assert_eq!(connections.find(&udp(200).turned(), now).map(Handle::direction), Some(Direction::Reply));
}

#[test]
fn a_mark_is_kept_until_it_is_set_again() {
    let connections = tracker(10);
    let mark = Mark { cookie: 1 << 40, verdict: 7, epoch: 3 };
    let tuple = udp(1);
    let handle = connections.open(&Opening { mark, ..opening(&tuple) }, Now { ms: 0 }).unwrap();
    let now = Now { ms: 1 };
    assert_eq!(connections.advance(handle.turned(), &Transport::Udp, now), Ok(mark));
    let later = Mark { epoch: 4, ..mark };
    assert!(connections.set_mark(handle, later));
    assert_eq!(connections.advance(handle, &Transport::Udp, now), Ok(later));
    connections.remove(handle);
    assert!(!connections.set_mark(handle, mark));
}

#[test]
fn a_source_port_is_searched_within_bounds_and_then_refused_by_name() {
    let connections = tracker(100_000);
    let node = IpAddr::from([192, 0, 2, 1]);
    let masquerade = |ports| Translation { source: Some(SourceNat::new(node, ports)), destination: None };
    let open = |number: u32, ports| {
        let tuple = udp(number);
        let opening = Opening { translation: masquerade(ports), ..opening(&tuple) };
        connections.open(&opening, Now { ms: 0 })
    };
    let port_of = |handle| connections.translated(handle).unwrap().source;
    // All clients have port 1000: only the first one behind the node keeps it.
    let wide = PortRange::UNPRIVILEGED;
    let mut taken = std::collections::HashSet::new();
    for number in 0..1000 {
        let source = port_of(open(number, wide).unwrap());
        assert!(source.address() == node && source.port >= 1024 && taken.insert(source.port));
    }
    let narrow = PortRange::new(1000, 1003).unwrap();
    let mut ports: Vec<u16> =
        (2000..2004).map(|number| port_of(open(number, narrow).unwrap()).port).collect();
    assert_eq!(ports[0], 1000, "its own");
    ports.sort_unstable();
    assert_eq!(ports, [1000, 1001, 1002, 1003]);
    assert_eq!(open(2004, narrow), Err(Refusal::NoFreePort));
    assert_eq!(connections.len(), 1004, "a refusal leaves nothing behind");
    assert_eq!(Refusal::NoFreePort.reason(), DropReason::NoNatPort);
    assert_eq!(PortRange::new(2, 1), None);
}

#[test]
fn a_service_and_its_backend_asked_directly_are_not_confused() {
    let connections = tracker(10);
    let backend = end([10, 0, 0, 9], 8053);
    let destination = Some(DestinationNat::new(backend.address(), Some(backend.port)));
    let asked = udp(1);
    let translation = Translation { source: None, destination };
    let first = connections.open(&Opening { translation, ..opening(&asked) }, Now { ms: 0 }).unwrap();
    let answer = Tuple { source: backend, destination: asked.source, ..asked };
    assert_eq!(connections.find(&answer, Now { ms: 0 }), Some(first.turned()));
    assert_eq!(connections.translated(first.turned()), Some(asked.turned()));
    // An answer to this one could not be told from an answer to that.
    let direct = Tuple { destination: backend, ..asked };
    assert_eq!(open(&connections, &direct, 0), Err(Refusal::NoFreePort));
    assert_eq!(open(&connections, &asked, 0), Err(Refusal::Exists));
    let own = Tuple { destination: asked.source, ..asked };
    assert_eq!(open(&connections, &own, 0), Err(Refusal::Invalid));
}
