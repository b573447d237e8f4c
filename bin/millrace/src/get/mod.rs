//! `millrace get`: what is there? Each noun has a module that asks for it and says how a row looks.

mod attachments;
mod drops;
mod flows;
mod networks;
mod nodes;
mod ports;
mod stations;
mod workers;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::output::{self, Format, Row};
use crate::run_dir::RunDir;

const EXAMPLES: &str = "\
Examples:
  millrace get ports                  counters, link and workers of every port
  millrace get drops                  which packets ended in the switch, by port and reason
  millrace get flows --limit 20       what the flow caches hold
  millrace get attachments -o json    every interface of every pod, for a program";

/// What to show.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    run_dir: RunDir,
    /// What to show
    noun: Noun,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Flows: how many to show at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Noun {
    /// The switch's ports, with their counters and links
    #[value(alias = "port")]
    Ports,
    /// The networks that pods can be attached to
    #[value(alias = "network")]
    Networks,
    /// The nodes that this one knows, and the ways to them
    #[value(alias = "node")]
    Nodes,
    /// Every interface of every pod
    #[value(alias = "attachment")]
    Attachments,
    /// The flow caches' entries
    #[value(alias = "flow")]
    Flows,
    /// Packets that ended in the switch, by port and reason
    #[value(alias = "drop")]
    Drops,
    /// The threads that move packets
    #[value(alias = "worker")]
    Workers,
    /// The stations that the networks know
    #[value(alias = "station")]
    Stations,
}

/// Shows what was asked for.
///
/// # Errors
/// The process to ask does not answer.
pub(crate) async fn run(args: &GetArgs) -> anyhow::Result<()> {
    match args.noun {
        Noun::Ports => ports::show(args).await,
        Noun::Networks => networks::show(args).await,
        Noun::Nodes => nodes::show(args).await,
        Noun::Attachments => attachments::show(args).await,
        Noun::Flows => flows::show(args).await,
        Noun::Drops => drops::show(args).await,
        Noun::Workers => workers::show(args).await,
        Noun::Stations => stations::show(args).await,
    }
}

/// Prints `rows` as a table (`nothing`: what to say if there are none), or `answer` as JSON.
fn answer<R: Row>(args: &GetArgs, rows: &[R], nothing: &str, answer: &impl Serialize) -> anyhow::Result<()> {
    match args.output {
        Format::Table => output::print(&output::table(rows, nothing)),
        Format::Json => output::print_json(answer),
    }
}

/// The ports' names by number, for answers that name ports.
async fn port_names(args: &GetArgs) -> anyhow::Result<std::collections::HashMap<u32, String>> {
    let mut switch = crate::client::switch(&args.run_dir);
    let answer = switch.list_ports(local_api::switch_v1::ListPortsRequest {}).await;
    let ports = crate::client::switch_says(answer, &args.run_dir)?.ports;
    Ok(ports.into_iter().filter_map(|state| state.port).map(|port| (port.number, port.name)).collect())
}

/// A list in one cell.
fn join<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// Milliseconds as people say them.
fn age(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{:.1}s", ms as f64 / 1000.0),
        _ => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
    }
}
