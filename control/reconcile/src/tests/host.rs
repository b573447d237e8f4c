//! The node itself on a network: what the switch is told, and what its kernel is made to have.

use std::net::IpAddr;
use std::path::PathBuf;

use model::{Networks, Protocol};
use vswitch::program::{PortNo, Via};

use super::world::World;
use crate::Engine;
use crate::datapath::{Device, Update};
use crate::kernel::{Forward, LinkState};

const NETWORKS: &str = "
nodes:
  - {name: a, number: 1, addresses: [192.0.2.1], uplink: eth0}
  - {name: b, number: 2, addresses: [192.0.2.2], uplink: eth0}
networks:
  - {name: pods, topology: layer3, vni: 7, host: true, subnets: [{subnet: 10.128.0.0/16, nodePrefix: 24}]}
  - {name: red, topology: layer3, vni: 8, subnets: [{subnet: 10.128.0.0/16, nodePrefix: 24}]}
gateways: [{router: pods}]
services:
  - {namespace: x, name: web, network: pods, clusterIPs: [172.30.0.10], ports: [{port: 80, nodePort: 30080}]}
  - {namespace: x, name: own, network: pods, clusterIPs: [172.30.0.11], ports: [{port: 81, nodePort: 30081}], externalTrafficPolicy: Local}
";

fn node_a() -> (World, Engine) {
    let world = World::new();
    let agent = world.agent_of("a", NETWORKS).unwrap();
    (world, agent)
}

fn told(world: &World) -> Update {
    world.state().everything.clone()
}

fn place() -> (PathBuf, String) {
    (PathBuf::from("/proc/self/ns/net"), "mp0".to_owned())
}

/// The switch has made the interface.
fn born(world: &World) {
    world.state().links.insert(place(), LinkState::default());
}

