//! The peer OVS-DPDK between vhost-user guests: one PMD thread, `dpdkvhostuserclient` ports.

use std::path::PathBuf;

use anyhow::{Context, bail};
use guest::load::Flows;

use crate::attack;
use crate::ovs_daemon::{Daemon, DaemonSpec};
use crate::process::output;
use crate::services;
use crate::subject::{Scene, Subject, Switch, WorkerCounters, threads, waited_ns};

/// What OVS is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OvsSpec {
    /// The PMD's CPU.
    pub(crate) worker_cpu: usize,
    /// Where everything else of OVS runs.
    pub(crate) other_cpu: usize,
    /// Huge pages for packet buffers.
    pub(crate) memory_mib: u32,
    /// `userspace-tso-enable`, which can only be set at start.
    pub(crate) segmentation_offload: bool,
    /// Ports and stations.
    pub(crate) scene: Scene,
}

/// A running OVS-DPDK with two ports, or three.
#[derive(Debug)]
pub(crate) struct Ovs {
    daemon: Daemon,
    worker_cpu: usize,
    /// There is a third port.
    attacked: bool,
    /// What it forwards by.
    current: Option<(Subject, u32)>,
}

impl Ovs {
    /// Starts OVS and makes its ports.
    pub(crate) fn start(spec: OvsSpec) -> anyhow::Result<Self> {
        let OvsSpec { worker_cpu, scene: Scene { attacked, .. }, .. } = spec;
        let daemon = Daemon::start(DaemonSpec {
            pmd_cpu: worker_cpu,
            main_cpu: spec.other_cpu,
            other_cpu: spec.other_cpu,
            memory_mib: spec.memory_mib,
            segmentation_offload: spec.segmentation_offload,
        })?;
        let ovs = Self { daemon, worker_cpu, attacked, current: None };
        ovs.add_ports()?;
        Ok(ovs)
    }

    fn add_ports(&self) -> anyhow::Result<()> {
        let mut command = self.daemon.vsctl();
        let ports = if self.attacked { 3 } else { 2 };
        for (index, socket) in self.sockets().iter().enumerate().take(ports) {
            let name = format!("vhost{index}");
            command.args(["--", "add-port", "br0", &name, "--", "set", "Interface", &name]);
            command.arg("type=dpdkvhostuserclient");
            command.arg(format!("options:vhost-server-path={}", socket.display()));
            command.arg(format!("ofport_request={}", index + 1));
        }
        output(&mut command).map(drop)
    }
}

impl Switch for Ovs {
    fn sockets(&self) -> [PathBuf; 3] {
        [0, 1, 2].map(|index| self.daemon.run().join(format!("guest{index}.sock")))
    }

    fn version(&self) -> String {
        self.daemon.version()
    }

    fn forward(&mut self, subject: Subject, flows: u32) -> anyhow::Result<()> {
        if self.current == Some((subject, flows)) {
            return Ok(());
        }
        self.daemon.set_rules(&rules_of(subject, flows, self.attacked)?)?;
        self.current = Some((subject, flows));
        // Datapath flows of the mode before would live on for seconds. Not dpctl/del-flows: the revalidators would not
        // know, and never install these flows again.
        self.daemon.appctl(&["revalidator/purge"]).map(drop)
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        let text = self.daemon.appctl(&["dpif-netdev/pmd-stats-show"])?;
        let mut counters = parse_pmd_stats(&text, self.worker_cpu)
            .with_context(|| format!("no counters of the PMD on CPU {} in:\n{text}", self.worker_cpu))?;
        counters.waited_ns = waited_ns(&self.workers());
        Ok(counters)
    }

    fn workers(&self) -> Vec<u32> {
        threads(self.daemon.switch().id(), "pmd")
    }

    fn pause(&self) {
        self.daemon.switch().pause();
    }

    fn resume(&self) {
        self.daemon.switch().resume();
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.daemon.check()
    }
}

/// The rules of `subject`, one on each line.
fn rules_of(subject: Subject, flows: u32, attacked: bool) -> anyhow::Result<String> {
    let mut rules = if attacked { attack::RULES.map(String::from).to_vec() } else { Vec::new() };
    match subject {
        Subject::OvsInPort => {
            rules.extend(["in_port=1,actions=output:2", "in_port=2,actions=output:1"].map(String::from));
        }
        Subject::OvsNormal => rules.push("priority=10,actions=NORMAL".into()),
        Subject::OvsRules => {
            rules.push("priority=10,actions=NORMAL".into());
            rules.extend((0..flows).map(|flow| {
                let [source, destination] = Flows::ports(flow);
                format!("priority=15,udp,in_port=1,tp_src={source},tp_dst={destination},actions=output:2")
            }));
        }
        Subject::OvsConntrack => rules.extend(services::rules()),
        Subject::Millrace | Subject::Limit | Subject::Copy => bail!("OVS is not {}", subject.title()),
    }
    Ok(rules.join("\n") + "\n")
}

/// Reads the block of the PMD on `cpu`: `packets received`, `idle cycles`, `processing cycles`.
fn parse_pmd_stats(text: &str, cpu: usize) -> Option<WorkerCounters> {
    let core = format!("core_id {cpu}:");
    let block = text
        .split("pmd thread")
        .find(|block| block.lines().next().is_some_and(|line| line.trim_end().ends_with(&core)))?;
    let field = |name: &str| -> Option<u64> {
        let line = block.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    Some(WorkerCounters {
        frames: field("packets received")?,
        busy_cycles: field("processing cycles").unwrap_or(0),
        idle_cycles: field("idle cycles").unwrap_or(0),
        waited_ns: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pmd thread numa_id 0 core_id 0:\n  packets received: 1234\n  packet recirculations: 0\n  \
        avg. datapath passes per packet: 1.00\n  idle cycles: 100 (10.00%)\n  processing cycles: 900 (90.00%)\n  \
        avg cycles per packet: 0.81 (1000/1234)\nmain thread:\n  packets received: 7\n";

    #[test]
    fn pmd_stats_when_printed_are_read() {
        let expected = WorkerCounters { frames: 1234, busy_cycles: 900, idle_cycles: 100, waited_ns: 0 };
        assert_eq!(parse_pmd_stats(TEXT, 0), Some(expected));
        assert_eq!(parse_pmd_stats(TEXT, 1), None);
    }
}
