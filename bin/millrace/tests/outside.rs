//! What leaves with ports that the switch has for itself: pods of a network that the node is on, and of tenants whose
//! addresses are the same.

mod node;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use lab::Netns;
use node::cluster::{Cluster, Family};
use node::talk::{ask, ask_by_datagram, serve, serve_datagrams};
use node::{Pod, possible, possible_with, wait_for};

/// A tenant with the addresses of `pods`, which leaves by the second node.
const NETWORKS: &str = "
networks:
  - name: pods
    topology: layer3
    vni: 100
    host: true
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}, {subnet: 'fd00:128::/48', nodePrefix: 64}]
    routes: [{dst: 0.0.0.0/0}, {dst: '::/0'}]
  - name: red
    topology: layer3
    vni: 101
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}, {subnet: 'fd00:128::/48', nodePrefix: 64}]
    routes: [{dst: 0.0.0.0/0}, {dst: '::/0'}]
gateways:
  - {router: pods, snat: switch}
  - {router: red, snat: switch, node: node-2, addresses: [192.0.2.50, '2001:db8::50']}
";
const TCP: u16 = 7070;
const UDP: u16 = 7071;
const NOBODY: u16 = 7072;

struct Lab {
    cluster: Cluster,
    /// By node: of the network `pods`, and of the tenant.
    pods: Vec<[Pod; 2]>,
    /// Somebody on the underlay who is no node.
    outside: Netns,
}

fn lab() -> Lab {
    let cluster = Cluster::start(2, Family::Dual, NETWORKS);
    for address in ["192.0.2.50/24", "2001:db8::50/64 nodad"] {
        cluster.nodes[1].host().ip(&format!("address add {address} dev eth0")).unwrap();
    }
    let pod = |node: usize, network: &str| cluster.pod(node, &format!("{network}-{node}"), network).0;
    let pods = (0..2).map(|node| [pod(node, "pods"), pod(node, "red")]).collect();
    let outside = cluster.outside(100);
    // The networks' MTU is less than the underlay's, and the switch fragments nothing.
    outside.ip("link set eth0 mtu 1400").unwrap();
    serve(&outside, TCP);
    serve_datagrams(&outside, UDP);
    for node in &cluster.nodes {
        wait_for("answers to be handed to the switch", || {
            node.host().command("nft", "list table netdev millrace").is_ok()
        });
    }
    Lab { cluster, pods, outside }
}

fn server(is_v4: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if is_v4 { "192.0.2.100" } else { "2001:db8::100" }.parse().unwrap();
    SocketAddr::new(ip, port)
}

/// What pods of a node have outside: those of the network `pods`, and the tenant's.
fn expected(node: usize, is_tenant: bool, is_v4: bool) -> IpAddr {
    let number = if is_tenant { 50 } else { node + 1 };
    let text = if is_v4 { format!("192.0.2.{number}") } else { format!("2001:db8::{number}") };
    text.parse().unwrap()
}

