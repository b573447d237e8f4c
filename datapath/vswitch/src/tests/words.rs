//! What people read says what the switch does.

use frame::DropReason;
use wire::build;

use super::{Bed, port, station, udp, vlan};
use crate::program::{PortNo, PortSpec, VlanMode};
use crate::{Egress, Entrance};

#[test]
fn an_explanation_tells_each_stage_and_changes_nothing() {
    let access = |number| PortSpec { vlan: VlanMode::Access(Some(vlan(10))), ..port(number) };
    let trunk = PortSpec { vlan: VlanMode::Trunk { allowed: vec![], native: None }, ..port(3) };
    let mut bed = Bed::with([access(1), access(2), trunk]);
    bed.send(3, build::tagged(10, &udp(2, 9)));
    let explanation = bed.switch.explain(Entrance::Port(PortNo(1)), &udp(1, 2), bed.now);
    let stages: Vec<_> = explanation.steps.iter().map(|step| step.stage).collect();
    assert_eq!(stages, ["parse", "admit", "learn", "forward", "output"]);
    let [out] = explanation.outputs.try_into().unwrap();
    assert_eq!((out.port, out.egress, out.is_answer), (PortNo(3), Egress::Tag(10), false));
    assert_eq!((out.bytes, out.outer_bytes), (build::tagged(10, &udp(1, 2)), 0));
    assert_eq!(explanation.drop, None);
    let words: Vec<_> = explanation.steps.iter().map(|step| step.sentence.as_str()).collect();
    assert!(words[0].contains("10.0.0.1 to 10.0.0.2"), "{words:?}");
    assert!(words[4].contains("port 3 (port-3), tagged with VLAN 10"), "{words:?}");
    assert_eq!(bed.learned(), [(2, 3)], "nothing was learned");
    assert_eq!(bed.switch.flow_count(), 1);
}

#[test]
fn an_explanation_of_a_drop_ends_with_its_reason() {
    let secured = PortSpec { macs: vec![station(1)], port_security: true, ..port(1) };
    let bed = Bed::with([secured, port(2)]);
    let explain = |port, frame: &[u8]| bed.switch.explain(Entrance::Port(PortNo(port)), frame, bed.now);
    for (explanation, reason) in [
        (explain(1, &udp(3, 2)), DropReason::SpoofedMac),
        (explain(9, &udp(1, 2)), DropReason::NoNetwork),
        (explain(1, &udp(1, 2)[..20]), DropReason::Truncated),
    ] {
        assert_eq!(explanation.drop, Some(reason));
        assert_eq!(explanation.outputs, []);
        assert_eq!(explanation.steps.last().unwrap().sentence, reason.sentence());
    }
}

#[test]
fn a_flow_shows_the_bits_that_were_looked_at() {
    let mut bed = Bed::with((1..=2).map(port));
    bed.send(1, udp(1, 2));
    bed.send(1, super::to(wire::MacAddr::BROADCAST, udp(1, 2)));
    let flows = bed.switch.flows(bed.now, 10);
    let words: Vec<_> = flows.iter().map(|flow| flow.matches.as_str()).collect();
    assert!(words.contains(&"port=1 src=02:00:00:00:00:01 dst=02:00:00:00:00:02"), "{words:?}");
    assert!(
        words.contains(&"port=1 src=02:00:00:00:00:01 dst=ff:ff:ff:ff:ff:f0/ff:ff:ff:ff:ff:f0"),
        "{words:?}"
    );
    assert_eq!(flows[0].actions, "flood to 1 port");
    assert_eq!(bed.switch.flows(bed.now, 1).len(), 1);
}

#[test]
fn security_adds_to_the_mask_what_it_asks_for() {
    let ips = vec![[10, 0, 0, 1].into()];
    let mut bed =
        Bed::with([PortSpec { macs: vec![station(1)], ips, port_security: true, ..port(1) }, port(2)]);
    bed.send(1, udp(1, 2));
    let flows = bed.switch.flows(bed.now, 1);
    assert_eq!(
        flows[0].matches,
        "port=1 src=02:00:00:00:00:01 dst=02:00:00:00:00:02 type=ipv4 from=10.0.0.1"
    );
}
