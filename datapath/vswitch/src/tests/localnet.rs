//! Networks in VLANs of the uplink: what is sent there, what comes from there, and what is nobody's.

use wire::build;

use super::{Bed, NETWORK, egress_of, path, port, spec, udp};
use crate::Program;
use crate::outputs::Egress;
use crate::program::{
    LocalnetSpec, NetworkNo, PortNo, PortSpec, ProgramError, ProgramSpec, UnderlaySpec, VlanId,
};

const UPLINK: u16 = 50;
const BEHIND: PortNo = PortNo(51);

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

/// Ports 1 and 2 of a network in VLAN 7 of the uplink.
fn world() -> ProgramSpec {
    let uplink = PortSpec { network: NetworkNo(9), ..port(UPLINK) };
    let mut spec = spec([port(1), port(2), uplink]);
    spec.underlay = Some(UnderlaySpec { port: PortNo(UPLINK), nodes: Default::default() });
    spec.localnets.insert(NETWORK, LocalnetSpec { vlan: vlan(7), port: BEHIND });
    spec
}

fn bed() -> Bed {
    Bed::new(Program::build(world()).unwrap())
}

fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tci.to_be_bytes(), &frame[12..]].concat()
}

#[test]
fn a_network_goes_on_in_its_vlan_of_the_uplink() {
    let mut bed = bed();
    let asked = bed.send(1, udp(1, 8));
    assert_eq!(asked.sent.keys().copied().collect::<Vec<_>>(), [2, UPLINK], "nobody knows it: to all");
    assert_eq!(egress_of(&asked.sent[&UPLINK]), Egress::Tag(7));
    assert_eq!(asked.sent[&UPLINK], tagged(&udp(1, 8), 7));
    for _ in 0..3 {
        let answered = bed.send(UPLINK, tagged(&udp(8, 1), 7));
        assert_eq!(answered.sent[&1], udp(8, 1), "without the tag");
        let known = bed.send(1, udp(1, 8));
        assert_eq!(known.sent.keys().copied().collect::<Vec<_>>(), [UPLINK]);
        assert_eq!(known.sent[&UPLINK], tagged(&udp(1, 8), 7));
    }
    // What is behind the uplink is not sent back there, though it asks all.
    let flooded = bed.send(UPLINK, tagged(&build::udp(path(8, 77), (1, 2), b""), 7));
    assert_eq!(flooded.sent.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn other_vlans_of_the_uplink_are_nobodys() {
    let mut bed = bed();
    for frame in [tagged(&udp(8, 1), 8), tagged(&udp(8, 1), 0), udp(8, 1)] {
        let fate = bed.send(UPLINK, frame);
        assert!(!fate.sent.contains_key(&1) && !fate.sent.contains_key(&2), "{fate:?}");
    }
}

#[test]
fn networks_that_cannot_be_in_a_vlan_are_named() {
    let fault = |change: fn(&mut ProgramSpec)| {
        let mut world = world();
        change(&mut world);
        match Program::build(world) {
            Err(ProgramError::Overlay { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert!(fault(|world| world.underlay = None).contains("no uplink"));
    assert!(fault(|world| drop(world.ports.insert(BEHIND, port(51)))).contains("another port"));
    let twice = fault(|world| {
        world.localnets.insert(NetworkNo(9), LocalnetSpec { vlan: vlan(7), port: PortNo(52) });
    });
    assert!(twice.contains("the same VLAN"));
}
