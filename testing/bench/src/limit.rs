//! How near is the switch to what these rings and this machine can do at all? `millrace bench limit`.

use clap::Args;

use crate::case::{Case, FrameKind};
use crate::lab::{self, Plan};
use crate::options::{Options, Peer};
use crate::report::Report;
use crate::rows;
use crate::subject::Subject;
use crate::traffic::LoadKind;

const EXAMPLES: &str = "\
Examples:
  millrace bench limit                  Millrace, its rings without a switch, and the bare copy of the same bytes

It needs root, two CPUs and about 1 GiB for huge pages.";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct LimitArgs {
    /// Frame sizes in bytes (60 to 1514)
    #[arg(long, value_delimiter = ',', default_value = "64,512,1500", value_name = "BYTES,...")]
    pub frames: Vec<FrameKind>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub options: Options,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &LimitArgs) -> anyhow::Result<()> {
    report(args).map(drop)
}

pub(crate) fn report(args: &LimitArgs) -> anyhow::Result<Report> {
    let plan = Plan {
        row: rows::LIMIT,
        load: LoadKind::Light,
        switches: vec![vec![Subject::Millrace], vec![Subject::Limit], vec![Subject::Copy]],
        cases: args.frames.iter().copied().map(Case::plain).collect(),
    };
    lab::run(&Options { peer: Peer::None, ..args.options.normalized()? }, plan)
}
