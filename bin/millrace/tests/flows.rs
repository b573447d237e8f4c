//! Does everybody reach everybody, by every way? Pods and nodes, directly, by services and by node ports, on the same node and on
//! another one; and who is outside.
//!
//! The matrix is the one that other primary networks are held to (cases 1 to 24 of the traffic flow tests of OVN-Kubernetes,
//! and the external ones), in both families.

mod node;

use std::net::{IpAddr, SocketAddr};

use lab::Netns;
use node::cluster::{Cluster, Family};
use node::talk::{ask, ask_by_datagram, serve, serve_datagrams};
use node::{Pod, possible, possible_with, wait_for};

const NETWORKS: &str = "
networks:
  - name: pods
    topology: layer3
    vni: 100
    host: true
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}, {subnet: 'fd00:128::/48', nodePrefix: 64}]
    routes: [{dst: 0.0.0.0/0}, {dst: '::/0'}]
gateways: [{router: pods}]
services:
  - {namespace: x, name: pod-1, network: pods, clusterIPs: [172.30.0.1, 'fd00:30::1'], endpoints: [10.128.2.3, 'fd00:128:0:1::3'], ports: [{port: 80, targetPort: 8080, nodePort: 30001}]}
  - {namespace: x, name: pod-2, network: pods, clusterIPs: [172.30.0.2, 'fd00:30::2'], endpoints: [10.128.4.3, 'fd00:128:0:2::3'], ports: [{port: 80, targetPort: 8080, nodePort: 30002}, {name: datagrams, protocol: UDP, port: 81, targetPort: 8081}], externalIPs: [203.0.113.2, '2001:db8:1::2']}
  - {namespace: x, name: host-1, network: pods, clusterIPs: [172.30.0.3, 'fd00:30::3'], endpoints: [192.0.2.1, '2001:db8::1'], ports: [{port: 80, targetPort: 9090, nodePort: 30003}]}
  - {namespace: x, name: host-2, network: pods, clusterIPs: [172.30.0.4, 'fd00:30::4'], endpoints: [192.0.2.2, '2001:db8::2'], ports: [{port: 80, targetPort: 9090, nodePort: 30004}]}
  - {namespace: x, name: local, network: pods, clusterIPs: [172.30.0.5, 'fd00:30::5'], endpoints: [10.128.2.3, 'fd00:128:0:1::3'], ports: [{port: 80, targetPort: 8080, nodePort: 30005}], externalTrafficPolicy: Local}
  - {namespace: x, name: inner, network: pods, clusterIPs: [172.30.0.6, 'fd00:30::6'], endpoints: [10.128.2.3, 10.128.4.3, 'fd00:128:0:1::3', 'fd00:128:0:2::3'], ports: [{port: 80, targetPort: 8080}], internalTrafficPolicy: Local}
";

/// An address of one family, by its parts.
fn address(is_v4: bool, v4: &str, v6: &str) -> IpAddr {
    if is_v4 { v4.parse().unwrap() } else { v6.parse().unwrap() }
}

/// Node NUMBER's address.
fn of_node(number: u8, is_v4: bool) -> IpAddr {
    address(is_v4, &format!("192.0.2.{number}"), &format!("2001:db8::{number}"))
}

/// The address of service NUMBER.
fn of_service(number: u8, is_v4: bool) -> IpAddr {
    address(is_v4, &format!("172.30.0.{number}"), &format!("fd00:30::{number}"))
}

struct Lab {
    cluster: Cluster,
    /// One on each node, which answers at port 8080.
    pods: Vec<(Pod, [IpAddr; 2])>,
    /// Somebody on the underlay who is no node.
    outside: Netns,
}

/// Two nodes with a pod each; nodes answer at port 9090, who is outside at port 7070.
fn lab() -> Lab {
    let cluster = Cluster::start(2, Family::V4, NETWORKS);
    let pods: Vec<_> = (0..2)
        .map(|node| {
            let (pod, attached) = cluster.pod(node, &format!("pod-{}", node + 1), "pods");
            serve(pod.netns(), 8080);
            serve_datagrams(pod.netns(), 8081);
            serve(cluster.nodes[node].host(), 9090);
            let v6: IpAddr = format!("fd00:128:0:{}::3", node + 1).parse().unwrap();
            (pod, [attached.ipv4().into(), v6])
        })
        .collect();
    assert_eq!(pods[0].1[0].to_string(), "10.128.2.3", "the node has the first address");
    let outside = cluster.outside(100);
    serve(&outside, 7070);
    for node in &cluster.nodes {
        wait_for("the node to be on its network", || {
            node.host().command("ip", "-o addr show dev mp0").is_ok_and(|said| said.contains("fd00:128"))
        });
    }
    Lab { cluster, pods, outside }
}

