//! What pods get of cards: whose the device is, what the card is told, and how all of it comes back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::{DeviceDriver, KindChoice, PortKind};
use serde_json::{Value, json};

use super::fake_cards::{CARD, THERE, VFS, pci};
use super::world::{
    World, device_request, left_on_vfio_request, request, sriov_request, vdpa_file_request,
    vdpa_netdev_request, vdpa_rebound_request, vfio_request, vhost_request,
};
use crate::record::State;
use crate::{AddRequest, AttachError, Attachment, Engine, ReserveError};

const NOTHING: [String; 0] = [];

fn refusal(agent: &Engine, request: &AddRequest) -> String {
    let error = agent.add(request).unwrap_err().to_string();
    assert_eq!(agent.find(&request.id), None, "{error}");
    error
}

fn device_info(world: &World) -> Value {
    serde_json::from_slice(&world.state().files[Path::new("/devinfo/cni/x")]).unwrap()
}

fn assert_whole(agent: &Engine, made: &Attachment) {
    assert_eq!(agent.check(&made.id, &made.netns).as_ref(), Ok(made));
    assert_eq!((made.state, made.port), (State::Ready, None));
}

#[test]
fn add_when_sriov_moves_the_netdev_into_the_pod_without_a_port() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&sriov_request(0)).unwrap();
    assert_whole(&agent, &made);
    assert_eq!(made.kind, PortKind::Sriov);
    assert_eq!(made.kind_reason, format!("auto: the runtime gives the pod {}", VFS[0]));
    {
        let state = world.state();
        let link = &state.links[&(PathBuf::from("/ns/0"), "eth0".to_owned())];
        assert!(link.up && link.mac == made.mac && link.mtu_bytes == 9000 && link.routes == made.routes);
        let vf = &state.vfs[&pci(VFS[0])].state;
        assert_eq!((vf.settings.vlan.id(), vf.settings.trust, vf.settings.spoof_check), (5, true, false));
        assert_eq!(vf.netdev.as_ref().unwrap().mac, made.mac, "nobody asked for another one");
        assert!(state.ports.is_empty());
    }
    let expected = json!({"type": "pci", "version": "1.1.0", "pci": {
        "pci-address": VFS[0], "pf-pci-address": "0000:01:00.0",
    }});
    assert_eq!(device_info(&world), expected);
    assert_eq!(agent.add(&sriov_request(0)).unwrap(), made);
    agent.del(&made.id).unwrap();
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn add_when_an_address_is_asked_for_has_the_card_enforce_it_and_the_networks_vlan() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let mac = "02:00:00:00:00:aa".parse().unwrap();
    let asked = AddRequest { mac: Some(mac), ..device_request(0, VFS[0], None) };
    let made = agent.add(&asked).unwrap();
    assert_whole(&agent, &made);
    let settings = world.state().vfs[&pci(VFS[0])].state.settings.clone();
    assert_eq!((made.mac, settings.mac, settings.vlan.id()), (mac, mac, 7));
    let same = AddRequest { mac: Some(mac), ..device_request(1, VFS[1], None) };
    assert!(matches!(agent.add(&same), Err(AttachError::Reserve(ReserveError::MacTaken { .. }))));
    // Nor may the function bring the address of another.
    let own = world.state().vfs[&pci(VFS[1])].state.netdev.as_ref().unwrap().mac;
    agent.add(&AddRequest { mac: Some(own), ..request(2) }).unwrap();
    assert!(refusal(&agent, &device_request(1, VFS[1], None)).contains("is taken by"));
}

#[test]
fn add_when_vfio_is_asked_for_or_has_it_leaves_the_pod_without_a_netdev() {
    for (ask, comes_back) in
        [(vfio_request as fn(usize) -> AddRequest, "igbvf"), (left_on_vfio_request, "vfio-pci")]
    {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        assert_whole(&agent, &made);
        let card = made.card.as_ref().unwrap();
        assert_eq!(card.driver, Some(DeviceDriver::VfioPci));
        let vf = world.state().vfs[&card.function].state.clone();
        assert_eq!(vf.settings.mac, made.mac, "the card has it for the program");
        assert_eq!(device_info(&world)["type"], "pci");
        assert!(world.state().links.is_empty());
        // A program that runs keeps the function, and its settings.
        let group = card.group.clone().unwrap();
        world.state().opened.insert(group);
        assert!(agent.del(&made.id).unwrap_err()[0].to_string().contains("open"));
        assert_eq!(world.state().vfs[&card.function].state, vf);
        world.state().opened.clear();
        assert_eq!(agent.converge(), []);
        assert_eq!(world.remains(), NOTHING);
        let driver = world.state().vfs[&card.function].state.driver.clone();
        assert_eq!(driver.as_deref(), Some(comes_back));
    }
}

