//! Millrace between two pods: a `millrace switch` process that makes their netdevs, told so over its socket as the agent
//! does.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::Netns;
use local_api::switch_v1 as api;
use local_api::switch_v1::switch_client::SwitchClient;
use local_api::uds;

use super::contender::{Contender, Link, Parts};
use crate::netns::{self, ADDRESSES, NETDEV};
use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts `program switch` with its worker on `worker_cpu`, and connects two new pods by it.
pub(crate) fn start(program: &Path, worker_cpu: usize, other_cpu: usize) -> anyhow::Result<Link> {
    let folder = tempfile::Builder::new().prefix("millrace-bench").tempdir()?;
    let mut switch = Process::start(program, other_cpu, folder.path(), |command| {
        command.arg("switch").arg("--run-dir").arg(folder.path());
        command.args(["--cpus", &worker_cpu.to_string()]);
    })?;
    let socket = folder.path().join("switch.sock");
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() {
        switch.check()?;
        ensure!(Instant::now() < deadline, "the switch makes no socket {}", socket.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    let pods = [netns::pod()?, netns::pod()?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let version = runtime.block_on(program_switch(&socket, &pods))?;
    netns::configure(&pods)?;
    Ok(Link::new(Contender::Millrace, version, Parts::Millrace { switch, _folder: folder }, pods))
}

/// Makes network and ports, and returns the switch's version.
async fn program_switch(socket: &Path, pods: &[Netns; 2]) -> anyhow::Result<String> {
    let mut client = SwitchClient::new(uds::channel(socket));
    let info = client.info(api::InfoRequest {}).await.context("the switch does not answer")?;
    let network = api::Network {
        number: 1,
        name: "bench".into(),
        flood_unknown: true,
        mac_age_ms: 300_000,
        mac_limit: 1024,
    };
    let request = api::ApplyRequest {
        from_version: 0,
        to_version: 1,
        put_networks: vec![network],
        put_ports: pods.iter().enumerate().map(|(index, pod)| port(index, pod)).collect(),
        ..Default::default()
    };
    let answer = client.apply(request).await.context("the switch takes no program")?.into_inner();
    ensure!(!answer.resync, "the switch has a program already");
    if let Some(failed) = answer.ports.iter().find(|port| !port.error.is_empty()) {
        bail!("port {}: {}", failed.number, failed.error);
    }
    Ok(info.into_inner().version)
}

fn port(index: usize, pod: &Netns) -> api::Port {
    api::Port {
        number: index as u32 + 1,
        name: format!("pod{index}"),
        network: 1,
        macs: vec![format!("02:00:00:00:4f:0{index}")],
        ips: vec![ADDRESSES[index].to_string()],
        port_security: true,
        mac_limit: 16,
        mtu_bytes: 1500,
        device: Some(api::port::Device::Tap(api::TapDevice {
            netns: pod.path().to_string_lossy().into_owned(),
            netdev: NETDEV.into(),
            queues: 1,
        })),
        ..Default::default()
    }
}
