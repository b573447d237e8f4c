//! What pods get of cards that are switches: a device, and a port of our switch on its representor, which is as it was afterwards.

use std::net::IpAddr;

use model::MacAddr;
use vswitch::program::{PortNo, VlanId, VlanMode};

use super::fake_cards::{SWITCHED, pci, representors};
use super::world::{
    World, request, switched_request, switched_vdpa_request, switched_vfio_request, vfio_request,
};
use crate::cards::Representor;
use crate::datapath::{Device, Take};
use crate::{AddRequest, Attachment, Engine};

const NOTHING: [String; 0] = [];
const ROUTED: &str = "
networks:
  - name: blue
    router: shop
    isolated: true
    subnets: [{subnet: 10.1.0.0/29, gateway: 10.1.0.1}]
  - {name: wide, queues: 4}
";

fn number(made: &Attachment) -> PortNo {
    PortNo(made.port.unwrap())
}

/// The representor of the first function, for a change behind the agent's back.
fn change(world: &World, with: impl FnOnce(&mut Representor)) {
    with(world.state().representors.get_mut(&pci(SWITCHED[0])).unwrap());
}

#[track_caller]
fn drift(agent: &Engine, made: &Attachment) -> String {
    agent.check(&made.id, &made.netns).unwrap_err().join("\n")
}

#[track_caller]
fn assert_whole(agent: &Engine, made: &Attachment) {
    agent.check(&made.id, &made.netns).unwrap_or_else(|drift| panic!("{drift:?}"));
}

#[test]
fn add_when_the_card_is_a_switch_makes_a_port_on_the_representor_with_all_that_a_pod_is_given() {
    for ask in [switched_request, switched_vfio_request, switched_vdpa_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        assert_whole(&agent, &made);
        let name = made.representor().unwrap().name.clone();
        {
            let state = world.state();
            let port = &state.ports[&number(&made)];
            assert_eq!(port.device, Device::Netdev { netdev: name.clone(), take: Take::All });
            let ips: Vec<IpAddr> = made.addresses.iter().map(|address| address.net.addr()).collect();
            assert_eq!((&port.spec.macs, &port.spec.ips), (&vec![made.mac], &ips));
            assert_eq!(port.spec.vlan, VlanMode::Access(VlanId::new(7)));
            assert!(port.spec.port_security && port.spec.mtu_bytes == 9000);
            let vf = &state.vfs[&made.card.as_ref().unwrap().function].state;
            assert_eq!(vf.settings.vlan.id(), 0, "the switch does it");
        }
        assert_eq!(agent.add(&ask(0)).unwrap(), made);
        agent.del(&made.id).unwrap();
        assert_eq!(world.remains(), NOTHING);
    }
}

#[test]
fn add_when_the_card_is_a_switch_serves_what_only_the_switch_does_but_queues() {
    let world = World::new();
    let agent = world.agent_with(ROUTED).unwrap();
    let made = agent.add(&switched_request(0)).unwrap();
    assert!(world.state().ports[&number(&made)].spec.isolated);
    let error = agent.add(&vfio_request(1)).unwrap_err().to_string();
    assert!(error.contains("passes the switch by") && error.contains("switchdev"), "{error}");
    let wide = AddRequest { network: "wide".parse().unwrap(), ..switched_request(1) };
    let error = agent.add(&wide).unwrap_err().to_string();
    assert!(error.contains("one queue pair"), "{error}");
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn add_when_a_setting_is_the_switchs_to_do_says_so_and_others_are_the_cards() {
    let world = World::new();
    let agent = world.agent().unwrap();
    for (setting, value) in [("vlan", "5"), ("spoofchk", "\"on\""), ("trust", "\"off\"")] {
        let mut asked = switched_request(0);
        let settings = serde_json::from_str(&format!("{{\"{setting}\": {value}}}")).unwrap();
        asked.device.as_mut().unwrap().settings = settings;
        let error = agent.add(&asked).unwrap_err().to_string();
        assert!(error.contains(&format!("set {setting}")) && error.contains("portSecurity"), "{error}");
        assert_eq!(world.remains(), NOTHING);
    }
    let mac = MacAddr([2, 0, 0, 0, 0, 0xaa]);
    let made = agent.add(&AddRequest { mac: Some(mac), ..switched_request(0) }).unwrap();
    assert_whole(&agent, &made);
    assert_eq!(world.state().vfs[&pci(SWITCHED[0])].state.settings.mac, mac);
}

#[test]
fn add_when_a_vdpa_device_is_made_has_its_address_before_its_port() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&switched_vdpa_request(0)).unwrap();
    let device = &made.vdpa.as_ref().unwrap().device;
    let (of_device, of_port) = {
        let state = world.state();
        (state.vdpa[device].mac, state.ports[&number(&made)].spec.macs.clone())
    };
    assert_eq!((of_device, of_port), (made.mac, vec![made.mac]));
}

