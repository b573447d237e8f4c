//! Do pods of different networks reach each other through the switch, and are they told when they cannot? A real kernel on
//! both ends.

mod node;

use std::process::Command;
use std::time::Duration;

use node::{Node, PATIENCE, Pod, possible, wait_for_ping};

const NETWORKS: &str = "
networks:
  - name: pods
    router: shop
    subnets: [{subnet: 10.21.0.0/24, gateway: 10.21.0.1}, {subnet: 'fd00:21::/64', gateway: 'fd00:21::1'}]
    routes: [{dst: 0.0.0.0/0}, {dst: '::/0'}]
  - name: db
    router: shop
    mtu: 1300
    subnets: [{subnet: 10.22.0.0/24, gateway: 10.22.0.1}, {subnet: 'fd00:22::/64', gateway: 'fd00:22::1'}]
    routes: [{dst: 10.21.0.0/24}, {dst: 'fd00:21::/64'}]
  - name: elsewhere
    router: garden
    subnets: [{subnet: 10.23.0.0/24, gateway: 10.23.0.1}]
";

/// What one `ping` says, whether it is answered or not.
fn ping(pod: &Pod, words: &str) -> String {
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "5"]).args(words.split_whitespace());
    let output = pod.netns().run(move || command.output()).unwrap();
    let [said, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    said + &errors
}

#[test]
fn pods_of_two_networks_reach_each_other_through_their_router() {
    if !possible("pods_of_two_networks_reach_each_other_through_their_router") {
        return;
    }
    let mut node = Node::new();
    std::fs::write(node.path("networks.yaml"), NETWORKS).unwrap();
    node.start_switch();
    node.start_agent();
    let (web, db, other) = (Pod::new("web"), Pod::new("db"), Pod::new("other"));
    let at_db = {
        node.add(&web, "pods");
        node.add(&other, "elsewhere");
        node.add(&db, "db")
    };
    for own in ["10.21.0.1", "fd00:21::1"] {
        assert!(ping(&web, own).contains("1 received"), "the gateway {own}");
    }
    wait_for_ping(&web, at_db.ipv4());
    let report = lab::ping(web.netns(), at_db.ipv4(), 20, PATIENCE).unwrap();
    assert_eq!(report.lost(), 0);
    assert!(ping(&web, "fd00:22::2").contains("ttl=63"), "one hop less");
    let gbps =
        lab::iperf3(web.netns(), db.netns(), at_db.ipv4().into(), 65_536, Duration::from_secs(1)).unwrap();
    assert!(gbps > 0.0);
    // Nobody is there, nothing is there, no hop is left: all told by the gateway.
    for (words, told) in [
        ("10.22.0.99", "From 10.21.0.1 icmp_seq=1 Destination Host Unreachable"),
        ("10.99.0.1", "From 10.21.0.1 icmp_seq=1 Destination Net Unreachable"),
        ("10.23.0.2", "From 10.21.0.1 icmp_seq=1 Destination Net Unreachable"),
        ("-t 1 10.22.0.2", "From 10.21.0.1 icmp_seq=1 Time to live exceeded"),
        ("-M do -s 1400 10.22.0.2", "Frag needed and DF set (mtu = 1300)"),
        ("fd00:22::99", "From fd00:21::1 icmp_seq=1 Destination unreachable: Address unreachable"),
        ("-s 1400 fd00:22::2", "Packet too big: mtu=1300"),
    ] {
        let said = ping(&web, words);
        assert!(said.contains(told), "ping {words}: {said}");
    }
    // Each kernel has learned of its gateway, and of nobody's station else.
    let neighbors = web.netns().ip("neigh show dev eth0").unwrap();
    assert!(neighbors.contains("10.21.0.1 ") && !neighbors.contains("10.22."), "{neighbors}");
    node.assert_ledger_balances();
}
