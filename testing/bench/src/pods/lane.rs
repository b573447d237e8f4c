//! How is a contender started, woken for a sample, and stopped again?

use std::time::Duration;

use anyhow::Context;

use super::contender::Link;
use super::iperf::{self, Server};
use super::ovs::OvsPorts;
use super::{Load, Measure, PodsArgs, Sample, bridge, datagrams, millrace, nodes, ovs, vduse};
use crate::figures::say;
use crate::interrupt::Interrupt;
use crate::probe::{self, Label};

/// Two connected pods and the server in the second. The server ends first.
pub(super) struct Lane {
    _server: Server,
    pub(super) link: Link,
}

/// Starts every contender that this machine can have, and stops it.
pub(super) fn start(args: &PodsArgs, interrupt: &Interrupt) -> anyhow::Result<Vec<Lane>> {
    let (worker, other) = (args.measured.worker_cpu, args.other_cpu);
    let program = args.measured.program()?;
    let mut lanes = Vec::new();
    let mut add = |link: Link| -> anyhow::Result<()> {
        interrupt.check()?;
        let server = Server::start(&link.pods[1])?;
        link.pause();
        lanes.push(Lane { _server: server, link });
        Ok(())
    };
    if args.across_nodes {
        say("starting two nodes with Millrace");
        add(nodes::start_millrace(&program, [worker, other])?)?;
        say("making two nodes with VXLAN");
        add(nodes::start_vxlan()?)?;
        return Ok(lanes);
    }
    say("starting Millrace with TAP ports");
    add(millrace::start(&program, worker, other)?)?;
    match vduse::missing(&program) {
        None => {
            say("starting Millrace with VDUSE ports");
            add(vduse::start(&program, worker, other)?)?;
        }
        Some(why) => say(&format!("Millrace with VDUSE ports is left out: {why}")),
    }
    say("making veth pairs and a bridge");
    add(bridge::start()?)?;
    if !args.without_ovs {
        for ports in [OvsPorts::Tap, OvsPorts::AfPacket] {
            say("starting Open vSwitch");
            add(ovs::start(ports, worker, other)?)?;
        }
    }
    Ok(lanes)
}

impl Lane {
    /// Wakes the contender, measures, and stops it again.
    pub(super) fn sample(&mut self, args: &PodsArgs, load: Load) -> anyhow::Result<Sample> {
        let distance = || probe::round_trip_cycles(args.other_cpu, args.measured.worker_cpu);
        let before = distance()?;
        let result = self.link.resume().and_then(|()| self.measure(args, load));
        self.link.pause();
        let measure = result.with_context(|| format!("measuring {}: {load}", self.link.contender.title()))?;
        let label = Label::of(before, distance()?);
        Ok(Sample { load, contender: self.link.contender, label, measure })
    }

    fn measure(&self, args: &PodsArgs, load: Load) -> anyhow::Result<Measure> {
        let (pods, time) = (&self.link.pods, args.sample_s);
        match load {
            Load::Stream { message_bytes } => {
                let before = self.link.spent();
                let transfer = iperf::transfer(&pods[0], message_bytes, args.manner(), time)?;
                Ok(Measure::Stream { transfer, spent: self.link.spent().since(before) })
            }
            Load::Packets => {
                let spent = || self.link.spent();
                let (flow, spent) = datagrams::flow(pods, Duration::from_secs(time), spent)?;
                Ok(Measure::Packets { flow, spent })
            }
        }
    }
}
