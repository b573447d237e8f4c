//! The peer Open vSwitch between two pods: its userspace datapath, on the ports that suit it best.
//!
//! Measured on a test machine, Gbit/s at messages of 64 B, 1500 B, 16 KB and 128 KB: `type=tap` netdevs moved into the
//! pods, with userspace-tso, 0.33, 3.4, 10.7, 15.0; veth ends as system ports with userspace-tso 0.31, 3.8, 10.6, 10.8
//! with a hundred thousand retransmissions; veth ends polled by DPDK's af_packet driver, which has no TSO, 0.21, 2.2, 2.9,
//! 2.7. But a PMD polls the af_packet ports, and the main thread the others, so that a ping takes half the time there.
//! Hence TAP for throughput, af_packet for latency.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::Netns;

use super::contender::{Contender, Link, Parts};
use crate::netns::{self, NETDEV};
use crate::process::{Process, output};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Time for the database to answer, and for DPDK to start.
const PATIENCE: Duration = Duration::from_secs(60);
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

/// Starts OVS in a namespace of its own, forwarding on `worker_cpu`, and connects two new pods by it.
pub(crate) fn start(ports: OvsPorts, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Link> {
    for file in [SCHEMA, SWITCH] {
        let installed = Path::new(file).exists();
        ensure!(
            installed,
            "OVS-DPDK is not installed ({file} is missing): apt-get install openvswitch-switch-dpdk"
        );
    }
    let folder = tempfile::Builder::new().prefix("millrace-bench-ovs").tempdir()?;
    let run = folder.path();
    let netns = netns::pod()?;
    let pods = [netns::pod()?, netns::pod()?];
    let database = start_database(run, other_cpu)?;
    set_up(run, ports, worker_cpu, other_cpu)?;
    // A PMD moves itself to its CPU; what forwards for TAP ports is the main thread.
    let cpu = if ports == OvsPorts::Tap { worker_cpu } else { other_cpu };
    let mut switch = Process::start(Path::new("nsenter"), cpu, run, |command| {
        command.arg(format!("--net={}", netns.path().display())).arg(SWITCH);
        command.arg(format!("unix:{}", run.join("db.sock").display()));
        command.arg(format!("--unixctl={}", run.join("ctl").display()));
        environment(command, run);
    })?;
    await_dpdk(run, &mut switch)?;
    add_bridge(run)?;
    for (index, pod) in pods.iter().enumerate() {
        match ports {
            OvsPorts::Tap => add_tap(run, &netns, pod, index)?,
            OvsPorts::AfPacket => add_af_packet(run, &netns, pod, index)?,
        }
    }
    netns::configure(&pods)?;
    let parts = Parts::Ovs { switch, _database: database, _netns: netns, _folder: folder };
    Ok(Link::new(contender(ports), version()?, parts, pods))
}

fn contender(ports: OvsPorts) -> Contender {
    match ports {
        OvsPorts::Tap => Contender::OvsTap,
        OvsPorts::AfPacket => Contender::OvsAfPacket,
    }
}

fn environment(command: &mut Command, run: &Path) {
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(name, run);
    }
}

fn vsctl(run: &Path) -> Command {
    let mut command = Command::new("ovs-vsctl");
    command.arg("--timeout=30").arg(format!("--db=unix:{}", run.join("db.sock").display()));
    environment(&mut command, run);
    command
}

fn version() -> anyhow::Result<String> {
    let text = output(Command::new(SWITCH).arg("--version"))?;
    Ok(text.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("unknown").to_owned())
}

fn start_database(run: &Path, cpu: usize) -> anyhow::Result<Process> {
    let file = run.join("conf.db");
    output(Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA))?;
    let mut database = Process::start(Path::new("/usr/sbin/ovsdb-server"), cpu, run, |command| {
        command.arg(&file);
        command.arg(format!("--remote=punix:{}", run.join("db.sock").display()));
        command.arg(format!("--unixctl={}", run.join("db.ctl").display()));
        environment(command, run);
    })?;
    let deadline = Instant::now() + PATIENCE;
    while !run.join("db.sock").exists() {
        database.check()?;
        ensure!(Instant::now() < deadline, "ovsdb-server makes no socket");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(database)
}

fn set_up(run: &Path, ports: OvsPorts, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<()> {
    let mut command = vsctl(run);
    command.args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."]);
    command.args(["other_config:dpdk-init=true", "other_config:dpdk-extra=--no-pci --in-memory"]);
    command.arg(format!("other_config:dpdk-socket-mem={MEMORY_MIB}"));
    command.arg(format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << worker_cpu));
    command.arg(format!("other_config:dpdk-lcore-mask={:#x}", 1_u64 << other_cpu));
    command.arg(format!("other_config:userspace-tso-enable={}", ports == OvsPorts::Tap));
    output(&mut command).map(drop)
}

fn await_dpdk(run: &Path, switch: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        switch.check()?;
        let mut command = vsctl(run);
        command.args(["--no-wait", "get", "Open_vSwitch", ".", "dpdk_initialized"]);
        if output(&mut command)?.trim() == "true" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "OVS did not start DPDK in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn add_bridge(run: &Path) -> anyhow::Result<()> {
    output(vsctl(run).args(["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])).map(drop)
}

/// A TAP netdev that OVS makes in its own namespace, and keeps by its descriptor when it is moved into the pod.
fn add_tap(run: &Path, netns: &Netns, pod: &Netns, index: usize) -> anyhow::Result<()> {
    let port = format!("pod{index}");
    output(vsctl(run).args(["add-port", "br0", &port, "--", "set", "Interface", &port, "type=tap"]))?;
    netns.ip(&format!("link set {port} netns {} name {NETDEV}", pod.path().display()))?;
    Ok(())
}

/// A veth pair whose near end a PMD polls. The driver takes only finished checksums and no large segments.
fn add_af_packet(run: &Path, netns: &Netns, pod: &Netns, index: usize) -> anyhow::Result<()> {
    let (veth, port) = (format!("pod{index}"), format!("port{index}"));
    netns.ip(&format!("link add {veth} type veth peer name {NETDEV} netns {}", pod.path().display()))?;
    netns.ip(&format!("link set {veth} up"))?;
    pod.command("ethtool", &format!("-K {NETDEV} tx off tso off gso off"))
        .context("offloads of a veth cannot be turned off (Debian package ethtool)")?;
    let mut command = vsctl(run);
    command.args(["add-port", "br0", &port, "--", "set", "Interface", &port, "type=dpdk"]);
    command.arg(format!("options:dpdk-devargs=net_af_packet{index},iface={veth},{AF_PACKET}"));
    output(&mut command).map(drop)
}
