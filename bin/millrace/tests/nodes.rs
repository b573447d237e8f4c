//! Do pods of several nodes reach each other? Nodes are network namespaces with a switch and an agent each; kernels are at all
//! ends.

mod node;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use node::cluster::{Cluster, Family};
use node::{PATIENCE, Pod, possible, talk, wait_for, wait_for_ping};

const NETWORKS: &str = "
networks:
  - name: pods
    topology: layer3
    vni: 100
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}, {subnet: 'fd00:128::/48', nodePrefix: 64}]
  - name: flat
    topology: layer2
    vni: 200
    subnets: [{subnet: 10.50.0.0/16, nodePrefix: 24}]
  - name: wire
    topology: localnet
    vlan: 7
    subnets: [{subnet: 192.168.0.0/16, nodePrefix: 24}]
  - name: wire-8
    topology: localnet
    vlan: 8
    subnets: [{subnet: 192.168.0.0/16, nodePrefix: 24, exclude: [192.168.2.1]}]
  - name: red
    topology: layer3
    vni: 301
    subnets: [{subnet: 10.60.0.0/16, nodePrefix: 24}]
  - name: green
    topology: layer3
    vni: 302
    subnets: [{subnet: 10.60.0.0/16, nodePrefix: 24}]
";

#[test]
fn pods_of_a_routed_network_reach_each_other_on_other_nodes() {
    if !possible("pods_of_a_routed_network_reach_each_other_on_other_nodes") {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let cluster = Cluster::start(2, family, NETWORKS);
        let (one, at_one) = cluster.pod(0, "one", "pods");
        let (two, at_two) = cluster.pod(1, "two", "pods");
        assert_eq!((at_one.ipv4(), at_two.ipv4()), ([10, 128, 2, 2].into(), [10, 128, 4, 2].into()));
        wait_for_ping(&one, at_two.ipv4());
        let report = lab::ping(one.netns(), at_two.ipv4(), 50, PATIENCE).unwrap();
        assert_eq!(report.lost(), 0, "{family:?}");
        let v6 = one.netns().command("ping", "-c 2 -W 5 fd00:128:0:2::2").unwrap();
        assert!(v6.contains("2 received") && v6.contains("ttl=63"), "{v6}");
        let gbps =
            lab::iperf3(one.netns(), two.netns(), at_two.ipv4().into(), 65_536, Duration::from_secs(2))
                .unwrap();
        assert!(gbps > 0.0);
        // The largest packet of a pod goes through whole.
        let large = one.netns().command("ping", "-c 1 -W 5 -M do -s 1372 10.128.4.2").unwrap();
        assert!(large.contains("1 received"), "{large}");
        cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
    }
}

#[test]
fn a_network_in_a_vlan_of_the_uplink_is_one_domain_with_whoever_is_there() {
    if !possible("a_network_in_a_vlan_of_the_uplink_is_one_domain_with_whoever_is_there") {
        return;
    }
    let cluster = Cluster::start(2, Family::V4, NETWORKS);
    let (one, _) = cluster.pod(0, "one", "wire");
    let (two, at_two) = cluster.pod(1, "two", "wire");
    assert_eq!(at_two.ipv4().to_string(), "192.168.2.1");
    wait_for_ping(&one, at_two.ipv4());
    let gbps =
        lab::iperf3(one.netns(), two.netns(), at_two.ipv4().into(), 65_536, Duration::from_secs(1)).unwrap();
    assert!(gbps > 0.0);
    let large = one.netns().command("ping", "-c 1 -W 5 -M do -s 1472 192.168.2.1").unwrap();
    assert!(large.contains("1 received"), "the underlay's whole MTU is theirs: {large}");
    // Another VLAN of the same uplink is another network.
    let (other, _) = cluster.pod(1, "other", "wire-8");
    assert!(lab::ping(one.netns(), [192, 168, 2, 2].into(), 2, Duration::from_secs(1)).unwrap().lost() == 2);
    drop(other);
    cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
}

#[test]
fn a_layer_2_network_is_one_domain_on_all_nodes() {
    if !possible("a_layer_2_network_is_one_domain_on_all_nodes") {
        return;
    }
    let cluster = Cluster::start(3, Family::V4, NETWORKS);
    let pods: Vec<_> = (0..3).map(|node| cluster.pod(node, &format!("pod{node}"), "flat")).collect();
    for (from, _) in &pods {
        for (to, attached) in &pods {
            if from.id != to.id {
                wait_for_ping(from, attached.ipv4());
            }
        }
    }
    let (first, last) = (&pods[0].0, pods[2].1.ipv4());
    assert_eq!(lab::ping(first.netns(), last, 20, PATIENCE).unwrap().lost(), 0);
    let neighbour = first.netns().ip(&format!("neigh show {last}")).unwrap();
    assert!(neighbour.contains(pods[2].1.interface("mac")), "the pod's own station: {neighbour}");
    cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
}

