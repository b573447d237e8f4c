//! A cached answer is the pipeline's answer: for any program, any frames, and whatever changes in between.

use std::sync::Arc;

use proptest::prelude::*;
use wire::build::{self, Path};
use wire::{EtherType, MacAddr};

use super::{Bed, network, path, port, spec, station, to, vlan};
use crate::Program;
use crate::program::{NetworkNo, PortSpec, ProgramSpec, VlanMode};

/// What can happen to a switch.
#[derive(Debug, Clone)]
enum Step {
    Frame { port: u16, frame: Vec<u8> },
    Pass { ms: u64 },
    Swap { program: usize },
}

fn vlan_mode() -> impl Strategy<Value = VlanMode> {
    let id = || (10u16..13).prop_map(vlan);
    prop_oneof![
        4 => Just(VlanMode::Access(None)),
        2 => id().prop_map(|id| VlanMode::Access(Some(id))),
        2 => (prop::collection::vec(id(), 0..3), prop::option::of(id()))
            .prop_map(|(allowed, native)| VlanMode::Trunk { allowed, native }),
    ]
}

fn port_spec(number: u16) -> impl Strategy<Value = PortSpec> {
    let macs = prop_oneof![3 => Just(vec![]), 1 => Just(vec![station(number as u8)])];
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3), any::<bool>());
    (vlan_mode(), macs, flags, 0u32..4, 1u32..3).prop_map(move |(vlan, macs, flags, mac_limit, network)| {
        let (isolated, port_security, with_ips) = flags;
        let ips = if with_ips { vec![[10, 0, 0, number as u8].into()] } else { vec![] };
        let network = NetworkNo(network);
        // One station per port, so that no two ports list the same.
        PortSpec { vlan, macs, isolated, port_security, ips, mac_limit, network, ..port(number) }
    })
}

/// Up to four ports in up to two networks.
fn any_spec() -> impl Strategy<Value = ProgramSpec> {
    let ports = (1u16..5).map(|number| prop::option::weighted(0.9, port_spec(number))).collect::<Vec<_>>();
    (ports, any::<bool>(), 0u32..6).prop_map(|(ports, flood_unknown, mac_limit)| {
        let mut spec = spec(ports.into_iter().flatten());
        for network in spec.networks.values_mut() {
            (network.flood_unknown, network.mac_limit) = (flood_unknown, mac_limit);
        }
        spec.networks.entry(NetworkNo(1)).or_insert_with(|| network(1));
        spec
    })
}

/// Frames of a few stations, so that they meet.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kinds = (1u8..6, 1u8..6, 1u8..4, 0u8..7);
    let tags =
        prop_oneof![3 => Just(vec![]), 2 => prop::collection::vec(prop_oneof![Just(0u16), 10u16..14], 1..3)];
    let groups = prop_oneof![
        4 => Just(None),
        1 => Just(Some(MacAddr::BROADCAST)),
        1 => (0u8..32).prop_map(|last| Some(MacAddr([0x01, 0x80, 0xc2, 0, 0, last]))),
    ];
    (kinds, tags, groups, any::<u16>()).prop_map(|((from, dest, ip, kind), tags, group, port)| {
        let path = Path { source: [10, 0, 0, ip].into(), ..path(from, dest) };
        let v6 = |last| std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, last);
        let frame = match kind {
            0 => build::udp(path, (port, 53), b"payload"),
            1 => build::tcp_syn(path, (port, 80)),
            2 => build::arp_request(station(from), [10, 0, 0, ip].into(), [10, 0, 0, 9].into()),
            3 => build::neighbor_solicit(station(from), v6(ip.into()), v6(9)),
            4 => build::udp(Path { source: [0, 0, 0, 0].into(), ..path }, (68, 67), &[0; 700]),
            5 => build::udp(path, (port, 53), &[0; 1490]),
            _ => build::ethernet(station(from), station(dest), EtherType(0x88b5), &[0; 46]),
        };
        let frame = group.map_or(frame.clone(), |group| to(group, frame));
        tags.iter().fold(frame, |frame, id| build::tagged(*id, &frame))
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1u16..6, any_frame()).prop_map(|(port, frame)| Step::Frame { port, frame }),
        2 => prop_oneof![Just(0u64), Just(400), Just(1000), Just(20_000)].prop_map(|ms| Step::Pass { ms }),
        1 => (0usize..3).prop_map(|program| Step::Swap { program }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_cached_answer_is_the_pipelines(
        specs in prop::collection::vec(any_spec(), 3), steps in prop::collection::vec(any_step(), 1..80)
    ) {
        let programs: Vec<Arc<Program>> = specs.into_iter().map(|spec| Program::build(spec).unwrap()).collect();
        let mut current = Arc::clone(&programs[0]);
        let [mut cached, mut derived] = [(); 2].map(|()| Bed::new(Arc::clone(&current)));
        for step in steps {
            match step {
                Step::Frame { port, frame } => {
                    // The other switch gets its program anew, which makes all that it has cached stale.
                    derived.switch.set_program(Arc::clone(&current));
                    let explained = derived.switch.explain(crate::Entrance::Port(crate::program::PortNo(port)), &frame, derived.now);
                    let answer = derived.send(port, frame.clone());
                    let told = explained.outputs.into_iter().map(|out| (out.port.0, out.bytes)).collect();
                    prop_assert_eq!(&answer.sent, &told);
                    prop_assert_eq!(explained.drop.is_some(), !answer.drops.is_empty());
                    prop_assert_eq!(&cached.send(port, frame.clone()), &answer);
                    // Now it is cached, if it can be.
                    prop_assert_eq!(&cached.send(port, frame.clone()), &answer);
                    prop_assert_eq!(&derived.send(port, frame), &answer);
                }
                Step::Pass { ms } => {
                    cached.pass(ms);
                    derived.pass(ms);
                }
                Step::Swap { program } => {
                    current = Arc::clone(&programs[program]);
                    cached.switch.set_program(Arc::clone(&current));
                    derived.switch.set_program(Arc::clone(&current));
                }
            }
            prop_assert_eq!(cached.learned(), derived.learned());
        }
        let (_, misses) = derived.hits_and_misses();
        let (_, cached_misses) = cached.hits_and_misses();
        prop_assert!(cached_misses <= misses);
    }
}

#[test]
fn two_workers_agree_on_where_stations_are() {
    let program = super::program((1..=3).map(port));
    let mut one = Bed::new(Arc::clone(&program));
    let mut other = Bed::new(Arc::clone(&program));
    other.shared = Arc::clone(&one.shared);
    other.switch = crate::Switch::new(Arc::clone(&one.shared), program, 43);
    one.send(1, super::udp(1, 9));
    for home in [2, 3, 1, 2] {
        assert!(!one.send(home, super::udp(7, 1)).ports().contains(&home));
        // The other worker has cached where 7 was; it has moved.
        let from = if home == 1 { 2 } else { 1 };
        assert_eq!(other.send(from, super::udp(5, 7)).ports(), [home]);
        assert_eq!(other.send(from, super::udp(5, 7)).ports(), [home]);
    }
}
