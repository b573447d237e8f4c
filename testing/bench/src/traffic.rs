//! Who keeps the two ports busy? Two guests of our own with a load that is lighter than any switch, or dpdk-testpmd.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use guest::connections::{ConnectionLoad, FloodLoad};
use guest::load::{LightLoad, Load, LoadReport, MacSwapLoad};
use guest::{Features, Guest, Listener, Notify};
use serde::Serialize;

use crate::attack::{Attacker, UnderAttack};
use crate::case::{Case, FrameKind, Work};
use crate::millrace::IPS;
use crate::process::Process;
use crate::services;
use crate::subject::MACS;

/// How long a switch may take to connect and to forward the first frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// Traffic before a sample that is not counted: caches fill, a sleeping worker wakes, flows are set up.
const WARM_UP: Duration = Duration::from_millis(100);
/// How long a switch may take to set up the flows of a sample.
const SETTLING: Duration = Duration::from_secs(60);

/// What drives the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadKind {
    /// One way; recycles descriptors, never touches a payload
    Light,
    /// To and fro; reads and writes each frame's addresses, rewrites each descriptor
    Macswap,
    /// To and fro by dpdk-testpmd; soon slower than the switch
    Testpmd,
    /// TCP connections, which our own guests make of themselves
    #[value(skip)]
    Tcp,
}

impl LoadKind {
    /// As the report names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Macswap => "macswap",
            Self::Testpmd => "testpmd",
            Self::Tcp => "tcp",
        }
    }
}

/// What was moved in one sample, as the load saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// None if the load does not count: the worker does.
    pub(crate) frames: Option<u64>,
    pub(crate) lost: u64,
    pub(crate) connections: u64,
    pub(crate) elapsed: Duration,
}

/// A load on the two ports of one switch.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// Ours.
    Guests(Box<Pair>),
    /// dpdk-testpmd, paused between samples.
    Testpmd(Process),
}

impl Traffic {
    /// Sets up `kind` for the frames of `case` between the first two of `sockets`, which the switch connects to. Who
    /// attacks is at the third.
    pub(crate) fn start(
        kind: LoadKind,
        case: Case,
        sockets: [PathBuf; 3],
        cpu: usize,
    ) -> anyhow::Result<Self> {
        match kind {
            LoadKind::Testpmd => testpmd(case.frame, &sockets, cpu).map(Self::Testpmd),
            LoadKind::Light | LoadKind::Macswap | LoadKind::Tcp => {
                let large = case.frame == FrameKind::Large;
                ensure!(!large || kind == LoadKind::Light, "64 KB frames are for the light load only");
                Ok(Self::Guests(Box::new(Pair {
                    kind,
                    case,
                    sockets,
                    guests: None,
                    next_flow: 0,
                    scenery: Scenery::default(),
                })))
            }
        }
    }

    /// Makes sure that frames pass. The switch must be running.
    pub(crate) fn prepare(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Guests(pair) => pair.prepare(),
            Self::Testpmd(process) => {
                process.resume();
                await_prompt(process)?;
                process.tell("start tx_first 8")
            }
        }
    }

    /// Moves frames for `time`, after a warm-up. `begin` is called between the two.
    pub(crate) fn run(
        &mut self,
        time: Duration,
        begin: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Moved> {
        match self {
            Self::Guests(pair) => pair.run(time, begin),
            Self::Testpmd(process) => {
                std::thread::sleep(WARM_UP);
                begin()?;
                let start = Instant::now();
                std::thread::sleep(time);
                process.check()?;
                Ok(Moved { frames: None, lost: 0, connections: 0, elapsed: start.elapsed() })
            }
        }
    }

    /// Ends what [`Traffic::prepare`] began.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Guests(pair) => pair.settle(),
            Self::Testpmd(process) => {
                process.tell("stop")?;
                // So that it stops as told before it is stopped.
                std::thread::sleep(WARM_UP);
                process.pause();
                Ok(())
            }
        }
    }
}

