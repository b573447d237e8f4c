//! Open vSwitch as another node of a layer-2 network: do its pod and ours reach each other by Geneve, does each take the
//! other's outer checksums, and is what it sends into a network of nobody dropped by name?

use std::time::Duration;

use lab::{Netns, Process, program, require};

use crate::node::cluster::{Cluster, Family};
use crate::node::{PATIENCE, Pod, possible, wait_for, wait_for_ping};
use crate::ovs::{self, Geneve, Ovs};
use crate::switch::alone;

const VNI: u32 = 200;
const OVS_POD: [u8; 4] = [10, 50, 2, 2];
const OVS_ADDRESSES: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
/// The underlay's MTU.
const UNDERLAY_BYTES: u32 = 1500;
/// Of an echo request: the IPv4 header and its own.
const ECHO_BYTES: u32 = 28;

/// The largest packet that a tunnel takes whole: less the outer IP header, 16 bytes of UDP and Geneve, 14 of Ethernet.
fn mtu(family: Family) -> u32 {
    let ip = if family == Family::V4 { 20 } else { 40 };
    UNDERLAY_BYTES - ip - 16 - 14
}

fn networks(family: Family) -> String {
    format!(
        "
networks:
  - name: pods
    topology: layer2
    vni: {VNI}
    mtu: {}
    subnets: [{{subnet: 10.50.0.0/16, nodePrefix: 24}}]
",
        mtu(family)
    )
}

/// Where our tunnels end, and where OVS's do.
fn ends(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 | Family::Dual => ("192.0.2.1", "192.0.2.2"),
        Family::V6 => ("2001:db8::1", "2001:db8::2"),
    }
}

fn is_possible(test: &str) -> bool {
    possible(test)
        && require(
            test,
            ovs::ready().and_then(|()| ["tcpdump", "ethtool", "iperf3"].into_iter().try_for_each(program)),
        )
}

/// One node of ours, and the host that OVS takes.
///
/// A veth carries checksums that a card would finish, and says so to those who ask. OVS does not ask: so they are finished in
/// front of it, as on a wire.
fn cluster(family: Family) -> Cluster {
    let cluster = Cluster::start_with_strangers(1, 1, family, &networks(family));
    cluster.underlay.command("ethtool", "-K port2 tx off").unwrap();
    cluster
}

/// A pod of OVS, with its addresses and the network's MTU.
fn ovs_pod(ovs: &Ovs<'_>, family: Family) -> Netns {
    let pod = Netns::new().unwrap();
    ovs.add_pod(&pod);
    pod.ip(&format!("link set eth0 mtu {} up", mtu(family))).unwrap();
    let [a, b, c, d] = OVS_POD;
    pod.ip(&format!("address add {a}.{b}.{c}.{d}/16 dev eth0")).unwrap();
    pod
}

/// What crosses the wire between the hosts, in tcpdump's words.
struct Wire(Process);

impl Wire {
    /// Of the next tunnelled packets, what tcpdump says of their headers and checksums.
    fn watch(cluster: &Cluster, log: &std::path::Path) -> Wire {
        let inside = format!("--net={}", cluster.underlay.path().display());
        let words = "tcpdump -i port2 -n -l -vv udp dst port 6081";
        let args = [inside].into_iter().chain(words.split_whitespace().map(str::to_owned));
        let mut tcpdump = Process::start("nsenter", args, log).unwrap();
        let listens = || std::fs::read_to_string(log).unwrap_or_default().contains("listening on");
        tcpdump.wait_until("it listens", PATIENCE, listens).unwrap();
        Wire(tcpdump)
    }

    /// Waits until a packet from `source` had `remark` behind its addresses.
    fn wait_for(&mut self, source: &str, remark: &str) {
        let Wire(tcpdump) = self;
        wait_for(&format!("a packet from {source} with {remark}"), || {
            let said = tcpdump.said();
            let is_its = |line: &&str| line.contains(&format!("{source}.")) && line.contains(".6081: ");
            said.lines().filter(is_its).any(|line| line.contains(remark))
        });
    }

    fn assert_sound(&self) {
        let said = self.0.said();
        let bad = said.lines().find(|line| line.contains("bad udp cksum") || line.contains("incorrect"));
        assert!(bad.is_none(), "a wrong checksum on the wire: {bad:?}");
    }
}