#[test]
fn everybody_reaches_everybody_by_every_way() {
    if !possible("everybody_reaches_everybody_by_every_way")
        || !possible_with("everybody_reaches_everybody_by_every_way", "nft")
    {
        return;
    }
    let lab = lab();
    let mut failed = Vec::new();
    for (is_v4, family) in [(true, 0), (false, 1)] {
        let ways = [
            ("pod, same node", lab.pods[0].1[family], 8080),
            ("pod, other node", lab.pods[1].1[family], 8080),
            ("node, same", of_node(1, is_v4), 9090),
            ("node, other", of_node(2, is_v4), 9090),
            ("service of a pod, same node", of_service(1, is_v4), 80),
            ("service of a pod, other node", of_service(2, is_v4), 80),
            ("service of a node, same", of_service(3, is_v4), 80),
            ("service of a node, other", of_service(4, is_v4), 80),
            ("node port of a pod, same node", of_node(1, is_v4), 30001),
            ("node port of a pod, other node", of_node(1, is_v4), 30002),
            ("node port of a node, same", of_node(1, is_v4), 30003),
            ("node port of a node, other", of_node(1, is_v4), 30004),
            ("node port elsewhere of a pod here", of_node(2, is_v4), 30001),
            ("node port elsewhere of a pod there", of_node(2, is_v4), 30002),
            ("node port elsewhere of a node here", of_node(2, is_v4), 30003),
            ("node port elsewhere of a node there", of_node(2, is_v4), 30004),
            ("outside", address(is_v4, "192.0.2.100", "2001:db8::100"), 7070),
        ];
        for (way, ip, port) in ways {
            let asks = [("pod", lab.pods[0].0.netns()), ("node", lab.cluster.nodes[0].host())];
            for (who, netns) in asks {
                // A first packet may be lost while somebody looks for a station.
                let said = (0..3).find_map(|_| ask(netns, SocketAddr::new(ip, port)));
                if said.is_none() {
                    failed.push(format!("{who} to {way}: {ip} port {port}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    lab.cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
}

#[test]
fn who_is_outside_reaches_services_and_is_reached_by_pods() {
    if !possible("who_is_outside_reaches_services_and_is_reached_by_pods")
        || !possible_with("who_is_outside_reaches_services_and_is_reached_by_pods", "nft")
    {
        return;
    }
    let lab = lab();
    let outside = &lab.outside;
    outside.ip("route add 203.0.113.2 via 192.0.2.1").unwrap();
    outside.ip("route add 2001:db8:1::2 via 2001:db8::1").unwrap();
    for is_v4 in [true, false] {
        let client = address(is_v4, "192.0.2.100", "2001:db8::100").to_string();
        let own = address(is_v4, "10.128.2.2", "fd00:128:0:1::2").to_string();
        let at = |node: u8, port| SocketAddr::new(of_node(node, is_v4), port);
        let from_outside = |address| (0..3).find_map(|_| ask(outside, address));
        assert_eq!(from_outside(at(1, 30001)), Some(client.clone()), "a pod of the node sees who asks");
        assert_eq!(from_outside(at(1, 30002)), Some(own), "one of another node the node that lets in");
        assert!(from_outside(at(1, 30003)).is_some() && from_outside(at(1, 30004)).is_some());
        assert_eq!(from_outside(at(1, 30005)), Some(client), "that policy is local");
        assert_eq!(from_outside(at(2, 30005)), None, "and no pod of the other node serves it");
        let external = address(is_v4, "203.0.113.2", "2001:db8:1::2");
        assert!(from_outside(SocketAddr::new(external, 80)).is_some());
        let pod = lab.pods[0].0.netns();
        let seen = ask(pod, SocketAddr::new(address(is_v4, "192.0.2.100", "2001:db8::100"), 7070));
        assert_eq!(seen, Some(of_node(1, is_v4).to_string()), "pods have the node's address outside");
        assert!(ask(pod, SocketAddr::new(external, 80)).is_some(), "pods reach it without leaving");
        // Datagrams in pieces, to a service, and its answers.
        let datagrams = SocketAddr::new(of_service(2, is_v4), 81);
        let seen = ask_by_datagram(pod, datagrams, 8000).unwrap();
        assert_eq!(seen.ip(), lab.pods[0].1[usize::from(!is_v4)]);
        // Each node serves by its own.
        for (node, (pod, _)) in lab.pods.iter().enumerate() {
            let inner = SocketAddr::new(of_service(6, is_v4), 80);
            let seen = ask(pod.netns(), inner);
            assert!(seen.is_some(), "pod {node}");
        }
    }
}

#[test]
fn what_leaves_by_one_node_has_the_address_it_is_given_there() {
    let test = "what_leaves_by_one_node_has_the_address_it_is_given_there";
    if !possible(test) || !possible_with(test, "nft") {
        return;
    }
    let lab = lab();
    let egress = "gateways: [{router: pods, node: node-2, addresses: [192.0.2.50, '2001:db8::50']}]";
    for address in ["192.0.2.50/24", "2001:db8::50/64"] {
        lab.cluster.nodes[1].host().ip(&format!("address add {address} dev eth0")).unwrap();
    }
    lab.cluster.write(Family::V4, &NETWORKS.replace("gateways: [{router: pods}]", egress));
    for is_v4 in [true, false] {
        let server = SocketAddr::new(address(is_v4, "192.0.2.100", "2001:db8::100"), 7070);
        let expected = address(is_v4, "192.0.2.50", "2001:db8::50").to_string();
        for (pod, _) in &lab.pods {
            wait_for("the way out by the other node", || {
                ask(pod.netns(), server).as_ref() == Some(&expected)
            });
        }
    }
}

#[test]
fn the_node_stays_on_its_network_whatever_is_killed() {
    if !possible("the_node_stays_on_its_network_whatever_is_killed")
        || !possible_with("the_node_stays_on_its_network_whatever_is_killed", "nft")
    {
        return;
    }
    let mut lab = lab();
    let to_pod = SocketAddr::new(lab.pods[1].1[0], 8080);
    let node_port: SocketAddr = "192.0.2.1:30001".parse().unwrap();
    let works = |lab: &Lab| {
        ask(lab.cluster.nodes[0].host(), to_pod).is_some() && ask(&lab.outside, node_port).is_some()
    };
    wait_for("the first answer", || works(&lab));
    lab.cluster.nodes[0].kill_agent();
    assert!(works(&lab), "the switch forwards while the agent is away");
    lab.cluster.nodes[0].start_agent();
    assert!(works(&lab));
    // Whoever is the node's default router sees nothing that is for pods while the switch is away.
    for rule in [
        "add table ip t",
        "add chain ip t c { type filter hook prerouting priority 0 ; }",
        "add rule ip t c ip daddr { 10.128.0.0/14, 172.30.0.0/16, 169.254.169.0/24 } counter",
    ] {
        lab.outside.command("nft", rule).unwrap();
    }
    lab.cluster.nodes[0].host().ip("route add default via 192.0.2.100").unwrap();
    lab.cluster.nodes[0].kill_switch();
    for to in [to_pod, "172.30.0.2:80".parse().unwrap()] {
        assert_eq!(ask(lab.cluster.nodes[0].host(), to), None);
    }
    assert_eq!(ask(&lab.outside, node_port), None);
    let counted = lab.outside.command("nft", "list table ip t").unwrap();
    assert!(counted.contains("counter packets 0 "), "{counted}");
    let others = SocketAddr::new(of_node(2, true), 9090);
    assert!(ask(lab.cluster.nodes[0].host(), others).is_some(), "the node's own way is its own");
    lab.cluster.nodes[0].start_switch();
    wait_for("the node to be back on its network", || works(&lab));
    // Somebody flushes all rules; and the network goes.
    lab.cluster.nodes[0].host().command("nft", "flush ruleset").unwrap();
    lab.cluster.write(Family::V4, &NETWORKS.replace("nodePort: 30001", "nodePort: 30011"));
    let moved: SocketAddr = "192.0.2.1:30011".parse().unwrap();
    wait_for("the new node port", || ask(&lab.outside, moved).is_some());
    assert_eq!(ask(&lab.outside, node_port), None);
    let (without, _) = NETWORKS.split_once("gateways:").unwrap();
    lab.cluster.write(Family::V4, &without.replace("host: true", "host: false"));
    let is_gone = || {
        let host = lab.cluster.nodes[0].host();
        host.command("ip", "link show dev mp0").is_err()
            && !host.command("nft", "list ruleset").unwrap().contains("millrace")
    };
    wait_for("nothing of it to be left", is_gone);
}
