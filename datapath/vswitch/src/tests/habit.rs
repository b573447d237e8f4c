//! Frames that look as usual are answered as if they had been parsed.

use frame::{Burst, Offload, PEEK_BYTES};
use proptest::prelude::*;
use wire::build::{self, Path};

use super::{Bed, path, port, station};
use crate::cache::Template;
use crate::key::{Mask, WORDS};
use crate::parse::{Packet, Raw, parse};
use crate::program::{PortNo, PortSpec};
use crate::{Outputs, ProcessReport};

const MTU_BYTES: u32 = 300;

fn parsed(frame: &[u8]) -> Option<Packet> {
    let mut packet = Packet::default();
    let head = &frame[..frame.len().min(frame::HEAD_BYTES)];
    parse(Raw { head, frame_bytes: frame.len(), gso: None, port: PortNo(3) }, &mut packet).ok()?;
    Some(packet)
}

/// The first bytes, and behind the end of a short frame what another one left.
fn peek(frame: &[u8]) -> [u8; PEEK_BYTES] {
    let mut bytes = [0xa5; PEEK_BYTES];
    let len = frame.len().min(PEEK_BYTES);
    bytes[..len].copy_from_slice(&frame[..len]);
    bytes
}

/// Frames of the kinds that templates describe, and some of those that they do not.
fn whole() -> impl Strategy<Value = Vec<u8>> {
    let v6 = |last| std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let six = Path { source: v6(1), destination: v6(2), ..path(1, 2) };
    let frames = vec![
        build::udp(path(1, 2), (1, 2), &[0; 40]),
        build::udp(path(1, 2), (1, 2), &[0; 300]),
        build::tcp_syn(path(1, 2), (1, 2)),
        build::udp(six, (1, 2), &[0; 40]),
        build::tcp_syn(six, (1, 2)),
        build::echo_request(path(1, 2), 1, 1, &[0; 32]),
        build::arp_request(station(1), [10, 0, 0, 1].into(), [10, 0, 0, 2].into()),
    ];
    (prop::sample::select(frames), prop::option::weighted(0.3, 0u16..4), 0usize..20).prop_map(
        |(frame, tag, padding)| {
            let mut frame = tag.map_or_else(|| frame.clone(), |tag| build::tagged(tag, &frame));
            frame.resize(frame.len() + padding, 0);
            frame
        },
    )
}

fn any_mask() -> impl Strategy<Value = Mask> {
    let word = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    prop::collection::vec(word, WORDS).prop_map(|words| Mask(words.try_into().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_that_matches_a_template_parses_to_the_same_masked_key(
        first in whole(), mask in any_mask(), changes in prop::collection::vec((0usize..90, any::<u8>()), 0..3), cut in 0usize..60
    ) {
        let Some(packet) = parsed(&first) else { return Ok(()) };
        let Some(template) = Template::new(&peek(&first), &packet, &mask, MTU_BYTES) else { return Ok(()) };
        prop_assert_eq!(template.matches(&peek(&first), first.len()), packet.network_bytes <= MTU_BYTES);
        let mut other = first.clone();
        other.truncate(first.len().saturating_sub(cut.saturating_sub(30)));
        for (at, byte) in changes {
            if let Some(old) = other.get_mut(at) {
                *old = byte;
            }
        }
        if template.matches(&peek(&other), other.len()) {
            let Some(same) = parsed(&other) else { panic!("a frame that matches is dropped by the parser") };
            prop_assert_eq!(mask.apply(&same.key), mask.apply(&packet.key));
            prop_assert_eq!((same.link_bytes, same.tci, same.service_tag), (packet.link_bytes, packet.tci, packet.service_tag));
            prop_assert!(same.network_bytes <= MTU_BYTES);
        }
    }
}

/// Sends the frames as one burst and returns, for each port, the frames that leave by it, in order.
fn send(bed: &mut Bed, from: u16, frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    let mut burst = Burst::new();
    for frame in frames {
        burst.push_owned(frame.clone(), Offload::NONE).unwrap();
    }
    let (mut out, mut report) = (Outputs::default(), ProcessReport::default());
    bed.switch.process(&mut burst, PortNo(from), bed.now, &mut out, &mut report);
    let sent: usize = out.groups().iter().map(|group| group.frames().len()).sum();
    assert_eq!(sent as u64 + report.drops.total(), frames.len() as u64 + report.copies, "the ledger");
    let hits = report.microflow_hits + report.megaflow_hits + report.misses;
    assert!(hits <= frames.len() as u64, "each frame is answered once");
    out.groups()
        .iter()
        .flat_map(|group| group.frames().iter().map(|frame| (group.port.0, vec![*frame])))
        .collect()
}

/// A switch whose ports 1 and 2 know each other's stations, and whose port 1 has a habit of sending to 2.
fn used_to() -> Bed {
    let mut bed = Bed::with([port(1), port(2), port(3)]);
    bed.send(2, super::udp(2, 9));
    let frames = vec![super::udp(1, 2); 8];
    for _ in 0..3 {
        send(&mut bed, 1, &frames);
    }
    assert!(bed.switch.cache.habit(PortNo(1), &bed.shared).is_some(), "eight alike are a habit");
    bed
}

#[test]
fn frames_that_leave_by_one_port_stay_in_order_whatever_they_look_like() {
    let mut bed = used_to();
    let odd = build::tcp_syn(path(1, 2), (5, 6));
    let frames: Vec<_> = (0..32).map(|n| if n % 3 == 0 { odd.clone() } else { super::udp(1, 2) }).collect();
    let sent = send(&mut bed, 1, &frames);
    assert_eq!(sent, (0..32).map(|n| (2, vec![n])).collect::<Vec<_>>());
}

#[test]
fn a_station_that_moves_ends_the_habit_in_the_middle_of_a_burst() {
    let mut bed = used_to();
    // Station 2 is suddenly here: what follows is for the port that it came from.
    let frames = [super::udp(1, 2), super::udp(2, 9), super::udp(1, 2), super::udp(1, 2)];
    let sent = send(&mut bed, 1, &frames);
    let to_two: Vec<_> = sent.iter().filter(|(port, _)| *port == 2).map(|(_, frame)| frame[0]).collect();
    assert!(to_two.contains(&0) && !to_two.contains(&2) && !to_two.contains(&3), "{sent:?}");
}

#[test]
fn a_program_change_ends_the_habit() {
    let mut bed = used_to();
    let isolated = |number| PortSpec { isolated: true, ..port(number) };
    bed.switch.set_program(super::program([isolated(1), isolated(2), port(3)]));
    assert_eq!(send(&mut bed, 1, &[super::udp(1, 2), super::udp(1, 2)]), []);
}

#[test]
fn a_frame_longer_than_the_mtu_is_no_habit() {
    let mut bed = used_to();
    let long = build::udp(path(1, 2), (1000, 2000), &[0; 1480]);
    assert_eq!(send(&mut bed, 1, &[super::udp(1, 2), long, super::udp(1, 2)]), [(2, vec![0]), (2, vec![2])]);
}

#[test]
fn what_a_habit_answers_counts_for_its_megaflow() {
    let mut bed = used_to();
    let before: u64 = bed.switch.flows(bed.now, 10).iter().map(|flow| flow.frames).sum();
    send(&mut bed, 1, &vec![super::udp(1, 2); 32]);
    let after: u64 = bed.switch.flows(bed.now, 10).iter().map(|flow| flow.frames).sum();
    assert_eq!(after - before, 32);
}
