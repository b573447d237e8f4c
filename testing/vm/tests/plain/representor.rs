//! Is a representor a port of a running switch? netdevsim's has no function behind it. What one would send is
//! made to come out of it; of what the switch sends, the representor counts that it had nobody to give it to.

use std::path::Path;
use std::time::Duration;

use lab::{Netns, Process, ping};
use linux::sriov::{Representor, representor, set_representor};
use local_api::switch_v1::switch_client::SwitchClient;
use local_api::switch_v1::{
    ApplyRequest, Counters, ListPortsRequest, NetdevDevice, NetdevMode, Network, Port, PortState, TapDevice,
    port,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use vm::{modprobe, program, read, run, wait_for};

use crate::switchdev::Card;

const POD: &str = "192.0.2.1";
const FUNCTION: &str = "192.0.2.2";
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
const MTU_BYTES: u32 = 1400;
const AGAIN: &str = "egress redirect dev again";
/// How often somebody is pinged.
const PINGS: u64 = 5;
/// The port of the pod, and that of the function.
const TAP: u32 = 1;
const REPRESENTOR: u32 = 2;

/// A switch process, told what to be as the agent tells it.
struct Switch {
    runtime: Runtime,
    client: SwitchClient<Channel>,
    // Before its folder.
    _process: Process,
    _folder: TempDir,
}

impl Switch {
    fn start() -> Switch {
        let folder = tempfile::tempdir().unwrap();
        let args = ["switch", "--run-dir", folder.path().to_str().unwrap()];
        let process = Process::start(program("millrace"), args, &folder.path().join("log")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = {
            let _inside = runtime.enter();
            SwitchClient::new(local_api::uds::channel(&folder.path().join("switch.sock")))
        };
        let mut switch = Switch { runtime, client, _process: process, _folder: folder };
        wait_for("the switch to answer", || switch.list());
        switch
    }

    fn list(&mut self) -> Option<Vec<PortState>> {
        let answer = self.runtime.block_on(self.client.list_ports(ListPortsRequest {}));
        answer.ok().map(|answer| answer.into_inner().ports)
    }

    /// Makes it have exactly these ports. Answers with what is wrong with them.
    fn apply(&mut self, to_version: u64, ports: Vec<Port>) -> String {
        let network = Network {
            number: 1,
            name: "lab".into(),
            mac_age_ms: 300_000,
            mac_limit: 9,
            ..Default::default()
        };
        let request = ApplyRequest {
            to_version,
            put_networks: vec![network],
            put_ports: ports,
            ..ApplyRequest::default()
        };
        let answer = self.runtime.block_on(self.client.apply(request)).unwrap().into_inner();
        answer.ports.into_iter().map(|port| port.error).collect()
    }

    fn port(&mut self, number: u32) -> PortState {
        let is_it = |state: &PortState| state.port.as_ref().is_some_and(|port| port.number == number);
        self.list().unwrap().into_iter().find(is_it).unwrap()
    }

    fn counters(&mut self, number: u32) -> Counters {
        self.port(number).counters.unwrap_or_default()
    }
}

fn a_port(number: u32, mac: &str, ip: &str, device: port::Device) -> Port {
    Port {
        number,
        name: format!("port{number}"),
        network: 1,
        macs: vec![mac.into()],
        ips: vec![ip.into()],
        port_security: true,
        mac_limit: 1,
        mtu_bytes: MTU_BYTES,
        device: Some(device),
        ..Port::default()
    }
}

/// The ports of a pod and of what is behind `representor`, as the agent asks for them.
fn ports(pod: &Netns, representor: &str) -> Vec<Port> {
    let tap = TapDevice { netns: pod.path().display().to_string(), netdev: "eth0".into(), queues: 1 };
    let netdev = NetdevDevice {
        netdev: representor.into(),
        all: true,
        mode: NetdevMode::Xdp.into(),
        ..Default::default()
    };
    vec![
        a_port(TAP, MACS[0], POD, port::Device::Tap(tap)),
        a_port(REPRESENTOR, MACS[1], FUNCTION, port::Device::Netdev(netdev)),
    ]
}

/// A station whose frames come out of `representor`, as its function's do. XDP sees nothing of what is redirected to a netdev; but
/// what ifb hands back to the netdev that it came from is as new.
fn function(representor: &str) -> Netns {
    let function = Netns::new().unwrap();
    run("ip link add vf0 type veth peer name vf1");
    run(&format!("ip link set vf1 address {} netns {} name eth0", MACS[1], function.path().display()));
    run("ip link add again type ifb");
    for netdev in ["vf0", "again"] {
        run(&format!("ip link set {netdev} up"));
    }
    for (from, to) in
        [("vf0", format!("ingress redirect dev {representor}")), (representor, AGAIN.to_owned())]
    {
        run(&format!("tc qdisc add dev {from} clsact"));
        run(&format!("tc filter add dev {from} ingress matchall skip_hw action mirred {to}"));
    }
    come_up(&function, FUNCTION, (POD, MACS[0]));
    function
}

fn come_up(netns: &Netns, ip: &str, (to, mac): (&str, &str)) {
    // The kernel's own words to everybody are not counted.
    netns.command("sysctl", "-q -w net.ipv6.conf.all.disable_ipv6=1").unwrap();
    netns.ip(&format!("addr add {ip}/24 dev eth0")).unwrap();
    netns.ip("link set eth0 up").unwrap();
    know(netns, (to, mac));
}

fn know(netns: &Netns, (to, mac): (&str, &str)) {
    netns.ip(&format!("neigh replace {to} lladdr {mac} dev eth0 nud permanent")).unwrap();
}

/// How many frames that came in by the representor went nowhere.
fn dropped(switch: &mut Switch) -> u64 {
    switch.counters(REPRESENTOR).drops.values().sum()
}

/// How many frames the representor was given that it had nobody for.
fn lost(representor: &str) -> u64 {
    read(Path::new("/sys/class/net").join(representor).join("statistics/tx_dropped")).parse().unwrap()
}

/// Pings, and no answer comes: nobody is behind the representor to get or give one.
#[track_caller]
fn ping_in_vain(from: &Netns, to: &str) {
    let report = ping(from, to.parse().unwrap(), PINGS as u32, Duration::from_millis(500)).unwrap();
    assert_eq!(u64::from(report.lost()), PINGS, "{report:?}");
}

#[test]
fn a_representor_is_a_port_of_the_switch_and_then_as_it_was() {
    modprobe("netdevsim tun veth ifb sch_ingress cls_matchall act_mirred");
    let card = Card::new(3);
    let uplink = card.switch(1);
    let found = || representor(&uplink, 0).unwrap().unwrap();
    let before = found();
    let serving = Representor { mtu_bytes: MTU_BYTES, up: true, ..before.clone() };
    for _ in 0..2 {
        set_representor(&serving).unwrap();
        assert_eq!(found(), serving);
    }
    let pod = Netns::new().unwrap();
    let mut switch = Switch::start();
    assert_eq!(switch.apply(1, ports(&pod, &before.name)), "");
    let state = switch.port(REPRESENTOR);
    assert!(
        state.link_up && state.detail.contains("XDP") && state.detail.contains("all frames"),
        "{state:?}"
    );
    come_up(&pod, POD, (FUNCTION, MACS[1]));

    // From the pod to the function.
    let (sent, given) = (switch.counters(REPRESENTOR).tx_frames, lost(&before.name));
    ping_in_vain(&pod, FUNCTION);
    let sent = switch.counters(REPRESENTOR).tx_frames - sent;
    assert!(sent >= PINGS && lost(&before.name) - given >= sent, "{sent} of {} frames", lost(&before.name));

    // From the function to the pod, which answers; and nothing from another station.
    let function = function(&before.name);
    let (gets, answers) = (switch.counters(TAP).tx_frames, switch.counters(TAP).rx_frames);
    ping_in_vain(&function, POD);
    let counters = switch.counters(TAP);
    assert_eq!((counters.tx_frames - gets, counters.rx_frames - answers), (PINGS, PINGS), "{counters:?}");
    function.ip("link set eth0 address 02:00:00:00:00:66").unwrap();
    know(&function, (POD, MACS[0]));
    let drops = dropped(&mut switch);
    ping_in_vain(&function, POD);
    assert_eq!(dropped(&mut switch) - drops, PINGS);
    assert_eq!(switch.counters(TAP).tx_frames, counters.tx_frames);
    run("ip link del vf0");
    run("ip link del again");

    assert_eq!(switch.apply(2, Vec::new()), "");
    set_representor(&before).unwrap();
    assert_eq!(found(), before);
    // Gone, it says so, and is no port.
    drop(card);
    let error = set_representor(&before).unwrap_err().to_string();
    assert!(error.contains(&before.name) && error.contains("it is gone"), "{error}");
    let error = switch.apply(3, ports(&pod, &before.name));
    assert!(error.contains(&format!("there is no interface {:?}", before.name)), "{error}");
}
