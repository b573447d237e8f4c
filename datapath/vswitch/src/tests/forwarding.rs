//! A frame reaches its station, its VLAN, and nobody else.

use frame::{Checksum, DropReason, Gso, GsoKind, Offload};
use wire::MacAddr;
use wire::build;

use super::{Bed, Fate, egress_of, network, port, program, spec, station, to, udp, vlan};
use crate::program::{NetworkNo, PortNo, PortSpec, VlanMode};
use crate::{Egress, Program};

fn access(number: u16, id: u16) -> PortSpec {
    PortSpec { vlan: VlanMode::Access(Some(vlan(id))), ..port(number) }
}

fn trunk(number: u16, allowed: &[u16], native: Option<u16>) -> PortSpec {
    let allowed = allowed.iter().map(|id| vlan(*id)).collect();
    PortSpec { vlan: VlanMode::Trunk { allowed, native: native.map(vlan) }, ..port(number) }
}

#[test]
fn an_unknown_station_gets_a_flood_and_a_known_one_a_frame() {
    let mut bed = Bed::with((1..=3).map(port));
    assert_eq!(bed.send(1, udp(1, 2)).ports(), [2, 3]);
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
    assert_eq!(bed.send(1, udp(1, 2)).ports(), [2]);
    assert_eq!(bed.learned(), [(1, 1), (2, 2)]);
}

#[test]
fn a_station_that_moves_is_followed_by_the_next_frame() {
    let mut bed = Bed::with((1..=3).map(port));
    bed.send(1, udp(1, 9));
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
    bed.send(3, udp(1, 9));
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [3]);
    bed.send(1, udp(1, 9));
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
}

#[test]
fn a_frame_to_its_own_port_ends_there() {
    let mut bed = Bed::with((1..=2).map(port));
    bed.send(1, udp(1, 9));
    assert_eq!(bed.send(1, udp(2, 1)), Fate::drop(DropReason::SamePort));
}

#[test]
fn a_network_that_does_not_flood_drops_what_nobody_knows_but_floods_groups() {
    let mut quiet = spec((1..=2).map(port));
    quiet.networks.get_mut(&super::NETWORK).unwrap().flood_unknown = false;
    let mut bed = Bed::new(Program::build(quiet).unwrap());
    assert_eq!(bed.send(1, udp(1, 2)), Fate::drop(DropReason::UnknownDestination));
    assert_eq!(bed.send(1, to(MacAddr::BROADCAST, udp(1, 2))).ports(), [2]);
}

#[test]
fn networks_do_not_see_each_other() {
    let other = |number| PortSpec { network: NetworkNo(2), ..port(number) };
    let mut bed = Bed::with([port(1), port(2), other(3), other(4)]);
    bed.send(3, udp(1, 9));
    assert_eq!(bed.send(1, udp(2, 1)).ports(), [2]);
    assert_eq!(bed.send(4, udp(5, 1)).ports(), [3]);
}

#[test]
fn isolated_ports_reach_the_others_and_not_each_other() {
    let isolated = |number| PortSpec { isolated: true, ..port(number) };
    let mut bed = Bed::with([isolated(1), isolated(2), port(3)]);
    assert_eq!(bed.send(1, udp(1, 9)).ports(), [3]);
    assert_eq!(bed.send(3, udp(3, 9)).ports(), [1, 2]);
    assert_eq!(bed.send(2, udp(2, 1)), Fate::drop(DropReason::Isolated));
    assert_eq!(bed.send(2, udp(2, 3)).ports(), [3]);
    let mut alone = Bed::with([isolated(1), isolated(2)]);
    assert_eq!(alone.send(1, udp(1, 9)), Fate::drop(DropReason::NoReceiver));
}

#[test]
fn a_port_of_no_network_or_alone_in_one_sends_to_nobody() {
    let mut bed = Bed::with([port(1)]);
    assert_eq!(bed.send(7, udp(1, 2)), Fate::drop(DropReason::NoNetwork));
    assert_eq!(bed.send(1, udp(1, 2)), Fate::drop(DropReason::NoReceiver));
}