#[test]
fn add_when_the_device_is_another_pods_names_that_pod() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&sriov_request(0)).unwrap();
    for driver in [None, Some(DeviceDriver::VfioPci), Some(DeviceDriver::VhostVdpa)] {
        let error = agent.add(&device_request(1, VFS[0], driver)).unwrap_err();
        let taken = ReserveError::DeviceTaken { function: pci(VFS[0]), by: "default/pod-0/eth0".to_owned() };
        assert_eq!(error, AttachError::Reserve(taken));
    }
    assert_whole(&agent, &made);
    agent.del(&made.id).unwrap();
    agent.add(&device_request(1, VFS[0], None)).unwrap();
}

#[test]
fn del_when_the_pod_died_first_finds_the_device_on_the_node() {
    for ask in [sriov_request, vdpa_netdev_request, vdpa_rebound_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        world.kill_pod(&made.netns);
        assert!(agent.check(&made.id, &made.netns).is_err());
        assert_eq!(agent.converge(), [], "nothing is done about it");
        assert!(world.state().links.is_empty());
        drop(agent);
        world.agent().unwrap().del(&made.id).unwrap();
        assert_eq!(world.remains(), NOTHING);
    }
}

#[test]
fn check_when_somebody_changed_the_device_names_what_is_not_as_it_was_made() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&sriov_request(0)).unwrap();
    let before = world.state().vfs[&pci(VFS[0])].clone();
    world.state().vfs.get_mut(&pci(VFS[0])).unwrap().state.settings.trust = false;
    let drift = || agent.check(&made.id, &made.netns).unwrap_err();
    assert_eq!(drift(), [format!("trust of VF {} is not as the card was told", VFS[0])]);
    world.state().vfs.insert(pci(VFS[0]), before);
    assert_whole(&agent, &made);
    world.state().links.values_mut().next().unwrap().parent = Some(VFS[1].to_owned());
    assert!(drift()[0].contains("not the netdev of the attachment's device"));

    let made = agent.add(&vfio_request(1)).unwrap();
    world.state().vfs.get_mut(&pci(VFS[1])).unwrap().state.driver = None;
    let drift = agent.check(&made.id, &made.netns).unwrap_err();
    assert_eq!(drift, [format!("vfio-pci does not drive the PCI function {}", VFS[1])]);
}

#[test]
fn gc_when_a_device_is_not_listed_takes_it_back() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let (stale, kept) = (agent.add(&sriov_request(0)).unwrap(), agent.add(&sriov_request(1)).unwrap());
    let listed = BTreeSet::from([("c1".to_owned(), "eth0".to_owned())]);
    agent.gc(&stale.config, &listed).unwrap();
    assert_eq!(agent.find(&stale.id), None);
    assert_whole(&agent, &kept);
}

#[test]
fn add_when_the_switch_is_away_gives_devices_of_cards_all_the_same() {
    let world = World::new();
    let agent = world.agent().unwrap();
    world.state().switch_away = true;
    for ask in [sriov_request, vfio_request, vdpa_netdev_request, vdpa_file_request] {
        let made = agent.add(&ask(0)).unwrap();
        assert_eq!((made.state, made.port), (State::Ready, None));
        agent.del(&made.id).unwrap();
    }
    world.state().switch_away = false;
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn watch_when_the_switch_restarted_leaves_devices_of_cards_alone() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&sriov_request(0)).unwrap();
    world.restart_switch();
    agent.watch().unwrap();
    assert_eq!(agent.converge(), []);
    assert_whole(&agent, &made);
    assert!(world.state().ports.is_empty());
}

