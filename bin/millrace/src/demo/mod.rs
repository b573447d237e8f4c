//! What does Millrace do? Nodes, pods and real packets on this machine, in under a minute, without a cluster.
//!
//! The demo starts a switch and an agent, attaches pods through CNI calls as a container runtime would, and measures them
//! beside a veth + Linux bridge pair in the same run. Then it starts two nodes and shows a service and a policy over both. Pods are network namespaces that this process holds open by
//! descriptors alone, and the processes it starts end with it: whatever happens, nothing stays behind but the charts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo speaks to a person")]

mod baseline;
mod cluster;
mod node;
mod pods;
mod privilege;
mod report;
mod screen;
mod shop;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lab::Netns;

use baseline::Baseline;
use node::{Node, Setup};
use pods::{Green, KernelPod};
use report::{Report, TcpRow};
use screen::{Steps, detail, outcome, size, thousands, wait_for};
use shop::Shop;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// The networks file of the first node.
const NETWORKS: &str = "\
networks:
  - name: demo
    subnets:
      - subnet: 10.77.0.0/24
    mtu: 1500
";
/// Message sizes of the TCP runs, in bytes.
const MESSAGE_BYTES: [usize; 6] = [64, 512, 1500, 16 * 1024, 64 * 1024, 128 * 1024];
/// Echo requests between the kernel pods.
const PINGS: u32 = 100;
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// See it work, without a cluster: pods on one node beside the kernel, then two nodes with a service and a policy
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the charts go
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// How long each measurement runs, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// Runs the whole demo.
///
/// # Errors
/// The first step that failed; everything is cleaned up then too.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let manner = privilege::gain()?;
    println!(
        "Millrace demo: pods on user-space switches, on one node and on two, no cluster. It runs {manner}."
    );
    let duration = Duration::from_secs_f64(args.seconds.clamp(0.1, 60.0));
    let scratch = TempDir::with_prefix("millrace-demo-").context("a scratch folder")?;
    leave_on_interrupt(scratch.path().to_path_buf())?;
    let mut steps = Steps::default();
    let report = one_node(scratch.path(), duration, &mut steps)?;
    let shop = Shop::open(scratch.path(), worker_cpu(), &mut steps)?;
    shop.show(duration, &mut steps)?;
    shop.close(&mut steps)?;
    report.write(&args.out, &mut steps)
}

/// How fast one node is, beside the kernel.
fn one_node(folder: &Path, duration: Duration, steps: &mut Steps) -> Result<Report> {
    steps.begin("a switch and an agent start");
    let setup = Setup { network: "demo", file: NETWORKS, cpu: worker_cpu(), host: None };
    let node = Node::start(folder.join("one"), &setup)?;
    outcome("ready");

    steps.begin("three pods are attached, by CNI calls as a container runtime makes them");
    outcome("");
    let red = KernelPod::attach(&node, "red")?;
    let blue = KernelPod::attach(&node, "blue")?;
    let green = Green::attach(&node)?;

    let kernel = Baseline::new().context("a veth + Linux bridge pair to compare with")?;
    let mut report = Report::default();
    pings((&red, &blue), &kernel, steps)?;
    tcp((&red, &blue), &kernel, (duration, steps), &mut report)?;
    small_packets(&node, &green, (duration, steps), &mut report)?;
    println!();
    ledger(&node)?;
    red.detach(&node)?;
    blue.detach(&node)?;
    green.detach(&node)?;
    Ok(report)
}

/// The worker runs beside the load, where there is more than one CPU.
fn worker_cpu() -> usize {
    let cpus = worker::allowed_cpus();
    cpus.first().copied().unwrap_or(0)
}

/// SIGINT and SIGTERM remove the scratch folder and end the process; all else ends with it.
fn leave_on_interrupt(folder: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("signals")?;
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            if runtime.block_on(interrupted()).is_ok() {
                let _ = std::fs::remove_dir_all(&folder);
                eprintln!("\ninterrupted: switches, agents and pods are gone");
                std::process::exit(130);
            }
        })
        .context("signals")?;
    Ok(())
}

async fn interrupted() -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

fn pings((red, blue): (&KernelPod, &KernelPod), kernel: &Baseline, steps: &mut Steps) -> Result<()> {
    steps.begin(&format!("ping red -> blue, {PINGS} times"));
    let ours = lab::ping(&red.netns, blue.address, PINGS, PING_PATIENCE).context("ping")?;
    let theirs = lab::ping(&kernel.left, baseline::RIGHT, PINGS, PING_PATIENCE).context("ping")?;
    let (lost, us, kernel_us) = (ours.lost(), median_us(&ours), median_us(&theirs));
    outcome(&format!("{lost} lost, median {us} us (veth + bridge: {kernel_us} us)"));
    Ok(())
}

fn median_us(report: &lab::PingReport) -> u128 {
    report.median().map_or(0, |time| time.as_micros())
}

fn tcp(
    (red, blue): (&KernelPod, &KernelPod),
    kernel: &Baseline,
    (duration, steps): (Duration, &mut Steps),
    report: &mut Report,
) -> Result<()> {
    let instrument = if lab::program("iperf3").is_ok() { "iperf3" } else { "built-in sender" };
    steps.begin(&format!("TCP red -> blue by message size ({instrument}), beside veth + Linux bridge"));
    outcome("");
    for bytes in MESSAGE_BYTES {
        let millrace = gbps(&red.netns, &blue.netns, blue.address.into(), (bytes, duration))?;
        let veth = gbps(&kernel.left, &kernel.right, baseline::RIGHT.into(), (bytes, duration))?;
        report.tcp.push(TcpRow { message_bytes: bytes, millrace, veth });
    }
    let rows: Vec<Vec<String>> = report.tcp.iter().map(TcpRow::cells).collect();
    screen::table(&["message", "Millrace Gbit/s", "veth Gbit/s", "ratio"], &rows);
    Ok(())
}

fn gbps(
    client: &Netns,
    server: &Netns,
    to: std::net::IpAddr,
    (bytes, duration): (usize, Duration),
) -> Result<f64> {
    if lab::program("iperf3").is_ok() {
        return lab::iperf3(client, server, to, bytes, duration)
            .with_context(|| format!("iperf3, {}", size(bytes)));
    }
    let report =
        lab::stream(client, server, to, bytes, duration).with_context(|| format!("TCP, {}", size(bytes)))?;
    Ok(report.gbps())
}

fn small_packets(
    node: &Node,
    green: &Green,
    (duration, steps): (Duration, &mut Steps),
    report: &mut Report,
) -> Result<()> {
    steps.begin("64-byte packets through green, from its eth0 to its net1, by a virtio driver without a VM");
    let result = green.run(node, duration)?;
    outcome("");
    detail(&format!(
        "{:.2} million packets/s, {:.0} CPU cycles of the switch for each",
        result.mpps, result.busy_cycles_per_packet
    ));
    report.packets = Some(result);
    Ok(())
}

/// Every frame that came in must have gone out or have been dropped for a named reason, once nothing moves.
fn ledger(node: &Node) -> Result<()> {
    let mut totals = node.ledger()?;
    wait_for("the counters to add up", || {
        totals = node.ledger()?;
        Ok(totals.rx + totals.copies == totals.tx + totals.drops)
    })?;
    detail(&format!(
        "every frame of {} is accounted for: {} received + {} copies = {} sent + {} dropped{}",
        node.name(),
        thousands(totals.rx),
        thousands(totals.copies),
        thousands(totals.tx),
        thousands(totals.drops),
        totals.reasons(),
    ));
    Ok(())
}
