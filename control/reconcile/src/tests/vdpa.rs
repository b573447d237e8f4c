//! What pods get of VDUSE: by which choice, in which order, and back again when something is gone, dead, open or broken.

use std::path::{Path, PathBuf};

use model::{KindChoice, PortKind};

use super::world::{VOLUME, World, request, vdpa_vhost_request, vduse_request};
use crate::datapath::Device;
use crate::record::State;
use crate::{AddRequest, AttachError, Attachment, Engine, ReserveError};

const NO_VDUSE: &str = "/dev/vduse/control is missing: modprobe vduse";

/// What container number n asks for in the network that leaves the choice to the node.
fn auto_request(n: usize) -> AddRequest {
    AddRequest { network: "plain".parse().unwrap(), ..request(n) }
}

fn device(attachment: &Attachment) -> &str {
    &attachment.vdpa.as_ref().unwrap().device
}

fn drift(agent: &Engine, attachment: &Attachment) -> String {
    agent.check(&attachment.id, &attachment.netns).map_or_else(|drift| drift.join("\n"), |_| String::new())
}

fn assert_whole(agent: &Engine, attachment: &Attachment) {
    assert_eq!(drift(agent, attachment), "");
}

fn delete(agent: &Engine, attachment: &Attachment) -> Result<(), String> {
    let sentences = |errors: Vec<AttachError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    agent.del(&attachment.id).map_err(|errors| sentences(errors).join("\n"))
}

#[test]
fn add_when_the_choice_is_open_takes_vduse_where_the_kernel_has_it_and_says_why() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&auto_request(0)).unwrap();
    assert_eq!((made.kind, &*made.kind_reason), (PortKind::Vduse, "auto: the kernel has VDUSE"));
    assert_whole(&agent, &made);

    world.state().no_vduse = Some(NO_VDUSE.to_owned());
    let made = agent.add(&auto_request(1)).unwrap();
    assert_eq!((made.kind, made.kind_reason), (PortKind::Tap, format!("auto: {NO_VDUSE}")));
    // What is there stays what it is, and a repeated ADD finds it.
    assert_eq!(agent.add(&auto_request(0)).unwrap().kind, PortKind::Vduse);
    let asked = AddRequest { kind: Some(KindChoice::Auto), ..request(2) };
    assert_eq!(
        agent.add(&asked).unwrap().kind,
        PortKind::Tap,
        "the configuration's word is before the network's"
    );
}

#[test]
fn add_when_the_choice_is_open_and_the_network_wants_many_queues_takes_a_tap() {
    let world = World::new();
    let agent = world.agent_with("networks: [{name: blue, queues: 4}]").unwrap();
    let made = agent.add(&request(0)).unwrap();
    assert_eq!(made.kind, PortKind::Tap);
    assert!(made.kind_reason.contains("queues: 4"), "{}", made.kind_reason);
    let error = agent.add(&vduse_request(1)).unwrap_err();
    assert!(matches!(error, AttachError::Reserve(ReserveError::QueuesOfKind { queues: 4, .. })), "{error}");
}

#[test]
fn add_when_a_kind_is_asked_for_that_is_not_here_is_refused_without_traces() {
    let world = World::new();
    world.state().no_vduse = Some(NO_VDUSE.to_owned());
    let agent = world.agent().unwrap();
    for ask in [vduse_request, vdpa_vhost_request] {
        let error = agent.add(&ask(0)).unwrap_err().to_string();
        assert!(error.contains(NO_VDUSE) && error.contains("kind auto"), "{error}");
    }
    assert_eq!(agent.desired().attachments().count(), 0);
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn add_when_vduse_makes_port_then_device_then_netdev() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    assert_eq!((made.state, &*made.kind_reason), (State::Ready, "the CNI configuration asks for it"));
    {
        let state = world.state();
        let port = state.ports.values().next().unwrap();
        assert_eq!(port.device, Device::Vduse { name: device(&made).to_owned() });
        let link = &state.links[&(PathBuf::from("/ns/0"), "eth0".to_owned())];
        assert!(link.up && link.mac == made.mac && link.mtu_bytes == 9000 && link.routes == made.routes);
    }
    assert_whole(&agent, &made);
    let other = agent.add(&vduse_request(1)).unwrap();
    assert_ne!(device(&made), device(&other));
    delete(&agent, &made).unwrap();
    delete(&agent, &other).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn add_when_vdpa_vhost_hands_over_file_and_device_info() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vdpa_vhost_request(0)).unwrap();
    let path = made.vdpa.clone().unwrap().path.unwrap();
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&world.state().files[Path::new(path)]).unwrap()
    };
    let device_info = serde_json::json!({
        "type": "vdpa", "version": "1.1.0",
        "vdpa": {"parent-device": device(&made), "driver": "vhost", "path": path},
    });
    assert_eq!(json("/run/vhost/c0/eth0-device.json"), device_info);
    assert_eq!(json("/devinfo/cni/x"), device_info);
    assert_eq!(world.state().mounts[Path::new(VOLUME)], Path::new("/run/vhost/c0"));
    assert!(world.state().links.is_empty(), "no netdev");
    assert_whole(&agent, &made);
    delete(&agent, &made).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn del_when_the_pod_died_first_takes_its_netdev_from_the_node() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    world.kill_pod(&made.netns);
    assert!(drift(&agent, &made).contains("gone from /ns/0"));
    // Nothing is done about it: whose namespace is there next is nobody's business.
    assert_eq!(agent.converge(), []);
    assert!(world.state().links.is_empty());
    delete(&agent, &made).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn del_when_the_switch_is_dead_destroys_the_device_itself() {
    for ask in [vduse_request, vdpa_vhost_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        {
            let mut state = world.state();
            state.switch_away = true;
            state.stop_serving();
        }
        delete(&agent, &made).unwrap();
        assert!(world.state().vduse.is_empty() && world.state().vdpa.len() == 1);
        world.state().switch_away = false;
        world.restart_switch();
        agent.watch().unwrap();
        assert_eq!(world.remains(), Vec::<String>::new());
        // The name is free again.
        let again = agent.add(&ask(0)).unwrap();
        assert_whole(&agent, &again);
    }
}

