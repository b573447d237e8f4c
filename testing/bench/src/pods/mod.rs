//! How much TCP passes from one kernel pod to another? `millrace bench pods`.
//!
//! Four pairs of pods are made in the same way: two network namespaces with one netdev each. Millrace connects the first
//! by TAP ports and one worker, the kernel the second by veth and a Linux bridge, OVS's userspace datapath the third by
//! TAP ports and the fourth by AF_PACKET. iperf3 sends one stream in messages of a given size with TCP_NODELAY. The four
//! take turns of a second or two; who is not measured is stopped.
//!
//! Limit: a message is no frame. TCP_NODELAY sends a message that finds nothing in the way at once, but what is written
//! while earlier bytes wait for window or queue leaves together. Over a veth, where the sender's own call carries each
//! packet to its end, little does; through a switch that works beside the sender nearly everything does: at 64 B the
//! frames that reached Millrace had 43 KB in the mean. So small messages compare paths for programs that write little at a
//! time, not costs of small frames, which `bench vhost` measures.
//!
//! Besides the rate, a sample counts CPU time for each GB received: of the switch's program, and of the whole machine,
//! which is the only fair measure beside a bridge whose work the kernel does in the senders' names.

mod bridge;
pub(crate) mod contender;
mod iperf;
mod millrace;
pub(crate) mod ovs;
mod report;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;

use crate::cpu;
use crate::figures::say;
use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::options::program;
use crate::probe::{self, Label};
use crate::process::Priority;
use contender::{Contender, Link};
use iperf::{Messages, Server, Transfer};
use ovs::OvsPorts;
use report::Report;

pub(crate) use {bridge::start as start_bridge, millrace::start as start_millrace};

const EXAMPLES: &str = "\
Examples:
  millrace bench pods                             all sizes, about four minutes
  millrace bench pods --quick --messages 64,131072
  millrace bench pods --rounds 11 --json pods.json --chart .

It needs root, two CPUs, iperf3, about 1.2 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk);
--without-ovs leaves the last two out.";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PodsArgs {
    /// Message sizes in bytes: what iperf3 writes at once
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64,512,1500,16384,65536,131072",
        value_name = "BYTES,..."
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub messages: Vec<u64>,
    /// Samples of each subject and size
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Length of a sample in seconds
    #[arg(long, default_value_t = 1, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub sample_s: u64,
    /// Lets the kernel put small messages together (no TCP_NODELAY)
    #[arg(long)]
    pub coalesce: bool,
    /// Few and short samples, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Compares with veth and bridge alone
    #[arg(long)]
    pub without_ovs: bool,
    /// The switches' CPU. The load runs where the kernel lets it
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    pub worker_cpu: usize,
    /// The CPU of everything else of a switch
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub other_cpu: usize,
    /// Writes the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes pods.svg and pods.png into this directory
    #[arg(long, value_name = "DIR")]
    pub chart: Option<PathBuf>,
    /// The program whose `switch` subcommand is measured; by default this one
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

impl PodsArgs {
    fn normalized(&self) -> anyhow::Result<Self> {
        let mut args = self.clone();
        if args.quick {
            args.rounds = args.rounds.min(2);
            args.sample_s = 1;
        }
        args.messages.sort_unstable();
        args.messages.dedup();
        ensure!(args.rounds > 0, "--rounds must be at least 1");
        ensure!(args.worker_cpu != args.other_cpu, "--worker-cpu and --other-cpu must be two CPUs");
        Ok(args)
    }

    fn load(&self) -> Messages {
        if self.coalesce { Messages::Together } else { Messages::Apart }
    }
}

