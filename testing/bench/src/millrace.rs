//! The subject Millrace between vhost-user guests: a real `millrace switch` process with one worker.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use local_api::switch_v1 as api;

use crate::millrace_switch::SwitchProcess;
use crate::services;
use crate::subject::{MACS, Scene, Subject, Switch, WorkerCounters, threads, waited_ns};

/// The guests' addresses: port security checks them.
pub(crate) const IPS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// That of who attacks.
const ATTACKER_IP: &str = "10.0.0.3";

/// A running `millrace switch` with two ports, or three.
#[derive(Debug)]
pub(crate) struct Millrace(SwitchProcess);

impl Millrace {
    /// Starts `program switch` with its worker on `worker_cpu`, and makes its ports.
    pub(crate) fn start(
        program: &Path,
        worker_cpu: usize,
        other_cpu: usize,
        scene: Scene,
    ) -> anyhow::Result<Self> {
        let mut millrace = Self::empty(program, worker_cpu, other_cpu)?;
        let sockets = millrace.sockets();
        if scene.has_services {
            millrace.0.apply(services::program(&sockets))?;
            return Ok(millrace);
        }
        let used = if scene.attacked { &sockets[..] } else { &sockets[..2] };
        let ports = used.iter().enumerate().map(|(index, socket)| port(index, socket, scene)).collect();
        millrace.0.add_ports(ports)?;
        Ok(millrace)
    }

    /// The same without ports, to be told more.
    pub(crate) fn empty(program: &Path, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Self> {
        Ok(Self(SwitchProcess::start(program, worker_cpu, other_cpu)?))
    }

    /// Programs it, for the first time or from the version that it has.
    pub(crate) fn apply(&mut self, request: api::ApplyRequest) -> anyhow::Result<()> {
        self.0.apply(request)
    }

    /// Its resident memory.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.process().id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no memory is told")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

fn port(index: usize, socket: &Path, scene: Scene) -> api::Port {
    let one_station = scene.stations <= 1;
    let mac = MACS[index].map(|byte| format!("{byte:02x}")).join(":");
    let ips = if index < 2 { IPS.to_vec() } else { vec![ATTACKER_IP] };
    api::Port {
        number: index as u32 + 1,
        name: format!("guest{index}"),
        network: 1,
        macs: vec![mac],
        // Both: a load that sends frames back with swapped MAC addresses leaves the IP addresses as they are.
        ips: ips.into_iter().map(String::from).collect(),
        port_security: one_station,
        mac_limit: 16.max(2 * scene.stations),
        mtu_bytes: 1500,
        device: Some(api::port::Device::VhostUser(api::VhostUserDevice {
            socket_path: socket.to_string_lossy().into_owned(),
            connect: true,
            queues: 1,
            ..Default::default()
        })),
        ..Default::default()
    }
}

impl Switch for Millrace {
    fn sockets(&self) -> [PathBuf; 3] {
        [0, 1, 2].map(|index| self.0.run().join(format!("guest{index}.sock")))
    }

    fn version(&self) -> String {
        self.0.version()
    }

    fn forward(&mut self, subject: Subject, _flows: u32) -> anyhow::Result<()> {
        ensure!(subject == Subject::Millrace, "Millrace has one way to forward");
        Ok(())
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        let workers = self.0.workers()?;
        let sum = |field: fn(&api::WorkerState) -> u64| workers.iter().map(field).sum();
        Ok(WorkerCounters {
            frames: sum(|worker| worker.frames),
            busy_cycles: sum(|worker| worker.busy_cycles),
            idle_cycles: sum(|worker| worker.idle_cycles),
            waited_ns: waited_ns(&self.workers()),
        })
    }

    fn workers(&self) -> Vec<u32> {
        threads(self.0.process().id(), "worker")
    }

    fn pause(&self) {
        self.0.process().pause();
    }

    fn resume(&self) {
        self.0.process().resume();
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.0.check()
    }
}