fn assert_they_talk(ours: &Pod, our_address: std::net::Ipv4Addr, theirs: &Netns, family: Family) {
    wait_for_ping(ours, OVS_POD.into());
    assert_eq!(lab::ping(ours.netns(), OVS_POD.into(), 20, PATIENCE).unwrap().lost(), 0, "{family:?}");
    assert_eq!(lab::ping(theirs, our_address, 20, PATIENCE).unwrap().lost(), 0, "{family:?}");
    let largest = mtu(family) - ECHO_BYTES;
    for (from, to) in [(ours.netns(), OVS_POD.into()), (theirs, our_address)] {
        let said = from.command("ping", &format!("-c 1 -W 30 -M do -s {largest} {to}")).unwrap();
        assert!(said.contains("1 received"), "{said}");
    }
    let second = Duration::from_secs(1);
    for (from, to, address) in [(ours.netns(), theirs, OVS_POD.into()), (theirs, ours.netns(), our_address)] {
        let gbps = lab::iperf3(from, to, address.into(), 65_536, second).unwrap();
        assert!(gbps > 0.0, "{family:?}");
    }
}

fn talk_over(family: Family) {
    let cluster = cluster(family);
    let ovs = Ovs::start(&cluster.strangers[0], &OVS_ADDRESSES);
    let theirs = ovs_pod(&ovs, family);
    let (ours, at) = cluster.pod(0, "ours", "pods");
    let (our_end, their_end) = ends(family);
    let folder = tempfile::TempDir::with_prefix("wire-").unwrap();
    // Over IPv6 OVS always sums.
    let unasked = if family == Family::V4 { "[no cksum]" } else { "[udp sum ok]" };
    for (checksum, remark) in [(false, unasked), (true, "[udp sum ok]")] {
        ovs.set_tunnel(Geneve { remote: our_end, vni: VNI, checksum });
        let mut wire = Wire::watch(&cluster, &folder.path().join(format!("{checksum}.log")));
        assert_they_talk(&ours, at.ipv4(), &theirs, family);
        wire.wait_for(their_end, remark);
        // OVS drops a packet whose checksum is there and wrong; ours is there at least where TCP's is not yet computed.
        wire.wait_for(our_end, "[udp sum ok]");
        wire.assert_sound();
    }
    cluster.nodes[0].assert_ledger_balances();
}

#[test]
fn ovs_and_we_reach_each_others_pods_over_ipv4() {
    if !is_possible("ovs_and_we_reach_each_others_pods_over_ipv4") {
        return;
    }
    let _alone = alone();
    talk_over(Family::V4);
}

#[test]
fn ovs_and_we_reach_each_others_pods_over_ipv6() {
    if !is_possible("ovs_and_we_reach_each_others_pods_over_ipv6") {
        return;
    }
    let _alone = alone();
    talk_over(Family::V6);
}

#[test]
fn what_ovs_sends_into_a_network_of_nobody_is_dropped_by_name() {
    if !is_possible("what_ovs_sends_into_a_network_of_nobody_is_dropped_by_name") {
        return;
    }
    let _alone = alone();
    let cluster = cluster(Family::V4);
    let ovs = Ovs::start(&cluster.strangers[0], &OVS_ADDRESSES);
    let theirs = ovs_pod(&ovs, Family::V4);
    let (ours, at) = cluster.pod(0, "ours", "pods");
    let drops = || cluster.nodes[0].get("drops").to_string();
    ovs.set_tunnel(Geneve { remote: "192.0.2.1", vni: VNI + 1, checksum: true });
    let lost = || lab::ping(&theirs, at.ipv4(), 1, Duration::from_millis(500)).unwrap().lost();
    wait_for("a packet into that network", || {
        assert_eq!(lost(), 1, "nobody of that network is here");
        drops().contains("unknown_vni")
    });
    // The same end with the right network.
    ovs.set_tunnel(Geneve { remote: "192.0.2.1", vni: VNI, checksum: true });
    wait_for_ping(&ours, OVS_POD.into());
    cluster.nodes[0].assert_ledger_balances();
}
