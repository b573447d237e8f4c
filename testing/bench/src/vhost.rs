//! What does a packet cost between two vhost-user ports? `millrace bench vhost`.
//!
//! One worker on one core, the load on another, and OVS-DPDK beside us in the same run.

use anyhow::ensure;
use clap::Args;

use crate::bare;
use crate::case::Case;
pub use crate::case::FrameKind;
use crate::lab::{self, Plan};
use crate::options::Options;
use crate::report::Report;
use crate::rows;
use crate::subject::Subject;
pub use crate::traffic::LoadKind;

const EXAMPLES: &str = "\
Examples:
  millrace bench vhost --peer ovs-dpdk                       all sizes, about two minutes
  millrace bench vhost --quick --frames 64,1500              a first look
  millrace bench vhost --load macswap --json result.json --chart .
  millrace bench vhost --breakdown                           where the cycles go, stage by stage

It needs root, two CPUs, about 3 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk).";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct VhostArgs {
    /// Frame sizes in bytes (60 to 1514), and `tso` for 64 KB TCP segments
    #[arg(long, value_delimiter = ',', default_value = "64,512,1500,tso", value_name = "BYTES,...")]
    pub frames: Vec<FrameKind>,
    /// What drives the ports
    #[arg(long, value_enum, default_value = "light")]
    pub load: LoadKind,
    /// Instead of comparing: Millrace's cycles by stage (rings, switch, copy), in this process
    #[arg(long)]
    pub breakdown: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub options: Options,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &VhostArgs) -> anyhow::Result<()> {
    if args.breakdown {
        bare::breakdown(&args.options.normalized()?, &args.frames)
    } else {
        report(args).map(drop)
    }
}

pub(crate) fn report(args: &VhostArgs) -> anyhow::Result<Report> {
    let mut frames = args.frames.clone();
    if args.load != LoadKind::Light {
        frames.retain(|frame| *frame != FrameKind::Large);
    }
    ensure!(!frames.is_empty(), "nothing to measure: 64 KB frames are for the light load only");
    let plan = Plan {
        row: rows::VHOST,
        load: args.load,
        switches: vec![vec![Subject::Millrace], vec![Subject::OvsNormal, Subject::OvsInPort]],
        cases: frames.into_iter().map(Case::plain).collect(),
    };
    lab::run(&args.options.normalized()?, plan)
}
