//! What ADD, DEL, CHECK and GC do when nothing fails, and how they refuse.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::world::{VOLUME, World, delegated_request, request, vhost_request};
use crate::datapath::Device;
use crate::record::State;
use crate::{AddRequest, AttachError, ReserveError};

fn reserve_error(world: &World, request: &AddRequest) -> ReserveError {
    match world.agent().unwrap().add(request) {
        Err(AttachError::Reserve(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn add_when_tap_makes_port_then_configures_netdev() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&request(0)).unwrap();
    let addresses: Vec<_> = made.addresses.iter().map(|address| address.net.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.2/29", "fd00:1::1/64"]);
    assert_eq!((made.mtu_bytes, made.state), (9000, State::Ready));
    let state = world.state();
    let link = &state.links[&(PathBuf::from("/ns/0"), "eth0".to_owned())];
    assert!(link.up && link.mac == made.mac && link.routes == made.routes);
    let port = state.ports.values().next().unwrap();
    assert_eq!((port.spec.name.as_str(), port.spec.macs.as_slice()), ("c0/eth0", [made.mac].as_slice()));
    assert_eq!(port.spec.ips.len(), 2);
    assert!(port.spec.port_security);
}

#[test]
fn add_when_vhost_user_hands_over_socket_files_and_mount() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&vhost_request(0)).unwrap();
    let files = made.vhost.clone().unwrap();
    assert_eq!(files.socket.as_deref(), Some(Path::new("/run/vhost/c0/eth0")));
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&world.state().files[Path::new(path)]).unwrap()
    };
    let device_info = serde_json::json!({
        "type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "client", "path": "/run/vhost/c0/eth0"},
    });
    assert_eq!(json("/run/vhost/c0/eth0-device.json"), device_info);
    assert_eq!(json("/devinfo/cni/x"), device_info);
    let kuryr = serde_json::json!({"vhostname": "eth0", "vhostmac": made.mac.to_string(), "mode": "client"});
    assert_eq!(json("/run/vhost/c0/c0-eth0"), kuryr);
    assert_eq!(world.state().mounts[Path::new(VOLUME)], Path::new("/run/vhost/c0"));
    agent.check(&made.id, &made.netns).unwrap();
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn del_when_another_interface_shares_the_directory_leaves_it_mounted() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let first = vhost_request(0);
    let mut second = AddRequest { device_info_file: None, ..vhost_request(0) };
    second.id.interface = "net1".parse().unwrap();
    agent.add(&first).unwrap();
    agent.add(&second).unwrap();
    agent.del(&first.id).unwrap();
    assert_eq!(world.state().mounts.len(), 1);
    agent.check(&second.id, &second.netns).unwrap();
    agent.del(&second.id).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn add_when_containers_share_twelve_characters_gives_each_a_directory() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let dirs: BTreeSet<_> = (0..3)
        .map(|n| {
            let mut request = vhost_request(n);
            request.id.container = format!("0123456789ab-{n}").parse().unwrap();
            agent.add(&request).unwrap().vhost.unwrap().dir
        })
        .collect();
    assert_eq!(dirs.len(), 3);
}

#[test]
fn add_when_asked_again_gives_the_same_answer() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&request(0)).unwrap();
    assert_eq!(agent.add(&request(0)).unwrap(), made);
    drop(agent);
    assert_eq!(world.agent().unwrap().add(&request(0)).unwrap(), made, "by the next agent too");
}

#[test]
fn add_when_interface_is_taken_is_refused() {
    let world = World::new();
    let agent = world.agent().unwrap();
    agent.add(&request(0)).unwrap();
    let other = AddRequest { network: "plain".parse().unwrap(), ..request(0) };
    assert_eq!(agent.add(&other), Err(AttachError::Exists(other.id.clone())));
    // A device that is not Millrace's is left alone.
    world.state().links.insert(("/ns/1".into(), "eth0".into()), Default::default());
    assert!(matches!(agent.add(&request(1)), Err(AttachError::Exists(_))));
    assert!(world.state().links.contains_key(&("/ns/1".into(), "eth0".into())));
}

#[test]
fn add_when_netns_is_missing_is_refused_without_traces() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let gone = AddRequest { netns: "/ns/gone".into(), ..request(0) };
    assert_eq!(agent.add(&gone), Err(AttachError::NoSandbox("/ns/gone".into())));
    assert_eq!(agent.desired().attachments().count(), 0);
}

