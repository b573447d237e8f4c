//! What do Millrace's rings cost without a switch between them, and what does each stage of a turn cost? A worker of our own
//! in this process, around the same rings and the same switch.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use frame::{BURST_FRAMES, Burst};
use guest::cycles;
use ports::vhost_user::{Role, VhostUserControl, VhostUserSpec};
use ports::{Device, RxQueue, TxQueue};
use vswitch::program::{NetworkNo, NetworkSpec, PortNo, PortSpec, ProgramSpec, VlanMode};
use vswitch::{Now, Outputs, ProcessReport, Program, Shared};
use wire::MacAddr;

use crate::case::{Case, FrameKind};
use crate::copy::Copying;
use crate::figures::say;
use crate::hugepages::HugePages;
use crate::millrace::IPS;
use crate::options::Options;
use crate::probe;
use crate::process::Priority;
use crate::stats::spread;
use crate::subject::{MACS, Subject, Switch, WorkerCounters};
use crate::traffic::{LoadKind, Moved, Traffic};

const HUGE_PAGES: u64 = 64;
/// Turns between two looks at what others want of the worker.
const TURNS_PER_LOOK: u32 = 64;

/// The stages of a turn that moved something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Available index, descriptors, header, the head's copy.
    Receive,
    /// Habit, or parse, cache and pipeline.
    Decide,
    /// Descriptors, header and the copy of each frame; used index, notification.
    Send,
    /// The source ring's used index and notification.
    GiveBack,
}

impl Stage {
    const ALL: [Stage; 4] = [Stage::Receive, Stage::Decide, Stage::Send, Stage::GiveBack];

    fn title(self) -> &'static str {
        match self {
            Self::Receive => "receive: descriptors, header, head",
            Self::Decide => "switch: habit, or parse, cache, pipeline",
            Self::Send => "send: descriptors, header, copy, publish",
            Self::GiveBack => "give back: used index, notification",
        }
    }
}

/// What worker and others share.
#[derive(Debug, Default)]
struct Shelf {
    paused: AtomicBool,
    stopped: AtomicBool,
    frames: AtomicU64,
    busy_cycles: AtomicU64,
    idle_cycles: AtomicU64,
    /// By stage; only of a worker that keeps them apart.
    stages: [AtomicU64; Stage::ALL.len()],
}

/// A worker thread between two ports.
pub(crate) struct Bare {
    shelf: Arc<Shelf>,
    worker: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
    _control: Arc<VhostUserControl>,
}

impl Bare {
    /// A worker on `cpu`. With a switch, it also keeps the stages apart.
    pub(crate) fn start(cpu: usize, switch: Option<vswitch::Switch>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-bench").tempdir()?;
        let control = VhostUserControl::start().context("no control thread")?;
        let open = |index: usize| -> anyhow::Result<Device> {
            let spec = VhostUserSpec {
                socket_path: socket(folder.path(), index),
                role: Role::Connect,
                queue_pairs: 1,
                mac: Some(MacAddr(MACS[index])),
                mtu_bytes: 1500,
            };
            control.open(spec).map_err(|error| anyhow!("port {index}: {error}"))
        };
        let devices = [open(0)?, open(1)?];
        let shelf = Arc::new(Shelf::default());
        let seen = Arc::clone(&shelf);
        let worker = std::thread::Builder::new().name("worker-bare".into()).spawn(move || {
            // On another CPU the figures would be of another case; the sample is then void, for it has no frames.
            if probe::pin(cpu).is_ok() {
                Turns::new(devices, switch).run(&seen);
            }
        })?;
        Ok(Self { shelf, worker: Some(worker), folder, _control: control })
    }

    fn stages(&self) -> [u64; Stage::ALL.len()] {
        std::array::from_fn(|stage| self.shelf.stages[stage].load(Ordering::Relaxed))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.shelf.stopped.store(true, Ordering::Relaxed);
        self.resume();
        if let Some(worker) = self.worker.take() {
            let _panicked = worker.join();
        }
    }
}

fn socket(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("guest{index}.sock"))
}

