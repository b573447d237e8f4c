//! The peer OVS-DPDK: its own database, its own run directory, one PMD thread, two `dpdkvhostuserclient` ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use guest::load::Flows;

use crate::attack;
use crate::process::{Process, output};
use crate::subject::{Scene, Subject, Switch, WorkerCounters, threads, waited_ns};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Time for the database to answer, and for DPDK to start.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A running OVS-DPDK.
#[derive(Debug)]
pub(crate) struct Ovs {
    // In this order: the switch ends before its database, and the folder goes last.
    switch: Process,
    _database: Process,
    folder: tempfile::TempDir,
    version: String,
    worker_cpu: usize,
    /// There is a third port.
    attacked: bool,
    /// What it forwards by.
    current: Option<(Subject, u32)>,
}

impl Ovs {
    /// Starts OVS and makes its bridge.
    pub(crate) fn start(spec: OvsSpec) -> anyhow::Result<Self> {
        for file in [SCHEMA, SWITCH] {
            ensure!(
                Path::new(file).exists(),
                "OVS-DPDK is not installed ({file} is missing): apt-get install openvswitch-switch-dpdk"
            );
        }
        let folder = tempfile::Builder::new().prefix("millrace-bench-ovs").tempdir()?;
        let run = folder.path();
        let database = start_database(run, spec.other_cpu)?;
        set_up(run, spec)?;
        // In a network namespace of its own: its bridge is also a kernel interface, and there may be two of it.
        let mut switch = Process::start(Path::new("unshare"), spec.other_cpu, run, |command| {
            command
                .args(["--net", SWITCH])
                .arg(format!("unix:{}", run.join("db.sock").display()))
                .arg(format!("--unixctl={}", run.join("ctl").display()));
            environment(command, run);
        })?;
        await_dpdk(run, &mut switch)?;
        let version = version(run)?;
        let OvsSpec { worker_cpu, scene: Scene { attacked, .. }, .. } = spec;
        let ovs = Self { switch, _database: database, folder, version, worker_cpu, attacked, current: None };
        ovs.add_ports(spec.scene)?;
        Ok(ovs)
    }

    fn run(&self) -> &Path {
        self.folder.path()
    }

    fn add_ports(&self, scene: Scene) -> anyhow::Result<()> {
        let mut command = vsctl(self.run());
        command.args(["--timeout=30", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        // Stations and flows that are known stay known while the switch is stopped for the others' turns.
        command.args(["other_config:mac-table-size=65536", "other_config:mac-aging-time=3600"]);
        let ports = if scene.attacked { 3 } else { 2 };
        for (index, socket) in self.sockets().iter().enumerate().take(ports) {
            let name = format!("vhost{index}");
            command.args(["--", "add-port", "br0", &name, "--", "set", "Interface", &name]);
            command.arg("type=dpdkvhostuserclient");
            command.arg(format!("options:vhost-server-path={}", socket.display()));
            command.arg(format!("ofport_request={}", index + 1));
        }
        output(&mut command).map(drop)
    }

    fn appctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("ovs-appctl");
        command.arg("--timeout=10").arg("-t").arg(self.run().join("ctl")).args(arguments);
        environment(&mut command, self.run());
        output(&mut command)
    }
}

impl Switch for Ovs {
    fn sockets(&self) -> [PathBuf; 3] {
        [0, 1, 2].map(|index| self.run().join(format!("guest{index}.sock")))
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn forward(&mut self, subject: Subject, flows: u32) -> anyhow::Result<()> {
        if self.current == Some((subject, flows)) {
            return Ok(());
        }
        let rules = self.run().join("rules");
        std::fs::write(&rules, rules_of(subject, flows, self.attacked)?)?;
        let bridge = format!("unix:{}", self.run().join("br0.mgmt").display());
        for arguments in [vec!["del-flows", &bridge], vec!["add-flows", &bridge, &rules.to_string_lossy()]] {
            let mut command = Command::new("ovs-ofctl");
            command.arg("--timeout=60").args(arguments);
            environment(&mut command, self.run());
            output(&mut command)?;
        }
        self.current = Some((subject, flows));
        // Datapath flows of the mode before would live on for seconds. Not dpctl/del-flows: the revalidators would not
        // know, and never install these flows again.
        self.appctl(&["revalidator/purge"]).map(drop)
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        let text = self.appctl(&["dpif-netdev/pmd-stats-show"])?;
        let mut counters = parse_pmd_stats(&text, self.worker_cpu)
            .with_context(|| format!("no counters of the PMD on CPU {} in:\n{text}", self.worker_cpu))?;
        counters.waited_ns = waited_ns(&self.workers());
        Ok(counters)
    }

    fn workers(&self) -> Vec<u32> {
        threads(self.switch.id(), "pmd")
    }

    fn pause(&self) {
        self.switch.pause();
    }

    fn resume(&self) {
        self.switch.resume();
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.switch.check()
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
        Subject::Millrace | Subject::Limit | Subject::Copy => bail!("OVS is not {}", subject.title()),
    }
    Ok(rules.join("\n") + "\n")
}

fn environment(command: &mut Command, run: &Path) {
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(name, run);
    }
}

fn vsctl(run: &Path) -> Command {
    let mut command = Command::new("ovs-vsctl");
    command.arg(format!("--db=unix:{}", run.join("db.sock").display()));
    environment(&mut command, run);
    command
}

/// `3.1.0, DPDK 22.11.5`.
fn version(run: &Path) -> anyhow::Result<String> {
    let text = output(Command::new(SWITCH).arg("--version"))?;
    let switch = text.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("unknown");
    let dpdk = output(vsctl(run).args(["--no-wait", "get", "Open_vSwitch", ".", "dpdk_version"]))?;
    Ok(format!("{switch}, {}", dpdk.trim().trim_matches('"')))
}

fn start_database(run: &Path, cpu: usize) -> anyhow::Result<Process> {
    let file = run.join("conf.db");
    output(Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA))?;
    let mut database = Process::start(Path::new("/usr/sbin/ovsdb-server"), cpu, run, |command| {
        command
            .arg(&file)
            .arg(format!("--remote=punix:{}", run.join("db.sock").display()))
            .arg(format!("--unixctl={}", run.join("db.ctl").display()));
        environment(command, run);
    })?;
    let deadline = Instant::now() + PATIENCE;
    while !run.join("db.sock").exists() {
        database.check()?;
        ensure!(Instant::now() < deadline, "ovsdb-server makes no socket");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(database)
}

fn set_up(run: &Path, spec: OvsSpec) -> anyhow::Result<()> {
    let mut command = vsctl(run);
    command.args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."]);
    command.args(["other_config:dpdk-init=true", "other_config:dpdk-extra=--no-pci --in-memory"]);
    command.arg(format!("other_config:dpdk-socket-mem={}", spec.memory_mib));
    command.arg(format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << spec.worker_cpu));
    command.arg(format!("other_config:dpdk-lcore-mask={:#x}", 1_u64 << spec.other_cpu));
    // Flows outlive the turns of others.
    command.arg("other_config:max-idle=3600000");
    if spec.segmentation_offload {
        command.arg("other_config:userspace-tso-enable=true");
    }
    output(&mut command).map(drop)
}

fn await_dpdk(run: &Path, switch: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        switch.check()?;
        let mut command = vsctl(run);
        command.args(["--no-wait", "get", "Open_vSwitch", ".", "dpdk_initialized"]);
        if output(&mut command)?.trim() == "true" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "OVS did not start DPDK in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
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