#[test]
fn sources_that_no_station_has_are_dropped() {
    let mut bed = Bed::with((1..=2).map(port));
    for source in [MacAddr::BROADCAST, MacAddr::default()] {
        let frame = build::ethernet(source, station(2), wire::EtherType(0x88b5), &[0; 46]);
        assert_eq!(bed.send(1, frame), Fate::drop(DropReason::BadSourceMac));
    }
    assert_eq!(bed.learned(), []);
}

#[test]
fn link_local_groups_stay_on_their_link_and_their_neighbours_do_not() {
    let mut bed = Bed::with((1..=2).map(port));
    let group = |last| MacAddr([0x01, 0x80, 0xc2, 0, 0, last]);
    assert_eq!(bed.send(1, to(group(0x00), udp(1, 2))), Fate::drop(DropReason::LinkLocal));
    assert_eq!(bed.send(1, to(group(0x0e), udp(1, 2))), Fate::drop(DropReason::LinkLocal));
    assert_eq!(bed.send(1, to(group(0x10), udp(1, 2))).ports(), [2]);
}

#[test]
fn access_ports_of_a_vlan_see_it_untagged_and_trunks_tagged() {
    let mut bed = Bed::with([
        access(1, 10),
        access(2, 10),
        access(3, 20),
        trunk(4, &[10], None),
        trunk(5, &[], Some(10)),
    ]);
    let frame = udp(1, 9);
    let fate = bed.send(1, frame.clone());
    assert_eq!(fate.ports(), [2, 4, 5]);
    assert_eq!(fate.sent[&2], frame);
    assert_eq!(fate.sent[&4], build::tagged(10, &frame));
    assert_eq!(fate.sent[&5], frame, "the native VLAN is untagged");
}

#[test]
fn a_tagged_frame_enters_by_a_trunk_and_leaves_an_access_port_untagged() {
    let mut bed = Bed::with([trunk(1, &[10, 20], None), access(2, 10), access(3, 20)]);
    assert_eq!(bed.send(1, build::tagged(10, &udp(1, 9))).sent, [(2, udp(1, 9))].into());
    assert_eq!(bed.send(1, build::tagged(20, &udp(1, 9))).sent, [(3, udp(1, 9))].into());
    assert_eq!(bed.send(1, build::tagged(30, &udp(1, 9))), Fate::drop(DropReason::VlanNotAllowed));
    assert_eq!(bed.send(1, udp(1, 9)), Fate::drop(DropReason::VlanNotAllowed));
    assert_eq!(bed.send(2, build::tagged(10, &udp(2, 1))), Fate::drop(DropReason::VlanNotAllowed));
    assert_eq!(bed.send(2, build::tagged(0, &udp(2, 1))).sent, [(1, build::tagged(10, &udp(2, 1)))].into());
}

#[test]
fn one_station_in_two_vlans_is_two_stations() {
    let mut bed = Bed::with([trunk(1, &[], None), access(2, 10), access(3, 20), trunk(4, &[], None)]);
    bed.send(1, build::tagged(10, &udp(1, 9)));
    bed.send(4, build::tagged(20, &udp(1, 9)));
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
    assert_eq!(bed.send(3, udp(3, 1)).ports(), [4]);
}

#[test]
fn trunks_that_carry_all_vlans_carry_those_that_nobody_names() {
    let mut bed = Bed::with([trunk(1, &[], None), trunk(2, &[], None), access(3, 10), trunk(4, &[10], None)]);
    let fate = bed.send(1, build::tagged(77, &udp(1, 9)));
    assert_eq!(fate.sent, [(2, build::tagged(77, &udp(1, 9)))].into());
    assert_eq!(bed.send(1, build::tagged(4095, &udp(1, 9))), Fate::drop(DropReason::VlanNotAllowed));
}

#[test]
fn a_tag_put_back_keeps_its_priority_and_its_type() {
    let mut bed = Bed::with([trunk(1, &[], None), trunk(2, &[], None), access(3, 10)]);
    let mut frame = build::tagged(10, &udp(1, 9));
    frame[14] |= 0xb0;
    let fate = bed.send(1, frame.clone());
    assert_eq!(egress_of(&fate.sent[&2]), Egress::Tag(0xb00a));
    assert_eq!(fate.sent[&2], frame);
    frame[12..14].copy_from_slice(&[0x88, 0xa8]);
    let fate = bed.send(1, frame.clone());
    assert_eq!(egress_of(&fate.sent[&2]), Egress::ServiceTag(0xb00a));
    assert_eq!(fate.sent[&3], udp(1, 9));
}