impl Switch for Bare {
    fn sockets(&self) -> [PathBuf; 3] {
        [0, 1, 2].map(|index| socket(self.folder.path(), index))
    }

    fn version(&self) -> String {
        String::new()
    }

    fn forward(&mut self, _subject: Subject, _flows: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shelf = &self.shelf;
        Ok(WorkerCounters {
            frames: of(&shelf.frames),
            busy_cycles: of(&shelf.busy_cycles),
            idle_cycles: of(&shelf.idle_cycles),
            waited_ns: crate::subject::waited_ns(&self.workers()),
        })
    }

    fn workers(&self) -> Vec<u32> {
        crate::subject::threads(std::process::id(), "worker-bare")
    }

    fn pause(&self) {
        self.shelf.paused.store(true, Ordering::Relaxed);
    }

    fn resume(&self) {
        self.shelf.paused.store(false, Ordering::Relaxed);
        if let Some(worker) = &self.worker {
            worker.thread().unpark();
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.worker.as_ref().is_none_or(JoinHandle::is_finished);
        if ended { Err(anyhow!("the worker ended early")) } else { Ok(()) }
    }
}

/// The worker's own.
struct Turns {
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Arc<dyn TxQueue>>,
    burst: Burst,
    switch: Option<vswitch::Switch>,
    outputs: Outputs,
    stages: [u64; Stage::ALL.len()],
    _handles: Vec<Box<dyn ports::DeviceHandle>>,
}

impl Turns {
    fn new(devices: [Device; 2], switch: Option<vswitch::Switch>) -> Self {
        let (mut rx, mut tx, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for device in devices {
            rx.extend(device.rx);
            tx.extend(device.tx);
            handles.push(device.handle);
        }
        let (burst, outputs, stages) = (Burst::new(), Outputs::default(), [0; Stage::ALL.len()]);
        Self { rx, tx, burst, switch, outputs, stages, _handles: handles }
    }

    fn run(mut self, shelf: &Shelf) {
        let (mut frames, mut busy, mut idle) = (0, 0, 0);
        while !shelf.stopped.load(Ordering::Relaxed) {
            if shelf.paused.load(Ordering::Relaxed) {
                std::thread::park();
                continue;
            }
            let mut before = cycles::now();
            for _ in 0..TURNS_PER_LOOK {
                let moved = self.turn();
                let now = cycles::now();
                *(if moved > 0 { &mut busy } else { &mut idle }) += now - before;
                frames += moved;
                before = now;
            }
            shelf.frames.store(frames, Ordering::Relaxed);
            shelf.busy_cycles.store(busy, Ordering::Relaxed);
            shelf.idle_cycles.store(idle, Ordering::Relaxed);
            for (shown, stage) in shelf.stages.iter().zip(self.stages) {
                shown.store(stage, Ordering::Relaxed);
            }
        }
    }

    fn turn(&mut self) -> u64 {
        if self.switch.is_some() {
            (0..2).map(|port| self.staged(port)).sum()
        } else {
            (0..2).map(|port| self.cross(port)).sum()
        }
    }

    /// Whatever comes in by one port leaves by the other.
    fn cross(&mut self, port: usize) -> u64 {
        const ALL: [u8; BURST_FRAMES] = {
            let mut all = [0; BURST_FRAMES];
            let mut frame = 0;
            while frame < BURST_FRAMES {
                all[frame] = frame as u8;
                frame += 1;
            }
            all
        };
        let exit = &self.tx[1 - port];
        let report = self.rx[port].poll(&mut self.burst, &mut |burst: &mut Burst| {
            exit.send(burst, &ALL[..burst.len()]);
        });
        report.frames
    }

    /// The same with a switch between, and the time that each stage takes.
    fn staged(&mut self, port: usize) -> u64 {
        let Self { rx, tx, burst, switch, outputs, stages, .. } = self;
        let Some(switch) = switch else { return 0 };
        let [mut taken, mut decided, mut sent] = [0; 3];
        let start = cycles::now();
        let report = rx[port].poll(burst, &mut |burst: &mut Burst| {
            taken = cycles::now();
            outputs.clear();
            let number = PortNo(port as u16 + 1);
            switch.process(burst, number, Now::default(), outputs, &mut ProcessReport::default());
            decided = cycles::now();
            for group in outputs.groups() {
                if let Some(exit) = usize::from(group.port.0).checked_sub(1).and_then(|exit| tx.get(exit)) {
                    exit.send(burst, group.frames());
                }
            }
            sent = cycles::now();
        });
        if report.frames > 0 {
            let ends = [taken, decided, sent, cycles::now()];
            let mut before = start;
            for (stage, end) in stages.iter_mut().zip(ends) {
                *stage += end - before;
                before = end;
            }
        }
        report.frames
    }
}

/// The switch of the measured `millrace switch`: the same two ports, port security and all.
fn switch() -> anyhow::Result<vswitch::Switch> {
    let network = NetworkSpec {
        number: NetworkNo(1),
        name: "bench".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 1024,
        gateway: None,
        dhcp: None,
        overlay: None,
    };
    let mut ports = BTreeMap::new();
    for number in [1u16, 2] {
        let port = PortSpec {
            number: PortNo(number),
            name: format!("guest{number}"),
            network: network.number,
            vlan: VlanMode::Access(None),
            macs: vec![MacAddr(MACS[usize::from(number) - 1])],
            ips: IPS.iter().map(|ip| ip.parse()).collect::<Result<_, _>>()?,
            port_security: true,
            mac_limit: 16,
            isolated: false,
            mtu_bytes: 1500,
            policy: None,
        };
        ports.insert(port.number, port);
    }
    let spec = ProgramSpec {
        version: 1,
        networks: BTreeMap::from([(network.number, network)]),
        ports,
        ..ProgramSpec::default()
    };
    let program = Program::build(spec).map_err(|error| anyhow!("{error}"))?;
    Ok(vswitch::Switch::new(Shared::new(), program, cycles::now()))
}

/// Prints what each stage of a turn costs, for each of `frames`.
pub(crate) fn breakdown(options: &Options, frames: &[FrameKind]) -> anyhow::Result<()> {
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let _priority = Priority::raise()?;
    probe::pin(options.load_cpu())?;
    let mut bare = Bare::start(options.worker_cpu(), Some(switch()?))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "cycles of each frame by stage, light load, medians of {}\n", options.rounds())?;
    for frame in frames.iter().copied().filter(|frame| *frame != FrameKind::Large) {
        let case = Case::plain(frame);
        let mut traffic = Traffic::start(LoadKind::Light, case, bare.sockets(), options.load_cpu())?;
        let time = Duration::from_millis(options.samples.sample_ms);
        let mut rounds = Vec::new();
        for round in 1..=options.rounds() {
            say(&format!("{}: round {round}", frame.title()));
            rounds.push(round_of(&mut bare, &mut traffic, time)?);
        }
        let copied = Copying::start(options.worker_cpu()).run_alone(case, time);
        writeln!(out, "{}", frame.title())?;
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            let median =
                spread(rounds.iter().map(|stages: &[f64; 4]| stages[index])).map_or(0.0, |it| it.median);
            writeln!(out, "  {median:>6.0}  {}", stage.title())?;
        }
        if let Some((Moved { .. }, counters)) = copied {
            let cost = counters.busy_cycles as f64 / counters.frames as f64;
            writeln!(out, "  {cost:>6.0}  (for comparison: the bare copy of these bytes)")?;
        }
    }
    Ok(())
}

fn round_of(bare: &mut Bare, traffic: &mut Traffic, time: Duration) -> anyhow::Result<[f64; 4]> {
    traffic.prepare()?;
    let (mut frames, mut stages) = (0, [0; 4]);
    traffic.run(time, &mut || {
        frames = bare.counters()?.frames;
        stages = bare.stages();
        Ok(())
    })?;
    let moved = (bare.counters()?.frames - frames).max(1) as f64;
    let after = bare.stages();
    traffic.settle()?;
    Ok(std::array::from_fn(|stage| (after[stage] - stages[stage]) as f64 / moved))
}
