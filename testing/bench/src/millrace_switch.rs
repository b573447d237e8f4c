//! A running `millrace switch` with one worker, programmed over its socket as the agent does.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::Netns;
use local_api::switch_v1 as api;
use local_api::switch_v1::switch_client::SwitchClient;
use local_api::uds;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::process::Process;

/// A whole program, however large.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// Stations of the network: more than any measurement has.
const MAC_LIMIT: u32 = 65_536;

/// Network 1, of one node.
pub(crate) fn network() -> api::Network {
    api::Network {
        number: 1,
        name: "bench".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: MAC_LIMIT,
        gateway: None,
        dhcp: None,
        overlay: None,
        localnet: None,
    }
}

/// The process, ended when it is dropped.
#[derive(Debug)]
pub(crate) struct SwitchProcess {
    client: SwitchClient<Channel>,
    runtime: Runtime,
    process: Process,
    folder: tempfile::TempDir,
    version: String,
}

impl SwitchProcess {
    /// Starts `program switch` with its worker on `worker_cpu`. It has no port yet.
    pub(crate) fn start(program: &Path, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Self> {
        Self::start_in(None, program, worker_cpu, other_cpu)
    }

    /// The same in the network namespace `host`.
    pub(crate) fn start_in(
        host: Option<&Netns>,
        program: &Path,
        worker_cpu: usize,
        other_cpu: usize,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-bench").tempdir()?;
        let started = if host.is_some() { Path::new("nsenter") } else { program };
        let mut process = Process::start(started, other_cpu, folder.path(), |command| {
            if let Some(host) = host {
                command.arg(format!("--net={}", host.path().display())).arg(program);
            }
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
        let mut client = runtime.block_on(async {
            SwitchClient::new(uds::channel(&socket)).max_encoding_message_size(MAX_MESSAGE_BYTES)
        });
        let info = runtime
            .block_on(client.info(api::InfoRequest {}))
            .context("the switch does not answer")?
            .into_inner();
        Ok(Self { client, runtime, process, folder, version: info.version })
    }

    /// Makes network 1, with `ports` in it.
    pub(crate) fn add_ports(&mut self, ports: Vec<api::Port>) -> anyhow::Result<()> {
        self.apply(api::ApplyRequest {
            from_version: 0,
            to_version: 1,
            put_networks: vec![network()],
            put_ports: ports,
            ..Default::default()
        })
    }

    /// Programs it, for the first time or from the version that it has.
    pub(crate) fn apply(&mut self, request: api::ApplyRequest) -> anyhow::Result<()> {
        let answer = self
            .runtime
            .block_on(self.client.apply(request))
            .context("the switch takes no program")?
            .into_inner();
        ensure!(!answer.resync, "the switch has a program already");
        if let Some(failed) = answer.ports.iter().find(|port| !port.error.is_empty()) {
            bail!("port {}: {}", failed.number, failed.error);
        }
        let of_networks = answer.networks.iter().map(|network| &network.error);
        if let Some(error) = of_networks.chain(&answer.object_errors).find(|error| !error.is_empty()) {
            bail!("the switch left something out: {error}");
        }
        Ok(())
    }

    /// What its workers have counted.
    pub(crate) fn workers(&mut self) -> anyhow::Result<Vec<api::WorkerState>> {
        let answer = self
            .runtime
            .block_on(self.client.list_workers(api::ListWorkersRequest {}))
            .context("the switch does not answer")?;
        Ok(answer.into_inner().workers)
    }

    /// Its run directory.
    pub(crate) fn run(&self) -> &Path {
        self.folder.path()
    }

    /// Its version.
    pub(crate) fn version(&self) -> String {
        self.version.clone()
    }

    /// What forwards.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// An error if it has died.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }
}
