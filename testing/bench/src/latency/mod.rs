//! How long does a packet take, and what does waiting for it cost? `millrace bench latency`.
//!
//! Two kinds of ends. *Kernel pods* ask each other over TCP: back to back (busy), and once in ten milliseconds (idle), so
//! that the worker sleeps in between and must be woken. *vhost-user guests* pass one frame to and fro, each blocking until
//! it is signalled (busy), and one frame each ten milliseconds to a guest that looks all the time (wake): from the kick to
//! the arrival, which is what a sleeping worker costs. And each switch is watched for two seconds without any traffic.
//!
//! The ends run on the load's CPU, the switch's worker on its own. The subjects take turns of about a second; who is not
//! measured is stopped. Median and 99th percentile are of one sample; the medians of those over all samples are reported.

mod echo;
mod goals;
mod guests;
mod lane;
mod report;

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use crate::figures::{quantile, say};
use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::options::{Cpus, Files, Samples};
use crate::pods::contender::Contender;
use crate::probe::{self, Label};
use crate::process::Priority;
use crate::publish::publish;
use lane::Lane;
use report::Report;

/// Traffic before a sample that is not counted.
const WARM_UP: Duration = Duration::from_millis(100);
/// Between two packets of an idle pair: a hundred times what a worker polls on.
const REST: Duration = Duration::from_millis(10);
/// How long a switch is watched without traffic, and how long it has before that to become quiet.
const WATCH: Duration = Duration::from_secs(2);
const CALM: Duration = Duration::from_millis(200);
/// Rounds in which it is: the answer hardly varies.
const WATCHES: usize = 3;

/// Samples of a first look: the loads are many.
const QUICK_ROUNDS: usize = 2;

const EXAMPLES: &str = "\
Examples:
  millrace bench latency                          about four minutes
  millrace bench latency --quick
  millrace bench latency --rounds 11 --json latency.json --chart .

It needs root, two CPUs, about 3 GiB for huge pages, ethtool, and OVS-DPDK (apt-get install openvswitch-switch-dpdk);
--without-ovs leaves the last two out.";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct LatencyArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub samples: Samples,
    /// Compares with veth and bridge alone
    #[arg(long)]
    pub without_ovs: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub cpus: Cpus,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub files: Files,
}

impl LatencyArgs {
    fn normalized(&self) -> anyhow::Result<Self> {
        let mut args = self.clone();
        args.samples = args.samples.normalized(QUICK_ROUNDS)?;
        ensure!(
            args.samples.sample_ms >= 100,
            "--sample-ms must be at least 100: an idle pair sends a packet each ten"
        );
        args.cpus.check()?;
        Ok(args)
    }

    fn worker_cpu(&self) -> usize {
        self.cpus.measured.worker_cpu
    }
}

/// When the next packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At once.
    Busy,
    /// After a rest, in which a worker falls asleep.
    Idle,
}

impl Pace {
    fn rest(self) {
        if self == Self::Idle {
            std::thread::sleep(REST);
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    PodsBusy,
    PodsIdle,
    PodsNone,
    GuestsBusy,
    GuestsWake,
    GuestsNone,
}

impl Load {
    const PODS: [Self; 3] = [Self::PodsBusy, Self::PodsIdle, Self::PodsNone];
    const GUESTS: [Self; 3] = [Self::GuestsBusy, Self::GuestsWake, Self::GuestsNone];

    fn is_watch(self) -> bool {
        matches!(self, Self::PodsNone | Self::GuestsNone)
    }
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    /// Of the times of one sample, in nanoseconds.
    Times { p50: u64, p99: u64, count: usize },
    /// Of one core, without traffic.
    Cpu(f64),
}

impl Measure {
    fn of(mut times_ns: Vec<u64>) -> anyhow::Result<Self> {
        times_ns.sort_unstable();
        let at = |share| quantile(&times_ns, share).context("no packet came back");
        Ok(Self::Times { p50: at(0.5)?, p99: at(0.99)?, count: times_ns.len() })
    }
}

/// One subject with one load.
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
pub fn run(args: &LatencyArgs) -> anyhow::Result<()> {
    let args = args.normalized()?;
    let interrupt = Interrupt::listen()?;
    let machine = Machine::here(args.worker_cpu(), args.cpus.load_cpu);
    let _priority = Priority::raise()?;
    probe::pin(args.cpus.load_cpu)?;
    let mut samples = Vec::new();
    let mut versions = Vec::new();
    for (loads, start) in [(Load::PODS, lane::pods as lane::Start), (Load::GUESTS, lane::guests)] {
        // Taken down before the other kind of ends is set up: huge pages too.
        let _pages = HugePages::reserve(lane::huge_pages(loads[0], &args))?;
        let mut lanes = start(&args, &interrupt)?;
        versions.extend(lanes.iter().map(|lane| (lane.contender(), lane.version())));
        for load in loads {
            measure(&args, load, &mut lanes, &interrupt, &mut samples)?;
        }
    }
    publish(&Report::new(machine, &samples, &versions), &args.files)
}

fn measure(
    args: &LatencyArgs,
    load: Load,
    lanes: &mut [Lane],
    interrupt: &Interrupt,
    samples: &mut Vec<Sample>,
) -> anyhow::Result<()> {
    let rounds = args.samples.repeats.rounds;
    let rounds = if load.is_watch() { rounds.min(WATCHES) } else { rounds };
    for round in 1..=rounds {
        for lane in lanes.iter_mut() {
            interrupt.check()?;
            let title = lane.contender().title();
            let distance = || probe::round_trip_cycles(args.cpus.load_cpu, args.worker_cpu());
            let before = distance()?;
            let measure = lane
                .sample(load, Duration::from_millis(args.samples.sample_ms))
                .with_context(|| format!("measuring {title}: {}", report::title(load)))?;
            let label = Label::of(before, distance()?);
            samples.push(Sample { load, contender: lane.contender(), label, measure });
        }
        say(&format!("{}: round {round} of {rounds}", report::title(load)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measure_when_times_are_given_has_their_quantiles() {
        let times = (1..=1000).rev().collect();
        assert_eq!(Measure::of(times).unwrap(), Measure::Times { p50: 500, p99: 990, count: 1000 });
        assert!(Measure::of(Vec::new()).is_err());
    }
}
