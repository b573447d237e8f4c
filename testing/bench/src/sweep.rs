//! What does the number of flows cost? `millrace bench sweep`.

use clap::{Args, ValueEnum};
use guest::load::Flows;

use crate::case::{Case, FrameKind};
use crate::lab::{self, Plan};
use crate::options::Options;
use crate::report::Report;
use crate::rows;
use crate::subject::Subject;
use crate::traffic::LoadKind;

/// Rules of OVS take seconds to be made, and datapath flows longer: beyond this many they are not measured.
const MAX_RULES: u32 = 100_000;

const EXAMPLES: &str = "\
Examples:
  millrace bench sweep                             connections between two stations, against OVS-DPDK
  millrace bench sweep --of stations               pairs of stations: each is a flow of its own to a switch
  millrace bench sweep --flows 1,10000 --quick     a first look

It needs root, two CPUs, about 5 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk).";

/// What makes a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FlowsOf {
    /// The ports of UDP, between two stations
    Connections,
    /// The MAC addresses: every pair of many stations
    Stations,
}

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepArgs {
    /// Numbers of flows
    #[arg(long, value_delimiter = ',', default_value = "1,1000,10000,100000,1000000", value_name = "N,...")]
    pub flows: Vec<u32>,
    /// What makes a flow
    #[arg(long, value_enum, default_value = "connections")]
    pub of: FlowsOf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub options: Options,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &SweepArgs) -> anyhow::Result<()> {
    report(args).map(drop)
}

pub(crate) fn report(args: &SweepArgs) -> anyhow::Result<Report> {
    let flows = |count: u32| match args.of {
        FlowsOf::Connections => Flows::Connections(count),
        FlowsOf::Stations => Flows::Stations(count),
    };
    let case = |count: u32| Case { flows: flows(count), ..Case::plain(FrameKind::Plain(64)) };
    let mut switches = vec![vec![Subject::Millrace], vec![Subject::OvsNormal]];
    if args.of == FlowsOf::Connections && args.flows.iter().all(|count| *count <= MAX_RULES) {
        switches.push(vec![Subject::OvsRules]);
    }
    let row = if args.of == FlowsOf::Connections { rows::SWEEP } else { rows::STATIONS };
    let cases = args.flows.iter().map(|count| case(*count)).collect();
    lab::run(&args.options.normalized()?, Plan { row, load: LoadKind::Light, switches, cases })
}
