//! Memory and tables are bounded, stations age, and what is forgotten is forgotten everywhere.

use wire::build;

use super::{Bed, NETWORK, path, port, spec, station, to, udp};
use crate::program::{NetworkNo, PortSpec};
use crate::stations::Station;
use crate::{CacheSizes, MAX_STATIONS, Program};

#[test]
fn a_port_learns_as_many_stations_as_it_may_and_serves_the_others() {
    let mut bed = Bed::with([PortSpec { mac_limit: 2, ..port(1) }, port(2)]);
    for number in 1..=4 {
        assert_eq!(bed.send(1, udp(number, 9)).ports(), [2]);
    }
    assert_eq!(bed.learned(), [(1, 1), (2, 1)]);
}

#[test]
fn a_network_learns_as_many_stations_as_it_may() {
    let mut tight = spec((1..=3).map(port));
    tight.networks.get_mut(&NETWORK).unwrap().mac_limit = 2;
    let mut bed = Bed::new(Program::build(tight).unwrap());
    for number in 1..=3 {
        bed.send(number.into(), udp(number, 9));
    }
    assert_eq!(bed.learned(), [(1, 1), (2, 2)]);
}

#[test]
fn room_that_a_forgotten_station_leaves_is_used_by_a_cached_flow() {
    let mut bed = Bed::with([PortSpec { mac_limit: 1, ..port(1) }, port(2)]);
    bed.send(1, udp(1, 9));
    bed.pass(900);
    bed.send(1, udp(2, 9));
    bed.send(1, udp(2, 9));
    assert_eq!(bed.learned(), [(1, 1)]);
    bed.pass(100);
    assert_eq!(bed.learned(), []);
    bed.send(1, udp(2, 9));
    assert_eq!(bed.learned(), [(2, 1)]);
}

#[test]
fn a_station_cannot_move_to_a_port_that_is_full() {
    let mut bed = Bed::with([PortSpec { mac_limit: 0, ..port(1) }, port(2), port(3)]);
    bed.send(2, udp(7, 9));
    bed.send(1, udp(7, 9));
    assert_eq!(bed.learned(), [(7, 2)]);
}

#[test]
fn a_station_ages_by_its_last_frame_however_that_was_answered() {
    let mut bed = Bed::with((1..=3).map(port));
    bed.send(1, udp(1, 9));
    for _ in 0..5 {
        bed.pass(600);
        bed.send(1, udp(1, 9));
    }
    let (hits, misses) = bed.hits_and_misses();
    assert_eq!((hits, misses), (5, 1));
    assert_eq!(bed.learned(), [(1, 1)]);
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
    bed.pass(1000);
    assert_eq!(bed.learned(), []);
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1, 3]);
}

#[test]
fn idle_decisions_are_removed() {
    let mut bed = Bed::with((1..=2).map(port));
    bed.send(1, udp(1, 2));
    assert_eq!(bed.switch.flow_count(), 1);
    bed.pass(crate::cache::IDLE_MS - 1);
    assert_eq!(bed.switch.flow_count(), 1);
    bed.pass(1);
    assert_eq!(bed.switch.flow_count(), 0);
}

#[test]
fn decisions_of_an_old_program_are_swept() {
    let mut bed = Bed::with((1..=2).map(port));
    bed.send(1, udp(1, 2));
    let program = super::program((1..=2).map(port));
    bed.switch.set_program(program);
    assert_eq!(bed.switch.flows(bed.now, 10), []);
    bed.pass(1);
    assert_eq!(bed.switch.flow_count(), 0);
}

