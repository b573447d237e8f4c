//! What can be asked, and which module answers it?

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{agent, demo, doctor, get, logging, output, switch, top, trace};

const EXAMPLES: &str = "\
Examples:
  millrace demo                                  see it work, without a cluster
  millrace switch --cpus 2,3                     run the datapath on two CPUs
  millrace agent --networks networks.yaml        attach pods to the networks of a file
  millrace get ports                             what is attached, and what moved
  millrace get drops                             which packets ended here, and why
  millrace trace --from shop/web --to 10.1.0.7 --tcp 80   what happens to a packet, and why
  millrace top                                   live rates
  millrace doctor                                what this node can do, and what it lacks";

/// Accelerated container networking: a user-space switch for pods
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to log to stderr: error, warn, info, debug, trace, or a filter such as `info,reconcile=debug`
    #[arg(long, value_name = "FILTER", env = "MILLRACE_LOG", default_value = "info", global = true)]
    log: String,
    /// End when the process that started this one ends
    #[arg(long, global = true, hide = true)]
    exit_with_parent: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the switch: the process that moves the packets
    Switch(switch::SwitchArgs),
    /// Run the agent: the process that attaches pods and programs the switch
    Agent(agent::AgentArgs),
    /// Show ports, networks, attachments, flows, drops, workers or stations
    Get(get::GetArgs),
    /// Explain in words what would happen to a packet, without sending it
    Trace(trace::TraceArgs),
    /// Watch rates by port and the workers' CPU use
    Top(top::TopArgs),
    /// See what this node can do, and what to do about the rest
    Doctor(doctor::DoctorArgs),
    /// See it work, without a cluster: pods on one node beside the kernel, then two nodes with a service and a policy
    Demo(demo::DemoArgs),
    /// Measure, beside a peer in the same run
    #[command(subcommand)]
    Bench(Bench),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  source <(millrace completions bash)")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Packets between two vhost-user ports, beside OVS-DPDK
    Vhost(bench::vhost::VhostArgs),
    /// The same over numbers of flows
    Sweep(bench::sweep::SweepArgs),
    /// New connections to a service behind a policy, beside OVS-DPDK
    Connections(bench::connections::ConnectionsArgs),
    /// Programs, changes and connections with many services, policies and identities
    Scale(bench::scale::ScaleArgs),
    /// What a hostile neighbour costs two other pods
    Attack(bench::attack::AttackArgs),
    /// Millrace beside its rings without a switch, and the bare copy
    Limit(bench::limit::LimitArgs),
    /// TCP between two kernel pods, beside veth + bridge and Open vSwitch
    Pods(bench::pods::PodsArgs),
    /// Round trips, wake-ups and idleness, beside veth + bridge and OVS-DPDK
    Latency(bench::latency::LatencyArgs),
    /// All of these, and the page that shows them
    All(bench::all::AllArgs),
    /// A few of these, held against stored ratios
    Regress(bench::regress::RegressArgs),
}

/// Does what was asked.
///
/// # Errors
/// What went wrong, and what to do about it.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    logging::start(&cli.log)?;
    if cli.exit_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    match cli.command {
        Command::Switch(args) => switch::run(args),
        Command::Agent(args) => asynchronous()?.block_on(agent::run(args)),
        Command::Get(args) => asynchronous()?.block_on(get::run(&args)),
        Command::Trace(args) => asynchronous()?.block_on(trace::run(&args)),
        Command::Top(args) => asynchronous()?.block_on(top::run(&args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(Bench::Vhost(args)) => bench::vhost::run(&args),
        Command::Bench(Bench::Sweep(args)) => bench::sweep::run(&args),
        Command::Bench(Bench::Connections(args)) => bench::connections::run(&args),
        Command::Bench(Bench::Scale(args)) => bench::scale::run(&args),
        Command::Bench(Bench::Attack(args)) => bench::attack::run(&args),
        Command::Bench(Bench::Limit(args)) => bench::limit::run(&args),
        Command::Bench(Bench::All(args)) => bench::all::run(&args),
        Command::Bench(Bench::Regress(args)) => bench::regress::run(&args),
        Command::Bench(Bench::Pods(args)) => bench::pods::run(&args),
        Command::Bench(Bench::Latency(args)) => bench::latency::run(&args),
        Command::Completions { shell } => completions(shell),
    }
}

fn asynchronous() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}

fn completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_when_checked_has_no_contradiction() {
        Cli::command().debug_assert();
    }
}
