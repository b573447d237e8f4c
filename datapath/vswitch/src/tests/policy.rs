//! Who may talk to whom: connections, replies, changes of mind, and what no policy is about.

use std::net::IpAddr;
use std::sync::Arc;

use frame::DropReason;
use proptest::prelude::*;
use wire::build::{self, Path};
use wire::tcp::Flags;
use wire::{IpProtocol, ethernet, ipv4};

use super::{Bed, Fate, NETWORK, path, port, spec, station};
use crate::program::{
    IdentityNo, IdentitySpec, Policies, PolicyNo, PolicySpec, PortNo, PortRangeSpec, PortSpec, Prefix,
    ProgramError, ProgramSpec, RuleAction, RuleSpec, Scope, TierSpec,
};
use crate::{Now, Program};

const CLIENT: IdentityNo = IdentityNo(1);
/// Stations 1, a client; 2, a server to which clients may talk by TCP port 80; 3, a stranger; 4, which may begin nothing.
const SERVER: PolicyNo = PolicyNo(10);
const MUTE: PolicyNo = PolicyNo(11);

fn rule(
    name: &str,
    peers: Option<Vec<IdentityNo>>,
    ports: Option<(IpProtocol, u16)>,
    action: RuleAction,
) -> RuleSpec {
    let ports = ports.map(|(protocol, port)| vec![PortRangeSpec { protocol, ports: port..=port }]);
    RuleSpec { name: name.into(), peers, ports, action }
}

fn isolated(rules: Vec<RuleSpec>, by: &str) -> Vec<TierSpec> {
    vec![TierSpec { rules, isolated_by: Some(by.into()) }]
}

