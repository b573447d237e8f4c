//! Two pods on two nodes: network namespaces of this machine, joined by a bridge. Millrace carries a layer-2 network between them
//! in Geneve tunnels; the kernel by VXLAN, a bridge and a veth on each node. (This kernel's own Geneve is a module that few test
//! machines have; the headers of both are as long.)

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use lab::Netns;
use local_api::switch_v1 as api;

use super::contender::{Contender, Link, Parts};
use super::millrace::{port, tap};
use crate::millrace_switch::{SwitchProcess, network};
use crate::netns::{self, NETDEV};

/// The nodes' interface towards each other, and its packets' length.
const UPLINK: &str = "eth0";
const UNDERLAY_MTU: u32 = 1500;
/// Of pods: what a tunnel over IPv4 leaves, with the room that others in this field leave, too.
const POD_MTU: u32 = 1400;
const VNI: u32 = 100;
const UPLINK_PORT: u32 = 50;
const REMOTE_PORT: u32 = 51;
const GENEVE_PORT: u32 = 6081;

/// Both nodes' namespaces, and what joins them.
#[derive(Debug)]
pub(crate) struct Underlay {
    hosts: [Netns; 2],
    _bridge: Netns,
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, node as u8 + 1)
}

fn mac(node: usize) -> String {
    format!("02:00:00:00:55:0{}", node + 1)
}

impl Underlay {
    fn new() -> anyhow::Result<Self> {
        let bridge = netns::pod()?;
        bridge.ip("link add br0 type bridge")?;
        bridge.ip("link set br0 up")?;
        let hosts = [netns::pod()?, netns::pod()?];
        for (node, host) in hosts.iter().enumerate() {
            let there = host.path();
            bridge
                .ip(&format!("link add node{node} type veth peer name {UPLINK} netns {}", there.display()))?;
            bridge.ip(&format!("link set node{node} master br0 up"))?;
            host.ip(&format!("link set {UPLINK} address {} up", mac(node)))?;
            host.ip(&format!("addr add {}/24 dev {UPLINK}", address(node)))?;
        }
        Ok(Self { hosts, _bridge: bridge })
    }
}

/// Millrace on both nodes, each with a CPU of its own.
pub(super) fn start_millrace(program: &Path, cpus: [usize; 2]) -> anyhow::Result<Link> {
    let underlay = Underlay::new()?;
    let pods = [netns::pod()?, netns::pod()?];
    let node = |node| start_node(program, &underlay, (node, &pods[node]), cpus);
    let switches = vec![node(0)?, node(1)?];
    netns::configure(&pods)?;
    let version = switches[0].version();
    Ok(Link::new(Contender::MillraceGeneve, version, Parts::Nodes { switches, _underlay: underlay }, pods))
}

fn start_node(
    program: &Path,
    underlay: &Underlay,
    (node, pod): (usize, &Netns),
    cpus: [usize; 2],
) -> anyhow::Result<SwitchProcess> {
    let (own, other) = (cpus[node], cpus[1 - node]);
    let mut switch = SwitchProcess::start_in(Some(&underlay.hosts[node]), program, own, other)?;
    switch.apply(request(node, pod))?;
    Ok(switch)
}

/// All that a node's switch is told.
fn request(node: usize, pod: &Netns) -> api::ApplyRequest {
    let other = 1 - node;
    let there = api::Node {
        number: other as u32 + 1,
        name: format!("node-{}", other + 1),
        address: address(other).to_string(),
        source: address(node).to_string(),
        source_mac: mac(node),
        next_hop: mac(other),
        mtu_bytes: UNDERLAY_MTU,
    };
    let overlay = api::Overlay { vni: VNI, port: REMOTE_PORT, floods: true, isolated: false };
    let uplink = api::Port {
        number: UPLINK_PORT,
        name: "uplink".into(),
        mtu_bytes: UNDERLAY_MTU,
        device: Some(api::port::Device::Netdev(api::NetdevDevice {
            netdev: UPLINK.into(),
            udp_ports: vec![GENEVE_PORT],
            ..Default::default()
        })),
        ..Default::default()
    };
    api::ApplyRequest {
        to_version: 1,
        underlay: Some(api::Underlay { port: UPLINK_PORT, nodes: vec![there] }),
        put_networks: vec![
            api::Network { name: "underlay".into(), mac_age_ms: 1000, ..Default::default() },
            api::Network { overlay: Some(overlay), ..network() },
        ],
        put_ports: vec![api::Port { mtu_bytes: POD_MTU, ..port(node, tap(pod)) }, uplink],
        ..Default::default()
    }
}

/// The kernel on both nodes.
pub(super) fn start_vxlan() -> anyhow::Result<Link> {
    let underlay = Underlay::new()?;
    let pods = [netns::pod()?, netns::pod()?];
    for (node, (host, pod)) in underlay.hosts.iter().zip(&pods).enumerate() {
        let (local, remote) = (address(node), address(1 - node));
        host.ip("link add br0 type bridge")?;
        host.ip(&format!(
            "link add vx0 type vxlan id {VNI} local {local} remote {remote} dstport 4789 dev {UPLINK}"
        ))?;
        host.ip(&format!("link add pod type veth peer name {NETDEV} netns {}", pod.path().display()))?;
        for netdev in ["vx0", "pod"] {
            host.ip(&format!("link set {netdev} master br0 up"))?;
        }
        host.ip("link set br0 up")?;
        pod.ip(&format!("link set {NETDEV} mtu {POD_MTU}"))?;
    }
    netns::configure(&pods)?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = format!("Linux {}", release.trim());
    Ok(Link::new(Contender::Vxlan, version, Parts::Vxlan { _underlay: underlay }, pods))
}
