//! The peer Open vSwitch between two pods: its userspace datapath, on the ports that suit it best.
//!
//! Measured on a test machine, Gbit/s at messages of 64 B, 1500 B, 16 KB and 128 KB: `type=tap` netdevs moved into the
//! pods, with userspace-tso, 0.33, 3.4, 10.7, 15.0; veth ends as system ports with userspace-tso 0.31, 3.8, 10.6, 10.8
//! with a hundred thousand retransmissions; veth ends polled by DPDK's af_packet driver, which has no TSO, 0.21, 2.2, 2.9,
//! 2.7. But a PMD polls the af_packet ports, and the main thread the others, so that a ping takes half the time there.
//! Hence TAP for throughput, af_packet for latency.

use anyhow::Context;
use lab::Netns;

use super::contender::{Contender, Link, Parts};
use crate::netns::{self, NETDEV};
use crate::ovs_daemon::{Daemon, DaemonSpec};
use crate::process::output;

/// Huge pages (2 MiB) for packet buffers: memory for them, and some to spare.
pub(crate) const HUGE_PAGES: u64 = 300;
const MEMORY_MIB: u32 = 512;
/// The af_packet driver's rings: frames of an ordinary MTU, thousands of them.
const AF_PACKET: &str = "blocksz=65536,framesz=2048,framecnt=4096,qpairs=1";

/// How OVS reaches the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OvsPorts {
    /// TAP netdevs, polled by the main thread, with userspace-tso.
    Tap,
    /// Veth ends, polled by a PMD through AF_PACKET.
    AfPacket,
}

/// Starts OVS, forwarding on `worker_cpu`, and connects two new pods by it.
pub(crate) fn start(ports: OvsPorts, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Link> {
    let pods = [netns::pod()?, netns::pod()?];
    let daemon = Daemon::start(DaemonSpec {
        pmd_cpu: worker_cpu,
        // A PMD moves itself to its CPU; what forwards for TAP ports is the main thread.
        main_cpu: if ports == OvsPorts::Tap { worker_cpu } else { other_cpu },
        other_cpu,
        memory_mib: MEMORY_MIB,
        segmentation_offload: ports == OvsPorts::Tap,
    })?;
    for (index, pod) in pods.iter().enumerate() {
        match ports {
            OvsPorts::Tap => add_tap(&daemon, pod, index)?,
            OvsPorts::AfPacket => add_af_packet(&daemon, pod, index)?,
        }
    }
    netns::configure(&pods)?;
    Ok(Link::new(contender(ports), daemon.version(), Parts::Ovs(daemon), pods))
}

fn contender(ports: OvsPorts) -> Contender {
    match ports {
        OvsPorts::Tap => Contender::OvsTap,
        OvsPorts::AfPacket => Contender::OvsAfPacket,
    }
}

/// A TAP netdev that OVS makes in its own namespace, and keeps by its descriptor when it is moved into the pod.
fn add_tap(daemon: &Daemon, pod: &Netns, index: usize) -> anyhow::Result<()> {
    let port = format!("pod{index}");
    output(daemon.vsctl().args(["add-port", "br0", &port, "--", "set", "Interface", &port, "type=tap"]))?;
    daemon.netns().ip(&format!("link set {port} netns {} name {NETDEV}", pod.path().display()))?;
    Ok(())
}

/// A veth pair whose near end a PMD polls. The driver takes only finished checksums and no large segments.
fn add_af_packet(daemon: &Daemon, pod: &Netns, index: usize) -> anyhow::Result<()> {
    let (veth, port) = (format!("pod{index}"), format!("port{index}"));
    daemon
        .netns()
        .ip(&format!("link add {veth} type veth peer name {NETDEV} netns {}", pod.path().display()))?;
    daemon.netns().ip(&format!("link set {veth} up"))?;
    pod.command("ethtool", &format!("-K {NETDEV} tx off tso off gso off"))
        .context("offloads of a veth cannot be turned off (Debian package ethtool)")?;
    let mut command = daemon.vsctl();
    command.args(["add-port", "br0", &port, "--", "set", "Interface", &port, "type=dpdk"]);
    command.arg(format!("options:dpdk-devargs=net_af_packet{index},iface={veth},{AF_PACKET}"));
    output(&mut command).map(drop)
}