#[test]
fn add_when_addresses_and_mac_are_asked_for_gives_them() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let asked = AddRequest {
        addresses: vec![("10.1.0.5".parse().unwrap(), Some(29))],
        mac: Some("02:00:00:00:00:77".parse().unwrap()),
        ..request(0)
    };
    let made = agent.add(&asked).unwrap();
    assert_eq!(made.mac.to_string(), "02:00:00:00:00:77");
    let addresses: Vec<_> = made.addresses.iter().map(|address| address.net.to_string()).collect();
    assert_eq!(addresses, ["10.1.0.5/29", "fd00:1::1/64"], "the other family is served too");
    assert!(matches!(
        agent.add(&AddRequest { addresses: asked.addresses.clone(), ..request(1) }),
        Err(AttachError::Reserve(ReserveError::AddressTaken { .. }))
    ));
    assert!(matches!(
        agent.add(&AddRequest { mac: asked.mac, ..request(1) }),
        Err(AttachError::Reserve(ReserveError::MacTaken { .. }))
    ));
}

#[test]
fn add_when_what_is_asked_for_cannot_be_is_refused_by_reason() {
    let world = World::new();
    let asked =
        |text: &str, prefix| AddRequest { addresses: vec![(text.parse().unwrap(), prefix)], ..request(0) };
    let allowed = |error: &ReserveError| matches!(error, ReserveError::AddressNotAllowed { .. });
    assert!(allowed(&reserve_error(&world, &asked("10.1.0.1", None))), "the gateway");
    assert!(allowed(&reserve_error(&world, &asked("10.1.0.7", None))), "the broadcast address");
    assert!(allowed(&reserve_error(&world, &asked("10.9.0.7", None))), "outside of the subnets");
    assert!(matches!(reserve_error(&world, &asked("10.1.0.2", Some(24))), ReserveError::WrongPrefix { .. }));
    let plain = AddRequest { network: "plain".parse().unwrap(), ..asked("10.1.0.2", None) };
    assert!(matches!(reserve_error(&world, &plain), ReserveError::NoPrefix { .. }));
    let unknown = AddRequest { network: "red".parse().unwrap(), ..request(0) };
    assert!(reserve_error(&world, &unknown).to_string().contains("has blue, plain"));
    let group = AddRequest { mac: Some("01:00:00:00:00:01".parse().unwrap()), ..request(0) };
    assert!(matches!(reserve_error(&world, &group), ReserveError::NotAStation(_)));
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn add_when_the_subnet_is_full_is_refused_until_one_goes() {
    let world = World::new();
    let agent = world.agent().unwrap();
    for n in 0..5 {
        agent.add(&request(n)).unwrap();
    }
    let full = agent.add(&request(5)).unwrap_err();
    assert!(full.to_string().contains("no address left in 10.1.0.0/29"), "{full}");
    agent.del(&request(2).id).unwrap();
    assert_eq!(agent.add(&request(5)).unwrap().addresses[0].net.to_string(), "10.1.0.4/29");
}

#[test]
fn add_when_ipam_is_delegated_takes_its_result() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&delegated_request(0)).unwrap();
    assert_eq!(made.addresses[0].net.to_string(), "192.0.2.2/24");
    assert_eq!(made.routes[0].gateway, Some("192.0.2.1".parse().unwrap()), "by the router of the address");
    agent.del(&made.id).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn add_when_the_switch_is_away_is_refused_and_leaves_nothing() {
    let world = World::new();
    let agent = world.agent().unwrap();
    world.state().switch_away = true;
    let error = agent.add(&request(0)).unwrap_err();
    assert!(error.to_string().contains("no answer from the switch"), "{error}");
    assert_eq!(agent.desired().attachments().count(), 0);
    assert_eq!(agent.problems().len(), 1);
    world.state().switch_away = false;
    agent.add(&request(0)).unwrap();
}

#[test]
fn del_when_the_switch_is_away_succeeds_and_the_port_goes_later() {
    let world = World::new();
    let agent = world.agent().unwrap();
    agent.add(&request(0)).unwrap();
    world.state().switch_away = true;
    agent.del(&request(0).id).unwrap();
    world.state().switch_away = false;
    agent.watch().unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn del_when_nothing_is_there_or_netns_is_gone_succeeds() {
    let world = World::new();
    let agent = world.agent().unwrap();
    agent.del(&request(0).id).unwrap();
    agent.add(&request(0)).unwrap();
    world.state().netns.clear();
    world.state().links.clear();
    agent.del(&request(0).id).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn check_when_something_drifted_names_each_thing() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&request(0)).unwrap();
    agent.check(&made.id, &made.netns).unwrap();
    {
        let mut state = world.state();
        let link = state.links.values_mut().next().unwrap();
        link.up = false;
        link.mtu_bytes = 1500;
        link.addresses.clear();
        link.routes.clear();
        state.ports.clear();
    }
    let drift = agent.check(&made.id, Path::new("/ns/1")).unwrap_err().join("\n");
    for word in
        ["not in /ns/1", "is down", "MTU 1500", "lacks address 10.1.0.2/29", "route to 0.0.0.0/0", "no port"]
    {
        assert!(drift.contains(word), "{word}: {drift}");
    }
    assert!(agent.check(&request(1).id, Path::new("/ns/1")).is_err());
}