#[test]
fn del_when_the_switch_hangs_is_finished_once_it_is_gone() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    // It answers nothing, and holds the device open.
    world.state().switch_away = true;
    assert!(delete(&agent, &made).unwrap_err().contains("in use"));
    assert_eq!(agent.find(&made.id).unwrap().state, State::Deleting);
    world.state().stop_serving();
    assert_eq!(agent.converge(), []);
    assert_eq!(agent.find(&made.id), None);
    world.state().switch_away = false;
    world.restart_switch();
    agent.watch().unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn del_when_a_program_has_the_file_open_is_finished_once_it_has_closed_it() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vdpa_vhost_request(0)).unwrap();
    let path = made.vdpa.clone().unwrap().path.unwrap();
    world.state().opened.insert(path);
    assert!(delete(&agent, &made).unwrap_err().contains("open"));
    world.state().opened.clear();
    assert_eq!(agent.converge(), []);
    assert_eq!(agent.find(&made.id), None);
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn watch_when_the_switch_restarted_leaves_the_netdev_as_it_is() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    let key = (made.netns.clone(), "eth0".to_owned());
    let before = world.state().links[&key].clone();
    world.restart_switch();
    agent.watch().unwrap();
    assert_whole(&agent, &made);
    assert_eq!(world.state().links[&key], before);
    assert!(world.state().vduse[device(&made)].served);
}

#[test]
fn converge_when_a_device_was_removed_under_us_makes_it_again() {
    for ask in [vduse_request, vdpa_vhost_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        {
            let mut state = world.state();
            state.vdpa.clear();
            state.links.clear();
        }
        assert!(drift(&agent, &made).contains("gone from the vDPA bus"));
        assert_eq!(agent.converge(), []);
        let again = agent.find(&made.id).unwrap();
        assert_whole(&agent, &again);
        if let Some(path) = again.vdpa.unwrap().path {
            assert_ne!(Some(&path), made.vdpa.as_ref().unwrap().path.as_ref(), "the kernel numbers on");
            let told = String::from_utf8(world.state().files[Path::new("/devinfo/cni/x")].clone()).unwrap();
            assert!(told.contains(path.to_str().unwrap()), "{told}");
        }
    }
}

#[test]
fn converge_when_the_device_is_broken_destroys_it_and_makes_it_anew() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    {
        // Somebody took it off the bus while the switch was away, and the switch is back.
        let mut state = world.state();
        state.vduse.get_mut(device(&made)).unwrap().broken = true;
        state.vdpa.clear();
        state.links.clear();
    }
    assert_eq!(agent.converge(), []);
    assert_whole(&agent, &made);
    assert!(!world.state().vduse[device(&made)].broken);
}

#[test]
fn watch_when_the_device_broke_while_the_switch_was_away_makes_it_anew() {
    for ask in [vduse_request, vdpa_vhost_request] {
        let world = World::new();
        let agent = world.agent().unwrap();
        let made = agent.add(&ask(0)).unwrap();
        // A driver asked, and nobody answered.
        world.state().vduse.get_mut(device(&made)).unwrap().broken = true;
        world.restart_switch();
        assert!(drift(&agent, &made).contains("no port"), "{}", drift(&agent, &made));
        agent.watch().unwrap();
        let again = agent.find(&made.id).unwrap();
        assert_whole(&agent, &again);
        delete(&agent, &again).unwrap();
        assert_eq!(world.remains(), Vec::<String>::new());
    }
}

#[test]
fn converge_when_the_port_is_not_open_waits_for_it() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    {
        let mut state = world.state();
        state.switch_away = true;
        state.stop_serving();
        state.vdpa.clear();
        state.links.clear();
    }
    assert_eq!(agent.converge(), []);
    assert!(world.state().vdpa.is_empty(), "nobody would answer for it");
    world.state().switch_away = false;
    world.restart_switch();
    agent.watch().unwrap();
    assert_whole(&agent, &made);
}

#[test]
fn check_when_anothers_netdev_is_in_its_place_says_so() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vduse_request(0)).unwrap();
    world.state().links.values_mut().next().unwrap().parent = Some("virtio77".to_owned());
    assert!(drift(&agent, &made).contains("not the netdev of"), "{}", drift(&agent, &made));
}
