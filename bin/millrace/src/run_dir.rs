//! Where do the processes of one node meet? In one directory of sockets.

use std::path::PathBuf;

use clap::Args;

/// The directory option of the subcommands.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunDir {
    /// The directory of the sockets by which switch, agent and CLI meet
    #[arg(long, value_name = "DIR", env = "MILLRACE_RUN_DIR", default_value = "/run/millrace")]
    pub(crate) run_dir: PathBuf,
}

impl RunDir {
    /// The switch's socket.
    pub(crate) fn switch_socket(&self) -> PathBuf {
        self.run_dir.join("switch.sock")
    }

    /// The agent's socket for the CLI.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }
}