#[test]
fn the_switch_is_told_the_nodes_port_and_what_leaves_by_it() {
    let (world, _agent) = node_a();
    let told = told(&world);
    let host = told.host.clone().unwrap();
    let port = told.put_ports.iter().find(|port| port.spec.number == host.port).unwrap();
    assert_eq!(port.device, Device::Tap { netns: PathBuf::new(), netdev: "mp0".into(), queues: 1 });
    assert_eq!((port.spec.ips.clone(), port.spec.mtu_bytes), (vec!["10.128.1.2".parse().unwrap()], 1400));
    let out = |name: &str| {
        let network = told.put_networks.iter().find(|network| network.name == name).unwrap();
        let routes = network.gateway.clone().unwrap().routes;
        routes
            .iter()
            .filter(|route| route.via == Via::Host)
            .map(|route| route.to.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(out("pods"), ["0.0.0.0/0", "::/0"]);
    assert_eq!(out("red"), [""; 0], "a tenant without a gateway stays inside");
}

#[test]
fn the_kernel_is_made_to_have_it_once_the_interface_is_there_and_again_when_it_is_not() {
    let (world, agent) = node_a();
    agent.watch().unwrap();
    assert_eq!(world.state().host_rules, None, "there is no interface yet");
    born(&world);
    agent.watch().unwrap();
    let link = world.state().links[&place()].clone();
    assert_eq!(link.addresses, ["10.128.1.2/24".parse().unwrap()]);
    let routes: Vec<_> = link.routes.iter().map(|route| route.destination.to_string()).collect();
    for expected in
        ["10.128.0.0/16", "172.30.0.10/32", "172.30.0.11/32", "169.254.169.4/32", "169.254.169.3/32"]
    {
        assert!(routes.contains(&expected.to_owned()), "{expected} in {routes:?}");
    }
    let rules = world.state().host_rules.clone().unwrap();
    assert!(rules.translated.is_some());
    let forward = |port: u16, to: &str| Forward {
        address: None,
        protocol: Protocol::Tcp,
        port,
        to: (to.parse().unwrap(), port),
    };
    assert_eq!(rules.forwards, [forward(30081, "169.254.169.3"), forward(30080, "169.254.169.4")]);
    // Nothing is asked of the kernel while nothing changes.
    world.state().host_rules = None;
    agent.watch().unwrap();
    assert_eq!(world.state().host_rules, None);
    agent.converge();
    agent.watch().unwrap();
    assert_eq!(world.state().host_rules, Some(rules), "now and then it is looked at");
    world.state().links.remove(&place());
    world.restart_switch();
    agent.watch().unwrap();
    born(&world);
    agent.watch().unwrap();
    assert_eq!(world.state().links[&place()], link);
}

#[test]
fn what_is_no_more_desired_is_taken_away() {
    let (world, agent) = node_a();
    let number = told(&world).host.unwrap().port;
    born(&world);
    agent.watch().unwrap();
    let change = |text: &str| agent.set_networks(&Networks::parse_all(&[text], "a").unwrap()).unwrap();
    change(&NETWORKS.replace("172.30.0.10", "172.30.0.20"));
    agent.watch().unwrap();
    let routes = world.state().links[&place()].routes.clone();
    let has = |text: &str| routes.iter().any(|route| route.destination == text.parse().unwrap());
    assert!(has("172.30.0.20/32") && !has("172.30.0.10/32"), "{routes:?}");
    change(&NETWORKS.replace("gateways: [{router: pods}]", "").replace("host: true", "host: false"));
    agent.watch().unwrap();
    assert_eq!(world.state().host_rules, None);
    assert_eq!(told(&world).host, None);
    assert!(told(&world).put_ports.iter().all(|port| port.spec.number != number));
    change(NETWORKS);
    agent.watch().unwrap();
    assert_eq!(told(&world).host.map(|host| host.port), Some(PortNo(number.0)), "it has its number again");
}

#[test]
fn a_gateway_of_another_node_is_reached_by_its_tunnel() {
    let (world, agent) = node_a();
    let hop =
        crate::kernel::NextHop { source_mac: model::MacAddr([2, 0, 0, 0, 0, 1]), mac: None, mtu_bytes: 1500 };
    world.state().next_hops.insert([192, 0, 2, 2].into(), hop);
    let text = NETWORKS.replace("{router: pods}", "{router: pods, node: b}");
    agent.set_networks(&Networks::parse_all(&[&text], "a").unwrap()).unwrap();
    agent.watch().unwrap();
    let networks = told(&world).put_networks;
    let gateway = networks.iter().find(|network| network.name == "pods").unwrap().gateway.clone().unwrap();
    let out = gateway.routes.iter().find(|route| route.to.len == 0).unwrap();
    assert!(matches!(out.via, Via::Node(node) if node.0 == 2));
}

#[test]
fn what_the_switch_translates_has_its_nodes_address_and_is_handed_in() {
    let (world, agent) = node_a();
    let own: IpAddr = [192, 0, 2, 1].into();
    let set = |gateways: &str| {
        let text = NETWORKS.replace("gateways: [{router: pods}]", gateways);
        agent.set_networks(&Networks::parse_all(&[&text], "a").unwrap()).unwrap();
        agent.watch().unwrap();
    };
    set("gateways: [{router: pods}, {router: red, snat: switch}]");
    born(&world);
    agent.watch().unwrap();
    let red = told(&world).put_networks.into_iter().find(|network| network.name == "red").unwrap();
    let gateway = red.gateway.unwrap();
    assert!(gateway.routes.iter().any(|route| route.to.len == 0 && route.via == Via::Host));
    let host = told(&world).host.unwrap();
    assert_eq!((host.sources, host.elsewhere), ([(gateway.router, vec![own])].into(), vec![own]));
    let outside = world.state().host_rules.clone().unwrap().outside.unwrap();
    assert_eq!((outside.uplink.as_str(), outside.addresses), ("eth0", vec![own]));
    let pods = told(&world).put_networks.into_iter().find(|network| network.name == "pods").unwrap();
    assert_eq!(outside.gateway, pods.gateway.unwrap().mac, "of the network that the node is on");
    // By another node: nothing of it is here.
    set("gateways: [{router: red, snat: switch, node: b, addresses: [192.0.2.9]}]");
    assert!(told(&world).host.unwrap().sources.is_empty());
    assert_eq!(world.state().host_rules.clone().unwrap().outside, None);
}
