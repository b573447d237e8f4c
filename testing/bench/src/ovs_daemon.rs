//! A running OVS-DPDK: its own database, run directory and network namespace. Its bridge is also a kernel interface, and
//! several may run side by side.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::Netns;

use crate::netns;
use crate::process::{Process, output};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const SWITCH: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Time for the database to answer, and for DPDK to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What OVS is started with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DaemonSpec {
    /// The PMD's CPU.
    pub(crate) pmd_cpu: usize,
    /// Where the main thread runs, which forwards for ports that no PMD polls.
    pub(crate) main_cpu: usize,
    /// Where everything else runs.
    pub(crate) other_cpu: usize,
    /// Huge pages for packet buffers.
    pub(crate) memory_mib: u32,
    /// `userspace-tso-enable`, which can only be set at start.
    pub(crate) segmentation_offload: bool,
}

/// The processes, ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    // In this order: the switch ends before its database, and the folder goes last.
    switch: Process,
    _database: Process,
    netns: Netns,
    folder: tempfile::TempDir,
    version: String,
}

impl Daemon {
    /// Starts OVS with an empty bridge `br0` of the userspace datapath.
    pub(crate) fn start(spec: DaemonSpec) -> anyhow::Result<Self> {
        for file in [SCHEMA, SWITCH] {
            ensure!(
                Path::new(file).exists(),
                "OVS-DPDK is not installed ({file} is missing): apt-get install openvswitch-switch-dpdk"
            );
        }
        let folder = tempfile::Builder::new().prefix("millrace-bench-ovs").tempdir()?;
        let run = folder.path();
        let netns = netns::pod()?;
        let database = start_database(run, spec.other_cpu)?;
        set_up(run, spec)?;
        let mut switch = Process::start(Path::new("nsenter"), spec.main_cpu, run, |command| {
            command.arg(format!("--net={}", netns.path().display())).arg(SWITCH);
            command.arg(format!("unix:{}", run.join("db.sock").display()));
            command.arg(format!("--unixctl={}", run.join("ctl").display()));
            environment(command, run);
        })?;
        await_dpdk(run, &mut switch)?;
        let version = version(run)?;
        let daemon = Self { switch, _database: database, netns, folder, version };
        let bridge = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"];
        // Stations and flows that are known stay known while the switch is stopped for the others' turns.
        let memory = ["other_config:mac-table-size=65536", "other_config:mac-aging-time=3600"];
        output(daemon.vsctl().args(bridge).args(memory))?;
        Ok(daemon)
    }

    /// Its run directory.
    pub(crate) fn run(&self) -> &Path {
        self.folder.path()
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// `3.1.0, DPDK 22.11.5`.
    pub(crate) fn version(&self) -> String {
        self.version.clone()
    }

    /// What forwards.
    pub(crate) fn switch(&self) -> &Process {
        &self.switch
    }

    /// An error if it has died.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.switch.check()
    }

    /// A command for its database, to be told what.
    pub(crate) fn vsctl(&self) -> Command {
        vsctl(self.run())
    }

    /// Asks its control socket.
    pub(crate) fn appctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("ovs-appctl");
        command.arg("--timeout=10").arg("-t").arg(self.run().join("ctl")).args(arguments);
        environment(&mut command, self.run());
        output(&mut command)
    }

    /// Replaces the bridge's rules by those in `rules`, one on each line.
    pub(crate) fn set_rules(&self, rules: &str) -> anyhow::Result<()> {
        let file = self.run().join("rules");
        std::fs::write(&file, rules)?;
        let bridge = format!("unix:{}", self.run().join("br0.mgmt").display());
        for arguments in [vec!["del-flows", &bridge], vec!["add-flows", &bridge, &file.to_string_lossy()]] {
            let mut command = Command::new("ovs-ofctl");
            command.arg("--timeout=60").args(arguments);
            environment(&mut command, self.run());
            output(&mut command)?;
        }
        Ok(())
    }
}

fn environment(command: &mut Command, run: &Path) {
    for name in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(name, run);
    }
}

fn vsctl(run: &Path) -> Command {
    let mut command = Command::new("ovs-vsctl");
    command.arg("--timeout=30").arg(format!("--db=unix:{}", run.join("db.sock").display()));
    environment(&mut command, run);
    command
}

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
        command.arg(&file);
        command.arg(format!("--remote=punix:{}", run.join("db.sock").display()));
        command.arg(format!("--unixctl={}", run.join("db.ctl").display()));
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

fn set_up(run: &Path, spec: DaemonSpec) -> anyhow::Result<()> {
    let mut command = vsctl(run);
    command.args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."]);
    command.args(["other_config:dpdk-init=true", "other_config:dpdk-extra=--no-pci --in-memory"]);
    command.arg(format!("other_config:dpdk-socket-mem={}", spec.memory_mib));
    command.arg(format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << spec.pmd_cpu));
    command.arg(format!("other_config:dpdk-lcore-mask={:#x}", 1_u64 << spec.other_cpu));
    command.arg(format!("other_config:userspace-tso-enable={}", spec.segmentation_offload));
    // Flows outlive the turns of others.
    command.arg("other_config:max-idle=3600000");
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
