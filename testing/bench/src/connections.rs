//! What does a new connection to a service cost, behind a policy? `millrace bench connections`.
//!
//! A client opens short TCP connections to a service; the switch chooses the endpoint, translates both ways, follows the
//! connection's state, and asks the endpoint's policy. OVS-DPDK does the same with `ct(commit,nat)` ([`crate::services`]).

use clap::Args;
use guest::load::Flows;

use crate::case::{Case, FrameKind, Work};
use crate::lab::{self, Plan};
use crate::options::Options;
use crate::report::Report;
use crate::rows;
use crate::services;
use crate::subject::Subject;
use crate::traffic::LoadKind;

const EXAMPLES: &str = "\
Examples:
  millrace bench connections            new connections, long ones and denied ones, against OVS-DPDK
  millrace bench connections --quick    a first look

It needs root, two CPUs, about 3 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk).";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub options: Options,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &ConnectionsArgs) -> anyhow::Result<()> {
    report(args).map(drop)
}

pub(crate) fn report(args: &ConnectionsArgs) -> anyhow::Result<Report> {
    let case = |work| Case {
        flows: Flows::Connections(services::exchange(work).tuples()),
        work,
        ..Case::plain(FrameKind::Plain(64))
    };
    let works = [Work::Connections { requests: 1 }, Work::LONG, Work::Denied];
    let plan = Plan {
        row: rows::CONNECTIONS,
        load: LoadKind::Tcp,
        switches: vec![vec![Subject::Millrace], vec![Subject::OvsConntrack]],
        cases: works.map(case).to_vec(),
    };
    lab::run(&args.options.normalized()?, plan)
}
