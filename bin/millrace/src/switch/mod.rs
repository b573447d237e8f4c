//! The switch process: how does the datapath run, and obey the agent?
//!
//! The workers poll; one more thread serves the socket by which the agent says what ports and networks there are. A
//! switch that starts is empty. The agent notices the new instance and sends everything; persistent netdevs are taken up
//! again under the pods, so that a restart, clean or not, costs them the packets of that moment and nothing else.

mod balance;
mod board;
mod convert;
mod devices;
mod policy;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use local_api::switch_v1::switch_server::SwitchServer;
use local_api::uds::Listener;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use worker::{Config, Datapath, allowed_cpus};

use crate::run_dir::RunDir;
use board::Board;
use devices::Machine;
use service::Service;

/// A whole program of a large node in one message.
const MAX_REQUEST_BYTES: usize = 64 << 20;

const EXAMPLES: &str = "\
Examples:
  millrace switch                     one worker, on the last CPU that this process may use
  millrace switch --cpus 2,3          two workers, and queues move to the one that has time for them
  millrace switch --run-dir /tmp/m    beside another switch, or without root (in a user namespace)

The switch answers on RUN_DIR/switch.sock. It needs CAP_NET_ADMIN for kernel netdevs, and CAP_SYS_ADMIN to create them
in pods. Stopping it leaves the pods their interfaces, addresses and routes; the next switch takes them up again.";

/// How the switch runs.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SwitchArgs {
    #[command(flatten)]
    run_dir: RunDir,
    /// The CPUs to run workers on, one each. By default one worker on the last CPU that this process may use: the first
    /// ones are where the kernel handles most interrupts
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The longest that a worker without packets polls on before it sleeps, in microseconds, about. How long it does
    /// follows the gaps between packets
    #[arg(long, value_name = "US", default_value_t = 50)]
    spin_us: u64,
    /// Leave each receive queue on the worker that it begins on. By default queues move from a worker that is overloaded
    /// to one that is not
    #[arg(long)]
    fixed_placement: bool,
}

/// Runs the switch until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start.
pub(crate) fn run(args: SwitchArgs) -> anyhow::Result<()> {
    let (run_dir, fixed_placement) = (args.run_dir.clone(), args.fixed_placement);
    let config = config(args);
    let datapath = Datapath::start(&config)?;
    keep_off(&config.cpus);
    let board = Arc::new(Board::new(datapath, Box::new(Machine::new())));
    // One thread is plenty for the socket; what blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(8)
        .enable_all()
        .build()?;
    if !fixed_placement && config.cpus.len() > 1 {
        runtime.spawn(balance::run(board.clone()));
    }
    runtime.block_on(serve(&run_dir, &board, &config))?;
    drain(&board);
    Ok(())
}

fn config(args: SwitchArgs) -> Config {
    let mut cpus = args.cpus;
    if cpus.is_empty() {
        cpus.extend(allowed_cpus().last());
    }
    let mut config = Config::on(cpus);
    config.spin = std::time::Duration::from_micros(args.spin_us);
    config
}

/// Moves this thread, and those that it starts, away from the workers' CPUs, where there are others.
fn keep_off(workers: &[usize]) {
    let mut rest = CpuSet::new();
    for cpu in allowed_cpus().into_iter().filter(|cpu| !workers.contains(cpu)) {
        rest.set(cpu);
    }
    if rest.count() > 0 {
        // Only a matter of speed: on a kernel that refuses, control shares the workers' CPUs.
        let _ = sched_setaffinity(None, &rest);
    }
}

async fn serve(run_dir: &RunDir, board: &Arc<Board>, config: &Config) -> anyhow::Result<()> {
    let dir = &run_dir.run_dir;
    std::fs::create_dir_all(dir).with_context(|| {
        format!("cannot make the directory {}: run as root, or choose another with --run-dir", dir.display())
    })?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let socket = Listener::bind(&run_dir.switch_socket())?;
    let service = SwitchServer::new(Service::new(board.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX);
    tracing::info!(
        socket = %run_dir.switch_socket().display(), cpus = ?config.cpus, instance = board.instance,
        "the switch is ready"
    );
    let server = Server::builder().add_service(service).serve_with_incoming(socket);
    // Not a graceful end: a CLI that holds its connection (`top`) must not keep the switch from ending.
    tokio::select! {
        ended = server => ended.context("the switch's socket failed"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Stops the workers and tells what they did.
fn drain(board: &Board) {
    let total = board.datapath.counters().total;
    board.datapath.shutdown();
    tracing::info!(
        rx_frames = total.rx_frames,
        tx_frames = total.tx_frames,
        drops = total.drops.total(),
        "the switch ends; persistent netdevs stay with their pods"
    );
}
