//! What does a process tell while it runs? Changes of state, on stderr; packets are never logged.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Libraries whose debug output would drown ours: asked for by name only (`--log debug,h2=debug`).
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tonic=info,tower=info,netlink_proto=info";

/// Sends the log to stderr, filtered by `filter` (`info`, or `millrace=debug,reconcile=trace`).
///
/// # Errors
/// The filter is no filter.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .with_context(|| format!("--log {filter:?} is no filter: try `--log debug`"))?;
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(false)
        .init();
    Ok(())
}