#[test]
fn an_inner_tag_is_left_alone() {
    let mut bed = Bed::with([trunk(1, &[10], None), access(2, 10)]);
    let inner = build::tagged(99, &udp(1, 9));
    assert_eq!(bed.send(1, build::tagged(10, &inner)).sent, [(2, inner)].into());
}

#[test]
fn a_network_without_vlans_carries_tagged_frames_as_they_are() {
    let mut bed = Bed::with((1..=2).map(port));
    let frame = build::tagged(123, &udp(1, 9));
    assert_eq!(bed.send(1, frame.clone()).sent, [(2, frame)].into());
    assert_eq!(bed.send(2, udp(2, 1)).ports(), [1]);
}

#[test]
fn a_frame_longer_than_the_mtu_is_too_big_for_that_port_only() {
    let small = PortSpec { mtu_bytes: 600, ..port(2) };
    let mut bed = Bed::with([port(1), small, port(3)]);
    let frame = |payload| build::udp(super::path(1, 9), (1, 2), &vec![0; payload]);
    assert_eq!(bed.send(1, frame(572)).ports(), [2, 3]);
    let fate = bed.send(1, frame(573));
    assert_eq!((fate.ports(), fate.drops), (vec![3], [(DropReason::TooBig, 1)].into()));
    bed.send(2, udp(9, 1));
    assert_eq!(bed.send(1, frame(573)), Fate::drop(DropReason::TooBig));
    assert_eq!(bed.send(1, build::tagged(5, &frame(572))).ports(), [2], "tags do not count");
}

#[test]
fn a_frame_to_be_segmented_is_measured_by_its_segments() {
    let mut bed = Bed::with((1..=2).map(port));
    let frame = build::tcp_syn(super::path(1, 2), (1, 2));
    let mut frame = [frame, vec![0; 20_000]].concat();
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let headers = 14 + 20 + usize::from(frame[46] >> 4) * 4;
    let offload = |size, headers_bytes| Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        gso: Some(Gso { kind: GsoKind::TcpV4, size, ecn: false, headers_bytes }),
        ..Offload::NONE
    };
    let fits = (1500 + 14 - headers) as u16;
    assert_eq!(bed.send_offloaded(1, frame.clone(), offload(fits, 0)).ports(), [2]);
    // What the source claims about its headers does not help a segment that is too long.
    let fate = bed.send_offloaded(1, frame.clone(), offload(fits + 1, 14));
    assert_eq!(fate, Fate::drop(DropReason::TooBig));
    assert_eq!(bed.send(1, frame), Fate::drop(DropReason::TooBig));
}

#[test]
fn a_datagram_to_be_fragmented_is_measured_by_its_fragments() {
    let mut bed = Bed::with((1..=2).map(port));
    let offload = |size| Offload {
        checksum: Checksum::Partial { start: 34, offset: 6 },
        gso: Some(Gso { kind: GsoKind::UdpFragment, size, ecn: false, headers_bytes: 0 }),
        ..Offload::NONE
    };
    let v4 = build::udp(super::path(1, 2), (1, 2), &[0; 4000]);
    // A fragment of 1480 bytes of payload fills an MTU of 1500; with IPv6, 1448 behind two headers.
    assert_eq!(bed.send_offloaded(1, v4.clone(), offload(1480)).ports(), [2]);
    assert_eq!(bed.send_offloaded(1, v4, offload(1488)), Fate::drop(DropReason::TooBig));
    let ip = |last| std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last]);
    let path = build::Path { source: ip(1), destination: ip(2), ..super::path(1, 2) };
    let v6 = build::udp(path, (1, 2), &[0; 4000]);
    assert_eq!(bed.send_offloaded(1, v6.clone(), offload(1448)).ports(), [2]);
    assert_eq!(bed.send_offloaded(1, v6, offload(1456)), Fate::drop(DropReason::TooBig));
}