#[test]
fn tenants_with_the_same_addresses_do_not_reach_each_other() {
    if !possible("tenants_with_the_same_addresses_do_not_reach_each_other") {
        return;
    }
    let cluster = Cluster::start(2, Family::V4, NETWORKS);
    let (red, _) = cluster.pod(0, "red", "red");
    let (green, _) = cluster.pod(0, "green", "green");
    let (red_peer, at_red) = cluster.pod(1, "red-peer", "red");
    assert_eq!(at_red.ipv4().octets(), [10, 60, 2, 2]);
    wait_for_ping(&red, at_red.ipv4());
    // The same address is nobody's in the other's network.
    let lost = lab::ping(green.netns(), at_red.ipv4(), 3, Duration::from_secs(5)).unwrap();
    assert_eq!(lost.lost(), 3);
    let (_green_peer, at_green) = cluster.pod(1, "green-peer", "green");
    assert_eq!(at_green.ipv4(), at_red.ipv4());
    wait_for_ping(&green, at_green.ipv4());
    drop(red_peer);
}

#[test]
fn a_killed_switch_leaves_its_host_alone_and_its_pods_come_back() {
    if !possible("a_killed_switch_leaves_its_host_alone_and_its_pods_come_back") {
        return;
    }
    let mut cluster = Cluster::start(2, Family::V4, NETWORKS);
    let (one, _) = cluster.pod(0, "one", "pods");
    let (_two, at_two) = cluster.pod(1, "two", "pods");
    wait_for_ping(&one, at_two.ipv4());
    let reaches = |cluster: &Cluster| {
        cluster.nodes[0].host().command("ping", "-c 3 -i 0.2 -W 5 192.0.2.2").unwrap().contains("3 received")
    };
    assert!(reaches(&cluster), "the hosts reach each other beside the switches");
    cluster.nodes[1].kill_switch();
    assert!(reaches(&cluster), "with a switch that was killed, too");
    cluster.nodes[1].start_switch();
    wait_for_ping(&one, at_two.ipv4());
    cluster.nodes[0].kill_agent();
    cluster.nodes[0].kill_switch();
    assert!(reaches(&cluster));
    cluster.nodes[0].start_switch();
    cluster.nodes[0].start_agent();
    wait_for_ping(&one, at_two.ipv4());
}

const SHOP: &str = "
networks:
  - name: pods
    topology: layer3
    vni: 100
    policies: true
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}]
    routes: [{dst: 172.30.0.0/16}]
pods:
  - {namespace: shop, name: web, labels: {app: web}, addresses: [10.128.4.2]}
  - {namespace: shop, name: client, labels: {role: client}, addresses: [10.128.2.2]}
  - {namespace: shop, name: stranger, labels: {role: STRANGER}, addresses: [10.128.2.3]}
networkPolicies:
  - namespace: shop
    name: web
    podSelector: {matchLabels: {app: web}}
    ingress:
      - from: [{podSelector: {matchLabels: {role: client}}}]
        ports: [{port: 8080}]
services:
  - namespace: shop
    name: web
    network: pods
    clusterIPs: [172.30.0.10]
    ports: [{port: 80, targetPort: 8080}]
    selector: {app: web}
";

/// What a server says to a pod; none if it does not within a second or two.
fn ask(pod: &Pod, server: (&str, u16)) -> Option<String> {
    talk::ask(pod.netns(), SocketAddr::new(server.0.parse::<IpAddr>().unwrap(), server.1))
}

#[test]
fn a_service_and_a_policy_hold_across_nodes() {
    if !possible("a_service_and_a_policy_hold_across_nodes") {
        return;
    }
    let cluster = Cluster::start(2, Family::V4, SHOP);
    let attach = |node: usize, name| {
        let pod = Pod::of_namespace("shop", name);
        let attached = cluster.nodes[node].add(&pod, "pods");
        (pod, attached.ipv4().to_string())
    };
    let (web, at_web) = attach(1, "web");
    let ((client, at_client), (stranger, at_stranger)) = (attach(0, "client"), attach(0, "stranger"));
    assert_eq!([&*at_web, &*at_client, &*at_stranger], ["10.128.4.2", "10.128.2.2", "10.128.2.3"]);
    talk::serve(web.netns(), 8080);
    talk::serve(web.netns(), 9090);
    let service = ("172.30.0.10", 80);
    wait_for("the service to answer", || ask(&client, service).is_some());
    assert_eq!(ask(&client, service), Some(at_client.clone()), "the server sees who asks");
    assert_eq!(ask(&client, (&at_web, 8080)), Some(at_client), "so it does without the service");
    assert_eq!(ask(&client, (&at_web, 9090)), None, "that port is not allowed");
    assert_eq!(ask(&stranger, service), None);
    let denied = || {
        let ports = cluster.nodes[1].get("drops");
        ports.to_string().contains("policy_denied")
    };
    assert!(denied(), "by the node of the pod that it is for: {}", cluster.nodes[1].get("drops"));
    // What the file says is so within seconds, and no other connection notices.
    cluster.write(Family::V4, &SHOP.replace("STRANGER", "client"));
    wait_for("the stranger to be a client", || ask(&stranger, service) == Some(at_stranger.clone()));
    cluster.write(Family::V4, &SHOP.replace("selector: {app: web}", "selector: {app: nobody}"));
    let refused = || {
        let connect = || TcpStream::connect_timeout(&"172.30.0.10:80".parse().unwrap(), PATIENCE);
        client.netns().run(connect).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    wait_for("a service that nobody serves to refuse", refused);
    cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
}
