//! How are several subjects measured in one run? They take turns of about a second; who is not measured is stopped, so that
//! its polling takes nothing from the others. A sample counts frames at the load and cycles at the worker: *busy cycles
//! per packet* are those of turns that moved something, which is what a switch costs when the load, not the switch, is
//! the limit.

use std::time::Duration;

use anyhow::{Context, ensure};
use guest::load::Flows;

use crate::bare::Bare;
use crate::case::{Case, FrameKind, Work};
use crate::copy::Copying;
use crate::figures::say;
use crate::hugepages::HugePages;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::millrace::Millrace;
use crate::options::{Options, Peer};
use crate::ovs::{Ovs, OvsSpec};
use crate::probe::{self, Label};
use crate::process::{Priority, RealTime};
use crate::publish::publish;
use crate::report::{Report, Row};
use crate::subject::{Scene, Subject, Switch, WorkerCounters};
use crate::traffic::{LoadKind, Moved, Traffic};

/// Huge pages (2 MiB) for two pairs of guests or testpmds and some to spare, and for the packet buffers of one OVS.
const HUGE_PAGES: u64 = 700;
const OVS_MEMORY_MIB: u32 = 1024;

/// What a row measures.
pub(crate) struct Plan {
    pub(crate) row: Row,
    pub(crate) load: LoadKind,
    /// Switches that run side by side, each with the ways it forwards.
    pub(crate) switches: Vec<Vec<Subject>>,
    pub(crate) cases: Vec<Case>,
}

/// One subject for about a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) case: Case,
    pub(crate) subject: Subject,
    pub(crate) label: Label,
    pub(crate) frames: u64,
    pub(crate) lost: u64,
    /// Connections that were opened, used and closed.
    pub(crate) connections: u64,
    pub(crate) elapsed: Duration,
    pub(crate) worker: WorkerCounters,
}

impl Sample {
    /// Something else took the worker's CPU for more than a hundredth of the time, and its cycles were counted.
    pub(crate) fn is_disturbed(&self) -> bool {
        u128::from(self.worker.waited_ns) * 100 > self.elapsed.as_nanos()
    }
}

/// Measures, prints the table, and writes the files that `options` ask for.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub(crate) fn run(options: &Options, mut plan: Plan) -> anyhow::Result<Report> {
    let is_ours = |switch: &Vec<Subject>| !switch.iter().any(|subject| subject.is_ovs());
    plan.switches
        .retain(|switch| if is_ours(switch) { !options.only_peer } else { options.peer == Peer::OvsDpdk });
    let interrupt = Interrupt::listen()?;
    let peers = plan.switches.iter().filter(|switch| !is_ours(switch)).count() as u64;
    let _pages = HugePages::reserve(HUGE_PAGES + peers * u64::from(OVS_MEMORY_MIB) / 2)?;
    let machine = Machine::here(options.worker_cpu(), options.load_cpu());
    let _priority = Priority::raise()?;
    probe::pin(options.load_cpu())?;
    let mut samples = Vec::new();
    let mut versions = Vec::new();
    for (setting, cases) in by_setting(&plan.cases) {
        let mut lab = Lab::start(options, &plan, setting)?;
        versions.extend(lab.versions());
        for case in cases {
            samples.extend(lab.measure(options, plan.load, case, &interrupt)?);
        }
    }
    let report = Report::new(machine, plan.row, plan.load, &samples, &versions);
    publish(&report, &options.files)?;
    Ok(report)
}

/// What switches are started for: they are started anew for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    /// OVS can segment only if it was started so.
    large: bool,
    attacked: bool,
    stations: u32,
    has_services: bool,
}

impl Setting {
    fn of(case: &Case, all: &[Case]) -> Self {
        Self {
            large: case.frame == FrameKind::Large,
            attacked: all.iter().any(|case| case.attacked),
            stations: match case.flows {
                // Also for one pair: the port is not bound to an address.
                Flows::Stations(pairs) => Flows::stations(pairs).max(2),
                _ => 1,
            },
            has_services: case.work != Work::Frames,
        }
    }
}

