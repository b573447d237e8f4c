//! What does a packet cost between two vhost-user ports? `millrace bench vhost`.
//!
//! One worker on one core, the load on another, and OVS-DPDK beside us in the same run. The subjects take turns of about
//! a second; who is not measured is stopped, so that its polling takes nothing from the others. A sample counts frames at
//! the load and cycles at the worker: *busy cycles per packet* are those of turns that moved something, which is what a
//! switch costs when the load, not the switch, is the limit.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::millrace::Millrace;
use crate::ovs::{Ovs, OvsSpec};
use crate::probe::{self, Label};
use crate::process::{Priority, RealTime};
use crate::report::Report;
use crate::subject::{Subject, Switch, WorkerCounters};
use crate::traffic::Traffic;
pub use crate::traffic::{FrameKind, LoadKind};

/// Huge pages (2 MiB) for OVS's packet buffers, two pairs of guests or testpmds, and some to spare.
const HUGE_PAGES: u64 = 1200;
const OVS_MEMORY_MIB: u32 = 1024;

const EXAMPLES: &str = "\
Examples:
  millrace bench vhost --peer ovs-dpdk                       all sizes, about two minutes
  millrace bench vhost --quick --frames 64,1500              a first look
  millrace bench vhost --load macswap --json result.json --chart .

It needs root, two CPUs, about 3 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk).";

/// Whom Millrace is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Open vSwitch with DPDK, both as a learning switch and as a cross-connect
    OvsDpdk,
    /// Nobody
    None,
}

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct VhostArgs {
    /// Whom to compare with
    #[arg(long, value_enum, default_value = "ovs-dpdk")]
    pub peer: Peer,
    /// Frame sizes in bytes (60 to 1514), and `tso` for 64 KB TCP segments
    #[arg(long, value_delimiter = ',', default_value = "64,512,1500,tso", value_name = "BYTES,...")]
    pub frames: Vec<FrameKind>,
    /// Samples of each subject and size
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Length of a sample in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub sample_ms: u64,
    /// What drives the ports
    #[arg(long, value_enum, default_value = "light")]
    pub load: LoadKind,
    /// Few and short samples, for a first look
    #[arg(long)]
    pub quick: bool,
    /// The worker's CPU
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    pub worker_cpu: usize,
    /// The load's CPU
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub load_cpu: usize,
    /// Real-time priority for worker and load, where the machine is not quiet. What else runs on the two CPUs waits
    #[arg(long)]
    pub realtime: bool,
    /// Writes the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes vhost.svg and vhost.png into this directory
    #[arg(long, value_name = "DIR")]
    pub chart: Option<PathBuf>,
    /// Measures the peer alone
    #[arg(long, hide = true)]
    pub only_peer: bool,
    /// The program whose `switch` subcommand is measured; by default this one
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

impl VhostArgs {
    fn normalized(&self) -> anyhow::Result<Self> {
        let mut args = self.clone();
        if args.quick {
            args.rounds = args.rounds.min(3);
            args.sample_ms = args.sample_ms.min(300);
        }
        if args.load != LoadKind::Light {
            args.frames.retain(|frame| *frame != FrameKind::Large);
        }
        ensure!(args.rounds > 0 && args.sample_ms > 0, "--rounds and --sample-ms must be at least 1");
        ensure!(args.worker_cpu != args.load_cpu, "--worker-cpu and --load-cpu must be two CPUs");
        ensure!(!args.frames.is_empty(), "nothing to measure: 64 KB frames are for the light load only");
        ensure!(!(args.only_peer && args.peer == Peer::None), "nobody to measure");
        Ok(args)
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        match &self.program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe().context("cannot find this program's own file"),
        }
    }
}

/// One subject for about a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) frame: FrameKind,
    pub(crate) subject: Subject,
    pub(crate) label: Label,
    pub(crate) frames: u64,
    pub(crate) lost: u64,
    pub(crate) elapsed: Duration,
    pub(crate) worker: WorkerCounters,
}

impl Sample {
    /// Something else took the worker's CPU for more than a hundredth of the time, and its cycles were counted.
    pub(crate) fn is_disturbed(&self) -> bool {
        u128::from(self.worker.waited_ns) * 100 > self.elapsed.as_nanos()
    }
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &VhostArgs) -> anyhow::Result<()> {
    let args = args.normalized()?;
    let interrupt = Interrupt::listen()?;
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let machine = Machine::here(args.worker_cpu, args.load_cpu);
    let _priority = Priority::raise()?;
    probe::pin(args.load_cpu)?;
    let mut samples = Vec::new();
    let mut versions = Vec::new();
    for large in [false, true] {
        let frames: Vec<FrameKind> =
            args.frames.iter().copied().filter(|frame| (*frame == FrameKind::Large) == large).collect();
        if frames.is_empty() {
            continue;
        }
        let mut lab = Lab::start(&args, large)?;
        versions.extend(lab.versions());
        for frame in frames {
            lab.measure(&args, frame, &interrupt, &mut samples)?;
        }
    }
    let report = Report::new(machine, args.load, &samples, &versions);
    report.print()?;
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    if let Some(folder) = &args.chart {
        report.write_chart(folder)?;
    }
    Ok(())
}