#[test]
fn add_when_the_switch_is_away_is_refused_and_leaves_the_device_as_it_was() {
    let world = World::new();
    let agent = world.agent().unwrap();
    world.state().switch_away = true;
    let error = agent.add(&switched_request(0)).unwrap_err().to_string();
    assert!(error.contains("no answer from the switch"), "{error}");
    world.state().switch_away = false;
    agent.watch().unwrap();
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn watch_when_the_switch_restarted_opens_the_port_again_and_leaves_the_device_alone() {
    for ask in [switched_request, switched_vfio_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let (made, neighbour) = (agent.add(&ask(0)).unwrap(), agent.add(&request(1)).unwrap());
        let group = made.card.as_ref().unwrap().group.clone();
        world.state().opened.extend(group);
        world.restart_switch();
        agent.watch().unwrap();
        assert_eq!(agent.converge(), []);
        assert_whole(&agent, &made);
        assert_whole(&agent, &neighbour);
        drop(agent);
        assert_whole(&world.agent().unwrap(), &made);
    }
}

#[test]
fn converge_when_somebody_changed_the_representor_makes_it_serve_again() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&switched_request(0)).unwrap();
    for (word, mtu_bytes, up) in [("is down", 9000, false), ("has MTU 1500, not 9000", 1500, true)] {
        change(&world, |found| (found.mtu_bytes, found.up) = (mtu_bytes, up));
        assert!(drift(&agent, &made).contains(word), "{word}");
        assert_eq!(agent.converge(), []);
        assert_whole(&agent, &made);
    }
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn converge_when_the_representor_was_renamed_follows_it_and_del_keeps_the_name() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&switched_request(0)).unwrap();
    change(&world, |found| found.name = "ens3_0".to_owned());
    assert!(drift(&agent, &made).contains("is called ens3_0 now"));
    // What the switch has goes on; a new switch would not find it.
    world.restart_switch();
    agent.watch().unwrap();
    let followed = agent.find(&made.id).unwrap();
    assert_whole(&agent, &followed);
    assert_eq!(followed.representor().unwrap().name, "ens3_0");
    agent.del(&made.id).unwrap();
    change(&world, |found| assert_eq!(std::mem::take(&mut found.name), "ens3_0"));
    change(&world, |found| found.name.clone_from(&representors()[&pci(SWITCHED[0])].name));
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn converge_when_the_representor_is_gone_says_so_until_there_is_one_again() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&switched_request(0)).unwrap();
    let gone = world.state().representors.remove(&pci(SWITCHED[0])).unwrap();
    for _ in 0..2 {
        assert!(drift(&agent, &made).contains("switchdev"));
        let errors = agent.converge();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].1.to_string().contains("it has none any more"), "{errors:?}");
    }
    let anew = Representor { index: 77, mtu_bytes: 1500, up: false, ..gone };
    world.state().representors.insert(pci(SWITCHED[0]), anew.clone());
    assert!(drift(&agent, &made).contains("was made anew"));
    assert_eq!(agent.converge(), []);
    assert_whole(&agent, &agent.find(&made.id).unwrap());
    assert_eq!(world.state().taken[&number(&made)], 77, "not the one that is gone");
    agent.del(&made.id).unwrap();
    assert_eq!(world.state().representors[&pci(SWITCHED[0])], anew);
    assert!(world.state().taken.is_empty());
}

#[test]
fn del_when_the_representor_is_gone_takes_the_device_back_all_the_same() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&switched_request(0)).unwrap();
    world.state().representors.remove(&pci(SWITCHED[0]));
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
}