fn world() -> ProgramSpec {
    let http = rule(
        "NetworkPolicy shop/http rule 1",
        Some(vec![CLIENT]),
        Some((IpProtocol::TCP, 80)),
        RuleAction::Allow,
    );
    let server = PolicySpec {
        number: SERVER,
        name: "server".into(),
        ingress: isolated(vec![http], "NetworkPolicy shop/http"),
        ..PolicySpec::default()
    };
    let mute = PolicySpec {
        number: MUTE,
        name: "mute".into(),
        egress: isolated(vec![], "NetworkPolicy shop/mute"),
        ..PolicySpec::default()
    };
    let with = |number, policy| PortSpec { policy, macs: vec![station(number as u8)], ..port(number) };
    let mut spec = spec([with(1, None), with(2, Some(SERVER)), with(3, None), with(4, Some(MUTE))]);
    let identity = |ip: [u8; 4], identity| IdentitySpec {
        scope: Scope::Network(NETWORK),
        addresses: Prefix { address: IpAddr::from(ip), len: 32 },
        identity,
    };
    spec.policies = Policies::new([server, mute], [identity([10, 0, 0, 1], CLIENT)]).unwrap();
    spec
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

fn segment(from: u8, to: u8, ports: (u16, u16), flags: Flags, numbers: (u32, u32)) -> Vec<u8> {
    super::segment(path(from, to), ports, flags, numbers)
}

fn syn(from: u8, to: u8, port: u16) -> Vec<u8> {
    segment(from, to, (4000, port), Flags::SYN, (1000, 0))
}

fn denied() -> Fate {
    Fate::drop(DropReason::PolicyDenied)
}

/// Opens a connection of station 1 with port 80 of station 2.
#[track_caller]
fn shake_hands(bed: &mut Bed) {
    assert_eq!(bed.send(1, syn(1, 2, 80)).ports(), [2]);
    let answer = segment(2, 1, (80, 4000), Flags::SYN.with(Flags::ACK), (5000, 1001));
    assert_eq!(bed.send(2, answer).ports(), [1]);
    assert_eq!(bed.send(1, data()).ports(), [2]);
}

fn data() -> Vec<u8> {
    segment(1, 2, (4000, 80), Flags::ACK, (1001, 5001))
}

#[test]
fn a_connection_is_as_its_receivers_policy_says() {
    let mut bed = bed();
    shake_hands(&mut bed);
    assert_eq!(bed.send(3, syn(3, 2, 80)), denied(), "a stranger");
    assert_eq!(bed.send(1, syn(1, 2, 81)), denied(), "another port");
    assert_eq!(bed.send(1, build::udp(path(1, 2), (4000, 80), b"")), denied(), "another protocol");
    assert_eq!(bed.send(1, build::echo_request(path(1, 2), 7, 1, b"")), denied(), "a protocol without ports");
    // What is isolated may begin, and is answered.
    assert_eq!(bed.send(2, build::udp(path(2, 3), (1, 2), b"")).ports(), [3]);
    assert_eq!(bed.send(3, build::udp(path(3, 2), (2, 1), b"")).ports(), [2]);
    assert_eq!(bed.send(3, build::udp(path(3, 2), (2, 9), b"")), denied(), "that is no answer");
}

#[test]
fn a_connection_is_as_its_senders_policy_says() {
    let mut bed = bed();
    assert_eq!(bed.send(4, syn(4, 3, 80)), denied());
    assert_eq!(bed.send(3, syn(3, 4, 80)).ports(), [4]);
    let answer = segment(4, 3, (80, 4000), Flags::SYN.with(Flags::ACK), (5000, 1001));
    assert_eq!(bed.send(4, answer).ports(), [3]);
    let echo = build::echo_request(path(3, 4), 7, 1, b"hello");
    assert_eq!(bed.send(3, echo.clone()).ports(), [4]);
    assert_eq!(bed.send(4, build::echo_reply(path(4, 3), 7, 1, b"hello")).ports(), [3]);
    let stray = build::echo_reply(path(4, 3), 8, 1, b"hello");
    assert_eq!(bed.send(4, stray), denied(), "an answer that nobody asked for");
}

#[test]
fn a_connection_that_is_there_is_answered_by_the_caches_and_held_to_its_state() {
    let mut bed = bed();
    shake_hands(&mut bed);
    bed.hits_and_misses();
    for _ in 0..5 {
        assert_eq!(bed.send(1, data()).ports(), [2]);
    }
    assert_eq!(bed.hits_and_misses(), (5, 0));
    let stray = segment(1, 2, (4000, 80), Flags::ACK, (1001 + 10_000_000, 5001));
    assert_eq!(bed.send(1, stray), Fate::drop(DropReason::OutOfState));
    assert_eq!(bed.send(1, data()).ports(), [2], "and the connection is as it was");
}

#[test]
fn a_denied_packet_is_answered_by_the_caches_and_counted_each_time() {
    let mut bed = bed();
    let stray = build::udp(path(3, 2), (7, 9), b"");
    assert_eq!(bed.send(3, stray.clone()), denied());
    bed.hits_and_misses();
    for frame in [stray.clone(), stray.clone(), syn(3, 2, 80), syn(3, 2, 80)] {
        assert_eq!(bed.send(3, frame), denied());
    }
    assert_eq!(bed.hits_and_misses(), (3, 1), "the first of each is decided on");
    let flows = bed.switch.flows(bed.now, 10);
    let drops = flows.iter().filter(|flow| flow.actions.starts_with("drop: policy_denied"));
    assert_eq!(drops.map(|flow| flow.frames).collect::<Vec<_>>(), [3, 2]);
}

#[test]
fn a_cached_denial_ends_when_the_other_end_begins_and_holds_again_when_that_is_over() {
    let mut bed = bed();
    let (ask, answer) = (build::udp(path(2, 3), (9, 7), b""), build::udp(path(3, 2), (7, 9), b""));
    for _ in 0..2 {
        assert_eq!(bed.send(3, answer.clone()), denied());
    }
    assert_eq!(bed.send(2, ask).ports(), [3]);
    assert_eq!(bed.send(3, answer.clone()).ports(), [2], "it is an answer now");
    bed.pass(600_000);
    for _ in 0..2 {
        assert_eq!(bed.send(3, answer.clone()), denied(), "to nobody any more");
    }
    let mut open = world();
    open.version = 2;
    open.ports.get_mut(&PortNo(2)).unwrap().policy = None;
    bed.switch.set_program(Program::build(open).unwrap());
    assert_eq!(bed.send(3, answer).ports(), [2], "another program");
}

#[test]
fn a_cached_denial_ends_when_another_worker_sees_the_other_end_begin() {
    let mut one = bed();
    let mut other = bed();
    other.shared = Arc::clone(&one.shared);
    other.switch = crate::Switch::new(Arc::clone(&one.shared), Program::build(world()).unwrap(), 43);
    let synack = segment(4, 3, (80, 4000), Flags::SYN.with(Flags::ACK), (5000, 1001));
    assert_eq!([one.send(4, synack.clone()), one.send(4, synack.clone())], [denied(), denied()]);
    assert_eq!(other.send(3, syn(3, 4, 80)).ports(), [4]);
    assert_eq!(one.send(4, synack).ports(), [3]);
}

#[test]
fn a_packet_that_a_connections_state_refuses_is_not_what_the_next_one_is_held_to() {
    let mut bed = bed();
    let reset = segment(1, 2, (4000, 80), Flags::RST, (7, 0));
    assert_eq!(bed.send(1, reset), Fate::drop(DropReason::OutOfState), "it opens nothing");
    shake_hands(&mut bed);
    let mut later = world();
    later.version = 2;
    bed.switch.set_program(Program::build(later).unwrap());
    let stray = segment(1, 2, (4000, 80), Flags::ACK, (1001 + 10_000_000, 5001));
    assert_eq!(bed.send(1, stray), Fate::drop(DropReason::OutOfState));
    assert_eq!(bed.send(1, data()).ports(), [2]);
}

#[test]
fn one_cached_denial_answers_all_source_ports_but_those_that_have_a_connection() {
    let mut bed = bed();
    let to_client = |port| build::udp(path(3, 2), (port, 9), b"");
    for port in 1..50 {
        assert_eq!(bed.send(3, to_client(port)), denied());
    }
    assert_eq!(bed.hits_and_misses(), (48, 1));
    assert_eq!(bed.send(2, build::udp(path(2, 3), (9, 7), b"")).ports(), [3]);
    for _ in 0..2 {
        assert_eq!(bed.send(3, to_client(7)).ports(), [2], "an answer");
        assert_eq!([bed.send(3, to_client(6)), bed.send(3, to_client(8))], [denied(), denied()]);
    }
    bed.pass(600_000);
    bed.hits_and_misses();
    for port in 1..50 {
        assert_eq!(bed.send(3, to_client(port)), denied());
    }
    assert_eq!(bed.hits_and_misses(), (48, 1));
}

#[test]
fn a_policy_that_changes_ends_what_it_no_longer_allows_and_nothing_else() {
    let mut bed = bed();
    shake_hands(&mut bed);
    assert_eq!(bed.send(3, syn(3, 4, 22)).ports(), [4]);
    let mut later = world();
    later.version = 2;
    bed.switch.set_program(Program::build(later.clone()).unwrap());
    assert_eq!(bed.send(1, data()).ports(), [2], "the same policy under another program");
    later.version = 3;
    let name = "server".into();
    let ingress = isolated(vec![], "NetworkPolicy shop/http");
    later.policies.put(&PolicySpec { number: SERVER, name, ingress, ..PolicySpec::default() });
    bed.switch.set_program(Program::build(later).unwrap());
    let answer = segment(2, 1, (80, 4000), Flags::ACK, (5001, 1001));
    assert_eq!(bed.send(2, answer), denied(), "in whichever direction it is seen first");
    assert_eq!(bed.send(1, data()), denied());
    let other = segment(4, 3, (22, 4000), Flags::SYN.with(Flags::ACK), (5000, 1001));
    assert_eq!(bed.send(4, other).ports(), [3]);
}

#[test]
fn no_policy_is_about_arp_neighbour_discovery_and_groups() {
    let mut bed = bed();
    let asked = build::arp_request(station(3), [10, 0, 0, 3].into(), [10, 0, 0, 2].into());
    assert_eq!(bed.send(3, asked).ports(), [1, 2, 4]);
    let source = "fe80::3".parse().unwrap();
    let solicited = build::neighbor_solicit(station(4), source, "fe80::2".parse().unwrap());
    assert_eq!(bed.send(4, solicited).ports(), [1, 2, 3]);
    let group = Path { destination: [224, 0, 0, 251].into(), ..path(3, 2) };
    assert_eq!(bed.send(3, build::udp(group, (5353, 5353), b"")).ports(), [2]);
}

#[test]
fn a_packet_for_one_host_does_not_get_around_its_policy_by_a_flood() {
    let mut bed = bed();
    let mut everybody = build::udp(path(3, 2), (1, 2), b"");
    everybody[..6].fill(0xff);
    assert_eq!(bed.send(3, everybody), denied());
    let mut unknown = build::udp(path(3, 2), (1, 2), b"");
    unknown[..6].copy_from_slice(&station(77).0);
    assert_eq!(bed.send(3, unknown), denied());
}

#[test]
fn fragments_behind_the_first_pass_only_where_all_ports_may() {
    let mut bed = bed();
    let mut fragment = build::udp(path(1, 2), (1, 2), &[0; 64]);
    fragment[ethernet::HEADER_BYTES..][ipv4::field::FRAGMENT].copy_from_slice(&100_u16.to_be_bytes());
    ipv4::fill_checksum(&mut fragment[14..34]);
    assert_eq!(bed.send(1, fragment), denied());
    let mut fragment = build::udp(path(1, 3), (1, 2), &[0; 64]);
    fragment[ethernet::HEADER_BYTES..][ipv4::field::FRAGMENT].copy_from_slice(&100_u16.to_be_bytes());
    ipv4::fill_checksum(&mut fragment[14..34]);
    assert_eq!(bed.send(1, fragment).ports(), [3]);
}

#[test]
fn a_trace_names_the_rule_and_changes_nothing() {
    let mut bed = bed();
    let explain = |bed: &Bed, from: u16, frame: &[u8]| {
        let explained = bed.switch.explain(crate::Entrance::Port(PortNo(from)), frame, Now::default());
        let words = explained.steps.iter().map(|step| format!("{}: {}", step.stage, step.sentence));
        (words.collect::<Vec<_>>().join("\n"), explained.drop.zip(explained.denied_by))
    };
    let (words, drop) = explain(&bed, 1, &syn(1, 2, 80));
    assert!(
        words.contains("policy: ingress of server: allowed by NetworkPolicy shop/http rule 1"),
        "{words}"
    );
    assert_eq!((drop, bed.shared.connections().len()), (None, 0));
    let (words, drop) = explain(&bed, 3, &syn(3, 2, 80));
    assert!(words.contains("policy: ingress of server: denied by NetworkPolicy shop/http"), "{words}");
    assert_eq!(drop, Some((DropReason::PolicyDenied, "NetworkPolicy shop/http".to_owned())));
    shake_hands(&mut bed);
    let (words, _) = explain(&bed, 1, &data());
    assert!(words.contains("policy: is of a connection that was allowed"), "{words}");
}

#[test]
fn a_port_with_a_policy_that_does_not_exist_is_refused() {
    let mut world = world();
    world.policies = Policies::default();
    assert!(matches!(Program::build(world), Err(ProgramError::UnknownPolicy { port }) if port == "port-2"));
}

proptest! {
    /// Whoever sends what, a cached answer is the one that an empty cache gives.
    #[test]
    fn a_cached_answer_is_the_one_without_a_cache(
        frames in prop::collection::vec(((1..5u8, 1..5u8), (0..3u16, 0..3u16), any::<bool>(), 0..20u8), 1..60)
    ) {
        let (mut cached, mut fresh) = (bed(), bed());
        for ((from, to), (source, destination), is_udp, pause) in frames {
            if pause == 0 {
                // Connections that were not answered are over, and cached decisions are not.
                cached.now.ms += 40_000;
                fresh.now.ms += 40_000;
            }
            let ports = (79 + source, 79 + destination);
            let frame = if is_udp {
                build::udp(path(from, to), ports, b"")
            } else {
                segment(from, to, ports, Flags::SYN, (1, 0))
            };
            let mut next = world();
            next.version = fresh.switch.program().version();
            // The same program again: an epoch that empties the caches.
            fresh.switch.set_program(Program::build(next).unwrap());
            prop_assert_eq!(cached.send(from.into(), frame.clone()), fresh.send(from.into(), frame));
        }
    }
}