fn by_setting(cases: &[Case]) -> Vec<(Setting, Vec<Case>)> {
    let mut groups: Vec<(Setting, Vec<Case>)> = Vec::new();
    for case in cases {
        let setting = Setting::of(case, cases);
        match groups.iter_mut().find(|(of, _)| *of == setting) {
            Some((_, group)) => group.push(*case),
            None => groups.push((setting, vec![*case])),
        }
    }
    groups
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
    fn start(options: &Options, plan: &Plan, setting: Setting) -> anyhow::Result<Self> {
        let mut benches = Vec::new();
        for subjects in &plan.switches {
            let switch = start(options, subjects[0], setting)?;
            switch.pause();
            benches.push(Bench { subjects: subjects.clone(), switch, traffic: None });
        }
        ensure!(!benches.is_empty(), "nobody to measure");
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
        options: &Options,
        load: LoadKind,
        case: Case,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for bench in &mut self.benches {
            bench.traffic = None;
        }
        for bench in &mut self.benches {
            bench.traffic = Some(Traffic::start(load, case, bench.switch.sockets(), options.load_cpu())?);
        }
        let mut quiet_rounds = 0;
        for round in 1..=2 * options.rounds() {
            let mut quiet = true;
            for bench in &mut self.benches {
                for subject in bench.subjects.clone() {
                    interrupt.check()?;
                    let sample = bench
                        .sample(options, case, subject)
                        .with_context(|| format!("measuring {} with {}", subject.title(), case.title()))?;
                    quiet &= !sample.is_disturbed();
                    samples.push(sample);
                }
            }
            quiet_rounds += usize::from(quiet);
            say(&format!(
                "{}: round {round}, {quiet_rounds} of {} undisturbed",
                case.title(),
                options.rounds()
            ));
            if quiet_rounds == options.rounds() {
                break;
            }
        }
        Ok(samples)
    }
}

fn start(options: &Options, subject: Subject, setting: Setting) -> anyhow::Result<Box<dyn Switch>> {
    let (worker_cpu, other_cpu) = (options.worker_cpu(), options.load_cpu());
    let scene =
        Scene { attacked: setting.attacked, stations: setting.stations, has_services: setting.has_services };
    say(&format!("starting {}", subject.title()));
    Ok(match subject {
        Subject::Millrace => {
            let program = options.place.cpus.measured.program()?;
            Box::new(Millrace::start(&program, worker_cpu, other_cpu, scene)?)
        }
        Subject::OvsNormal | Subject::OvsInPort | Subject::OvsRules | Subject::OvsConntrack => {
            Box::new(Ovs::start(OvsSpec {
                worker_cpu,
                other_cpu,
                memory_mib: OVS_MEMORY_MIB,
                segmentation_offload: setting.large,
                scene,
            })?)
        }
        Subject::Limit => Box::new(Bare::start(worker_cpu, None)?),
        Subject::Copy => Box::new(Copying::start(worker_cpu)),
    })
}

impl Bench {
    fn sample(&mut self, options: &Options, case: Case, subject: Subject) -> anyhow::Result<Sample> {
        let before = probe::round_trip_cycles(options.load_cpu(), options.worker_cpu())?;
        self.switch.resume();
        let result = self.run(options, case, subject);
        self.switch.pause();
        let (moved, worker) = result?;
        let frames = moved.frames.unwrap_or(worker.frames);
        ensure!(frames > 0 && worker.frames > 0, "nothing was forwarded");
        let after = probe::round_trip_cycles(options.load_cpu(), options.worker_cpu())?;
        Ok(Sample {
            case,
            subject,
            label: Label::of(before, after),
            frames,
            lost: moved.lost,
            connections: moved.connections,
            elapsed: moved.elapsed,
            worker,
        })
    }

    fn run(
        &mut self,
        options: &Options,
        case: Case,
        subject: Subject,
    ) -> anyhow::Result<(Moved, WorkerCounters)> {
        let time = Duration::from_millis(options.samples.sample_ms);
        self.switch.check()?;
        if let Some(measured) = self.switch.run_alone(case, time) {
            return Ok(measured);
        }
        self.switch.forward(subject, case.flows.count())?;
        self.traffic.as_mut().context("no traffic was set up")?.prepare()?;
        let _priorities = if options.place.realtime { self.realtime()? } else { Vec::new() };
        let mut before = WorkerCounters::default();
        let traffic = self.traffic.as_mut().context("no traffic was set up")?;
        let moved = traffic.run(time, &mut || {
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
