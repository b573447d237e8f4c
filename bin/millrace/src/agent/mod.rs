//! `millrace agent`: who attaches pods to networks? Control of one node; may restart at any time without touching a packet.

use std::path::PathBuf;

/// The arguments of `millrace agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// The networks that pods can be attached to (YAML). Read again when it changes.
    #[arg(long, env = "MILLRACE_NETWORKS", value_name = "FILE", default_value = "/etc/millrace/networks.yaml")]
    pub networks: PathBuf,
    /// Where the agent keeps what it must not forget: attachments, addresses, port numbers.
    #[arg(long, env = "MILLRACE_STATE_DIR", value_name = "DIR", default_value = "/var/lib/millrace")]
    pub state_dir: PathBuf,
    /// Where sockets are: cni.sock and agent.sock of the agent, vhost/ of the pods, switch.sock of the switch.
    #[arg(long, env = "MILLRACE_RUN_DIR", value_name = "DIR", default_value = "/run/millrace")]
    pub run_dir: PathBuf,
    /// The switch's socket [default: RUN_DIR/switch.sock]
    #[arg(long, env = "MILLRACE_SWITCH_SOCKET", value_name = "PATH")]
    pub switch_socket: Option<PathBuf>,
    /// Where the kubelet keeps the volumes of pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The agent cannot start: the text says what to do.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let _ = args;
    anyhow::bail!("being written")
}