#[test]
fn a_configured_station_is_where_the_program_says_whoever_sends_as_it() {
    let listed = PortSpec { macs: vec![station(1)], ..port(1) };
    let mut bed = Bed::with([listed, port(2), port(3)]);
    assert_eq!(bed.send(2, udp(1, 9)).ports(), [1, 3]);
    assert_eq!(bed.send(3, udp(3, 1)).ports(), [1]);
    assert_eq!(bed.learned(), [(3, 3)]);
}

#[test]
fn a_program_that_removes_a_port_forgets_what_was_behind_it() {
    let mut bed = Bed::with((1..=3).map(port));
    bed.send(3, udp(7, 9));
    assert_eq!(bed.send(1, udp(1, 7)).ports(), [3]);
    bed.switch.set_program(program([port(1), port(2)]));
    assert_eq!(bed.send(1, udp(1, 7)).ports(), [2]);
    // The number is given to another port.
    let reborn = PortSpec { name: "another".to_owned(), ..port(3) };
    bed.switch.set_program(program([port(1), port(2), reborn]));
    assert_eq!(bed.send(1, udp(1, 7)).ports(), [2, 3]);
    assert_eq!(bed.learned(), [(1, 1)]);
}

#[test]
fn a_station_behind_a_port_that_left_its_vlan_is_unknown() {
    let mut bed = Bed::with([access(1, 10), access(2, 10), access(3, 10)]);
    bed.send(3, udp(7, 9));
    assert_eq!(bed.send(1, udp(1, 7)).ports(), [3]);
    bed.switch.set_program(program([access(1, 10), access(2, 10), access(3, 20)]));
    assert_eq!(bed.send(1, udp(1, 7)).ports(), [2]);
}

#[test]
fn a_large_network_is_built_and_floods_to_all() {
    let mut bed = Bed::with((1..=1000).map(port));
    let fate = bed.send(500, udp(1, 9));
    assert_eq!(fate.sent.len(), 999);
    assert!(!fate.sent.contains_key(&500));
}

#[test]
fn a_spec_that_contradicts_itself_is_no_program() {
    use crate::program::ProgramError as E;
    let refused = |change: &dyn Fn(&mut PortSpec)| {
        let mut bad = port(1);
        change(&mut bad);
        let mut spec = spec([bad, port(2)]);
        spec.networks = [(super::NETWORK, network(1))].into();
        Program::build(spec).unwrap_err()
    };
    assert!(matches!(refused(&|port| port.network = NetworkNo(9)), E::UnknownNetwork { network: 9, .. }));
    assert!(matches!(refused(&|port| port.macs.push(MacAddr::BROADCAST)), E::NotAStation { .. }));
    assert!(matches!(refused(&|port| port.mtu_bytes = 67), E::Mtu { mtu_bytes: 67, .. }));
    assert!(matches!(refused(&|port| port.mtu_bytes = 65_536), E::Mtu { .. }));
    assert!(matches!(refused(&|port| port.ips.push([224, 0, 0, 1].into())), E::NotASource { .. }));
    let mut misfiled = spec([port(1)]);
    misfiled.ports.insert(PortNo(2), port(3));
    assert!(matches!(Program::build(misfiled).unwrap_err(), E::Misfiled { own: 3, filed: 2, .. }));
}

#[test]
fn two_ports_list_one_station_only_if_they_share_no_vlan() {
    use crate::program::ProgramError::DuplicateStation;
    let lists = |spec: PortSpec| PortSpec { macs: vec![station(1)], ..spec };
    let build = |one: PortSpec, other: PortSpec| Program::build(spec([lists(one), lists(other)]));
    assert!(matches!(build(port(1), port(2)), Err(DuplicateStation { .. })));
    assert!(matches!(build(access(1, 10), trunk(2, &[10], None)), Err(DuplicateStation { .. })));
    assert!(matches!(build(trunk(1, &[], None), trunk(2, &[], None)), Err(DuplicateStation { .. })));
    assert!(build(access(1, 10), access(2, 20)).is_ok());
    assert!(build(access(1, 10), trunk(2, &[20], None)).is_ok());
    assert!(build(port(1), PortSpec { network: NetworkNo(2), ..port(2) }).is_ok());
}