/// One switch, the ways it forwards, and its load.
struct Bench {
    subjects: Vec<Subject>,
    switch: Box<dyn Switch>,
    traffic: Option<Traffic>,
}

/// All switches of a run, stopped while they are not measured.
struct Lab {
    benches: Vec<Bench>,
}

impl Lab {
    fn start(args: &VhostArgs, large: bool) -> anyhow::Result<Self> {
        let mut benches = Vec::new();
        if !args.only_peer {
            say("starting Millrace");
            let switch = Millrace::start(&args.program()?, args.worker_cpu, args.load_cpu)?;
            benches.push(Bench {
                subjects: vec![Subject::Millrace],
                switch: Box::new(switch),
                traffic: None,
            });
        }
        if args.peer == Peer::OvsDpdk {
            say("starting OVS-DPDK");
            let switch = Ovs::start(OvsSpec {
                worker_cpu: args.worker_cpu,
                other_cpu: args.load_cpu,
                memory_mib: OVS_MEMORY_MIB,
                segmentation_offload: large,
            })?;
            benches.push(Bench {
                subjects: vec![Subject::OvsNormal, Subject::OvsInPort],
                switch: Box::new(switch),
                traffic: None,
            });
        }
        for bench in &benches {
            bench.switch.pause();
        }
        Ok(Self { benches })
    }

    fn versions(&self) -> Vec<(Subject, String)> {
        let of = |bench: &Bench| -> Vec<(Subject, String)> {
            bench.subjects.iter().map(|subject| (*subject, bench.switch.version())).collect()
        };
        self.benches.iter().flat_map(of).collect()
    }

    /// Takes samples of all subjects in turns until each has `rounds` that nothing disturbed, or twice as many in all.
    fn measure(
        &mut self,
        args: &VhostArgs,
        frame: FrameKind,
        interrupt: &Interrupt,
        samples: &mut Vec<Sample>,
    ) -> anyhow::Result<()> {
        for bench in &mut self.benches {
            bench.traffic = None;
        }
        for bench in &mut self.benches {
            bench.traffic = Some(Traffic::start(args.load, frame, bench.switch.sockets(), args.load_cpu)?);
        }
        let mut quiet_rounds = 0;
        for round in 1..=2 * args.rounds {
            let mut quiet = true;
            for bench in &mut self.benches {
                for subject in bench.subjects.clone() {
                    interrupt.check()?;
                    let sample = bench
                        .sample(args, frame, subject)
                        .with_context(|| format!("measuring {} with {}", subject.title(), frame.title()))?;
                    quiet &= !sample.is_disturbed();
                    samples.push(sample);
                }
            }
            quiet_rounds += usize::from(quiet);
            say(&format!("{}: round {round}, {quiet_rounds} of {} undisturbed", frame.title(), args.rounds));
            if quiet_rounds == args.rounds {
                break;
            }
        }
        Ok(())
    }
}

impl Bench {
    fn sample(&mut self, args: &VhostArgs, frame: FrameKind, subject: Subject) -> anyhow::Result<Sample> {
        let before = probe::round_trip_cycles(args.load_cpu, args.worker_cpu)?;
        self.switch.resume();
        let result = self.run(args, subject);
        self.switch.pause();
        let (moved, worker) = result?;
        let frames = moved.frames.unwrap_or(worker.frames);
        ensure!(frames > 0 && worker.frames > 0, "nothing was forwarded");
        let after = probe::round_trip_cycles(args.load_cpu, args.worker_cpu)?;
        Ok(Sample {
            frame,
            subject,
            label: Label::of(before, after),
            frames,
            lost: moved.lost,
            elapsed: moved.elapsed,
            worker,
        })
    }

    fn run(
        &mut self,
        args: &VhostArgs,
        subject: Subject,
    ) -> anyhow::Result<(crate::traffic::Moved, WorkerCounters)> {
        self.switch.check()?;
        self.switch.forward(subject)?;
        self.traffic.as_mut().context("no traffic was set up")?.prepare()?;
        let _priorities = if args.realtime { self.realtime()? } else { Vec::new() };
        let mut before = WorkerCounters::default();
        let traffic = self.traffic.as_mut().context("no traffic was set up")?;
        let moved = traffic.run(Duration::from_millis(args.sample_ms), &mut || {
            before = self.switch.counters()?;
            Ok(())
        })?;
        let worker = self.switch.counters()?.since(before);
        traffic.settle()?;
        Ok((moved, worker))
    }

    fn realtime(&self) -> anyhow::Result<Vec<RealTime>> {
        self.switch.workers().into_iter().chain([std::process::id()]).map(RealTime::grant).collect()
    }
}

/// A line of progress.
#[allow(clippy::print_stderr, reason = "progress is for the person who waits; the result goes to stdout")]
fn say(line: &str) {
    eprintln!("bench: {line}");
}
