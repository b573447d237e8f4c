//! One subject with its two ends: how is it started, woken for a sample, and stopped again?

use std::time::{Duration, Instant};

use anyhow::bail;

use super::guests::Pair;
use super::{CALM, LatencyArgs, Load, Measure, Pace, WATCH, echo};
use crate::cpu;
use crate::figures::say;
use crate::interrupt::Interrupt;
use crate::millrace::Millrace;
use crate::ovs::{Ovs, OvsSpec};
use crate::pods::contender::{Contender, Link};
use crate::pods::ovs::OvsPorts;
use crate::pods::{self, ovs};
use crate::subject::{Scene, Subject, Switch};

/// Huge pages (2 MiB) for OVS's packet buffers and two pairs of guests, and some to spare.
const VHOST_PAGES: u64 = 1200;
const OVS_MEMORY_MIB: u32 = 1024;
/// Of those, what guests alone need.
const GUEST_PAGES: u64 = 64;
const SCENE: Scene = Scene { attacked: false, stations: 1, has_services: false };

/// Starts all subjects of one kind of ends.
pub(super) type Start = fn(&LatencyArgs, &Interrupt) -> anyhow::Result<Vec<Lane>>;

/// One subject.
pub(super) enum Lane {
    /// Between kernel pods.
    Pods(Link),
    /// Between vhost-user guests, which go before the switch that serves them.
    Guests { pair: Pair, switch: Box<dyn Switch>, contender: Contender },
}

/// Huge pages that the subjects of a load need.
pub(super) fn huge_pages(load: Load, args: &LatencyArgs) -> u64 {
    match (Load::PODS.contains(&load), args.without_ovs) {
        (true, true) => 0,
        (true, false) => ovs::HUGE_PAGES,
        (false, true) => GUEST_PAGES,
        (false, false) => VHOST_PAGES,
    }
}

/// Millrace, the kernel and OVS between kernel pods.
pub(super) fn pods(args: &LatencyArgs, interrupt: &Interrupt) -> anyhow::Result<Vec<Lane>> {
    let (worker, other) = (args.worker_cpu(), args.cpus.load_cpu);
    let mut lanes = Vec::new();
    let mut add = |link: Link| {
        link.pause();
        lanes.push(Lane::Pods(link));
        interrupt.check()
    };
    say("connecting kernel pods by Millrace");
    add(pods::start_millrace(&args.cpus.measured.program()?, worker, other)?)?;
    say("connecting kernel pods by veth pairs and a bridge");
    add(pods::start_bridge()?)?;
    if !args.without_ovs {
        say("connecting kernel pods by OVS-DPDK");
        add(ovs::start(OvsPorts::AfPacket, worker, other)?)?;
    }
    Ok(lanes)
}

/// Millrace and OVS between vhost-user guests.
pub(super) fn guests(args: &LatencyArgs, interrupt: &Interrupt) -> anyhow::Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    let mut add = |contender, mut switch: Box<dyn Switch>, subject| -> anyhow::Result<()> {
        switch.forward(subject, 1)?;
        let pair = Pair::connect(switch.as_ref())?;
        switch.pause();
        lanes.push(Lane::Guests { pair, switch, contender });
        interrupt.check()
    };
    say("connecting vhost-user guests by Millrace");
    let (worker_cpu, other_cpu) = (args.worker_cpu(), args.cpus.load_cpu);
    let millrace = Millrace::start(&args.cpus.measured.program()?, worker_cpu, other_cpu, SCENE)?;
    add(Contender::MillraceVhost, Box::new(millrace), Subject::Millrace)?;
    if !args.without_ovs {
        say("connecting vhost-user guests by OVS-DPDK");
        let ovs = Ovs::start(OvsSpec {
            worker_cpu,
            other_cpu,
            memory_mib: OVS_MEMORY_MIB,
            segmentation_offload: false,
            scene: SCENE,
        })?;
        add(Contender::OvsVhost, Box::new(ovs), Subject::OvsNormal)?;
    }
    Ok(lanes)
}

impl Lane {
    pub(super) fn contender(&self) -> Contender {
        match self {
            Self::Pods(link) => link.contender,
            Self::Guests { contender, .. } => *contender,
        }
    }

    pub(super) fn version(&self) -> String {
        match self {
            Self::Pods(link) => link.version.clone(),
            Self::Guests { switch, .. } => switch.version(),
        }
    }

    /// Wakes the subject, measures, and stops it again.
    pub(super) fn sample(&mut self, load: Load, time: Duration) -> anyhow::Result<Measure> {
        let result = self.resume().and_then(|()| self.measure(load, time));
        self.pause();
        result
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Pods(link) => link.resume(),
            Self::Guests { pair, switch, .. } => {
                switch.resume();
                switch.check()?;
                pair.await_path()
            }
        }
    }

    fn pause(&self) {
        match self {
            Self::Pods(link) => link.pause(),
            Self::Guests { switch, .. } => switch.pause(),
        }
    }

    fn measure(&mut self, load: Load, time: Duration) -> anyhow::Result<Measure> {
        if load.is_watch() {
            return Ok(Measure::Cpu(self.watch()));
        }
        let times = match (self, load) {
            (Self::Pods(link), Load::PodsBusy) => echo::round_trips(&link.pods, Pace::Busy, time)?,
            (Self::Pods(link), Load::PodsIdle) => echo::round_trips(&link.pods, Pace::Idle, time)?,
            (Self::Guests { pair, .. }, Load::GuestsBusy) => pair.round_trips(time)?,
            (Self::Guests { pair, .. }, Load::GuestsWake) => pair.wake_ups(time)?,
            _ => bail!("these ends have no such load"),
        };
        Measure::of(times)
    }

    /// The share of a core that is used while nothing is sent.
    fn watch(&self) -> f64 {
        std::thread::sleep(CALM);
        let (start, before) = (Instant::now(), self.cpu_ns());
        std::thread::sleep(WATCH);
        (self.cpu_ns() - before) as f64 / start.elapsed().as_nanos() as f64
    }

    /// Of a switch's program between pods, of its workers between guests.
    fn cpu_ns(&self) -> u64 {
        match self {
            Self::Pods(link) => link.cpu_ns(),
            Self::Guests { switch, .. } => cpu::threads_ns(&switch.workers()),
        }
    }
}