/// Two guests.
#[derive(Debug)]
pub(crate) struct Pair {
    kind: LoadKind,
    case: Case,
    sockets: [PathBuf; 3],
    guests: Option<[Guest; 2]>,
    /// Where the next sample goes on.
    next_flow: u32,
    scenery: Scenery,
}

/// What is beside a load.
#[derive(Debug, Default)]
struct Scenery {
    attacker: Option<Attacker>,
    /// The switch knows all flows.
    settled: bool,
}

impl Pair {
    fn connect(&self) -> anyhow::Result<[Guest; 2]> {
        let large = self.case.frame == FrameKind::Large;
        // Polling rings of a DPDK program; a page per buffer for large frames, as Linux gives.
        let mut features =
            Features::PLAIN | Features::MRG_RXBUF | Features::INDIRECT_DESC | Features::IN_ORDER;
        if large {
            features |= Features::OFFLOADS;
        }
        let builder = Guest::builder()
            .features(features)
            .notify(Notify::Poll)
            .huge_pages(true)
            .timeout(PATIENCE)
            .buffer_bytes(if large { 4096 } else { 2048 });
        let [first, second, _] = &self.sockets;
        let listen = |path: &Path| builder.clone().listen(path).context("a guest cannot listen");
        let listeners = [listen(first)?, listen(second)?];
        let accept =
            |listener: Listener| listener.accept(PATIENCE).context("the switch does not connect to a guest");
        let [first, second] = listeners;
        let guests = [accept(first)?, accept(second)?];
        if large {
            let wanted = Features::HOST_TSO4 | Features::GUEST_TSO4 | Features::MRG_RXBUF;
            for guest in &guests {
                ensure!(guest.features().contains(wanted), "the switch does not offer {wanted:?}");
            }
        }
        Ok(guests)
    }

    /// Connects if necessary, and sends single frames both ways until both arrive: the switch has then learned where the
    /// guests are.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut guests = match self.guests.take() {
            Some(guests) => guests,
            None => self.connect()?,
        };
        if self.case.attacked && self.scenery.attacker.is_none() {
            self.scenery.attacker = Some(Attacker::connect(&self.sockets[2], PATIENCE)?);
        }
        let deadline = Instant::now() + PATIENCE;
        if self.kind == LoadKind::Tcp {
            services::prove(&mut guests, deadline)?;
            drain(&mut guests)?;
            self.guests = Some(guests);
            return Ok(());
        }
        let mut arrived = [false; 2];
        let hellos = [0, 1].map(|from| self.case.hellos(from));
        while arrived != [true; 2] {
            ensure!(
                Instant::now() < deadline,
                "the switch forwards nothing (seen at the guests: {arrived:?})"
            );
            for from in [1, 0] {
                let to = 1 - from;
                for hello in &hellos[from] {
                    guests[from].send(hello)?;
                    arrived[to] |= guests[to].recv(Duration::from_millis(20))?.is_some();
                }
            }
        }
        drain(&mut guests)?;
        self.guests = Some(guests);
        Ok(())
    }

    fn run(
        &mut self,
        time: Duration,
        begin: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Moved> {
        let Some([first, second]) = &mut self.guests else { bail!("the guests are not connected") };
        let (header, frame) = self.case.frame(0);
        let flows = self.case.flows;
        let mut connections = 0;
        let report = match (self.kind, self.case.work) {
            (LoadKind::Tcp, Work::Denied) => {
                let load = FloodLoad::new(first, services::exchange(Work::Denied), self.next_flow);
                let (load, report) = run(load, 0, &mut self.scenery, time, &mut |_| begin())?;
                self.next_flow = load.next();
                report
            }
            (LoadKind::Tcp, work) => {
                let load = ConnectionLoad::new(first, second, services::exchange(work), self.next_flow);
                let mut before = [0; 2];
                let (mut load, report) = run(load, 0, &mut self.scenery, time, &mut |load| {
                    before = [load.completed(), load.lost()];
                    begin()
                })?;
                self.next_flow = load.next();
                connections = load.completed() - before[0];
                let lost = load.lost() - before[1];
                load.end()?;
                LoadReport { lost, ..report }
            }
            (LoadKind::Macswap, _) => {
                let load = MacSwapLoad::new(first, second, &frame)?;
                run(load, flows.count(), &mut self.scenery, time, &mut |_| begin())?.1
            }
            _ => {
                let load = LightLoad::new(first, second, &header, &frame)?.with_flows(flows, self.next_flow);
                let (load, report) = run(load, flows.count(), &mut self.scenery, time, &mut |_| begin())?;
                self.next_flow = load.flow();
                report
            }
        };
        Ok(Moved { frames: Some(report.frames), lost: report.lost, connections, elapsed: report.elapsed })
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        match (self.kind, &mut self.guests) {
            (LoadKind::Light, Some(guests)) => drain(guests),
            _ => {
                // That load leaves the rings as no single frame can use them: the next sample has new guests.
                self.guests = None;
                Ok(())
            }
        }
    }
}

