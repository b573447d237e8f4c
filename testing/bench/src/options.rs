//! What is told on the command line in the same words to more than one row? A row flattens the groups that it honours, and
//! no other.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

/// The longest sample of a first look, and how many there are at most.
const QUICK_MS: u64 = 300;
const QUICK_ROUNDS: usize = 3;

/// Whom Millrace is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Open vSwitch with DPDK
    OvsDpdk,
    /// Nobody
    None,
}

/// How often each subject is measured.
#[derive(Debug, Clone, Args)]
pub struct Repeats {
    /// Samples of each subject and case
    #[arg(long, default_value_t = 7)]
    pub rounds: usize,
    /// Few and short samples, for a first look
    #[arg(long)]
    pub quick: bool,
}

impl Repeats {
    /// With at most `quick_rounds` if it is to be quick, or an error if they make no sense.
    pub(crate) fn normalized(&self, quick_rounds: usize) -> anyhow::Result<Self> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let rounds = if self.quick { self.rounds.min(quick_rounds) } else { self.rounds };
        Ok(Self { rounds, quick: self.quick })
    }
}

/// How often and how long, where a sample may be shorter than a second.
#[derive(Debug, Clone, Args)]
pub struct Samples {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub repeats: Repeats,
    /// Length of a sample in milliseconds
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub sample_ms: u64,
}

impl Samples {
    /// As [`Repeats::normalized`]; quick samples are short.
    pub(crate) fn normalized(&self, quick_rounds: usize) -> anyhow::Result<Self> {
        ensure!(self.sample_ms > 0, "--sample-ms must be at least 1");
        let repeats = self.repeats.normalized(quick_rounds)?;
        let sample_ms = if repeats.quick { self.sample_ms.min(QUICK_MS) } else { self.sample_ms };
        Ok(Self { repeats, sample_ms })
    }
}

/// The switch that is measured.
#[derive(Debug, Clone, Args)]
pub struct Measured {
    /// The CPU of a switch's worker
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    pub worker_cpu: usize,
    /// The program whose `switch` subcommand is measured; by default this one
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

impl Measured {
    /// The program whose `switch` is measured.
    pub(crate) fn program(&self) -> anyhow::Result<PathBuf> {
        match &self.program {
            Some(program) => Ok(program.clone()),
            None => std::env::current_exe().context("cannot find this program's own file"),
        }
    }

    /// An error if CPU `other` of the option `option` is the worker's too.
    pub(crate) fn check_apart(&self, option: &str, other: usize) -> anyhow::Result<()> {
        ensure!(self.worker_cpu != other, "--worker-cpu and {option} must be two CPUs");
        Ok(())
    }
}

/// The two CPUs of a measurement whose load has one of its own.
#[derive(Debug, Clone, Args)]
pub struct Cpus {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub measured: Measured,
    /// The load's CPU
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    pub load_cpu: usize,
}

impl Cpus {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.measured.check_apart("--load-cpu", self.load_cpu)
    }
}

/// What runs where, and how undisturbed, between vhost-user ports.
#[derive(Debug, Clone, Args)]
pub struct Place {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub cpus: Cpus,
    /// Real-time priority for worker and load, where the machine is not quiet. What else runs on the two CPUs waits
    #[arg(long)]
    pub realtime: bool,
}

/// Where the result goes, besides the table.
#[derive(Debug, Clone, Default, Args)]
pub struct Files {
    /// Writes the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes a picture, as SVG and PNG, into this directory
    #[arg(long, value_name = "DIR")]
    pub chart: Option<PathBuf>,
}

/// How a row between vhost-user ports measures, and what it does with the result.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Whom to compare with
    #[arg(long, value_enum, default_value = "ovs-dpdk")]
    pub peer: Peer,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub samples: Samples,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub place: Place,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub files: Files,
    /// Measures the peer alone
    #[arg(long, hide = true)]
    pub only_peer: bool,
}

impl Options {
    /// With what `--quick` means, or an error if they make no sense.
    pub(crate) fn normalized(&self) -> anyhow::Result<Self> {
        let mut options = self.clone();
        options.samples = options.samples.normalized(QUICK_ROUNDS)?;
        options.place.cpus.check()?;
        ensure!(!(options.only_peer && options.peer == Peer::None), "nobody to measure");
        Ok(options)
    }

    /// Samples of each subject and case.
    pub(crate) fn rounds(&self) -> usize {
        self.samples.repeats.rounds
    }

    /// The worker's CPU.
    pub(crate) fn worker_cpu(&self) -> usize {
        self.place.cpus.measured.worker_cpu
    }

    /// The load's CPU.
    pub(crate) fn load_cpu(&self) -> usize {
        self.place.cpus.load_cpu
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> anyhow::Result<Options> {
        Cli::try_parse_from([&["row"], words].concat())?.options.normalized()
    }

    #[test]
    fn options_when_quick_ask_for_few_and_short_samples() {
        let options = parse(&["--quick", "--sample-ms", "200"]).unwrap();
        assert_eq!((options.rounds(), options.samples.sample_ms), (3, 200));
        assert_eq!(parse(&["--quick"]).unwrap().samples.sample_ms, 300);
        assert_eq!(parse(&["--quick", "--rounds", "1"]).unwrap().rounds(), 1);
    }

    #[test]
    fn options_when_impossible_are_refused() {
        for words in [
            &["--rounds", "0"][..],
            &["--sample-ms", "0"],
            &["--load-cpu", "0"],
            &["--only-peer", "--peer", "none"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
