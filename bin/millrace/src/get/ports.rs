//! `millrace get ports`: who is attached, and what moved?

use std::collections::BTreeMap;

use local_api::switch_v1 as api;
use serde::Serialize;

use super::{GetArgs, join};
use crate::client;
use crate::output::Row;

/// All ports, and the ledger: `total.rx_frames + total.copies == total.tx_frames + total.dropped_frames` once nothing
/// moves, removed ports included.
#[derive(Serialize)]
struct Answer {
    ports: Vec<Port>,
    total: Counters,
}

#[derive(Serialize)]
struct Port {
    number: u32,
    name: String,
    kind: &'static str,
    device: String,
    network: u32,
    macs: Vec<String>,
    ips: Vec<String>,
    mtu_bytes: u32,
    link_up: bool,
    detail: String,
    workers: Vec<u32>,
    queues: Vec<Queue>,
    #[serde(flatten)]
    counters: Counters,
}

/// A receive queue, and the worker that polls it.
#[derive(Serialize)]
struct Queue {
    worker: u32,
    busy_cycles: u64,
    moves: u64,
}

impl From<api::QueueState> for Queue {
    fn from(state: api::QueueState) -> Self {
        let api::QueueState { worker, busy_cycles, moves } = state;
        Self { worker, busy_cycles, moves }
    }
}

#[derive(Serialize)]
struct Counters {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
    copies: u64,
    copied_bytes: u64,
    dropped_frames: u64,
    drops: BTreeMap<String, u64>,
}

impl From<Option<api::Counters>> for Counters {
    fn from(counters: Option<api::Counters>) -> Self {
        let counters = counters.unwrap_or_default();
        Self {
            rx_frames: counters.rx_frames,
            rx_bytes: counters.rx_bytes,
            tx_frames: counters.tx_frames,
            tx_bytes: counters.tx_bytes,
            copies: counters.copies,
            copied_bytes: counters.copied_bytes,
            dropped_frames: counters.drops.values().sum(),
            drops: counters.drops.into_iter().collect(),
        }
    }
}

impl From<api::PortState> for Port {
    fn from(state: api::PortState) -> Self {
        let port = state.port.unwrap_or_default();
        let (kind, device) = match port.device {
            Some(api::port::Device::Tap(tap)) => ("tap", tap.netdev),
            Some(api::port::Device::VhostUser(vhost)) => ("vhost-user", vhost.socket_path),
            Some(api::port::Device::Vduse(vduse)) => ("vduse", vduse.name),
            Some(api::port::Device::Netdev(netdev)) => ("netdev", netdev.netdev),
            None => ("-", String::new()),
        };
        Self {
            number: port.number,
            name: port.name,
            kind,
            device,
            network: port.network,
            macs: port.macs,
            ips: port.ips,
            mtu_bytes: port.mtu_bytes,
            link_up: state.link_up,
            detail: state.detail,
            workers: state.workers,
            queues: state.queues.into_iter().map(Queue::from).collect(),
            counters: state.counters.into(),
        }
    }
}

impl Row for Port {
    const HEADS: &'static [&'static str] =
        &["PORT", "NAME", "KIND", "LINK", "MAC", "IP", "RX", "TX", "DROPPED", "WORKER", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.name.clone(),
            self.kind.to_owned(),
            if self.link_up { "up" } else { "down" }.to_owned(),
            join(&self.macs),
            join(&self.ips),
            self.counters.rx_frames.to_string(),
            self.counters.tx_frames.to_string(),
            self.counters.dropped_frames.to_string(),
            join(&self.queues.iter().map(|queue| queue.worker).collect::<Vec<_>>()),
            self.detail.clone(),
        ]
    }
}

pub(super) async fn show(args: &GetArgs) -> anyhow::Result<()> {
    let answer = client::switch(&args.run_dir).list_ports(api::ListPortsRequest {}).await;
    let state = client::switch_says(answer, &args.run_dir)?;
    let answer =
        Answer { ports: state.ports.into_iter().map(Port::from).collect(), total: state.total.into() };
    super::answer(args, &answer.ports, "no ports: the agent makes one for each interface of a pod", &answer)
}
