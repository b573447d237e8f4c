//! Does a trace follow a packet from node to node, and say who denied it?

mod node;

use node::cluster::{Cluster, Family};
use node::{Node, Pod, possible, wait_for};
use serde_json::Value;

const SHOP: &str = "
networks:
  - name: pods
    topology: layer3
    vni: 100
    policies: true
    subnets: [{subnet: 10.128.0.0/14, nodePrefix: 23}]
    routes: [{dst: 172.30.0.0/16}]
  - name: flat
    topology: layer2
    vni: 200
    subnets: [{subnet: 10.50.0.0/16, nodePrefix: 24}]
pods:
  - {namespace: shop, name: web, labels: {app: web}, addresses: [10.128.4.2]}
  - {namespace: shop, name: client, labels: {role: client}, addresses: [10.128.2.2]}
  - {namespace: shop, name: stranger, addresses: [10.128.2.3]}
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

#[track_caller]
fn says(node: &Node, words: &str) -> String {
    let output = node.cli(words);
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn complains(node: &Node, words: &str) -> String {
    let output = node.cli(words);
    assert!(!output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Each of `lines` is in `text`, in this order.
#[track_caller]
fn assert_in_order(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is not, or not there, in:\n{text}"));
        rest = &rest[at + line.len()..];
    }
}

/// Waits until the first node's switch was told the way to the second.
fn wait_for_way(one: &Node, asked: &str) {
    wait_for("the way to node-2", || says(one, asked).contains("Sent to node node-2"));
}

/// Two nodes, with the pods `client` and `stranger` of the shop on one and `web` on the other.
fn shop() -> (Cluster, Vec<Pod>) {
    let cluster = Cluster::start(2, Family::V4, SHOP);
    let attach = |node: usize, name: &str, address: [u8; 4]| {
        let pod = Pod::of_namespace("shop", name);
        assert_eq!(cluster.nodes[node].add(&pod, "pods").ipv4().octets(), address);
        pod
    };
    let pods = vec![
        attach(0, "client", [10, 128, 2, 2]),
        attach(0, "stranger", [10, 128, 2, 3]),
        attach(1, "web", [10, 128, 4, 2]),
    ];
    wait_for_way(&cluster.nodes[0], "trace --from shop/client --to 172.30.0.10 --tcp 80");
    (cluster, pods)
}

#[test]
fn a_packet_for_a_service_is_followed_to_its_endpoint_on_another_node_and_nothing_changes() {
    if !possible("a_packet_for_a_service_is_followed_to_its_endpoint_on_another_node_and_nothing_changes") {
        return;
    }
    let (cluster, _pods) = shop();
    let [one, two] = &cluster.nodes[..] else { unreachable!("two were asked for") };
    let other = format!("--node node-2={}", two.run_dir().display());
    let asked = "trace --from shop/client --to 172.30.0.10 --tcp 80";
    let there = [
        "On node-2 it comes in by the uplink:\n",
        "tunnel   comes out of the tunnel from node node-1, VNI 100\n",
        "gateway  routes it: 10.128.4.2 is ",
        "allowed by NetworkPolicy shop/web ingress rule 1\n",
        "Sent to shop/web/eth0: TCP from 10.128.2.2 port 50000 to 10.128.4.2 port 8080.\n",
    ];
    let told = says(one, &format!("{asked} {other}"));
    assert_in_order(
        &told,
        &[
            "TCP from 10.128.2.2 port 50000 to 172.30.0.10 port 80\n",
            "On node-1 it comes in by shop/client/eth0:\n",
            "service   is for service shop/web port 80: 10.128.4.2 port 8080 serves it\n",
            "gateway   routes it: 10.128.4.2 is on node node-2\n",
            "Sent to node node-2 (VNI 100): TCP from 10.128.2.2 port 50000 to 10.128.4.2 port 8080.\n",
        ],
    );
    assert_in_order(&told, &there);

    // Whoever is on the other node is told what to ask there, and hears the same.
    let told = says(one, asked);
    assert!(!told.contains("On node-2"), "{told}");
    let command = told.lines().last().unwrap().trim().strip_prefix("millrace ").unwrap().to_owned();
    assert_in_order(&says(two, &command), &there);

    let told: Value = serde_json::from_str(&says(one, &format!("{asked} {other} -o json"))).unwrap();
    assert_eq!(told["hops"][0]["outputs"][0]["tunnel"]["node"], "node-2");
    assert_eq!(told["hops"][1]["outputs"][0]["port"], "shop/web/eth0");
    assert_eq!(told["elsewhere"], Value::Array(Vec::new()));
    for node in [one, two] {
        assert!(!says(node, "get flows").contains("50000"), "nothing was sent");
        node.assert_ledger_balances();
    }
}

#[test]
fn a_denied_packet_names_the_policy_and_where_it_was_denied() {
    if !possible("a_denied_packet_names_the_policy_and_where_it_was_denied") {
        return;
    }
    let (cluster, _pods) = shop();
    let one = &cluster.nodes[0];
    let other = format!("--node node-2={}", cluster.nodes[1].run_dir().display());
    let asked = format!("trace --from shop/stranger --to 172.30.0.10 --tcp 80 {other}");
    let told = says(one, &asked);
    assert_in_order(
        &told,
        &[
            "On node-1 it comes in by shop/stranger/eth0:\n",
            "Sent to node node-2 (VNI 100): TCP from 10.128.2.3 port 50000 to 10.128.4.2 port 8080.\n",
            "On node-2 it comes in by the uplink:\n",
            "Denied by NetworkPolicy shop/web (policy_denied).\n",
        ],
    );
    let told: Value = serde_json::from_str(&says(one, &format!("{asked} -o json"))).unwrap();
    assert_eq!(told["hops"][1]["denied_by"], "NetworkPolicy shop/web");
    assert_eq!(told["hops"][1]["drop_reason"], "policy_denied");
    assert_eq!(told["hops"][1]["outputs"], Value::Array(Vec::new()));
    let told = says(one, "trace --from shop/stranger --to 172.30.0.10 --tcp 81");
    assert!(
        told.contains("Answered by shop/stranger/eth0: ICMP error from 10.128.2.1 to 10.128.2.3."),
        "{told}"
    );
}

#[test]
fn a_flood_of_a_layer_2_network_is_followed_to_the_other_node() {
    if !possible("a_flood_of_a_layer_2_network_is_followed_to_the_other_node") {
        return;
    }
    let cluster = Cluster::start(2, Family::V4, SHOP);
    let (near, far) = (Pod::of_namespace("lab", "near"), Pod::of_namespace("lab", "far"));
    cluster.nodes[0].add(&near, "flat");
    let at_far = cluster.nodes[1].add(&far, "flat").ipv4();
    let one = &cluster.nodes[0];
    let other = format!("--node node-2={}", cluster.nodes[1].run_dir().display());
    wait_for_way(one, &format!("trace --from lab/near --to lab/far {other}"));
    for to in ["lab/far", &at_far.to_string()] {
        let told = says(one, &format!("trace --from lab/near --to {to} {other}"));
        assert_in_order(
            &told,
            &["On node-1", "Sent to node node-2 (VNI 200)", "On node-2", "Sent to lab/far/eth0: ICMP"],
        );
    }
    // Without that node nobody here knows whose the address is.
    assert!(complains(one, &format!("trace --from lab/near --to {at_far}")).contains("--node"));
    assert!(
        complains(one, "trace --from lab/near --to lab/far --node node-2=/nowhere").contains("node node-2")
    );
    assert!(
        complains(one, "trace --from lab/near --to lab/far --node node-2").contains("name and the directory")
    );
}