#[test]
fn a_scan_over_all_addresses_fills_no_more_than_the_tables() {
    let mut wide = spec([PortSpec { mac_limit: u32::MAX, ..port(1) }, port(2)]);
    wide.networks.get_mut(&NETWORK).unwrap().mac_limit = u32::MAX;
    let mut bed = Bed::new(Program::build(wide).unwrap());
    let template = udp(1, 9);
    let scanned = MAX_STATIONS as u32 + 5000;
    for number in 0..scanned {
        let mut frame = template.clone();
        frame[8..12].copy_from_slice(&number.to_be_bytes());
        bed.send(1, frame);
    }
    assert_eq!(bed.shared.stations(bed.now).len(), MAX_STATIONS);
    let CacheSizes { megaflows, microflows } = CacheSizes::default();
    assert!(bed.switch.flow_count() <= megaflows + microflows);
    // There is room again, and the flows that found none notice.
    bed.pass(1000);
    bed.send(1, udp(1, 9));
    assert_eq!(bed.learned(), [(1, 1)]);
}

#[test]
fn a_scan_from_one_port_leaves_the_flows_of_another_cached() {
    let mut bed = Bed::with((1..=3).map(port));
    bed.send(2, udp(2, 3));
    bed.hits_and_misses();
    let mut template = udp(1, 9);
    // Other stations than those of the flow.
    template[7] = 1;
    let mut misses = 0;
    for number in 0..100_000u32 {
        let mut frame = template.clone();
        frame[8..12].copy_from_slice(&number.to_be_bytes());
        bed.send(1, frame);
        bed.now.ms += u64::from(number % 100 == 0);
        if number % 1000 == 0 {
            bed.hits_and_misses();
            bed.send(2, udp(2, 3));
            misses += bed.hits_and_misses().1;
        }
    }
    // One that shares a generation cell with the flow's costs the flow one derivation when it is learned, and never again.
    let cell = |mac| bed.shared.cell(&Station { network: NETWORK, vlan: 0, mac });
    let of_the_flow = [2, 3].map(|number| cell(station(number)));
    let learned = bed.shared.stations(bed.now);
    let sharing = learned.iter().filter(|view| view.port.0 == 1 && of_the_flow.contains(&cell(view.mac)));
    let allowed = sharing.count() as u64;
    assert!(
        misses <= allowed,
        "{misses} of 100 frames of the flow were not answered by a cache, not {allowed}"
    );
}

#[test]
fn the_masks_of_a_port_are_capped_and_frames_beyond_are_still_right() {
    // Security makes the pipeline look at other bits for other protocols: more than one mask.
    let ips = vec![[10, 0, 0, 1].into()];
    let secured = PortSpec { macs: vec![station(1)], ips, port_security: true, ..port(1) };
    let mut bed = Bed::with([secured, port(2)]);
    for frame in [
        udp(1, 2),
        build::arp_request(station(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
        build::ethernet(station(1), station(2), wire::EtherType(0x88b5), &[0; 46]),
        to(wire::MacAddr::BROADCAST, udp(1, 2)),
        udp(3, 2),
    ] {
        let first = bed.send(1, frame.clone());
        for _ in 0..3 {
            assert_eq!(bed.send(1, frame.clone()), first);
        }
    }
    let (hits, misses) = bed.hits_and_misses();
    assert_eq!((hits, misses), (15, 5));
}

#[test]
fn stations_of_a_network_that_is_gone_are_forgotten() {
    let other = |number| PortSpec { network: NetworkNo(2), ..port(number) };
    let mut bed = Bed::with([port(1), port(2), other(3), other(4)]);
    bed.send(3, udp(7, 9));
    bed.switch.set_program(super::program([port(1), port(2)]));
    assert_eq!(bed.learned(), []);
}

#[test]
fn one_flow_of_many_connections_is_one_decision() {
    let mut bed = Bed::with((1..=2).map(port));
    for source_port in 0..1000 {
        bed.send(1, build::udp(path(1, 2), (source_port, 53), b""));
    }
    assert_eq!(bed.hits_and_misses(), (999, 1));
    assert_eq!(bed.switch.flow_count(), 1);
    assert_eq!(bed.switch.flows(bed.now, 10)[0].frames, 1000);
}