/// One subject for a second or two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) message_bytes: u64,
    pub(crate) contender: Contender,
    pub(crate) label: Label,
    pub(crate) transfer: Transfer,
    pub(crate) switch_cpu_ns: u64,
    pub(crate) machine_cpu_ns: u64,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &PodsArgs) -> anyhow::Result<()> {
    let args = args.normalized()?;
    let interrupt = Interrupt::listen()?;
    let pages = if args.without_ovs { 0 } else { 2 * ovs::HUGE_PAGES };
    let _pages = HugePages::reserve(pages)?;
    let machine = Machine::here(args.worker_cpu, args.other_cpu);
    let _priority = Priority::raise()?;
    let mut lanes = start(&args, &interrupt)?;
    let mut samples = Vec::new();
    for message_bytes in &args.messages {
        for round in 1..=args.rounds {
            for lane in &mut lanes {
                interrupt.check()?;
                let sample = lane.sample(&args, *message_bytes).with_context(|| {
                    format!("measuring {} with {message_bytes} B", lane.link.contender.title())
                })?;
                samples.push(sample);
            }
            say(&format!("{message_bytes} B: round {round} of {}", args.rounds));
        }
    }
    let versions: Vec<(Contender, String)> =
        lanes.iter().map(|lane| (lane.link.contender, lane.link.version.clone())).collect();
    let report = Report::new(machine, args.load(), &samples, &versions);
    report.print()?;
    if let Some(path) = &args.json {
        crate::figures::write_json(&report, path)?;
    }
    if let Some(folder) = &args.chart {
        report.write_chart(folder)?;
    }
    Ok(())
}

/// Two connected pods and the server in the second. The server ends first.
struct Lane {
    _server: Server,
    link: Link,
}

/// Starts every subject, and stops it.
fn start(args: &PodsArgs, interrupt: &Interrupt) -> anyhow::Result<Vec<Lane>> {
    let (worker, other) = (args.worker_cpu, args.other_cpu);
    let mut lanes = Vec::new();
    let mut add = |link: Link| -> anyhow::Result<()> {
        interrupt.check()?;
        let server = Server::start(&link.pods[1])?;
        link.pause();
        lanes.push(Lane { _server: server, link });
        Ok(())
    };
    say("starting Millrace");
    add(start_millrace(&program(args.program.as_ref())?, worker, other)?)?;
    say("making veth pairs and a bridge");
    add(start_bridge()?)?;
    if !args.without_ovs {
        for ports in [OvsPorts::Tap, OvsPorts::AfPacket] {
            say("starting Open vSwitch");
            add(ovs::start(ports, worker, other)?)?;
        }
    }
    Ok(lanes)
}

impl Lane {
    fn sample(&mut self, args: &PodsArgs, message_bytes: u64) -> anyhow::Result<Sample> {
        let distance = || probe::round_trip_cycles(args.other_cpu, args.worker_cpu);
        let before = distance()?;
        let result = self.link.resume().and_then(|()| self.run(args, message_bytes));
        self.link.pause();
        let sample = result?;
        Ok(Sample { label: Label::of(before, distance()?), ..sample })
    }

    fn run(&self, args: &PodsArgs, message_bytes: u64) -> anyhow::Result<Sample> {
        let (switch, machine) = (self.link.cpu_ns(), cpu::machine_ns());
        let transfer = iperf::transfer(&self.link.pods[0], message_bytes, args.load(), args.sample_s)?;
        Ok(Sample {
            message_bytes,
            contender: self.link.contender,
            label: Label::Mix,
            transfer,
            switch_cpu_ns: self.link.cpu_ns().saturating_sub(switch),
            machine_cpu_ns: cpu::machine_ns().saturating_sub(machine),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PodsArgs,
    }

    fn parse(words: &[&str]) -> Result<PodsArgs, clap::Error> {
        Cli::try_parse_from([&["pods"], words].concat()).map(|cli| cli.args)
    }

    #[test]
    fn args_when_quick_ask_for_few_and_short_samples() {
        let args = parse(&["--quick", "--sample-s", "5", "--messages", "512,64,512"]).unwrap();
        let args = args.normalized().unwrap();
        assert_eq!((args.rounds, args.sample_s), (2, 1));
        assert_eq!(args.messages, [64, 512]);
    }

    #[test]
    fn args_when_impossible_are_refused() {
        assert!(parse(&["--messages", "0"]).is_err());
        assert!(parse(&["--rounds", "0"]).unwrap().normalized().is_err());
        assert!(parse(&["--other-cpu", "0"]).unwrap().normalized().is_err());
    }
}
