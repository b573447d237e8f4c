//! The subject Millrace: a real `millrace switch` process with one worker, programmed over its socket as the agent does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use local_api::switch_v1 as api;
use local_api::switch_v1::switch_client::SwitchClient;
use local_api::uds;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::process::Process;
use crate::subject::{MACS, Scene, Subject, Switch, WorkerCounters, threads, waited_ns};

const PATIENCE: Duration = Duration::from_secs(10);
/// The guests' addresses: port security checks them.
pub(crate) const IPS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// That of who attacks.
const ATTACKER_IP: &str = "10.0.0.3";

/// A running `millrace switch`.
#[derive(Debug)]
pub(crate) struct Millrace {
    client: SwitchClient<Channel>,
    runtime: Runtime,
    process: Process,
    folder: tempfile::TempDir,
    version: String,
}

impl Millrace {
    /// Starts `program switch` with its worker on `worker_cpu`, and makes its ports.
    pub(crate) fn start(
        program: &Path,
        worker_cpu: usize,
        other_cpu: usize,
        scene: Scene,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-bench").tempdir()?;
        let mut process = Process::start(program, other_cpu, folder.path(), |command| {
            command.arg("switch").arg("--run-dir").arg(folder.path());
            command.args(["--cpus", &worker_cpu.to_string()]);
        })?;
        let socket = folder.path().join("switch.sock");
        let deadline = Instant::now() + PATIENCE;
        while !socket.exists() {
            process.check()?;
            ensure!(Instant::now() < deadline, "the switch makes no socket {}", socket.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut client = runtime.block_on(async { SwitchClient::new(uds::channel(&socket)) });
        let info = runtime
            .block_on(client.info(api::InfoRequest {}))
            .context("the switch does not answer")?
            .into_inner();
        let mut millrace = Self { client, runtime, process, folder, version: info.version };
        millrace.add_ports(scene)?;
        Ok(millrace)
    }

    fn add_ports(&mut self, scene: Scene) -> anyhow::Result<()> {
        let network = api::Network {
            number: 1,
            name: "bench".into(),
            flood_unknown: true,
            mac_age_ms: 300_000,
            mac_limit: 65_536,
        };
        let sockets = self.sockets();
        let used = if scene.attacked { &sockets[..] } else { &sockets[..2] };
        let put_ports = used.iter().enumerate().map(|(index, socket)| port(index, socket, scene)).collect();
        let request = api::ApplyRequest {
            from_version: 0,
            to_version: 1,
            put_networks: vec![network],
            put_ports,
            ..Default::default()
        };
        let answer = self
            .runtime
            .block_on(self.client.apply(request))
            .context("the switch takes no program")?
            .into_inner();
        ensure!(!answer.resync, "the switch has a program already");
        if let Some(failed) = answer.ports.iter().find(|port| !port.error.is_empty()) {
            bail!("port {}: {}", failed.number, failed.error);
        }
        Ok(())
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
        [0, 1, 2].map(|index| self.folder.path().join(format!("guest{index}.sock")))
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn forward(&mut self, subject: Subject, _flows: u32) -> anyhow::Result<()> {
        ensure!(subject == Subject::Millrace, "Millrace has one way to forward");
        Ok(())
    }

    fn counters(&mut self) -> anyhow::Result<WorkerCounters> {
        let answer = self
            .runtime
            .block_on(self.client.list_workers(api::ListWorkersRequest {}))
            .context("the switch does not answer")?;
        let workers = answer.into_inner().workers;
        let sum = |field: fn(&api::WorkerState) -> u64| workers.iter().map(field).sum();
        Ok(WorkerCounters {
            frames: sum(|worker| worker.frames),
            busy_cycles: sum(|worker| worker.busy_cycles),
            idle_cycles: sum(|worker| worker.idle_cycles),
            waited_ns: waited_ns(&self.workers()),
        })
    }

    fn workers(&self) -> Vec<u32> {
        threads(self.process.id(), "worker")
    }

    fn pause(&self) {
        self.process.pause();
    }

    fn resume(&self) {
        self.process.resume();
    }

    fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }
}
