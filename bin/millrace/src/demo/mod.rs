//! What does Millrace do? A node, three pods and real packets on this machine, in under a minute, without a cluster.
//!
//! The demo starts a switch and an agent, attaches pods through CNI calls as a container runtime would, and measures them
//! beside a veth + Linux bridge pair in the same run. Pods are network namespaces that this process holds open by
//! descriptors alone, and the processes it starts end with it: whatever happens, nothing stays behind but the charts.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the demo speaks to a person")]

mod baseline;
mod node;
mod pods;
mod privilege;
mod report;
mod screen;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lab::Netns;

use baseline::Baseline;
use node::Node;
use pods::{Green, KernelPod};
use report::{Report, TcpRow};
use screen::{detail, outcome, size, step, thousands};

/// Message sizes of the TCP runs, in bytes.
const MESSAGE_BYTES: [usize; 6] = [64, 512, 1500, 16 * 1024, 64 * 1024, 128 * 1024];
/// Echo requests between the kernel pods.
const PINGS: u32 = 100;
const PING_PATIENCE: Duration = Duration::from_secs(1);

/// See a node work: three pods, pings, TCP, 64-byte packets and one explained packet
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
    println!("Millrace demo: three pods on one user-space switch, no cluster. It runs {manner}.");
    let duration = Duration::from_secs_f64(args.seconds.clamp(0.1, 60.0));

    step(1, "a switch and an agent start");
    let node = Node::start(worker_cpu())?;
    leave_on_interrupt(node.folder().to_path_buf())?;
    outcome("ready");

    step(2, "three pods are attached, by CNI calls as a container runtime makes them");
    outcome("");
    let red = KernelPod::attach(&node, "red")?;
    let blue = KernelPod::attach(&node, "blue")?;
    let green = Green::attach(&node)?;

    let kernel = Baseline::new().context("a veth + Linux bridge pair to compare with")?;
    let mut report = Report::default();
    pings(&red, &blue, &kernel)?;
    tcp(&red, &blue, &kernel, duration, &mut report)?;
    small_packets(&node, &green, duration, &mut report)?;
    explain(&node, &red, &blue)?;
    ledger(&node)?;

    step(7, "the pods are detached");
    red.detach(&node)?;
    blue.detach(&node)?;
    green.detach(&node)?;
    outcome("nothing left behind");
    report.write(&args.out)
}

/// The worker runs beside the load, where there is more than one CPU.
fn worker_cpu() -> usize {
    let cpus = worker::allowed_cpus();
    cpus.first().copied().unwrap_or(0)
}

/// Ctrl-C removes the scratch folder and ends the process; all else ends with it.
fn leave_on_interrupt(folder: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("signals")?;
    std::thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            let interrupted = runtime.block_on(tokio::signal::ctrl_c());
            if interrupted.is_ok() {
                let _ = std::fs::remove_dir_all(&folder);
                eprintln!("\ninterrupted: switch, agent and pods are gone");
                std::process::exit(130);
            }
        })
        .context("signals")?;
    Ok(())
}

fn pings(red: &KernelPod, blue: &KernelPod, kernel: &Baseline) -> Result<()> {
    step(3, &format!("ping red -> blue, {PINGS} times"));
    let ours = lab::ping(&red.netns, blue.address, PINGS, PING_PATIENCE).context("ping")?;
    let theirs = lab::ping(&kernel.left, baseline::RIGHT, PINGS, PING_PATIENCE).context("ping")?;
    let us = |report: &lab::PingReport| report.median().map_or(0, |time| time.as_micros());
    outcome(&format!("{} lost, median {} us (veth + bridge: {} us)", ours.lost(), us(&ours), us(&theirs)));
    Ok(())
}

fn tcp(
    red: &KernelPod,
    blue: &KernelPod,
    kernel: &Baseline,
    duration: Duration,
    report: &mut Report,
) -> Result<()> {
    let instrument = if lab::program("iperf3").is_ok() { "iperf3" } else { "built-in sender" };
    step(4, &format!("TCP red -> blue by message size ({instrument}), beside veth + Linux bridge"));
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

fn small_packets(node: &Node, green: &Green, duration: Duration, report: &mut Report) -> Result<()> {
    step(5, "64-byte packets through green, from its eth0 to its net1, by a virtio driver without a VM");
    let result = green.run(node, duration)?;
    outcome("");
    detail(&format!(
        "{:.2} million packets/s, {:.0} CPU cycles of the switch for each",
        result.mpps, result.busy_cycles_per_packet
    ));
    report.packets = Some(result);
    Ok(())
}

fn explain(node: &Node, red: &KernelPod, blue: &KernelPod) -> Result<()> {
    step(6, "why does a packet from red reach blue? (millrace trace)");
    outcome("");
    let said =
        node.tool(&["trace", "--port", &red.port(node)?, "--to", &blue.port(node)?, "--tcp", "40000,80"])?;
    for line in said.lines() {
        detail(line);
    }
    Ok(())
}

/// Every frame that came in must have gone out or have been dropped for a named reason.
fn ledger(node: &Node) -> Result<()> {
    let totals = node.ledger()?;
    println!();
    detail(&format!(
        "every frame accounted for: {} received + {} copies = {} sent + {} dropped{}",
        thousands(totals.rx),
        thousands(totals.copies),
        thousands(totals.tx),
        thousands(totals.drops),
        totals.reasons(),
    ));
    anyhow::ensure!(totals.rx + totals.copies == totals.tx + totals.drops, "the counters do not add up");
    Ok(())
}
