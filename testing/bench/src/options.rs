//! What every row that compares switches between vhost-user ports can be told on the command line.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

/// Whom Millrace is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Open vSwitch with DPDK
    OvsDpdk,
    /// Nobody
    None,
}

/// How to measure, and what to do with the result.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Whom to compare with
    #[arg(long, value_enum, default_value = "ovs-dpdk")]
    pub peer: Peer,
    /// Samples of each subject and case
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Length of a sample in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub sample_ms: u64,
    /// Few and short samples, for a first look
    #[arg(long)]
    pub quick: bool,
    /// The worker's CPU
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    pub worker_cpu: usize,
    /// The load's CPU
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub load_cpu: usize,
    /// Real-time priority for worker and load, where the machine is not quiet. What else runs on the two CPUs waits
    #[arg(long)]
    pub realtime: bool,
    /// Writes the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a picture, as SVG and PNG, into this directory
    #[arg(long, value_name = "DIR")]
    pub chart: Option<PathBuf>,
    /// Measures the peer alone
    #[arg(long, hide = true)]
    pub only_peer: bool,
    /// The program whose `switch` subcommand is measured; by default this one
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

impl Options {
    /// With what `--quick` means, or an error if they make no sense.
    pub(crate) fn normalized(&self) -> anyhow::Result<Self> {
        let mut options = self.clone();
        if options.quick {
            options.rounds = options.rounds.min(3);
            options.sample_ms = options.sample_ms.min(300);
        }
        ensure!(options.rounds > 0 && options.sample_ms > 0, "--rounds and --sample-ms must be at least 1");
        ensure!(options.worker_cpu != options.load_cpu, "--worker-cpu and --load-cpu must be two CPUs");
        ensure!(!(options.only_peer && options.peer == Peer::None), "nobody to measure");
        Ok(options)
    }
}

/// The program whose `switch` is measured: by default this one.
pub(crate) fn program(chosen: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    match chosen {
        Some(program) => Ok(program.clone()),
        None => std::env::current_exe().context("cannot find this program's own file"),
    }
}
