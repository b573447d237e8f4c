//! A node among others: what the switch is told of them, and when.

use model::{MacAddr, Networks};
use vswitch::program::{NodeNo, PortNo, Via, Vni};

use super::world::{World, request};
use crate::Engine;
use crate::datapath::{Device, Take, Update};
use crate::kernel::NextHop;

const CLUSTER: &str = "
nodes:
  - {name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}
  - {name: b, number: 2, addresses: [192.0.2.2], uplink: eth0}
  - {name: c, number: 3, addresses: [192.0.2.3], uplink: eth0}
networks:
  - {name: blue, topology: layer3, vni: 7, subnets: [{subnet: 10.128.0.0/16, nodePrefix: 24}], portKind: tap}
  - {name: flat, topology: layer2, vni: 8, isolated: true}
  - {name: own}
";

fn hop(mac: u8) -> NextHop {
    NextHop { source_mac: station(1), mac: Some(station(mac)), mtu_bytes: 1500 }
}

fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

/// The agent of node a, which knows the way to node b.
fn node_a() -> (World, Engine) {
    let world = World::new();
    world.state().next_hops.insert([192, 0, 2, 2].into(), hop(2));
    let agent = world.agent_of("a", CLUSTER).unwrap();
    (world, agent)
}

fn told(world: &World) -> Update {
    world.state().everything.clone()
}

#[test]
fn the_switch_is_told_the_nodes_to_which_there_is_a_way_and_what_is_behind_them() {
    let (world, agent) = node_a();
    let attachment = agent.add(&request(0)).unwrap();
    assert_eq!(attachment.addresses[0].net, "10.128.1.2/24".parse().unwrap());
    assert_eq!(attachment.routes.len(), 1, "to the subnets of other nodes");
    let told = told(&world);
    let underlay = told.underlay.clone().unwrap();
    let nodes: Vec<_> = underlay.nodes.values().map(|node| (node.number.0, node.next_hop)).collect();
    assert_eq!(nodes, [(2, Some(station(2)))]);
    let uplink = told.put_ports.iter().find(|port| port.spec.number == underlay.port).unwrap();
    assert_eq!(
        uplink.device,
        Device::Netdev { netdev: "eth0".into(), take: Take::Ours { vlans: Vec::new() } }
    );
    let network = |name: &str| told.put_networks.iter().find(|network| network.name == name).unwrap();
    let gateway = network("blue").gateway.clone().unwrap();
    assert_eq!(gateway.addresses[0].to_string(), "10.128.1.1/24");
    assert_eq!(gateway.mac.to_string(), "02:4d:56:00:00:07");
    let routes: Vec<_> = gateway.routes.iter().map(|route| (route.to.to_string(), route.via)).collect();
    assert_eq!(routes, [("10.128.2.0/24".to_owned(), Via::Node(NodeNo(2)))]);
    let overlay = |name| network(name).overlay.clone().map(|it| (it.vni, it.floods, it.isolated));
    assert_eq!(overlay("blue"), Some((Vni::new(7).unwrap(), false, false)));
    assert_eq!(overlay("flat"), Some((Vni::new(8).unwrap(), true, true)));
    assert_eq!(overlay("own"), None);
    let port = |name: &str| network(name).overlay.clone().unwrap().port;
    let mut ports = vec![port("blue"), port("flat"), underlay.port, PortNo(attachment.port.unwrap())];
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4, "each has its own number");
}

#[test]
fn a_way_that_changes_reaches_the_switch_with_the_next_look_and_no_sooner() {
    let (world, agent) = node_a();
    let version = told(&world).to_version;
    agent.watch().unwrap();
    assert_eq!(told(&world).to_version, version, "nothing changed");
    world.state().next_hops.insert([192, 0, 2, 2].into(), hop(9));
    world.state().next_hops.insert([192, 0, 2, 3].into(), NextHop { mac: None, ..hop(3) });
    agent.watch().unwrap();
    let underlay = told(&world).underlay.unwrap();
    let nodes: Vec<_> = underlay.nodes.values().map(|node| (node.number.0, node.next_hop)).collect();
    assert_eq!(nodes, [(2, Some(station(9))), (3, None)]);
    world.state().next_hops.clear();
    agent.watch().unwrap();
    assert!(told(&world).underlay.unwrap().nodes.is_empty());
    assert!(
        told(&world).put_networks.iter().all(|it| it.gateway.as_ref().is_none_or(|it| it.routes.is_empty()))
    );
}

#[test]
fn ports_keep_their_numbers_when_the_agent_is_killed() {
    let (world, agent) = node_a();
    let ports = |update: &Update| {
        let overlays =
            update.put_networks.iter().filter_map(|it| Some((it.name.clone(), it.overlay.as_ref()?.port)));
        (update.underlay.as_ref().map(|it| it.port), overlays.collect::<Vec<_>>())
    };
    let before = ports(&told(&world));
    drop(agent);
    world.restart_switch();
    let agent = world.agent_of("a", CLUSTER).unwrap();
    assert_eq!(ports(&told(&world)), before);
    agent.set_networks(&Networks::parse("networks: [{name: blue}]").unwrap()).unwrap();
    agent.watch().unwrap();
    let alone = told(&world);
    assert_eq!((alone.underlay, alone.put_ports.len()), (None, 0), "a node on its own has no uplink");
}