#[test]
fn add_when_vdpa_makes_the_device_of_the_function_and_del_removes_it() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vdpa_netdev_request(0)).unwrap();
    assert_whole(&agent, &made);
    let name = made.vdpa.clone().unwrap().device;
    assert_eq!(name, format!("mr-{CARD}"));
    assert_eq!(made.mac, world.state().vdpa[&name].mac, "nobody asked for another one");
    let expected = json!({"type": "vdpa", "version": "1.1.0", "vdpa": {
        "parent-device": name, "driver": "virtio", "pci-address": CARD,
    }});
    assert_eq!(device_info(&world), expected);
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn add_when_a_vdpa_device_is_there_leaves_it_with_its_driver_and_name() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vdpa_file_request(0)).unwrap();
    assert_whole(&agent, &made);
    let place = made.vdpa.clone().unwrap();
    let path = place.path.unwrap();
    assert_eq!(place.device, THERE);
    assert_eq!(made.card.as_ref().unwrap().driver, Some(DeviceDriver::VhostVdpa));
    let expected = json!({"type": "vdpa", "version": "1.1.0", "vdpa": {
        "parent-device": THERE, "driver": "vhost", "path": path, "pci-address": VFS[3],
        "pf-pci-address": "0000:01:00.0",
    }});
    assert_eq!(device_info(&world), expected);
    world.state().opened.insert(path);
    assert!(agent.del(&made.id).unwrap_err()[0].to_string().contains("open"));
    let vlan = world.state().vfs[&pci(VFS[3])].state.settings.vlan;
    assert_eq!(vlan.id(), 7, "the program stays in its VLAN");
    world.state().opened.clear();
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), NOTHING);
    assert!(world.state().vdpa.contains_key(THERE), "it is not ours to remove");
}

#[test]
fn add_when_a_program_cannot_use_the_vdpa_device_says_why_and_brings_it_back() {
    let world = World::new();
    let agent = world.agent().unwrap();
    world.state().no_iommu = true;
    assert!(refusal(&agent, &vdpa_file_request(0)).contains("IOMMU"));
    let mac = AddRequest { mac: Some("02:00:00:00:00:aa".parse().unwrap()), ..vdpa_file_request(0) };
    assert!(refusal(&agent, &mac).contains(&format!("vdpa dev del {THERE}")));
    assert_eq!(world.remains(), NOTHING);
}

#[test]
fn add_when_the_device_does_not_fit_what_is_asked_says_what_to_do() {
    let networks = "networks: [{name: blue, isolated: true}, {name: plain}, {name: old, portKind: tap}]";
    let world = World::new();
    let agent = world.agent_with(networks).unwrap();
    let on = |network: &str, request: AddRequest| AddRequest { network: network.parse().unwrap(), ..request };
    let of_kind = |kind, request| AddRequest { kind: Some(KindChoice::Only(kind)), ..request };
    let vf = || device_request(0, VFS[0], None);
    for (request, words) in [
        (vf(), ["blue", "without isolated"]),
        (on("old", AddRequest { kind: None, ..vf() }), ["port kind tap", "set portKind to sriov"]),
        (on("plain", of_kind(PortKind::VhostUser, vf())), ["port kind vhost-user", VFS[0]]),
        (on("plain", of_kind(PortKind::Sriov, vhost_request(0))), ["needs a deviceID", "resourceName"]),
        (
            on("plain", of_kind(PortKind::Sriov, device_request(0, VFS[0], Some(DeviceDriver::VhostVdpa)))),
            ["vhost_vdpa is for port kind vdpa", "leave the driver out"],
        ),
        (on("plain", of_kind(PortKind::Sriov, device_request(0, CARD, None))), [CARD, "physical function"]),
        (on("plain", device_request(0, "0000:09:00.0", None)), ["VF", "there is none"]),
        (on("plain", of_kind(PortKind::Vdpa, vf())), ["makes none", "modprobe mlx5_vdpa"]),
    ] {
        let error = refusal(&agent, &request);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let mut settings = vdpa_netdev_request(0);
    settings.device.as_mut().unwrap().settings = sriov_request(0).device.unwrap().settings;
    let error = refusal(&agent, &settings);
    assert!(error.contains(CARD) && error.contains("have vlan"), "{error}");
    assert_eq!(world.remains(), NOTHING);
}
