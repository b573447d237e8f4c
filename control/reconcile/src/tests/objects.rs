//! Policies and services: what the switch is told of them, with the port that they are about.

use std::net::IpAddr;

use model::{Networks, PodRef};
use vswitch::program::{PolicyNo, PortNo, Scope};

use super::world::{World, request};
use crate::{AddRequest, Engine};

const SHOP: &str = "
networks:
  - name: blue
    router: r
    policies: true
    portKind: tap
    subnets: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}]
  - {name: plain, portKind: tap}
pods:
  - {namespace: shop, name: p0, labels: {app: web}, containerPorts: [{name: http, containerPort: 8080}]}
networkPolicies:
  - {namespace: shop, name: web, podSelector: {matchLabels: {app: web}}, ingress: []}
services:
  - namespace: shop
    name: web
    network: blue
    clusterIPs: [172.30.0.10]
    ports: [{port: 80, targetPort: http}, {port: 81, targetPort: other}]
    selector: {app: web}
";

/// Pod `shop/pN` on network blue.
fn pod(n: usize) -> AddRequest {
    let pod = PodRef { namespace: "shop".into(), name: format!("p{n}"), uid: None };
    AddRequest { pod: Some(pod), ..request(n) }
}

fn shop() -> (World, Engine) {
    let world = World::new();
    let agent = world.agent_with(SHOP).unwrap();
    (world, agent)
}

fn policy_of(world: &World, port: u16) -> Option<PolicyNo> {
    world.state().ports[&PortNo(port)].spec.policy
}

/// The endpoints of each service that the switch has, by its port's name.
fn endpoints(world: &World) -> Vec<(String, Vec<IpAddr>)> {
    let state = world.state();
    let services = state.services.values();
    services.map(|it| (it.name.clone(), it.endpoints.iter().map(|it| it.address).collect())).collect()
}

#[test]
fn a_port_has_its_pods_policy_from_the_update_that_makes_it() {
    let (world, agent) = shop();
    let web = agent.add(&pod(0)).unwrap();
    let other = agent.add(&pod(1)).unwrap();
    let policy = policy_of(&world, web.port.unwrap()).unwrap();
    assert_eq!(policy_of(&world, other.port.unwrap()), None);
    assert!(world.state().policies.contains(&policy), "told before or with the port");
    let plain = AddRequest { network: "plain".parse().unwrap(), ..pod(0) };
    let plain =
        AddRequest { id: model::AttachmentId { interface: "net1".parse().unwrap(), ..plain.id }, ..plain };
    let plain = agent.add(&plain).unwrap();
    assert_eq!(policy_of(&world, plain.port.unwrap()), None, "that network has no policies");
    world.restart_switch();
    agent.watch().unwrap();
    assert!(policy_of(&world, web.port.unwrap()).is_some(), "told again");
    agent.del(&web.id).unwrap();
}

#[test]
fn only_policies_of_pods_that_are_attached_here_are_told() {
    let elsewhere = "
  - {namespace: shop, name: client, labels: {app: client}, addresses: [10.1.0.78], nodeName: b}
  - {namespace: shop, name: db, labels: {app: db}, addresses: [10.1.0.77], nodeName: b}
networkPolicies:
  - {namespace: shop, name: db, podSelector: {matchLabels: {app: db}}, ingress: []}";
    let world = World::new();
    let text = SHOP.replace("\nnetworkPolicies:", elsewhere);
    let from_client = "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}\nservices:";
    let agent = world.agent_with(&text.replace("ingress: []}\nservices:", from_client)).unwrap();
    agent.add(&pod(1)).unwrap();
    assert!(world.state().policies.is_empty(), "no policy selects it");
    let web = agent.add(&pod(0)).unwrap();
    world.restart_switch();
    agent.watch().unwrap();
    let told = world.state().everything.clone();
    assert_eq!(told.put_policies.len(), 1, "that of web");
    let known: Vec<_> = told.put_identities.iter().map(|it| it.addresses.address.to_string()).collect();
    assert_eq!(known, ["10.1.0.78"], "whom its rules are about, wherever they are");
    agent.del(&web.id).unwrap();
    agent.add(&pod(2)).unwrap();
    assert!(world.state().policies.is_empty(), "gone with its pod, by the next change at the latest");
}

#[test]
fn a_label_that_changes_reaches_the_ports_that_it_is_about() {
    let (world, agent) = shop();
    let web = agent.add(&pod(0)).unwrap().port.unwrap();
    let other = agent.add(&pod(1)).unwrap().port.unwrap();
    let later = SHOP.replace("name: p0", "name: p1");
    agent.set_networks(&Networks::parse(&later).unwrap()).unwrap();
    agent.watch().unwrap();
    assert_eq!(policy_of(&world, web), None);
    assert!(policy_of(&world, other).is_some());
    agent
        .set_networks(&Networks::parse(&SHOP.replace("policies: true", "policies: false")).unwrap())
        .unwrap();
    agent.watch().unwrap();
    assert_eq!((policy_of(&world, web), policy_of(&world, other)), (None, None));
    assert!(world.state().everything.put_policies.is_empty());
}

#[test]
fn a_services_endpoints_are_the_pods_that_there_are() {
    let (world, agent) = shop();
    assert_eq!(
        endpoints(&world),
        [("shop/web port 80".to_owned(), vec![]), ("shop/web port 81".to_owned(), vec![])]
    );
    let web = agent.add(&pod(0)).unwrap();
    let address = web.addresses[0].net.addr();
    assert_eq!(endpoints(&world)[0].1, [address]);
    assert!(endpoints(&world)[1].1.is_empty(), "the pod has no port of that name");
    let service = world.state().services.values().next().unwrap().clone();
    assert!(matches!(service.scope, Scope::Router(_)));
    assert_eq!((service.frontends[0].port, service.endpoints[0].port), (80, 8080));
    agent.del(&web.id).unwrap();
    agent.add(&pod(1)).unwrap();
    assert!(endpoints(&world)[0].1.is_empty(), "gone with its pod, by the next change at the latest");
    agent.set_networks(&Networks::parse("networks: [{name: blue}]").unwrap()).unwrap();
    agent.watch().unwrap();
    assert!(endpoints(&world).is_empty());
}
