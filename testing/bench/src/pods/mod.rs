//! How much passes from one kernel pod to another? `millrace bench pods`.
//!
//! Pairs of pods are made in the same way: two network namespaces with one netdev each. Millrace connects one pair by TAP
//! ports and one worker, and another by VDUSE ports where the kernel has them; the kernel connects one by veth and a Linux
//! bridge; OVS's userspace datapath one by TAP ports and one by AF_PACKET. Or the pods are on two nodes ([`nodes`]). They take
//! turns of a second or two; who is not measured is stopped. Two kinds of load:
//!
//! - *TCP*: iperf3 sends one stream in messages of a given size with TCP_NODELAY ([`iperf`]).
//! - *UDP*: as many small packets as arrive, one way ([`datagrams`]).
//!
//! Limit: a message is no frame. TCP_NODELAY sends a message that finds nothing in the way at once, but what is written
//! while earlier bytes wait for window or queue leaves together. Over a veth, where the sender's own call carries each
//! packet to its end, little does; through a switch that works beside the sender nearly everything does: at 64 B the
//! frames that reached Millrace had 43 KB in the mean. So small messages compare paths for programs that write little at a
//! time, not costs of small frames. A datagram is a frame.
//!
//! Besides the rate, a sample counts CPU time for each GB or packet received: of the switch's program, and of the whole
//! machine, which is the only fair measure beside a bridge whose work the kernel does in the senders' names.

mod bridge;
pub(crate) mod contender;
mod datagrams;
mod iperf;
mod lane;
mod millrace;
mod nodes;
pub(crate) mod ovs;
mod picture;
mod report;
mod table;
mod vduse;

use std::fmt;

use clap::{Args, ValueEnum};

use crate::chart::size;
use crate::figures::say;
use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::options::{Files, Measured, Repeats};
use crate::probe::Label;
use crate::process::Priority;
use crate::publish::publish;
use contender::{Contender, Spent};
use datagrams::Flow;
use iperf::{Messages, Transfer};
use report::Report;

pub(crate) use {bridge::start as start_bridge, millrace::start as start_millrace};

/// Samples of a first look: each takes a second.
const QUICK_ROUNDS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  millrace bench pods                             all sizes and small packets, about five minutes
  millrace bench pods --quick --messages 64,131072
  millrace bench pods --load udp                  small packets alone
  millrace bench pods --across-nodes              pods of two nodes
  millrace bench pods --rounds 11 --json pods.json --chart .

It needs root, two CPUs, iperf3, about 1.2 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk);
--without-ovs leaves the last two out. Ports of VDUSE are measured where `millrace doctor --need vduse` succeeds.";

/// What is sent from pod to pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// One stream of messages, by iperf3
    Tcp,
    /// Frames of 64 bytes, as many as arrive
    Udp,
}

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PodsArgs {
    /// What is sent
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tcp,udp", value_name = "PROTOCOL,...")]
    pub load: Vec<Protocol>,
    /// Message sizes of TCP in bytes: what iperf3 writes at once
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "64,512,1500,16384,65536,131072",
        value_name = "BYTES,..."
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub messages: Vec<u64>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub repeats: Repeats,
    /// Length of a sample in seconds
    #[arg(long, default_value_t = 1, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub sample_s: u64,
    /// Lets the kernel put small messages together (no TCP_NODELAY)
    #[arg(long)]
    pub coalesce: bool,
    /// Puts the two pods on two nodes: Geneve tunnels beside the kernel's VXLAN, and nobody else
    #[arg(long)]
    pub across_nodes: bool,
    /// Compares with veth and bridge alone
    #[arg(long)]
    pub without_ovs: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub measured: Measured,
    /// The CPU of everything else of a switch. The load runs where the kernel lets it
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub other_cpu: usize,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub files: Files,
}

impl PodsArgs {
    fn normalized(&self) -> anyhow::Result<Self> {
        let mut args = self.clone();
        args.repeats = args.repeats.normalized(QUICK_ROUNDS)?;
        if args.repeats.quick {
            args.sample_s = 1;
        }
        args.messages.sort_unstable();
        args.messages.dedup();
        args.measured.check_apart("--other-cpu", args.other_cpu)?;
        Ok(args)
    }

    fn manner(&self) -> Messages {
        if self.coalesce { Messages::Together } else { Messages::Apart }
    }

    fn loads(&self) -> Vec<Load> {
        let streams =
            self.messages.iter().map(|message_bytes| Load::Stream { message_bytes: *message_bytes });
        let streams = streams.filter(|_| self.load.contains(&Protocol::Tcp));
        streams.chain(self.load.contains(&Protocol::Udp).then_some(Load::Packets)).collect()
    }
}

/// What is sent in one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    /// TCP in messages of that size.
    Stream { message_bytes: u64 },
    /// Small packets of UDP.
    Packets,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream { message_bytes } => write!(f, "TCP, {}", size(*message_bytes)),
            Self::Packets => write!(f, "UDP, {} B frames", datagrams::FRAME_BYTES),
        }
    }
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    Stream { transfer: Transfer, spent: Spent },
    Packets { flow: Flow, spent: Spent },
}

/// One subject for a second or two.
#[derive(Debug, Clone, Copy)]
struct Sample {
    load: Load,
    contender: Contender,
    label: Label,
    measure: Measure,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &PodsArgs) -> anyhow::Result<()> {
    let args = args.normalized()?;
    let interrupt = Interrupt::listen()?;
    let pages = if args.without_ovs || args.across_nodes { 0 } else { 2 * ovs::HUGE_PAGES };
    let _pages = HugePages::reserve(pages)?;
    let machine = Machine::here(args.measured.worker_cpu, args.other_cpu);
    let _priority = Priority::raise()?;
    let mut lanes = lane::start(&args, &interrupt)?;
    let mut samples = Vec::new();
    let rounds = args.repeats.rounds;
    for load in args.loads() {
        for round in 1..=rounds {
            for lane in &mut lanes {
                interrupt.check()?;
                samples.push(lane.sample(&args, load)?);
            }
            say(&format!("{load}: round {round} of {rounds}"));
        }
    }
    let versions: Vec<(Contender, String)> =
        lanes.iter().map(|lane| (lane.link.contender, lane.link.version.clone())).collect();
    publish(&Report::new(machine, args.manner(), &samples, &versions), &args.files)
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
        assert_eq!((args.repeats.rounds, args.sample_s), (2, 1));
        assert_eq!(args.messages, [64, 512]);
    }

    #[test]
    fn loads_when_both_are_asked_for_end_with_packets() {
        let loads = |words: &[&str]| parse(words).unwrap().loads();
        let stream = |message_bytes| Load::Stream { message_bytes };
        assert_eq!(loads(&["--messages", "64,512"]), [stream(64), stream(512), Load::Packets]);
        assert_eq!(loads(&["--messages", "64", "--load", "tcp"]), [stream(64)]);
        assert_eq!(loads(&["--load", "udp"]), [Load::Packets]);
    }

    #[test]
    fn args_when_impossible_are_refused() {
        assert!(parse(&["--messages", "0"]).is_err());
        assert!(parse(&["--rounds", "0"]).unwrap().normalized().is_err());
        assert!(parse(&["--other-cpu", "0"]).unwrap().normalized().is_err());
    }
}