/// Runs `load` for `time`, behind a warm-up in which each of its flows has come by and an attack has reached its height.
/// `begin` is called between the two.
fn run<L: Load>(
    load: L,
    flows: u32,
    scenery: &mut Scenery,
    time: Duration,
    begin: &mut dyn FnMut(&L) -> anyhow::Result<()>,
) -> anyhow::Result<(L, LoadReport)> {
    let mut load = UnderAttack::new(load, &mut scenery.attacker);
    load.run(WARM_UP)?;
    let start = Instant::now();
    let mut frames = 0;
    // Twice: what a cache takes at the second sight is in it, too.
    while !scenery.settled && frames < 2 * u64::from(flows) {
        ensure!(
            start.elapsed() < SETTLING,
            "after {SETTLING:?} {frames} frames have come: too few for {flows} flows"
        );
        frames += load.run(WARM_UP)?.frames;
    }
    while load.is_building_up() {
        load.run(WARM_UP)?;
    }
    scenery.settled = true;
    begin(load.inner())?;
    let report = load.run(time)?;
    Ok((load.into_inner(), report))
}

/// Waits until nothing is on its way.
fn drain(guests: &mut [Guest; 2]) -> anyhow::Result<()> {
    for guest in guests.iter_mut() {
        ensure!(guest.flush(PATIENCE)?, "the switch does not take what was sent");
    }
    for guest in guests.iter_mut() {
        while guest.recv(Duration::from_millis(2))?.is_some() {}
    }
    Ok(())
}

/// testpmd asks for commands once the switch has connected to both of its ports.
fn await_prompt(process: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains("testpmd>") {
        process.check()?;
        ensure!(Instant::now() < deadline, "the switch does not connect to testpmd");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// dpdk-testpmd, which forwards between its two ports with addresses that suit a learning switch.
fn testpmd(frame: FrameKind, sockets: &[PathBuf], cpu: usize) -> anyhow::Result<Process> {
    let FrameKind::Plain(bytes) = frame else { bail!("64 KB frames are for the light load only") };
    let folder = sockets[0].parent().unwrap_or(Path::new("/tmp"));
    let sockets = &sockets[..2];
    for socket in sockets {
        // Left by the testpmd before, which the switch, being stopped, did not let end well; a new one refuses it.
        let _none_left = std::fs::remove_file(socket);
    }
    let mac = |index: usize| MACS[index].map(|byte| format!("{byte:02x}")).join(":");
    Process::start(Path::new("dpdk-testpmd"), cpu, folder, |command| {
        command.args(["--lcores", &format!("0@{cpu},1@{cpu}"), "--no-pci", "--in-memory"]);
        command.args(["--single-file-segments", "-m", "256", "--no-telemetry"]);
        for (index, socket) in sockets.iter().enumerate() {
            command.arg(format!(
                "--vdev=net_virtio_user{index},path={},server=1,queues=1,mac={}",
                socket.display(),
                mac(index)
            ));
        }
        command.args(["--", "--interactive", "--nb-cores=1", "--forward-mode=mac", "--no-lsc-interrupt"]);
        command.args([&format!("--txpkts={bytes}"), &format!("--tx-ip={}", IPS.join(","))]);
        for index in [0, 1] {
            command.arg(format!("--eth-peer={index},{}", mac(1 - index)));
        }
    })
}