#[test]
fn pods_and_tenants_leave_with_addresses_of_nodes_and_are_answered() {
    let test = "pods_and_tenants_leave_with_addresses_of_nodes_and_are_answered";
    if !possible(test) || !possible_with(test, "nft") {
        return;
    }
    let lab = lab();
    for (node, pods) in lab.pods.iter().enumerate() {
        for (is_tenant, is_v4) in [(false, true), (false, false), (true, true), (true, false)] {
            let pod = pods[usize::from(is_tenant)].netns();
            let expected = expected(node, is_tenant, is_v4);
            let who = format!("node {node}, tenant: {is_tenant}, IPv4: {is_v4}");
            let seen = (0..3).find_map(|_| ask_by_datagram(pod, server(is_v4, UDP), 10).ok());
            let seen = seen.unwrap_or_else(|| panic!("{who}: no answer"));
            assert_eq!(seen.ip(), expected, "{who}");
            assert!((61_000..).contains(&seen.port()), "{who}: {seen}");
            // In pieces, and so is the answer.
            let seen = ask_by_datagram(pod, server(is_v4, UDP), 8000)
                .unwrap_or_else(|error| panic!("{who}: {error}"));
            assert_eq!(seen.ip(), expected, "{who}");
            assert_eq!(ask(pod, server(is_v4, TCP)), Some(expected.to_string()), "{who}");
            let to = server(is_v4, 0).ip();
            pod.command("ping", &format!("-c 1 -W 2 -s 1300 {to}"))
                .unwrap_or_else(|error| panic!("{who}: {error}"));
            // An error from outside reaches who sent the packet.
            let refused = ask_by_datagram(pod, server(is_v4, NOBODY), 10).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{who}");
        }
    }
    let node = &lab.cluster.nodes[1];
    let ports = node.get("ports");
    let mut names = ports["ports"].as_array().unwrap().iter().filter_map(|port| port["name"].as_str());
    let tenant = names.find(|name| name.starts_with("red-1")).unwrap();
    let traced = node.cli(&format!("trace --from {tenant} --to 192.0.2.100 --udp 7071"));
    let told = String::from_utf8_lossy(&traced.stdout);
    assert!(told.contains("leaves for the outside as 192.0.2.50"), "{told}");
    lab.cluster.nodes.iter().for_each(node::Node::assert_ledger_balances);
}

#[test]
fn what_is_the_nodes_own_stays_its_own() {
    let test = "what_is_the_nodes_own_stays_its_own";
    if !possible(test) || !possible_with(test, "nft") {
        return;
    }
    let mut lab = lab();
    // The tenant leaves by the second node.
    let [node, other] = [0, 1].map(|node: usize| lab.cluster.nodes[node].host());
    let [pod, tenant] = lab.pods[1].each_ref().map(Pod::netns);
    [node, other].into_iter().for_each(|node| serve(node, 9090));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert!(ask(pod, at("192.0.2.2:9090")).is_some(), "the network of the node reaches it");
    assert_eq!(ask(tenant, at("192.0.2.1:9090")).as_deref(), Some("192.0.2.50"), "other nodes are outside");
    assert_eq!(ask(tenant, at("192.0.2.2:9090")), None, "the node itself is not");
    other.ip("address add 198.18.0.2/32 dev lo").unwrap();
    assert_eq!(ask(tenant, at("198.18.0.2:9090")), None, "nothing comes to it as from itself");
    let reserved = node.command("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap();
    assert_eq!(reserved.trim(), "61000-65535");
    // The node's own echoes may have any identifier.
    let ping = "ping -c 1 -W 2 -e 62000 192.0.2.100";
    node.command("ping", &ping["ping ".len()..]).unwrap();
    lab.cluster.nodes[0].kill_switch();
    assert!(ask(lab.cluster.nodes[0].host(), server(true, TCP)).is_some(), "its way out is its own");
    lab.cluster.nodes[0].start_switch();
    let pod = lab.pods[0][0].netns();
    wait_for("the pod's way out", || ask(pod, server(true, TCP)).as_deref() == Some("192.0.2.1"));
    // The kernel translates for the node's network, and the switch for the tenant, to one address.
    let (without, _) = NETWORKS.split_once("gateways:").unwrap();
    let write = |gateways: &str| {
        lab.cluster.write(Family::Dual, &format!("{without}gateways: [{{router: pods}}{gateways}]"));
    };
    write(", {router: red, snat: switch}");
    let [pod, tenant] = lab.pods[0].each_ref().map(Pod::netns);
    let seen = |netns| ask_by_datagram(netns, server(true, UDP), 10).ok();
    let is_node = |seen: &Option<SocketAddr>| seen.is_some_and(|seen| seen.ip() == expected(0, false, true));
    wait_for("the tenant to leave by its own node", || is_node(&seen(tenant)));
    wait_for("the kernel to translate", || {
        let seen = seen(pod);
        is_node(&seen) && seen.is_some_and(|seen| seen.port() < 61_000)
    });
    write("");
    let node = lab.cluster.nodes[0].host();
    wait_for("the table to go", || node.command("nft", "list table netdev millrace").is_err());
    assert_eq!(seen(tenant), None);
    assert!(is_node(&seen(pod)));
    drop(lab.outside);
}