#[test]
fn gc_when_some_are_listed_removes_the_others_of_that_configuration() {
    let world = World::new();
    let agent = world.agent().unwrap();
    for n in 0..3 {
        agent.add(&request(n)).unwrap();
    }
    agent.add(&AddRequest { config: "other".parse().unwrap(), ..request(3) }).unwrap();
    agent.gc(&"conf".parse().unwrap(), &BTreeSet::from([("c1".into(), "eth0".into())])).unwrap();
    let left: Vec<_> = agent.desired().attachments().map(|left| left.id.container.to_string()).collect();
    assert_eq!(left, ["c1", "c3"]);
}

#[test]
fn watch_when_the_switch_restarted_sends_everything_and_configures_again() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let tap = agent.add(&request(0)).unwrap();
    let vhost = agent.add(&vhost_request(1)).unwrap();
    world.restart_switch();
    world.state().links.clear();
    agent.watch().unwrap();
    agent.check(&tap.id, &tap.netns).unwrap();
    agent.check(&vhost.id, &vhost.netns).unwrap();
}

#[test]
fn watch_when_an_add_found_the_restarted_switch_first_configures_again_too() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let made = agent.add(&request(0)).unwrap();
    world.restart_switch();
    world.state().links.clear();
    agent.add(&request(1)).unwrap();
    agent.watch().unwrap();
    agent.check(&made.id, &made.netns).unwrap();
}

#[test]
fn del_when_the_namespace_is_anothers_by_now_leaves_the_others_interface() {
    let world = World::new();
    let agent = world.agent().unwrap();
    let old = agent.add(&request(0)).unwrap();
    // The old sandbox died without DEL, and a new one got a namespace at the same path.
    world.state().links.clear();
    let new = agent.add(&AddRequest { netns: old.netns.clone(), ..request(1) }).unwrap();
    agent.del(&old.id).unwrap();
    agent.check(&new.id, &new.netns).unwrap();
    agent.del(&new.id).unwrap();
    assert_eq!(world.remains(), Vec::<String>::new());
}

#[test]
fn set_networks_when_one_is_removed_keeps_it_until_its_last_attachment_goes() {
    let world = World::new();
    let agent = world.agent().unwrap();
    agent.add(&request(0)).unwrap();
    agent.set_networks(&model::Networks::parse("networks: [{name: plain}]").unwrap()).unwrap();
    agent.watch().unwrap();
    assert!(matches!(agent.add(&request(1)), Err(AttachError::Reserve(ReserveError::UnknownNetwork { .. }))));
    drop(agent);
    let agent = world.agent_with("networks: [{name: plain}]").unwrap();
    agent.check(&request(0).id, Path::new("/ns/0")).unwrap();
    agent.del(&request(0).id).unwrap();
    agent.watch().unwrap();
    assert_eq!(agent.desired().networks().count(), 1);
    assert_eq!(world.state().networks.len(), 1);
}

#[test]
fn set_networks_when_a_vlan_changes_reaches_the_ports() {
    let world = World::new();
    let agent = world.agent().unwrap();
    agent.add(&request(0)).unwrap();
    agent.set_networks(&model::Networks::parse("networks: [{name: blue, queues: 3}]").unwrap()).unwrap();
    agent.watch().unwrap();
    let state = world.state();
    let port = state.ports.values().next().unwrap();
    assert!(matches!(port.device, Device::Tap { queues: 3, .. }));
    assert_eq!(port.spec.vlan, vswitch::program::VlanMode::Access(None));
}

#[test]
fn add_when_many_run_in_parallel_gives_each_its_own() {
    let world = World::new();
    let agent = world.agent_with("networks: [{name: blue, subnets: [{subnet: 10.1.0.0/24}]}]").unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let agent = &agent;
        let threads: Vec<_> = (0..32).map(|n| scope.spawn(move || agent.add(&request(n)).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(made.iter().map(|made| made.addresses[0].net).collect::<BTreeSet<_>>().len(), 32);
    assert_eq!(made.iter().map(|made| made.port).collect::<BTreeSet<_>>().len(), 32);
    assert_eq!(made.iter().map(|made| made.mac).collect::<BTreeSet<_>>().len(), 32);
    assert_eq!(world.state().ports.len(), 32);
    std::thread::scope(|scope| {
        for n in 0..32 {
            let agent = &agent;
            scope.spawn(move || agent.del(&request(n).id).unwrap());
        }
    });
    assert_eq!(world.remains(), Vec::<String>::new());
}
